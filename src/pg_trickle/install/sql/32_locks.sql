-- Waiting for tables: for a while, and then saying who is in the way; and taking triggers away from tables that are being read.
--
-- CREATE TRIGGER locks out writers, DROP TRIGGER readers as well: a transaction that has read a source, a dump of the whole database, would
-- keep a stream table from being suspended, and whoever comes next would queue behind that.  So a trigger on a table that somebody reads is
-- replaced by one that does nothing, and dropped by the worker's housekeeping.

CREATE FUNCTION pgtrickle_changes.writers_of(p_relation oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A prepared transaction has no process.
BEGIN
    RETURN (
        SELECT string_agg(u.who, ', ' ORDER BY u.who)
          FROM (SELECT DISTINCT CASE WHEN l.pid IS NOT NULL
                       THEN format('session %s of role "%s"', l.pid, (SELECT a.usename FROM pg_stat_activity AS a WHERE a.pid = l.pid))
                       ELSE (SELECT format('prepared transaction %L of role "%s"', p.gid, p.owner)
                               FROM pg_locks AS x JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
                              WHERE x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction LIMIT 1) END AS who
                  FROM pg_locks AS l
                 WHERE l.locktype = 'relation' AND l.relation = p_relation AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
                   AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')) AS u);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.writers_of IS 'The sessions and prepared transactions that write a table, or lock it against writers; NULL: nobody';

CREATE FUNCTION pgtrickle_changes.lock_out_writers(p_relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- As long as the caller's lock_timeout says, or half a minute: who comes next queues behind whoever waits for such a lock.
DECLARE
    v_former text := current_setting('lock_timeout');
    v_most   text := coalesce(nullif(v_former, '0'), '30s');
BEGIN
    PERFORM set_config('lock_timeout', v_most, true);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_relation);
    PERFORM set_config('lock_timeout', v_former, true);
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION '"%" could not be locked within %', p_relation, v_most
            USING ERRCODE = 'lock_not_available',
                  DETAIL = coalesce(format('It is in use by %s.', pgtrickle_changes.writers_of(p_relation)), 'Whoever had it has ended meanwhile.'),
                  HINT = 'Try again when they have ended; COMMIT PREPARED or ROLLBACK PREPARED ends a prepared transaction. SET lock_timeout to wait longer.';
    WHEN deadlock_detected THEN
        RAISE EXCEPTION 'deadlock detected'
            USING ERRCODE = 'deadlock_detected',
                  DETAIL = format('"%s" had to be locked against all who write it; somebody who has written it waits for this transaction.', p_relation),
                  HINT = 'Try again; create and change stream tables in transactions that haven''t written their sources.';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_out_writers IS 'Waits for those who write a table and keeps others out, or says who is in the way';

CREATE FUNCTION pgtrickle_changes.retired() RETURNS trigger
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.retired IS 'What a trigger calls that is to be dropped once nobody reads its table; its WHEN keeps it from being called at all';

CREATE FUNCTION pgtrickle_changes.take_trigger_away(p_relation regclass, p_trigger name) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From a table that the caller has locked against writers.
DECLARE
    v_by_row boolean;
BEGIN
    SELECT t.tgtype & 1 = 1 INTO v_by_row FROM pg_trigger AS t WHERE t.tgrelid = p_relation AND t.tgname = p_trigger;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    BEGIN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', p_relation);
        EXECUTE format('DROP TRIGGER %I ON %s', p_trigger, p_relation);
    EXCEPTION WHEN lock_not_available THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER DELETE ON %s FOR EACH %s WHEN (false) EXECUTE FUNCTION pgtrickle_changes.retired()',
                       p_trigger, p_relation, CASE WHEN v_by_row THEN 'ROW' ELSE 'STATEMENT' END);
    END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.take_trigger_away IS 'Drops a trigger; if the table is being read, it does nothing until it can be dropped';

CREATE FUNCTION pgtrickle_changes.drop_retired() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger record;
BEGIN
    FOR v_trigger IN
        SELECT t.tgrelid::regclass AS relation, t.tgname AS name FROM pg_trigger AS t
         WHERE t.tgfoid = 'pgtrickle_changes.retired()'::regprocedure AND t.tgparentid = 0 ORDER BY t.tgrelid, t.tgname
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_trigger.relation);
            EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.name, v_trigger.relation);
        EXCEPTION WHEN lock_not_available OR undefined_table OR undefined_object THEN
            -- The next time, then; or it has gone with its table.
            CONTINUE;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_retired IS 'Drops the triggers that do nothing any more, where nobody reads their tables';

CREATE FUNCTION pgtrickle_changes.lockable(p_relations oid[]) RETURNS TABLE (relation regclass)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Temporary children are their session's own.
BEGIN
    RETURN QUERY
        SELECT c.oid::regclass FROM pg_class AS c
         WHERE c.oid IN (SELECT b.relid FROM unnest(p_relations) AS u(oid) CROSS JOIN LATERAL pgtrickle_changes.relations_below(u.oid) AS b)
           AND c.relkind IN ('r', 'p') AND (c.relpersistence <> 't' OR c.oid = ANY (p_relations))
         ORDER BY c.oid;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lockable IS 'The tables among some relations and below them, in the one order in which everybody locks them';

CREATE FUNCTION pgtrickle_changes.lock_together(p_relations oid[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- It doesn't wait for one table while it has another, which a transaction that writes several of them may
-- have begun with: it waits for the one that was in use, and begins anew.  Where they are never free at once it has to, in the one order.
-- What is below a table is a table of its own: PostgreSQL locks it with that, but waits for it while it has that, and who has written a partition may go on with the whole.
-- So that comes last, for what was attached meanwhile; then nothing can be.
DECLARE
    v_waiting boolean := false;
    v_busy    regclass;
    v_table   regclass;
BEGIN
    FOR v_round IN 1..20 LOOP
        BEGIN
            IF v_busy IS NOT NULL THEN
                v_waiting := true;
                PERFORM pgtrickle_changes.lock_out_writers(v_busy);
                v_waiting := false;
            END IF;
            FOR v_table IN SELECT b.relation FROM pgtrickle_changes.lockable(p_relations) AS b LOOP
                EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE NOWAIT', v_table);
            END LOOP;
            FOR v_table IN SELECT b.relation FROM pgtrickle_changes.lockable(p_relations) AS b WHERE b.relation = ANY (p_relations) LOOP
                EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE NOWAIT', v_table);
            END LOOP;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            -- While it waits, that is its caller's lock_timeout.
            IF v_waiting THEN
                RAISE;
            END IF;
            v_busy := v_table;
        END;
    END LOOP;
    FOR v_table IN SELECT b.relation FROM pgtrickle_changes.lockable(p_relations) AS b LOOP
        PERFORM pgtrickle_changes.lock_out_writers(v_table);
    END LOOP;
    FOR v_table IN SELECT b.relation FROM pgtrickle_changes.lockable(p_relations) AS b WHERE b.relation = ANY (p_relations) LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_table);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_together IS 'Locks tables against writers, if it can without waiting for one while it has another';

CREATE FUNCTION pgtrickle_changes.lock_captured(p_sources oid[], p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whose stream tables are to start afresh (p_owner; NULL: none are) is locked ahead: who refreshes one of them has its row, and may be about to
-- lock the same sources.  The other way round, those who write these would wait for both.
BEGIN
    PERFORM FROM pgtrickle.pgt_stream_tables AS st
      WHERE st.owner_oid = p_owner AND st.pgt_id IN (SELECT d.pgt_id FROM pgtrickle.pgt_dependencies AS d WHERE d.source_relid = ANY (p_sources) AND d.captured)
      ORDER BY st.pgt_id FOR NO KEY UPDATE;
    PERFORM pgtrickle_changes.lock_together(p_sources);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_captured IS 'Locks sources that are to be captured anew against writers, after those of an owner''s stream tables that read them';
