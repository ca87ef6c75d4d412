-- Whether what a maintenance names is still called so, and the indexes that it needs, and what it counts on, are there (decision 0010, "Names").
--
-- Its statements are texts: a column that was renamed is not found, and if another has its name by now, it is taken for it.  Looking at the
-- catalog in each statement would cost more than it is worth.  So a function that calls itself immutable looks, and PostgreSQL calls it when it
-- plans the expression that it is in; which it does again whenever a relation was altered that the expression mentions.  Granting and revoking
-- alters it, too, and whatever is done to a schema concerns all plans: so it is looked here as well whether the owner may write his stream table.

CREATE FUNCTION pgtrickle_changes.immediate_named(p_table pgtrickle.pgt_stream_tables) RETURNS TABLE (relid oid, attnum integer, names text[])
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT n.relid, n.attnum::integer, (pg_identify_object_as_address('pg_class'::regclass, n.relid, n.attnum)).object_names
          FROM (SELECT s.oid, 0 FROM unnest(pgtrickle_changes.immediate_sources(p_table.pgt_id)) AS s(oid)
                UNION
                SELECT d.source_relid, c.attnum FROM pgtrickle.pgt_dependencies AS d CROSS JOIN LATERAL pgtrickle_changes.read_columns(d.source_relid, d.columns_used) AS c
                 WHERE d.pgt_id = p_table.pgt_id AND d.source_relid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id))
                UNION
                SELECT p_table.pgt_relid, u.attnum FROM unnest(p_table.column_numbers) AS u(attnum) WHERE u.attnum > 0
                UNION
                SELECT c.oid, 0 FROM pgtrickle.pgt_plans AS p CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                  JOIN pg_class AS c ON c.relname = t.item ->> 'name' AND c.relnamespace = 'pgtrickle_changes'::regnamespace
                 WHERE p.pgt_id = p_table.pgt_id) AS n(relid, attnum)
         ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_named IS 'The relations and columns that a maintenance names, and what they are called';

CREATE FUNCTION pgtrickle_changes.immediate_renamed(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- By functions that see what is so now, whatever snapshot the transaction has.
BEGIN
    RETURN format('FROM (VALUES %s) AS v(relid, attnum, names) WHERE ((pg_catalog.pg_identify_object_as_address(%s, v.relid, v.attnum)).object_names'
                  ' OPERATOR(pg_catalog.=) v.names) IS NOT TRUE', (SELECT string_agg(format('(%s::pg_catalog.oid, %s, %L::pg_catalog.text[])', n.relid, n.attnum, n.names), ', ')
                                                                   FROM pgtrickle_changes.immediate_named(p_table) AS n), 'pg_class'::regclass::oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_renamed IS 'What a maintenance names and isn''t called so any more, as the end of a query';

CREATE FUNCTION pgtrickle_changes.immediate_unfindable(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- By its number, which is looked for behind the transaction's snapshot, and opens nothing that may be going; and if that is gone by its columns, for whoever rebuilds an index may put
-- another in its place.
BEGIN
    RETURN (
        SELECT CASE WHEN count(*) = 0 THEN 'false' ELSE format('EXISTS (SELECT FROM (VALUES %s) AS v(id, relid, columns) WHERE pg_catalog.pg_table_is_visible(v.id) IS NULL'
                      ' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i'
                      ' WHERE i.indrelid OPERATOR(pg_catalog.=) v.relid AND i.indkey::pg_catalog.text OPERATOR(pg_catalog.=) v.columns'
                      ' AND i.indisunique AND i.indisvalid AND i.indnullsnotdistinct))',
                      string_agg(DISTINCT format('(%s::pg_catalog.oid, %s::pg_catalog.oid, %L::pg_catalog.text)', i.indexrelid, i.indrelid, i.indkey::text), ', ')) END
          FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL (SELECT p_table.pgt_relid::oid, p.plan -> 'key'
                             UNION ALL
                             SELECT to_regclass(format('pgtrickle_changes.%I', s.item ->> 'name')), s.item -> 'key'
                               FROM jsonb_array_elements(p.plan -> 'states') AS s(item)) AS t(relid, key)
          JOIN pg_index AS i ON i.indrelid = t.relid AND to_jsonb(pgtrickle_changes.index_columns(i.indexrelid)) = t.key
         WHERE p.pgt_id = p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_unfindable IS 'Whether an index is gone by which a maintenance finds its rows, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_counted_on(p_table pgtrickle.pgt_stream_tables) RETURNS TABLE (relid oid, attname name, attnum smallint, is_certain boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Of what its query names, too: that it reads none of these may be because a key tells that they make no difference (rewrite/prune.py).
BEGIN
    RETURN QUERY
        SELECT s.oid, a.attname, a.attnum, a.attnotnull AND NOT pgtrickle_changes.may_hold_null(s.oid, a.attnum)
          FROM unnest(pgtrickle_changes.immediate_sources(p_table.pgt_id)) AS s(oid)
          JOIN pgtrickle.pgt_dependencies AS d ON d.pgt_id = p_table.pgt_id AND d.source_relid = s.oid
          JOIN pgtrickle_changes.relation_closure(p_table.definition_view) AS q ON q.relid = s.oid
          JOIN pg_attribute AS a ON a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
                                AND (a.attname = ANY (d.columns_used) OR a.attnum = ANY (q.columns));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_counted_on IS 'The columns of its sources that a query names, and whether they are never NULL';

CREATE FUNCTION pgtrickle_changes.immediate_altered(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- No function looks behind the snapshot for whether a column may be NULL.  But of the version that the snapshot shows xmax tells that there is a later one; it has 32 bits, so it is the one
-- of that number which is nearest to the snapshot's.  One that was undone stays there until it is vacuumed.
BEGIN
    RETURN coalesce((
        SELECT format(
                'EXISTS (SELECT FROM (VALUES %s) AS v(relid, attnum)'
                ' CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 AS xid) AS s'
                ' JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) v.relid AND a.attnum OPERATOR(pg_catalog.=) v.attnum'
                ' WHERE a.xmax OPERATOR(pg_catalog.<>) ''0''::pg_catalog.xid AND (pg_catalog.pg_xact_status((s.xid OPERATOR(pg_catalog.-) 2147483648 OPERATOR(pg_catalog.+)'
                ' ((a.xmax::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) (s.xid OPERATOR(pg_catalog.%%) 4294967296) OPERATOR(pg_catalog.+) 6442450944)'
                ' OPERATOR(pg_catalog.%%) 4294967296))::pg_catalog.text::pg_catalog.xid8) OPERATOR(pg_catalog.=) ''aborted'') IS NOT TRUE)',
                string_agg(format('(%s::pg_catalog.oid, %s::pg_catalog.int2)', c.relid, c.attnum), ', ' ORDER BY c.relid, c.attnum))
          FROM pgtrickle_changes.immediate_counted_on(p_table) AS c WHERE c.is_certain HAVING count(*) > 0), 'false');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_altered IS 'Whether a column of a source that was never NULL is being altered, or was since the snapshot, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_weakened(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What its plan may count on: keys of sources, of columns that it reads, and which of these are never NULL.  An index that is as good will do.
BEGIN
    RETURN (
        WITH
        used AS (SELECT c.* FROM pgtrickle_changes.immediate_counted_on(p_table) AS c),
        lost AS (
            SELECT format('EXISTS (SELECT FROM (VALUES %s) AS v(relid, attnum)'
                          ' JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) v.relid AND a.attnum OPERATOR(pg_catalog.=) v.attnum'
                          ' WHERE NOT a.attnotnull)',
                          string_agg(format('(%s::pg_catalog.oid, %s::pg_catalog.int2)', u.relid, u.attnum), ', ' ORDER BY u.relid, u.attnum)) AS condition
              FROM used AS u WHERE u.is_certain HAVING count(*) > 0
            UNION ALL
            SELECT format('EXISTS (SELECT FROM (VALUES %s) AS v(relid, columns)'
                          ' WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i'
                          ' WHERE i.indrelid OPERATOR(pg_catalog.=) v.relid AND i.indisunique AND i.indisvalid AND i.indimmediate'
                          ' AND i.indpred IS NULL AND i.indexprs IS NULL AND pg_catalog.pg_table_is_visible(i.indexrelid) IS NOT NULL'
                          ' AND (i.indkey::pg_catalog.int2[])[0:i.indnkeyatts OPERATOR(pg_catalog.-) 1] OPERATOR(pg_catalog.=) v.columns))',
                          string_agg(format('(%s::pg_catalog.oid, %L::pg_catalog.int2[])', k.relid, k.columns), ', ' ORDER BY k.relid, k.columns))
              FROM (SELECT f.relid, (SELECT array_agg(u.attnum ORDER BY n.place)
                                       FROM jsonb_array_elements_text(e.key) WITH ORDINALITY AS n(name, place)
                                       JOIN used AS u ON u.relid = f.relid AND u.attname = n.name
                                     HAVING count(*) = jsonb_array_length(e.key)) AS columns
                      FROM pgtrickle_changes.key_facts(ARRAY(SELECT u.relid FROM used AS u)) AS f CROSS JOIN LATERAL jsonb_array_elements(f.keys) AS e(key)) AS k
             WHERE k.columns IS NOT NULL HAVING count(*) > 0
        )
        SELECT coalesce('(' || string_agg(l.condition, ' OR ') || ')', 'false') FROM lost AS l);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_weakened IS 'Whether a key or a NOT NULL of a source is gone on which a maintenance may count, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_writable(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- NULL, where the table is gone, is no answer: then it isn't called what it was.
BEGIN
    RETURN format('(pg_catalog.has_schema_privilege(%s::pg_catalog.oid, ''USAGE'')', (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = p_table.pgt_relid))
           || (SELECT string_agg(format(' AND pg_catalog.has_table_privilege(%s::pg_catalog.oid, %L)', p_table.pgt_relid::oid, r), '')
                 FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS r) || ') IS NOT FALSE';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_writable IS 'Whether the owner may write his stream table, as an expression';

CREATE FUNCTION pgtrickle_changes.make_sound_function(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER FUNCTION %s IMMUTABLE', pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_sound', p_table.pgt_id), '', 'boolean',
        format(E'\nBEGIN\n    RETURN NOT EXISTS (SELECT %s) AND NOT %s AND NOT %s AND NOT %s AND %s;\nEND\n', pgtrickle_changes.immediate_renamed(p_table),
               pgtrickle_changes.immediate_unfindable(p_table), pgtrickle_changes.immediate_weakened(p_table), pgtrickle_changes.immediate_altered(p_table),
               pgtrickle_changes.immediate_writable(p_table))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_sound_function IS 'Makes the function that says, when a plan is made, whether all is called what it was, and what it needs is there and may be written';

CREATE FUNCTION pgtrickle_changes.immediate_planned_with(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Each relation is a constant of its own: PostgreSQL notes it as it reads the expression, and that it is never true when it plans it.
BEGIN
    RETURN (SELECT format('ARRAY[%s] IS NULL', string_agg(format('%L::pg_catalog.regclass', n.relid), ', ' ORDER BY n.relid))
              FROM (SELECT DISTINCT m.relid FROM pgtrickle_changes.immediate_named(p_table) AS m) AS n);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_planned_with IS 'What has PostgreSQL plan an expression anew when a relation was altered that a maintenance names, as an expression that is never true';

CREATE FUNCTION pgtrickle_changes.immediate_unsound(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('NOT pgtrickle_changes.maintain_%s_sound() OR %s', p_table.pgt_id, pgtrickle_changes.immediate_planned_with(p_table));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_unsound IS 'Whether a maintenance names what isn''t called so any more, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_sound(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN E'\n' || pgtrickle_changes.immediate_unless(p_table, pgtrickle_changes.immediate_unsound(p_table));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_sound IS 'What stops a maintenance that names what isn''t called so any more, as PL/pgSQL';
