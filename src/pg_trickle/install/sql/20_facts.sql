-- Facts for the compiler: a query in PostgreSQL's canonical text, and what it reads (docs/internals.md §4).
--
-- Gathered for all relations and all types of a request at once, by functions that keep their plans for the session.

CREATE FUNCTION pgtrickle_changes.base_type(p_type oid) RETURNS oid
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type oid := p_type;
    v_base oid := p_type;
BEGIN
    WHILE coalesce(v_base, 0) <> 0 LOOP
        v_type := v_base;
        SELECT t.typbasetype INTO v_base FROM pg_type AS t WHERE t.oid = v_type;
    END LOOP;
    RETURN v_type;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.base_type IS 'The type under a domain, or under a domain over a domain';

CREATE FUNCTION pgtrickle_changes.has_default_class(p_type oid, p_method name) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_base oid := pgtrickle_changes.base_type(p_type);
    v_type pg_type;
BEGIN
    IF EXISTS (SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod
                WHERE m.amname = p_method AND o.opcdefault
                  AND (o.opcintype = v_base
                       OR EXISTS (SELECT FROM pg_cast AS c WHERE c.castsource = v_base AND c.casttarget = o.opcintype
                                                             AND c.castmethod = 'b' AND c.castcontext = 'i'))) THEN
        RETURN true;
    END IF;
    SELECT t.* INTO v_type FROM pg_type AS t WHERE t.oid = v_base;
    CASE
        WHEN v_type.typtype IN ('e', 'm') THEN
            RETURN v_type.typtype = 'e' OR p_method = 'btree' OR pgtrickle_changes.has_default_class(
                (SELECT r.rngsubtype FROM pg_range AS r WHERE r.rngmultitypid = v_base), p_method);
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
COMMENT ON FUNCTION pgtrickle_changes.has_default_class IS 'Whether values of a type have an order (btree) or a hash: by an operator class of its own, or of what it is made of';

CREATE FUNCTION pgtrickle_changes.type_facts(p_type oid, p_collation oid, OUT base text, OUT identity text, OUT orderable boolean, OUT hashable boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- How values of a type are told apart: equal, scale, text or none.  Anything not known to be safe is compared as text too.
DECLARE
    v_base oid := pgtrickle_changes.base_type(p_type);
    v_type pg_type;
BEGIN
    SELECT t.* INTO v_type FROM pg_type AS t WHERE t.oid = v_base;
    base := CASE WHEN v_type.typnamespace = 'pg_catalog'::regnamespace AND v_type.typtype <> 'c' THEN v_type.typname END;
    orderable := pgtrickle_changes.has_default_class(v_base, 'btree');
    hashable := pgtrickle_changes.has_default_class(v_base, 'hash');
    IF v_base <> p_type AND base IS NULL AND v_type.typcategory = 'A' THEN
        -- A domain over an array of types of somebody's own: beside its base type, no operator finds it.
        hashable := false;
        orderable := false;
    END IF;
    identity := CASE
        WHEN NOT orderable THEN 'none'
        WHEN v_base = 'numeric'::regtype THEN 'scale'
        WHEN v_type.typcategory = 'S'
             AND NOT coalesce((SELECT c.collisdeterministic FROM pg_collation AS c WHERE c.oid = p_collation), true) THEN 'text'
        WHEN v_type.typtype = 'e'
             OR v_base IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, '"char"'::regtype,
                           'text'::regtype, 'varchar'::regtype, 'name'::regtype, 'bytea'::regtype, 'uuid'::regtype,
                           'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype,
                           'inet'::regtype, 'cidr'::regtype, 'macaddr'::regtype, 'macaddr8'::regtype, 'bit'::regtype, 'varbit'::regtype,
                           'pg_lsn'::regtype, 'xid8'::regtype, 'money'::regtype) THEN 'equal'
        -- Arrays that are equal have the same bounds.
        WHEN v_type.typelem <> 0 AND v_type.typsubscript = 'array_subscript_handler'::regproc
             AND (SELECT f.identity = 'equal' FROM pgtrickle_changes.type_facts(v_type.typelem, p_collation) AS f) THEN 'equal'
        ELSE 'text' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.type_facts IS 'How values of a type are told apart, ordered and hashed';

CREATE FUNCTION pgtrickle_changes.column_facts(p_relations oid[]) RETURNS TABLE (relid oid, columns jsonb)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
        WITH
        a AS MATERIALIZED (
            SELECT c.* FROM pg_attribute AS c WHERE c.attrelid = ANY (p_relations) AND c.attnum > 0 AND NOT c.attisdropped
        ),
        t AS MATERIALIZED (
            SELECT d.atttypid, d.attcollation, f.*
              FROM (SELECT DISTINCT a.atttypid, a.attcollation FROM a) AS d
             CROSS JOIN LATERAL pgtrickle_changes.type_facts(d.atttypid, d.attcollation) AS f
        )
        SELECT a.attrelid, jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'type', format_type(a.atttypid, a.atttypmod),
                   'type_oid', a.atttypid::bigint,
                   'base', t.base,
                   'not_null', a.attnotnull AND NOT pgtrickle_changes.may_hold_null(a.attrelid, a.attnum),
                   'identity', t.identity,
                   'orderable', t.orderable,
                   'hashable', t.hashable,
                   'collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END,
                   'buffer_column', CASE WHEN a.attname IN ('xid', 'seq', 'w') OR starts_with(a.attname, '__pgt_') THEN '__pgt_' || a.attnum ELSE a.attname END,
                   'scale', CASE WHEN t.base = 'numeric' AND a.atttypmod >= 4
                                 THEN greatest((((a.atttypmod - 4) & 2047) # 1024) - 1024, 0) END)
               ORDER BY a.attnum)
          FROM a JOIN t ON t.atttypid = a.atttypid AND t.attcollation = a.attcollation
         GROUP BY a.attrelid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.column_facts IS 'The columns of relations as a compile request lists them';

CREATE FUNCTION pgtrickle_changes.may_hold_null(p_relation oid, p_column smallint) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- PostgreSQL 18 lets a NOT NULL constraint stand although rows may break it; and rows of children need not keep to a parent's.
BEGIN
    RETURN EXISTS (SELECT FROM pg_class AS c JOIN pg_inherits AS i ON i.inhparent = c.oid WHERE c.oid = p_relation AND c.relkind = 'r')
        OR current_setting('server_version_num')::integer >= 180000 AND EXISTS (
        SELECT FROM pg_constraint AS k
         WHERE k.conrelid = p_relation AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[p_column]);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.may_hold_null IS 'Whether a column may hold NULL although it is declared NOT NULL';

CREATE FUNCTION pgtrickle_changes.key_facts(p_relations oid[]) RETURNS TABLE (relid oid, keys jsonb)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Unique indexes over plain columns whose rows can't repeat: primary key first.  An index of a table with children knows nothing of theirs.
BEGIN
    RETURN QUERY
        SELECT k.indrelid, jsonb_agg(k.columns ORDER BY k.indisprimary DESC, k.indexrelid)
          FROM (SELECT i.indrelid, i.indexrelid, i.indisprimary, jsonb_agg(a.attname ORDER BY u.place) AS columns
                  FROM pg_index AS i
                 CROSS JOIN LATERAL unnest(i.indkey, i.indclass, i.indcollation) WITH ORDINALITY AS u(attnum, opclass, ordering, place)
                  JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                  JOIN pg_opclass AS o ON o.oid = u.opclass
                 WHERE i.indrelid = ANY (p_relations) AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.indisexclusion
                   AND i.indpred IS NULL AND i.indexprs IS NULL AND u.place <= i.indnkeyatts
                   AND NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_inherits AS h ON h.inhparent = c.oid
                                    WHERE c.oid = i.indrelid AND c.relkind = 'r')
                 GROUP BY i.indexrelid
                HAVING bool_and(o.opcdefault AND u.ordering = a.attcollation
                                AND (i.indnullsnotdistinct OR a.attnotnull AND NOT pgtrickle_changes.may_hold_null(i.indrelid, a.attnum)))) AS k
         GROUP BY k.indrelid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.key_facts IS 'The unique keys of relations as a compile request lists them';

CREATE FUNCTION pgtrickle_changes.relations_below(p_relation oid) RETURNS TABLE (relid oid)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE below(relid) AS (
            SELECT p_relation
            UNION
            SELECT i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.relid
        )
        SELECT b.relid FROM below AS b;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.relations_below IS 'A relation and its partitions or children, at any depth';

CREATE FUNCTION pgtrickle_changes.relation_closure(p_view oid) RETURNS TABLE (relid oid, columns smallint[], below_view boolean, below_foreign_view boolean)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Every relation in a view and in the views below it, and which columns are read; system views are left closed.  What a view of another
-- owner shows is read with that owner's rights, unless the view says that its caller's count.
BEGIN
    RETURN QUERY
        WITH RECURSIVE v(view) AS (
            SELECT p_view
            UNION
            SELECT c.oid
              FROM v
              JOIN pg_rewrite AS r ON r.ev_class = v.view
              JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
              JOIN pg_class AS c ON c.oid = d.refobjid AND c.relkind = 'v' AND c.oid >= 16384
        )
        SELECT d.refobjid, coalesce(array_agg(DISTINCT d.refobjsubid::smallint) FILTER (WHERE d.refobjsubid > 0), '{}'),
               bool_or(v.view <> p_view),
               bool_or(w.relowner <> (SELECT p.relowner FROM pg_class AS p WHERE p.oid = p_view)
                       AND NOT EXISTS (SELECT FROM pg_options_to_table(w.reloptions) AS o
                                        WHERE o.option_name = 'security_invoker' AND o.option_value::boolean))
          FROM v
          JOIN pg_class AS w ON w.oid = v.view
          JOIN pg_rewrite AS r ON r.ev_class = v.view
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
         WHERE d.refobjid <> v.view
         GROUP BY d.refobjid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.relation_closure IS 'Every relation in a view and in the views below it, and which of its columns are read';

CREATE FUNCTION pgtrickle_changes.function_oids(p_view oid) RETURNS oid[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Functions, aggregates and operators' functions in the rules of a view and of the views below it, from the analysed trees: exact
-- where names could mean several.  A name in a tree can't be taken for one of its fields: its spaces are escaped.
BEGIN
    RETURN (
        WITH f AS MATERIALIZED (
            SELECT split_part(t.field, ' ', 1) AS name, split_part(t.field, ' ', 2) AS value,
                   split_part(lead(t.field) OVER (PARTITION BY r.oid ORDER BY t.place), ' ', 1) AS next
              FROM (SELECT p_view AS relid UNION SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c) AS v
              JOIN pg_rewrite AS r ON r.ev_class = v.relid AND r.rulename = '_RETURN'
             CROSS JOIN LATERAL string_to_table(r.ev_action::text, ' :') WITH ORDINALITY AS t(field, place)
        )
        SELECT coalesce(array_agg(DISTINCT o.oid ORDER BY o.oid), '{}')
          FROM (SELECT substring(f.value, '^\d+')::oid AS oid FROM f
                 WHERE f.name IN ('funcid', 'opfuncid', 'aggfnoid', 'winfnoid', 'inputfnoid', 'elemfuncid')
                UNION ALL
                -- A cast by way of text calls the input function of the type.
                SELECT t.typinput FROM f JOIN pg_type AS t ON t.oid = substring(f.value, '^\d+')::oid
                 WHERE f.name = 'resulttype' AND f.next = 'resultcollid') AS o
         WHERE o.oid <> 0);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.function_oids IS 'The functions, aggregates and operators'' functions that a view calls, and the views below it';

CREATE FUNCTION pgtrickle_changes.canonical_text(p_view oid) RETURNS text
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
-- With nothing but pg_catalog on the path every other name comes out qualified; and constants look the same to everybody.
BEGIN
    RETURN rtrim(pg_get_viewdef(p_view), '; ');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.canonical_text IS 'A view''s query with every name qualified';

CREATE FUNCTION pgtrickle_changes.relation_kind(p_relation oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
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
          FROM pg_class AS c WHERE c.oid = p_relation);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.relation_kind IS 'The kind of a relation as a compile request says it';

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
                   'buffer', pgtrickle_changes.buffer_name(c.oid, p_owner),
                   'rows', greatest(c.reltuples, 0),
                   'definition', CASE WHEN o.kind = 'view' AND o.reason IS NULL THEN pgtrickle_changes.canonical_text(c.oid) END,
                   'policy', CASE WHEN o.reason IS NULL AND pgtrickle_changes.row_security_applies(p_owner, c.oid)
                                  THEN (SELECT f.predicate FROM pgtrickle_changes.policy_filter(p_owner, c.oid) AS f) END,
                   'opaque', o.reason) ORDER BY c.oid), '[]')
          FROM (SELECT r.relid, r.columns, pgtrickle_changes.relation_kind(r.relid) AS kind,
                       pgtrickle_changes.opaque_reason(p_owner, r.relid, r.columns, r.below_view, r.below_foreign_view) AS reason
                  FROM pgtrickle_changes.relation_closure(p_view) AS r) AS o
          JOIN pg_class AS c ON c.oid = o.relid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
          LEFT JOIN pgtrickle_changes.column_facts(v_relations) AS a ON a.relid = c.oid
          LEFT JOIN pgtrickle_changes.key_facts(v_relations) AS k ON k.relid = c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.relation_facts IS 'The relations of a view as a compile request lists them';

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

CREATE FUNCTION pgtrickle_changes.compile_request(p_owner oid, p_view oid, p_id bigint, p_schema text, p_name text) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN jsonb_build_object(
        'format', 1,
        'id', p_id,
        'target', jsonb_build_object('schema', p_schema, 'name', p_name),
        'query', pgtrickle_changes.canonical_text(p_view),
        'columns', (SELECT c.columns FROM pgtrickle_changes.column_facts(ARRAY[p_view]) AS c),
        'relations', pgtrickle_changes.relation_facts(p_owner, p_view),
        'functions', pgtrickle_changes.function_facts(p_view));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.compile_request(oid, oid, bigint, text, text) IS 'What the compiler needs to know about a definition view';

CREATE FUNCTION pgtrickle_changes.type_versions(p_type oid) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- The catalog rows of a type, and of those that somebody made below it: under a domain, in an array, a range or a composite.
-- Labels begin with an e.
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
        SELECT 't' || t.oid || ':' || t.xmin FROM within AS w JOIN pg_type AS t ON t.oid = w.oid
        UNION ALL
        SELECT 'e' || e.oid || ':' || e.xmin FROM within AS w JOIN pg_enum AS e ON e.enumtypid = w.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.type_versions IS 'The versions of the catalog rows that make a type what it is';

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
            SELECT 'a' || a.attrelid || ':' || count(*) || ':' || sum(a.xmin::text::bigint)
              FROM pg_attribute AS a WHERE a.attrelid = ANY (s.watched_relations) AND a.attnum > 0 GROUP BY a.attrelid
            UNION ALL
            -- The columns that are read.  An expression that generates one may be new, which fires no trigger; so does the table
            -- become or cease to be a partition or a child, and was then perhaps written by way of its parent.
            SELECT 'u' || a.attrelid || ':' || sum(a.xmin::text::bigint)
              FROM pgtrickle.pgt_dependencies AS d JOIN pg_attribute AS a ON a.attrelid = d.source_relid
             WHERE d.pgt_id = p_id AND a.attnum > 0 AND (a.attname = ANY (d.columns_used) OR d.columns_used = '{}') GROUP BY a.attrelid
            UNION ALL
            -- The plan's text names their types, and a value's text may be a label.
            SELECT unnest(pgtrickle_changes.type_versions(u.atttypid))
              FROM (SELECT DISTINCT a.atttypid FROM pg_attribute AS a
                     WHERE a.attrelid = ANY (s.watched_relations) AND a.attnum > 0 AND a.atttypid >= 16384) AS u
            UNION ALL
            SELECT 'n' || n.oid || ':' || n.xmin FROM pg_namespace AS n
             WHERE n.oid IN (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = ANY (s.watched_relations)
                             UNION ALL SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = ANY (s.watched_functions))
            UNION ALL
            SELECT 'r' || r.oid || ':' || r.xmin FROM pg_rewrite AS r WHERE r.ev_class = ANY (s.watched_relations)
            UNION ALL
            SELECT 'p' || p.oid || ':' || p.xmin FROM pg_policy AS p WHERE p.polrelid = ANY (s.watched_relations)
            UNION ALL
            -- To whom they apply.
            SELECT concat_ws(':', 'p', c.oid, c.relforcerowsecurity, c.relowner) FROM pg_class AS c
             WHERE c.oid = ANY (s.watched_relations) AND c.relrowsecurity
            UNION ALL
            SELECT 'i' || i.indexrelid || ':' || i.xmin FROM pg_index AS i WHERE i.indrelid = ANY (s.watched_relations) AND i.indisunique
            UNION ALL
            SELECT 'f' || p.oid || ':' || p.xmin FROM pg_proc AS p WHERE p.oid = ANY (s.watched_functions)
            UNION ALL
            -- A new expression for a generated column changes its values, and no trigger sees that.  (A join would read all of pg_attribute.)
            SELECT 'f' || d.oid || ':' || d.xmin FROM pg_attrdef AS d
             WHERE d.adrelid = ANY (s.watched_relations)
               AND (SELECT a.attgenerated FROM pg_attribute AS a WHERE a.attrelid = d.adrelid AND a.attnum = d.adnum) <> ''
            UNION ALL
            SELECT 'o' || o.oid || ':' || o.xmin FROM pg_authid AS o WHERE o.oid = s.owner_oid
            UNION ALL
            SELECT 'o' || m.roleid || ':' || m.xmin FROM pg_auth_members AS m WHERE m.member = s.owner_oid
         ) AS f
         WHERE s.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.fingerprint(bigint) IS 'Changes when anything that the plan of a stream table rests on changes';
