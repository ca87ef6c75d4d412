-- The worker's functions.  The worker logs in as a role that may call these and nothing else; they run as the engine.
-- Here: who it is, and what it looks at.

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
    -- Where PUBLIC has lost it.
    IF NOT has_database_privilege(grant_worker.role, current_database(), 'CONNECT') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), grant_worker.role);
    END IF;
    INSERT INTO pgtrickle.pgt_settings AS s (name, value) VALUES ('worker_role', grant_worker.role)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$$;
COMMENT ON FUNCTION pgtrickle.grant_worker(name) IS 'Appoint the role that the worker logs in as: it may do the worker''s job and nothing else (superusers only)';

CREATE FUNCTION pgtrickle_changes.graph_version() RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A number that is another when the worker would plan otherwise; 0 when there is nothing to plan.  A refresh that went well changes none of
-- this, or what it repaired.
DECLARE
    v_home    text := pgtrickle_changes.home();
    v_version bigint := (
        SELECT bit_xor(hashtextextended(concat_ws('|', st.pgt_id, st.pgt_schema, st.pgt_name, st.schedule, st.schedule_seconds,
                   st.status, st.tier, st.refresh_mode, st.is_populated, st.needs_reinit, st.definition_view, st.timed), 0))
          FROM pgtrickle.pgt_stream_tables AS st WHERE st.home = v_home);
BEGIN
    IF v_version IS NULL THEN
        RETURN 0;
    END IF;
    SELECT v_version # coalesce(bit_xor(hashtextextended(concat_ws('|', s.pgt_id, s.source_relid, s.captured, g.source_relid), 1)), 0)
      INTO v_version
      FROM pgtrickle.pgt_dependencies AS s LEFT JOIN pgtrickle_changes.source_gates AS g USING (source_relid);
    SELECT v_version # coalesce(bit_xor(hashtextextended(concat_ws('|', m.group_name, g.tolerance, m.source_relid, extract(epoch FROM w.watermark)), 2)), 0)
      INTO v_version
      FROM pgtrickle_changes.watermark_members AS m JOIN pgtrickle_changes.watermark_groups AS g USING (group_name)
      LEFT JOIN pgtrickle_changes.watermarks AS w USING (source_relid);
    RETURN v_version;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.graph_version IS 'Which stream tables there are, what they read and what they are to do, as a number to compare';

CREATE FUNCTION pgtrickle_changes.worker_stream_tables()
    RETURNS TABLE (pgt_id bigint, name text, depends_on bigint[], source_relids oid[], schedule text, schedule_seconds float8,
                   status text, tier text, refresh_mode text, is_populated boolean, needs_reinit boolean,
                   last_refresh_at timestamptz, consecutive_errors integer, full_ms float8, watched boolean, timed boolean, scc_id bigint, graph_version bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    -- A circle is refreshed as a whole or not at all.
    WITH nodes AS MATERIALIZED (
        SELECT coalesce(m.scc_id, m.pgt_id) AS node, bool_or(m.status = 'SUSPENDED' OR pgtrickle_changes.is_gated(m.pgt_id)) AS is_stopped,
               bool_or(m.tier = 'frozen') AS is_frozen
          FROM pgtrickle.pgt_stream_tables AS m GROUP BY 1),
         read AS MATERIALIZED (
        SELECT r.pgt_id, array_agg(DISTINCT r.source_id) AS ids FROM pgtrickle_changes.reads AS r GROUP BY r.pgt_id),
         sources AS MATERIALIZED (
        SELECT s.pgt_id, array_agg(s.source_relid) AS relids, bool_and(s.captured) AS are_captured FROM pgtrickle.pgt_dependencies AS s GROUP BY s.pgt_id)
    SELECT st.pgt_id, format('%I.%I', st.pgt_schema, st.pgt_name), coalesce(read.ids, '{}'), coalesce(sources.relids, '{}'),
           st.schedule, st.schedule_seconds,
           CASE WHEN nodes.is_stopped THEN 'SUSPENDED' ELSE st.status END, CASE WHEN nodes.is_frozen THEN 'frozen' ELSE st.tier END,
           st.refresh_mode, st.is_populated, st.needs_reinit,
           st.last_refresh_at, st.consecutive_errors, st.full_ms, coalesce(sources.are_captured, false), st.timed, st.scc_id,
           -- In the snapshot of all the rest.
           (SELECT pgtrickle_changes.graph_version())
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN nodes ON nodes.node = coalesce(st.scc_id, st.pgt_id)
      LEFT JOIN read ON read.pgt_id = st.pgt_id
      LEFT JOIN sources ON sources.pgt_id = st.pgt_id
     WHERE st.home = pgtrickle_changes.home()
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

CREATE FUNCTION pgtrickle_changes.buffer_marks(p_sources oid[] DEFAULT NULL::oid[]) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '50ms'
AS $$
-- A sequence that is being dropped or altered can't be read, nor waited for: whoever does it may take his time.
DECLARE
    v_marks   jsonb;
    v_dropped oid[] := '{}'::oid[];
BEGIN
    FOR v_try IN 1..5 LOOP
        BEGIN
            SELECT coalesce(jsonb_object_agg(m.source_relid, m.mark), '{}') INTO v_marks
              -- A buffer that was made anew counts from the start: which sequence it is belongs to the mark.
              FROM (SELECT k.source_relid,
                           sum(coalesce(pg_sequence_last_value(k.sequence_relid), 0) + k.sequence_relid::bigint * 9223372036854775808) AS mark
                      FROM pgtrickle.pgt_captures AS k
                      JOIN pg_class AS c ON c.oid = k.sequence_relid
                     WHERE k.sequence_relid <> ALL (v_dropped) AND (p_sources IS NULL OR k.source_relid = ANY (p_sources))
                     GROUP BY k.source_relid) AS m;
            EXIT;
        EXCEPTION WHEN internal_error OR lock_not_available THEN
            IF v_try = 5 THEN
                RAISE;
            END IF;
            v_dropped := ARRAY(SELECT l.relation FROM pg_locks AS l WHERE l.locktype = 'relation'
                                  AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'));
        END;
    END LOOP;
    RETURN v_marks;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.buffer_marks IS 'How far the buffers of each source, or of some, have been written: numbers that move with every row';

CREATE FUNCTION pgtrickle_changes.worker_poll(p_with_enabled boolean DEFAULT true, OUT wal_lsn pg_lsn, OUT enabled boolean, OUT catalog_version bigint,
                                              OUT high_water jsonb, OUT requests integer)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- Is there anything to look at?  Asked all the time, so: plans kept for the session, no table of an owner's, and the
-- server's configuration files, which cost more than all the rest, only when asked for (else enabled is NULL).
BEGIN
    wal_lsn := CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END;
    enabled := CASE WHEN p_with_enabled THEN pgtrickle_changes.setting('enabled')::boolean AND (SELECT s.last_value = 1 FROM pgtrickle_changes.drain_switch AS s) END;
    catalog_version := pgtrickle_changes.graph_version();
    high_water := pgtrickle_changes.buffer_marks();
    SELECT count(*) INTO requests FROM pgtrickle_changes.bridge_requests AS r WHERE r.taken_at IS NULL AND r.answered_at IS NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_poll IS 'Whether there is anything to look at, cheaply';

CREATE FUNCTION pgtrickle_changes.worker_pending(p_ids bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- In the order of the index: EXISTS would read the consumed rows from the beginning, expecting a hit among the first.  No buffer is
-- waited for, and no query is open while one is read: whoever got to run code there could have it skip others.
DECLARE
    v_ids     bigint[] := ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_ids) AND st.frontier IS NOT NULL ORDER BY 1);
    v_id      bigint;
    v_item    record;
    v_pending bigint[] := '{}'::bigint[];
    v_changed boolean;
    v_session text := pgtrickle_changes.session_state();
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        SELECT st.pgt_id, st.owner_oid, st.frontier, st.frontier_xid, st.frontier_seqs,
               st.unsettled <> '{}' AND pgtrickle_changes.any_committed(st.unsettled, pg_current_snapshot()) AS settled,
               'SELECT pg_catalog.to_jsonb(' || string_agg(pgtrickle_changes.any_new_row(k.buffer, s.source_relid), ' OR ') || ')' AS statement,
               bool_and(pgtrickle_changes.lock_plain(k, false)) AS is_plain
          INTO v_item
          FROM pgtrickle.pgt_stream_tables AS st
          JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = st.pgt_id AND s.captured
          JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = st.owner_oid
         WHERE st.pgt_id = v_id
         GROUP BY st.pgt_id;
        CONTINUE WHEN NOT FOUND;
        BEGIN
            v_changed := NOT v_item.is_plain OR pgtrickle_changes.run_as(v_item.owner_oid, v_item.statement, v_item.frontier, v_item.frontier_xid,
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
