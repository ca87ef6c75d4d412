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

CREATE FUNCTION pgtrickle_changes.immediate_now() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- When the client's message came, in microseconds.
SELECT '(pg_catalog.date_part(''epoch'', pg_catalog.statement_timestamp()) OPERATOR(pg_catalog.*) 1000000::pg_catalog.float8)::pg_catalog.int8'
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_now IS 'What tells the statements that a client sends apart, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_opened(p_id bigint, p_otherwise text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The block reads only; it gets no transaction id.
BEGIN
    RETURN format($q$
    BEGIN
        __pgt_opened := pg_catalog.currval('pgtrickle_changes.opened_%s'::pg_catalog.regclass);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        __pgt_opened := %s;
    END;
$q$, p_id, p_otherwise);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_opened IS 'What reads which statement of its client''s this session last said was under way, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_noted(p_id bigint, p_before text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A statement that a client sent (nothing called it) is said to be under way by when that message came, in a sequence that only the engine and the owner
-- can set.  If it fails, so has the message: whoever finds another time there knows that it is over.  It gets its note from the first statement that
-- begins while it is under way, or again, if what wrote that one was undone; the sign says that there was such a statement.
-- A partition that isn't known yet asks for a note.
-- p_before: what comes before the transaction's number, which a note asks for and the sequence doesn't.
BEGIN
    IF pgtrickle_changes.immediate_roots(p_id) <> '{}' THEN
        RETURN p_before || pgtrickle_changes.immediate_note(p_id, 'o');
    END IF;
    RETURN pgtrickle_changes.immediate_opened(p_id, format('pg_catalog.setval(''pgtrickle_changes.opened_%s''::pg_catalog.regclass, 1)', p_id)) || format($q$
    IF pg_catalog.abs(__pgt_opened) OPERATOR(pg_catalog.=) %2$s THEN
        %5$sIF __pgt_opened OPERATOR(pg_catalog.>) 0 THEN
            PERFORM pg_catalog.setval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass, pg_catalog.nextval(%3$L::pg_catalog.regclass));
            PERFORM pg_catalog.setval('pgtrickle_changes.opened_%1$s'::pg_catalog.regclass, OPERATOR(pg_catalog.-) __pgt_opened);
        END IF;
        IF NOT EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()
                          AND u.number OPERATOR(pg_catalog.>) pg_catalog.currval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass)) THEN
            %4$s
        END IF;
        %4$s
    ELSE
        GET DIAGNOSTICS __pgt_stack = PG_CONTEXT;
        IF (CASE WHEN pg_catalog.strpos(__pgt_stack, pg_catalog.chr(10)) OPERATOR(pg_catalog.=) 0
                 THEN pg_catalog.setval('pgtrickle_changes.opened_%1$s'::pg_catalog.regclass, %2$s) END) IS NULL THEN
            %5$s%4$s
        END IF;
    END IF;$q$, p_id, pgtrickle_changes.immediate_now(), pg_get_serial_sequence(format('pgtrickle_changes.under_way_%s', p_id), 'number'),
        pgtrickle_changes.immediate_note(p_id, 'o'), p_before);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_noted IS 'How it is noted that a statement is under way, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_take_back(p_id bigint, p_count text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Most often the statement is the one that the client sent, and no other has come meanwhile.
BEGIN
    RETURN pgtrickle_changes.immediate_opened(p_id, '0') || format($q$
    %3$s    IF __pgt_opened OPERATOR(pg_catalog.=) %2$s THEN
        __pgt_open := pg_catalog.setval('pgtrickle_changes.opened_%1$s'::pg_catalog.regclass, 1);
    ELSE
        __pgt_open := pgtrickle_changes.maintain_%1$s_back(__pgt_opened);
        __pgt_held := __pgt_open OPERATOR(pg_catalog.<) 0;
        __pgt_open := pg_catalog.abs(__pgt_open);
    END IF;$q$, p_id, pgtrickle_changes.immediate_now(), p_count);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_take_back IS 'How a statement that is at its end says so, and counts the others that are under way, and its rows, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_back(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Counts the notes, this statement's own with them, below 0 if something is held back, and takes one back.
-- A transaction's thousandth statement must not read what the former ones left in the index: what this session last set "closed" to,
-- which nobody else can set, is the last number of which all notes are known to be gone.
-- A session numbers its notes without gaps; so if the last number that it gave follows that, there has been no other note than this
-- statement's own, and nothing needs to be read.
-- Whoever has no note is the statement that the client sent, and all that came meanwhile was undone, notes and all; or it doesn't know what came, for
-- the session has been told to forget (DISCARD SEQUENCES): then all is computed anew.
BEGIN
    RETURN format($q$
DECLARE
    __pgt_closed pg_catalog.int8;
    __pgt_last   pg_catalog.int8;
    __pgt_open   pg_catalog.int8 := 1;
    __pgt_held   pg_catalog.bool := false;
BEGIN
    BEGIN
        __pgt_closed := pg_catalog.currval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass);
        __pgt_last := pg_catalog.currval(%2$L::pg_catalog.regclass);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        __pgt_closed := 0;
    END;
    IF (__pgt_last OPERATOR(pg_catalog.=) (__pgt_closed OPERATOR(pg_catalog.+) 1)) IS NOT TRUE THEN
        SELECT pg_catalog.count(*) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::pg_catalog."char"), coalesce(pg_catalog.bool_or(u.what OPERATOR(pg_catalog.<>) 'o'::pg_catalog."char"), false),
               pg_catalog.max(u.number) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::pg_catalog."char")
          INTO __pgt_open, __pgt_held, __pgt_last FROM pgtrickle_changes.under_way_%1$s AS u
         WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.>) __pgt_closed;
    END IF;
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u
     WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.=) __pgt_last;
    IF NOT FOUND THEN
        __pgt_open := __pgt_open OPERATOR(pg_catalog.+) 1;
        IF p_opened OPERATOR(pg_catalog.<>) (OPERATOR(pg_catalog.-) %3$s) THEN
            %4$s
            __pgt_held := true;
        END IF;
    ELSIF __pgt_open OPERATOR(pg_catalog.=) 1 AND NOT __pgt_held THEN
        __pgt_closed := pg_catalog.setval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass, __pgt_last);
    END IF;
    IF __pgt_open OPERATOR(pg_catalog.=) 1 AND p_opened OPERATOR(pg_catalog.<>) 1 THEN
        PERFORM pg_catalog.setval('pgtrickle_changes.opened_%1$s'::pg_catalog.regclass, 1);
    END IF;
    RETURN CASE WHEN __pgt_held THEN OPERATOR(pg_catalog.-) __pgt_open ELSE __pgt_open END;
END
$q$, p_id, pg_get_serial_sequence(format('pgtrickle_changes.under_way_%s', p_id), 'number'), pgtrickle_changes.immediate_now(),
        pgtrickle_changes.immediate_note(p_id, 't'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_back IS 'How a statement takes its note back and counts the others, where there may be some, as PL/pgSQL';

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
