-- Rows that logical replication applies to a source of an IMMEDIATE stream table (decision 0010).
--
-- A worker that applies changes fires row triggers, but not those of statements (PostgreSQL 15 to 18; TRUNCATE and the first copy of a table fire them):
-- nothing is maintained.  Tables with a subscription are refused, but one may come later, and housekeeping looks every few seconds.  So a row trigger,
-- which fires only where the session plays a replica, flags the stream table in the transaction that writes the row.

CREATE FUNCTION pgtrickle_changes.immediate_applied(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A client that plays a replica writes by statements, which are followed.  Who has the row is refreshing or altering the stream table: he has locked the sources, or
-- will, and waits for this transaction; waiting for him would be a deadlock.
BEGIN
    RETURN format($q$
    IF EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a WHERE a.backend_type OPERATOR(pg_catalog.<>) 'client backend') THEN
        UPDATE pgtrickle.pgt_stream_tables AS st
           SET needs_reinit = true, reinit_reason = 'rows of a source were written by logical replication, which fires no statement triggers'
         WHERE st.pgt_id OPERATOR(pg_catalog.=) (SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l
                                                  WHERE l.pgt_id OPERATOR(pg_catalog.=) %s AND NOT l.needs_reinit FOR NO KEY UPDATE SKIP LOCKED);
    END IF;$q$, p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_applied IS 'What flags a stream table when rows are written that no statement of ours saw, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.make_applied_triggers(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- AFTER, and without transition tables: PostgreSQL copies it to partitions, and neither COPY nor an update is done otherwise for its sake.
DECLARE
    v_id      bigint := p_table.pgt_id;
    v_name    text := format('maintain_%s_applied', p_table.pgt_id);
    v_trigger name := pgtrickle_changes.immediate_trigger(p_table.pgt_id, 'applied', true);
    v_source  oid;
BEGIN
    PERFORM pgtrickle_changes.make_engine_trigger_function(p_table, v_name, pgtrickle_changes.immediate_applied(v_id));
    FOREACH v_source IN ARRAY pgtrickle_changes.immediate_sources(v_id) LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION pgtrickle_changes.%I()',
                       v_trigger, v_source::regclass, v_name);
        EXECUTE format('ALTER TABLE %s ENABLE REPLICA TRIGGER %I', v_source::regclass, v_trigger);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_applied_triggers IS 'Makes the row triggers that notice what logical replication writes';
