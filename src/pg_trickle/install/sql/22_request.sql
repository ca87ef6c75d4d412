-- The request to the compiler: the relations, columns and functions of a query, and whether its owner may read them (docs/internals.md section 4).

CREATE FUNCTION pgtrickle_changes.opaque_reason(p_owner oid, p_relation oid, p_columns smallint[], p_below_view boolean,
    p_below_foreign_view boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_class pg_class;
    v_below text;
BEGIN
    IF p_relation < 16384 THEN
        RETURN 'it is part of PostgreSQL''s own catalog, which no trigger can watch.';
    END IF;
    SELECT c.* INTO v_class FROM pg_class AS c WHERE c.oid = p_relation;
    IF v_class.relkind <> 'v' AND v_class.relnamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace) THEN
        -- A refresh writes to it: watched, it would give cause to the next refresh for ever.
        RETURN 'it is part of pg_trickle''s own catalog, which no trigger watches.';
    END IF;
    IF v_class.relkind = 'v' THEN
        RETURN (SELECT format('the owner may not read %s, which it shows, himself.', b.relid::regclass)
                  FROM pgtrickle_changes.relation_closure(p_relation) AS b
                 WHERE NOT pgtrickle_changes.may_read(p_owner, b.relid, b.columns, true) LIMIT 1);
    END IF;
    IF v_class.relkind NOT IN ('r', 'p', 'm', 'f') THEN
        RETURN format('no trigger can watch a relation of kind %s.', replace(pgtrickle_changes.relation_kind(p_relation), '_', ' '));
    END IF;
    IF v_class.relpersistence = 'u' AND v_class.relkind = 'r' THEN
        RETURN 'it is unlogged: a crash empties it without a trace.';
    END IF;
    IF v_class.relhassubclass THEN
        v_below := (SELECT format('%s, a %s below it, ', c.oid::regclass, CASE WHEN c.relispartition THEN 'partition' ELSE 'child' END)
                           || CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'can''t be watched by triggers.'
                                   WHEN c.relpersistence = 'u' THEN 'is unlogged: a crash empties it without a trace.'
                                   ELSE 'is temporary: it exists for one session alone.' END
                      FROM pgtrickle_changes.relations_below(p_relation) AS b JOIN pg_class AS c ON c.oid = b.relid
                     WHERE c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p' LIMIT 1);
        IF v_below IS NOT NULL THEN
            RETURN v_below;
        END IF;
    END IF;
    IF v_class.relrowsecurity AND p_below_foreign_view THEN
        RETURN 'its row-level security is applied as for the owner of a view that shows it.';
    END IF;
    IF pgtrickle_changes.row_security_applies(p_owner, p_relation) THEN
        v_below := (SELECT f.reason FROM pgtrickle_changes.policy_filter(p_owner, p_relation) AS f);
        IF v_below IS NOT NULL THEN
            RETURN v_below;
        END IF;
    END IF;
    IF NOT pgtrickle_changes.may_read(p_owner, p_relation, p_columns, p_below_view) THEN
        RETURN 'the owner may not read it.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.opaque_reason IS 'Why the changes of a relation can''t be used on the owner''s behalf; NULL when they can';

CREATE FUNCTION pgtrickle_changes.untold_columns(p_relation oid) RETURNS TABLE (attnum smallint, attname name)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A virtual column isn't in a trigger's rows, and its expression is computed from these; the one system column that it may read isn't there either.
BEGIN
    RETURN QUERY SELECT a.attnum, a.attname FROM pg_attribute AS a JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                  WHERE a.attrelid = p_relation AND a.attgenerated = 'v' AND d.adbin::text ~ ':varattno -' ORDER BY a.attnum;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.untold_columns IS 'The columns of a table that no trigger can tell: virtual ones that read tableoid';

CREATE FUNCTION pgtrickle_changes.may_read(p_owner oid, p_relation oid, p_columns smallint[], p_whole boolean) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Whether a role may read columns of a relation; or all of it: below a view that somebody else's rights open, which
-- columns a whole row has is not in the list.
BEGIN
    RETURN (
        SELECT has_schema_privilege(p_owner, c.relnamespace, 'USAGE')
               AND (has_table_privilege(p_owner, c.oid, 'SELECT')
                    OR NOT p_whole AND has_any_column_privilege(p_owner, c.oid, 'SELECT')
                       AND NOT EXISTS (SELECT FROM unnest(p_columns) AS u(attnum)
                                        WHERE NOT has_column_privilege(p_owner, c.oid, u.attnum, 'SELECT')))
          FROM pg_class AS c WHERE c.oid = p_relation);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.may_read IS 'Whether a role may read columns of a relation, or all of it';

CREATE FUNCTION pgtrickle_changes.commonest_shares(p_owner oid, p_relations oid[]) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- {table: {column: the share of rows with its commonest value}}, as far as statistics tell the owner.  No value of
-- any row is in it.
DECLARE
    v_tables oid[] := ARRAY(SELECT c.oid FROM pg_class AS c WHERE c.oid = ANY (p_relations) AND c.relkind IN ('r', 'p') AND c.reltuples > 0);
BEGIN
    IF v_tables = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN pgtrickle_changes.run_as(p_owner, format(
        'SELECT pg_catalog.jsonb_object_agg(t.oid, t.shares)'
        '  FROM (SELECT o.oid, pg_catalog.jsonb_object_agg(o.attname, o.share) AS shares'
        '          FROM (SELECT c.oid, s.attname, pg_catalog.max(GREATEST((s.most_common_freqs)[1]::pg_catalog.float8,'
        '                       1 / NULLIF(CASE WHEN s.n_distinct OPERATOR(pg_catalog.>) 0 THEN s.n_distinct'
        '                                       ELSE s.n_distinct OPERATOR(pg_catalog.*) (OPERATOR(pg_catalog.-) c.reltuples) END, 0)::pg_catalog.float8)) AS share'
        '                  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace'
        '                  JOIN pg_catalog.pg_stats AS s ON s.schemaname OPERATOR(pg_catalog.=) n.nspname AND s.tablename OPERATOR(pg_catalog.=) c.relname'
        '                 WHERE c.oid OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[])'
        '                 GROUP BY c.oid, s.attname) AS o'
        '         WHERE o.share IS NOT NULL GROUP BY o.oid) AS t', v_tables));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.commonest_shares IS 'The share of rows that have the commonest value, by tables and columns';

CREATE FUNCTION pgtrickle_changes.relation_facts(p_owner oid, p_view oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_relations  oid[] := ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c);
    -- A row used as a value depends on every column, which pg_depend doesn't tell; nor do system columns name what changes them.
    v_whole_rows boolean := EXISTS (SELECT FROM pg_rewrite AS r
                                     WHERE r.ev_class = ANY (v_relations || p_view) AND r.rulename = '_RETURN'
                                       AND r.ev_action::text ~ '\{VAR :varno \d+ :varattno 0 ');
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'oid', c.oid::bigint,
                   'schema', n.nspname,
                   'name', c.relname,
                   'kind', o.kind,
                   'columns', coalesce(a.columns, '[]'),
                   'used', (SELECT coalesce(jsonb_agg(u.attname ORDER BY u.attnum), '[]') FROM pg_attribute AS u
                             WHERE u.attrelid = c.oid AND u.attnum > 0 AND NOT u.attisdropped
                               AND (v_whole_rows OR u.attnum = ANY (o.columns) OR 0 > ANY (o.columns))),
                   'keys', coalesce(k.keys, '[]'),
                   'indexed', pgtrickle_changes.indexed_columns(c.oid),
                   'buffer', pgtrickle_changes.buffer_name(c.oid, p_owner),
                   'rows', greatest(c.reltuples, 0),
                   'definition', CASE WHEN o.kind = 'view' AND o.reason IS NULL THEN pgtrickle_changes.canonical_text(c.oid) END,
                   'policy', CASE WHEN o.reason IS NULL AND pgtrickle_changes.row_security_applies(p_owner, c.oid)
                                  THEN (SELECT f.predicate FROM pgtrickle_changes.policy_filter(p_owner, c.oid) AS f) END,
                   'policy_tables', CASE WHEN o.reason IS NULL THEN pgtrickle_changes.policy_table_facts(p_owner, c.oid) ELSE '[]' END,
                   'opaque', o.reason) ORDER BY c.oid), '[]')
          FROM (SELECT r.relid, r.columns, pgtrickle_changes.relation_kind(r.relid) AS kind,
                       coalesce(pgtrickle_changes.opaque_reason(p_owner, r.relid, r.columns, r.below_view, r.below_foreign_view),
                                (SELECT format('its virtual column "%s" reads tableoid, which triggers aren''t told.', u.attname)
                                   FROM pgtrickle_changes.untold_columns(r.relid) AS u WHERE v_whole_rows OR u.attnum = ANY (r.columns) LIMIT 1)) AS reason
                  FROM pgtrickle_changes.relation_closure(p_view) AS r) AS o
          JOIN pg_class AS c ON c.oid = o.relid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
          LEFT JOIN pgtrickle_changes.column_facts(v_relations) AS a ON a.relid = c.oid
          LEFT JOIN pgtrickle_changes.key_facts(v_relations) AS k ON k.relid = c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.relation_facts IS 'The relations of a view as a compile request lists them';

CREATE FUNCTION pgtrickle_changes.policy_table_facts(p_owner oid, p_relation oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('oid', t.relid::bigint, 'name', t.relid::regclass::text, 'columns', to_jsonb(t.columns),
                   'policy', CASE WHEN pgtrickle_changes.row_security_applies(p_owner, t.relid)
                                  THEN (SELECT f.predicate FROM pgtrickle_changes.policy_filter(p_owner, t.relid) AS f) END) ORDER BY t.relid), '[]')
          FROM pgtrickle_changes.policy_tables(p_owner, p_relation) AS t);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_table_facts IS 'The tables that the policies of a relation read, as a compile request lists them';

CREATE FUNCTION pgtrickle_changes.function_facts(p_view oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_functions oid[] := pgtrickle_changes.function_oids(p_view);
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'oid', p.oid::bigint,
                   'schema', n.nspname,
                   'name', p.proname,
                   'kind', CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window' WHEN 'p' THEN 'procedure' ELSE 'function' END,
                   'volatility', CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
                   'returns', format_type(p.prorettype, NULL),
                   'set_returning', p.proretset,
                   'builtin', p.oid < 16384) ORDER BY n.nspname, p.proname, p.oid), '[]')
          FROM pg_proc AS p
          JOIN pg_namespace AS n ON n.oid = p.pronamespace
         WHERE p.oid = ANY (v_functions));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.function_facts IS 'The functions of a view as a compile request lists them';

CREATE FUNCTION pgtrickle_changes.compile_request(p_owner oid, p_view oid, p_id bigint, p_schema text, p_name text,
                                                  p_mode text DEFAULT '') RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- p_mode is that of a stream table yet to be created.  What statistics tell is for refreshes: what is stored apart on their account costs
-- single rows more than it spares them.
DECLARE
    v_circle       oid[] := pgtrickle_changes.circle_closed_by(p_id, p_view);
    v_is_immediate boolean := p_mode = 'IMMEDIATE' OR EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st
                                                               WHERE st.pgt_id = p_id AND st.refresh_mode = 'IMMEDIATE');
    v_shares       jsonb := CASE WHEN v_is_immediate THEN '{}'
                                 ELSE pgtrickle_changes.commonest_shares(p_owner, ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c)) END;
BEGIN
    RETURN jsonb_build_object(
        'format', 1,
        'id', p_id,
        'target', jsonb_build_object('schema', p_schema, 'name', p_name),
        'query', pgtrickle_changes.canonical_text(p_view),
        'columns', (SELECT c.columns FROM pgtrickle_changes.column_facts(ARRAY[p_view]) AS c),
        'relations', (
            SELECT coalesce(jsonb_agg(r.item || jsonb_build_object('shares', coalesce(v_shares -> (r.item ->> 'oid'), '{}'))
                                      || CASE WHEN (r.item ->> 'oid')::oid = ANY (v_circle) THEN '{"circular": true}'::jsonb ELSE '{}' END ORDER BY r.place), '[]')
              FROM jsonb_array_elements(pgtrickle_changes.relation_facts(p_owner, p_view)) WITH ORDINALITY AS r(item, place)),
        'functions', pgtrickle_changes.function_facts(p_view));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.compile_request(oid, oid, bigint, text, text, text) IS 'What the compiler needs to know about a definition view';
