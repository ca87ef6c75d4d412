-- Which statements are under way (decision 0010).

CREATE FUNCTION pgtrickle_changes.immediate_note(p_id bigint, p_what "char") RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('INSERT INTO pgtrickle_changes.under_way_%s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), %L);', p_id, p_what);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_note IS 'The statement that notes what is under way';

CREATE FUNCTION pgtrickle_changes.immediate_take_back(p_id bigint, p_count text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Counts the notes, and takes one back; the rows that changed are counted with that, which is one statement less.
-- A transaction's thousandth statement must not read what the former ones left in the index: what this session last set "closed" to,
-- which nobody else can set, is the last number of which all notes are known to be gone.
-- A session numbers its notes without gaps; so if the last number that it gave follows that, there has been no other note than this
-- statement's own, and nothing needs to be read.
-- The block reads only; it gets no transaction id.
BEGIN
    RETURN format($q$
    BEGIN
        __pgt_closed := pg_catalog.currval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass);
        __pgt_last := pg_catalog.currval(%2$L::pg_catalog.regclass);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        __pgt_closed := 0;
    END;
    __pgt_open := 1;
    __pgt_held := false;
    IF (__pgt_last OPERATOR(pg_catalog.=) (__pgt_closed OPERATOR(pg_catalog.+) 1)) IS NOT TRUE THEN
        SELECT pg_catalog.count(*) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::"char"), pg_catalog.bool_or(u.what OPERATOR(pg_catalog.<>) 'o'::"char"),
               pg_catalog.max(u.number) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::"char")
          INTO __pgt_open, __pgt_held, __pgt_last FROM pgtrickle_changes.under_way_%1$s AS u
         WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.>) __pgt_closed;
    END IF;
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u
     WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.=) __pgt_last
    RETURNING %3$s INTO __pgt_rows;
    IF __pgt_open OPERATOR(pg_catalog.=) 1 AND NOT __pgt_held THEN
        __pgt_closed := pg_catalog.setval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass, __pgt_last);
    END IF;$q$, p_id, pg_get_serial_sequence(format('pgtrickle_changes.under_way_%s', p_id), 'number'), p_count);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_take_back IS 'How a statement that is at its end takes its note back and counts the others, and its rows, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_hold(p_id bigint, p_source oid, p_columns text[], p_delta text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('WITH h AS (INSERT INTO pgtrickle_changes.held_%1$s_%2$s (%3$sw, xid) SELECT d.*, pg_catalog.pg_current_xact_id() FROM (%4$s) AS d)'
                  ' INSERT INTO pgtrickle_changes.under_way_%1$s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), ''h'')', p_id, p_source,
        (SELECT coalesce(string_agg(format('%I, ', c.buffer_column), '' ORDER BY c.attnum), '') FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c),
        p_delta);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hold IS 'The statement that holds a change back, and notes that';
