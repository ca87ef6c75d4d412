-- Facts for the compiler: a query in PostgreSQL's canonical text, and what it reads (docs/internals.md section 4).
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
    IF v_base <> p_type THEN
        -- A domain over a type of somebody's own: beside its base type, in which changes are stored, no operator finds it
        -- outside of a row, and rows of the two are never compared.  The hash of a row knows no domain over a range.
        hashable := hashable AND base IS NOT NULL AND v_type.typtype NOT IN ('r', 'm');
        orderable := orderable AND base IS NOT NULL;
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
                   'spelled', CASE WHEN t.base IS NULL THEN format_type(pgtrickle_changes.base_type(a.atttypid), NULL) END,
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

CREATE FUNCTION pgtrickle_changes.indexed_columns(p_relation oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The columns by whose value an index of all rows leads to them.
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(DISTINCT a.attname ORDER BY a.attname), '[]')
              FROM pg_index AS i
              JOIN pg_class AS c ON c.oid = i.indexrelid
              JOIN pg_am AS m ON m.oid = c.relam AND m.amname IN ('btree', 'hash')
              JOIN pg_opclass AS o ON o.oid = i.indclass[0] AND o.opcdefault
              JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attcollation = i.indcollation[0]
             WHERE i.indrelid = p_relation AND i.indisvalid AND i.indpred IS NULL);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.indexed_columns IS 'The columns with which an index of a relation begins';

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
-- Every relation in a view and in the views below it, and which columns are read; system views are left closed, and a composite type, whose
-- fields are read as columns are, has no rows.  What a view of another owner shows is read with that owner's rights, unless the view says
-- that its caller's count.
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
         WHERE d.refobjid <> v.view AND NOT EXISTS (SELECT FROM pg_class AS t WHERE t.oid = d.refobjid AND t.relkind = 'c')
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
