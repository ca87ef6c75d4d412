-- Creating a stream table: the query becomes a view of the owner's, the view a compile request, the plan a table.

CREATE FUNCTION pgtrickle_changes.make_definition_view(p_owner oid, p_schema text, p_query text, p_path text) RETURNS oid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The query as a view that the owner himself creates in the target schema: names mean what they mean to him, and
-- PostgreSQL checks that he may create there.
DECLARE
    v_name name := format('__pgt_query_%s_%s', pg_backend_pid(), (random() * 1e9)::bigint);
    v_view oid;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = p_schema) THEN
        RAISE EXCEPTION 'schema "%" does not exist', p_schema USING ERRCODE = 'invalid_schema_name';
    END IF;
    IF p_schema IN ('pgtrickle', 'pgtrickle_changes') THEN
        RAISE EXCEPTION 'stream tables can''t be created in schema "%"', p_schema
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is pg_trickle''s own: choose another.';
    END IF;
    IF p_query IS NULL OR p_query ~ '^[\s;]*$' THEN
        RAISE EXCEPTION 'the defining query is empty' USING ERRCODE = 'syntax_error';
    END IF;
    PERFORM pgtrickle_changes.run_as(p_owner, p_query, p_settings => jsonb_build_object('search_path', p_path, 'query', 'on'));
    -- A line of its own: the query may end in a comment.
    PERFORM pgtrickle_changes.command_as(p_owner, format(E'CREATE VIEW %I.%I AS\n%s\n', p_schema, v_name, p_query),
                                         jsonb_build_object('search_path', p_path));
    v_view := to_regclass(format('%I.%I', p_schema, v_name));
    IF v_view IS NULL OR (SELECT c.relpersistence FROM pg_class AS c WHERE c.oid = v_view) = 't' THEN
        RAISE EXCEPTION 'a stream table can''t read temporary tables'
            USING ERRCODE = 'feature_not_supported', DETAIL = 'They are gone with their session.', HINT = 'Use ordinary tables.';
    END IF;
    IF (SELECT c.relowner FROM pg_class AS c WHERE c.oid = v_view) <> p_owner THEN
        RAISE EXCEPTION 'the definition doesn''t belong to the caller' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN v_view;
END
$$;

CREATE FUNCTION pgtrickle_changes.adopt_definition_view(p_view oid, p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Move the definition where its owner can't replace it.
BEGIN
    EXECUTE format('ALTER VIEW %s RENAME TO %I', p_view::regclass, 'query_' || p_id);
    EXECUTE format('ALTER VIEW %s SET SCHEMA pgtrickle_changes', p_view::regclass);
    EXECUTE format('COMMENT ON VIEW %s IS %L', p_view::regclass, format('The definition of stream table %s', p_id));
END
$$;

CREATE FUNCTION pgtrickle_changes.check_readable(p_owner oid, p_view oid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- PostgreSQL's own check of everything that the query reads; no row is read.
    SELECT pgtrickle_changes.run_as(p_owner, format('SELECT pg_catalog.count(*) FROM (SELECT FROM %s LIMIT 0) AS q', p_view::regclass))
$$;

CREATE FUNCTION pgtrickle_changes.session_settings() RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- What of the creator's session a query's result may depend on, as far as it differs from what runners pin.
    SELECT coalesce(jsonb_object_agg(s.name, s.value), '{}')
      FROM (SELECT p.name, p.pinned, CASE WHEN p.name = 'extra_float_digits' THEN greatest(current_setting(p.name)::integer, 1)::text
                                          ELSE current_setting(p.name) END AS value
              FROM (VALUES ('TimeZone', 'UTC'), ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'),
                           ('bytea_output', 'hex'), ('lc_monetary', 'C'), ('lc_numeric', 'C'), ('lc_time', 'C'),
                           ('default_text_search_config', 'pg_catalog.simple')) AS p(name, pinned)) AS s
     WHERE s.value <> s.pinned
$$;

CREATE FUNCTION pgtrickle_changes.table_columns(p_view oid) RETURNS TABLE (name name, definition text, type oid, typmod integer, collation oid)
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The columns of a definition view as CREATE TABLE writes them.
    SELECT a.attname, format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                             CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END),
           a.atttypid, a.atttypmod, a.attcollation
      FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
     WHERE a.attrelid = p_view AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum
$$;

CREATE FUNCTION pgtrickle_changes.make_table(p_owner oid, p_schema text, p_name text, p_view oid) RETURNS oid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.command_as(p_owner, (
        SELECT format('CREATE TABLE %I.%I (%s)', p_schema, p_name, string_agg(c.definition, ', '))
          FROM pgtrickle_changes.table_columns(p_view) AS c));
    RETURN to_regclass(format('%I.%I', p_schema, p_name));
END
$$;

CREATE FUNCTION pgtrickle_changes.do_compile_request(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the compiler needs for a query under a name; nothing stays behind but a reserved id.
DECLARE
    v_owner   oid := pgtrickle_changes.role_oid(p_caller);
    v_target  text[];
    v_table   pgtrickle.pgt_stream_tables := pgtrickle_changes.find_stream_table(p_args ->> 'name', p_args ->> 'path');
    v_view    oid;
    v_request jsonb;
BEGIN
    v_target := CASE WHEN v_table.pgt_id IS NULL THEN pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema')
                     ELSE ARRAY[v_table.pgt_schema, v_table.pgt_name] END;
    IF v_table.pgt_id IS NOT NULL THEN
        PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
        v_owner := v_table.owner_oid;
    END IF;
    PERFORM pgtrickle_changes.ensure_runner(v_owner);
    v_view := pgtrickle_changes.make_definition_view(v_owner, v_target[1], p_args ->> 'query', p_args ->> 'search_path');
    PERFORM pgtrickle_changes.check_readable(v_owner, v_view);
    v_request := pgtrickle_changes.compile_request(v_owner, v_view,
        coalesce(v_table.pgt_id, nextval('pgtrickle.pgt_stream_tables_pgt_id_seq')), v_target[1], v_target[2]);
    EXECUTE format('DROP VIEW %s', v_view::regclass);
    RETURN v_request || jsonb_build_object('hash', pgtrickle_changes.request_hash(v_request));
END
$$;

CREATE FUNCTION pgtrickle_changes.do_create_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner   oid := pgtrickle_changes.role_oid(p_caller);
    v_target  text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
    v_mode    text := pgtrickle_changes.checked_choice('refresh_mode', upper(coalesce(p_args ->> 'refresh_mode', 'AUTO')),
                                                       '{AUTO,DIFFERENTIAL,FULL,IMMEDIATE}');
    v_seconds float8 := pgtrickle_changes.schedule_seconds(p_args ->> 'schedule');
    v_id      bigint;
    v_view    oid;
    v_request jsonb;
    v_plan    jsonb;
    v_table   pgtrickle.pgt_stream_tables;
BEGIN
    IF to_regclass(format('%I.%I', v_target[1], v_target[2])) IS NOT NULL THEN
        RAISE EXCEPTION 'relation "%" already exists', v_target[2]
            USING ERRCODE = 'duplicate_table', HINT = 'Choose another name, or use create_or_replace_stream_table for a stream table.';
    END IF;
    PERFORM pgtrickle_changes.effective_mode(v_mode, '{"incremental": true}');
    PERFORM pgtrickle_changes.ensure_runner(v_owner);
    v_view := pgtrickle_changes.make_definition_view(v_owner, v_target[1], p_args ->> 'query', p_args ->> 'search_path');
    PERFORM pgtrickle_changes.check_readable(v_owner, v_view);
    v_id := pgtrickle_changes.reserved_id(p_args);
    v_request := pgtrickle_changes.compile_request(v_owner, v_view, v_id, v_target[1], v_target[2]);
    v_plan := pgtrickle_changes.plan_for(p_args, v_request);
    PERFORM pgtrickle_changes.effective_mode(v_mode, v_plan);

    INSERT INTO pgtrickle.pgt_stream_tables AS st
           (pgt_id, pgt_relid, pgt_schema, pgt_name, owner_oid, defining_query, definition_view, schedule, schedule_seconds,
            refresh_mode, effective_refresh_mode, diamond_consistency, diamond_schedule_policy, cdc_mode, append_only, settings,
            system_identifier)
    VALUES (v_id, pgtrickle_changes.make_table(v_owner, v_target[1], v_target[2], v_view), v_target[1], v_target[2], v_owner,
            p_args ->> 'query', v_view, p_args ->> 'schedule', v_seconds, v_mode, 'FULL',
            coalesce(pgtrickle_changes.checked_choice('diamond_consistency', p_args ->> 'diamond_consistency', '{atomic,none}'), 'atomic'),
            coalesce(pgtrickle_changes.checked_choice('diamond_schedule_policy', p_args ->> 'diamond_schedule_policy', '{fastest,slowest}'), 'fastest'),
            pgtrickle_changes.checked_cdc_mode(p_args ->> 'cdc_mode'),
            coalesce((p_args ->> 'append_only')::boolean, false), pgtrickle_changes.session_settings(),
            (SELECT c.system_identifier FROM pg_control_system() AS c))
    RETURNING st.* INTO v_table;
    PERFORM pgtrickle_changes.adopt_definition_view(v_view, v_id);
    PERFORM pgtrickle_changes.make_index(v_table, v_plan);
    PERFORM pgtrickle_changes.install_plan(v_id, v_plan, v_request);
    IF coalesce((p_args ->> 'initialize')::boolean, true) THEN
        PERFORM pgtrickle_changes.populate(v_id);
    END IF;
    RETURN to_jsonb(v_id);
END
$$;

CREATE FUNCTION pgtrickle_changes.do_create_stream_table_if_not_exists(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_target text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
BEGIN
    IF EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st
                WHERE st.pgt_relid = to_regclass(format('%I.%I', v_target[1], v_target[2]))) THEN
        RAISE NOTICE 'stream table "%" already exists, skipping', v_target[2];
        RETURN NULL;
    END IF;
    RETURN pgtrickle_changes.do_create_stream_table(p_caller, p_args);
END
$$;

CREATE FUNCTION pgtrickle_changes.do_create_or_replace_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_target text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
    v_table  pgtrickle.pgt_stream_tables;
    v_alter  jsonb;
BEGIN
    SELECT st.* INTO v_table FROM pgtrickle.pgt_stream_tables AS st
     WHERE st.pgt_relid = to_regclass(format('%I.%I', v_target[1], v_target[2]));
    IF NOT FOUND THEN
        RETURN pgtrickle_changes.do_create_stream_table(p_caller, p_args);
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
    v_alter := p_args || jsonb_build_object('name', format('%I.%I', v_target[1], v_target[2]), 'schedule_given', true);
    IF v_table.defining_query = p_args ->> 'query' THEN
        v_alter := v_alter - 'query' - 'plan';
    END IF;
    RETURN pgtrickle_changes.do_alter_stream_table(p_caller, v_alter);
END
$$;

CREATE FUNCTION pgtrickle_changes.do_validate_query(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_plan   jsonb := pgtrickle_changes.request_plan(pgtrickle_changes.do_compile_request(p_caller,
        p_args || jsonb_build_object('name', format('%I.validated_query', p_args ->> 'schema'))));
    v_checks jsonb := jsonb_build_array(jsonb_build_object('check_name', 'resolved_refresh_mode', 'severity', 'OK',
        'result', CASE WHEN (v_plan ->> 'incremental')::boolean THEN 'DIFFERENTIAL' ELSE 'FULL' END));
BEGIN
    IF v_plan -> 'refusal' <> 'null' THEN
        v_checks := v_checks || jsonb_build_object('check_name', v_plan #>> '{refusal,construct}',
            'result', v_plan #>> '{refusal,reason}', 'severity', 'WARN');
    END IF;
    v_checks := v_checks || jsonb_build_object('check_name', 'key', 'severity', 'OK', 'result',
        coalesce((SELECT string_agg(k, ', ') FROM jsonb_array_elements_text(nullif(v_plan -> 'key', 'null')) AS k),
                 'none: rows are told apart by their content'));
    RETURN v_checks || coalesce((SELECT jsonb_agg(jsonb_build_object('check_name', 'wanted_index', 'result', i ->> 'why', 'severity', 'WARN'))
                                   FROM jsonb_array_elements(v_plan -> 'indexes') AS i), '[]');
END
$$;
