-- Partitioned sources in IMMEDIATE mode (decision 0010).
--
-- A statement fires the statement triggers of the relation that it names, and its transition tables hold the rows of all partitions below
-- that.  So the same triggers, with the same functions, are on a partitioned table and on everything below it.
--
-- What is attached later has none.  Each maintenance compares the tree with the one that the stream table was last computed for, and
-- recomputes when it differs; and a row trigger on the partitioned table, which PostgreSQL copies to whatever comes below it, sees rows of
-- partitions that it doesn't know.  If a statement with triggers of ours is under way, that recomputes at its end; else there is nobody who
-- could, and the writer is stopped until the triggers were made anew.
--
-- A row that MERGE moves to another partition is in no transition table.  So a row trigger notes each row whose partition key changes, and
-- AFTER an update they are counted: if its transition tables don't hold as many of them, it recomputes.
--
-- And what MERGE updates after it has inserted a row is shown, in the transition table of new rows, as that inserted row (PostgreSQL 15 to 18).
-- So what was updated is compared with what the same statement inserts: if a row is in both, it recomputes.

CREATE FUNCTION pgtrickle_changes.immediate_roots(p_id bigint) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT c.oid FROM pg_class AS c WHERE c.oid = ANY (pgtrickle_changes.immediate_sources(p_id)) AND c.relkind = 'p' ORDER BY c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_roots IS 'The partitioned sources of an IMMEDIATE stream table';

CREATE FUNCTION pgtrickle_changes.immediate_relations(p_id bigint) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT DISTINCT b.relid FROM unnest(pgtrickle_changes.immediate_sources(p_id)) AS s(oid)
                  CROSS JOIN LATERAL pgtrickle_changes.relations_below(s.oid) AS b ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_relations IS 'The sources of an IMMEDIATE stream table and their partitions: what its triggers are on';

CREATE FUNCTION pgtrickle_changes.immediate_tree(p_roots oid[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A partition that is being detached concurrently is left to be found at the end of that.
BEGIN
    RETURN format('ARRAY(WITH RECURSIVE b(relid) AS ('
                  'SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[])'
                  ' UNION SELECT i.inhrelid FROM b JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) b.relid)'
                  ' SELECT b.relid FROM b ORDER BY b.relid)', p_roots);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_tree IS 'The partitions below some tables as of now, as an SQL expression';

CREATE FUNCTION pgtrickle_changes.immediate_tree_kept(p_id bigint, p_full boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nothing, for a stream table without partitioned sources.
DECLARE
    v_roots oid[] := pgtrickle_changes.immediate_roots(p_id);
BEGIN
    IF v_roots = '{}' THEN
        RETURN '';
    ELSIF p_full THEN
        RETURN format(E'        UPDATE pgtrickle_changes.turn_%s AS t SET tree = %s;\n', p_id, pgtrickle_changes.immediate_tree(v_roots));
    END IF;
    RETURN format($q$
    IF __pgt_rows OPERATOR(pg_catalog.>) 0 THEN
        SELECT t.tree OPERATOR(pg_catalog.<>) %1$s, TG_RELID OPERATOR(pg_catalog.=) ANY (t.tree OPERATOR(pg_catalog.||) %2$L::pg_catalog.oid[])
          INTO __pgt_moved, __pgt_member FROM pgtrickle_changes.turn_%3$s AS t;
        IF __pgt_moved THEN
            %4$s
            __pgt_held := true;
        END IF;
        IF __pgt_moved OR NOT __pgt_member THEN
            __pgt_rows := 0;
        END IF;
    END IF;$q$, pgtrickle_changes.immediate_tree(v_roots), pgtrickle_changes.immediate_sources(p_id), p_id, pgtrickle_changes.immediate_note(p_id, 't'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_tree_kept IS 'How a maintenance notices that partitions came or went, or (full) that it has computed for those that there are, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.partition_keys(p_root oid) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- At every level, those in expressions too: such columns depend on their table as a whole.
BEGIN
    RETURN ARRAY(SELECT DISTINCT a.attname::text FROM pgtrickle_changes.relations_below(p_root) AS b
                   JOIN pg_partitioned_table AS t ON t.partrelid = b.relid
                   JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = b.relid AND d.objsubid > 0
                                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relid AND d.refobjsubid = 0 AND d.deptype = 'i'
                   JOIN pg_attribute AS a ON a.attrelid = b.relid AND a.attnum = d.objsubid ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.partition_keys IS 'The columns that decide in which partition a row is';

CREATE FUNCTION pgtrickle_changes.partition_key_changes(p_root oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_keys text[] := pgtrickle_changes.partition_keys(p_root);
BEGIN
    RETURN format('pg_catalog.record_image_ne(ROW(%s), ROW(%s))', (SELECT string_agg(format('OLD.%I', k), ', ') FROM unnest(v_keys) AS k),
                  (SELECT string_agg(format('NEW.%I', k), ', ') FROM unnest(v_keys) AS k));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.partition_key_changes IS 'Whether a row may get into another partition, from OLD to NEW, as SQL';

CREATE FUNCTION pgtrickle_changes.immediate_moves(p_id bigint, p_source oid, p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Both transition tables get their rows in one order.
BEGIN
    IF p_event <> 'upd' OR NOT p_source = ANY (pgtrickle_changes.immediate_roots(p_id)) THEN
        RETURN '';
    END IF;
    RETURN format($q$
    __pgt_noted := (SELECT pg_catalog.count(*) FROM pgtrickle_changes.moved_%1$s AS m
                     WHERE m.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND m.updated IS NULL);
    IF __pgt_noted OPERATOR(pg_catalog.>) 0 THEN
        IF __pgt_noted OPERATOR(pg_catalog.<>) (
               SELECT pg_catalog.count(*) FROM (SELECT o.*, pg_catalog.row_number() OVER () AS __pgt_place FROM __pgt_old AS o) AS old
                 JOIN (SELECT n.*, pg_catalog.row_number() OVER () AS __pgt_place FROM __pgt_new AS n) AS new
                   ON old.__pgt_place OPERATOR(pg_catalog.=) new.__pgt_place
                WHERE %2$s) THEN
            %3$s
            __pgt_held := true;
        END IF;
        DELETE FROM pgtrickle_changes.moved_%1$s AS m WHERE m.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND m.updated IS NULL;
    END IF;$q$, p_id, pgtrickle_changes.partition_key_changes(p_source), pgtrickle_changes.immediate_note(p_id, 't'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_moves IS 'How rows that went to another partition unseen are noticed after an update, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_merged(p_id bigint, p_source oid, p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Triggers for UPDATE fire before those for INSERT.  Where no other statement is under way there is no INSERT to come; where one is, it is told
-- that something is held, so that the last one looks, and clears up.
BEGIN
    IF p_event NOT IN ('ins', 'upd') OR NOT p_source = ANY (pgtrickle_changes.immediate_roots(p_id)) THEN
        RETURN '';
    ELSIF p_event = 'upd' THEN
        RETURN format($q$
    IF __pgt_open OPERATOR(pg_catalog.>) 1 THEN
        INSERT INTO pgtrickle_changes.moved_%s (xid, updated) SELECT pg_catalog.pg_current_xact_id(), n::pg_catalog.text FROM __pgt_new AS n;
        IF FOUND THEN
            %s
        END IF;
    END IF;$q$, p_id, pgtrickle_changes.immediate_note(p_id, 'h'));
    END IF;
    RETURN format($q$
    IF __pgt_held AND EXISTS (SELECT FROM pgtrickle_changes.moved_%1$s AS m JOIN __pgt_new AS n ON m.updated OPERATOR(pg_catalog.=) n::pg_catalog.text
                                WHERE m.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()) THEN
        %2$s
    END IF;$q$, p_id, pgtrickle_changes.immediate_note(p_id, 't'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_merged IS 'How it is noticed that the new rows of a MERGE aren''t those that it wrote, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_move(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whoever it runs as, the row is written.
BEGIN
    RETURN format($q$
BEGIN
    IF current_user OPERATOR(pg_catalog.=) pg_catalog.pg_get_userbyid(%2$s::pg_catalog.oid) THEN
    %3$s
        INSERT INTO pgtrickle_changes.moved_%1$s (xid) VALUES (pg_catalog.pg_current_xact_id());
    END IF;
    RETURN NEW;
END
$q$, p_table.pgt_id, p_table.owner_oid,
        pgtrickle_changes.keep_strangers_out(p_table, ARRAY[format('pgtrickle_changes.moved_%s', p_table.pgt_id)::regclass]));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_move IS 'What happens to a row whose partition key changes, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_stray(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format($q$
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u
                    WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.what OPERATOR(pg_catalog.=) 'o'::pg_catalog."char") THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = pg_catalog.format('writing "%%s" can''t be followed for stream table "%%s"', TG_TABLE_NAME, %2$L),
            DETAIL = 'It has become a partition of a source since the stream table was made or last repaired.', HINT = %3$L;
    END IF;
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u
                    WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.what OPERATOR(pg_catalog.=) 't'::pg_catalog."char") THEN
        %4$s
    END IF;$q$, p_table.pgt_id, p_table.pgt_name,
        'Write to the partitioned table instead, or wait for the worker to repair this. ' || pgtrickle_changes.immediate_hint(p_table),
        pgtrickle_changes.immediate_note(p_table.pgt_id, 't'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_stray IS 'What happens to a row of a partition that has no triggers of ours, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.make_row_trigger(p_id bigint, p_root oid, p_event text, p_at text, p_when text, p_function text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger name := pgtrickle_changes.immediate_trigger(p_id, p_event, true);
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION pgtrickle_changes.%I()',
                   v_trigger, p_at, p_root::regclass, p_when, p_function);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p_root::regclass, v_trigger);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_row_trigger IS 'Makes a row trigger on a partitioned source; PostgreSQL copies it to each partition, attached ones included';

CREATE FUNCTION pgtrickle_changes.make_tree_triggers(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id      bigint := p_table.pgt_id;
    v_roots   oid[] := pgtrickle_changes.immediate_roots(p_table.pgt_id);
    v_stray   text := format('maintain_%s_stray', p_table.pgt_id);
    v_move    text := format('maintain_%s_move', p_table.pgt_id);
    v_root    oid;
    v_moves   text;
    v_unknown text;
BEGIN
    IF v_roots = '{}' THEN
        RETURN;
    END IF;
    -- PostgreSQL copies its triggers to partitions where nothing keeps a function of the owner's from being moved and replaced before it is called.
    PERFORM pgtrickle_changes.make_engine_trigger_function(p_table, v_stray, pgtrickle_changes.immediate_stray(p_table));
    v_moves := pgtrickle_changes.make_guarded_function(p_table, v_move, pgtrickle_changes.immediate_move(p_table));
    FOREACH v_root IN ARRAY v_roots LOOP
        v_unknown := format('.tableoid OPERATOR(pg_catalog.<>) ALL (%L::pg_catalog.oid[])',
                            ARRAY(SELECT b.relid FROM pgtrickle_changes.relations_below(v_root) AS b ORDER BY b.relid));
        PERFORM pgtrickle_changes.make_row_trigger(v_id, v_root, 'sins', 'AFTER INSERT', 'NEW' || v_unknown, v_stray);
        PERFORM pgtrickle_changes.make_row_trigger(v_id, v_root, 'supd', 'AFTER UPDATE', 'NEW' || v_unknown, v_stray);
        PERFORM pgtrickle_changes.make_row_trigger(v_id, v_root, 'sdel', 'AFTER DELETE', 'OLD' || v_unknown, v_stray);
        PERFORM pgtrickle_changes.make_row_trigger(v_id, v_root, 'move', 'BEFORE UPDATE',
            format('%s AND %s', pgtrickle_changes.partition_key_changes(v_root), v_moves), v_move);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_tree_triggers IS 'Makes the row triggers that notice rows which no statement trigger of ours sees';
