-- What a plan rests on, told in a text that changes with it.

CREATE FUNCTION pgtrickle_changes.type_versions(p_type oid) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog rows of a type, and of those that somebody made below it: under a domain, in an array, a range or a composite.
-- Labels begin with an e; names of fields are in the plan and, by to_jsonb(), in what it returns.  A cast is a d: the plan's text says
-- that there is one, and not which; nothing depends on it, so whoever drops it may make another.
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
        SELECT 'd' || k.oid || ':' || k.xmin || k.ctid FROM within AS w JOIN pg_cast AS k ON k.castsource = w.oid
        UNION ALL
        SELECT 'd' || k.oid || ':' || k.xmin || k.ctid FROM within AS w JOIN pg_cast AS k ON k.casttarget = w.oid
        UNION ALL
        SELECT l.letter || 'a' || a.attrelid || ':' || string_agg(concat(a.xmin, a.ctid), ' ' ORDER BY a.attnum)
          FROM within AS w JOIN pg_type AS t ON t.oid = w.oid AND t.typtype = 'c' JOIN pg_attribute AS a ON a.attrelid = t.typrelid AND a.attnum > 0
         CROSS JOIN (VALUES ('t'), ('e')) AS l(letter)
         GROUP BY l.letter, a.attrelid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.type_versions IS 'The versions of the catalog rows that make a type what it is';

CREATE FUNCTION pgtrickle_changes.called_functions(p_functions oid[]) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE called AS (
            SELECT w.oid FROM unnest(p_functions) AS w(oid)
            UNION
            SELECT n.oid
              FROM called AS c JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = c.oid
             CROSS JOIN LATERAL (SELECT d.refobjid WHERE d.refclassid = 'pg_proc'::regclass
                                 UNION ALL
                                 SELECT o.oprcode FROM pg_operator AS o WHERE d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid) AS n(oid))
        SELECT c.oid FROM called AS c);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.called_functions IS 'Functions and aggregates, and those that they are made of, as far as PostgreSQL knows it';

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
    RETURN ARRAY(SELECT 'f' || p.oid || ':' || p.xmin || p.ctid
                   FROM unnest(pgtrickle_changes.called_functions(p_functions)) AS c(oid) JOIN pg_proc AS p ON p.oid = c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.function_versions IS 'The versions of functions and aggregates, and of those that they are made of';

CREATE FUNCTION pgtrickle_changes.searches_text(p_functions oid[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- PostgreSQL's own by their names; of others the body tells, as somebody wrote it: where it only looks so, nothing is lost.
BEGIN
    RETURN EXISTS (SELECT FROM pg_proc AS p
                    WHERE p.oid = ANY (p_functions)
                      AND (p.proname ~ '^(json_|jsonb_|plainto_|phraseto_|websearch_)?(to_ts|ts_(headline|match_t|lexize))'
                           OR p.oid >= 16384 AND coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) ~* 'to_ts|ts_|tsquery|@@'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.searches_text IS 'Whether functions go by a text search configuration or dictionary';

CREATE FUNCTION pgtrickle_changes.others_of(p_view oid, p_relations oid[], p_types oid[], p_functions oid[]) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What somebody made or may alter, beside relations, functions and types; schemas of these are watched with them, but for types'.
-- PostgreSQL keeps no note of its own collations: those of columns are seen, but "default", "C" and "POSIX", which nothing changes.
DECLARE
    v_named  oid[] := ARRAY(SELECT d.refobjid FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                             WHERE r.ev_class = ANY (p_view || p_relations) AND d.refobjid >= 16384
                               AND d.refclassid IN ('pg_operator'::regclass, 'pg_collation'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass)
                            UNION
                            SELECT a.attcollation FROM pg_attribute AS a
                             WHERE a.attrelid = ANY (p_view || p_relations) AND a.attnum > 0
                               AND a.attcollation NOT IN (SELECT c.oid FROM pg_collation AS c WHERE c.collprovider = 'd' OR c.collname IN ('C', 'POSIX') UNION ALL SELECT 0));
BEGIN
    RETURN ARRAY(SELECT n.oid FROM unnest(v_named) AS n(oid)
                 UNION
                 SELECT s.oid FROM pg_namespace AS s
                  WHERE s.oid >= 16384
                    AND s.oid IN (SELECT t.typnamespace FROM pg_type AS t WHERE t.oid = ANY (p_types)
                                  UNION ALL SELECT o.oprnamespace FROM pg_operator AS o WHERE o.oid = ANY (v_named)
                                  UNION ALL SELECT c.collnamespace FROM pg_collation AS c WHERE c.oid = ANY (v_named)
                                  UNION ALL SELECT x.cfgnamespace FROM pg_ts_config AS x WHERE x.oid = ANY (v_named)
                                  UNION ALL SELECT x.dictnamespace FROM pg_ts_dict AS x WHERE x.oid = ANY (v_named))
                 UNION
                 SELECT 'pg_ts_config'::regclass::oid WHERE pgtrickle_changes.searches_text(p_functions)
                 ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.others_of IS 'What the rules of a query and of the views below it rest on, beside relations, functions and types';

CREATE FUNCTION pgtrickle_changes.other_versions(p_others oid[]) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The plan's text names them, and is read again: after ALTER ... RENAME the name may be another's.  Of which configuration and
-- dictionaries a query makes use may be written in its rows; that they are some five hundred rows makes their texts dear.
BEGIN
    IF p_others = '{}' THEN
        RETURN '{}'::text[];
    END IF;
    RETURN ARRAY(
        SELECT 'd' || o.oid || ':' || o.xmin || o.ctid FROM pg_operator AS o WHERE o.oid = ANY (p_others)
        UNION ALL
        SELECT 'd' || c.oid || ':' || c.xmin || c.ctid FROM pg_collation AS c WHERE c.oid = ANY (p_others)
        UNION ALL
        SELECT 'd' || n.oid || ':' || n.xmin || n.ctid FROM pg_namespace AS n WHERE n.oid = ANY (p_others)
        UNION ALL
        SELECT concat_ws(':', 'd', hash_array_extended(array_agg(c.xmin), 0), hash_array_extended(array_agg(c.ctid), 0)) FROM pg_ts_config AS c WHERE 'pg_ts_config'::regclass = ANY (p_others)
        UNION ALL
        SELECT concat_ws(':', 'd', hash_array_extended(array_agg(y.xmin), 0), hash_array_extended(array_agg(y.ctid), 0)) FROM pg_ts_dict AS y WHERE 'pg_ts_config'::regclass = ANY (p_others)
        UNION ALL
        SELECT concat_ws(':', 'd', hash_array_extended(array_agg(m.xmin), 0), hash_array_extended(array_agg(m.ctid), 0)) FROM pg_ts_config_map AS m WHERE 'pg_ts_config'::regclass = ANY (p_others));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.other_versions IS 'The versions of operators, collations and schemas, and of all that makes up text search';

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
        SELECT md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) NOT IN ('p', 'f', 'o', 'u', 'e', 'd')))
               || '/' || coalesce(md5(string_agg(f.part, ',' ORDER BY f.part) FILTER (WHERE left(f.part, 1) IN ('p', 'f', 'o', 'u', 'e', 'd'))), '')
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
            SELECT unnest(pgtrickle_changes.function_versions(s.watched_functions) || pgtrickle_changes.other_versions(s.watched_others))
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
