-- Changing a stream table: its query, its options, its status; and looking after its rows by hand.

CREATE FUNCTION pgtrickle_changes.do_alter_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_mode   text := pgtrickle_changes.checked_choice('refresh_mode', upper(p_args ->> 'refresh_mode'), '{AUTO,DIFFERENTIAL,FULL,IMMEDIATE}');
    v_status text := pgtrickle_changes.checked_choice('status', upper(p_args ->> 'status'), '{ACTIVE,SUSPENDED}');
    v_plan   jsonb;
BEGIN
    v_table := pgtrickle_changes.lock_stream_table(v_table.pgt_id);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET schedule = CASE WHEN p_args ->> 'schedule' IS NULL AND NOT p_args ? 'schedule_given' THEN st.schedule ELSE p_args ->> 'schedule' END,
           schedule_seconds = CASE WHEN p_args ->> 'schedule' IS NULL AND NOT p_args ? 'schedule_given' THEN st.schedule_seconds
                                   ELSE pgtrickle_changes.schedule_seconds(p_args ->> 'schedule') END,
           refresh_mode = coalesce(v_mode, st.refresh_mode),
           diamond_consistency = coalesce(pgtrickle_changes.checked_choice('diamond_consistency', p_args ->> 'diamond_consistency', '{atomic,none}'), st.diamond_consistency),
           diamond_schedule_policy = coalesce(pgtrickle_changes.checked_choice('diamond_schedule_policy', p_args ->> 'diamond_schedule_policy', '{fastest,slowest}'), st.diamond_schedule_policy),
           cdc_mode = CASE WHEN p_args ->> 'cdc_mode' IS NULL THEN st.cdc_mode ELSE pgtrickle_changes.checked_cdc_mode(p_args ->> 'cdc_mode') END,
           append_only = coalesce((p_args ->> 'append_only')::boolean, st.append_only),
           tier = coalesce(pgtrickle_changes.checked_choice('tier', lower(p_args ->> 'tier'), '{hot,warm,cold,frozen}'), st.tier)
     WHERE st.pgt_id = v_table.pgt_id
    RETURNING st.* INTO v_table;
    IF p_args ->> 'query' IS NOT NULL THEN
        PERFORM pgtrickle_changes.alter_query(v_table, p_args);
    ELSIF v_mode IS NOT NULL THEN
        SELECT p.plan INTO v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id;
        UPDATE pgtrickle.pgt_stream_tables AS st
           SET effective_refresh_mode = pgtrickle_changes.effective_mode(v_mode, v_plan),
               downgrade_reason = pgtrickle_changes.downgrade_reason(v_mode, v_plan)
         WHERE st.pgt_id = v_table.pgt_id;
    END IF;
    IF v_status = 'SUSPENDED' THEN
        UPDATE pgtrickle.pgt_stream_tables AS st SET status = 'SUSPENDED' WHERE st.pgt_id = v_table.pgt_id;
    ELSIF v_status = 'ACTIVE' THEN
        PERFORM pgtrickle_changes.resume(v_table.pgt_id);
    END IF;
    RETURN to_jsonb(v_table.pgt_id);
END
$$;

CREATE FUNCTION pgtrickle_changes.alter_query(p_table pgtrickle.pgt_stream_tables, p_args jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new query for a stream table: the table stays, with its OID, grants, policies and indexes; columns come and go.
DECLARE
    v_view    oid;
    v_former  oid := p_table.definition_view;
    v_request jsonb;
    v_plan    jsonb;
    v_cycle   text;
BEGIN
    PERFORM pgtrickle_changes.ensure_runner(p_table.owner_oid);
    v_view := pgtrickle_changes.make_definition_view(p_table.owner_oid, p_table.pgt_schema, p_args ->> 'query', p_args ->> 'search_path');
    PERFORM pgtrickle_changes.check_readable(p_table.owner_oid, v_view);
    v_cycle := pgtrickle_changes.cycle_through(p_table.pgt_relid, v_view);
    IF v_cycle IS NOT NULL THEN
        RAISE EXCEPTION 'stream table "%" would depend on itself', p_table.pgt_name
            USING ERRCODE = 'invalid_object_definition', DETAIL = format('The cycle: %s.', v_cycle),
                  HINT = 'pg_trickle.allow_circular is off.';
    END IF;
    v_request := pgtrickle_changes.compile_request(p_table.owner_oid, v_view, p_table.pgt_id, p_table.pgt_schema, p_table.pgt_name);
    v_plan := pgtrickle_changes.plan_for(p_args, v_request);
    PERFORM pgtrickle_changes.effective_mode(p_table.refresh_mode, v_plan);
    PERFORM pgtrickle_changes.alter_columns(p_table, v_view);
    EXECUTE format('DROP VIEW IF EXISTS pgtrickle_changes.%I', 'query_' || p_table.pgt_id);
    PERFORM pgtrickle_changes.adopt_definition_view(v_view, p_table.pgt_id);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET defining_query = p_args ->> 'query', definition_view = v_view, settings = pgtrickle_changes.session_settings()
     WHERE st.pgt_id = p_table.pgt_id
    RETURNING st.* INTO p_table;
    PERFORM pgtrickle_changes.drop_content_index(p_table);
    PERFORM pgtrickle_changes.empty_if_keyed_anew(p_table, v_plan);
    PERFORM pgtrickle_changes.make_index(p_table, v_plan);
    PERFORM pgtrickle_changes.install_plan(p_table.pgt_id, v_plan, v_request);
    PERFORM pgtrickle_changes.refresh(p_table.pgt_id, 'INITIAL', true);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET status = 'ACTIVE', consecutive_errors = 0, last_error_message = NULL WHERE st.pgt_id = p_table.pgt_id AND st.status = 'ERROR';
END
$$;

CREATE FUNCTION pgtrickle_changes.alter_columns(p_table pgtrickle.pgt_stream_tables, p_view oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Give the table the columns of a new definition: those that stay are left alone, new ones come at the end.
DECLARE
    v_change text;
    v_table  text := format('%I.%I', p_table.pgt_schema, p_table.pgt_name);
    v_order  text[];
    v_wanted text[];
BEGIN
    FOR v_change IN
        SELECT format('ALTER TABLE %s DROP COLUMN %I', v_table, a.attname)
          FROM pg_attribute AS a
         WHERE a.attrelid = p_table.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attname NOT IN (SELECT c.name FROM pgtrickle_changes.table_columns(p_view) AS c)
        UNION ALL
        SELECT format('ALTER TABLE %s ADD COLUMN %s', v_table, c.definition)
          FROM pgtrickle_changes.table_columns(p_view) AS c
         WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                            WHERE a.attrelid = p_table.pgt_relid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped)
        UNION ALL
        SELECT format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING NULL', v_table, c.name, substr(c.definition, length(quote_ident(c.name)) + 2))
          FROM pgtrickle_changes.table_columns(p_view) AS c
          JOIN pg_attribute AS a ON a.attrelid = p_table.pgt_relid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
         WHERE (a.atttypid, a.atttypmod, a.attcollation) IS DISTINCT FROM (c.type, c.typmod, c.collation)
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, v_change);
    END LOOP;
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO v_order
      FROM pg_attribute AS a WHERE a.attrelid = p_table.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT array_agg(c.name::text) INTO v_wanted FROM pgtrickle_changes.table_columns(p_view) AS c;
    IF v_order <> v_wanted THEN
        RAISE NOTICE 'the columns of "%" are in another order than its query''s', p_table.pgt_name
            USING DETAIL = format('The table has %s.', array_to_string(v_order, ', ')),
                  HINT = 'PostgreSQL adds columns at the end; drop and create the stream table if their order matters.';
    END IF;
END
$$;

CREATE FUNCTION pgtrickle_changes.cycle_through(p_relation oid, p_view oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- How a definition would come back to a stream table, if it would.
    WITH RECURSIVE reach(relid, path) AS (
        SELECT c.relid, p_relation::regclass || ' reads ' || c.relid::regclass FROM pgtrickle_changes.relation_closure(p_view) AS c
        UNION ALL
        SELECT d.source_relid, r.path || ' reads ' || d.source_relid::regclass
          FROM reach AS r
          JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_relid = r.relid AND st.pgt_relid <> p_relation
          JOIN pgtrickle.pgt_dependencies AS d ON d.pgt_id = st.pgt_id
    )
    SELECT r.path FROM reach AS r WHERE r.relid = p_relation LIMIT 1
$$;

CREATE FUNCTION pgtrickle_changes.do_suspend_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st SET status = 'SUSPENDED' WHERE st.pgt_id = v_table.pgt_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION pgtrickle_changes.resume(p_id bigint) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET status = CASE WHEN st.is_populated THEN 'ACTIVE' ELSE 'INITIALIZING' END, consecutive_errors = 0
     WHERE st.pgt_id = p_id
$$;

CREATE FUNCTION pgtrickle_changes.do_resume_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.resume((pgtrickle_changes.owned_stream_table(p_caller, p_args)).pgt_id);
    RETURN NULL;
END
$$;

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

CREATE FUNCTION pgtrickle_changes.do_refresh_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.manual_refresh((pgtrickle_changes.owned_stream_table(p_caller, p_args)).pgt_id);
    RETURN NULL;
END
$$;

CREATE FUNCTION pgtrickle_changes.do_verify_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
BEGIN
    PERFORM pgtrickle_changes.check_privileges(v_table);
    RETURN pgtrickle_changes.verify(v_table.pgt_id);
END
$$;
