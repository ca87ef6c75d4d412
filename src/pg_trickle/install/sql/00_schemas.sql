-- The two schemas.  Run by pg_trickle.install, in file-name order, inside one
-- transaction with search_path = pg_catalog: every other name is qualified.

CREATE SCHEMA pgtrickle;
COMMENT ON SCHEMA pgtrickle IS 'pg_trickle: tables that keep themselves equal to a query';

CREATE SCHEMA pgtrickle_changes;
COMMENT ON SCHEMA pgtrickle_changes IS 'pg_trickle: change buffers, state tables and the engine''s own functions';
