-- How much is waiting, and how stream tables are maintained; and who may look at all of it.

CREATE FUNCTION pgtrickle_changes.do_change_buffer_sizes(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What each stream table that the caller may look at still has to read.  The owner counts his own buffers; when he can't,
-- because he broke something of his, the others' figures are shown all the same.  Nothing that he has hung on them runs: he who
-- looks need not trust him.
DECLARE
    v_ids     bigint[] := ARRAY(SELECT v.pgt_id FROM pgtrickle_changes.visibility AS v WHERE v.role = p_caller AND (v.may_read OR v.is_monitor) ORDER BY 1);
    v_id      bigint;
    v_table   record;
    v_pending jsonb;
    v_result  jsonb := '[]'::jsonb;
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        SELECT st.pgt_id, st.frontier, st.frontier_xid, st.frontier_seqs, st.owner_oid INTO v_table
          FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = v_id;
        CONTINUE WHEN NOT FOUND;
        v_pending := NULL;
        IF v_table.frontier IS NOT NULL THEN
            BEGIN
                IF EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_captures AS k USING (source_relid)
                            WHERE d.pgt_id = v_id AND d.captured AND k.owner_oid = v_table.owner_oid AND NOT pgtrickle_changes.lock_plain(k, false)) THEN
                    RAISE EXCEPTION 'a buffer is locked or was altered' USING ERRCODE = 'object_not_in_prerequisite_state';
                END IF;
                v_pending := coalesce(pgtrickle_changes.pending(v_table.pgt_id, v_table.frontier, v_table.frontier_xid, v_table.frontier_seqs), '{}');
            EXCEPTION
                WHEN query_canceled OR admin_shutdown OR crash_shutdown THEN
                    RAISE;
                WHEN OTHERS THEN
                    RAISE WARNING 'the change buffers of stream table % can''t be counted', v_table.pgt_id USING DETAIL = sqlerrm;
            END;
        END IF;
        v_result := v_result || coalesce((
            SELECT jsonb_agg(jsonb_build_object('pgt_id', v_table.pgt_id, 'source', d.source_relid, 'bytes', b.bytes,
                       'rows', CASE WHEN v_pending IS NOT NULL THEN coalesce((v_pending -> d.source_relid::text ->> 0)::bigint, 0) END))
              FROM pgtrickle.pgt_dependencies AS d
              JOIN pgtrickle_changes.buffers AS b ON b.source_relid = d.source_relid AND b.owner_oid = v_table.owner_oid
             WHERE d.pgt_id = v_table.pgt_id AND d.captured), '[]');
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_change_buffer_sizes IS 'The gate''s change_buffer_sizes';

CREATE FUNCTION pgtrickle.change_buffer_sizes()
    RETURNS TABLE (stream_table text, source_table text, source_oid oid, cdc_mode text, pending_rows bigint, buffer_bytes bigint)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_answer jsonb;
BEGIN
    IF current_setting('transaction_read_only') = 'on' THEN
        SELECT pgtrickle.read_gate('change_buffer_sizes', '{}', r.caller, r.names, r.seal) INTO v_answer FROM pgtrickle.reader AS r;
    ELSE
        INSERT INTO pgtrickle.gate (action, args) VALUES ('change_buffer_sizes', '{}') RETURNING result INTO v_answer;
    END IF;
    RETURN QUERY
        SELECT i.name, s.source_table, s.source_relid, s.cdc_mode, r."rows", r.bytes
          FROM jsonb_to_recordset(v_answer) AS r(pgt_id bigint, source oid, "rows" bigint, bytes bigint)
          JOIN pgtrickle.stream_tables_info AS i USING (pgt_id)
          JOIN pgtrickle.visible_sources AS s ON s.pgt_id = r.pgt_id AND s.source_relid = r.source
         ORDER BY i.name, s.source_table;
END
$$;
COMMENT ON FUNCTION pgtrickle.change_buffer_sizes() IS
    'What each stream table still has to read of each source, counted exactly (NULL before it is first filled, which reads the sources themselves), and the size of the buffer, which stream tables of one owner share. In read-only transactions and on standbys it takes EXECUTE on read_gate too';
INSERT INTO pgtrickle_changes.gate_actions (action, function)
VALUES ('change_buffer_sizes', 'pgtrickle.change_buffer_sizes()');

CREATE FUNCTION pgtrickle.explain_stream_table(name regclass, format text DEFAULT 'text') RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
    v_plan  jsonb;
    v_doc   jsonb;
BEGIN
    IF explain_stream_table.format NOT IN ('text', 'json') THEN
        RAISE EXCEPTION 'unknown format "%"', explain_stream_table.format
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The formats are text and json.';
    END IF;
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = explain_stream_table.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', explain_stream_table.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    SELECT p.plan INTO v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'permission denied for the plan of stream table "%"', explain_stream_table.name
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'A plan shows the query, which is for those who may SELECT from the stream table.',
                  HINT = 'GRANT SELECT on it.';
    END IF;

    v_doc := jsonb_build_object(
        'stream_table', v_table.name,
        'configured_mode', v_table.refresh_mode,
        'effective_mode', v_table.effective_refresh_mode,
        'reason', coalesce(v_table.downgrade_reason,
            CASE WHEN v_table.effective_refresh_mode = 'FULL' THEN v_plan -> 'refusal' ->> 'reason' END,
            CASE WHEN v_table.effective_refresh_mode = 'FULL' AND v_table.refresh_mode = 'FULL' THEN 'asked for' END),
        'key', v_plan -> 'key',
        'tree', coalesce(v_plan -> 'explain' -> 'tree', '[]'),
        'stages', coalesce((SELECT jsonb_agg(jsonb_build_object('table', s.item ->> 'name', 'key', s.item -> 'key', 'columns', s.item -> 'columns') ORDER BY s.place)
                              FROM jsonb_array_elements(v_plan -> 'states') WITH ORDINALITY AS s(item, place)), '[]'),
        'indexes', coalesce((SELECT jsonb_agg(jsonb_build_object('relation', s.source_table, 'columns', x.item -> 'columns', 'why', x.item ->> 'why',
                                                                'rows', nullif(greatest(c.reltuples, 0), 0)::bigint) ORDER BY x.place)
                               FROM jsonb_array_elements(v_plan -> 'indexes') WITH ORDINALITY AS x(item, place)
                               JOIN pgtrickle.visible_sources AS s ON s.pgt_id = v_table.pgt_id AND s.source_relid::text = x.item ->> 'relation'
                               JOIN pg_class AS c ON c.oid = s.source_relid
                              -- An index that begins with any of the columns will do.
                              WHERE NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                                                 WHERE i.indrelid = s.source_relid AND i.indisvalid AND i.indpred IS NULL
                                                   AND x.item -> 'columns' ? a.attname)), '[]'),
        -- As the planner has it; of what was never analyzed it knows nothing.
        'sources', coalesce((SELECT jsonb_agg(jsonb_build_object('relation', s.source_table, 'rows', nullif(greatest(c.reltuples, 0), 0)::bigint) ORDER BY s.source_table)
                               FROM pgtrickle.visible_sources AS s JOIN pg_class AS c ON c.oid = s.source_relid WHERE s.pgt_id = v_table.pgt_id), '[]'),
        'measured', coalesce((SELECT jsonb_agg(to_jsonb(m) ORDER BY m.mode)
                                FROM (SELECT r.refresh_mode AS mode, count(*) AS refreshes, round(avg(r.rows_in))::bigint AS rows_in,
                                             round(avg(r.rows_out))::bigint AS rows_out,
                                             round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM r.finished_at - r.started_at))::numeric, 1) AS ms
                                        FROM (SELECT h.* FROM pgtrickle.pgt_refresh_history AS h
                                               WHERE h.pgt_id = v_table.pgt_id AND h.success AND h.skipped_reason IS NULL
                                               ORDER BY h.started_at DESC LIMIT 100) AS r
                                       GROUP BY r.refresh_mode) AS m), '[]'),
        'notes', coalesce(v_plan -> 'explain' -> 'notes', '[]'));
    IF explain_stream_table.format = 'json' THEN
        RETURN jsonb_pretty(v_doc);
    END IF;
    RETURN concat_ws(E'\n',
        format('Stream table %s', v_table.name),
        format('  refresh mode: %s, effectively %s%s', v_table.refresh_mode, v_table.effective_refresh_mode, ': ' || (v_doc ->> 'reason')),
        CASE WHEN jsonb_typeof(v_doc -> 'key') = 'array'
             THEN format('  written by key (%s)', (SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.place)
                                                     FROM jsonb_array_elements_text(v_doc -> 'key') WITH ORDINALITY AS k(name, place)))
             ELSE '  written by content: its rows have no key' END,
        (SELECT string_agg(repeat('  ', 1 + CASE WHEN t.item ->> 'depth' ~ '^[0-9]{1,2}$' THEN (t.item ->> 'depth')::integer ELSE 0 END)
                           || (t.item ->> 'operator') || coalesce(': ' || nullif(t.item ->> 'detail', ''), '')
                           || coalesce('  [' || nullif(t.item ->> 'rule', '') || ']', '')
                           || coalesce('  costs ' || nullif(t.item ->> 'cost', ''), ''), E'\n' ORDER BY t.place)
           FROM jsonb_array_elements(v_doc -> 'tree') WITH ORDINALITY AS t(item, place)),
        (SELECT string_agg(format('  state table pgtrickle_changes.%I, %s', s.item ->> 'table', coalesce('keyed by (' ||
                                  (SELECT string_agg(k.name, ', ' ORDER BY k.place) FROM jsonb_array_elements_text(nullif(s.item -> 'key', 'null'))
                                     WITH ORDINALITY AS k(name, place)) || ')', 'without a key')),
                           E'\n' ORDER BY s.place)
           FROM jsonb_array_elements(v_doc -> 'stages') WITH ORDINALITY AS s(item, place)),
        (SELECT '  reads ' || string_agg((s.item ->> 'relation') || coalesce(' (about ' || (s.item ->> 'rows') || ' rows)', ''), ', ' ORDER BY s.place)
           FROM jsonb_array_elements(v_doc -> 'sources') WITH ORDINALITY AS s(item, place)),
        (SELECT string_agg(format('  would like an index on %s (%s): %s%s', x.item ->> 'relation',
                                  (SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.place) FROM jsonb_array_elements_text(x.item -> 'columns') WITH ORDINALITY AS k(name, place)),
                                  x.item ->> 'why', coalesce('; without it a look-up reads about ' || (x.item ->> 'rows') || ' rows', '')), E'\n' ORDER BY x.place)
           FROM jsonb_array_elements(v_doc -> 'indexes') WITH ORDINALITY AS x(item, place)),
        (SELECT string_agg(format('  measured, %s of the last refreshes %s: %s ms (median), %s rows read and %s written on average', m.item ->> 'refreshes', m.item ->> 'mode',
                                  m.item ->> 'ms', coalesce(m.item ->> 'rows_in', 'no'), coalesce(m.item ->> 'rows_out', 'no')), E'\n' ORDER BY m.place)
           FROM jsonb_array_elements(v_doc -> 'measured') WITH ORDINALITY AS m(item, place)),
        (SELECT string_agg('  ' || n.note, E'\n' ORDER BY n.place) FROM jsonb_array_elements_text(v_doc -> 'notes') WITH ORDINALITY AS n(note, place)));
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_stream_table(regclass, text) IS
    'How a stream table is kept: its operators with the rule used for each and what that costs, state tables, the indexes it would like, what its last refreshes took, and the refresh mode with its reason; as text or json. For those who may SELECT from it';

CREATE FUNCTION pgtrickle.explain_delta(name regclass) RETURNS TABLE (changed text, step integer, statement text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.stream_tables_info;
    v_plan  jsonb;
BEGIN
    SELECT i.* INTO v_table FROM pgtrickle.stream_tables_info AS i WHERE i.pgt_relid = explain_delta.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', explain_delta.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may look at.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    SELECT p.plan INTO v_plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_table.pgt_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'permission denied for the plan of stream table "%"', explain_delta.name
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'A plan shows the query, which is for those who may SELECT from the stream table.',
                  HINT = 'GRANT SELECT on it.';
    END IF;
    RETURN QUERY
        SELECT CASE WHEN p.key = '*' THEN 'any' ELSE (
                   SELECT string_agg(coalesce(s.source_table, o.source), ', ' ORDER BY o.place)
                     FROM unnest(string_to_array(p.key, ',')) WITH ORDINALITY AS o(source, place)
                     LEFT JOIN pgtrickle.visible_sources AS s ON s.pgt_id = v_table.pgt_id AND s.source_relid::text = o.source) END,
               t.place::integer, t.statement
          FROM jsonb_each(v_plan -> 'programs' -> 'differential') AS p(key, program)
         CROSS JOIN LATERAL jsonb_array_elements_text(p.program) WITH ORDINALITY AS t(statement, place)
         ORDER BY p.key = '*', length(p.key), p.key, t.place;
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_delta(regclass) IS
    'The SQL of a differential refresh: the statements, in order, for each set of sources that may have changed (any: the general case). $1 is the frontier, $2 and $3 the refresh''s own transaction and how far its changes are in. No rows: it is always recomputed. For those who may SELECT from the stream table';

GRANT SELECT ON pgtrickle.pgt_stream_tables, pgtrickle.pgt_plans, pgtrickle.pgt_dependencies, pgtrickle.pgt_refresh_history,
    pgtrickle.visible_stream_tables, pgtrickle.stream_tables_info, pgtrickle.visible_status, pgtrickle.pg_stat_stream_tables,
    pgtrickle.visible_efficiency, pgtrickle.visible_sources, pgtrickle.visible_captures, pgtrickle.visible_triggers, pgtrickle.visible_slot,
    pgtrickle.visible_health, pgtrickle.quick_health
    TO PUBLIC;

REVOKE ALL ON FUNCTION
    pgtrickle.pgt_status(), pgtrickle.health_check(), pgtrickle.refresh_efficiency(), pgtrickle.get_staleness(regclass),
    pgtrickle.get_refresh_history(regclass, integer), pgtrickle.refresh_timeline(integer), pgtrickle.list_sources(regclass),
    pgtrickle.dependency_tree(), pgtrickle.diamond_groups(), pgtrickle.pgt_scc_status(), pgtrickle.check_cdc_health(),
    pgtrickle.trigger_inventory(), pgtrickle.change_buffer_sizes(), pgtrickle.explain_stream_table(regclass, text),
    pgtrickle.explain_delta(regclass), pgtrickle.explain_refresh_mode(regclass),
    pgtrickle_changes.do_change_buffer_sizes(name, jsonb)
    FROM PUBLIC;
GRANT USAGE ON SCHEMA pgtrickle TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    pgtrickle.pgt_status(), pgtrickle.health_check(), pgtrickle.refresh_efficiency(), pgtrickle.get_staleness(regclass),
    pgtrickle.get_refresh_history(regclass, integer), pgtrickle.refresh_timeline(integer), pgtrickle.list_sources(regclass),
    pgtrickle.dependency_tree(), pgtrickle.diamond_groups(), pgtrickle.pgt_scc_status(), pgtrickle.check_cdc_health(),
    pgtrickle.trigger_inventory(), pgtrickle.change_buffer_sizes(), pgtrickle.explain_stream_table(regclass, text),
    pgtrickle.explain_delta(regclass), pgtrickle.explain_refresh_mode(regclass), pgtrickle.read_gate(text, jsonb, name, jsonb, bytea)
    TO pg_monitor;
