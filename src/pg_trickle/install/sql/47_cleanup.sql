-- Housekeeping of change buffers: what everybody has read goes, and no writer waits for it.

CREATE FUNCTION pgtrickle_changes.cleanup_buffer(p_buffer name) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Remove rows that every consumer has passed; about how many (0: nothing to do, or not now).  No writer is made to
-- wait for more than the removal itself, and what has to stay is hardly looked at: what everybody has passed came before the oldest
-- frontier, and whether anything has to stay, an index tells.
DECLARE
    v_batch     CONSTANT integer := 20000;
    v_worth     CONSTANT bigint := 1048576;
    -- Of the transaction, which cleans them all: what it has emptied is locked until it ends, and so are the captures.
    v_until     CONSTANT timestamptz := now() + interval '0.5 s';
    v_capture   pgtrickle.pgt_captures;
    v_table     text := format('pgtrickle_changes.%I', p_buffer);
    v_size      bigint;
    v_needed    text;
    v_any       text;
    v_passed    text;
    v_piece     bigint;
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

    SELECT coalesce(string_agg(format('(%s)', pgtrickle_changes.new_rows(v_capture.source_relid, f.frontier, f.own_xid, f.own_seqs)), ' OR '), 'false'),
           coalesce(string_agg(pgtrickle_changes.any_new_row(p_buffer, v_capture.source_relid, f.frontier, f.own_xid, f.own_seqs), ' OR '), 'false'),
           coalesce('c.xid <= ' || quote_literal((array_agg(f.bound ORDER BY f.bound))[1]) || '::pg_catalog.xid8 AND ', '')
      INTO v_needed, v_any, v_passed
      FROM (SELECT format('%L::pg_catalog.pg_snapshot', st.frontier), format('%L::pg_catalog.xid8', st.frontier_xid),
                   format('%L::pg_catalog.jsonb', st.frontier_seqs), greatest(pg_snapshot_xmax(st.frontier), st.frontier_xid)
              FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle.pgt_dependencies AS s USING (pgt_id)
             WHERE s.source_relid = v_capture.source_relid AND s.captured AND st.owner_oid = v_capture.owner_oid
               AND st.frontier IS NOT NULL) AS f(frontier, own_xid, own_seqs, bound);
    v_passed := v_passed || format('(%s) IS NOT TRUE', v_needed);
    IF NOT pgtrickle_changes.run_as(v_capture.owner_oid, format(
           'SELECT pg_catalog.to_jsonb((SELECT true FROM %s AS c WHERE %s ORDER BY c.xid LIMIT 1) IS NOT NULL)', v_table, v_passed))::boolean THEN
        RETURN 0;
    END IF;

    IF v_size >= v_worth THEN
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_table);
            IF pgtrickle_changes.run_as(v_capture.owner_oid, format('SELECT pg_catalog.to_jsonb(%s)', v_any))::boolean THEN
                RAISE lock_not_available;
            END IF;
            v_rows := greatest(pg_stat_get_live_tuples(v_capture.buffer_relid), 1);
            PERFORM pgtrickle_changes.command_as(v_capture.owner_oid, format('TRUNCATE TABLE %s', v_table));
        EXCEPTION WHEN lock_not_available THEN
            -- Somebody is writing or reading, or rows are still needed: a piece at a time, then.
            v_rows := 0;
        END;
    END IF;
    IF v_rows = 0 THEN
        LOOP
            v_piece := pgtrickle_changes.run_as(v_capture.owner_oid, format(
                'WITH gone AS (DELETE FROM %1$s AS d WHERE d.ctid = ANY (ARRAY('
                'SELECT c.ctid FROM %1$s AS c WHERE %2$s ORDER BY c.xid LIMIT %3$s)) RETURNING 1) SELECT pg_catalog.count(*) FROM gone',
                v_table, v_passed, v_batch))::text::bigint;
            v_rows := v_rows + v_piece;
            EXIT WHEN v_piece < v_batch OR clock_timestamp() > v_until;
        END LOOP;
    END IF;
    UPDATE pgtrickle.pgt_captures AS k SET cleaned_at = clock_timestamp() WHERE k.buffer = p_buffer;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.cleanup_buffer IS 'Removes the change rows that every consumer has passed; about how many those were';

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
