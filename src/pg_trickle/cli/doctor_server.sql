-- The server itself, whether or not pg_trickle is installed: check, severity, detail, fix.
SELECT c.check_name, c.severity, c.detail, CASE WHEN c.severity <> 'OK' THEN c.fix END AS fix
  FROM (
    SELECT 1, 'server_version', CASE WHEN v.major BETWEEN 15 AND 18 THEN 'OK' ELSE 'ERROR' END,
           format('PostgreSQL %s', v.major), 'Use PostgreSQL 15 to 18.'
      FROM (SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 AS major) AS v
    UNION ALL
    SELECT 2, 'superuser', CASE WHEN r.rolsuper THEN 'OK' ELSE 'ERROR' END, pg_catalog.format('connected as "%s"', r.rolname),
           'Connect as a superuser: installing takes one, and so does looking at everything.'
      FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER
    UNION ALL
    SELECT 3, 'installed', CASE WHEN n.there THEN 'OK' ELSE 'ERROR' END,
           CASE WHEN n.there THEN 'pg_trickle is installed in this database' ELSE 'pg_trickle is not installed in this database' END,
           'CREATE EXTENSION pg_trickle; or: pgtrickle install --dsn DSN'
      FROM (SELECT pg_catalog.to_regnamespace('pgtrickle') IS NOT NULL AS there) AS n
    UNION ALL
    SELECT 4, 'connections', CASE WHEN s.free >= 10 THEN 'OK' ELSE 'WARN' END, pg_catalog.format('%s connections are free', s.free),
           'Raise max_connections: the worker keeps a few, and each call that compiles a query takes one for a moment.'
      FROM (SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4 - pg_catalog.count(*) AS free FROM pg_catalog.pg_stat_activity) AS s
    UNION ALL
    SELECT 5, 'durability', CASE WHEN pg_catalog.current_setting('fsync') = 'on' THEN 'OK' ELSE 'WARN' END,
           'fsync is ' || pg_catalog.current_setting('fsync'), 'Set fsync = on: after a crash, stream tables and their sources may differ.'
  ) AS c(place, check_name, severity, detail, fix)
 ORDER BY c.place;
