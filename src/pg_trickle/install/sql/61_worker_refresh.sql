-- What the worker does: refresh groups in one snapshot, write down failures, and compile for those who ask.

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
