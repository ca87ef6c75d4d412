-- The gate: how a call gets from its caller to the engine, and from the engine to the owner of a stream table.

CREATE TABLE pgtrickle_changes.gate_actions (
    action   text         PRIMARY KEY,
    function regprocedure NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.gate_actions IS 'What the gate does, and the API function whose EXECUTE privilege an action takes';

CREATE VIEW pgtrickle.gate AS
SELECT NULL::text AS action, NULL::jsonb AS args, NULL::name AS caller, NULL::jsonb AS result
 WHERE false;
ALTER VIEW pgtrickle.gate ALTER COLUMN caller SET DEFAULT CURRENT_USER;
COMMENT ON VIEW pgtrickle.gate IS 'Where the API functions hand their calls to the engine; PostgreSQL itself fills in the caller';

CREATE FUNCTION pgtrickle_changes.pass_gate() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function regprocedure;
BEGIN
    SELECT a.function INTO v_function FROM pgtrickle_changes.gate_actions AS a WHERE a.action = NEW.action;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown action "%"', NEW.action USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT has_function_privilege(NEW.caller, v_function, 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied for function %', NEW.action
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('GRANT EXECUTE ON FUNCTION %s TO %I;', v_function, NEW.caller);
    END IF;
    EXECUTE format('SELECT pgtrickle_changes.%I($1, $2)', 'do_' || NEW.action) INTO NEW.result USING NEW.caller, NEW.args;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pass_gate() IS 'The engine''s side of the gate: checks the caller''s privilege, then acts';

CREATE TRIGGER pass_gate INSTEAD OF INSERT ON pgtrickle.gate
    FOR EACH ROW EXECUTE FUNCTION pgtrickle_changes.pass_gate();

CREATE FUNCTION pgtrickle_changes.ensure_runner(p_owner oid) RETURNS name
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The function that runs statements as a role.  Its owner may alter or drop it, which harms nobody else: the engine calls it by
-- name, in a schema where he can't create, and the body refuses to run as anybody but him.
DECLARE
    v_name  name := 'as_' || p_owner;
    v_owner name := pg_get_userbyid(p_owner);
BEGIN
    IF EXISTS (SELECT FROM pg_proc AS p
                WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname = v_name
                  AND p.proowner = p_owner AND p.prosecdef) THEN
        RETURN v_name;
    END IF;
    EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb)', v_name);
    EXECUTE format($create$
        CREATE FUNCTION pgtrickle_changes.%I(statement text, frontier pg_snapshot, own_xid xid8, own_seqs jsonb, settings jsonb)
            RETURNS jsonb
            LANGUAGE plpgsql VOLATILE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            SET jit = off
            SET row_security = on
            SET transform_null_equals = off
            SET "TimeZone" = 'UTC'
            SET "DateStyle" = 'ISO, MDY'
            SET "IntervalStyle" = 'postgres'
            SET extra_float_digits = 1
            SET bytea_output = 'hex'
            SET lc_monetary = 'C'
            SET lc_numeric = 'C'
            SET lc_time = 'C'
            SET default_text_search_config = 'pg_catalog.simple'
        AS %L$create$, v_name, format($body$
DECLARE
    v_setting record;
    v_row     record;
    v_cursor  refcursor;
BEGIN
    IF pg_catalog.pg_get_userbyid(%1$L::pg_catalog.oid) OPERATOR(pg_catalog.<>) CURRENT_USER THEN
        RAISE EXCEPTION 'function as_%1$s has been altered and runs nothing'
            USING ERRCODE = '55000', HINT = 'Drop the function; the next refresh makes it anew.';
    END IF;
    FOR v_setting IN SELECT s.key, s.value FROM pg_catalog.jsonb_each_text(settings) AS s(key, value)
                      WHERE s.key OPERATOR(pg_catalog.<>) ALL ('{command,query}'::pg_catalog.text[]) LOOP
        PERFORM pg_catalog.set_config(v_setting.key, v_setting.value, true);
    END LOOP;
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
    EXECUTE statement INTO v_row USING frontier, own_xid, own_seqs;
    RETURN (SELECT f.value FROM pg_catalog.jsonb_each(pg_catalog.to_jsonb(v_row)) AS f LIMIT 1);
END
$body$, p_owner));
    EXECUTE format('ALTER FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) OWNER TO %I', v_name, v_owner);
    EXECUTE format('REVOKE ALL ON FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) FROM PUBLIC', v_name);
    EXECUTE format('COMMENT ON FUNCTION pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) IS %L', v_name,
                   format('Runs pg_trickle''s statements as role %s', v_owner));
    RETURN v_name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.ensure_runner(oid) IS 'Makes the runner of a role if there is none';

CREATE FUNCTION pgtrickle_changes.run_as(p_owner oid, p_statement text, p_frontier pg_snapshot DEFAULT NULL, p_own_xid xid8 DEFAULT NULL,
                                         p_own_seqs jsonb DEFAULT NULL, p_settings jsonb DEFAULT '{}') RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_result jsonb;
BEGIN
    EXECUTE format('SELECT pgtrickle_changes.%I($1, $2, $3, $4, $5)', 'as_' || p_owner)
       INTO v_result USING p_statement, p_frontier, p_own_xid, p_own_seqs, p_settings;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.run_as(oid, text, pg_snapshot, xid8, jsonb, jsonb) IS 'Runs a statement that yields at most one row of one value as a role';

CREATE FUNCTION pgtrickle_changes.command_as(p_owner oid, p_command text, p_settings jsonb DEFAULT '{}') RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgtrickle_changes.run_as(p_owner, p_command, p_settings => p_settings || '{"command": "on"}')
$$;
COMMENT ON FUNCTION pgtrickle_changes.command_as(oid, text, jsonb) IS 'Runs a command that yields no row as a role';

CREATE FUNCTION pgtrickle_changes.setting(p_name text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Settings that guard something come from where a superuser alone can write: the server's configuration files, or the table
-- where those can't be read.  The others are ordinary settings of the session.
DECLARE
    v_value text;
BEGIN
    IF p_name IN ('enabled', 'allow_circular', 'cdc_mode', 'cdc_trigger_mode') THEN
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
        WHEN 'log_delta_sql' THEN 'off'
    END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.setting(text) IS 'A setting''s value; one that guards something can''t be changed by a session';
