-- The tables that a plan's stages keep, and the indexes by which changes are applied.

CREATE FUNCTION pgtrickle_changes.make_states(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_state     jsonb;
    v_delta     jsonb;
    v_hashed    jsonb;
    v_name      text;
    v_columns   text;
    v_checks    text;
    v_index     jsonb;
    v_column    name;
BEGIN
    FOR v_state IN SELECT s FROM jsonb_array_elements(p_plan -> 'states') AS s LOOP
        v_name := pgtrickle_changes.generated_name(v_state ->> 'name', 'state', p_table.pgt_id);
        SELECT string_agg(p.definition || CASE WHEN v_state -> 'not_null' ? p.name THEN ' NOT NULL' ELSE '' END, ', ')
          INTO v_columns
          FROM pgtrickle_changes.probe_columns(p_table.owner_oid, v_state ->> 'query',
                   ARRAY(SELECT jsonb_array_elements_text(v_state -> 'columns')), p_table.settings) AS p;
        SELECT string_agg(format(', CHECK (%I >= 0)', c), '')
          INTO v_checks FROM jsonb_array_elements_text(v_state -> 'nonnegative') AS c;
        EXECUTE format('CREATE TABLE %s (%s%s) WITH (fillfactor = 85)', v_name, v_columns, coalesce(v_checks, ''));
        IF jsonb_array_length(nullif(v_state -> 'key', 'null')) > 0 THEN
            EXECUTE format('CREATE UNIQUE INDEX %I ON %s (%s) NULLS NOT DISTINCT', (v_state ->> 'name') || '_key', v_name,
                           pgtrickle_changes.quoted_list(v_state -> 'key'));
        END IF;
        FOR v_hashed IN SELECT h FROM unnest(ARRAY[v_state -> 'content_index', v_state -> 'lookup']) AS h WHERE jsonb_array_length(nullif(h, 'null')) > 0 LOOP
            EXECUTE format('CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(%s), 0))', v_name, pgtrickle_changes.quoted_list(v_hashed));
        END LOOP;
        FOR v_index IN SELECT i FROM jsonb_array_elements(coalesce(v_state -> 'sought', '[]')) AS i LOOP
            EXECUTE format(CASE v_index ->> 'method' WHEN 'row' THEN 'CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(%s), 0))'
                                                     WHEN 'hash' THEN 'CREATE INDEX ON %s USING hash (%s)' ELSE 'CREATE INDEX ON %s (%s)' END,
                           v_name, pgtrickle_changes.quoted_list(v_index -> 'columns'));
        END LOOP;
        PERFORM pgtrickle_changes.make_ranges((v_state ->> 'name')::name, v_state -> 'ranged');
        PERFORM pgtrickle_changes.make_statistics(p_table, (v_state ->> 'name')::name, v_state -> 'weighed');
        PERFORM pgtrickle_changes.make_choices(v_state);
        PERFORM pgtrickle_changes.hand_over(p_table, v_name, 'A state of stream table');
    END LOOP;
    FOR v_delta IN SELECT d FROM jsonb_array_elements(p_plan -> 'deltas') AS d LOOP
        v_name := pgtrickle_changes.generated_name(v_delta ->> 'name', 'delta', p_table.pgt_id);
        IF v_delta ? 'of' THEN
            v_columns := 'LIKE ' || pgtrickle_changes.generated_name(v_delta ->> 'of', 'state', p_table.pgt_id);
        ELSE
            SELECT string_agg(p.definition, ', ') INTO v_columns
              FROM pgtrickle_changes.probe_columns(p_table.owner_oid, v_delta ->> 'query',
                       ARRAY(SELECT jsonb_array_elements_text(v_delta -> 'columns')), p_table.settings) AS p;
        END IF;
        EXECUTE format('CREATE UNLOGGED TABLE %s (%s, __pgt_w bigint NOT NULL)', v_name, v_columns);
        -- What a stage's delta says of a group that goes away breaks no rule of the state.
        FOR v_column IN
            SELECT a.attname FROM pg_attribute AS a
             WHERE a.attrelid = v_name::regclass AND a.attnum > 0 AND a.attnotnull AND a.attname <> '__pgt_w'
        LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', v_name, v_column);
        END LOOP;
        PERFORM pgtrickle_changes.hand_over(p_table, v_name, 'A delta on its way through stream table');
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_states IS 'The tables that a plan''s stages keep, owned by the stream table''s owner';

CREATE FUNCTION pgtrickle_changes.state_value(p_value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A value of a state: a column, or the sum or mean that its counters come to, in the words of the plan's statements, or it won't be
-- known for the same.
    SELECT CASE WHEN r.count IS NULL THEN quote_ident(r.value)
                ELSE format('(CASE%s WHEN %I > 0 THEN %I%s END)',
                            CASE WHEN r.nan IS NOT NULL THEN format(' WHEN %I > 0 THEN ''NaN''::numeric', r.nan) END, r.count, r.value,
                            CASE WHEN r.is_mean THEN format('%s / %I', CASE WHEN r.nan IS NULL THEN '::numeric' END, r.count) END) END
      FROM jsonb_to_record(p_value) AS r(value name, count name, nan name, is_mean boolean)
$$;
COMMENT ON FUNCTION pgtrickle_changes.state_value IS 'A value over the columns of a state as an expression';

CREATE FUNCTION pgtrickle_changes.make_ranges(p_state name, p_ranged jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An index over each value of a state that something which moves is compared with.
DECLARE
    v_value jsonb;
BEGIN
    FOR v_value IN SELECT v FROM jsonb_array_elements(coalesce(p_ranged, '[]')) AS v LOOP
        EXECUTE format('CREATE INDEX ON pgtrickle_changes.%I (%s)', p_state, pgtrickle_changes.state_value(v_value));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_ranges IS 'Indexes over values of a state by a range of which its rows are found';

CREATE FUNCTION pgtrickle_changes.make_statistics(p_table pgtrickle.pgt_stream_tables, p_state name, p_weighed jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What ANALYZE is to find out of each value of a state that groups are chosen by, so that the planner knows how many pass.
DECLARE
    v_item record;
    v_name text;
BEGIN
    FOR v_item IN SELECT v.value, v.place FROM jsonb_array_elements(coalesce(p_weighed, '[]')) WITH ORDINALITY AS v(value, place) LOOP
        v_name := format('pgtrickle_changes.%I', p_state || '_value_' || v_item.place);
        EXECUTE format('CREATE STATISTICS %s ON %s FROM pgtrickle_changes.%I', v_name, pgtrickle_changes.state_value(v_item.value), p_state);
        EXECUTE format('ALTER STATISTICS %s OWNER TO %I', v_name, pg_get_userbyid(p_table.owner_oid));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_statistics IS 'Statistics over values of a state that groups are chosen by';

CREATE FUNCTION pgtrickle_changes.make_choices(p_state jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An index over the groups that a comparison of a value with a number chooses.  Nothing else of the comparison is printed.
DECLARE
    v_item jsonb;
BEGIN
    FOR v_item IN SELECT c FROM jsonb_array_elements(coalesce(p_state -> 'chosen', '[]')) AS c LOOP
        IF NOT coalesce(v_item ->> 'operator' ~ '^[<>]=?$' AND v_item ->> 'number' ~ '^[0-9]{1,100}([.][0-9]{1,100})?$'
                        AND coalesce(v_item ->> 'type', 'numeric') IN ('numeric', 'bigint', 'integer'), false) THEN
            RAISE EXCEPTION 'invalid plan: its state "%" chooses groups by no comparison with a number', p_state ->> 'name'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
        END IF;
        EXECUTE format('CREATE INDEX ON pgtrickle_changes.%I (%s) WHERE %s %s %s%s', p_state ->> 'name', pgtrickle_changes.quoted_list(p_state -> 'key'),
                       pgtrickle_changes.state_value(v_item), v_item ->> 'operator', v_item ->> 'number', '::' || (v_item ->> 'type'));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_choices IS 'Indexes over the groups of a state that a comparison with a number chooses';

CREATE FUNCTION pgtrickle_changes.drop_wide_choices(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- An index over chosen groups is of use where they are few.  A state whose row changes what an index goes by has to tell all its indexes, so
-- it would cost more than it spares where many pass: what takes more than a hundredth of its table when that has been filled goes.
DECLARE
    v_index regclass;
BEGIN
    FOR v_index IN
        SELECT i.indexrelid::regclass
          FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements(p.plan -> 'states') AS s(state)
          JOIN pg_index AS i ON i.indrelid = to_regclass(format('pgtrickle_changes.%I', s.state ->> 'name'))
         WHERE p.pgt_id = p_id AND jsonb_array_length(s.state -> 'chosen') > 0 AND i.indpred IS NOT NULL
           AND 100 * pg_relation_size(i.indexrelid) > pg_relation_size(i.indrelid)
    LOOP
        EXECUTE format('DROP INDEX %s', v_index);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_wide_choices IS 'Drops the indexes over chosen groups of which there are many';

CREATE FUNCTION pgtrickle_changes.quoted_list(p_names jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(quote_ident(t.name), ', ' ORDER BY t.place) FROM jsonb_array_elements_text(p_names) WITH ORDINALITY AS t(name, place)
$$;
COMMENT ON FUNCTION pgtrickle_changes.quoted_list IS 'Names as a list of identifiers';

CREATE FUNCTION pgtrickle_changes.hand_over(p_table pgtrickle.pgt_stream_tables, p_name text, p_what text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A new table becomes the owner's, and nobody else's.  Somebody may publish all tables: then rows without a replica identity could
-- be neither updated nor deleted.
BEGIN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', p_name::regclass);
    EXECUTE format('ALTER TABLE %s OWNER TO %I', p_name::regclass, pg_get_userbyid(p_table.owner_oid));
    PERFORM pgtrickle_changes.revoke_strangers(p_name::regclass);
    EXECUTE format('COMMENT ON TABLE %s IS %s', p_name::regclass, quote_literal(p_what || ' ' || p_table.pgt_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hand_over IS 'Gives a new table to the stream table''s owner, and to nobody else';

CREATE FUNCTION pgtrickle_changes.probe_columns(p_owner oid, p_query text, p_columns text[], p_settings jsonb)
    RETURNS TABLE (name text, definition text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The types of a query's columns, asked of PostgreSQL as the owner: the query is planned, and no row is read.
DECLARE
    -- An array, for a function takes no more than a hundred arguments.
    v_probe     CONSTANT text := 'SELECT pg_catalog.to_jsonb(ARRAY[%s]::pg_catalog.int8[]) FROM (SELECT 1 AS one) AS o LEFT JOIN (%s) AS q ON false';
    v_types     jsonb;
    v_collatable text[];
    v_collations jsonb := '[]'::jsonb;
BEGIN
    SELECT pgtrickle_changes.run_as(p_owner, format(v_probe,
               string_agg(format('pg_catalog.pg_typeof(q.%1$I)::pg_catalog.oid::pg_catalog.int8', u.name), ', ' ORDER BY u.place), p_query),
               p_settings => p_settings)
      INTO v_types FROM unnest(p_columns) WITH ORDINALITY AS u(name, place);
    v_collatable := ARRAY(SELECT u.name FROM unnest(p_columns) WITH ORDINALITY AS u(name, place)
                            JOIN pg_type AS t ON t.oid = (v_types ->> (u.place::integer - 1))::oid AND t.typcollation <> 0 ORDER BY u.place);
    IF cardinality(v_collatable) > 0 THEN
        -- In the collation of the query's column too: by it values are equal, or come first.
        SELECT pgtrickle_changes.run_as(p_owner, format(v_probe,
                   string_agg(format('pg_catalog.pg_collation_for(q.%1$I)::pg_catalog.regcollation::pg_catalog.oid::pg_catalog.int8', u.name), ', ' ORDER BY u.place),
                   p_query), p_settings => p_settings)
          INTO v_collations FROM unnest(v_collatable) WITH ORDINALITY AS u(name, place);
    END IF;
    -- With a modifier of -1 a type is printed so that it has none: "character" by itself would mean character(1).
    RETURN QUERY
        SELECT u.name, format('%I %s', u.name, format_type((v_types ->> (u.place::integer - 1))::oid, -1))
                       || coalesce(' COLLATE ' || (v_collations ->> (array_position(v_collatable, u.name) - 1))::oid::regcollation, '')
          FROM unnest(p_columns) WITH ORDINALITY AS u(name, place);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.probe_columns IS 'The names and definitions of a query''s columns, asked of PostgreSQL as the owner';

CREATE FUNCTION pgtrickle_changes.generated_name(p_name text, p_kind text, p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_name IS NULL OR p_name !~ format('^%s_%s_[0-9]{1,4}$', p_kind, p_id) THEN
        RAISE EXCEPTION 'invalid plan: "%" is no name for a % of stream table %', p_name, p_kind, p_id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Let pgtrickle.create_stream_table, the command line or the Python API compile the query.';
    END IF;
    RETURN format('pgtrickle_changes.%I', p_name);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.generated_name IS 'The qualified name of a state or delta, if a plan calls it what it may be called';

CREATE FUNCTION pgtrickle_changes.drop_states(p_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN
        SELECT t.item ->> 'name' FROM pgtrickle.pgt_plans AS p
         CROSS JOIN LATERAL jsonb_array_elements((p.plan -> 'states') || (p.plan -> 'deltas')) AS t(item)
         WHERE p.pgt_id = p_id AND to_regclass(format('pgtrickle_changes.%I', t.item ->> 'name')) IS NOT NULL
    LOOP
        EXECUTE format('DROP TABLE pgtrickle_changes.%I CASCADE', v_name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_states IS 'Drops the state and delta tables of a stream table';

-- The indexes that deltas are applied by are the stream table's, made as its owner.  Those of ours are known by their comment: what
-- the owner made himself is left alone, or used.

CREATE FUNCTION pgtrickle_changes.index_remark() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'pg_trickle applies changes by this index'
$$;
COMMENT ON FUNCTION pgtrickle_changes.index_remark IS 'The comment on every index that the engine makes';

CREATE FUNCTION pgtrickle_changes.index_columns(p_index oid) RETURNS text[]
    LANGUAGE plpgsql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT array_agg(a.attname::text ORDER BY u.place)
          FROM pg_index AS i
         CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS u(attnum, place)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
         WHERE i.indexrelid = p_index AND i.indisunique AND i.indnullsnotdistinct AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL AND u.place <= i.indnkeyatts);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.index_columns IS 'The columns of an index that keeps rows with the same values in them apart, NULLs included; NULL for any other index';

CREATE FUNCTION pgtrickle_changes.make_indexes(p_table pgtrickle.pgt_stream_tables, p_plan jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Have the plan's key or content index, and no index of a former plan's.  The rows of a former query may break the new key: then they
-- go, and the refresh that follows in this transaction brings the new ones.  Nobody sees the table without rows.
DECLARE
    v_key     text[] := ARRAY(SELECT jsonb_array_elements_text(nullif(p_plan -> 'key', 'null')));
    v_hashed  jsonb;
    v_name    text := format('%I.%I', p_table.pgt_schema, p_table.pgt_name);
    v_index   text;
BEGIN
    FOR v_index IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_index AS i
          JOIN pg_class AS c ON c.oid = i.indexrelid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE i.indrelid = p_table.pgt_relid AND obj_description(i.indexrelid, 'pg_class') = pgtrickle_changes.index_remark()
           AND pgtrickle_changes.index_columns(i.indexrelid) IS DISTINCT FROM v_key
    LOOP
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DROP INDEX ' || v_index);
    END LOOP;
    IF cardinality(v_key) > 0 AND NOT EXISTS (
        SELECT FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid AND pgtrickle_changes.index_columns(i.indexrelid) = v_key) THEN
        BEGIN
            PERFORM pgtrickle_changes.make_index(p_table, format('CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT', v_name, (
                SELECT string_agg(quote_ident(c), ', ' ORDER BY place) FROM unnest(v_key) WITH ORDINALITY AS u(c, place))));
        EXCEPTION WHEN unique_violation THEN
            PERFORM pgtrickle_changes.command_as(p_table.owner_oid, 'DELETE FROM ' || v_name);
            PERFORM pgtrickle_changes.make_indexes(p_table, p_plan);
            RETURN;
        END;
        -- Rows that are found by a key are updated: where their page has room, no index is touched.
        PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('ALTER TABLE %s SET (fillfactor = 85)', v_name));
    END IF;
    FOR v_hashed IN SELECT h FROM unnest(ARRAY[p_plan -> 'content_index', p_plan -> 'lookup']) AS h WHERE jsonb_array_length(nullif(h, 'null')) > 0 LOOP
        PERFORM pgtrickle_changes.make_index(p_table, format('CREATE INDEX ON %s (pg_catalog.hash_record_extended(ROW(%s), 0))', v_name,
                                                             pgtrickle_changes.quoted_list(v_hashed)));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_indexes IS 'Gives the stream table the indexes of its plan, and takes those of a former one';

CREATE FUNCTION pgtrickle_changes.make_index(p_table pgtrickle.pgt_stream_tables, p_command text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- PostgreSQL finds the name, and the index gets our comment.
DECLARE
    v_former oid[] := ARRAY(SELECT i.indexrelid FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid);
    v_index  regclass;
BEGIN
    PERFORM pgtrickle_changes.command_as(p_table.owner_oid, p_command);
    SELECT i.indexrelid INTO STRICT v_index FROM pg_index AS i WHERE i.indrelid = p_table.pgt_relid AND i.indexrelid <> ALL (v_former);
    PERFORM pgtrickle_changes.command_as(p_table.owner_oid, format('COMMENT ON INDEX %s IS %L', v_index, pgtrickle_changes.index_remark()));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_index IS 'Makes an index as the stream table''s owner';
