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
           pgtrickle_changes.has_default_class(b.typid, 'btree') OR pgtrickle_changes.has_default_class(b.typid, 'hash')
      FROM needed AS n
      JOIN bases AS b USING (attnum)
      JOIN pg_type AS t ON t.oid = b.typid AND t.typtype <> 'd'
     ORDER BY n.attnum
$$;
COMMENT ON FUNCTION pgtrickle_changes.read_columns IS 'Columns of a source, and how a change buffer stores them';

CREATE FUNCTION pgtrickle_changes.capture_filter(p_source oid, p_owner oid, OUT predicate text, OUT columns smallint[], OUT version text, OUT may_fail boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    columns := '{}';
    may_fail := false;
    IF pgtrickle_changes.row_security_applies(p_owner, p_source) THEN
        -- No row at all, where a row alone can't tell: the plan doesn't have it captured, then.
        SELECT CASE WHEN f.reason IS NULL THEN f.predicate ELSE 'false' END, f.columns, f.version, f.may_fail INTO predicate, columns, version, may_fail
          FROM pgtrickle_changes.policy_filter(p_owner, p_source) AS f;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_filter IS 'Which changed rows the owner may see, where policies decide; NULL where they don''t';

CREATE FUNCTION pgtrickle_changes.policies_hold(p_source oid, p_owner oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The condition, as SQL, that what the owner may see of the source is decided by the policies of now, or by none if there are none.
-- Who owns the source may lift its policies, and a refresh does while it writes to a stream table.
DECLARE
    v_version text := (SELECT f.version FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f);
BEGIN
    IF v_version IS NULL THEN
        RETURN format('NOT pg_catalog.row_security_active(%s::pg_catalog.oid)', p_source);
    END IF;
    RETURN format(
        '(SELECT s.relrowsecurity FROM pg_catalog.pg_class AS s WHERE s.oid OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid)'
        ' AND (SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat_ws('' '', p.oid, p.xmin), '','' ORDER BY p.oid), '''')'
        ' FROM pg_catalog.pg_policy AS p WHERE p.polrelid OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid'
        ' AND (p.polcmd OPERATOR(pg_catalog.=) ''r'' OR p.polcmd OPERATOR(pg_catalog.=) ''*'')'
        ' AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS r(id)'
        ' WHERE r.id OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR pg_catalog.pg_has_role(r.id, ''USAGE'')))'
        ' OPERATOR(pg_catalog.=) %2$L', p_source, v_version);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policies_hold IS 'The condition, as SQL, that the owner sees of the source what he saw when it was last looked at';

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

CREATE FUNCTION pgtrickle_changes.capture_body(p_source oid, p_owner oid, p_buffer name, p_event text, p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The text of a capture function.  Every name is qualified and every operator spelled out, so that no setting
-- of the writer and no object of the owner can change its meaning.
DECLARE
    v_sequence  oid := pg_get_serial_sequence(format('pgtrickle_changes.%I', p_buffer), 'seq')::regclass::oid;
    v_rows      text := CASE p_event WHEN 'del' THEN '__pgt_old' ELSE '__pgt_new' END;
    v_columns   text;
    v_images    text;
    v_numbered  text;
    v_outputs   text;
    v_keys      text;
    v_count     bigint;
    v_intact    text := pgtrickle_changes.capture_state(p_source, p_owner, p_buffer);
    v_change    text;
    v_marker    text;
    v_next      text;
    v_filter    record := pgtrickle_changes.capture_filter(p_source, p_owner);
    v_where     text := coalesce(' WHERE ' || v_filter.predicate, '');
    v_trial     text := '';
BEGIN
    SELECT count(*),
           coalesce(string_agg(format(', %I', c.buffer_column), '' ORDER BY c.attnum), ''),
           coalesce(string_agg(format(', %s', coalesce(c.expression, format('r.%I', c.source_column))), '' ORDER BY c.attnum), ''),
           coalesce(string_agg(format(', %s AS c%s', coalesce(c.expression, format('r.%I', c.source_column)), c.attnum), ''
                               ORDER BY c.attnum), ''),
           coalesce(string_agg(CASE WHEN c.groupable THEN format(', x.c%s', c.attnum)
                                    -- Told apart by its text, and made from it again: no aggregate returns just any value.
                                    ELSE format(', pg_catalog.min(x.c%1$s::pg_catalog.text)::%2$s AS c%1$s', c.attnum, c.type) END, ''
                               ORDER BY c.attnum), ''),
           string_agg(concat_ws(', ', CASE WHEN c.groupable THEN format('x.c%s', c.attnum) END,
                                format(CASE c.identity WHEN 'scale' THEN 'pg_catalog.scale(x.c%s)'
                                                       WHEN 'bits' THEN 'pg_catalog.float8send(x.c%s)'
                                                       -- By its letters, whatever the column's collation takes for equal.
                                                       WHEN 'text' THEN 'x.c%s::pg_catalog.text COLLATE pg_catalog."C"' END, c.attnum)), ', '
                      ORDER BY c.attnum)
      INTO v_count, v_columns, v_images, v_numbered, v_outputs, v_keys
      FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c;
    -- One number a statement will do: a refresh can't come in between.  A scalar subquery runs for the first row only.
    v_next := '(SELECT pg_catalog.pg_current_xact_id()), __pgt.v_seq';
    v_marker := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w) OVERRIDING SYSTEM VALUE SELECT %s, 0::pg_catalog.int2', p_buffer, v_next);

    IF p_event = 'trunc' THEN
        v_change := v_marker;
    ELSIF p_event = 'upd' AND v_count = 0 AND v_filter.predicate IS NULL THEN
        v_change := 'NULL';
        v_intact := 'NULL';
    ELSIF p_mode = 'row' THEN
        v_change := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w%s) OVERRIDING SYSTEM VALUE ', p_buffer, v_columns);
        IF p_event IN ('del', 'upd') THEN
            v_change := v_change || format('SELECT %s, -1::pg_catalog.int2%s FROM (SELECT OLD.*) AS r%s', v_next, v_images, v_where);
        END IF;
        IF p_event = 'upd' THEN
            v_change := v_change || ' UNION ALL ';
        END IF;
        IF p_event IN ('ins', 'upd') THEN
            v_change := v_change || format('SELECT %s, 1::pg_catalog.int2%s FROM (SELECT NEW.*) AS r%s', v_next, v_images, v_where);
        END IF;
    ELSE
        v_change := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w%s) OVERRIDING SYSTEM VALUE ', p_buffer, v_columns);
        IF p_event = 'upd' THEN
            -- Rows in which nothing that anyone reads has changed cancel out.
            v_change := v_change || format(
                'SELECT %1$s, CASE WHEN g.n OPERATOR(pg_catalog.>) 0 THEN 1 ELSE -1 END::pg_catalog.int2%2$s'
                ' FROM (SELECT pg_catalog.sum(x.n) AS n, pg_catalog.generate_series(1::pg_catalog.int8, pg_catalog.abs(pg_catalog.sum(x.n)))%3$s'
                ' FROM (SELECT -1 AS n%4$s FROM __pgt_old AS r%6$s UNION ALL SELECT 1 AS n%4$s FROM __pgt_new AS r%6$s) AS x'
                ' GROUP BY %5$s HAVING pg_catalog.sum(x.n) OPERATOR(pg_catalog.<>) 0) AS g',
                v_next,
                (SELECT string_agg(format(', g.c%s', c.attnum), '' ORDER BY c.attnum)
                   FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c),
                v_outputs, v_numbered, coalesce(v_keys, '()'), v_where);
        ELSE
            v_change := v_change || format('SELECT %s, %s::pg_catalog.int2%s FROM %I AS r%s',
                v_next, CASE p_event WHEN 'del' THEN '-1' ELSE '1' END, v_images, v_rows, v_where);
        END IF;
    END IF;
    IF p_mode = 'statement' AND p_event <> 'trunc' AND v_intact <> 'NULL' THEN
        v_intact := format('(SELECT CASE WHEN EXISTS (SELECT FROM %I) THEN %s END)', v_rows, v_intact);
    END IF;
    IF v_filter.may_fail AND p_event <> 'trunc' THEN
        -- A policy may raise an error at rows that the owner would never have come across.  Without a write inside, the
        -- subtransaction takes no transaction id.
        v_trial := (SELECT format(E'    IF v_intact THEN\n        BEGIN\n            PERFORM %s;\n        EXCEPTION WHEN OTHERS THEN\n'
                                  '            v_intact := false;\n        END;\n    END IF;\n',
                                  string_agg(format('(SELECT pg_catalog.count(*) FROM %s AS r%s)', i.image, v_where), ', '))
                      FROM (SELECT CASE WHEN p_mode = 'row' THEN format('(SELECT %s.*)', w.word) ELSE '__pgt_' || lower(w.word) END AS image
                              FROM unnest(CASE p_event WHEN 'ins' THEN '{NEW}' WHEN 'del' THEN '{OLD}' ELSE '{OLD,NEW}' END::text[]) AS w(word)) AS i);
    END IF;

    RETURN format(E'\n'
        '%8$s'
        '<<__pgt>>\n'
        'DECLARE\n'
        '    v_intact pg_catalog.bool;\n'
        '    v_seq    pg_catalog.int8;\n'
        'BEGIN\n'
        '    IF current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%1$s::pg_catalog.oid)\n'
        '       OR NOT pg_catalog.has_schema_privilege(%6$s::pg_catalog.oid, ''USAGE'')\n'
        '       OR pg_catalog.has_table_privilege(pg_catalog.to_regclass(%2$L)::pg_catalog.oid, ''INSERT'') IS NOT TRUE THEN\n'
        '        RETURN NULL;\n'
        '    END IF;\n'
        -- The owner may lock his buffer, or spoil its sequence: then the change is missed, which is noted where he has no say, and the
        -- writer goes on.  Nothing is written inside, so the subtransaction takes no transaction id.
        '    BEGIN\n'
        '        LOCK TABLE %2$s IN ROW EXCLUSIVE MODE;\n'
        '        v_intact := %3$s;\n'
        '        IF v_intact IS NOT NULL THEN\n'
        '            v_seq := pg_catalog.nextval(%9$L::pg_catalog.regclass);\n'
        '        END IF;\n'
        '    EXCEPTION WHEN OTHERS THEN\n'
        '        INSERT INTO pgtrickle_changes.missed_changes (source_relid) VALUES (%10$s);\n'
        '        RETURN NULL;\n'
        '    END;\n'
        '%7$s'
        '    IF v_intact THEN\n'
        '        %4$s;\n'
        '    ELSIF NOT v_intact THEN\n'
        '        %5$s;\n'
        '    END IF;\n'
        '    RETURN NULL;\n'
        'END\n',
        p_owner, format('pgtrickle_changes.%I', p_buffer), v_intact, v_change, v_marker,
        'pgtrickle_changes'::regnamespace::oid, v_trial,
        -- Policies name the row's columns without more ado.
        CASE WHEN v_where <> '' THEN E'#variable_conflict use_column\n' ELSE '' END, v_sequence::text, p_source);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_body IS 'The body of a capture function';

CREATE FUNCTION pgtrickle_changes.capture_guard(p_function oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
-- A trigger's WHEN: true as long as the function is the one the engine made.  The writer's settings reach into the
-- text that pg_get_functiondef makes: all identifiers may be quoted, and a temporary type called "trigger" makes it
-- qualify the result type.  All four spellings are accepted, or a writer could switch capture off for himself.
DECLARE
    v_plain  text := pg_get_functiondef(p_function);
    v_quoted text;
BEGIN
    PERFORM set_config('quote_all_identifiers', 'on', true);
    v_quoted := pg_get_functiondef(p_function);
    RETURN format('pg_catalog.md5(pg_catalog.pg_get_functiondef(%s::pg_catalog.oid)) OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.text[])',
        p_function, ARRAY[
            md5(v_plain),
            md5(regexp_replace(v_plain, E'\n RETURNS trigger\n', E'\n RETURNS pg_catalog.trigger\n')),
            md5(v_quoted),
            md5(regexp_replace(v_quoted, E'\n RETURNS "trigger"\n', E'\n RETURNS "pg_catalog"."trigger"\n'))]);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_guard IS 'The WHEN of a capture''s trigger: its function is the one that the engine made';

CREATE FUNCTION pgtrickle_changes.capture_functions(p_buffer name) RETURNS name[]
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_prefix text := 'capture_' || substr(p_buffer, length('changes_') + 1);
BEGIN
    RETURN ARRAY[v_prefix || '_ins', v_prefix || '_upd', v_prefix || '_del', v_prefix || '_trunc']::name[];
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_functions IS 'The names of a capture''s functions, by event';

CREATE FUNCTION pgtrickle_changes.capture_triggers(p_buffer name, p_source oid, p_relation oid) RETURNS name[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What the triggers of a capture are called on the source, and on what is below it.  There, and where PostgreSQL itself makes copies
-- of them on partitions, the source is in the name: what is below may be a source too, and a clash would forbid its ATTACH.
DECLARE
    v_suffix text := substr(p_buffer, length(format('changes_%s', p_source)) + 1);
BEGIN
    IF p_relation <> p_source OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source AND c.relkind = 'p') THEN
        v_suffix := format('_%s%s', p_source, v_suffix);
    END IF;
    RETURN ARRAY['pg_trickle_cdc_ins' || v_suffix, 'pg_trickle_cdc_upd' || v_suffix,
                 'pg_trickle_cdc_del' || v_suffix, 'pg_trickle_cdc_trunc' || v_suffix]::name[];
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_triggers IS 'The names of a capture''s triggers on a relation, by event';

CREATE FUNCTION pgtrickle_changes.capture_relations(p_source oid) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The source, and the partitions or children below it, which can be written by themselves.  Nobody but their session sees temporary ones.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = p_source) THEN
        RETURN ARRAY[p_source];
    END IF;
    RETURN ARRAY(SELECT c.oid FROM pgtrickle_changes.relations_below(p_source) AS b JOIN pg_class AS c ON c.oid = b.relid
                  WHERE c.relpersistence <> 't' ORDER BY c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_relations IS 'The source, and the partitions or children below it, which can be written by themselves';

CREATE FUNCTION pgtrickle_changes.capture_stamp(p_source oid, p_buffer name, p_attnums smallint[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Changes whenever a trigger, a function, the buffer, the owner's rights on it, the name of a captured column, the expression
-- that generates it, the source's place below a parent, what is below it, a policy on it, or a subscription to it does.
DECLARE
    v_names     name[] := pgtrickle_changes.capture_functions(p_buffer);
    v_relations oid[] := pgtrickle_changes.capture_relations(p_source);
    v_functions oid[];
    v_versions  text;
BEGIN
    SELECT array_agg(p.oid), string_agg(concat_ws(' ', p.oid, p.xmin, p.proowner), ',' ORDER BY p.oid) INTO v_functions, v_versions
      FROM pg_proc AS p WHERE p.proname = ANY (v_names) AND p.pronamespace = 'pgtrickle_changes'::regnamespace;
    RETURN md5(concat_ws('|', v_relations::text, v_versions,
        (SELECT string_agg(concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
           FROM pg_trigger AS t WHERE t.tgrelid = ANY (v_relations) AND t.tgfoid = ANY (v_functions)),
        (SELECT concat_ws(' ', b.oid, b.relowner, b.relkind, b.relchecks, b.relhastriggers, b.relhasrules, b.relrowsecurity, b.relpersistence, b.relispartition,
                          has_schema_privilege(b.relowner, b.relnamespace, 'USAGE'),
                          has_table_privilege(b.relowner, b.oid, 'INSERT'),
                          (SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum)
                             FROM pg_attribute AS a WHERE a.attrelid = b.oid AND a.attnum > 0))
           FROM pg_class AS b
          WHERE b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace),
        (SELECT s.relnamespace FROM pg_class AS s WHERE s.oid = p_source),
        (SELECT string_agg(m.xid::text, ',') FROM pgtrickle_changes.missed_changes AS m
           JOIN pg_class AS b ON b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace AND b.relowner = m.owner_oid
          WHERE m.source_relid = p_source),
        (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), g.xmin), ',' ORDER BY a.attnum)
           FROM pg_attribute AS a
           LEFT JOIN pg_attrdef AS g ON g.adrelid = a.attrelid AND g.adnum = a.attnum AND a.attgenerated = 'v'
          WHERE a.attrelid = p_source AND a.attnum = ANY (p_attnums)),
        -- Who is written by way of a parent, or by logical replication, is captured row by row, if at all.
        (SELECT string_agg(concat_ws(' ', i.inhparent, i.xmin), ',' ORDER BY i.inhseqno) FROM pg_inherits AS i WHERE i.inhrelid = p_source),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid) FROM pg_policy AS p WHERE p.polrelid = p_source),
        (SELECT string_agg(s.srsubid::text, ',' ORDER BY s.srsubid) FROM pg_subscription_rel AS s WHERE s.srrelid = p_source)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_stamp IS 'The version of everything that a capture consists of';

CREATE FUNCTION pgtrickle_changes.capture_drift(p_source oid, p_owner oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
DECLARE
    v_capture pgtrickle.pgt_captures;
BEGIN
    SELECT c.* INTO v_capture FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner;
    IF NOT FOUND THEN
        RETURN 'nothing captures its changes';
    END IF;
    IF v_capture.stamp = pgtrickle_changes.capture_stamp(p_source, v_capture.buffer, v_capture.attnums) THEN
        RETURN NULL;
    END IF;
    RETURN coalesce(
        CASE WHEN EXISTS (SELECT FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = p_source AND m.owner_oid = p_owner)
             THEN format('change buffer "%s" was locked', v_capture.buffer) END,
        CASE WHEN NOT EXISTS (SELECT FROM pg_class AS c
                               WHERE c.oid = v_capture.buffer_relid AND c.relname = v_capture.buffer
                                 AND c.relnamespace = 'pgtrickle_changes'::regnamespace)
             THEN format('change buffer "%s" was dropped or moved', v_capture.buffer) END,
        (SELECT format('function "%s" was dropped or moved', f.name)
           FROM unnest(pgtrickle_changes.capture_functions(v_capture.buffer)) AS f(name)
          WHERE NOT EXISTS (SELECT FROM pg_proc AS p
                             WHERE p.proname = f.name AND p.pronamespace = 'pgtrickle_changes'::regnamespace)
          LIMIT 1),
        (SELECT format('trigger "%s" was %s', g.name, CASE WHEN t.oid IS NULL THEN 'dropped' ELSE 'disabled' END)
           FROM unnest(pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source)) AS g(name)
           LEFT JOIN pg_trigger AS t ON t.tgrelid = p_source AND t.tgname = g.name
          WHERE t.tgenabled IS DISTINCT FROM 'A'
          LIMIT 1),
        (SELECT format('function "%s" was altered', p.proname)
           FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
          WHERE t.tgrelid = p_source AND t.tgname = ANY (pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source))
            AND strpos(pg_get_triggerdef(t.oid), md5(pg_get_functiondef(p.oid))) = 0
          LIMIT 1),
        (SELECT format('column "%s" was renamed', o.name)
           FROM unnest(v_capture.attnums, v_capture.columns) AS o(attnum, name)
           LEFT JOIN pg_attribute AS a ON a.attrelid = p_source AND a.attnum = o.attnum
          WHERE a.attname IS DISTINCT FROM o.name
          LIMIT 1),
        'its triggers, its partitions or its change buffer were altered');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_drift IS 'NULL when changes of the source have been captured without a gap since the capture was made; else what is wrong';

CREATE FUNCTION pgtrickle_changes.capture_mode(p_source oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Statement triggers fire for the relation that a statement names: not for rows that it writes above or below that, nor for what
    -- logical replication applies.
    SELECT CASE WHEN pgtrickle_changes.setting('cdc_trigger_mode') = 'row' OR c.relkind = 'p'
                  OR EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid)
                  OR EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid)
                THEN 'row' ELSE 'statement' END
      FROM pg_class AS c WHERE c.oid = p_source
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_mode IS 'Whether a source is captured by statement or by row triggers';

CREATE FUNCTION pgtrickle_changes.sync_capture(p_source oid, p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source  text;
    v_columns text[];
    v_attnums smallint[];
    v_mode    text;
    v_capture pgtrickle.pgt_captures;
    v_drift   text;
    v_buffer  name;
    v_filter  text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_source
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_source;
    IF v_source IS NULL
       OR NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
                       WHERE d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner) THEN
        PERFORM pgtrickle_changes.drop_capture(p_source, p_owner);
        RETURN;
    END IF;

    FOR v_attempt IN 1..2 LOOP
        SELECT coalesce(array_agg(c.source_column ORDER BY c.attnum), '{}'), coalesce(array_agg(c.attnum ORDER BY c.attnum), '{}')
          INTO v_columns, v_attnums
          FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c;
        v_mode := pgtrickle_changes.capture_mode(p_source);
        v_filter := (SELECT f.predicate FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f);
        SELECT c.* INTO v_capture FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner;
        v_drift := CASE WHEN FOUND THEN pgtrickle_changes.capture_drift(p_source, p_owner) END;
        IF v_drift IS NULL AND v_capture.columns = v_columns AND v_capture.attnums = v_attnums AND v_capture.trigger_mode = v_mode
           AND v_capture.filter IS NOT DISTINCT FROM v_filter THEN
            RETURN;
        END IF;
        -- Waits for running writers and keeps new ones out: what is read afterwards and what is captured from now on
        -- join without a gap.
        IF v_attempt = 1 THEN
            EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', p_source::regclass);
        END IF;
    END LOOP;

    v_buffer := pgtrickle_changes.buffer_name(p_source, p_owner);
    IF v_capture.source_relid IS NULL AND to_regclass(format('pgtrickle_changes.%I', v_buffer)) IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relname = v_buffer AND c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relowner = p_owner) THEN
        PERFORM pgtrickle_changes.captured_meanwhile(p_source);
    END IF;
    IF v_capture.filter IS DISTINCT FROM v_filter AND v_capture.source_relid IS NOT NULL THEN
        v_drift := coalesce(v_drift, 'its row-level security was changed');
    END IF;
    IF v_drift IS NOT NULL AND to_regclass(format('pgtrickle_changes.%I', v_buffer)) IS NOT NULL THEN
        -- Whatever it holds is of no use any more, and its owner may no longer be allowed to see it, or have hung something on it.
        EXECUTE format('DROP TABLE pgtrickle_changes.%I CASCADE', v_buffer);
    END IF;
    DELETE FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = p_source AND m.owner_oid = p_owner;
    PERFORM pgtrickle_changes.sync_buffer(p_source, p_owner, v_buffer);
    PERFORM pgtrickle_changes.sync_triggers(p_source, p_owner, v_buffer, v_mode);

    INSERT INTO pgtrickle.pgt_captures AS c
           (source_relid, owner_oid, buffer, buffer_relid, sequence_relid, trigger_mode, columns, attnums, filter, stamp, since)
    VALUES (p_source, p_owner, v_buffer, format('pgtrickle_changes.%I', v_buffer)::regclass,
            pg_get_serial_sequence(format('pgtrickle_changes.%I', v_buffer), 'seq')::regclass, v_mode, v_columns, v_attnums, v_filter,
            pgtrickle_changes.capture_stamp(p_source, v_buffer, v_attnums), pg_current_xact_id())
        ON CONFLICT (source_relid, owner_oid) DO UPDATE
       SET buffer = excluded.buffer, buffer_relid = excluded.buffer_relid,
           sequence_relid = excluded.sequence_relid, trigger_mode = excluded.trigger_mode,
           columns = excluded.columns, attnums = excluded.attnums, filter = excluded.filter, stamp = excluded.stamp, since = excluded.since;

    -- Whoever reads what was not captured so far has to start afresh.
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true,
           reinit_reason = CASE WHEN v_drift IS NULL THEN format('columns of %s are captured anew', v_source)
                                ELSE format('changes of %s may be missing: %s', v_source, v_drift) END
      FROM pgtrickle.pgt_dependencies AS d
     WHERE d.pgt_id = st.pgt_id AND d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner
       AND st.is_populated AND NOT st.needs_reinit
       AND (v_capture.source_relid IS NULL OR v_drift IS NOT NULL OR EXISTS (
            SELECT FROM unnest(v_columns, v_attnums) AS n(name, attnum)
             WHERE n.name = ANY (d.columns_used)
               AND NOT EXISTS (SELECT FROM unnest(v_capture.columns, v_capture.attnums) AS o(name, attnum)
                                WHERE o.name = n.name AND o.attnum = n.attnum)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_capture IS 'Make the capture what the owner''s stream tables need, or drop it when none needs it';

CREATE FUNCTION pgtrickle_changes.captured_meanwhile(p_source oid) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Somebody else has taken the buffer's name since the plan was made, or since the snapshot.
BEGIN
    RAISE EXCEPTION 'could not serialize access to the capture of %', p_source::regclass
        USING ERRCODE = 'serialization_failure', DETAIL = 'Another owner began to capture it at the same moment.', HINT = 'Try again.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.captured_meanwhile IS 'Raises that another owner began to capture a source at the same moment';

CREATE FUNCTION pgtrickle_changes.sync_buffer(p_source oid, p_owner oid, p_buffer name) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table      text := format('pgtrickle_changes.%I', p_buffer);
    v_tablespace name := nullif(current_setting('default_tablespace'), '');
    v_item       record;
BEGIN
    IF to_regclass(v_table) IS NULL THEN
        -- Where the owner's own tables would go: nobody gets space by way of the engine that he may not use.
        IF v_tablespace IS NOT NULL AND NOT coalesce(has_tablespace_privilege(p_owner, (
               SELECT t.oid FROM pg_tablespace AS t WHERE t.spcname = v_tablespace), 'CREATE'), false) THEN
            PERFORM set_config('default_tablespace', '', true);
        END IF;
        EXECUTE format('CREATE TABLE %s (xid xid8 NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY, w smallint NOT NULL)'
            ' USING heap WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_scale_factor = 0,'
            ' autovacuum_vacuum_threshold = 10000)', v_table);
        PERFORM set_config('default_tablespace', coalesce(v_tablespace, ''), true);
        -- A histogram of the transactions of yesterday would make the planner expect no rows of today's.
        EXECUTE format('ALTER TABLE %s ALTER COLUMN xid SET STATISTICS 0', v_table);
        EXECUTE format('COMMENT ON TABLE %s IS %L', v_table,
            format('pg_trickle: changes of %s, captured for %I', p_source::regclass, pg_get_userbyid(p_owner)));
    END IF;

    -- A column that nobody reads any more goes; so does one whose name now means another column.
    FOR v_item IN
        SELECT a.attname
          FROM pg_attribute AS a
         WHERE a.attrelid = v_table::regclass AND a.attnum > 3 AND NOT a.attisdropped
           AND NOT EXISTS (SELECT FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c
                             JOIN pgtrickle.pgt_captures AS o ON o.source_relid = p_source AND o.owner_oid = p_owner
                            WHERE c.buffer_column = a.attname
                              AND o.attnums[array_position(o.columns, c.source_column::text)] = c.attnum
                              AND c.type = pgtrickle_changes.column_type(a.atttypid, a.atttypmod, a.attcollation))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP COLUMN %I CASCADE', v_table, v_item.attname);
    END LOOP;
    FOR v_item IN
        SELECT c.buffer_column, c.type
          FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c
         WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                            WHERE a.attrelid = v_table::regclass AND a.attname = c.buffer_column AND NOT a.attisdropped)
         ORDER BY c.attnum
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', v_table, v_item.buffer_column, v_item.type);
    END LOOP;

    IF NOT EXISTS (SELECT FROM pg_index AS i
                    WHERE i.indrelid = v_table::regclass AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = 1) THEN
        EXECUTE format('CREATE INDEX ON %s (xid)', v_table);
    END IF;
    EXECUTE format('ALTER TABLE %s OWNER TO %I', v_table, pg_get_userbyid(p_owner));
    IF NOT has_table_privilege(p_owner, v_table::regclass, 'INSERT') THEN
        EXECUTE format('GRANT ALL ON %s TO %I', v_table, pg_get_userbyid(p_owner));
    END IF;
    IF NOT has_schema_privilege(p_owner, 'pgtrickle_changes', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA pgtrickle_changes TO %I', pg_get_userbyid(p_owner));
    END IF;
    PERFORM pgtrickle_changes.revoke_strangers(v_table::regclass);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_buffer IS 'Gives a change buffer the columns, the index and the owner that it has to have';

CREATE FUNCTION pgtrickle_changes.revoke_strangers(p_relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Default privileges of the installing superuser must not open what belongs to the owner alone.
DECLARE
    v_grantee oid;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT g.grantee
          FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
         WHERE c.oid = p_relation AND g.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', p_relation,
                       CASE v_grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(v_grantee)) END);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.revoke_strangers IS 'Takes a relation from everybody but its owner';

CREATE FUNCTION pgtrickle_changes.sync_triggers(p_source oid, p_owner oid, p_buffer name, p_mode text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_events    CONSTANT text[] := ARRAY['ins', 'upd', 'del', 'trunc'];
    v_words     CONSTANT text[] := ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'];
    v_tables    CONSTANT text[] := ARRAY['NEW TABLE AS __pgt_new', 'OLD TABLE AS __pgt_old NEW TABLE AS __pgt_new',
                                         'OLD TABLE AS __pgt_old'];
    v_functions name[] := pgtrickle_changes.capture_functions(p_buffer);
    v_function  text;
    v_guard     text;
    v_changed   text;
    v_relation  regclass;
    v_trigger   name;
BEGIN
    PERFORM pgtrickle_changes.drop_triggers(p_source, p_buffer, p_mode = 'statement');
    IF p_mode = 'row' THEN
        -- Cast, or it would be a comparison column by column, and not of what is stored.
        SELECT format('ROW(%s)::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW(%s)::pg_catalog.record',
                      string_agg(format('OLD.%I', a.attname), ', ' ORDER BY a.attnum),
                      string_agg(format('NEW.%I', a.attname), ', ' ORDER BY a.attnum))
          INTO v_changed
          FROM pg_attribute AS a
         CROSS JOIN pgtrickle_changes.capture_filter(p_source, p_owner) AS f
          LEFT JOIN pgtrickle_changes.capture_columns(p_source, p_owner) AS c ON c.attnum = a.attnum
         WHERE a.attrelid = p_source AND (c.attnum IS NOT NULL OR a.attnum = ANY (f.columns))
        HAVING bool_and(c.expression IS NULL);
    END IF;

    FOR v_i IN 1..4 LOOP
        v_function := format('pgtrickle_changes.%I', v_functions[v_i]);
        EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
            ' SET search_path = pg_catalog, pg_temp SET lock_timeout = ''1s''%s AS %L',
            v_function,
            -- Rows of types without an equality of their own are told apart by their text.
            CASE WHEN v_events[v_i] = 'upd' AND p_mode = 'statement'
                  AND EXISTS (SELECT FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c WHERE c.identity = 'text')
                 THEN $q$ SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, YMD' SET "IntervalStyle" = 'postgres'$q$
                      || $q$ SET extra_float_digits = 3 SET bytea_output = 'hex' SET xmlbinary = 'base64'$q$
                 ELSE '' END,
            pgtrickle_changes.capture_body(p_source, p_owner, p_buffer, v_events[v_i], p_mode));
        EXECUTE format('ALTER FUNCTION %s() OWNER TO %I', v_function, pg_get_userbyid(p_owner));
        EXECUTE format('COMMENT ON FUNCTION %s() IS %L', v_function, format('pg_trickle: captures changes of %s', p_source::regclass));
        PERFORM pgtrickle_changes.close_function(format('%s()', v_function)::regprocedure);
        v_guard := pgtrickle_changes.capture_guard(format('%s()', v_function)::regprocedure);

        FOR v_relation IN
            -- Of a row trigger PostgreSQL makes copies on partitions itself.
            SELECT r.relid FROM unnest(pgtrickle_changes.capture_relations(p_source)) AS r(relid) JOIN pg_class AS c ON c.oid = r.relid
             WHERE r.relid = p_source OR v_events[v_i] = 'trunc' OR NOT c.relispartition
        LOOP
            v_trigger := (pgtrickle_changes.capture_triggers(p_buffer, p_source, v_relation))[v_i];
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s WHEN (%s) EXECUTE FUNCTION %s()',
                v_trigger, v_words[v_i], v_relation,
                CASE WHEN v_events[v_i] = 'trunc' THEN 'FOR EACH STATEMENT'
                     WHEN p_mode = 'row' THEN 'FOR EACH ROW'
                     ELSE format('REFERENCING %s FOR EACH STATEMENT', v_tables[v_i]) END,
                concat_ws(' AND ', CASE WHEN v_events[v_i] = 'upd' THEN v_changed END, v_guard),
                v_function);
            -- Also for a session that plays a replica: what it writes is in the table all the same.
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_relation, v_trigger);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_triggers IS 'Makes the functions and triggers of a capture';

CREATE FUNCTION pgtrickle_changes.drop_triggers(p_source oid, p_buffer name, p_keep_statement boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Drop the capture's triggers wherever they are (a detached partition keeps its own).  Statement triggers of the
-- source itself may stay to be replaced, which takes a weaker lock; row triggers have copies on partitions.
DECLARE
    v_item record;
BEGIN
    FOR v_item IN
        SELECT t.tgrelid::regclass AS relation, t.tgname
          FROM pg_trigger AS t
         WHERE t.tgparentid = 0
           AND t.tgname = ANY (pgtrickle_changes.capture_triggers(p_buffer, p_source, p_source)
                               || pgtrickle_changes.capture_triggers(p_buffer, p_source, 0))
           AND (t.tgrelid = p_source
                OR t.tgfoid IN (SELECT p.oid FROM pg_proc AS p
                                 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
                                   AND p.proname = ANY (pgtrickle_changes.capture_functions(p_buffer))))
           AND NOT (p_keep_statement AND t.tgrelid = p_source AND t.tgtype & 1 = 0)
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', v_item.tgname, v_item.relation);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_triggers IS 'Drops the triggers of a capture, wherever they are';

CREATE FUNCTION pgtrickle_changes.drop_capture(p_source oid, p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_buffer   name;
    v_function name;
BEGIN
    DELETE FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner
    RETURNING c.buffer INTO v_buffer;
    IF v_buffer IS NULL THEN
        RETURN;
    END IF;
    PERFORM pgtrickle_changes.drop_triggers(p_source, v_buffer, false);
    FOREACH v_function IN ARRAY pgtrickle_changes.capture_functions(v_buffer) LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_changes.%I()', v_function);
    END LOOP;
    EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.%I', v_buffer);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_capture IS 'Drops a capture: triggers, functions and buffer';
