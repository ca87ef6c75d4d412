-- Row-level security of sources: whether it applies to an owner, and as which condition (docs/decisions/0012).

CREATE FUNCTION pgtrickle_changes.row_security_applies(p_owner oid, p_relation oid) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (SELECT c.relrowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls
                   AND (c.relforcerowsecurity OR NOT pg_has_role(p_owner, c.relowner, 'USAGE'))
              FROM pg_class AS c CROSS JOIN pg_authid AS o WHERE c.oid = p_relation AND o.oid = p_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.row_security_applies IS 'Whether policies of a table decide what a role sees of it: PostgreSQL''s own rule';

CREATE FUNCTION pgtrickle_changes.policies_for(p_owner oid, p_relation oid) RETURNS SETOF pg_policy
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
        SELECT p.* FROM pg_policy AS p
         WHERE p.polrelid = p_relation AND p.polcmd IN ('r', '*')
           AND EXISTS (SELECT FROM unnest(p.polroles) AS r(id) WHERE r.id = 0 OR pg_has_role(p_owner, r.id, 'USAGE'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policies_for IS 'The policies of a table that count when a role reads it';

CREATE FUNCTION pgtrickle_changes.policy_tables(p_owner oid, p_relation oid) RETURNS TABLE (relid oid, columns smallint[])
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- From the trees: dependencies leave PostgreSQL's own catalog out.
BEGIN
    RETURN QUERY
        WITH RECURSIVE judged(relid) AS (
            SELECT p_relation
            UNION
            SELECT t.value[1]::oid
              FROM judged AS j
             CROSS JOIN LATERAL pgtrickle_changes.policies_for(p_owner, j.relid) AS p
             CROSS JOIN LATERAL regexp_matches(p.polqual::text, ':relid ([1-9]\d*)', 'g') AS t(value)
             WHERE pgtrickle_changes.row_security_applies(p_owner, j.relid)
        )
        SELECT j.relid, ARRAY(SELECT DISTINCT d.refobjsubid::smallint
                                FROM pg_depend AS d JOIN pg_policy AS p ON p.oid = d.objid JOIN judged AS f ON f.relid = p.polrelid
                               WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass
                                 AND d.refobjid = j.relid AND d.refobjsubid > 0 AND p.polrelid <> j.relid ORDER BY 1)
          FROM judged AS j WHERE j.relid <> p_relation;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_tables IS 'The tables that the policies of a table read when a role does, and that the policies of these read, with the columns they read';

CREATE FUNCTION pgtrickle_changes.policy_problem(p_policy pg_policy) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Why what a policy shows is more than a matter of the row, its owner and the rows of other tables; NULL if it is not.
DECLARE
    v_tree   CONSTANT text := p_policy.polqual::text;
    -- Its text without what it quotes.
    v_text   CONSTANT text := regexp_replace(pg_get_expr(p_policy.polqual, p_policy.polrelid), $q$'(?:''|[^'])*'|"(?:""|[^"])*"$q$, '', 'g');
    v_arrays CONSTANT bigint := (SELECT count(*) FROM regexp_matches(v_tree, ':subLinkType 6', 'g'));
BEGIN
    RETURN CASE
        WHEN v_tree ~ ':varattno (0|-\d)' THEN format('policy "%s" uses a whole row or a system column.', p_policy.polname)
        WHEN EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p_policy.oid AND d.deptype = 'n'
                        AND d.refclassid <> 'pg_class'::regclass)
             THEN format('policy "%s" uses a function, a type or an operator that isn''t PostgreSQL''s own.', p_policy.polname)
        WHEN EXISTS (SELECT FROM regexp_matches(v_tree, '\{([A-Z]+)', 'g') AS n(tag)
                      WHERE n.tag[1] <> ALL ('{BOOLEXPR,OPEXPR,DISTINCTEXPR,NULLIFEXPR,SCALARARRAYOPEXPR,FUNCEXPR,VAR,CONST,RELABELTYPE,NULLTEST,
                          BOOLEANTEST,CASE,CASEEXPR,WHEN,CASEWHEN,CASETESTEXPR,COALESCE,COALESCEEXPR,MINMAX,MINMAXEXPR,ARRAY,ARRAYEXPR,
                          SQLVALUEFUNCTION,
                          SUBLINK,PARAM,QUERY,RTE,RANGETBLENTRY,RTEPERMISSIONINFO,RANGETBLREF,ALIAS,FROMEXPR,JOINEXPR,TARGETENTRY,ROWCOMPARE,
                          ROWCOMPAREEXPR,SORTGROUPCLAUSE,SETOPERATIONSTMT,COMMONTABLEEXPR,AGGREF,RANGETBLFUNCTION}'))
             -- Of those, CURRENT_USER and its synonyms are the owner in a capture function too.
             OR EXISTS (SELECT FROM regexp_matches(v_tree, '\{SQLVALUEFUNCTION :op (\d+)', 'g') AS v(op) WHERE v.op[1] NOT IN ('9', '10', '11'))
             OR EXISTS (SELECT FROM regexp_matches(v_tree, ':(?:funcid|opfuncid) (\d+)', 'g') AS f(value)
                          JOIN pg_proc AS o ON o.oid = f.value[1]::oid WHERE o.provolatile <> 'i')
             THEN format('what policy "%s" shows depends on more than rows and their owner.', p_policy.polname)
        -- What the order of rows decides may differ from one look to the next: all but ANY and ALL of an array made of rows.
        WHEN v_tree ~ ':(limitCount|limitOffset) \{|:hasDistinctOn true'
             OR v_arrays <> (SELECT count(*) FROM regexp_matches(v_text, ' (ANY|ALL) \(ARRAY\( ?SELECT ', 'g'))
             OR EXISTS (SELECT FROM regexp_matches(v_tree, ':aggfnoid (\d+)', 'g') AS f(value) JOIN pg_proc AS o ON o.oid = f.value[1]::oid
                         WHERE o.proname <> ALL ('{count,min,max,bool_and,bool_or,every}')
                           AND NOT (o.proname = 'sum' AND o.proargtypes[0] IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)))
             THEN format('what the subquery of policy "%s" finds may depend on the order of rows.', p_policy.polname) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_problem IS 'Why what a policy shows is more than a matter of the row, its owner and the rows of other tables; NULL when it isn''t';

CREATE FUNCTION pgtrickle_changes.policy_reason(p_owner oid, p_relation oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A capture function evaluates the policies in sessions of others.  So nothing in them may run code of anybody's, as a table's owner
-- might make it (by a policy, by the expression of an index): those who write the source trust its owner already, and superusers.
DECLARE
    v_owner  oid := (SELECT c.relowner FROM pg_class AS c WHERE c.oid = p_relation);
    v_tables oid[] := ARRAY(SELECT t.relid FROM pgtrickle_changes.policy_tables(p_owner, p_relation) AS t);
BEGIN
    RETURN coalesce(
        (SELECT r.reason FROM unnest(p_relation || v_tables) AS j(relid)
          CROSS JOIN LATERAL pgtrickle_changes.policies_for(p_owner, j.relid) AS p
          CROSS JOIN LATERAL pgtrickle_changes.policy_problem(p) AS r(reason)
          WHERE r.reason IS NOT NULL AND pgtrickle_changes.row_security_applies(p_owner, j.relid) ORDER BY 1 LIMIT 1),
        (SELECT format('its policies read %s, %s', t.relid::regclass, w.why)
           FROM pgtrickle_changes.policy_tables(p_owner, p_relation) AS t
           JOIN pg_class AS c ON c.oid = t.relid
          CROSS JOIN LATERAL (SELECT CASE
                WHEN pgtrickle_changes.relation_kind(t.relid) <> 'table' OR c.relispartition
                     THEN format('whose kind is %s: only plain tables are watched for what policies show.',
                                 CASE WHEN c.relispartition THEN 'partition' ELSE replace(pgtrickle_changes.relation_kind(t.relid), '_', ' ') END)
                WHEN c.relpersistence <> 'p' THEN 'which isn''t permanent: no trigger tells when it is emptied.'
                WHEN c.relowner <> v_owner AND NOT (SELECT o.rolsuper FROM pg_authid AS o WHERE o.oid = c.relowner)
                     THEN 'which belongs to somebody else than the table itself.'
                WHEN NOT pgtrickle_changes.may_read(p_owner, t.relid, t.columns, false) THEN 'which the owner may not read.' END) AS w(why)
          WHERE w.why IS NOT NULL ORDER BY t.relid LIMIT 1));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_reason IS 'Why rows that policies show can''t be told when they are captured; NULL when they can';

CREATE FUNCTION pgtrickle_changes.policies_version(p_owner oid, p_relation oid, p_texts boolean) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET quote_all_identifiers = off
    SET "TimeZone" = 'UTC'
    SET "DateStyle" = 'ISO, MDY'
    SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET lc_monetary = 'C'
AS $$
-- What policies_same compares; with the texts where these name other tables, which may have other names by now.
BEGIN
    RETURN (SELECT coalesce(string_agg(concat_ws(' ', p.oid, p.xmin, p.ctid, CASE WHEN p_texts THEN pg_get_expr(p.polqual, p.polrelid) END), ',' ORDER BY p.oid), '')
              FROM pg_policy AS p WHERE p.oid IN (SELECT a.oid FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS a));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policies_version IS 'The versions of the policies that count when a role reads a table';

CREATE FUNCTION pgtrickle_changes.policy_filter(p_owner oid, p_relation oid, OUT predicate text, OUT columns smallint[], OUT version text,
    OUT may_fail boolean, OUT reason text, OUT has_subquery boolean)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
    SET "TimeZone" = 'UTC'
    SET "DateStyle" = 'ISO, MDY'
    SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET lc_monetary = 'C'
AS $$
-- Which rows of a table its policies let a role see, as a condition on a row: any permissive one, and all restrictive ones, as PostgreSQL
-- combines them.  Or the reason why that can't be told when a row is captured (docs/decisions/0012).  The text is evaluated in capture
-- functions, for rows that are no table's but bear its name.
DECLARE
    v_functions oid[];
BEGIN
    SELECT coalesce(array_agg(DISTINCT f.value[1]::oid), '{}') INTO v_functions
      FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p
     CROSS JOIN LATERAL regexp_matches(p.polqual::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS f(value);
    has_subquery := EXISTS (SELECT FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p WHERE p.polqual::text ~ '\{SUBLINK');
    reason := pgtrickle_changes.policy_reason(p_owner, p_relation);
    version := pgtrickle_changes.policies_version(p_owner, p_relation, has_subquery);
    SELECT coalesce(array_agg(DISTINCT d.refobjsubid::smallint), '{}') INTO columns
      FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p
      JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
                             AND d.refobjid = p_relation AND d.refobjsubid > 0;
    reason := coalesce(reason, (SELECT format('its policies use the generated column "%s", which isn''t stored.', a.attname) FROM pg_attribute AS a
                                 WHERE a.attrelid = p_relation AND a.attnum = ANY (columns) AND a.attgenerated = 'v' LIMIT 1));
    -- A subquery may find two rows where one is expected.
    may_fail := has_subquery OR EXISTS (SELECT FROM pg_proc AS o WHERE o.oid = ANY (v_functions) AND NOT o.proleakproof);
    SELECT concat_ws(' AND ',
               coalesce('(' || string_agg(format('(%s)', q.text), ' OR ' ORDER BY p.oid) FILTER (WHERE p.polpermissive AND q.text IS NOT NULL) || ')', 'false'),
               string_agg(format('(%s)', q.text), ' AND ' ORDER BY p.oid) FILTER (WHERE NOT p.polpermissive AND q.text IS NOT NULL))
      INTO predicate
      FROM pg_policy AS p CROSS JOIN LATERAL (SELECT pg_get_expr(p.polqual, p_relation) AS text) AS q
     WHERE p.oid IN (SELECT a.oid FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS a);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_filter IS 'Which rows of a table its policies let a role see, as a condition on a row; or why that is no condition';
