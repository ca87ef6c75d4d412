-- What a call says: names, schedules and choices, and the stream table that it means.

CREATE FUNCTION pgtrickle_changes.split_name(p_name text, p_schema text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- {schema, name} of a name as SQL writes it; without a schema the caller's first one.
DECLARE
    v_parts text[];
BEGIN
    BEGIN
        v_parts := parse_ident(p_name);
    EXCEPTION WHEN invalid_parameter_value THEN
        RAISE EXCEPTION 'invalid stream table name: %', coalesce(quote_literal(p_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it as in SQL: name, schema.name or "Schema"."Name".';
    END;
    IF v_parts IS NULL OR cardinality(v_parts) > 2 THEN
        RAISE EXCEPTION 'invalid stream table name: %', coalesce(quote_literal(p_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it as in SQL: name, schema.name or "Schema"."Name".';
    END IF;
    IF cardinality(v_parts) = 1 THEN
        IF p_schema IS NULL THEN
            RAISE EXCEPTION 'no schema has been selected to create in'
                USING ERRCODE = 'invalid_schema_name', HINT = 'Name the schema, or set search_path.';
        END IF;
        v_parts := p_schema || v_parts;
    END IF;
    -- As PostgreSQL does with identifiers that are too long.
    RETURN ARRAY[v_parts[1]::name::text, v_parts[2]::name::text];
END
$$;

CREATE FUNCTION pgtrickle_changes.find_stream_table(p_name text, p_path text) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The stream table that a name means along a search path; a null row if none.
DECLARE
    v_parts text[];
    v_table pgtrickle.pgt_stream_tables;
BEGIN
    v_parts := pgtrickle_changes.split_name(p_name, '');
    SELECT st.* INTO v_table
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pg_class AS c ON c.oid = st.pgt_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = v_parts[2]
       AND CASE WHEN v_parts[1] <> '' THEN n.nspname = v_parts[1] ELSE n.nspname = ANY (p_path::text[]) END
     ORDER BY array_position(p_path::text[], n.nspname::text)
     LIMIT 1;
    RETURN v_table;
END
$$;

CREATE FUNCTION pgtrickle_changes.owned_stream_table(p_caller name, p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The stream table that a call names, if the caller owns it; an error otherwise.
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.find_stream_table(p_args ->> 'name', p_args ->> 'path');
    v_owner name;
BEGIN
    IF v_table.pgt_id IS NULL THEN
        RAISE EXCEPTION 'stream table "%" does not exist', p_args ->> 'name'
            USING ERRCODE = 'undefined_table', HINT = 'List the stream tables with SELECT * FROM pgtrickle.pgt_status().';
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
    RETURN v_table;
END
$$;

CREATE FUNCTION pgtrickle_changes.check_owner(p_caller name, p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role(p_caller, p_table.owner_oid, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of stream table "%"', p_table.pgt_name
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It belongs to role "%s".', pg_get_userbyid(p_table.owner_oid));
    END IF;
END
$$;

CREATE FUNCTION pgtrickle_changes.role_oid(p_role name) RETURNS oid
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.oid FROM pg_roles AS r WHERE r.rolname = p_role
$$;

CREATE FUNCTION pgtrickle_changes.schedule_seconds(p_schedule text) RETURNS float8
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The length of a schedule that is a duration; NULL for calculated, cron, and no schedule at all.
DECLARE
    v_part    text[];
    v_seconds float8 := 0;
    v_fields  integer;
    v_least   float8 := coalesce(pgtrickle_changes.setting('min_schedule_seconds')::float8, 1);
BEGIN
    IF p_schedule IS NULL OR lower(p_schedule) = 'calculated' THEN
        RETURN NULL;
    END IF;
    IF p_schedule ~ '^\s*\d+(\.\d+)?\s*$' THEN
        v_seconds := p_schedule::float8;
    ELSIF p_schedule ~ '^\s*(\d+[smhdw]\s*)+$' THEN
        FOR v_part IN SELECT m FROM regexp_matches(p_schedule, '(\d+)([smhdw])', 'g') AS m LOOP
            v_seconds := v_seconds + v_part[1]::float8 * CASE v_part[2]
                WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END;
        END LOOP;
    ELSE
        v_fields := cardinality(regexp_split_to_array(trim(p_schedule), '\s+'));
        IF p_schedule ~ '^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$'
           OR (v_fields IN (5, 6) AND p_schedule ~* '^[\d\s*/,#?a-z-]+$') THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'invalid schedule "%"', p_schedule
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is no duration, no cron expression and not "calculated".',
                  HINT = 'Write ''30s'', ''1h30m'', ''2w'', a number of seconds, ''*/5 * * * *'', ''@hourly'' or ''calculated''.';
    END IF;
    IF v_seconds < v_least THEN
        RAISE EXCEPTION 'schedule "%" is too short', p_schedule
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The least is %s s.', v_least),
                  HINT = 'Use ''calculated'' to be refreshed whenever sources change.';
    END IF;
    RETURN v_seconds;
END
$$;

CREATE FUNCTION pgtrickle_changes.checked_choice(p_argument text, p_value text, p_choices text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_value IS NULL OR p_value = ANY (p_choices) THEN
        RETURN p_value;
    END IF;
    RAISE EXCEPTION 'invalid %: "%"', p_argument, p_value
        USING ERRCODE = 'invalid_parameter_value', HINT = format('Choose one of: %s.', array_to_string(p_choices, ', '));
END
$$;

CREATE FUNCTION pgtrickle_changes.checked_cdc_mode(p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mode text := pgtrickle_changes.checked_choice('cdc_mode', lower(coalesce(p_mode, pgtrickle_changes.setting('cdc_mode'))), '{auto,trigger,wal}');
BEGIN
    IF v_mode = 'wal' THEN
        RAISE EXCEPTION 'cdc_mode "wal" is not available yet'
            USING ERRCODE = 'feature_not_supported', HINT = 'Use ''trigger'' or ''auto''.';
    END IF;
    RETURN v_mode;
END
$$;
