-- The installation, as a superuser sees it: check, severity, detail, fix.
SELECT c.check_name, c.severity, c.detail, CASE WHEN c.severity <> 'OK' THEN c.fix END AS fix
  FROM (
    SELECT 11, h.check_name, h.severity, h.detail, CASE h.check_name
               WHEN 'worker_running' THEN 'Start one: pgtrickle worker --dsn DSN'
               WHEN 'error_tables' THEN 'See get_refresh_history(), mend what is wrong, then resume_stream_table().'
               WHEN 'stale_tables' THEN 'See whether the worker keeps up: refresh_timeline().'
               WHEN 'needs_reinit' THEN 'The next refresh recomputes it; refresh_stream_table() does so now.'
               WHEN 'buffer_growth' THEN 'Resume or drop the stream tables that don''t read their changes.'
               WHEN 'capture_integrity' THEN 'The next refresh repairs it; check_cdc_health() says whose it is.'
               ELSE 'See pgtrickle.get_refresh_history().' END
      FROM pgtrickle.health_check() AS h
    UNION ALL
    SELECT 12, 'worker_role',
           CASE WHEN r.rolname IS NULL OR r.rolsuper OR r.rolbypassrls OR r.groups > 0 THEN 'WARN' ELSE 'OK' END,
           CASE WHEN r.rolname IS NULL THEN 'no role is appointed' WHEN r.groups > 0 THEN pg_catalog.format('"%s" is a member of other roles', r.rolname)
                WHEN r.rolsuper OR r.rolbypassrls THEN pg_catalog.format('"%s" has more rights than it needs', r.rolname)
                ELSE pg_catalog.format('"%s" can do its job and nothing else', r.rolname) END,
           'CREATE ROLE pgtrickle_worker LOGIN; SELECT pgtrickle.grant_worker(''pgtrickle_worker'');'
      FROM (SELECT 'worker_role' AS name) AS wanted
      LEFT JOIN pgtrickle.pgt_settings AS s ON s.name = wanted.name
      LEFT JOIN LATERAL (SELECT a.*, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_auth_members AS m WHERE m.member = a.oid) AS groups
                           FROM pg_catalog.pg_roles AS a WHERE a.rolname = s.value) AS r ON true
    UNION ALL
    SELECT 13, 'owners', CASE WHEN pg_catalog.count(*) > 0 THEN 'WARN' ELSE 'OK' END,
           coalesce('owned by superusers: ' || pg_catalog.string_agg(st.pgt_name, ', ' ORDER BY st.pgt_name), 'no stream table belongs to a superuser'),
           'Let a role without privileges create them: what their queries call runs with their owner''s rights.'
      FROM pgtrickle.pgt_stream_tables AS st JOIN pg_catalog.pg_roles AS r ON r.oid = st.owner_oid WHERE r.rolsuper
    UNION ALL
    SELECT 14, 'buffers', CASE WHEN pg_catalog.count(*) > 0 THEN 'WARN' ELSE 'OK' END,
           coalesce('others than their owners have rights on: ' || pg_catalog.string_agg(DISTINCT b.relname::pg_catalog.text, ', '),
                    'nobody but its owner has a right on a change buffer'),
           'REVOKE ALL ON ALL TABLES IN SCHEMA pgtrickle_changes FROM PUBLIC; and from whoever needn''t read them.'
      FROM pgtrickle.pgt_captures AS k JOIN pg_catalog.pg_class AS b ON b.oid = k.buffer_relid
     CROSS JOIN LATERAL pg_catalog.aclexplode(b.relacl) AS g WHERE g.grantee <> b.relowner
    UNION ALL
    SELECT 15, s.name, CASE WHEN s.value = s.wanted THEN 'OK' ELSE 'WARN' END, pg_catalog.format('pg_trickle.%s is %s', s.name, s.value),
           pg_catalog.format('ALTER SYSTEM SET pg_trickle.%s = %L; SELECT pg_reload_conf();', s.name, s.wanted)
      FROM (SELECT n.name, n.wanted, pgtrickle_changes.setting(n.name) AS value
              FROM (VALUES ('enabled', 'on'), ('allow_circular', 'off')) AS n(name, wanted)) AS s
    UNION ALL
    SELECT 16, 'public_rights', CASE WHEN pg_catalog.count(*) > 0 THEN 'ERROR' ELSE 'OK' END,
           CASE WHEN pg_catalog.count(*) > 0 THEN pg_catalog.format('PUBLIC may execute %s functions', pg_catalog.count(*)) ELSE 'PUBLIC may execute nothing' END,
           'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;'
      FROM pg_catalog.pg_proc AS p
     CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS g
     WHERE g.grantee = 0 AND p.pronamespace IN ('pgtrickle'::pg_catalog.regnamespace, 'pgtrickle_changes'::pg_catalog.regnamespace)
  ) AS c(place, check_name, severity, detail, fix)
 ORDER BY c.place, c.check_name;
