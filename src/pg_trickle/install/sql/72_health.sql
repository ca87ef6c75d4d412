-- Whether captures, workers and stream tables are well.

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
      LEFT JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.proname = e.function_name AND p.pronamespace = 'pgtrickle_changes'::regnamespace
     WHERE k.trigger_mode <> 'wal';

CREATE VIEW pgtrickle_changes.slot AS
    -- The replication slot as it should be, and as it is; no row where capture from the WAL isn't enabled.
    SELECT n.name, s.active, coalesce(s.wal_status, 'missing') AS wal_status, s.restart_lsn, s.confirmed_flush_lsn,
           CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn)::bigint END AS kept_bytes,
           CASE WHEN s.slot_name IS NULL THEN format('replication slot "%s" was dropped', n.name)
                WHEN s.wal_status = 'lost' THEN format('replication slot "%s" lost WAL that was still to be read', n.name)
                WHEN s.confirmed_flush_lsn > w.advance_to THEN format('somebody else has read from replication slot "%s"', n.name)
                WHEN NOT EXISTS (SELECT FROM pg_publication AS p WHERE p.pubname = 'pg_trickle') THEN 'publication "pg_trickle" was dropped' END AS problem
      FROM pgtrickle_changes.wal_slot AS w
     CROSS JOIN (SELECT format('pg_trickle_%s', d.oid)::name AS name FROM pg_database AS d WHERE d.datname = current_database()) AS n
      LEFT JOIN pg_replication_slots AS s ON s.slot_name = n.name AND s.database = current_database();

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
           CASE WHEN k.trigger_mode = 'wal' THEN coalesce(
               (SELECT s.problem FROM pgtrickle_changes.slot AS s),
               CASE WHEN NOT EXISTS (SELECT FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
                                      WHERE p.pubname = 'pg_trickle' AND r.prrelid = k.source_relid)
                    THEN 'it was taken out of publication "pg_trickle"' END,
               (SELECT 'the WAL does not tell what its changed rows were' FROM pg_class AS c
                 WHERE c.oid = k.source_relid AND c.relreplident <> 'f'
                   AND NOT EXISTS (SELECT FROM pg_index AS i
                                    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                                      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
                                      AND k.attnums <@ (i.indkey::smallint[])[0:i.indnkeyatts - 1]))) END,
           (SELECT format('column "%s" was renamed or dropped', o.name)
              FROM unnest(k.attnums, k.columns) AS o(attnum, name)
              LEFT JOIN pg_attribute AS a ON a.attrelid = k.source_relid AND a.attnum = o.attnum AND NOT a.attisdropped
             WHERE a.attname IS DISTINCT FROM o.name LIMIT 1)) AS problem
      FROM pgtrickle.pgt_captures AS k
      LEFT JOIN pg_class AS b ON b.oid = k.buffer_relid AND b.relname = k.buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace
     -- One whose source is gone is housekeeping's.
     WHERE EXISTS (SELECT FROM pg_class AS c WHERE c.oid = k.source_relid);

CREATE VIEW pgtrickle_changes.wal_fallbacks AS
    -- What is captured by triggers although the WAL was asked for.
    SELECT DISTINCT k.source_relid, k.owner_oid
      FROM pgtrickle.pgt_captures AS k
      JOIN pgtrickle.pgt_dependencies AS d ON d.source_relid = k.source_relid AND d.captured
      JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_id = d.pgt_id AND st.owner_oid = k.owner_oid
     WHERE k.trigger_mode <> 'wal' AND st.cdc_mode = 'wal'
       AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = k.source_relid);

CREATE VIEW pgtrickle.visible_captures WITH (security_barrier) AS
    SELECT s.source_table, p.source_relid, pg_get_userbyid(p.owner_oid) AS owner, p.buffer, p.trigger_mode, p.problem, b.rows, b.bytes,
           CASE WHEN f.source_relid IS NOT NULL THEN 'cdc_mode => ''wal'' was asked for and could not be had any more' END AS fallback
      FROM pgtrickle_changes.capture_problems AS p
      JOIN pgtrickle_changes.buffers AS b USING (source_relid, owner_oid)
      JOIN (SELECT DISTINCT v.source_table, v.source_relid, v.owner_oid FROM pgtrickle.visible_sources AS v WHERE v.captured) AS s
     USING (source_relid, owner_oid)
      LEFT JOIN pgtrickle_changes.wal_fallbacks AS f USING (source_relid, owner_oid);
COMMENT ON VIEW pgtrickle.visible_captures IS 'The change buffers that feed stream tables which the current user may look at';

CREATE FUNCTION pgtrickle.check_cdc_health()
    RETURNS TABLE (source_table text, source_oid oid, owner name, cdc_mode text, trigger_mode text, buffer name, alert text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.source_table, k.source_relid, k.owner, CASE WHEN k.trigger_mode = 'wal' THEN 'wal' ELSE 'trigger' END, nullif(k.trigger_mode, 'wal'), k.buffer,
           coalesce(k.problem, k.fallback)
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

CREATE VIEW pgtrickle_changes.slot_lag AS
    -- One row: whether the replication slot is well.
    WITH limits AS (
        SELECT CASE WHEN current_setting('pg_trickle.slot_lag_warning_threshold_mb', true) ~ '^[0-9]{1,9}$'
                    THEN current_setting('pg_trickle.slot_lag_warning_threshold_mb', true)::bigint ELSE 1024 END * 1048576 AS bytes
    ), fallen AS (
        SELECT count(*) AS n FROM pgtrickle_changes.wal_fallbacks
    ), used AS (
        SELECT count(*) AS n FROM pgtrickle.pgt_captures AS k WHERE k.trigger_mode = 'wal'
    ), worst AS (
        SELECT w.place, w.severity, w.detail
          FROM limits AS l CROSS JOIN fallen AS f CROSS JOIN used AS u LEFT JOIN pgtrickle_changes.slot AS s ON true
         CROSS JOIN LATERAL (VALUES
             (1, 'ERROR', CASE WHEN u.n > 0 THEN s.problem END),
             (2, 'WARN', CASE WHEN f.n > 0 THEN concat(f.n, ' sources are captured by triggers although cdc_mode is "wal"', ': ' || s.problem,
                                                       '; CALL pgtrickle.enable_wal(), then alter the stream tables with cdc_mode => ''wal''') END),
             (3, 'WARN', CASE WHEN s.kept_bytes > l.bytes THEN format('replication slot "%s" keeps %s of WAL: is the worker running?', s.name, pg_size_pretty(s.kept_bytes)) END),
             (4, 'WARN', CASE WHEN s.name IS NOT NULL AND u.n = 0 THEN format('replication slot "%s" keeps WAL that nothing reads: SELECT pgtrickle.disable_wal()', s.name) END),
             (5, 'OK', CASE WHEN s.name IS NOT NULL THEN format('replication slot "%s" keeps %s of WAL', s.name, pg_size_pretty(s.kept_bytes)) END),
             (6, 'OK', 'no replication slot is in use')) AS w(place, severity, detail)
         WHERE w.detail IS NOT NULL
    )
    SELECT w.severity, w.detail FROM worst AS w ORDER BY w.place LIMIT 1;

CREATE VIEW pgtrickle.visible_slot WITH (security_barrier) AS
    SELECT s.name, s.active, s.wal_status, s.restart_lsn, s.confirmed_flush_lsn, s.kept_bytes,
           (SELECT count(*) FROM pgtrickle.pgt_captures AS k WHERE k.trigger_mode = 'wal') AS captures, s.problem
      FROM pgtrickle_changes.slot AS s;
COMMENT ON VIEW pgtrickle.visible_slot IS 'The replication slot of this database, if capture from the WAL is enabled';

CREATE FUNCTION pgtrickle.slot_health()
    RETURNS TABLE (slot_name name, active boolean, wal_status text, restart_lsn pg_lsn, confirmed_flush_lsn pg_lsn, retained_bytes bigint,
                   captures bigint, alert text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.name, s.active, s.wal_status, s.restart_lsn, s.confirmed_flush_lsn, s.kept_bytes, s.captures, s.problem FROM pgtrickle.visible_slot AS s
$$;
COMMENT ON FUNCTION pgtrickle.slot_health() IS
    'The replication slot that captures changes from the WAL: how much WAL it keeps, for how many captures; alert says what is wrong, NULL if nothing is. No row without enable_wal()';

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
        SELECT 'error_tables' AS check_name, CASE WHEN s.is_visible THEN s.name || CASE WHEN s.is_restored THEN ' (came with a dump: SELECT pgtrickle.restore_stream_tables())' ELSE '' END END AS what
          FROM seen AS s WHERE s.status = 'ERROR' OR s.status = 'SUSPENDED' AND s.consecutive_errors > 0
        UNION ALL
        SELECT 'stale_tables', CASE WHEN s.is_visible THEN format('%s (%s)', s.name, coalesce(extract(epoch FROM s.staleness)::bigint || ' s', 'never filled')) END
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
        SELECT 'fuse', CASE WHEN s.is_visible THEN format('%s (%s)', s.name, coalesce(s.fuse_reason, 'changes were skipped: it is not its query')) END
          FROM seen AS s WHERE s.fuse_blown_at IS NOT NULL OR s.changes_skipped_at IS NOT NULL
        UNION ALL
        SELECT 'capture_integrity', CASE WHEN s.is_visible THEN format('%s: triggers that maintain it were dropped or disabled', s.name) END
          FROM seen AS s JOIN pgtrickle_changes.immediate AS i USING (pgt_id)
         WHERE (SELECT count(*) FROM pg_trigger AS t WHERE t.tgname = ANY (i.triggers) AND t.tgparentid = 0 AND t.tgenabled = CASE WHEN t.tgname LIKE '%\_applied' THEN 'R' ELSE 'A' END) <> i.number
    ), found AS (
        SELECT p.check_name, count(*) AS n, count(p.what) AS named, string_agg(p.what, ', ' ORDER BY p.what) AS names
          FROM problems AS p GROUP BY p.check_name
    ), worker AS (
        SELECT count(*) FILTER (WHERE w.is_worker) > 0 AS is_running, (SELECT d.is_draining FROM pgtrickle.drain_status AS d) AS is_draining,
               round(extract(epoch FROM max(w.quiet_for) FILTER (WHERE w.is_worker AND w.quiet_for > interval '3 s'))) AS hung_for,
               string_agg(format('role "%s", process %s', w.role, w.pid), ', ') FILTER (WHERE w.is_worker) AS who,
               string_agg(format('role "%s", process %s', w.role, w.pid), ', ') FILTER (WHERE NOT w.is_worker) AS impostor
          FROM pgtrickle_changes.worker_sessions AS w
    ), waiting AS (
        -- Callers wait for seconds; what is older was given up.
        SELECT count(*) AS n FROM pgtrickle_changes.bridge_requests AS r
         WHERE r.answered_at IS NULL AND r.requested_at BETWEEN now() - interval '5 min' AND now() - interval '5 s'
    )
    SELECT 1 AS place, 'worker_running' AS check_name,
           CASE WHEN w.hung_for IS NOT NULL THEN 'ERROR'
                WHEN w.is_running THEN CASE WHEN w.is_draining THEN 'WARN' ELSE 'OK' END
                WHEN EXISTS (SELECT FROM seen AS s WHERE s.schedule IS NOT NULL AND s.status IN ('ACTIVE', 'INITIALIZING')) THEN 'ERROR'
                ELSE 'WARN' END AS severity,
           CASE WHEN w.hung_for IS NOT NULL THEN format('it hangs: connected as %s, it has asked nothing for %s s', w.who, w.hung_for)
                WHEN w.is_running THEN format('connected as %s', w.who) || CASE WHEN w.is_draining THEN ', but drained: it refreshes nothing until undrain()' ELSE '' END
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
                    'captures broken, to be repaired by the next refresh'),
                   (10, 'fuse', 'ERROR', 'no fuse is blown', 'held back by their fuse, or without changes that were skipped')
           ) AS c(place, check_name, severity, fine, trouble)
      LEFT JOIN found AS f USING (check_name)
    UNION ALL
    SELECT 7, 'slot_lag', l.severity, l.detail FROM pgtrickle_changes.slot_lag AS l
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
