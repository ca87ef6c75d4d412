-- Owner of stream tables (your application's "data engineer" role)
CREATE ROLE st_author NOINHERIT;
GRANT USAGE ON SCHEMA public TO st_author;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO st_author;
GRANT CREATE ON SCHEMA public TO st_author;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author;
GRANT USAGE ON SCHEMA pgtrickle TO st_author;
-- Read-only consumer (your application)
CREATE ROLE app_reader;
GRANT USAGE ON SCHEMA public TO app_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_reader;
