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
    SELECT l.pid, a.usename AS role, coalesce(has_function_privilege(a.usesysid, p.oid, 'EXECUTE'), false) AS is_worker,
           -- It asks every half second at least, whatever its other connections do.  What sessions do is shown to pg_monitor only.
           CASE WHEN a.state = 'idle' THEN clock_timestamp() - a.state_change END AS quiet_for
      FROM pg_locks AS l
      JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
      JOIN pg_proc AS p ON p.proname = 'worker_poll' AND p.pronamespace = 'pgtrickle_changes'::regnamespace
      LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.classid = 1885762401::oid AND l.objsubid = 2 AND l.granted;

CREATE VIEW pgtrickle_changes.buffers AS
    -- The change buffers by their size on disk, and how many rows they hold by the server's statistics: nothing reads them.
    SELECT k.source_relid, k.owner_oid, k.buffer, k.buffer_relid, pg_stat_get_live_tuples(k.buffer_relid) AS rows,
           -- Of those that somebody has locked it can't be asked without waiting for him.
           CASE WHEN k.buffer_relid <> ALL (ARRAY(SELECT coalesce(i.indrelid, l.relation) FROM pg_locks AS l LEFT JOIN pg_index AS i ON i.indexrelid = l.relation
                                                   WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()))
                THEN pg_total_relation_size(k.buffer_relid) END AS bytes
      FROM pgtrickle.pgt_captures AS k;

CREATE VIEW pgtrickle_changes.status AS
    SELECT st.pgt_id, st.pgt_relid, coalesce(n.nspname, st.pgt_schema)::text AS pgt_schema, coalesce(c.relname, st.pgt_name)::text AS pgt_name,
           format('%I.%I', coalesce(n.nspname, st.pgt_schema), coalesce(c.relname, st.pgt_name)) AS name,
           st.owner_oid, pg_get_userbyid(st.owner_oid) AS owner, CASE WHEN o.is_restored THEN 'ERROR' ELSE st.status END AS status, st.refresh_mode, st.effective_refresh_mode, st.downgrade_reason,
           st.schedule, st.tier, st.diamond_consistency, st.diamond_schedule_policy, st.is_populated, st.needs_reinit, st.reinit_reason, st.consecutive_errors,
           st.last_error_at,
           CASE WHEN o.is_restored THEN 'it came with a dump: SELECT pgtrickle.restore_stream_tables()' ELSE st.last_error_message END AS last_error_message,
           t.data_timestamp, st.last_refresh_at, st.created_at, st.defining_query, st.full_ms,
           st.fuse_blown_at, st.fuse_reason, st.changes_skipped_at, o.is_restored,
           st.scc_id, st.fixpoint_iterations, st.fixpoint_at,
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
      -- What was dropped by hand is gone, and the rest of it is housekeeping's.
      JOIN pg_class AS c ON c.oid = st.pgt_relid
      LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (SELECT st.home <> h.home AS is_restored FROM pgtrickle_changes.here AS h) AS o
     -- What is maintained in its writers' statements is of now.
     CROSS JOIN LATERAL (SELECT CASE WHEN st.refresh_mode = 'IMMEDIATE' AND st.status = 'ACTIVE' AND NOT st.needs_reinit AND NOT o.is_restored THEN now()
                                     ELSE st.data_timestamp END AS data_timestamp) AS t;

CREATE VIEW pgtrickle.stream_tables_info WITH (security_barrier) AS
    SELECT s.pgt_id, s.pgt_relid::regclass AS pgt_relid, s.pgt_schema, s.pgt_name, s.name, s.owner, s.status, s.refresh_mode,
           s.effective_refresh_mode, s.downgrade_reason, s.schedule, s.tier, s.diamond_consistency, s.diamond_schedule_policy, s.is_populated, s.needs_reinit, s.reinit_reason,
           s.consecutive_errors, s.last_error_at, s.last_error_message, s.data_timestamp, s.last_refresh_at, s.created_at,
           s.staleness, s.stale, CASE WHEN v.may_read THEN s.defining_query END AS defining_query, s.scc_id, s.fixpoint_iterations, s.fixpoint_at
      FROM pgtrickle_changes.status AS s
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.stream_tables_info IS 'The stream tables that the current user may look at, and how they are';
COMMENT ON COLUMN pgtrickle.stream_tables_info.staleness IS 'The age of the moment that the contents reflect; it grows although nothing changes, unless the schedule names a time';
COMMENT ON COLUMN pgtrickle.stream_tables_info.stale IS 'Whether it is behind its schedule: twice the interval for one with an interval; otherwise changes wait, and errors, a suspension or the lack of a worker keep them waiting';
COMMENT ON COLUMN pgtrickle.stream_tables_info.defining_query IS 'NULL for those who may not SELECT from the stream table';

CREATE VIEW pgtrickle.visible_status WITH (security_barrier) AS
    SELECT s.name, s.status, s.refresh_mode, s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp, s.staleness, s.scc_id
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
    SELECT s.name, s.status, s.refresh_mode, s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp, s.staleness, s.scc_id::integer
      FROM pgtrickle.visible_status AS s
     ORDER BY s.name
$$;
COMMENT ON FUNCTION pgtrickle.pgt_status() IS
    'The stream tables and how they are. name is qualified and quoted where it must be, so it can be handed to the other functions; scc_id is the same for those that read each other in a cycle (pgt_scc_status), and NULL for all others';

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
         LIMIT CASE WHEN max_rows IS NOT NULL THEN greatest(max_rows, 0) END;
END
$$;
COMMENT ON FUNCTION pgtrickle.get_refresh_history(regclass, integer) IS
    'The latest refreshes of a stream table, newest first';

CREATE FUNCTION pgtrickle.refresh_timeline(max_rows integer DEFAULT 50) RETURNS SETOF pgtrickle.pgt_refresh_history
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.* FROM pgtrickle.pgt_refresh_history AS h ORDER BY h.started_at DESC, h.refresh_id DESC LIMIT CASE WHEN max_rows IS NOT NULL THEN greatest(max_rows, 0) END
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
