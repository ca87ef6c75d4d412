-- Under which settings the engine runs statements as an owner: in his runner, and in his functions that stand.

CREATE FUNCTION pgtrickle_changes.owner_settings() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN $set$
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    -- A delta begins with what changed, wherever that stands in a join of many tables, and looks the rest up.
    -- Change buffers are taken to hold more than they do, and random pages to be on a disk that turns: then
    -- the planner had rather read whole tables.
    SET random_page_cost = 1.1
    SET from_collapse_limit = 16
    SET join_collapse_limit = 16
    SET row_security = on
    SET transform_null_equals = off
    SET standard_conforming_strings = on
    SET "TimeZone" = 'UTC'
    SET "DateStyle" = 'ISO, MDY'
    SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET lc_monetary = 'C'
    SET lc_numeric = 'C'
    SET lc_time = 'C'
    SET default_text_search_config = 'pg_catalog.simple'$set$;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.owner_settings() IS 'The settings under which statements run as an owner, as the clauses of a function';
