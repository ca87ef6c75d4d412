-- Recomputing inside the statement, and when: after TRUNCATE, where the changes can't be evaluated, where the stream table was written to.

CREATE FUNCTION pgtrickle_changes.immediate_failures() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Of values, of functions that aren't there, or not for the owner, and what these say themselves.  Conflicts and broken rules go on as they are.
BEGIN
    RETURN 'data_exception OR undefined_function OR undefined_object OR insufficient_privilege OR raise_exception OR assert_failure';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_failures IS 'Which errors say that the query, or its changes, can''t be evaluated, as PL/pgSQL conditions';

CREATE FUNCTION pgtrickle_changes.immediate_tried(p_plan jsonb, p_work text, p_otherwise text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Changes are evaluated for rows, and pairs of rows, that the query never sees together, or that are gone again.  Only where the query calls
-- what can fail: this is a subtransaction a statement.  Nor is a function of somebody's there for ever, or for everybody, and it may refuse a value; then
-- the query fails as well, which is told with the stream table's name.
BEGIN
    IF NOT coalesce((p_plan #>> '{programs,immediate,may_fail}')::boolean, false) THEN
        RETURN p_work;
    END IF;
    RETURN E'    BEGIN\n' || p_work || '    EXCEPTION WHEN ' || pgtrickle_changes.immediate_failures() || E' THEN\n        ' || p_otherwise || E'\n    END;\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_tried IS 'Work, and what is done when changes can''t be evaluated, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_emptied(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Where no turn tells a transaction with an older snapshot that it doesn't see all rows of the stream table: TRUNCATE, which is all that such
-- a stream table is recomputed for, has the source to itself, and doesn't go by snapshots either.
BEGIN
    IF (p_plan #>> '{programs,immediate,turn}')::boolean THEN
        RETURN '';
    END IF;
    RETURN format(E'        IF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.=) ANY (''{repeatable read,serializable}''::pg_catalog.text[]) THEN\n'
                  '            TRUNCATE %s;\n        END IF;\n',
        (SELECT string_agg(t.name, ', ' ORDER BY t.place)
           FROM (SELECT 0, format('%I.%I', p_table.pgt_schema, p_table.pgt_name)
                 UNION ALL SELECT s.place, format('pgtrickle_changes.%I', s.item ->> 'name')
                   FROM jsonb_array_elements(p_plan -> 'states') WITH ORDINALITY AS s(item, place)) AS t(place, name)));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_emptied IS 'What empties a stream table that row locks are enough for, where its rows may not all be seen, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_full(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A writer may be told an error that comes of rows which he may not read: PostgreSQL quotes values, in English in these quotes.  In other
-- languages, or where a value might stand unquoted, the SQLSTATE has to do.  What a function of the owner's raises is his to say.
-- What fails in the maintenance of a stream table that reads this one is told as that one tells it: it is the first that the error's context names.
BEGIN
    RETURN format(E'    IF p_full THEN\n%s        BEGIN\n%s        EXCEPTION WHEN %s THEN\n'
                  '            GET STACKED DIAGNOSTICS __pgt_stack = PG_EXCEPTION_CONTEXT;\n'
                  '            IF pg_catalog.substring(__pgt_stack, ''pgtrickle_changes[.]maintain_([0-9]+)_'') OPERATOR(pg_catalog.<>) ''%s'' THEN\n'
                  '                RAISE;\n            END IF;\n'
                  '            RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = pg_catalog.format(''the query of stream table "%%s" fails: %%s'', %L,'
                  ' CASE WHEN SQLERRM OPERATOR(pg_catalog.~) ''^[ -~]*$'' THEN pg_catalog.regexp_replace(SQLERRM, ''".*"'', ''"..."'') ELSE SQLSTATE END),'
                  ' DETAIL = ''It is run over all that its sources contain after the statement.'', HINT = %L;\n        END;\n%s    END IF;\n',
        pgtrickle_changes.immediate_emptied(p_table, p_plan),
        (SELECT string_agg(format(E'            EXECUTE %L;\n', s.value), '' ORDER BY s.place)
           FROM jsonb_array_elements_text(p_plan #> '{programs,full}') WITH ORDINALITY AS s(value, place)),
        pgtrickle_changes.immediate_failures(), p_table.pgt_id, p_table.pgt_name, 'Write other values, or give it another query. ' || pgtrickle_changes.immediate_hint(p_table),
        pgtrickle_changes.immediate_tree_kept(p_table.pgt_id, true));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_full IS 'What recomputes a stream table inside the statement, as PL/pgSQL';
