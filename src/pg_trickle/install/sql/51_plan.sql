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
        RAISE EXCEPTION 'invalid plan: "%" is missing or malformed', replace(v_wrong, ',', '.')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
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

CREATE FUNCTION pgtrickle_changes.is_run_by_each_refresh(p_plan jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What changes by itself, and is what it is to whoever looks: the value of a setting, what a STABLE function makes of other tables.
BEGIN
    RETURN coalesce((p_plan #>> '{refusal,by_itself}')::boolean, false) AND jsonb_typeof(p_plan -> 'undetermined') IS DISTINCT FROM 'object';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_run_by_each_refresh IS 'Whether even DIFFERENTIAL mode runs a query anew at each refresh, and compares';

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
    IF p_mode = 'DIFFERENTIAL' AND NOT pgtrickle_changes.is_run_by_each_refresh(p_plan) OR p_mode <> 'FULL' AND (p_plan #>> '{refusal,only_full}')::boolean THEN
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
    ELSIF v_table.refresh_mode = 'DIFFERENTIAL' AND pgtrickle_changes.is_run_by_each_refresh(p_plan) THEN
        RAISE NOTICE 'each refresh of "%" runs its query and compares', v_table.pgt_name
            USING DETAIL = pgtrickle_changes.downgrade_reason(v_table.refresh_mode, p_plan);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.install_plan IS 'Stores a plan and makes what it needs: indexes, states, dependencies, captures';

CREATE FUNCTION pgtrickle_changes.store_plan(p_table pgtrickle.pgt_stream_tables, p_plan jsonb, p_request jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relations oid[] := ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(p_table.definition_view) AS c WHERE c.relid >= 16384 ORDER BY c.relid);
    v_functions oid[] := ARRAY(SELECT (f ->> 'oid')::oid FROM jsonb_array_elements(p_request -> 'functions') AS f ORDER BY 1);
    v_own       oid[] := ARRAY(SELECT (f ->> 'oid')::oid FROM jsonb_array_elements(p_request -> 'functions') AS f WHERE NOT (f ->> 'builtin')::boolean ORDER BY 1);
    v_called    oid[] := pgtrickle_changes.called_functions(v_own);
    v_types     oid[] := ARRAY(SELECT d.refobjid FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                                WHERE r.ev_class = ANY (p_table.definition_view || v_relations) AND d.refclassid = 'pg_type'::regclass AND d.refobjid >= 16384
                               -- What a function gives may be shown as text, and is named nowhere.
                               UNION SELECT p.prorettype FROM pg_proc AS p WHERE p.oid = ANY (v_functions) AND p.prorettype >= 16384
                               -- What it names, if PostgreSQL has read its body.
                               UNION SELECT d.refobjid FROM pg_depend AS d
                                      WHERE d.classid = 'pg_proc'::regclass AND d.objid = ANY (v_called) AND d.refclassid = 'pg_type'::regclass AND d.refobjid >= 16384
                                ORDER BY 1);
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET effective_refresh_mode = pgtrickle_changes.effective_mode(st.refresh_mode, p_plan),
           downgrade_reason = pgtrickle_changes.downgrade_reason(st.refresh_mode, p_plan),
           timed = coalesce((p_plan ->> 'timed')::boolean, false), basis_seen = NULL, counting_stands = false,
           watched_relations = ARRAY[st.definition_view, st.pgt_relid] || v_relations || ARRAY(
               SELECT DISTINCT t.relid FROM unnest(v_relations) AS r(relid)
                CROSS JOIN LATERAL pgtrickle_changes.policy_tables(st.owner_oid, r.relid) AS t WHERE t.relid <> ALL (v_relations) ORDER BY 1),
           column_numbers = pgtrickle_changes.column_numbers(st.pgt_relid, st.definition_view),
           watched_functions = v_own, watched_types = v_types,
           watched_others = pgtrickle_changes.others_of(p_table.definition_view, v_relations, v_types, v_functions || v_called)
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
            RAISE EXCEPTION 'invalid plan: the query doesn''t read relation %', v_source.oid
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
        END IF;
        IF pgtrickle_changes.relation_kind(v_source.oid) NOT IN ('table', 'stream_table', 'partitioned', 'inherited') THEN
            RAISE EXCEPTION 'invalid plan: changes of "%" can''t be captured', v_source.oid::regclass
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
        END IF;
        v_wrong := pgtrickle_changes.opaque_reason(p_table.owner_oid, v_source.oid, v_source.attnums, v_source.below_view,
                                                   v_source.below_foreign_view);
        IF v_wrong IS NOT NULL THEN
            RAISE EXCEPTION 'invalid plan: changes of "%" may not be captured', v_source.oid::regclass
                USING ERRCODE = 'insufficient_privilege', DETAIL = v_wrong,
                      HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
        END IF;
        -- A plan that recomputes names every column, to be on the safe side: those that the owner may not read aren't in his query.
        SELECT array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.readable), min(u.name) FILTER (WHERE a.readable IS NOT TRUE)
          INTO v_columns, v_wrong
          FROM jsonb_array_elements_text(v_source.columns) AS u(name)
          LEFT JOIN (SELECT t.attname, t.attnum, has_column_privilege(p_table.owner_oid, t.attrelid, t.attnum, 'SELECT') AS readable
                       FROM pg_attribute AS t WHERE t.attrelid = v_source.oid AND t.attnum > 0 AND NOT t.attisdropped) AS a ON a.attname = u.name;
        IF v_wrong IS NOT NULL AND (p_plan ->> 'incremental')::boolean THEN
            RAISE EXCEPTION 'permission denied for column "%" of "%"', v_wrong, v_source.oid::regclass
                USING ERRCODE = 'insufficient_privilege',
                      HINT = format('GRANT SELECT (%I) ON %s TO %I;', v_wrong, v_source.oid::regclass, pg_get_userbyid(p_table.owner_oid));
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
