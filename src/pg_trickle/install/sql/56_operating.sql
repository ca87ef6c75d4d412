-- Operating: mending one stream table, and doing a thing to several at once.

CREATE FUNCTION pgtrickle_changes.do_repair_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Mend what can be mended, bring the table up to date and compare it with its query; in words, what was wrong.
DECLARE
    v_table   pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_name    text := format('%I.%I', v_table.pgt_schema, v_table.pgt_name);
    v_found   text[] := ARRAY(
        SELECT format('capture of %s: %s', d.source_relid::regclass, c.drift)
          FROM pgtrickle.pgt_dependencies AS d
         CROSS JOIN LATERAL pgtrickle_changes.capture_drift(d.source_relid, v_table.owner_oid) AS c(drift)
         WHERE d.pgt_id = v_table.pgt_id AND d.captured AND c.drift IS NOT NULL ORDER BY d.source_relid);
    v_missing text[] := pgtrickle_changes.missing_states(v_table.pgt_id);
    v_wrong   text[];
    v_verdict jsonb;
BEGIN
    v_table := pgtrickle_changes.with_current_name(v_table);
    v_wrong := pgtrickle_changes.wrong_columns(v_table);
    IF cardinality(v_wrong) > 0 THEN
        v_found := v_found || v_wrong;
        PERFORM pgtrickle_changes.restore_columns(v_table);
    END IF;
    IF cardinality(v_missing) > 0 THEN
        v_found := v_found || format('missing: %s', array_to_string(v_missing, ', '));
        PERFORM pgtrickle_changes.reinstall_plan(v_table.pgt_id);
    END IF;
    PERFORM pgtrickle_changes.manual_refresh(v_table.pgt_id);
    v_verdict := pgtrickle_changes.verify(v_table.pgt_id);
    IF v_verdict <> '{"missing": 0, "extra": 0}' THEN
        v_found := v_found || format('contents: %s rows missing, %s too many', v_verdict ->> 'missing', v_verdict ->> 'extra');
        PERFORM pgtrickle_changes.do_reinitialize_stream_table(p_caller, p_args);
        PERFORM pgtrickle_changes.manual_refresh(v_table.pgt_id);
    END IF;
    RETURN to_jsonb(CASE WHEN cardinality(v_found) = 0 THEN format('%s: nothing to repair', v_name)
                         ELSE format('%s: repaired (%s)', v_name, array_to_string(v_found, '; ')) END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_repair_stream_table IS 'The gate''s repair_stream_table';

CREATE FUNCTION pgtrickle_changes.missing_states(p_id bigint) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The state and delta tables that the plan needs and that aren't there.
    SELECT ARRAY(SELECT t.item ->> 'name'
                   FROM pgtrickle.pgt_plans AS p
                  CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                  WHERE p.pgt_id = p_id AND to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) IS NULL
                  ORDER BY 1)
$$;
COMMENT ON FUNCTION pgtrickle_changes.missing_states IS 'The state and delta tables that a plan needs and that aren''t there';

CREATE FUNCTION pgtrickle_changes.restore_columns(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The columns that the query needs, of its types; the next refresh fills them.  What somebody has added stays.
DECLARE
    v_forced boolean := pgtrickle_changes.lift_row_security(p_table);
BEGIN
    PERFORM pgtrickle_changes.alter_columns(p_table, p_table.definition_view, true);
    PERFORM pgtrickle_changes.restore_row_security(p_table, v_forced);
    PERFORM pgtrickle_changes.reinstall_plan(p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.restore_columns IS 'Gives a stream table back the columns of its query';

CREATE FUNCTION pgtrickle_changes.reinstall_plan(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.with_current_name(pgtrickle_changes.lock_stream_table(p_id));
    v_plan  jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id);
BEGIN
    PERFORM pgtrickle_changes.install_plan(p_id, v_plan, pgtrickle_changes.compile_request(
        v_table.owner_oid, v_table.definition_view, p_id, v_table.pgt_schema, v_table.pgt_name));
    UPDATE pgtrickle.pgt_stream_tables AS st SET needs_reinit = true, reinit_reason = 'what its plan rests on was made anew' WHERE st.pgt_id = p_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.reinstall_plan IS 'Make anew all that the plan rests on, empty; the next refresh fills it';

CREATE FUNCTION pgtrickle_changes.do_refresh_if_stale(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
BEGIN
    IF extract(epoch FROM clock_timestamp() - v_table.data_timestamp) <= (p_args ->> 'max_age_seconds')::float8 AND NOT v_table.needs_reinit THEN
        RETURN to_jsonb(false);
    END IF;
    PERFORM pgtrickle_changes.manual_refresh(v_table.pgt_id);
    RETURN to_jsonb(true);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_refresh_if_stale IS 'The gate''s refresh_if_stale';

CREATE FUNCTION pgtrickle_changes.do_pause_all(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the caller owns, and of that what isn't suspended already: that stays as it is when all goes on again.
DECLARE
    v_ids bigint[] := ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
                             WHERE st.status <> 'SUSPENDED' AND pg_has_role(p_caller, st.owner_oid, 'USAGE') ORDER BY st.pgt_id);
    v_id  bigint;
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        PERFORM pgtrickle_changes.suspend(v_id);
        UPDATE pgtrickle.pgt_stream_tables AS st SET paused = true WHERE st.pgt_id = v_id;
    END LOOP;
    RETURN to_jsonb(cardinality(v_ids));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_pause_all IS 'The gate''s pause_all';

CREATE FUNCTION pgtrickle_changes.do_resume_all(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Sources before what reads them: resuming may refresh.
DECLARE
    v_ids bigint[] := ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
                             WHERE st.paused AND st.status = 'SUSPENDED' AND pg_has_role(p_caller, st.owner_oid, 'USAGE')
                             ORDER BY cardinality(pgtrickle_changes.with_upstream(st.pgt_id)), st.pgt_id);
    v_id  bigint;
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        PERFORM pgtrickle_changes.resume(v_id);
    END LOOP;
    RETURN to_jsonb(cardinality(v_ids));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_resume_all IS 'The gate''s resume_all';

CREATE FUNCTION pgtrickle_changes.checked_keys(p_object jsonb, p_allowed text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An object that names nothing but what it may.
DECLARE
    v_key text;
BEGIN
    IF jsonb_typeof(p_object) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'arguments of a stream table are a JSON object'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('This is %s.', coalesce(jsonb_typeof(p_object), 'NULL')),
                  HINT = 'For instance {"name": "totals", "query": "SELECT ..."}.';
    END IF;
    SELECT k.key INTO v_key FROM jsonb_object_keys(p_object) AS k(key) WHERE k.key <> ALL (p_allowed) ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a stream table has no argument "%"', v_key
            USING ERRCODE = 'invalid_parameter_value', HINT = format('There are: %s.', array_to_string(p_allowed, ', '));
    END IF;
    RETURN p_object;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.checked_keys IS 'An object that names nothing but what it may; raises otherwise';

CREATE FUNCTION pgtrickle_changes.do_bulk_create(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_defaults CONSTANT jsonb := '{"schedule": "calculated", "refresh_mode": "AUTO", "initialize": true, "append_only": false}'::jsonb;
    v_one      jsonb;
    v_count    integer := 0;
BEGIN
    IF jsonb_typeof(p_args -> 'definitions') IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'definitions are a JSON array'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For instance [{"name": "totals", "query": "SELECT ..."}].';
    END IF;
    FOR v_one IN SELECT d.value FROM jsonb_array_elements(p_args -> 'definitions') WITH ORDINALITY AS d(value, place) ORDER BY d.place LOOP
        v_one := pgtrickle_changes.checked_keys(v_one, '{name,query,schedule,refresh_mode,initialize,diamond_consistency,diamond_schedule_policy,cdc_mode,append_only}');
        PERFORM pgtrickle_changes.do_create_stream_table(p_caller, (p_args - 'definitions') || v_defaults || v_one);
        v_count := v_count + 1;
    END LOOP;
    RETURN to_jsonb(v_count);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_bulk_create IS 'The gate''s bulk_create';

CREATE FUNCTION pgtrickle_changes.named(p_names jsonb) RETURNS SETOF text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(p_names) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'names are an array, not NULL'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For instance ARRAY[''totals'', ''public.averages''].';
    END IF;
    RETURN QUERY SELECT n.value FROM jsonb_array_elements_text(p_names) AS n;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.named IS 'The names of an array; raises if there is no array';

CREATE FUNCTION pgtrickle_changes.do_bulk_alter_stream_tables(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_changes jsonb := pgtrickle_changes.checked_keys(p_args -> 'changes',
        '{schedule,refresh_mode,status,diamond_consistency,diamond_schedule_policy,cdc_mode,append_only,tier,fuse_ceiling}');
    v_names   text[] := ARRAY(SELECT n FROM pgtrickle_changes.named(p_args -> 'names') AS n);
    v_name    text;
BEGIN
    FOREACH v_name IN ARRAY v_names LOOP
        PERFORM pgtrickle_changes.do_alter_stream_table(p_caller, (p_args - 'names' - 'changes') || v_changes || jsonb_build_object('name', v_name));
    END LOOP;
    RETURN to_jsonb(cardinality(v_names));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_bulk_alter_stream_tables IS 'The gate''s bulk_alter_stream_tables';

CREATE FUNCTION pgtrickle_changes.do_bulk_drop_stream_tables(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What reads another of them goes before it; nothing goes that isn't named.
DECLARE
    v_ids bigint[];
    v_id  bigint;
BEGIN
    SELECT coalesce(array_agg(t.pgt_id ORDER BY t.depth DESC, t.pgt_id), '{}') INTO v_ids
      FROM (SELECT DISTINCT o.pgt_id, cardinality(pgtrickle_changes.with_upstream(o.pgt_id)) AS depth
              FROM pgtrickle_changes.named(p_args -> 'names') AS n
             CROSS JOIN LATERAL pgtrickle_changes.named_stream_table(p_caller, p_args || jsonb_build_object('name', n)) AS o) AS t;
    FOREACH v_id IN ARRAY v_ids LOOP
        PERFORM pgtrickle_changes.do_drop_stream_table(p_caller, p_args || jsonb_build_object('name', format('%I.%I', c.nspname, c.relname)))
           FROM (SELECT n.nspname, r.relname FROM pgtrickle.pgt_stream_tables AS st
                   JOIN pg_class AS r ON r.oid = st.pgt_relid JOIN pg_namespace AS n ON n.oid = r.relnamespace
                  WHERE st.pgt_id = v_id) AS c;
    END LOOP;
    RETURN to_jsonb(cardinality(v_ids));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_bulk_drop_stream_tables IS 'The gate''s bulk_drop_stream_tables';
