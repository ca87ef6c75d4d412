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

CREATE FUNCTION pgtrickle_changes.policy_filter(p_owner oid, p_relation oid, OUT predicate text, OUT columns smallint[], OUT version text,
    OUT may_fail boolean, OUT reason text)
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
-- combines them.  Or the reason why a row alone can't tell: then the row's changes can't be captured for that role
-- (docs/decisions/0007).  The text is evaluated in capture functions, for rows that are no table's.
DECLARE
    v_functions oid[];
BEGIN
    SELECT coalesce(array_agg(DISTINCT f.value[1]::oid), '{}') INTO v_functions
      FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p
     CROSS JOIN LATERAL regexp_matches(p.polqual::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS f(value);
    SELECT CASE
        WHEN p.polqual::text ~ '\{SUBLINK' THEN format('policy "%s" has a subquery: what it shows changes with other tables.', p.polname)
        WHEN p.polqual::text ~ ':varattno (0|-\d)' THEN format('policy "%s" uses a whole row or a system column.', p.polname)
        WHEN EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.deptype = 'n'
                        AND NOT (d.refclassid = 'pg_class'::regclass AND d.refobjid = p_relation))
             THEN format('policy "%s" uses a function, a type or an operator that isn''t PostgreSQL''s own.', p.polname)
        WHEN EXISTS (SELECT FROM regexp_matches(p.polqual::text, '\{([A-Z]+)', 'g') AS n(tag)
                      WHERE n.tag[1] <> ALL ('{BOOLEXPR,OPEXPR,DISTINCTEXPR,NULLIFEXPR,SCALARARRAYOPEXPR,FUNCEXPR,VAR,CONST,RELABELTYPE,NULLTEST,
                          BOOLEANTEST,CASE,CASEEXPR,WHEN,CASEWHEN,CASETESTEXPR,COALESCE,COALESCEEXPR,MINMAX,MINMAXEXPR,ARRAY,ARRAYEXPR,
                          SQLVALUEFUNCTION}'))
             -- Of those, CURRENT_USER and its synonyms are the owner in a capture function too.
             OR EXISTS (SELECT FROM regexp_matches(p.polqual::text, '\{SQLVALUEFUNCTION :op (\d+)', 'g') AS v(op) WHERE v.op[1] NOT IN ('9', '10', '11'))
             OR EXISTS (SELECT FROM regexp_matches(p.polqual::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS f(value)
                          JOIN pg_proc AS o ON o.oid = f.value[1]::oid WHERE o.provolatile <> 'i')
             THEN format('what policy "%s" shows depends on more than the row and its owner.', p.polname)
        END INTO reason
      FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p
     ORDER BY 1 NULLS LAST LIMIT 1;
    SELECT coalesce(array_agg(DISTINCT d.refobjsubid::smallint), '{}') INTO columns
      FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS p
      JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
                             AND d.refobjid = p_relation AND d.refobjsubid > 0;
    reason := coalesce(reason, (SELECT format('its policies use the generated column "%s", which isn''t stored.', a.attname) FROM pg_attribute AS a
                                 WHERE a.attrelid = p_relation AND a.attnum = ANY (columns) AND a.attgenerated = 'v' LIMIT 1));
    may_fail := EXISTS (SELECT FROM pg_proc AS o WHERE o.oid = ANY (v_functions) AND NOT o.proleakproof);
    SELECT concat_ws(' AND ',
               coalesce('(' || string_agg(format('(%s)', q.text), ' OR ' ORDER BY p.oid) FILTER (WHERE p.polpermissive AND q.text IS NOT NULL) || ')', 'false'),
               string_agg(format('(%s)', q.text), ' AND ' ORDER BY p.oid) FILTER (WHERE NOT p.polpermissive AND q.text IS NOT NULL)),
           coalesce(string_agg(concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid), '')
      INTO predicate, version
      FROM pg_policy AS p CROSS JOIN LATERAL (SELECT pg_get_expr(p.polqual, p_relation) AS text) AS q
     WHERE p.oid IN (SELECT a.oid FROM pgtrickle_changes.policies_for(p_owner, p_relation) AS a);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_filter IS 'Which rows of a table its policies let a role see, as a condition on a row; or why that is no condition';
