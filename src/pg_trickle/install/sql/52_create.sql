-- Creating a stream table: the query becomes a view of the owner's, the view a compile request, the plan a table.

CREATE FUNCTION pgtrickle_changes.make_definition_view(p_owner oid, p_schema text, p_args jsonb) RETURNS oid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
AS $$
-- The query as a view that the owner himself creates in the target schema, under the settings of the session: names and constants
-- mean what they mean to the caller, and PostgreSQL checks that the owner may create there.  What it has to notice about the view
-- would mean nothing to him.
DECLARE
    v_name     text := format('%I.%I', p_schema, format('__pgt_query_%s_%s', pg_backend_pid(), (random() * 1e9)::bigint));
    v_query    text := p_args ->> 'query';
    v_settings jsonb := pgtrickle_changes.session_settings() || jsonb_build_object('search_path', p_args ->> 'search_path');
    v_reserved name;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = p_schema) THEN
        RAISE EXCEPTION 'schema "%" does not exist', p_schema
            USING ERRCODE = 'invalid_schema_name', HINT = format('CREATE SCHEMA %I; or name another.', p_schema);
    END IF;
    IF p_schema IN ('pgtrickle', 'pgtrickle_changes') OR p_schema LIKE 'pg\_%' THEN
        RAISE EXCEPTION 'stream tables can''t be created in schema "%"', p_schema
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'It has a purpose of its own.', HINT = 'Choose another schema.';
    END IF;
    IF v_query IS NULL OR v_query ~ '^[\s;]*$' THEN
        RAISE EXCEPTION 'the defining query is empty' USING ERRCODE = 'syntax_error', HINT = 'Write a SELECT.';
    END IF;
    BEGIN
        PERFORM pgtrickle_changes.run_as(p_owner, v_query, p_settings => v_settings || '{"query": "on"}');
    EXCEPTION WHEN invalid_cursor_definition THEN
        PERFORM pgtrickle_changes.refuse_statement(SQLERRM);
    END;
    BEGIN
        -- A line of its own: the query may end in a comment.
        PERFORM pgtrickle_changes.command_as(p_owner, format(E'CREATE VIEW %s AS\n%s\n', v_name, v_query), v_settings);
    EXCEPTION
        WHEN syntax_error OR feature_not_supported THEN
            PERFORM pgtrickle_changes.refuse_statement(SQLERRM);
        WHEN invalid_table_definition THEN
            PERFORM pgtrickle_changes.refuse_temporary(p_owner, v_query, v_settings);
            RAISE EXCEPTION '%', SQLERRM
                USING ERRCODE = 'invalid_table_definition', DETAIL = 'The columns of a stream table are those of its query.',
                      HINT = 'Cast it to a type that a table''s column can have, or select its parts.';
        WHEN duplicate_column THEN
            PERFORM pgtrickle_changes.refuse_column_name(SQLERRM);
    END;
    IF NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = v_name::regclass AND a.attnum > 0) THEN
        RAISE EXCEPTION 'a stream table needs a column'
            USING ERRCODE = 'syntax_error', DETAIL = 'The query has none.', HINT = 'Select something.';
    END IF;
    -- Views may have columns that are called as tables' own.
    PERFORM pgtrickle_changes.refuse_column_name(format('column name "%s" conflicts with a system column name', a.attname))
       FROM pg_attribute AS a JOIN pg_attribute AS own ON own.attname = a.attname
      WHERE a.attrelid = v_name::regclass AND own.attrelid = 'pg_class'::regclass AND own.attnum < 0;
    SELECT a.attname INTO v_reserved FROM pg_attribute AS a WHERE a.attrelid = v_name::regclass AND starts_with(a.attname, '__pgt_') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the column name "%" is reserved', v_reserved
            USING ERRCODE = 'reserved_name', DETAIL = 'Names that begin with "__pgt_" are for what the engine adds to rows.',
                  HINT = format('Call it something else: ... AS %I', ltrim(v_reserved, '_'));
    END IF;
    RETURN v_name::regclass;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_definition_view IS 'Makes the query a view that the owner himself creates';

CREATE FUNCTION pgtrickle_changes.refuse_statement(p_why text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'a stream table is defined by one query'
        USING ERRCODE = 'syntax_error', DETAIL = format('PostgreSQL says: %s.', p_why),
              HINT = 'Write one SELECT, VALUES or TABLE, that changes no data.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_statement IS 'Raises that a definition has to be one query';

CREATE FUNCTION pgtrickle_changes.refuse_column_name(p_why text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '%', p_why
        USING ERRCODE = 'duplicate_column', DETAIL = 'The columns of a stream table are those of its query.', HINT = 'Give the column another name, with AS.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_column_name IS 'Raises that a column can''t be called so';

CREATE FUNCTION pgtrickle_changes.refuse_temporary(p_owner oid, p_query text, p_settings jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Raises if the query makes a view when that view is a temporary one: then it reads temporary tables.
BEGIN
    BEGIN
        PERFORM pgtrickle_changes.command_as(p_owner, format(E'CREATE TEMPORARY VIEW __pgt_query AS\n%s\n', p_query), p_settings);
    EXCEPTION WHEN OTHERS THEN
        -- It is wrong in another way: the caller says how.
        RETURN;
    END;
    RAISE EXCEPTION 'a stream table can''t read temporary tables'
        USING ERRCODE = 'feature_not_supported', DETAIL = 'They are gone with their session.', HINT = 'Use ordinary tables.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_temporary IS 'Raises if the query reads temporary tables';

CREATE FUNCTION pgtrickle_changes.adopt_definition_view(p_view oid, p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Not the other way round: where it comes from, anybody may have taken the name.
    EXECUTE format('ALTER VIEW %s SET SCHEMA pgtrickle_changes', p_view::regclass);
    EXECUTE format('ALTER VIEW %s RENAME TO %I', p_view::regclass, 'query_' || p_id);
    EXECUTE format('COMMENT ON VIEW %s IS %L', p_view::regclass, format('The definition of stream table %s', p_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.adopt_definition_view IS 'Move the definition where its owner can''t replace it';

CREATE FUNCTION pgtrickle_changes.check_readable(p_owner oid, p_view oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- PostgreSQL's own check of everything that the query reads; no row is read.
BEGIN
    -- His definition, states and buffers lie there.
    PERFORM pgtrickle_changes.open_schema(p_owner);
    PERFORM pgtrickle_changes.run_as(p_owner, format('SELECT pg_catalog.count(*) FROM (SELECT FROM %s LIMIT 0) AS q', p_view::regclass));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_readable IS 'Raises unless the owner may read all that a view reads';

CREATE FUNCTION pgtrickle_changes.one_at_a_time() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Wait for everybody else who has called this, until he commits.  Nobody but the engine can hold this lock, and it is in no reader's way.
BEGIN
    LOCK TABLE pgtrickle_changes.gate_actions IN SHARE UPDATE EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.one_at_a_time IS 'Lets one transaction at a time go on from here';

CREATE FUNCTION pgtrickle_changes.session_settings() RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(s.name, s.value), '{}')
          FROM (SELECT p.name, p.value AS pinned, CASE WHEN p.name = 'extra_float_digits' THEN greatest(current_setting(p.name)::integer, 1)::text
                                                       ELSE current_setting(p.name) END AS value
                  FROM pgtrickle_changes.pinned_settings() AS p
                 WHERE p.is_creators) AS s
         WHERE s.value <> s.pinned);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.session_settings IS 'What of the creator''s session a query''s result may depend on, as far as it differs from what runners pin';

CREATE FUNCTION pgtrickle_changes.table_columns(p_view oid) RETURNS TABLE(name name, type text, type_oid oid, typmod integer, collation_oid oid)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
        SELECT a.attname, format('%s%s', format_type(a.atttypid, a.atttypmod),
                                 CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END),
               a.atttypid, a.atttypmod, a.attcollation
          FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
         WHERE a.attrelid = p_view AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.table_columns IS 'The columns of a definition view as CREATE TABLE writes them';

CREATE FUNCTION pgtrickle_changes.make_table(p_owner oid, p_target text[], p_view oid) RETURNS oid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := format('%I.%I', p_target[1], p_target[2]);
BEGIN
    PERFORM pgtrickle_changes.command_as(p_owner, (
        SELECT format('CREATE TABLE %s (%s)', v_name, string_agg(format('%I %s', c.name, c.type), ', '))
          FROM pgtrickle_changes.table_columns(p_view) AS c));
    -- Whoever publishes it, or all tables, doesn't stop its refreshes.
    PERFORM pgtrickle_changes.command_as(p_owner, format('ALTER TABLE %s REPLICA IDENTITY FULL', v_name));
    RETURN v_name::regclass;
EXCEPTION
    WHEN duplicate_table OR unique_violation THEN
        -- By somebody who didn't ask us.
        PERFORM pgtrickle_changes.refuse_name(p_target[2]);
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_table IS 'Creates the table of a stream table as its owner';

CREATE FUNCTION pgtrickle_changes.passing_request(p_owner oid, p_id bigint, p_target text[], p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The compile request of a query that nothing is made of yet: the view is gone again.
DECLARE
    v_view    oid := pgtrickle_changes.make_definition_view(p_owner, p_target[1], p_args);
    v_request jsonb;
BEGIN
    PERFORM pgtrickle_changes.check_readable(p_owner, v_view);
    v_request := pgtrickle_changes.compile_request(p_owner, v_view, p_id, p_target[1], p_target[2]);
    EXECUTE format('DROP VIEW %s', v_view::regclass);
    RETURN pgtrickle_changes.hashed(v_request);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.passing_request IS 'The compile request of a query of which nothing is to stay';

CREATE FUNCTION pgtrickle_changes.hashed(p_request jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A request that says which facts its plan is for: they have to hold when the plan is installed.
BEGIN
    RETURN p_request || jsonb_build_object('hash', pgtrickle_changes.request_hash(p_request));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hashed IS 'A request with the hash of its facts, which have to hold when the plan is installed';

CREATE FUNCTION pgtrickle_changes.do_compile_request(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_target text[];
    v_table  pgtrickle.pgt_stream_tables;
BEGIN
    IF (p_args ->> 'existing')::boolean THEN
        v_table := pgtrickle_changes.with_current_name(pgtrickle_changes.owned_stream_table(p_caller, p_args));
        v_target := ARRAY[v_table.pgt_schema, v_table.pgt_name];
        IF p_args ->> 'query' IS NULL THEN
            RETURN pgtrickle_changes.hashed(pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, v_table.pgt_id,
                                                                             v_target[1], v_target[2]));
        END IF;
    ELSE
        v_target := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
        -- The plan is for what is there when its turn has come.
        PERFORM pgtrickle_changes.take_name(v_target);
        v_table := pgtrickle_changes.stream_table_of(v_target);
        -- Somebody else's: the function that the plan is for has to say so.
        IF NOT pg_has_role(p_caller, v_table.owner_oid, 'USAGE') THEN
            v_table := NULL;
        END IF;
    END IF;
    RETURN pgtrickle_changes.passing_request(coalesce(v_table.owner_oid, pgtrickle_changes.role_oid(p_caller)),
        coalesce(v_table.pgt_id, nextval('pgtrickle.pgt_stream_tables_pgt_id_seq')), v_target, p_args);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_compile_request IS 'What the compiler needs for a query under a name; nothing stays behind but a reserved id';

CREATE FUNCTION pgtrickle_changes.do_create_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner       oid := pgtrickle_changes.role_oid(p_caller);
    v_target      text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
    v_mode        text := coalesce(pgtrickle_changes.checked_mode(p_args ->> 'refresh_mode'), 'AUTO');
    v_schedule    text := pgtrickle_changes.checked_schedule(p_args ->> 'schedule');
    v_seconds     float8 := pgtrickle_changes.schedule_seconds(v_schedule);
    v_cdc_mode    text := pgtrickle_changes.checked_cdc_mode(p_args ->> 'cdc_mode');
    v_consistency text := pgtrickle_changes.checked_choice('diamond_consistency', p_args ->> 'diamond_consistency', '{atomic,none}');
    v_policy      text := pgtrickle_changes.checked_choice('diamond_schedule_policy', p_args ->> 'diamond_schedule_policy', '{fastest,slowest}');
    v_id          bigint;
    v_view        oid;
    v_request     jsonb;
    v_plan        jsonb;
BEGIN
    PERFORM pgtrickle_changes.make_room();
    PERFORM pgtrickle_changes.take_name(v_target);
    IF to_regclass(format('%I.%I', v_target[1], v_target[2])) IS NOT NULL THEN
        PERFORM pgtrickle_changes.refuse_name(v_target[2]);
    END IF;
    v_view := pgtrickle_changes.standing_view(v_owner, v_target[1], p_args, '{}');
    v_id := pgtrickle_changes.reserved_id(p_args);
    v_request := pgtrickle_changes.compile_request(v_owner, v_view, v_id, v_target[1], v_target[2], v_mode);
    v_plan := pgtrickle_changes.plan_for(p_args, v_request);

    INSERT INTO pgtrickle.pgt_stream_tables AS st
           (pgt_id, pgt_relid, pgt_schema, pgt_name, owner_oid, owner_was_superuser, defining_query, definition_view, schedule, schedule_seconds,
            refresh_mode, effective_refresh_mode, diamond_consistency, diamond_schedule_policy, cdc_mode, append_only, settings,
            system_identifier)
    VALUES (v_id, pgtrickle_changes.make_table(v_owner, v_target, v_view), v_target[1], v_target[2], v_owner,
            (SELECT r.rolsuper FROM pg_authid AS r WHERE r.oid = v_owner),
            p_args ->> 'query', v_view, v_schedule, v_seconds, v_mode, pgtrickle_changes.effective_mode(v_mode, v_plan),
            coalesce(v_consistency, 'atomic'), coalesce(v_policy, 'fastest'), v_cdc_mode,
            coalesce((p_args ->> 'append_only')::boolean, false), pgtrickle_changes.session_settings(),
            (SELECT c.system_identifier FROM pg_control_system() AS c));
    PERFORM pgtrickle_changes.adopt_definition_view(v_view, v_id);
    PERFORM pgtrickle_changes.install_plan(v_id, v_plan, v_request);
    IF v_cdc_mode = 'wal' THEN
        PERFORM pgtrickle_changes.demand_wal(v_id);
    END IF;
    IF coalesce((p_args ->> 'initialize')::boolean, true) THEN
        PERFORM pgtrickle_changes.populate(v_id);
    END IF;
    IF (v_plan ->> 'is_ordered')::boolean THEN
        RAISE NOTICE 'stream table "%" has no order of its own', v_target[2]
            USING DETAIL = 'Its rows come in any order, as those of any table.', HINT = 'Put the ORDER BY into the queries that read it.';
    END IF;
    RETURN to_jsonb(v_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_create_stream_table IS 'The gate''s create_stream_table';

CREATE FUNCTION pgtrickle_changes.do_create_stream_table_if_not_exists(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.stream_table_by_now(p_args);
BEGIN
    IF v_table.pgt_id IS NOT NULL THEN
        RAISE NOTICE 'stream table "%" already exists, skipping', v_table.pgt_name;
        RETURN NULL;
    END IF;
    RETURN pgtrickle_changes.do_create_stream_table(p_caller, p_args);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_create_stream_table_if_not_exists IS 'The gate''s create_stream_table_if_not_exists';

CREATE FUNCTION pgtrickle_changes.do_create_or_replace_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_target text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.stream_table_by_now(p_args);
    v_alter  jsonb := p_args || jsonb_build_object('name', format('%I.%I', v_target[1], v_target[2]), 'schedule_given', true);
BEGIN
    IF v_table.pgt_id IS NULL THEN
        RETURN pgtrickle_changes.do_create_stream_table(p_caller, p_args);
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
    IF pgtrickle_changes.is_its_query(v_table, p_args) THEN
        v_alter := v_alter - 'query' - 'plan';
    END IF;
    RETURN pgtrickle_changes.do_alter_stream_table(p_caller, v_alter);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_create_or_replace_stream_table IS 'The gate''s create_or_replace_stream_table';

CREATE FUNCTION pgtrickle_changes.is_its_query(p_table pgtrickle.pgt_stream_tables, p_args jsonb) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether a query means what the stream table's means: the same text may mean something else under another search path.
DECLARE
    v_view oid := pgtrickle_changes.make_definition_view(p_table.owner_oid, p_table.pgt_schema, p_args);
    v_same boolean := p_table.settings = pgtrickle_changes.session_settings()
                      AND pgtrickle_changes.canonical_text(v_view) = pgtrickle_changes.canonical_text(p_table.definition_view);
BEGIN
    EXECUTE format('DROP VIEW %s', v_view::regclass);
    RETURN coalesce(v_same, false);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_its_query IS 'Whether a query means what the stream table''s means';

CREATE FUNCTION pgtrickle_changes.do_validate_query(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_plan   jsonb := pgtrickle_changes.request_plan(pgtrickle_changes.passing_request(pgtrickle_changes.role_oid(p_caller), 0,
        pgtrickle_changes.split_name('validated_query', p_args ->> 'schema'), p_args));
    v_checks jsonb := jsonb_build_array(jsonb_build_object('check_name', 'resolved_refresh_mode', 'severity', 'OK',
        'result', CASE WHEN (v_plan ->> 'incremental')::boolean THEN 'DIFFERENTIAL' ELSE 'FULL' END));
BEGIN
    IF v_plan -> 'refusal' <> 'null' THEN
        v_checks := v_checks || jsonb_build_object('check_name', v_plan #>> '{refusal,construct}',
            'result', concat_ws(' ', v_plan #>> '{refusal,reason}', 'It stands at: ' || (v_plan #>> '{refusal,near}')), 'severity', 'WARN');
    END IF;
    IF (v_plan #>> '{refusal,only_full}')::boolean THEN
        v_checks := v_checks || jsonb_build_object('check_name', 'refresh_mode', 'severity', 'WARN',
            'result', 'it is refused unless asked for with refresh_mode => ''FULL''');
    END IF;
    v_checks := v_checks || jsonb_build_object('check_name', 'key', 'severity', 'OK', 'result',
        coalesce((SELECT string_agg(k, ', ') FROM jsonb_array_elements_text(nullif(v_plan -> 'key', 'null')) AS k),
                 'none: rows are told apart by their content'));
    RETURN v_checks || coalesce((SELECT jsonb_agg(jsonb_build_object('check_name', 'wanted_index', 'result', i ->> 'why', 'severity', 'WARN'))
                                   FROM jsonb_array_elements(v_plan -> 'indexes') AS i
                                  WHERE NOT (i -> 'columns' ?| ARRAY(SELECT a.attname::text FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
                                                                      WHERE x.indrelid::text = i ->> 'relation' AND x.indisvalid AND x.indpred IS NULL))), '[]');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_validate_query IS 'The gate''s validate_query';
