-- The bridge: compile requests to the worker, over a loopback connection of their own (docs/internals.md section 6).

CREATE TABLE pgtrickle_changes.bridge_requests (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request      jsonb       NOT NULL,
    plan         jsonb,
    error        jsonb,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at     timestamptz,
    answered_at  timestamptz
);
COMMENT ON TABLE pgtrickle_changes.bridge_requests IS 'Queries waiting for the worker''s compiler, and its answers';

-- Straight from dblink's library, so that no extension and no object on anyone's search_path is needed.  Where the
-- library is missing the CLI and the Python API, which compile themselves, still work.
DO $$
BEGIN
    CREATE FUNCTION pgtrickle_changes.loopback_connect(text, text) RETURNS text
        LANGUAGE c VOLATILE STRICT AS '$libdir/dblink', 'dblink_connect';
    CREATE FUNCTION pgtrickle_changes.loopback_disconnect(text) RETURNS text
        LANGUAGE c VOLATILE STRICT AS '$libdir/dblink', 'dblink_disconnect';
    CREATE FUNCTION pgtrickle_changes.loopback_query(text, text) RETURNS SETOF record
        LANGUAGE c VOLATILE STRICT AS '$libdir/dblink', 'dblink_record';
    COMMENT ON FUNCTION pgtrickle_changes.loopback_connect(text, text) IS 'dblink_connect: opens a named connection';
    COMMENT ON FUNCTION pgtrickle_changes.loopback_disconnect(text) IS 'dblink_disconnect: closes a named connection';
    COMMENT ON FUNCTION pgtrickle_changes.loopback_query(text, text) IS 'dblink: runs a query over a named connection';
EXCEPTION WHEN undefined_file OR undefined_function OR insufficient_privilege THEN
    INSERT INTO pgtrickle.pgt_settings (name, value) VALUES ('bridge', 'not available: dblink''s library could not be loaded');
END
$$;

CREATE FUNCTION pgtrickle_changes.bridge_dsn() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_dsn    text := (SELECT s.value FROM pgtrickle.pgt_settings AS s WHERE s.name = 'bridge_dsn');
    v_role   text := (SELECT s.value FROM pgtrickle.pgt_settings AS s WHERE s.name = 'worker_role');
    v_socket text := trim(split_part(current_setting('unix_socket_directories'), ',', 1));
BEGIN
    IF v_role IS NULL THEN
        RAISE EXCEPTION 'no role has been appointed for the worker'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'CREATE ROLE pgtrickle_worker LOGIN; SELECT pgtrickle.grant_worker(''pgtrickle_worker''); then run pgtrickle worker.';
    END IF;
    -- A database may prescribe read-only transactions to its clients.
    RETURN coalesce(v_dsn, format('host=%s port=%s dbname=%s user=%s connect_timeout=2 application_name=pg_trickle_bridge '
                                  'options=''-c default_transaction_read_only=off''',
        CASE WHEN v_socket = '' THEN '127.0.0.1' ELSE pgtrickle_changes.dsn_value(v_socket) END, current_setting('port'),
        pgtrickle_changes.dsn_value(current_database()), pgtrickle_changes.dsn_value(v_role)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.bridge_dsn IS 'How this server is reached from itself: the setting, or its first socket directory';

CREATE FUNCTION pgtrickle_changes.dsn_value(p_value text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '''' || replace(replace(p_value, '\', '\\'), '''', '\''') || ''''
$$;
COMMENT ON FUNCTION pgtrickle_changes.dsn_value IS 'A value quoted for a connection string';

CREATE FUNCTION pgtrickle_changes.worker_is_running() RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pgtrickle_changes.worker_sessions AS w WHERE w.is_worker)
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_is_running IS 'Whether a worker is alive for this database';

CREATE FUNCTION pgtrickle_changes.bridge_open() RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A loopback connection, by its name.
DECLARE
    v_name   text := format('pg_trickle_%s_%s', pg_backend_pid(), (random() * 1e9)::bigint);
    v_reason text;
BEGIN
    IF to_regprocedure('pgtrickle_changes.loopback_connect(text, text)') IS NULL THEN
        RAISE EXCEPTION 'the bridge to the worker is not available'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'dblink''s library could not be loaded when pg_trickle was installed.',
                  HINT = 'Use the command line (pgtrickle create) or the Python API: they compile queries themselves.';
    END IF;
    BEGIN
        PERFORM pgtrickle_changes.loopback_connect(v_name, pgtrickle_changes.bridge_dsn());
    EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
        GET STACKED DIAGNOSTICS v_reason = PG_EXCEPTION_DETAIL;
        RAISE EXCEPTION 'the bridge can''t connect to this server'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = v_reason,
                  HINT = 'Let the worker''s role log in locally, or set bridge_dsn in pgtrickle.pgt_settings; or use the command line (pgtrickle create).';
    END;
    RETURN v_name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.bridge_open IS 'Opens a loopback connection; its name';

CREATE FUNCTION pgtrickle_changes.worker_bridge_ask(p_request jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- Leave a request.  Called by the engine, over the loopback connection, as the worker's role.
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES (p_request) RETURNING id INTO v_id;
    PERFORM pg_notify('pgtrickle_bridge', '');
    RETURN v_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_bridge_ask IS 'Leaves a compile request for the worker; its id';

CREATE FUNCTION pgtrickle_changes.worker_bridge_answer(p_id bigint) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_answer jsonb;
BEGIN
    FOR v_try IN 1..50 LOOP
        DELETE FROM pgtrickle_changes.bridge_requests AS r
         WHERE r.id = p_id AND r.answered_at IS NOT NULL
        RETURNING jsonb_build_object('plan', r.plan, 'error', r.error) INTO v_answer;
        EXIT WHEN FOUND;
        PERFORM pg_sleep(0.002);
    END LOOP;
    RETURN v_answer;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_bridge_answer IS 'The answer to a request, waited for up to a tenth of a second: {plan, error}, or NULL if there is none yet';

CREATE FUNCTION pgtrickle_changes.request_plan(p_request jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_longest  CONSTANT integer := 1048576;
    v_patience CONSTANT interval := '30 seconds'::interval;
    v_asked_at timestamptz := clock_timestamp();
    v_until    timestamptz := v_asked_at + v_patience;
    v_bridge   text;
    v_id       bigint;
    v_answer   jsonb;
    v_error    jsonb;
BEGIN
    IF octet_length(p_request::text) > v_longest THEN
        RAISE EXCEPTION 'the query is too complex'
            USING ERRCODE = 'program_limit_exceeded', DETAIL = format('Its compile request has more than %s bytes.', v_longest),
                  HINT = 'Divide it: a stream table of a part of it, and one over that.';
    END IF;
    PERFORM pgtrickle_changes.demand_worker();
    v_bridge := pgtrickle_changes.bridge_open();
    BEGIN
        SELECT a.id INTO v_id FROM pgtrickle_changes.loopback_query(v_bridge,
            format('SELECT pgtrickle_changes.worker_bridge_ask(%L)', p_request)) AS a(id bigint);
        LOOP
            SELECT a.answer INTO v_answer FROM pgtrickle_changes.loopback_query(v_bridge,
                format('SELECT pgtrickle_changes.worker_bridge_answer(%s)', v_id)) AS a(answer jsonb);
            EXIT WHEN v_answer IS NOT NULL;
            PERFORM pgtrickle_changes.demand_worker(v_asked_at);
            IF clock_timestamp() > v_until THEN
                RAISE EXCEPTION 'the worker does not answer'
                    USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('A compile request has waited %s.', v_patience),
                          HINT = 'See the worker''s log; the command line (pgtrickle create) works without it.';
            END IF;
        END LOOP;
    EXCEPTION WHEN OTHERS OR query_canceled THEN
        PERFORM pgtrickle_changes.loopback_disconnect(v_bridge);
        RAISE;
    END;
    PERFORM pgtrickle_changes.loopback_disconnect(v_bridge);
    v_error := nullif(v_answer -> 'error', 'null');
    IF v_error IS NOT NULL THEN
        RAISE EXCEPTION '%', v_error ->> 'message'
            USING ERRCODE = coalesce(v_error ->> 'sqlstate', 'XX000'), DETAIL = coalesce(v_error ->> 'detail', ''),
                  HINT = coalesce(v_error ->> 'hint', '');
    END IF;
    RETURN v_answer -> 'plan';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.request_plan IS 'The plan of a request, from the worker''s compiler';

CREATE FUNCTION pgtrickle_changes.worker_quiet_for() RETURNS interval
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(w.quiet_for) FROM pgtrickle_changes.worker_sessions AS w WHERE w.is_worker
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_quiet_for IS 'For how long the worker has asked nothing of the server; NULL while it waits for an answer, or if the server doesn''t track that';

CREATE FUNCTION pgtrickle_changes.demand_worker(p_asked_at timestamptz DEFAULT NULL::timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_patience CONSTANT interval := '1.5 seconds'::interval;
    v_quiet    interval;
BEGIN
    IF clock_timestamp() - p_asked_at > v_patience THEN
        -- What sessions do is read once in a transaction otherwise.  And where the whole machine slept, the worker needs a moment, too.
        PERFORM pg_stat_clear_snapshot();
        v_quiet := pgtrickle_changes.worker_quiet_for();
        IF v_quiet > v_patience THEN
            PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
            v_quiet := pgtrickle_changes.worker_quiet_for();
        END IF;
        IF v_quiet > v_patience THEN
            RAISE EXCEPTION 'the pg_trickle worker hangs'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = format('It is connected, but has asked nothing for %s seconds.',
                                      round(extract(epoch FROM least(v_quiet, clock_timestamp() - p_asked_at)), 1)),
                      HINT = 'Continue its process, or end it and start another; the command line (pgtrickle create) works without it.';
        END IF;
    END IF;
    IF NOT pgtrickle_changes.worker_is_running() THEN
        RAISE EXCEPTION 'no pg_trickle worker is running'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'Queries that come in through SQL are compiled by the worker.',
                  HINT = 'Start one with pgtrickle worker --dsn ..., or use the command line (pgtrickle create) or the Python API, which need none.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.demand_worker IS 'Raises unless a worker is running, and has shown a sign of life since something was asked of it';

CREATE FUNCTION pgtrickle_changes.worker_record_failure(p_id bigint, p_started_at timestamptz, p_sqlstate text, p_message text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    -- A manual refresh that failed, told over the loopback connection because its own transaction is about to be rolled back.
    SELECT pgtrickle_changes.record_failure(p_id, 'MANUAL', p_started_at, p_sqlstate, p_message, 2147483647)
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_record_failure IS 'Records a manual refresh that failed, from outside its transaction';

CREATE FUNCTION pgtrickle_changes.bridge_execute(p_statement text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Run a statement that yields one row, in a transaction of its own, as the worker's role.
DECLARE
    v_bridge text := pgtrickle_changes.bridge_open();
BEGIN
    BEGIN
        PERFORM FROM pgtrickle_changes.loopback_query(v_bridge, p_statement) AS a(done text);
    EXCEPTION WHEN OTHERS OR query_canceled THEN
        PERFORM pgtrickle_changes.loopback_disconnect(v_bridge);
        RAISE;
    END;
    PERFORM pgtrickle_changes.loopback_disconnect(v_bridge);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.bridge_execute IS 'Runs a statement in a transaction of its own, as the worker''s role';
