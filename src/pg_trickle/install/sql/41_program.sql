-- Running a plan's statements as the owner, and writing down what came of it.

CREATE FUNCTION pgtrickle_changes.request_hash(p_request jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- What of a compile request makes a plan stale.  Row estimates don't, nor do statistics, nor indexes that aren't keys: after an ANALYZE, or without
    -- one of these, the plan is as right as it was.
    SELECT md5(jsonb_set(p_request, '{relations}', coalesce((
               SELECT jsonb_agg(r.relation - '{rows,shares,indexed}'::text[] ORDER BY r.place)
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
    v_table    pgtrickle.pgt_stream_tables;
    v_own      xid8;
BEGIN
    -- Whoever decodes for an owner holds that until he commits: before any of his tables, or two could wait for each other.
    IF EXISTS (SELECT FROM pgtrickle_changes.wal_readers AS r) THEN
        PERFORM FROM pgtrickle_changes.wal_readers AS r JOIN pgtrickle.pgt_stream_tables AS st ON st.owner_oid = r.owner_oid
          WHERE st.pgt_id = p_id AND pgtrickle_changes.reads_wal(p_id, st.owner_oid) FOR UPDATE OF r;
    END IF;
    v_own := pg_current_xact_id_if_assigned();
    -- Anybody may take an advisory lock and keep it; a row of the plans only the engine can lock.  Whoever waits for it gets his number
    -- afterwards.
    PERFORM FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id FOR UPDATE;
    SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table % does not exist', p_id
            USING ERRCODE = 'undefined_table', DETAIL = 'It was dropped in the meantime.',
                  HINT = 'List the stream tables with SELECT * FROM pgtrickle.pgt_status().';
    END IF;
    IF v_table.home <> pgtrickle_changes.home() THEN
        PERFORM pgtrickle_changes.refuse_restored(format('stream table "%s"', v_table.pgt_name));
    END IF;
    -- Now this transaction has a number.  Was it drawn after the last refresh was over?  See is_quiet.  In one snapshot the row is as the
    -- snapshot has it, or it couldn't be locked: then it is enough that the number was drawn after the snapshot.
    IF v_own IS NULL OR current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
                        AND v_own >= pg_snapshot_xmax(pg_current_snapshot()) AND v_table.frontier_xid IS DISTINCT FROM v_own THEN
        v_table.quiet_at := coalesce(v_table.quiet_at, 'null');
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
    -- Mostly he may read all of each; which columns he may read is asked where it isn't so.
    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS s
                    WHERE s.pgt_id = p_table.pgt_id AND s.captured
                      AND NOT coalesce(has_table_privilege(p_table.owner_oid, s.source_relid, 'SELECT')
                                       AND has_schema_privilege(p_table.owner_oid, (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = s.source_relid), 'USAGE'),
                                       true)) THEN
        RETURN;
    END IF;
    SELECT n.nspname, c.relname, has_schema_privilege(p_table.owner_oid, n.oid, 'USAGE') AS schema_ok, s.decides_rows
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
     ORDER BY s.decides_rows LIMIT 1;
    IF v_denied.decides_rows THEN
        -- Only where its policies still read it.
        PERFORM pgtrickle_changes.check_readable(p_table.owner_oid, p_table.definition_view);
    ELSIF FOUND THEN
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

CREATE FUNCTION pgtrickle_changes.refuse_contradiction(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'stream table "%" contradicts the changes', p_table.pgt_name
        USING ERRCODE = 'TK002', DETAIL = 'It does not hold rows that the changes take away: somebody else has written to it.',
              HINT = format('SELECT pgtrickle.reinitialize_stream_table(%L);', format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_contradiction IS 'Raises that a stream table doesn''t hold what the changes take away';

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
            PERFORM pgtrickle_changes.refuse_contradiction(p_table);
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

CREATE FUNCTION pgtrickle_changes.without_values(p_sqlstate text, p_message text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- What all may know who may read a stream table: PostgreSQL quotes the values that it can't make anything of, in English in these
    -- quotes.  In other languages the SQLSTATE has to do.
    SELECT CASE WHEN left(p_sqlstate, 2) <> '22' THEN p_message
                WHEN m.masked ~ '^[ -~]*$' THEN m.masked
                ELSE 'a value can''t be evaluated' END
      FROM (SELECT regexp_replace(p_message, '".*"', '"..."') AS masked) AS m
$$;
COMMENT ON FUNCTION pgtrickle_changes.without_values IS 'The message of an error without the values that it quotes';

CREATE FUNCTION pgtrickle_changes.record_failure(p_id bigint, p_initiated_by text, p_started_at timestamptz,
    p_sqlstate text, p_message text, p_max_errors integer) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A failed refresh in history and catalog; suspended after so many in a row.  It runs beside the transaction that
-- failed, which may still hold the catalog row: then the history has to do.
DECLARE
    v_text text := format('%s (SQLSTATE %s)', pgtrickle_changes.without_values(p_sqlstate, p_message), p_sqlstate);
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
    SELECT p.plan -> 'programs' ->> 'verify' INTO v_query FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" has no plan yet', v_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'It came with a dump, and hasn''t been refreshed since.',
                  HINT = format('SELECT pgtrickle.refresh_stream_table(%L);', format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
    END IF;
    PERFORM pgtrickle_changes.demand_definition(v_table);
    PERFORM pgtrickle_changes.refuse_stale_plan(v_table);
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    v_result := pgtrickle_changes.run_as(v_table.owner_oid, v_query, v_table.frontier, v_table.frontier_xid, v_table.frontier_seqs, v_table.settings);
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.verify IS 'Compares a stream table with its query: how many rows are missing, how many too many';

CREATE FUNCTION pgtrickle_changes.refuse_stale_plan(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What was renamed isn't found by the plan's statements, or something else is.
DECLARE
    v_table pgtrickle.pgt_stream_tables := p_table;
BEGIN
    IF v_table.fingerprint IS NOT DISTINCT FROM pgtrickle_changes.fingerprint(v_table.pgt_id) THEN
        RETURN;
    END IF;
    -- The names of today, without writing them down: who only looks may do so in a READ ONLY transaction.
    SELECT n.nspname, c.relname INTO v_table.pgt_schema, v_table.pgt_name
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = v_table.pgt_relid;
    IF EXISTS (SELECT FROM unnest(v_table.column_numbers) WITH ORDINALITY AS n(attnum, place)
                 JOIN pg_attribute AS v ON v.attrelid = v_table.definition_view AND v.attnum = n.place
                 JOIN pg_attribute AS t ON t.attrelid = v_table.pgt_relid AND t.attnum = n.attnum
                WHERE v.attname <> t.attname AND NOT t.attisdropped)
       OR pgtrickle_changes.request_hash(pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, v_table.pgt_id,
              v_table.pgt_schema, v_table.pgt_name)) IS DISTINCT FROM (
              SELECT p.request_hash FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id) THEN
        RAISE EXCEPTION 'stream table "%" has to be planned anew', v_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'What its query names, or it names itself, was renamed or altered since.',
                  HINT = format('SELECT pgtrickle.refresh_stream_table(%L);', format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
    END IF;
    PERFORM pgtrickle_changes.check_columns(v_table);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_stale_plan IS 'Raises if a stream table''s plan is older than what it names';

CREATE FUNCTION pgtrickle_changes.lift_row_security(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Policies that their owner forces on himself are for his sessions, not for refreshes, which have to see and write every row.
-- Whether there are any; they are back when this transaction commits, and until then nobody else gets at the table.
BEGIN
    IF (SELECT c.relrowsecurity AND c.relforcerowsecurity FROM pg_class AS c WHERE c.oid = p_table.pgt_relid) IS NOT TRUE THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM pg_class AS c JOIN pg_authid AS o ON o.oid = c.relowner WHERE c.oid = p_table.pgt_relid AND (o.rolsuper OR o.rolbypassrls)) THEN
        RETURN false;
    END IF;
    IF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'stream table "%" hides rows from its own owner', p_table.pgt_name
            USING ERRCODE = 'read_only_sql_transaction', DETAIL = 'Policies that he forces on himself are lifted meanwhile, which a read-only transaction can''t do.',
                  HINT = 'Call it in a READ WRITE transaction, on the primary server.';
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
