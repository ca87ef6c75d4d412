CREATE ROLE pgtrickle_user NOLOGIN NOINHERIT;
GRANT USAGE ON SCHEMA pgtrickle TO pgtrickle_user;
-- Monitoring functions (read-only)
GRANT EXECUTE ON FUNCTION pgtrickle.pgt_status() TO pgtrickle_user;
GRANT EXECUTE ON FUNCTION pgtrickle.refresh_efficiency() TO pgtrickle_user;
GRANT EXECUTE ON FUNCTION pgtrickle.health_check() TO pgtrickle_user;
-- Per-stream-table SELECT (run after each create_stream_table call):
-- GRANT SELECT ON <stream_table_name> TO pgtrickle_user;
