-- Draining: the worker begins no refresh any more, and those under way end.  Before maintenance, or a failover.
--
-- The switch is a sequence (1: on, 2: drained): what it says is so at once, for every snapshot.

CREATE SEQUENCE pgtrickle_changes.drain_switch MINVALUE 1 MAXVALUE 2;
COMMENT ON SEQUENCE pgtrickle_changes.drain_switch IS 'Whether the worker refreshes (1) or is drained (2)';

CREATE TABLE pgtrickle_changes.drain_lock ();
COMMENT ON TABLE pgtrickle_changes.drain_lock IS 'Locked by every refresh of the worker''s: an advisory lock anybody could take';

CREATE FUNCTION pgtrickle_changes.enter_refresh() RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- First the lock, then the switch: whoever drains turns the switch, then waits for the lock.
BEGIN
    LOCK TABLE pgtrickle_changes.drain_lock IN ROW SHARE MODE;
    RETURN (SELECT s.last_value = 1 FROM pgtrickle_changes.drain_switch AS s);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.enter_refresh IS 'Whether a refresh by the worker may begin; if so, draining waits for its transaction';

CREATE FUNCTION pgtrickle_changes.demand_superuser(p_caller name, p_what text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_authid AS r WHERE r.rolname = p_caller) THEN
        RAISE EXCEPTION 'permission denied to %', p_what
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'It is about everybody''s stream tables.', HINT = 'Ask a superuser; pause_all() suspends your own.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.demand_superuser IS 'Raises unless the caller is a superuser';

CREATE FUNCTION pgtrickle_changes.await_refreshes(p_until timestamptz) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The lock is let go again at once: a refresh would wait for it instead of being told.
DECLARE
    v_held boolean := true;
BEGIN
    WHILE v_held LOOP
        BEGIN
            LOCK TABLE pgtrickle_changes.drain_lock IN EXCLUSIVE MODE NOWAIT;
            v_held := false;
            RAISE SQLSTATE 'TK003';
        EXCEPTION WHEN lock_not_available OR SQLSTATE 'TK003' THEN
            EXIT WHEN NOT v_held OR clock_timestamp() >= p_until;
            PERFORM pg_sleep(0.02);
        END;
    END LOOP;
    RETURN NOT v_held;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.await_refreshes IS 'Waits for the refreshes by the worker that are under way; whether they have ended in time';

CREATE FUNCTION pgtrickle_changes.do_drain(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.demand_superuser(p_caller, 'drain the worker');
    PERFORM setval('pgtrickle_changes.drain_switch', 2);
    RETURN to_jsonb(pgtrickle_changes.await_refreshes(
        clock_timestamp() + make_interval(secs => greatest((p_args ->> 'timeout_s')::float8, 0))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_drain IS 'The gate''s drain';

CREATE FUNCTION pgtrickle_changes.do_undrain(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.demand_superuser(p_caller, 'let the worker go on');
    PERFORM setval('pgtrickle_changes.drain_switch', 1);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_undrain IS 'The gate''s undrain';

CREATE VIEW pgtrickle.drain_status WITH (security_barrier) AS
    SELECT s.last_value = 2 AS is_draining,
           EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
                    WHERE l.locktype = 'relation' AND l.relation = 'pgtrickle_changes.drain_lock'::regclass
                      AND l.mode = 'RowShareLock' AND l.granted) AS is_refreshing
      FROM pgtrickle_changes.drain_switch AS s;
COMMENT ON VIEW pgtrickle.drain_status IS 'Whether drain() was called, and whether a refresh by the worker is under way';

CREATE FUNCTION pgtrickle.is_drained() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.is_draining AND NOT s.is_refreshing FROM pgtrickle.drain_status AS s
$$;
COMMENT ON FUNCTION pgtrickle.is_drained() IS 'Whether drain() was called and no refresh by the worker is under way any more';
GRANT SELECT ON pgtrickle.drain_status TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.is_drained() TO pg_monitor;
