-- The gate: how a call gets from its caller to the engine, and from the engine to the owner of a stream table.

CREATE TABLE pgtrickle_changes.gate_actions (
    action   text         PRIMARY KEY,
    function regprocedure NOT NULL,
    reads    boolean      NOT NULL DEFAULT false
);
COMMENT ON TABLE pgtrickle_changes.gate_actions IS 'What the gate does, and the API function whose EXECUTE privilege an action takes; reads: it writes nothing, and is let in by read_gate too';

-- Where triggers don't fire, a call would do nothing and say nothing.  On a view PostgreSQL knows no ENABLE ALWAYS, so the call fails.
CREATE DOMAIN pgtrickle_changes.replication_role AS text
    CONSTRAINT "must be origin or local: SET session_replication_role = origin" CHECK (VALUE <> 'replica');
COMMENT ON DOMAIN pgtrickle_changes.replication_role IS 'The session_replication_role of a call: triggers must fire';

-- INSERT on the columns action and args is all that callers are granted.  Who may write to every table of the server (pg_write_all_data)
-- could name the others, but nobody else than himself.  Without USAGE on it nobody has a column where somebody else's name could lie.
CREATE DOMAIN pgtrickle_changes.calling_role AS name
    CONSTRAINT "nobody calls as somebody else" CHECK (VALUE = CURRENT_USER);
COMMENT ON DOMAIN pgtrickle_changes.calling_role IS 'Who calls';
REVOKE ALL ON DOMAIN pgtrickle_changes.calling_role FROM PUBLIC;

CREATE VIEW pgtrickle.gate AS
SELECT NULL::text AS action, NULL::jsonb AS args, NULL::jsonb AS result,
       NULL::pgtrickle_changes.calling_role AS caller, NULL::text AS search_path, NULL::name AS schema, NULL::name[] AS schemas,
       NULL::pgtrickle_changes.replication_role AS replication_role
 WHERE false;
ALTER VIEW pgtrickle.gate
    ALTER COLUMN caller SET DEFAULT CURRENT_USER,
    ALTER COLUMN search_path SET DEFAULT current_setting('search_path'),
    ALTER COLUMN schema SET DEFAULT current_schema(),
    ALTER COLUMN schemas SET DEFAULT current_schemas(true),
    ALTER COLUMN replication_role SET DEFAULT current_setting('session_replication_role');
COMMENT ON VIEW pgtrickle.gate IS 'Where the API functions hand their calls to the engine; PostgreSQL itself fills in who calls, and what names mean to him';

CREATE FUNCTION pgtrickle_changes.pass_gate() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
    SET transform_null_equals = off
    SET quote_all_identifiers = off
AS $$
BEGIN
    NEW.result := pgtrickle_changes.act(NEW.caller, NEW.action, NEW.args, jsonb_build_object(
        'search_path', NEW.search_path, 'schema', NEW.schema, 'schemas', NEW.schemas));
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pass_gate() IS 'The engine''s side of the gate: checks the caller''s privilege, then acts';

CREATE TRIGGER pass_gate INSTEAD OF INSERT ON pgtrickle.gate
    FOR EACH ROW EXECUTE FUNCTION pgtrickle_changes.pass_gate();

CREATE FUNCTION pgtrickle_changes.act(p_caller name, p_action text, p_args jsonb, p_names jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whoever calls this knows who p_caller is; p_names is what names mean to him.
DECLARE
    v_function regprocedure;
    v_session  text := pgtrickle_changes.session_state();
    v_result   jsonb;
BEGIN
    SELECT a.function INTO v_function FROM pgtrickle_changes.gate_actions AS a WHERE a.action = p_action;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown action "%"', p_action
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Call the functions of schema pgtrickle; the gate is theirs.';
    END IF;
    IF has_function_privilege(p_caller, v_function, 'EXECUTE') IS NOT TRUE THEN
        RAISE EXCEPTION 'permission denied for function %', p_action
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('GRANT EXECUTE ON FUNCTION %s TO %I;', v_function, p_caller);
    END IF;
    IF jsonb_typeof(p_args) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'malformed arguments of %', p_action
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'They are no JSON object.', HINT = 'Call the functions of schema pgtrickle; the gate is theirs.';
    END IF;
    IF p_action = 'refresh_stream_table' THEN
        -- What is called most is not planned each time.
        v_result := pgtrickle_changes.do_refresh_stream_table(p_caller, p_args || p_names);
    ELSE
        EXECUTE format('SELECT pgtrickle_changes.%I($1, $2)', 'do_' || p_action) INTO v_result USING p_caller, p_args || p_names;
    END IF;
    PERFORM pgtrickle_changes.check_session(v_session);
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.act IS 'Does what a call asks for: checks the caller''s privilege, then acts';

-- What an owner's functions may not leave behind in a session that isn't his: what would later run, or be looked up, as somebody
-- else.  REFRESH MATERIALIZED VIEW forbids the same.

CREATE FUNCTION pgtrickle_changes.session_state() RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- By name: what comes and goes meanwhile may change the order in which PostgreSQL tells of the others.
DECLARE
    v_kept text := (SELECT array_agg(k.item ORDER BY k.item)::text
                      FROM (SELECT concat_ws(' ', 'c', c.creation_time, c.name) AS item FROM pg_cursors AS c WHERE c.is_holdable
                            UNION ALL SELECT concat_ws(' ', 'p', p.prepare_time, p.name) FROM pg_prepared_statements AS p) AS k);
    v_temporary text;
BEGIN
    IF pg_my_temp_schema() <> 0 THEN
        v_temporary := (SELECT string_agg(d.classid || ' ' || d.objid, ',' ORDER BY d.classid, d.objid) FROM pg_depend AS d
                         WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = pg_my_temp_schema());
    END IF;
    RETURN concat_ws('|', v_kept, v_temporary, pgtrickle_changes.settings_state());
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.session_state() IS 'The cursors that outlive a transaction, the prepared statements, the temporary objects and the settings of this session';

CREATE FUNCTION pgtrickle_changes.settings_state() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Those by which statements mean something else, fail, or are lost in a crash; not those by which they are only slower.  One expression:
-- it is asked for twice a refresh.  (run_as itself looks after search_path and standard_conforming_strings.)
BEGIN
    RETURN concat_ws('|',
        current_setting('array_nulls'), current_setting('backslash_quote'), current_setting('bytea_output'), current_setting('check_function_bodies'),
        current_setting('client_encoding'), current_setting('client_min_messages'), current_setting('DateStyle'),
        current_setting('default_table_access_method'), current_setting('default_tablespace'), current_setting('default_text_search_config'),
        current_setting('default_transaction_deferrable'), current_setting('default_transaction_isolation'),
        current_setting('default_transaction_read_only'), current_setting('extra_float_digits'),
        current_setting('idle_in_transaction_session_timeout'), current_setting('idle_session_timeout'), current_setting('IntervalStyle'),
        current_setting('lc_monetary'), current_setting('lc_numeric'), current_setting('lc_time'), current_setting('lock_timeout'),
        current_setting('password_encryption'), current_setting('row_security'), current_setting('statement_timeout'),
        current_setting('synchronous_commit'), current_setting('temp_tablespaces'), current_setting('TimeZone'),
        current_setting('transform_null_equals'), current_setting('xmlbinary'), current_setting('xmloption'),
        current_setting('createrole_self_grant', true), current_setting('restrict_nonsystem_relation_kind', true),
        current_setting('transaction_timeout', true), current_setting('pg_trickle.differential_max_change_ratio', true),
        current_setting('pg_trickle.fuse_default_ceiling', true), current_setting('pg_trickle.default_schedule_seconds', true),
        current_setting('pg_trickle.min_schedule_seconds', true), current_setting('pg_trickle.max_consecutive_errors', true),
        current_setting('pg_trickle.max_concurrent_refreshes', true), current_setting('pg_trickle.metrics_port', true),
        current_setting('pg_trickle.float_aggregates', true), current_setting('pg_trickle.buffer_alert_threshold', true));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.settings_state() IS 'The settings of this session that anybody may change';

CREATE FUNCTION pgtrickle_changes.check_session(p_before text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF pgtrickle_changes.session_state() <> p_before THEN
        RAISE EXCEPTION 'the query leaves something behind in the session'
            USING ERRCODE = 'invalid_transaction_state',
                  DETAIL = 'A function that it calls, or a trigger, created a temporary object, a cursor WITH HOLD or a prepared statement, or changed a setting.',
                  HINT = 'Such functions can''t be used in stream tables.';
    END IF;
    -- Events that wait for the end of the transaction fill pieces of at least 1024 bytes.  Foreign keys are no danger, nor is what
    -- looks a second time for equal rows: only exclusion constraints may call functions for that.
    IF EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgdeferrable
                  AND t.tgfoid <> ALL (ARRAY['"RI_FKey_check_ins"', '"RI_FKey_check_upd"', '"RI_FKey_noaction_del"', '"RI_FKey_noaction_upd"']::regproc[])
                  AND NOT (t.tgfoid = 'unique_key_recheck'::regproc
                           AND EXISTS (SELECT FROM pg_constraint AS k WHERE k.oid = t.tgconstraint AND k.contype IN ('p', 'u'))))
       AND EXISTS (SELECT FROM pg_backend_memory_contexts AS m WHERE m.name = 'AfterTriggerEvents' AND m.used_bytes >= 1024) THEN
        RAISE EXCEPTION 'triggers wait for the end of the transaction'
            USING ERRCODE = 'invalid_transaction_state',
                  DETAIL = 'A deferred trigger might run as somebody else than the owner of the stream table.',
                  HINT = 'SET CONSTRAINTS ALL IMMEDIATE before the transaction writes; a deferrable constraint trigger can''t depend on a stream table.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_session(text) IS 'Raises if anything would outlive the owner''s turn';

CREATE FUNCTION pgtrickle_changes.ensure_runner(p_owner oid) RETURNS name
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The function that runs statements as a role.  Its owner may alter or drop it, which harms nobody else: the engine calls it by
-- name, in a schema where he can't create, and the body refuses to run as anybody but him.
DECLARE
    v_name       name := 'as_' || p_owner;
    v_owner      name := pg_get_userbyid(p_owner);
    v_is_missing boolean := to_regprocedure(format('pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', v_name)) IS NULL;
BEGIN
    -- Two at once would be an error: one waits until the other is committed.
    PERFORM pgtrickle_changes.take_name(ARRAY['pgtrickle_changes', v_name]::text[]);
    IF v_is_missing AND to_regprocedure(format('pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', v_name)) IS NOT NULL THEN
        RETURN v_name;
    END IF;
    -- Not IF EXISTS, which would tell the caller that there was none.
    IF to_regprocedure(format('pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', v_name)) IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) CASCADE', v_name);
    END IF;
    EXECUTE format($create$
        CREATE FUNCTION pgtrickle_changes.%I(statement text, frontier pg_snapshot, own_xid xid8, own_seqs jsonb, settings jsonb)
            RETURNS jsonb
            LANGUAGE plpgsql VOLATILE SECURITY DEFINER%s
        AS %L$create$, v_name, pgtrickle_changes.owner_settings(), format($body$
DECLARE
    v_setting record;
    v_row     record;
    v_cursor  refcursor;
BEGIN
    IF pg_catalog.pg_get_userbyid(%1$L::pg_catalog.oid) OPERATOR(pg_catalog.<>) CURRENT_USER THEN
        RAISE EXCEPTION 'function as_%1$s has been altered and runs nothing'
            USING ERRCODE = '55000', HINT = 'Drop the function; the next refresh makes it anew.';
    END IF;
    IF settings OPERATOR(pg_catalog.<>) '{}'::pg_catalog.jsonb THEN
        FOR v_setting IN SELECT s.key, s.value FROM pg_catalog.jsonb_each_text(settings) AS s(key, value)
                          WHERE s.key OPERATOR(pg_catalog.<>) ALL ('{command,query,frontier_time}'::pg_catalog.text[]) LOOP
            PERFORM pg_catalog.set_config(v_setting.key, v_setting.value, true);
        END LOOP;
    END IF;
    IF settings OPERATOR(pg_catalog.?) 'command'::pg_catalog.text THEN
        EXECUTE statement;
        RETURN NULL;
    END IF;
    IF settings OPERATOR(pg_catalog.?) 'query'::pg_catalog.text THEN
        -- A cursor takes one query, and nothing else.
        OPEN v_cursor FOR EXECUTE statement;
        CLOSE v_cursor;
        RETURN NULL;
    END IF;
    EXECUTE statement INTO v_row USING frontier, own_xid, own_seqs,
        (settings OPERATOR(pg_catalog.->>) 'frontier_time'::pg_catalog.text)::pg_catalog.timestamptz;
    RETURN pg_catalog.jsonb_path_query_first(pg_catalog.to_jsonb(v_row), '$.*');
END
$body$, p_owner));
    EXECUTE format('ALTER FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) OWNER TO %I', v_name, v_owner);
    PERFORM pgtrickle_changes.close_function(format('pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', v_name)::regprocedure);
    EXECUTE format('COMMENT ON FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) IS %L', v_name,
                   format('Runs pg_trickle''s statements as role %s', v_owner));
    RETURN v_name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.ensure_runner(oid) IS 'Makes the runner of a role';

CREATE TABLE pgtrickle_changes.schema_users (
    role_oid oid PRIMARY KEY
);
COMMENT ON TABLE pgtrickle_changes.schema_users IS 'Roles that the engine has granted USAGE on schema pgtrickle_changes, where what belongs to their stream tables lies';

CREATE FUNCTION pgtrickle_changes.open_schema(p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_schema_privilege(p_owner, 'pgtrickle_changes', 'USAGE') THEN
        -- Two grants at once would be an error: one waits until the other is committed.
        PERFORM pgtrickle_changes.one_at_a_time();
        EXECUTE format('GRANT USAGE ON SCHEMA pgtrickle_changes TO %I', pg_get_userbyid(p_owner));
        INSERT INTO pgtrickle_changes.schema_users AS u VALUES (p_owner) ON CONFLICT DO NOTHING;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.open_schema(oid) IS 'Lets a role find what lies in pgtrickle_changes for its stream tables';

CREATE FUNCTION pgtrickle_changes.close_schema() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Not when the last one is dropped: that transaction has locks that whoever is granted something may wait for.
DECLARE
    v_role oid;
BEGIN
    FOR v_role IN
        SELECT u.role_oid FROM pgtrickle_changes.schema_users AS u
         WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.owner_oid = u.role_oid)
           AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relowner = u.role_oid)
           FOR UPDATE OF u SKIP LOCKED
    LOOP
        BEGIN
            LOCK TABLE pgtrickle_changes.gate_actions IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        EXCEPTION WHEN lock_not_available THEN
            -- Somebody is being granted something: the next time.
            RETURN;
        END;
        IF EXISTS (SELECT FROM pg_authid AS r WHERE r.oid = v_role) THEN
            EXECUTE format('REVOKE USAGE ON SCHEMA pgtrickle_changes FROM %I', pg_get_userbyid(v_role));
        END IF;
        DELETE FROM pgtrickle_changes.schema_users AS u WHERE u.role_oid = v_role;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.close_schema() IS 'Takes back what open_schema granted, from roles that own nothing there any more';

CREATE FUNCTION pgtrickle_changes.close_function(p_function regprocedure) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whoever calls a function that runs as its owner has the owner's rights: nobody else may, whatever default privileges say.
DECLARE
    v_grantee oid;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT g.grantee
          FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
         WHERE p.oid = p_function AND g.grantee <> p.proowner
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', p_function,
                       CASE v_grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(v_grantee)) END);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.close_function(regprocedure) IS 'Takes a function from everybody but its owner';

CREATE FUNCTION pgtrickle_changes.refuse_settings() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
AS $$
BEGIN
    RAISE EXCEPTION 'the query changes search_path or standard_conforming_strings'
        USING ERRCODE = 'invalid_transaction_state',
              DETAIL = 'A function that it calls, or a trigger, sets it for the whole session.',
              HINT = 'Use SET LOCAL, or better the function''s own SET clause.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_settings() IS 'Raises that what ran as an owner has set for the session what the engine relies on';

CREATE FUNCTION pgtrickle_changes.run_as(p_owner oid, p_statement text, p_frontier pg_snapshot DEFAULT NULL::pg_snapshot, p_own_xid xid8 DEFAULT NULL::xid8, p_own_seqs jsonb DEFAULT NULL::jsonb, p_settings jsonb DEFAULT '{}'::jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_name   name := 'as_' || p_owner;
    v_result jsonb;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_proc AS p
                    WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname = v_name
                      AND p.proowner = p_owner AND p.prosecdef AND p.provolatile = 'v' AND NOT p.proisstrict
                      AND p.proconfig @> '{"search_path=pg_catalog, pg_temp",standard_conforming_strings=on,row_security=on}') THEN
        -- Missing, or not as it was made: its owner may do that, to himself.
        PERFORM pgtrickle_changes.ensure_runner(p_owner);
    END IF;
    EXECUTE format('SELECT pgtrickle_changes.%I($1, $2, $3, $4, $5)', v_name)
       INTO v_result USING p_statement, p_frontier, p_own_xid, p_own_seqs, p_settings;
    -- A function that was called may have set these for the whole session, for the engine as well: until they are known to be as
    -- they were, nothing is looked up by a search path.
    IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) 'pg_catalog, pg_temp'
       OR pg_catalog.current_setting('standard_conforming_strings') OPERATOR(pg_catalog.<>) 'on' THEN
        PERFORM pgtrickle_changes.refuse_settings();
    END IF;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.run_as(oid,text,pg_snapshot,xid8,jsonb,jsonb) IS 'Runs a statement that yields at most one row of one value as a role';

CREATE FUNCTION pgtrickle_changes.command_as(p_owner oid, p_command text, p_settings jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgtrickle_changes.run_as(p_owner, p_command, p_settings => p_settings || '{"command": "on"}');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.command_as(oid,text,jsonb) IS 'Runs a command that yields no row as a role';

CREATE FUNCTION pgtrickle_changes.setting(p_name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Settings that guard something come from where a superuser alone can write: the server's configuration files, or the table
-- where those can't be read.  The others are ordinary settings of the session.
DECLARE
    v_value text;
BEGIN
    IF p_name IN ('enabled', 'allow_circular', 'max_fixpoint_iterations', 'cdc_mode', 'cdc_trigger_mode', 'history_retention_days') THEN
        BEGIN
            SELECT f.setting INTO v_value FROM pg_file_settings AS f
             WHERE f.name = 'pg_trickle.' || p_name AND f.error IS NULL ORDER BY f.seqno DESC LIMIT 1;
        EXCEPTION WHEN insufficient_privilege THEN
            v_value := NULL;
        END;
    ELSE
        v_value := nullif(current_setting('pg_trickle.' || p_name, true), '');
    END IF;
    RETURN coalesce(v_value, (SELECT s.value FROM pgtrickle.pgt_settings AS s WHERE s.name = p_name), CASE p_name
        WHEN 'enabled' THEN 'on'
        WHEN 'cdc_mode' THEN 'auto'
        WHEN 'cdc_trigger_mode' THEN 'statement'
        WHEN 'allow_circular' THEN 'off'
        WHEN 'max_fixpoint_iterations' THEN '100'
        WHEN 'default_schedule_seconds' THEN '1'
        WHEN 'min_schedule_seconds' THEN '1'
        WHEN 'max_consecutive_errors' THEN '3'
        WHEN 'max_concurrent_refreshes' THEN '4'
        WHEN 'history_retention_days' THEN '90'
        WHEN 'fuse_default_ceiling' THEN '0'
        WHEN 'float_aggregates' THEN 'exact'
        WHEN 'keep_plans' THEN 'auto'
        WHEN 'log_delta_sql' THEN 'off'
        WHEN 'metrics_port' THEN '0'
    END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.setting(text) IS 'A setting''s value; one that guards something can''t be changed by a session';
