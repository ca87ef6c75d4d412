-- pgoutput's messages: how they are fetched from the slot, and what is in them.
--
-- Version 1 of its protocol: B(egin: LSN of the commit, time, xid), C(ommit), R(elation), I(nsert), U(pdate), D(elete), T(runcate);
-- numbers are big-endian (PostgreSQL's documentation, "Logical Replication Message Formats").

CREATE FUNCTION pgtrickle_changes.flush_wal() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What can be seen may not have been written out yet (synchronous_commit = off), and only what has been can be decoded.
BEGIN
    IF pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() THEN
        RETURN;
    END IF;
    IF current_setting('server_version_num')::integer >= 170000 THEN
        EXECUTE 'SELECT pg_catalog.pg_logical_emit_message(false, ''pg_trickle'', '''', true)';
    ELSE
        PERFORM pgtrickle_changes.bridge_execute('SELECT pgtrickle_changes.worker_flush_wal()');
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.flush_wal IS 'Returns when all WAL up to now is on disk';

CREATE FUNCTION pgtrickle_changes.worker_flush_wal() RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- A commit that waits for the disk takes along what was written before it.
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pg_logical_emit_message(true, 'pg_trickle', '');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.worker_flush_wal IS 'Has the WAL written to disk when its transaction commits';

CREATE FUNCTION pgtrickle_changes.wal_messages() RETURNS TABLE (data bytea)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET client_encoding = 'UTF8'
    SET "TimeZone" = 'UTC'
    SET "DateStyle" = 'ISO, MDY'
    SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET lc_monetary = 'C'
    SET lc_numeric = 'C'
AS $$
-- The slot stays where it is.  Only one session at a time can read it, and none does for long.
BEGIN
    -- Values are sent as to a client, who can read what is in the database.
    PERFORM set_config('client_encoding', getdatabaseencoding(), true);
    FOR v_try IN 1..500 LOOP
        BEGIN
            RETURN QUERY SELECT m.data FROM pg_logical_slot_peek_binary_changes(
                pgtrickle_changes.wal_slot_name(), NULL, NULL, 'proto_version', '1', 'publication_names', 'pg_trickle') AS m;
            RETURN;
        EXCEPTION WHEN object_in_use THEN
            IF v_try = 500 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.01);
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_messages IS 'pgoutput''s messages about what committed and is on disk, from the slot''s position on';

CREATE FUNCTION pgtrickle_changes.wal_number(p_data bytea, p_at integer, p_bytes integer) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_number bigint := 0;
BEGIN
    FOR v_i IN p_at .. p_at + p_bytes - 1 LOOP
        v_number := (v_number << 8) | get_byte(p_data, v_i);
    END LOOP;
    RETURN v_number;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_number IS 'The big-endian number of so many bytes at a place in a message';

CREATE FUNCTION pgtrickle_changes.wal_text_end(p_data bytea, p_at integer) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_at - 1 + position('\x00'::bytea IN substr(p_data, p_at + 1));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_text_end IS 'Where the zero byte is that ends the text at a place in a message';

CREATE FUNCTION pgtrickle_changes.wal_xid(p_low bigint, p_snapshot pg_snapshot) RETURNS xid8
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- The one with these lower 32 bits that is next to the snapshot's end: no transaction in the WAL is 2^31 away.
DECLARE
    v_next bigint := pg_snapshot_xmax(p_snapshot)::text::bigint;
BEGIN
    RETURN (v_next + (((p_low - v_next) % 4294967296 + 4294967296 + 2147483648) % 4294967296) - 2147483648)::text::xid8;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_xid IS 'A transaction id of 64 bits, from its lower 32';

CREATE FUNCTION pgtrickle_changes.wal_columns(p_data bytea, p_capture pgtrickle.pgt_captures) RETURNS integer[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From a Relation message: for each column it lists, its place among those captured, or 0.  NULL: the table was another one than
-- it is now, or did not log its old rows; then nothing can be made of its changes.
DECLARE
    v_names   text[];
    v_types   oid[];
    v_at      integer := pgtrickle_changes.wal_text_end(p_data, pgtrickle_changes.wal_text_end(p_data, 5) + 1) + 2;
    v_end     integer;
    v_count   integer := pgtrickle_changes.wal_number(p_data, v_at, 2);
    v_key     boolean;
    v_place   integer;
    v_columns integer[] := '{}'::integer[];
BEGIN
    -- Columns only ever come at the end.
    SELECT array_agg(a.attname::text ORDER BY a.attnum), array_agg(a.atttypid ORDER BY a.attnum) INTO v_names, v_types
      FROM pg_attribute AS a WHERE a.attrelid = p_capture.source_relid AND a.attnum > 0 AND NOT a.attisdropped;
    v_at := v_at + 2;
    FOR v_i IN 1 .. v_count LOOP
        v_key := get_byte(p_data, v_at) & 1 = 1;
        v_end := pgtrickle_changes.wal_text_end(p_data, v_at + 1);
        IF convert_from(substr(p_data, v_at + 2, v_end - v_at - 1), getdatabaseencoding()) IS DISTINCT FROM v_names[v_i]
           OR pgtrickle_changes.wal_number(p_data, v_end + 1, 4) IS DISTINCT FROM v_types[v_i]::bigint THEN
            RETURN NULL;
        END IF;
        v_place := coalesce(array_position(p_capture.columns, v_names[v_i]), 0);
        IF v_place > 0 AND NOT v_key THEN
            RETURN NULL;
        END IF;
        v_columns := v_columns || v_place;
        v_at := v_end + 9;
    END LOOP;
    RETURN CASE WHEN (SELECT count(*) FROM unnest(v_columns) AS c(place) WHERE c.place > 0) = cardinality(p_capture.columns) THEN v_columns END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_columns IS 'Which columns of a table''s messages are captured, and where they go; NULL if that can''t be told';

CREATE FUNCTION pgtrickle_changes.wal_images(p_data bytea, p_columns integer[], p_width integer, OUT old text[], OUT new text[])
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What a change turned into what: NULL where there was or is no row, and twice if nothing that is captured changed.  One function, for
-- calls are what costs.
DECLARE
    v_encoding name := getdatabaseencoding();
    v_kind     integer;
    v_length   integer;
    v_place    integer;
    v_is_new   boolean;
    v_image    text[];
    v_at       integer := 5;
BEGIN
    WHILE v_at < octet_length(p_data) LOOP
        -- N, or K or O: of an old row the key or all.  A long value that an UPDATE left alone is not repeated.
        v_is_new := get_byte(p_data, v_at) = 78;
        v_image := coalesce(old, array_fill(NULL::text, ARRAY[p_width]));
        v_at := v_at + 3;
        FOREACH v_place IN ARRAY p_columns LOOP
            -- t(ext), n(ull) or u(nchanged)
            v_kind := get_byte(p_data, v_at);
            IF v_kind = 116 THEN
                v_length := get_byte(p_data, v_at + 1) << 24 | get_byte(p_data, v_at + 2) << 16 | get_byte(p_data, v_at + 3) << 8 | get_byte(p_data, v_at + 4);
                IF v_place > 0 THEN
                    v_image[v_place] := convert_from(substr(p_data, v_at + 6, v_length), v_encoding);
                END IF;
                v_at := v_at + 5 + v_length;
            ELSE
                IF v_kind = 110 AND v_place > 0 THEN
                    v_image[v_place] := NULL;
                END IF;
                v_at := v_at + 1;
            END IF;
        END LOOP;
        IF v_is_new THEN
            new := v_image;
        ELSE
            old := v_image;
        END IF;
    END LOOP;
    -- An UPDATE that doesn't tell the old row has left the key alone, and with it all that is captured.
    IF get_byte(p_data, 0) = ascii('U') AND (old IS NULL OR new IS NOT DISTINCT FROM old) THEN
        old := NULL;
        new := NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_images IS 'The captured values before and after a change; both NULL if none of them changed';

CREATE FUNCTION pgtrickle_changes.wal_relations(p_data bytea) RETURNS oid[]
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF get_byte(p_data, 0) = ascii('T') THEN
        RETURN ARRAY(SELECT pgtrickle_changes.wal_number(p_data, 6 + 4 * t.i, 4)::oid
                       FROM generate_series(0, pgtrickle_changes.wal_number(p_data, 1, 4)::integer - 1) AS t(i));
    END IF;
    RETURN ARRAY[pgtrickle_changes.wal_number(p_data, 1, 4)::oid];
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.wal_relations IS 'The tables that a message is about: of a Truncate perhaps several';
