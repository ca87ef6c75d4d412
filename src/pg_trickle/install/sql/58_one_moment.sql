-- Who begins to read a stream table, and who refreshes it, go in one order: nobody is to see the one at a moment, and the other at another.

CREATE FUNCTION pgtrickle_changes.stream_tables_read(p_view oid) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT st.pgt_id FROM pgtrickle_changes.relation_closure(p_view) AS c
                   JOIN pgtrickle.pgt_stream_tables AS st ON st.pgt_relid = c.relid ORDER BY st.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.stream_tables_read IS 'The stream tables that a definition reads';

CREATE FUNCTION pgtrickle_changes.hold_still(p_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Wait until none of these is being refreshed, and keep it so to the end of the transaction.  A refresh locks its tables in the order in
-- which they read each other: who waited for one with another in hand could be waited for.  So all are taken at once, or none.
DECLARE
    v_awaited bigint := p_ids[1];
    v_id      bigint;
BEGIN
    WHILE v_awaited IS NOT NULL LOOP
        BEGIN
            PERFORM FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_awaited FOR UPDATE;
            FOR v_id IN SELECT p.pgt_id FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = ANY (p_ids) ORDER BY p.pgt_id LOOP
                PERFORM FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = v_id FOR UPDATE SKIP LOCKED;
                IF NOT FOUND THEN
                    RAISE SQLSTATE 'TK005';
                END IF;
            END LOOP;
            v_awaited := NULL;
        EXCEPTION WHEN SQLSTATE 'TK005' THEN
            v_awaited := v_id;
        END;
    END LOOP;
    -- A refresh whose snapshot is older than what is about to be committed fails on a row that was changed since (40001).
    UPDATE pgtrickle.pgt_stream_tables AS st SET status = st.status WHERE st.pgt_id = ANY (p_ids);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hold_still IS 'Keeps some stream tables from being refreshed until the transaction ends, and afterwards from snapshots before that';

CREATE FUNCTION pgtrickle_changes.lock_group(p_ids bigint[]) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- All that lock_stream_table will take.  Nothing is waited for: whoever holds one has mostly changed it by the time he lets go of it, and then
-- it can't be locked in this snapshot.
DECLARE
    v_readers bigint;
    v_plans   bigint;
    v_tables  bigint;
BEGIN
    WITH l AS (SELECT FROM pgtrickle_changes.wal_readers AS r
                WHERE EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_ids) AND st.owner_oid = r.owner_oid
                                AND pgtrickle_changes.reads_wal(st.pgt_id, st.owner_oid)) FOR UPDATE OF r SKIP LOCKED)
    SELECT count(*) INTO v_readers FROM l;
    WITH l AS (SELECT FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = ANY (p_ids) FOR UPDATE SKIP LOCKED)
    SELECT count(*) INTO v_plans FROM l;
    WITH l AS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_ids) FOR NO KEY UPDATE SKIP LOCKED)
    SELECT count(*) INTO v_tables FROM l;
    RETURN v_plans = v_tables
       AND v_tables = (SELECT count(*) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_ids))
       AND v_readers = (SELECT count(*) FROM pgtrickle_changes.wal_readers AS r
                         WHERE EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = ANY (p_ids) AND st.owner_oid = r.owner_oid
                                         AND pgtrickle_changes.reads_wal(st.pgt_id, st.owner_oid)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_group IS 'Locks stream tables for their one refresher; whether all could be locked';

CREATE FUNCTION pgtrickle_changes.standing_view(p_owner oid, p_schema text, p_args jsonb, p_ids bigint[]) RETURNS oid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A view locks what it reads, and who drops a stream table, or refreshes it, has its row before the table: so the view is made to find out
-- what to hold, and once more when that is held.
DECLARE
    v_view    oid;
    v_read    bigint[];
    v_held    bigint[] := '{}'::bigint[];
    v_is_held boolean := false;
BEGIN
    WHILE NOT v_is_held LOOP
        BEGIN
            v_view := pgtrickle_changes.make_definition_view(p_owner, p_schema, p_args);
            PERFORM pgtrickle_changes.check_readable(p_owner, v_view);
            v_read := pgtrickle_changes.stream_tables_read(v_view) || p_ids;
            v_is_held := v_read <@ v_held;
            IF NOT v_is_held THEN
                RAISE SQLSTATE 'TK005';
            END IF;
        EXCEPTION WHEN SQLSTATE 'TK005' THEN
            PERFORM pgtrickle_changes.hold_still(v_read);
            v_held := v_held || v_read;
        END;
    END LOOP;
    RETURN v_view;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.standing_view IS 'A query as a view of its owner''s, with the stream tables that it reads, and some others, held still';
