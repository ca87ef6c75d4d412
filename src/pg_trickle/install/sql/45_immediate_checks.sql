-- What a maintenance checks before it does anything: it runs with the owner's rights, on rows that PostgreSQL checks no privilege on.

CREATE FUNCTION pgtrickle_changes.immediate_may(p_table pgtrickle.pgt_stream_tables, p_columns boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the owner must be allowed still: transition tables show every row, and PostgreSQL checks no privilege on them.
BEGIN
    RETURN concat_ws(' AND ',
        (SELECT string_agg(format('pg_catalog.has_schema_privilege(%s::pg_catalog.oid, ''USAGE'')', n.oid), ' AND ' ORDER BY n.oid)
           FROM (SELECT DISTINCT c.relnamespace AS oid FROM pg_class AS c WHERE c.oid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id))) AS n),
        (SELECT string_agg(format('(pg_catalog.has_table_privilege(%s::pg_catalog.oid, ''SELECT'')%s)', c.oid, CASE WHEN p_columns THEN
                    (SELECT ' OR ' || string_agg(format('pg_catalog.has_column_privilege(%s::pg_catalog.oid, %s::pg_catalog.int2, ''SELECT'')',
                                                        c.oid, r.attnum), ' AND ')
                       FROM pgtrickle_changes.read_columns(c.oid, d.columns_used) AS r) END), ' AND ' ORDER BY c.oid)
           FROM pgtrickle.pgt_dependencies AS d JOIN pg_class AS c ON c.oid = d.source_relid
          WHERE d.pgt_id = p_table.pgt_id AND c.oid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_may IS 'Whether the owner may read the sources, as an expression; by whole tables, or by the columns that are read';

CREATE FUNCTION pgtrickle_changes.immediate_hidden(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What is forced on the owner of the stream table itself would hide its rows from the maintenance.
BEGIN
    RETURN (SELECT string_agg(format('(%s) IS NOT TRUE', pgtrickle_changes.policies_hold(s.oid, p_table.owner_oid)), ' OR ' ORDER BY s.oid)
              FROM unnest(pgtrickle_changes.immediate_sources(p_table.pgt_id)) AS s(oid))
           || format(' OR pg_catalog.row_security_active(%s::pg_catalog.oid)', p_table.pgt_relid::oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hidden IS 'Whether row-level security shows the owner other rows than when the stream table was made, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_trappable(p_table pgtrickle.pgt_stream_tables) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT c.oid FROM pg_class AS c WHERE c.oid = p_table.pgt_relid
                 UNION SELECT c.oid FROM pg_class AS c JOIN pgtrickle.pgt_plans AS p ON p.pgt_id = p_table.pgt_id
                  CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname = t.item ->> 'name');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_trappable IS 'The tables that a maintenance writes and that may have triggers of the owner''s';

CREATE FUNCTION pgtrickle_changes.immediate_trapped(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        RETURN 'false';
    END IF;
    -- There a deferred trigger runs as whoever commits.
    RETURN format('EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[]) AND t.tgdeferrable AND NOT t.tgisinternal)',
                  pgtrickle_changes.immediate_trappable(p_table));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_trapped IS 'Whether a trigger of the owner''s could run as somebody else, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_inherited(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Or it has come to inherit from another, or is a partition: statements that name that one write it, too.  Partitions of a source are another matter: what writes them has triggers of ours, or is
-- found out by those of the tree.
BEGIN
    RETURN coalesce((
        SELECT format('EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent OPERATOR(pg_catalog.=) ANY (%1$L::pg_catalog.oid[]) OR h.inhrelid OPERATOR(pg_catalog.=) ANY (%1$L::pg_catalog.oid[]))',
                      array_agg(c.oid ORDER BY c.oid))
          FROM unnest(pgtrickle_changes.immediate_sources(p_table.pgt_id)) AS s(oid) JOIN pg_class AS c ON c.oid = s.oid
         WHERE c.relkind = 'r' HAVING count(*) > 0), 'false');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_inherited IS 'Whether tables have come to inherit from a source, or a source from others, whose writers fire no trigger of ours, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_lost(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('pg_catalog.to_regclass(%L) IS DISTINCT FROM %s::pg_catalog.regclass', format('%I.%I', p_table.pgt_schema, p_table.pgt_name),
                  p_table.pgt_relid::oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_lost IS 'Whether the stream table was dropped, or has another name by now, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_unless(p_table pgtrickle.pgt_stream_tables, p_condition text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The function is the owner's, who may declare it immutable: but for what it is given, which no plan knows, it would be called when a plan is made, and never again.
BEGIN
    RETURN format(E'    IF %s THEN\n        IF pgtrickle_changes.maintain_%s_check(pg_catalog.pg_backend_pid()) THEN\n            RETURN NULL;\n        END IF;\n    END IF;\n', p_condition, p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_unless IS 'What says why a maintenance may not go on, or ends it, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_checks(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- At the head of every maintenance, as short as it can be: each statement compares this text, and why not is told elsewhere.  Most often it is known since its plan was made
-- that nothing can be wrong.
DECLARE
    v_trapped text := nullif(pgtrickle_changes.immediate_trapped(p_table), 'false');
BEGIN
    RETURN format(E'\n    IF NOT pgtrickle_changes.maintain_%s_firm() OR %s THEN\n%s    END IF;\n', p_table.pgt_id, pgtrickle_changes.immediate_planned_with(p_table),
        pgtrickle_changes.immediate_unless(p_table, concat_ws(' OR ', pgtrickle_changes.immediate_lost(p_table),
            format('NOT (%s)', pgtrickle_changes.immediate_may(p_table, false)), pgtrickle_changes.immediate_hidden(p_table), v_trapped,
            nullif(pgtrickle_changes.immediate_inherited(p_table), 'false'))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_checks IS 'What every maintenance has to check first, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_is_firm(p_owner oid, p_stream_table oid, p_name text, p_sources oid[], p_written oid[]) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What can change by nothing but an alteration of these relations, or of a schema, upon which PostgreSQL makes plans anew: nothing is hidden from anybody, what the owner may read is granted
-- to himself or to everybody (a role is left, or loses an attribute, unnoticed), nothing inherits from a source nor a source from anything, and no trigger is deferrable.  Volatile, for it must see what is so now; an older snapshot doesn't show that.
BEGIN
    RETURN current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
       AND to_regclass(p_name) IS NOT DISTINCT FROM p_stream_table::regclass
       AND cardinality(p_sources) = (
           SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = ANY (p_sources) AND c.relkind = 'r' AND NOT c.relrowsecurity
              AND EXISTS (SELECT FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a WHERE a.grantee IN (0, p_owner) AND a.privilege_type = 'SELECT')
              AND EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a WHERE a.grantee IN (0, p_owner) AND a.privilege_type = 'USAGE'))
       AND NOT EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhparent = ANY (p_sources) OR h.inhrelid = ANY (p_sources))
       AND EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_stream_table AND NOT c.relrowsecurity)
       AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = ANY (p_written) AND t.tgdeferrable AND NOT t.tgisinternal);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_is_firm IS 'Whether what every maintenance has to check holds for as long as no relation and no schema is altered';

CREATE FUNCTION pgtrickle_changes.make_firm_function(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The engine's own: it stands for what protects others from the owner.  Immutable, as "sound" is; where policies were considered it stays in doubt.
DECLARE
    v_sources  oid[] := pgtrickle_changes.immediate_sources(p_table.pgt_id);
    v_function regprocedure;
BEGIN
    v_function := pgtrickle_changes.make_generated_function(p_table, format('maintain_%s_firm', p_table.pgt_id), '', 'boolean',
        format(E'\nBEGIN\n    RETURN %s;\nEND\n', CASE WHEN EXISTS (SELECT FROM pg_class AS c WHERE c.oid = ANY (v_sources || p_table.pgt_relid::oid) AND c.relrowsecurity) THEN 'false'
            ELSE format('pgtrickle_changes.immediate_is_firm(%s, %s, %L, %L, %L)', p_table.owner_oid, p_table.pgt_relid::oid, format('%I.%I', p_table.pgt_schema, p_table.pgt_name),
                        v_sources, pgtrickle_changes.immediate_trappable(p_table)) END));
    EXECUTE format('ALTER FUNCTION %s IMMUTABLE', v_function);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, pg_get_userbyid(p_table.owner_oid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_firm_function IS 'Makes the function that says, when a plan is made, whether what every maintenance has to check holds from then on';

CREATE FUNCTION pgtrickle_changes.immediate_check(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- True: there is nothing to maintain.  What is left of a stream table that was dropped by hand must not stop writers, and nobody can name it any more.
BEGIN
    RETURN format($q$
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) %13$s::pg_catalog.oid) THEN
        RETURN true;
    END IF;
    IF NOT (%21$s) THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = %2$L, DETAIL = %22$L, HINT = %9$L;
    END IF;
    IF %14$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %15$L,
            HINT = pg_catalog.format('SELECT pgtrickle.refresh_stream_table(%%L); makes its maintenance follow.', %13$s::pg_catalog.regclass);
    END IF;
    SELECT pg_catalog.array_to_string(v.names, '.'), pg_catalog.array_to_string((pg_catalog.pg_identify_object_as_address(%16$s, v.relid, v.attnum)).object_names, '.')
      INTO __pgt_former, __pgt_name %17$s ORDER BY v.relid, v.attnum LIMIT 1;
    IF __pgt_former IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %18$L,
            DETAIL = CASE WHEN __pgt_name IS NULL OR __pgt_name OPERATOR(pg_catalog.~) '[.]{8}pg[.]dropped[.][0-9]+[.]{8}$' THEN pg_catalog.format('%%s was dropped.', __pgt_former) ELSE pg_catalog.format('%%s is called %%s by now.', __pgt_former, __pgt_name) END,
            HINT = %9$L;
    END IF;
    IF %19$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %20$L, DETAIL = 'It was dropped; without it rows can''t be found by their key.', HINT = %9$L;
    END IF;
    IF %23$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %18$L,
            DETAIL = 'A unique index or a NOT NULL of a source was dropped, on which its maintenance may count.', HINT = %9$L;
    END IF;
    IF %26$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %18$L,
            DETAIL = 'Tables inherit from a source by now, or a source from others, or it is a partition; who writes those isn''t noticed.',
            HINT = %27$L;
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'read committed' THEN
        IF %24$s THEN
            %25$s
        END IF;
    END IF;
    IF NOT (%1$s) THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = %2$L, DETAIL = %3$L, HINT = %9$L;
    END IF;
    IF %4$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %5$L, DETAIL = %6$L, HINT = %9$L;
    END IF;
    IF %7$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %8$L, DETAIL = 'A deferred trigger would run as whoever writes the source.', HINT = %9$L;
    END IF;
    IF %10$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %11$L, DETAIL = %12$L, HINT = %9$L;
    END IF;$q$, pgtrickle_changes.immediate_may(p_table, true), format('permission denied to maintain stream table "%s"', p_table.pgt_name),
        format('Role "%s", who owns it, may not read a source, or a column of it, that its query uses.', pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_hidden(p_table), format('stream table "%s" has to be made anew', p_table.pgt_name),
        format('Row-level security of a source, or of the stream table itself, shows other rows to role "%s", who owns it, than when it was made.',
               pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_trapped(p_table), format('stream table "%s" has a deferrable trigger', p_table.pgt_name),
        pgtrickle_changes.immediate_hint(p_table),
        CASE WHEN pgtrickle_changes.trusted_by_writers(p_table) THEN 'false'
             ELSE pgtrickle_changes.has_attachments(p_table, pgtrickle_changes.immediate_written(p_table)) END,
        format('something is attached to stream table "%s" that may not run here', p_table.pgt_name), pgtrickle_changes.about_attachments(p_table),
        p_table.pgt_relid::oid, pgtrickle_changes.immediate_lost(p_table), format('stream table "%s" has another name or schema by now', p_table.pgt_name),
        'pg_class'::regclass::oid, pgtrickle_changes.immediate_renamed(p_table), format('stream table "%s" isn''t maintained as its query was made', p_table.pgt_name),
        pgtrickle_changes.immediate_unfindable(p_table), format('stream table "%s" lacks an index', p_table.pgt_name),
        pgtrickle_changes.immediate_writable(p_table),
        format('Role "%s", as whom it is maintained, may not read and write it, or not use its schema.', pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_weakened(p_table), pgtrickle_changes.immediate_altered(p_table),
        pgtrickle_changes.immediate_again(p_table, 'A source was altered since the snapshot of this transaction.'),
        pgtrickle_changes.immediate_inherited(p_table),
        format('End the inheritance (ALTER TABLE ... NO INHERIT, or DETACH PARTITION) and SELECT pgtrickle.refresh_stream_table(%1$L); or choose another mode with'
               ' SELECT pgtrickle.alter_stream_table(%1$L, refresh_mode => ''AUTO''); or end its maintenance with SELECT pgtrickle.suspend_stream_table(%1$L);', format('%I.%I', p_table.pgt_schema, p_table.pgt_name)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_check IS 'Says what a maintenance may not go on for, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_hint(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('Its owner can repair it with SELECT pgtrickle.refresh_stream_table(%1$L); or end its maintenance with SELECT pgtrickle.suspend_stream_table(%1$L);',
                  format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hint IS 'How an owner gets out when his stream table can''t be maintained';
