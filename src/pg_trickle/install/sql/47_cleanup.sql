-- Housekeeping of change buffers: what everybody has read goes, and no writer waits for it.

CREATE FUNCTION pgtrickle_changes.cleanup_buffer(p_buffer name) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Remove rows that every consumer has passed; how many, at most (0: nothing to do, or not now).  No writer is made to
-- wait for more than the removal itself.
DECLARE
    v_batch     CONSTANT integer := 20000;
    v_worth     CONSTANT bigint := 1048576;
    v_capture   pgtrickle.pgt_captures;
    v_table     text := format('pgtrickle_changes.%I', p_buffer);
    v_size      bigint;
    v_needed    text;
    v_rows      bigint := 0;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'change buffers are cleaned up in READ COMMITTED only'
            USING ERRCODE = 'invalid_transaction_state', DETAIL = 'An older snapshot may not know all consumers.',
                  HINT = 'Call it in a transaction of its own.';
    END IF;
    -- Whoever is about to read the buffer for the first time holds this (keep_changes); the statements below see what he did.
    SELECT k.* INTO v_capture FROM pgtrickle.pgt_captures AS k WHERE k.buffer = p_buffer FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR to_regclass(v_table) IS NULL THEN
        RETURN 0;
    END IF;
    -- Of the file, which waits for nobody.
    IF (pg_stat_file(pg_relation_filepath(v_capture.buffer_relid), true)).size = 0 THEN
        RETURN 0;
    END IF;
    -- Several buffers are cleaned in one transaction: waiting for one that is being dropped could be a deadlock.  One that its owner has
    -- hung something on, the next refresh makes anew.
    IF NOT pgtrickle_changes.lock_plain(v_capture, true) THEN
        RETURN 0;
    END IF;
    v_size := pg_relation_size(v_capture.buffer_relid);
    PERFORM pgtrickle_changes.let_go(v_capture, v_size);

    SELECT coalesce(string_agg(format('(%s)', pgtrickle_changes.new_rows(v_capture.source_relid,
               format('%L::pg_catalog.pg_snapshot', st.frontier), format('%L::pg_catalog.xid8', st.frontier_xid),
               format('%L::pg_catalog.jsonb', st.frontier_seqs))), ' OR '), 'false')
      INTO v_needed
      FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle.pgt_dependencies AS s USING (pgt_id)
     WHERE s.source_relid = v_capture.source_relid AND s.captured AND st.owner_oid = v_capture.owner_oid
       AND st.frontier IS NOT NULL;
    IF NOT pgtrickle_changes.run_as(v_capture.owner_oid, format(
           'SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM %s AS c WHERE (%s) IS NOT TRUE))', v_table, v_needed))::boolean THEN
        RETURN 0;
    END IF;

    IF v_size >= v_worth THEN
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_table);
            v_rows := nullif(pgtrickle_changes.run_as(v_capture.owner_oid, format(
                'SELECT CASE WHEN NOT EXISTS (SELECT FROM %s AS c WHERE %s) THEN (SELECT pg_catalog.count(*) FROM %1$s) END',
                v_table, v_needed)), 'null')::text::bigint;
            IF v_rows IS NULL THEN
                RAISE lock_not_available;
            END IF;
            PERFORM pgtrickle_changes.command_as(v_capture.owner_oid, format('TRUNCATE TABLE %s', v_table));
        EXCEPTION WHEN lock_not_available THEN
            -- Somebody is writing or reading, or rows are still needed: a piece at a time, then.
            v_rows := 0;
        END;
    END IF;
    IF v_rows = 0 THEN
        v_rows := pgtrickle_changes.run_as(v_capture.owner_oid, format(
            'WITH gone AS (DELETE FROM %1$s AS d WHERE d.ctid = ANY (ARRAY('
            'SELECT c.ctid FROM %1$s AS c WHERE (%2$s) IS NOT TRUE LIMIT %3$s)) RETURNING 1) SELECT pg_catalog.count(*) FROM gone',
            v_table, v_needed, v_batch))::text::bigint;
    END IF;
    UPDATE pgtrickle.pgt_captures AS k SET cleaned_at = clock_timestamp() WHERE k.buffer = p_buffer;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.cleanup_buffer IS 'Removes the change rows that every consumer has passed; at most how many those were';

CREATE FUNCTION pgtrickle_changes.let_go(p_capture pgtrickle.pgt_captures, p_size bigint) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Who doesn't come to read will be cheaper to compute afresh once the changes outgrow the source itself.
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET frontier = NULL, frontier_xid = NULL, needs_reinit = true,
           reinit_reason = format('its changes of %s outgrew the source while it was not refreshed', p_capture.source_relid::regclass)
     WHERE p_size > greatest(67108864, pg_relation_size(p_capture.source_relid))
       AND st.pgt_id IN (SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l JOIN pgtrickle.pgt_dependencies AS s USING (pgt_id)
                          WHERE s.source_relid = p_capture.source_relid AND s.captured AND l.owner_oid = p_capture.owner_oid
                            AND l.frontier IS NOT NULL AND (l.status IN ('SUSPENDED', 'ERROR') OR l.tier = 'frozen')
                            FOR NO KEY UPDATE OF l SKIP LOCKED)
$$;
COMMENT ON FUNCTION pgtrickle_changes.let_go IS 'Takes the frontier of those who don''t come to read a buffer that has outgrown its source';
