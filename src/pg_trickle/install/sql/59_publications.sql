-- A stream table's rows for other servers, by logical replication.

CREATE FUNCTION pgtrickle_changes.publication_remark(p_id bigint) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('pg_trickle publishes stream table %s', p_id)
$$;
COMMENT ON FUNCTION pgtrickle_changes.publication_remark IS 'The comment by which a stream table''s publication is known, whatever it is called';

CREATE FUNCTION pgtrickle_changes.publication_of(p_table pgtrickle.pgt_stream_tables) RETURNS name
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- One that its owner has, whoever wrote the comment.
    SELECT p.pubname FROM pg_publication AS p
     WHERE p.pubowner = p_table.owner_oid AND obj_description(p.oid, 'pg_publication') = pgtrickle_changes.publication_remark(p_table.pgt_id)
     ORDER BY p.oid LIMIT 1
$$;
COMMENT ON FUNCTION pgtrickle_changes.publication_of IS 'The publication of a stream table; NULL if it has none';

CREATE FUNCTION pgtrickle_changes.do_stream_table_to_publication(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- As the owner: PostgreSQL demands CREATE on the database of him.
DECLARE
    v_table  pgtrickle.pgt_stream_tables := pgtrickle_changes.with_current_name(pgtrickle_changes.owned_stream_table(p_caller, p_args));
    v_name   name := pgtrickle_changes.publication_of(v_table);
BEGIN
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION 'stream table "%" is published already', v_table.pgt_name
            USING ERRCODE = 'duplicate_object', DETAIL = format('Its publication is "%s".', v_name),
                  HINT = format('Subscribe to that, or SELECT pgtrickle.drop_stream_table_publication(%L);', format('%I.%I', v_table.pgt_schema, v_table.pgt_name));
    END IF;
    v_name := format('pgtrickle_%s_%s', v_table.pgt_id, v_table.pgt_name)::name;
    BEGIN
        PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('CREATE PUBLICATION %I FOR TABLE ONLY %I.%I', v_name, v_table.pgt_schema, v_table.pgt_name));
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'permission denied to publish stream table "%"', v_table.pgt_name
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('PostgreSQL says: %s.', SQLERRM),
                  HINT = format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), pg_get_userbyid(v_table.owner_oid));
    END;
    PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('COMMENT ON PUBLICATION %I IS %L', v_name, pgtrickle_changes.publication_remark(v_table.pgt_id)));
    RETURN to_jsonb(v_name);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_stream_table_to_publication IS 'The gate''s stream_table_to_publication';

CREATE FUNCTION pgtrickle_changes.do_drop_stream_table_publication(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_name  name := pgtrickle_changes.publication_of(v_table);
BEGIN
    IF v_name IS NULL THEN
        RAISE EXCEPTION 'stream table "%" is not published', v_table.pgt_name
            USING ERRCODE = 'undefined_object', DETAIL = 'Publications that pg_trickle hasn''t made aren''t counted.',
                  HINT = 'SELECT * FROM pg_publication_tables; shows all. DROP PUBLICATION drops any.';
    END IF;
    PERFORM pgtrickle_changes.command_as(v_table.owner_oid, format('DROP PUBLICATION %I', v_name));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_drop_stream_table_publication IS 'The gate''s drop_stream_table_publication';

CREATE FUNCTION pgtrickle_changes.drop_publication(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name name := pgtrickle_changes.publication_of(p_table);
BEGIN
    IF v_name IS NOT NULL THEN
        EXECUTE format('DROP PUBLICATION IF EXISTS %I', v_name);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_publication IS 'Drops the publication of a stream table that is no more, if it has one';
