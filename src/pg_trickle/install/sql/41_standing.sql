-- Programs that stand: the statements of a program as a function of the owner's, so that a session plans them once.
--
-- Reading and planning the delta of a join of five tables takes longer than running it.  A plan that is kept was made for some number of
-- changed rows, and would take hours over a hundred times as many: so a function serves changes of like size, source by source.

CREATE TABLE pgtrickle_changes.standing_programs (
    pgt_id  bigint  NOT NULL REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    number  integer NOT NULL,
    sources oid[]   NOT NULL,
    sizes   float8[] NOT NULL,
    config  text[],
    PRIMARY KEY (pgt_id, number)
);
COMMENT ON TABLE pgtrickle_changes.standing_programs IS 'Changes that a refresh has met, by source and size; from the second time on the program for them stands';
COMMENT ON COLUMN pgtrickle_changes.standing_programs.sizes IS 'Logarithms: how many rows of each source, and then how many times as many of each the planner expects';
COMMENT ON COLUMN pgtrickle_changes.standing_programs.config IS 'The settings that the function of the program was made with; NULL: there is none';

CREATE FUNCTION pgtrickle_changes.standing_name(p_id bigint, p_number integer) RETURNS name
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('program_%s_%s', p_id, p_number)::name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.standing_name IS 'What the function of a standing program is called';

CREATE FUNCTION pgtrickle_changes.standing_for(p_table pgtrickle.pgt_stream_tables, p_sources oid[], p_sizes float8[]) RETURNS name
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Nobody but the engine can put another in its place, but its owner may alter it.
BEGIN
    RETURN (SELECT p.proname
              FROM pgtrickle_changes.standing_programs AS s
              JOIN pg_proc AS p ON p.proname = format('program_%s_%s', s.pgt_id, s.number)::name
             WHERE s.pgt_id = p_table.pgt_id AND s.sources = p_sources
               AND NOT EXISTS (SELECT FROM unnest(s.sizes, p_sizes) AS z(known, met) WHERE abs(z.known - z.met) > ln(8) IS NOT FALSE)
               AND p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proowner = p_table.owner_oid
               AND p.prosecdef AND p.provolatile = 'v' AND NOT p.proisstrict AND p.proconfig = s.config
             ORDER BY s.number LIMIT 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.standing_for IS 'The function that stands for a program, for changes of some size, if it is there as it was made';

CREATE FUNCTION pgtrickle_changes.only_as(p_owner oid) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Its owner may make it SECURITY INVOKER at any moment, and then it would run as whoever refreshes.
BEGIN
    RETURN format(E'    IF pg_catalog.pg_get_userbyid(%L::pg_catalog.oid) OPERATOR(pg_catalog.<>) CURRENT_USER THEN\n'
                  '        RAISE EXCEPTION ''a function that stands for a stream table has been altered and runs nothing''\n'
                  '            USING ERRCODE = ''55000'', HINT = ''Refresh once more: it is made anew.'';\n    END IF;\n', p_owner);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.only_as IS 'What a function that stands begins with: it runs as nobody but its owner';

CREATE FUNCTION pgtrickle_changes.standing_body(p_program jsonb, p_owner oid) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- What run_program does with the statements of a program.
DECLARE
    v_body text := E'\n#variable_conflict use_column\nDECLARE\n    __pgt_wrote pg_catalog.int8;\n    __pgt_rows pg_catalog.int8 := 0;\n'
                   || pgtrickle_changes.frontier_bounds() || pgtrickle_changes.unknown_bounds() || E'BEGIN\n' || pgtrickle_changes.only_as(p_owner);
BEGIN
    SELECT v_body || string_agg(format(E'    %s INTO __pgt_wrote;\n    IF __pgt_wrote IS NULL THEN\n        RETURN NULL;\n    END IF;\n'
                                       '    __pgt_rows := __pgt_rows OPERATOR(pg_catalog.+) __pgt_wrote;\n', s.value), '' ORDER BY s.place)
      INTO v_body FROM jsonb_array_elements_text(p_program) WITH ORDINALITY AS s(value, place);
    RETURN v_body || E'    RETURN __pgt_rows;\nEND\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.standing_body IS 'A program as PL/pgSQL: the rows it wrote, NULL as soon as a statement yields that';

CREATE FUNCTION pgtrickle_changes.for_sources(p_program jsonb, p_sources oid[], p_excesses float8[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The program for whatever has changed asks that of $3, which a plan that is kept doesn't know: it would take the changes of all sources for
-- many rows, and read whole tables for them.  So the answer is put in the place of each question, which the compiler spells so that it can't
-- be part of a name or of a string; nor can what tells the rows that are new (render/feed.py), which is asked more where the planner takes
-- it for so many times as many rows as there are: it is put there as a whole, for what it says before the source has no quotes in it.
DECLARE
    v_text   text := p_program::text;
    v_gate   text[];
    v_source oid;
    v_excess float8;
    v_own    text;
BEGIN
    FOR v_gate IN
        SELECT DISTINCT m.gate
          FROM regexp_matches(v_text, $r$(coalesce\(pg_catalog\.jsonb_exists_any\(\$3 -> 'changed', ARRAY\[([0-9', ]+)\]\), TRUE\))$r$, 'g') AS m(gate)
    LOOP
        v_text := replace(v_text, v_gate[1], CASE WHEN ARRAY(SELECT o.found[1]::oid FROM regexp_matches(v_gate[2], '[0-9]+', 'g') AS o(found)) && p_sources
                                                  THEN 'TRUE' ELSE 'FALSE' END);
    END LOOP;
    FOR v_source, v_excess IN SELECT u.source, u.excess FROM unnest(p_sources, p_excesses) AS u(source, excess) LOOP
        v_own := format(' AND (xid IS DISTINCT FROM $2 OR seq > ($3 ->> %L)::bigint)', v_source);
        v_text := replace(v_text, '(xid >= pg_snapshot_xmax($1) OR xid = ANY (ARRAY(SELECT pg_snapshot_xip($1) UNION ALL SELECT $2)))' || v_own,
                          '(xid >= __pgt_xmax OR xid = ANY (__pgt_running))' || pgtrickle_changes.always_true(v_excess) || v_own);
    END LOOP;
    RETURN v_text::jsonb;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.for_sources IS 'A program for the case that just these sources have changed, and that the planner expects so many times as many new rows of each as there are';

CREATE FUNCTION pgtrickle_changes.hand_over_function(p_function regprocedure, p_table pgtrickle.pgt_stream_tables, p_does text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', p_function, pg_get_userbyid(p_table.owner_oid));
    PERFORM pgtrickle_changes.close_function(p_function);
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', p_function, format('pg_trickle: %s stream table %s', p_does, p_table.pgt_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.hand_over_function IS 'Gives a function that stands for a stream table to its owner, for nobody else';

CREATE FUNCTION pgtrickle_changes.make_standing(p_table pgtrickle.pgt_stream_tables, p_number integer, p_program jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name     name := pgtrickle_changes.standing_name(p_table.pgt_id, p_number);
    v_settings text := (SELECT string_agg(format(' SET %I = %L', s.key, s.value), '') FROM jsonb_each_text(p_table.settings) AS s);
BEGIN
    PERFORM pgtrickle_changes.drop_standing(p_table.pgt_id, p_number);
    EXECUTE format('CREATE FUNCTION pgtrickle_changes.%I(pg_snapshot, xid8, jsonb, timestamptz) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
                   '%s%s SET plan_cache_mode = force_generic_plan AS %L',
                   v_name, pgtrickle_changes.owner_settings(), v_settings, pgtrickle_changes.standing_body(p_program, p_table.owner_oid));
    PERFORM pgtrickle_changes.hand_over_function(format('pgtrickle_changes.%I(pg_snapshot, xid8, jsonb, timestamptz)', v_name)::regprocedure, p_table, 'refreshes');
    UPDATE pgtrickle_changes.standing_programs AS s
       SET config = (SELECT p.proconfig FROM pg_proc AS p WHERE p.proname = v_name AND p.pronamespace = 'pgtrickle_changes'::regnamespace)
     WHERE s.pgt_id = p_table.pgt_id AND s.number = p_number;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_standing IS 'Makes the function of a program, the owner''s, for nobody else';

-- What counts the changes stands, too: planning that takes longer than running it, for each of the sources.

CREATE FUNCTION pgtrickle_changes.counting_name(p_id bigint) RETURNS name
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('pending_%s', p_id)::name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.counting_name IS 'What the function is called that counts the changes for a stream table';

CREATE FUNCTION pgtrickle_changes.counting_body(p_query text, p_owner oid) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format(E'\nDECLARE\n%sBEGIN\n%s    RETURN (%s);\nEND\n', pgtrickle_changes.frontier_bounds(), pgtrickle_changes.only_as(p_owner), p_query);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.counting_body IS 'A query that counts changes, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.is_counting(p_id bigint, p_owner oid, p_query text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether the function is there as it would be made today, from the captures of today.
BEGIN
    RETURN EXISTS (SELECT FROM pg_proc AS p
                    WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname = pgtrickle_changes.counting_name(p_id) AND p.proowner = p_owner
                      AND p.prosecdef AND p.provolatile = 'v' AND NOT p.proisstrict AND p.prosrc = pgtrickle_changes.counting_body(p_query, p_owner)
                      AND p.proconfig = '{"search_path=pg_catalog, pg_temp",standard_conforming_strings=on,row_security=on,jit=off,plan_cache_mode=force_generic_plan,enable_seqscan=off}');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_counting IS 'Whether the function that counts the changes for a stream table is there, as it was made and up to date';

CREATE FUNCTION pgtrickle_changes.make_counting(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A session that plans it while a buffer is small would read the whole of a large one later, if it weren't told to use the index.
DECLARE
    v_name  name := pgtrickle_changes.counting_name(p_table.pgt_id);
    v_query text := (pgtrickle_changes.counting_query(p_table.pgt_id)).query;
BEGIN
    IF v_query IS NULL OR pgtrickle_changes.is_counting(p_table.pgt_id, p_table.owner_oid, v_query) THEN
        RETURN;
    END IF;
    IF to_regprocedure(format('pgtrickle_changes.%I(pg_snapshot, xid8, jsonb)', v_name)) IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION pgtrickle_changes.%I(pg_snapshot, xid8, jsonb) CASCADE', v_name);
    END IF;
    EXECUTE format('CREATE FUNCTION pgtrickle_changes.%I(pg_snapshot, xid8, jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE SECURITY DEFINER'
                   ' SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET row_security = on SET jit = off'
                   ' SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS %L',
                   v_name, pgtrickle_changes.counting_body(v_query, p_table.owner_oid));
    PERFORM pgtrickle_changes.hand_over_function(format('pgtrickle_changes.%I(pg_snapshot, xid8, jsonb)', v_name)::regprocedure, p_table, 'counts the changes for');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_counting IS 'Makes the function that counts the changes for a stream table, the owner''s, for nobody else';

CREATE FUNCTION pgtrickle_changes.drop_standing(p_id bigint, p_number integer DEFAULT NULL::integer) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- One function, or all that a stream table has: also those whose row was lost.
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
         WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
           AND CASE WHEN p_number IS NULL THEN p.proname ~ format('^(program_%1$s_[0-9]+|pending_%1$s)$', p_id) ELSE p.proname = pgtrickle_changes.standing_name(p_id, p_number) END
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', v_function);
    END LOOP;
    IF p_number IS NULL THEN
        DELETE FROM pgtrickle_changes.standing_programs AS s WHERE s.pgt_id = p_id;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.drop_standing IS 'Drops the standing programs of a stream table, or one of them';

CREATE FUNCTION pgtrickle_changes.known_changes(p_id bigint, p_sources oid[], p_sizes float8[]) RETURNS integer
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (SELECT s.number FROM pgtrickle_changes.standing_programs AS s
             WHERE s.pgt_id = p_id AND s.sources = p_sources
               AND NOT EXISTS (SELECT FROM unnest(s.sizes, p_sizes) AS z(known, met) WHERE abs(z.known - z.met) > ln(8) IS NOT FALSE)
             ORDER BY s.number LIMIT 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.known_changes IS 'The number that changes of some size have; NULL if none like them were met';

CREATE FUNCTION pgtrickle_changes.meet_changes(p_id bigint, p_sources oid[], p_sizes float8[], OUT number integer, OUT is_known boolean)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The number under which changes of that size are known: of each source no more than eight times as many rows, and no fewer than an
-- eighth.  Of the sizes that are noted the oldest makes room.  A session that runs them all holds a megabyte or two for each, so
-- there are only so many: NULL when there is room for no more.
DECLARE
    v_most     CONSTANT integer := 6;
    v_together CONSTANT integer := 200;
BEGIN
    number := pgtrickle_changes.known_changes(p_id, p_sources, p_sizes);
    is_known := number IS NOT NULL;
    IF NOT is_known AND (SELECT count(*) FROM pgtrickle_changes.standing_programs AS s WHERE s.pgt_id <> p_id) < v_together THEN
        SELECT coalesce(max(s.number), 0) + 1 INTO number FROM pgtrickle_changes.standing_programs AS s WHERE s.pgt_id = p_id;
        PERFORM pgtrickle_changes.drop_standing(p_id, s.number) FROM pgtrickle_changes.standing_programs AS s
          WHERE s.pgt_id = p_id AND s.number <= meet_changes.number - v_most;
        DELETE FROM pgtrickle_changes.standing_programs AS s WHERE s.pgt_id = p_id AND s.number <= meet_changes.number - v_most;
        INSERT INTO pgtrickle_changes.standing_programs AS s VALUES (p_id, number, p_sources, p_sizes);
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.meet_changes IS 'The number that changes of some size have, and whether there were such before';

CREATE FUNCTION pgtrickle_changes.differential_program(p_id bigint, p_pending jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A plan is some hundred kilobytes, compressed, and unpacked whole for whatever is taken out of it: so once.
BEGIN
    RETURN (SELECT coalesce(d.programs -> (SELECT coalesce(string_agg(k, ',' ORDER BY k::bigint), '') FROM jsonb_object_keys(p_pending) AS k),
                            d.programs -> '*')
              FROM (SELECT p.plan #> '{programs,differential}' FROM pgtrickle.pgt_plans AS p WHERE p.pgt_id = p_id OFFSET 0) AS d(programs));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.differential_program IS 'The program of a plan for the sources that have changed; NULL if it has none';

CREATE FUNCTION pgtrickle_changes.standing_program(p_table pgtrickle.pgt_stream_tables, p_pending jsonb) RETURNS name
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The function that does what the program for these changes does; NULL where planning it is worth while: for
-- changes of a size that was never met before, or in buffers that are many times as large, and for many.  Few are taken for sixteen: their
-- number hardly matters.
DECLARE
    v_when     text := pgtrickle_changes.setting('keep_plans');
    v_sources  oid[];
    v_sizes    float8[];
    v_excesses float8[];
    v_rows     bigint;
    v_known    record;
    v_name     name;
    v_program  jsonb;
BEGIN
    -- What the planner makes of a buffer: so many pages as there are now, with as many rows in each as there were; sixty where it was never told.
    SELECT array_agg(s.source ORDER BY s.source), array_agg(s.n ORDER BY s.source),
           array_agg(greatest(pg_relation_size(c.oid) / current_setting('block_size')::integer * CASE WHEN c.reltuples > 0 THEN c.reltuples / greatest(c.relpages, 1) ELSE 60 END / s.n, 1)
                     ORDER BY s.source), sum(s.n)
      INTO v_sources, v_sizes, v_excesses, v_rows
      FROM (SELECT e.key::oid, greatest((e.value ->> 0)::float8, 16) FROM jsonb_each(p_pending) AS e) AS s(source, n)
      LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source AND k.owner_oid = p_table.owner_oid
      LEFT JOIN pg_class AS c ON c.oid = k.buffer_relid;
    IF v_when = 'off' OR v_rows IS NULL OR v_rows > 50000 THEN
        RETURN NULL;
    END IF;
    v_sizes := ARRAY(SELECT ln(u.size) FROM unnest(v_sizes || v_excesses) AS u(size));
    v_name := pgtrickle_changes.standing_for(p_table, v_sources, v_sizes);
    IF v_name IS NOT NULL THEN
        RETURN v_name;
    END IF;
    BEGIN
        v_known := pgtrickle_changes.meet_changes(p_table.pgt_id, v_sources, v_sizes);
        IF v_known.number IS NULL OR NOT v_known.is_known AND v_when <> 'always' THEN
            RETURN NULL;
        END IF;
        v_name := pgtrickle_changes.standing_name(p_table.pgt_id, v_known.number);
        v_program := pgtrickle_changes.for_sources(pgtrickle_changes.differential_program(p_table.pgt_id, p_pending), v_sources, v_excesses);
        IF v_program IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM pgtrickle_changes.make_standing(p_table, v_known.number, v_program);
        PERFORM pgtrickle_changes.make_counting(p_table);
    EXCEPTION WHEN OTHERS THEN
        -- Whatever forbids it, an event trigger for one, a refresh doesn't need it.
        RAISE LOG 'pg_trickle: no program stands for stream table % (SQLSTATE %)', p_table.pgt_id, SQLSTATE;
        RETURN NULL;
    END;
    RETURN v_name;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.standing_program IS 'The function that stands for the program for some changes; NULL where there is none';

CREATE FUNCTION pgtrickle_changes.call_standing(p_name name, p_counts boolean, p_frontier pg_snapshot, p_own_xid xid8, p_own_seqs jsonb,
                                                p_frontier_time timestamptz DEFAULT NULL::timestamptz) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
AS $$
-- Such a function is its owner's and SECURITY DEFINER, under the settings of his runner (run_as), without which it does.
DECLARE
    v_result jsonb;
BEGIN
    IF p_counts THEN
        EXECUTE format('SELECT pgtrickle_changes.%I($1, $2, $3)', p_name) INTO v_result USING p_frontier, p_own_xid, p_own_seqs;
    ELSE
        EXECUTE format('SELECT pg_catalog.to_jsonb(pgtrickle_changes.%I($1, $2, $3, $4))', p_name) INTO v_result
          USING p_frontier, p_own_xid, p_own_seqs, p_frontier_time;
    END IF;
    -- As in run_as: until these are known to be as they were, nothing is looked up by a search path.
    IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) 'pg_catalog, pg_temp'
       OR pg_catalog.current_setting('standard_conforming_strings') OPERATOR(pg_catalog.<>) 'on' THEN
        PERFORM pgtrickle_changes.refuse_settings();
    END IF;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.call_standing IS 'Calls a function that stands for a stream table: one that counts its changes, or a program';

CREATE FUNCTION pgtrickle_changes.run_standing(p_table pgtrickle.pgt_stream_tables, p_name name) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rows jsonb := pgtrickle_changes.call_standing(p_name, false, p_table.frontier, p_table.frontier_xid, p_table.frontier_seqs, p_table.frontier_time);
BEGIN
    IF v_rows IS NULL THEN
        PERFORM pgtrickle_changes.refuse_contradiction(p_table);
    END IF;
    RETURN v_rows::bigint;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.run_standing IS 'Runs a program that stands; how many rows of the stream table it wrote';
