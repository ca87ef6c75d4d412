-- The generated functions of a capture, and the triggers that call them.

CREATE FUNCTION pgtrickle_changes.capture_body(p_source oid, p_owner oid, p_buffer name, p_event text, p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The text of a capture function.  Every name is qualified and every operator spelled out, so that no setting
-- of the writer and no object of the owner can change its meaning.
DECLARE
    v_sequence  oid := pg_get_serial_sequence(format('pgtrickle_changes.%I', p_buffer), 'seq')::regclass::oid;
    v_rows      text := CASE p_event WHEN 'del' THEN '__pgt_old' ELSE '__pgt_new' END;
    v_columns   text;
    v_images    text;
    v_numbered  text;
    v_outputs   text;
    v_keys      text;
    v_count     bigint;
    v_intact    text := pgtrickle_changes.capture_state(p_source, p_owner, p_buffer);
    v_change    text;
    v_marker    text;
    v_next      text;
    v_filter    record := pgtrickle_changes.capture_filter(p_source, p_owner);
    v_old       text := pgtrickle_changes.capture_images(p_source, '__pgt_old', v_filter.predicate);
    v_new       text := pgtrickle_changes.capture_images(p_source, '__pgt_new', v_filter.predicate);
    v_trial     text := '';
BEGIN
    SELECT count(*),
           coalesce(string_agg(format(', %I', c.buffer_column), '' ORDER BY c.attnum), ''),
           coalesce(string_agg(format(', %s', coalesce(c.expression, format('r.%I', c.source_column))), '' ORDER BY c.attnum), ''),
           coalesce(string_agg(format(', %s AS c%s', coalesce(c.expression, format('r.%I', c.source_column)), c.attnum), ''
                               ORDER BY c.attnum), ''),
           coalesce(string_agg(CASE WHEN c.groupable THEN format(', x.c%s', c.attnum)
                                    -- No array holds arrays as they are.
                                    WHEN c.identity = 'row' AND c.type NOT LIKE '%[]%' THEN format(', (pg_catalog.array_agg(x.c%1$s))[1] AS c%1$s', c.attnum)
                                    -- Told apart by its text, and made from it again: no aggregate returns just any value.
                                    ELSE format(', pg_catalog.min(x.c%1$s::pg_catalog.text)::%2$s AS c%1$s', c.attnum, c.type) END, ''
                               ORDER BY c.attnum), ''),
           string_agg(concat_ws(', ', CASE WHEN c.groupable THEN format('x.c%s', c.attnum) END,
                                format(CASE c.identity WHEN 'scale' THEN 'pg_catalog.scale(x.c%s)'
                                                       WHEN 'bits' THEN 'pg_catalog.float8send(x.c%s)'
                                                       -- As text it would have no blanks at its end.
                                                       WHEN 'blanks' THEN 'pg_catalog.textin(pg_catalog.bpcharout(x.c%s)) COLLATE pg_catalog."C"'
                                                       -- As its fields print themselves, whatever cast there is.
                                                       WHEN 'row' THEN 'ROW(x.c%s)::pg_catalog.text COLLATE pg_catalog."C"'
                                                       -- By its letters, whatever the column's collation takes for equal.
                                                       WHEN 'text' THEN 'x.c%s::pg_catalog.text COLLATE pg_catalog."C"' END, c.attnum)), ', '
                      ORDER BY c.attnum)
      INTO v_count, v_columns, v_images, v_numbered, v_outputs, v_keys
      FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c;
    -- One number a statement will do: a refresh can't come in between.  A scalar subquery runs for the first row only.
    v_next := '(SELECT pg_catalog.pg_current_xact_id()), __pgt.v_seq';
    v_marker := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w) OVERRIDING SYSTEM VALUE SELECT %s, 0::pg_catalog.int2', p_buffer, v_next);

    IF p_event = 'trunc' THEN
        v_change := v_marker;
    ELSIF p_event = 'upd' AND v_count = 0 AND v_filter.predicate IS NULL THEN
        v_change := 'NULL';
        v_intact := 'NULL';
    ELSIF p_mode = 'row' THEN
        v_change := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w%s) OVERRIDING SYSTEM VALUE ', p_buffer, v_columns);
        IF p_event IN ('del', 'upd') THEN
            v_change := v_change || format('SELECT %s, -1::pg_catalog.int2%s FROM (SELECT OLD.*) AS r%s', v_next, v_images,
                                           CASE WHEN v_filter.predicate IS NOT NULL THEN ' WHERE __pgt.v_old' ELSE '' END);
        END IF;
        IF p_event = 'upd' THEN
            v_change := v_change || ' UNION ALL ';
        END IF;
        IF p_event IN ('ins', 'upd') THEN
            v_change := v_change || format('SELECT %s, 1::pg_catalog.int2%s FROM (SELECT NEW.*) AS r%s', v_next, v_images,
                                           CASE WHEN v_filter.predicate IS NOT NULL THEN ' WHERE __pgt.v_new' ELSE '' END);
        END IF;
    ELSE
        v_change := format('INSERT INTO pgtrickle_changes.%I (xid, seq, w%s) OVERRIDING SYSTEM VALUE ', p_buffer, v_columns);
        IF p_event = 'upd' THEN
            -- Rows in which nothing that anyone reads has changed cancel out.
            v_change := v_change || format(
                'SELECT %1$s, CASE WHEN g.n OPERATOR(pg_catalog.>) 0 THEN 1 ELSE -1 END::pg_catalog.int2%2$s'
                ' FROM (SELECT pg_catalog.sum(x.n) AS n, pg_catalog.generate_series(1::pg_catalog.int8, pg_catalog.abs(pg_catalog.sum(x.n)))%3$s'
                ' FROM (SELECT -1 AS n%4$s FROM %6$s AS r UNION ALL SELECT 1 AS n%4$s FROM %7$s AS r) AS x'
                ' GROUP BY %5$s HAVING pg_catalog.sum(x.n) OPERATOR(pg_catalog.<>) 0) AS g',
                v_next,
                (SELECT string_agg(format(', g.c%s', c.attnum), '' ORDER BY c.attnum)
                   FROM pgtrickle_changes.capture_columns(p_source, p_owner) AS c),
                v_outputs, v_numbered, coalesce(v_keys, '()'), v_old, v_new);
        ELSE
            v_change := v_change || format('SELECT %s, %s::pg_catalog.int2%s FROM %s AS r',
                v_next, CASE p_event WHEN 'del' THEN '-1' ELSE '1' END, v_images, CASE p_event WHEN 'del' THEN v_old ELSE v_new END);
        END IF;
    END IF;
    IF p_mode = 'statement' AND p_event <> 'trunc' AND v_intact <> 'NULL' THEN
        v_intact := format('(SELECT CASE WHEN EXISTS (SELECT FROM %I) THEN %s END)', v_rows, v_intact);
    END IF;
    IF v_filter.predicate IS NOT NULL AND p_event <> 'trunc' THEN
        v_trial := pgtrickle_changes.capture_trial(p_source, v_filter.predicate, v_filter.may_fail, p_event, p_mode);
    END IF;
    IF v_filter.has_subquery AND p_mode = 'statement' AND p_event <> 'trunc' THEN
        -- What it reads may have changed after a trial.
        v_trial := '';
        v_change := format(E'BEGIN\n            %s;\n        EXCEPTION WHEN OTHERS THEN\n            %s;\n        END', v_change, v_marker);
    END IF;

    RETURN format(E'\n'
        '%8$s'
        '<<__pgt>>\n'
        'DECLARE\n'
        '    v_intact pg_catalog.bool;\n'
        '    v_seq    pg_catalog.int8;\n'
        '%11$s'
        'BEGIN\n'
        -- Its owner may alter it once its guard has been asked: under another search path what policies and generated columns say would be his own.
        '    IF current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%1$s::pg_catalog.oid)\n'
        '       OR pg_catalog.current_setting(''search_path'') OPERATOR(pg_catalog.<>) ''pg_catalog, pg_temp''%13$s\n'
        '       OR NOT pg_catalog.has_schema_privilege(%6$s::pg_catalog.oid, ''USAGE'')\n'
        '       OR pg_catalog.has_table_privilege(pg_catalog.to_regclass(%2$L)::pg_catalog.oid, ''INSERT'') IS NOT TRUE THEN\n'
        '        RETURN NULL;\n'
        '    END IF;\n'
        -- The owner may lock his buffer, or spoil its sequence: then the change is missed, which is noted where he has no say, and the
        -- writer goes on.  Nothing is written inside, so the subtransaction takes no transaction id.
        '    BEGIN\n'
        '        LOCK TABLE %2$s IN ROW EXCLUSIVE MODE;\n'
        '        v_intact := %3$s;\n'
        '        IF v_intact IS NOT NULL THEN\n'
        '            v_seq := pg_catalog.nextval(%9$L::pg_catalog.regclass);\n'
        '        END IF;\n'
        '    EXCEPTION WHEN OTHERS THEN\n'
        '        INSERT INTO pgtrickle_changes.missed_changes (source_relid) VALUES (%10$s);\n'
        '        RETURN NULL;\n'
        '    END;\n'
        '%7$s'
        '    IF v_intact THEN\n'
        '        %4$s;\n'
        '    ELSIF NOT v_intact THEN\n'
        '        %5$s;\n'
        '%12$s'
        '    END IF;\n'
        '    RETURN NULL;\n'
        'END\n',
        p_owner, format('pgtrickle_changes.%I', p_buffer), v_intact, v_change, v_marker,
        'pgtrickle_changes'::regnamespace::oid, v_trial,
        -- Policies name the row's columns without more ado.
        CASE WHEN v_filter.predicate IS NOT NULL THEN E'#variable_conflict use_column\n' ELSE '' END, v_sequence::text, p_source,
        CASE WHEN v_filter.predicate IS NOT NULL AND p_mode = 'row' THEN E'    v_old    pg_catalog.bool;\n    v_new    pg_catalog.bool;\n' ELSE '' END,
        -- An older snapshot doesn't see a buffer that was made, or widened, since; an update of what nobody reads is looked at by none.
        CASE WHEN v_change <> 'NULL' THEN format(
            E'    ELSIF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.<>) ''read committed''%s THEN\n'
            '        INSERT INTO pgtrickle_changes.missed_changes (source_relid) VALUES (%s);\n',
            CASE WHEN p_mode = 'statement' AND p_event <> 'trunc' THEN format(' AND EXISTS (SELECT FROM %I)', v_rows) ELSE '' END, p_source)
        ELSE '' END,
        CASE WHEN position('\' IN v_trial || v_change) > 0 THEN ' OR pg_catalog.current_setting(''standard_conforming_strings'') OPERATOR(pg_catalog.<>) ''on''' END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_body IS 'The body of a capture function';

CREATE FUNCTION pgtrickle_changes.capture_images(p_source oid, p_rows text, p_predicate text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The subqueries of policies call the row by its table's name.
BEGIN
    RETURN CASE WHEN p_predicate IS NULL THEN p_rows
                ELSE (SELECT format('(SELECT %1$I.* FROM %2$s AS %1$I WHERE %3$s)', c.relname, p_rows, p_predicate) FROM pg_class AS c WHERE c.oid = p_source) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_images IS 'The changed rows that the owner may see, as SQL';

CREATE FUNCTION pgtrickle_changes.capture_trial(p_source oid, p_predicate text, p_may_fail boolean, p_event text, p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A policy may raise an error at rows that the owner would never have come across.  Without a write inside, the subtransaction takes no
-- transaction id.
DECLARE
    v_images CONSTANT text[] := CASE p_event WHEN 'ins' THEN '{new}'::text[] WHEN 'del' THEN '{old}'::text[] ELSE '{old,new}'::text[] END;
    v_asked  text;
BEGIN
    IF p_mode = 'row' THEN
        SELECT format('SELECT %s INTO %s', string_agg(format('EXISTS %s', pgtrickle_changes.capture_images(p_source, format('(SELECT %s.*)', upper(i.name)), p_predicate)), ', '),
                      string_agg('v_' || i.name, ', ')) INTO v_asked FROM unnest(v_images) AS i(name);
    ELSIF p_may_fail THEN
        SELECT 'PERFORM ' || string_agg(format('(SELECT pg_catalog.count(*) FROM %s AS r)', pgtrickle_changes.capture_images(p_source, '__pgt_' || i.name, p_predicate)), ', ')
          INTO v_asked FROM unnest(v_images) AS i(name);
    END IF;
    IF v_asked IS NULL THEN
        RETURN '';
    END IF;
    RETURN format(CASE WHEN p_may_fail
                       THEN E'    IF v_intact THEN\n        BEGIN\n            %s;\n        EXCEPTION WHEN OTHERS THEN\n            v_intact := false;\n        END;\n    END IF;\n'
                       ELSE E'    IF v_intact THEN\n        %s;\n    END IF;\n' END, v_asked);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_trial IS 'How a capture function asks policies of changed rows, if that may fail or is done row by row';

CREATE FUNCTION pgtrickle_changes.capture_guard(p_function oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
-- A trigger's WHEN: true as long as the function is the one the engine made, and nobody can move it away.  The writer's settings reach into the
-- text that pg_get_functiondef makes: all identifiers may be quoted, and a temporary type called "trigger" makes it
-- qualify the result type.  All four spellings are accepted, or a writer could switch capture off for himself.
DECLARE
    v_plain  text := pg_get_functiondef(p_function);
    v_quoted text;
BEGIN
    PERFORM set_config('quote_all_identifiers', 'on', true);
    v_quoted := pg_get_functiondef(p_function);
    RETURN format('pg_catalog.md5(pg_catalog.pg_get_functiondef(%s::pg_catalog.oid)) OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.text[])'
        ' AND pg_catalog.strpos(pg_catalog.current_setting(''backtrace_functions''), %L) OPERATOR(pg_catalog.=) 0',
        p_function, ARRAY[
            md5(v_plain),
            md5(regexp_replace(v_plain, E'\n RETURNS trigger\n', E'\n RETURNS pg_catalog.trigger\n')),
            md5(v_quoted),
            md5(regexp_replace(v_quoted, E'\n RETURNS "trigger"\n', E'\n RETURNS "pg_catalog"."trigger"\n'))],
        (SELECT pgtrickle_changes.not_held('changes_' || substring(p.proname FROM '^capture_(.*)_[a-z]+$')) FROM pg_proc AS p WHERE p.oid = p_function));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_guard IS 'The WHEN of a capture''s trigger: its function is the one that the engine made';

CREATE FUNCTION pgtrickle_changes.capture_place(p_source oid, p_event integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- By the event's place among inserts, updates, deletes and TRUNCATE.  PostgreSQL makes copies of row triggers on partitions that come later, too.  Their rows aren't the stream tables' until all is recomputed, and nothing
-- holds the functions there.
BEGIN
    RETURN (SELECT format('%s.tableoid OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[])', CASE p_event WHEN 3 THEN 'OLD' ELSE 'NEW' END,
                          pgtrickle_changes.capture_relations(p_source))
              FROM pg_class AS c WHERE c.oid = p_source AND c.relkind = 'p' AND p_event < 4);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_place IS 'What a guard asks about the partition of a row; NULL where there are none';

CREATE FUNCTION pgtrickle_changes.capture_functions(p_buffer name) RETURNS name[]
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_prefix text := 'capture_' || substr(p_buffer, length('changes_') + 1);
BEGIN
    RETURN ARRAY[v_prefix || '_ins', v_prefix || '_upd', v_prefix || '_del', v_prefix || '_trunc']::name[];
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_functions IS 'The names of a capture''s functions, by event';

CREATE FUNCTION pgtrickle_changes.capture_triggers(p_buffer name, p_source oid, p_relation oid) RETURNS name[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- What the triggers of a capture are called on the source, and on what is below it.  There, and where PostgreSQL itself makes copies
-- of them on partitions, the source is in the name: what is below may be a source too, and a clash would forbid its ATTACH.
-- The last two are there only where their owner is a stranger to the table's.
DECLARE
    v_suffix text := substr(p_buffer, length(format('changes_%s', p_source)) + 1);
BEGIN
    IF p_relation <> p_source OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source AND c.relkind = 'p') THEN
        v_suffix := format('_%s%s', p_source, v_suffix);
    END IF;
    RETURN ARRAY['pg_trickle_cdc_ins' || v_suffix, 'pg_trickle_cdc_upd' || v_suffix,
                 'pg_trickle_cdc_del' || v_suffix, 'pg_trickle_cdc_trunc' || v_suffix,
                 'pgtrickle_hold' || v_suffix, 'pgtrickle_hold_row' || v_suffix]::name[];
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_triggers IS 'The names of a capture''s triggers on a relation, by event';

CREATE FUNCTION pgtrickle_changes.capture_relations(p_source oid) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The source, and the partitions or children below it, which can be written by themselves.  Nobody but their session sees temporary ones.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = p_source) THEN
        RETURN ARRAY[p_source];
    END IF;
    RETURN ARRAY(SELECT c.oid FROM pgtrickle_changes.relations_below(p_source) AS b JOIN pg_class AS c ON c.oid = b.relid
                  WHERE c.relpersistence <> 't' ORDER BY c.oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_relations IS 'The source, and the partitions or children below it, which can be written by themselves';
