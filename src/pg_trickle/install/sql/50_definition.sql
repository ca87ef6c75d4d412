-- Defining stream tables: create, alter, drop, and what a plan needs in the database.

CREATE FUNCTION pgtrickle_changes.schedule_seconds(p_schedule text) RETURNS float8
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The length of a schedule that is a duration; NULL for calculated, cron, and no schedule at all.
DECLARE
    v_part    text[];
    v_seconds float8 := 0;
    v_fields  integer;
    v_least   float8 := coalesce(pgtrickle_changes.setting('min_schedule_seconds')::float8, 1);
BEGIN
    IF p_schedule IS NULL OR lower(p_schedule) = 'calculated' THEN
        RETURN NULL;
    END IF;
    IF p_schedule ~ '^\s*\d+(\.\d+)?\s*$' THEN
        v_seconds := p_schedule::float8;
    ELSIF p_schedule ~ '^\s*(\d+[smhdw]\s*)+$' THEN
        FOR v_part IN SELECT m FROM regexp_matches(p_schedule, '(\d+)([smhdw])', 'g') AS m LOOP
            v_seconds := v_seconds + v_part[1]::float8 * CASE v_part[2]
                WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END;
        END LOOP;
    ELSE
        v_fields := cardinality(regexp_split_to_array(trim(p_schedule), '\s+'));
        IF p_schedule ~ '^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$'
           OR (v_fields IN (5, 6) AND p_schedule ~* '^[\d\s*/,#?a-z-]+$') THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'invalid schedule "%"', p_schedule
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is no duration, no cron expression and not "calculated".',
                  HINT = 'Write ''30s'', ''1h30m'', ''2w'', a number of seconds, ''*/5 * * * *'', ''@hourly'' or ''calculated''.';
    END IF;
    IF v_seconds < v_least THEN
        RAISE EXCEPTION 'schedule "%" is too short', p_schedule
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The least is %s s.', v_least),
                  HINT = 'Use ''calculated'' to be refreshed whenever sources change.';
    END IF;
    RETURN v_seconds;
END
$$;

CREATE FUNCTION pgtrickle_changes.checked_choice(p_argument text, p_value text, p_choices text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_value IS NULL OR p_value = ANY (p_choices) THEN
        RETURN p_value;
    END IF;
    RAISE EXCEPTION 'invalid %: "%"', p_argument, p_value
        USING ERRCODE = 'invalid_parameter_value', HINT = format('Choose one of: %s.', array_to_string(p_choices, ', '));
END
$$;

CREATE FUNCTION pgtrickle_changes.role_oid(p_role name) RETURNS oid
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.oid FROM pg_roles AS r WHERE r.rolname = p_role
$$;

CREATE FUNCTION pgtrickle_changes.split_name(p_name text, p_schema text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- {schema, name} of a name as SQL writes it; without a schema the caller's first one.
DECLARE
    v_parts text[];
BEGIN
    BEGIN
        v_parts := parse_ident(p_name);
    EXCEPTION WHEN invalid_parameter_value THEN
        RAISE EXCEPTION 'invalid stream table name: %', coalesce(quote_literal(p_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it as in SQL: name, schema.name or "Schema"."Name".';
    END;
    IF v_parts IS NULL OR cardinality(v_parts) > 2 THEN
        RAISE EXCEPTION 'invalid stream table name: %', coalesce(quote_literal(p_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it as in SQL: name, schema.name or "Schema"."Name".';
    END IF;
    IF cardinality(v_parts) = 1 THEN
        IF p_schema IS NULL THEN
            RAISE EXCEPTION 'no schema has been selected to create in'
                USING ERRCODE = 'invalid_schema_name', HINT = 'Name the schema, or set search_path.';
        END IF;
        v_parts := p_schema || v_parts;
    END IF;
    -- As PostgreSQL does with identifiers that are too long.
    RETURN ARRAY[v_parts[1]::name::text, v_parts[2]::name::text];
END
$$;

CREATE FUNCTION pgtrickle_changes.find_stream_table(p_name text, p_path text) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The stream table that a name means along a search path; a null row if none.
DECLARE
    v_parts text[];
    v_table pgtrickle.pgt_stream_tables;
BEGIN
    v_parts := pgtrickle_changes.split_name(p_name, '');
    SELECT st.* INTO v_table
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pg_class AS c ON c.oid = st.pgt_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = v_parts[2]
       AND CASE WHEN v_parts[1] <> '' THEN n.nspname = v_parts[1] ELSE n.nspname = ANY (p_path::text[]) END
     ORDER BY array_position(p_path::text[], n.nspname::text)
     LIMIT 1;
    RETURN v_table;
END
$$;

CREATE FUNCTION pgtrickle_changes.owned_stream_table(p_caller name, p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The stream table that a call names, if the caller owns it; an error otherwise.
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.find_stream_table(p_args ->> 'name', p_args ->> 'path');
    v_owner name;
BEGIN
    IF v_table.pgt_id IS NULL THEN
        RAISE EXCEPTION 'stream table "%" does not exist', p_args ->> 'name'
            USING ERRCODE = 'undefined_table', HINT = 'List the stream tables with SELECT * FROM pgtrickle.pgt_status().';
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
    RETURN v_table;
END
$$;

CREATE FUNCTION pgtrickle_changes.check_owner(p_caller name, p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role(p_caller, p_table.owner_oid, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of stream table "%"', p_table.pgt_name
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It belongs to role "%s".', pg_get_userbyid(p_table.owner_oid));
    END IF;
END
$$;

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

CREATE FUNCTION pgtrickle_changes.refuse(p_refusal jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Raise what the compiler says against maintaining a query incrementally.
BEGIN
    RAISE EXCEPTION '% can''t be maintained incrementally', p_refusal ->> 'construct'
        USING ERRCODE = '0A000', DETAIL = coalesce(p_refusal ->> 'reason', ''),
              HINT = coalesce(p_refusal ->> 'hint', 'Use refresh_mode => ''FULL'' or ''AUTO''.');
END
$$;

CREATE FUNCTION pgtrickle_changes.effective_mode(p_mode text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_mode = 'IMMEDIATE' THEN
        RAISE EXCEPTION 'refresh mode IMMEDIATE is not available yet'
            USING ERRCODE = 'feature_not_supported', HINT = 'Use AUTO: with schedule ''calculated'' changes show within milliseconds of their commit.';
    END IF;
    IF (p_plan ->> 'incremental')::boolean THEN
        RETURN CASE WHEN p_mode = 'FULL' THEN 'FULL' ELSE 'DIFFERENTIAL' END;
    END IF;
    IF p_mode = 'DIFFERENTIAL' THEN
        PERFORM pgtrickle_changes.refuse(p_plan -> 'refusal');
    END IF;
    RETURN 'FULL';
END
$$;

CREATE FUNCTION pgtrickle_changes.downgrade_reason(p_mode text, p_plan jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_mode <> 'FULL' AND NOT (p_plan ->> 'incremental')::boolean
                THEN format('%s can''t be maintained incrementally: %s', p_plan #>> '{refusal,construct}', p_plan #>> '{refusal,reason}') END
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

CREATE FUNCTION pgtrickle_changes.probe_columns(p_owner oid, p_query text, p_columns text[], p_settings jsonb)
    RETURNS TABLE (name text, definition text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The types of a query's columns, asked of PostgreSQL as the owner: the query is planned, and no row is read.
DECLARE
    v_found jsonb;
BEGIN
    SELECT pgtrickle_changes.run_as(p_owner,
               format('SELECT pg_catalog.jsonb_build_array(%s) FROM (SELECT 1 AS one) AS o LEFT JOIN (%s) AS q ON false',
                      string_agg(format('pg_catalog.jsonb_build_array(pg_catalog.pg_typeof(q.%1$I)::pg_catalog.oid::pg_catalog.int8)', c), ', '),
                      p_query),
               p_settings => p_settings)
      INTO v_found FROM unnest(p_columns) AS c;
    RETURN QUERY
        SELECT u.name, format('%I %s', u.name, format_type((v_found -> (u.place::integer - 1) ->> 0)::oid, NULL))
          FROM unnest(p_columns) WITH ORDINALITY AS u(name, place);
END
$$;

CREATE FUNCTION pgtrickle_changes.make_states(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The tables that a plan's stages keep, owned by the stream table's owner.
DECLARE
    v_state   jsonb;
    v_delta   jsonb;
    v_columns text;
    v_checks  text;
    v_owner   name := pg_get_userbyid(p_table.owner_oid);
BEGIN
    FOR v_state IN SELECT s FROM jsonb_array_elements(p_plan -> 'states') AS s LOOP
        PERFORM pgtrickle_changes.check_generated_name(v_state ->> 'name', 'state', p_table.pgt_id);
        SELECT string_agg(p.definition || CASE WHEN v_state -> 'not_null' ? p.name THEN ' NOT NULL' ELSE '' END, ', ')
          INTO v_columns
          FROM pgtrickle_changes.probe_columns(p_table.owner_oid, v_state ->> 'query',
                   ARRAY(SELECT jsonb_array_elements_text(v_state -> 'columns')), p_table.settings) AS p;
        SELECT string_agg(format(', CHECK (%I >= 0)', c), '')
          INTO v_checks FROM jsonb_array_elements_text(v_state -> 'nonnegative') AS c;
        EXECUTE format('CREATE TABLE pgtrickle_changes.%I (%s%s) WITH (fillfactor = 85)', v_state ->> 'name', v_columns, coalesce(v_checks, ''));
        EXECUTE format('CREATE UNIQUE INDEX %I ON pgtrickle_changes.%I (%s) NULLS NOT DISTINCT',
                       (v_state ->> 'name') || '_key', v_state ->> 'name',
                       (SELECT string_agg(quote_ident(k), ', ' ORDER BY place)
                          FROM jsonb_array_elements_text(v_state -> 'key') WITH ORDINALITY AS t(k, place)));
        EXECUTE format('ALTER TABLE pgtrickle_changes.%I OWNER TO %I', v_state ->> 'name', v_owner);
        EXECUTE format('COMMENT ON TABLE pgtrickle_changes.%I IS %L', v_state ->> 'name', 'A state of stream table ' || p_table.pgt_id);
    END LOOP;
    FOR v_delta IN SELECT d FROM jsonb_array_elements(p_plan -> 'deltas') AS d LOOP
        PERFORM pgtrickle_changes.check_generated_name(v_delta ->> 'name', 'delta', p_table.pgt_id);
        PERFORM pgtrickle_changes.check_generated_name(v_delta ->> 'of', 'state', p_table.pgt_id);
        EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.%I (LIKE pgtrickle_changes.%I, __pgt_w bigint NOT NULL)',
                       v_delta ->> 'name', v_delta ->> 'of');
        -- What a stage's delta says of a group that goes away breaks no rule of the state.
        EXECUTE (SELECT coalesce(format('ALTER TABLE pgtrickle_changes.%I %s', v_delta ->> 'name',
                                        string_agg(format('ALTER COLUMN %I DROP NOT NULL', a.attname), ', ')), 'SELECT')
                   FROM pg_attribute AS a
                  WHERE a.attrelid = format('pgtrickle_changes.%I', v_delta ->> 'name')::regclass
                    AND a.attnum > 0 AND a.attnotnull AND a.attname <> '__pgt_w'
                 HAVING count(*) > 0);
        EXECUTE format('ALTER TABLE pgtrickle_changes.%I OWNER TO %I', v_delta ->> 'name', v_owner);
        EXECUTE format('COMMENT ON TABLE pgtrickle_changes.%I IS %L', v_delta ->> 'name', 'A delta on its way through stream table ' || p_table.pgt_id);
    END LOOP;
END
$$;

CREATE FUNCTION pgtrickle_changes.check_generated_name(p_name text, p_kind text, p_id bigint) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_name IS NULL OR p_name !~ format('^%s_%s_[0-9]+$', p_kind, p_id) THEN
        RAISE EXCEPTION 'invalid plan: "%" is no name for a % of stream table %', p_name, p_kind, p_id
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

CREATE FUNCTION pgtrickle_changes.drop_states(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN
        SELECT t.item ->> 'name' FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
         WHERE p.pgt_id = p_id
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.%I', v_name);
    END LOOP;
END
$$;

CREATE FUNCTION pgtrickle_changes.set_dependencies(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the stream table reads, and which of it is captured.  A plan may only name what the definition reads,
-- and columns that the owner may read.
DECLARE
    v_source jsonb;
    v_oid    oid;
    v_wrong  text;
BEGIN
    DELETE FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_table.pgt_id;
    FOR v_source IN SELECT s FROM jsonb_array_elements(p_plan -> 'sources') AS s LOOP
        v_oid := (v_source ->> 'oid')::oid;
        IF NOT EXISTS (SELECT FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c WHERE c.relid = v_oid) THEN
            RAISE EXCEPTION 'invalid plan: the query doesn''t read relation %', v_oid USING ERRCODE = 'invalid_parameter_value';
        END IF;
        SELECT u.name INTO v_wrong
          FROM jsonb_array_elements_text(v_source -> 'columns') AS u(name)
          LEFT JOIN pg_attribute AS a ON a.attrelid = v_oid AND a.attname = u.name AND a.attnum > 0 AND NOT a.attisdropped
         WHERE a.attnum IS NULL OR NOT has_column_privilege(p_table.owner_oid, v_oid, a.attnum, 'SELECT')
         LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'permission denied for column "%" of "%"', v_wrong, v_oid::regclass
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        INSERT INTO pgtrickle.pgt_dependencies (pgt_id, source_relid, source_kind, columns_used, captured)
        VALUES (p_table.pgt_id, v_oid, pgtrickle_changes.relation_kind(v_oid),
                ARRAY(SELECT jsonb_array_elements_text(v_source -> 'columns')), true);
    END LOOP;
    INSERT INTO pgtrickle.pgt_dependencies (pgt_id, source_relid, source_kind, columns_used, captured)
    SELECT p_table.pgt_id, c.relid, k.kind,
           ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = c.relid AND a.attnum = ANY (c.columns) ORDER BY a.attnum),
           false
      FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c
     CROSS JOIN LATERAL (SELECT pgtrickle_changes.relation_kind(c.relid) AS kind) AS k
     WHERE k.kind <> 'view' AND c.relid >= 16384
        ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION pgtrickle_changes.install_plan(p_id bigint, p_plan jsonb, p_request jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Store a plan and make what it needs: states, dependencies, captures.  The stream table itself and its index are there already.
DECLARE
    v_table   pgtrickle.pgt_stream_tables;
    v_sources oid[];
    v_source  oid;
BEGIN
    IF p_plan ->> 'format' IS DISTINCT FROM '1' THEN
        RAISE EXCEPTION 'invalid plan: its format is %, not 1', coalesce(p_plan ->> 'format', 'missing')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Upgrade the extension and the Python package together.';
    END IF;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET effective_refresh_mode = pgtrickle_changes.effective_mode(st.refresh_mode, p_plan),
           downgrade_reason = pgtrickle_changes.downgrade_reason(st.refresh_mode, p_plan),
           watched_relations = ARRAY[st.definition_view, st.pgt_relid]
               || ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(st.definition_view) AS c
                         WHERE c.relid >= 16384 ORDER BY c.relid),
           watched_functions = ARRAY(SELECT f.oid FROM unnest(pgtrickle_changes.function_oids(st.definition_view)) AS f(oid)
                                      WHERE f.oid >= 16384 ORDER BY f.oid)
     WHERE st.pgt_id = p_id
    RETURNING st.* INTO v_table;
    v_sources := ARRAY(SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id);
    PERFORM pgtrickle_changes.drop_states(p_id);
    INSERT INTO pgtrickle.pgt_plans AS p (pgt_id, request_hash, plan)
    VALUES (p_id, pgtrickle_changes.request_hash(p_request), p_plan)
        ON CONFLICT (pgt_id) DO UPDATE SET request_hash = excluded.request_hash, plan = excluded.plan, compiled_at = now();
    PERFORM pgtrickle_changes.set_dependencies(v_table, p_plan);
    PERFORM pgtrickle_changes.make_states(v_table, p_plan);
    -- In one order for everybody: capturing takes locks.
    FOR v_source IN
        SELECT u.oid FROM (SELECT unnest(v_sources) AS oid
                           UNION SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id) AS u ORDER BY 1
    LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_table.owner_oid);
    END LOOP;
    UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = pgtrickle_changes.fingerprint(p_id) WHERE st.pgt_id = p_id;
END
$$;

CREATE FUNCTION pgtrickle_changes.make_index(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The indexes that deltas are applied by, made as the owner unless the table has them.
DECLARE
    v_key     text[] := ARRAY(SELECT jsonb_array_elements_text(nullif(p_plan -> 'key', 'null')));
    v_content text[] := ARRAY(SELECT jsonb_array_elements_text(nullif(p_plan -> 'content_index', 'null')));
    v_columns text;
BEGIN
    IF cardinality(v_key) > 0 AND NOT EXISTS (
        SELECT FROM pg_index AS i
         WHERE i.indrelid = p_table.pgt_relid AND i.indisunique AND i.indnullsnotdistinct AND i.indpred IS NULL AND i.indexprs IS NULL
           AND i.indimmediate AND i.indnkeyatts = cardinality(v_key)
           AND v_key = ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS u(attnum, place)
                               JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                              WHERE u.place <= i.indnkeyatts ORDER BY u.place)) THEN
        SELECT string_agg(quote_ident(c), ', ' ORDER BY place) INTO v_columns FROM unnest(v_key) WITH ORDINALITY AS u(c, place);
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('CREATE UNIQUE INDEX ON %I.%I (%s) NULLS NOT DISTINCT',
            p_table.pgt_schema, p_table.pgt_name, v_columns));
    END IF;
    IF cardinality(v_content) > 0 THEN
        SELECT string_agg(quote_ident(c), ', ' ORDER BY place) INTO v_columns FROM unnest(v_content) WITH ORDINALITY AS u(c, place);
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('CREATE INDEX ON %I.%I (pg_catalog.hash_record_extended(ROW(%s), 0))',
            p_table.pgt_schema, p_table.pgt_name, v_columns));
    END IF;
END
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

CREATE FUNCTION pgtrickle_changes.plan_for(p_args jsonb, p_request jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The plan that came with the call, or one from the worker's compiler.
BEGIN
    IF p_args -> 'plan' IS NOT NULL AND p_args -> 'plan' <> 'null' THEN
        IF p_args #>> '{plan,request_hash}' IS DISTINCT FROM pgtrickle_changes.request_hash(p_request) THEN
            RAISE EXCEPTION 'the plan was made for other facts than hold now'
                USING ERRCODE = 'serialization_failure',
                      DETAIL = 'A source, or something else that the query reads, changed after the query had been compiled.',
                      HINT = 'Try again.';
        END IF;
        RETURN p_args -> 'plan';
    END IF;
    RETURN pgtrickle_changes.request_plan(p_request);
END
$$;

CREATE FUNCTION pgtrickle_changes.reserved_id(p_args jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The id of a stream table to be: the one that the plan of the call was compiled for, or the next.
DECLARE
    v_id bigint := (p_args #>> '{plan,id}')::bigint;
BEGIN
    IF v_id IS NULL OR v_id > (SELECT coalesce(s.last_value, 0) FROM pg_sequences AS s
                                WHERE s.schemaname = 'pgtrickle' AND s.sequencename = 'pgt_stream_tables_pgt_id_seq')
       OR EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id) THEN
        RETURN nextval('pgtrickle.pgt_stream_tables_pgt_id_seq');
    END IF;
    RETURN v_id;
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

CREATE FUNCTION pgtrickle_changes.checked_cdc_mode(p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mode text := pgtrickle_changes.checked_choice('cdc_mode', lower(coalesce(p_mode, pgtrickle_changes.setting('cdc_mode'))), '{auto,trigger,wal}');
BEGIN
    IF v_mode = 'wal' THEN
        RAISE EXCEPTION 'cdc_mode "wal" is not available yet'
            USING ERRCODE = 'feature_not_supported', HINT = 'Use ''trigger'' or ''auto''.';
    END IF;
    RETURN v_mode;
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

CREATE FUNCTION pgtrickle_changes.drop_content_index(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The index that a former plan looked rows up by content with.
DECLARE
    v_index text;
BEGIN
    FOR v_index IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_index AS i
          JOIN pg_class AS c ON c.oid = i.indexrelid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE i.indrelid = p_table.pgt_relid AND i.indexprs IS NOT NULL
           AND pg_get_indexdef(i.indexrelid) LIKE '%hash\_record\_extended(ROW(%'
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DROP INDEX ' || v_index);
    END LOOP;
END
$$;

CREATE FUNCTION pgtrickle_changes.empty_if_keyed_anew(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The rows of a former query may break the new query's key, or lie under unique indexes that the new rows break: drop the former key
-- indexes, and the rows if need be.  All in one transaction: nobody sees the table without rows.
DECLARE
    v_index text;
BEGIN
    FOR v_index IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_index AS i
          JOIN pg_class AS c ON c.oid = i.indexrelid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE i.indrelid = p_table.pgt_relid AND i.indisunique AND i.indnullsnotdistinct AND i.indpred IS NULL AND i.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)
           AND to_jsonb(ARRAY(SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY AS u(attnum, place)
                                JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                               WHERE u.place <= i.indnkeyatts ORDER BY u.place)) IS DISTINCT FROM p_plan -> 'key'
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DROP INDEX ' || v_index);
    END LOOP;
    IF p_plan -> 'key' <> 'null' THEN
        BEGIN
            PERFORM pgtrickle_changes.make_index(p_table, p_plan - 'content_index' || '{"content_index": null}');
        EXCEPTION WHEN unique_violation THEN
            PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('DELETE FROM %I.%I', p_table.pgt_schema, p_table.pgt_name));
        END;
    END IF;
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

CREATE FUNCTION pgtrickle_changes.recompile(p_id bigint, p_plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new plan, because the facts changed under the old one; the next refresh recomputes.
DECLARE
    v_table   pgtrickle.pgt_stream_tables := pgtrickle_changes.follow_name(pgtrickle_changes.lock_stream_table(p_id));
    v_request jsonb;
    v_plan    jsonb;
BEGIN
    PERFORM pgtrickle_changes.ensure_runner(v_table.owner_oid);
    PERFORM pgtrickle_changes.check_readable(v_table.owner_oid, v_table.definition_view);
    v_request := pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, p_id, v_table.pgt_schema, v_table.pgt_name);
    v_plan := coalesce(p_plan, pgtrickle_changes.request_plan(v_request));
    PERFORM pgtrickle_changes.drop_content_index(v_table);
    PERFORM pgtrickle_changes.empty_if_keyed_anew(v_table, v_plan);
    PERFORM pgtrickle_changes.make_index(v_table, v_plan);
    PERFORM pgtrickle_changes.install_plan(p_id, v_plan, v_request);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = 'definitions that the query rests on were changed' WHERE st.pgt_id = p_id;
END
$$;

CREATE FUNCTION pgtrickle_changes.dependants(p_id bigint) RETURNS bigint[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The stream tables that read this one, directly or not, the farthest first.
    WITH RECURSIVE down(pgt_id, depth) AS (
        SELECT p_id, 0
        UNION
        SELECT d.pgt_id, down.depth + 1
          FROM down
          JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_id = down.pgt_id
          JOIN pgtrickle.pgt_dependencies AS d ON d.source_relid = st.pgt_relid
         WHERE down.depth < 1000
    )
    SELECT coalesce(array_agg(x.pgt_id ORDER BY x.depth DESC), '{}')
      FROM (SELECT down.pgt_id, max(down.depth) AS depth FROM down WHERE down.pgt_id <> p_id GROUP BY down.pgt_id) AS x
$$;

CREATE FUNCTION pgtrickle_changes.do_drop_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_down  bigint[] := pgtrickle_changes.dependants(v_table.pgt_id);
    v_id    bigint;
BEGIN
    IF cardinality(v_down) > 0 AND NOT coalesce((p_args ->> 'cascade')::boolean, false) THEN
        RAISE EXCEPTION 'cannot drop stream table "%" because other stream tables depend on it', v_table.pgt_name
            USING ERRCODE = 'dependent_objects_still_exist',
                  DETAIL = (SELECT string_agg(format('stream table %I.%I reads it', st.pgt_schema, st.pgt_name), E'\n')
                              FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (v_down)),
                  HINT = 'Drop them first, or pass "cascade" => true.';
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, st) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (v_down);
    FOREACH v_id IN ARRAY v_down || v_table.pgt_id LOOP
        PERFORM pgtrickle_changes.drop_one(v_id);
    END LOOP;
    RETURN NULL;
END
$$;

CREATE FUNCTION pgtrickle_changes.drop_one(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.lock_stream_table(p_id);
    v_name  text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_name
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = v_table.pgt_relid;
    IF v_name IS NOT NULL THEN
        -- The owner's own DROP: what else depends on the table stops it, as it would stop him.
        PERFORM pgtrickle_changes.command_as(v_table.owner_oid, 'DROP TABLE ' || v_name);
    END IF;
    PERFORM pgtrickle_changes.forget_stream_table(p_id);
END
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
