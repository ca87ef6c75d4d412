-- What the worker does: refresh groups in one snapshot, write down failures, and compile for those who ask.

CREATE FUNCTION pgtrickle_changes.why_skipped(p_members bigint[], p_left_out bigint[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF cardinality(p_members) = 0
       -- Dropped by hand: not even a failure is to be told of it.
       OR EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_members) AND has_table_privilege(st.pgt_relid::oid, 'SELECT') IS NULL)
       OR EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_members)
                    AND (st.status = 'SUSPENDED' OR pgtrickle_changes.is_gated(st.pgt_id))) THEN
        RETURN 'suspended or dropped';
    END IF;
    RETURN (SELECT format('"%s" was not refreshed', r.source_name) FROM pgtrickle_changes.reads AS r
             WHERE r.pgt_id = ANY (p_members) AND r.source_id = ANY (p_left_out) LIMIT 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.why_skipped IS 'Why the worker leaves a stream table, or its circle, as it is; NULL when it doesn''t';

CREATE FUNCTION pgtrickle_changes.skip_members(p_members bigint[], p_ids bigint[], p_why text, p_initiated_by text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, skipped_reason)
    SELECT st.pgt_id, st.pgt_name, st.effective_refresh_mode, p_initiated_by, clock_timestamp(), clock_timestamp(), p_why
      FROM pgtrickle.pgt_stream_tables AS st
     WHERE st.pgt_id = ANY (p_members) AND st.pgt_id = ANY (p_ids) AND p_why <> 'suspended or dropped';
    RETURN (SELECT jsonb_object_agg(m.id, jsonb_build_object('skipped', p_why)) FROM unnest(p_members) AS m(id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.skip_members IS 'Writes down that the worker leaves a stream table, or its circle, as it is; what it says of each';

CREATE FUNCTION pgtrickle_changes.try_members(p_members bigint[], p_initiated_by text, p_is_strict boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- An error is a result, unless it may pass by itself and the group has to stay together: then all of it is done again.
DECLARE
    v_session text := pgtrickle_changes.session_state();
    v_found   jsonb;
    v_sqlstate text;
    v_message  text;
BEGIN
    v_found := pgtrickle_changes.refresh_members(p_members, p_initiated_by);
    -- At the end of the transaction owners' code would run as the worker.
    PERFORM pgtrickle_changes.check_session(v_session);
    IF EXISTS (SELECT FROM jsonb_each(v_found) AS r WHERE (r.value ->> 'stale_plan')::boolean) THEN
        RETURN v_found;
    END IF;
    RETURN (SELECT jsonb_object_agg(r.key, (r.value - 'skipped') || CASE WHEN r.value ? 'fuse' THEN
                       jsonb_build_object('skipped', r.value -> 'fuse') ELSE '{}' END) FROM jsonb_each(v_found) AS r);
EXCEPTION WHEN OTHERS THEN
    IF p_is_strict AND (starts_with(SQLSTATE, '40') OR SQLSTATE = '55P03') THEN
        RAISE;
    END IF;
    GET STACKED DIAGNOSTICS v_sqlstate = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RETURN (SELECT jsonb_object_agg(m.id, jsonb_build_object('error', jsonb_build_object('sqlstate', v_sqlstate, 'message', v_message)))
              FROM unnest(p_members) AS m(id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.try_members IS 'Refreshes a stream table, or its circle; what came of it for each';

CREATE FUNCTION pgtrickle_changes.refresh_group(p_ids bigint[], p_companions bigint[], p_initiated_by text, p_is_strict boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who reads one that failed is left out.  Companions come after the group, and only those for which the snapshot holds something that they
-- haven't read: the others show its moment as they are.
DECLARE
    v_id       bigint;
    v_all      bigint[] := p_ids || p_companions;
    v_members  bigint[];
    v_results  jsonb := '[]'::jsonb;
    v_found    jsonb;
    v_left_out bigint[] := '{}'::bigint[];
    v_skipped  text;
    v_began_at timestamptz;
BEGIN
    FOREACH v_id IN ARRAY v_all LOOP
        v_began_at := clock_timestamp();
        v_members := pgtrickle_changes.members(v_id);
        -- A circle is refreshed once, when all that it reads has been.
        CONTINUE WHEN array_position(v_all, v_id) < (SELECT max(array_position(v_all, m.id)) FROM unnest(v_members) AS m(id));
        CONTINUE WHEN v_id <> ALL (p_ids) AND NOT v_members && p_ids AND pgtrickle_changes.worker_pending(v_members) = '{}';
        v_skipped := pgtrickle_changes.why_skipped(v_members, v_left_out);
        IF v_skipped IS NULL THEN
            v_found := pgtrickle_changes.try_members(v_members, p_initiated_by, p_is_strict);
        ELSE
            v_found := pgtrickle_changes.skip_members(CASE WHEN v_members = '{}' THEN ARRAY[v_id] ELSE v_members END, v_all, v_skipped, p_initiated_by);
        END IF;
        IF v_skipped <> 'suspended or dropped' OR EXISTS (
               SELECT FROM jsonb_each(v_found) AS r WHERE (r.value ->> 'stale_plan')::boolean OR r.value ? 'error') THEN
            v_left_out := v_left_out || v_members;
        END IF;
        v_results := v_results || (
            SELECT jsonb_agg('{"mode": null, "rows_in": null, "rows_out": null, "error": null, "skipped": null, "stale_plan": false}'
                             || r.value || jsonb_build_object('pgt_id', r.key::bigint, 'ms', 1000 * extract(epoch FROM clock_timestamp() - v_began_at)))
              FROM jsonb_each(v_found) AS r WHERE r.key::bigint = ANY (v_all));
    END LOOP;
    RETURN v_results;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_group IS 'Refreshes a group of stream tables in the order given, and of its companions those that have to come along; what came of each';

CREATE FUNCTION pgtrickle_changes.is_graph(p_graph bigint, p_ids bigint[]) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- If so, it will be until the transaction ends.  Whoever has become a reader of one of them since the snapshot has changed its row
-- (hold_still): then it can't be locked in this snapshot.  Who is about to become one holds it; and who wants to has to wait.
BEGIN
    IF p_graph <> pgtrickle_changes.graph_version() THEN
        RETURN false;
    END IF;
    RETURN pgtrickle_changes.lock_group(p_ids);
EXCEPTION WHEN serialization_failure THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_graph IS 'Whether the snapshot shows this version of the graph, and it still holds for some stream tables, which are locked then';

CREATE FUNCTION pgtrickle_changes.stirred(p_companions bigint[], p_quiet jsonb) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- p_quiet: {source: {mark, readers}}.  Marks are read after the snapshot was taken: one that stands where the worker saw it, with all settled,
-- tells that the snapshot shows nothing more.  What is captured from the WAL is decoded by the run itself.
DECLARE
    v_sources oid[] := ARRAY(SELECT q.key::oid FROM jsonb_each(p_quiet) AS q);
    v_marks   jsonb;
BEGIN
    IF v_sources = '{}' THEN
        RETURN p_companions;
    END IF;
    v_marks := pgtrickle_changes.buffer_marks(v_sources);
    RETURN ARRAY(
        WITH q AS MATERIALIZED (
            SELECT q.value -> 'readers' AS readers,
                   v_marks -> q.key IS DISTINCT FROM q.value -> 'mark' OR EXISTS (SELECT FROM pgtrickle.pgt_captures AS k
                       WHERE k.source_relid = q.key::oid AND k.trigger_mode = 'wal') AS is_moved
              FROM jsonb_each(p_quiet) AS q),
             r AS MATERIALIZED (
            SELECT r.id::bigint AS id, bool_or(q.is_moved) AS is_stirred FROM q CROSS JOIN jsonb_array_elements_text(q.readers) AS r(id) GROUP BY r.id)
        SELECT c.id FROM unnest(p_companions) WITH ORDINALITY AS c(id, place) LEFT JOIN r USING (id)
         WHERE coalesce(r.is_stirred, true) ORDER BY c.place);
EXCEPTION WHEN internal_error OR lock_not_available THEN
    -- A buffer is being dropped or made anew.
    RETURN p_companions;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.stirred IS 'The companions for which the snapshot may hold something: all but those whose sources are as quiet as they were';

CREATE FUNCTION pgtrickle_changes.worker_refresh(p_ids bigint[], p_initiated_by text, p_companions bigint[] DEFAULT '{}'::bigint[], p_graph bigint DEFAULT NULL::bigint,
                                                 p_quiet jsonb DEFAULT '{}'::jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- Refresh a group in the one snapshot of the transaction.  p_graph is the version of the graph by which the worker has put the group
-- together: then the group moves as one.  If the snapshot shows another graph, or a plan has gone stale, nothing moves; NULL: whoever can.
-- p_quiet names the companions that need not be asked (see stirred).
DECLARE
    v_results    jsonb;
    v_companions bigint[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'the worker refreshes in REPEATABLE READ'
            USING ERRCODE = 'invalid_transaction_state', DETAIL = 'The stream tables of a group have to show the same moment.',
                  HINT = 'BEGIN ISOLATION LEVEL REPEATABLE READ first.';
    END IF;
    IF NOT pgtrickle_changes.enter_refresh() THEN
        RETURN (SELECT jsonb_agg(jsonb_build_object('pgt_id', u.id, 'skipped', 'drained', 'stale_plan', false)) FROM unnest(p_ids) AS u(id));
    END IF;
    v_companions := pgtrickle_changes.stirred(p_companions, p_quiet);
    IF p_graph IS NOT NULL AND NOT pgtrickle_changes.is_graph(p_graph, p_ids || v_companions) THEN
        RETURN (SELECT jsonb_agg(jsonb_build_object('pgt_id', u.id, 'outdated', true)) FROM unnest(p_ids) AS u(id));
    END IF;
    BEGIN
        v_results := pgtrickle_changes.refresh_group(p_ids, v_companions, p_initiated_by, p_graph IS NOT NULL);
        IF p_graph IS NOT NULL AND v_results @> '[{"stale_plan": true}]' THEN
            RAISE SQLSTATE 'TK004';
        END IF;
    EXCEPTION WHEN SQLSTATE 'TK004' THEN
        -- What was done is undone; whose plans are to be made anew is known.
        RETURN (SELECT jsonb_agg(r) FROM jsonb_array_elements(v_results) AS r WHERE (r ->> 'stale_plan')::boolean);
    END;
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
