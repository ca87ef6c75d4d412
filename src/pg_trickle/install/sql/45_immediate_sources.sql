-- What a maintenance reads, locked against whoever wants it for himself: its sources, and the tables that they are made from (decision 0010, "Sources before
-- turns"); and whether it was written anew since an older snapshot.

CREATE FUNCTION pgtrickle_changes.immediate_mention(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- True, which PostgreSQL finds when it plans the statement, so that the plan reads none of them; but it locks whatever a statement names each time before it takes up its plan.
BEGIN
    RETURN (SELECT format('(true%s)', string_agg(format(' OR EXISTS (SELECT FROM %s)', s.oid::regclass), '' ORDER BY s.oid))
              FROM unnest(pgtrickle_changes.immediate_sources(p_id)) AS s(oid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_mention IS 'What has PostgreSQL lock a stream table''s sources before it runs a statement, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_below(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who truncates a table has it before he comes to what stands on it.  A stream table's owner need not be able to name what its sources are made from: the engine locks it for him.
BEGIN
    RETURN CASE WHEN EXISTS (SELECT FROM pgtrickle_changes.immediate_bottom(p_id)) THEN
        format(E'IF NOT EXISTS (SELECT FROM pgtrickle_changes.turn_%1$s AS t WHERE t.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()) THEN\n'
               '            PERFORM pgtrickle_changes.maintain_%1$s_below();\n        END IF;\n        ', p_id)
        ELSE '' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_below IS 'What locks, before a turn is taken, what the sources are made from, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_locks(p_relations oid[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- In the order given.  In the engine's functions nothing is named that is others', unless it is still called so: a name may be that of a view of somebody's by now.
BEGIN
    RETURN (SELECT format(E'IF %s THEN\n                LOCK TABLE ONLY %s IN ACCESS SHARE MODE;\n            ELSE\n'
                          '                PERFORM pgtrickle_changes.lock_for_reading(%L::pg_catalog.oid[]);\n            END IF;',
                          string_agg(format('pg_catalog.to_regclass(%L) OPERATOR(pg_catalog.=) %s::pg_catalog.oid', t.name, t.oid), ' AND ' ORDER BY t.place),
                          string_agg(t.name, ', ' ORDER BY t.place), array_agg(t.oid ORDER BY t.place))
              FROM (SELECT c.oid, min(r.place) AS place, format('%I.%I', n.nspname, c.relname) AS name
                      FROM unnest(p_relations) WITH ORDINALITY AS r(oid, place) JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = c.relnamespace
                     GROUP BY c.oid, n.nspname, c.relname) AS t);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_locks IS 'What locks tables against those who want them for themselves, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_bottom_tables(p_id bigint) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT b.relid FROM pgtrickle_changes.immediate_bottom(p_id) AS b ORDER BY b.relid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_bottom_tables IS 'The tables from which IMMEDIATE sources of a stream table are maintained';

CREATE FUNCTION pgtrickle_changes.lock_for_reading(p_relations oid[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN SELECT c.oid FROM pg_class AS c WHERE c.oid = ANY (p_relations) AND c.relkind IN ('r', 'p') ORDER BY array_position(p_relations, c.oid) LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', v_table);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_for_reading IS 'Locks tables against those who want them for themselves';

CREATE FUNCTION pgtrickle_changes.immediate_unrewritten(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A source that was written anew since looks empty to an older snapshot (check_unrewritten).  Reading no row of the query locks what it reads, partitions too.
-- VACUUM FULL and CLUSTER keep the rows as they are, whoever wrote them; ALTER TABLE writes each as a new one, which the snapshot doesn't show.  So a row from before the snapshot
-- says that all are there.  Who may read only some columns can't ask for it.
BEGIN
    RETURN format($q$%1$s
    FOR __pgt_rows IN %2$s AS c ON c.oid OPERATOR(pg_catalog.=) b.relid
                WHERE c.relfilenode OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode LOOP
        __pgt_member := false;
        IF pg_catalog.has_table_privilege(__pgt_rows::pg_catalog.oid, 'SELECT') THEN
            EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM ONLY %%s AS t WHERE pg_catalog.age(t.xmin) OPERATOR(pg_catalog.>) $1)', __pgt_rows::pg_catalog.oid::pg_catalog.regclass) INTO __pgt_member
                USING pg_catalog.age(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.xid);
        END IF;
        IF NOT __pgt_member THEN
            %3$s
        END IF;
    END LOOP;
$q$, format('PERFORM FROM pgtrickle_changes.query_%s LIMIT 0;', p_id),
        format(CASE WHEN pgtrickle_changes.immediate_roots(p_id) = '{}'
                    THEN 'SELECT c.oid::pg_catalog.int8 FROM pg_catalog.unnest(%L::pg_catalog.oid[]) AS b(relid) JOIN pg_catalog.pg_class'
                    ELSE 'WITH RECURSIVE b(relid) AS (SELECT pg_catalog.unnest(%L::pg_catalog.oid[]) UNION SELECT i.inhrelid FROM b'
                         ' JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) b.relid) SELECT c.oid::pg_catalog.int8 FROM b JOIN pg_catalog.pg_class' END,
               pgtrickle_changes.immediate_sources(p_id)),
        pgtrickle_changes.immediate_again(p_id, 'A table that is read was rewritten or truncated since the snapshot.'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_unrewritten IS 'What says that a table was written anew since the snapshot, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_bottom(p_id bigint) RETURNS TABLE (relid oid, columns name[])
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the sources of a stream table are maintained from, in their order; what writes those writes it, by and by.
BEGIN
    RETURN QUERY
        WITH RECURSIVE above(pgt_id, depth) AS (
            SELECT p_id, 0
            UNION
            SELECT u.pgt_id, a.depth + 1 FROM above AS a JOIN pgtrickle.pgt_dependencies AS d USING (pgt_id)
              JOIN pgtrickle.pgt_stream_tables AS u ON u.pgt_relid = d.source_relid AND u.refresh_mode = 'IMMEDIATE' AND u.pgt_id <> p_id
             WHERE a.depth < 20
        )
        SELECT d.source_relid::oid, array_agg(DISTINCT g.name ORDER BY g.name)
          FROM (SELECT DISTINCT a.pgt_id FROM above AS a WHERE a.depth > 0) AS a
          JOIN pgtrickle.pgt_dependencies AS d USING (pgt_id)
          JOIN pg_class AS c ON c.oid = d.source_relid AND c.relkind IN ('r', 'p')
          JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
         CROSS JOIN LATERAL unnest(pgtrickle_changes.immediate_gated_columns(st, d.source_relid)) AS g(name)
         WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = d.source_relid)
         GROUP BY d.source_relid ORDER BY d.source_relid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_bottom IS 'The tables from which IMMEDIATE sources of a stream table are maintained, and the columns of each that count';
