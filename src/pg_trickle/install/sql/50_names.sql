-- What a call means: names, the stream table that has one, and its owner.

CREATE FUNCTION pgtrickle_changes.split_name(p_name text, p_schema text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parts text[];
BEGIN
    BEGIN
        v_parts := parse_ident(p_name);
    EXCEPTION WHEN invalid_parameter_value THEN
        v_parts := NULL;
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
COMMENT ON FUNCTION pgtrickle_changes.split_name IS '{schema, name} of a name as SQL writes it; without a schema the one given';

CREATE FUNCTION pgtrickle_changes.find_stream_table(p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_parts   text[] := pgtrickle_changes.split_name(p_args ->> 'name', '');
    v_schemas text[] := CASE WHEN v_parts[1] <> '' THEN ARRAY[v_parts[1]] ELSE ARRAY(SELECT jsonb_array_elements_text(p_args -> 'schemas')) END;
    v_table   pgtrickle.pgt_stream_tables;
BEGIN
    SELECT st.* INTO v_table
      FROM pg_class AS c JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_relid = c.oid
     WHERE c.relname = v_parts[2] AND c.relnamespace = ANY (ARRAY(SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = ANY (v_schemas)))
     ORDER BY array_position(v_schemas, (SELECT n.nspname::text FROM pg_namespace AS n WHERE n.oid = c.relnamespace)) LIMIT 1;
    RETURN v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.find_stream_table IS 'The stream table that the name of a call means along the caller''s search path; a null row if none';

CREATE FUNCTION pgtrickle_changes.stream_table_of(p_target text[]) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables;
BEGIN
    SELECT st.* INTO v_table
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pg_class AS c ON c.oid = st.pgt_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = p_target[1] AND c.relname = p_target[2];
    RETURN v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.stream_table_of IS 'The stream table with exactly that schema and name; a null row if none';

CREATE TABLE pgtrickle_changes.names_in_hand (
    pgt_schema text NOT NULL,
    pgt_name   text NOT NULL,
    PRIMARY KEY (pgt_schema, pgt_name)
);
COMMENT ON TABLE pgtrickle_changes.names_in_hand IS 'Always empty: who inserts a name here, and deletes it at once, keeps others from inserting it until he commits';

CREATE FUNCTION pgtrickle_changes.take_name(p_target text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whoever creates or drops a stream table of a name waits for others who do, and sees what they have done.  A unique index waits for
-- whoever may have its value, whatever the snapshot; an advisory lock anybody could take.
DECLARE
    v_detail text;
    v_pid    text;
BEGIN
    INSERT INTO pgtrickle_changes.names_in_hand VALUES (p_target[1], p_target[2]);
    DELETE FROM pgtrickle_changes.names_in_hand AS n WHERE n.pgt_schema = p_target[1] AND n.pgt_name = p_target[2];
EXCEPTION WHEN deadlock_detected THEN
    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
    -- The last number of the first line, in whatever language: the process that this one waited for.
    v_pid := substring(split_part(v_detail, E'\n', 1) FROM '([0-9]+)[^0-9]*$');
    RAISE EXCEPTION 'deadlock detected'
        USING ERRCODE = 'deadlock_detected',
              DETAIL = format('%s, which waits for this transaction, is %s.',
                  coalesce((SELECT format('Session %s of role "%s"', a.pid, a.usename) FROM pg_stat_activity AS a WHERE a.pid = v_pid::integer), 'Somebody'),
                  CASE WHEN p_target[1] = 'pgtrickle_changes' THEN 'creating the first stream table of the same owner'
                       ELSE format('creating or dropping "%s.%s"', p_target[1], p_target[2]) END),
              HINT = 'Try again; create and change stream tables in transactions that haven''t written their sources.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.take_name IS 'Waits for everybody else who creates or drops a stream table of this name, or says who is in the way';

CREATE FUNCTION pgtrickle_changes.stream_table_by_now(p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_target text[] := pgtrickle_changes.split_name(p_args ->> 'name', p_args ->> 'schema');
    v_table  pgtrickle.pgt_stream_tables;
BEGIN
    PERFORM pgtrickle_changes.take_name(v_target);
    v_table := pgtrickle_changes.stream_table_of(v_target);
    IF v_table.pgt_id IS NULL AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
       AND to_regclass(format('%I.%I', v_target[1], v_target[2])) IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = v_target[1] AND c.relname = v_target[2]) THEN
        RAISE EXCEPTION 'could not serialize access to the name "%"', v_target[2]
            USING ERRCODE = 'serialization_failure', DETAIL = 'A relation of that name was created since the snapshot.', HINT = 'Try again.';
    END IF;
    RETURN v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.stream_table_by_now IS 'The stream table with the name that a call creates, as others have left it; a null row if none';

CREATE FUNCTION pgtrickle_changes.refuse_name(p_name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'relation "%" already exists', p_name
        USING ERRCODE = 'duplicate_table', HINT = 'Choose another name, or use create_or_replace_stream_table for a stream table.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_name IS 'Raises that a name is taken';

CREATE FUNCTION pgtrickle_changes.named_stream_table(p_caller name, p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- For what ends a maintenance, and must never depend on whether it could go on.
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.find_stream_table(p_args);
BEGIN
    IF v_table.pgt_id IS NULL THEN
        RAISE EXCEPTION 'stream table "%" does not exist', p_args ->> 'name'
            USING ERRCODE = 'undefined_table', HINT = 'List the stream tables with SELECT * FROM pgtrickle.pgt_status().';
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, v_table);
    RETURN v_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.named_stream_table IS 'The stream table that a call names, if the caller owns the table; an error otherwise';

CREATE FUNCTION pgtrickle_changes.owned_stream_table(p_caller name, p_args jsonb) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pgtrickle_changes.follow_owner(pgtrickle_changes.named_stream_table(p_caller, p_args));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.owned_stream_table IS 'The same, and what belongs to the stream table is given to the owner of today';

CREATE FUNCTION pgtrickle_changes.check_owner(p_caller name, p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The caller must have the rights of the table's owner.
DECLARE
    v_owner oid := coalesce((SELECT c.relowner FROM pg_class AS c WHERE c.oid = p_table.pgt_relid), p_table.owner_oid);
BEGIN
    IF NOT pg_has_role(p_caller, v_owner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of stream table "%"', p_table.pgt_name
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It belongs to role "%s".', pg_get_userbyid(v_owner)),
                  HINT = 'Ask that role, or a superuser.';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_owner IS 'Raises unless the caller has the rights of the table''s owner';

CREATE FUNCTION pgtrickle_changes.is_given_to_superuser(p_table pgtrickle.pgt_stream_tables) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM pg_class AS c JOIN pg_authid AS n ON n.oid = c.relowner CROSS JOIN pg_authid AS o
                    WHERE c.oid = p_table.pgt_relid AND o.oid = p_table.owner_oid AND n.rolsuper AND NOT o.rolsuper);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_given_to_superuser IS 'Whether a superuser owns the table of somebody else''s stream table, whose query must not run as him';

CREATE FUNCTION pgtrickle_changes.follow_owner(p_table pgtrickle.pgt_stream_tables) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Who was given the table by ALTER TABLE ... OWNER TO is given the rest: from now on the query runs with his rights.  To give it away takes the
-- rights of both.  What was captured for the former owner goes; the next refresh captures anew, and recomputes.
DECLARE
    v_owner  oid := (SELECT c.relowner FROM pg_class AS c WHERE c.oid = p_table.pgt_relid);
    v_item   regclass;
    v_values record;
    v_source oid;
BEGIN
    IF v_owner IS NULL OR v_owner = p_table.owner_oid THEN
        RETURN p_table;
    END IF;
    IF pgtrickle_changes.is_given_to_superuser(p_table) THEN
        RAISE EXCEPTION 'stream table "%" was given to a superuser', p_table.pgt_name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Its query, which role "%s" wrote, would run with a superuser''s rights.', pg_get_userbyid(p_table.owner_oid)),
                  HINT = format('ALTER TABLE %s OWNER TO %I; or drop it, and let the superuser create it.',
                                p_table.pgt_relid::regclass, pg_get_userbyid(p_table.owner_oid));
    END IF;
    PERFORM pgtrickle_changes.lock_stream_table(p_table.pgt_id);
    PERFORM pgtrickle_changes.drop_immediate(p_table.pgt_id);
    PERFORM pgtrickle_changes.drop_standing(p_table.pgt_id);
    FOR v_item IN
        SELECT to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
         WHERE p.pgt_id = p_table.pgt_id AND to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) IS NOT NULL
        UNION ALL
        SELECT c.oid::regclass FROM pg_class AS c WHERE c.oid = p_table.definition_view
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_item, pg_get_userbyid(v_owner));
        -- Statistics over values of a state don't go with it.
        FOR v_values IN SELECT n.nspname, s.stxname FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace WHERE s.stxrelid = v_item LOOP
            EXECUTE format('ALTER STATISTICS %I.%I OWNER TO %I', v_values.nspname, v_values.stxname, pg_get_userbyid(v_owner));
        END LOOP;
    END LOOP;
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET owner_oid = v_owner, owner_was_superuser = (SELECT r.rolsuper FROM pg_authid AS r WHERE r.oid = v_owner), frontier = NULL, frontier_xid = NULL, frontier_seqs = '{}', needs_reinit = st.is_populated,
           reinit_reason = 'it was given to another owner'
     WHERE st.pgt_id = p_table.pgt_id;
    FOR v_source IN SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_table.pgt_id AND d.captured ORDER BY 1 LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, p_table.owner_oid);
    END LOOP;
    PERFORM pgtrickle_changes.drop_idle_runner(p_table.owner_oid);
    SELECT st.* INTO p_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_table.pgt_id;
    RETURN p_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.follow_owner IS 'Gives what belongs to a stream table to the table''s owner of today';

CREATE FUNCTION pgtrickle_changes.with_current_name(p_table pgtrickle.pgt_stream_tables) RETURNS pgtrickle.pgt_stream_tables
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_owner oid := (SELECT c.relowner FROM pg_class AS c WHERE c.oid = p_table.pgt_relid);
BEGIN
    IF v_owner IS NULL THEN
        RAISE EXCEPTION 'the table of stream table % was dropped', p_table.pgt_id
            USING ERRCODE = 'undefined_table', DETAIL = 'DROP TABLE removed the rows; what is left is bookkeeping.',
                  HINT = 'The worker''s housekeeping removes it.';
    END IF;
    PERFORM pgtrickle_changes.follow_owner(p_table);
    PERFORM pgtrickle_changes.follow_columns(p_table);
    UPDATE pgtrickle.pgt_stream_tables AS st SET pgt_schema = n.nspname, pgt_name = c.relname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE st.pgt_id = p_table.pgt_id AND c.oid = st.pgt_relid
    RETURNING st.* INTO p_table;
    RETURN p_table;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.with_current_name IS 'The catalog row under the names and the owner of today; the table must be there';

CREATE FUNCTION pgtrickle_changes.role_oid(p_role name) RETURNS oid
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT r.oid FROM pg_authid AS r WHERE r.rolname = p_role);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.role_oid IS 'The oid of a role; NULL if there is none of that name';
