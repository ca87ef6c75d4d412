-- Tidying up, which the worker asks for every few seconds.

CREATE FUNCTION pgtrickle_changes.worker_housekeeping() RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '1s'
AS $$
-- Of many owners: no query is open while one's turn is, or code of his could have it skip others.
DECLARE
    v_days    float8 := pgtrickle_changes.setting('history_retention_days')::float8;
    -- The big ones last: emptying one locks it until this transaction ends.  Asking for their size would wait for who has locked one.
    v_buffers name[] := ARRAY(SELECT k.buffer FROM pgtrickle.pgt_captures AS k
                               ORDER BY pg_stat_get_live_tuples(k.buffer_relid) + pg_stat_get_dead_tuples(k.buffer_relid), k.buffer_relid);
    v_gone    bigint[] := ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
                                 WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = st.pgt_relid) ORDER BY st.pgt_id);
    v_buffer  name;
    v_id      bigint;
    v_rows    bigint := 0;
    v_history bigint;
    v_dropped integer := 0;
    v_problems jsonb := '[]'::jsonb;
    v_session text := pgtrickle_changes.session_state();
BEGIN
    FOREACH v_buffer IN ARRAY v_buffers LOOP
        BEGIN
            v_rows := v_rows + pgtrickle_changes.cleanup_buffer(v_buffer);
            PERFORM pgtrickle_changes.check_session(v_session);
        EXCEPTION WHEN OTHERS THEN
            -- Messages may hold values of rows.
            v_problems := v_problems || jsonb_build_object('place', v_buffer, 'sqlstate', SQLSTATE);
        END;
    END LOOP;
    FOREACH v_id IN ARRAY v_gone LOOP
        BEGIN
            PERFORM pgtrickle_changes.forget_stream_table(v_id);
            v_dropped := v_dropped + 1;
        EXCEPTION WHEN OTHERS THEN
            v_problems := v_problems || jsonb_build_object('place', 'stream table ' || v_id, 'sqlstate', SQLSTATE);
        END;
    END LOOP;
    BEGIN
        PERFORM pgtrickle_changes.suspend_strangers();
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        v_problems := v_problems || jsonb_build_object('place', 'attachments', 'sqlstate', SQLSTATE);
    END;
    PERFORM pgtrickle_changes.flag_immediate();
    PERFORM pgtrickle_changes.close_schema();
    -- Nothing else wakes a refresh for a change that wasn't captured.
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = 'changes were missed while their buffer was locked'
     WHERE st.pgt_id IN (SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l JOIN pgtrickle.pgt_dependencies AS s USING (pgt_id)
                           JOIN pgtrickle_changes.missed_changes AS m ON m.source_relid = s.source_relid AND m.owner_oid = l.owner_oid
                          WHERE s.captured AND l.is_populated AND NOT l.needs_reinit FOR NO KEY UPDATE OF l SKIP LOCKED);
    DELETE FROM pgtrickle_changes.source_gates AS g WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = g.source_relid);
    DELETE FROM pgtrickle_changes.watermarks AS w WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = w.source_relid);
    DELETE FROM pgtrickle_changes.watermark_members AS m WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = m.source_relid);
    DELETE FROM pgtrickle_changes.missed_changes AS m
     WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = m.source_relid AND k.owner_oid = m.owner_oid);
    WITH gone AS (
        DELETE FROM pgtrickle.pgt_refresh_history AS h
         WHERE h.refresh_id IN (SELECT o.refresh_id FROM pgtrickle.pgt_refresh_history AS o
                                 WHERE o.started_at < now() - v_days * interval '1 day'
                                 LIMIT 5000)
            -- What found nothing to do every second tells nothing after a day, and would be nearly all there is.
            OR h.refresh_id IN (SELECT o.refresh_id FROM pgtrickle.pgt_refresh_history AS o
                                 WHERE o.skipped_reason IS NOT NULL AND NOT starts_with(o.skipped_reason, 'fuse') AND o.started_at < now() - interval '1 day'
                                 LIMIT 5000)
        RETURNING 1)
    SELECT count(*) INTO v_history FROM gone;
    DELETE FROM pgtrickle_changes.bridge_requests AS r WHERE r.requested_at < now() - interval '1 hour';
    -- Last: whose trigger goes is locked for everybody until this transaction ends.
    PERFORM pgtrickle_changes.drop_retired();
    RETURN jsonb_build_object('change_rows', v_rows, 'history_rows', v_history, 'dropped', v_dropped, 'problems', v_problems);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_housekeeping IS 'Removes what is not needed any more and flags what needs repair; how much that was';
