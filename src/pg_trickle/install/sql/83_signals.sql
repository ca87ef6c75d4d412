-- The SQL API, fourth part: being told of refreshes, here and on other servers, and stopping them.  As in 80_api.sql, these only hand the call to the gate.

CREATE FUNCTION pgtrickle.subscribe(
    stream_table text,
    channel text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('subscribe', pg_catalog.jsonb_build_object(
        'name', subscribe.stream_table,
        'channel', subscribe.channel))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.subscribe(text, text) IS
    'Have a NOTIFY sent on a channel whenever a refresh has changed a stream table: a JSON object with its name, mode and numbers of rows, no values. Not for what IMMEDIATE mode does in a writer''s statement';

CREATE FUNCTION pgtrickle.unsubscribe(
    stream_table text,
    channel text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('unsubscribe', pg_catalog.jsonb_build_object(
        'name', unsubscribe.stream_table,
        'channel', unsubscribe.channel))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.unsubscribe(text, text) IS
    'End a subscription';

CREATE FUNCTION pgtrickle.drain(
    timeout_s integer DEFAULT 60) RETURNS boolean
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('drain', pg_catalog.jsonb_build_object(
            'timeout_s', drain.timeout_s))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.bool FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.drain(integer) IS
    'Let the worker begin no refresh until undrain(), and wait for those under way; whether they have ended in that time. It holds at once, and whatever becomes of the transaction (superusers only)';

CREATE FUNCTION pgtrickle.undrain() RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('undrain', '{}') RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.undrain() IS
    'Let the worker refresh again (superusers only)';

CREATE FUNCTION pgtrickle.gate_source(
    source text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('gate_source', pg_catalog.jsonb_build_object(
        'source', gate_source.source))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.gate_source(text) IS
    'Have the worker leave alone all stream tables that read a table, until ungate_source: while it is being loaded, say. For its owner; once the transaction is committed. Refreshes by hand go on, as does IMMEDIATE mode';

CREATE FUNCTION pgtrickle.ungate_source(
    source text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('ungate_source', pg_catalog.jsonb_build_object(
        'source', ungate_source.source))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.ungate_source(text) IS
    'End what gate_source began';

CREATE FUNCTION pgtrickle.stream_table_to_publication(
    name text) RETURNS text
    LANGUAGE sql VOLATILE
AS $$
    WITH answer AS (
        INSERT INTO pgtrickle.gate (action, args) VALUES ('stream_table_to_publication', pg_catalog.jsonb_build_object(
            'name', stream_table_to_publication.name))
        RETURNING result
    )
    SELECT (answer.result OPERATOR(pg_catalog.#>>) '{}') FROM answer
$$;
COMMENT ON FUNCTION pgtrickle.stream_table_to_publication(text) IS
    'Publish a stream table''s rows for logical replication, as its owner, who needs CREATE on the database; the publication''s name';

CREATE FUNCTION pgtrickle.drop_stream_table_publication(
    name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_stream_table_publication', pg_catalog.jsonb_build_object(
        'name', drop_stream_table_publication.name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.drop_stream_table_publication(text) IS
    'Drop the publication that stream_table_to_publication() made; it goes with its stream table, too';

CREATE FUNCTION pgtrickle.advance_watermark(
    source text,
    watermark timestamptz) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('advance_watermark', pg_catalog.jsonb_build_object(
        'source', advance_watermark.source,
        'watermark', advance_watermark.watermark))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.advance_watermark(text, timestamptz) IS
    'Say up to when a source that the caller owns is complete, best in the transaction that loads it; never backwards (22000)';

CREATE FUNCTION pgtrickle.create_watermark_group(
    group_name text,
    sources text[],
    tolerance_secs float8 DEFAULT 0) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('create_watermark_group', pg_catalog.jsonb_build_object(
        'group_name', create_watermark_group.group_name,
        'sources', create_watermark_group.sources,
        'tolerance_secs', create_watermark_group.tolerance_secs))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.create_watermark_group(text, text[], float8) IS
    'Have the worker refresh what reads two or more of these sources, which the caller owns, only while their watermarks differ by no more than that; refreshes by hand go on';

CREATE FUNCTION pgtrickle.drop_watermark_group(
    group_name text) RETURNS void
    LANGUAGE sql VOLATILE
AS $$
    INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_watermark_group', pg_catalog.jsonb_build_object(
        'group_name', drop_watermark_group.group_name))
    RETURNING result
$$;
COMMENT ON FUNCTION pgtrickle.drop_watermark_group(text) IS
    'Drop a watermark group; the sources keep their watermarks';

INSERT INTO pgtrickle_changes.gate_actions (action, function) VALUES
    ('advance_watermark', 'pgtrickle.advance_watermark(text, timestamptz)'),
    ('create_watermark_group', 'pgtrickle.create_watermark_group(text, text[], float8)'),
    ('drop_watermark_group', 'pgtrickle.drop_watermark_group(text)'),
    ('stream_table_to_publication', 'pgtrickle.stream_table_to_publication(text)'),
    ('drop_stream_table_publication', 'pgtrickle.drop_stream_table_publication(text)'),
    ('gate_source', 'pgtrickle.gate_source(text)'),
    ('ungate_source', 'pgtrickle.ungate_source(text)'),
    ('subscribe', 'pgtrickle.subscribe(text, text)'),
    ('unsubscribe', 'pgtrickle.unsubscribe(text, text)'),
    ('drain', 'pgtrickle.drain(integer)'),
    ('undrain', 'pgtrickle.undrain()');
