-- One attempt at a refresh: which program is due, and whether the snapshot will do.

CREATE FUNCTION pgtrickle_changes.recompute_reason(p_table pgtrickle.pgt_stream_tables, p_pending jsonb, p_rows bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Why this refresh has to recompute, or had better; NULL: the delta will do.
DECLARE
    v_ratio text;
    v_total float8;
BEGIN
    IF p_table.frontier IS NULL THEN
        RETURN 'nothing is known of what it contains';
    ELSIF p_table.needs_reinit THEN
        RETURN coalesce(p_table.reinit_reason, 'asked to start afresh');
    ELSIF p_table.effective_refresh_mode <> 'DIFFERENTIAL' THEN
        RETURN '';
    ELSIF EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_table.pgt_id AND d.decides_rows AND p_pending ? d.source_relid::text) THEN
        RETURN 'what policies of its sources read was changed';
    ELSIF p_pending @? '$.*[1] ? (@ == true)' THEN
        RETURN 'a source was truncated or its columns were renamed';
    END IF;
    -- A query is asked only if the expression before it says so: it takes several times as long.
    IF p_pending @? '$.*[3] ? (@ == true)' THEN
        IF EXISTS (SELECT FROM jsonb_each(p_pending) AS s
                    WHERE (s.value ->> 3)::boolean
                      AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = s.key::oid)) THEN
            -- A trigger or a function that a statement calls may have refreshed when the statement had written, but was not captured yet.
            RETURN 'a source was written on in the transaction that had refreshed it';
        END IF;
    END IF;
    IF p_table.refresh_mode <> 'AUTO' OR p_rows <= 1000 THEN
        RETURN NULL;
    END IF;
    v_ratio := pgtrickle_changes.setting('differential_max_change_ratio');
    IF v_ratio ~ '^[0-9]*\.?[0-9]+$' THEN
        SELECT sum(greatest(c.reltuples, 0)) INTO v_total FROM pg_class AS c WHERE c.oid IN (SELECT k::oid FROM jsonb_object_keys(p_pending) AS k);
        RETURN CASE WHEN p_rows > v_ratio::float8 * v_total THEN format('%s changes are more than the set share of the sources', p_rows) END;
    END IF;
    RETURN CASE WHEN p_rows * p_table.differential_ms_per_row > p_table.full_ms
                THEN format('recomputing is cheaper than applying %s changes', p_rows) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.recompute_reason IS 'Why a refresh has to recompute, or had better; NULL when the delta will do';

CREATE FUNCTION pgtrickle_changes.find_nothing(p_table pgtrickle.pgt_stream_tables, p_snapshot pg_snapshot, p_seqs jsonb, p_taken_at timestamptz) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The frontier stays where it is.
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET quiet_at = CASE WHEN st.quiet_at = p_seqs OR pgtrickle_changes.is_quiet(p_table, p_snapshot, p_seqs) THEN p_seqs END,
           data_timestamp = p_taken_at, last_refresh_at = clock_timestamp(), consecutive_errors = 0, last_error_message = NULL,
           status = CASE WHEN st.status = 'ERROR' THEN 'ACTIVE' ELSE st.status END
     WHERE st.pgt_id = p_table.pgt_id;
    RETURN jsonb_build_object('mode', p_table.effective_refresh_mode, 'rows_in', 0, 'rows_out', 0, 'changed', false,
                              'skipped', 'no changes', 'data_timestamp', p_taken_at);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.find_nothing IS 'Notes that a refresh found nothing to do; what it says then';

CREATE FUNCTION pgtrickle_changes.choose_program(p_table pgtrickle.pgt_stream_tables, p_pending jsonb, p_reason text,
                                                 OUT mode text, OUT reason text, OUT standing name, OUT program jsonb)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The program for the sources that have changed, or the function that stands for it; the one that recomputes if there is a
-- reason, which may be empty: then it needs none.
BEGIN
    mode := 'DIFFERENTIAL';
    reason := p_reason;
    IF reason IS NULL THEN
        standing := pgtrickle_changes.standing_program(p_table, p_pending);
        IF standing IS NOT NULL THEN
            RETURN;
        END IF;
        program := pgtrickle_changes.differential_program(p_table.pgt_id, p_pending);
        reason := CASE WHEN program IS NULL THEN 'the plan has no program for what changed' END;
    END IF;
    IF reason IS NOT NULL THEN
        mode := 'FULL';
        SELECT p.plan #> ARRAY['programs', CASE WHEN p_table.is_populated THEN 'full' ELSE 'fill' END] INTO STRICT program
          FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id;
        reason := nullif(reason, '');
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.choose_program IS 'Which program of a plan is due, and why if it recomputes';

CREATE FUNCTION pgtrickle_changes.move_frontier(p_table pgtrickle.pgt_stream_tables, p_snapshot pg_snapshot, p_seqs jsonb, p_taken_at timestamptz,
                                                p_mode text, p_rows_in bigint, p_ms float8, p_again text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A program has run: the table shows what the snapshot shows.
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET unsettled = CASE WHEN p_mode = 'FULL' THEN pgtrickle_changes.writers_under_way(p_table.pgt_id, p_snapshot)
                            ELSE ARRAY(SELECT x.id FROM unnest(st.unsettled) AS x(id) WHERE NOT pg_visible_in_snapshot(x.id, p_snapshot)) END,
           frontier = p_snapshot, frontier_xid = pg_current_xact_id(), frontier_seqs = p_seqs, frontier_time = transaction_timestamp(),
           quiet_at = NULL,
           -- That of a table with a frontier was compared already (prepare_refresh).
           system_identifier = CASE WHEN p_table.frontier IS NULL THEN (pg_control_system()).system_identifier ELSE st.system_identifier END,
           data_timestamp = p_taken_at, last_refresh_at = clock_timestamp(),
           is_populated = true, status = CASE WHEN st.status IN ('INITIALIZING', 'ERROR') THEN 'ACTIVE' ELSE st.status END,
           needs_reinit = p_again IS NOT NULL, reinit_reason = p_again,
           consecutive_errors = 0, last_error_message = NULL, fuse_pass = false,
           changes_skipped_at = CASE WHEN p_mode = 'FULL' THEN NULL ELSE st.changes_skipped_at END,
           full_ms = CASE WHEN p_mode = 'FULL' THEN coalesce(0.5 * st.full_ms, 0.5 * p_ms) + 0.5 * p_ms ELSE st.full_ms END,
           -- A fixed cost spread over few rows says nothing about many.  What was judged too dear gets another chance with time.
           differential_ms_per_row = CASE
               WHEN p_mode = 'FULL' THEN 0.9 * st.differential_ms_per_row
               WHEN p_rows_in >= 500 THEN coalesce(0.5 * st.differential_ms_per_row, 0.5 * p_ms / p_rows_in) + 0.5 * p_ms / p_rows_in
               ELSE st.differential_ms_per_row END
     WHERE st.pgt_id = p_table.pgt_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.move_frontier IS 'Notes what a stream table contains after a program has run, and what that cost';

CREATE FUNCTION pgtrickle_changes.attempt(p_table pgtrickle.pgt_stream_tables, p_reason text, p_one_snapshot boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Run the program that is due, and move the frontier, if there is anything to do.  Error TK001: a source changed between two of its
-- statements, the work is to be thrown away.
DECLARE
    v_taken_at timestamptz := CASE WHEN p_one_snapshot THEN transaction_timestamp() ELSE clock_timestamp() END;
    v_wal      boolean := pgtrickle_changes.reads_wal(p_table.pgt_id, p_table.owner_oid);
    v_snapshot pg_snapshot;
    v_seqs     jsonb;
    v_pending  jsonb;
    v_changed  jsonb;
    v_rows_in  bigint := 0;
    v_rows_out bigint;
    v_reason   text := p_reason;
    v_choice   record;
    v_began_at timestamptz := clock_timestamp();
    v_ms       float8;
    v_fuse     text;
    v_settled  boolean;
    v_doubt    text;
BEGIN
    v_snapshot := pg_current_snapshot();
    IF v_wal THEN
        -- A snapshot that will be read from the sources alone needs no changes.
        IF NOT p_one_snapshot OR v_reason IS NULL AND p_table.frontier IS NOT NULL AND NOT p_table.needs_reinit THEN
            v_snapshot := (pgtrickle_changes.decode_wal(ARRAY[p_table.owner_oid])).snapshot;
        END IF;
        v_doubt := pgtrickle_changes.wal_doubt(p_table);
        v_reason := coalesce(v_reason, v_doubt);
    END IF;
    v_settled := p_table.unsettled <> '{}' AND pgtrickle_changes.any_committed(p_table.unsettled, v_snapshot);
    v_seqs := pgtrickle_changes.high_water(p_table.pgt_id);
    IF p_table.frontier IS NOT NULL AND p_table.quiet_at IS DISTINCT FROM v_seqs THEN
        v_pending := pgtrickle_changes.pending(p_table.pgt_id, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs, p_table.counting_stands);
    END IF;
    IF v_pending IS NULL AND v_reason IS NULL AND p_table.frontier IS NOT NULL AND NOT p_table.needs_reinit AND NOT v_settled
       AND pgtrickle_changes.is_watched(p_table.pgt_id) THEN
        RETURN pgtrickle_changes.find_nothing(p_table, v_snapshot, v_seqs, v_taken_at);
    END IF;

    SELECT coalesce(sum((s.value ->> 0)::bigint), 0), jsonb_agg(s.key) INTO v_rows_in, v_changed FROM jsonb_each(v_pending) AS s;
    IF v_reason IS NULL AND v_rows_in > 0 THEN
        v_fuse := pgtrickle_changes.fuse_verdict(p_table, v_rows_in);
        IF v_fuse IS NOT NULL THEN
            RETURN jsonb_build_object('mode', p_table.effective_refresh_mode, 'rows_in', 0, 'rows_out', 0, 'changed', false, 'fuse', v_fuse);
        END IF;
    END IF;
    v_choice := pgtrickle_changes.choose_program(p_table, v_pending,
        coalesce(v_reason, pgtrickle_changes.recompute_reason(p_table, v_pending, v_rows_in),
                 CASE WHEN v_settled THEN 'a transaction had written a source before what its policies read was changed' END));
    v_rows_out := CASE WHEN v_choice.standing IS NOT NULL THEN pgtrickle_changes.run_standing(p_table, v_choice.standing)
                       ELSE pgtrickle_changes.run_program(p_table, v_choice.program, CASE WHEN v_choice.mode = 'DIFFERENTIAL' THEN v_changed END) END;
    IF v_choice.mode = 'FULL' AND (p_table.needs_reinit OR NOT p_table.is_populated) THEN
        -- What its plan rests on may have been made anew, and is filled now.
        PERFORM pgtrickle_changes.drop_wide_choices(p_table.pgt_id);
    END IF;
    v_ms := 1000 * extract(epoch FROM clock_timestamp() - v_began_at);

    IF v_wal AND NOT p_one_snapshot THEN
        PERFORM pgtrickle_changes.decode_wal(ARRAY[p_table.owner_oid]);
    END IF;
    -- Is anything new already?  Then some statement may have seen it and another not.
    -- Not as long as nobody has drawn a number, or ended: all statements had the same snapshot then.
    IF (v_seqs <> pgtrickle_changes.high_water(p_table.pgt_id) OR NOT p_one_snapshot AND pg_current_snapshot()::text <> v_snapshot::text)
       -- What a stream table that reads itself has written is for its next round.
       AND nullif(pgtrickle_changes.pending(p_table.pgt_id, v_snapshot, pg_current_xact_id(), v_seqs, p_table.counting_stands) - p_table.pgt_relid::oid::text, '{}') IS NOT NULL THEN
        RAISE EXCEPTION 'a source changed while "%" was refreshed', p_table.pgt_name USING ERRCODE = 'TK001';
    END IF;
    PERFORM pgtrickle_changes.move_frontier(p_table, v_snapshot, v_seqs, v_taken_at, v_choice.mode, v_rows_in, v_ms,
        coalesce(v_doubt, CASE WHEN p_one_snapshot THEN pgtrickle_changes.doubt(p_table, v_snapshot, v_choice.mode,
            CASE WHEN p_table.frontier IS NULL THEN pgtrickle_changes.pending(p_table.pgt_id, v_snapshot, NULL, v_seqs) ELSE v_pending END) END));
    RETURN jsonb_build_object('mode', v_choice.mode, 'rows_in', v_rows_in, 'rows_out', v_rows_out, 'changed', v_rows_out > 0,
                              'reason', v_choice.reason, 'data_timestamp', v_taken_at);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.attempt IS 'Runs the program that is due and moves the frontier; what that came to';

CREATE FUNCTION pgtrickle_changes.doubt(p_table pgtrickle.pgt_stream_tables, p_snapshot pg_snapshot, p_mode text, p_pending jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Why what was computed in the one snapshot of a REPEATABLE READ transaction has to be computed once more, later.
BEGIN
    -- What was written between the snapshot and the capture's beginning is in neither.
    IF p_mode = 'FULL' THEN
        IF EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS s
                     LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = p_table.owner_oid
                    WHERE s.pgt_id = p_table.pgt_id AND s.captured
                      AND (k.since IS NULL OR k.since = pg_current_xact_id() OR NOT pg_visible_in_snapshot(k.since, p_snapshot))) THEN
            RETURN 'its changes are captured since a later moment than the one it was computed for';
        END IF;
    END IF;
    -- A transaction that inserts a key which another has deleted since the snapshot sees two rows of that key.
    IF p_pending @? '$.*[2] ? (@ == true)' THEN
        IF EXISTS (SELECT FROM jsonb_each(p_pending) AS c
                    WHERE (c.value ->> 2)::boolean
                      AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = c.key::oid)) THEN
            RETURN 'it was refreshed in a REPEATABLE READ transaction that had written to its sources';
        END IF;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.doubt IS 'Why what a snapshot showed has to be computed once more; NULL when it hasn''t';

CREATE FUNCTION pgtrickle_changes.lock_sources(p_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source regclass;
BEGIN
    FOR v_source IN
        SELECT DISTINCT s.source_relid FROM pgtrickle.pgt_dependencies AS s JOIN pg_class AS c ON c.oid = s.source_relid
         WHERE s.pgt_id = ANY (p_ids) AND s.captured ORDER BY s.source_relid
    LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', v_source);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_sources IS 'Keeps writers out of the sources of some stream tables until the transaction ends';

CREATE FUNCTION pgtrickle_changes.keep_changes(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nobody keeps change rows for a stream table that has no frontier yet.  Until ours is committed, nobody cleans up;
-- and if somebody has since our snapshot, that is a serialization failure.
BEGIN
    PERFORM FROM pgtrickle.pgt_captures AS k
       JOIN pgtrickle.pgt_dependencies AS s ON s.source_relid = k.source_relid
      WHERE s.pgt_id = p_table.pgt_id AND s.captured AND k.owner_oid = p_table.owner_oid
        FOR SHARE OF k;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.keep_changes IS 'Keeps cleaning up away from the change rows that a stream table without a frontier will need';
