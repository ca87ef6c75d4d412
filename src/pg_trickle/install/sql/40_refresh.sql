-- Refresh: bringing one stream table up to date, in the current transaction.
--
-- What touches the query, its sources, buffers, states or the stream table runs as the owner (run_as); the engine itself
-- only reads the catalog and writes its own tables.
--
-- A refresh with nothing to do has to be cheap.  So what every refresh calls is PL/pgSQL even where one statement would do:
-- it keeps its plans for the session, where a SQL function is planned at every call.

CREATE FUNCTION pgtrickle_changes.new_rows(p_source oid, p_frontier text, p_xid text, p_seqs text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The condition on a change row c that makes it new to a frontier (docs/internals.md §2); the arguments are SQL.
BEGIN
    RETURN format('c.xid >= pg_catalog.pg_snapshot_xmin(%1$s) AND CASE WHEN c.xid = %2$s'
                  ' THEN c.seq > coalesce((%3$s ->> %4$L)::pg_catalog.int8, 0)'
                  ' ELSE NOT pg_catalog.pg_visible_in_snapshot(c.xid, %1$s) END',
                  p_frontier, p_xid, p_seqs, p_source);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.new_rows IS 'The condition, as SQL, that makes a change row new to a frontier';

CREATE FUNCTION pgtrickle_changes.high_water(p_id bigint) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The last sequence number of the buffer of each source, by source.
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(k.source_relid, coalesce(pg_sequence_last_value(k.sequence_relid), 0)), '{}')
              FROM pgtrickle.pgt_stream_tables AS st
              JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = st.pgt_id AND s.captured
              JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = st.owner_oid
              JOIN pg_class AS c ON c.oid = k.sequence_relid
             WHERE st.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.high_water IS 'The last sequence number of the buffer of each source';

CREATE FUNCTION pgtrickle_changes.pending(p_id bigint, p_frontier pg_snapshot, p_xid xid8, p_seqs jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The change rows that are new to a frontier: {source: [rows, truncated, some of them by this transaction, some of them by
-- the transaction of the frontier]}.
DECLARE
    v_owner   oid;
    v_any     text;
    v_buffers jsonb;
BEGIN
    SELECT st.owner_oid, string_agg(format('EXISTS (SELECT FROM pgtrickle_changes.%I AS c WHERE %s)', k.buffer, n.is_new), ' OR '),
           jsonb_object_agg(s.source_relid, jsonb_build_array(k.buffer, n.is_new))
      INTO v_owner, v_any, v_buffers
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = st.pgt_id AND s.captured
      JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = st.owner_oid
     CROSS JOIN LATERAL pgtrickle_changes.new_rows(s.source_relid, '$1', '$2', '$3') AS n(is_new)
     WHERE st.pgt_id = p_id
     GROUP BY st.owner_oid;
    -- Mostly there are none, and to know that takes half as long as to count them.
    IF v_any IS NULL OR NOT pgtrickle_changes.run_as(v_owner, 'SELECT ' || v_any, p_frontier, p_xid, p_seqs)::boolean THEN
        RETURN NULL;
    END IF;
    RETURN nullif(pgtrickle_changes.run_as(v_owner, (
        SELECT 'SELECT pg_catalog.jsonb_object_agg(s.source, pg_catalog.jsonb_build_array(s.n, s.truncated, s.own, s.later)) FROM ('
               || string_agg(format('SELECT %L AS source, pg_catalog.count(*) AS n, pg_catalog.bool_or(c.w = 0) AS truncated,'
                                    ' coalesce(pg_catalog.bool_or(c.xid = pg_catalog.pg_current_xact_id_if_assigned()), false) AS own,'
                                    ' coalesce(pg_catalog.bool_or(c.xid = $2), false) AS later'
                                    ' FROM pgtrickle_changes.%I AS c WHERE %s', b.key, b.value ->> 0, b.value ->> 1), ' UNION ALL ')
               || ') AS s WHERE s.n > 0'
          FROM jsonb_each(v_buffers) AS b), p_frontier, p_xid, p_seqs), 'null');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pending IS 'How many change rows of each source are new to a frontier, and what kind of rows';

CREATE FUNCTION pgtrickle_changes.is_watched(p_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT coalesce(bool_and(s.captured), false) FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = p_id)
           AND NOT (SELECT st.timed FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_watched IS 'Whether a change of any source is noticed, and nothing else changes the result';

CREATE FUNCTION pgtrickle_changes.request_hash(p_request jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- What of a compile request decides the plan.  Row estimates don't: an ANALYZE makes no plan stale.
    SELECT md5(jsonb_set(p_request, '{relations}', coalesce((
               SELECT jsonb_agg(r.relation - 'rows' ORDER BY r.place)
                 FROM jsonb_array_elements(p_request -> 'relations') WITH ORDINALITY AS r(relation, place)), '[]'))::text)
$$;
COMMENT ON FUNCTION pgtrickle_changes.request_hash IS 'The hash of what decides the plan in a compile request';

CREATE FUNCTION pgtrickle_changes.lock_stream_table(p_id bigint) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- One refresher at a time.  The catalog row is read under the lock; in REPEATABLE READ a row that somebody else's
-- refresh has changed since the snapshot is a serialization failure, which it is.
DECLARE
    v_table pgtrickle.pgt_stream_tables;
BEGIN
    PERFORM pg_advisory_xact_lock(1885762402, (p_id % 2147483647)::integer);
    SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table % does not exist', p_id
            USING ERRCODE = 'undefined_table', DETAIL = 'It was dropped in the meantime.',
                  HINT = 'List the stream tables with SELECT * FROM pgtrickle.pgt_status().';
    END IF;
    RETURN v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_stream_table IS 'Locks a stream table for its one refresher; its catalog row as it is then';

CREATE FUNCTION pgtrickle_changes.check_privileges(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The owner must still be allowed to read what the query reads, whether or not this refresh touches it.  What isn't captured is
-- read through the query itself, and then PostgreSQL looks after that.
DECLARE
    v_denied record;
    v_owner  name := pg_get_userbyid(p_table.owner_oid);
BEGIN
    SELECT n.nspname, c.relname, has_schema_privilege(p_table.owner_oid, n.oid, 'USAGE') AS schema_ok
      INTO v_denied
      FROM pgtrickle.pgt_dependencies AS s
      JOIN pg_class AS c ON c.oid = s.source_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE s.pgt_id = p_table.pgt_id AND s.captured
       AND NOT (has_schema_privilege(p_table.owner_oid, n.oid, 'USAGE')
                AND (has_table_privilege(p_table.owner_oid, c.oid, 'SELECT')
                     OR has_any_column_privilege(p_table.owner_oid, c.oid, 'SELECT')
                        AND NOT EXISTS (SELECT FROM pg_attribute AS a
                                         WHERE a.attrelid = c.oid AND a.attname = ANY (s.columns_used) AND NOT a.attisdropped
                                           AND NOT has_column_privilege(p_table.owner_oid, c.oid, a.attnum, 'SELECT'))))
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'permission denied for table "%"', v_denied.relname
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = CASE WHEN v_denied.schema_ok
                      THEN format('Role "%s", who owns the stream table "%s"."%s", may not read the columns it uses.',
                                  v_owner, p_table.pgt_schema, p_table.pgt_name)
                      ELSE format('Role "%s", who owns the stream table "%s"."%s", has no USAGE on schema "%s".',
                                  v_owner, p_table.pgt_schema, p_table.pgt_name, v_denied.nspname) END,
                  HINT = CASE WHEN v_denied.schema_ok
                      THEN format('GRANT SELECT ON %I.%I TO %I;', v_denied.nspname, v_denied.relname, v_owner)
                      ELSE format('GRANT USAGE ON SCHEMA %I TO %I;', v_denied.nspname, v_owner) END;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_privileges IS 'Raises unless the owner may still read all that the query reads';

CREATE FUNCTION pgtrickle_changes.run_program(p_table pgtrickle.pgt_stream_tables, p_program jsonb, p_changed jsonb DEFAULT NULL::jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The statements of a program, in order, as the owner; the number of rows they wrote to the stream table.  p_changed are the
-- sources that have changed, for the program that serves any.
DECLARE
    v_settings  jsonb := p_table.settings || jsonb_build_object('frontier_time', p_table.frontier_time);
    v_statement text;
    v_count     jsonb;
    v_rows      bigint := 0;
BEGIN
    FOR v_statement IN SELECT s.value FROM jsonb_array_elements_text(p_program) WITH ORDINALITY AS s(value, place) ORDER BY s.place LOOP
        v_count := pgtrickle_changes.run_as(p_table.owner_oid, v_statement, p_table.frontier, p_table.frontier_xid,
                                            CASE WHEN p_changed IS NULL THEN p_table.frontier_seqs
                                                 ELSE p_table.frontier_seqs || jsonb_build_object('changed', p_changed) END, v_settings);
        -- A statement says so when the table doesn't hold what the changes take away.
        IF v_count = 'null' THEN
            RAISE EXCEPTION 'stream table "%" contradicts the changes', p_table.pgt_name
                USING ERRCODE = 'TK002', DETAIL = 'It does not hold rows that the changes take away: somebody else has written to it.',
                      HINT = format('SELECT pgtrickle.reinitialize_stream_table(%L);', format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
        END IF;
        v_rows := v_rows + coalesce((v_count #>> '{}')::bigint, 0);
    END LOOP;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.run_program IS 'Runs the statements of a program as the owner; how many rows of the stream table they wrote';

CREATE FUNCTION pgtrickle_changes.record_refresh(p_table pgtrickle.pgt_stream_tables, p_mode text, p_initiated_by text,
    p_started_at timestamptz, p_rows_in bigint, p_rows_out bigint, p_skipped_reason text, p_reason text, p_data_timestamp timestamptz)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, success,
                                               rows_in, rows_out, skipped_reason, reason, data_timestamp)
    VALUES (p_table.pgt_id, p_table.pgt_name, p_mode, p_initiated_by, p_started_at, clock_timestamp(), true,
            p_rows_in, p_rows_out, p_skipped_reason, p_reason, p_data_timestamp);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.record_refresh IS 'Writes a refresh into history and catalog';

CREATE FUNCTION pgtrickle_changes.record_failure(p_id bigint, p_initiated_by text, p_started_at timestamptz,
    p_sqlstate text, p_message text, p_max_errors integer) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A failed refresh in history and catalog; suspended after so many in a row.  It runs beside the transaction that
-- failed, which may still hold the catalog row: then the history has to do.
DECLARE
    v_text text := format('%s (SQLSTATE %s)', p_message, p_sqlstate);
BEGIN
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, success, error_message)
    SELECT st.pgt_id, st.pgt_name, st.effective_refresh_mode, p_initiated_by, p_started_at, clock_timestamp(), false, v_text
      FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET consecutive_errors = st.consecutive_errors + 1, last_error_at = clock_timestamp(), last_error_message = v_text,
           status = CASE WHEN st.consecutive_errors + 1 >= p_max_errors AND st.status <> 'INITIALIZING' THEN 'SUSPENDED' ELSE st.status END
     WHERE st.pgt_id IN (SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l
                          WHERE l.pgt_id = p_id FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.record_failure IS 'Writes a failed refresh into history and catalog; suspends after so many in a row';

CREATE FUNCTION pgtrickle_changes.reset_states(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Empty the state and delta tables, as after their creation.
DECLARE
    v_table pgtrickle.pgt_stream_tables;
    v_name  text;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    FOR v_name IN
        SELECT t.item ->> 'name'
          FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
         WHERE p.pgt_id = p_id
    LOOP
        PERFORM pgtrickle_changes.run_as(v_table.owner_oid,
            format('WITH gone AS (DELETE FROM pgtrickle_changes.%I RETURNING 1) SELECT pg_catalog.count(*) FROM gone', v_name));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.reset_states IS 'Empties the state and delta tables';

CREATE FUNCTION pgtrickle_changes.verify(p_id bigint) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The stream table against its query, in one statement and so in one snapshot: {"missing": n, "extra": n}.
DECLARE
    v_table  pgtrickle.pgt_stream_tables;
    v_query  text;
    v_result jsonb;
    v_forced boolean;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    SELECT p.plan -> 'programs' ->> 'verify' INTO STRICT v_query FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id;
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    v_result := pgtrickle_changes.run_as(v_table.owner_oid, v_query, v_table.frontier, v_table.frontier_xid, v_table.frontier_seqs, v_table.settings);
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.verify IS 'Compares a stream table with its query: how many rows are missing, how many too many';

CREATE FUNCTION pgtrickle_changes.lift_row_security(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Policies that their owner forces on himself are for his sessions, not for refreshes, which have to see and write every row.
-- Whether there are any; they are back when this transaction commits, and until then nobody else gets at the table.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_authid AS o ON o.oid = c.relowner
                    WHERE c.oid = p_table.pgt_relid AND c.relrowsecurity AND c.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls) THEN
        RETURN false;
    END IF;
    PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', p_table.pgt_relid::regclass));
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lift_row_security IS 'Lifts the policies that the owner forces on himself; whether there were any';

CREATE FUNCTION pgtrickle_changes.restore_row_security(p_table pgtrickle.pgt_stream_tables, p_forced boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_forced THEN
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', p_table.pgt_relid::regclass));
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.restore_row_security IS 'Puts back what lift_row_security lifted';

CREATE FUNCTION pgtrickle_changes.recompute_reason(p_table pgtrickle.pgt_stream_tables, p_plan jsonb, p_pending jsonb, p_rows bigint) RETURNS text
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
    ELSIF p_table.effective_refresh_mode <> 'DIFFERENTIAL' OR NOT (p_plan ->> 'incremental')::boolean THEN
        RETURN '';
    ELSIF EXISTS (SELECT FROM jsonb_each(p_pending) AS s WHERE (s.value ->> 1)::boolean) THEN
        RETURN 'a source was truncated or its columns were renamed';
    ELSIF EXISTS (SELECT FROM jsonb_each(p_pending) AS s
                   WHERE (s.value ->> 3)::boolean
                     AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = s.key::oid)) THEN
        -- A trigger or a function that a statement calls may have refreshed when the statement had written, but was not captured yet.
        RETURN 'a source was written on in the transaction that had refreshed it';
    ELSIF p_table.refresh_mode <> 'AUTO' OR p_rows <= 1000 THEN
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

CREATE FUNCTION pgtrickle_changes.attempt(p_table pgtrickle.pgt_stream_tables, p_reason text, p_one_snapshot boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Run the program that is due, and move the frontier: NULL when there is nothing to do.  Error TK001: a source changed
-- between two of its statements, the work is to be thrown away.
DECLARE
    v_taken_at timestamptz := CASE WHEN p_one_snapshot THEN transaction_timestamp() ELSE clock_timestamp() END;
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_seqs     jsonb := pgtrickle_changes.high_water(p_table.pgt_id);
    v_pending  jsonb;
    v_plan     jsonb;
    v_rows_in  bigint := 0;
    v_rows_out bigint;
    v_mode     text;
    v_reason   text := p_reason;
    v_program  jsonb;
    v_began_at timestamptz := clock_timestamp();
    v_ms       float8;
    v_again    text;
BEGIN
    IF p_table.frontier IS NOT NULL THEN
        v_pending := pgtrickle_changes.pending(p_table.pgt_id, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs);
    END IF;
    IF v_pending IS NULL AND v_reason IS NULL AND p_table.frontier IS NOT NULL AND NOT p_table.needs_reinit
       AND pgtrickle_changes.is_watched(p_table.pgt_id) THEN
        UPDATE pgtrickle.pgt_stream_tables AS st
           SET data_timestamp = v_taken_at, last_refresh_at = clock_timestamp(), consecutive_errors = 0, last_error_message = NULL,
               status = CASE WHEN st.status = 'ERROR' THEN 'ACTIVE' ELSE st.status END
         WHERE st.pgt_id = p_table.pgt_id;
        RETURN jsonb_build_object('mode', p_table.effective_refresh_mode, 'rows_in', 0, 'rows_out', 0, 'changed', false,
                                  'skipped', 'no changes', 'data_timestamp', v_taken_at);
    END IF;

    SELECT p.plan INTO STRICT v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id;
    SELECT coalesce(sum((s.value ->> 0)::bigint), 0) INTO v_rows_in FROM jsonb_each(v_pending) AS s;
    v_reason := coalesce(v_reason, pgtrickle_changes.recompute_reason(p_table, v_plan, v_pending, v_rows_in));
    IF v_reason IS NULL THEN
        v_program := coalesce(
            v_plan #> ARRAY['programs', 'differential', (SELECT coalesce(string_agg(k, ',' ORDER BY k::bigint), '') FROM jsonb_object_keys(v_pending) AS k)],
            v_plan #> ARRAY['programs', 'differential', '*']);
        v_reason := CASE WHEN v_program IS NULL THEN 'the plan has no program for what changed' END;
    END IF;
    v_mode := 'DIFFERENTIAL';
    IF v_reason IS NOT NULL THEN
        v_mode := 'FULL';
        v_program := v_plan #> ARRAY['programs', CASE WHEN p_table.is_populated THEN 'full' ELSE 'fill' END];
        v_reason := nullif(v_reason, '');
    END IF;
    v_rows_out := pgtrickle_changes.run_program(p_table, v_program,
        CASE WHEN v_mode = 'DIFFERENTIAL' THEN (SELECT jsonb_agg(k) FROM jsonb_object_keys(v_pending) AS k) END);
    v_ms := 1000 * extract(epoch FROM clock_timestamp() - v_began_at);

    -- Is anything new already?  Then some statement may have seen it and another not.
    IF (NOT p_one_snapshot OR v_seqs <> pgtrickle_changes.high_water(p_table.pgt_id))
       AND pgtrickle_changes.pending(p_table.pgt_id, v_snapshot, pg_current_xact_id(), v_seqs) IS NOT NULL THEN
        RAISE EXCEPTION 'a source changed while "%" was refreshed', p_table.pgt_name USING ERRCODE = 'TK001';
    END IF;

    v_again := CASE WHEN p_one_snapshot THEN pgtrickle_changes.doubt(p_table, v_snapshot, v_mode,
        CASE WHEN p_table.frontier IS NULL THEN pgtrickle_changes.pending(p_table.pgt_id, v_snapshot, NULL, v_seqs) ELSE v_pending END) END;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET frontier = v_snapshot, frontier_xid = pg_current_xact_id(), frontier_seqs = v_seqs, frontier_time = transaction_timestamp(),
           system_identifier = (SELECT c.system_identifier FROM pg_control_system() AS c),
           data_timestamp = v_taken_at, last_refresh_at = clock_timestamp(),
           is_populated = true, status = CASE WHEN st.status IN ('INITIALIZING', 'ERROR') THEN 'ACTIVE' ELSE st.status END,
           needs_reinit = v_again IS NOT NULL, reinit_reason = v_again,
           consecutive_errors = 0, last_error_message = NULL,
           full_ms = CASE WHEN v_mode = 'FULL' THEN coalesce(0.5 * st.full_ms, 0.5 * v_ms) + 0.5 * v_ms ELSE st.full_ms END,
           -- A fixed cost spread over few rows says nothing about many.  What was judged too dear gets another chance with time.
           differential_ms_per_row = CASE
               WHEN v_mode = 'FULL' THEN 0.9 * st.differential_ms_per_row
               WHEN v_rows_in >= 500 THEN coalesce(0.5 * st.differential_ms_per_row, 0.5 * v_ms / v_rows_in) + 0.5 * v_ms / v_rows_in
               ELSE st.differential_ms_per_row END
     WHERE st.pgt_id = p_table.pgt_id;
    RETURN jsonb_build_object('mode', v_mode, 'rows_in', v_rows_in, 'rows_out', v_rows_out, 'changed', v_rows_out > 0,
                              'reason', v_reason, 'data_timestamp', v_taken_at);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.attempt IS 'Runs the program that is due and moves the frontier; NULL when there is nothing to do';

CREATE FUNCTION pgtrickle_changes.doubt(p_table pgtrickle.pgt_stream_tables, p_snapshot pg_snapshot, p_mode text, p_pending jsonb) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Why what was computed in the one snapshot of a REPEATABLE READ transaction has to be computed once more, later.
    SELECT CASE
        -- What was written between the snapshot and the capture's beginning is in neither.
        WHEN p_mode = 'FULL' AND EXISTS (
            SELECT FROM pgtrickle.pgt_dependencies AS s
              LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = p_table.owner_oid
             WHERE s.pgt_id = p_table.pgt_id AND s.captured
               AND (k.since IS NULL OR k.since = pg_current_xact_id() OR NOT pg_visible_in_snapshot(k.since, p_snapshot)))
        THEN 'its changes are captured since a later moment than the one it was computed for'
        -- A transaction that inserts a key which another has deleted since the snapshot sees two rows of that key.
        WHEN EXISTS (
            SELECT FROM jsonb_each(p_pending) AS c
             WHERE (c.value ->> 2)::boolean
               AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = c.key::oid))
        THEN 'it was refreshed in a REPEATABLE READ transaction that had written to its sources'
        END
$$;
COMMENT ON FUNCTION pgtrickle_changes.doubt IS 'Why what a snapshot showed has to be computed once more; NULL when it hasn''t';

CREATE FUNCTION pgtrickle_changes.lock_sources(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source regclass;
BEGIN
    FOR v_source IN
        SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s JOIN pg_class AS c ON c.oid = s.source_relid
         WHERE s.pgt_id = p_id AND s.captured ORDER BY s.source_relid
    LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', v_source);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_sources IS 'Keeps writers out of a stream table''s sources until the transaction ends';

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

CREATE FUNCTION pgtrickle_changes.discard_foreign_changes(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- In a restored or cloned cluster, change rows bear transaction ids of another history.  A row that can be seen although
-- its transaction has not happened here is one of those.
DECLARE
    v_buffer name;
BEGIN
    FOR v_buffer IN
        SELECT k.buffer FROM pgtrickle.pgt_captures AS k JOIN pgtrickle.pgt_dependencies AS s ON s.source_relid = k.source_relid
         WHERE s.pgt_id = p_table.pgt_id AND s.captured AND k.owner_oid = p_table.owner_oid
    LOOP
        PERFORM pgtrickle_changes.run_as(p_table.owner_oid, format(
            'WITH gone AS (DELETE FROM pgtrickle_changes.%I AS c'
            ' WHERE NOT pg_catalog.pg_visible_in_snapshot(c.xid, pg_catalog.pg_current_snapshot())'
            ' AND c.xid IS DISTINCT FROM pg_catalog.pg_current_xact_id() RETURNING 1) SELECT pg_catalog.count(*) FROM gone', v_buffer));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.discard_foreign_changes IS 'Empties change buffers that another cluster''s transactions wrote';

CREATE FUNCTION pgtrickle_changes.follow_name(p_table pgtrickle.pgt_stream_tables) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog row under the table's name of today; the table and its definition must be there still.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_table.definition_view AND c.relkind = 'v') THEN
        RAISE EXCEPTION 'the definition of stream table "%" was dropped', p_table.pgt_name
            USING ERRCODE = 'invalid_object_definition',
                  DETAIL = 'A source, or a column that the query uses, was dropped with CASCADE.',
                  HINT = 'Give it a new query with pgtrickle.alter_stream_table, or drop it.';
    END IF;
    RETURN pgtrickle_changes.with_current_name(p_table);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.follow_name IS 'The catalog row under the table''s name of today; raises if the table or its definition is gone';

CREATE FUNCTION pgtrickle_changes.refresh(p_id bigint, p_initiated_by text, p_force_full boolean DEFAULT false) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_started_at   timestamptz := clock_timestamp();
    v_one_snapshot boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    v_table        pgtrickle.pgt_stream_tables := pgtrickle_changes.lock_stream_table(p_id);
    v_fingerprint  text;
    v_reason       text := CASE WHEN p_initiated_by = 'INITIAL' THEN '' WHEN p_force_full THEN 'asked to recompute' END;
    v_drift        text;
    v_result       jsonb;
    v_broken       text;
    v_tries        integer := 0;
    v_forced       boolean;
    v_immediate    boolean := v_table.refresh_mode = 'IMMEDIATE';
    v_doubt        text;
BEGIN
    v_table := pgtrickle_changes.follow_owner(v_table);
    PERFORM pgtrickle_changes.check_privileges(v_table);

    v_fingerprint := pgtrickle_changes.fingerprint(p_id);
    IF p_initiated_by = 'INITIAL' THEN
        -- The plan was made in this very transaction; making the captures has changed the sources' catalog rows since.
        UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = v_fingerprint WHERE st.pgt_id = p_id;
    ELSIF v_fingerprint IS DISTINCT FROM v_table.fingerprint THEN
        v_table := pgtrickle_changes.follow_name(v_table);
        -- PostgreSQL's own check of everything the query reads, views included.
        PERFORM pgtrickle_changes.check_readable(v_table.owner_oid, v_table.definition_view);
        IF pgtrickle_changes.request_hash(pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, p_id,
               v_table.pgt_schema, v_table.pgt_name)) IS DISTINCT FROM (
               SELECT p.request_hash FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id) THEN
            RETURN jsonb_build_object('mode', NULL, 'rows_in', 0, 'rows_out', 0, 'changed', false, 'stale_plan', true);
        END IF;
        -- A policy or a function may have changed what the query returns although no source did.
        UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = v_fingerprint WHERE st.pgt_id = p_id;
        IF split_part(v_fingerprint, '/', 2) IS DISTINCT FROM split_part(v_table.fingerprint, '/', 2) THEN
            v_reason := coalesce(v_reason, 'definitions that the query rests on were changed');
        END IF;
    END IF;

    IF v_immediate THEN
        v_doubt := pgtrickle_changes.begin_immediate(v_table);
        v_reason := coalesce(v_reason, v_table.reinit_reason, '');
    END IF;
    v_drift := pgtrickle_changes.repair_captures(v_table);
    IF v_drift IS NOT NULL THEN
        v_reason := v_drift;
        v_table.needs_reinit := true;
        v_table.reinit_reason := v_drift;
    END IF;
    IF v_table.frontier IS NOT NULL AND v_table.system_identifier IS DISTINCT FROM (SELECT c.system_identifier FROM pg_control_system() AS c) THEN
        PERFORM pgtrickle_changes.discard_foreign_changes(v_table);
        v_table.frontier := NULL;
        v_reason := 'this is another database cluster than the one it was computed in';
    END IF;
    IF v_table.frontier IS NULL THEN
        PERFORM pgtrickle_changes.keep_changes(v_table);
    END IF;
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    IF NOT v_table.is_populated THEN
        v_table.is_populated := pgtrickle_changes.has_rows(v_table);
        v_reason := coalesce(v_reason, '');
    END IF;

    LOOP
        BEGIN
            v_result := pgtrickle_changes.attempt(v_table, v_reason, v_one_snapshot);
            EXIT;
        EXCEPTION
            WHEN SQLSTATE 'TK001' THEN
                v_tries := v_tries + 1;
                IF v_one_snapshot OR v_tries > 3 THEN
                    RAISE EXCEPTION 'refreshing "%" changes its own sources', v_table.pgt_name
                        USING ERRCODE = 'object_not_in_prerequisite_state',
                              DETAIL = 'A source was written in this transaction while the stream table was refreshed.',
                              HINT = 'Look for triggers on the stream table, and for functions in its query, that write to a source.';
                END IF;
            WHEN SQLSTATE 'TK002' THEN
                IF v_table.needs_reinit THEN
                    RAISE;
                END IF;
                v_table.needs_reinit := true;
                v_table.reinit_reason := 'the stream table did not hold what the changes take away';
            WHEN program_limit_exceeded THEN
                RAISE EXCEPTION 'refreshing "%" exceeds a limit of PostgreSQL', v_table.pgt_name
                    USING ERRCODE = 'program_limit_exceeded', DETAIL = format('PostgreSQL says: %s.', SQLERRM),
                          HINT = 'What tells the rows apart is indexed, some 2,700 bytes of it at most: group by a hash or by the beginning of long values.';
            WHEN check_violation THEN
                GET STACKED DIAGNOSTICS v_broken = TABLE_NAME;
                IF v_broken IS NULL OR v_broken !~ format('^state_%s_[0-9]+$', p_id) OR v_table.needs_reinit THEN
                    RAISE;
                END IF;
                v_table.needs_reinit := true;
                v_table.reinit_reason := format('state table "%s" contradicted the changes', v_broken);
                PERFORM pgtrickle_changes.reset_states(p_id);
        END;
        IF v_tries = 3 THEN
            PERFORM pgtrickle_changes.lock_sources(p_id);
        END IF;
    END LOOP;
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);

    IF v_doubt IS NOT NULL THEN
        UPDATE pgtrickle.pgt_stream_tables AS st SET needs_reinit = true, reinit_reason = v_doubt WHERE st.pgt_id = p_id;
    END IF;
    PERFORM pgtrickle_changes.record_refresh(v_table, v_result ->> 'mode',
        CASE WHEN v_immediate AND p_initiated_by = 'SCHEDULER' THEN 'IMMEDIATE-fallback' ELSE p_initiated_by END, v_started_at, (v_result ->> 'rows_in')::bigint,
        (v_result ->> 'rows_out')::bigint, v_result ->> 'skipped', v_result ->> 'reason', (v_result ->> 'data_timestamp')::timestamptz);
    RETURN v_result || '{"stale_plan": false}';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh IS 'Refreshes one stream table in this transaction; what that came to';

CREATE FUNCTION pgtrickle_changes.repair_captures(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What was wrong with the capture of a source, and is no more; NULL if nothing was.
DECLARE
    v_source oid;
    v_drift  text;
    v_found  text;
BEGIN
    FOR v_source IN
        SELECT s.source_relid
          FROM pgtrickle.pgt_dependencies AS s
          LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = p_table.owner_oid
         WHERE s.pgt_id = p_table.pgt_id AND s.captured
           AND k.stamp IS DISTINCT FROM pgtrickle_changes.capture_stamp(k.source_relid, k.buffer, k.attnums)
         ORDER BY s.source_relid
    LOOP
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
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The stream tables below this one, each after those it reads, and itself at the end.
    WITH RECURSIVE up AS (
        SELECT p_id AS pgt_id, 0 AS depth
        UNION
        SELECT u.pgt_id, up.depth + 1
          FROM up
          JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = up.pgt_id
          JOIN pgtrickle.pgt_stream_tables AS u ON u.pgt_relid = s.source_relid
         WHERE up.depth < 1000
    )
    SELECT array_agg(d.pgt_id ORDER BY d.depth DESC, d.pgt_id)
      FROM (SELECT up.pgt_id, max(up.depth) AS depth FROM up GROUP BY up.pgt_id) AS d
$$;
COMMENT ON FUNCTION pgtrickle_changes.with_upstream IS 'The stream tables below one, each after those it reads, and itself at the end';

CREATE FUNCTION pgtrickle_changes.manual_refresh(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Bring a stream table up to date now, and what it reads before it.
DECLARE
    v_id         bigint;
    v_table      pgtrickle.pgt_stream_tables;
    v_started_at timestamptz;
    v_sqlstate   text;
    v_message    text;
    v_why        text;
BEGIN
    FOREACH v_id IN ARRAY pgtrickle_changes.with_upstream(p_id) LOOP
        SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id;
        IF v_table.status = 'SUSPENDED' THEN
            -- Upstream, that is somebody's decision: what it holds is what there is to read.
            CONTINUE WHEN v_id <> p_id;
            RAISE EXCEPTION 'stream table "%" is suspended', v_table.pgt_name
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = coalesce('Its last error: ' || v_table.last_error_message, 'It was suspended by hand.'),
                      HINT = format('SELECT pgtrickle.resume_stream_table(%L);', format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
        END IF;
        -- Upstream, one that is maintained in its writers' statements is up to date.
        CONTINUE WHEN v_id <> p_id AND v_table.refresh_mode = 'IMMEDIATE' AND v_table.is_populated AND NOT v_table.needs_reinit;
        v_started_at := clock_timestamp();
        BEGIN
            PERFORM pgtrickle_changes.refresh_current_plan(v_id);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_sqlstate = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
            BEGIN
                -- What this transaction writes is about to be rolled back: another one has to tell.
                PERFORM pgtrickle_changes.bridge_execute(format('SELECT pgtrickle_changes.worker_record_failure(%s, %L, %L, %L)',
                    v_id, v_started_at, v_sqlstate, v_message));
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS v_why = MESSAGE_TEXT;
                RAISE WARNING 'the failed refresh of "%" is not in the history', v_table.pgt_name USING DETAIL = v_why;
            END;
            RAISE;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.manual_refresh IS 'Brings a stream table up to date now, and what it reads before it';

CREATE FUNCTION pgtrickle_changes.refresh_current_plan(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Refresh by hand; when the plan has gone stale, with a new one.
BEGIN
    FOR v_try IN 1..3 LOOP
        IF NOT (pgtrickle_changes.refresh(p_id, 'MANUAL') ->> 'stale_plan')::boolean THEN
            RETURN;
        END IF;
        PERFORM pgtrickle_changes.recompile(p_id);
    END LOOP;
    RAISE EXCEPTION 'the definitions under stream table % change all the time', p_id
        USING ERRCODE = 'serialization_failure', DETAIL = 'Its plan was stale again right after it had been made.',
              HINT = 'Try again when no more DDL is running.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refresh_current_plan IS 'Refreshes by hand; when the plan has gone stale, with a new one';

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
    v_size := pg_relation_size(v_capture.buffer_relid);
    IF v_size = 0 THEN
        RETURN 0;
    END IF;
    BEGIN
        -- Several buffers are cleaned in one transaction: waiting for one that is being dropped could be a deadlock.
        EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE NOWAIT', v_table);
    EXCEPTION WHEN lock_not_available OR undefined_table THEN
        RETURN 0;
    END;
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
            v_rows := pgtrickle_changes.run_as(v_capture.owner_oid, format(
                'SELECT CASE WHEN NOT EXISTS (SELECT FROM %s AS c WHERE %s) THEN (SELECT pg_catalog.count(*) FROM %1$s) END', v_table, v_needed))::text::bigint;
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
