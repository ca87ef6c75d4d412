-- How many rows a program that stands expects of a source's change.
--
-- Its plans are made without knowing which change rows are new.  PostgreSQL takes a third of the buffer for these, or more.  But a buffer keeps
-- what the slowest of its readers hasn't read yet, another stream table that is refreshed once an hour, say; and then that may be a thousand
-- times what is new, for which whole tables are read.  So the condition also asks what every row passes and the planner can't know to be true,
-- until it expects no more rows than there are.

CREATE FUNCTION pgtrickle_changes.frontier_bounds() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN E'    __pgt_running pg_catalog.xid8[] := ARRAY(SELECT pg_catalog.pg_snapshot_xip($1) UNION ALL SELECT $2);\n'
           '    __pgt_xmax pg_catalog.xid8 := pg_catalog.pg_snapshot_xmax($1);\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.frontier_bounds IS 'Declares who was running in a frontier, with who took it, and its upper bound, as variables';

CREATE FUNCTION pgtrickle_changes.unknown_bounds() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format(E'    __pgt_least pg_catalog.int8 := %L;\n    __pgt_most pg_catalog.int8 := %L;\n', -9223372036854775808, 9223372036854775807);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.unknown_bounds IS 'Declares what no change row is below or above, as variables, of whose values a plan knows nothing';

CREATE FUNCTION pgtrickle_changes.always_true(p_excess float8) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An inequality with an unknown value is taken for a third, of an expression as well, and of each expression by itself; two that bound the
-- same column on both sides for a two-hundredth.
DECLARE
    v_excess float8 := p_excess;
    v_text   text := '';
    v_column text;
BEGIN
    FOREACH v_column IN ARRAY ARRAY['w', 'seq'] LOOP
        EXIT WHEN v_excess <= 81;
        v_text := v_text || format(' AND %1$I >= __pgt_least AND %1$I <= __pgt_most', v_column);
        v_excess := v_excess / 200;
    END LOOP;
    FOR v_place IN 1 .. 4 LOOP
        EXIT WHEN v_excess <= 1;
        v_text := v_text || format(' AND w * %s >= __pgt_least', v_place);
        v_excess := v_excess / 3;
    END LOOP;
    RETURN v_text;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.always_true IS 'What every change row passes, and the planner takes for one in so many';
