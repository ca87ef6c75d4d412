-- How many rows a program that stands expects of a source's change.
--
-- Its plans are made without knowing which change rows are new.  PostgreSQL takes a sixth of the buffer for these: a third that pass an
-- inequality, and half of them an expression.  But a buffer keeps what the slowest of its readers hasn't read yet, another stream table that is
-- refreshed once an hour, say; and then a sixth of it may be a thousand times what is new, for which whole tables are read.  So the condition
-- also asks what every row passes and the planner can't know to be true, until it expects no more rows than there are.

CREATE FUNCTION pgtrickle_changes.unknown_bounds() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format(E'    __pgt_least pg_catalog.int8 := %L;\n    __pgt_most pg_catalog.int8 := %L;\n    __pgt_end pg_catalog.xid8 := %L;\n',
                  -9223372036854775808, 9223372036854775807, '18446744073709551615');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.unknown_bounds IS 'Declares what no change row is below or above, as variables, of whose values a plan knows nothing';

CREATE FUNCTION pgtrickle_changes.always_true(p_excess float8) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An inequality with an unknown value is taken for a third, of an expression as well, and of each expression by itself; two that bound the
-- same column on both sides for a two-hundredth.  The number of the transaction is bounded on one side anyway.
DECLARE
    v_excess float8 := p_excess;
    v_text   text := '';
BEGIN
    IF v_excess > 27 THEN
        v_text := v_text || ' AND xid <= __pgt_end';
        v_excess := v_excess * 3 / 200;
    END IF;
    IF v_excess > 81 THEN
        v_text := v_text || ' AND w >= __pgt_least AND w <= __pgt_most';
        v_excess := v_excess / 200;
    END IF;
    FOR v_place IN 1 .. 4 LOOP
        EXIT WHEN v_excess <= 1;
        v_text := v_text || format(' AND w * %s >= __pgt_least', v_place);
        v_excess := v_excess / 3;
    END LOOP;
    RETURN v_text;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.always_true IS 'What every change row passes, and the planner takes for one in so many';
