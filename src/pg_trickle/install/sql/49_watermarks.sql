-- Watermarks: loaders say up to when each source is complete, and the worker refreshes what reads several of a group once they agree.

CREATE TABLE pgtrickle_changes.watermarks (
    source_relid oid         PRIMARY KEY,
    watermark    timestamptz NOT NULL,
    advanced_by  name        NOT NULL,
    advanced_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgtrickle_changes.watermarks IS 'Up to when sources are complete, as their owners say';

CREATE TABLE pgtrickle_changes.watermark_groups (
    group_name text   PRIMARY KEY CHECK (group_name <> ''),
    owner_oid  oid    NOT NULL,
    tolerance  float8 NOT NULL CHECK (tolerance >= 0)
);
COMMENT ON TABLE pgtrickle_changes.watermark_groups IS 'Sources that belong together; tolerance: by how many seconds their watermarks may differ';

CREATE TABLE pgtrickle_changes.watermark_members (
    group_name   text NOT NULL REFERENCES pgtrickle_changes.watermark_groups ON DELETE CASCADE,
    source_relid oid  NOT NULL,
    PRIMARY KEY (group_name, source_relid)
);
COMMENT ON TABLE pgtrickle_changes.watermark_members IS 'The sources of each group';

CREATE FUNCTION pgtrickle_changes.do_advance_watermark(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source    oid := pgtrickle_changes.owned_source(p_caller, p_args);
    v_watermark timestamptz := (p_args ->> 'watermark')::timestamptz;
    v_former    timestamptz;
BEGIN
    IF v_watermark IS NULL THEN
        RAISE EXCEPTION 'the watermark is NULL' USING ERRCODE = 'invalid_parameter_value', HINT = 'Say up to when the source is complete.';
    END IF;
    INSERT INTO pgtrickle_changes.watermarks AS w (source_relid, watermark, advanced_by) VALUES (v_source, v_watermark, p_caller)
        ON CONFLICT (source_relid) DO UPDATE SET watermark = excluded.watermark, advanced_by = excluded.advanced_by, advanced_at = now()
     WHERE w.watermark <= excluded.watermark;
    IF NOT FOUND THEN
        SELECT w.watermark INTO v_former FROM pgtrickle_changes.watermarks AS w WHERE w.source_relid = v_source;
        RAISE EXCEPTION 'the watermark of "%" would go backwards', v_source::regclass
            USING ERRCODE = 'data_exception', DETAIL = format('It stands at %s.', v_former),
                  HINT = 'What was complete stays so. To begin anew, drop the table and create it again.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_advance_watermark IS 'The gate''s advance_watermark';

CREATE FUNCTION pgtrickle_changes.do_create_watermark_group(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Like a gate it holds up everybody's stream tables over these sources.
DECLARE
    v_name      text := coalesce(p_args ->> 'group_name', '');
    v_tolerance float8 := (p_args ->> 'tolerance_secs')::float8;
    v_sources   oid[];
BEGIN
    IF v_name = '' OR v_tolerance IS NULL OR NOT v_tolerance BETWEEN 0 AND 1e9 THEN
        RAISE EXCEPTION '% of a watermark group is invalid', CASE WHEN v_name = '' THEN 'the name' ELSE 'the tolerance' END
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A group has a name, and a tolerance of 0 or more seconds.';
    END IF;
    v_sources := ARRAY(SELECT DISTINCT pgtrickle_changes.owned_source(p_caller, p_args || jsonb_build_object('source', s.name))
                         FROM jsonb_array_elements_text(nullif(p_args -> 'sources', 'null')) AS s(name));
    IF cardinality(v_sources) < 2 THEN
        RAISE EXCEPTION 'a watermark group needs two sources'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'The watermark of one has none to agree with.', HINT = 'Name the tables that are loaded together.';
    END IF;
    BEGIN
        INSERT INTO pgtrickle_changes.watermark_groups (group_name, owner_oid, tolerance) VALUES (v_name, pgtrickle_changes.role_oid(p_caller), v_tolerance);
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION 'watermark group "%" already exists', v_name
            USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or drop it first with drop_watermark_group().';
    END;
    INSERT INTO pgtrickle_changes.watermark_members (group_name, source_relid) SELECT v_name, u.oid FROM unnest(v_sources) AS u(oid);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_create_watermark_group IS 'The gate''s create_watermark_group';

CREATE FUNCTION pgtrickle_changes.do_drop_watermark_group(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner oid;
BEGIN
    SELECT g.owner_oid INTO v_owner FROM pgtrickle_changes.watermark_groups AS g WHERE g.group_name = p_args ->> 'group_name';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'watermark group "%" does not exist', p_args ->> 'group_name'
            USING ERRCODE = 'undefined_object', HINT = 'List them with SELECT * FROM pgtrickle.watermark_status();';
    END IF;
    -- Whose creator is gone is a superuser's.
    IF NOT coalesce(pg_has_role(p_caller, (SELECT r.oid FROM pg_authid AS r WHERE r.oid = v_owner), 'USAGE'),
                    (SELECT r.rolsuper FROM pg_authid AS r WHERE r.rolname = p_caller)) THEN
        RAISE EXCEPTION 'must be owner of watermark group "%"', p_args ->> 'group_name'
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('Role "%s" created it.', pg_get_userbyid(v_owner)), HINT = 'Ask that role, or a superuser.';
    END IF;
    DELETE FROM pgtrickle_changes.watermark_groups AS g WHERE g.group_name = p_args ->> 'group_name';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_drop_watermark_group IS 'The gate''s drop_watermark_group';

CREATE FUNCTION pgtrickle_changes.awaits_watermarks(p_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- A group's sources that a stream table reads itself, if there are two: one may have no watermark yet, or theirs are too far apart.
BEGIN
    RETURN EXISTS (
        SELECT FROM pgtrickle_changes.watermark_groups AS g
          JOIN pgtrickle_changes.watermark_members AS m USING (group_name)
          JOIN pgtrickle.pgt_dependencies AS d ON d.source_relid = m.source_relid AND d.pgt_id = p_id
          LEFT JOIN pgtrickle_changes.watermarks AS w ON w.source_relid = m.source_relid
         GROUP BY g.group_name, g.tolerance
        HAVING count(*) > 1 AND (count(w.watermark) < count(*) OR extract(epoch FROM max(w.watermark) - min(w.watermark)) > g.tolerance));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.awaits_watermarks IS 'Whether the watermarks of what a stream table reads don''t agree yet';

CREATE VIEW pgtrickle.visible_watermarks WITH (security_barrier) AS
    SELECT m.group_name, format('%I.%I', n.nspname, c.relname) AS source_table, c.oid AS source_relid, w.watermark, w.advanced_by, w.advanced_at,
           g.tolerance, extract(epoch FROM f.front - w.watermark)::float8 AS lag,
           CASE WHEN m.group_name IS NOT NULL THEN NOT f.is_incomplete AND extract(epoch FROM f.front - f.rear) <= g.tolerance END AS is_aligned
      FROM pgtrickle_changes.watermark_members AS m
      JOIN pgtrickle_changes.watermark_groups AS g USING (group_name)
      FULL JOIN pgtrickle_changes.watermarks AS w USING (source_relid)
      JOIN pg_class AS c ON c.oid = source_relid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN LATERAL (SELECT max(o.watermark) AS front, min(o.watermark) AS rear, count(o.watermark) < count(*) AS is_incomplete
                           FROM pgtrickle_changes.watermark_members AS a LEFT JOIN pgtrickle_changes.watermarks AS o USING (source_relid)
                          WHERE a.group_name = m.group_name) AS f ON true
     WHERE has_table_privilege(CURRENT_USER, c.oid, 'SELECT') OR pg_has_role(CURRENT_USER, 'pg_monitor', 'USAGE');
COMMENT ON VIEW pgtrickle.visible_watermarks IS 'Watermarks and their groups, of the sources that the current user may read';

CREATE FUNCTION pgtrickle.watermark_status()
    RETURNS TABLE (group_name text, source_table text, source_oid oid, watermark timestamptz, lag_secs float8, tolerance_secs float8, aligned boolean,
                   advanced_by name, advanced_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.group_name, w.source_table, w.source_relid, w.watermark, w.lag, w.tolerance, w.is_aligned, w.advanced_by, w.advanced_at
      FROM pgtrickle.visible_watermarks AS w ORDER BY w.group_name, w.source_table
$$;
COMMENT ON FUNCTION pgtrickle.watermark_status() IS
    'Watermarks and the groups they are in, a row a source and group, of sources that the caller may read. lag_secs: behind the group''s first; aligned: whether the group''s agree';
GRANT SELECT ON pgtrickle.visible_watermarks TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.watermark_status() TO pg_monitor;
