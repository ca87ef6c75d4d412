-- The columns of the table itself, which its owner may rename, drop and alter as those of any table.

CREATE FUNCTION pgtrickle_changes.column_numbers(p_table oid, p_view oid) RETURNS smallint[]
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT coalesce(a.attnum, 0::smallint)
                   FROM pg_attribute AS v
                   LEFT JOIN pg_attribute AS a ON a.attrelid = p_table AND a.attname = v.attname AND a.attnum > 0 AND NOT a.attisdropped
                  WHERE v.attrelid = p_view AND v.attnum > 0
                  ORDER BY v.attnum)
$$;
COMMENT ON FUNCTION pgtrickle_changes.column_numbers IS 'Which column of a table (attnum) holds each column of a view; 0: none';

CREATE FUNCTION pgtrickle_changes.follow_columns(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A column that was renamed in the table is renamed in the definition: what names it there makes the plan stale.
DECLARE
    v_view    regclass := p_table.definition_view;
    v_renamed jsonb;
    v_item    record;
BEGIN
    WITH renamed AS (
        SELECT v.attname AS former, t.attname AS name, n.place
          FROM unnest(p_table.column_numbers) WITH ORDINALITY AS n(attnum, place)
          JOIN pg_attribute AS v ON v.attrelid = p_table.definition_view AND v.attnum = n.place
          JOIN pg_attribute AS t ON t.attrelid = p_table.pgt_relid AND t.attnum = n.attnum AND NOT t.attisdropped
         WHERE v.attname <> t.attname AND NOT starts_with(t.attname, '__pgt_'))
    SELECT jsonb_agg(r) INTO v_renamed
      FROM renamed AS r
     -- Not to the name of one that was dropped.
     WHERE r.name NOT IN (SELECT v.attname FROM pg_attribute AS v WHERE v.attrelid = p_table.definition_view)
        OR r.name IN (SELECT o.former FROM renamed AS o);
    -- By way of names that nobody has: two may have changed places.
    FOR v_item IN SELECT r.* FROM jsonb_to_recordset(v_renamed) AS r(former text, name text, place integer) LOOP
        EXECUTE format('ALTER VIEW %s RENAME COLUMN %I TO %I', v_view, v_item.former, '__pgt_' || v_item.place);
    END LOOP;
    FOR v_item IN SELECT r.* FROM jsonb_to_recordset(v_renamed) AS r(former text, name text, place integer) LOOP
        EXECUTE format('ALTER VIEW %s RENAME COLUMN %I TO %I', v_view, '__pgt_' || v_item.place, v_item.name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.follow_columns IS 'Renames in the definition what was renamed in the table';

CREATE FUNCTION pgtrickle_changes.wrong_columns(p_table pgtrickle.pgt_stream_tables) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT CASE WHEN a.attname IS NULL THEN format('column "%s" was dropped', v.name)
                             ELSE format('column "%s" is of type %s, not %s', v.name, format_type(a.atttypid, a.atttypmod), v.type) END
                   FROM pgtrickle_changes.table_columns(p_table.definition_view) WITH ORDINALITY AS v(name, type, type_oid, typmod, collation_oid, place)
                   LEFT JOIN pg_attribute AS a ON a.attrelid = p_table.pgt_relid AND a.attname = v.name AND a.attnum > 0 AND NOT a.attisdropped
                  WHERE a.attname IS NULL OR (a.atttypid, a.atttypmod, a.attcollation) IS DISTINCT FROM (v.type_oid, v.typmod, v.collation_oid)
                  ORDER BY v.place)
$$;
COMMENT ON FUNCTION pgtrickle_changes.wrong_columns IS 'In words, which columns of a stream table are not as its query has them';

CREATE FUNCTION pgtrickle_changes.check_columns(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_wrong text[] := pgtrickle_changes.wrong_columns(p_table);
BEGIN
    IF cardinality(v_wrong) > 0 THEN
        RAISE EXCEPTION 'stream table "%" has not the columns of its query: %', p_table.pgt_name, array_to_string(v_wrong, ', ')
            USING ERRCODE = 'invalid_object_definition',
                  DETAIL = 'They were altered in the table itself.',
                  HINT = format('SELECT pgtrickle.repair_stream_table(%L); gives it the columns back; or give it another query with alter_stream_table.',
                                format('%I.%I', p_table.pgt_schema, p_table.pgt_name));
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.check_columns IS 'Raises unless a stream table has the columns of its query';
