-- The SQL API, third part: snapshots, the fuse, and writing together with refreshing.  As in 80_api.sql, these only hand the call to the gate.

CREATE FUNCTION pgtrickle.snapshot_stream_table(
    name text,
    target text DEFAULT NULL) RETURNS text
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('snapshot_stream_table', pg_catalog.jsonb_build_object(
            'name', snapshot_stream_table.name,
            'target', snapshot_stream_table.target))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}') FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.snapshot_stream_table(text, text) IS
    'Keep what a stream table holds in an ordinary table of its owner''s, that nobody else may read; its name: target, or one with the time in it';

CREATE FUNCTION pgtrickle.restore_from_snapshot(
    name text,
    snapshot text) RETURNS bigint
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('restore_from_snapshot', pg_catalog.jsonb_build_object(
            'name', restore_from_snapshot.name,
            'snapshot', restore_from_snapshot.snapshot))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.int8 FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.restore_from_snapshot(text, text) IS
    'Show the rows of a snapshot until the next refresh, which computes the stream table afresh (suspend it to keep them); how many rows';

CREATE FUNCTION pgtrickle.drop_snapshot(
    snapshot text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_snapshot', pg_catalog.jsonb_build_object(
        'snapshot', drop_snapshot.snapshot))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.drop_snapshot(text) IS
    'Drop a snapshot';

CREATE FUNCTION pgtrickle.reset_fuse(
    name text,
    action text DEFAULT 'apply') RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('reset_fuse', pg_catalog.jsonb_build_object(
        'name', reset_fuse.name,
        'action', reset_fuse.action))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.reset_fuse(text, text) IS
    'Let a stream table go on whose fuse has blown. apply: the next refresh reads all pending changes; reinitialize: it computes afresh; skip_changes: they are thrown away, and the table is not its query until it is reinitialized, which health_check() and fuse_status() say';

CREATE FUNCTION pgtrickle.write_and_refresh(
    sql text,
    stream_table_name text) RETURNS void
    LANGUAGE plpgsql VOLATILE
AS $$
-- Everything as the caller, under his search path.
BEGIN
    IF write_and_refresh.sql IS NULL THEN
        RAISE EXCEPTION 'the statement is NULL'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'To write nothing, call pgtrickle.refresh_stream_table(name).';
    END IF;
    EXECUTE write_and_refresh.sql;
    PERFORM pgtrickle.refresh_stream_table(write_and_refresh.stream_table_name);
END
$$;
COMMENT ON FUNCTION pgtrickle.write_and_refresh(text, text) IS
    'Run a statement as the caller, and bring a stream table up to date with it, both or neither';

INSERT INTO pgtrickle_changes.gate_actions (action, function) VALUES
    ('snapshot_stream_table', 'pgtrickle.snapshot_stream_table(text, text)'),
    ('restore_from_snapshot', 'pgtrickle.restore_from_snapshot(text, text)'),
    ('drop_snapshot', 'pgtrickle.drop_snapshot(text)'),
    ('reset_fuse', 'pgtrickle.reset_fuse(text, text)');
