-- Capture from the WAL: the slot, the publication, and what a source has to be like (docs/decisions/0015).
--
-- One replication slot and one publication serve a database.  A superuser makes both, ahead of everything: a slot can't be made
-- in a transaction that has written.  Which transactions have been decoded for an owner is told by a snapshot, as a frontier is:
-- those it sees.  So what is decoded twice is taken once, whatever became of the slot in between.

CREATE TABLE pgtrickle_changes.wal_slot (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    advance_to pg_lsn  NOT NULL,
    noted_at   pg_lsn  NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.wal_slot IS
    'The row is there while capture from the WAL is enabled. advance_to: all before it is in the buffers, durably; a slot that is beyond it was moved by somebody else. noted_at: when the running transactions were last noted, for reading to begin there';

CREATE TABLE pgtrickle_changes.wal_readers (
    owner_oid oid         PRIMARY KEY,
    decoded   pg_snapshot NOT NULL,
    decoder   xid8        NOT NULL,
    safe_lsn  pg_lsn      NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.wal_readers IS
    'Per owner the transactions whose changes are in his buffers: those that the snapshot sees, but for the one that took it. All that commits before safe_lsn is among them';

CREATE FUNCTION pgtrickle_changes.wal_slot_name() RETURNS name
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- By the database's oid: a clone of the database has no slot, and notices.
    SELECT format('pg_trickle_%s', d.oid)::name FROM pg_database AS d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_slot_name IS 'What this database''s replication slot is called';

CREATE FUNCTION pgtrickle_changes.wal_trouble() RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The slot's position is of now, what is expected of it as of the snapshot: where the two disagree, the row is looked at as of now
-- (in REPEATABLE READ that is a serialization failure if it has changed).
DECLARE
    v_slot       name := pgtrickle_changes.wal_slot_name();
    v_found      record;
    v_advance_to pg_lsn := (SELECT w.advance_to FROM pgtrickle_changes.wal_slot AS w);
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RETURN format('wal_level is "%s", not "logical"', current_setting('wal_level'));
    END IF;
    IF v_advance_to IS NULL THEN
        RETURN 'it has not been enabled in this database';
    END IF;
    SELECT s.wal_status, s.confirmed_flush_lsn INTO v_found
      FROM pg_replication_slots AS s WHERE s.slot_name = v_slot AND s.plugin = 'pgoutput' AND s.database = current_database();
    IF NOT FOUND THEN
        RETURN format('replication slot "%s" was dropped', v_slot);
    ELSIF v_found.wal_status = 'lost' THEN
        RETURN format('replication slot "%s" lost WAL that was still to be read', v_slot);
    ELSIF NOT EXISTS (SELECT FROM pg_publication AS p WHERE p.pubname = 'pg_trickle') THEN
        RETURN 'publication "pg_trickle" was dropped';
    END IF;
    IF v_found.confirmed_flush_lsn > v_advance_to THEN
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            PERFORM FROM pgtrickle_changes.wal_slot AS w FOR SHARE;
        END IF;
        IF v_found.confirmed_flush_lsn > (SELECT w.advance_to FROM pgtrickle_changes.wal_slot AS w) THEN
            RETURN format('somebody else has read from replication slot "%s"', v_slot);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_trouble IS 'Why nothing can be captured from the WAL in this database; NULL if it can';

CREATE FUNCTION pgtrickle_changes.wal_make_publication() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'capture from the WAL needs wal_level "logical"'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('It is "%s".', current_setting('wal_level')),
                  HINT = 'ALTER SYSTEM SET wal_level = logical; then restart the server.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_publication AS p WHERE p.pubname = 'pg_trickle') THEN
        CREATE PUBLICATION pg_trickle WITH (publish = 'insert, update, delete, truncate');
        COMMENT ON PUBLICATION pg_trickle IS 'pg_trickle: the tables whose changes are captured from the WAL';
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_make_publication IS 'Makes the publication';

CREATE FUNCTION pgtrickle_changes.wal_make_slot() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The slot comes first: where a transaction has written it can't be made.  Whoever was captured by way of the former one has to
-- start afresh.
DECLARE
    v_slot name := pgtrickle_changes.wal_slot_name();
    v_lsn  pg_lsn;
BEGIN
    IF pgtrickle_changes.wal_trouble() IS NULL THEN
        RAISE NOTICE 'capture from the WAL is enabled already';
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_replication_slots AS s WHERE s.slot_name = v_slot) THEN
        PERFORM pg_drop_replication_slot(v_slot);
    END IF;
    SELECT s.lsn INTO v_lsn FROM pg_create_logical_replication_slot(v_slot, 'pgoutput') AS s;
    INSERT INTO pgtrickle_changes.wal_slot AS w (advance_to, noted_at) VALUES (v_lsn, v_lsn)
        ON CONFLICT (one) DO UPDATE SET advance_to = excluded.advance_to, noted_at = excluded.noted_at;
    PERFORM pgtrickle_changes.flag_wal_readers('the replication slot was made anew');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_make_slot IS 'Makes the replication slot, unless it is there and in order';

CREATE PROCEDURE pgtrickle.enable_wal()
    LANGUAGE plpgsql
AS $$
-- Who calls is asked here, for nobody else reaches the functions; without a path of its own, which would keep it from committing.
-- The publication has to be older than whatever is decoded with its help.
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER) THEN
        RAISE EXCEPTION 'permission denied to enable capture from the WAL'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'A replication slot sees the changes of every table.',
                  HINT = 'Ask a superuser to CALL pgtrickle.enable_wal().';
    END IF;
    PERFORM pgtrickle_changes.wal_make_publication();
    COMMIT;
    PERFORM pgtrickle_changes.wal_make_slot();
END
$$;
COMMENT ON PROCEDURE pgtrickle.enable_wal() IS
    'Make the replication slot and the publication that cdc_mode => ''wal'' needs; not inside a transaction. It waits for all running transactions (superusers only)';

CREATE FUNCTION pgtrickle.disable_wal() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_used text;
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'permission denied to disable capture from the WAL'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Ask a superuser to call pgtrickle.disable_wal().';
    END IF;
    SELECT string_agg(format('%s (for %I)', k.source_relid::regclass, pg_get_userbyid(k.owner_oid)), ', ' ORDER BY k.source_relid, k.owner_oid)
      INTO v_used FROM pgtrickle.pgt_captures AS k WHERE k.trigger_mode = 'wal';
    IF v_used IS NOT NULL THEN
        RAISE EXCEPTION 'sources are captured from the WAL'
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('They are: %s.', v_used),
                  HINT = 'Change their stream tables first: SELECT pgtrickle.alter_stream_table(name, cdc_mode => ''trigger'').';
    END IF;
    DELETE FROM pgtrickle_changes.wal_slot;
    DROP PUBLICATION IF EXISTS pg_trickle;
    PERFORM pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots AS s WHERE s.slot_name = pgtrickle_changes.wal_slot_name();
END
$$;
COMMENT ON FUNCTION pgtrickle.disable_wal() IS
    'Drop the replication slot and the publication of enable_wal(): the slot keeps WAL for as long as it exists (superusers only)';

CREATE FUNCTION pgtrickle_changes.flag_wal_readers(p_reason text) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true, reinit_reason = p_reason
     WHERE st.is_populated AND NOT st.needs_reinit
       AND EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d
                     JOIN pgtrickle.pgt_captures AS k ON k.source_relid = d.source_relid AND k.owner_oid = st.owner_oid
                    WHERE d.pgt_id = st.pgt_id AND d.captured AND k.trigger_mode = 'wal')
$$;
COMMENT ON FUNCTION pgtrickle_changes.flag_wal_readers IS 'Makes the stream tables whose sources are captured from the WAL start afresh';

CREATE FUNCTION pgtrickle_changes.wants_wal(p_source oid, p_owner oid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- A source is captured once for an owner: from the WAL as soon as one of his stream tables asks for it.  A stream table is captured
    -- by triggers whatever is asked for: those above it follow in the same transaction, which no WAL tells of.  So is what policies read:
    -- rows are judged by it at the moment they are written.
    SELECT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
                    WHERE d.source_relid = p_source AND d.captured AND st.owner_oid = p_owner AND st.cdc_mode = 'wal')
           AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = p_source)
           AND NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
                            WHERE d.source_relid = p_source AND d.decides_rows AND st.owner_oid = p_owner)
$$;
COMMENT ON FUNCTION pgtrickle_changes.wants_wal IS 'Whether an owner wants a source captured from the WAL';

CREATE FUNCTION pgtrickle_changes.wal_refusal(p_source oid, p_owner oid, OUT code text, OUT reason text, OUT hint text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Why a source can't be captured from the WAL for an owner; all NULL if it can.
DECLARE
    v_class   pg_class;
    v_columns smallint[] := ARRAY(SELECT c.attnum FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c);
    v_column  name;
BEGIN
    SELECT c.* INTO v_class FROM pg_class AS c WHERE c.oid = p_source;
    code := '55000';
    reason := pgtrickle_changes.wal_trouble();
    hint := 'A superuser has to CALL pgtrickle.enable_wal(), with wal_level = logical; or use cdc_mode => ''trigger''.';
    IF reason IS NOT NULL THEN
        RETURN;
    END IF;
    code := '0A000';
    hint := 'Use cdc_mode => ''trigger''.';
    IF v_class.relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = p_source) THEN
        reason := format('%s has partitions or children', p_source::regclass);
    ELSIF pgtrickle_changes.row_security_applies(p_owner, p_source) THEN
        reason := format('row-level security of %s applies to role %I, and is decided at the moment of a change', p_source::regclass, pg_get_userbyid(p_owner));
    ELSIF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = p_source AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '') THEN
        reason := format('%s has generated columns, which the WAL does not tell', p_source::regclass);
    ELSE
        v_column := (SELECT a.attname FROM pg_attribute AS a
                      WHERE a.attrelid = p_source AND a.attnum = ANY (v_columns) AND pgtrickle_changes.names_objects(a.atttypid) ORDER BY a.attnum LIMIT 1);
        IF v_column IS NOT NULL THEN
            reason := format('column "%s" of %s refers to objects of the database, which may have another name when it is read', v_column, p_source::regclass);
        ELSIF NOT pgtrickle_changes.has_pre_images(p_source, v_columns) THEN
            code := '55000';
            reason := format('the WAL does not tell what changed rows of %s were', p_source::regclass);
            hint := format('ALTER TABLE %s REPLICA IDENTITY FULL; or use cdc_mode => ''trigger''.', p_source::regclass);
        END IF;
    END IF;
    IF reason IS NULL THEN
        code := NULL;
        hint := NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_refusal IS 'Why a source can''t be captured from the WAL for an owner; all NULL if it can';

CREATE FUNCTION pgtrickle_changes.has_pre_images(p_source oid, p_columns smallint[]) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- All of the old row, or a key that covers what is read of it.  With no key at all, writers would be refused.
    SELECT c.relreplident = 'f'
           OR EXISTS (SELECT FROM pg_index AS i
                       WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                         AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
                         AND p_columns <@ (i.indkey::smallint[])[0:i.indnkeyatts - 1])
      FROM pg_class AS c WHERE c.oid = p_source
$$;
COMMENT ON FUNCTION pgtrickle_changes.has_pre_images IS 'Whether the WAL tells the former values of some columns of a table';

CREATE FUNCTION pgtrickle_changes.names_objects(p_type oid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Whether values are spelled with names of tables, roles and so on, here or anywhere within.
    WITH RECURSIVE within AS (
        SELECT p_type AS oid
        UNION
        SELECT n.oid
          FROM within AS i JOIN pg_type AS t ON t.oid = i.oid
         CROSS JOIN LATERAL (SELECT t.typbasetype
                             UNION ALL SELECT t.typelem
                             UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
                             UNION ALL SELECT a.atttypid FROM pg_attribute AS a
                                        WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped) AS n(oid)
         WHERE n.oid <> 0
    )
    SELECT EXISTS (SELECT FROM within AS w JOIN pg_type AS t ON t.oid = w.oid
                    WHERE t.oid < 16384 AND (t.typname LIKE 'reg%' OR t.typname = 'aclitem'))
$$;
COMMENT ON FUNCTION pgtrickle_changes.names_objects IS 'Whether values of a type are spelled with names of objects of the database';

CREATE FUNCTION pgtrickle_changes.demand_wal(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who asks for the WAL gets it, or is told why not.
DECLARE
    v_table   pgtrickle.pgt_stream_tables;
    v_source  record;
    v_code    text;
    v_reason  text;
    v_hint    text;
BEGIN
    SELECT st.* INTO STRICT v_table FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id;
    FOR v_source IN
        SELECT d.source_relid, d.captured, replace(d.source_kind, '_', ' ') AS kind, k.trigger_mode
          FROM pgtrickle.pgt_dependencies AS d
          LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = d.source_relid AND k.owner_oid = v_table.owner_oid
         WHERE d.pgt_id = p_id AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS u WHERE u.pgt_relid = d.source_relid)
         ORDER BY d.source_relid
    LOOP
        CONTINUE WHEN v_source.trigger_mode = 'wal' AND v_source.captured;
        IF v_table.refresh_mode = 'IMMEDIATE' THEN
            v_code := '0A000';
            v_reason := 'IMMEDIATE maintains in the writer''s transaction, which the WAL tells only when it has ended';
            v_hint := 'Use cdc_mode => ''auto'', or another refresh mode.';
        ELSIF NOT v_source.captured THEN
            v_code := '0A000';
            v_reason := format('changes of %s (%s) are not captured at all', v_source.source_relid::regclass, v_source.kind);
            v_hint := 'Use cdc_mode => ''auto''.';
        ELSE
            SELECT r.code, r.reason, r.hint INTO v_code, v_reason, v_hint
              FROM pgtrickle_changes.wal_refusal(v_source.source_relid, v_table.owner_oid) AS r;
        END IF;
        RAISE EXCEPTION 'changes of % can''t be captured from the WAL', v_source.source_relid::regclass
            USING ERRCODE = v_code, DETAIL = format('The reason: %s.', v_reason), HINT = v_hint;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.demand_wal IS 'Raises unless all that a stream table reads of tables is captured from the WAL';

CREATE FUNCTION pgtrickle_changes.wal_stamp(p_source oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What wal_refusal rests on, and the slot's condition doesn't tell.
BEGIN
    RETURN (SELECT concat_ws(' ', p.oid, p.xmin, p.ctid, r.oid, r.xmin, r.ctid, c.relreplident, c.relrowsecurity, c.relhassubclass,
                             (SELECT string_agg(concat_ws(' ', i.indexrelid, i.indisreplident, i.indisvalid), ',' ORDER BY i.indexrelid) FROM pg_index AS i
                               WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)),
                             (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attgenerated <> ''))
              FROM pg_publication AS p JOIN pg_publication_rel AS r ON r.prpubid = p.oid JOIN pg_class AS c ON c.oid = r.prrelid
             WHERE p.pubname = 'pg_trickle' AND r.prrelid = p_source);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_stamp IS 'The version of a source''s place in the publication, and of what is logged of it; NULL if it has none';

CREATE FUNCTION pgtrickle_changes.wal_begin(p_source oid, p_owner oid, p_afresh boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The source's changes are decoded for the owner from now on; its writers are locked out.
BEGIN
    IF p_afresh AND pgtrickle_changes.wal_stamp(p_source) IS NOT NULL
       AND NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = p_source AND k.owner_oid <> p_owner AND k.trigger_mode = 'wal') THEN
        EXECUTE format('ALTER PUBLICATION pg_trickle DROP TABLE %s', p_source::regclass);
    END IF;
    IF pgtrickle_changes.wal_stamp(p_source) IS NULL THEN
        BEGIN
            EXECUTE format('ALTER PUBLICATION pg_trickle ADD TABLE ONLY %s', p_source::regclass);
        EXCEPTION WHEN duplicate_object THEN
            PERFORM pgtrickle_changes.captured_meanwhile(p_source);
        END;
    END IF;
    INSERT INTO pgtrickle_changes.wal_readers (owner_oid, decoded, decoder, safe_lsn)
    VALUES (p_owner, pg_current_snapshot(), pg_current_xact_id(), pg_current_wal_insert_lsn()) ON CONFLICT (owner_oid) DO NOTHING;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_begin IS 'Has the changes of a source decoded for an owner from now on';

CREATE FUNCTION pgtrickle_changes.wal_end(p_source oid, p_owner oid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- After the capture has gone, or has become one of triggers.
BEGIN
    IF pgtrickle_changes.wal_stamp(p_source) IS NOT NULL
       AND NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = p_source AND k.trigger_mode = 'wal') THEN
        EXECUTE format('ALTER PUBLICATION pg_trickle DROP TABLE %s', p_source::regclass);
    END IF;
    DELETE FROM pgtrickle_changes.wal_readers AS r
     WHERE r.owner_oid = p_owner AND NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k WHERE k.owner_oid = p_owner AND k.trigger_mode = 'wal');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_end IS 'Has the changes of a source no longer decoded, if nobody needs them';

CREATE FUNCTION pgtrickle_changes.has_written(p_source oid) RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- Whether this transaction may have: it holds the lock of those who write until it ends, or takes it all back.
    SELECT EXISTS (SELECT FROM pg_locks AS l
                    WHERE l.locktype = 'relation' AND l.relation = p_source AND l.pid = pg_backend_pid() AND l.granted
                      AND l.mode IN ('RowExclusiveLock', 'AccessExclusiveLock'))
$$;
COMMENT ON FUNCTION pgtrickle_changes.has_written IS 'Whether this transaction may have written to a table';
