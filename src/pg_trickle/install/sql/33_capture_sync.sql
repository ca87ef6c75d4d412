-- Making a capture, following what is read of its source, and taking it away.

CREATE FUNCTION pgtrickle_changes.capture_mode(p_source oid, p_owner oid) RETURNS text
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Statement triggers fire for the relation that a statement names: not for rows that it writes above or below that, nor for what
    -- logical replication applies.
    SELECT CASE WHEN pgtrickle_changes.wants_wal(p_source, p_owner) AND (pgtrickle_changes.wal_refusal(p_source, p_owner)).code IS NULL THEN 'wal'
                WHEN pgtrickle_changes.setting('cdc_trigger_mode') = 'row' OR c.relkind = 'p'
                  OR EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid)
                  OR EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid)
                THEN 'row' ELSE 'statement' END
      FROM pg_class AS c WHERE c.oid = p_source
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_mode IS 'Whether a source is captured by statement or by row triggers, or from the WAL';

CREATE FUNCTION pgtrickle_changes.sync_capture(p_source oid, p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source  text;
    v_columns text[];
    v_attnums smallint[];
    v_mode    text;
    v_capture pgtrickle.pgt_captures;
    v_drift   text;
    v_buffer  name;
    v_filter  text;
    v_holds   text;
    v_readers oid[];
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_source
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_source;
    IF v_source IS NULL
       OR NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
                       WHERE d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner) THEN
        PERFORM pgtrickle_changes.drop_capture(p_source, p_owner);
        RETURN;
    END IF;

    FOR v_attempt IN 1..2 LOOP
        SELECT coalesce(array_agg(c.source_column ORDER BY c.attnum), '{}'), coalesce(array_agg(c.attnum ORDER BY c.attnum), '{}')
          INTO v_columns, v_attnums
          FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c;
        v_mode := pgtrickle_changes.capture_mode(p_source, p_owner);
        v_filter := (SELECT f.predicate FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f);
        v_holds := pgtrickle_changes.policies_hold(p_source, p_owner);
        SELECT c.* INTO v_capture FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner;
        v_drift := CASE WHEN FOUND THEN pgtrickle_changes.capture_drift(p_source, p_owner) END;
        IF v_drift IS NULL AND v_capture.columns = v_columns AND v_capture.attnums = v_attnums AND v_capture.trigger_mode = v_mode
           AND v_capture.filter IS NOT DISTINCT FROM v_filter AND v_capture.policies = v_holds THEN
            RETURN;
        END IF;
        -- Waits for running writers and keeps new ones out: what is read afterwards and what is captured from now on
        -- join without a gap.
        IF v_attempt = 1 THEN
            PERFORM pgtrickle_changes.lock_captured(ARRAY[p_source], CASE WHEN v_drift IS NOT NULL THEN p_owner END);
        END IF;
    END LOOP;

    v_buffer := pgtrickle_changes.buffer_name(p_source, p_owner);
    -- Who was granted SELECT on it keeps that when it is made anew.
    v_readers := pgtrickle_changes.buffer_readers(v_buffer);
    IF v_capture.source_relid IS NULL AND to_regclass(format('pgtrickle_changes.%I', v_buffer)) IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relname = v_buffer AND c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relowner = p_owner) THEN
        PERFORM pgtrickle_changes.captured_meanwhile(p_source);
    END IF;
    IF v_capture.filter IS DISTINCT FROM v_filter AND v_capture.source_relid IS NOT NULL OR v_capture.policies <> v_holds THEN
        v_drift := coalesce(v_drift, 'its row-level security was changed');
    END IF;
    IF (v_capture.trigger_mode = 'wal') <> (v_mode = 'wal') AND v_drift IS NULL THEN
        v_drift := pgtrickle_changes.change_capture(p_source, p_owner, v_capture);
    END IF;
    IF v_drift IS NOT NULL AND to_regclass(format('pgtrickle_changes.%I', v_buffer)) IS NOT NULL THEN
        -- Whatever it holds is of no use any more, and its owner may no longer be allowed to see it, or have hung something on it.
        EXECUTE format('DROP TABLE pgtrickle_changes.%I CASCADE', v_buffer);
    END IF;
    DELETE FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = p_source AND m.owner_oid = p_owner;
    PERFORM pgtrickle_changes.sync_buffer(p_source, p_owner, v_buffer, v_readers);
    IF v_mode = 'wal' THEN
        PERFORM pgtrickle_changes.drop_capture_functions(p_source, v_buffer);
        PERFORM pgtrickle_changes.wal_begin(p_source, p_owner, v_drift IS NOT NULL);
    ELSE
        BEGIN
            PERFORM pgtrickle_changes.sync_triggers(p_source, p_owner, v_buffer, v_mode);
        EXCEPTION WHEN object_in_use THEN
            RAISE EXCEPTION '%', SQLERRM
                USING ERRCODE = 'object_in_use', DETAIL = format('Changes of %s are to be captured from now on, by triggers.', v_source),
                      HINT = 'SET CONSTRAINTS ALL IMMEDIATE first, close what reads the table, or do it in a transaction of its own.';
        END;
    END IF;

    INSERT INTO pgtrickle.pgt_captures AS c
           (source_relid, owner_oid, buffer, buffer_relid, sequence_relid, trigger_mode, columns, attnums, filter, policies, stamp, since, start_lsn)
    VALUES (p_source, p_owner, v_buffer, format('pgtrickle_changes.%I', v_buffer)::regclass,
            pg_get_serial_sequence(format('pgtrickle_changes.%I', v_buffer), 'seq')::regclass, v_mode, v_columns, v_attnums, v_filter, v_holds,
            pgtrickle_changes.capture_stamp(p_source, v_buffer, v_attnums, v_mode), pg_current_xact_id(),
            CASE WHEN v_mode = 'wal' THEN CASE WHEN v_drift IS NULL AND v_capture.trigger_mode = 'wal' THEN v_capture.start_lsn ELSE pg_current_wal_insert_lsn() END END)
        ON CONFLICT (source_relid, owner_oid) DO UPDATE
       SET buffer = excluded.buffer, buffer_relid = excluded.buffer_relid,
           sequence_relid = excluded.sequence_relid, trigger_mode = excluded.trigger_mode,
           columns = excluded.columns, attnums = excluded.attnums, filter = excluded.filter, policies = excluded.policies, stamp = excluded.stamp, since = excluded.since,
           start_lsn = excluded.start_lsn;
    IF v_capture.trigger_mode = 'wal' AND v_mode <> 'wal' THEN
        PERFORM pgtrickle_changes.wal_end(p_source, p_owner);
    END IF;

    -- Whoever reads what was not captured so far has to start afresh.
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true,
           reinit_reason = CASE WHEN v_drift IS NULL THEN format('columns of %s are captured anew', v_source)
                                ELSE format('changes of %s may be missing: %s', v_source, v_drift) END
      FROM pgtrickle.pgt_dependencies AS d
     WHERE d.pgt_id = st.pgt_id AND d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner
       AND st.is_populated AND NOT st.needs_reinit
       AND (v_capture.source_relid IS NULL OR v_drift IS NOT NULL OR EXISTS (
            SELECT FROM unnest(v_columns, v_attnums) AS n(name, attnum)
             WHERE n.name = ANY (d.columns_used)
               AND NOT EXISTS (SELECT FROM unnest(v_capture.columns, v_capture.attnums) AS o(name, attnum)
                                WHERE o.name = n.name AND o.attnum = n.attnum)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_capture IS 'Make the capture what the owner''s stream tables need, or drop it when none needs it';

CREATE FUNCTION pgtrickle_changes.change_capture(p_source oid, p_owner oid, p_capture pgtrickle.pgt_captures) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From triggers to the WAL or back, with the source's writers locked out: what they have written is in the buffer, or gets there now.
-- Why that can't be; NULL if it is so.
BEGIN
    IF pgtrickle_changes.has_written(p_source) THEN
        RETURN 'it was written in the transaction that changed how it is captured';
    ELSIF p_capture.trigger_mode <> 'wal' THEN
        RETURN NULL;
    ELSIF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RETURN 'how it is captured was changed under a snapshot that may be older than its last changes';
    END IF;
    PERFORM pgtrickle_changes.decode_wal(ARRAY[p_owner]);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.change_capture IS 'Completes a buffer before its source is captured in another way; why that can''t be, or NULL';

CREATE FUNCTION pgtrickle_changes.captured_meanwhile(p_source oid) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Somebody else has taken the buffer's name since the plan was made, or since the snapshot.
BEGIN
    RAISE EXCEPTION 'could not serialize access to the capture of %', p_source::regclass
        USING ERRCODE = 'serialization_failure', DETAIL = 'Another transaction began to capture it at the same moment.', HINT = 'Try again.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.captured_meanwhile IS 'Raises that another transaction, maybe another owner''s, began to capture a source at the same moment';

CREATE FUNCTION pgtrickle_changes.buffer_readers(p_buffer name) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT DISTINCT r.oid FROM pg_class AS b CROSS JOIN LATERAL aclexplode(b.relacl) AS g JOIN pg_authid AS r ON r.oid = g.grantee
                  WHERE b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace
                    AND g.privilege_type = 'SELECT' AND g.grantee <> b.relowner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.buffer_readers IS 'The roles that somebody has allowed to read a change buffer';

CREATE FUNCTION pgtrickle_changes.sync_buffer(p_source oid, p_owner oid, p_buffer name, p_readers oid[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table      text := format('pgtrickle_changes.%I', p_buffer);
    v_tablespace name := nullif(current_setting('default_tablespace'), '');
    v_item       record;
    v_is_new     boolean := to_regclass(v_table) IS NULL;
    v_reader     oid;
BEGIN
    IF v_is_new THEN
        -- Where the owner's own tables would go: nobody gets space by way of the engine that he may not use.
        IF v_tablespace IS NOT NULL AND NOT coalesce(has_tablespace_privilege(p_owner, (
               SELECT t.oid FROM pg_tablespace AS t WHERE t.spcname = v_tablespace), 'CREATE'), false) THEN
            PERFORM set_config('default_tablespace', '', true);
        END IF;
        EXECUTE format('CREATE TABLE %s (xid xid8 NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY, w smallint NOT NULL)'
            ' USING heap WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_scale_factor = 0,'
            ' autovacuum_vacuum_threshold = 10000)', v_table);
        PERFORM set_config('default_tablespace', coalesce(v_tablespace, ''), true);
        -- A histogram of the transactions of yesterday would make the planner expect no rows of today's.
        EXECUTE format('ALTER TABLE %s ALTER COLUMN xid SET STATISTICS 0', v_table);
        -- Where all tables are published, what was consumed could not be deleted otherwise.
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', v_table);
        EXECUTE format('COMMENT ON TABLE %s IS %L', v_table,
            format('pg_trickle: changes of %s, captured for %I', p_source::regclass, pg_get_userbyid(p_owner)));
    END IF;

    -- A column that nobody reads any more goes; so does one whose name now means another column.
    FOR v_item IN
        SELECT a.attname
          FROM pg_attribute AS a
         WHERE a.attrelid = v_table::regclass AND a.attnum > 3 AND NOT a.attisdropped
           AND NOT EXISTS (SELECT FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c
                             JOIN pgtrickle.pgt_captures AS o ON o.source_relid = p_source AND o.owner_oid = p_owner
                            WHERE c.buffer_column = a.attname
                              AND o.attnums[array_position(o.columns, c.source_column::text)] = c.attnum
                              AND c.type = pgtrickle_changes.column_type(a.atttypid, a.atttypmod, a.attcollation))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP COLUMN %I CASCADE', v_table, v_item.attname);
    END LOOP;
    FOR v_item IN
        SELECT c.buffer_column, c.type
          FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c
         WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                            WHERE a.attrelid = v_table::regclass AND a.attname = c.buffer_column AND NOT a.attisdropped)
         ORDER BY c.attnum
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', v_table, v_item.buffer_column, v_item.type);
    END LOOP;

    IF NOT EXISTS (SELECT FROM pg_index AS i
                    WHERE i.indrelid = v_table::regclass AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = 1) THEN
        EXECUTE format('CREATE INDEX ON %s (xid)', v_table);
    END IF;
    EXECUTE format('ALTER TABLE %s OWNER TO %I', v_table, pg_get_userbyid(p_owner));
    IF v_is_new THEN
        PERFORM pgtrickle_changes.revoke_strangers(v_table::regclass);
        FOREACH v_reader IN ARRAY p_readers LOOP
            EXECUTE format('GRANT SELECT ON %s TO %I', v_table, pg_get_userbyid(v_reader));
        END LOOP;
    END IF;
    IF NOT has_table_privilege(p_owner, v_table::regclass, 'INSERT') THEN
        EXECUTE format('GRANT ALL ON %s TO %I', v_table, pg_get_userbyid(p_owner));
    END IF;
    PERFORM pgtrickle_changes.open_schema(p_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_buffer IS 'Gives a change buffer the columns, the index and the owner that it has to have';

CREATE FUNCTION pgtrickle_changes.revoke_strangers(p_relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Default privileges of the installing superuser must not open what belongs to the owner alone.
DECLARE
    v_grantee oid;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT g.grantee
          FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
         WHERE c.oid = p_relation AND g.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', p_relation,
                       CASE v_grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(v_grantee)) END);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.revoke_strangers IS 'Takes a relation from everybody but its owner';

CREATE FUNCTION pgtrickle_changes.drop_capture(p_source oid, p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_buffer name;
BEGIN
    DELETE FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner
    RETURNING c.buffer INTO v_buffer;
    IF v_buffer IS NULL THEN
        RETURN;
    END IF;
    PERFORM pgtrickle_changes.drop_capture_functions(p_source, v_buffer);
    EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.%I CASCADE', v_buffer);
    PERFORM pgtrickle_changes.wal_end(p_source, p_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_capture IS 'Drops a capture: triggers, functions and buffer';

CREATE FUNCTION pgtrickle_changes.drop_capture_functions(p_source oid, p_buffer name) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function name;
BEGIN
    PERFORM pgtrickle_changes.drop_triggers(p_source, p_buffer, false);
    FOREACH v_function IN ARRAY pgtrickle_changes.capture_functions(p_buffer) LOOP
        -- Not IF EXISTS, which would tell the caller that there was none.
        IF to_regprocedure(format('pgtrickle_changes.%I()', v_function)) IS NOT NULL THEN
            EXECUTE format('DROP FUNCTION pgtrickle_changes.%I() CASCADE', v_function);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_capture_functions IS 'Drops a capture''s triggers and their functions';
