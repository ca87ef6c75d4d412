-- What a plan needs in the database: states, dependencies, captures, indexes.  A plan is untrusted: its text only runs as the
-- owner; whatever else it says is checked against the catalog.

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
