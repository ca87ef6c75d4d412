-- The triggers of a capture and the functions that they call: made, altered with their mode, and taken away.

CREATE FUNCTION pgtrickle_changes.sync_triggers(p_source oid, p_owner oid, p_buffer name, p_mode text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_events    CONSTANT text[] := ARRAY['ins', 'upd', 'del', 'trunc'];
    v_words     CONSTANT text[] := ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'];
    v_tables    CONSTANT text[] := ARRAY['NEW TABLE AS __pgt_new', 'OLD TABLE AS __pgt_old NEW TABLE AS __pgt_new',
                                         'OLD TABLE AS __pgt_old'];
    v_functions name[] := pgtrickle_changes.capture_functions(p_buffer);
    v_function  text;
    v_body      text;
    v_guard     text;
    v_changed   text;
    v_relation  regclass;
    v_trigger   name;
BEGIN
    PERFORM pgtrickle_changes.drop_triggers(p_source, p_buffer, p_mode = 'statement');
    IF p_mode = 'row' THEN
        -- Cast, or it would be a comparison column by column, and not of what is stored.
        SELECT format('pg_catalog.record_image_ne(ROW(%s), ROW(%s))',
                      string_agg(format('OLD.%I', a.attname), ', ' ORDER BY a.attnum),
                      string_agg(format('NEW.%I', a.attname), ', ' ORDER BY a.attnum))
          INTO v_changed
          FROM pg_attribute AS a
         CROSS JOIN pgtrickle_changes.capture_filter(p_source, p_owner) AS f
          LEFT JOIN pgtrickle_changes.capture_columns(p_source, p_owner) AS c ON c.attnum = a.attnum
         WHERE a.attrelid = p_source AND (c.attnum IS NOT NULL OR a.attnum = ANY (f.columns))
        HAVING bool_and(c.expression IS NULL);
    END IF;

    FOR v_i IN 1..4 LOOP
        v_function := format('pgtrickle_changes.%I', v_functions[v_i]);
        v_body := pgtrickle_changes.capture_body(p_source, p_owner, p_buffer, v_events[v_i], p_mode);
        EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
            ' SET search_path = pg_catalog, pg_temp SET lock_timeout = ''1s''%s%s AS %L',
            v_function,
            -- The texts of policies are compared, and evaluated as for their owner.
            CASE WHEN (SELECT f.has_subquery FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f)
                 THEN $q$ SET row_security = on SET quote_all_identifiers = off SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, MDY'$q$
                      || $q$ SET "IntervalStyle" = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'$q$
                      -- A plan that was made for one row is kept for many: rows and what policies read are to be joined by hashing.
                      || CASE p_mode WHEN 'statement' THEN ' SET enable_nestloop = off' ELSE '' END
                 ELSE '' END,
            -- Rows of types without an equality of their own are told apart by their text.
            CASE WHEN v_events[v_i] = 'upd' AND p_mode = 'statement'
                  AND EXISTS (SELECT FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c WHERE c.identity IN ('text', 'row'))
                 THEN $q$ SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, YMD' SET "IntervalStyle" = 'postgres'$q$
                      || $q$ SET extra_float_digits = 3 SET bytea_output = 'hex' SET xmlbinary = 'base64'$q$
                 ELSE '' END
            -- How literals are read matters to backslashes in policies.
            || CASE WHEN position('\' IN v_body) > 0 THEN ' SET standard_conforming_strings = on' ELSE '' END,
            v_body);
        EXECUTE format('ALTER FUNCTION %s() OWNER TO %I', v_function, pg_get_userbyid(p_owner));
        EXECUTE format('COMMENT ON FUNCTION %s() IS %L', v_function, format('pg_trickle: captures changes of %s', p_source::regclass));
        PERFORM pgtrickle_changes.close_function(format('%s()', v_function)::regprocedure);
        v_guard := pgtrickle_changes.capture_guard(format('%s()', v_function)::regprocedure);

        FOR v_relation IN
            -- Of a row trigger PostgreSQL makes copies on partitions itself.
            SELECT r.relid FROM unnest(pgtrickle_changes.capture_relations(p_source)) AS r(relid) JOIN pg_class AS c ON c.oid = r.relid
             WHERE r.relid = p_source OR v_events[v_i] = 'trunc' OR NOT c.relispartition
        LOOP
            v_trigger := (pgtrickle_changes.capture_triggers(p_buffer, p_source, v_relation))[v_i];
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s WHEN (%s) EXECUTE FUNCTION %s()',
                v_trigger, v_words[v_i], v_relation,
                CASE WHEN v_events[v_i] = 'trunc' THEN 'FOR EACH STATEMENT'
                     WHEN p_mode = 'row' THEN 'FOR EACH ROW'
                     ELSE format('REFERENCING %s FOR EACH STATEMENT', v_tables[v_i]) END,
                concat_ws(' AND ', CASE WHEN v_events[v_i] = 'upd' THEN v_changed END, pgtrickle_changes.capture_place(p_source, v_i), v_guard),
                v_function);
            -- Also for a session that plays a replica: what it writes is in the table all the same.
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_relation, v_trigger);
        END LOOP;
    END LOOP;
    PERFORM pgtrickle_changes.hold_capture(p_source, p_owner, p_buffer, p_mode);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.sync_triggers IS 'Makes the functions and triggers of a capture';

CREATE FUNCTION pgtrickle_changes.drop_triggers(p_source oid, p_buffer name, p_keep_statement boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Drop the capture's triggers wherever they are (a detached partition keeps its own).  Statement triggers of the
-- source itself may stay to be replaced, which takes a weaker lock; row triggers have copies on partitions.
DECLARE
    v_item record;
BEGIN
    FOR v_item IN
        SELECT t.tgrelid::regclass AS relation, t.tgname
          FROM pg_trigger AS t
         WHERE t.tgparentid = 0
           AND t.tgname = ANY (pgtrickle_changes.capture_triggers(p_buffer, p_source, p_source)
                               || pgtrickle_changes.capture_triggers(p_buffer, p_source, 0))
           AND (t.tgrelid = p_source
                OR pgtrickle_changes.holds_capture(t, p_buffer)
                OR t.tgfoid IN (SELECT p.oid FROM pg_proc AS p
                                 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
                                   AND p.proname = ANY (pgtrickle_changes.capture_functions(p_buffer))))
           AND NOT (p_keep_statement AND t.tgrelid = p_source AND t.tgtype & 1 = 0)
    LOOP
        PERFORM pgtrickle_changes.take_trigger_away(v_item.relation, v_item.tgname);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_triggers IS 'Drops the triggers of a capture, wherever they are';
