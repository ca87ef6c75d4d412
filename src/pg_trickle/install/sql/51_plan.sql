-- What a plan needs in the database: states, dependencies, captures, indexes.  A plan is untrusted: its text only runs as the
-- owner; whatever else it says is checked against the catalog.

CREATE FUNCTION pgtrickle_changes.plan_for(p_args jsonb, p_request jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_plan jsonb := nullif(p_args -> 'plan', 'null');
BEGIN
    IF v_plan IS NULL THEN
        v_plan := pgtrickle_changes.request_plan(p_request);
        PERFORM pgtrickle_changes.check_plan(v_plan);
        RETURN v_plan;
    END IF;
    PERFORM pgtrickle_changes.check_plan(v_plan);
    IF v_plan ->> 'request_hash' IS DISTINCT FROM pgtrickle_changes.request_hash(p_request) THEN
        RAISE EXCEPTION 'the plan was made for other facts than hold now'
            USING ERRCODE = 'serialization_failure',
                  DETAIL = 'A source, or something else that the query reads, changed after the query had been compiled.',
                  HINT = 'Try again.';
    END IF;
    RETURN v_plan;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.plan_for IS 'The plan that came with the call, or one from the worker''s compiler';

CREATE FUNCTION pgtrickle_changes.check_plan(p_plan jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The shape of a plan (docs/internals.md section 5); what it names is checked where it is used.
DECLARE
    v_wrong text;
BEGIN
    IF p_plan ->> 'format' IS DISTINCT FROM '1' THEN
        RAISE EXCEPTION 'invalid plan: its format is %, not 1', coalesce(p_plan ->> 'format', 'missing')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Upgrade the extension and the Python package together.';
    END IF;
    SELECT m.path INTO v_wrong
      FROM (VALUES ('incremental', '{boolean}'::text[]), ('refusal', '{object,null}'), ('key', '{array,null}'), ('content_index', '{array,null}'),
                   ('sources', '{array}'), ('states', '{array}'), ('deltas', '{array}'), ('indexes', '{array}'),
                   ('lookup', '{array,null}'), ('programs', '{object}'), ('programs,fill', '{array}'), ('programs,full', '{array}'), ('programs,verify', '{string}'),
                   ('programs,differential', '{object}')) AS m(path, types)
     WHERE coalesce(jsonb_typeof(p_plan #> ('{' || m.path || '}')::text[]), 'missing') <> ALL (m.types)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invalid plan: "%" is missing or malformed', replace(v_wrong, ',', '.') USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_plan IS 'Raises unless a plan has the shape of one';

CREATE FUNCTION pgtrickle_changes.reserved_id(p_args jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id bigint := CASE WHEN jsonb_typeof(p_args #> '{plan,id}') = 'number' THEN (p_args #>> '{plan,id}')::bigint END;
BEGIN
    IF v_id IS NOT NULL THEN
        BEGIN
            IF v_id = currval('pgtrickle.pgt_stream_tables_pgt_id_seq')
               AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id)
               AND NOT EXISTS (SELECT FROM pgtrickle.pgt_refresh_history AS h WHERE h.pgt_id = v_id) THEN
                RETURN v_id;
            END IF;
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            -- This session has reserved none.
            v_id := NULL;
        END;
    END IF;
    RETURN nextval('pgtrickle.pgt_stream_tables_pgt_id_seq');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.reserved_id IS 'The id of a stream table to be: the one that this session reserved for the plan of the call, or the next';

CREATE FUNCTION pgtrickle_changes.refuse(p_refusal jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Raise what the compiler says against maintaining a query incrementally.
BEGIN
    RAISE EXCEPTION '% can''t be maintained incrementally', coalesce(p_refusal ->> 'construct', 'the query')
        USING ERRCODE = '0A000',
              DETAIL = concat_ws(E'\n', coalesce(p_refusal ->> 'reason', ''),
                  'It stands at character ' || (p_refusal ->> 'position') || ' of the query as PostgreSQL prints it: ' || (p_refusal ->> 'near')),
              HINT = coalesce(p_refusal ->> 'hint', 'Use refresh_mode => ''FULL'' or ''AUTO''.');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse IS 'Raises what the compiler says against maintaining a query incrementally';

CREATE FUNCTION pgtrickle_changes.effective_mode(p_mode text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_mode = 'IMMEDIATE' THEN
        PERFORM pgtrickle_changes.refuse_immediate(p_plan);
        RETURN p_mode;
    ELSIF (p_plan ->> 'incremental')::boolean THEN
        RETURN CASE WHEN p_mode = 'FULL' THEN 'FULL' ELSE 'DIFFERENTIAL' END;
    END IF;
    IF p_mode = 'DIFFERENTIAL' OR p_mode <> 'FULL' AND (p_plan #>> '{refusal,only_full}')::boolean THEN
        PERFORM pgtrickle_changes.refuse(p_plan -> 'refusal');
    END IF;
    RETURN 'FULL';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.effective_mode IS 'The refresh mode that a plan allows under the mode that was asked for';

CREATE FUNCTION pgtrickle_changes.downgrade_reason(p_mode text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN p_mode <> 'FULL' AND NOT (p_plan ->> 'incremental')::boolean
                THEN format('%s can''t be maintained incrementally: %s', p_plan #>> '{refusal,construct}', p_plan #>> '{refusal,reason}') END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.downgrade_reason IS 'Why a stream table is recomputed although that wasn''t asked for';

CREATE FUNCTION pgtrickle_changes.install_plan(p_id bigint, p_plan jsonb, p_request jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Store a plan and make what it needs: indexes, states, dependencies, captures.  The stream table itself is there already.
DECLARE
    v_table   pgtrickle.pgt_stream_tables;
    v_sources oid[] := ARRAY(SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id);
    v_source  oid;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    PERFORM pgtrickle_changes.drop_standing(p_id);
    PERFORM pgtrickle_changes.drop_states(p_id);
    PERFORM pgtrickle_changes.store_plan(v_table, p_plan, p_request);
    PERFORM pgtrickle_changes.make_indexes(v_table, p_plan);
    PERFORM pgtrickle_changes.set_dependencies(v_table, p_plan);
    PERFORM pgtrickle_changes.mark_circles(ARRAY[p_id], p_id);
    PERFORM pgtrickle_changes.make_states(v_table, p_plan);
    -- In one order for everybody: capturing takes locks.
    FOR v_source IN
        SELECT u.oid FROM (SELECT unnest(v_sources) AS oid
                           UNION SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id) AS u ORDER BY 1
    LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_table.owner_oid);
    END LOOP;
    PERFORM pgtrickle_changes.captured_meanwhile(k.source_relid)
       FROM pgtrickle.pgt_captures AS k JOIN jsonb_array_elements(p_request -> 'relations') AS r(item) ON (r.item ->> 'oid')::oid = k.source_relid
      WHERE k.owner_oid = v_table.owner_oid AND k.buffer <> r.item ->> 'buffer';
    UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = pgtrickle_changes.fingerprint(p_id) WHERE st.pgt_id = p_id;
    IF (p_plan #>> '{refusal,only_full}')::boolean THEN
        RAISE WARNING 'the query of "%" has a %', v_table.pgt_name, p_plan #>> '{refusal,construct}'
            USING DETAIL = 'Every refresh computes it anew: rows may change although no source did.';
    ELSIF jsonb_typeof(p_plan -> 'undetermined') = 'object' THEN
        RAISE WARNING 'the query of "%" has a %', v_table.pgt_name, p_plan #>> '{undetermined,construct}'
            USING DETAIL = format('Its rows don''t decide its result: %s', p_plan #>> '{undetermined,reason}'),
                  HINT = p_plan #>> '{undetermined,hint}';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.install_plan IS 'Stores a plan and makes what it needs: indexes, states, dependencies, captures';

CREATE FUNCTION pgtrickle_changes.store_plan(p_table pgtrickle.pgt_stream_tables, p_plan jsonb, p_request jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relations oid[];
BEGIN
    v_relations := ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c WHERE c.relid >= 16384 ORDER BY c.relid);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET effective_refresh_mode = pgtrickle_changes.effective_mode(st.refresh_mode, p_plan),
           downgrade_reason = pgtrickle_changes.downgrade_reason(st.refresh_mode, p_plan),
           timed = coalesce((p_plan ->> 'timed')::boolean, false),
           watched_relations = ARRAY[st.definition_view, st.pgt_relid] || v_relations || ARRAY(
               SELECT DISTINCT t.relid FROM unnest(v_relations) AS r(relid)
                CROSS JOIN LATERAL pgtrickle_changes.policy_tables(st.owner_oid, r.relid) AS t WHERE t.relid <> ALL (v_relations) ORDER BY 1),
           column_numbers = pgtrickle_changes.column_numbers(st.pgt_relid, st.definition_view),
           watched_functions = ARRAY(SELECT (f ->> 'oid')::oid FROM jsonb_array_elements(p_request -> 'functions') AS f
                                      WHERE NOT (f ->> 'builtin')::boolean ORDER BY 1)
     WHERE st.pgt_id = p_table.pgt_id;
    INSERT INTO pgtrickle.pgt_plans AS p (pgt_id, request_hash, plan)
    VALUES (p_table.pgt_id, pgtrickle_changes.request_hash(p_request), p_plan)
        ON CONFLICT (pgt_id) DO UPDATE SET request_hash = excluded.request_hash, plan = excluded.plan, compiled_at = now();
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.store_plan IS 'Remember a plan, and what to look at to know that it still holds';

CREATE FUNCTION pgtrickle_changes.set_dependencies(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the stream table reads, and which of it is captured.  A plan may only have captured what the definition reads and the
-- owner could read himself: rows that a policy or a view hides from him must not get into his buffer.
DECLARE
    v_source  record;
    v_columns text[];
    v_wrong   text;
BEGIN
    DELETE FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_table.pgt_id;
    FOR v_source IN
        SELECT (s ->> 'oid')::oid AS oid, s -> 'columns' AS columns, c.relid, c.below_view, c.below_foreign_view, c.columns AS attnums
          FROM jsonb_array_elements(p_plan -> 'sources') AS s
          LEFT JOIN pgtrickle_changes.relation_closure(p_table.definition_view) AS c ON c.relid = (s ->> 'oid')::oid
    LOOP
        IF v_source.relid IS NULL THEN
            RAISE EXCEPTION 'invalid plan: the query doesn''t read relation %', v_source.oid USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF pgtrickle_changes.relation_kind(v_source.oid) NOT IN ('table', 'stream_table', 'partitioned', 'inherited') THEN
            RAISE EXCEPTION 'invalid plan: changes of "%" can''t be captured', v_source.oid::regclass USING ERRCODE = 'invalid_parameter_value';
        END IF;
        v_wrong := pgtrickle_changes.opaque_reason(p_table.owner_oid, v_source.oid, v_source.attnums, v_source.below_view,
                                                   v_source.below_foreign_view);
        IF v_wrong IS NOT NULL THEN
            RAISE EXCEPTION 'invalid plan: changes of "%" may not be captured', v_source.oid::regclass
                USING ERRCODE = 'insufficient_privilege', DETAIL = v_wrong;
        END IF;
        -- A plan that recomputes names every column, to be on the safe side: those that the owner may not read aren't in his query.
        SELECT array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.readable), min(u.name) FILTER (WHERE a.readable IS NOT TRUE)
          INTO v_columns, v_wrong
          FROM jsonb_array_elements_text(v_source.columns) AS u(name)
          LEFT JOIN (SELECT t.attname, t.attnum, has_column_privilege(p_table.owner_oid, t.attrelid, t.attnum, 'SELECT') AS readable
                       FROM pg_attribute AS t WHERE t.attrelid = v_source.oid AND t.attnum > 0 AND NOT t.attisdropped) AS a ON a.attname = u.name;
        IF v_wrong IS NOT NULL AND (p_plan ->> 'incremental')::boolean THEN
            RAISE EXCEPTION 'permission denied for column "%" of "%"', v_wrong, v_source.oid::regclass USING ERRCODE = 'insufficient_privilege';
        END IF;
        INSERT INTO pgtrickle.pgt_dependencies (pgt_id, source_relid, source_kind, columns_used, captured)
        VALUES (p_table.pgt_id, v_source.oid, pgtrickle_changes.relation_kind(v_source.oid), coalesce(v_columns, '{}'),
                p_table.refresh_mode <> 'IMMEDIATE');
    END LOOP;
    INSERT INTO pgtrickle.pgt_dependencies (pgt_id, source_relid, source_kind, columns_used, captured)
    SELECT p_table.pgt_id, c.relid, k.kind,
           ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = c.relid AND a.attnum = ANY (c.columns) ORDER BY a.attnum),
           false
      FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c
     CROSS JOIN LATERAL (SELECT pgtrickle_changes.relation_kind(c.relid) AS kind) AS k
     WHERE k.kind <> 'view' AND c.relid >= 16384
        ON CONFLICT DO NOTHING;
    -- And what policies of its sources read to tell which rows they show.
    INSERT INTO pgtrickle.pgt_dependencies AS d (pgt_id, source_relid, source_kind, columns_used, captured, decides_rows)
    SELECT p_table.pgt_id, t.relid, pgtrickle_changes.relation_kind(t.relid),
           ARRAY(SELECT DISTINCT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = t.relid AND a.attnum = ANY (t.columns) ORDER BY 1), true, true
      FROM pgtrickle_changes.deciding_tables(p_table.pgt_id) AS t
        ON CONFLICT (pgt_id, source_relid) DO UPDATE
       SET decides_rows = true, columns_used = ARRAY(SELECT DISTINCT u.name FROM unnest(d.columns_used || excluded.columns_used) AS u(name) ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.set_dependencies IS 'Notes what a stream table reads, and which of it is captured';

CREATE FUNCTION pgtrickle_changes.deciding_tables(p_id bigint) RETURNS TABLE (relid oid, columns smallint[])
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT t.relid, array_agg(DISTINCT u.attnum) FILTER (WHERE u.attnum IS NOT NULL)
          FROM pgtrickle.pgt_dependencies AS d
          JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
         CROSS JOIN LATERAL pgtrickle_changes.policy_tables(st.owner_oid, d.source_relid) AS t
          LEFT JOIN LATERAL unnest(t.columns) AS u(attnum) ON true
         WHERE d.pgt_id = p_id AND d.captured
         GROUP BY t.relid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.deciding_tables IS 'The tables by which policies tell what a stream table''s owner sees of its captured sources, and their columns';

CREATE FUNCTION pgtrickle_changes.make_states(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_state     jsonb;
    v_delta     jsonb;
    v_hashed    jsonb;
    v_name      text;
    v_columns   text;
    v_checks    text;
    v_column    name;
    v_is_narrow boolean;
BEGIN
    FOR v_state IN SELECT s FROM jsonb_array_elements(p_plan -> 'states') AS s LOOP
        v_name := pgtrickle_changes.generated_name(v_state ->> 'name', 'state', p_table.pgt_id);
        SELECT string_agg(p.definition || CASE WHEN v_state -> 'not_null' ? p.name THEN ' NOT NULL' ELSE '' END, ', ')
          INTO v_columns
          FROM pgtrickle_changes.probe_columns(p_table.owner_oid, v_state ->> 'query',
                   ARRAY(SELECT jsonb_array_elements_text(v_state -> 'columns')), p_table.settings) AS p;
        SELECT string_agg(format(', CHECK (%I >= 0)', c), '')
          INTO v_checks FROM jsonb_array_elements_text(v_state -> 'nonnegative') AS c;
        EXECUTE format('CREATE TABLE %s (%s%s) WITH (fillfactor = 85)', v_name, v_columns, coalesce(v_checks, ''));
        IF jsonb_array_length(nullif(v_state -> 'key', 'null')) > 0 THEN
            EXECUTE format('CREATE UNIQUE INDEX %I ON %s (%s) NULLS NOT DISTINCT', (v_state ->> 'name') || '_key', v_name,
                           pgtrickle_changes.quoted_list(v_state -> 'key'));
        END IF;
        FOR v_hashed IN SELECT h FROM unnest(ARRAY[v_state -> 'content_index', v_state -> 'lookup']) AS h WHERE jsonb_array_length(nullif(h, 'null')) > 0 LOOP
            EXECUTE format('CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(%s), 0))', v_name, pgtrickle_changes.quoted_list(v_hashed));
        END LOOP;
        -- A btree holds equal values together, but none that is wider than a third of its page.
        FOR v_column, v_is_narrow IN
            SELECT a.attname, a.attlen > 0
              FROM jsonb_array_elements_text(coalesce(v_state -> 'sought', '[]')) AS c(name)
              JOIN pg_attribute AS a ON a.attrelid = v_name::regclass AND a.attname = c.name
        LOOP
            IF v_is_narrow THEN
                EXECUTE format('CREATE INDEX ON %s (%I)', v_name, v_column);
            ELSE
                EXECUTE format('CREATE INDEX ON %s USING hash (%I)', v_name, v_column);
            END IF;
        END LOOP;
        PERFORM pgtrickle_changes.hand_over(p_table, v_name, 'A state of stream table');
    END LOOP;
    FOR v_delta IN SELECT d FROM jsonb_array_elements(p_plan -> 'deltas') AS d LOOP
        v_name := pgtrickle_changes.generated_name(v_delta ->> 'name', 'delta', p_table.pgt_id);
        EXECUTE format('CREATE UNLOGGED TABLE %s (LIKE %s, __pgt_w bigint NOT NULL)', v_name,
                       pgtrickle_changes.generated_name(v_delta ->> 'of', 'state', p_table.pgt_id));
        -- What a stage's delta says of a group that goes away breaks no rule of the state.
        FOR v_column IN
            SELECT a.attname FROM pg_attribute AS a
             WHERE a.attrelid = v_name::regclass AND a.attnum > 0 AND a.attnotnull AND a.attname <> '__pgt_w'
        LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', v_name, v_column);
        END LOOP;
        PERFORM pgtrickle_changes.hand_over(p_table, v_name, 'A delta on its way through stream table');
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_states IS 'The tables that a plan''s stages keep, owned by the stream table''s owner';

CREATE FUNCTION pgtrickle_changes.quoted_list(p_names jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(quote_ident(t.name), ', ' ORDER BY t.place) FROM jsonb_array_elements_text(p_names) WITH ORDINALITY AS t(name, place)
$$;
COMMENT ON FUNCTION pgtrickle_changes.quoted_list IS 'Names as a list of identifiers';

CREATE FUNCTION pgtrickle_changes.hand_over(p_table pgtrickle.pgt_stream_tables, p_name text, p_what text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new table becomes the owner's, and nobody else's.  Somebody may publish all tables: then rows without a replica identity could
-- be neither updated nor deleted.
BEGIN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', p_name::regclass);
    EXECUTE format('ALTER TABLE %s OWNER TO %I', p_name::regclass, pg_get_userbyid(p_table.owner_oid));
    PERFORM pgtrickle_changes.revoke_strangers(p_name::regclass);
    EXECUTE format('COMMENT ON TABLE %s IS %s', p_name::regclass, quote_literal(p_what || ' ' || p_table.pgt_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hand_over IS 'Gives a new table to the stream table''s owner, and to nobody else';

CREATE FUNCTION pgtrickle_changes.probe_columns(p_owner oid, p_query text, p_columns text[], p_settings jsonb)
    RETURNS TABLE (name text, definition text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The types of a query's columns, asked of PostgreSQL as the owner: the query is planned, and no row is read.
DECLARE
    v_probe     CONSTANT text := 'SELECT pg_catalog.jsonb_build_array(%s) FROM (SELECT 1 AS one) AS o LEFT JOIN (%s) AS q ON false';
    v_types     jsonb;
    v_collatable text[];
    v_collations jsonb := '[]'::jsonb;
BEGIN
    SELECT pgtrickle_changes.run_as(p_owner, format(v_probe,
               string_agg(format('pg_catalog.pg_typeof(q.%1$I)::pg_catalog.oid::pg_catalog.int8', u.name), ', ' ORDER BY u.place), p_query),
               p_settings => p_settings)
      INTO v_types FROM unnest(p_columns) WITH ORDINALITY AS u(name, place);
    v_collatable := ARRAY(SELECT u.name FROM unnest(p_columns) WITH ORDINALITY AS u(name, place)
                            JOIN pg_type AS t ON t.oid = (v_types ->> (u.place::integer - 1))::oid AND t.typcollation <> 0 ORDER BY u.place);
    IF cardinality(v_collatable) > 0 THEN
        -- In the collation of the query's column too: by it values are equal, or come first.
        SELECT pgtrickle_changes.run_as(p_owner, format(v_probe,
                   string_agg(format('pg_catalog.pg_collation_for(q.%1$I)::pg_catalog.regcollation::pg_catalog.oid::pg_catalog.int8', u.name), ', ' ORDER BY u.place),
                   p_query), p_settings => p_settings)
          INTO v_collations FROM unnest(v_collatable) WITH ORDINALITY AS u(name, place);
    END IF;
    -- With a modifier of -1 a type is printed so that it has none: "character" by itself would mean character(1).
    RETURN QUERY
        SELECT u.name, format('%I %s', u.name, format_type((v_types ->> (u.place::integer - 1))::oid, -1))
                       || coalesce(' COLLATE ' || (v_collations ->> (array_position(v_collatable, u.name) - 1))::oid::regcollation, '')
          FROM unnest(p_columns) WITH ORDINALITY AS u(name, place);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.probe_columns IS 'The names and definitions of a query''s columns, asked of PostgreSQL as the owner';

CREATE FUNCTION pgtrickle_changes.generated_name(p_name text, p_kind text, p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_name IS NULL OR p_name !~ format('^%s_%s_[0-9]{1,4}$', p_kind, p_id) THEN
        RAISE EXCEPTION 'invalid plan: "%" is no name for a % of stream table %', p_name, p_kind, p_id
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN format('pgtrickle_changes.%I', p_name);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.generated_name IS 'The qualified name of a state or delta, if a plan calls it what it may be called';

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
         WHERE p.pgt_id = p_id AND to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) IS NOT NULL
    LOOP
        EXECUTE format('DROP TABLE pgtrickle_changes.%I', v_name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_states IS 'Drops the state and delta tables of a stream table';

-- The indexes that deltas are applied by are the stream table's, made as its owner.  Those of ours are known by their comment: what
-- the owner made himself is left alone, or used.

CREATE FUNCTION pgtrickle_changes.index_remark() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'pg_trickle applies changes by this index'
$$;
COMMENT ON FUNCTION pgtrickle_changes.index_remark IS 'The comment on every index that the engine makes';

CREATE FUNCTION pgtrickle_changes.index_columns(p_index oid) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT array_agg(a.attname::text ORDER BY u.place)
          FROM pg_index AS i
         CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS u(attnum, place)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
         WHERE i.indexrelid = p_index AND i.indisunique AND i.indnullsnotdistinct AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL AND u.place <= i.indnkeyatts);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.index_columns IS 'The columns of an index that keeps rows with the same values in them apart, NULLs included; NULL for any other index';

CREATE FUNCTION pgtrickle_changes.make_indexes(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Have the plan's key or content index, and no index of a former plan's.  The rows of a former query may break the new key: then they
-- go, and the refresh that follows in this transaction brings the new ones.  Nobody sees the table without rows.
DECLARE
    v_key     text[] := ARRAY(SELECT jsonb_array_elements_text(nullif(p_plan -> 'key', 'null')));
    v_hashed  jsonb;
    v_name    text := format('%I.%I', p_table.pgt_schema, p_table.pgt_name);
    v_index   text;
BEGIN
    FOR v_index IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_index AS i
          JOIN pg_class AS c ON c.oid = i.indexrelid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE i.indrelid = p_table.pgt_relid AND obj_description(i.indexrelid, 'pg_class') = pgtrickle_changes.index_remark()
           AND pgtrickle_changes.index_columns(i.indexrelid) IS DISTINCT FROM v_key
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DROP INDEX ' || v_index);
    END LOOP;
    IF cardinality(v_key) > 0 AND NOT EXISTS (
        SELECT FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid AND pgtrickle_changes.index_columns(i.indexrelid) = v_key) THEN
        BEGIN
            PERFORM pgtrickle_changes.make_index(p_table, format('CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT', v_name, (
                SELECT string_agg(quote_ident(c), ', ' ORDER BY place) FROM unnest(v_key) WITH ORDINALITY AS u(c, place))));
        EXCEPTION WHEN unique_violation THEN
            PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DELETE FROM ' || v_name);
            PERFORM pgtrickle_changes.make_indexes(p_table, p_plan);
            RETURN;
        END;
        -- Rows that are found by a key are updated: where their page has room, no index is touched.
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('ALTER TABLE %s SET (fillfactor = 85)', v_name));
    END IF;
    FOR v_hashed IN SELECT h FROM unnest(ARRAY[p_plan -> 'content_index', p_plan -> 'lookup']) AS h WHERE jsonb_array_length(nullif(h, 'null')) > 0 LOOP
        PERFORM pgtrickle_changes.make_index(p_table, format('CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(%s), 0))', v_name,
                                                             pgtrickle_changes.quoted_list(v_hashed)));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_indexes IS 'Gives the stream table the indexes of its plan, and takes those of a former one';

CREATE FUNCTION pgtrickle_changes.make_index(p_table pgtrickle.pgt_stream_tables, p_command text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- PostgreSQL finds the name, and the index gets our comment.
DECLARE
    v_former oid[] := ARRAY(SELECT i.indexrelid FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid);
    v_index  regclass;
BEGIN
    PERFORM pgtrickle_changes.command_as(p_table.owner_oid, p_command);
    SELECT i.indexrelid INTO STRICT v_index FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid AND i.indexrelid <> ALL (v_former);
    PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('COMMENT ON INDEX %s IS %L', v_index, pgtrickle_changes.index_remark()));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_index IS 'Makes an index as the stream table''s owner';

CREATE FUNCTION pgtrickle_changes.recompile(p_id bigint, p_plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new plan, because the facts changed under the old one; unless it does the same, the next refresh recomputes.
DECLARE
    v_table   pgtrickle.pgt_stream_tables := pgtrickle_changes.follow_name(pgtrickle_changes.lock_stream_table(p_id));
    v_former  jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id);
    v_request jsonb;
    v_plan    jsonb;
    v_forced  boolean;
BEGIN
    PERFORM pgtrickle_changes.check_readable(v_table.owner_oid, v_table.definition_view);
    v_request := pgtrickle_changes.compile_request(v_table.owner_oid, v_table.definition_view, p_id, v_table.pgt_schema, v_table.pgt_name);
    v_plan := pgtrickle_changes.plan_for(jsonb_build_object('plan', p_plan), v_request);
    PERFORM pgtrickle_changes.check_circle(v_table, v_table.definition_view, v_plan, v_request);
    -- A recomputing plan doesn't tell what the views in its query mean; an incremental one does.  What it doesn't tell is behind the slash.
    IF (v_plan ->> 'incremental')::boolean
       AND v_plan - '{request_hash,explain,indexes}'::text[] = v_former - '{request_hash,explain,indexes}'::text[]
       AND split_part(v_table.fingerprint, '/', 2) = split_part(pgtrickle_changes.fingerprint(p_id), '/', 2)
       -- Nor does a plan tell what policies show.
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(v_request -> 'relations') AS r WHERE r ->> 'policy' IS NOT NULL) THEN
        PERFORM pgtrickle_changes.store_plan(v_table, v_plan, v_request);
        UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = pgtrickle_changes.fingerprint(p_id) WHERE st.pgt_id = p_id;
        RETURN;
    END IF;
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    PERFORM pgtrickle_changes.install_plan(p_id, v_plan, v_request);
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = 'definitions that the query rests on were changed' WHERE st.pgt_id = p_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.recompile IS 'Gives a stream table a new plan because the facts changed under the old one';
