-- The fuse: more changes at once than their owner thinks possible are held back until he has looked at them.

CREATE FUNCTION pgtrickle_changes.fuse_verdict(p_table pgtrickle.pgt_stream_tables, p_rows bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What is computed afresh doesn't go by the changes; nor does it matter how many there are.
DECLARE
    v_default text := pgtrickle_changes.setting('fuse_default_ceiling');
    v_ceiling bigint := coalesce(p_table.fuse_ceiling, CASE WHEN v_default ~ '^[0-9]{1,18}$' THEN v_default::bigint ELSE 0 END);
BEGIN
    RETURN CASE WHEN v_ceiling > 0 AND p_rows > v_ceiling AND NOT p_table.fuse_pass AND NOT p_table.needs_reinit
                THEN format('fuse: %s pending changes are more than its ceiling of %s', p_rows, v_ceiling) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.fuse_verdict IS 'Why so many pending changes are not to be refreshed from; NULL if they may';

CREATE FUNCTION pgtrickle_changes.blow_fuse(p_table pgtrickle.pgt_stream_tables, p_reason text, p_initiated_by text, p_started_at timestamptz)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The worker leaves it alone from now on.  Who asked for the refresh himself is told at once.
BEGIN
    IF p_initiated_by = 'MANUAL' THEN
        PERFORM pgtrickle_changes.refuse_by_fuse(p_table, p_reason);
    END IF;
    UPDATE pgtrickle.pgt_stream_tables AS st SET status = 'SUSPENDED', fuse_blown_at = clock_timestamp(), fuse_reason = p_reason
     WHERE st.pgt_id = p_table.pgt_id;
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, skipped_reason)
    VALUES (p_table.pgt_id, p_table.pgt_name, p_table.effective_refresh_mode, p_initiated_by, p_started_at, clock_timestamp(), p_reason);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.blow_fuse IS 'Suspends a stream table because of the changes that wait for it';

CREATE FUNCTION pgtrickle_changes.refuse_by_fuse(p_table pgtrickle.pgt_stream_tables, p_reason text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := format('%I.%I', p_table.pgt_schema, p_table.pgt_name);
BEGIN
    RAISE EXCEPTION 'the fuse of stream table "%" holds its refresh back', p_table.pgt_name
        USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = p_reason,
              HINT = format('SELECT pgtrickle.reset_fuse(%L); lets these changes through. See also its actions reinitialize and skip_changes.', v_name);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_by_fuse IS 'Raises that a fuse has blown, or would';

CREATE FUNCTION pgtrickle_changes.do_reset_fuse(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_action text := coalesce(pgtrickle_changes.checked_choice('action', lower(p_args ->> 'action'), '{apply,reinitialize,skip_changes}'), 'apply');
BEGIN
    v_table := pgtrickle_changes.lock_stream_table(v_table.pgt_id);
    IF v_action = 'skip_changes' THEN
        PERFORM pgtrickle_changes.skip_changes(v_table);
    END IF;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET fuse_pass = v_action = 'apply',
           needs_reinit = st.needs_reinit OR v_action = 'reinitialize',
           reinit_reason = CASE WHEN v_action = 'reinitialize' THEN 'asked for with reset_fuse' ELSE st.reinit_reason END,
           status = CASE WHEN st.fuse_blown_at IS NOT NULL THEN 'ACTIVE' ELSE st.status END, fuse_blown_at = NULL, fuse_reason = NULL
     WHERE st.pgt_id = v_table.pgt_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_reset_fuse IS 'The gate''s reset_fuse';

CREATE FUNCTION pgtrickle_changes.skip_changes(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Moves the frontier past what is pending.  From here on the table is not its query: the catalog says so, and health_check().
DECLARE
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_seqs     jsonb := pgtrickle_changes.high_water(p_table.pgt_id);
    v_pending  jsonb;
    v_rows     bigint;
BEGIN
    IF p_table.frontier IS NULL THEN
        RAISE EXCEPTION 'stream table "%" reads no changes', p_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'It is to be computed afresh, or maintained by its writers'' statements.',
                  HINT = 'There is nothing to skip.';
    END IF;
    v_pending := pgtrickle_changes.pending(p_table.pgt_id, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs);
    SELECT coalesce(sum((s.value ->> 0)::bigint), 0) INTO v_rows FROM jsonb_each(v_pending) AS s;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET frontier = v_snapshot, frontier_xid = pg_current_xact_id(), frontier_seqs = v_seqs,
           quiet_at = NULL, changes_skipped_at = CASE WHEN v_rows > 0 THEN clock_timestamp() ELSE st.changes_skipped_at END
     WHERE st.pgt_id = p_table.pgt_id;
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, skipped_reason)
    VALUES (p_table.pgt_id, p_table.pgt_name, p_table.effective_refresh_mode, 'MANUAL', clock_timestamp(), clock_timestamp(),
            format('fuse: %s changes were skipped with reset_fuse', v_rows));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.skip_changes IS 'Throws away the changes that wait for a stream table, and says so';

CREATE VIEW pgtrickle.visible_fuses WITH (security_barrier) AS
    SELECT s.name, s.pgt_relid,
           coalesce(st.fuse_ceiling, CASE WHEN d.setting ~ '^[0-9]{1,18}$' THEN d.setting::bigint ELSE 0 END) AS fuse_ceiling,
           st.fuse_blown_at, st.fuse_reason, st.changes_skipped_at
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pgtrickle_changes.status AS s USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     CROSS JOIN LATERAL (SELECT coalesce(nullif(current_setting('pg_trickle.fuse_default_ceiling', true), ''),
                                         (SELECT o.value FROM pgtrickle.pgt_settings AS o WHERE o.name = 'fuse_default_ceiling')) AS setting) AS d
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_fuses IS 'The fuses of the stream tables that the current user may look at';

CREATE FUNCTION pgtrickle.fuse_status()
    RETURNS TABLE (stream_table text, fuse_ceiling bigint, is_blown boolean, blown_at timestamptz, reason text, changes_skipped_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.name, f.fuse_ceiling, f.fuse_blown_at IS NOT NULL, f.fuse_blown_at, f.fuse_reason, f.changes_skipped_at
      FROM pgtrickle.visible_fuses AS f
     ORDER BY f.name
$$;
COMMENT ON FUNCTION pgtrickle.fuse_status() IS
    'The fuse of each stream table: its ceiling (0: none), whether it is blown and why, and since when the table is not its query because changes were skipped';
GRANT SELECT ON pgtrickle.visible_fuses TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.fuse_status() TO pg_monitor;
