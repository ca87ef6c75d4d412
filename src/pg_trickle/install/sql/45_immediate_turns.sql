-- Whose turn it is, and in which order turns and rows are locked (decision 0010, "Deadlocks").
--
-- A statement takes the turns of all stream tables that its source feeds before it locks a row of any, and one above others before theirs: those triggers come first
-- by their names, and stream tables above others have triggers on the tables at the bottom, which do nothing else.  And who finds that somebody else has a turn waits
-- for it BEFORE his statement, when it hasn't locked anything yet; a transaction that has the turn may go on writing the rows that he is about to write.

CREATE FUNCTION pgtrickle_changes.immediate_turn(p_id bigint, p_named boolean, p_then text DEFAULT '', p_side oid DEFAULT 0) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- One transaction at a time from here on; the next statement's snapshot sees what the former ones did.  An update, so that a
-- transaction whose snapshot is older fails with 40001; as does one to which the turn itself isn't there yet.  Once a transaction: of a row
-- updated a thousand times it would read a thousand versions.
-- The sources are named in the owner's own functions so that PostgreSQL locks them, as the program will, before it updates the row: who has
-- truncated one waits for the turn, and who has the turn must not wait for him then.
-- Where writers of a source may share it, the row also says which source was written, 0 for several, and by how many transactions in a row.  An older snapshot begins nothing that it has no part in.
DECLARE
    v_shared boolean := pgtrickle_changes.immediate_shared(p_id) <> '{}';
BEGIN
    RETURN CASE WHEN p_named THEN pgtrickle_changes.immediate_below(p_id) ELSE '' END
        || CASE WHEN v_shared THEN format(E'IF %s OPERATOR(pg_catalog.>=) -1 THEN\n            PERFORM pgtrickle_changes.maintain_%s_alone();\n        END IF;\n        ', pgtrickle_changes.immediate_side(p_id), p_id) ELSE '' END
        || format($q$UPDATE pgtrickle_changes.turn_%1$s AS t SET holder = pg_catalog.pg_current_xact_id()%6$s%3$s%7$s;
        IF FOUND THEN
            %2$s%8$s%5$s
        ELSIF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'read committed'
              AND NOT EXISTS (SELECT FROM pgtrickle_changes.turn_%1$s) THEN
            %4$s
        END IF;
$q$, p_id, pgtrickle_changes.immediate_taken(p_id), CASE WHEN p_named THEN ' AND ' || pgtrickle_changes.immediate_mention(p_id) END,
        pgtrickle_changes.immediate_again(p_id, 'The maintenance of a stream table has begun since the snapshot of this one.'), p_then,
        CASE WHEN v_shared THEN format(', side = CASE WHEN t.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() THEN 0::pg_catalog.oid ELSE %1$s::pg_catalog.oid END,'
                                       ' run = CASE WHEN t.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id() AND t.side OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid AND %1$s OPERATOR(pg_catalog.>) 0::pg_catalog.int8'
                                       ' THEN least(t.run OPERATOR(pg_catalog.+) 1, 200) ELSE 0 END'
                                       ' WHERE (t.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id() OR t.side OPERATOR(pg_catalog.<>) %1$s::pg_catalog.oid AND t.side OPERATOR(pg_catalog.<>) 0::pg_catalog.oid)', p_side)
             ELSE ' WHERE t.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id()' END,
        CASE WHEN v_shared THEN ' RETURNING t.run INTO __pgt_side' END,
        CASE WHEN v_shared THEN format(E'\n            IF coalesce(%s OPERATOR(pg_catalog.>=) -1 OR pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.<>) ''read committed'' AND %1$s IS NOT NULL,'
                                       ' __pgt_side OPERATOR(pg_catalog.>=) 200 AND pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.=) ''read committed'') THEN\n                PERFORM pgtrickle_changes.maintain_%s_sides();\n            END IF;',
                                       pgtrickle_changes.immediate_side(p_id), p_id) END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_turn IS 'What lets one transaction at a time maintain a stream table, and what is done when it has got that far, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_turn_ahead(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pgtrickle_changes.immediate_locks(pgtrickle_changes.immediate_bottom_tables(p_id) || pgtrickle_changes.immediate_sources(p_id))
           || E'\n            ' || pgtrickle_changes.immediate_turn(p_id, false);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_turn_ahead IS 'What takes a turn, and locks the sources first, before it is known whether it is needed, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_taken(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Seen by others at once, and not undone.  It need not be true: who reads it asks whether that transaction is still under way, and then waits for
-- the turn itself.
BEGIN
    RETURN format('PERFORM pg_catalog.setval(''pgtrickle_changes.taker_%s''::pg_catalog.regclass, pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8);', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_taken IS 'What tells others that a transaction has, or waits for, a stream table''s turn, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_snapshot(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Once a transaction, with the turn: from then on the sources are locked against whoever would write them anew.
BEGIN
    RETURN format(E'\n            IF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.<>) ''read committed'' THEN\n'
                  '                PERFORM pgtrickle_changes.maintain_%s_unrewritten();\n            END IF;', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_snapshot IS 'What refuses to read sources in a snapshot that doesn''t show what is in them, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_ready(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Where it isn't so the turn isn't taken early: the maintenance will say what is wrong.
BEGIN
    RETURN format('NOT (%s) AND %s', pgtrickle_changes.immediate_unsound(p_table), pgtrickle_changes.immediate_may(p_table, true));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_ready IS 'Whether what takes a turn can name the sources, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_busy(p_id bigint, p_then text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Or where others share it, and this isn't a writer of their source; but for who has a slot, and would be waited for.  Most statements find it neither taken nor shared so, by one look at each.
DECLARE
    v_taker  text := format('pg_catalog.pg_sequence_last_value(''pgtrickle_changes.taker_%s''::pg_catalog.regclass)::pg_catalog.text::pg_catalog.xid8', p_id);
    v_side   text := pgtrickle_changes.immediate_side(p_id);
    v_shared boolean := pgtrickle_changes.immediate_shared(p_id) <> '{}';
BEGIN
    RETURN format($q$
    IF pg_catalog.pg_xact_status(%1$s) OPERATOR(pg_catalog.=) 'in progress'%2$s THEN
        %3$sIF %1$s IS DISTINCT FROM pg_catalog.pg_current_xact_id_if_assigned()%4$s THEN
        %5$s
        END IF;
    END IF;
$q$, v_taker, CASE WHEN v_shared THEN format(' OR %s OPERATOR(pg_catalog.<>) ALL (ARRAY[-2, TG_RELID::pg_catalog.int8])', v_side) END,
        CASE WHEN v_shared THEN format(E'__pgt_side := %s;\n        ', v_side) END,
        CASE WHEN v_shared THEN ' AND NOT ' || pgtrickle_changes.immediate_sharing(p_id) END, p_then);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_busy IS 'What is done where another transaction has a stream table''s turn, or waits for it, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_moment() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN 'pg_catalog.concat_ws('' '', TG_OP, TG_RELID, pg_catalog.statement_timestamp())';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_moment IS 'What tells the statement of a client, and the table that it writes, from others, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_opening() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who has no number yet has locked no row; our own notes and locks would give him one.  Anybody may set this: what comes of it is who waits where.
BEGIN
    RETURN format($q$IF pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM pg_catalog.set_config('pgtrickle.opening', %s, true);
    END IF;
$q$, pgtrickle_changes.immediate_moment());
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_opening IS 'What remembers that a transaction begins with this statement, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_gate_of_slots(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- One slot after the other, and only those that weren't free.
BEGIN
    RETURN format($q$
        IF __pgt_side OPERATOR(pg_catalog.>=) -1 AND __pgt_side OPERATOR(pg_catalog.<>) TG_RELID::pg_catalog.int8
           AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' THEN
            FOR __pgt_slot IN SELECT s.slot FROM pgtrickle_changes.slots_%1$s AS s WHERE s.slot OPERATOR(pg_catalog.<>) ALL (__pgt_free) LOOP
                BEGIN
                    PERFORM FROM pgtrickle_changes.slots_%1$s AS s WHERE s.slot OPERATOR(pg_catalog.=) __pgt_slot FOR SHARE;
                    RAISE EXCEPTION USING ERRCODE = 'TK003';
                EXCEPTION WHEN SQLSTATE 'TK003' THEN
                    NULL;
                END;
            END LOOP;
        END IF;$q$, p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_gate_of_slots IS 'What waits for those who share a stream table''s turn before a statement, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_gate(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Before a statement.  Who has locked nothing yet stands in line, and keeps his place until he ends: one after the other writes his rows.  Who has locked
-- rows doesn't, as nobody may wait for those who could be waiting for these.  Both wait until who has the turn has ended; nobody takes it here: the statement
-- may have to wait for rows, and who has those may have to write what takes the turn.
-- Who may share the turn doesn't stand in line, or all who have waited for somebody together would go on one by one.  Who wants it whole waits also for those who share it,
-- and has neither the turn nor a slot meanwhile: whoever needs it, with rows that those may want who are waited for, would wait for him.
DECLARE
    v_shared boolean := pgtrickle_changes.immediate_shared(p_id) <> '{}';
    v_again text := pgtrickle_changes.immediate_impatience(p_id, '', '');
BEGIN
    RETURN pgtrickle_changes.immediate_busy(p_id, format($q$%1$s%2$s
        IF pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.=) 1 AND pg_catalog.current_setting('pgtrickle.opening', true) OPERATOR(pg_catalog.=) (%3$s)%6$s THEN
            %4$s
            LOCK TABLE ONLY pgtrickle_changes.turn_%5$s IN SHARE UPDATE EXCLUSIVE MODE;
        END IF;
        BEGIN
            PERFORM FROM pgtrickle_changes.turn_%5$s FOR SHARE;%7$s
            RAISE EXCEPTION USING ERRCODE = 'TK003';
        EXCEPTION WHEN SQLSTATE 'TK003' THEN
            NULL;
        END;%8$s$q$, CASE WHEN v_again <> '' THEN format(E'IF pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.>) 1 THEN\n%s        END IF;\n        ', v_again) END,
        pgtrickle_changes.immediate_opening(), pgtrickle_changes.immediate_moment(), pgtrickle_changes.immediate_taken(p_id), p_id,
        CASE WHEN v_shared THEN ' AND __pgt_side IS DISTINCT FROM TG_RELID::pg_catalog.int8' END,
        CASE WHEN v_shared THEN format(E'\n            __pgt_free := ARRAY(SELECT s.slot FROM pgtrickle_changes.slots_%s AS s FOR SHARE SKIP LOCKED);', p_id) END,
        CASE WHEN v_shared THEN pgtrickle_changes.immediate_gate_of_slots(p_id) END));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_gate IS 'How a statement waits for a stream table''s turn before it locks anything, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_impatience(p_id bigint, p_before text, p_after text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The turn of a stream table above others comes after what those have locked, where the snapshot is older: waiting for it would be a
-- deadlock with whoever has it and wants those, and end in 40001 all the same, unless he rolled back.
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.immediate_bottom(p_id)) THEN
        RETURN '';
    END IF;
    RETURN format(E'            IF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.<>) ''read committed'' THEN\n                %s%s%s\n            END IF;\n',
                  p_before, pgtrickle_changes.immediate_again(p_id, 'Another transaction is changing what this one would have to change.'), p_after);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_impatience IS 'What fails instead of waiting for a turn out of order, if (between the two texts) it would have to, as PL/pgSQL; empty where that can''t be';

CREATE FUNCTION pgtrickle_changes.immediate_turn_after(p_id bigint, p_source oid, p_whole boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shares boolean := p_source = ANY (pgtrickle_changes.immediate_shared(p_id));
    v_turn   text := pgtrickle_changes.immediate_turn(p_id, true, pgtrickle_changes.immediate_snapshot(p_id), CASE WHEN v_shares THEN p_source ELSE 0 END);
BEGIN
    IF v_shares AND NOT p_whole THEN
        RETURN pgtrickle_changes.immediate_share(p_id, p_source, v_turn);
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = p_source AND u.refresh_mode = 'IMMEDIATE')
                THEN pgtrickle_changes.immediate_impatience(p_id, format(
                         E'%sPERFORM FROM pgtrickle_changes.turn_%s WHERE %s FOR NO KEY UPDATE SKIP LOCKED;\n                IF NOT FOUND THEN\n                    ',
                         pgtrickle_changes.immediate_below(p_id), p_id, pgtrickle_changes.immediate_mention(p_id)), E'\n                END IF;')
                ELSE '' END || v_turn;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_turn_after IS 'What takes a stream table''s turn when a source was written, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_coming(p_source oid, p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A statement of several kinds (ON CONFLICT, MERGE) fires the triggers of each, in this order: DELETE, UPDATE, INSERT.  At the first it takes the turns for what
-- the later ones have written, or it would have some of a later number by then.  By PostgreSQL's own counts, which a session's former transactions may have left higher;
-- of a partitioned table there are none.
BEGIN
    RETURN CASE WHEN p_event NOT IN ('del', 'upd') THEN NULL
                WHEN EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source AND c.relkind = 'p') THEN 'true'
                ELSE 'pg_catalog.pg_stat_get_xact_tuples_inserted(TG_RELID)'
                     || CASE p_event WHEN 'del' THEN ' OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(TG_RELID)' ELSE '' END
                     || ' OPERATOR(pg_catalog.>) 0' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_coming IS 'Whether a statement may have written what its triggers of a later kind will maintain, as an expression; NULL: no kind is later';

CREATE FUNCTION pgtrickle_changes.immediate_begin(p_id bigint, p_turn boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Of updates only those wait that may concern the stream table (make_turn_triggers); TRUNCATE has the source to itself, so nobody has a turn above it.
BEGIN
    RETURN CASE WHEN p_turn THEN format(E'    IF TG_OP OPERATOR(pg_catalog.=) ANY (''{INSERT,DELETE}''::pg_catalog.text[]) THEN\n%s    END IF;\n', pgtrickle_changes.immediate_gate(p_id)) ELSE '' END
           || '    ' || pgtrickle_changes.immediate_noted(p_id, CASE WHEN p_turn THEN pgtrickle_changes.immediate_opening() ELSE '' END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_begin IS 'What waits for a stream table''s turn, if it has one, and notes that a statement is under way, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_gated_columns(p_table pgtrickle.pgt_stream_tables, p_source oid) RETURNS name[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An update of other columns needn't wait.  Only those that the query names: they can't be dropped or given another type anyway.
BEGIN
    RETURN ARRAY(SELECT a.attname FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c CROSS JOIN LATERAL unnest(c.columns) AS u(attnum)
                   JOIN pg_attribute AS a ON a.attrelid = c.relid AND a.attnum = u.attnum
                  WHERE c.relid = p_source AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_gated_columns IS 'The columns whose update waits for a stream table''s turn before it locks anything';

CREATE FUNCTION pgtrickle_changes.immediate_first(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether the stream table will change isn't known yet.  In older snapshots its turn may only be taken if it does: taking it is what fails.
BEGIN
    RETURN format($q$
    IF TG_WHEN OPERATOR(pg_catalog.=) 'BEFORE' THEN
        IF TG_OP OPERATOR(pg_catalog.<>) 'TRUNCATE' THEN
%1$s        END IF;
    ELSIF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' THEN
        %2$s
    END IF;$q$, pgtrickle_changes.immediate_gate(p_id), pgtrickle_changes.immediate_turn_ahead(p_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_first IS 'What takes a stream table''s turn when what its sources are made from is written, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.make_turn_triggers(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- On the sources an update waits if it may concern the stream table; what else does is seen to by the trigger that notes the statement.  A source may be
-- what another one is made from as well: of what that reads, the stream table itself may read nothing.
DECLARE
    v_id    bigint := p_table.pgt_id;
    v_gate  text := format('maintain_%s_gate', p_table.pgt_id);
    v_first text := format('maintain_%s_first', p_table.pgt_id);
    v_direct oid[] := pgtrickle_changes.immediate_sources(p_table.pgt_id);
    v_table record;
BEGIN
    PERFORM pgtrickle_changes.make_engine_trigger_function(p_table, v_gate, pgtrickle_changes.immediate_gate(v_id));
    FOR v_table IN SELECT s.oid, pgtrickle_changes.immediate_gated_columns(p_table, s.oid)
                          || coalesce((SELECT b.columns FROM pgtrickle_changes.immediate_bottom(v_id) AS b WHERE b.relid = s.oid), '{}') AS columns
                     FROM unnest(v_direct) AS s(oid) LOOP
        PERFORM pgtrickle_changes.make_turn_trigger(v_id, v_table.oid, 'gate', 'BEFORE', '', v_table.columns, v_gate);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.immediate_bottom(v_id)) THEN
        RETURN;
    END IF;
    PERFORM pgtrickle_changes.make_engine_trigger_function(p_table, v_first, pgtrickle_changes.immediate_first(v_id));
    PERFORM pgtrickle_changes.make_lent_function(p_table, format('maintain_%s_below', v_id), pgtrickle_changes.immediate_locks(pgtrickle_changes.immediate_bottom_tables(v_id)));
    FOR v_table IN SELECT b.relid AS oid, b.columns FROM pgtrickle_changes.immediate_bottom(v_id) AS b LOOP
        IF v_table.oid <> ALL (v_direct) THEN
            PERFORM pgtrickle_changes.make_turn_trigger(v_id, v_table.oid, 'gate', 'BEFORE', 'INSERT OR DELETE OR TRUNCATE', v_table.columns, v_first);
        END IF;
        PERFORM pgtrickle_changes.make_turn_trigger(v_id, v_table.oid, 'first', 'AFTER', 'INSERT OR DELETE OR TRUNCATE', v_table.columns, v_first);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_turn_triggers IS 'Makes the triggers that wait for a stream table''s turn, and those that take it ahead of all others';

CREATE FUNCTION pgtrickle_changes.make_turn_trigger(p_id bigint, p_source oid, p_event text, p_at text, p_events text, p_columns name[], p_function text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger  name := pgtrickle_changes.immediate_trigger(p_id, p_event, true);
    v_update   text := 'UPDATE OF ' || (SELECT string_agg(DISTINCT quote_ident(c), ', ') FROM unnest(p_columns) AS c);
    v_relation oid;
BEGIN
    IF v_update IS NULL AND p_events = '' THEN
        RETURN;
    END IF;
    FOR v_relation IN SELECT b.relid FROM pgtrickle_changes.relations_below(p_source) AS b ORDER BY b.relid LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I %s %s ON %s FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle_changes.%I()', v_trigger, p_at,
                       concat_ws(' OR ', nullif(p_events, ''), v_update), v_relation::regclass, p_function);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', v_relation::regclass, v_trigger);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_turn_trigger IS 'Makes a trigger that waits for, or takes, a stream table''s turn';
