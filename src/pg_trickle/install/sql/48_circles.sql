-- Circles: stream tables that read each other, directly or through others (docs/decisions/0014).  Their contents are the least
-- fixpoint of their queries.  A circle is refreshed as a whole, in one transaction (48_circles_refresh.sql).

CREATE FUNCTION pgtrickle_changes.upstream(p_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE up(pgt_id) AS (
            SELECT p_id
            UNION
            SELECT r.source_id FROM up JOIN pgtrickle_changes.reads AS r ON r.pgt_id = up.pgt_id
        )
        SELECT coalesce(array_agg(DISTINCT r.source_id), '{}') FROM up JOIN pgtrickle_changes.reads AS r ON r.pgt_id = up.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.upstream IS 'The stream tables that one reads, directly or through others; itself only if it is in a circle';

CREATE FUNCTION pgtrickle_changes.circle_of(p_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_upstream bigint[] := pgtrickle_changes.upstream(p_id);
BEGIN
    IF p_id <> ALL (v_upstream) THEN
        RETURN '{}'::bigint[];
    END IF;
    RETURN ARRAY(SELECT u.id FROM unnest(v_upstream) AS u(id) WHERE p_id = ANY (pgtrickle_changes.upstream(u.id)) ORDER BY u.id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.circle_of IS 'The members of the circle that a stream table is in, by what reads what; {} if it is in none';

CREATE FUNCTION pgtrickle_changes.mark_circles(p_ids bigint[], p_planned bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What these stream tables read has changed, or what read them: note which circles there are now.  Who is in one, or was, has its
-- request looked at again before its next refresh, unless it has just been planned: only the compiler knows whether a query may
-- read what is now a member.
DECLARE
    v_ids     bigint[] := ARRAY(SELECT st.pgt_id FROM pgtrickle.pgt_stream_tables AS st
                                 WHERE st.pgt_id = ANY (p_ids) OR st.scc_id = ANY (p_ids)
                                    OR st.scc_id IN (SELECT o.scc_id FROM pgtrickle.pgt_stream_tables AS o WHERE o.pgt_id = ANY (p_ids))
                                 ORDER BY st.pgt_id);
    v_id      bigint;
    v_members bigint[];
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        v_members := pgtrickle_changes.circle_of(v_id);
        UPDATE pgtrickle.pgt_stream_tables AS st
           SET scc_id = v_members[1], fingerprint = CASE WHEN st.pgt_id = p_planned THEN st.fingerprint END
         WHERE (st.pgt_id = v_id OR st.pgt_id = ANY (v_members))
           AND (st.scc_id IS DISTINCT FROM v_members[1]
                OR p_planned = ANY (v_members) AND st.pgt_id <> p_planned AND st.fingerprint IS NOT NULL);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.mark_circles IS 'Notes which circles there are, after what some stream tables read has changed';

CREATE FUNCTION pgtrickle_changes.members(p_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_found record;
BEGIN
    SELECT st.scc_id INTO v_found FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    RETURN CASE WHEN v_found.scc_id IS NOT NULL
                THEN ARRAY(SELECT m.pgt_id FROM pgtrickle.pgt_stream_tables AS m WHERE coalesce(m.scc_id, m.pgt_id) = v_found.scc_id ORDER BY m.pgt_id)
                WHEN FOUND THEN ARRAY[p_id] ELSE '{}'::bigint[] END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.members IS 'What is refreshed together with a stream table: its circle, or itself alone';

CREATE FUNCTION pgtrickle_changes.circle_closed_by(p_id bigint, p_view oid) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The relations in a stream table's definition that come to read the stream table itself.
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.reads AS r WHERE r.source_id = p_id)
       AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st JOIN pgtrickle_changes.relation_closure(p_view) AS c ON c.relid = st.pgt_relid
                        WHERE st.pgt_id = p_id) THEN
        -- Mostly it reads none.
        RETURN '{}'::oid[];
    END IF;
    RETURN ARRAY(SELECT c.relid FROM pgtrickle_changes.relation_closure(p_view) AS c
                   JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_relid = c.relid
                  WHERE st.pgt_id = p_id OR p_id = ANY (pgtrickle_changes.upstream(st.pgt_id)) ORDER BY c.relid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.circle_closed_by IS 'The relations in a definition that come to read the stream table itself';

CREATE FUNCTION pgtrickle_changes.wait_for_definitions(p_view oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Two that are given new queries at once might close a circle that neither sees: one waits until the other is committed, and then sees it.
-- In one snapshot it can't: there a serialization failure says so.
DECLARE
    v_read bigint[] := pgtrickle_changes.stream_tables_read(p_view);
BEGIN
    IF cardinality(v_read) = 0 THEN
        RETURN;
    END IF;
    PERFORM pgtrickle_changes.one_at_a_time();
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM FROM pgtrickle.pgt_stream_tables AS st
          WHERE st.pgt_id = ANY (v_read) OR st.pgt_id IN (SELECT unnest(pgtrickle_changes.upstream(r.id)) FROM unnest(v_read) AS r(id))
            FOR SHARE;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wait_for_definitions IS 'Waits for others who are given new queries, if a definition reads stream tables';

CREATE FUNCTION pgtrickle_changes.refuse_circle(p_table pgtrickle.pgt_stream_tables, p_view oid) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'stream table "%" would depend on itself', p_table.pgt_name
        USING ERRCODE = 'invalid_object_definition',
              DETAIL = format('The cycle: %s.', pgtrickle_changes.cycle_through(p_table.pgt_relid, p_view)),
              HINT = 'pg_trickle.allow_circular is off; a superuser may turn it on, with ALTER SYSTEM.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_circle IS 'Raises that a definition comes back to its stream table, and how';

CREATE FUNCTION pgtrickle_changes.check_circle(p_table pgtrickle.pgt_stream_tables, p_view oid, p_plan jsonb, p_request jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Raise unless the definition closes no circle, or one that is allowed and that the compiler says it may be part of.  A circle that
-- is there already goes on when they are no longer allowed, but takes in nobody.
DECLARE
    v_read oid[] := ARRAY(SELECT (r ->> 'oid')::oid FROM jsonb_array_elements(p_request -> 'relations') AS r WHERE r ? 'circular');
BEGIN
    IF cardinality(v_read) = 0 THEN
        RETURN;
    END IF;
    IF NOT pgtrickle_changes.setting('allow_circular')::boolean AND NOT coalesce(v_read <@ ARRAY(
           SELECT m.pgt_relid::oid FROM pgtrickle.pgt_stream_tables AS m WHERE m.scc_id = p_table.scc_id), false) THEN
        PERFORM pgtrickle_changes.refuse_circle(p_table, p_view);
    END IF;
    IF p_table.refresh_mode = 'IMMEDIATE' OR jsonb_typeof(p_plan #> '{circular,restart}') IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION '% can''t be part of a cycle of stream tables',
                CASE WHEN p_table.refresh_mode = 'IMMEDIATE' THEN 'refresh mode IMMEDIATE' ELSE coalesce(p_plan #>> '{refusal,construct}', 'the query') END
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = format('%sThe cycle: %s.', CASE WHEN p_table.refresh_mode <> 'IMMEDIATE' THEN coalesce(p_plan #>> '{refusal,reason}', '') || E'\n' ELSE '' END,
                                  pgtrickle_changes.cycle_through(p_table.pgt_relid, p_view)),
                  HINT = CASE WHEN p_table.refresh_mode = 'IMMEDIATE' THEN 'A cycle takes several rounds to settle: use AUTO.'
                              ELSE coalesce(p_plan #>> '{refusal,hint}', 'Rows that come may not take others away, nor come twice.') END;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_circle IS 'Raises if a definition closes a circle that isn''t allowed, or that it can''t be part of';
