-- Whose code may run in the sessions of those who write a source (docs/decisions/0010).
--
-- IMMEDIATE maintenance runs there as the stream table's owner, so his rights don't grow.  But his code would see what the session has
-- open (whoever runs in it can read its cursors), and could leave behind what later runs, or is looked up, as somebody else: cursors
-- WITH HOLD, temporary tables, settings.  Who writes a table trusts its owner, who could put triggers on it, and superusers.  Nobody
-- else's code may run: the query calls none, and nothing that could is attached to the tables that the maintenance writes.

CREATE FUNCTION pgtrickle_changes.is_trusted(p_role oid, p_sources oid[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Who writes what a stream table reads may be writing that stream table, too; and its refreshes write it as its owner.  What is below a table may be somebody else's.
BEGIN
    RETURN NOT EXISTS (
        WITH RECURSIVE written(relid) AS (
            SELECT u.relid FROM unnest(p_sources) AS u(relid)
            UNION
            SELECT n.relid FROM written AS w CROSS JOIN LATERAL (
                SELECT d.source_relid FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle.pgt_dependencies AS d USING (pgt_id) WHERE st.pgt_relid = w.relid
                UNION ALL SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = w.relid) AS n(relid)
        )
        SELECT FROM written AS w JOIN pg_class AS c ON c.oid = w.relid
         WHERE NOT pg_has_role(p_role, c.relowner, 'USAGE'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_trusted IS 'Whether those who write some sources run a role''s code anyhow, or might';

CREATE FUNCTION pgtrickle_changes.trusted_by_writers(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pgtrickle_changes.is_trusted(p_table.owner_oid, pgtrickle_changes.immediate_sources(p_table.pgt_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.trusted_by_writers IS 'Whether code of a stream table''s owner may run in the sessions of those who write its sources';

CREATE FUNCTION pgtrickle_changes.code_in_types(p_types oid[]) RETURNS TABLE (type oid, within oid, owner oid)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The types with constraints that some types contain, however deep within.
BEGIN
    RETURN QUERY
        WITH RECURSIVE inside(type, oid) AS (
            SELECT u.oid, u.oid FROM unnest(p_types) AS u(oid)
            UNION
            SELECT i.type, n.oid FROM inside AS i JOIN pg_type AS t ON t.oid = i.oid
             CROSS JOIN LATERAL (SELECT t.typbasetype
                                 UNION ALL SELECT t.typelem
                                 UNION ALL SELECT g.rngsubtype FROM pg_range AS g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
                                 UNION ALL SELECT a.atttypid FROM pg_attribute AS a
                                            WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped) AS n(oid)
             WHERE n.oid <> 0
        )
        SELECT i.type, t.oid, t.typowner FROM inside AS i JOIN pg_type AS t ON t.oid = i.oid
         WHERE t.typtype IN ('d', 'r', 'm') AND t.oid >= 16384;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.code_in_types IS 'The types with constraints that some types contain, and whose they are';

CREATE FUNCTION pgtrickle_changes.code_in(p_view oid) RETURNS TABLE (what text, owner oid)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What of a query is somebody's code: functions, those that aggregates consist of, and types with constraints.
BEGIN
    RETURN QUERY
        WITH RECURSIVE called(oid) AS (
            SELECT u.oid FROM unnest(pgtrickle_changes.function_oids(p_view)) AS u(oid)
            UNION
            SELECT d.refobjid FROM called AS c JOIN pg_depend AS d
                ON d.classid = 'pg_proc'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass
        )
        SELECT format('function %s', p.oid::regprocedure), p.proowner FROM called AS c JOIN pg_proc AS p ON p.oid = c.oid WHERE p.oid >= 16384;
    RETURN QUERY
        SELECT format('type %s', format_type(t.within, NULL)), t.owner
          FROM pgtrickle_changes.code_in_types(ARRAY(
              SELECT d.refobjid
                FROM (SELECT p_view AS relid UNION SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c) AS v
                JOIN pg_rewrite AS r ON r.ev_class = v.relid
                JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_type'::regclass)) AS t;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.code_in IS 'The functions and constrained types of a query that aren''t PostgreSQL''s own, and whose they are';

CREATE FUNCTION pgtrickle_changes.refuse_strangers(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_sources oid[] := pgtrickle_changes.immediate_sources(p_table.pgt_id);
    v_code    record;
BEGIN
    IF pgtrickle_changes.trusted_by_writers(p_table) THEN
        RETURN;
    END IF;
    SELECT c.what, pg_get_userbyid(c.owner) AS owner INTO v_code FROM pgtrickle_changes.code_in(p_table.definition_view) AS c
     WHERE NOT pgtrickle_changes.is_trusted(c.owner, v_sources) ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% can''t be used in refresh mode IMMEDIATE', v_code.what
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = format('It belongs to role "%s", and would run in the sessions of those who write the sources, which are somebody else''s.', v_code.owner),
                  HINT = 'Use AUTO; or let it belong to the sources'' owner, or to a superuser.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_strangers IS 'Raises if a query calls code that those who write its sources needn''t trust';

CREATE FUNCTION pgtrickle_changes.immediate_written(p_table pgtrickle.pgt_stream_tables) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nobody but the engine can attach anything to where it notes what is under way, and whose turn it is.
BEGIN
    RETURN ARRAY(
        SELECT p_table.pgt_relid::oid
        UNION SELECT o.relation::oid FROM pgtrickle_changes.immediate_objects(p_table.pgt_id) AS o
               WHERE o.kind = 'table' AND o.identity !~ '^pgtrickle_changes[.](under_way|turn|slots)_[0-9]+$'
        UNION SELECT to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name'))::oid FROM pgtrickle.pgt_plans AS p
               CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
               WHERE p.pgt_id = p_table.pgt_id
        ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_written IS 'The tables that the maintenance of an IMMEDIATE stream table writes';

CREATE FUNCTION pgtrickle_changes.is_harmless(p_tree text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether an expression, by its tree, calls nothing but PostgreSQL's own immutable functions.
BEGIN
    RETURN p_tree !~ '\{(COERCETODOMAIN|COERCEVIAIO|SQLVALUEFUNCTION|NEXTVALUEEXPR)'
           AND NOT EXISTS (SELECT FROM regexp_matches(p_tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS f(value)
                             LEFT JOIN pg_proc AS p ON p.oid = f.value[1]::oid WHERE p.oid >= 16384 OR p.provolatile IS DISTINCT FROM 'i');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_harmless IS 'Whether an expression calls nothing but PostgreSQL''s own immutable functions';

CREATE FUNCTION pgtrickle_changes.has_attachments(p_table pgtrickle.pgt_stream_tables, p_relations oid[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The condition, as SQL, that something is attached to tables in which code of their owner's could be.  What is there now, and is none,
-- may stay.
DECLARE
    v_sources oid[] := pgtrickle_changes.immediate_sources(p_table.pgt_id);
    v_checks  oid[] := ARRAY(SELECT k.oid FROM pg_constraint AS k WHERE k.conrelid = ANY (p_relations) AND k.contype = 'c'
                                AND pgtrickle_changes.is_harmless(k.conbin::text) ORDER BY 1);
    v_types   oid[] := ARRAY(SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = ANY (p_relations) AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    v_types := ARRAY(SELECT u.oid FROM unnest(v_types) AS u(oid) EXCEPT
                     SELECT t.type FROM pgtrickle_changes.code_in_types(v_types) AS t WHERE NOT pgtrickle_changes.is_trusted(t.owner, v_sources) ORDER BY 1);
    RETURN format(
        'EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) ANY (%1$L::pg_catalog.oid[])'
        ' AND (c.relkind OPERATOR(pg_catalog.<>) ''r'' OR c.relhasrules OR c.relispartition OR c.relhassubclass OR c.relrowsecurity AND c.relforcerowsecurity'
        ' OR c.relchecks OPERATOR(pg_catalog.>) 0 AND EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid'
        ' AND k.contype OPERATOR(pg_catalog.=) ''c'' AND k.oid OPERATOR(pg_catalog.<>) ALL (%2$L::pg_catalog.oid[]))'
        ' OR c.relhastriggers AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS f ON f.oid OPERATOR(pg_catalog.=) t.tgfoid'
        ' WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND f.pronamespace OPERATOR(pg_catalog.<>) %3$s::pg_catalog.oid)'
        ' OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0'
        ' AND NOT a.attisdropped AND (a.atthasdef OR a.atttypid OPERATOR(pg_catalog.<>) ALL (%4$L::pg_catalog.oid[])))'
        ' OR EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) %5$s::pg_catalog.oid'
        ' AND d.objid OPERATOR(pg_catalog.=) i.indexrelid AND d.refclassid OPERATOR(pg_catalog.=) ANY (%6$L::pg_catalog.oid[])'
        ' WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))))',
        p_relations, v_checks, 'pgtrickle_changes'::regnamespace::oid, v_types, 'pg_class'::regclass::oid,
        ARRAY['pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass]::oid[]);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.has_attachments IS 'The condition, as SQL, that something is attached to tables in which code of their owner''s could be';

CREATE FUNCTION pgtrickle_changes.keep_strangers_out(p_table pgtrickle.pgt_stream_tables, p_relations oid[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- At the head of what writes to the tables, as PL/pgSQL.  Once they are locked nobody else attaches anything until the transaction ends.
BEGIN
    IF pgtrickle_changes.trusted_by_writers(p_table) THEN
        RETURN '';
    END IF;
    -- What has been dropped or renamed can't be locked.
    RETURN CASE WHEN p_table.pgt_relid = ANY (p_relations) THEN pgtrickle_changes.immediate_unless(p_table, pgtrickle_changes.immediate_lost(p_table)) ELSE '' END
        || format(E'    LOCK TABLE %s IN ROW EXCLUSIVE MODE;\n    IF %s THEN\n        PERFORM pgtrickle_changes.maintain_%s_check(pg_catalog.pg_backend_pid());\n    END IF;\n',
        (SELECT string_agg(u.relid::regclass::text, ', ' ORDER BY u.relid) FROM unnest(p_relations) AS u(relid)),
        pgtrickle_changes.has_attachments(p_table, p_relations), p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.keep_strangers_out IS 'What a maintenance begins with where its owner''s code may not run, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.refuse_attachments(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_found boolean;
BEGIN
    IF pgtrickle_changes.trusted_by_writers(p_table) THEN
        RETURN;
    END IF;
    EXECUTE 'SELECT ' || pgtrickle_changes.has_attachments(p_table, pgtrickle_changes.immediate_written(p_table)) INTO v_found;
    IF v_found THEN
        RAISE EXCEPTION 'something is attached to stream table "%" that can''t be in refresh mode IMMEDIATE', p_table.pgt_name
            USING ERRCODE = 'feature_not_supported', DETAIL = pgtrickle_changes.about_attachments(p_table),
                  HINT = 'Use AUTO, drop them, or let the stream table belong to the sources'' owner.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_attachments IS 'Raises if something is attached to a stream table that those who write its sources needn''t trust';

CREATE FUNCTION pgtrickle_changes.about_attachments(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('Triggers, rules, constraints, defaults and the like of role "%s", who owns it, would run in the session of whoever writes a source.',
                  pg_get_userbyid(p_table.owner_oid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.about_attachments IS 'Why nothing may be attached to a stream table';

CREATE FUNCTION pgtrickle_changes.suspend_strangers() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Writers' statements fail at what somebody has attached: housekeeping ends that.
DECLARE
    v_ids       bigint[] := ARRAY(SELECT i.pgt_id FROM pgtrickle_changes.immediate AS i WHERE i.attachments IS NOT NULL ORDER BY 1);
    v_id        bigint;
    v_owner     oid;
    v_condition text;
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        SELECT st.owner_oid, i.attachments INTO v_owner, v_condition
          FROM pgtrickle_changes.immediate AS i JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id) WHERE i.pgt_id = v_id;
        CONTINUE WHEN NOT FOUND;
        IF pgtrickle_changes.run_as(v_owner, format('SELECT pg_catalog.to_jsonb(%s)', v_condition))::boolean THEN
            PERFORM pgtrickle_changes.suspend(v_id);
            UPDATE pgtrickle.pgt_stream_tables AS st
               SET last_error_at = clock_timestamp(), last_error_message = 'something is attached to it that may not run in the sessions of writers'
             WHERE st.pgt_id = v_id;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.suspend_strangers IS 'Suspends the IMMEDIATE stream tables to which something is attached that stops writers';
