-- What the worker tells Prometheus: names and numbers, no text of a query or an error.

CREATE FUNCTION pgtrickle_changes.worker_metrics() RETURNS jsonb
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'stream_tables', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', s.pgt_id, 'schema', s.pgt_schema, 'name', s.pgt_name, 'active', (s.status = 'ACTIVE')::integer,
                       'populated', s.is_populated::integer, 'needs_reinit', s.needs_reinit::integer, 'stale', s.stale::integer,
                       'staleness', extract(epoch FROM s.staleness), 'last_refresh', extract(epoch FROM s.last_refresh_at),
                       'errors', s.consecutive_errors, 'fuse_blown', (s.fuse_blown_at IS NOT NULL)::integer) ORDER BY s.pgt_id), '[]')
              FROM pgtrickle_changes.status AS s),
        'captures', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'schema', n.nspname, 'name', c.relname, 'owner', pg_get_userbyid(p.owner_oid), 'bytes', coalesce(b.bytes, 0),
                       'rows', coalesce(b.rows, 0), 'intact', (p.problem IS NULL)::integer) ORDER BY n.nspname, c.relname, p.owner_oid), '[]')
              FROM pgtrickle_changes.capture_problems AS p
              JOIN pgtrickle_changes.buffers AS b USING (source_relid, owner_oid)
              JOIN pg_class AS c ON c.oid = p.source_relid JOIN pg_namespace AS n ON n.oid = c.relnamespace),
        'health', (
            SELECT jsonb_agg(jsonb_build_object('check', h.check_name, 'severity', h.severity) ORDER BY h.place)
              FROM pgtrickle.visible_health AS h))
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_metrics() IS 'How stream tables, captures and checks are, for the worker''s metrics';
