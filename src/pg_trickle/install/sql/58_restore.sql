-- After pg_restore: what a dump says of stream tables, and what has to be made anew (docs/decisions/0017).
--
-- A dump brings the stream tables with their rows, and the definitions; and triggers, functions, buffers and states that were made under
-- other numbers, and do nothing here.  The catalog's rows say where they are from (home): until they are adopted nothing is done by them.

CREATE FUNCTION pgtrickle_changes.restored_tables() RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st WHERE st.home <> pgtrickle_changes.home() ORDER BY st.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.restored_tables IS 'The stream tables that came with a dump and haven''t been adopted yet';

CREATE FUNCTION pgtrickle_changes.refuse_restored(p_what text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% came with a dump and isn''t maintained yet', p_what
        USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'What maintained it was made for another database.',
              HINT = 'A superuser revives all stream tables of this database with SELECT pgtrickle.restore_stream_tables();';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_restored IS 'Raises that what came with a dump has to be adopted first';

CREATE FUNCTION pgtrickle_changes.make_room() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Before anything is created: names that come from numbers may be taken by what a dump brought.
BEGIN
    IF cardinality(pgtrickle_changes.restored_tables()) > 0 THEN
        PERFORM pgtrickle_changes.refuse_restored('what this database holds of stream tables');
    END IF;
    -- A dump without data tells nothing of its stream tables, nor has it anything in the catalog.  What is there is of this database, which may
    -- have had stream tables: gates, watermarks, snapshots, the replication slot.
    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables) AND EXISTS (SELECT FROM pgtrickle_changes.leftovers()) THEN
        PERFORM pgtrickle_changes.drop_leftovers();
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_room IS 'Sees to it that nothing of a dump is in a new stream table''s way';

CREATE FUNCTION pgtrickle_changes.leftovers() RETURNS TABLE (command text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- All that was generated, as the commands that drop it; with a function go the triggers that call it.  Whatever has a number in its name
-- was made for a stream table, a source or an owner; the engine's own things have none, nor have the functions of triggers that hold others.
BEGIN
    RETURN QUERY
        SELECT format('DROP TABLE IF EXISTS %s CASCADE', c.oid::regclass)
          FROM pg_class AS c
         WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'r'
           AND c.relname ~ '_[0-9]+(_|$)'
        UNION ALL
        SELECT format('DROP FUNCTION IF EXISTS %s CASCADE', p.oid::regprocedure)
          FROM pg_proc AS p
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '_[0-9]+(_|$)'
        UNION ALL
        SELECT format('DROP VIEW IF EXISTS %s CASCADE', c.oid::regclass)
          FROM pg_class AS c
         WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'v' AND c.relname ~ '^query_[0-9]+$'
           AND c.relname <> ALL (ARRAY(SELECT format('query_%s', st.pgt_id) FROM pgtrickle.pgt_stream_tables AS st))
        UNION ALL
        SELECT format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, t.tgrelid::regclass)
          FROM pg_proc AS p JOIN pg_trigger AS t ON t.tgfoid = p.oid
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname LIKE 'hold\_%' AND t.tgparentid = 0;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.leftovers IS 'What was made for stream tables, as the commands that drop it; definitions only of those that the catalog doesn''t know';

CREATE FUNCTION pgtrickle_changes.drop_leftovers() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
AS $$
DECLARE
    v_command text;
BEGIN
    FOR v_command IN SELECT l.command FROM pgtrickle_changes.leftovers() AS l LOOP
        EXECUTE v_command;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_leftovers IS 'Drops what a dump brought of the machinery: all of it is made anew';

CREATE FUNCTION pgtrickle_changes.forget_origin() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An extension's catalog is empty.
BEGIN
    DELETE FROM pgtrickle.pgt_dependencies;
    DELETE FROM pgtrickle.pgt_plans;
    DELETE FROM pgtrickle.pgt_captures;
    DELETE FROM pgtrickle_changes.standing_programs;
    DELETE FROM pgtrickle_changes.immediate;
    DELETE FROM pgtrickle_changes.missed_changes;
    DELETE FROM pgtrickle_changes.bridge_requests;
    DELETE FROM pgtrickle_changes.schema_users;
    DELETE FROM pgtrickle_changes.snapshots;
    DELETE FROM pgtrickle_changes.source_gates;
    DELETE FROM pgtrickle_changes.watermarks;
    DELETE FROM pgtrickle_changes.watermark_groups;
    DELETE FROM pgtrickle_changes.wal_readers;
    DELETE FROM pgtrickle_changes.wal_slot;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.forget_origin IS 'Empties what a dump''s catalog says of the database that it comes from';

CREATE FUNCTION pgtrickle_changes.restored_columns(p_table pgtrickle.pgt_stream_tables, p_view oid) RETURNS smallint[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Columns keep their order in a dump, and close up where one was dropped.  So one that was renamed since the last refresh is known by
    -- its place, unless there are others in the table than the query's.
    SELECT CASE WHEN cardinality(p_table.column_numbers) = (SELECT count(*) FROM pg_attribute AS a
                                                             WHERE a.attrelid = p_table.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped)
                     AND 0 <> ALL (p_table.column_numbers)
                THEN ARRAY(SELECT r.place FROM (SELECT row_number() OVER (ORDER BY n.attnum)::smallint AS place, n.ordinality
                                                  FROM unnest(p_table.column_numbers) WITH ORDINALITY AS n(attnum, ordinality)) AS r ORDER BY r.ordinality)
                ELSE pgtrickle_changes.column_numbers(p_table.pgt_relid, p_view) END
$$;
COMMENT ON FUNCTION pgtrickle_changes.restored_columns IS 'Which columns of a table that came with a dump hold those of its query';

CREATE FUNCTION pgtrickle_changes.adopt_restored(p_id bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog row becomes one of this database: with no frontier and no plan, so that the next refresh compiles and computes afresh.
DECLARE
    v_table pgtrickle.pgt_stream_tables;
    v_view  oid := to_regclass(format('pgtrickle_changes.query_%s', p_id));
    v_owner oid;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id FOR UPDATE;
    SELECT c.relowner INTO v_owner FROM pg_class AS c WHERE c.oid = v_table.pgt_relid;
    IF v_owner IS NULL OR v_view IS NULL THEN
        RAISE WARNING 'stream table "%" can''t be revived', v_table.pgt_name
            USING DETAIL = format('The dump did not bring its %s.', CASE WHEN v_owner IS NULL THEN 'table' ELSE 'definition' END),
                  HINT = 'What there is of it stays an ordinary table. Create it anew.';
        DELETE FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
        IF v_view IS NOT NULL THEN
            EXECUTE format('DROP VIEW %s CASCADE', v_view::regclass);
        END IF;
        RETURN false;
    END IF;
    IF (SELECT r.rolsuper FROM pg_authid AS r WHERE r.oid = v_owner) AND NOT v_table.owner_was_superuser THEN
        RAISE EXCEPTION 'stream table "%" came with the dump to a superuser', v_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Its query, which somebody else wrote, would run with a superuser''s rights.',
                  HINT = format('ALTER TABLE %s OWNER TO a role without such rights; then call it again.', v_table.pgt_relid);
    END IF;
    EXECUTE format('ALTER VIEW %s OWNER TO %I', v_view::regclass, pg_get_userbyid(v_owner));
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET home = DEFAULT, owner_oid = v_owner, definition_view = v_view,
           frontier = NULL, frontier_xid = NULL, frontier_seqs = '{}', frontier_time = NULL, quiet_at = NULL, unsettled = '{}',
           system_identifier = (SELECT c.system_identifier FROM pg_control_system() AS c),
           fingerprint = 'of another database', watched_relations = '{}', watched_functions = '{}', watched_types = '{}', watched_others = '{}',
           column_numbers = pgtrickle_changes.restored_columns(st, v_view), scc_id = NULL,
           needs_reinit = st.is_populated, reinit_reason = CASE WHEN st.is_populated THEN 'it came with a dump' END,
           status = CASE WHEN st.status = 'ERROR' THEN 'ACTIVE' ELSE st.status END,
           consecutive_errors = 0, last_error_message = NULL
     WHERE st.pgt_id = p_id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.adopt_restored IS 'Makes a stream table that came with a dump one of this database; whether it could be';

CREATE FUNCTION pgtrickle_changes.do_restore_stream_tables(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_restored bigint[] := pgtrickle_changes.restored_tables();
    v_adopted  bigint[];
BEGIN
    PERFORM pgtrickle_changes.demand_superuser(p_caller, 'revive the stream tables of a dump');
    IF cardinality(v_restored) = 0 THEN
        RETURN to_jsonb(0);
    END IF;
    IF EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id <> ALL (v_restored)) THEN
        RAISE EXCEPTION 'this database had stream tables before the dump was restored into it'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'What belongs to these can''t be told from what the dump brought.',
                  HINT = 'Restore the dump into a new database.';
    END IF;
    PERFORM pgtrickle_changes.one_at_a_time();
    PERFORM pgtrickle_changes.drop_leftovers();
    PERFORM pgtrickle_changes.forget_origin();
    v_adopted := ARRAY(SELECT r.id FROM unnest(v_restored) AS r(id) WHERE pgtrickle_changes.adopt_restored(r.id));
    -- What reads what: refreshes come in that order.
    PERFORM pgtrickle_changes.set_dependencies(st, '{"sources": []}') FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (v_adopted);
    PERFORM pgtrickle_changes.mark_circles(v_adopted, NULL);
    -- Its owners were granted that by the engine, which a dump keeps.
    INSERT INTO pgtrickle_changes.schema_users (role_oid)
    SELECT DISTINCT st.owner_oid FROM pgtrickle.pgt_stream_tables AS st WHERE has_schema_privilege(st.owner_oid, 'pgtrickle_changes', 'USAGE');
    PERFORM setval(pg_get_serial_sequence('pgtrickle.pgt_stream_tables', 'pgt_id'), v_restored[cardinality(v_restored)]);
    RAISE NOTICE '% stream tables will be computed afresh', cardinality(v_adopted)
        USING DETAIL = 'Until its next refresh each holds what the dump held. Refreshes write only rows that differ.',
              HINT = CASE WHEN pgtrickle_changes.worker_is_running()
                          THEN 'The worker refreshes those with a schedule; pgtrickle refresh, or refresh_stream_table(), refreshes any.'
                          ELSE 'No worker is running: start one with pgtrickle worker --dsn ..., which refreshes those with a schedule, and compiles for'
                               ' refresh_stream_table(). The command line (pgtrickle refresh) and the Python API refresh any without one.' END;
    RETURN to_jsonb(cardinality(v_adopted));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_restore_stream_tables IS 'The gate''s restore_stream_tables';
