-- The SQL API (docs/sql-reference.md).  These functions run as the caller and do nothing but hand the call to the gate, which takes
-- down his search path: names mean what they mean to him.  So they pin no path of their own, and qualify every name.

CREATE FUNCTION pgtrickle.version() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '0.1.0'
$$;
COMMENT ON FUNCTION pgtrickle.version() IS 'The version of pg_trickle''s SQL part';

CREATE FUNCTION pgtrickle.create_stream_table(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_stream_table', pg_catalog.jsonb_build_object(
        'name', create_stream_table.name,
        'query', create_stream_table.query,
        'schedule', create_stream_table.schedule,
        'refresh_mode', create_stream_table.refresh_mode,
        'initialize', create_stream_table.initialize,
        'diamond_consistency', create_stream_table.diamond_consistency,
        'diamond_schedule_policy', create_stream_table.diamond_schedule_policy,
        'cdc_mode', create_stream_table.cdc_mode,
        'append_only', create_stream_table.append_only))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table(text, text, text, text, boolean, text, text, text, boolean) IS
    'Create a table that keeps itself equal to a query. schedule: a duration, cron, calculated, or NULL; refresh_mode: AUTO, DIFFERENTIAL, FULL, IMMEDIATE (in the writing transaction); initialize => false leaves it empty until its first refresh';

CREATE FUNCTION pgtrickle.create_stream_table_if_not_exists(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_stream_table_if_not_exists', pg_catalog.jsonb_build_object(
        'name', create_stream_table_if_not_exists.name,
        'query', create_stream_table_if_not_exists.query,
        'schedule', create_stream_table_if_not_exists.schedule,
        'refresh_mode', create_stream_table_if_not_exists.refresh_mode,
        'initialize', create_stream_table_if_not_exists.initialize,
        'diamond_consistency', create_stream_table_if_not_exists.diamond_consistency,
        'diamond_schedule_policy', create_stream_table_if_not_exists.diamond_schedule_policy,
        'cdc_mode', create_stream_table_if_not_exists.cdc_mode,
        'append_only', create_stream_table_if_not_exists.append_only))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table_if_not_exists(text, text, text, text, boolean, text, text, text, boolean) IS
    'create_stream_table, unless there is a stream table of that name';

CREATE FUNCTION pgtrickle.create_or_replace_stream_table(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_or_replace_stream_table', pg_catalog.jsonb_build_object(
        'name', create_or_replace_stream_table.name,
        'query', create_or_replace_stream_table.query,
        'schedule', create_or_replace_stream_table.schedule,
        'refresh_mode', create_or_replace_stream_table.refresh_mode,
        'initialize', create_or_replace_stream_table.initialize,
        'diamond_consistency', create_or_replace_stream_table.diamond_consistency,
        'diamond_schedule_policy', create_or_replace_stream_table.diamond_schedule_policy,
        'cdc_mode', create_or_replace_stream_table.cdc_mode,
        'append_only', create_or_replace_stream_table.append_only))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_or_replace_stream_table(text, text, text, text, boolean, text, text, text, boolean) IS
    'Create a stream table, or alter the one of that name to be so; one that is so already is left alone';

CREATE FUNCTION pgtrickle.alter_stream_table(
    name text,
    query text DEFAULT NULL,
    schedule text DEFAULT NULL,
    refresh_mode text DEFAULT NULL,
    status text DEFAULT NULL,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT NULL,
    tier text DEFAULT NULL,
    fuse_ceiling bigint DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('alter_stream_table', pg_catalog.jsonb_build_object(
        'name', alter_stream_table.name,
        'query', alter_stream_table.query,
        'schedule', alter_stream_table.schedule,
        'refresh_mode', alter_stream_table.refresh_mode,
        'status', alter_stream_table.status,
        'diamond_consistency', alter_stream_table.diamond_consistency,
        'diamond_schedule_policy', alter_stream_table.diamond_schedule_policy,
        'cdc_mode', alter_stream_table.cdc_mode,
        'append_only', alter_stream_table.append_only,
        'tier', alter_stream_table.tier,
        'fuse_ceiling', alter_stream_table.fuse_ceiling))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.alter_stream_table(text, text, text, text, text, text, text, text, boolean, text, bigint) IS
    'Change a stream table; what is NULL stays as it is. A new query keeps the table, its grants, policies and indexes. tier: hot, warm, cold, frozen; fuse_ceiling: with more pending changes it is not refreshed but suspended, until reset_fuse (0: no fuse, -1: as pg_trickle.fuse_default_ceiling says)';

CREATE FUNCTION pgtrickle.create_stream_table_with_plan(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false,
    plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_stream_table', pg_catalog.jsonb_build_object(
        'name', create_stream_table_with_plan.name,
        'query', create_stream_table_with_plan.query,
        'schedule', create_stream_table_with_plan.schedule,
        'refresh_mode', create_stream_table_with_plan.refresh_mode,
        'initialize', create_stream_table_with_plan.initialize,
        'diamond_consistency', create_stream_table_with_plan.diamond_consistency,
        'diamond_schedule_policy', create_stream_table_with_plan.diamond_schedule_policy,
        'cdc_mode', create_stream_table_with_plan.cdc_mode,
        'append_only', create_stream_table_with_plan.append_only,
        'plan', create_stream_table_with_plan.plan))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table_with_plan(text, text, text, text, boolean, text, text, text, boolean, jsonb) IS
    'create_stream_table with a plan that the caller compiled for the request of compile_request: needs no worker';

CREATE FUNCTION pgtrickle.create_stream_table_if_not_exists_with_plan(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false,
    plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_stream_table_if_not_exists', pg_catalog.jsonb_build_object(
        'name', create_stream_table_if_not_exists_with_plan.name,
        'query', create_stream_table_if_not_exists_with_plan.query,
        'schedule', create_stream_table_if_not_exists_with_plan.schedule,
        'refresh_mode', create_stream_table_if_not_exists_with_plan.refresh_mode,
        'initialize', create_stream_table_if_not_exists_with_plan.initialize,
        'diamond_consistency', create_stream_table_if_not_exists_with_plan.diamond_consistency,
        'diamond_schedule_policy', create_stream_table_if_not_exists_with_plan.diamond_schedule_policy,
        'cdc_mode', create_stream_table_if_not_exists_with_plan.cdc_mode,
        'append_only', create_stream_table_if_not_exists_with_plan.append_only,
        'plan', create_stream_table_if_not_exists_with_plan.plan))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table_if_not_exists_with_plan(text, text, text, text, boolean, text, text, text, boolean, jsonb) IS
    'create_stream_table_if_not_exists with a plan that the caller compiled for the request of compile_request: needs no worker';

CREATE FUNCTION pgtrickle.create_or_replace_stream_table_with_plan(
    name text,
    query text,
    schedule text DEFAULT 'calculated',
    refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false,
    plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_or_replace_stream_table', pg_catalog.jsonb_build_object(
        'name', create_or_replace_stream_table_with_plan.name,
        'query', create_or_replace_stream_table_with_plan.query,
        'schedule', create_or_replace_stream_table_with_plan.schedule,
        'refresh_mode', create_or_replace_stream_table_with_plan.refresh_mode,
        'initialize', create_or_replace_stream_table_with_plan.initialize,
        'diamond_consistency', create_or_replace_stream_table_with_plan.diamond_consistency,
        'diamond_schedule_policy', create_or_replace_stream_table_with_plan.diamond_schedule_policy,
        'cdc_mode', create_or_replace_stream_table_with_plan.cdc_mode,
        'append_only', create_or_replace_stream_table_with_plan.append_only,
        'plan', create_or_replace_stream_table_with_plan.plan))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_or_replace_stream_table_with_plan(text, text, text, text, boolean, text, text, text, boolean, jsonb) IS
    'create_or_replace_stream_table with a plan that the caller compiled for the request of compile_request: needs no worker';

CREATE FUNCTION pgtrickle.alter_stream_table_with_plan(
    name text,
    query text DEFAULT NULL,
    schedule text DEFAULT NULL,
    refresh_mode text DEFAULT NULL,
    status text DEFAULT NULL,
    diamond_consistency text DEFAULT NULL,
    diamond_schedule_policy text DEFAULT NULL,
    cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT NULL,
    tier text DEFAULT NULL,
    fuse_ceiling bigint DEFAULT NULL,
    plan jsonb DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('alter_stream_table', pg_catalog.jsonb_build_object(
        'name', alter_stream_table_with_plan.name,
        'query', alter_stream_table_with_plan.query,
        'schedule', alter_stream_table_with_plan.schedule,
        'refresh_mode', alter_stream_table_with_plan.refresh_mode,
        'status', alter_stream_table_with_plan.status,
        'diamond_consistency', alter_stream_table_with_plan.diamond_consistency,
        'diamond_schedule_policy', alter_stream_table_with_plan.diamond_schedule_policy,
        'cdc_mode', alter_stream_table_with_plan.cdc_mode,
        'append_only', alter_stream_table_with_plan.append_only,
        'tier', alter_stream_table_with_plan.tier,
        'fuse_ceiling', alter_stream_table_with_plan.fuse_ceiling,
        'plan', alter_stream_table_with_plan.plan))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.alter_stream_table_with_plan(text, text, text, text, text, text, text, text, boolean, text, bigint, jsonb) IS
    'alter_stream_table with a plan that the caller compiled for the request of compile_request: needs no worker';

CREATE FUNCTION pgtrickle.compile_request(
    name text,
    query text,
    existing boolean DEFAULT false) RETURNS jsonb
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('compile_request', pg_catalog.jsonb_build_object(
        'name', compile_request.name,
        'query', compile_request.query,
        'existing', compile_request.existing))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.compile_request(text, text, boolean) IS
    'What the compiler needs to know to make the plan of a query for a stream table of that name; nothing is created. existing: for alter_stream_table';

CREATE FUNCTION pgtrickle.drop_stream_table(
    name text,
    "cascade" boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_stream_table', pg_catalog.jsonb_build_object(
        'name', drop_stream_table.name,
        'cascade', drop_stream_table."cascade"))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.drop_stream_table(text, boolean) IS
    'Drop a stream table; cascade: with those that read it, if the caller owns them all';

CREATE FUNCTION pgtrickle.refresh_stream_table(
    name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('refresh_stream_table', pg_catalog.jsonb_build_object(
        'name', refresh_stream_table.name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.refresh_stream_table(text) IS
    'Bring a stream table up to date now, the stream tables it reads first; sees what the caller''s transaction has written';

CREATE FUNCTION pgtrickle.suspend_stream_table(
    name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('suspend_stream_table', pg_catalog.jsonb_build_object(
        'name', suspend_stream_table.name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.suspend_stream_table(text) IS
    'Stop refreshing a stream table; changes are still captured';

CREATE FUNCTION pgtrickle.resume_stream_table(
    name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('resume_stream_table', pg_catalog.jsonb_build_object(
        'name', resume_stream_table.name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.resume_stream_table(text) IS
    'Let a suspended stream table be refreshed again';

CREATE FUNCTION pgtrickle.reinitialize_stream_table(
    name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('reinitialize_stream_table', pg_catalog.jsonb_build_object(
        'name', reinitialize_stream_table.name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.reinitialize_stream_table(text) IS
    'Recompute a stream table at its next refresh and write what differs';

CREATE FUNCTION pgtrickle.verify_stream_table(
    name text) RETURNS TABLE (missing bigint, extra bigint, ok boolean)
    LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_args   pg_catalog.jsonb := pg_catalog.jsonb_build_object('name', verify_stream_table.name);
    v_answer pg_catalog.jsonb;
BEGIN
    IF pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN
        SELECT pgtrickle.read_gate('verify_stream_table', v_args, r.caller, r.names, r.seal) INTO v_answer FROM pgtrickle.reader AS r;
    ELSE
        INSERT INTO pgtrickle.gate (action, args) VALUES ('verify_stream_table', v_args) RETURNING result INTO v_answer;
    END IF;
    RETURN QUERY
        SELECT v.missing, v.extra, v.missing OPERATOR(pg_catalog.=) 0 AND v.extra OPERATOR(pg_catalog.=) 0
          FROM pg_catalog.jsonb_to_record(v_answer) AS v(missing pg_catalog.int8, extra pg_catalog.int8);
END
$$;
COMMENT ON FUNCTION pgtrickle.verify_stream_table(text) IS
    'Compare a stream table with its query in one snapshot: rows it lacks, rows it has too many. In read-only transactions and on standbys it takes EXECUTE on read_gate too';

CREATE FUNCTION pgtrickle.validate_query(
    query text) RETURNS TABLE (check_name text, result text, severity text)
    LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_answer pg_catalog.jsonb;
BEGIN
    IF pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN
        RAISE EXCEPTION 'cannot validate a query in a read-only transaction'
            USING ERRCODE = '25006', DETAIL = 'It is made a view of its caller''s for a moment, and asked of the worker.',
                  HINT = 'Call it in a READ WRITE transaction, on the primary server; it leaves nothing behind.';
    END IF;
    INSERT INTO pgtrickle.gate (action, args) VALUES ('validate_query', pg_catalog.jsonb_build_object('query', validate_query.query))
    RETURNING gate.result INTO v_answer;
    RETURN QUERY
        SELECT v.check_name, v.result, v.severity
          FROM pg_catalog.jsonb_to_recordset(v_answer)
            AS v(check_name pg_catalog.text, result pg_catalog.text, severity pg_catalog.text);
END
$$;
COMMENT ON FUNCTION pgtrickle.validate_query(text) IS
    'What would become of a query as a stream table; nothing is created. The first row tells the refresh mode. Not in read-only transactions';

INSERT INTO pgtrickle_changes.gate_actions (action, function) VALUES
    ('create_stream_table', 'pgtrickle.create_stream_table(text, text, text, text, boolean, text, text, text, boolean)'),
    ('create_stream_table_if_not_exists', 'pgtrickle.create_stream_table_if_not_exists(text, text, text, text, boolean, text, text, text, boolean)'),
    ('create_or_replace_stream_table', 'pgtrickle.create_or_replace_stream_table(text, text, text, text, boolean, text, text, text, boolean)'),
    ('alter_stream_table', 'pgtrickle.alter_stream_table(text, text, text, text, text, text, text, text, boolean, text, bigint)'),
    ('compile_request', 'pgtrickle.compile_request(text, text, boolean)'),
    ('drop_stream_table', 'pgtrickle.drop_stream_table(text, boolean)'),
    ('refresh_stream_table', 'pgtrickle.refresh_stream_table(text)'),
    ('stale_plans', 'pgtrickle.refresh_stream_table(text)'),
    ('suspend_stream_table', 'pgtrickle.suspend_stream_table(text)'),
    ('resume_stream_table', 'pgtrickle.resume_stream_table(text)'),
    ('reinitialize_stream_table', 'pgtrickle.reinitialize_stream_table(text)'),
    ('verify_stream_table', 'pgtrickle.verify_stream_table(text)'),
    ('validate_query', 'pgtrickle.validate_query(text)');
UPDATE pgtrickle_changes.gate_actions AS a SET reads = true WHERE a.action IN ('verify_stream_table', 'change_buffer_sizes');
