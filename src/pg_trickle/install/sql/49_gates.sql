-- Gates: while a source is being loaded, the worker leaves alone what reads it.

CREATE TABLE pgtrickle_changes.source_gates (
    source_relid oid         PRIMARY KEY,
    gated_by     name        NOT NULL,
    gated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgtrickle_changes.source_gates IS 'The sources whose owners want them left alone';

CREATE FUNCTION pgtrickle_changes.owned_source(p_caller name, p_args jsonb) RETURNS oid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A gate holds up everybody's stream tables over a source: that is its owner's to decide.
DECLARE
    v_parts   text[] := pgtrickle_changes.split_name(p_args ->> 'source', '');
    v_schemas text[] := ARRAY(SELECT jsonb_array_elements_text(p_args -> 'schemas'));
    v_source  record;
BEGIN
    SELECT c.oid, c.relowner INTO v_source
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = v_parts[2] AND c.relkind IN ('r', 'p', 'f', 'm')
       AND CASE WHEN v_parts[1] <> '' THEN n.nspname = v_parts[1] ELSE n.nspname = ANY (v_schemas) END
     ORDER BY array_position(v_schemas, n.nspname::text)
     LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table "%" does not exist', p_args ->> 'source' USING ERRCODE = 'undefined_table', HINT = 'Name a table that stream tables read.';
    END IF;
    IF NOT pg_has_role(p_caller, v_source.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table "%"', p_args ->> 'source'
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It belongs to role "%s".', pg_get_userbyid(v_source.relowner)),
                  HINT = 'suspend_stream_table() holds up a stream table of your own.';
    END IF;
    RETURN v_source.oid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.owned_source IS 'The table that a call names, if the caller owns it; an error otherwise';

CREATE FUNCTION pgtrickle_changes.do_gate_source(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO pgtrickle_changes.source_gates (source_relid, gated_by) VALUES (pgtrickle_changes.owned_source(p_caller, p_args), p_caller)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_gate_source IS 'The gate''s gate_source';

CREATE FUNCTION pgtrickle_changes.do_ungate_source(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgtrickle_changes.source_gates AS g WHERE g.source_relid = pgtrickle_changes.owned_source(p_caller, p_args);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_ungate_source IS 'The gate''s ungate_source';

CREATE FUNCTION pgtrickle_changes.is_gated(p_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM pgtrickle_changes.source_gates AS g JOIN pgtrickle.pgt_dependencies AS d USING (source_relid) WHERE d.pgt_id = p_id)
           OR pgtrickle_changes.awaits_watermarks(p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_gated IS 'Whether a source that a stream table reads is to be left alone, or isn''t as far as another';

CREATE VIEW pgtrickle.visible_gates WITH (security_barrier) AS
    SELECT format('%I.%I', n.nspname, c.relname) AS source_table, g.source_relid, g.gated_by, g.gated_at
      FROM pgtrickle_changes.source_gates AS g
      JOIN pg_class AS c ON c.oid = g.source_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE has_table_privilege(CURRENT_USER, c.oid, 'SELECT') OR pg_has_role(CURRENT_USER, 'pg_monitor', 'USAGE');
COMMENT ON VIEW pgtrickle.visible_gates IS 'The gated sources, of those that the current user may read';

CREATE FUNCTION pgtrickle.source_gates() RETURNS TABLE (source_table text, source_oid oid, gated_by name, gated_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT g.source_table, g.source_relid, g.gated_by, g.gated_at FROM pgtrickle.visible_gates AS g ORDER BY g.source_table
$$;
COMMENT ON FUNCTION pgtrickle.source_gates() IS 'The sources that gate_source() was called for, of those that the caller may read';
GRANT SELECT ON pgtrickle.visible_gates TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.source_gates() TO pg_monitor;
