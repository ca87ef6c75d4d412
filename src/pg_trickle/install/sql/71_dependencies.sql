-- Looking at sources and dependencies.

CREATE VIEW pgtrickle.visible_sources WITH (security_barrier) AS
    SELECT d.pgt_id, st.owner_oid, d.source_relid,
           -- One that was dropped with what is defined on it has no name any more.
           CASE WHEN c.oid IS NULL THEN d.source_relid::text ELSE format('%I.%I', n.nspname, c.relname) END AS source_table,
           d.source_kind, CASE WHEN d.captured AND k.trigger_mode = 'wal' THEN 'wal' WHEN d.captured OR st.refresh_mode = 'IMMEDIATE' THEN 'trigger' ELSE 'none' END AS cdc_mode, d.columns_used, d.captured
      FROM pgtrickle.pgt_dependencies AS d
      JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
      LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = d.source_relid AND k.owner_oid = st.owner_oid
      LEFT JOIN pg_class AS c ON c.oid = d.source_relid
      LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_sources IS 'What the stream tables read, of those that the current user may look at';

CREATE FUNCTION pgtrickle.list_sources(name regclass)
    RETURNS TABLE (source_table text, source_oid oid, source_type text, cdc_mode text, columns_used text[])
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = list_sources.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', list_sources.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN QUERY
        SELECT s.source_table, s.source_relid, s.source_kind, s.cdc_mode, s.columns_used
          FROM pgtrickle.visible_sources AS s
         WHERE s.pgt_id = v_table.pgt_id
         ORDER BY s.source_table;
END
$$;
COMMENT ON FUNCTION pgtrickle.list_sources(regclass) IS
    'What a stream table reads: for views the tables below them. cdc_mode is none where changes can''t be watched';

CREATE FUNCTION pgtrickle.dependency_tree()
    RETURNS TABLE (tree_line text, node text, node_type text, depth integer, status text, refresh_mode text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Depth first, from the stream tables that no other reads down to what they read; what was shown is not shown again.
DECLARE
    v_edges  jsonb;  -- {stream table: [what it reads, sorted]}
    v_tables jsonb;
    v_stack  jsonb;  -- the next one is the last
    v_item   jsonb;
    v_below  jsonb;
    v_shown  text[] := '{}'::text[];
    v_again  boolean;
    -- Before the last of a level, before another, and beside what is below another.
    v_twigs  text[] := ARRAY['`-- ', '|-- ', '|   '];
BEGIN
    -- Not every encoding has lines.
    IF getdatabaseencoding() = 'UTF8' THEN
        v_twigs := ARRAY[chr(9492) || repeat(chr(9472), 2) || ' ', chr(9500) || repeat(chr(9472), 2) || ' ', chr(9474) || '   '];
    END IF;
    SELECT coalesce(jsonb_object_agg(i.name, jsonb_build_array(i.status, i.effective_refresh_mode)), '{}') INTO v_tables
      FROM pgtrickle.stream_tables_info AS i;
    SELECT coalesce(jsonb_object_agg(e.name, e.sources), '{}') INTO v_edges
      FROM (SELECT i.name, jsonb_agg(jsonb_build_array(s.source_table, s.source_kind) ORDER BY s.source_table DESC) AS sources
              FROM pgtrickle.stream_tables_info AS i JOIN pgtrickle.visible_sources AS s USING (pgt_id)
             GROUP BY i.name) AS e;
    SELECT coalesce(jsonb_agg(jsonb_build_object('node', k.name, 'kind', 'stream_table', 'depth', 0, 'lead', '', 'next', '') ORDER BY k.name DESC), '[]')
      INTO v_stack
      FROM (SELECT i.name, i.pgt_id, coalesce(i.scc_id, i.pgt_id) AS circle FROM pgtrickle.stream_tables_info AS i) AS k
     -- Nobody outside of its cycle reads it or the others there, of whom one will do.
     WHERE NOT EXISTS (SELECT FROM pgtrickle.stream_tables_info AS i
                         JOIN pgtrickle.visible_sources AS s ON s.source_relid = i.pgt_relid
                         JOIN pgtrickle.stream_tables_info AS r ON r.pgt_id = s.pgt_id
                        WHERE coalesce(i.scc_id, i.pgt_id) = k.circle AND coalesce(r.scc_id, r.pgt_id) <> k.circle)
       AND k.pgt_id = (SELECT min(i.pgt_id) FROM pgtrickle.stream_tables_info AS i WHERE coalesce(i.scc_id, i.pgt_id) = k.circle);

    WHILE jsonb_array_length(v_stack) > 0 LOOP
        v_item := v_stack -> -1;
        v_stack := v_stack - -1;
        node := v_item ->> 'node';
        node_type := v_item ->> 'kind';
        depth := (v_item ->> 'depth')::integer;
        status := v_tables -> node ->> 0;
        refresh_mode := v_tables -> node ->> 1;
        v_below := coalesce(v_edges -> node, '[]');
        v_again := node = ANY (v_shown) AND v_below <> '[]';
        tree_line := (v_item ->> 'lead') || node || CASE WHEN v_again THEN ' (see above)' ELSE '' END;
        RETURN NEXT;
        CONTINUE WHEN v_again;
        v_shown := v_shown || node;
        SELECT v_stack || coalesce(jsonb_agg(jsonb_build_object('node', b.value ->> 0, 'kind', b.value ->> 1, 'depth', depth + 1,
                   'lead', (v_item ->> 'next') || v_twigs[CASE WHEN b.place = 1 THEN 1 ELSE 2 END],
                   'next', (v_item ->> 'next') || CASE WHEN b.place = 1 THEN '    ' ELSE v_twigs[3] END) ORDER BY b.place), '[]')
          INTO v_stack
          FROM jsonb_array_elements(v_below) WITH ORDINALITY AS b(value, place);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.dependency_tree() IS
    'What reads what, as an indented tree: each stream table above its sources. refresh_mode is the effective one';

CREATE FUNCTION pgtrickle.diamond_groups()
    RETURNS TABLE (group_id bigint, member_schema text, member_name text, is_convergence boolean, schedule_policy text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reads AS (
        SELECT i.pgt_relid::oid AS relid, s.source_relid AS source
          FROM pgtrickle.stream_tables_info AS i JOIN pgtrickle.visible_sources AS s USING (pgt_id)
    ), above AS (
        -- relid rests on source, directly or not; everything rests on itself.
        SELECT r.relid, r.source FROM reads AS r
        UNION
        SELECT a.relid, r.source FROM above AS a JOIN reads AS r ON r.relid = a.source
    ), rests AS (
        SELECT a.relid, a.source FROM above AS a
        UNION
        SELECT r.source, r.source FROM reads AS r
    ), arms AS (
        -- Two ways from a stream table down to the same relation.
        SELECT l.relid AS top, l.source AS arm, lb.source AS bottom
          FROM reads AS l
          JOIN reads AS r ON r.relid = l.relid AND r.source <> l.source
          JOIN rests AS lb ON lb.relid = l.source
          JOIN rests AS rb ON rb.relid = r.source AND rb.source = lb.source
    ), members AS (
        SELECT a.top, a.top AS relid FROM arms AS a
        UNION
        SELECT a.top, m.relid
          FROM arms AS a
          JOIN rests AS m ON m.source = a.bottom
          JOIN rests AS u ON u.relid = a.arm AND u.source = m.relid
    )
    SELECT t.pgt_id, i.pgt_schema, i.pgt_name, m.relid = m.top, t.diamond_schedule_policy
      FROM members AS m
      JOIN pgtrickle.stream_tables_info AS i ON i.pgt_relid = m.relid
      JOIN pgtrickle.stream_tables_info AS t ON t.pgt_relid = m.top
     ORDER BY t.pgt_id, m.relid = m.top, i.pgt_schema, i.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.diamond_groups() IS
    'Stream tables that read the same relation in more than one way: a group for each, with the stream tables in between. The worker refreshes them in one snapshot';

CREATE FUNCTION pgtrickle.pgt_scc_status()
    RETURNS TABLE (scc_id integer, member_count integer, members text[], last_iterations integer, last_converged_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT i.scc_id::integer, count(*)::integer, array_agg(i.name ORDER BY i.name), max(i.fixpoint_iterations), max(i.fixpoint_at)
      FROM pgtrickle.stream_tables_info AS i WHERE i.scc_id IS NOT NULL GROUP BY i.scc_id ORDER BY i.scc_id
$$;
COMMENT ON FUNCTION pgtrickle.pgt_scc_status() IS
    'Cycles of stream tables that read each other: the members that the caller may see, how many rounds they took when they last had something to do, and when they last settled';
