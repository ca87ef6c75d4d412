-- What capture from the WAL rests on, where a stream table asks for it, something is captured so or it was enabled: check, severity,
-- detail, fix.
WITH need AS (
    SELECT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.cdc_mode = 'wal')
           OR EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.trigger_mode = 'wal')
           OR pgtrickle_changes.setting('cdc_mode') = 'wal' OR w.enabled AS wal,
           w.enabled,
           (SELECT s.problem FROM pgtrickle_changes.slot AS s) AS problem,
           EXISTS (SELECT FROM pgtrickle_changes.slot AS s WHERE s.wal_status <> 'missing') AS has_slot,
           pg_catalog.current_setting('wal_level') AS level,
           pg_catalog.current_setting('max_slot_wal_keep_size') AS kept,
           pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4
               - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots) AS free
      FROM (SELECT EXISTS (SELECT FROM pgtrickle_changes.wal_slot) AS enabled) AS w
), blind AS (
    SELECT pg_catalog.string_agg(DISTINCT k.source_relid::pg_catalog.regclass::pg_catalog.text, ', ') AS sources
      FROM pgtrickle.pgt_captures AS k
     WHERE k.trigger_mode = 'wal' AND NOT pgtrickle_changes.has_pre_images(k.source_relid, k.attnums)
)
SELECT c.check_name, c.severity, c.detail, CASE WHEN c.severity <> 'OK' THEN c.fix END AS fix
  FROM (
    SELECT 21, 'wal_level', CASE WHEN n.level = 'logical' THEN 'OK' ELSE 'ERROR' END, pg_catalog.format('wal_level is %s', n.level),
           'ALTER SYSTEM SET wal_level = logical; and restart the server.'
      FROM need AS n WHERE n.wal
    UNION ALL
    SELECT 22, 'wal_slot', CASE WHEN n.enabled AND n.problem IS NULL THEN 'OK' ELSE 'ERROR' END,
           CASE WHEN n.enabled THEN coalesce(n.problem, 'replication slot and publication are there') ELSE 'capture from the WAL is not enabled' END,
           'CALL pgtrickle.enable_wal(); or, where nothing needs it any more: SELECT pgtrickle.disable_wal();'
      FROM need AS n WHERE n.wal
    UNION ALL
    SELECT 23, 'wal_slots_free', CASE WHEN n.free > 0 OR n.has_slot THEN 'OK' ELSE 'ERROR' END, pg_catalog.format('%s more replication slots can be made', n.free),
           'Raise max_replication_slots and restart the server, or drop slots that nobody reads: SELECT * FROM pg_replication_slots;'
      FROM need AS n WHERE n.wal
    UNION ALL
    SELECT 24, 'wal_kept', CASE WHEN n.kept = '-1' THEN 'WARN' ELSE 'OK' END,
           CASE WHEN n.kept = '-1' THEN 'a slot that nobody reads keeps WAL until the disk is full' ELSE pg_catalog.format('slots keep %s at most', n.kept) END,
           'ALTER SYSTEM SET max_slot_wal_keep_size = ''10GB''; SELECT pg_reload_conf(); what is lost by it is recomputed.'
      FROM need AS n WHERE n.wal
    UNION ALL
    SELECT 25, 'replica_identity', CASE WHEN b.sources IS NULL THEN 'OK' ELSE 'ERROR' END,
           coalesce('the WAL does not tell what changed rows were: ' || b.sources, 'the WAL tells what is read of each source'),
           'ALTER TABLE source REPLICA IDENTITY FULL; or cdc_mode => ''trigger''.'
      FROM need AS n CROSS JOIN blind AS b WHERE n.wal
  ) AS c(place, check_name, severity, detail, fix)
 ORDER BY c.place;
