-- Statements of many rows: planned for their number, and what an INSERT brings inserted as it is (decision 0010, "Many rows").

CREATE FUNCTION pgtrickle_changes.immediate_large_texts(p_table pgtrickle.pgt_stream_tables, p_source oid, p_columns text[], p_event text, p_plan jsonb) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Those of the program, the one that holds the change back, and for an INSERT the plain one, NULL if there is none.
DECLARE
    v_delta text := pgtrickle_changes.immediate_delta(p_source, p_table.owner_oid, p_columns, p_event);
BEGIN
    RETURN pgtrickle_changes.immediate_texts(pgtrickle_changes.immediate_statements(p_plan, p_source, p_event), v_delta)
        || pgtrickle_changes.immediate_hold(p_table.pgt_id, p_source, p_columns, v_delta)
        || CASE WHEN p_event = 'ins' THEN 'WITH __pgt_delta AS (' || v_delta || ')' || (p_plan #>> ARRAY['programs', 'immediate', 'plain', p_source::text]) END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_large_texts IS 'The statements for many rows that a maintenance may have to carry out';

CREATE FUNCTION pgtrickle_changes.immediate_untouched(p_source oid) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- By PostgreSQL's own counts: nobody can set them back within a transaction (TRUNCATE does, but no table that a statement is writing can be truncated),
-- a savepoint that was rolled back counts, and what an earlier transaction has left there only says that there may have been a change.
BEGIN
    RETURN format('pg_catalog.current_setting(''track_counts'') OPERATOR(pg_catalog.=) ''on'''
                  ' AND pg_catalog.pg_stat_get_xact_tuples_inserted(%1$s::pg_catalog.oid) OPERATOR(pg_catalog.>=) __pgt_rows'
                  ' AND pg_catalog.pg_stat_get_xact_tuples_updated(%1$s::pg_catalog.oid) OPERATOR(pg_catalog.=) 0'
                  ' AND pg_catalog.pg_stat_get_xact_tuples_deleted(%1$s::pg_catalog.oid) OPERATOR(pg_catalog.=) 0', p_source);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_untouched IS 'Whether the transaction has changed or deleted no row of a source, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_plain(p_table pgtrickle.pgt_stream_tables, p_source oid, p_columns text[], p_event text, p_plan jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Where statements under way are noted, none is, or this would not be reached; elsewhere one may have changed the rows that are to be inserted.
-- If a key is there all the same, somebody has written to the stream table: the program can do with that, and few rows overwrite it.
DECLARE
    v_by_rows boolean := (p_plan #>> '{programs,immediate,by_rows}')::boolean;
    v_one     text := pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'brought');
    v_few     text := pgtrickle_changes.immediate_one(p_table, p_source, p_columns, p_event, p_plan, 'brought', true);
    v_many    text := format($q$        BEGIN
            EXECUTE (pgtrickle_changes.maintain_%s_%s_ins_texts())[%s];
            RETURN NULL;
        EXCEPTION WHEN unique_violation THEN
            __pgt_wrote := NULL;
        END;
$q$, p_table.pgt_id, p_source, 2 + jsonb_array_length(pgtrickle_changes.immediate_statements(p_plan, p_source, p_event)));
BEGIN
    IF p_event <> 'ins' OR p_plan #> ARRAY['programs', 'immediate', 'plain', p_source::text] IS NULL THEN
        RETURN '';
    END IF;
    RETURN CASE WHEN v_by_rows THEN format(E'    IF __pgt_rows OPERATOR(pg_catalog.<=) 200 AND %1$s AND %2$s THEN\n        %3$s\n        RETURN NULL;\n    END IF;\n'
                                           '    IF __pgt_rows OPERATOR(pg_catalog.>) 200 AND %2$s THEN\n',
                                           'pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.=) ''read committed''', pgtrickle_changes.immediate_untouched(p_source),
                                           CASE WHEN v_one = v_few THEN v_few || ';' ELSE format(E'IF __pgt_rows OPERATOR(pg_catalog.=) 1 THEN\n            %s;\n        ELSE\n            %s;\n        END IF;', v_one, v_few) END)
                ELSE E'    IF __pgt_rows OPERATOR(pg_catalog.>) 200 THEN\n' END || v_many || E'    END IF;\n';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_plain IS 'What inserts all that an INSERT brings, as PL/pgSQL; nothing, where it has to be looked at';
