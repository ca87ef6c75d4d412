-- Decoding: from pgoutput's messages to rows of change buffers.
--
-- It runs as the engine, for a slot sees every table, and keeps of what it sees nothing but the columns that an owner's stream tables
-- read and he may read himself; those his own runner writes into his own buffer.

CREATE FUNCTION pgtrickle_changes.wal_store(p_capture pgtrickle.pgt_captures, p_rows jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '1s'
AS $$
-- Into the owner's buffer, as the owner: x is the transaction, w the weight, c1, c2 ... the columns as text, read by the input functions
-- of their types.  A buffer that can't be written to, or that he has hung something on, is his own doing; the changes are missed, which
-- the next refresh sees.
DECLARE
    v_statement text;
BEGIN
    SELECT format('WITH stored AS (INSERT INTO pgtrickle_changes.%I (xid, seq, w%s) OVERRIDING SYSTEM VALUE'
                  ' SELECT r.x, (SELECT pg_catalog.nextval(%L::pg_catalog.regclass)), r.w%s'
                  ' FROM pg_catalog.jsonb_to_recordset($3) AS r(x pg_catalog.xid8, w pg_catalog.int2%s) RETURNING 1)'
                  ' SELECT pg_catalog.count(*) FROM stored',
                  p_capture.buffer, coalesce(string_agg(format(', %I', c.buffer_column), '' ORDER BY c.attnum), ''), p_capture.sequence_relid::text,
                  -- A string would be taken for the JSON value, not for the text of one.
                  coalesce(string_agg(format(CASE WHEN c.type IN ('json', 'jsonb') THEN ', r.c%s::pg_catalog.%s' ELSE ', r.c%s' END, c.place, c.type), ''
                                      ORDER BY c.attnum), ''),
                  coalesce(string_agg(format(', c%s %s', c.place, CASE WHEN c.type IN ('json', 'jsonb') THEN 'pg_catalog.text' ELSE c.type END), ''
                                      ORDER BY c.attnum), ''))
      INTO v_statement
      FROM (SELECT r.*, array_position(p_capture.columns, r.source_column::text) AS place
              FROM pgtrickle_changes.read_columns(p_capture.source_relid, p_capture.columns) AS r) AS c;
    BEGIN
        EXECUTE format('LOCK TABLE pgtrickle_changes.%I IN ROW EXCLUSIVE MODE', p_capture.buffer);
        IF pgtrickle_changes.is_plain(p_capture.buffer_relid) IS NOT TRUE THEN
            RAISE lock_not_available;
        END IF;
        PERFORM pgtrickle_changes.run_as(p_capture.owner_oid, v_statement, p_own_seqs => p_rows);
    EXCEPTION WHEN OTHERS THEN
        INSERT INTO pgtrickle_changes.missed_changes (source_relid, owner_oid) VALUES (p_capture.source_relid, p_capture.owner_oid);
    END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_store IS 'Writes decoded changes into an owner''s buffer, as the owner';

CREATE FUNCTION pgtrickle_changes.wal_maps(p_data bytea, p_captures pgtrickle.pgt_captures[]) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- {place among the captures: what wal_columns says} for those of the table that a Relation message is about.  Nothing can be made of
-- its changes either where the owner may not read it.
DECLARE
    v_source oid := pgtrickle_changes.wal_number(p_data, 1, 4)::oid;
    v_maps   jsonb := '{}'::jsonb;
BEGIN
    FOR v_i IN 1 .. cardinality(p_captures) LOOP
        IF p_captures[v_i].source_relid = v_source THEN
            v_maps := v_maps || jsonb_build_object(v_i, CASE
                WHEN pgtrickle_changes.may_read(p_captures[v_i].owner_oid, v_source, p_captures[v_i].attnums, false)
                     AND NOT pgtrickle_changes.row_security_applies(p_captures[v_i].owner_oid, v_source)
                THEN to_jsonb(pgtrickle_changes.wal_columns(p_data, p_captures[v_i])) END);
        END IF;
    END LOOP;
    RETURN v_maps;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_maps IS 'For each capture of the table that a Relation message is about, where its columns go';

CREATE UNLOGGED TABLE pgtrickle_changes.wal_spool (
    number bigint  GENERATED ALWAYS AS IDENTITY,
    place  integer NOT NULL,
    item   jsonb   NOT NULL
);
CREATE INDEX wal_spool_by_place ON pgtrickle_changes.wal_spool (place, number);
COMMENT ON TABLE pgtrickle_changes.wal_spool IS
    'What has been decoded and is still to be written into buffers, where it is much; each transaction leaves it as empty as it found it';

CREATE FUNCTION pgtrickle_changes.decode_wal(p_owners oid[], OUT snapshot pg_snapshot, OUT news boolean, OUT safe_lsn pg_lsn)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Put into the buffers of some owners the changes of all transactions that the snapshot sees and that aren't there yet.  Others that
-- have committed meanwhile are left for later.  One at a time decodes for an owner: the next sees what this one did, or in
-- REPEATABLE READ fails.  While the query of the messages is open nothing runs as an owner: code of his could read on in it (from a cursor
-- of the session, by its name), what isn't for him, or have it begin again.
DECLARE
    v_most     CONSTANT integer := 5000;
    v_captures pgtrickle.pgt_captures[];
    v_maps     jsonb := '{}'::jsonb;
    v_data     bytea;
    v_kind     "char";
    v_xid      xid8;
    v_commit   pg_lsn;
    v_due      oid[] := '{}'::oid[];
    v_relation bytea;
    v_sources  oid[];
    v_places   integer[];
    v_place    integer;
    v_mapped   integer;
    v_map      integer[];
    v_keys     text[];
    v_marked   xid8[];
    v_old      text[];
    v_new      text[];
    v_rows     jsonb[] := '{}'::jsonb[];
    v_of       integer[] := '{}'::integer[];
    v_spooled  boolean := false;
BEGIN
    news := false;
    PERFORM FROM pgtrickle_changes.wal_readers AS r WHERE r.owner_oid = ANY (p_owners) ORDER BY r.owner_oid FOR UPDATE;
    snapshot := pg_current_snapshot();
    v_captures := ARRAY(SELECT k FROM pgtrickle.pgt_captures AS k WHERE k.owner_oid = ANY (p_owners) AND k.trigger_mode = 'wal'
                         ORDER BY k.source_relid, k.owner_oid);
    PERFORM pgtrickle_changes.flush_wal();
    safe_lsn := pg_current_wal_flush_lsn();

    FOR v_data IN SELECT m.data FROM pgtrickle_changes.wal_messages() AS m LOOP
        v_kind := chr(get_byte(v_data, 0));
        IF v_kind = 'B' THEN
            v_xid := pgtrickle_changes.wal_xid(pgtrickle_changes.wal_number(v_data, 17, 4), snapshot);
            v_commit := '0/0'::pg_lsn + pgtrickle_changes.wal_number(v_data, 1, 8)::numeric;
            v_due := '{}'::oid[];
            v_relation := NULL;
            IF pg_visible_in_snapshot(v_xid, snapshot) THEN
                v_due := ARRAY(SELECT r.owner_oid FROM pgtrickle_changes.wal_readers AS r
                                WHERE r.owner_oid = ANY (p_owners) AND (NOT pg_visible_in_snapshot(v_xid, r.decoded) OR v_xid = r.decoder));
                news := news OR cardinality(v_due) > 0;
            ELSE
                safe_lsn := least(safe_lsn, v_commit);
            END IF;
            CONTINUE;
        ELSIF v_kind = 'R' THEN
            -- For the changes that follow, whosever they are.
            v_maps := v_maps || pgtrickle_changes.wal_maps(v_data, v_captures);
            v_mapped := NULL;
            CONTINUE;
        END IF;
        CONTINUE WHEN cardinality(v_due) = 0 OR v_kind NOT IN ('I', 'U', 'D', 'T');

        IF v_kind = 'T' OR v_relation IS DISTINCT FROM substr(v_data, 2, 4) THEN
            v_relation := CASE WHEN v_kind <> 'T' THEN substr(v_data, 2, 4) END;
            v_sources := pgtrickle_changes.wal_relations(v_data);
            v_places := ARRAY(SELECT i FROM generate_subscripts(v_captures, 1) AS i
                               WHERE (v_captures[i]).source_relid = ANY (v_sources) AND (v_captures[i]).owner_oid = ANY (v_due)
                                 AND v_commit >= (v_captures[i]).start_lsn);
        END IF;
        FOREACH v_place IN ARRAY v_places LOOP
            IF v_mapped IS DISTINCT FROM v_place THEN
                v_mapped := v_place;
                v_map := CASE WHEN jsonb_typeof(v_maps -> v_place::text) = 'array' THEN
                    ARRAY(SELECT m.value::integer FROM jsonb_array_elements_text(v_maps -> v_place::text) WITH ORDINALITY AS m(value, place) ORDER BY m.place) END;
                v_keys := ARRAY['x', 'w'] || ARRAY(SELECT 'c' || i FROM generate_series(1, cardinality(v_captures[v_place].columns)) AS i);
            END IF;
            IF v_kind = 'T' OR v_map IS NULL THEN
                CONTINUE WHEN v_marked[v_place] = v_xid;
                v_marked[v_place] := v_xid;
                v_rows := v_rows || jsonb_build_object('x', v_xid::text, 'w', 0);
                v_of := v_of || v_place;
                CONTINUE;
            END IF;
            SELECT i.old, i.new INTO v_old, v_new FROM pgtrickle_changes.wal_images(v_data, v_map, cardinality(v_keys) - 2) AS i;
            IF v_old IS NOT NULL THEN
                v_rows := v_rows || jsonb_object(v_keys, ARRAY[v_xid::text, '-1'] || v_old);
                v_of := v_of || v_place;
            END IF;
            IF v_new IS NOT NULL THEN
                v_rows := v_rows || jsonb_object(v_keys, ARRAY[v_xid::text, '1'] || v_new);
                v_of := v_of || v_place;
            END IF;
        END LOOP;
        IF cardinality(v_rows) >= v_most THEN
            INSERT INTO pgtrickle_changes.wal_spool (place, item) SELECT r.place, r.item FROM unnest(v_of, v_rows) WITH ORDINALITY AS r(place, item, n) ORDER BY r.n;
            v_spooled := true;
            v_rows := '{}'::jsonb[];
            v_of := '{}'::integer[];
        END IF;
    END LOOP;
    PERFORM pgtrickle_changes.wal_store_all(v_captures, v_rows, v_of, v_spooled);

    IF news THEN
        UPDATE pgtrickle_changes.wal_readers AS r SET decoded = decode_wal.snapshot, decoder = pg_current_xact_id(), safe_lsn = decode_wal.safe_lsn
         WHERE r.owner_oid = ANY (p_owners);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.decode_wal IS
    'Puts into the buffers of some owners the changes of all transactions that the snapshot sees; the snapshot, whether there were any, and before which LSN none is left';

CREATE FUNCTION pgtrickle_changes.wal_store_all(p_captures pgtrickle.pgt_captures[], p_rows jsonb[], p_of integer[], p_spooled boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- First what was spooled, a piece at a time, then the rest; and no query is open meanwhile, as in decode_wal.
DECLARE
    v_most  CONSTANT integer := 5000;
    v_items jsonb;
BEGIN
    FOR v_place IN 1 .. cardinality(p_captures) LOOP
        LOOP
            EXIT WHEN NOT p_spooled;
            WITH piece AS (
                DELETE FROM pgtrickle_changes.wal_spool AS s
                 WHERE s.number IN (SELECT n.number FROM pgtrickle_changes.wal_spool AS n WHERE n.place = v_place ORDER BY n.number LIMIT v_most)
                RETURNING s.number, s.item)
            SELECT jsonb_agg(p.item ORDER BY p.number) INTO v_items FROM piece AS p;
            EXIT WHEN v_items IS NULL;
            PERFORM pgtrickle_changes.wal_store(p_captures[v_place], v_items);
        END LOOP;
        SELECT jsonb_agg(r.item) INTO v_items FROM unnest(p_rows, p_of) AS r(item, place) WHERE r.place = v_place;
        IF v_items IS NOT NULL THEN
            PERFORM pgtrickle_changes.wal_store(p_captures[v_place], v_items);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_store_all IS 'Writes decoded changes into the buffers they belong to';

CREATE FUNCTION pgtrickle_changes.reads_wal(p_id bigint, p_owner oid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.wal_readers AS r WHERE r.owner_oid = p_owner) THEN
        RETURN false;
    END IF;
    RETURN EXISTS (SELECT FROM pgtrickle.pgt_dependencies AS d
                     JOIN pgtrickle.pgt_captures AS k ON k.source_relid = d.source_relid AND k.owner_oid = p_owner
                    WHERE d.pgt_id = p_id AND d.captured AND k.trigger_mode = 'wal');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.reads_wal IS 'Whether a source of a stream table is captured from the WAL';

CREATE FUNCTION pgtrickle_changes.wal_doubt(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Why the changes that the buffers hold aren't all there are.  What this transaction wrote itself is seen by every query and in no
-- WAL that could be decoded yet.
BEGIN
    RETURN (SELECT CASE WHEN bool_or(EXISTS (SELECT FROM pgtrickle_changes.missed_changes AS m
                                              WHERE m.source_relid = k.source_relid AND m.owner_oid = k.owner_oid))
                        THEN 'changes from the WAL could not be stored'
                        WHEN bool_or(pgtrickle_changes.has_written(k.source_relid))
                        THEN 'it was refreshed in a transaction that had written to a source captured from the WAL' END
              FROM pgtrickle.pgt_dependencies AS d
              JOIN pgtrickle.pgt_captures AS k ON k.source_relid = d.source_relid AND k.owner_oid = p_table.owner_oid
             WHERE d.pgt_id = p_table.pgt_id AND d.captured AND k.trigger_mode = 'wal');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_doubt IS 'Why a refresh can''t go by what was captured from the WAL; NULL if it can';
