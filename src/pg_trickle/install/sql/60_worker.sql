-- The worker's functions.  The worker logs in as a role that may call these and nothing else; they run as the engine.

CREATE FUNCTION pgtrickle.grant_worker(role name) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function regprocedure;
    v_former   text;
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'permission denied to appoint the worker''s role'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'The worker refreshes everybody''s stream tables.',
                  HINT = 'Ask a superuser to call pgtrickle.grant_worker().';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = grant_worker.role) THEN
        RAISE EXCEPTION 'role "%" does not exist', grant_worker.role
            USING ERRCODE = 'undefined_object', DETAIL = 'The worker has to log in as an existing role.',
                  HINT = format('CREATE ROLE %I LOGIN;', grant_worker.role);
    END IF;
    SELECT s.value INTO v_former FROM pgtrickle.pgt_settings AS s WHERE s.name = 'worker_role' AND s.value <> grant_worker.role;
    FOR v_function IN
        SELECT p.oid FROM pg_proc AS p
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname LIKE 'worker\_%'
    LOOP
        IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = v_former) THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %I', v_function, v_former);
        END IF;
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, grant_worker.role);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA pgtrickle, pgtrickle_changes TO %I', grant_worker.role);
    INSERT INTO pgtrickle.pgt_settings AS s (name, value) VALUES ('worker_role', grant_worker.role)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$$;
COMMENT ON FUNCTION pgtrickle.grant_worker(name) IS 'Appoint the role that the worker logs in as: it may do the worker''s job and nothing else (superusers only)';

CREATE FUNCTION pgtrickle_changes.worker_stream_tables()
    RETURNS TABLE (pgt_id bigint, name text, depends_on bigint[], source_relids oid[], schedule text, schedule_seconds float8,
                   status text, tier text, refresh_mode text, is_populated boolean, needs_reinit boolean,
                   last_refresh_at timestamptz, consecutive_errors integer, full_ms float8, watched boolean, timed boolean, scc_id bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT st.pgt_id, format('%I.%I', st.pgt_schema, st.pgt_name),
           ARRAY(SELECT DISTINCT u.pgt_id
                   FROM pgtrickle.pgt_dependencies AS s JOIN pgtrickle.pgt_stream_tables AS u ON u.pgt_relid = s.source_relid
                  WHERE s.pgt_id = st.pgt_id),
           ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = st.pgt_id),
           st.schedule, st.schedule_seconds,
           -- A circle is refreshed as a whole or not at all.
           CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS m WHERE (m.pgt_id = st.pgt_id OR m.scc_id = st.scc_id)
                             AND (m.status = 'SUSPENDED' OR pgtrickle_changes.is_gated(m.pgt_id)))
                THEN 'SUSPENDED' ELSE st.status END,
           CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS m WHERE m.scc_id = st.scc_id AND m.tier = 'frozen') THEN 'frozen' ELSE st.tier END,
           st.refresh_mode, st.is_populated, st.needs_reinit,
           st.last_refresh_at, st.consecutive_errors, st.full_ms,
           (SELECT coalesce(bool_and(s.captured), false) FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = st.pgt_id), st.timed, st.scc_id
      FROM pgtrickle.pgt_stream_tables AS st
     ORDER BY st.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_stream_tables IS 'What the worker has to know of every stream table';

CREATE FUNCTION pgtrickle_changes.worker_take_turn() RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- Become the one worker of this database, until the session ends; false if there is one.  It is known by an advisory lock.  Anybody may
-- take such a lock, so it may be any number; what counts is that a session which may do a worker's work holds one.
BEGIN
    -- One asks at a time.
    LOCK TABLE pgtrickle_changes.bridge_requests IN SHARE UPDATE EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pgtrickle_changes.worker_sessions AS w WHERE w.is_worker AND w.pid <> pg_backend_pid()) THEN
        RETURN false;
    END IF;
    FOR v_number IN 1..1000 LOOP
        IF pg_try_advisory_lock(1885762401, v_number) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN pg_try_advisory_lock(1885762401, (random() * 2e9)::integer);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_take_turn IS 'Makes the session the one worker of its database; whether it is';

CREATE FUNCTION pgtrickle_changes.worker_settings() RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'default_schedule_seconds', pgtrickle_changes.setting('default_schedule_seconds')::float8,
        'max_consecutive_errors', pgtrickle_changes.setting('max_consecutive_errors')::integer,
        'max_concurrent_refreshes', pgtrickle_changes.setting('max_concurrent_refreshes')::integer,
        'metrics_port', pgtrickle_changes.setting('metrics_port')::integer)
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_settings IS 'The settings by which the worker plans';

CREATE FUNCTION pgtrickle_changes.worker_poll(p_with_enabled boolean DEFAULT true, OUT wal_lsn pg_lsn, OUT enabled boolean, OUT catalog_version bigint,
                                              OUT high_water jsonb, OUT requests integer)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '50ms'
AS $$
-- Is there anything to look at?  Asked all the time, so: plans kept for the session, no table of an owner's, and the
-- server's configuration files, which cost more than all the rest, only when asked for (else enabled is NULL).
DECLARE
    v_dropped oid[] := '{}'::oid[];
BEGIN
    wal_lsn := CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END;
    enabled := CASE WHEN p_with_enabled THEN pgtrickle_changes.setting('enabled')::boolean AND (SELECT s.last_value = 1 FROM pgtrickle_changes.drain_switch AS s) END;
    -- A refresh that went well changes none of this, or what it repaired.
    SELECT coalesce(bit_xor(hashtextextended(concat_ws('|', st.pgt_id, st.pgt_schema, st.pgt_name, st.schedule, st.schedule_seconds,
               st.status, st.tier, st.refresh_mode, st.is_populated, st.needs_reinit, st.definition_view, st.timed), 0)), 0)
      INTO catalog_version
      FROM pgtrickle.pgt_stream_tables AS st;
    SELECT catalog_version # coalesce(bit_xor(hashtextextended(concat_ws('|', s.pgt_id, s.source_relid, s.captured, g.source_relid), 1)), 0)
      INTO catalog_version
      FROM pgtrickle.pgt_dependencies AS s LEFT JOIN pgtrickle_changes.source_gates AS g USING (source_relid);
    -- A sequence that is being dropped can't be read, nor waited for: whoever drops it may take his time.
    FOR v_try IN 1..5 LOOP
        BEGIN
            SELECT coalesce(jsonb_object_agg(m.source_relid, m.mark), '{}') INTO high_water
              -- A buffer that was made anew counts from the start: which sequence it is belongs to the mark.
              FROM (SELECT k.source_relid,
                           sum(coalesce(pg_sequence_last_value(k.sequence_relid), 0) + k.sequence_relid::bigint * 9223372036854775808) AS mark
                      FROM pgtrickle.pgt_captures AS k
                      JOIN pg_class AS c ON c.oid = k.sequence_relid
                     WHERE k.sequence_relid <> ALL (v_dropped)
                     GROUP BY k.source_relid) AS m;
            EXIT;
        EXCEPTION WHEN internal_error OR lock_not_available THEN
            IF v_try = 5 THEN
                RAISE;
            END IF;
            v_dropped := ARRAY(SELECT l.relation FROM pg_locks AS l WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock');
        END;
    END LOOP;
    SELECT count(*) INTO requests FROM pgtrickle_changes.bridge_requests AS r WHERE r.taken_at IS NULL AND r.answered_at IS NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_poll IS 'Whether there is anything to look at, cheaply';

CREATE FUNCTION pgtrickle_changes.worker_pending(p_ids bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- In the order of the index: EXISTS would read the consumed rows from the beginning, expecting a hit among the first.
DECLARE
    v_item    record;
    v_pending bigint[] := '{}'::bigint[];
    v_changed boolean;
    v_session text := pgtrickle_changes.session_state();
BEGIN
    FOR v_item IN
        SELECT st.pgt_id, st.owner_oid, st.frontier, st.frontier_xid, st.frontier_seqs,
               st.unsettled <> '{}' AND pgtrickle_changes.any_committed(st.unsettled, pg_current_snapshot()) AS settled,
               'SELECT pg_catalog.to_jsonb(' || string_agg(format('(SELECT true FROM pgtrickle_changes.%I AS c WHERE %s'
                                              ' ORDER BY c.xid LIMIT 1) IS NOT NULL', k.buffer,
                                              pgtrickle_changes.new_rows(s.source_relid, '$1', '$2', '$3')), ' OR ') || ')' AS statement
          FROM pgtrickle.pgt_stream_tables AS st
          JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = st.pgt_id AND s.captured
          JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = st.owner_oid
         WHERE st.pgt_id = ANY (p_ids) AND st.frontier IS NOT NULL
         GROUP BY st.pgt_id
    LOOP
        BEGIN
            v_changed := pgtrickle_changes.run_as(v_item.owner_oid, v_item.statement, v_item.frontier, v_item.frontier_xid,
                                                  v_item.frontier_seqs)::boolean;
            PERFORM pgtrickle_changes.check_session(v_session);
        EXCEPTION WHEN OTHERS THEN
            -- An owner has broken his buffer or his runner: the refresh repairs it or says what is wrong.
            v_changed := true;
        END;
        IF v_changed OR v_item.settled THEN
            v_pending := v_pending || v_item.pgt_id;
        END IF;
    END LOOP;
    RETURN v_pending;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_pending IS 'Which of some stream tables have changes to read';

CREATE FUNCTION pgtrickle_changes.why_skipped(p_members bigint[], p_left_out bigint[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF cardinality(p_members) = 0
       OR EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_members)
                    AND (st.status = 'SUSPENDED' OR pgtrickle_changes.is_gated(st.pgt_id))) THEN
        RETURN 'suspended or dropped';
    END IF;
    RETURN (SELECT format('"%s" was not refreshed', u.pgt_name)
              FROM pgtrickle.pgt_dependencies AS s JOIN pgtrickle.pgt_stream_tables AS u ON u.pgt_relid = s.source_relid
             WHERE s.pgt_id = ANY (p_members) AND u.pgt_id = ANY (p_left_out)
             LIMIT 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.why_skipped IS 'Why the worker leaves a stream table, or its circle, as it is; NULL when it doesn''t';

CREATE FUNCTION pgtrickle_changes.worker_refresh(p_ids bigint[], p_initiated_by text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- Refresh a group in the order given, in the one snapshot of the transaction; who reads one that failed is left out.
DECLARE
    v_id         bigint;
    v_members    bigint[];
    v_results    jsonb := '[]'::jsonb;
    v_found      jsonb;
    v_left_out   bigint[] := '{}'::bigint[];
    v_skipped    text;
    v_began_at   timestamptz;
    v_sqlstate   text;
    v_message    text;
    v_session    text := pgtrickle_changes.session_state();
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'the worker refreshes in REPEATABLE READ'
            USING ERRCODE = 'invalid_transaction_state', DETAIL = 'The stream tables of a group have to show the same moment.',
                  HINT = 'BEGIN ISOLATION LEVEL REPEATABLE READ first.';
    END IF;
    IF NOT pgtrickle_changes.enter_refresh() THEN
        RETURN (SELECT jsonb_agg(jsonb_build_object('pgt_id', u.id, 'skipped', 'drained', 'stale_plan', false)) FROM unnest(p_ids) AS u(id));
    END IF;
    FOREACH v_id IN ARRAY p_ids LOOP
        v_began_at := clock_timestamp();
        v_members := pgtrickle_changes.members(v_id);
        -- A circle is refreshed once, when all that it reads has been.
        CONTINUE WHEN array_position(p_ids, v_id) < (SELECT max(array_position(p_ids, m.id)) FROM unnest(v_members) AS m(id));
        v_skipped := pgtrickle_changes.why_skipped(v_members, v_left_out);
        IF v_skipped IS NOT NULL THEN
            v_found := (SELECT jsonb_object_agg(m.id, jsonb_build_object('skipped', v_skipped)) FROM unnest(v_members || v_id) AS m(id));
            INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, skipped_reason)
            SELECT st.pgt_id, st.pgt_name, st.effective_refresh_mode, p_initiated_by, v_began_at, clock_timestamp(), v_skipped
              FROM pgtrickle.pgt_stream_tables AS st
             WHERE st.pgt_id = ANY (v_members) AND st.pgt_id = ANY (p_ids) AND v_skipped <> 'suspended or dropped';
            v_left_out := v_left_out || CASE WHEN v_skipped <> 'suspended or dropped' THEN v_members END;
        ELSE
            BEGIN
                v_found := pgtrickle_changes.refresh_members(v_members, p_initiated_by);
                -- At the end of the transaction owners' code would run as the worker.
                PERFORM pgtrickle_changes.check_session(v_session);
                IF EXISTS (SELECT FROM jsonb_each(v_found) AS r WHERE (r.value ->> 'stale_plan')::boolean) THEN
                    v_left_out := v_left_out || v_members;
                ELSE
                    v_found := (SELECT jsonb_object_agg(r.key, (r.value - 'skipped') || CASE WHEN r.value ? 'fuse' THEN
                                           jsonb_build_object('skipped', r.value -> 'fuse') ELSE '{}' END) FROM jsonb_each(v_found) AS r);
                END IF;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS v_sqlstate = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
                v_found := (SELECT jsonb_object_agg(m.id, jsonb_build_object('error', jsonb_build_object('sqlstate', v_sqlstate, 'message', v_message)))
                              FROM unnest(v_members) AS m(id));
                v_left_out := v_left_out || v_members;
            END;
        END IF;
        v_results := v_results || (
            SELECT jsonb_agg('{"mode": null, "rows_in": null, "rows_out": null, "error": null, "skipped": null, "stale_plan": false}'
                             || r.value || jsonb_build_object('pgt_id', r.key::bigint, 'ms', 1000 * extract(epoch FROM clock_timestamp() - v_began_at)))
              FROM jsonb_each(v_found) AS r WHERE r.key::bigint = ANY (p_ids));
    END LOOP;
    RETURN v_results;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_refresh IS 'Refreshes a group of stream tables in one snapshot; what came of each';

CREATE FUNCTION pgtrickle_changes.worker_failed(p_id bigint, p_started_at timestamptz, p_sqlstate text, p_message text, p_max_errors integer)
    RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgtrickle_changes.record_failure(p_id, 'SCHEDULER', p_started_at, p_sqlstate, p_message, p_max_errors)
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_failed IS 'Records a refresh by the worker that failed';

CREATE FUNCTION pgtrickle_changes.worker_compile_request(p_id bigint) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.follow_name(pgtrickle_changes.lock_stream_table(p_id));
BEGIN
    RETURN pgtrickle_changes.hashed(pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, p_id,
                                                                     v_table.pgt_schema, v_table.pgt_name));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_compile_request IS 'The compile request of a stream table as it is now';

CREATE FUNCTION pgtrickle_changes.worker_install_plan(p_id bigint, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_session text := pgtrickle_changes.session_state();
BEGIN
    PERFORM pgtrickle_changes.recompile(p_id, p_plan);
    PERFORM pgtrickle_changes.check_session(v_session);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_install_plan IS 'Gives a stream table a new plan';

CREATE FUNCTION pgtrickle_changes.worker_take_requests(p_most integer) RETURNS TABLE (id bigint, request jsonb)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        UPDATE pgtrickle_changes.bridge_requests AS r SET taken_at = clock_timestamp()
         WHERE r.id IN (SELECT q.id FROM pgtrickle_changes.bridge_requests AS q
                         WHERE q.taken_at IS NULL AND q.answered_at IS NULL
                         ORDER BY q.id LIMIT p_most FOR UPDATE SKIP LOCKED)
        RETURNING r.id, r.request;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_take_requests IS 'The oldest compile requests; none is handed out twice';

CREATE FUNCTION pgtrickle_changes.worker_answer(p_id bigint, p_plan jsonb, p_error jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pgtrickle_changes.bridge_requests AS r SET plan = p_plan, error = p_error, answered_at = clock_timestamp()
     WHERE r.id = p_id AND r.answered_at IS NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_answer IS 'Answers a compile request';

CREATE FUNCTION pgtrickle_changes.worker_housekeeping() RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_buffer  name;
    v_id      bigint;
    v_rows    bigint := 0;
    v_history bigint;
    v_dropped integer := 0;
    v_problems jsonb := '[]'::jsonb;
    v_session text := pgtrickle_changes.session_state();
BEGIN
    -- The big ones last: emptying one locks it until this transaction ends.
    FOR v_buffer IN SELECT k.buffer FROM pgtrickle.pgt_captures AS k ORDER BY pg_relation_size(k.buffer_relid) LOOP
        BEGIN
            v_rows := v_rows + pgtrickle_changes.cleanup_buffer(v_buffer);
            PERFORM pgtrickle_changes.check_session(v_session);
        EXCEPTION WHEN OTHERS THEN
            -- Messages may hold values of rows.
            v_problems := v_problems || jsonb_build_object('place', v_buffer, 'sqlstate', SQLSTATE);
        END;
    END LOOP;
    FOR v_id IN
        SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
         WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = st.pgt_relid)
    LOOP
        BEGIN
            PERFORM pgtrickle_changes.forget_stream_table(v_id);
            v_dropped := v_dropped + 1;
        EXCEPTION WHEN OTHERS THEN
            v_problems := v_problems || jsonb_build_object('place', 'stream table ' || v_id, 'sqlstate', SQLSTATE);
        END;
    END LOOP;
    PERFORM pgtrickle_changes.flag_immediate();
    PERFORM pgtrickle_changes.close_schema();
    -- Nothing else wakes a refresh for a change that wasn't captured.
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = 'changes were missed while their buffer was locked'
     WHERE st.pgt_id IN (SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l JOIN pgtrickle.pgt_dependencies AS s USING (pgt_id)
                           JOIN pgtrickle_changes.missed_changes AS m ON m.source_relid = s.source_relid AND m.owner_oid = l.owner_oid
                          WHERE s.captured AND l.is_populated AND NOT l.needs_reinit FOR NO KEY UPDATE OF l SKIP LOCKED);
    DELETE FROM pgtrickle_changes.source_gates AS g WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = g.source_relid);
    DELETE FROM pgtrickle_changes.missed_changes AS m
     WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = m.source_relid AND k.owner_oid = m.owner_oid);
    WITH gone AS (
        DELETE FROM pgtrickle.pgt_refresh_history AS h
         WHERE h.refresh_id IN (SELECT o.refresh_id FROM pgtrickle.pgt_refresh_history AS o
                                 WHERE o.started_at < now() - pgtrickle_changes.setting('history_retention_days')::float8 * interval '1 day'
                                 LIMIT 5000)
            -- What found nothing to do every second tells nothing after a day, and would be nearly all there is.
            OR h.refresh_id IN (SELECT o.refresh_id FROM pgtrickle.pgt_refresh_history AS o
                                 WHERE o.skipped_reason IS NOT NULL AND NOT starts_with(o.skipped_reason, 'fuse') AND o.started_at < now() - interval '1 day'
                                 LIMIT 5000)
        RETURNING 1)
    SELECT count(*) INTO v_history FROM gone;
    DELETE FROM pgtrickle_changes.bridge_requests AS r WHERE r.requested_at < now() - interval '1 hour';
    RETURN jsonb_build_object('change_rows', v_rows, 'history_rows', v_history, 'dropped', v_dropped, 'problems', v_problems);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_housekeeping IS 'Removes what is not needed any more and flags what needs repair; how much that was';

CREATE FUNCTION pgtrickle_changes.forget_stream_table(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Remove what is left of a stream table whose table was dropped: catalog rows, definition, states, captures.
DECLARE
    v_owner   oid;
    v_states  text[];
    v_sources oid[];
    v_circle  bigint[];
    v_item    text;
    v_source  oid;
BEGIN
    SELECT ARRAY(SELECT t.item ->> 'name' FROM pgtrickle.pgt_plans AS p
                  CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                  WHERE p.pgt_id = p_id),
           ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = p_id ORDER BY s.source_relid)
      INTO v_states, v_sources;
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    v_circle := array_remove(pgtrickle_changes.members(p_id), p_id);
    DELETE FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id RETURNING st.owner_oid INTO v_owner;
    PERFORM pgtrickle_changes.mark_circles(v_circle, NULL);
    EXECUTE format('DROP VIEW IF EXISTS pgtrickle_changes.%I', 'query_' || p_id);
    FOREACH v_item IN ARRAY v_states LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.%I', v_item);
    END LOOP;
    FOREACH v_source IN ARRAY v_sources LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_owner);
    END LOOP;
    PERFORM pgtrickle_changes.drop_idle_runner(v_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.forget_stream_table IS 'Removes what is left of a stream table whose table was dropped';

CREATE FUNCTION pgtrickle_changes.drop_idle_runner(p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- So that a role that owns no stream table any more can be dropped.
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.owner_oid = p_owner) THEN
        EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', 'as_' || p_owner);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_idle_runner IS 'Drops the runner of a role that owns no stream table any more';
