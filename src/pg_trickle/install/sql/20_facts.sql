-- Facts for the compiler: a query in PostgreSQL's canonical text, and what it reads (docs/internals.md §4).

CREATE FUNCTION pgtrickle_changes.base_type(p_type oid) RETURNS oid
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The type under a domain, or under a domain over a domain.
    WITH RECURSIVE t(oid, base, depth) AS (
        SELECT y.oid, y.typbasetype, 0 FROM pg_type AS y WHERE y.oid = p_type
        UNION ALL
        SELECT y.oid, y.typbasetype, t.depth + 1 FROM t JOIN pg_type AS y ON y.oid = t.base
    )
    SELECT t.oid FROM t ORDER BY t.depth DESC LIMIT 1
$$;

CREATE FUNCTION pgtrickle_changes.has_default_class(p_type oid, p_method name) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether values of a type have an order (btree) or a hash: by an operator class of its own, or of what it is made of.
DECLARE
    v_base oid := pgtrickle_changes.base_type(p_type);
    v_type pg_type;
BEGIN
    SELECT t.* INTO v_type FROM pg_type AS t WHERE t.oid = v_base;
    IF EXISTS (SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod
                WHERE m.amname = p_method AND o.opcdefault
                  AND (o.opcintype = v_base
                       OR EXISTS (SELECT FROM pg_cast AS c WHERE c.castsource = v_base AND c.casttarget = o.opcintype
                                                             AND c.castmethod = 'b' AND c.castcontext = 'i'))) THEN
        RETURN true;
    END IF;
    CASE
        WHEN v_type.typtype = 'e' THEN
            RETURN true;
        WHEN v_type.typelem <> 0 AND v_type.typsubscript = 'array_subscript_handler'::regproc THEN
            RETURN pgtrickle_changes.has_default_class(v_type.typelem, p_method);
        WHEN v_type.typtype = 'r' THEN
            RETURN p_method = 'btree' OR pgtrickle_changes.has_default_class(
                (SELECT r.rngsubtype FROM pg_range AS r WHERE r.rngtypid = v_base), p_method);
        WHEN v_type.typtype = 'c' THEN
            RETURN NOT EXISTS (SELECT FROM pg_attribute AS a
                                WHERE a.attrelid = v_type.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                                  AND NOT pgtrickle_changes.has_default_class(a.atttypid, p_method));
        ELSE
            RETURN false;
    END CASE;
END
$$;

CREATE FUNCTION pgtrickle_changes.type_identity(p_type oid, p_collation oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- How values are told apart: equal, scale, text or none.  Anything not known to be safe is compared as text too.
DECLARE
    v_base oid := pgtrickle_changes.base_type(p_type);
    v_type pg_type;
BEGIN
    SELECT t.* INTO v_type FROM pg_type AS t WHERE t.oid = v_base;
    IF NOT pgtrickle_changes.has_default_class(v_base, 'btree') THEN
        RETURN 'none';
    END IF;
    IF v_base = 'numeric'::regtype THEN
        RETURN 'scale';
    END IF;
    IF v_type.typcategory = 'S' AND NOT coalesce((SELECT c.collisdeterministic FROM pg_collation AS c WHERE c.oid = p_collation), true) THEN
        RETURN 'text';
    END IF;
    IF v_type.typtype = 'e'
       OR v_base IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, '"char"'::regtype,
                     'text'::regtype, 'varchar'::regtype, 'name'::regtype, 'bytea'::regtype, 'uuid'::regtype,
                     'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype,
                     'inet'::regtype, 'cidr'::regtype, 'macaddr'::regtype, 'macaddr8'::regtype, 'bit'::regtype, 'varbit'::regtype,
                     'pg_lsn'::regtype, 'xid8'::regtype, 'money'::regtype) THEN
        RETURN 'equal';
    END IF;
    IF v_type.typelem <> 0 AND v_type.typsubscript = 'array_subscript_handler'::regproc
       AND pgtrickle_changes.type_identity(v_type.typelem, p_collation) = 'equal' THEN
        RETURN 'equal';
    END IF;
    RETURN 'text';
END
$$;

CREATE FUNCTION pgtrickle_changes.column_facts(p_relation oid) RETURNS jsonb
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', a.attname,
               'type', format_type(a.atttypid, a.atttypmod),
               'type_oid', a.atttypid::bigint,
               'base', CASE WHEN b.typnamespace = 'pg_catalog'::regnamespace AND b.typtype <> 'c' THEN b.typname END,
               'not_null', a.attnotnull AND NOT EXISTS (
                   -- PostgreSQL 18 lets a NOT NULL constraint stand although rows may break it.
                   SELECT FROM pg_constraint AS k
                    WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]),
               'identity', pgtrickle_changes.type_identity(a.atttypid, a.attcollation),
               'orderable', pgtrickle_changes.has_default_class(a.atttypid, 'btree'),
               'hashable', pgtrickle_changes.has_default_class(a.atttypid, 'hash'),
               'collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END,
               'buffer_column', CASE WHEN a.attname IN ('xid', 'seq', 'w') THEN '__pgt_' || a.attnum ELSE a.attname END,
               'scale', CASE WHEN b.oid = 'numeric'::regtype AND a.atttypmod >= 4
                             THEN greatest((((a.atttypmod - 4) & 2047) # 1024) - 1024, 0) END)
           ORDER BY a.attnum), '[]')
      FROM pg_attribute AS a
      JOIN pg_type AS b ON b.oid = pgtrickle_changes.base_type(a.atttypid)
     WHERE a.attrelid = p_relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

CREATE FUNCTION pgtrickle_changes.key_facts(p_relation oid) RETURNS jsonb
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Unique indexes over plain columns whose rows can't repeat: primary key first.
    SELECT coalesce(jsonb_agg(k.columns ORDER BY k.indisprimary DESC, k.indexrelid), '[]')
      FROM (SELECT i.indexrelid, i.indisprimary,
                   (SELECT jsonb_agg(a.attname ORDER BY u.place)
                      FROM unnest(i.indkey) WITH ORDINALITY AS u(attnum, place)
                      JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                     WHERE u.place <= i.indnkeyatts) AS columns
              FROM pg_index AS i
             WHERE i.indrelid = p_relation AND i.indisunique AND i.indisvalid AND i.indimmediate
               AND i.indpred IS NULL AND i.indexprs IS NULL
               AND NOT EXISTS (SELECT FROM unnest(i.indkey, i.indclass, i.indcollation) AS u(attnum, opclass, ordering)
                                 JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                                 JOIN pg_opclass AS o ON o.oid = u.opclass
                                WHERE NOT o.opcdefault OR u.ordering <> a.attcollation
                                   OR NOT (a.attnotnull OR i.indnullsnotdistinct))) AS k
$$;

CREATE FUNCTION pgtrickle_changes.view_relations(p_view oid) RETURNS TABLE (relid oid, columns smallint[])
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The relations that a view itself names, and the columns of each that it reads.
    SELECT d.refobjid, coalesce(array_agg(DISTINCT d.refobjsubid::smallint) FILTER (WHERE d.refobjsubid > 0), '{}')
      FROM pg_rewrite AS r
      JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
     WHERE r.ev_class = p_view AND d.refobjid <> p_view
     GROUP BY d.refobjid
$$;

CREATE FUNCTION pgtrickle_changes.relation_closure(p_view oid) RETURNS TABLE (relid oid, columns smallint[], below_view boolean)
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Every relation in a view and in the views below it; system views are left closed.
    WITH RECURSIVE r(relid, columns, below_view) AS (
        SELECT v.relid, v.columns, false FROM pgtrickle_changes.view_relations(p_view) AS v
        UNION
        SELECT v.relid, v.columns, true
          FROM r
          JOIN pg_class AS c ON c.oid = r.relid AND c.relkind = 'v' AND c.oid >= 16384
         CROSS JOIN LATERAL pgtrickle_changes.view_relations(r.relid) AS v
    )
    SELECT r.relid, coalesce(array_agg(DISTINCT u.attnum) FILTER (WHERE u.attnum IS NOT NULL), '{}'), bool_or(r.below_view)
      FROM r LEFT JOIN LATERAL unnest(r.columns) AS u(attnum) ON true
     GROUP BY r.relid
$$;

CREATE FUNCTION pgtrickle_changes.function_oids(p_view oid) RETURNS oid[]
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Functions, aggregates and operators' functions in the rules of a view and of the views below it, from the analysed
    -- trees: exact where names could mean several.
    SELECT coalesce(array_agg(DISTINCT m.oid), '{}')
      FROM (SELECT p_view AS relid UNION SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c) AS v
      JOIN pg_rewrite AS r ON r.ev_class = v.relid AND r.rulename = '_RETURN'
     CROSS JOIN LATERAL (SELECT x.m[1]::oid AS oid
                           FROM regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid|inputfnoid|elemfuncid) (\d+)', 'g') AS x(m)
                         UNION
                         -- A cast by way of text calls the output and input functions of the types.
                         SELECT t.typinput
                           FROM regexp_matches(r.ev_action::text, '\{COERCEVIAIO [^}]*:resulttype (\d+)', 'g') AS x(m)
                           JOIN pg_type AS t ON t.oid = x.m[1]::oid) AS m
     WHERE m.oid <> 0
$$;

CREATE FUNCTION pgtrickle_changes.canonical_text(p_view oid) RETURNS text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
    -- With nothing but pg_catalog on the path every other name comes out qualified.
    SELECT rtrim(pg_get_viewdef(p_view), '; ')
$$;

CREATE FUNCTION pgtrickle_changes.relation_kind(p_relation oid) RETURNS text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
               WHEN c.oid < 16384 THEN 'system'
               WHEN c.relkind = 'v' THEN 'view'
               WHEN c.relkind = 'p' THEN 'partitioned'
               WHEN c.relkind = 'm' THEN 'materialized_view'
               WHEN c.relkind = 'f' THEN 'foreign'
               WHEN c.relkind <> 'r' THEN 'other'
               WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS s WHERE s.pgt_relid = c.oid) THEN 'stream_table'
               WHEN EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = c.oid)
                    OR (NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid)) THEN 'inherited'
               ELSE 'table'
           END
      FROM pg_class AS c WHERE c.oid = p_relation
$$;

CREATE FUNCTION pgtrickle_changes.opaque_reason(p_owner oid, p_relation oid, p_columns smallint[], p_below_view boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Why the changes of a relation can't be used on the owner's behalf; NULL when they can.
DECLARE
    v_class pg_class;
BEGIN
    SELECT c.* INTO v_class FROM pg_class AS c WHERE c.oid = p_relation;
    IF p_relation < 16384 THEN
        RETURN 'it is part of PostgreSQL''s own catalog, which no trigger can watch.';
    END IF;
    IF v_class.relkind = 'v' THEN
        RETURN (SELECT 'the owner may not read ' || b.relid::regclass || ', which it shows, himself.'
                  FROM pgtrickle_changes.relation_closure(p_relation) AS b
                 WHERE NOT pgtrickle_changes.may_read(p_owner, b.relid, b.columns) LIMIT 1);
    END IF;
    IF v_class.relkind NOT IN ('r', 'p') THEN
        RETURN format('no trigger can watch a relation of kind %s.', replace(pgtrickle_changes.relation_kind(p_relation), '_', ' '));
    END IF;
    IF v_class.relpersistence = 'u' THEN
        RETURN 'it is unlogged: a crash empties it without a trace.';
    END IF;
    IF v_class.relrowsecurity AND (p_below_view OR pgtrickle_changes.run_as(p_owner,
           format('SELECT pg_catalog.row_security_active(%L::pg_catalog.oid)', p_relation))::boolean) THEN
        RETURN 'its row-level security applies to the owner, so he may not see all of its changes.';
    END IF;
    IF NOT pgtrickle_changes.may_read(p_owner, p_relation, p_columns) THEN
        RETURN 'the owner may not read it.';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION pgtrickle_changes.may_read(p_owner oid, p_relation oid, p_columns smallint[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT has_schema_privilege(p_owner, c.relnamespace, 'USAGE')
       AND (has_table_privilege(p_owner, c.oid, 'SELECT')
            OR has_any_column_privilege(p_owner, c.oid, 'SELECT')
               AND NOT EXISTS (SELECT FROM unnest(p_columns) AS u(attnum)
                                WHERE NOT has_column_privilege(p_owner, c.oid, u.attnum, 'SELECT')))
      FROM pg_class AS c WHERE c.oid = p_relation
$$;

CREATE FUNCTION pgtrickle_changes.relation_facts(p_owner oid, p_relation oid, p_columns smallint[], p_below_view boolean) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'oid', c.oid::bigint,
               'schema', n.nspname,
               'name', c.relname,
               'kind', k.kind,
               'columns', pgtrickle_changes.column_facts(c.oid),
               'keys', pgtrickle_changes.key_facts(c.oid),
               'buffer', pgtrickle_changes.buffer_name(c.oid, p_owner),
               'rows', greatest(c.reltuples, 0),
               'definition', CASE WHEN k.kind = 'view' AND o.reason IS NULL THEN pgtrickle_changes.canonical_text(c.oid) END,
               'opaque', o.reason)
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (SELECT pgtrickle_changes.relation_kind(c.oid) AS kind) AS k
     CROSS JOIN LATERAL (SELECT pgtrickle_changes.opaque_reason(p_owner, c.oid, p_columns, p_below_view) AS reason) AS o
     WHERE c.oid = p_relation
$$;

CREATE FUNCTION pgtrickle_changes.function_facts(p_view oid) RETURNS jsonb
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
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
     WHERE p.oid = ANY (pgtrickle_changes.function_oids(p_view))
$$;

CREATE FUNCTION pgtrickle_changes.compile_request(p_owner oid, p_view oid, p_id bigint, p_schema text, p_name text) RETURNS jsonb
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'format', 1,
               'id', p_id,
               'target', jsonb_build_object('schema', p_schema, 'name', p_name),
               'query', pgtrickle_changes.canonical_text(p_view),
               'columns', pgtrickle_changes.column_facts(p_view),
               'relations', (SELECT coalesce(jsonb_agg(pgtrickle_changes.relation_facts(p_owner, c.relid, c.columns, c.below_view)
                                                       ORDER BY c.relid), '[]')
                               FROM pgtrickle_changes.relation_closure(p_view) AS c),
               'functions', pgtrickle_changes.function_facts(p_view))
$$;
COMMENT ON FUNCTION pgtrickle_changes.compile_request(oid, oid, bigint, text, text) IS 'What the compiler needs to know about a definition view';

CREATE FUNCTION pgtrickle_changes.fingerprint(p_id bigint) RETURNS text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Versions of the catalog rows that the plan rests on, and behind the slash of those that change what the query returns without
    -- changing the plan.  A difference needn't mean anything; equality means that nothing changed.
    SELECT md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) NOT IN ('p', 'f', 'o')))
           || '/' || coalesce(md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) IN ('p', 'f', 'o'))), '')
      FROM pgtrickle.pgt_stream_tables AS s
     CROSS JOIN LATERAL (
        SELECT 'c' || c.oid || ':' || c.xmin AS part FROM pg_class AS c WHERE c.oid = ANY (s.watched_relations)
        UNION ALL
        SELECT 'a' || a.attrelid || ':' || count(*) || ':' || sum(a.xmin::text::bigint)
          FROM pg_attribute AS a WHERE a.attrelid = ANY (s.watched_relations) AND a.attnum > 0 GROUP BY a.attrelid
        UNION ALL
        SELECT 'r' || r.oid || ':' || r.xmin FROM pg_rewrite AS r WHERE r.ev_class = ANY (s.watched_relations)
        UNION ALL
        SELECT 'p' || p.oid || ':' || p.xmin FROM pg_policy AS p WHERE p.polrelid = ANY (s.watched_relations)
        UNION ALL
        SELECT 'i' || i.indexrelid || ':' || i.xmin FROM pg_index AS i WHERE i.indrelid = ANY (s.watched_relations) AND i.indisunique
        UNION ALL
        SELECT 'f' || p.oid || ':' || p.xmin FROM pg_proc AS p WHERE p.oid = ANY (s.watched_functions)
        UNION ALL
        SELECT 'o' || o.oid || ':' || o.xmin FROM pg_authid AS o WHERE o.oid = s.owner_oid
     ) AS f
     WHERE s.pgt_id = p_id
$$;
COMMENT ON FUNCTION pgtrickle_changes.fingerprint(bigint) IS 'Changes when anything that the plan of a stream table rests on changes';
