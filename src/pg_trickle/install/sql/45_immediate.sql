-- IMMEDIATE: maintenance inside the statement that writes a source (docs/internals.md section 10, docs/decisions/0010).
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
    number   bigint NOT NULL,
    attachments text
);
COMMENT ON TABLE pgtrickle_changes.immediate IS 'The stream tables whose triggers are in place, and the version of what the engine made for them';
COMMENT ON COLUMN pgtrickle_changes.immediate.attachments IS 'The condition, as SQL, that something is attached to what the maintenance writes that may not run in a writer''s session; NULL: all may';

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
        SELECT CASE WHEN pgtrickle_changes.relation_kind(v_source) NOT IN ('table', 'stream_table', 'partitioned')
                    THEN format('its kind is %s', replace(pgtrickle_changes.relation_kind(v_source), '_', ' '))
                    WHEN c.relispartition THEN 'it is a partition'
                    WHEN EXISTS (SELECT FROM pg_subscription_rel AS s JOIN pgtrickle_changes.relations_below(c.oid) AS b ON b.relid = s.srrelid)
                    THEN 'it is written by logical replication' END
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

CREATE FUNCTION pgtrickle_changes.immediate_trigger(p_id bigint, p_event text, p_turn boolean) RETURNS name
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Triggers fire in the order of their names: those of stream tables that take turns first, the youngest before the others, so that who stands above others comes before
-- them (decision 0010); then those that lock rows, in the order of their ids; and what looks at a row before it is written, last.
DECLARE
    v_most constant bigint := 9999999999;
BEGIN
    RETURN CASE p_event WHEN 'move' THEN '~' ELSE '' END
           || CASE WHEN p_turn THEN format('pg_trickle_imm_%s_%s_%s', lpad((v_most - p_id % v_most)::text, 10, '0'), p_id, p_event)
                   ELSE format('pg_trickle_imm_rows_%s_%s', lpad(p_id::text, greatest(10, length(p_id::text)), '0'), p_event) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_trigger IS 'The name of a trigger that maintains a stream table, by event and by whether that takes turns';

CREATE FUNCTION pgtrickle_changes.immediate_triggers(p_id bigint) RETURNS name[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT pgtrickle_changes.immediate_trigger(p_id, e, t) FROM unnest('{begin,hold,ins,upd,del,trunc,sins,supd,sdel,move,gate,first,applied}'::text[]) AS e
                  CROSS JOIN unnest('{true,false}'::boolean[]) AS t);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_triggers IS 'The names that triggers which maintain a stream table may have';

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
