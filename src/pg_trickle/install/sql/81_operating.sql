-- The SQL API, second part: mending, and several stream tables at once.  As in 80_api.sql, these only hand the call to the gate.

CREATE FUNCTION pgtrickle.repair_stream_table(
    name text) RETURNS text
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('repair_stream_table', pg_catalog.jsonb_build_object(
            'name', repair_stream_table.name))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}') FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.repair_stream_table(text) IS
    'Mend a stream table''s capture and state tables, bring it up to date and compare it with its query; says what was wrong';

CREATE FUNCTION pgtrickle.refresh_if_stale(
    name text,
    max_age interval DEFAULT '5 minutes') RETURNS boolean
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('refresh_if_stale', pg_catalog.jsonb_build_object(
            'name', refresh_if_stale.name,
            'max_age_seconds', pg_catalog.date_part('epoch', refresh_if_stale.max_age)))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.bool FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.refresh_if_stale(text, interval) IS
    'Refresh a stream table if what it shows is older than that; whether it was';

CREATE FUNCTION pgtrickle.pause_all() RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('pause_all', '{}')
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.pause_all() IS
    'Suspend all stream tables that the caller owns; how many';

CREATE FUNCTION pgtrickle.resume_all() RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('resume_all', '{}')
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.resume_all() IS
    'Let those go on that pause_all suspended; how many';

CREATE FUNCTION pgtrickle.bulk_create(
    definitions jsonb) RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('bulk_create', pg_catalog.jsonb_build_object(
            'definitions', bulk_create.definitions))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.bulk_create(jsonb) IS
    'Create several stream tables, all or none: an array of objects with the arguments of create_stream_table; how many';

CREATE FUNCTION pgtrickle.bulk_alter_stream_tables(
    names text[],
    changes jsonb) RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('bulk_alter_stream_tables', pg_catalog.jsonb_build_object(
            'names', bulk_alter_stream_tables.names,
            'changes', bulk_alter_stream_tables.changes))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.bulk_alter_stream_tables(text[], jsonb) IS
    'Change several stream tables alike, all or none: an object with arguments of alter_stream_table but the query; how many';

CREATE FUNCTION pgtrickle.bulk_drop_stream_tables(
    names text[]) RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('bulk_drop_stream_tables', pg_catalog.jsonb_build_object(
            'names', bulk_drop_stream_tables.names))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.bulk_drop_stream_tables(text[]) IS
    'Drop several stream tables, all or none, in an order that suits them; how many';

CREATE FUNCTION pgtrickle.restore_stream_tables() RETURNS integer
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('restore_stream_tables', '{}')
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int4 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.restore_stream_tables() IS
    'After pg_restore, or psql with what pg_dump wrote: revive the stream tables that came with the dump; each is computed afresh by its next refresh. How many (superusers only)';

INSERT INTO pgtrickle_changes.gate_actions (action, function) VALUES
    ('restore_stream_tables', 'pgtrickle.restore_stream_tables()'),
    ('repair_stream_table', 'pgtrickle.repair_stream_table(text)'),
    ('refresh_if_stale', 'pgtrickle.refresh_if_stale(text, interval)'),
    ('pause_all', 'pgtrickle.pause_all()'),
    ('resume_all', 'pgtrickle.resume_all()'),
    ('bulk_create', 'pgtrickle.bulk_create(jsonb)'),
    ('bulk_alter_stream_tables', 'pgtrickle.bulk_alter_stream_tables(text[], jsonb)'),
    ('bulk_drop_stream_tables', 'pgtrickle.bulk_drop_stream_tables(text[])');
