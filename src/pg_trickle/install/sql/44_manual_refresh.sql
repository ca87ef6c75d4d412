-- Refreshes by hand: what is read comes first, and a stale plan is replaced.

CREATE FUNCTION pgtrickle_changes.repair_captures(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What was wrong with the capture of a source, and is no more; NULL if nothing was.  Who writes one source and then another is waited for, and would wait: several are locked together.
DECLARE
    v_sources oid[] := ARRAY(
        SELECT s.source_relid
          FROM pgtrickle.pgt_dependencies AS s
          LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = p_table.owner_oid
         WHERE s.pgt_id = p_table.pgt_id AND s.captured
           AND (k.stamp IS DISTINCT FROM pgtrickle_changes.capture_stamp(k.source_relid, k.buffer, k.attnums, k.trigger_mode)
                OR k.trigger_mode = 'wal' AND pgtrickle_changes.wal_trouble() IS NOT NULL)
         ORDER BY s.source_relid);
    v_source  oid;
    v_drift   text;
    v_found   text;
BEGIN
    IF cardinality(v_sources) > 1 THEN
        PERFORM pgtrickle_changes.lock_captured(v_sources, p_table.owner_oid);
    END IF;
    FOREACH v_source IN ARRAY v_sources LOOP
        v_drift := pgtrickle_changes.capture_drift(v_source, p_table.owner_oid);
        PERFORM pgtrickle_changes.sync_capture(v_source, p_table.owner_oid);
        v_found := coalesce(v_found, format('changes of "%s" may be missing: %s', v_source::regclass, v_drift));
    END LOOP;
    RETURN v_found;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.repair_captures IS 'Repairs the captures of a stream table''s sources; what was wrong, or NULL';

CREATE FUNCTION pgtrickle_changes.has_rows(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgtrickle_changes.run_as(p_table.owner_oid, format('SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM %I.%I))',
                                                              p_table.pgt_schema, p_table.pgt_name))::boolean
$$;
COMMENT ON FUNCTION pgtrickle_changes.has_rows IS 'Whether a stream table holds any row';

CREATE FUNCTION pgtrickle_changes.populate(p_id bigint) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgtrickle_changes.refresh(p_id, 'INITIAL', true)
$$;
COMMENT ON FUNCTION pgtrickle_changes.populate IS 'Fills a new stream table';

CREATE FUNCTION pgtrickle_changes.with_upstream(p_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The stream tables below this one, each after those it reads, and itself at the end.  Circles count as one, and stand together.
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.reads AS r WHERE r.pgt_id = p_id) THEN
        -- Mostly there is none; that is asked in a tenth of the time.
        RETURN (SELECT ARRAY[st.pgt_id] FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id);
    END IF;
    RETURN (
        WITH RECURSIVE up AS (
            SELECT coalesce(st.scc_id, st.pgt_id) AS node, 0 AS depth FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id
            UNION
            SELECT r.source_node, up.depth + 1
              FROM up JOIN pgtrickle_changes.reads AS r ON r.node = up.node
             WHERE up.depth < 1000 AND r.source_node <> up.node
        )
        SELECT array_agg(st.pgt_id ORDER BY d.depth DESC, d.node, st.pgt_id)
          FROM (SELECT up.node, max(up.depth) AS depth FROM up GROUP BY up.node) AS d
          -- By the index, however many there might be.
         CROSS JOIN LATERAL (SELECT m.pgt_id FROM pgtrickle.pgt_stream_tables AS m WHERE coalesce(m.scc_id, m.pgt_id) = d.node OFFSET 0) AS st);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.with_upstream IS 'The stream tables below one, each after those it reads, and itself at the end with its circle';

CREATE FUNCTION pgtrickle_changes.session_decides(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether what the query returns may be a matter of who runs it where: of a setting like app.tenant_id, of session_user.  It is not where the
-- compiler has found a rule for all of it, policies included, and nothing has changed since; but somebody's function is called IMMUTABLE easily.
BEGIN
    RETURN NOT EXISTS (SELECT FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id AND (p.plan ->> 'incremental')::boolean
                          AND (p_table.fingerprint = pgtrickle_changes.fingerprint(p_table.pgt_id)
                               OR p.request_hash = pgtrickle_changes.request_hash(pgtrickle_changes.compile_request(
                                      p_table.owner_oid, p_table.definition_view, p_table.pgt_id, p_table.pgt_schema, p_table.pgt_name))))
           OR EXISTS (SELECT FROM pg_proc AS f JOIN pg_language AS l ON l.oid = f.prolang
                       WHERE f.oid = ANY (p_table.watched_functions) AND (f.provolatile <> 'i' OR l.lanname NOT IN ('internal', 'c')));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.session_decides IS 'Whether settings of the session, or who has opened it, may decide what the query of a stream table returns';

CREATE FUNCTION pgtrickle_changes.is_left_alone(p_table pgtrickle.pgt_stream_tables, p_asked bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who may read a stream table has no say in what it shows: where his session would decide that, he reads what it holds.
BEGIN
    RETURN NOT pg_has_role((SELECT a.owner_oid FROM pgtrickle.pgt_stream_tables AS a WHERE a.pgt_id = p_asked), p_table.owner_oid, 'USAGE')
           AND pgtrickle_changes.session_decides(p_table);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_left_alone IS 'Whether a stream table isn''t refreshed before one that reads it, because that is somebody else''s';

CREATE FUNCTION pgtrickle_changes.check_rests(p_table pgtrickle.pgt_stream_tables, p_is_asked boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Upstream, being suspended is somebody's decision: what it holds is what there is to read.
BEGIN
    IF p_table.status = 'SUSPENDED' AND p_is_asked THEN
        IF p_table.fuse_blown_at IS NOT NULL THEN
            PERFORM pgtrickle_changes.refuse_by_fuse(p_table, p_table.fuse_reason);
        END IF;
        RAISE EXCEPTION 'stream table "%" is suspended', p_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = coalesce('Its last error: ' || p_table.last_error_message, 'It was suspended by hand.'),
                  HINT = format('SELECT pgtrickle.resume_stream_table(%L);', format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
    END IF;
    -- Upstream, one that is maintained in its writers' statements is up to date.
    RETURN p_table.status = 'SUSPENDED'
           OR NOT p_is_asked AND p_table.refresh_mode = 'IMMEDIATE' AND p_table.is_populated AND NOT p_table.needs_reinit;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_rests IS 'Whether a refresh by hand leaves a stream table as it is; raises if it is suspended and asked for itself';

CREATE FUNCTION pgtrickle_changes.refresh_or_tell(p_id bigint, p_members bigint[], p_asked bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whoever asked for a stream table of his own that reads a stranger's learns of that one's errors what all learn who may read it: the
-- message without values.  DETAIL and CONTEXT may hold whole rows of tables that he may not read.
DECLARE
    v_started_at timestamptz := clock_timestamp();
    v_sqlstate   text;
    v_message    text;
    v_why        text;
BEGIN
    PERFORM pgtrickle_changes.refresh_current_plan(p_members);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_sqlstate = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    BEGIN
        -- What this transaction writes is about to be rolled back: another one has to tell.
        PERFORM pgtrickle_changes.bridge_execute(format('SELECT pgtrickle_changes.worker_record_failure(%s, %L, %L, %L)',
            m.id, v_started_at, v_sqlstate, v_message)) FROM unnest(p_members) AS m(id);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS v_why = MESSAGE_TEXT;
        RAISE WARNING 'the failed refresh of "%" is not in the history', (SELECT st.pgt_name FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id)
            USING DETAIL = v_why;
    END;
    IF left(v_sqlstate, 2) IN ('22', '23', 'P0') AND EXISTS (
           SELECT FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle.pgt_stream_tables AS a ON a.pgt_id = p_asked
            WHERE st.pgt_id = ANY (p_members) AND NOT pg_has_role(a.owner_oid, st.owner_oid, 'USAGE')) THEN
        RAISE EXCEPTION USING ERRCODE = v_sqlstate, MESSAGE = pgtrickle_changes.without_values(v_sqlstate, v_message),
            DETAIL = format('Stream table "%s", which is read, could not be refreshed. More is for its owner to see.',
                            (SELECT st.pgt_name FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id));
    END IF;
    RAISE;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_or_tell IS 'Refreshes by hand; a failure gets into the history, and is raised';

CREATE FUNCTION pgtrickle_changes.refresh_upwards(p_ids bigint[], p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id      bigint;
    v_members bigint[];
    v_table   pgtrickle.pgt_stream_tables;
    v_rests   boolean;
    v_why     text;
BEGIN
    FOREACH v_id IN ARRAY p_ids LOOP
        v_members := pgtrickle_changes.members(v_id);
        -- A circle once, for all its members.
        CONTINUE WHEN v_id <> v_members[cardinality(v_members)];
        SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st
         WHERE st.pgt_id = ANY (v_members) ORDER BY st.status <> 'SUSPENDED', st.pgt_id <> v_id LIMIT 1;
        v_rests := pgtrickle_changes.check_rests(v_table, p_id = ANY (v_members));
        IF p_id <> ALL (v_members) THEN
            v_why := CASE WHEN v_table.status = 'SUSPENDED' THEN 'It is suspended.'
                          WHEN NOT v_rests AND EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st
                                                        WHERE st.pgt_id = ANY (v_members) AND pgtrickle_changes.is_left_alone(st, p_id))
                          THEN 'It is somebody else''s, and what is set in this session might decide what it shows; the worker refreshes it.' END;
            IF v_why IS NOT NULL THEN
                RAISE NOTICE 'stream table "%" is read as it is', v_table.pgt_name USING DETAIL = v_why;
            END IF;
            CONTINUE WHEN v_why IS NOT NULL;
        END IF;
        CONTINUE WHEN v_rests;
        PERFORM pgtrickle_changes.refresh_or_tell(v_id, v_members, p_id);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_upwards IS 'Refreshes stream tables by hand, each after those it reads; the last but for its circle is the one that was asked for';

CREATE FUNCTION pgtrickle_changes.have_moved(p_ids bigint[], p_snapshot pg_snapshot) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What this transaction has written itself doesn't count.
BEGIN
    RETURN EXISTS (SELECT FROM unnest(p_ids) AS u(id)
                    WHERE pgtrickle_changes.pending(u.id, p_snapshot, pg_current_xact_id(), pgtrickle_changes.high_water(u.id)) IS NOT NULL);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.have_moved IS 'Whether others have changed sources of some stream tables since a snapshot';

CREATE FUNCTION pgtrickle_changes.manual_refresh(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Bring a stream table up to date now, and what it reads before it: all to one moment.  In READ COMMITTED each statement sees another;
-- if a source has moved meanwhile, all is done again, the fourth time with the sources locked.
DECLARE
    v_table    pgtrickle.pgt_stream_tables;
    v_ids      bigint[];
    v_is_one   boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    v_snapshot pg_snapshot;
BEGIN
    -- Mostly it reads no other, which is asked once.
    SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st
     WHERE st.pgt_id = p_id AND st.scc_id IS NULL
       AND NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_stream_tables AS u ON u.pgt_relid = d.source_relid WHERE d.pgt_id = p_id);
    IF FOUND THEN
        PERFORM pgtrickle_changes.check_rests(v_table, true);
        PERFORM pgtrickle_changes.refresh_or_tell(p_id, ARRAY[p_id], p_id);
        RETURN;
    END IF;
    v_ids := pgtrickle_changes.with_upstream(p_id);
    FOR v_try IN 1..4 LOOP
        IF v_try = 4 THEN
            PERFORM pgtrickle_changes.lock_sources(v_ids);
        END IF;
        v_snapshot := pg_current_snapshot();
        BEGIN
            PERFORM pgtrickle_changes.refresh_upwards(v_ids, p_id);
            IF v_is_one OR v_try = 4 OR NOT pgtrickle_changes.have_moved(v_ids, v_snapshot) THEN
                RETURN;
            END IF;
            RAISE SQLSTATE 'TK001';
        EXCEPTION WHEN SQLSTATE 'TK001' THEN
            -- What was done is undone.
            CONTINUE;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.manual_refresh IS 'Brings a stream table up to date now, and what it reads before it';

CREATE FUNCTION pgtrickle_changes.refresh_current_plan(p_members bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Refresh a stream table, or its circle, by hand; when a plan has gone stale, with a new one.
DECLARE
    v_results jsonb;
BEGIN
    FOR v_try IN 1 .. 2 + cardinality(p_members) LOOP
        v_results := pgtrickle_changes.refresh_members(p_members, 'MANUAL');
        IF NOT v_results @? '$.*.stale_plan ? (@ == true)' THEN
            RETURN;
        END IF;
        PERFORM pgtrickle_changes.recompile(s.id)
           FROM (SELECT r.key::bigint AS id FROM jsonb_each(v_results) AS r WHERE (r.value ->> 'stale_plan')::boolean ORDER BY 1 OFFSET 0) AS s;
    END LOOP;
    RAISE EXCEPTION 'the definitions under stream table % change all the time', array_to_string(p_members, ', ')
        USING ERRCODE = 'serialization_failure', DETAIL = 'Its plan was stale again right after it had been made.',
              HINT = 'Try again when no more DDL is running.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_current_plan IS 'Refreshes by hand; when the plan has gone stale, with a new one';
