-- Draining: the worker decodes as changes commit, and lets the slot go on.  What it puts into the buffers wakes refreshes, as what triggers
-- put there does; each refresh decodes what is missing in its own snapshot.

CREATE FUNCTION pgtrickle_changes.advance_wal_slot() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- To where a transaction has said, which has committed and is on disk: it had its commit wait for that.
DECLARE
    v_slot       name := pgtrickle_changes.wal_slot_name();
    v_advance_to pg_lsn := (SELECT w.advance_to FROM pgtrickle_changes.wal_slot AS w);
BEGIN
    IF v_advance_to > (SELECT s.confirmed_flush_lsn FROM pg_replication_slots AS s WHERE s.slot_name = v_slot) THEN
        BEGIN
            PERFORM pg_replication_slot_advance(v_slot, v_advance_to);
        EXCEPTION WHEN object_in_use THEN
            -- A refresh reads it: next time, then.
            RETURN;
        END;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.advance_wal_slot IS 'Lets the replication slot go on to what is in the buffers for good';

CREATE FUNCTION pgtrickle_changes.worker_drain_wal(p_known_lsn pg_lsn) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
-- {"lsn", "trouble"}; NULL where capture from the WAL isn't enabled.  Nothing is done, and nothing written, if no WAL was since p_known_lsn.
DECLARE
    -- What may be read again each time before its position is worth a write.
    v_worth    CONSTANT bigint := 1048576;
    v_lsn      pg_lsn;
    v_safe     pg_lsn;
    v_noted    pg_lsn;
    v_owners   oid[];
    v_trouble  text;
    v_session  text;
BEGIN
    IF pg_is_in_recovery() OR NOT EXISTS (SELECT FROM pgtrickle_changes.wal_slot) THEN
        RETURN NULL;
    END IF;
    v_lsn := pg_current_wal_insert_lsn();
    IF v_lsn = p_known_lsn THEN
        RETURN jsonb_build_object('lsn', v_lsn, 'trouble', NULL);
    END IF;
    v_trouble := pgtrickle_changes.wal_trouble();
    IF v_trouble IS NOT NULL THEN
        PERFORM pgtrickle_changes.flag_wal_readers(format('its changes can''t be captured from the WAL: %s', v_trouble));
        RETURN jsonb_build_object('lsn', v_lsn, 'trouble', v_trouble);
    END IF;
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pgtrickle_changes.advance_wal_slot();
    IF current_setting('server_version_num')::integer >= 160000 AND EXISTS (
        SELECT FROM pgtrickle_changes.wal_slot AS w JOIN pg_replication_slots AS s ON s.slot_name = pgtrickle_changes.wal_slot_name()
         WHERE v_lsn - s.restart_lsn > v_worth AND v_lsn - w.noted_at > v_worth) THEN
        -- Reading begins at the last note of what was running, of which the server by itself makes one in fifteen seconds.  Before this
        -- transaction writes, or reading would have to begin where it did.
        EXECUTE 'SELECT pg_catalog.pg_log_standby_snapshot()';
        v_noted := pg_current_wal_insert_lsn();
    END IF;
    v_safe := pg_current_wal_flush_lsn();
    IF EXISTS (SELECT FROM pgtrickle_changes.wal_messages()) THEN
        -- Where a refresh is decoding for an owner, it does all there is.
        v_owners := ARRAY(SELECT r.owner_oid FROM pgtrickle_changes.wal_readers AS r ORDER BY r.owner_oid FOR UPDATE SKIP LOCKED);
        v_session := pgtrickle_changes.session_state();
        v_safe := (pgtrickle_changes.decode_wal(v_owners)).safe_lsn;
        PERFORM pgtrickle_changes.check_session(v_session);
        v_safe := least(v_safe, (SELECT min(r.safe_lsn) FROM pgtrickle_changes.wal_readers AS r WHERE r.owner_oid <> ALL (v_owners)));
    END IF;
    UPDATE pgtrickle_changes.wal_slot AS w SET advance_to = v_safe, noted_at = coalesce(v_noted, w.noted_at)
     WHERE w.advance_to < v_safe
       AND (v_noted IS NOT NULL OR v_safe - w.advance_to > v_worth OR w.noted_at >= w.advance_to AND w.noted_at < v_safe
            OR EXISTS (SELECT FROM pgtrickle_changes.wal_readers AS r WHERE r.safe_lsn > w.advance_to));
    RETURN jsonb_build_object('lsn', v_lsn, 'trouble', NULL);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_drain_wal IS 'Decodes what has committed into the change buffers, and lets the replication slot go on';
