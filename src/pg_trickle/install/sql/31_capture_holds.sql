-- Keeping the functions that a stranger's stream table has a writer's statement call where they are (docs/decisions/0002).
--
-- A guard is asked when a row or a statement is noted; what the trigger calls is called when the statement is over.  In between its owner
-- could move the function to a schema of his own and replace it there: nobody moves, renames or gives away what a statement holds, to the end of
-- its transaction.  What was moved before isn't held, and its guard says so.

CREATE FUNCTION pgtrickle_changes.hold_functions() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '1s'
AS $$
-- Arguments: the source and the owner of a capture, its buffer and mode, how a transaction remembers that it isn't held and that it is, and the functions of inserts, updates,
-- deletes and TRUNCATE.  In row mode all that rows may call are held at once: an update may insert and delete in other partitions, and a row may come by way of a parent, where it asks
-- for itself if nobody has asked before.  There a function that had to wait for the owner's buffer, or its sequence,
-- would wait at every row: they are locked here, too.  What can't be had in a second isn't called for the rest of the transaction, and noted as for a buffer that is locked.
-- A rollback to a savepoint lets go of the locks, and forgets that they were had.
DECLARE
    v_by_row   boolean := tg_argv[3] = 'row' AND tg_op <> 'TRUNCATE';
    v_known    text := current_setting('backtrace_functions');
    v_function text;
BEGIN
    IF strpos(v_known, tg_argv[4]) = 0 AND NOT (v_by_row AND strpos(v_known, tg_argv[5]) > 0) THEN
        BEGIN
            FOREACH v_function IN ARRAY CASE WHEN v_by_row THEN tg_argv[6:8] WHEN tg_op = 'INSERT' THEN tg_argv[6:6] WHEN tg_op = 'UPDATE' THEN tg_argv[7:7]
                                             WHEN tg_op = 'DELETE' THEN tg_argv[8:8] ELSE tg_argv[9:9] END LOOP
                IF to_regprocedure(format('pgtrickle_changes.%I()', v_function)) IS NOT NULL THEN
                    PERFORM pg_get_object_address('function', ARRAY['pgtrickle_changes', v_function], '{}');
                END IF;
            END LOOP;
            IF v_by_row THEN
                EXECUTE format('LOCK TABLE ONLY pgtrickle_changes.%I IN ROW EXCLUSIVE MODE', tg_argv[2]);
                PERFORM pg_sequence_last_value(pg_get_serial_sequence(format('pgtrickle_changes.%I', tg_argv[2]), 'seq')::regclass);
                PERFORM set_config('backtrace_functions', concat_ws(',', nullif(v_known, ''), tg_argv[5]), true);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO pgtrickle_changes.missed_changes (source_relid, owner_oid) VALUES (tg_argv[0]::oid, tg_argv[1]::oid);
            PERFORM set_config('backtrace_functions', concat_ws(',', nullif(v_known, ''), tg_argv[4]), true);
        END;
    END IF;
    IF tg_level = 'STATEMENT' THEN
        RETURN NULL;
    ELSIF tg_op = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hold_functions IS 'Keeps the functions of a capture that a statement''s triggers call where they are, or has them not called';

CREATE FUNCTION pgtrickle_changes.not_held(p_buffer name) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- What a guard finds in backtrace_functions (which C functions' errors are logged with a backtrace; none is called so) if the capture isn't held: a guard sees
-- nothing but what the writer may see, and this setting anybody may see, and only superusers may set, or a writer could switch capture off for himself.
-- It ends where no longer name of another owner's buffer goes on.
BEGIN
    RETURN 'pgtrickle_not_' || pgtrickle_changes.asked_for(p_buffer);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.not_held IS 'How a transaction remembers that a capture''s functions may be moved under it';

CREATE FUNCTION pgtrickle_changes.asked_for(p_buffer name) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN 'held_' || p_buffer || '__';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.asked_for IS 'What a transaction remembers of a capture in row mode once it has asked for its functions, whether it holds them or not';

CREATE FUNCTION pgtrickle_changes.holds_capture(p_trigger pg_trigger, p_buffer name) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_trigger.tgfoid = 'pgtrickle_changes.hold_functions()'::regprocedure
           AND strpos(encode(p_trigger.tgargs, 'escape'), format('\000%s\000', p_buffer)) > 0;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.holds_capture IS 'Whether a trigger keeps the functions of a capture where they are';

CREATE FUNCTION pgtrickle_changes.hold_maintenance() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
-- IMMEDIATE's, which writers wait for as for everything that they write in that mode.  Arguments: the functions of inserts, updates, deletes and TRUNCATE; in a tree
-- of partitions also those that any of them may call, and there an update may insert and delete.  One that is gone once it isn't locked any more was moved.
DECLARE
    v_held     text[] := CASE WHEN tg_op = 'INSERT' THEN tg_argv[0:0] WHEN tg_op = 'DELETE' THEN tg_argv[2:2] WHEN tg_op = 'TRUNCATE' THEN tg_argv[3:3]
                              WHEN tg_nargs > 4 THEN tg_argv[0:2] ELSE tg_argv[1:1] END || tg_argv[4:];
    v_function text;
BEGIN
    FOREACH v_function IN ARRAY v_held LOOP
        IF to_regprocedure(format('pgtrickle_changes.%I()', v_function)) IS NOT NULL THEN
            BEGIN
                PERFORM pg_get_object_address('function', ARRAY['pgtrickle_changes', v_function], '{}');
            EXCEPTION WHEN undefined_function THEN
                NULL;
            END;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hold_maintenance IS 'Keeps the functions of an IMMEDIATE stream table that a statement''s triggers call where they are';

CREATE FUNCTION pgtrickle_changes.make_hold(p_relation regclass, p_trigger name, p_by_row boolean, p_function name, p_arguments text[], p_when text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_at   CONSTANT text := CASE WHEN p_by_row THEN 'DELETE' ELSE 'DELETE OR TRUNCATE' END;
    v_each CONSTANT text := CASE WHEN p_by_row THEN 'ROW' ELSE 'STATEMENT' END;
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE OR %s ON %s FOR EACH %s %sEXECUTE FUNCTION pgtrickle_changes.%I(%s)', p_trigger,
                   v_at, p_relation, v_each, CASE WHEN p_when IS NOT NULL THEN 'WHEN (' || p_when || ') ' ELSE '' END, p_function,
                   (SELECT string_agg(quote_literal(f.name), ', ' ORDER BY f.place) FROM unnest(p_arguments) WITH ORDINALITY AS f(name, place)));
    EXECUTE format('ALTER TABLE %s %s ENABLE ALWAYS TRIGGER %I', CASE WHEN p_by_row THEN '' ELSE 'ONLY' END, p_relation, p_trigger);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_hold IS 'Makes the trigger that keeps functions of somebody else''s where they are while a statement runs';

CREATE FUNCTION pgtrickle_changes.hold_capture(p_source oid, p_owner oid, p_buffer name, p_mode text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whom writers have to trust anyway may as well replace a function.  Who writes a parent, or applies what logical replication sends, fires no
-- statement trigger of the source: there the first row asks.  In row mode any source may come to have such writers at any time, before the capture is looked at again.
DECLARE
    v_arguments CONSTANT text[] := ARRAY[p_source::text, p_owner::text, p_buffer, p_mode, pgtrickle_changes.not_held(p_buffer), 'pgtrickle_' || pgtrickle_changes.asked_for(p_buffer)]
                                   || pgtrickle_changes.capture_functions(p_buffer)::text[];
    v_unasked   CONSTANT text := format('pg_catalog.strpos(pg_catalog.current_setting(''backtrace_functions''), %L) OPERATOR(pg_catalog.=) 0', pgtrickle_changes.asked_for(p_buffer));
    v_relation  oid;
BEGIN
    IF pgtrickle_changes.is_trusted(p_owner, ARRAY[p_source]) THEN
        RETURN;
    END IF;
    FOREACH v_relation IN ARRAY pgtrickle_changes.capture_relations(p_source) LOOP
        PERFORM pgtrickle_changes.make_hold(v_relation, (pgtrickle_changes.capture_triggers(p_buffer, p_source, v_relation))[5], false, 'hold_functions', v_arguments);
        -- PostgreSQL itself makes copies of them on partitions.
        CONTINUE WHEN p_mode <> 'row' OR v_relation <> p_source AND (SELECT c.relispartition FROM pg_class AS c WHERE c.oid = v_relation);
        PERFORM pgtrickle_changes.make_hold(v_relation, (pgtrickle_changes.capture_triggers(p_buffer, p_source, v_relation))[6], true, 'hold_functions', v_arguments, v_unasked);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hold_capture IS 'Makes the triggers that keep a stranger''s capture functions where they are while a statement runs';
