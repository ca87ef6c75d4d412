-- Under which settings the engine runs statements as an owner: in his runner, and in his functions that stand.

CREATE FUNCTION pgtrickle_changes.pinned_settings() RETURNS TABLE(name text, value text, is_creators boolean)
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What a query gives may depend on any of these.  What is the creator's is as in his session, where that is otherwise: the table keeps it.
BEGIN
    RETURN QUERY VALUES
        ('row_security', 'on', false), ('transform_null_equals', 'off', false), ('standard_conforming_strings', 'on', false),
        ('quote_all_identifiers', 'off', false),
        -- Beyond it a GIN index leaves out some of what it finds, any.
        ('gin_fuzzy_search_limit', '0', false),
        ('TimeZone', 'UTC', true), ('DateStyle', 'ISO, MDY', true), ('IntervalStyle', 'postgres', true), ('extra_float_digits', '1', true),
        ('bytea_output', 'hex', true), ('lc_monetary', 'C', true), ('lc_numeric', 'C', true), ('lc_time', 'C', true),
        ('default_text_search_config', 'pg_catalog.simple', true), ('array_nulls', 'on', true), ('xmlbinary', 'base64', true), ('xmloption', 'content', true);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pinned_settings() IS 'The settings that a query''s result may depend on, as they are pinned, and whether a stream table has its creator''s instead';

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
    SET join_collapse_limit = 16$set$ || (SELECT string_agg(format(' SET %I = %L', s.name, s.value), '') FROM pgtrickle_changes.pinned_settings() AS s);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.owner_settings() IS 'The settings under which statements run as an owner, as the clauses of a function';
