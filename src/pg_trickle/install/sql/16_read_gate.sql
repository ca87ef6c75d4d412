-- The way in for calls that only read, where nothing can be written: read-only transactions and standbys (decision 0001).
--
-- PostgreSQL allows no INSERT there, not even into the view.  So the caller brings a seal instead: a view shows it to him, in which
-- PostgreSQL itself fills in who he is, and which reads with its owner's rights a secret that he can't read.

CREATE TABLE pgtrickle_changes.gate_secret (
    secret bytea NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.gate_secret IS 'What seals are made with; one row, for nobody''s eyes';
INSERT INTO pgtrickle_changes.gate_secret (secret)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

CREATE VIEW pgtrickle.reader WITH (security_barrier) AS
    -- Built-in functions alone: they run as the caller.
    SELECT CURRENT_USER AS caller,
           jsonb_build_object('search_path', current_setting('search_path'), 'schema', current_schema(), 'schemas', current_schemas(true)) AS names,
           sha256(s.secret || sha256(convert_to(concat_ws(' ', pg_backend_pid(), extract(epoch FROM transaction_timestamp()), CURRENT_USER), 'UTF8'))
                  || s.secret) AS seal
      FROM pgtrickle_changes.gate_secret AS s;
COMMENT ON VIEW pgtrickle.reader IS 'Who asks, and what names mean to him: sealed for read_gate, for this session and this transaction';
GRANT SELECT ON pgtrickle.reader TO PUBLIC;

CREATE FUNCTION pgtrickle_changes.is_sealed(p_caller name, p_seal bytea) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_or(p_seal = sha256(
               s.secret || sha256(convert_to(concat_ws(' ', pg_backend_pid(), extract(epoch FROM transaction_timestamp()), p_caller), 'UTF8')) || s.secret)),
               false)
      FROM pgtrickle_changes.gate_secret AS s
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_sealed IS 'Whether a caller''s seal is his own, of this session and this transaction';

CREATE FUNCTION pgtrickle.read_gate(action text, args jsonb, caller name, names jsonb, seal bytea) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
    SET transform_null_equals = off
    SET quote_all_identifiers = off
AS $$
BEGIN
    IF NOT pgtrickle_changes.is_sealed(read_gate.caller, read_gate.seal) THEN
        RAISE EXCEPTION 'permission denied to call as "%"', read_gate.caller
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'The seal is not of this role, this session and this transaction.',
                  HINT = 'Call the functions of the API: they take it from pgtrickle.reader.';
    END IF;
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.gate_actions AS a WHERE a.action = read_gate.action AND a.reads) THEN
        RAISE EXCEPTION 'cannot % in a read-only transaction', read_gate.action
            USING ERRCODE = 'read_only_sql_transaction', HINT = 'Call it in a READ WRITE transaction, on the primary server.';
    END IF;
    RETURN pgtrickle_changes.act(read_gate.caller, read_gate.action, read_gate.args, read_gate.names);
END
$$;
COMMENT ON FUNCTION pgtrickle.read_gate(text, jsonb, name, jsonb, bytea) IS
    'Where verify_stream_table and change_buffer_sizes hand their calls to the engine in read-only transactions and on standbys; who calls is told by a seal from pgtrickle.reader';
