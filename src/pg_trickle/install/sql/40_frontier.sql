-- Which changes are new: a frontier is the snapshot of the last refresh (docs/internals.md section 2).

CREATE FUNCTION pgtrickle_changes.not_read_by_itself(p_source oid, p_xid text, p_seqs text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('(c.xid IS DISTINCT FROM %s OR c.seq > coalesce((%s ->> %L)::pg_catalog.int8, 0))', p_xid, p_seqs, p_source);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.not_read_by_itself IS 'The condition, as SQL, that a change row wasn''t written by the transaction of the frontier before that was taken';

CREATE FUNCTION pgtrickle_changes.new_rows(p_source oid, p_frontier text, p_xid text, p_seqs text, p_running text DEFAULT NULL::text, p_xmax text DEFAULT NULL)
    RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The condition on a change row c that makes it new to a frontier (docs/internals.md section 2); the arguments are SQL.  Who has taken out
-- of the frontier who was running, and its upper bound, names these.  An index finds such rows, whoever has been writing for hours.
BEGIN
    RETURN format('(c.xid >= %s OR c.xid = ANY (%s)) AND %s', coalesce(p_xmax, format('pg_catalog.pg_snapshot_xmax(%s)', p_frontier)),
                  coalesce(p_running, format('ARRAY(SELECT pg_catalog.pg_snapshot_xip(%s) UNION ALL SELECT %s)', p_frontier, p_xid)),
                  pgtrickle_changes.not_read_by_itself(p_source, p_xid, p_seqs));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.new_rows IS 'The condition, as SQL, that makes a change row new to a frontier';

CREATE FUNCTION pgtrickle_changes.any_new_row(p_buffer name, p_source oid, p_frontier text DEFAULT '$1'::text, p_xid text DEFAULT '$2'::text, p_seqs text DEFAULT '$3'::text)
    RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether any row of a buffer is new to a frontier, as SQL.  Each half of the condition by itself, and in the order of the index, so that the
-- planner doesn't look for one among all rows.
BEGIN
    RETURN format('((SELECT true FROM pgtrickle_changes.%1$I AS c WHERE c.xid >= pg_catalog.pg_snapshot_xmax(%2$s) AND %4$s ORDER BY c.xid LIMIT 1) IS NOT NULL'
                  ' OR (SELECT true FROM pgtrickle_changes.%1$I AS c WHERE c.xid = ANY (ARRAY(SELECT pg_catalog.pg_snapshot_xip(%2$s) UNION ALL SELECT %3$s))'
                  ' AND %4$s ORDER BY c.xid LIMIT 1) IS NOT NULL)', p_buffer, p_frontier, p_xid, pgtrickle_changes.not_read_by_itself(p_source, p_xid, p_seqs));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.any_new_row IS 'What tells, as SQL, whether a buffer has a row that is new to a frontier';

CREATE FUNCTION pgtrickle_changes.high_water(p_id bigint) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The last sequence number of the buffer of each source, by source.
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(k.source_relid, coalesce(pg_sequence_last_value(k.sequence_relid), 0)), '{}')
              FROM pgtrickle.pgt_captures AS k
             WHERE k.source_relid = ANY (ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = p_id AND s.captured))
               AND k.owner_oid = (SELECT st.owner_oid FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id)
               AND (SELECT true FROM pg_class AS c WHERE c.oid = k.sequence_relid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.high_water IS 'The last sequence number of the buffer of each source';

CREATE FUNCTION pgtrickle_changes.counting_query(p_id bigint, OUT owner oid, OUT query text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What pending() asks the buffers, and as whom; NULL where there is none to ask.  It is the body of a function, in which __pgt_running and __pgt_xmax are who was
-- running in the frontier, with who had taken it, and its upper bound.  It reads each change row, so it does little with one: w is 1, 0 or -1, whose bits tell whether any is 0, or
-- below it; and what this transaction or the frontier's has written an index finds.
BEGIN
    SELECT st.owner_oid, 'SELECT pg_catalog.jsonb_object_agg(s.source, pg_catalog.jsonb_build_array(s.n, s.truncated, s.own, s.later, s.gone)) FROM ('
               || string_agg(format('SELECT %1$L AS source, pg_catalog.count(*) AS n, pg_catalog.bit_and(c.w) = 0 AS truncated,'
                                    ' CASE WHEN pg_catalog.count(*) > 0 THEN EXISTS (SELECT FROM pgtrickle_changes.%2$I AS c'
                                    ' WHERE c.xid = pg_catalog.pg_current_xact_id_if_assigned() AND %3$s) END AS own,'
                                    ' CASE WHEN pg_catalog.count(*) > 0 THEN EXISTS (SELECT FROM pgtrickle_changes.%2$I AS c'
                                    ' WHERE c.xid = $2 AND %3$s) END AS later, %4$s AS gone FROM pgtrickle_changes.%2$I AS c WHERE %3$s', s.source_relid, k.buffer, n.is_new,
                                    CASE WHEN st.scc_id IS NULL THEN 'NULL' ELSE 'pg_catalog.bit_or(c.w) < 0' END),
                             ' UNION ALL ' ORDER BY s.source_relid)
               || ') AS s WHERE s.n > 0'
      INTO owner, query
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pgtrickle.pgt_dependencies AS s ON s.pgt_id = st.pgt_id AND s.captured
      JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = st.owner_oid
     CROSS JOIN LATERAL pgtrickle_changes.new_rows(s.source_relid, '$1', '$2', '$3', '__pgt_running', '__pgt_xmax') AS n(is_new)
     WHERE st.pgt_id = p_id
     GROUP BY st.owner_oid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.counting_query IS 'What counts the change rows of each source that are new to a frontier, as SQL, and who has to ask it';

CREATE FUNCTION pgtrickle_changes.pending(p_id bigint, p_frontier pg_snapshot, p_xid xid8, p_seqs jsonb, p_stands boolean DEFAULT false) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The change rows that are new to a frontier: {source: [rows, truncated, some of them by this transaction, some of them by
-- the transaction of the frontier, some of them rows that went (for a stream table in a circle; else null)]}.  p_stands tells that
-- the owner's function that counts them is known to be right.
DECLARE
    v_owner oid;
    v_query text;
BEGIN
    IF p_stands THEN
        RETURN pgtrickle_changes.call_standing(pgtrickle_changes.counting_name(p_id), true, p_frontier, p_xid, p_seqs);
    END IF;
    SELECT q.owner, q.query INTO v_owner, v_query FROM pgtrickle_changes.counting_query(p_id) AS q;
    IF v_query IS NULL THEN
        RETURN NULL;
    END IF;
    IF pgtrickle_changes.is_counting(p_id, v_owner, v_query) THEN
        RETURN pgtrickle_changes.pending(p_id, p_frontier, p_xid, p_seqs, true);
    END IF;
    v_query := format('SELECT (%s) FROM (SELECT ARRAY(SELECT pg_catalog.pg_snapshot_xip($1) UNION ALL SELECT $2), pg_catalog.pg_snapshot_xmax($1)) AS f(__pgt_running, __pgt_xmax)', v_query);
    RETURN nullif(pgtrickle_changes.run_as(v_owner, v_query, p_frontier, p_xid, p_seqs), 'null');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.pending IS 'How many change rows of each source are new to a frontier, and what kind of rows';

CREATE FUNCTION pgtrickle_changes.is_watched(p_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT coalesce(bool_and(s.captured), false) FROM pgtrickle.pgt_dependencies AS s WHERE s.pgt_id = p_id)
           AND NOT (SELECT st.timed FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_watched IS 'Whether a change of any source is noticed, and nothing else changes the result';

CREATE FUNCTION pgtrickle_changes.is_quiet(p_table pgtrickle.pgt_stream_tables, p_snapshot pg_snapshot, p_seqs jsonb) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Given that nothing is pending in the snapshot: will anything turn up that has its number already?  The buffers are where they were
-- when the last refresh read them.  Whoever had drawn a number from them by then has a lower transaction id than this refresh
-- (lock_stream_table tells if that was assigned since), and all with a lower one have ended.  A snapshot lists those that run below
-- its xmax; at and above it everybody runs who has begun.
DECLARE
    v_own xid8 := pg_current_xact_id();
BEGIN
    RETURN p_table.quiet_at = 'null' AND p_table.frontier_seqs = p_seqs AND pg_snapshot_xmax(p_snapshot) >= v_own
           AND NOT EXISTS (SELECT FROM pg_snapshot_xip(p_snapshot) AS running(xid) WHERE running.xid < v_own);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_quiet IS 'Whether no change row can turn up as long as the buffers are no further; to be asked when nothing is pending';

-- Who had judged rows by policies before what these read was changed, and commits after the refresh that followed the change, judged them
-- by what doesn't hold any more; and of rows that were hidden then there is no trace.  So a recomputation notes who is writing the sources,
-- and when one of these has committed, the next refresh recomputes once more.

CREATE FUNCTION pgtrickle_changes.writers_under_way(p_id bigint, p_snapshot pg_snapshot) RETURNS xid8[]
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Of the transactions that were running in a snapshot: those that have written a captured source, to judge by their locks, which they hold to
-- their end, and those that have ended since.  Who hasn't written one yet will see what this snapshot sees.
DECLARE
    v_relations oid[];
    v_holding   xid[];
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id AND d.decides_rows) THEN
        RETURN '{}'::xid8[];
    END IF;
    v_relations := ARRAY(SELECT b.relid FROM pgtrickle.pgt_dependencies AS d CROSS JOIN LATERAL pgtrickle_changes.relations_below(d.source_relid) AS b
                          WHERE d.pgt_id = p_id AND d.captured);
    -- The locks first: who has ended before they are read has a status.
    v_holding := ARRAY(
        WITH l AS MATERIALIZED (SELECT k.* FROM pg_locks AS k WHERE k.granted AND k.locktype IN ('relation', 'transactionid'))
        SELECT t.transactionid FROM l AS r JOIN l AS t ON t.virtualtransaction = r.virtualtransaction AND t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock'
         WHERE r.locktype = 'relation' AND r.relation = ANY (v_relations) AND r.mode NOT IN ('AccessShareLock', 'RowShareLock')
           AND r.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()));
    RETURN ARRAY(SELECT x.id FROM pg_snapshot_xip(p_snapshot) AS x(id)
                  WHERE x.id <> pg_current_xact_id() AND (x.id::xid = ANY (v_holding) OR pg_xact_status(x.id) IS DISTINCT FROM 'in progress'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.writers_under_way IS 'The transactions that may have judged rows of a source by policies, and that a snapshot doesn''t see';

CREATE FUNCTION pgtrickle_changes.any_committed(p_transactions xid8[], p_snapshot pg_snapshot) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM unnest(p_transactions) AS x(id)
                    WHERE pg_visible_in_snapshot(x.id, p_snapshot) AND pg_xact_status(x.id) IS DISTINCT FROM 'aborted');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.any_committed IS 'Whether any of some transactions has committed and can be seen in a snapshot';
