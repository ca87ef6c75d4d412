CREATE ROLE pgtrickle_readonly NOLOGIN NOINHERIT;
GRANT USAGE ON SCHEMA public TO pgtrickle_readonly;
-- Per-stream-table SELECT (run after each create_stream_table call):
-- GRANT SELECT ON <stream_table_name> TO pgtrickle_readonly;
