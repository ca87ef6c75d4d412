-- Change capture: buffers, and the triggers that fill them.
--
-- A source's changes go into one buffer an owner, in the writer's transaction, by statement triggers whose functions
-- belong to the owner of the stream tables that read it.  Everything here is built by the engine from catalog facts.
--
-- The generated functions must never make a writer's statement fail, and never lose a change unnoticed:
--  * They do nothing unless they run as the owner they were made for, and the trigger's WHEN does not even call
--    a function that was altered since.  The stamp of the capture changes with either, and a refresh compares it.
--  * They name columns.  When a column was renamed, or has another type or expression now, they write a marker (w = 0)
--    in place of the change, which makes the next refresh repair the capture and recompute.  The same when the owner may not
--    read the source any more, or the source's policies are others than the function knows.
--  * The buffer is the owner's, who may do to it what he likes: then they leave it alone.

CREATE TABLE pgtrickle_changes.missed_changes (
    source_relid oid  NOT NULL,
    owner_oid    oid  NOT NULL DEFAULT to_regrole(quote_ident(CURRENT_USER)),
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id()
);
ALTER TABLE pgtrickle_changes.missed_changes REPLICA IDENTITY FULL;
COMMENT ON TABLE pgtrickle_changes.missed_changes IS 'Changes that could not be captured because their buffer was locked; written by capture functions, each for its owner alone';

CREATE FUNCTION pgtrickle_changes.buffer_name(p_source oid, p_owner oid) RETURNS name
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- The first owner gets the short name; others add their own oid.
    SELECT coalesce(
        (SELECT c.buffer FROM pgtrickle.pgt_captures AS c
          WHERE c.source_relid = p_source AND c.owner_oid = p_owner),
        (SELECT format('changes_%s_%s', p_source, p_owner)::name FROM pgtrickle.pgt_captures AS c
          WHERE c.buffer = format('changes_%s', p_source)),
        format('changes_%s', p_source)::name)
$$;
COMMENT ON FUNCTION pgtrickle_changes.buffer_name IS 'The name of the change buffer of a source for an owner';

CREATE FUNCTION pgtrickle_changes.capture_identity(p_type oid, p_collation oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- How to tell values apart that are equal but not the same, for the netting of an UPDATE: 'equal' needs nothing.
    SELECT CASE
        WHEN p_type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'bool'::regtype, 'uuid'::regtype,
                        'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'time'::regtype,
                        'bytea'::regtype, 'oid'::regtype, '"char"'::regtype, 'name'::regtype, 'money'::regtype,
                        'inet'::regtype, 'macaddr'::regtype, 'macaddr8'::regtype, 'xid8'::regtype, 'pg_lsn'::regtype)
          OR (SELECT t.typtype = 'e' FROM pg_type AS t WHERE t.oid = p_type)
          OR p_type IN ('text'::regtype, 'varchar'::regtype)
             AND (SELECT c.collisdeterministic FROM pg_collation AS c WHERE c.oid = p_collation) THEN 'equal'
        WHEN p_type = 'numeric'::regtype THEN 'scale'
        WHEN p_type IN ('float4'::regtype, 'float8'::regtype) THEN 'bits'
        WHEN p_type = 'bpchar'::regtype THEN 'blanks'
        -- A cast to text may be its owner's, and leave out what it likes.
        WHEN EXISTS (SELECT FROM pg_type AS t WHERE t.oid = p_type AND t.typnamespace <> 'pg_catalog'::regnamespace) THEN 'row'
        ELSE 'text' END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_identity IS 'How an UPDATE''s capture tells values of a type apart that are equal but not the same';

CREATE FUNCTION pgtrickle_changes.column_type(p_type oid, p_typmod integer, p_collation oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format_type(p_type, p_typmod) || coalesce((
        SELECT format(' COLLATE %I.%I', n.nspname, c.collname)
          FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
         WHERE c.oid = p_collation AND c.oid <> (SELECT t.typcollation FROM pg_type AS t WHERE t.oid = p_type)), '')
$$;
COMMENT ON FUNCTION pgtrickle_changes.column_type IS 'A column''s type and collation, as CREATE TABLE takes them';

CREATE FUNCTION pgtrickle_changes.capture_columns(p_source oid, p_owner oid)
    RETURNS TABLE (attnum smallint, source_column name, buffer_column name, type text, expression text,
                   identity text, groupable boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the buffer has to hold.
BEGIN
    RETURN QUERY SELECT c.* FROM pgtrickle_changes.read_columns(p_source, ARRAY(
        SELECT DISTINCT u.name FROM pgtrickle.pgt_dependencies AS d
          JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
         CROSS JOIN LATERAL unnest(d.columns_used) AS u(name)
         WHERE d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner)) AS c;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_columns IS 'The columns that a change buffer has to hold';

CREATE FUNCTION pgtrickle_changes.read_columns(p_source oid, p_columns text[])
    RETURNS TABLE (attnum smallint, source_column name, buffer_column name, type text, expression text,
                   identity text, groupable boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Columns of a source as they are captured, in the source's order.  A domain is stored as its base type: the domain's
    -- constraints are none of the buffer's business (NOT NULL would refuse the marker of a TRUNCATE), and must not run.
    -- A virtual generated column is not in a trigger's rows: its expression is, which may only use built-in functions.
    WITH RECURSIVE needed AS (
        SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attgenerated
          FROM pg_attribute AS a
         WHERE a.attrelid = p_source AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attname = ANY (p_columns)
    ), bases AS (
        SELECT n.attnum, n.atttypid AS typid, n.atttypmod AS typmod FROM needed AS n
        UNION ALL
        SELECT b.attnum, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
          FROM bases AS b JOIN pg_type AS t ON t.oid = b.typid
         WHERE t.typtype = 'd'
    )
    SELECT n.attnum, n.attname,
           CASE WHEN n.attname IN ('xid', 'seq', 'w') OR starts_with(n.attname, '__pgt_') THEN format('__pgt_%s', n.attnum)::name ELSE n.attname END,
           pgtrickle_changes.column_type(b.typid, b.typmod, n.attcollation),
           CASE WHEN n.attgenerated = 'v'
                THEN (SELECT format('(%s)', pg_get_expr(d.adbin, d.adrelid))
                        FROM pg_attrdef AS d WHERE d.adrelid = p_source AND d.adnum = n.attnum) END,
           pgtrickle_changes.capture_identity(b.typid, n.attcollation),
           -- What can only be hashed, such as xid, can't be grouped by together with what can only be sorted: it is told apart by its text.
           pgtrickle_changes.has_default_class(b.typid, 'btree')
      FROM needed AS n
      JOIN bases AS b USING (attnum)
      JOIN pg_type AS t ON t.oid = b.typid AND t.typtype <> 'd'
     ORDER BY n.attnum
$$;
COMMENT ON FUNCTION pgtrickle_changes.read_columns IS 'Columns of a source, and how a change buffer stores them';

CREATE FUNCTION pgtrickle_changes.capture_state(p_source oid, p_owner oid, p_buffer name) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The condition, as SQL, on which a change is captured.  NULL: the buffer isn't the plain table that the engine made any more, and what
-- hangs on it could make a writer's statement fail.  False: the source's columns, or what its owner may see of it, are others than the
-- function knows.  One look at pg_class and one at pg_attribute: it is done for every statement, or every row.
DECLARE
    v_buffer  oid := format('pgtrickle_changes.%I', p_buffer)::regclass;
    v_columns text;
    v_count   bigint;
    v_xids    text[];
    v_last    smallint;
BEGIN
    SELECT string_agg(format('a.attnum OPERATOR(pg_catalog.=) %s::pg_catalog.int2 AND a.attname OPERATOR(pg_catalog.=) %L::pg_catalog.name'
                             ' AND a.atttypid OPERATOR(pg_catalog.=) %s::pg_catalog.oid AND a.atttypmod OPERATOR(pg_catalog.=) %L::pg_catalog.int4',
                             s.attnum, s.attname, s.atttypid, s.atttypmod)
                      || CASE WHEN c.expression IS NULL THEN '' ELSE format(
                             ' AND (SELECT pg_catalog.format(''(%%s)'', pg_catalog.pg_get_expr(d.adbin, d.adrelid)) FROM pg_catalog.pg_attrdef AS d'
                             ' WHERE d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum)'
                             ' OPERATOR(pg_catalog.=) %L', c.expression) END, ' OR ' ORDER BY s.attnum),
           count(*)
      INTO v_columns, v_count
      FROM pg_attribute AS s
     CROSS JOIN pgtrickle_changes.capture_filter(p_source, p_owner) AS f
      LEFT JOIN pgtrickle_changes.capture_columns(p_source, p_owner) AS c ON c.attnum = s.attnum
     WHERE s.attrelid = p_source AND (c.attnum IS NOT NULL OR s.attnum = ANY (f.columns));
    SELECT array_agg(DISTINCT b.xmin::text), count(*) INTO v_xids, v_last FROM pg_attribute AS b WHERE b.attrelid = v_buffer AND b.attnum > 0;
    RETURN format(
        '(SELECT CASE WHEN b.relkind OPERATOR(pg_catalog.=) ''r'' AND b.relpersistence OPERATOR(pg_catalog.=) ''p'''
        ' AND b.relchecks OPERATOR(pg_catalog.=) 0 AND NOT b.relhastriggers AND NOT b.relhasrules AND NOT b.relrowsecurity AND NOT b.relispartition'
        ' AND b.relnatts OPERATOR(pg_catalog.=) %8$s THEN'
        ' (SELECT CASE WHEN pg_catalog.bool_and(a.attrelid OPERATOR(pg_catalog.<>) %1$s::pg_catalog.oid OR a.xmin OPERATOR(pg_catalog.=) ANY (%2$L::pg_catalog.xid[])) THEN'
        ' pg_catalog.count(*) FILTER (WHERE a.attrelid OPERATOR(pg_catalog.=) %3$s::pg_catalog.oid AND (%4$s)) OPERATOR(pg_catalog.=) %5$s AND %6$s END'
        ' FROM pg_catalog.pg_attribute AS a WHERE a.attrelid OPERATOR(pg_catalog.=) ANY (''{%1$s,%3$s}''::pg_catalog.oid[])'
        ' AND a.attnum OPERATOR(pg_catalog.>) 0 AND a.attnum OPERATOR(pg_catalog.<=) %7$s) END'
        ' FROM pg_catalog.pg_class AS b WHERE b.oid OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid)',
        v_buffer, v_xids, p_source, coalesce(v_columns, 'false'), v_count, pgtrickle_changes.capture_is_allowed(p_source, p_owner),
        greatest(v_last, (SELECT max(s.attnum) FROM pg_attribute AS s WHERE s.attrelid = p_source)), v_last);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_state IS 'The condition, as SQL, on which a change is captured; NULL when the buffer isn''t what the engine made';

CREATE FUNCTION pgtrickle_changes.capture_is_allowed(p_source oid, p_owner oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text;
BEGIN
    SELECT string_agg(format('pg_catalog.has_column_privilege(%s::pg_catalog.oid, %s::pg_catalog.int2, ''SELECT'')', p_source, c.attnum), ' AND ')
      INTO v_columns FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c;
    -- A schema that is gone, because the table has moved, is none that he lacks a right on: the stamp tells of that.
    RETURN format('pg_catalog.has_schema_privilege(%s::pg_catalog.oid, ''USAGE'') IS NOT FALSE'
                  ' AND (pg_catalog.has_table_privilege(%s::pg_catalog.oid, ''SELECT'') OR %s) AND %s',
                  (SELECT s.relnamespace FROM pg_class AS s WHERE s.oid = p_source), p_source,
                  coalesce(v_columns, format('pg_catalog.has_any_column_privilege(%s::pg_catalog.oid, ''SELECT'')', p_source)),
                  pgtrickle_changes.policies_hold(p_source, p_owner));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_is_allowed IS 'The condition, as SQL, that the owner may see what is about to be captured';
