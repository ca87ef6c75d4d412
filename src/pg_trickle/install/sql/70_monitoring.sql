-- Looking at the system.
--
-- Everybody may ask, each is answered about what he may see: the stream tables he owns or may SELECT from, all of them for
-- members of pg_monitor.  The functions run as the caller and read views and tables that filter by CURRENT_USER, which a
-- view evaluates as the caller.  So nothing here has more rights than the caller, but for the columns that those views and
-- policies let through.  The views call built-in functions only: a view's functions run as the caller too.
-- PUBLIC may read them; to get at them at all takes USAGE on the schema.

CREATE VIEW pgtrickle_changes.visibility AS
    -- Who may see what: a row a role and stream table.
    SELECT r.rolname AS role, st.pgt_id,
           pg_has_role(r.oid, st.owner_oid, 'USAGE')
           OR coalesce(has_table_privilege(r.oid, st.pgt_relid, 'SELECT')
                       AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE'), false) AS may_read,
           pg_has_role(r.oid, 'pg_monitor', 'USAGE') AS is_monitor,
           -- The security guide's role.  Only a superuser can make this grant, while others can make roles of that name.
           EXISTS (SELECT FROM pg_roles AS u
                     JOIN pg_proc AS p ON p.proname = 'pgt_status' AND p.pronamespace = 'pgtrickle'::regnamespace
                    CROSS JOIN LATERAL aclexplode(p.proacl) AS a
                    WHERE u.rolname = 'pgtrickle_user' AND a.grantee = u.oid AND pg_has_role(r.oid, u.oid, 'USAGE')) AS is_application
      FROM pg_roles AS r
     CROSS JOIN pgtrickle.pgt_stream_tables AS st
      LEFT JOIN pg_class AS c ON c.oid = st.pgt_relid;

CREATE VIEW pgtrickle.visible_stream_tables WITH (security_barrier) AS
    SELECT v.pgt_id, v.may_read
      FROM pgtrickle_changes.visibility AS v
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_stream_tables IS
    'The stream tables that the current user may look at; may_read: also their queries and plans';

ALTER TABLE pgtrickle.pgt_stream_tables ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgtrickle.pgt_stream_tables FOR SELECT
    USING (pgt_id IN (SELECT v.pgt_id FROM pgtrickle.visible_stream_tables AS v WHERE v.may_read));
ALTER TABLE pgtrickle.pgt_plans ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgtrickle.pgt_plans FOR SELECT
    USING (pgt_id IN (SELECT v.pgt_id FROM pgtrickle.visible_stream_tables AS v WHERE v.may_read));
ALTER TABLE pgtrickle.pgt_dependencies ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgtrickle.pgt_dependencies FOR SELECT
    USING (pgt_id IN (SELECT v.pgt_id FROM pgtrickle.visible_stream_tables AS v));
ALTER TABLE pgtrickle.pgt_refresh_history ENABLE ROW LEVEL SECURITY;
-- Also of stream tables that are gone, for those who watch over the installation.
CREATE POLICY readers ON pgtrickle.pgt_refresh_history FOR SELECT
    USING (pg_has_role('pg_monitor', 'USAGE') OR pgt_id IN (SELECT v.pgt_id FROM pgtrickle.visible_stream_tables AS v));

CREATE VIEW pgtrickle_changes.worker_sessions AS
    -- Who holds the worker's lock.  Anybody may take an advisory lock; a worker's role may also do a worker's work.
    SELECT l.pid, a.usename AS role, coalesce(has_function_privilege(a.usesysid, p.oid, 'EXECUTE'), false) AS is_worker
      FROM pg_locks AS l
      JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
      JOIN pg_proc AS p ON p.proname = 'worker_poll' AND p.pronamespace = 'pgtrickle_changes'::regnamespace
      LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.classid = 1885762401::oid AND l.objid = 1::oid AND l.objsubid = 2 AND l.granted;

CREATE VIEW pgtrickle_changes.buffers AS
    -- The change buffers by their size on disk, and how many rows they hold by the server's statistics: nothing reads them.
    SELECT k.source_relid, k.owner_oid, k.buffer, k.buffer_relid, pg_stat_get_live_tuples(k.buffer_relid) AS rows,
           pg_total_relation_size(k.buffer_relid) AS bytes
      FROM pgtrickle.pgt_captures AS k;

CREATE VIEW pgtrickle_changes.status AS
    SELECT st.pgt_id, st.pgt_relid, coalesce(n.nspname, st.pgt_schema)::text AS pgt_schema, coalesce(c.relname, st.pgt_name)::text AS pgt_name,
           format('%I.%I', coalesce(n.nspname, st.pgt_schema), coalesce(c.relname, st.pgt_name)) AS name,
           st.owner_oid, pg_get_userbyid(st.owner_oid) AS owner, st.status, st.refresh_mode, st.effective_refresh_mode, st.downgrade_reason,
           st.schedule, st.tier, st.diamond_consistency, st.diamond_schedule_policy, st.is_populated, st.needs_reinit, st.reinit_reason, st.consecutive_errors,
           st.last_error_at, st.last_error_message, t.data_timestamp, st.last_refresh_at, st.created_at, st.defining_query, st.full_ms,
           now() - t.data_timestamp AS staleness,
           -- Has a promise been broken?  Without a time table of its own it is looked after by a worker as soon as there are changes.
           st.schedule IS NOT NULL AND st.tier <> 'frozen' AND CASE
               WHEN st.refresh_mode = 'IMMEDIATE' THEN st.needs_reinit OR st.status <> 'ACTIVE'
               WHEN st.schedule_seconds IS NOT NULL THEN
                   now() - coalesce(st.data_timestamp, st.created_at)
                   > make_interval(secs => 5 + 2 * st.schedule_seconds * CASE st.tier WHEN 'warm' THEN 2 WHEN 'cold' THEN 10 ELSE 1 END)
               ELSE now() - coalesce(st.data_timestamp, st.created_at) > interval '5 s'
                    AND (st.status <> 'ACTIVE' OR st.consecutive_errors > 0
                         OR NOT EXISTS (SELECT FROM pgtrickle_changes.worker_sessions AS w WHERE w.is_worker))
                    AND EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS s
                                  LEFT JOIN pgtrickle_changes.buffers AS b ON b.source_relid = s.source_relid AND b.owner_oid = st.owner_oid
                                 WHERE s.pgt_id = st.pgt_id AND (NOT s.captured OR b.rows IS DISTINCT FROM 0))
               END AS stale
      FROM pgtrickle.pgt_stream_tables AS st
      LEFT JOIN pg_class AS c ON c.oid = st.pgt_relid
      LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
     -- What is maintained in its writers' statements is of now.
     CROSS JOIN LATERAL (SELECT CASE WHEN st.refresh_mode = 'IMMEDIATE' AND st.status = 'ACTIVE' AND NOT st.needs_reinit THEN now()
                                     ELSE st.data_timestamp END AS data_timestamp) AS t;

CREATE VIEW pgtrickle.stream_tables_info WITH (security_barrier) AS
    SELECT s.pgt_id, s.pgt_relid::regclass AS pgt_relid, s.pgt_schema, s.pgt_name, s.name, s.owner, s.status, s.refresh_mode,
           s.effective_refresh_mode, s.downgrade_reason, s.schedule, s.tier, s.diamond_consistency, s.diamond_schedule_policy, s.is_populated, s.needs_reinit, s.reinit_reason,
           s.consecutive_errors, s.last_error_at, s.last_error_message, s.data_timestamp, s.last_refresh_at, s.created_at,
           s.staleness, s.stale, CASE WHEN v.may_read THEN s.defining_query END AS defining_query
      FROM pgtrickle_changes.status AS s
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.stream_tables_info IS 'The stream tables that the current user may look at, and how they are';
COMMENT ON COLUMN pgtrickle.stream_tables_info.staleness IS 'The age of the moment that the contents reflect; it grows although nothing changes, unless the schedule names a time';
COMMENT ON COLUMN pgtrickle.stream_tables_info.stale IS 'Whether it is behind its schedule: twice the interval for one with an interval; otherwise changes wait, and errors, a suspension or the lack of a worker keep them waiting';
COMMENT ON COLUMN pgtrickle.stream_tables_info.defining_query IS 'NULL for those who may not SELECT from the stream table';

CREATE VIEW pgtrickle.visible_status WITH (security_barrier) AS
    SELECT s.name, s.status, s.refresh_mode, s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp, s.staleness
      FROM pgtrickle_changes.status AS s
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor OR v.is_application);
COMMENT ON VIEW pgtrickle.visible_status IS 'What pgt_status() shows: also to members of pgtrickle_user';

CREATE FUNCTION pgtrickle.pgt_status()
    RETURNS TABLE (name text, status text, refresh_mode text, is_populated boolean, consecutive_errors integer, schedule text,
                   data_timestamp timestamptz, staleness interval, scc_id integer)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.name, s.status, s.refresh_mode, s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp, s.staleness, NULL::integer
      FROM pgtrickle.visible_status AS s
     ORDER BY s.name
$$;
COMMENT ON FUNCTION pgtrickle.pgt_status() IS
    'The stream tables and how they are. name is qualified and quoted where it must be, so it can be handed to the other functions; scc_id is for cycles, which are not accepted yet';

CREATE FUNCTION pgtrickle.get_staleness(name regclass) RETURNS float8
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = get_staleness.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', get_staleness.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN extract(epoch FROM v_table.staleness);
END
$$;
COMMENT ON FUNCTION pgtrickle.get_staleness(regclass) IS
    'The age of a stream table''s contents in seconds; NULL if it was never filled';

CREATE FUNCTION pgtrickle.explain_refresh_mode(name regclass)
    RETURNS TABLE (configured_mode text, effective_mode text, downgrade_reason text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = explain_refresh_mode.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', explain_refresh_mode.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN QUERY SELECT v_table.refresh_mode, v_table.effective_refresh_mode, v_table.downgrade_reason;
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_refresh_mode(regclass) IS
    'The refresh mode asked for, the one used, and why they differ';

CREATE FUNCTION pgtrickle.get_refresh_history(name regclass, max_rows integer DEFAULT 20) RETURNS SETOF pgtrickle.pgt_refresh_history
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = get_refresh_history.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', get_refresh_history.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN QUERY
        SELECT h.* FROM pgtrickle.pgt_refresh_history AS h
         WHERE h.pgt_id = v_table.pgt_id
         ORDER BY h.started_at DESC, h.refresh_id DESC
         LIMIT greatest(max_rows, 0);
END
$$;
COMMENT ON FUNCTION pgtrickle.get_refresh_history(regclass, integer) IS
    'The latest refreshes of a stream table, newest first';

CREATE FUNCTION pgtrickle.refresh_timeline(max_rows integer DEFAULT 50) RETURNS SETOF pgtrickle.pgt_refresh_history
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.* FROM pgtrickle.pgt_refresh_history AS h ORDER BY h.started_at DESC, h.refresh_id DESC LIMIT greatest(max_rows, 0)
$$;
COMMENT ON FUNCTION pgtrickle.refresh_timeline(integer) IS
    'The latest refreshes of all stream tables that the caller may look at, newest first';

CREATE VIEW pgtrickle_changes.refresh_stats AS
    -- What the history says of each stream table.
    SELECT h.pgt_id, count(*) AS refreshes, count(*) FILTER (WHERE h.success) AS successful, count(*) FILTER (WHERE NOT h.success) AS failed,
           count(*) FILTER (WHERE h.skipped_reason IS NOT NULL) AS without_changes,
           count(*) FILTER (WHERE d.worked AND h.refresh_mode = 'DIFFERENTIAL') AS differential,
           count(*) FILTER (WHERE d.worked AND h.refresh_mode = 'FULL') AS "full",
           avg(d.ms) FILTER (WHERE d.worked) AS avg_ms,
           avg(d.ms) FILTER (WHERE d.worked AND h.refresh_mode = 'DIFFERENTIAL') AS avg_diff_ms,
           avg(d.ms) FILTER (WHERE d.worked AND h.refresh_mode = 'FULL') AS avg_full_ms,
           avg(h.rows_in) FILTER (WHERE d.worked AND h.refresh_mode = 'DIFFERENTIAL') AS avg_diff_rows,
           sum(h.rows_in)::bigint AS rows_in, sum(h.rows_out)::bigint AS rows_out
      FROM pgtrickle.pgt_refresh_history AS h
     CROSS JOIN LATERAL (SELECT (1000 * extract(epoch FROM h.finished_at - h.started_at))::float8 AS ms,
                                h.success AND h.skipped_reason IS NULL AS worked) AS d
     GROUP BY h.pgt_id;

CREATE VIEW pgtrickle.pg_stat_stream_tables WITH (security_barrier) AS
    SELECT s.pgt_id, s.pgt_schema, s.pgt_name, s.status, s.refresh_mode, s.is_populated, s.data_timestamp, s.last_refresh_at,
           s.consecutive_errors, coalesce(r.refreshes, 0) AS total_refreshes, coalesce(r.successful, 0) AS successful_refreshes,
           coalesce(r.failed, 0) AS failed_refreshes, coalesce(r.without_changes, 0) AS refreshes_without_changes,
           coalesce(r.rows_in, 0) AS rows_in, coalesce(r.rows_out, 0) AS rows_out, r.avg_ms AS avg_duration_ms, s.staleness, s.stale
      FROM pgtrickle_changes.status AS s
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
      LEFT JOIN pgtrickle_changes.refresh_stats AS r USING (pgt_id)
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.pg_stat_stream_tables IS
    'What the refresh history adds up to, for the stream tables that the current user may look at';
COMMENT ON COLUMN pgtrickle.pg_stat_stream_tables.avg_duration_ms IS 'Of the successful refreshes that had something to do';

CREATE VIEW pgtrickle.visible_efficiency WITH (security_barrier) AS
    SELECT s.pgt_schema, s.pgt_name, s.refresh_mode, coalesce(r.successful, 0) AS total_refreshes, coalesce(r.differential, 0) AS diff_count,
           coalesce(r."full", 0) AS full_count, r.avg_diff_ms, coalesce(r.avg_full_ms, s.full_ms) AS avg_full_ms,
           least(r.avg_diff_rows::float8 / nullif(b.rows, 0), 1) AS avg_change_ratio,
           coalesce(r.avg_full_ms, s.full_ms) / nullif(r.avg_diff_ms, 0) AS diff_speedup, s.last_refresh_at
      FROM pgtrickle_changes.status AS s
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
      LEFT JOIN pgtrickle_changes.refresh_stats AS r USING (pgt_id)
     CROSS JOIN LATERAL (SELECT sum(greatest(c.reltuples, 0)) AS rows
                           FROM pgtrickle.pgt_dependencies AS d JOIN pg_class AS c ON c.oid = d.source_relid
                          WHERE d.pgt_id = s.pgt_id AND d.captured) AS b
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor OR v.is_application);
COMMENT ON VIEW pgtrickle.visible_efficiency IS 'What refresh_efficiency() shows: also to members of pgtrickle_user';

CREATE FUNCTION pgtrickle.refresh_efficiency()
    RETURNS TABLE (pgt_schema text, pgt_name text, refresh_mode text, total_refreshes bigint, diff_count bigint, full_count bigint,
                   avg_diff_ms float8, avg_full_ms float8, avg_change_ratio float8, diff_speedup float8, last_refresh_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.* FROM pgtrickle.visible_efficiency AS e ORDER BY e.pgt_schema, e.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.refresh_efficiency() IS
    'What applying deltas gains over recomputing, from the refresh history. Refreshes that found no change count in total_refreshes alone; avg_change_ratio is change rows to estimated source rows';

CREATE VIEW pgtrickle.visible_sources WITH (security_barrier) AS
    SELECT d.pgt_id, st.owner_oid, d.source_relid, coalesce(format('%I.%I', n.nspname, c.relname), d.source_relid::text) AS source_table,
           d.source_kind, CASE WHEN d.captured OR st.refresh_mode = 'IMMEDIATE' THEN 'trigger' ELSE 'none' END AS cdc_mode, d.columns_used, d.captured
      FROM pgtrickle.pgt_dependencies AS d
      JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
      LEFT JOIN pg_class AS c ON c.oid = d.source_relid
      LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_sources IS 'What the stream tables read, of those that the current user may look at';

CREATE FUNCTION pgtrickle.list_sources(name regclass)
    RETURNS TABLE (source_table text, source_oid oid, source_type text, cdc_mode text, columns_used text[])
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = list_sources.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', list_sources.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN QUERY
        SELECT s.source_table, s.source_relid, s.source_kind, s.cdc_mode, s.columns_used
          FROM pgtrickle.visible_sources AS s
         WHERE s.pgt_id = v_table.pgt_id
         ORDER BY s.source_table;
END
$$;
COMMENT ON FUNCTION pgtrickle.list_sources(regclass) IS
    'What a stream table reads: for views the tables below them. cdc_mode is none where changes can''t be watched';

CREATE FUNCTION pgtrickle.dependency_tree()
    RETURNS TABLE (tree_line text, node text, node_type text, depth integer, status text, refresh_mode text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Depth first, from the stream tables that no other reads down to what they read; what was shown is not shown again.
DECLARE
    v_edges  jsonb;  -- {stream table: [what it reads, sorted]}
    v_tables jsonb;
    v_stack  jsonb;  -- the next one is the last
    v_item   jsonb;
    v_below  jsonb;
    v_shown  text[] := '{}'::text[];
    v_again  boolean;
BEGIN
    SELECT coalesce(jsonb_object_agg(i.name, jsonb_build_array(i.status, i.effective_refresh_mode)), '{}') INTO v_tables
      FROM pgtrickle.stream_tables_info AS i;
    SELECT coalesce(jsonb_object_agg(e.name, e.sources), '{}') INTO v_edges
      FROM (SELECT i.name, jsonb_agg(jsonb_build_array(s.source_table, s.source_kind) ORDER BY s.source_table DESC) AS sources
              FROM pgtrickle.stream_tables_info AS i JOIN pgtrickle.visible_sources AS s USING (pgt_id)
             GROUP BY i.name) AS e;
    SELECT coalesce(jsonb_agg(jsonb_build_object('node', k.name, 'kind', 'stream_table', 'depth', 0, 'lead', '', 'next', '') ORDER BY k.name DESC), '[]')
      INTO v_stack
      FROM jsonb_object_keys(v_tables) AS k(name)
     WHERE k.name NOT IN (SELECT s.source_table FROM pgtrickle.visible_sources AS s);

    WHILE jsonb_array_length(v_stack) > 0 LOOP
        v_item := v_stack -> -1;
        v_stack := v_stack - -1;
        node := v_item ->> 'node';
        node_type := v_item ->> 'kind';
        depth := (v_item ->> 'depth')::integer;
        status := v_tables -> node ->> 0;
        refresh_mode := v_tables -> node ->> 1;
        v_below := coalesce(v_edges -> node, '[]');
        v_again := node = ANY (v_shown) AND v_below <> '[]';
        tree_line := (v_item ->> 'lead') || node || CASE WHEN v_again THEN ' (see above)' ELSE '' END;
        RETURN NEXT;
        CONTINUE WHEN v_again;
        v_shown := v_shown || node;
        SELECT v_stack || coalesce(jsonb_agg(jsonb_build_object('node', b.value ->> 0, 'kind', b.value ->> 1, 'depth', depth + 1,
                   'lead', (v_item ->> 'next') || CASE WHEN b.place = 1 THEN '└── ' ELSE '├── ' END,
                   'next', (v_item ->> 'next') || CASE WHEN b.place = 1 THEN '    ' ELSE '│   ' END) ORDER BY b.place), '[]')
          INTO v_stack
          FROM jsonb_array_elements(v_below) WITH ORDINALITY AS b(value, place);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.dependency_tree() IS
    'What reads what, as an indented tree: each stream table above its sources. refresh_mode is the effective one';

CREATE FUNCTION pgtrickle.diamond_groups()
    RETURNS TABLE (group_id bigint, member_schema text, member_name text, is_convergence boolean, schedule_policy text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reads AS (
        SELECT i.pgt_relid::oid AS relid, s.source_relid AS source
          FROM pgtrickle.stream_tables_info AS i JOIN pgtrickle.visible_sources AS s USING (pgt_id)
    ), above AS (
        -- relid rests on source, directly or not; everything rests on itself.
        SELECT r.relid, r.source FROM reads AS r
        UNION
        SELECT a.relid, r.source FROM above AS a JOIN reads AS r ON r.relid = a.source
    ), rests AS (
        SELECT a.relid, a.source FROM above AS a
        UNION
        SELECT r.source, r.source FROM reads AS r
    ), arms AS (
        -- Two ways from a stream table down to the same relation.
        SELECT l.relid AS top, l.source AS arm, lb.source AS bottom
          FROM reads AS l
          JOIN reads AS r ON r.relid = l.relid AND r.source <> l.source
          JOIN rests AS lb ON lb.relid = l.source
          JOIN rests AS rb ON rb.relid = r.source AND rb.source = lb.source
    ), members AS (
        SELECT a.top, a.top AS relid FROM arms AS a
        UNION
        SELECT a.top, m.relid
          FROM arms AS a
          JOIN rests AS m ON m.source = a.bottom
          JOIN rests AS u ON u.relid = a.arm AND u.source = m.relid
    )
    SELECT t.pgt_id, i.pgt_schema, i.pgt_name, m.relid = m.top, t.diamond_schedule_policy
      FROM members AS m
      JOIN pgtrickle.stream_tables_info AS i ON i.pgt_relid = m.relid
      JOIN pgtrickle.stream_tables_info AS t ON t.pgt_relid = m.top
     ORDER BY t.pgt_id, m.relid = m.top, i.pgt_schema, i.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.diamond_groups() IS
    'Stream tables that read the same relation in more than one way: a group for each, with the stream tables in between. The worker refreshes them in one snapshot';

CREATE FUNCTION pgtrickle.pgt_scc_status()
    RETURNS TABLE (scc_id integer, member_count integer, members text[], last_iterations integer, last_converged_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NULL::integer, NULL::integer, NULL::text[], NULL::integer, NULL::timestamptz WHERE false
$$;
COMMENT ON FUNCTION pgtrickle.pgt_scc_status() IS 'Cycles of stream tables: none, as cycles are not accepted yet';

CREATE VIEW pgtrickle_changes.capture_triggers_found AS
    -- Each trigger that a capture consists of, as it should be and as it is.
    SELECT k.source_relid, k.owner_oid, k.buffer, e.event, e.trigger_name, e.function_name,
           t.oid IS NOT NULL AS present, coalesce(t.tgenabled = 'A', false) AS enabled,
           coalesce(p.prosecdef AND p.proowner = k.owner_oid
                    AND strpos(pg_get_triggerdef(t.oid), md5(pg_get_functiondef(p.oid))) > 0, false) AS intact,
           p.proowner AS function_owner
      FROM pgtrickle.pgt_captures AS k
     CROSS JOIN LATERAL (
         SELECT v.event, format('pg_trickle_cdc_%s%s%s', v.abbreviation,
                                CASE WHEN (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = k.source_relid) THEN format('_%s', k.source_relid) END,
                                substr(k.buffer, length(format('changes_%s', k.source_relid)) + 1)) AS trigger_name,
                format('capture_%s_%s', substr(k.buffer, length('changes_') + 1), v.abbreviation) AS function_name
           FROM (VALUES ('INSERT', 'ins'), ('UPDATE', 'upd'), ('DELETE', 'del'), ('TRUNCATE', 'trunc')) AS v(event, abbreviation)) AS e
      LEFT JOIN pg_trigger AS t ON t.tgrelid = k.source_relid AND t.tgname = e.trigger_name
      LEFT JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.proname = e.function_name AND p.pronamespace = 'pgtrickle_changes'::regnamespace;

CREATE VIEW pgtrickle_changes.capture_problems AS
    -- What is wrong with a capture, in words; NULL if nothing is.  A refresh looks closer, and repairs.
    SELECT k.source_relid, k.owner_oid, k.buffer, k.trigger_mode, coalesce(
           CASE WHEN b.oid IS NULL THEN format('change buffer "%s" was dropped or moved', k.buffer)
                WHEN b.relowner <> k.owner_oid THEN format('change buffer "%s" has another owner', k.buffer)
                WHEN b.relkind <> 'r' OR b.relhasrules OR b.relhastriggers OR b.relrowsecurity OR b.relchecks > 0
                    THEN format('change buffer "%s" was altered', k.buffer)
                WHEN has_table_privilege(k.owner_oid, b.oid, 'INSERT') IS NOT TRUE OR NOT has_schema_privilege(k.owner_oid, b.relnamespace, 'USAGE')
                    THEN format('role "%s" may not write to change buffer "%s"', pg_get_userbyid(k.owner_oid), k.buffer)
                WHEN b.relpersistence <> 'p' OR b.relispartition THEN format('change buffer "%s" was altered', k.buffer)
                WHEN EXISTS (SELECT FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = k.source_relid AND m.owner_oid = k.owner_oid)
                    THEN format('change buffer "%s" was locked: changes are missing until the next refresh', k.buffer) END,
           (SELECT CASE WHEN NOT t.present THEN format('trigger "%s" was dropped', t.trigger_name)
                        WHEN NOT t.enabled THEN format('trigger "%s" was disabled', t.trigger_name)
                        ELSE format('function "%s" was altered, moved or replaced', t.function_name) END
              FROM pgtrickle_changes.capture_triggers_found AS t
             WHERE t.source_relid = k.source_relid AND t.owner_oid = k.owner_oid AND NOT (t.present AND t.enabled AND t.intact)
             ORDER BY t.trigger_name LIMIT 1),
           (SELECT format('column "%s" was renamed or dropped', o.name)
              FROM unnest(k.attnums, k.columns) AS o(attnum, name)
              LEFT JOIN pg_attribute AS a ON a.attrelid = k.source_relid AND a.attnum = o.attnum AND NOT a.attisdropped
             WHERE a.attname IS DISTINCT FROM o.name LIMIT 1)) AS problem
      FROM pgtrickle.pgt_captures AS k
      LEFT JOIN pg_class AS b ON b.oid = k.buffer_relid AND b.relname = k.buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace
     -- One whose source is gone is housekeeping's.
     WHERE EXISTS (SELECT FROM pg_class AS c WHERE c.oid = k.source_relid);

CREATE VIEW pgtrickle.visible_captures WITH (security_barrier) AS
    SELECT s.source_table, p.source_relid, pg_get_userbyid(p.owner_oid) AS owner, p.buffer, p.trigger_mode, p.problem, b.rows, b.bytes
      FROM pgtrickle_changes.capture_problems AS p
      JOIN pgtrickle_changes.buffers AS b USING (source_relid, owner_oid)
      JOIN (SELECT DISTINCT v.source_table, v.source_relid, v.owner_oid FROM pgtrickle.visible_sources AS v WHERE v.captured) AS s
     USING (source_relid, owner_oid);
COMMENT ON VIEW pgtrickle.visible_captures IS 'The change buffers that feed stream tables which the current user may look at';

CREATE FUNCTION pgtrickle.check_cdc_health()
    RETURNS TABLE (source_table text, source_oid oid, owner name, cdc_mode text, trigger_mode text, buffer name, alert text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.source_table, k.source_relid, k.owner, 'trigger', k.trigger_mode, k.buffer, k.problem
      FROM pgtrickle.visible_captures AS k
     ORDER BY k.source_table, k.owner
$$;
COMMENT ON FUNCTION pgtrickle.check_cdc_health() IS
    'How each source''s changes are captured, a row a source and owner; alert says what is wrong, NULL if nothing is';

CREATE VIEW pgtrickle.visible_triggers WITH (security_barrier) AS
    SELECT s.source_table, t.source_relid, t.trigger_name, t.event, t.present, t.enabled, t.intact, t.function_name, pg_get_userbyid(t.function_owner) AS function_owner
      FROM pgtrickle_changes.capture_triggers_found AS t
      JOIN (SELECT DISTINCT v.source_table, v.source_relid, v.owner_oid FROM pgtrickle.visible_sources AS v WHERE v.captured) AS s
     USING (source_relid, owner_oid);
COMMENT ON VIEW pgtrickle.visible_triggers IS 'The capture triggers that serve stream tables which the current user may look at';

CREATE FUNCTION pgtrickle.trigger_inventory()
    RETURNS TABLE (source_table text, source_oid oid, trigger_name text, trigger_type text, present boolean, enabled boolean,
                   intact boolean, function_name text, function_owner name)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.source_table, t.source_relid, t.trigger_name, t.event, t.present, t.enabled, t.intact, t.function_name, t.function_owner
      FROM pgtrickle.visible_triggers AS t
     ORDER BY t.source_table, t.trigger_name
$$;
COMMENT ON FUNCTION pgtrickle.trigger_inventory() IS
    'The capture triggers that there should be, and whether they are there, enabled and calling the function the engine made (intact)';

CREATE VIEW pgtrickle.visible_health WITH (security_barrier) AS
    -- The checks are about the whole installation; names are shown to those who may look at them.
    WITH seen AS (
        SELECT s.*, v.may_read OR v.is_monitor OR v.is_application AS is_visible
          FROM pgtrickle_changes.status AS s
          JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
         WHERE v.role = CURRENT_USER
    ), captures AS (
        SELECT p.source_relid, p.problem, b.buffer, b.rows, b.bytes,
               EXISTS (SELECT FROM seen AS s JOIN pgtrickle.pgt_dependencies AS d USING (pgt_id)
                        WHERE d.source_relid = p.source_relid AND d.captured AND s.owner_oid = p.owner_oid AND s.is_visible) AS is_visible
          FROM pgtrickle_changes.capture_problems AS p JOIN pgtrickle_changes.buffers AS b USING (source_relid, owner_oid)
    ), problems AS (
        SELECT 'error_tables' AS check_name, CASE WHEN s.is_visible THEN s.name END AS what
          FROM seen AS s WHERE s.status = 'ERROR' OR s.status = 'SUSPENDED' AND s.consecutive_errors > 0
        UNION ALL
        SELECT 'stale_tables', CASE WHEN s.is_visible THEN format('%s (%s s)', s.name, coalesce(extract(epoch FROM s.staleness)::bigint::text, 'never filled')) END
          FROM seen AS s WHERE s.stale
        UNION ALL
        SELECT 'needs_reinit', CASE WHEN s.is_visible THEN s.name END FROM seen AS s WHERE s.needs_reinit
        UNION ALL
        SELECT 'consecutive_errors', CASE WHEN s.is_visible THEN format('%s (%s)', s.name, s.consecutive_errors) END
          FROM seen AS s WHERE s.consecutive_errors > 0
        UNION ALL
        SELECT 'buffer_growth', CASE WHEN k.is_visible THEN format('%s (about %s rows, %s)', k.buffer, k.rows, pg_size_pretty(k.bytes)) END
          FROM captures AS k
         WHERE k.rows > CASE WHEN current_setting('pg_trickle.buffer_alert_threshold', true) ~ '^[0-9]{1,18}$'
                             THEN current_setting('pg_trickle.buffer_alert_threshold', true)::bigint ELSE 1000000 END
        UNION ALL
        SELECT 'capture_integrity', CASE WHEN k.is_visible THEN format('%I.%I: %s', n.nspname, c.relname, k.problem) END
          FROM captures AS k JOIN pg_class AS c ON c.oid = k.source_relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE k.problem IS NOT NULL
        UNION ALL
        SELECT 'capture_integrity', CASE WHEN s.is_visible THEN format('%s: triggers that maintain it were dropped or disabled', s.name) END
          FROM seen AS s JOIN pgtrickle_changes.immediate AS i USING (pgt_id)
         WHERE (SELECT count(*) FROM pg_trigger AS t WHERE t.tgname = ANY (i.triggers) AND t.tgenabled = 'A') <> i.number
    ), found AS (
        SELECT p.check_name, count(*) AS n, count(p.what) AS named, string_agg(p.what, ', ' ORDER BY p.what) AS names
          FROM problems AS p GROUP BY p.check_name
    ), worker AS (
        SELECT count(*) FILTER (WHERE w.is_worker) > 0 AS is_running,
               string_agg(format('role "%s", process %s', w.role, w.pid), ', ') FILTER (WHERE w.is_worker) AS who,
               string_agg(format('role "%s", process %s', w.role, w.pid), ', ') FILTER (WHERE NOT w.is_worker) AS impostor
          FROM pgtrickle_changes.worker_sessions AS w
    ), waiting AS (
        -- Callers wait for seconds; what is older was given up.
        SELECT count(*) AS n FROM pgtrickle_changes.bridge_requests AS r
         WHERE r.answered_at IS NULL AND r.requested_at BETWEEN now() - interval '5 min' AND now() - interval '5 s'
    )
    SELECT 1 AS place, 'worker_running' AS check_name,
           CASE WHEN w.is_running THEN 'OK'
                WHEN EXISTS (SELECT FROM seen AS s WHERE s.schedule IS NOT NULL AND s.status IN ('ACTIVE', 'INITIALIZING')) THEN 'ERROR'
                ELSE 'WARN' END AS severity,
           CASE WHEN w.is_running THEN format('connected as %s', w.who)
                ELSE 'no worker is connected: nothing refreshes by itself; start one with: pgtrickle worker --dsn ...'
                     || coalesce(' (its lock is held by ' || w.impostor || ', who is no worker)', '') END AS detail
      FROM worker AS w
    UNION ALL
    SELECT c.place, c.check_name, CASE WHEN f.n IS NULL THEN 'OK' ELSE c.severity END,
           CASE WHEN f.n IS NULL THEN c.fine
                ELSE format('%s %s%s%s', f.n, c.trouble, ': ' || f.names, CASE WHEN f.named BETWEEN 1 AND f.n - 1 THEN ' and others' END) END
      FROM (VALUES (2, 'error_tables', 'ERROR', 'no stream table is stopped by errors', 'stopped by errors'),
                   (3, 'stale_tables', 'WARN', 'no stream table is behind its schedule', 'behind schedule'),
                   (4, 'needs_reinit', 'WARN', 'no stream table has to start afresh', 'to be computed afresh at the next refresh'),
                   (5, 'consecutive_errors', 'WARN', 'the last refresh of every stream table went well', 'whose last refresh failed'),
                   (6, 'buffer_growth', 'WARN', 'the change buffers are small', 'change buffers with more rows than pg_trickle.buffer_alert_threshold'),
                   (8, 'capture_integrity', 'ERROR', 'all capture triggers are present, enabled and unaltered',
                    'captures broken, to be repaired by the next refresh')
           ) AS c(place, check_name, severity, fine, trouble)
      LEFT JOIN found AS f USING (check_name)
    UNION ALL
    SELECT 7, 'slot_lag', 'OK', 'no replication slot is in use'
    UNION ALL
    SELECT 9, 'bridge', CASE WHEN a.n > 0 THEN 'ERROR' WHEN w.is_running THEN 'OK' ELSE 'WARN' END,
           CASE WHEN a.n > 0 THEN format('%s compile requests have not been answered', a.n)
                WHEN w.is_running THEN 'compile requests are answered'
                ELSE 'no worker answers compile requests: SQL callers can''t create stream tables; the command line can' END
      FROM worker AS w CROSS JOIN waiting AS a;
COMMENT ON VIEW pgtrickle.visible_health IS 'What health_check() shows';

CREATE FUNCTION pgtrickle.health_check() RETURNS TABLE (check_name text, severity text, detail text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.check_name, h.severity, h.detail FROM pgtrickle.visible_health AS h ORDER BY h.place
$$;
COMMENT ON FUNCTION pgtrickle.health_check() IS
    'Checks of the whole installation: OK, WARN or ERROR. Stream tables are named to those who may look at them';

CREATE VIEW pgtrickle.quick_health AS
    SELECT s.total_stream_tables, s.active_tables, s.error_tables, s.stale_tables, h.worker_running, h.status
      FROM (SELECT count(*) AS total_stream_tables, count(*) FILTER (WHERE i.status = 'ACTIVE') AS active_tables,
                   count(*) FILTER (WHERE i.status = 'ERROR' OR i.status = 'SUSPENDED' AND i.consecutive_errors > 0) AS error_tables,
                   count(*) FILTER (WHERE i.stale) AS stale_tables
              FROM pgtrickle.stream_tables_info AS i) AS s
     CROSS JOIN (SELECT bool_or(v.check_name = 'worker_running' AND v.severity = 'OK') AS worker_running,
                        CASE WHEN bool_or(v.severity = 'ERROR') THEN 'ERROR' WHEN bool_or(v.severity = 'WARN') THEN 'WARN' ELSE 'OK' END AS status
                   FROM pgtrickle.visible_health AS v) AS h;
COMMENT ON VIEW pgtrickle.quick_health IS 'One row: the stream tables that the current user may look at, counted, and the worst of health_check()';

CREATE FUNCTION pgtrickle_changes.do_change_buffer_sizes(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What each stream table that the caller may look at still has to read.  The owner counts his own buffers; when he can't,
-- because he broke something of his, the others' figures are shown all the same.
DECLARE
    v_table   record;
    v_pending jsonb;
    v_result  jsonb := '[]'::jsonb;
BEGIN
    FOR v_table IN
        SELECT st.pgt_id, st.frontier, st.frontier_xid, st.frontier_seqs, st.owner_oid
          FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
         WHERE v.role = p_caller AND (v.may_read OR v.is_monitor)
    LOOP
        v_pending := NULL;
        IF v_table.frontier IS NOT NULL THEN
            BEGIN
                v_pending := coalesce(pgtrickle_changes.pending(v_table.pgt_id, v_table.frontier, v_table.frontier_xid, v_table.frontier_seqs), '{}');
            EXCEPTION
                WHEN query_canceled OR admin_shutdown OR crash_shutdown THEN
                    RAISE;
                WHEN OTHERS THEN
                    RAISE WARNING 'the change buffers of stream table % can''t be counted', v_table.pgt_id USING DETAIL = sqlerrm;
            END;
        END IF;
        v_result := v_result || coalesce((
            SELECT jsonb_agg(jsonb_build_object('pgt_id', v_table.pgt_id, 'source', d.source_relid, 'bytes', b.bytes,
                       'rows', CASE WHEN v_pending IS NOT NULL THEN coalesce((v_pending -> d.source_relid::text ->> 0)::bigint, 0) END))
              FROM pgtrickle.pgt_dependencies AS d
              JOIN pgtrickle_changes.buffers AS b ON b.source_relid = d.source_relid AND b.owner_oid = v_table.owner_oid
             WHERE d.pgt_id = v_table.pgt_id AND d.captured), '[]');
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_change_buffer_sizes IS 'The gate''s change_buffer_sizes';

CREATE FUNCTION pgtrickle.change_buffer_sizes()
    RETURNS TABLE (stream_table text, source_table text, source_oid oid, cdc_mode text, pending_rows bigint, buffer_bytes bigint)
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('change_buffer_sizes', '{}') RETURNING result
    )
    SELECT i.name, s.source_table, s.source_relid, s.cdc_mode, r."rows", r.bytes
      FROM answer AS a
     CROSS JOIN LATERAL jsonb_to_recordset(a.result) AS r(pgt_id bigint, source oid, "rows" bigint, bytes bigint)
      JOIN pgtrickle.stream_tables_info AS i USING (pgt_id)
      JOIN pgtrickle.visible_sources AS s ON s.pgt_id = r.pgt_id AND s.source_relid = r.source
     ORDER BY i.name, s.source_table
$$;
COMMENT ON FUNCTION pgtrickle.change_buffer_sizes() IS
    'What each stream table still has to read of each source, counted exactly (NULL before it is first filled, which reads the sources themselves), and the size of the buffer, which stream tables of one owner share. Not in read-only transactions: the owner counts, so it passes the gate';
INSERT INTO pgtrickle_changes.gate_actions (action, function)
VALUES ('change_buffer_sizes', 'pgtrickle.change_buffer_sizes()');

CREATE FUNCTION pgtrickle.explain_stream_table(name regclass, format text DEFAULT 'text') RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
    v_plan  jsonb;
    v_doc   jsonb;
BEGIN
    IF explain_stream_table.format NOT IN ('text', 'json') THEN
        RAISE EXCEPTION 'unknown format "%"', explain_stream_table.format
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The formats are text and json.';
    END IF;
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = explain_stream_table.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', explain_stream_table.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    SELECT p.plan INTO v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'permission denied for the plan of stream table "%"', explain_stream_table.name
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'A plan shows the query, which is for those who may SELECT from the stream table.',
                  HINT = 'GRANT SELECT on it.';
    END IF;

    v_doc := jsonb_build_object(
        'stream_table', v_table.name,
        'configured_mode', v_table.refresh_mode,
        'effective_mode', v_table.effective_refresh_mode,
        'reason', coalesce(v_table.downgrade_reason,
            CASE WHEN v_table.effective_refresh_mode = 'FULL' THEN v_plan -> 'refusal' ->> 'reason' END,
            CASE WHEN v_table.effective_refresh_mode = 'FULL' AND v_table.refresh_mode = 'FULL' THEN 'asked for' END),
        'key', v_plan -> 'key',
        'tree', coalesce(v_plan -> 'explain' -> 'tree', '[]'),
        'stages', coalesce((SELECT jsonb_agg(jsonb_build_object('table', s.item ->> 'name', 'key', s.item -> 'key', 'columns', s.item -> 'columns') ORDER BY s.place)
                              FROM jsonb_array_elements(v_plan -> 'states') WITH ORDINALITY AS s(item, place)), '[]'),
        'indexes', coalesce((SELECT jsonb_agg(jsonb_build_object('relation', s.source_table, 'columns', x.item -> 'columns', 'why', x.item ->> 'why') ORDER BY x.place)
                               FROM jsonb_array_elements(v_plan -> 'indexes') WITH ORDINALITY AS x(item, place)
                               JOIN pgtrickle.visible_sources AS s ON s.pgt_id = v_table.pgt_id AND s.source_relid::text = x.item ->> 'relation'
                              -- An index that begins with the column will do.
                              WHERE NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                                                 WHERE i.indrelid = s.source_relid AND i.indisvalid AND i.indpred IS NULL
                                                   AND a.attname = x.item -> 'columns' ->> 0)), '[]'),
        'notes', coalesce(v_plan -> 'explain' -> 'notes', '[]'));
    IF explain_stream_table.format = 'json' THEN
        RETURN jsonb_pretty(v_doc);
    END IF;
    RETURN concat_ws(E'\n',
        format('Stream table %s', v_table.name),
        format('  refresh mode: %s, effectively %s%s', v_table.refresh_mode, v_table.effective_refresh_mode, ': ' || (v_doc ->> 'reason')),
        CASE WHEN jsonb_typeof(v_doc -> 'key') = 'array'
             THEN format('  written by key (%s)', (SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.place)
                                                     FROM jsonb_array_elements_text(v_doc -> 'key') WITH ORDINALITY AS k(name, place)))
             ELSE '  written by content: its rows have no key' END,
        (SELECT string_agg(repeat('  ', 1 + CASE WHEN t.item ->> 'depth' ~ '^[0-9]{1,2}$' THEN (t.item ->> 'depth')::integer ELSE 0 END)
                           || (t.item ->> 'operator') || coalesce(': ' || nullif(t.item ->> 'detail', ''), '')
                           || coalesce('  [' || nullif(t.item ->> 'rule', '') || ']', ''), E'\n' ORDER BY t.place)
           FROM jsonb_array_elements(v_doc -> 'tree') WITH ORDINALITY AS t(item, place)),
        (SELECT string_agg(format('  state table pgtrickle_changes.%I, %s', s.item ->> 'table', coalesce('keyed by (' ||
                                  (SELECT string_agg(k.name, ', ' ORDER BY k.place) FROM jsonb_array_elements_text(nullif(s.item -> 'key', 'null'))
                                     WITH ORDINALITY AS k(name, place)) || ')', 'without a key')),
                           E'\n' ORDER BY s.place)
           FROM jsonb_array_elements(v_doc -> 'stages') WITH ORDINALITY AS s(item, place)),
        (SELECT string_agg(format('  would like an index on %s (%s): %s', x.item ->> 'relation',
                                  (SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.place) FROM jsonb_array_elements_text(x.item -> 'columns') WITH ORDINALITY AS k(name, place)),
                                  x.item ->> 'why'), E'\n' ORDER BY x.place)
           FROM jsonb_array_elements(v_doc -> 'indexes') WITH ORDINALITY AS x(item, place)),
        (SELECT string_agg('  ' || n.note, E'\n' ORDER BY n.place) FROM jsonb_array_elements_text(v_doc -> 'notes') WITH ORDINALITY AS n(note, place)));
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_stream_table(regclass, text) IS
    'How a stream table is kept: its operators with the rule used for each, state tables, the indexes it would like, and the refresh mode with its reason; as text or json. For those who may SELECT from it';

CREATE FUNCTION pgtrickle.explain_delta(name regclass) RETURNS TABLE (changed text, step integer, statement text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
    v_plan  jsonb;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = explain_delta.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', explain_delta.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    SELECT p.plan INTO v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'permission denied for the plan of stream table "%"', explain_delta.name
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'A plan shows the query, which is for those who may SELECT from the stream table.',
                  HINT = 'GRANT SELECT on it.';
    END IF;
    RETURN QUERY
        SELECT CASE WHEN p.key = '*' THEN 'any' ELSE (
                   SELECT string_agg(coalesce(s.source_table, o.source), ', ' ORDER BY o.place)
                     FROM unnest(string_to_array(p.key, ',')) WITH ORDINALITY AS o(source, place)
                     LEFT JOIN pgtrickle.visible_sources AS s ON s.pgt_id = v_table.pgt_id AND s.source_relid::text = o.source) END,
               t.place::integer, t.statement
          FROM jsonb_each(v_plan -> 'programs' -> 'differential') AS p(key, program)
         CROSS JOIN LATERAL jsonb_array_elements_text(p.program) WITH ORDINALITY AS t(statement, place)
         ORDER BY p.key = '*', length(p.key), p.key, t.place;
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_delta(regclass) IS
    'The SQL of a differential refresh: the statements, in order, for each set of sources that may have changed (any: the general case). $1 is the frontier, $2 and $3 the refresh''s own transaction and how far its changes are in. No rows: it is always recomputed. For those who may SELECT from the stream table';

GRANT SELECT ON pgtrickle.pgt_stream_tables, pgtrickle.pgt_plans, pgtrickle.pgt_dependencies, pgtrickle.pgt_refresh_history,
    pgtrickle.visible_stream_tables, pgtrickle.stream_tables_info, pgtrickle.visible_status, pgtrickle.pg_stat_stream_tables,
    pgtrickle.visible_efficiency, pgtrickle.visible_sources, pgtrickle.visible_captures, pgtrickle.visible_triggers,
    pgtrickle.visible_health, pgtrickle.quick_health
    TO PUBLIC;

REVOKE ALL ON FUNCTION
    pgtrickle.pgt_status(), pgtrickle.health_check(), pgtrickle.refresh_efficiency(), pgtrickle.get_staleness(regclass),
    pgtrickle.get_refresh_history(regclass, integer), pgtrickle.refresh_timeline(integer), pgtrickle.list_sources(regclass),
    pgtrickle.dependency_tree(), pgtrickle.diamond_groups(), pgtrickle.pgt_scc_status(), pgtrickle.check_cdc_health(),
    pgtrickle.trigger_inventory(), pgtrickle.change_buffer_sizes(), pgtrickle.explain_stream_table(regclass, text),
    pgtrickle.explain_delta(regclass), pgtrickle.explain_refresh_mode(regclass),
    pgtrickle_changes.do_change_buffer_sizes(name, jsonb)
    FROM PUBLIC;
GRANT USAGE ON SCHEMA pgtrickle TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    pgtrickle.pgt_status(), pgtrickle.health_check(), pgtrickle.refresh_efficiency(), pgtrickle.get_staleness(regclass),
    pgtrickle.get_refresh_history(regclass, integer), pgtrickle.refresh_timeline(integer), pgtrickle.list_sources(regclass),
    pgtrickle.dependency_tree(), pgtrickle.diamond_groups(), pgtrickle.pgt_scc_status(), pgtrickle.check_cdc_health(),
    pgtrickle.trigger_inventory(), pgtrickle.change_buffer_sizes(), pgtrickle.explain_stream_table(regclass, text),
    pgtrickle.explain_delta(regclass), pgtrickle.explain_refresh_mode(regclass)
    TO pg_monitor;
