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

CREATE FUNCTION pgtrickle_changes.immediate_guard(p_function oid, p_original oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
-- Like capture_guard, but by comparing with a second function, the engine's, that nobody else can alter: no hash of so long a text
-- is as cheap, and both are spelled the same whatever the writer has set.
DECLARE
    v_guard text := format('pg_catalog.pg_get_functiondef(%L) OPERATOR(pg_catalog.=) pg_catalog.replace(pg_catalog.pg_get_functiondef(%L), %L, %L)',
        p_function, p_original, (SELECT p.proname FROM pg_proc AS p WHERE p.oid = p_original), (SELECT p.proname FROM pg_proc AS p WHERE p.oid = p_function));
    v_holds boolean;
BEGIN
    EXECUTE 'SELECT ' || v_guard INTO v_holds;
    IF v_holds IS NOT TRUE THEN
        RAISE EXCEPTION 'the query can''t be maintained in refresh mode IMMEDIATE'
            USING ERRCODE = 'feature_not_supported', DETAIL = format('It contains the name of the engine''s own function "%s".', p_original::regproc),
                  HINT = 'Use AUTO: with schedule ''calculated'' changes show within milliseconds of their commit.';
    END IF;
    RETURN v_guard;
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

CREATE FUNCTION pgtrickle_changes.immediate_may(p_table pgtrickle.pgt_stream_tables, p_columns boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What the owner must be allowed still: transition tables show every row, and PostgreSQL checks no privilege on them.
BEGIN
    RETURN concat_ws(' AND ',
        (SELECT string_agg(format('pg_catalog.has_schema_privilege(%s::pg_catalog.oid, ''USAGE'')', n.oid), ' AND ' ORDER BY n.oid)
           FROM (SELECT DISTINCT c.relnamespace AS oid FROM pg_class AS c WHERE c.oid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id))) AS n),
        (SELECT string_agg(format('(pg_catalog.has_table_privilege(%s::pg_catalog.oid, ''SELECT'')%s)', c.oid, CASE WHEN p_columns THEN
                    (SELECT ' OR ' || string_agg(format('pg_catalog.has_column_privilege(%s::pg_catalog.oid, %s::pg_catalog.int2, ''SELECT'')',
                                                        c.oid, r.attnum), ' AND ')
                       FROM pgtrickle_changes.read_columns(c.oid, d.columns_used) AS r) END), ' AND ' ORDER BY c.oid)
           FROM pgtrickle.pgt_dependencies AS d JOIN pg_class AS c ON c.oid = d.source_relid
          WHERE d.pgt_id = p_table.pgt_id AND c.oid = ANY (pgtrickle_changes.immediate_sources(p_table.pgt_id))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_may IS 'Whether the owner may read the sources, as an expression; by whole tables, or by the columns that are read';

CREATE FUNCTION pgtrickle_changes.immediate_hidden(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What is forced on the owner of the stream table itself would hide its rows from the maintenance.
BEGIN
    RETURN (SELECT string_agg(format('(%s) IS NOT TRUE', pgtrickle_changes.policies_hold(s.oid, p_table.owner_oid)), ' OR ' ORDER BY s.oid)
              FROM unnest(pgtrickle_changes.immediate_sources(p_table.pgt_id)) AS s(oid))
           || format(' OR pg_catalog.row_security_active(%s::pg_catalog.oid)', p_table.pgt_relid::oid);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hidden IS 'Whether row-level security shows the owner other rows than when the stream table was made, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_trapped(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        RETURN 'false';
    END IF;
    -- There a deferred trigger runs as whoever commits.
    RETURN format('EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.oid[]) AND t.tgdeferrable AND NOT t.tgisinternal)',
        ARRAY(SELECT c.oid FROM pg_class AS c WHERE c.oid = p_table.pgt_relid
              UNION SELECT c.oid FROM pg_class AS c JOIN pgtrickle.pgt_plans AS p ON p.pgt_id = p_table.pgt_id
               CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
              WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname = t.item ->> 'name'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_trapped IS 'Whether a trigger of the owner''s could run as somebody else, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_checks(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- At the head of every maintenance, as short as it can be: each statement compares this text, and why not is told elsewhere.
DECLARE
    v_trapped text := nullif(pgtrickle_changes.immediate_trapped(p_table), 'false');
BEGIN
    RETURN format(E'\n    IF %s THEN\n        PERFORM pgtrickle_changes.maintain_%s_check();\n    END IF;\n',
        concat_ws(' OR ', format('NOT (%s)', pgtrickle_changes.immediate_may(p_table, false)), pgtrickle_changes.immediate_hidden(p_table), v_trapped),
        p_table.pgt_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_checks IS 'What every maintenance has to check first, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_check(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format($q$
    IF NOT (%1$s) THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = %2$L, DETAIL = %3$L, HINT = %9$L;
    END IF;
    IF %4$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %5$L, DETAIL = %6$L, HINT = %9$L;
    END IF;
    IF %7$s THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = %8$L, DETAIL = 'A deferred trigger would run as whoever writes the source.', HINT = %9$L;
    END IF;$q$, pgtrickle_changes.immediate_may(p_table, true), format('permission denied to maintain stream table "%s"', p_table.pgt_name),
        format('Role "%s", who owns it, may not read a source, or a column of it, that its query uses.', pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_hidden(p_table), format('stream table "%s" has to be made anew', p_table.pgt_name),
        format('Row-level security of a source, or of the stream table itself, shows other rows to role "%s", who owns it, than when it was made.',
               pg_get_userbyid(p_table.owner_oid)),
        pgtrickle_changes.immediate_trapped(p_table), format('stream table "%s" has a deferrable trigger', p_table.pgt_name),
        pgtrickle_changes.immediate_hint(p_table));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_check IS 'Says what a maintenance may not go on for, as PL/pgSQL';

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
           FROM (VALUES ('__pgt_rows', 'int8'), ('__pgt_open', 'int8'), ('__pgt_held', 'bool'), ('__pgt_wrote', 'int8'), ('__pgt_texts', 'text[]'),
                        ('__pgt_closed', 'int8'), ('__pgt_last', 'int8')) AS v(name, type)
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
-- transaction whose snapshot is older fails with 40001.  Once a transaction: of a row updated a thousand times it would read a
-- thousand versions.
BEGIN
    RETURN format('UPDATE pgtrickle_changes.turn_%s AS t SET holder = pg_catalog.pg_current_xact_id()'
                  ' WHERE t.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id()', p_id);
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

CREATE FUNCTION pgtrickle_changes.immediate_program(p_texts text[], p_name text, p_by_rows boolean, p_rest text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A program's statements as they stand, with plans that the session keeps; and for more than a few hundred rows planned for their
-- number.  A plan made for one row can take hours over a hundred thousand.  Those texts are elsewhere: the trigger's WHEN compares
-- all of this.
DECLARE
    v_result text := E'        IF __pgt_rows OPERATOR(pg_catalog.>) 200 THEN\n            __pgt_texts := pgtrickle_changes.' || p_name || E'_texts();\n        END IF;\n';
BEGIN
    FOR v_place IN 1..cardinality(p_texts) LOOP
        v_result := v_result || format(E'        IF __pgt_rows OPERATOR(pg_catalog.<=) 200 THEN\n            %s INTO __pgt_wrote;\n'
                                       '        ELSE\n            EXECUTE __pgt_texts[%s] INTO __pgt_wrote;\n        END IF;\n', p_texts[v_place], v_place);
        IF NOT p_by_rows THEN
            v_result := v_result || E'        IF __pgt_wrote IS NULL THEN\n            ' || p_rest || E'\n            RETURN NULL;\n        END IF;\n';
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

CREATE FUNCTION pgtrickle_changes.immediate_note(p_id bigint, p_what "char") RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('INSERT INTO pgtrickle_changes.under_way_%s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), %L);', p_id, p_what);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_note IS 'The statement that notes what is under way';

CREATE FUNCTION pgtrickle_changes.immediate_take_back(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Counts the notes, and takes one back.  A transaction's thousandth statement must not read what the former ones left in the index:
-- what this session last set "closed" to, which nobody else can set, is the last number of which all notes are known to be gone.
-- The block reads only; it gets no transaction id.
BEGIN
    RETURN format($q$
    BEGIN
        __pgt_closed := pg_catalog.currval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        __pgt_closed := 0;
    END;
    SELECT pg_catalog.count(*) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::"char"), pg_catalog.bool_or(u.what OPERATOR(pg_catalog.<>) 'o'::"char"),
           pg_catalog.max(u.number) FILTER (WHERE u.what OPERATOR(pg_catalog.=) 'o'::"char")
      INTO __pgt_open, __pgt_held, __pgt_last FROM pgtrickle_changes.under_way_%1$s AS u
     WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.>) __pgt_closed;
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u
     WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.number OPERATOR(pg_catalog.=) __pgt_last;
    IF __pgt_open OPERATOR(pg_catalog.=) 1 AND NOT __pgt_held THEN
        PERFORM pg_catalog.setval('pgtrickle_changes.closed_%1$s'::pg_catalog.regclass, __pgt_last);
    END IF;$q$, p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_take_back IS 'How a statement that is at its end takes its note back and counts the others, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_hold(p_id bigint, p_source oid, p_columns text[], p_delta text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('WITH h AS (INSERT INTO pgtrickle_changes.held_%1$s_%2$s (%3$sw, xid) SELECT d.*, pg_catalog.pg_current_xact_id() FROM (%4$s) AS d)'
                  ' INSERT INTO pgtrickle_changes.under_way_%1$s (xid, what) VALUES (pg_catalog.pg_current_xact_id(), ''h'')', p_id, p_source,
        (SELECT coalesce(string_agg(format('%I, ', c.buffer_column), '' ORDER BY c.attnum), '') FROM pgtrickle_changes.read_columns(p_source, p_columns) AS c),
        p_delta);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_hold IS 'The statement that holds a change back, and notes that';

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
                    format('maintain_%s_%s_%s', v_id, p_source, p_event), v_by_rows, format(v_rest, 'NULL')) END;
    v_hold    text := CASE WHEN p_event = 'trunc' THEN pgtrickle_changes.immediate_note(v_id, 't') ELSE format(
        'EXECUTE (pgtrickle_changes.maintain_%s_%s_%s_texts())[%s];', v_id, p_source, p_event,
        1 + jsonb_array_length(p_plan #> ARRAY['programs', 'immediate', 'sources', p_source::text])) END;
BEGIN
    IF v_by_rows THEN
        RETURN '    __pgt_rows := ' || v_count || E';\n    IF __pgt_rows OPERATOR(pg_catalog.>) 0 THEN' || v_checks || E'\n' || v_work || '    END IF;';
    END IF;
    RETURN pgtrickle_changes.immediate_take_back(v_id) || E'\n    __pgt_rows := ' || v_count || $q$;
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
-- Works off what was held back; or recomputes, when a source was truncated, or (NULL) the stream table turned out not to hold what it should.
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
    IF p_full IS NULL THEN
        %3$s
        p_full := true;
    END IF;
    p_full := p_full OR EXISTS (SELECT FROM pgtrickle_changes.under_way_%1$s AS u
                                 WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() AND u.what OPERATOR(pg_catalog.=) 't'::"char");
    DELETE FROM pgtrickle_changes.under_way_%1$s AS u WHERE u.xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id();
    %2$s;
$q$, v_id, pgtrickle_changes.immediate_turn(v_id), pgtrickle_changes.immediate_warning(p_table)) || v_held || E'    IF p_full THEN\n' || v_full || E'    END IF;\n' || v_clear;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_rest IS 'What works off held changes, or recomputes, as PL/pgSQL';
