CREATE ROLE pgtrickle_admin NOLOGIN NOINHERIT;
-- Extension function access
GRANT USAGE ON SCHEMA pgtrickle TO pgtrickle_admin;
GRANT USAGE ON SCHEMA pgtrickle_changes TO pgtrickle_admin;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO pgtrickle_admin;
-- Create stream tables in the public schema
GRANT CREATE ON SCHEMA public TO pgtrickle_admin;
GRANT USAGE ON SCHEMA public TO pgtrickle_admin;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO pgtrickle_admin;
-- Automatically grant SELECT on new source tables
ALTER DEFAULT PRIVILEGES IN SCHEMA public
GRANT SELECT ON TABLES TO pgtrickle_admin;
