-- Which rows a statement changed: those that the owner may see, their number, and, where there is one, the row itself (decision 0010, "A single row").

CREATE FUNCTION pgtrickle_changes.immediate_delta(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_images text;
    v_where  text := coalesce((SELECT ' WHERE ' || f.predicate FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f), '');
BEGIN
    SELECT coalesce(string_agg(format('%s::%s AS %I, ', coalesce(c.expression, format('r.%I', c.source_column)), c.type, c.buffer_column), ''
                               ORDER BY c.attnum), '')
      INTO v_images FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c;
    RETURN concat_ws(' UNION ALL ',
        CASE WHEN p_event IN ('del', 'upd') THEN 'SELECT ' || v_images || '-1 AS w FROM __pgt_old AS r' || v_where END,
        CASE WHEN p_event IN ('ins', 'upd') THEN 'SELECT ' || v_images || '1 AS w FROM __pgt_new AS r' || v_where END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_delta IS 'The rows that a statement changed and the owner may see, with their weight, in the columns and types of a change buffer';

CREATE FUNCTION pgtrickle_changes.immediate_count(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- How many rows changed in what is read, as an expression; it may say more than there are, but 0 only when there is none.
DECLARE
    v_keys  text;
    v_count text;
BEGIN
    IF p_event <> 'upd' THEN
        RETURN format('(SELECT pg_catalog.count(*) FROM %I)', CASE p_event WHEN 'ins' THEN '__pgt_new' ELSE '__pgt_old' END);
    END IF;
    SELECT string_agg(concat_ws(', ', CASE WHEN c.groupable THEN format('x.%I', c.buffer_column) END,
                                format(CASE c.identity WHEN 'scale' THEN 'pg_catalog.scale(x.%I)'
                                                       WHEN 'bits' THEN 'pg_catalog.float8send(x.%I)'
                                                       WHEN 'blanks' THEN 'pg_catalog.textin(pg_catalog.bpcharout(x.%I)) COLLATE pg_catalog."C"'
                                                       WHEN 'row' THEN 'ROW(x.%I)::pg_catalog.text COLLATE pg_catalog."C"'
                                                       WHEN 'text' THEN 'x.%I::pg_catalog.text' END, c.buffer_column)), ', '
                      ORDER BY c.attnum)
      INTO v_keys FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c;
    IF v_keys IS NULL THEN
        -- An update may bring a row into its owner's sight, or take it away.
        RETURN CASE WHEN pgtrickle_changes.row_security_applies(p_owner, p_source) THEN '(SELECT pg_catalog.count(*) FROM __pgt_new)' ELSE '0' END;
    END IF;
    v_count := format('(SELECT pg_catalog.count(*) FROM (SELECT FROM (%s) AS x GROUP BY %s HAVING pg_catalog.sum(x.w) OPERATOR(pg_catalog.<>) 0) AS g)',
                      pgtrickle_changes.immediate_delta(p_source, p_owner, p_columns, 'upd'), v_keys);
    -- That nothing changed which the owner may see is certain only under the policies of now.
    RETURN CASE WHEN pgtrickle_changes.row_security_applies(p_owner, p_source)
                THEN format('coalesce(nullif(%s, 0), CASE WHEN %s THEN 0 ELSE 1 END)', v_count, pgtrickle_changes.policies_hold(p_source, p_owner))
                ELSE v_count END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_count IS 'How many rows of a source a statement changed, as an SQL expression';

CREATE FUNCTION pgtrickle_changes.immediate_single(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Counting takes a statement.  So what tells that there is one row, which is less than counting, brings it along, and what is done for a single one needn't look for it: as __pgt_single, with
-- the values before ("o1", "o2" and so on) and after ("n1", "n2" and so on).  Whether an update changed the row is told by comparing these.  Any other number of rows is counted.
-- NULL itself where that won't do: rows may be hidden, or go to another partition, so that there needn't be an old one to each new one.
DECLARE
    v_columns integer := (SELECT count(*) FROM pgtrickle_changes.read_columns(p_source, p_columns));
    v_old     text;
    v_new     text;
BEGIN
    IF v_columns = 0 OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source AND c.relkind = 'p')
       OR EXISTS (SELECT FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f WHERE f.predicate IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    SELECT string_agg(format('d.%I AS o%s', c.buffer_column, c.place), ', ' ORDER BY c.place), string_agg(format('e.%I AS n%s', c.buffer_column, c.place), ', ' ORDER BY c.place)
      INTO v_old, v_new FROM (SELECT r.buffer_column, row_number() OVER (ORDER BY r.attnum) AS place FROM pgtrickle_changes.read_columns(p_source, p_columns) AS r) AS c;
    v_old := CASE WHEN p_event <> 'ins' THEN v_old END;
    v_new := CASE WHEN p_event <> 'del' THEN v_new END;
    RETURN format(E'SELECT %s INTO __pgt_single FROM %s WHERE NOT EXISTS (SELECT FROM %I OFFSET 1);\n    IF FOUND THEN\n        __pgt_rows := %s;\n    ELSE\n        __pgt_rows := %s;\n    END IF;',
        concat_ws(', ', v_old, v_new),
        concat_ws(' CROSS JOIN ', '(' || CASE WHEN p_event <> 'ins' THEN pgtrickle_changes.immediate_delta(p_source, p_owner, p_columns, 'del') END || ') AS d',
                                  '(' || CASE WHEN p_event <> 'del' THEN pgtrickle_changes.immediate_delta(p_source, p_owner, p_columns, 'ins') END || ') AS e'),
        CASE WHEN p_event = 'del' THEN '__pgt_old' ELSE '__pgt_new' END,
        CASE WHEN p_event = 'upd' THEN format('CASE WHEN pg_catalog.record_image_ne(ROW(%s), ROW(%s)) THEN 1 ELSE 0 END',
                                              (SELECT string_agg(format('__pgt_single.o%s', p), ', ' ORDER BY p) FROM generate_series(1, v_columns) AS p),
                                              (SELECT string_agg(format('__pgt_single.n%s', p), ', ' ORDER BY p) FROM generate_series(1, v_columns) AS p))
             ELSE '1' END, pgtrickle_changes.immediate_count(p_source, p_owner, p_columns, p_event));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_single IS 'What counts the rows that a statement changed, and keeps the row if there is one, as PL/pgSQL; or NULL, if that won''t do';

CREATE FUNCTION pgtrickle_changes.immediate_is_single(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Where the rows of an update are counted, each that changed counts twice, as an old and a new one; or several that differ in less do.
BEGIN
    RETURN CASE WHEN p_event <> 'upd' OR pgtrickle_changes.immediate_single(p_source, p_owner, p_columns, p_event) IS NOT NULL THEN '__pgt_rows OPERATOR(pg_catalog.=) 1'
                ELSE '__pgt_rows OPERATOR(pg_catalog.<=) 2 AND (SELECT pg_catalog.count(*) FROM (SELECT FROM __pgt_new LIMIT 2) AS l) OPERATOR(pg_catalog.=) 1' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_is_single IS 'Whether a statement changed one row, as an expression';
