-- Policies in capture functions: the condition on a changed row, and the condition that it may still be asked (docs/decisions/0012).

CREATE FUNCTION pgtrickle_changes.capture_filter(p_source oid, p_owner oid, OUT predicate text, OUT columns smallint[], OUT version text, OUT may_fail boolean,
    OUT has_subquery boolean)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    columns := '{}';
    may_fail := false;
    has_subquery := false;
    IF pgtrickle_changes.row_security_applies(p_owner, p_source) THEN
        -- No row at all, where that can't be told when it is captured: the plan doesn't have it captured, then.
        SELECT CASE WHEN f.reason IS NULL THEN f.predicate ELSE 'false' END, f.columns, f.version, f.may_fail AND f.reason IS NULL,
               f.has_subquery AND f.reason IS NULL
          INTO predicate, columns, version, may_fail, has_subquery
          FROM pgtrickle_changes.policy_filter(p_owner, p_source) AS f;
    END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_filter IS 'Which changed rows the owner may see, where policies decide; NULL where they don''t';

CREATE FUNCTION pgtrickle_changes.policies_hold(p_source oid, p_owner oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Also of the tables that policies read; and what they hold must be looked at as of now, not of when the transaction began.
DECLARE
    v_filter record := pgtrickle_changes.capture_filter(p_source, p_owner);
    v_tables text;
BEGIN
    IF NOT v_filter.has_subquery THEN
        RETURN pgtrickle_changes.policies_same(p_source, v_filter.version, false);
    END IF;
    SELECT coalesce(string_agg(format(' AND %s AND (%s)', pgtrickle_changes.policy_table_same(t.relid, t.columns),
               pgtrickle_changes.policies_same(t.relid, CASE WHEN pgtrickle_changes.row_security_applies(p_owner, t.relid)
                                                             THEN pgtrickle_changes.policies_version(p_owner, t.relid, true) END, true)),
               '' ORDER BY t.relid), '')
      INTO v_tables FROM pgtrickle_changes.policy_tables(p_owner, p_source) AS t;
    RETURN format('(pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.=) ANY (''{read committed,read uncommitted}''::pg_catalog.text[])'
                  ' AND %s%s) IS TRUE', pgtrickle_changes.policies_same(p_source, v_filter.version, true), v_tables);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policies_hold IS 'The condition, as SQL, that the policies by which the owner sees the source are those that were last looked at';

CREATE FUNCTION pgtrickle_changes.policies_same(p_relation oid, p_version text, p_texts boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- They count no more for who has become exempt from them.  A refresh lifts them for the stream table's owner while it writes.
BEGIN
    IF p_version IS NULL THEN
        RETURN format('NOT pg_catalog.row_security_active(%s::pg_catalog.oid)', p_relation);
    END IF;
    RETURN format(
        '(pg_catalog.row_security_active(%1$s::pg_catalog.oid)%4$s)'
        ' AND (SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat_ws('' '', p.oid, p.xmin, p.ctid%3$s), '','' ORDER BY p.oid), '''')'
        ' FROM pg_catalog.pg_policy AS p WHERE p.polrelid OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid'
        ' AND (p.polcmd OPERATOR(pg_catalog.=) ''r'' OR p.polcmd OPERATOR(pg_catalog.=) ''*'')'
        ' AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS r(id)'
        ' WHERE r.id OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR pg_catalog.pg_has_role(r.id, ''USAGE'')))'
        ' OPERATOR(pg_catalog.=) %2$L', p_relation, p_version,
        CASE WHEN p_texts THEN ', pg_catalog.pg_get_expr(p.polqual, p.polrelid)' ELSE '' END,
        CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables AS st WHERE st.pgt_relid = p_relation) THEN format(
            ' OR (SELECT s.relrowsecurity AND NOT s.relforcerowsecurity AND pg_catalog.pg_has_role(s.relowner, ''USAGE'')'
            ' FROM pg_catalog.pg_class AS s WHERE s.oid OPERATOR(pg_catalog.=) %s::pg_catalog.oid)', p_relation) ELSE '' END);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policies_same IS 'The condition, as SQL, that the policies of a table that count for the current user are of a version; of none: that none count';

CREATE FUNCTION pgtrickle_changes.policy_table_same(p_table oid, p_columns smallint[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text := (SELECT string_agg(format('pg_catalog.has_column_privilege(s.oid, %s::pg_catalog.int2, ''SELECT'')', u.attnum), ' AND ')
                         FROM unnest(p_columns) AS u(attnum));
BEGIN
    RETURN (SELECT format('(SELECT s.relowner OPERATOR(pg_catalog.=) %1$s::pg_catalog.oid AND NOT s.relhassubclass'
                          ' AND pg_catalog.has_schema_privilege(s.relnamespace, ''USAGE'')'
                          ' AND (pg_catalog.has_table_privilege(s.oid, ''SELECT'') OR %2$s)'
                          ' FROM pg_catalog.pg_class AS s WHERE s.oid OPERATOR(pg_catalog.=) %3$s::pg_catalog.oid)', c.relowner,
                          coalesce(v_columns, 'pg_catalog.has_any_column_privilege(s.oid, ''SELECT'')'), p_table)
              FROM pg_class AS c WHERE c.oid = p_table);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.policy_table_same IS 'The condition, as SQL, that a table which policies read belongs to whom it did, and may still be read by the current user';
