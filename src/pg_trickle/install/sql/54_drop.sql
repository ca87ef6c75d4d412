-- Dropping a stream table, and what reads it.

CREATE FUNCTION pgtrickle_changes.dependants(p_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        -- Circles count as one.
        WITH RECURSIVE down(node, depth) AS (
            SELECT coalesce(st.scc_id, st.pgt_id), 0 FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id
            UNION
            SELECT r.node, down.depth + 1
              FROM down JOIN pgtrickle_changes.reads AS r ON r.source_node = down.node
             WHERE down.depth < 1000 AND r.node <> down.node
        )
        SELECT coalesce(array_agg(st.pgt_id ORDER BY x.depth DESC, st.pgt_id), '{}')
          FROM (SELECT down.node, max(down.depth) AS depth FROM down GROUP BY down.node) AS x
          JOIN pgtrickle.pgt_stream_tables AS st ON coalesce(st.scc_id, st.pgt_id) = x.node
         WHERE st.pgt_id <> p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.dependants IS 'The stream tables that read this one, directly or not, the farthest first';

CREATE FUNCTION pgtrickle_changes.do_drop_stream_table(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.named_stream_table(p_caller, p_args);
    v_down  bigint[] := pgtrickle_changes.dependants(v_table.pgt_id);
    v_id    bigint;
BEGIN
    IF cardinality(v_down) > 0 AND NOT coalesce((p_args ->> 'cascade')::boolean, false) THEN
        RAISE EXCEPTION 'cannot drop stream table "%" because other stream tables depend on it', v_table.pgt_name
            USING ERRCODE = 'dependent_objects_still_exist',
                  DETAIL = (SELECT string_agg(format('stream table %I.%I reads it', st.pgt_schema, st.pgt_name), E'\n' ORDER BY st.pgt_id)
                              FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (v_down)),
                  HINT = 'Drop them first, or pass "cascade" => true.';
    END IF;
    PERFORM pgtrickle_changes.check_owner(p_caller, st) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (v_down);
    -- In a circle each table has a definition that depends on it.
    FOR v_id IN SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
                 WHERE st.pgt_id = ANY (v_down || v_table.pgt_id) AND st.scc_id IS NOT NULL LOOP
        EXECUTE format('DROP VIEW IF EXISTS pgtrickle_changes.%I CASCADE', 'query_' || v_id);
    END LOOP;
    PERFORM pgtrickle_changes.lock_to_drop(v_down || v_table.pgt_id);
    FOREACH v_id IN ARRAY v_down || v_table.pgt_id LOOP
        PERFORM pgtrickle_changes.drop_one(v_id);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_drop_stream_table IS 'The gate''s drop_stream_table';

CREATE FUNCTION pgtrickle_changes.lock_to_drop(p_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Of stream tables, each before those it reads: their names, so that whoever is to create one of a name next comes after this; their rows, in
-- the order in which refreshes go; and what is written by those whose statements maintain them, who come from there to the stream tables.
BEGIN
    PERFORM pgtrickle_changes.take_name(t.name)
       FROM (SELECT ARRAY[n.nspname, c.relname]::text[] AS name
               FROM pgtrickle.pgt_stream_tables AS st JOIN pg_class AS c ON c.oid = st.pgt_relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE st.pgt_id = ANY (p_ids) ORDER BY name) AS t;
    FOR v_place IN REVERSE cardinality(p_ids)..1 LOOP
        PERFORM pgtrickle_changes.lock_stream_table(p_ids[v_place]);
    END LOOP;
    PERFORM pgtrickle_changes.lock_together(ARRAY(
        SELECT DISTINCT o.relation::oid FROM unnest(p_ids) AS d(id) CROSS JOIN LATERAL pgtrickle_changes.immediate_objects(d.id) AS o
         WHERE o.kind = 'trigger'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_to_drop IS 'Locks all that dropping some stream tables needs, in an order in which nobody waits for it who is waited for';

CREATE FUNCTION pgtrickle_changes.drop_one(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables;
    v_name  text;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_name
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = v_table.pgt_relid;
    -- The owner's own DROP: what else depends on the table stops it, as it would stop him.  A superuser's is the engine's, which runs nothing
    -- of the stream table's as him for it; and who could put another table in the place of the name owns the schema, and may drop that one, too.
    IF pgtrickle_changes.is_given_to_superuser(v_table) THEN
        EXECUTE 'DROP TABLE ' || v_name;
    ELSIF v_name IS NOT NULL THEN
        v_table := pgtrickle_changes.follow_owner(v_table);
        PERFORM pgtrickle_changes.command_as(v_table.owner_oid, 'DROP TABLE ' || v_name);
    END IF;
    PERFORM pgtrickle_changes.forget_stream_table(p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_one IS 'Drops a stream table that no other reads, and that lock_to_drop was called for';

CREATE FUNCTION pgtrickle_changes.forget_stream_table(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Remove what is left of a stream table whose table was dropped: catalog rows, definition, states, captures.
DECLARE
    v_owner   oid;
    v_states  text[];
    v_sources oid[];
    v_circle  bigint[];
    v_item    text;
    v_source  oid;
BEGIN
    SELECT ARRAY(SELECT t.item ->> 'name' FROM pgtrickle.pgt_plans AS p
                  CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                  WHERE p.pgt_id = p_id),
           ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = p_id ORDER BY s.source_relid)
      INTO v_states, v_sources;
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    PERFORM pgtrickle_changes.drop_publication(st) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    PERFORM pgtrickle_changes.drop_standing(p_id);
    v_circle := array_remove(pgtrickle_changes.members(p_id), p_id);
    DELETE FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id RETURNING st.owner_oid INTO v_owner;
    PERFORM pgtrickle_changes.mark_circles(v_circle, NULL);
    EXECUTE format('DROP VIEW IF EXISTS pgtrickle_changes.%I CASCADE', 'query_' || p_id);
    FOREACH v_item IN ARRAY v_states LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgtrickle_changes.%I CASCADE', v_item);
    END LOOP;
    FOREACH v_source IN ARRAY v_sources LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_owner);
    END LOOP;
    PERFORM pgtrickle_changes.drop_idle_runner(v_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.forget_stream_table IS 'Removes what is left of a stream table whose table was dropped';

CREATE FUNCTION pgtrickle_changes.drop_idle_runner(p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- So that a role that owns no stream table any more can be dropped.
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.owner_oid = p_owner) THEN
        EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_changes.%I(text, pg_snapshot, xid8, jsonb, jsonb) CASCADE', 'as_' || p_owner);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_idle_runner IS 'Drops the runner of a role that owns no stream table any more';
