-- Whether a capture is still what the engine made.

CREATE FUNCTION pgtrickle_changes.capture_stamp(p_source oid, p_buffer name, p_attnums smallint[], p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Changes whenever a trigger, a function, the buffer, the owner's rights on it, the name of a captured column, the expression
-- that generates it, the source's place below a parent, what is below it, a policy on it, or a subscription to it does.
DECLARE
    v_names     name[] := pgtrickle_changes.capture_functions(p_buffer);
    v_relations oid[] := pgtrickle_changes.capture_relations(p_source);
    v_functions oid[];
    v_versions  text;
BEGIN
    SELECT array_agg(p.oid), string_agg(concat_ws(' ', p.oid, p.xmin, p.proowner), ',' ORDER BY p.oid) INTO v_functions, v_versions
      FROM pg_proc AS p WHERE p.proname = ANY (v_names) AND p.pronamespace = 'pgtrickle_changes'::regnamespace;
    RETURN md5(concat_ws('|', v_relations::text, v_versions,
        (SELECT string_agg(concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
           FROM pg_trigger AS t WHERE t.tgrelid = ANY (v_relations) AND t.tgfoid = ANY (v_functions)),
        (SELECT concat_ws(' ', b.oid, b.relowner, b.relkind, b.relchecks, b.relhastriggers, b.relhasrules, b.relrowsecurity, b.relpersistence, b.relispartition,
                          has_schema_privilege(b.relowner, b.relnamespace, 'USAGE'),
                          has_table_privilege(b.relowner, b.oid, 'INSERT'),
                          (SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum)
                             FROM pg_attribute AS a WHERE a.attrelid = b.oid AND a.attnum > 0))
           FROM pg_class AS b
          WHERE b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace),
        (SELECT s.relnamespace FROM pg_class AS s WHERE s.oid = p_source),
        (SELECT string_agg(m.xid::text, ',') FROM pgtrickle_changes.missed_changes AS m
           JOIN pg_class AS b ON b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace AND b.relowner = m.owner_oid
          WHERE m.source_relid = p_source),
        (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), g.xmin), ',' ORDER BY a.attnum)
           FROM pg_attribute AS a
           LEFT JOIN pg_attrdef AS g ON g.adrelid = a.attrelid AND g.adnum = a.attnum AND a.attgenerated = 'v'
          WHERE a.attrelid = p_source AND a.attnum = ANY (p_attnums)),
        -- Who is written by way of a parent, or by logical replication, is captured row by row, if at all.
        (SELECT string_agg(concat_ws(' ', i.inhparent, i.xmin), ',' ORDER BY i.inhseqno) FROM pg_inherits AS i WHERE i.inhrelid = p_source),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid) FROM pg_policy AS p WHERE p.polrelid = p_source),
        (SELECT string_agg(s.srsubid::text, ',' ORDER BY s.srsubid) FROM pg_subscription_rel AS s WHERE s.srrelid = p_source),
        CASE WHEN p_mode = 'wal' THEN concat('wal ', pgtrickle_changes.wal_stamp(p_source)) END));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_stamp IS 'The version of everything that a capture consists of';

CREATE FUNCTION pgtrickle_changes.captures_version(p_id bigint, p_owner oid) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- The stamps of a stream table's captures, and of all of them together what capture_stamp looks at one by one: as long as this stays as it was,
-- so does each.  One question for six sources takes a third of the time of six.  NULL where it can't vouch for them: what is decoded from the WAL
-- may stop being for reasons of its own.
DECLARE
    v_sources   oid[];
    v_buffers   oid[];
    v_names     name[];
    v_relations oid[];
    v_functions oid[];
    v_versions  text;
    v_captures  text;
    v_wal       boolean;
BEGIN
    SELECT array_agg(s.source_relid), array_agg(b.oid), array_agg(k.buffer), bool_or(k.trigger_mode = 'wal' OR k.source_relid IS NULL OR b.oid IS NULL),
           string_agg(concat_ws(' ', s.source_relid, k.stamp, k.attnums, t.relnamespace, b.oid, b.relowner, b.relkind, b.relchecks, b.relhastriggers, b.relhasrules,
                                b.relrowsecurity, b.relpersistence, b.relispartition, has_schema_privilege(b.relowner, b.relnamespace, 'USAGE'),
                                has_table_privilege(b.relowner, b.oid, 'INSERT')), ',' ORDER BY s.source_relid)
      INTO v_sources, v_buffers, v_names, v_wal, v_captures
      FROM pgtrickle.pgt_dependencies AS s
      LEFT JOIN pgtrickle.pgt_captures AS k ON k.source_relid = s.source_relid AND k.owner_oid = p_owner
      LEFT JOIN pg_class AS b ON b.relname = k.buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace
      LEFT JOIN pg_class AS t ON t.oid = s.source_relid
     WHERE s.pgt_id = p_id AND s.captured;
    IF v_wal IS DISTINCT FROM false THEN
        RETURN NULL;
    END IF;
    v_relations := v_sources;
    IF EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = ANY (v_sources)) THEN
        v_relations := ARRAY(SELECT r.relid FROM unnest(v_sources) AS s(relid) CROSS JOIN LATERAL unnest(pgtrickle_changes.capture_relations(s.relid)) AS r(relid)
                              ORDER BY s.relid, r.relid);
    END IF;
    SELECT array_agg(p.oid), string_agg(concat_ws(' ', p.oid, p.xmin, p.proowner), ',' ORDER BY p.oid) INTO v_functions, v_versions
      FROM pg_proc AS p
     WHERE p.proname = ANY (ARRAY(SELECT f.name FROM unnest(v_names) AS b(name) CROSS JOIN LATERAL unnest(pgtrickle_changes.capture_functions(b.name)) AS f(name)))
       AND p.pronamespace = 'pgtrickle_changes'::regnamespace;
    RETURN md5(concat_ws('|', v_captures, v_relations::text, v_versions,
        (SELECT string_agg(concat_ws(' ', t.oid, t.tgrelid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
           FROM pg_trigger AS t WHERE t.tgrelid = ANY (v_relations) AND t.tgfoid = ANY (v_functions)),
        (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, a.xmin), ',' ORDER BY a.attrelid, a.attnum)
           FROM pg_attribute AS a WHERE a.attrelid = ANY (v_buffers) AND a.attnum > 0),
        (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, quote_ident(a.attname)), ',' ORDER BY a.attrelid, a.attnum)
           FROM pg_attribute AS a WHERE a.attrelid = ANY (v_sources) AND a.attnum > 0),
        (SELECT string_agg(concat_ws(' ', g.oid, g.xmin), ',' ORDER BY g.oid) FROM pg_attrdef AS g WHERE g.adrelid = ANY (v_sources)),
        (SELECT string_agg(concat_ws(' ', m.source_relid, m.owner_oid, m.xid), ',' ORDER BY m.source_relid, m.owner_oid, m.xid)
           FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = ANY (v_sources)),
        (SELECT string_agg(concat_ws(' ', i.inhrelid, i.inhparent, i.xmin), ',' ORDER BY i.inhrelid, i.inhseqno)
           FROM pg_inherits AS i WHERE i.inhrelid = ANY (v_sources)),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid) FROM pg_policy AS p WHERE p.polrelid = ANY (v_sources)),
        (SELECT string_agg(concat_ws(' ', s.srrelid, s.srsubid), ',' ORDER BY s.srrelid, s.srsubid) FROM pg_subscription_rel AS s
          WHERE s.srrelid = ANY (v_sources))));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.captures_version IS 'A text that changes when the stamp of any of a stream table''s captures does, or would; NULL if only looking at each can tell';

CREATE FUNCTION pgtrickle_changes.capture_drift(p_source oid, p_owner oid) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
DECLARE
    v_capture pgtrickle.pgt_captures;
    v_refusal text;
BEGIN
    SELECT c.* INTO v_capture FROM pgtrickle.pgt_captures AS c WHERE c.source_relid = p_source AND c.owner_oid = p_owner;
    IF NOT FOUND THEN
        RETURN 'nothing captures its changes';
    END IF;
    IF v_capture.trigger_mode = 'wal' THEN
        v_refusal := (pgtrickle_changes.wal_refusal(p_source, p_owner)).reason;
        v_refusal := coalesce(v_refusal, CASE WHEN pgtrickle_changes.wal_stamp(p_source) IS NULL THEN 'it was taken out of publication "pg_trickle"' END);
    END IF;
    IF v_refusal IS NULL AND v_capture.stamp = pgtrickle_changes.capture_stamp(p_source, v_capture.buffer, v_capture.attnums, v_capture.trigger_mode) THEN
        RETURN NULL;
    END IF;
    RETURN coalesce(
        v_refusal,
        CASE WHEN EXISTS (SELECT FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = p_source AND m.owner_oid = p_owner)
             THEN format('change buffer "%s" was locked', v_capture.buffer) END,
        CASE WHEN NOT EXISTS (SELECT FROM pg_class AS c
                               WHERE c.oid = v_capture.buffer_relid AND c.relname = v_capture.buffer
                                 AND c.relnamespace = 'pgtrickle_changes'::regnamespace)
             THEN format('change buffer "%s" was dropped or moved', v_capture.buffer) END,
        (SELECT format('function "%s" was dropped or moved', f.name)
           FROM unnest(pgtrickle_changes.capture_functions(v_capture.buffer)) AS f(name)
          WHERE v_capture.trigger_mode <> 'wal'
            AND NOT EXISTS (SELECT FROM pg_proc AS p
                             WHERE p.proname = f.name AND p.pronamespace = 'pgtrickle_changes'::regnamespace)
          LIMIT 1),
        (SELECT format('trigger "%s" was %s', g.name, CASE WHEN t.oid IS NULL THEN 'dropped' ELSE 'disabled' END)
           FROM unnest(pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source)) AS g(name)
           LEFT JOIN pg_trigger AS t ON t.tgrelid = p_source AND t.tgname = g.name
          WHERE t.tgenabled IS DISTINCT FROM 'A' AND v_capture.trigger_mode <> 'wal'
          LIMIT 1),
        (SELECT format('function "%s" was altered', p.proname)
           FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
          WHERE t.tgrelid = p_source AND t.tgname = ANY (pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source))
            AND strpos(pg_get_triggerdef(t.oid), md5(pg_get_functiondef(p.oid))) = 0
          LIMIT 1),
        (SELECT format('column "%s" was renamed', o.name)
           FROM unnest(v_capture.attnums, v_capture.columns) AS o(attnum, name)
           LEFT JOIN pg_attribute AS a ON a.attrelid = p_source AND a.attnum = o.attnum
          WHERE a.attname IS DISTINCT FROM o.name
          LIMIT 1),
        'its triggers, its partitions or its change buffer were altered');
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_drift IS 'NULL when changes of the source have been captured without a gap since the capture was made; else what is wrong';

CREATE FUNCTION pgtrickle_changes.is_plain(p_buffer oid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Asked where the engine looks after the buffers of many owners: what one has hung on his would run in the others' time.  An index needs
-- a right on the schema that he hasn't got.
BEGIN
    RETURN (SELECT b.relkind = 'r' AND b.relchecks = 0 AND NOT (b.relhastriggers OR b.relhasrules OR b.relrowsecurity OR b.relispartition OR b.relhassubclass)
                   AND NOT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                                    WHERE a.attrelid = b.oid AND a.attnum > 0 AND NOT a.attisdropped AND (a.atthasdef OR t.typtype = 'd'))
              FROM pg_class AS b WHERE b.oid = p_buffer);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_plain IS 'Whether a change buffer has nothing attached to it in which code of its owner''s could be; NULL if it is gone';

CREATE FUNCTION pgtrickle_changes.lock_plain(p_capture pgtrickle.pgt_captures, p_to_write boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Nothing can be attached from then on.  Nobody waits for whoever has locked it.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_capture.buffer_relid AND c.relname = p_capture.buffer AND c.relnamespace = 'pgtrickle_changes'::regnamespace) THEN
        RETURN false;
    END IF;
    BEGIN
        IF p_to_write THEN
            EXECUTE format('LOCK TABLE pgtrickle_changes.%I IN ROW EXCLUSIVE MODE NOWAIT', p_capture.buffer);
        ELSE
            EXECUTE format('LOCK TABLE pgtrickle_changes.%I IN ACCESS SHARE MODE NOWAIT', p_capture.buffer);
        END IF;
    EXCEPTION WHEN lock_not_available OR undefined_table THEN
        RETURN false;
    END;
    RETURN coalesce(pgtrickle_changes.is_plain(p_capture.buffer_relid), false);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.lock_plain IS 'Locks a change buffer, if that can be had at once and nothing of its owner''s is attached to it; whether it is so';
