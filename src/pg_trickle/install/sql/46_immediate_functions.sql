-- Making the functions that maintain an IMMEDIATE stream table, each its owner's or the engine's, and what it lends them.

CREATE FUNCTION pgtrickle_changes.make_owned_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_arguments text, p_returns text, p_body text) RETURNS regprocedure
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A generated function: the owner's, for nobody else.
DECLARE
    v_function regprocedure := pgtrickle_changes.make_generated_function(p_table, p_name, p_arguments, p_returns, p_body);
BEGIN
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', v_function, pg_get_userbyid(p_table.owner_oid));
    PERFORM pgtrickle_changes.close_function(v_function);
    RETURN v_function;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_owned_function IS 'Makes a generated function that runs as the stream table''s owner, for nobody else';

CREATE FUNCTION pgtrickle_changes.make_generated_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_arguments text, p_returns text, p_body text) RETURNS regprocedure
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Under the settings of the owner's runner and those of the stream table.
DECLARE
    -- An original has the settings of the function that it is compared with.
    v_role     text := regexp_replace(p_name, '_original$', '');
    v_settings text;
    v_function regprocedure;
BEGIN
    -- Pinning takes longer than the rest of the maintenance: the compiler says whether what is pinned can matter.  How literals are read matters
    -- to backslashes; and nothing is compiled of what notes a statement.  A plan is made once, also for a row of which something is known: of one that isn't in view
    -- it would be so cheap that PostgreSQL went on to make one for each.
    SELECT string_agg(format(' SET %I = %L', s.name, coalesce(p_table.settings ->> s.name, s.value)), '')
      INTO v_settings
      FROM (VALUES ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan') UNION ALL SELECT p.name, p.value FROM pgtrickle_changes.pinned_settings() AS p) AS s(name, value)
     WHERE CASE WHEN s.name IN ('jit', 'gin_fuzzy_search_limit') THEN v_role !~ '_(begin|back|gate|first|below|applied|slot|alone|sides|firm)$'
                WHEN s.name = 'plan_cache_mode' THEN position('__pgt_single' IN p_body) > 0
                WHEN s.name = 'standard_conforming_strings' THEN position('\' IN p_body) > 0
                ELSE v_role LIKE '%\_rest' OR v_role !~ '_(begin|back|gate|first|below|applied|slot|alone|sides|firm|texts|unrewritten)$' AND (
           SELECT p.plan #>> '{programs,immediate,settings}' IS DISTINCT FROM 'false' FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_table.pgt_id) END;
    EXECUTE format('CREATE FUNCTION pgtrickle_changes.%I(%s) RETURNS %s LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
                   ' SET search_path = pg_catalog, pg_temp%s AS %L', p_name, p_arguments, p_returns, v_settings, p_body);
    v_function := to_regprocedure(format('pgtrickle_changes.%I(%s)', p_name, regexp_replace(p_arguments, '^p_[a-z]+ ', '')));
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', v_function, format('pg_trickle: maintains stream table %s', p_table.pgt_id));
    PERFORM pgtrickle_changes.close_function(v_function);
    RETURN v_function;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_generated_function IS 'Makes a generated function, the engine''s for now and closed to everybody else';

CREATE FUNCTION pgtrickle_changes.make_guarded_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_body text) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The original stays the engine's, and is never called: it is what the owner's function has to be equal to.  Whom writers have to trust anyway, for he may put
-- triggers of his own on their tables, can alter his function as well: there is nothing to ask.
DECLARE
    v_function regprocedure := pgtrickle_changes.make_owned_function(p_table, p_name, '', 'trigger', p_body);
    v_original regprocedure;
BEGIN
    IF pgtrickle_changes.trusted_by_writers(p_table) THEN
        RETURN 'true';
    END IF;
    v_original := pgtrickle_changes.make_generated_function(p_table, p_name || '_original', '', 'trigger', p_body);
    RETURN pgtrickle_changes.immediate_guard(v_function, v_original);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_guarded_function IS 'Makes a trigger function that runs as the stream table''s owner; the condition under which it is what was made';

CREATE FUNCTION pgtrickle_changes.make_engine_trigger_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_body text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What only notes that a statement is under way, and waits for or takes the turn, is the engine's own, and so is what it writes: there is nothing to ask.
BEGIN
    PERFORM pgtrickle_changes.make_generated_function(p_table, p_name, '', 'trigger', format(E'\n%sBEGIN\n%s\n    RETURN NULL;\nEND\n',
        (SELECT E'DECLARE\n' || string_agg(format(E'    %s pg_catalog.%s;\n', v.name, v.type), '' ORDER BY v.name)
           FROM (VALUES ('__pgt_side', 'int8'), ('__pgt_free', 'int4[]'), ('__pgt_slot', 'int4'), ('__pgt_opened', 'int8'), ('__pgt_stack', 'text')) AS v(name, type) WHERE position(v.name IN p_body) > 0), p_body));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_engine_trigger_function IS 'Makes a trigger function that stays the engine''s, so that its triggers need no guard';

CREATE FUNCTION pgtrickle_changes.make_lent_function(p_table pgtrickle.pgt_stream_tables, p_name text, p_body text, p_arguments text DEFAULT '') RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', pgtrickle_changes.make_generated_function(p_table, p_name, p_arguments, 'void', format(E'\nBEGIN\n    %s\nEND\n', p_body)),
                   pg_get_userbyid(p_table.owner_oid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_lent_function IS 'Makes a function that stays the engine''s, and that the owner''s functions may call';

CREATE FUNCTION pgtrickle_changes.lend(p_table pgtrickle.pgt_stream_tables, p_relation regclass, p_privileges text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A table, or a sequence, that stays the engine's, which writes it for everybody: nothing of anybody's can be attached to it.  The owner's functions may do with it what
-- they have to.  Who else could set a session's numbers back or forward would hide a statement that is under way.
DECLARE
    v_is_table boolean := (SELECT c.relkind = 'r' FROM pg_class AS c WHERE c.oid = p_relation);
BEGIN
    IF v_is_table THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', p_relation);
    END IF;
    PERFORM pgtrickle_changes.revoke_strangers(p_relation);
    EXECUTE format('GRANT %s ON %s %s TO %I', p_privileges, CASE WHEN v_is_table THEN 'TABLE' ELSE 'SEQUENCE' END, p_relation, pg_get_userbyid(p_table.owner_oid));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lend IS 'Lets the owner''s functions use a relation of the engine''s, and nobody else';
