-- Snapshots: what a stream table held, as an ordinary table of its owner's, made and read with his rights.

CREATE TABLE pgtrickle_changes.snapshots (
    relid          oid         PRIMARY KEY,
    pgt_id         bigint      NOT NULL REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    data_timestamp timestamptz,
    rows           bigint      NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.snapshots IS 'Which tables are snapshots of which stream tables; one that outlives its stream table is a table like any other';

CREATE FUNCTION pgtrickle_changes.snapshot_target(p_table pgtrickle.pgt_stream_tables, p_args jsonb) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Where a snapshot goes: as the caller says, or beside the stream table under a name with the time in it.
DECLARE
    v_short  text := CASE WHEN octet_length(p_table.pgt_name) <= 33 THEN p_table.pgt_name ELSE left(p_table.pgt_name, 8) END;
    v_target text[] := CASE
        WHEN p_args ->> 'target' IS NOT NULL THEN pgtrickle_changes.split_name(p_args ->> 'target', p_args ->> 'schema')
        ELSE ARRAY[p_table.pgt_schema, format('%s_snapshot_%s', v_short, to_char(clock_timestamp(), 'YYYYMMDDHH24MISSUS'))] END;
BEGIN
    IF v_target[1] IN ('pgtrickle', 'pgtrickle_changes') OR v_target[1] LIKE 'pg\_%' THEN
        RAISE EXCEPTION 'snapshots can''t be created in schema "%"', v_target[1]
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'It has a purpose of its own.', HINT = 'Choose another schema.';
    END IF;
    RETURN format('%I.%I', v_target[1], v_target[2]);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.snapshot_target IS 'The name of a snapshot to be: the one given, or one with the time in it';

CREATE FUNCTION pgtrickle_changes.query_columns(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(quote_ident(c.name), ', ') FROM pgtrickle_changes.table_columns(p_table.definition_view) AS c
$$;
COMMENT ON FUNCTION pgtrickle_changes.query_columns IS 'The columns of a stream table that its query fills, as a list of identifiers';

CREATE FUNCTION pgtrickle_changes.do_snapshot_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_target text;
    v_rows   bigint;
    v_forced boolean;
BEGIN
    -- No refresh comes between the rows and the moment that they show.
    v_table := pgtrickle_changes.follow_name(pgtrickle_changes.lock_stream_table(v_table.pgt_id));
    PERFORM pgtrickle_changes.check_columns(v_table);
    IF NOT v_table.is_populated THEN
        RAISE EXCEPTION 'stream table "%" was never filled', v_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'There is nothing to keep.',
                  HINT = format('SELECT pgtrickle.refresh_stream_table(%L); first.', format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
    END IF;
    v_target := pgtrickle_changes.snapshot_target(v_table, p_args);
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('CREATE TABLE %s AS SELECT %s FROM %s', v_target,
        pgtrickle_changes.query_columns(v_table), v_table.pgt_relid));
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);
    -- The policies of the stream table don't come along: nobody else may read, whatever default privileges say.
    PERFORM pgtrickle_changes.revoke_strangers(v_target::regclass);
    PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('COMMENT ON TABLE %s IS %L', v_target,
        format('Snapshot of stream table %s', v_table.pgt_relid)));
    v_rows := pgtrickle_changes.run_as(v_table.owner_oid, format('SELECT pg_catalog.count(*) FROM %s', v_target))::text::bigint;
    INSERT INTO pgtrickle_changes.snapshots (relid, pgt_id, data_timestamp, rows)
    VALUES (v_target::regclass, v_table.pgt_id, v_table.data_timestamp, v_rows);
    RETURN to_jsonb(v_target);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_snapshot_stream_table IS 'The gate''s snapshot_stream_table';

CREATE FUNCTION pgtrickle_changes.find_snapshot(p_args jsonb) RETURNS pgtrickle_changes.snapshots
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parts    text[] := pgtrickle_changes.split_name(p_args ->> 'snapshot', '');
    v_schemas  text[] := ARRAY(SELECT jsonb_array_elements_text(p_args -> 'schemas'));
    v_snapshot pgtrickle_changes.snapshots;
BEGIN
    SELECT s.* INTO v_snapshot
      FROM pgtrickle_changes.snapshots AS s
      JOIN pg_class AS c ON c.oid = s.relid AND c.relkind = 'r'
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = v_parts[2]
       AND CASE WHEN v_parts[1] <> '' THEN n.nspname = v_parts[1] ELSE n.nspname = ANY (v_schemas) END
     ORDER BY array_position(v_schemas, n.nspname::text)
     LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'snapshot "%" does not exist', p_args ->> 'snapshot'
            USING ERRCODE = 'undefined_object', HINT = 'List the snapshots with SELECT * FROM pgtrickle.list_snapshots();';
    END IF;
    RETURN v_snapshot;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.find_snapshot IS 'The snapshot that a call names along the caller''s search path; an error if there is none';

CREATE FUNCTION pgtrickle_changes.check_snapshot(p_table pgtrickle.pgt_stream_tables, p_snapshot pgtrickle_changes.snapshots) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_column text;
BEGIN
    IF p_snapshot.pgt_id <> p_table.pgt_id THEN
        RAISE EXCEPTION '"%" is no snapshot of stream table "%"', p_snapshot.relid::regclass, p_table.pgt_name
            USING ERRCODE = 'invalid_parameter_value', HINT = format('SELECT * FROM pgtrickle.list_snapshots(%L);', p_table.pgt_relid);
    END IF;
    SELECT c.name INTO v_column
      FROM pgtrickle_changes.table_columns(p_table.definition_view) AS c
      LEFT JOIN pg_attribute AS a ON a.attrelid = p_snapshot.relid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
     WHERE (a.atttypid, a.atttypmod) IS DISTINCT FROM (c.type_oid, c.typmod)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'snapshot "%" has other columns than stream table "%"', p_snapshot.relid::regclass, p_table.pgt_name
            USING ERRCODE = 'invalid_object_definition', DETAIL = format('It was made of another query: "%s" is not there, or of another type.', v_column),
                  HINT = 'Read it like any table; what the stream table''s query shows is what a refresh brings.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_snapshot IS 'Raises unless a snapshot is one of that stream table, and has its columns';

CREATE FUNCTION pgtrickle_changes.do_restore_from_snapshot(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The rows of then.  They are not the query's of now, and the catalog says so until the next refresh, which computes it afresh.
DECLARE
    v_started_at timestamptz := clock_timestamp();
    v_table      pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_snapshot   pgtrickle_changes.snapshots := pgtrickle_changes.find_snapshot(p_args);
    v_reason     text := format('restored from snapshot %s', v_snapshot.relid::regclass);
    v_columns    text;
    v_rows       bigint;
    v_forced     boolean;
BEGIN
    v_table := pgtrickle_changes.follow_name(pgtrickle_changes.lock_stream_table(v_table.pgt_id));
    PERFORM pgtrickle_changes.check_columns(v_table);
    PERFORM pgtrickle_changes.check_snapshot(v_table, v_snapshot);
    v_columns := pgtrickle_changes.query_columns(v_table);
    -- Statements would maintain rows that aren't there.
    PERFORM pgtrickle_changes.drop_immediate(v_table.pgt_id);
    v_forced := pgtrickle_changes.lift_row_security(v_table);
    PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('DELETE FROM %s', v_table.pgt_relid));
    v_rows := pgtrickle_changes.run_as(v_table.owner_oid, format(
        'WITH put AS (INSERT INTO %s (%s) SELECT %2$s FROM %s RETURNING 1) SELECT pg_catalog.count(*) FROM put',
        v_table.pgt_relid, v_columns, v_snapshot.relid::regclass))::text::bigint;
    PERFORM pgtrickle_changes.restore_row_security(v_table, v_forced);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = v_reason, data_timestamp = v_snapshot.data_timestamp, is_populated = true,
           status = CASE WHEN st.status = 'INITIALIZING' THEN 'ACTIVE' ELSE st.status END
     WHERE st.pgt_id = v_table.pgt_id;
    PERFORM pgtrickle_changes.record_refresh(v_table, v_table.effective_refresh_mode, 'MANUAL', v_started_at, 0, v_rows, NULL, v_reason,
                                             v_snapshot.data_timestamp);
    RETURN to_jsonb(v_rows);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_restore_from_snapshot IS 'The gate''s restore_from_snapshot';

CREATE FUNCTION pgtrickle_changes.do_drop_snapshot(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_snapshot pgtrickle_changes.snapshots := pgtrickle_changes.find_snapshot(p_args);
    v_owner    oid := (SELECT c.relowner FROM pg_class AS c WHERE c.oid = v_snapshot.relid);
BEGIN
    IF NOT pg_has_role(p_caller, v_owner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of snapshot "%"', v_snapshot.relid::regclass
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It belongs to role "%s".', pg_get_userbyid(v_owner)),
                  HINT = 'Ask that role, or a superuser.';
    END IF;
    PERFORM pgtrickle_changes.command_as(v_owner, format('DROP TABLE %s', v_snapshot.relid::regclass));
    DELETE FROM pgtrickle_changes.snapshots AS s WHERE s.relid = v_snapshot.relid;
    PERFORM pgtrickle_changes.drop_idle_runner(v_owner);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_drop_snapshot IS 'The gate''s drop_snapshot';

CREATE VIEW pgtrickle.visible_snapshots WITH (security_barrier) AS
    SELECT s.pgt_id, format('%I.%I', n.nspname, c.relname) AS snapshot, t.name AS stream_table, t.pgt_relid, pg_get_userbyid(c.relowner) AS owner,
           s.created_at, s.data_timestamp, s.rows, pg_total_relation_size(c.oid) AS bytes
      FROM pgtrickle_changes.snapshots AS s
      JOIN pgtrickle_changes.status AS t USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
      JOIN pg_class AS c ON c.oid = s.relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_snapshots IS 'The snapshots of the stream tables that the current user may look at';

CREATE FUNCTION pgtrickle.list_snapshots(name regclass DEFAULT NULL)
    RETURNS TABLE (snapshot text, stream_table text, owner name, created_at timestamptz, data_timestamp timestamptz, row_count bigint, bytes bigint)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.snapshot, s.stream_table, s.owner, s.created_at, s.data_timestamp, s.rows, s.bytes
      FROM pgtrickle.visible_snapshots AS s
     WHERE list_snapshots.name IS NULL OR s.pgt_relid = list_snapshots.name
     ORDER BY s.stream_table, s.created_at, s.snapshot
$$;
COMMENT ON FUNCTION pgtrickle.list_snapshots(regclass) IS
    'The snapshots of a stream table, or of all that the caller may look at; data_timestamp is the moment that one shows';
GRANT SELECT ON pgtrickle.visible_snapshots TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.list_snapshots(regclass) TO pg_monitor;
