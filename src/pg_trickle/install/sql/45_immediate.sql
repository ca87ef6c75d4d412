-- IMMEDIATE: maintenance inside the statement that writes a source (docs/internals.md §10, docs/decisions/0010).
--
-- Each stream table has triggers of its own on each of its sources.  BEFORE a statement one notes that the statement is under
-- way; AFTER it another takes the note back and, if none is left, runs the program for what changed.  While other statements on
-- the stream table's sources are under way (a writable CTE, a cascade, a trigger, a function that writes) the change is held
-- back: who is the last works it all off.  So at the end of every outermost statement the stream table is its query.
--
-- The functions are generated: their programs are static SQL, planned once a session.  They belong to the stream table's owner and
-- do nothing unless they run as him; the triggers' WHEN calls no function that was altered since (decision 0002).

CREATE TABLE pgtrickle_changes.immediate (
    pgt_id   bigint PRIMARY KEY REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    stamp    text   NOT NULL,
    triggers name[] NOT NULL,
    number   bigint NOT NULL
);
COMMENT ON TABLE pgtrickle_changes.immediate IS 'The stream tables whose triggers are in place, and the version of what the engine made for them';

CREATE FUNCTION pgtrickle_changes.immediate_sources(p_id bigint) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- In the one order in which everybody locks them.
BEGIN
    RETURN ARRAY(SELECT s.key::oid FROM pgtrickle.pgt_plans AS p CROSS JOIN LATERAL jsonb_each(p.plan #> '{programs,immediate,sources}') AS s
                  WHERE p.pgt_id = p_id ORDER BY s.key::oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_sources IS 'The sources that an IMMEDIATE stream table follows, in the one order in which everybody locks them';

CREATE FUNCTION pgtrickle_changes.refuse_immediate(p_plan jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source oid;
    v_why    text;
BEGIN
    IF NOT (p_plan ->> 'incremental')::boolean THEN
        PERFORM pgtrickle_changes.refuse(p_plan -> 'refusal');
    END IF;
    IF jsonb_typeof(p_plan #> '{programs,immediate,sources}') IS DISTINCT FROM 'object'
       OR jsonb_typeof(p_plan #> '{programs,immediate,held}') IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'the query can''t be maintained in refresh mode IMMEDIATE'
            USING ERRCODE = 'feature_not_supported', DETAIL = coalesce(p_plan #>> '{immediate_refusal}',
                  'What it shows changes without any statement that writes, or its plan was made by another version.'),
                  HINT = 'Use AUTO: with schedule ''calculated'' changes show within milliseconds of their commit.';
    END IF;
    FOR v_source IN SELECT s::oid FROM jsonb_object_keys(p_plan #> '{programs,immediate,sources}') AS s LOOP
        SELECT CASE WHEN pgtrickle_changes.relation_kind(v_source) NOT IN ('table', 'stream_table')
                    THEN format('its kind is %s', replace(pgtrickle_changes.relation_kind(v_source), '_', ' '))
                    WHEN c.relispartition THEN 'it is a partition'
                    WHEN EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid) THEN 'it is written by logical replication' END
          INTO v_why FROM pg_class AS c WHERE c.oid = v_source;
        IF v_why IS NOT NULL THEN
            RAISE EXCEPTION 'changes of "%" can''t be followed in refresh mode IMMEDIATE', v_source::regclass
                USING ERRCODE = 'feature_not_supported',
                      DETAIL = format('Not every statement that writes it fires its statement triggers: %s.', v_why),
                      HINT = 'Use AUTO: with schedule ''calculated'' changes show within milliseconds of their commit.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.refuse_immediate IS 'Raises if a plan can''t be carried out inside the writing statement';

CREATE FUNCTION pgtrickle_changes.immediate_trigger(p_id bigint, p_event text) RETURNS name
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Triggers fire in the order of their names: stream tables in the order of their ids.
BEGIN
    RETURN format('pg_trickle_imm_%s_%s', lpad(p_id::text, greatest(10, length(p_id::text)), '0'), p_event);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_trigger IS 'The name of a trigger that maintains a stream table, by event';

CREATE FUNCTION pgtrickle_changes.immediate_guard(p_function oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
-- Like capture_guard, and with a hash for which nobody can make two texts: here the owner's query is a part of them.
DECLARE
    v_plain  text := pg_get_functiondef(p_function);
    v_quoted text;
BEGIN
    PERFORM set_config('quote_all_identifiers', 'on', true);
    v_quoted := pg_get_functiondef(p_function);
    RETURN format('pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.pg_get_functiondef(%s::pg_catalog.oid), ''UTF8'')) OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.bytea[])',
        p_function, (SELECT array_agg(sha256(convert_to(t.text, 'UTF8')))
                       FROM unnest(ARRAY[v_plain, regexp_replace(v_plain, E'\n RETURNS trigger\n', E'\n RETURNS pg_catalog.trigger\n'),
                                         v_quoted, regexp_replace(v_quoted, E'\n RETURNS "trigger"\n', E'\n RETURNS "pg_catalog"."trigger"\n')]) AS t(text)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_guard IS 'The WHEN of a maintaining trigger: its function is the one that the engine made';

CREATE FUNCTION pgtrickle_changes.immediate_delta(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_images text;
    v_where  text := coalesce((SELECT ' WHERE ' || f.predicate FROM pgtrickle_changes.capture_filter(p_source, p_owner) AS f), '');
BEGIN
    SELECT coalesce(string_agg(format('%s::%s AS %I, ', coalesce(c.expression, format('r.%I', c.source_column)), c.type, c.buffer_column), ''
                               ORDER BY c.attnum), '')
      INTO v_images FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c;
    RETURN concat_ws(' UNION ALL ',
        CASE WHEN p_event IN ('del', 'upd') THEN 'SELECT ' || v_images || '-1 AS w FROM __pgt_old AS r' || v_where END,
        CASE WHEN p_event IN ('ins', 'upd') THEN 'SELECT ' || v_images || '1 AS w FROM __pgt_new AS r' || v_where END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_delta IS 'The rows that a statement changed and the owner may see, with their weight, in the columns and types of a change buffer';

CREATE FUNCTION pgtrickle_changes.immediate_count(p_source oid, p_owner oid, p_columns text[], p_event text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- How many rows changed in what is read, as an expression; it may say more than there are, but 0 only when there is none.
DECLARE
    v_keys text;
BEGIN
    IF p_event <> 'upd' THEN
        RETURN format('(SELECT pg_catalog.count(*) FROM %I)', CASE p_event WHEN 'ins' THEN '__pgt_new' ELSE '__pgt_old' END);
    END IF;
    SELECT string_agg(concat_ws(', ', CASE WHEN c.groupable THEN format('x.%I', c.buffer_column) END,
                                format(CASE c.identity WHEN 'scale' THEN 'pg_catalog.scale(x.%I)'
                                                       WHEN 'bits' THEN 'pg_catalog.float8send(x.%I)'
                                                       WHEN 'text' THEN 'x.%I::pg_catalog.text' END, c.buffer_column)), ', '
                      ORDER BY c.attnum)
      INTO v_keys FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c;
    IF v_keys IS NULL THEN
        -- An update may bring a row into its owner's sight, or take it away.
        RETURN CASE WHEN pgtrickle_changes.row_security_applies(p_owner, p_source) THEN '(SELECT pg_catalog.count(*) FROM __pgt_new)' ELSE '0' END;
    END IF;
    RETURN format('(SELECT pg_catalog.count(*) FROM (SELECT FROM (%s) AS x GROUP BY %s HAVING pg_catalog.sum(x.w) OPERATOR(pg_catalog.<>) 0) AS g)',
                  pgtrickle_changes.immediate_delta(p_source, p_owner, p_columns, 'upd'), v_keys);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_count IS 'How many rows of a source a statement changed, as an SQL expression';

CREATE FUNCTION pgtrickle_changes.immediate_checks(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the owner must be allowed still, and what must not apply to him, at the head of every maintenance.  Transition tables show
-- every row, and PostgreSQL checks no privilege on them.
DECLARE
    v_may    text;
    v_hidden text;
    v_traps  text;
BEGIN
    SELECT string_agg(format('pg_catalog.has_schema_privilege(%s::pg_catalog.oid, ''USAGE'') AND (pg_catalog.has_table_privilege(%s::pg_catalog.oid, ''SELECT'')%s)',
                             c.relnamespace, c.oid,
                             (SELECT ' OR ' || string_agg(format('pg_catalog.has_column_privilege(%s::pg_catalog.oid, %s::pg_catalog.int2, ''SELECT'')',
                                                                 c.oid, r.attnum), ' AND ')
                                FROM pgtrickle_changes.read_columns(c.oid, d.columns_used) AS r)), ' AND ' ORDER BY c.oid),
           string_agg(format('(%s) IS NOT TRUE', pgtrickle_changes.policies_hold(c.oid, p_table.owner_oid)), ' OR ' ORDER BY c.oid)
      INTO v_may, v_hidden
      -- What is forced on the owner of the stream table itself would hide its rows from the maintenance.
      FROM pgtrickle.pgt_dependencies AS d JOIN pg_class AS c ON c.oid = d.source_relid
     WHERE d.pgt_id = p_table.pgt_id AND c.oid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id));
    IF current_setting('server_version_num')::integer < 180000 THEN
        -- There a deferred trigger runs as whoever commits.
        v_traps := format($q$
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[]) AND t.tgdeferrable AND NOT t.tgisinternal) THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %L,
            DETAIL = 'A deferred trigger would run as whoever writes the source.', HINT = %L;
    END IF;$q$, ARRAY(SELECT c.oid FROM pg_class AS c WHERE c.oid = p_table.pgt_relid
                      UNION SELECT c.oid FROM pg_class AS c JOIN pgtrickle.pgt_plans AS p ON p.pgt_id = p_table.pgt_id
                       CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
                      WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname = t.item ->> 'name'),
            format('stream table "%s" has a deferrable trigger', p_table.pgt_name), pgtrickle_changes.immediate_hint(p_table));
    END IF;
    RETURN format($q$
    IF NOT (%s) THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = %L, DETAIL = %L, HINT = %L;
    END IF;
    IF %s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %L, DETAIL = %L, HINT = %L;
    END IF;%s$q$, v_may, format('permission denied to maintain stream table "%s"', p_table.pgt_name),
        format('Role "%s", who owns it, may not read a source, or a column of it, that its query uses.', pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_hint(p_table),
        format('%s OR pg_catalog.row_security_active(%s::pg_catalog.oid)', v_hidden, p_table.pgt_relid),
        format('stream table "%s" has to be made anew', p_table.pgt_name),
        format('Row-level security of a source, or of the stream table itself, shows other rows to role "%s", who owns it, than when it was made.',
               pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_hint(p_table), coalesce(v_traps, ''));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_checks IS 'What every maintenance has to check first, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_hint(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('Its owner can repair it with SELECT pgtrickle.refresh_stream_table(%1$L); or end its maintenance with SELECT pgtrickle.suspend_stream_table(%1$L);',
                  format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hint IS 'How an owner gets out when his stream table can''t be maintained';

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
-- The frame of every generated function: it runs as its owner or not at all.
BEGIN
    RETURN format(E'\n#variable_conflict use_column\n'
        'DECLARE\n%s'
        'BEGIN\n'
        '    IF current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%s::pg_catalog.oid) THEN\n'
        '        RETURN NULL;\n'
        '    END IF;\n',
        (SELECT string_agg(format(E'    %s pg_catalog.%s;\n', v.name, v.type), '' ORDER BY v.name)
           FROM (VALUES ('__pgt_rows', 'int8'), ('__pgt_open', 'int8'), ('__pgt_held', 'bool'), ('__pgt_wrote', 'int8'), ('__pgt_texts', 'text[]')) AS v(name, type)
          WHERE position(v.name IN p_checked) > 0),
        p_table.owner_oid) || p_checked || E'\n    RETURN NULL;\nEND\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_body IS 'The body of a generated trigger function around what it does';

CREATE FUNCTION pgtrickle_changes.immediate_turn(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- One transaction at a time from here on; the next statement's snapshot sees what the former ones did.  An update, so that a
-- transaction whose snapshot is older fails with 40001.
BEGIN
    RETURN format('UPDATE pgtrickle_changes.turn_%s AS t SET taken = true', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_turn IS 'The statement by which one transaction at a time maintains a stream table';

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

CREATE FUNCTION pgtrickle_changes.immediate_program(p_texts text[], p_name text, p_by_rows boolean, p_warning text, p_rest text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A program's statements as they stand, with plans that the session keeps; and for more than a few hundred rows planned for their
-- number.  A plan made for one row can take hours over a hundred thousand.  Those texts are elsewhere: the trigger's WHEN hashes
-- all of this.
DECLARE
    v_result text := E'        IF __pgt_rows OPERATOR(pg_catalog.>) 200 THEN\n            __pgt_texts := pgtrickle_changes.' || p_name || E'_texts();\n        END IF;\n';
BEGIN
    FOR v_place IN 1..cardinality(p_texts) LOOP
        v_result := v_result || format(E'        IF __pgt_rows OPERATOR(pg_catalog.<=) 200 THEN\n            %s INTO __pgt_wrote;\n'
                                       '        ELSE\n            EXECUTE __pgt_texts[%s] INTO __pgt_wrote;\n        END IF;\n', p_texts[v_place], v_place);
        IF NOT p_by_rows THEN
            v_result := v_result || E'        IF __pgt_wrote IS NULL THEN\n            ' || p_warning || E'\n            ' || p_rest
                        || E'\n            RETURN NULL;\n        END IF;\n';
        ELSIF v_place < cardinality(p_texts) THEN
            v_result := v_result || E'        IF __pgt_wrote OPERATOR(pg_catalog.=) 0 THEN\n            RETURN NULL;\n        END IF;\n';
        ELSE
            v_result := v_result || E'        IF __pgt_wrote IS NULL THEN\n            RAISE EXCEPTION USING ERRCODE = ''40001'','
                        ' MESSAGE = ''could not serialize access due to concurrent update'','
                        ' DETAIL = ''Another transaction has deleted what this one writes anew.'', HINT = ''Try again.'';\n        END IF;\n';
        END IF;
    END LOOP;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_program IS 'A program as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_after(p_table pgtrickle.pgt_stream_tables, p_source oid, p_columns text[], p_event text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What happens after a statement: the note that it is under way goes; then the change is held back, or worked off.
DECLARE
    v_id      bigint := p_table.pgt_id;
    v_by_rows boolean := (p_plan #>> '{programs,immediate,by_rows}')::boolean;
    v_delta   text := pgtrickle_changes.immediate_delta(p_source, p_table.owner_oid, p_columns, p_event);
    v_rest    text := format('PERFORM pgtrickle_changes.maintain_%s_rest(%%s);', v_id);
    v_count   text := CASE WHEN p_event = 'trunc' THEN '1' ELSE pgtrickle_changes.immediate_count(p_source, p_table.owner_oid, p_columns, p_event) END;
    v_checks  text := pgtrickle_changes.immediate_checks(p_table);
    v_work    text := CASE WHEN p_event = 'trunc' THEN '        ' || format(v_rest, 'true') || E'\n'
        ELSE CASE WHEN v_by_rows THEN '' ELSE '        ' || pgtrickle_changes.immediate_turn(v_id) || E';\n' END
             || pgtrickle_changes.immediate_program(
                    pgtrickle_changes.immediate_texts(p_plan #> ARRAY['programs', 'immediate', 'sources', p_source::text], v_delta),
                    format('maintain_%s_%s_%s', v_id, p_source, p_event), v_by_rows,
                    pgtrickle_changes.immediate_warning(p_table), format(v_rest, 'true')) END;
    v_note    text := format('INSERT INTO pgtrickle_changes.under_way_%s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), %%L);', v_id);
    v_hold    text := CASE WHEN p_event = 'trunc' THEN format(v_note, 't') ELSE format(
        'INSERT INTO pgtrickle_changes.held_%s_%s (%sw, xid) SELECT d.*, pg_catalog.pg_current_xact_id() FROM (%s) AS d; %s', v_id, p_source,
        (SELECT coalesce(string_agg(format('%I, ', c.buffer_column), '' ORDER BY c.attnum), '') FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c),
        v_delta, format(v_note, 'h')) END;
BEGIN
    IF v_by_rows THEN
        RETURN '    __pgt_rows := ' || v_count || E';\n    IF __pgt_rows OPERATOR(pg_catalog.>) 0 THEN' || v_checks || E'\n' || v_work || '    END IF;';
    END IF;
    RETURN format($q$
    WITH mine AS MATERIALIZED (
        SELECT u.ctid AS place, u.what FROM pgtrickle_changes.under_way_%s AS u WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()),
    gone AS (
        DELETE FROM pgtrickle_changes.under_way_%1$s AS u
         WHERE u.ctid OPERATOR(pg_catalog.=) (SELECT m.place FROM mine AS m WHERE m.what OPERATOR(pg_catalog.=) 'o'::"char" LIMIT 1))
    SELECT pg_catalog.count(*) FILTER (WHERE m.what OPERATOR(pg_catalog.=) 'o'::"char"), pg_catalog.bool_or(m.what OPERATOR(pg_catalog.<>) 'o'::"char")
      INTO __pgt_open, __pgt_held FROM mine AS m;
    __pgt_rows := $q$, v_id) || v_count || $q$;
    IF (__pgt_open OPERATOR(pg_catalog.>) 1 OR __pgt_held) AND __pgt_rows OPERATOR(pg_catalog.>) 0 THEN
        $q$ || v_hold || $q$
        __pgt_held := true;
        __pgt_rows := 0;
    END IF;
    IF __pgt_open OPERATOR(pg_catalog.>) 1 OR NOT __pgt_held AND __pgt_rows OPERATOR(pg_catalog.=) 0 THEN
        RETURN NULL;
    END IF;$q$ || v_checks || $q$
    IF __pgt_held THEN
        $q$ || format(v_rest, 'false') || $q$
    ELSE
$q$ || v_work || '    END IF;';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_after IS 'What happens after a statement on a source, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_rest(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Works off what was held back; or recomputes, when a source was truncated, or when the stream table turns out not to hold what it should.
DECLARE
    v_id     bigint := p_table.pgt_id;
    v_clear  text := '';
    v_source oid;
    v_text   text;
    v_held   text := '';
    v_full   text := '';
BEGIN
    FOR v_text IN SELECT s.value FROM jsonb_array_elements_text(p_plan #> '{programs,immediate,held}') WITH ORDINALITY AS s(value, place) ORDER BY s.place LOOP
        v_held := v_held || format(E'    IF NOT p_full THEN\n        EXECUTE %L INTO __pgt_wrote;\n'
                                   '        IF __pgt_wrote IS NULL THEN\n            %s\n            p_full := true;\n        END IF;\n    END IF;\n',
                                   v_text, pgtrickle_changes.immediate_warning(p_table));
    END LOOP;
    FOR v_text IN SELECT s.value FROM jsonb_array_elements_text(p_plan #> '{programs,full}') WITH ORDINALITY AS s(value, place) ORDER BY s.place LOOP
        v_full := v_full || format(E'        EXECUTE %L;\n', v_text);
    END LOOP;
    FOREACH v_source IN ARRAY pgtrickle_changes.immediate_sources(v_id) LOOP
        v_clear := v_clear || format(E'    DELETE FROM pgtrickle_changes.held_%s_%s AS h WHERE h.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();\n', v_id, v_source);
    END LOOP;
    RETURN format($q$
    p_full := p_full OR EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u
                                 WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.what OPERATOR(pg_catalog.=) 't'::"char");
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();
    %2$s;
$q$, v_id, pgtrickle_changes.immediate_turn(v_id)) || v_held || E'    IF p_full THEN\n' || v_full || E'    END IF;\n' || v_clear;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_rest IS 'What works off held changes, or recomputes, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.make_owned_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_arguments text, p_returns text, p_body text) RETURNS regprocedure
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A generated function: the owner's, for nobody else, under the settings of his runner and those of the stream table.
DECLARE
    v_settings text;
    v_function regprocedure;
BEGIN
    -- Pinning takes longer than the rest of the maintenance: the compiler says whether what is pinned can matter.
    SELECT string_agg(format(' SET %I = %L', s.name, coalesce(p_table.settings ->> s.name, s.pinned)), '' ORDER BY s.place)
      INTO v_settings
      FROM (VALUES (1, 'jit', 'off'), (2, 'standard_conforming_strings', 'on'), (3, 'transform_null_equals', 'off'), (4, 'row_security', 'on'),
                   (5, 'TimeZone', 'UTC'), (6, 'DateStyle', 'ISO, MDY'), (7, 'IntervalStyle', 'postgres'), (8, 'extra_float_digits', '1'),
                   (9, 'bytea_output', 'hex'), (10, 'lc_monetary', 'C'), (11, 'lc_numeric', 'C'), (12, 'lc_time', 'C'),
                   (13, 'default_text_search_config', 'pg_catalog.simple')) AS s(place, name, pinned)
     WHERE s.place <= 2 OR p_name LIKE '%\_rest' OR (p_name NOT LIKE '%\_begin' AND p_name NOT LIKE '%\_texts' AND (
           SELECT p.plan #>> '{programs,immediate,settings}' IS DISTINCT FROM 'false' FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id));
    EXECUTE format('CREATE FUNCTION pgtrickle_changes.%I(%s) RETURNS %s LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
                   ' SET search_path = pg_catalog, pg_temp%s AS %L', p_name, p_arguments, p_returns, v_settings, p_body);
    v_function := to_regprocedure(format('pgtrickle_changes.%I(%s)', p_name, replace(p_arguments, 'p_full ', '')));
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', v_function, pg_get_userbyid(p_table.owner_oid));
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', v_function, format('pg_trickle: maintains stream table %s', p_table.pgt_id));
    PERFORM pgtrickle_changes.close_function(v_function);
    RETURN v_function;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_owned_function IS 'Makes a generated function that runs as the stream table''s owner, for nobody else';

CREATE FUNCTION pgtrickle_changes.make_immediate_tables(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- turn: whose row is updated by who maintains.  under_way: a row for each statement under way and each change held back, and held:
-- those changes; both are empty between statements, so a crash may empty them.
DECLARE
    v_id     bigint := p_table.pgt_id;
    v_source record;
BEGIN
    EXECUTE format('CREATE TABLE pgtrickle_changes.turn_%s (taken boolean NOT NULL) WITH (fillfactor = 10)', v_id);
    EXECUTE format('INSERT INTO pgtrickle_changes.turn_%s VALUES (true)', v_id);
    PERFORM pgtrickle_changes.hand_over(p_table, format('pgtrickle_changes.turn_%s', v_id), 'Who maintains stream table');
    EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.under_way_%s (xid xid8 NOT NULL, what "char" NOT NULL)'
                   ' WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0)', v_id);
    EXECUTE format('CREATE INDEX ON pgtrickle_changes.under_way_%s (xid)', v_id);
    PERFORM pgtrickle_changes.hand_over(p_table, format('pgtrickle_changes.under_way_%s', v_id), 'Statements that write sources of stream table');
    FOR v_source IN
        SELECT d.source_relid AS oid, d.columns_used FROM pgtrickle.pgt_dependencies AS d
         WHERE d.pgt_id = v_id AND d.source_relid = ANY (pgtrickle_changes.immediate_sources(v_id))
    LOOP
        EXECUTE format('CREATE UNLOGGED TABLE pgtrickle_changes.held_%s_%s (xid xid8 NOT NULL, w integer NOT NULL%s)'
                       ' WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0)', v_id, v_source.oid,
                       (SELECT string_agg(format(', %I %s', c.buffer_column, c.type), '' ORDER BY c.attnum)
                          FROM pgtrickle_changes.read_columns(v_source.oid, v_source.columns_used) AS c));
        EXECUTE format('CREATE INDEX ON pgtrickle_changes.held_%s_%s (xid)', v_id, v_source.oid);
        PERFORM pgtrickle_changes.hand_over(p_table, format('pgtrickle_changes.held_%s_%s', v_id, v_source.oid), 'Changes held back for stream table');
    END LOOP;
    IF NOT has_schema_privilege(p_table.owner_oid, 'pgtrickle_changes', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA pgtrickle_changes TO %I', pg_get_userbyid(p_table.owner_oid));
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_immediate_tables IS 'Makes the tables in which statements note that they are under way and what they hold back';

CREATE FUNCTION pgtrickle_changes.make_immediate(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Everything that maintains a stream table inside statements.  The sources are locked: nobody is writing them.
DECLARE
    v_id       bigint := p_table.pgt_id;
    v_plan     jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id);
    v_event    record;
    v_source   record;
    v_function regprocedure;
    v_trigger  name;
BEGIN
    PERFORM pgtrickle_changes.refuse_immediate(v_plan);
    PERFORM pgtrickle_changes.make_immediate_tables(p_table);
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_rest', v_id), 'p_full boolean', 'boolean',
        pgtrickle_changes.immediate_body(p_table, pgtrickle_changes.immediate_rest(p_table, v_plan)));
    PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_begin', v_id), '', 'trigger',
        pgtrickle_changes.immediate_body(p_table, format(
            '    INSERT INTO pgtrickle_changes.under_way_%s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), ''o'');', v_id)));
    FOR v_source IN
        SELECT d.source_relid AS oid, d.columns_used FROM pgtrickle.pgt_dependencies AS d
         WHERE d.pgt_id = v_id AND d.source_relid = ANY (pgtrickle_changes.immediate_sources(v_id)) ORDER BY d.source_relid
    LOOP
        FOR v_event IN
            SELECT * FROM (VALUES ('begin', 'BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE', ''),
                                  ('ins', 'AFTER INSERT', 'REFERENCING NEW TABLE AS __pgt_new'),
                                  ('upd', 'AFTER UPDATE', 'REFERENCING OLD TABLE AS __pgt_old NEW TABLE AS __pgt_new'),
                                  ('del', 'AFTER DELETE', 'REFERENCING OLD TABLE AS __pgt_old'),
                                  ('trunc', 'AFTER TRUNCATE', '')) AS e(name, at, rows)
        LOOP
            CONTINUE WHEN v_event.name = 'begin' AND (v_plan #>> '{programs,immediate,by_rows}')::boolean;
            IF v_event.name IN ('ins', 'upd', 'del') THEN
                PERFORM pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_%s_%s_texts', v_id, v_source.oid, v_event.name), '', 'text[]',
                    format(E'\nBEGIN\n    RETURN %L::pg_catalog.text[];\nEND\n', pgtrickle_changes.immediate_texts(
                        v_plan #> ARRAY['programs', 'immediate', 'sources', v_source.oid::text],
                        pgtrickle_changes.immediate_delta(v_source.oid, p_table.owner_oid, v_source.columns_used, v_event.name))));
            END IF;
            v_function := CASE WHEN v_event.name = 'begin' THEN to_regprocedure(format('pgtrickle_changes.maintain_%s_begin()', v_id))
                ELSE pgtrickle_changes.make_owned_function(p_table, format('maintain_%s_%s_%s', v_id, v_source.oid, v_event.name), '', 'trigger',
                    pgtrickle_changes.immediate_body(p_table,
                        pgtrickle_changes.immediate_after(p_table, v_source.oid, v_source.columns_used, v_event.name, v_plan))) END;
            v_trigger := pgtrickle_changes.immediate_trigger(v_id, v_event.name);
            EXECUTE format('CREATE TRIGGER %I %s ON %s %s FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION %s',
                v_trigger, v_event.at, v_source.oid::regclass, v_event.rows,
                pgtrickle_changes.immediate_guard(v_function), v_function);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_source.oid::regclass, v_trigger);
        END LOOP;
    END LOOP;
    IF (v_plan #>> '{programs,immediate,by_rows}')::boolean THEN
        -- Statements within statements add in any order: in between a counter may be below zero.
        FOR v_event IN
            SELECT c.conname AS name, c.conrelid::regclass AS at FROM pg_constraint AS c
             WHERE c.contype = 'c' AND c.connamespace = 'pgtrickle_changes'::regnamespace
               AND c.conrelid IN (SELECT to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) FROM jsonb_array_elements(v_plan -> 'states') AS t(item))
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', v_event.at, v_event.name);
        END LOOP;
    END IF;
    INSERT INTO pgtrickle_changes.immediate (pgt_id, stamp, triggers, number)
    SELECT v_id, pgtrickle_changes.immediate_stamp(v_id), array_agg(DISTINCT o.identity), count(*)
      FROM pgtrickle_changes.immediate_objects(v_id) AS o WHERE o.kind = 'trigger';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_immediate IS 'Makes everything that maintains a stream table inside statements';

CREATE FUNCTION pgtrickle_changes.immediate_objects(p_id bigint) RETURNS TABLE (kind text, identity text, relation regclass)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What make_immediate made of which something is left, wherever it is now: triggers by the stream table's number in their names.
BEGIN
    RETURN QUERY
        SELECT 'trigger', t.tgname::text, t.tgrelid::regclass FROM pg_trigger AS t
         WHERE NOT t.tgisinternal AND t.tgname = ANY (ARRAY(SELECT pgtrickle_changes.immediate_trigger(p_id, e) FROM unnest('{begin,ins,upd,del,trunc}'::text[]) AS e))
           AND (t.tgfoid IN (SELECT p.oid FROM pg_proc AS p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id))
                OR t.tgrelid IN (SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id))
         ORDER BY t.tgrelid, t.tgname;
    RETURN QUERY
        SELECT 'function', p.oid::regprocedure::text, NULL::regclass FROM pg_proc AS p
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id) ORDER BY p.proname;
    RETURN QUERY
        SELECT 'table', c.oid::regclass::text, c.oid::regclass FROM pg_class AS c
         WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'r' AND c.relname ~ format('^(turn_%s|under_way_%1$s|held_%1$s_[0-9]+)$', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_objects IS 'What is left, wherever it is now, of what make_immediate made';

CREATE FUNCTION pgtrickle_changes.drop_immediate(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_object record;
BEGIN
    FOR v_object IN SELECT o.* FROM pgtrickle_changes.immediate_objects(p_id) AS o LOOP
        EXECUTE CASE v_object.kind
            WHEN 'trigger' THEN format('DROP TRIGGER %I ON %s', v_object.identity, v_object.relation)
            WHEN 'function' THEN format('DROP FUNCTION %s', v_object.identity)
            ELSE format('DROP TABLE %s', v_object.identity) END;
    END LOOP;
    DELETE FROM pgtrickle_changes.immediate AS i WHERE i.pgt_id = p_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_immediate IS 'Drops what make_immediate made';

CREATE FUNCTION pgtrickle_changes.immediate_stamp(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Changes whenever a trigger, a function or a table of the maintenance does, the name of a column that is read, or a source's place below a parent.
BEGIN
    RETURN md5(concat_ws('|',
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin, p.proowner), ',' ORDER BY p.oid) FROM pg_proc AS p
          WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ format('^maintain_%s_', p_id)),
        (SELECT string_agg(concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid) FROM pg_trigger AS t
          WHERE t.tgname = ANY (ARRAY(SELECT pgtrickle_changes.immediate_trigger(p_id, e) FROM unnest('{begin,ins,upd,del,trunc}'::text[]) AS e))
            AND t.tgrelid = ANY (pgtrickle_changes.immediate_sources(p_id))),
        (SELECT string_agg(concat_ws(' ', c.oid, c.relowner, c.relchecks, c.relhastriggers, c.relhasrules, c.relrowsecurity), ',' ORDER BY c.oid)
           FROM pg_class AS c JOIN pgtrickle_changes.immediate_objects(p_id) AS o ON o.kind = 'table' AND o.relation = c.oid),
        (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, quote_ident(a.attname)), ',' ORDER BY a.attrelid, a.attnum)
           FROM pgtrickle.pgt_dependencies AS d JOIN pg_attribute AS a ON a.attrelid = d.source_relid AND a.attnum > 0
          WHERE d.pgt_id = p_id AND a.attname = ANY (d.columns_used)),
        (SELECT string_agg(concat_ws(' ', i.inhrelid, i.inhparent), ',' ORDER BY i.inhrelid, i.inhparent) FROM pg_inherits AS i
          WHERE i.inhrelid = ANY (pgtrickle_changes.immediate_sources(p_id)) OR i.inhparent = ANY (pgtrickle_changes.immediate_sources(p_id)))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_stamp IS 'The version of everything that maintains a stream table inside statements';

CREATE FUNCTION pgtrickle_changes.immediate_drift(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_stamp text := (SELECT i.stamp FROM pgtrickle_changes.immediate AS i WHERE i.pgt_id = p_id);
BEGIN
    IF v_stamp IS NULL THEN
        RETURN 'nothing follows its sources'' changes';
    ELSIF v_stamp <> pgtrickle_changes.immediate_stamp(p_id) THEN
        RETURN 'the triggers, functions or tables that maintain it were altered';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_drift IS 'NULL when statements have been followed without a gap since the triggers were made; else what is wrong';

CREATE FUNCTION pgtrickle_changes.begin_immediate(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Before an IMMEDIATE stream table is filled or repaired: have its triggers in place, and nobody write its sources meanwhile.
-- Why what one older snapshot shows would not do, if that is so.
DECLARE
    v_drift  text := pgtrickle_changes.immediate_drift(p_table.pgt_id);
    v_old    boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    v_source oid;
BEGIN
    IF v_drift IS NOT NULL THEN
        PERFORM pgtrickle_changes.drop_immediate(p_table.pgt_id);
    ELSIF v_old THEN
        -- Maintenance that this snapshot doesn't see is none of its business: where both write the same rows, one fails with 40001.
        RETURN NULL;
    END IF;
    FOREACH v_source IN ARRAY pgtrickle_changes.immediate_sources(p_table.pgt_id) LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_source::regclass);
    END LOOP;
    IF v_drift IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pgtrickle_changes.make_immediate(p_table);
    UPDATE pgtrickle.pgt_stream_tables AS st SET fingerprint = pgtrickle_changes.fingerprint(p_table.pgt_id) WHERE st.pgt_id = p_table.pgt_id;
    RETURN CASE WHEN v_old THEN 'its sources are followed since a later moment than the one it was computed for' END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.begin_immediate IS 'Has an IMMEDIATE stream table''s triggers in place and its sources locked; why one look at them won''t do, or NULL';

CREATE FUNCTION pgtrickle_changes.switch_immediate(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- From change buffers to triggers that maintain, or back: the next refresh, in this transaction, makes what is needed and compares
-- everything while nobody can write.
DECLARE
    v_table  pgtrickle.pgt_stream_tables;
    v_plan   jsonb := (SELECT p.plan FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id);
    v_source oid;
BEGIN
    PERFORM pgtrickle_changes.drop_immediate(p_id);
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET frontier = NULL, frontier_xid = NULL, frontier_seqs = '{}', needs_reinit = st.is_populated,
           reinit_reason = CASE WHEN st.is_populated THEN format('its refresh mode is %s now', st.refresh_mode) END
     WHERE st.pgt_id = p_id
    RETURNING st.* INTO v_table;
    PERFORM pgtrickle_changes.set_dependencies(v_table, v_plan);
    -- With their constraints.
    PERFORM pgtrickle_changes.drop_states(p_id);
    PERFORM pgtrickle_changes.make_states(v_table, v_plan);
    FOR v_source IN SELECT d.source_relid FROM pgtrickle.pgt_dependencies AS d WHERE d.pgt_id = p_id ORDER BY d.source_relid LOOP
        PERFORM pgtrickle_changes.sync_capture(v_source, v_table.owner_oid);
    END LOOP;
    IF v_table.is_populated AND v_table.status <> 'SUSPENDED' THEN
        PERFORM pgtrickle_changes.refresh_current_plan(p_id);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.switch_immediate IS 'Changes a stream table from change buffers to maintenance inside statements, or back';

CREATE FUNCTION pgtrickle_changes.flag_immediate() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- No statement looks at whether its triggers were tampered with, or what the query rests on was changed: housekeeping does, and
-- the worker repairs what is flagged here.
BEGIN
    UPDATE pgtrickle.pgt_stream_tables AS st
       SET needs_reinit = true,
           reinit_reason = coalesce(pgtrickle_changes.immediate_drift(st.pgt_id), 'definitions that the query rests on were changed')
     WHERE st.pgt_id IN (
           SELECT l.pgt_id FROM pgtrickle.pgt_stream_tables AS l
            WHERE l.refresh_mode = 'IMMEDIATE' AND l.status = 'ACTIVE' AND l.is_populated AND NOT l.needs_reinit
              AND (l.fingerprint IS DISTINCT FROM pgtrickle_changes.fingerprint(l.pgt_id) OR pgtrickle_changes.immediate_drift(l.pgt_id) IS NOT NULL)
              FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.flag_immediate IS 'Flags the IMMEDIATE stream tables whose triggers or definitions were changed';
