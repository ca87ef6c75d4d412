-- Changing a stream table: its query, its options, its status; and looking after its rows by hand.

CREATE FUNCTION pgtrickle_changes.do_alter_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table       pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_mode        text := pgtrickle_changes.checked_mode(p_args ->> 'refresh_mode');
    v_status      text := pgtrickle_changes.checked_choice('status', upper(p_args ->> 'status'), '{ACTIVE,SUSPENDED}');
    v_tier        text := pgtrickle_changes.checked_choice('tier', lower(p_args ->> 'tier'), '{hot,warm,cold,frozen}');
    v_cdc_mode    text := CASE WHEN p_args ->> 'cdc_mode' IS NOT NULL THEN pgtrickle_changes.checked_cdc_mode(p_args ->> 'cdc_mode') END;
    v_consistency text := pgtrickle_changes.checked_choice('diamond_consistency', p_args ->> 'diamond_consistency', '{atomic,none}');
    v_policy      text := pgtrickle_changes.checked_choice('diamond_schedule_policy', p_args ->> 'diamond_schedule_policy', '{fastest,slowest}');
    v_schedule    text := pgtrickle_changes.checked_schedule(p_args ->> 'schedule');
    v_seconds     float8 := pgtrickle_changes.schedule_seconds(v_schedule);
    v_ceiling     bigint := (p_args ->> 'fuse_ceiling')::bigint;
    v_former      text := v_table.refresh_mode;
    v_scheduled   boolean := v_schedule IS NOT NULL OR p_args ? 'schedule_given';
    v_schema      text := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = v_table.pgt_relid);
    v_view        oid;
BEGIN
    IF v_ceiling < -1 THEN
        RAISE EXCEPTION 'invalid fuse_ceiling: %', v_ceiling
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A number of changes; 0 for no fuse, -1 for what pg_trickle.fuse_default_ceiling says.';
    END IF;
    IF p_args ->> 'query' IS NOT NULL THEN
        v_view := pgtrickle_changes.standing_view(v_table.owner_oid, v_schema, p_args, ARRAY[v_table.pgt_id]);
    END IF;
    v_table := pgtrickle_changes.with_current_name(pgtrickle_changes.lock_stream_table(v_table.pgt_id));
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET schedule = CASE WHEN v_scheduled THEN v_schedule ELSE st.schedule END,
           schedule_seconds = CASE WHEN v_scheduled THEN v_seconds ELSE st.schedule_seconds END,
           refresh_mode = coalesce(v_mode, st.refresh_mode),
           diamond_consistency = coalesce(v_consistency, st.diamond_consistency),
           diamond_schedule_policy = coalesce(v_policy, st.diamond_schedule_policy),
           cdc_mode = coalesce(v_cdc_mode, st.cdc_mode),
           append_only = coalesce((p_args ->> 'append_only')::boolean, st.append_only),
           tier = coalesce(v_tier, st.tier),
           fuse_ceiling = CASE WHEN v_ceiling IS NULL THEN st.fuse_ceiling ELSE nullif(v_ceiling, -1) END
     WHERE st.pgt_id = v_table.pgt_id
    RETURNING st.* INTO v_table;
    IF v_view IS NOT NULL THEN
        PERFORM pgtrickle_changes.alter_query(v_table, v_view, p_args);
    ELSIF jsonb_typeof(p_args -> 'plan') = 'object'
          -- What maintains it is made anew from the plan, which may name columns as they were called.
          OR (v_former = 'IMMEDIATE') <> (v_table.refresh_mode = 'IMMEDIATE') AND pgtrickle_changes.has_stale_plan(v_table) THEN
        PERFORM pgtrickle_changes.recompile(v_table.pgt_id, p_args -> 'plan');
    ELSIF v_mode IS NOT NULL THEN
        UPDATE pgtrickle.pgt_stream_tables AS st
           SET effective_refresh_mode = pgtrickle_changes.effective_mode(v_mode, p.plan),
               downgrade_reason = pgtrickle_changes.downgrade_reason(v_mode, p.plan)
          FROM pgtrickle.pgt_plans AS p
         WHERE st.pgt_id = v_table.pgt_id AND p.pgt_id = st.pgt_id;
    END IF;
    IF v_cdc_mode IS NOT NULL THEN
        PERFORM pgtrickle_changes.sync_capture(d.source_relid, v_table.owner_oid)
           FROM (SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = v_table.pgt_id ORDER BY s.source_relid) AS d;
    END IF;
    IF (v_former = 'IMMEDIATE') <> (v_table.refresh_mode = 'IMMEDIATE') THEN
        PERFORM pgtrickle_changes.switch_immediate(v_table.pgt_id);
    END IF;
    IF v_cdc_mode = 'wal' THEN
        PERFORM pgtrickle_changes.demand_wal(v_table.pgt_id);
    END IF;
    IF v_status = 'SUSPENDED' THEN
        PERFORM pgtrickle_changes.suspend(v_table.pgt_id);
    ELSIF v_status = 'ACTIVE' THEN
        PERFORM pgtrickle_changes.resume(v_table.pgt_id);
    END IF;
    RETURN to_jsonb(v_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_alter_stream_table IS 'The gate''s alter_stream_table';

CREATE FUNCTION pgtrickle_changes.alter_query(p_table pgtrickle.pgt_stream_tables, p_view oid, p_args jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new query for a stream table: the table stays, with its OID, grants, policies and indexes; columns come and go.
DECLARE
    v_cycle   text;
    v_request jsonb;
    v_plan    jsonb;
    v_forced  boolean;
BEGIN
    PERFORM pgtrickle_changes.wait_for_definitions(p_view);
    v_cycle := pgtrickle_changes.cycle_through(p_table.pgt_relid, p_view);
    IF v_cycle IS NOT NULL AND NOT pgtrickle_changes.setting('allow_circular')::boolean THEN
        PERFORM pgtrickle_changes.refuse_circle(p_table, p_view);
    END IF;
    v_request := pgtrickle_changes.compile_request(p_table.owner_oid, p_view, p_table.pgt_id, p_table.pgt_schema, p_table.pgt_name);
    v_plan := pgtrickle_changes.plan_for(p_args, v_request);
    PERFORM pgtrickle_changes.check_circle(p_table, p_view, v_plan, v_request);
    PERFORM pgtrickle_changes.effective_mode(p_table.refresh_mode, v_plan);
    v_forced := pgtrickle_changes.lift_row_security(p_table);
    PERFORM pgtrickle_changes.alter_columns(p_table, p_view);
    EXECUTE format('DROP VIEW IF EXISTS pgtrickle_changes.%I CASCADE', 'query_' || p_table.pgt_id);
    PERFORM pgtrickle_changes.adopt_definition_view(p_view, p_table.pgt_id);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET defining_query = p_args ->> 'query', definition_view = p_view, settings = pgtrickle_changes.session_settings(),
           needs_reinit = true, reinit_reason = 'it was given another query',
           status = CASE WHEN st.status = 'ERROR' THEN 'ACTIVE' ELSE st.status END, consecutive_errors = 0, last_error_message = NULL
     WHERE st.pgt_id = p_table.pgt_id;
    PERFORM pgtrickle_changes.install_plan(p_table.pgt_id, v_plan, v_request);
    IF p_table.is_populated AND v_cycle IS NOT NULL THEN
        PERFORM pgtrickle_changes.settle_circle(p_table.pgt_id, jsonb_typeof(p_args -> 'plan') = 'object');
    ELSIF p_table.is_populated THEN
        PERFORM pgtrickle_changes.refresh(p_table.pgt_id, 'INITIAL', true);
    END IF;
    PERFORM pgtrickle_changes.restore_row_security(p_table, v_forced);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.alter_query IS 'Gives a stream table a new query';

CREATE FUNCTION pgtrickle_changes.alter_columns(p_table pgtrickle.pgt_stream_tables, p_view oid, p_keep_others boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Give the table the columns of a definition: those that stay are left alone, new ones come at the end; others go, unless they are kept.
DECLARE
    v_change text;
    v_table  text := format('%I.%I', p_table.pgt_schema, p_table.pgt_name);
    v_order  text[];
    v_wanted text[];
BEGIN
    IF EXISTS (SELECT FROM pgtrickle_changes.table_columns(p_view) AS c
                 JOIN pg_attribute AS a ON a.attrelid = p_table.pgt_relid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
                WHERE (a.atttypid, a.atttypmod, a.attcollation) IS DISTINCT FROM (c.type_oid, c.typmod, c.collation_oid))
       OR EXISTS (SELECT FROM pgtrickle_changes.table_columns(p_view) AS c
                   WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                                      WHERE a.attrelid = p_table.pgt_relid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped)) THEN
        -- Values of one type aren't turned into another, and what a new column holds the old rows don't know (no NULL where there can't be
        -- one): they are about to be computed anew.  Nobody sees the table without them.
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DELETE FROM ' || v_table);
    END IF;
    FOR v_change IN
        WITH
        have AS (SELECT a.* FROM pg_attribute AS a WHERE a.attrelid = p_table.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped),
        want AS (SELECT c.* FROM pgtrickle_changes.table_columns(p_view) AS c)
        SELECT format('DROP COLUMN %I', h.attname) FROM have AS h
         WHERE NOT p_keep_others AND h.attname NOT IN (SELECT w.name FROM want AS w)
        UNION ALL
        SELECT format('ALTER COLUMN %I TYPE %s USING NULL', w.name, w.type)
          FROM want AS w JOIN have AS h ON h.attname = w.name
         WHERE (h.atttypid, h.atttypmod, h.attcollation) IS DISTINCT FROM (w.type_oid, w.typmod, w.collation_oid)
        UNION ALL
        SELECT format('ADD COLUMN %I %s', w.name, w.type) FROM want AS w WHERE w.name NOT IN (SELECT h.attname FROM have AS h)
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('ALTER TABLE %s %s', v_table, v_change));
    END LOOP;
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO v_order
      FROM pg_attribute AS a WHERE a.attrelid = p_table.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT array_agg(c.name::text) INTO v_wanted FROM pgtrickle_changes.table_columns(p_view) AS c;
    IF v_order <> v_wanted AND NOT p_keep_others THEN
        RAISE NOTICE 'the columns of "%" are in another order than its query''s', p_table.pgt_name
            USING DETAIL = format('The table has %s.', array_to_string(v_order, ', ')),
                  HINT = 'PostgreSQL adds columns at the end; drop and create the stream table if their order matters.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.alter_columns IS 'Gives the table the columns of a new definition';

CREATE FUNCTION pgtrickle_changes.cycle_through(p_relation oid, p_view oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- How a definition would come back to a stream table, if it would: each relation is followed once, there may be other circles.
DECLARE
    v_relids oid[];
    v_paths  text[];
    v_next   record;
    v_i      integer := 1;
BEGIN
    SELECT array_agg(c.relid ORDER BY c.relid), array_agg(format('%s reads %s', p_relation::regclass, c.relid::regclass) ORDER BY c.relid)
      INTO v_relids, v_paths FROM pgtrickle_changes.relation_closure(p_view) AS c;
    WHILE v_i <= cardinality(v_relids) LOOP
        IF v_relids[v_i] = p_relation THEN
            RETURN v_paths[v_i];
        END IF;
        FOR v_next IN
            SELECT c.relid FROM pgtrickle.pgt_stream_tables AS st CROSS JOIN LATERAL pgtrickle_changes.relation_closure(st.definition_view) AS c
             WHERE st.pgt_relid = v_relids[v_i] ORDER BY c.relid
        LOOP
            CONTINUE WHEN v_next.relid = ANY (v_relids);
            v_relids := v_relids || v_next.relid;
            v_paths := v_paths || format('%s, which reads %s', v_paths[v_i], v_next.relid::regclass);
        END LOOP;
        v_i := v_i + 1;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.cycle_through IS 'How a definition would come back to a stream table; NULL if it wouldn''t';

CREATE FUNCTION pgtrickle_changes.do_suspend_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.named_stream_table(p_caller, p_args);
BEGIN
    PERFORM pgtrickle_changes.suspend(v_table.pgt_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_suspend_stream_table IS 'The gate''s suspend_stream_table';

CREATE FUNCTION pgtrickle_changes.suspend(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nobody maintains it any more, nor does anybody's statement.
BEGIN
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    UPDATE pgtrickle.pgt_stream_tables AS st SET status = 'SUSPENDED' WHERE st.pgt_id = p_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.suspend IS 'Ends the maintenance of a stream table until it is resumed';

CREATE FUNCTION pgtrickle_changes.resume(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.refuse_by_fuse(st, st.fuse_reason)
       FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id AND st.fuse_blown_at IS NOT NULL;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET status = CASE WHEN st.is_populated THEN 'ACTIVE' ELSE 'INITIALIZING' END, consecutive_errors = 0, paused = false
     WHERE st.pgt_id = p_id;
    -- What was written meanwhile is known to nobody.
    IF EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st
                WHERE st.pgt_id = p_id AND st.refresh_mode = 'IMMEDIATE' AND st.is_populated)
       AND pgtrickle_changes.immediate_drift(p_id) IS NOT NULL THEN
        PERFORM pgtrickle_changes.refresh_current_plan(pgtrickle_changes.members(p_id));
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.resume IS 'Begins the maintenance of a stream table again';

CREATE FUNCTION pgtrickle_changes.do_resume_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.resume((pgtrickle_changes.owned_stream_table(p_caller, p_args)).pgt_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_resume_stream_table IS 'The gate''s resume_stream_table';

CREATE FUNCTION pgtrickle_changes.do_reinitialize_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = 'asked for with reinitialize_stream_table' WHERE st.pgt_id = v_table.pgt_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_reinitialize_stream_table IS 'The gate''s reinitialize_stream_table';

CREATE FUNCTION pgtrickle_changes.has_stale_plan(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Definitions changed, and so that the plan would be another one.
BEGIN
    RETURN pgtrickle_changes.fingerprint(p_table.pgt_id) IS DISTINCT FROM p_table.fingerprint
           AND pgtrickle_changes.request_hash(pgtrickle_changes.compile_request(p_table.owner_oid, p_table.definition_view, p_table.pgt_id,
                   p_table.pgt_schema, p_table.pgt_name)) IS DISTINCT FROM (
                   SELECT p.request_hash FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.has_stale_plan IS 'Whether a stream table''s plan was made for other definitions than hold now';

CREATE FUNCTION pgtrickle_changes.do_stale_plans(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What a refresh would have to compile again before it begins: the stream table itself, and those that it reads.
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_stale jsonb := '[]'::jsonb;
    v_id    bigint;
BEGIN
    FOREACH v_id IN ARRAY pgtrickle_changes.with_upstream(v_table.pgt_id) LOOP
        SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id;
        -- Others' are for the worker to compile.
        CONTINUE WHEN NOT pg_has_role(p_caller, v_table.owner_oid, 'USAGE');
        IF pgtrickle_changes.fingerprint(v_id) IS DISTINCT FROM v_table.fingerprint THEN
            BEGIN
                v_table := pgtrickle_changes.follow_name(v_table);
                PERFORM pgtrickle_changes.check_columns(v_table);
                PERFORM pgtrickle_changes.check_readable(v_table.owner_oid, v_table.definition_view);
            EXCEPTION WHEN OTHERS THEN
                -- No plan will help: the refresh says what is wrong, and leaves it in the history.
                CONTINUE;
            END;
            IF pgtrickle_changes.has_stale_plan(v_table) THEN
                v_stale := v_stale || to_jsonb(format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
            END IF;
        END IF;
    END LOOP;
    RETURN v_stale;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_stale_plans IS 'The compile requests of what a refresh would have to compile again before it begins';

CREATE FUNCTION pgtrickle_changes.do_refresh_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.manual_refresh((pgtrickle_changes.owned_stream_table(p_caller, p_args)).pgt_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_refresh_stream_table IS 'The gate''s refresh_stream_table';

CREATE FUNCTION pgtrickle_changes.do_verify_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_result jsonb;
    v_note   text;
BEGIN
    PERFORM pgtrickle_changes.check_privileges(v_table);
    v_result := pgtrickle_changes.verify(v_table.pgt_id);
    IF v_result <> '{"missing": 0, "extra": 0}' THEN
        SELECT string_agg(t.note, E'\n' ORDER BY t.place) INTO v_note
          FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(p.plan -> 'ties') WHEN 'array' THEN p.plan -> 'ties' ELSE '[]' END)
               WITH ORDINALITY AS t(note, place)
         WHERE p.pgt_id = v_table.pgt_id;
        IF v_note IS NOT NULL THEN
            RAISE NOTICE 'the query of "%" leaves open which rows it shows: a difference need not be a mistake', v_table.pgt_name USING DETAIL = v_note;
        END IF;
    END IF;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_verify_stream_table IS 'The gate''s verify_stream_table';
