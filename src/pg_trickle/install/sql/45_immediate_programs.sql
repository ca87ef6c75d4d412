-- The generated functions: what a statement changed, and the compiler's programs on it, as PL/pgSQL.

CREATE FUNCTION pgtrickle_changes.immediate_warning(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('RAISE WARNING USING MESSAGE = %L, DETAIL = ''It did not hold rows that the change takes away: somebody else has written to it.'';',
                  format('stream table "%s" is recomputed', p_table.pgt_name));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_warning IS 'The warning that a stream table is recomputed, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_body(p_table pgtrickle.pgt_stream_tables, p_checked text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The frame of every generated function: it runs as its owner or not at all, and only under the search path that it was made with, and with literals read as they were written.  Functions that others
-- call aren't compared with an original, and who fires a trigger compared it a while ago.
BEGIN
    RETURN format(E'\n#variable_conflict use_column\n'
        'DECLARE\n%1$s'
        'BEGIN\n'
        '    IF current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%2$s::pg_catalog.oid) OR pg_catalog.current_setting(''search_path'') OPERATOR(pg_catalog.<>) ''pg_catalog, pg_temp''%3$s THEN\n'
        '        IF current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%2$s::pg_catalog.oid) THEN\n'
        '            RETURN NULL;\n'
        '        END IF;\n'
        '        RAISE EXCEPTION USING ERRCODE = ''55000'', MESSAGE = %4$L, HINT = %5$L;\n'
        '    END IF;\n',
        (SELECT string_agg(format(E'    %s pg_catalog.%s;\n', v.name, v.type), '' ORDER BY v.name)
           FROM (VALUES ('__pgt_rows', 'int8'), ('__pgt_open', 'int8'), ('__pgt_held', 'bool'), ('__pgt_wrote', 'int8'), ('__pgt_todo', 'int8'), ('__pgt_texts', 'text[]'),
                        ('__pgt_opened', 'int8'), ('__pgt_moved', 'bool'), ('__pgt_member', 'bool'), ('__pgt_noted', 'int8'),
                        ('__pgt_former', 'text'), ('__pgt_name', 'text'), ('__pgt_stack', 'text'), ('__pgt_side', 'int8'), ('__pgt_shared', 'bool'), ('__pgt_single', 'record')) AS v(name, type)
          WHERE position(v.name IN p_checked) > 0),
        p_table.owner_oid,
        CASE WHEN position('\' IN p_checked) > 0 THEN ' OR pg_catalog.current_setting(''standard_conforming_strings'') OPERATOR(pg_catalog.<>) ''on''' END,
        format('a function that maintains stream table "%s" has been altered', p_table.pgt_name), pgtrickle_changes.immediate_hint(p_table))
        || p_checked || E'\n    RETURN NULL;\nEND\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_body IS 'The body of a generated trigger function around what it does';

CREATE FUNCTION pgtrickle_changes.immediate_texts(p_program jsonb, p_delta text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT 'WITH __pgt_delta AS (' || p_delta || ')' || s.value
                   FROM jsonb_array_elements_text(p_program) WITH ORDINALITY AS s(value, place) ORDER BY s.place);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_texts IS 'The statements of a program on a delta';

CREATE FUNCTION pgtrickle_changes.immediate_again(p_table pgtrickle.pgt_stream_tables,
                                                  p_why text DEFAULT 'Another transaction has deleted what this one writes anew.') RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('RAISE EXCEPTION USING ERRCODE = ''40001'', MESSAGE = %L, DETAIL = %L, HINT = ''Try again.'';',
                  format('could not serialize access to stream table "%s" due to concurrent update', p_table.pgt_name), p_why);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_again(pgtrickle.pgt_stream_tables, text) IS 'What tells a transaction that it has to be done again, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_again(p_id bigint, p_why text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT pgtrickle_changes.immediate_again(st, p_why) FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_id = p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_again(bigint, text) IS 'The same for a stream table''s number';

CREATE FUNCTION pgtrickle_changes.immediate_statements(p_plan jsonb, p_source oid, p_event text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(p_plan #> ARRAY['programs', 'immediate', 'sided', p_source::text, p_event], p_plan #> ARRAY['programs', 'immediate', 'sources', p_source::text]);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_statements IS 'The program for an event: one of its own, or that for whatever a statement changes';

CREATE FUNCTION pgtrickle_changes.immediate_one(p_table pgtrickle.pgt_stream_tables, p_source oid, p_columns text[], p_event text, p_plan jsonb, p_part text,
                                                p_many boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From what was kept of the row, if it was; p_many: there may be several.
DECLARE
    v_kept boolean := NOT p_many AND pgtrickle_changes.immediate_single(p_source, p_table.owner_oid, p_columns, p_event) IS NOT NULL;
BEGIN
    RETURN 'WITH ' || (
        SELECT string_agg(CASE WHEN v_kept THEN format('%s AS NOT MATERIALIZED (SELECT %s, %s AS w)', i.name, i.kept, i.weight)
                               ELSE format('%s AS (%s)', i.name, pgtrickle_changes.immediate_delta(p_source, p_table.owner_oid, p_columns, i.event)) END, ', ' ORDER BY i.weight)
          FROM (SELECT v.*, (SELECT string_agg(format('__pgt_single.%s%s AS %I', v.image, c.place, c.buffer_column), ', ' ORDER BY c.place)
                               FROM (SELECT r.buffer_column, row_number() OVER (ORDER BY r.attnum) AS place FROM pgtrickle_changes.read_columns(p_source, p_columns) AS r) AS c) AS kept
                  FROM (VALUES ('__pgt_before', 'o', -1, 'del'), ('__pgt_after', 'n', 1, 'ins')) AS v(name, image, weight, event)
                 WHERE p_event IN (v.event, 'upd')) AS i)
        || ' ' || coalesce(p_plan #>> ARRAY['programs', 'immediate', p_part, p_event],
                           CASE p_part WHEN 'one' THEN p_plan #>> ARRAY['programs', 'immediate', 'single', p_source::text, p_event] END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_one IS 'A statement for where a single row changed: that which may do all the work (one), those which show (shown) or remove (gone) its group after it; or for what an INSERT brought and nobody has changed since (brought); NULL if there is none';

CREATE FUNCTION pgtrickle_changes.immediate_step(p_text text, p_place integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A statement of a program as it stands, with a plan that the session keeps; and for more than a few hundred rows planned for their
-- number.  A plan made for one row can take hours over a hundred thousand.  Those texts are elsewhere: the trigger's WHEN compares
-- all of this.
BEGIN
    RETURN format(E'        IF __pgt_rows OPERATOR(pg_catalog.<=) 200 THEN\n            %s INTO __pgt_wrote;\n'
                  '        ELSE\n            EXECUTE __pgt_texts[%s] INTO __pgt_wrote;\n        END IF;\n', p_text, p_place);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_step IS 'A statement of a program as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_large(p_name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN E'        IF __pgt_rows OPERATOR(pg_catalog.>) 200 THEN\n            __pgt_texts := pgtrickle_changes.' || p_name || E'_texts();\n        END IF;\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_large IS 'What fetches a program''s texts for many rows, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_program(p_texts text[], p_name text, p_rest text, p_short boolean, p_begun boolean) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- p_short: a statement that yields 0 is the last.  Its first statement may have been done (__pgt_wrote) for a single row (p_begun).
DECLARE
    v_result text := pgtrickle_changes.immediate_large(p_name);
    v_step   text;
BEGIN
    FOR v_place IN 1..cardinality(p_texts) LOOP
        v_step := pgtrickle_changes.immediate_step(p_texts[v_place], v_place);
        v_result := v_result || CASE WHEN p_begun AND v_place = 1 THEN E'        IF __pgt_wrote IS NULL THEN\n' || v_step || E'        END IF;\n' ELSE v_step END
            || E'        IF __pgt_wrote IS NULL THEN\n            ' || p_rest || E'\n        END IF;\n'
            || CASE WHEN p_short AND v_place < cardinality(p_texts) THEN E'        IF __pgt_wrote OPERATOR(pg_catalog.=) 0 THEN\n            RETURN NULL;\n        END IF;\n' ELSE '' END;
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_program IS 'A program as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_of_group(p_shown text, p_gone text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What "one" left to do for the group of its row: to show it (above 0), to remove it (below), or to show that which the row came to and remove that which it left (2).
-- Who doesn't get done leaves it to the program's second statement and its third, or only to that.
DECLARE
    v_done constant text := E'        IF __pgt_wrote OPERATOR(pg_catalog.=) 0%s THEN\n            RETURN NULL;\n        END IF;\n';
BEGIN
    RETURN coalesce(E'    IF __pgt_todo OPERATOR(pg_catalog.>) 0 THEN\n        ' || p_shown || E' INTO __pgt_wrote;\n' || format(v_done, ' AND __pgt_todo OPERATOR(pg_catalog.=) 1')
                    || E'        __pgt_todo := CASE __pgt_wrote WHEN 0 THEN -1 ELSE 0 END;\n        __pgt_wrote := 1;\n    END IF;\n', '')
        || coalesce(E'    IF __pgt_todo OPERATOR(pg_catalog.<) 0 THEN\n        ' || p_gone || E' INTO __pgt_wrote;\n' || format(v_done, '') || E'        __pgt_wrote := -1;\n    END IF;\n', '');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_of_group IS 'What is tried after a single row changed its group and before the rest of the program, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_by_rows(p_table pgtrickle.pgt_stream_tables, p_one text, p_group text, p_single text, p_plain text, p_texts text[], p_name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- First what may do all the work for a single row, if there is such a statement.  If it did nothing, the program's statements, as many as it takes; where the row changed its group,
-- statements for just that group are tried before the second; below 0 says that of three only the third is left to do.  Nothing is
-- tried where nothing changed: statement triggers of the stream table would fire.
DECLARE
    v_again  text := E'        IF __pgt_wrote IS NULL THEN\n            ' || pgtrickle_changes.immediate_again(p_table) || E'\n        END IF;\n';
    v_done   text := E'        IF __pgt_wrote OPERATOR(pg_catalog.=) 0 THEN\n            RETURN NULL;\n        END IF;\n';
    v_one    text := E'    IF ' || p_single || E' THEN\n        ' || p_one || E' INTO __pgt_wrote;\n'
                     || CASE WHEN p_group <> '' THEN E'        __pgt_todo := __pgt_wrote;\n' ELSE '' END || E'    END IF;\n';
    v_result text := p_plain || coalesce(v_one, '') || E'    IF __pgt_wrote IS NULL THEN\n' || pgtrickle_changes.immediate_large(p_name);
BEGIN
    FOR v_place IN 1..cardinality(p_texts) LOOP
        v_result := v_result || CASE WHEN v_place = 2 AND v_place < cardinality(p_texts) THEN E'        IF __pgt_wrote OPERATOR(pg_catalog.>) 0 THEN\n' ELSE '' END
            || pgtrickle_changes.immediate_step(p_texts[v_place], v_place)
            || CASE WHEN v_place = 2 AND v_place < cardinality(p_texts) THEN E'        END IF;\n' ELSE '' END
            || CASE WHEN v_place > 1 OR v_place = cardinality(p_texts) THEN v_again ELSE '' END
            || CASE WHEN v_place = 1 THEN E'    END IF;\n' ELSE '' END || CASE WHEN v_place < cardinality(p_texts) THEN v_done ELSE '' END
            || CASE WHEN v_place = 1 THEN p_group ELSE '' END;
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_by_rows IS 'A program that row locks are enough for, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_in_group(p_one text, p_shown text, p_gone text, p_single text, p_lost text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A single row of a group with extremes: most often the group shows what it did (0).  Else it is shown (above 0), or its extremes are looked for (below); if it has no
-- rows any more, the program's later statements remove it.  Of a join (p_lost): what it took away wasn't there (below 0).
BEGIN
    RETURN coalesce(E'        IF ' || p_single || E' THEN\n            ' || p_one || E' INTO __pgt_wrote;\n'
                    || coalesce(E'            IF __pgt_wrote OPERATOR(pg_catalog.>) 0 THEN\n                ' || p_shown || E' INTO __pgt_wrote;\n                RETURN NULL;\n            END IF;\n', '')
                    || coalesce(E'            IF __pgt_wrote OPERATOR(pg_catalog.<) 0 THEN\n                ' || p_gone || E' INTO __pgt_wrote;\n                __pgt_wrote := coalesce(__pgt_wrote, 1);\n            END IF;\n',
                                E'            IF __pgt_wrote OPERATOR(pg_catalog.<) 0 THEN\n                ' || p_lost || E'\n            END IF;\n', '')
                    || E'            IF __pgt_wrote OPERATOR(pg_catalog.=) 0 THEN\n                RETURN NULL;\n            END IF;\n        END IF;\n', '');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_in_group IS 'What is tried for a single row of a group before the program, as PL/pgSQL; nothing, where there is no such statement';

CREATE FUNCTION pgtrickle_changes.immediate_repaired(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What it repaired itself a transaction sees.
BEGIN
    RETURN format('EXISTS (SELECT FROM (SELECT pg_catalog.pg_sequence_last_value(''pgtrickle_changes.repaired_%s''::pg_catalog.regclass)::pg_catalog.text::pg_catalog.xid8 AS xid) AS r'
                  ' WHERE NOT pg_catalog.pg_visible_in_snapshot(r.xid, pg_catalog.pg_current_snapshot()) AND r.xid IS DISTINCT FROM pg_catalog.pg_current_xact_id_if_assigned())', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_repaired IS 'Whether another transaction has repaired a stream table since the snapshot of this one, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_since(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A snapshot from before the stream table was filled, or repaired, doesn't show what is in it: nothing would be found to be taken away.  The turn's row, which nobody takes where row locks are enough, was made
-- with it; the sequence has the number of the transaction that repaired it last, whether that was rolled back or not.  An expression that reads a table takes some microseconds
-- to begin with, also where what comes before it has told the answer: so here, and wherever most statements come along, it stands in an IF of its own.
BEGIN
    RETURN format(E'    IF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.<>) ''read committed'' THEN\n'
                  '        IF NOT EXISTS (SELECT FROM pgtrickle_changes.turn_%1$s) OR %2$s THEN\n            %3$s\n        END IF;\n    END IF;\n',
                  p_table.pgt_id, pgtrickle_changes.immediate_repaired(p_table.pgt_id),
                  pgtrickle_changes.immediate_again(p_table, 'Its maintenance has begun, or it was repaired, since the snapshot of this transaction.'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_since IS 'What refuses to maintain a stream table in a snapshot from before it was filled, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_after(p_table pgtrickle.pgt_stream_tables, p_source oid, p_columns text[], p_event text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What happens after a statement: the note that it is under way goes; then the change is held back, or worked off.
DECLARE
    v_id      bigint := p_table.pgt_id;
    v_by_rows boolean := (p_plan #>> '{programs,immediate,by_rows}')::boolean;
    v_delta   text := pgtrickle_changes.immediate_delta(p_source, p_table.owner_oid, p_columns, p_event);
    v_turn    boolean := (p_plan #>> '{programs,immediate,turn}')::boolean;
    v_rest    text := format('PERFORM pgtrickle_changes.maintain_%s_rest(%%s);', v_id);
    v_lost    text := CASE WHEN v_turn THEN format(v_rest, 'NULL') || E'\n            RETURN NULL;' END;
    v_one     text := pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'one');
    v_count   text := CASE WHEN p_event = 'trunc' THEN '1' ELSE pgtrickle_changes.immediate_count(p_source, p_table.owner_oid, p_columns, p_event) END;
    v_single  text := CASE WHEN p_event = 'upd' OR v_one IS NOT NULL
                           THEN pgtrickle_changes.immediate_single(p_source, p_table.owner_oid, p_columns, p_event) END;
    v_counted text := coalesce(v_single, format('__pgt_rows := %s;', v_count)) || E'\n';
    v_checks  text := pgtrickle_changes.immediate_checks(p_table) || pgtrickle_changes.immediate_since(p_table);
    v_sound   text := pgtrickle_changes.immediate_sound(p_table);
    v_closed  text := pgtrickle_changes.keep_strangers_out(p_table, pgtrickle_changes.immediate_written(p_table));
    v_name    text := format('maintain_%s_%s_%s', v_id, p_source, p_event);
    v_is_one  text := pgtrickle_changes.immediate_is_single(p_source, p_table.owner_oid, p_columns, p_event);
    v_texts   text[] := pgtrickle_changes.immediate_texts(pgtrickle_changes.immediate_statements(p_plan, p_source, p_event), v_delta);
    v_plain   text := pgtrickle_changes.immediate_plain(p_table, p_source, p_columns, p_event, p_plan);
    v_work    text := CASE WHEN p_event = 'trunc' THEN '        ' || format(v_rest, 'true') || E'\n'
        ELSE CASE WHEN v_turn THEN '        ' || pgtrickle_changes.immediate_turn_after(v_id, p_source, false) ELSE '' END
             || pgtrickle_changes.immediate_in_group(v_one,
                                                     pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'shown'),
                                                     pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'gone'), v_is_one, v_lost)
             || CASE WHEN v_turn THEN v_plain ELSE '' END
             || pgtrickle_changes.immediate_program(v_texts, v_name, coalesce(v_lost, pgtrickle_changes.immediate_again(p_table)),
                    NOT v_turn OR p_plan #> ARRAY['programs', 'immediate', 'sided', p_source::text, p_event] IS NOT NULL, NOT v_turn OR v_one IS NOT NULL) END;
    -- It will be needed, and comes before the rows that others lock meanwhile.
    v_early   text := CASE WHEN v_turn AND NOT v_by_rows THEN E'IF ' || pgtrickle_changes.immediate_ready(p_table) || E' THEN\n            '
                           || pgtrickle_changes.immediate_turn_after(v_id, p_source, true) || E'        END IF;\n        ' ELSE '' END;
    v_hold    text := CASE WHEN p_event = 'trunc' THEN pgtrickle_changes.immediate_note(v_id, 't') ELSE format(
        'EXECUTE (pgtrickle_changes.maintain_%s_%s_%s_texts())[%s];', v_id, p_source, p_event,
        1 + jsonb_array_length(pgtrickle_changes.immediate_statements(p_plan, p_source, p_event))) END
        || E'\n            __pgt_held := true;\n            __pgt_rows := 0;';
    v_some    text := '__pgt_rows OPERATOR(pg_catalog.>) 0';
    v_coming  text := CASE WHEN v_early <> '' THEN pgtrickle_changes.immediate_coming(p_source, p_event) END;
BEGIN
    IF v_by_rows THEN
        RETURN v_sound || v_closed || '    ' || v_counted || E'    IF __pgt_rows OPERATOR(pg_catalog.=) 0 THEN\n        RETURN NULL;\n    END IF;' || v_checks
            || CASE WHEN p_event = 'trunc' THEN v_work ELSE pgtrickle_changes.immediate_by_rows(p_table,
                   v_one, pgtrickle_changes.immediate_of_group(pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'shown'),
                                                        pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'gone')),
                   v_is_one, v_plain, v_texts, v_name) END;
    END IF;
    IF v_coming IS NOT NULL THEN
        v_hold := format(E'IF %s THEN\n            %s\n        END IF;', v_some, v_hold);
        v_some := format('(%s OR __pgt_open OPERATOR(pg_catalog.>) 1 AND %s)', v_some, v_coming);
    END IF;
    RETURN v_sound || v_closed || pgtrickle_changes.immediate_take_back(v_id, v_counted) || E'\n' || pgtrickle_changes.immediate_moves(v_id, p_source, p_event)
        || pgtrickle_changes.immediate_merged(v_id, p_source, p_event) || pgtrickle_changes.immediate_tree_kept(v_id, false) || $q$
    IF __pgt_open OPERATOR(pg_catalog.>) 1 OR __pgt_held OR __pgt_rows OPERATOR(pg_catalog.=) 0 THEN
        IF (__pgt_open OPERATOR(pg_catalog.>) 1 OR __pgt_held) AND $q$ || v_some || $q$ THEN
        $q$ || v_early || v_hold || $q$
        END IF;
        IF __pgt_open OPERATOR(pg_catalog.>) 1 OR __pgt_held IS NOT TRUE AND __pgt_rows OPERATOR(pg_catalog.=) 0 THEN
            RETURN NULL;
        END IF;
    END IF;$q$ || v_checks || $q$
    IF __pgt_held THEN
        $q$ || format(v_rest, 'false') || $q$
    ELSE
$q$ || pgtrickle_changes.immediate_tried(p_plan, v_work, format(v_rest, 'true')) || '    END IF;';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_after IS 'What happens after a statement on a source, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_rest(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Works off what was held back; or recomputes, when a source was truncated, or (NULL) the stream table turned out not to hold what it should.
DECLARE
    v_id     bigint := p_table.pgt_id;
    v_clear  text := '';
    v_source oid;
    v_text   text;
    v_held   text := '';
    v_turn   boolean := (p_plan #>> '{programs,immediate,turn}')::boolean;
BEGIN
    FOR v_text IN SELECT s.value FROM jsonb_array_elements_text(p_plan #> '{programs,immediate,held}') WITH ORDINALITY AS s(value, place) ORDER BY s.place LOOP
        v_held := v_held || format(E'    IF NOT p_full THEN\n        EXECUTE %L INTO __pgt_wrote;\n'
                                   '        IF __pgt_wrote IS NULL THEN\n            %s\n        END IF;\n    END IF;\n',
                                   v_text, CASE WHEN v_turn THEN pgtrickle_changes.immediate_warning(p_table) || E'\n            p_full := true;' ELSE pgtrickle_changes.immediate_again(p_table) END);
    END LOOP;
    IF pgtrickle_changes.immediate_roots(v_id) <> '{}' THEN
        v_clear := format(E'    DELETE FROM pgtrickle_changes.moved_%s AS m WHERE m.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();\n', v_id);
    END IF;
    FOREACH v_source IN ARRAY pgtrickle_changes.immediate_sources(v_id) LOOP
        v_clear := v_clear || format(E'    DELETE FROM pgtrickle_changes.held_%s_%s AS h WHERE h.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();\n', v_id, v_source);
    END LOOP;
    RETURN format($q$
    IF p_full IS NULL THEN
        %3$s
        p_full := true;
    END IF;
    p_full := p_full OR EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u
                                 WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.what OPERATOR(pg_catalog.=) 't'::pg_catalog."char");
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();
    %2$s
$q$, v_id, CASE WHEN v_turn THEN pgtrickle_changes.immediate_turn(v_id, true, pgtrickle_changes.immediate_snapshot(v_id)) ELSE pgtrickle_changes.immediate_snapshot(v_id) END, pgtrickle_changes.immediate_warning(p_table)) || pgtrickle_changes.immediate_tried(p_plan, v_held, 'p_full := true;')
        || pgtrickle_changes.immediate_full(p_table, p_plan) || v_clear;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_rest IS 'What works off held changes, or recomputes, as PL/pgSQL';
