-- Subscriptions: a NOTIFY after each refresh that changed something, on channels that the owner chooses.

CREATE TABLE pgtrickle_changes.subscriptions (
    pgt_id     bigint      NOT NULL REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    channel    name        NOT NULL CHECK (channel <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pgt_id, channel)
);
COMMENT ON TABLE pgtrickle_changes.subscriptions IS 'Who is told of refreshes: a row a stream table and channel';

CREATE FUNCTION pgtrickle_changes.notify_subscribers(p_table pgtrickle.pgt_stream_tables, p_result jsonb, p_initiated_by text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Everybody may listen on any channel: no values of rows.  PostgreSQL delivers it when the transaction commits, if it does.
BEGIN
    PERFORM pg_notify(s.channel, jsonb_build_object(
                'stream_table', format('%I.%I', p_table.pgt_schema, p_table.pgt_name), 'refresh_mode', p_result -> 'mode',
                'initiated_by', p_initiated_by, 'rows_in', p_result -> 'rows_in', 'rows_out', p_result -> 'rows_out',
                'data_timestamp', p_result -> 'data_timestamp')::text)
       FROM pgtrickle_changes.subscriptions AS s
      WHERE s.pgt_id = p_table.pgt_id;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.notify_subscribers IS 'Tells of a refresh on the channels that are subscribed to it';

CREATE FUNCTION pgtrickle_changes.do_subscribe(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table   pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
    v_channel text := p_args ->> 'channel';
BEGIN
    IF coalesce(v_channel, '') = '' OR octet_length(v_channel) > 63 THEN
        RAISE EXCEPTION 'invalid channel: %', coalesce(quote_literal(v_channel), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A name of 1 to 63 bytes, as LISTEN takes it.';
    END IF;
    INSERT INTO pgtrickle_changes.subscriptions (pgt_id, channel) VALUES (v_table.pgt_id, v_channel);
    RETURN NULL;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'channel "%" is subscribed to stream table "%" already', v_channel, v_table.pgt_name
        USING ERRCODE = 'duplicate_object', HINT = 'SELECT * FROM pgtrickle.list_subscriptions();';
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_subscribe IS 'The gate''s subscribe';

CREATE FUNCTION pgtrickle_changes.do_unsubscribe(p_caller name, p_args jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table pgtrickle.pgt_stream_tables := pgtrickle_changes.owned_stream_table(p_caller, p_args);
BEGIN
    DELETE FROM pgtrickle_changes.subscriptions AS s WHERE s.pgt_id = v_table.pgt_id AND s.channel = p_args ->> 'channel';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'channel "%" is not subscribed to stream table "%"', p_args ->> 'channel', v_table.pgt_name
            USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM pgtrickle.list_subscriptions();';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.do_unsubscribe IS 'The gate''s unsubscribe';

CREATE VIEW pgtrickle.visible_subscriptions WITH (security_barrier) AS
    SELECT t.name AS stream_table, s.channel, s.created_at
      FROM pgtrickle_changes.subscriptions AS s
      JOIN pgtrickle_changes.status AS t USING (pgt_id)
      JOIN pgtrickle_changes.visibility AS v USING (pgt_id)
     WHERE v.role = CURRENT_USER AND (v.may_read OR v.is_monitor);
COMMENT ON VIEW pgtrickle.visible_subscriptions IS 'The subscriptions to stream tables that the current user may look at';

CREATE FUNCTION pgtrickle.list_subscriptions() RETURNS TABLE (stream_table text, channel name, created_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.stream_table, s.channel, s.created_at FROM pgtrickle.visible_subscriptions AS s ORDER BY s.stream_table, s.channel
$$;
COMMENT ON FUNCTION pgtrickle.list_subscriptions() IS 'The channels on which refreshes are told, of the stream tables that the caller may look at';
GRANT SELECT ON pgtrickle.visible_subscriptions TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgtrickle.list_subscriptions() TO pg_monitor;
