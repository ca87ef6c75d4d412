-- What a plan rests on, told in a text that changes with it.

CREATE FUNCTION pgtrickle_changes.type_versions(p_type oid) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog rows of a type, and of those that somebody made below it: under a domain, in an array, a range or a composite.
-- Labels begin with an e; names of fields are in the plan and, by to_jsonb(), in what it returns.
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE within AS (
            SELECT p_type AS oid
            UNION
            SELECT n.oid
              FROM within AS i JOIN pg_type AS t ON t.oid = i.oid
             CROSS JOIN LATERAL (SELECT t.typbasetype
                                 UNION ALL SELECT t.typelem
                                 UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
                                 UNION ALL SELECT a.atttypid FROM pg_attribute AS a
                                            WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped) AS n(oid)
             WHERE n.oid >= 16384
        )
        SELECT 't' || t.oid || ':' || t.xmin || t.ctid FROM within AS w JOIN pg_type AS t ON t.oid = w.oid
        UNION ALL
        SELECT 'e' || e.oid || ':' || e.xmin || e.ctid FROM within AS w JOIN pg_enum AS e ON e.enumtypid = w.oid
        UNION ALL
        SELECT l.letter || 'a' || a.attrelid || ':' || string_agg(concat(a.xmin, a.ctid), ' ' ORDER BY a.attnum)
          FROM within AS w JOIN pg_type AS t ON t.oid = w.oid AND t.typtype = 'c' JOIN pg_attribute AS a ON a.attrelid = t.typrelid AND a.attnum > 0
         CROSS JOIN (VALUES ('t'), ('e')) AS l(letter)
         GROUP BY l.letter, a.attrelid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.type_versions IS 'The versions of the catalog rows that make a type what it is';

CREATE FUNCTION pgtrickle_changes.function_versions(p_functions oid[]) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Of what they are made of, too, as far as PostgreSQL knows it: bodies that are texts tell nothing.
BEGIN
    IF p_functions = '{}' THEN
        RETURN '{}'::text[];
    END IF;
    RETURN ARRAY(
        WITH RECURSIVE called AS (
            SELECT w.oid FROM unnest(p_functions) AS w(oid)
            UNION
            SELECT n.oid
              FROM called AS c JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = c.oid
             CROSS JOIN LATERAL (SELECT d.refobjid WHERE d.refclassid = 'pg_proc'::regclass
                                 UNION ALL
                                 SELECT o.oprcode FROM pg_operator AS o WHERE d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid) AS n(oid))
        SELECT 'f' || p.oid || ':' || p.xmin || p.ctid FROM called AS c JOIN pg_proc AS p ON p.oid = c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.function_versions IS 'The versions of functions and aggregates, and of those that they are made of';

CREATE FUNCTION pgtrickle_changes.role_versions(p_role oid) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Policies are for a role's members too, whatever is between them.
DECLARE
    v_version text := (SELECT 'o' || o.oid || ':' || o.xmin || o.ctid FROM pg_authid AS o WHERE o.oid = p_role);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_auth_members AS m WHERE m.member = p_role) THEN
        RETURN ARRAY[v_version];
    END IF;
    RETURN v_version || ARRAY(
        WITH RECURSIVE held AS (
            SELECT m.roleid, concat(m.xmin, m.ctid) AS version FROM pg_auth_members AS m WHERE m.member = p_role
            UNION
            SELECT m.roleid, concat(m.xmin, m.ctid) FROM held AS h JOIN pg_auth_members AS m ON m.member = h.roleid)
        SELECT 'o' || h.roleid || ':' || h.version || ':' || o.rolinherit FROM held AS h JOIN pg_authid AS o ON o.oid = h.roleid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.role_versions IS 'The versions of a role and of its memberships, direct or not';

CREATE FUNCTION pgtrickle_changes.fingerprint(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Versions of the catalog rows that the plan rests on, and behind the slash of those that change what the query returns without
-- changing the plan.  A difference needn't mean anything; equality means that nothing changed.
BEGIN
    RETURN (
        SELECT md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) NOT IN ('p', 'f', 'o', 'u', 'e')))
               || '/' || coalesce(md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) IN ('p', 'f', 'o', 'u', 'e'))), '')
          FROM pgtrickle.pgt_stream_tables AS s
         CROSS JOIN LATERAL (
            SELECT concat_ws(':', 'c', c.oid, c.relnamespace, c.relname, c.relowner, c.relkind, c.relpersistence, c.relispartition, c.relhassubclass,
                             c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relacl) AS part
              FROM pg_class AS c WHERE c.oid = ANY (s.watched_relations)
            UNION ALL
            SELECT 'a' || a.attrelid || ':' || string_agg(concat(a.xmin, a.ctid), ' ' ORDER BY a.attnum)
              FROM pg_attribute AS a WHERE a.attrelid = ANY (s.watched_relations) AND a.attnum > 0 GROUP BY a.attrelid
            UNION ALL
            -- The columns that are read.  An expression that generates one may be new, which fires no trigger; so does the table
            -- become or cease to be a partition or a child, and was then perhaps written by way of its parent.
            SELECT 'u' || a.attrelid || ':' || string_agg(concat(a.xmin, a.ctid), ' ' ORDER BY a.attnum)
              FROM pgtrickle.pgt_dependencies AS d JOIN pg_attribute AS a ON a.attrelid = d.source_relid
             WHERE d.pgt_id = p_id AND a.attnum > 0 AND (a.attname = ANY (d.columns_used) OR d.columns_used = '{}') GROUP BY a.attrelid
            UNION ALL
            -- A row of a view shows what its columns are called.
            SELECT 'u' || a.attrelid || ':' || string_agg(concat(a.xmin, a.ctid), ' ' ORDER BY a.attnum)
              FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
             WHERE c.oid = ANY (s.watched_relations) AND c.relkind = 'v' AND a.attnum > 0 GROUP BY a.attrelid
            UNION ALL
            -- The plan's text names their types, and a value's text may be a label.  No column needs to have a type that the query names.
            SELECT unnest(pgtrickle_changes.type_versions(u.oid))
              FROM (SELECT a.atttypid FROM pg_attribute AS a
                     WHERE a.attrelid = ANY (s.watched_relations) AND a.attnum > 0 AND a.atttypid >= 16384
                    UNION SELECT unnest(s.watched_types)) AS u(oid)
            UNION ALL
            SELECT 'n' || n.oid || ':' || n.xmin || n.ctid FROM pg_namespace AS n
             WHERE n.oid IN (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = ANY (s.watched_relations)
                             UNION ALL SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = ANY (s.watched_functions))
            UNION ALL
            SELECT 'r' || r.oid || ':' || r.xmin || r.ctid FROM pg_rewrite AS r WHERE r.ev_class = ANY (s.watched_relations)
            UNION ALL
            SELECT 'p' || p.oid || ':' || p.xmin || p.ctid FROM pg_policy AS p WHERE p.polrelid = ANY (s.watched_relations)
            UNION ALL
            -- To whom they apply.
            SELECT concat_ws(':', 'p', c.oid, c.relforcerowsecurity, c.relowner) FROM pg_class AS c
             WHERE c.oid = ANY (s.watched_relations) AND c.relrowsecurity
            UNION ALL
            SELECT 'i' || i.indexrelid || ':' || i.xmin || i.ctid FROM pg_index AS i WHERE i.indrelid = ANY (s.watched_relations) AND i.indisunique
            UNION ALL
            SELECT unnest(pgtrickle_changes.function_versions(s.watched_functions))
            UNION ALL
            -- A new expression for a generated column changes its values, and no trigger sees that.  (A join would read all of pg_attribute.)
            SELECT 'f' || d.oid || ':' || d.xmin || d.ctid FROM pg_attrdef AS d
             WHERE d.adrelid = ANY (s.watched_relations)
               AND (SELECT a.attgenerated FROM pg_attribute AS a WHERE a.attrelid = d.adrelid AND a.attnum = d.adnum) <> ''
            UNION ALL
            SELECT unnest(pgtrickle_changes.role_versions(s.owner_oid))
         ) AS f
         WHERE s.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.fingerprint(bigint) IS 'Changes when anything that the plan of a stream table rests on changes';
