-- Making and taking away what maintains an IMMEDIATE stream table, and whether it is still what the engine made.

CREATE FUNCTION pgtrickle_changes.make_immediate_tables(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- turn: whose row is updated by who maintains; what was written and how often (side, run); and the partitions that there were (tree).  taker: his transaction, for others to see; repaired: whose repair was the last.  under_way: a row for each statement under way
-- and each change held back, and held: those changes.  moved: rows under way to another partition, and rows of
-- partitioned tables that a statement has updated.  All but turn are empty between
-- statements, so a crash may empty them.  closed, opened: a number for each session.
DECLARE
    v_id     bigint := p_table.pgt_id;
    v_roots  oid[] := pgtrickle_changes.immediate_roots(p_table.pgt_id);
    v_shared boolean := pgtrickle_changes.immediate_shared(p_table.pgt_id) <> '{}';
    v_source record;
BEGIN
    EXECUTE format('CREATE TABLE pgtrickle_changes.turn_%s (holder xid8 NOT NULL%s%s) WITH (fillfactor = 10)', v_id,
                   CASE WHEN v_roots <> '{}' THEN ', tree oid[] NOT NULL' END,
                   CASE WHEN v_shared THEN ', side oid NOT NULL, run integer NOT NULL' END);
    EXECUTE format('INSERT INTO pgtrickle_changes.turn_%s SELECT ''0''%s%s', v_id,
                   CASE WHEN v_roots <> '{}' THEN ', ' || pgtrickle_changes.immediate_tree(v_roots) END,
                   CASE WHEN v_shared THEN ', 0, 0' END);
    EXECUTE format('CREATE UNLOGGED SEQUENCE pgtrickle_changes.taker_%s OWNED BY pgtrickle_changes.turn_%1$s.holder', v_id);
    EXECUTE format('COMMENT ON SEQUENCE pgtrickle_changes.taker_%s IS %L', v_id, 'The transaction that has, or last asked for, the turn of stream table ' || v_id);
    EXECUTE format('CREATE UNLOGGED SEQUENCE pgtrickle_changes.repaired_%s OWNED BY pgtrickle_changes.turn_%1$s.holder', v_id);
    EXECUTE format('COMMENT ON SEQUENCE pgtrickle_changes.repaired_%s IS %L', v_id, 'The transaction that has last repaired stream table ' || v_id);
    EXECUTE format('COMMENT ON TABLE pgtrickle_changes.turn_%s IS %L', v_id, 'Who maintains stream table ' || v_id);
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.turn_%s', v_id), 'SELECT, UPDATE');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.taker_%s', v_id), 'SELECT, UPDATE');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.repaired_%s', v_id), 'SELECT');
    PERFORM pgtrickle_changes.make_sides(p_table);
    EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.under_way_%s (xid xid8 NOT NULL, what "char" NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000000))'
                   ' WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0)', v_id);
    EXECUTE format('CREATE INDEX ON pgtrickle_changes.under_way_%s (xid, number)', v_id);
    EXECUTE format('CREATE UNLOGGED SEQUENCE pgtrickle_changes.closed_%s OWNED BY pgtrickle_changes.under_way_%1$s.number', v_id);
    EXECUTE format('COMMENT ON SEQUENCE pgtrickle_changes.closed_%s IS %L', v_id, 'Up to where a session''s notes are gone, for stream table ' || v_id);
    EXECUTE format('CREATE UNLOGGED SEQUENCE pgtrickle_changes.opened_%s MINVALUE -9223372036854775808 OWNED BY pgtrickle_changes.under_way_%1$s.number', v_id);
    EXECUTE format('COMMENT ON SEQUENCE pgtrickle_changes.opened_%s IS %L', v_id, 'When the statement came that a session''s client sent and that is under way, for stream table ' || v_id);
    EXECUTE format('COMMENT ON TABLE pgtrickle_changes.under_way_%s IS %L', v_id, 'Statements that write sources of stream table ' || v_id);
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.under_way_%s', v_id), 'SELECT, INSERT, DELETE');
    PERFORM pgtrickle_changes.lend(p_table, pg_get_serial_sequence(format('pgtrickle_changes.under_way_%s', v_id), 'number')::regclass, 'SELECT');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.closed_%s', v_id), 'SELECT, UPDATE');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.opened_%s', v_id), 'SELECT, UPDATE');
    FOR v_source IN
        SELECT d.source_relid AS oid, d.columns_used FROM pgtrickle.pgt_dependencies AS d
         WHERE d.pgt_id = v_id AND d.source_relid = ANY (pgtrickle_changes.immediate_sources(v_id))
    LOOP
        EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.held_%s_%s (xid xid8 NOT NULL, w integer NOT NULL%s)'
                       ' WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0)', v_id, v_source.oid,
                       (SELECT string_agg(format(', %I %s', c.buffer_column, c.type), '' ORDER BY c.attnum)
                          FROM pgtrickle_changes.read_columns(v_source.oid, v_source.columns_used) AS c));
        EXECUTE format('CREATE INDEX ON pgtrickle_changes.held_%s_%s (xid)', v_id, v_source.oid);
        PERFORM pgtrickle_changes.hand_over(p_table, format('pgtrickle_changes.held_%s_%s', v_id, v_source.oid), 'Changes held back for stream table');
    END LOOP;
    IF v_roots <> '{}' THEN
        EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.moved_%s (xid xid8 NOT NULL, updated text)', v_id);
        EXECUTE format('CREATE INDEX ON pgtrickle_changes.moved_%s (xid)', v_id);
        PERFORM pgtrickle_changes.hand_over(p_table, format('pgtrickle_changes.moved_%s', v_id), 'Rows under way to another partition, for stream table');
    END IF;
    PERFORM pgtrickle_changes.open_schema(p_table.owner_oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_immediate_tables IS 'Makes the tables in which statements note that they are under way and what they hold back';

CREATE FUNCTION pgtrickle_changes.make_immediate(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Everything that maintains a stream table inside statements.  The sources are locked: nobody is writing them.
DECLARE
    v_id       bigint := p_table.pgt_id;
    v_plan     jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id);
    v_event    record;
    v_source   record;
    v_guard    text;
    v_name     text;
    v_relation oid;
    v_trigger  name;
    v_turn     boolean := (v_plan #>> '{programs,immediate,turn}')::boolean;
BEGIN
    PERFORM pgtrickle_changes.refuse_immediate(v_plan);
    PERFORM pgtrickle_changes.refuse_strangers(p_table);
    PERFORM pgtrickle_changes.make_immediate_tables(p_table);
    PERFORM pgtrickle_changes.refuse_attachments(p_table);
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_rest', v_id), 'p_full boolean', 'boolean',
        pgtrickle_changes.immediate_body(p_table, pgtrickle_changes.immediate_rest(p_table, v_plan)));
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_check', v_id), 'p_session integer', 'boolean',
        pgtrickle_changes.immediate_body(p_table, pgtrickle_changes.immediate_check(p_table)));
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_back', v_id), 'p_opened bigint', 'bigint', pgtrickle_changes.immediate_back(v_id));
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_unrewritten', v_id), '', 'boolean',
        pgtrickle_changes.immediate_body(p_table, pgtrickle_changes.immediate_unrewritten(v_id)));
    PERFORM pgtrickle_changes.make_sound_function(p_table);
    PERFORM pgtrickle_changes.make_firm_function(p_table);
    PERFORM pgtrickle_changes.make_engine_trigger_function(p_table, format('maintain_%s_begin', v_id), pgtrickle_changes.immediate_begin(v_id, v_turn));
    FOR v_source IN
        SELECT d.source_relid AS oid, d.columns_used FROM pgtrickle.pgt_dependencies AS d
         WHERE d.pgt_id = v_id AND d.source_relid = ANY (pgtrickle_changes.immediate_sources(v_id)) ORDER BY d.source_relid
    LOOP
        FOR v_event IN
            SELECT * FROM (VALUES ('begin', 'BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE', ''),
                                  ('ins', 'AFTER INSERT', 'REFERENCING NEW TABLE AS __pgt_new'),
                                  ('upd', 'AFTER UPDATE', 'REFERENCING OLD TABLE AS __pgt_old NEW TABLE AS __pgt_new'),
                                  ('del', 'AFTER DELETE', 'REFERENCING OLD TABLE AS __pgt_old'),
                                  ('trunc', 'AFTER TRUNCATE', '')) AS e(name, at, rows)
        LOOP
            CONTINUE WHEN v_event.name = 'begin' AND (v_plan #>> '{programs,immediate,by_rows}')::boolean;
            v_name := CASE WHEN v_event.name = 'begin' THEN format('maintain_%s_begin', v_id)
                           ELSE format('maintain_%s_%s_%s', v_id, v_source.oid, v_event.name) END;
            IF v_event.name IN ('ins', 'upd', 'del') THEN
                PERFORM pgtrickle_changes.make_owned_function(p_table, v_name || '_texts', '', 'text[]',
                    format(E'\nBEGIN\n    RETURN %L::pg_catalog.text[];\nEND\n',
                        pgtrickle_changes.immediate_large_texts(p_table, v_source.oid, v_source.columns_used, v_event.name, v_plan)));
            END IF;
            v_guard := CASE WHEN v_event.name <> 'begin' THEN pgtrickle_changes.make_guarded_function(p_table, v_name,
                pgtrickle_changes.immediate_body(p_table,
                    pgtrickle_changes.immediate_after(p_table, v_source.oid, v_source.columns_used, v_event.name, v_plan))) END;
            v_trigger := pgtrickle_changes.immediate_trigger(v_id, v_event.name, v_turn);
            FOR v_relation IN SELECT b.relid FROM pgtrickle_changes.relations_below(v_source.oid) AS b ORDER BY b.relid LOOP
                EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s %s FOR EACH STATEMENT %sEXECUTE FUNCTION pgtrickle_changes.%I()',
                    v_trigger, v_event.at, v_relation::regclass, v_event.rows, CASE WHEN v_guard <> 'true' THEN 'WHEN (' || v_guard || ') ' ELSE '' END, v_name);
                EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', v_relation::regclass, v_trigger);
            END LOOP;
        END LOOP;
    END LOOP;
    PERFORM pgtrickle_changes.make_tree_triggers(p_table);
    PERFORM pgtrickle_changes.make_immediate_holds(p_table);
    PERFORM pgtrickle_changes.make_applied_triggers(p_table);
    IF v_turn THEN
        PERFORM pgtrickle_changes.make_turn_triggers(p_table);
    END IF;
    IF NOT v_turn OR pgtrickle_changes.immediate_shared(v_id) <> '{}' THEN
        -- Statements within statements add in any order: in between a counter may be below zero.  And so is what is inserted to be added.
        FOR v_event IN
            SELECT c.conname AS name, c.conrelid::regclass AS at FROM pg_constraint AS c
             WHERE c.contype = 'c' AND c.connamespace = 'pgtrickle_changes'::regnamespace
               AND c.conrelid IN (SELECT to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) FROM jsonb_array_elements(v_plan -> 'states') AS t(item))
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', v_event.at, v_event.name);
        END LOOP;
    END IF;
    INSERT INTO pgtrickle_changes.immediate (pgt_id, stamp, triggers, number, attachments)
    SELECT v_id, pgtrickle_changes.immediate_stamp(v_id), array_agg(DISTINCT o.identity), count(*),
           CASE WHEN NOT pgtrickle_changes.trusted_by_writers(p_table)
                THEN pgtrickle_changes.has_attachments(p_table, pgtrickle_changes.immediate_written(p_table)) END
      FROM pgtrickle_changes.immediate_objects(v_id) AS o WHERE o.kind = 'trigger';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_immediate IS 'Makes everything that maintains a stream table inside statements';

CREATE FUNCTION pgtrickle_changes.make_immediate_holds(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id     bigint := p_table.pgt_id;
    v_source oid;
    v_below  oid;
    v_more   text[];
BEGIN
    IF pgtrickle_changes.trusted_by_writers(p_table) THEN
        RETURN;
    END IF;
    FOREACH v_source IN ARRAY pgtrickle_changes.immediate_sources(v_id) LOOP
        v_more := CASE WHEN v_source = ANY (pgtrickle_changes.immediate_roots(v_id))
                       THEN ARRAY[format('maintain_%s_move', v_id)] ELSE '{}' END;
        FOR v_below IN SELECT b.relid FROM pgtrickle_changes.relations_below(v_source) AS b ORDER BY b.relid LOOP
            PERFORM pgtrickle_changes.make_hold(v_below, pgtrickle_changes.immediate_trigger(v_id, 'hold', true), false, 'hold_maintenance',
                ARRAY(SELECT format('maintain_%s_%s_%s', v_id, v_source, e.name) FROM unnest('{ins,upd,del,trunc}'::text[]) WITH ORDINALITY AS e(name, place)
                       ORDER BY e.place) || v_more);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_immediate_holds IS 'Makes the triggers that keep what a stranger''s IMMEDIATE stream table calls as it is while a statement runs';

CREATE FUNCTION pgtrickle_changes.immediate_objects(p_id bigint) RETURNS TABLE (kind text, identity text, relation regclass)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What make_immediate made of which something is left, wherever it is now: triggers by the stream table's number in their names.
BEGIN
    RETURN QUERY
        SELECT 'trigger', t.tgname::text, t.tgrelid::regclass FROM pg_trigger AS t
         WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname = ANY (pgtrickle_changes.immediate_triggers(p_id))
           AND t.tgfoid <> 'pgtrickle_changes.retired()'::regprocedure
           AND (t.tgfoid = 'pgtrickle_changes.hold_maintenance()'::regprocedure
                OR t.tgfoid IN (SELECT p.oid FROM pg_proc AS p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id))
                OR t.tgrelid IN (SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id))
         ORDER BY t.tgrelid, t.tgname;
    RETURN QUERY
        SELECT 'function', p.oid::regprocedure::text, NULL::regclass FROM pg_proc AS p
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id) ORDER BY p.proname;
    RETURN QUERY
        SELECT 'table', c.oid::regclass::text, c.oid::regclass FROM pg_class AS c
         WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'r' AND c.relname ~ format('^(turn_%s|slots_%1$s|under_way_%1$s|moved_%1$s|held_%1$s_[0-9]+)$', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_objects IS 'What is left, wherever it is now, of what make_immediate made';

CREATE FUNCTION pgtrickle_changes.drop_immediate(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_object record;
BEGIN
    PERFORM pgtrickle_changes.lock_together(ARRAY(SELECT o.relation::oid FROM pgtrickle_changes.immediate_objects(p_id) AS o WHERE o.kind = 'trigger'));
    FOR v_object IN SELECT o.* FROM pgtrickle_changes.immediate_objects(p_id) AS o LOOP
        IF v_object.kind = 'trigger' THEN
            PERFORM pgtrickle_changes.take_trigger_away(v_object.relation, v_object.identity);
        ELSE
            EXECUTE CASE v_object.kind WHEN 'function' THEN format('DROP FUNCTION %s CASCADE', v_object.identity)
                         ELSE format('DROP TABLE %s CASCADE', v_object.identity) END;
        END IF;
    END LOOP;
    DELETE FROM pgtrickle_changes.immediate AS i WHERE i.pgt_id = p_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_immediate IS 'Drops what make_immediate made';

CREATE FUNCTION pgtrickle_changes.immediate_stamp(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Changes whenever a trigger, a function or a table of the maintenance does, the name of a column that is read, a source's owner or its
-- place below a parent, whom writers have to trust, or when a subscription begins to write a source: its worker fires no statement triggers.
BEGIN
    RETURN md5(concat_ws('|',
        (SELECT string_agg(concat_ws(' ', c.oid, c.relowner), ',' ORDER BY c.oid) FROM pg_class AS c WHERE c.oid = ANY (pgtrickle_changes.immediate_sources(p_id))),
        (SELECT pgtrickle_changes.trusted_by_writers(st) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin, p.ctid), ',' ORDER BY p.oid) FROM pg_proc AS p
          WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id)),
        (SELECT string_agg(concat_ws(' ', t.oid, t.xmin, t.ctid), ',' ORDER BY t.oid) FROM pg_trigger AS t
          WHERE t.tgname = ANY (pgtrickle_changes.immediate_triggers(p_id)) AND t.tgrelid = ANY (pgtrickle_changes.immediate_relations(p_id))
            AND t.tgfoid <> 'pgtrickle_changes.retired()'::regprocedure),
        (SELECT string_agg(concat_ws(' ', c.oid, c.relowner, c.relchecks, c.relhastriggers, c.relhasrules, c.relrowsecurity), ',' ORDER BY c.oid)
           FROM pg_class AS c JOIN pgtrickle_changes.immediate_objects(p_id) AS o ON o.kind = 'table' AND o.relation = c.oid),
        (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, quote_ident(a.attname)), ',' ORDER BY a.attrelid, a.attnum)
           FROM pgtrickle.pgt_dependencies AS d JOIN pg_attribute AS a ON a.attrelid = d.source_relid AND a.attnum > 0
          WHERE d.pgt_id = p_id AND a.attname = ANY (d.columns_used)),
        (SELECT string_agg(concat_ws(' ', r.srsubid, r.srrelid), ',' ORDER BY r.srsubid, r.srrelid) FROM pg_subscription_rel AS r
          WHERE r.srrelid = ANY (pgtrickle_changes.immediate_relations(p_id))),
        (SELECT string_agg(concat_ws(' ', i.inhrelid, i.inhparent), ',' ORDER BY i.inhrelid, i.inhparent) FROM pg_inherits AS i
          WHERE i.inhrelid = ANY (pgtrickle_changes.immediate_relations(p_id)) OR i.inhparent = ANY (pgtrickle_changes.immediate_relations(p_id)))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_stamp IS 'The version of everything that maintains a stream table inside statements';

CREATE FUNCTION pgtrickle_changes.immediate_drift(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_stamp text := (SELECT i.stamp FROM pgtrickle_changes.immediate AS i WHERE i.pgt_id = p_id);
BEGIN
    IF v_stamp IS NULL THEN
        RETURN 'nothing follows its sources'' changes';
    ELSIF v_stamp <> pgtrickle_changes.immediate_stamp(p_id) THEN
        RETURN 'the triggers, functions or tables that maintain it were altered';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_drift IS 'NULL when statements have been followed without a gap since the triggers were made; else what is wrong';

CREATE FUNCTION pgtrickle_changes.note_repair(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What a repair puts into the stream table an older snapshot doesn't show, but its transaction may have to take it away.  Nor can it repair then what it doesn't see.
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        EXECUTE format(E'DO %L', format(E'BEGIN\n    IF %s THEN\n        %s\n    END IF;\nEND', pgtrickle_changes.immediate_repaired(p_table.pgt_id),
            pgtrickle_changes.immediate_again(p_table, 'It was repaired since the snapshot of this transaction.')));
    END IF;
    PERFORM setval(format('pgtrickle_changes.repaired_%s', p_table.pgt_id)::regclass, pg_current_xact_id()::text::bigint);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.note_repair IS 'Tells transactions with older snapshots that an IMMEDIATE stream table was repaired since';

CREATE FUNCTION pgtrickle_changes.begin_immediate(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Before an IMMEDIATE stream table is filled or repaired: have its triggers in place, and nobody write its sources meanwhile.
-- Why what one older snapshot shows would not do, if that is so.
DECLARE
    v_drift  text := pgtrickle_changes.immediate_drift(p_table.pgt_id);
    v_old    boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
BEGIN
    IF v_drift IS NOT NULL THEN
        PERFORM pgtrickle_changes.drop_immediate(p_table.pgt_id);
    ELSE
        PERFORM pgtrickle_changes.note_repair(p_table);
        IF v_old THEN
            -- Maintenance that this snapshot doesn't see is none of its business: where both write the same rows, one fails with 40001.  What the other found nothing of to write is looked for once more (finish_refresh).
            RETURN NULL;
        END IF;
    END IF;
    -- Where triggers are made, those of its turn are also on what its sources are made from.
    PERFORM pgtrickle_changes.lock_together(pgtrickle_changes.immediate_sources(p_table.pgt_id)
        || CASE WHEN v_drift IS NOT NULL THEN ARRAY(SELECT b.relid FROM pgtrickle_changes.immediate_bottom(p_table.pgt_id) AS b) END);
    IF v_drift IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pgtrickle_changes.make_immediate(p_table);
    UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = pgtrickle_changes.fingerprint(p_table.pgt_id) WHERE st.pgt_id = p_table.pgt_id;
    RETURN CASE WHEN v_old THEN 'its sources are followed since a later moment than the one it was computed for' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.begin_immediate IS 'Has an IMMEDIATE stream table''s triggers in place and its sources locked; why one look at them won''t do, or NULL';

CREATE FUNCTION pgtrickle_changes.switch_immediate(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From change buffers to triggers that maintain, or back: the next refresh, in this transaction, makes what is needed and compares
-- everything while nobody can write.
DECLARE
    v_table  pgtrickle.pgt_stream_tables;
    v_plan   jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id);
    v_source oid;
BEGIN
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET frontier = NULL, frontier_xid = NULL, frontier_seqs = '{}', needs_reinit = st.is_populated,
           reinit_reason = CASE WHEN st.is_populated THEN format('its refresh mode is %s now', st.refresh_mode) END
     WHERE st.pgt_id = p_id
    RETURNING st.* INTO v_table;
    PERFORM pgtrickle_changes.set_dependencies(v_table, v_plan);
    -- With their constraints.
    PERFORM pgtrickle_changes.drop_states(p_id);
    PERFORM pgtrickle_changes.make_states(v_table, v_plan);
    -- All of them before the first capture is touched: who writes one source and then another is waited for, and would wait.
    PERFORM pgtrickle_changes.lock_together(ARRAY(SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id));
    FOR v_source IN SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id ORDER BY d.source_relid LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_table.owner_oid);
    END LOOP;
    IF v_table.is_populated AND v_table.status <> 'SUSPENDED' THEN
        PERFORM pgtrickle_changes.refresh_current_plan(pgtrickle_changes.members(p_id));
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.switch_immediate IS 'Changes a stream table from change buffers to maintenance inside statements, or back';

CREATE FUNCTION pgtrickle_changes.flag_immediate() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- No statement looks at whether its triggers were tampered with, or what the query rests on was changed: housekeeping does, and
-- the worker repairs what is flagged here.
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true,
           reinit_reason = coalesce(pgtrickle_changes.immediate_drift(st.pgt_id), 'definitions that the query rests on were changed')
     WHERE st.pgt_id IN (
           SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l
            WHERE l.refresh_mode = 'IMMEDIATE' AND l.status = 'ACTIVE' AND l.is_populated AND NOT l.needs_reinit
              AND (l.fingerprint IS DISTINCT FROM pgtrickle_changes.fingerprint(l.pgt_id) OR pgtrickle_changes.immediate_drift(l.pgt_id) IS NOT NULL)
              FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.flag_immediate IS 'Flags the IMMEDIATE stream tables whose triggers or definitions were changed';
