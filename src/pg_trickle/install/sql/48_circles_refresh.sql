-- The refresh of a circle of stream tables: its members in turn, until none finds anything more.

CREATE FUNCTION pgtrickle_changes.why_afresh(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Why a circle can't go on from where it is: rows that went may have held up others that now hold up each other alone.
DECLARE
    v_restart jsonb;
    v_pending jsonb;
BEGIN
    IF p_table.frontier IS NULL OR NOT p_table.is_populated THEN
        RETURN format('nothing is known of what "%s" contains', p_table.pgt_name);
    ELSIF p_table.needs_reinit THEN
        RETURN coalesce(p_table.reinit_reason, 'asked to start afresh');
    END IF;
    v_pending := pgtrickle_changes.pending(p_table.pgt_id, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs);
    IF v_pending IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT p.plan #> '{circular,restart}' INTO v_restart FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id;
    RETURN (SELECT CASE WHEN (s.value ->> 4)::boolean THEN format('rows of %s went', s.key::oid::regclass)
                        WHEN (s.value ->> 1)::boolean THEN format('%s was truncated or its columns were renamed', s.key::oid::regclass)
                        ELSE format('what comes to %s may take other rows away', s.key::oid::regclass) END
              FROM jsonb_each(v_pending) AS s
             WHERE (s.value ->> 1)::boolean OR (s.value ->> 4)::boolean OR v_restart @> s.key::jsonb
             ORDER BY s.key LIMIT 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.why_afresh IS 'Why a circle has to start from nothing, as far as one member knows; NULL when what came is all there is';

CREATE FUNCTION pgtrickle_changes.pending_rows(p_table pgtrickle.pgt_stream_tables) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_table.frontier IS NULL THEN
        RETURN 0;
    END IF;
    RETURN (SELECT coalesce(sum((s.value ->> 0)::bigint), 0)
              FROM jsonb_each(pgtrickle_changes.pending(p_table.pgt_id, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs)) AS s);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pending_rows IS 'How many change rows wait for a stream table';

CREATE FUNCTION pgtrickle_changes.refresh_circle(p_ids bigint[], p_initiated_by text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Bring the members of a circle to the least fixpoint: {id: what refresh says of it}.  When plans are stale nothing is done but to say whose.
DECLARE
    v_started_at timestamptz := clock_timestamp();
    v_runs       pgtrickle_changes.prepared_refresh[] := '{}'::pgtrickle_changes.prepared_refresh[];
    v_run        pgtrickle_changes.prepared_refresh;
    v_stale      text[] := '{}'::text[];
    v_results    jsonb := '{}'::jsonb;
    v_why        text;
    v_fuse       text;
BEGIN
    FOR v_i IN 1..cardinality(p_ids) LOOP
        v_run := pgtrickle_changes.prepare_refresh(p_ids[v_i], 'MANUAL', false);
        v_runs := array_append(v_runs, v_run);
        IF v_run.is_stale THEN
            v_stale := v_stale || (v_run.st).pgt_name;
        ELSE
            v_why := coalesce(v_why, nullif(v_run.reason, ''), pgtrickle_changes.why_afresh(v_run.st));
        END IF;
    END LOOP;
    IF cardinality(v_stale) > 0 THEN
        FOREACH v_run IN ARRAY v_runs LOOP
            PERFORM pgtrickle_changes.restore_row_security(v_run.st, v_run.forced);
            v_results := v_results || jsonb_build_object((v_run.st).pgt_id, CASE WHEN v_run.is_stale THEN '{"stale_plan": true}'::jsonb
                ELSE jsonb_build_object('skipped', format('"%s", which is in a cycle with it, is compiled again first', v_stale[1])) END);
        END LOOP;
        RETURN v_results;
    END IF;
    FOREACH v_run IN ARRAY v_runs LOOP
        v_fuse := pgtrickle_changes.fuse_verdict(v_run.st, pgtrickle_changes.pending_rows(v_run.st));
        IF v_fuse IS NOT NULL THEN
            PERFORM pgtrickle_changes.blow_fuse(v_run.st, v_fuse, p_initiated_by, v_started_at);
            PERFORM pgtrickle_changes.restore_row_security(r.st, r.forced) FROM unnest(v_runs) AS r;
            RETURN (SELECT jsonb_object_agg(i.id, jsonb_build_object('fuse', v_fuse, 'skipped', v_fuse)) FROM unnest(p_ids) AS i(id));
        END IF;
    END LOOP;
    v_results := pgtrickle_changes.converge(v_runs, v_why);
    FOREACH v_run IN ARRAY v_runs LOOP
        PERFORM pgtrickle_changes.finish_refresh(v_run, v_results -> (v_run.st).pgt_id::text, p_initiated_by, v_started_at);
    END LOOP;
    RETURN v_results;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_circle IS 'Refreshes the members of a circle together; what that came to for each';

CREATE FUNCTION pgtrickle_changes.refresh_members(p_members bigint[], p_initiated_by text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_members[1] AND st.scc_id IS NOT NULL) THEN
        RETURN pgtrickle_changes.refresh_circle(p_members, p_initiated_by);
    END IF;
    RETURN jsonb_build_object(p_members[1], pgtrickle_changes.refresh(p_members[1], p_initiated_by));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_members IS 'Refreshes a stream table that is in no circle, or a circle; what that came to for each';

CREATE FUNCTION pgtrickle_changes.empty_member(p_table pgtrickle.pgt_stream_tables) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nobody sees it empty: it is filled in the same transaction.
DECLARE
    v_rows bigint := pgtrickle_changes.run_as(p_table.owner_oid, format(
        'WITH gone AS (DELETE FROM %s RETURNING 1) SELECT pg_catalog.count(*) FROM gone', p_table.pgt_relid::regclass))::text::bigint;
BEGIN
    PERFORM pgtrickle_changes.reset_states(p_table.pgt_id);
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.empty_member IS 'Empties a member of a circle and its states, to be filled from nothing; how many rows it had';

CREATE FUNCTION pgtrickle_changes.converge(p_runs pgtrickle_changes.prepared_refresh[], p_why text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Rounds of refreshes until one writes nothing.  From where they are, unless p_why says that they have to begin with nothing; or turns
-- out to, because something else was written meanwhile (then, the third time, with the sources locked).
DECLARE
    v_why    text := p_why;
    v_starts integer := 0;
    v_round  jsonb;
    v_rows   jsonb := '{}'::jsonb;
    v_reason text;
BEGIN
    LOOP
        IF v_why IS NOT NULL THEN
            v_reason := coalesce(v_reason, v_why);
            v_starts := v_starts + 1;
            IF v_starts > 4 THEN
                RAISE EXCEPTION 'the cycle of stream table "%" doesn''t settle', (p_runs[1].st).pgt_name
                    USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Its rounds take rows away: %s.', v_why),
                          HINT = 'Look for functions declared IMMUTABLE that aren''t, and for triggers that write to the sources.';
            END IF;
            FOR v_i IN 1..cardinality(p_runs) LOOP
                IF v_starts > 2 THEN
                    PERFORM pgtrickle_changes.lock_sources(ARRAY[(p_runs[v_i].st).pgt_id]);
                END IF;
                v_rows := jsonb_set(v_rows, ARRAY[(p_runs[v_i].st).pgt_id::text], to_jsonb(
                    coalesce((v_rows ->> (p_runs[v_i].st).pgt_id::text)::bigint, 0) + pgtrickle_changes.empty_member(p_runs[v_i].st)));
            END LOOP;
        END IF;
        v_round := pgtrickle_changes.rounds(p_runs, v_why IS NOT NULL, v_rows);
        v_rows := v_round -> 'rows';
        v_why := v_round ->> 'why';
        EXIT WHEN v_why IS NULL;
    END LOOP;
    RETURN (SELECT jsonb_object_agg(r.key, r.value || CASE WHEN v_reason IS NULL THEN '{}' ELSE
                       jsonb_build_object('mode', 'FULL', 'reason', v_reason) END) FROM jsonb_each(v_round -> 'results') AS r);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.converge IS 'Brings the members of a circle to their least fixpoint, going on or beginning with nothing; what that came to for each';

CREATE FUNCTION pgtrickle_changes.rounds(p_runs pgtrickle_changes.prepared_refresh[], p_from_nothing boolean, p_rows jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- {"results": {id: ...}, "rows": {id: rows written}, "why": why they have to begin with nothing}.  A round refreshes each member by what has
-- come since its last turn, to the sources or to other members; each finds what the ones before it have written.
DECLARE
    v_most    integer := pgtrickle_changes.setting('max_fixpoint_iterations')::integer;
    v_table   pgtrickle.pgt_stream_tables;
    v_result  jsonb;
    v_results jsonb := '{}'::jsonb;
    v_rows    jsonb := p_rows;
    v_doubts  jsonb := '{}'::jsonb;
    v_why     text;
    v_id      text;
    v_written bigint := 1;
    v_round   integer := 0;
BEGIN
    WHILE v_written > 0 LOOP
        v_round := v_round + 1;
        v_written := 0;
        IF v_round > v_most THEN
            RAISE EXCEPTION 'the cycle of stream table "%" found no fixpoint within % rounds', (p_runs[1].st).pgt_name, v_most
                USING ERRCODE = 'program_limit_exceeded',
                      DETAIL = 'Its members still find rows that they had not found before: perhaps each round makes new values, as n + 1 does.',
                      HINT = 'Bound what the queries may find, or have a superuser raise pg_trickle.max_fixpoint_iterations.';
        END IF;
        FOR v_i IN 1..cardinality(p_runs) LOOP
            v_id := (p_runs[v_i].st).pgt_id::text;
            SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id::bigint;
            v_table.needs_reinit := false;
            -- It has been asked, before the first round.
            v_table.fuse_pass := true;
            -- Recomputing one member may be cheaper, but doesn't tell whether it took rows away.
            v_table.refresh_mode := CASE v_table.refresh_mode WHEN 'AUTO' THEN 'DIFFERENTIAL' ELSE v_table.refresh_mode END;
            IF p_from_nothing AND v_round = 1 THEN
                v_table.is_populated := false;
                v_result := pgtrickle_changes.bring_up_to_date(v_table, '');
            ELSE
                v_why := pgtrickle_changes.why_afresh(v_table);
                IF v_why IS NULL THEN
                    v_result := pgtrickle_changes.bring_up_to_date(v_table, NULL);
                    v_why := CASE WHEN v_result ->> 'mode' = 'FULL' AND v_table.effective_refresh_mode = 'DIFFERENTIAL'
                                  THEN coalesce(v_result ->> 'reason', 'it had to be recomputed') END;
                END IF;
                IF v_why IS NOT NULL THEN
                    RETURN jsonb_build_object('why', v_why, 'rows', v_rows);
                END IF;
            END IF;
            v_written := v_written + (v_result ->> 'rows_out')::bigint;
            v_rows := v_rows || jsonb_build_object(v_id, coalesce((v_rows ->> v_id)::bigint, 0) + (v_result ->> 'rows_out')::bigint);
            v_results := v_results || jsonb_build_object(v_id, CASE
                WHEN v_results #>> ARRAY[v_id, 'skipped'] IS NULL AND v_results ? v_id AND v_result ? 'skipped' THEN v_results -> v_id
                ELSE v_result || jsonb_build_object('rows_in', coalesce((v_results #>> ARRAY[v_id, 'rows_in'])::bigint, 0) + (v_result ->> 'rows_in')::bigint)
                END || jsonb_build_object('rows_out', v_rows -> v_id, 'changed', (v_rows ->> v_id)::bigint > 0, 'stale_plan', false));
            -- What one snapshot couldn't know, a later round of the same transaction knows no better.
            v_doubts := v_doubts || (SELECT CASE WHEN st.needs_reinit THEN jsonb_build_object(v_id, st.reinit_reason) ELSE '{}' END
                                       FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id::bigint);
        END LOOP;
    END LOOP;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = v_doubts ? st.pgt_id::text, reinit_reason = v_doubts ->> st.pgt_id::text,
           fixpoint_iterations = CASE WHEN v_round > 1 OR p_from_nothing THEN v_round ELSE st.fixpoint_iterations END,
           fixpoint_at = clock_timestamp()
     WHERE v_results ? st.pgt_id::text;
    RETURN jsonb_build_object('results', v_results, 'rows', v_rows);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.rounds IS 'Refreshes the members of a circle in turn until a round writes nothing, or one has to begin again';

CREATE FUNCTION pgtrickle_changes.settle_circle(p_id bigint, p_is_compiled boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- After a query has closed a circle.  The other members' plans may have to be made anew: by the worker, or, if the caller brings his own
-- plans, by him.
DECLARE
    v_members bigint[] := pgtrickle_changes.members(p_id);
    v_results jsonb;
BEGIN
    FOR v_try IN 1 .. 2 + cardinality(v_members) LOOP
        v_results := pgtrickle_changes.refresh_circle(v_members, 'INITIAL');
        EXIT WHEN p_is_compiled OR NOT EXISTS (SELECT FROM jsonb_each(v_results) AS r WHERE (r.value ->> 'stale_plan')::boolean);
        PERFORM pgtrickle_changes.recompile(r.key::bigint) FROM jsonb_each(v_results) AS r WHERE (r.value ->> 'stale_plan')::boolean;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.settle_circle IS 'Fills a circle that has just been closed';
