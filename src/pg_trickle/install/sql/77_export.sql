-- A stream table as SQL that makes it anew.

CREATE VIEW pgtrickle.visible_definitions WITH (security_barrier) AS
    SELECT s.pgt_relid, s.name, rtrim(pg_get_viewdef(st.definition_view), '; ') AS query, st.settings, st.schedule, st.refresh_mode,
           st.diamond_consistency, st.diamond_schedule_policy, st.cdc_mode, st.append_only, st.tier, st.fuse_ceiling
      FROM pgtrickle.pgt_stream_tables AS st
      JOIN pgtrickle_changes.status AS s USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     WHERE v.role = CURRENT_USER AND v.may_read;
COMMENT ON VIEW pgtrickle.visible_definitions IS 'What makes up the stream tables that the current user may read; names in query are qualified as the search path needs it';
GRANT SELECT ON pgtrickle.visible_definitions TO PUBLIC;

CREATE FUNCTION pgtrickle.export_definition(name regclass) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
    SET "TimeZone" = 'UTC'
    SET "DateStyle" = 'ISO, MDY'
    SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET lc_monetary = 'C'
AS $$
-- Under these settings constants look the same to everybody, and with pg_catalog alone on the path every name is qualified.
DECLARE
    v_table pgtrickle.visible_definitions;
BEGIN
    SELECT d.* INTO v_table FROM pgtrickle.visible_definitions AS d WHERE d.pgt_relid = export_definition.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream table "%" does not exist', export_definition.name
            USING ERRCODE = 'undefined_table', DETAIL = 'There is none of this name that you may read.',
                  HINT = 'List them with SELECT * FROM pgtrickle.pgt_status();';
    END IF;
    RETURN concat_ws(E'\n',
        -- What its creator's session had otherwise than usual.
        (SELECT string_agg(format('SET %I = %L;', s.key, s.value), E'\n' ORDER BY s.key) FROM jsonb_each_text(v_table.settings) AS s),
        format(E'SELECT pgtrickle.create_stream_table(\n    %s);', concat_ws(E',\n    ',
            format('name => %L', v_table.name), format('query => %L', v_table.query), format('schedule => %L', v_table.schedule),
            format('refresh_mode => %L', v_table.refresh_mode), format('diamond_consistency => %L', v_table.diamond_consistency),
            format('diamond_schedule_policy => %L', v_table.diamond_schedule_policy), format('cdc_mode => %L', v_table.cdc_mode),
            format('append_only => %s', v_table.append_only::text))),
        CASE WHEN v_table.tier <> 'hot' OR v_table.fuse_ceiling IS NOT NULL
             THEN format(E'SELECT pgtrickle.alter_stream_table(\n    %s);', concat_ws(E',\n    ', format('name => %L', v_table.name),
                  format('tier => %L', v_table.tier), 'fuse_ceiling => ' || v_table.fuse_ceiling)) END);
END
$$;
COMMENT ON FUNCTION pgtrickle.export_definition(regclass) IS
    'The SQL that makes a stream table anew, as it stands, wherever its sources are. For those who may SELECT from it';
GRANT EXECUTE ON FUNCTION pgtrickle.export_definition(regclass) TO pg_monitor;
