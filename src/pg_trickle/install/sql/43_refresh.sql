-- Refresh: bringing one stream table up to date, in the current transaction, from the lock to the history row.
--
-- What touches the query, its sources, buffers, states or the stream table runs as the owner (run_as); the engine itself
-- only reads the catalog and writes its own tables.
--
-- A refresh with nothing to do has to be cheap.  So what every refresh calls is PL/pgSQL even where one statement would do:
-- it keeps its plans for the session, where a SQL function is planned at every call.

CREATE FUNCTION pgtrickle_changes.discard_foreign_changes(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- In a restored or cloned cluster, change rows bear transaction ids of another history.  A row that can be seen although
-- its transaction has not happened here is one of those.
DECLARE
    v_buffer name;
BEGIN
    FOR v_buffer IN
        SELECT k.buffer FROM pgtrickle.pgt_captures AS k JOIN pgtrickle.pgt_dependencies AS s ON s.source_relid = k.source_relid
         WHERE s.pgt_id = p_table.pgt_id AND s.captured AND k.owner_oid = p_table.owner_oid
    LOOP
        PERFORM pgtrickle_changes.run_as(p_table.owner_oid, format(
            'WITH gone AS (DELETE FROM pgtrickle_changes.%I AS c'
            ' WHERE NOT pg_catalog.pg_visible_in_snapshot(c.xid, pg_catalog.pg_current_snapshot())'
            ' AND c.xid IS DISTINCT FROM pg_catalog.pg_current_xact_id() RETURNING 1) SELECT pg_catalog.count(*) FROM gone', v_buffer));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.discard_foreign_changes IS 'Empties change buffers that another cluster''s transactions wrote';

CREATE FUNCTION pgtrickle_changes.demand_definition(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_table.definition_view AND c.relkind = 'v') THEN
        RAISE EXCEPTION 'the definition of stream table "%" was dropped', p_table.pgt_name
            USING ERRCODE = 'invalid_object_definition',
                  DETAIL = 'A source, or a column that the query uses, was dropped with CASCADE.',
                  HINT = 'Give it a new query with pgtrickle.alter_stream_table, or drop it.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.demand_definition IS 'Raises if what a stream table is defined by is gone';

CREATE FUNCTION pgtrickle_changes.follow_name(p_table pgtrickle.pgt_stream_tables) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog row under the table's name of today; the table and its definition must be there still.
BEGIN
    PERFORM pgtrickle_changes.demand_definition(p_table);
    RETURN pgtrickle_changes.with_current_name(p_table);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.follow_name IS 'The catalog row under the table''s name of today; raises if the table or its definition is gone';

CREATE TYPE pgtrickle_changes.prepared_refresh AS (
    st       pgtrickle.pgt_stream_tables,
    reason   text,
    doubt    text,
    forced   boolean,
    is_stale boolean
);
COMMENT ON TYPE pgtrickle_changes.prepared_refresh IS
    'A stream table, locked and ready to be refreshed: why it has to be recomputed (NULL: it needn''t), why once more later, whether policies were lifted, whether its plan has gone stale';

CREATE FUNCTION pgtrickle_changes.check_basis(INOUT p_run pgtrickle_changes.prepared_refresh, p_initiated_by text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What a refresh rests on: the plan, and what captures the changes.  Mostly all is as it was when it was last looked at, which is asked at once.
DECLARE
    v_table       pgtrickle.pgt_stream_tables := p_run.st;
    v_basis       text := CASE WHEN v_table.refresh_mode <> 'IMMEDIATE' THEN pgtrickle_changes.basis_version(v_table) END;
    v_fingerprint text;
    v_drift       text;
BEGIN
    IF p_initiated_by <> 'INITIAL' AND v_basis || '/' || v_table.fingerprint = v_table.basis_seen THEN
        RETURN;
    END IF;
    v_fingerprint := pgtrickle_changes.fingerprint(v_table.pgt_id);
    IF p_initiated_by = 'INITIAL' THEN
        -- The plan was made in this very transaction; making the captures has changed the sources' catalog rows since.
        UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = v_fingerprint WHERE st.pgt_id = v_table.pgt_id;
    ELSIF v_fingerprint IS DISTINCT FROM v_table.fingerprint THEN
        v_table := pgtrickle_changes.follow_name(v_table);
        p_run.st := v_table;
        PERFORM pgtrickle_changes.check_columns(v_table);
        -- PostgreSQL's own check of everything the query reads, views included.
        PERFORM pgtrickle_changes.check_readable(v_table.owner_oid, v_table.definition_view);
        IF pgtrickle_changes.request_hash(pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, v_table.pgt_id,
               v_table.pgt_schema, v_table.pgt_name)) IS DISTINCT FROM (
               SELECT p.request_hash FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id) THEN
            p_run.is_stale := true;
            RETURN;
        END IF;
        -- A policy or a function may have changed what the query returns although no source did.
        UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = v_fingerprint WHERE st.pgt_id = v_table.pgt_id;
        -- What decides which rows the captures take may have changed with them.
        PERFORM pgtrickle_changes.sync_capture(d.source_relid, v_table.owner_oid)
           FROM (SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = v_table.pgt_id AND s.captured ORDER BY s.source_relid) AS d;
        SELECT st.needs_reinit, st.reinit_reason INTO v_table.needs_reinit, v_table.reinit_reason
          FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_table.pgt_id;
        IF split_part(v_fingerprint, '/', 2) IS DISTINCT FROM split_part(v_table.fingerprint, '/', 2) THEN
            p_run.reason := coalesce(p_run.reason, 'definitions that the query rests on were changed');
        END IF;
    END IF;
    IF v_table.refresh_mode = 'IMMEDIATE' THEN
        p_run.doubt := pgtrickle_changes.begin_immediate(v_table);
        p_run.reason := coalesce(p_run.reason, v_table.reinit_reason, '');
    END IF;
    v_drift := pgtrickle_changes.repair_captures(v_table);
    IF v_drift IS NOT NULL THEN
        p_run.reason := v_drift;
        v_table.needs_reinit := true;
        v_table.reinit_reason := v_drift;
    END IF;
    -- As it was before all this was looked at: what has changed since will be another version.
    v_basis := CASE WHEN v_drift IS NULL THEN v_basis || '/' || v_fingerprint END;
    IF v_basis IS DISTINCT FROM v_table.basis_seen THEN
        v_table.basis_seen := v_basis;
        v_table.counting_stands := coalesce(v_basis IS NOT NULL AND pgtrickle_changes.is_counting(v_table.pgt_id, v_table.owner_oid,
                                                (pgtrickle_changes.counting_query(v_table.pgt_id)).query), false);
        UPDATE pgtrickle.pgt_stream_tables AS st SET basis_seen = v_basis, counting_stands = v_table.counting_stands WHERE st.pgt_id = v_table.pgt_id;
    END IF;
    p_run.st := v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_basis IS 'Checks what a refresh rests on, and mends what can be mended; says if the plan is stale';

CREATE FUNCTION pgtrickle_changes.prepare_refresh(p_id bigint, p_initiated_by text, p_force_full boolean) RETURNS pgtrickle_changes.prepared_refresh
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Lock a stream table, check what its refresh rests on, and mend what can be mended.
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.follow_owner(pgtrickle_changes.lock_stream_table(p_id));
    v_run   pgtrickle_changes.prepared_refresh;
BEGIN
    PERFORM pgtrickle_changes.check_privileges(v_table);
    v_run := ROW(v_table, CASE WHEN p_initiated_by = 'INITIAL' THEN '' WHEN p_force_full THEN 'asked to recompute' END, NULL, false, false);
    v_run := pgtrickle_changes.check_basis(v_run, p_initiated_by);
    IF v_run.is_stale THEN
        RETURN v_run;
    END IF;
    v_table := v_run.st;
    IF v_table.frontier IS NOT NULL AND v_table.system_identifier IS DISTINCT FROM (pg_control_system()).system_identifier THEN
        PERFORM pgtrickle_changes.discard_foreign_changes(v_table);
        v_table.frontier := NULL;
        v_table.unsettled := '{}'::xid8[];
        v_run.reason := 'this is another database cluster than the one it was computed in';
    END IF;
    IF v_table.frontier IS NULL THEN
        PERFORM pgtrickle_changes.keep_changes(v_table);
    END IF;
    v_run.forced := pgtrickle_changes.lift_row_security(v_table);
    IF NOT v_table.is_populated THEN
        v_table.is_populated := pgtrickle_changes.has_rows(v_table);
        v_run.reason := coalesce(v_run.reason, '');
    END IF;
    v_run.st := v_table;
    RETURN v_run;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.prepare_refresh IS 'Locks a stream table, checks what its refresh rests on, and mends what can be mended';

CREATE FUNCTION pgtrickle_changes.bring_up_to_date(p_table pgtrickle.pgt_stream_tables, p_reason text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Attempt it until it has worked: by the delta, or by recomputing where that turns out to be needed.
DECLARE
    v_one_snapshot boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    v_table        pgtrickle.pgt_stream_tables := p_table;
    v_result       jsonb;
    v_broken       text;
    v_domain       text;
    v_tries        integer := 0;
    v_is_mended    boolean := false;
BEGIN
    LOOP
        BEGIN
            v_result := pgtrickle_changes.attempt(v_table, p_reason, v_one_snapshot);
            EXIT;
        EXCEPTION
            WHEN SQLSTATE 'TK001' THEN
                v_tries := v_tries + 1;
                IF v_one_snapshot OR v_tries > 3 THEN
                    RAISE EXCEPTION 'refreshing "%" changes its own sources', v_table.pgt_name
                        USING ERRCODE = 'object_not_in_prerequisite_state',
                              DETAIL = 'A source was written in this transaction while the stream table was refreshed.',
                              HINT = 'Look for triggers on the stream table, and for functions in its query, that write to a source.';
                END IF;
            WHEN SQLSTATE 'TK002' THEN
                IF v_table.needs_reinit THEN
                    RAISE EXCEPTION 'recomputing "%" contradicts itself', v_table.pgt_name
                        USING ERRCODE = 'object_not_in_prerequisite_state',
                              DETAIL = 'A statement takes rows away that it has not found: somebody writes to the stream table, or its indexes are damaged.',
                              HINT = format('Look for triggers and rules on the stream table; then SELECT pgtrickle.repair_stream_table(%L);',
                                            format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
                END IF;
                v_table.needs_reinit := true;
                v_table.reinit_reason := 'the stream table did not hold what the changes take away';
            WHEN data_exception THEN
                -- Changes are evaluated for rows, and pairs of rows, that the query never sees together, or that are gone again.
                IF v_table.needs_reinit OR p_reason IS NOT NULL OR v_table.effective_refresh_mode <> 'DIFFERENTIAL' THEN
                    RAISE;
                END IF;
                v_table.needs_reinit := true;
                v_table.reinit_reason := format('the changes can''t be evaluated (SQLSTATE %s)', SQLSTATE);
            WHEN program_limit_exceeded THEN
                RAISE EXCEPTION 'refreshing "%" exceeds a limit of PostgreSQL', v_table.pgt_name
                    USING ERRCODE = 'program_limit_exceeded', DETAIL = format('PostgreSQL says: %s.', SQLERRM),
                          HINT = 'What tells the rows apart is indexed, some 2,700 bytes of it at most: group by a hash or by the beginning of long values.';
            WHEN invalid_column_reference OR undefined_table THEN
                -- Its owner may drop the index by which its rows are found, and its state tables.
                IF v_is_mended OR SQLSTATE = '42P01' AND pgtrickle_changes.missing_states(v_table.pgt_id) = '{}'
                   OR v_one_snapshot AND v_table.refresh_mode = 'IMMEDIATE' THEN
                    RAISE;
                END IF;
                v_is_mended := true;
                v_table.needs_reinit := true;
                v_table.reinit_reason := 'an index or a state table that its refreshes need had been dropped';
                PERFORM pgtrickle_changes.reinstall_plan(v_table.pgt_id);
                -- What counted the changes went with it.
                v_table.counting_stands := false;
                IF v_table.refresh_mode = 'IMMEDIATE' THEN
                    PERFORM pgtrickle_changes.begin_immediate(v_table);
                END IF;
            WHEN check_violation THEN
                GET STACKED DIAGNOSTICS v_broken = TABLE_NAME, v_domain = PG_DATATYPE_NAME;
                IF v_domain <> '' AND NOT v_table.needs_reinit AND p_reason IS NULL AND v_table.effective_refresh_mode = 'DIFFERENTIAL' THEN
                    -- Changes are kept as what is below a domain, and rows that were there before may violate its constraint (NOT VALID).
                    v_table.needs_reinit := true;
                    v_table.reinit_reason := format('changed rows violate a constraint of the domain "%s"', v_domain);
                    CONTINUE;
                END IF;
                IF v_broken IS NULL OR v_broken !~ format('^state_%s_[0-9]+$', v_table.pgt_id) OR v_table.needs_reinit THEN
                    RAISE;
                END IF;
                v_table.needs_reinit := true;
                v_table.reinit_reason := format('state table "%s" contradicted the changes', v_broken);
                PERFORM pgtrickle_changes.reset_states(v_table.pgt_id);
        END;
        IF v_tries = 3 THEN
            PERFORM pgtrickle_changes.lock_sources(ARRAY[v_table.pgt_id]);
        END IF;
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.bring_up_to_date IS 'Runs the program that is due, or the one that it turns out to need';

CREATE FUNCTION pgtrickle_changes.check_unrewritten(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A table that ALTER TABLE or TRUNCATE has written anew since the snapshot of a REPEATABLE READ transaction looks empty to it; and what goes by its
-- name may be another one.  Catalog rows are seen as of the snapshot, what their functions find is what there is now: and what was read is locked
-- since.  VACUUM FULL and CLUSTER do no harm, but look the same.
DECLARE
    v_name text;
BEGIN
    WITH RECURSIVE read(relid) AS (
        SELECT unnest(p_table.watched_relations || p_table.pgt_relid)
        UNION
        SELECT i.inhrelid FROM read AS r JOIN pg_inherits AS i ON i.inhparent = r.relid)
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_name
      FROM read AS r JOIN pg_class AS c ON c.oid = r.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relfilenode <> 0 AND (pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode
                                   OR to_regclass(format('%I.%I', n.nspname, c.relname)) IS DISTINCT FROM c.oid)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'could not refresh "%" as of this transaction''s snapshot', p_table.pgt_name
            USING ERRCODE = 'serialization_failure', DETAIL = format('Table %s was rewritten, truncated, renamed or dropped since.', v_name),
                  HINT = 'Try again in a new transaction.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_unrewritten IS 'Raises if a table was written anew, or replaced, since the snapshot in which a stream table was refreshed';

CREATE FUNCTION pgtrickle_changes.finish_refresh(p_prepared pgtrickle_changes.prepared_refresh, p_result jsonb, p_initiated_by text, p_started_at timestamptz)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := p_prepared.st;
    v_doubt text := p_prepared.doubt;
BEGIN
    PERFORM pgtrickle_changes.restore_row_security(v_table, p_prepared.forced);
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') AND NOT (p_result ? 'skipped' OR p_result ? 'fuse') THEN
        PERFORM pgtrickle_changes.check_unrewritten(v_table);
    END IF;
    IF p_result ? 'fuse' THEN
        PERFORM pgtrickle_changes.blow_fuse(v_table, p_result ->> 'fuse', p_initiated_by, p_started_at);
        RETURN;
    END IF;
    -- An older snapshot locks no sources: what it put into the stream table, a writer that it doesn't show may have found nothing of to take away.
    IF v_table.refresh_mode = 'IMMEDIATE' AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable') AND (p_result ->> 'changed')::boolean THEN
        v_doubt := coalesce(v_doubt, 'it was repaired as of a snapshot, beside its writers');
    END IF;
    IF v_doubt IS NOT NULL THEN
        UPDATE pgtrickle.pgt_stream_tables AS st SET needs_reinit = true, reinit_reason = v_doubt WHERE st.pgt_id = v_table.pgt_id;
    END IF;
    PERFORM pgtrickle_changes.record_refresh(v_table, p_result ->> 'mode',
        CASE WHEN v_table.refresh_mode = 'IMMEDIATE' AND p_initiated_by = 'SCHEDULER' THEN 'IMMEDIATE-fallback' ELSE p_initiated_by END,
        p_started_at, (p_result ->> 'rows_in')::bigint, (p_result ->> 'rows_out')::bigint, p_result ->> 'skipped', p_result ->> 'reason',
        (p_result ->> 'data_timestamp')::timestamptz);
    IF (p_result ->> 'changed')::boolean THEN
        PERFORM pgtrickle_changes.notify_subscribers(v_table, p_result, p_initiated_by);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.finish_refresh IS 'Puts back what was lifted for a refresh, writes it down and tells of it';

CREATE FUNCTION pgtrickle_changes.refresh(p_id bigint, p_initiated_by text, p_force_full boolean DEFAULT false) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_started_at timestamptz := clock_timestamp();
    v_prepared   pgtrickle_changes.prepared_refresh := pgtrickle_changes.prepare_refresh(p_id, p_initiated_by, p_force_full);
    v_result     jsonb;
BEGIN
    IF v_prepared.is_stale THEN
        RETURN jsonb_build_object('mode', NULL, 'rows_in', 0, 'rows_out', 0, 'changed', false, 'stale_plan', true);
    END IF;
    v_result := pgtrickle_changes.bring_up_to_date(v_prepared.st, v_prepared.reason);
    PERFORM pgtrickle_changes.finish_refresh(v_prepared, v_result, p_initiated_by, v_started_at);
    RETURN v_result || '{"stale_plan": false}';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh IS 'Refreshes one stream table in this transaction; what that came to';
