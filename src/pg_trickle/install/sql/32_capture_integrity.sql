-- Whether a capture is still what the engine made.

CREATE FUNCTION pgtrickle_changes.capture_stamp(p_source oid, p_buffer name, p_attnums smallint[], p_mode text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Changes whenever a trigger, a function, the buffer, the owner's rights on it, the name of a captured column, the expression
-- that generates it, the source's place below a parent, what is below it, a policy on it, a subscription to it, or whether its writers have to trust the owner does.
DECLARE
    v_names     name[] := pgtrickle_changes.capture_functions(p_buffer);
    v_relations oid[] := pgtrickle_changes.capture_relations(p_source);
    v_functions oid[];
    v_versions  text;
BEGIN
    SELECT array_agg(p.oid), string_agg(concat_ws(' ', p.oid, p.xmin, p.ctid), ',' ORDER BY p.oid) INTO v_functions, v_versions
      FROM pg_proc AS p WHERE p.proname = ANY (v_names) AND p.pronamespace = 'pgtrickle_changes'::regnamespace;
    RETURN md5(concat_ws('|', v_relations::text, v_versions,
        (SELECT string_agg(concat_ws(' ', t.oid, t.xmin, t.ctid), ',' ORDER BY t.oid)
           FROM pg_trigger AS t
          WHERE t.tgrelid = ANY (v_relations) AND (t.tgfoid = ANY (v_functions) OR pgtrickle_changes.holds_capture(t, p_buffer))),
        (SELECT concat_ws(' ', b.oid, b.relowner, b.relkind, b.relchecks, b.relhastriggers, b.relhasrules, b.relrowsecurity, b.relpersistence, b.relispartition,
                          has_schema_privilege(b.relowner, b.relnamespace, 'USAGE'),
                          has_table_privilege(b.relowner, b.oid, 'INSERT'),
                          (SELECT string_agg(concat(a.xmin, a.ctid), ',' ORDER BY a.attnum)
                             FROM pg_attribute AS a WHERE a.attrelid = b.oid AND a.attnum > 0),
                          pgtrickle_changes.is_trusted(b.relowner, ARRAY[p_source]))
           FROM pg_class AS b
          WHERE b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace),
        (SELECT s.relnamespace FROM pg_class AS s WHERE s.oid = p_source),
        (SELECT string_agg(m.xid::text, ',') FROM pgtrickle_changes.missed_changes AS m
           JOIN pg_class AS b ON b.relname = p_buffer AND b.relnamespace = 'pgtrickle_changes'::regnamespace AND b.relowner = m.owner_oid
          WHERE m.source_relid = p_source),
        (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), g.xmin, g.ctid), ',' ORDER BY a.attnum)
           FROM pg_attribute AS a
           LEFT JOIN pg_attrdef AS g ON g.adrelid = a.attrelid AND g.adnum = a.attnum AND a.attgenerated = 'v'
          WHERE a.attrelid = p_source AND a.attnum = ANY (p_attnums)),
        -- Who is written by way of a parent, or by logical replication, is captured row by row, if at all.
        (SELECT string_agg(concat_ws(' ', i.inhparent, i.xmin, i.ctid), ',' ORDER BY i.inhseqno) FROM pg_inherits AS i WHERE i.inhrelid = p_source),
        (SELECT string_agg(concat_ws(' ', p.oid, p.xmin, p.ctid), ',' ORDER BY p.oid) FROM pg_policy AS p WHERE p.polrelid = p_source),
        (SELECT string_agg(s.srsubid::text, ',' ORDER BY s.srsubid) FROM pg_subscription_rel AS s WHERE s.srrelid = p_source),
        CASE WHEN p_mode = 'wal' THEN concat('wal ', pgtrickle_changes.wal_stamp(p_source)) END));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.capture_stamp IS 'The version of everything that a capture consists of';

CREATE FUNCTION pgtrickle_changes.basis_version(p_table pgtrickle.pgt_stream_tables) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
-- Each refresh asks this, and what it asks for is told by fingerprint, and by capture_stamp of each source, only when that has changed.  It looks at
-- each catalog once, where these look at some five times, and takes rather too much than too little: a difference costs no more than asking them.
-- What counts the changes, which follows from the captures and from being in a circle, belongs to it as well.  Rows come in the order of an index or as they lie, where nothing but DDL moves them.  NULL where it can't vouch for all of it: what is decoded from the WAL may stop
-- being for reasons of its own.
DECLARE
    v_relations oid[];
    v_below     oid[];
    v_buffers   oid[];
    v_names     name[];
    v_buffer    name;
    v_schemas   oid[];
    v_types     oid[];
    v_is_wal    boolean;
    v_is_parent boolean;
    v_is_member boolean;
    v_captures  text;
    v_classes   text;
    v_columns   text;
    v_made      text;
    v_others    text;
    v_roles     text[];
BEGIN
    SELECT array_agg(k.buffer_relid), array_agg(k.buffer), bool_or(k.trigger_mode = 'wal'),
           string_agg(concat_ws(' ', k.source_relid, k.buffer, k.stamp, k.attnums), ',' ORDER BY k.source_relid)
      INTO v_buffers, v_names, v_is_wal, v_captures
      FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = ANY (p_table.watched_relations) AND k.owner_oid = p_table.owner_oid;
    IF v_is_wal THEN
        RETURN NULL;
    END IF;
    v_relations := p_table.watched_relations || v_buffers;
    SELECT array_agg(c.relnamespace), bool_or(c.relhassubclass),
           string_agg(concat_ws(':', c.oid, c.relnamespace, quote_ident(c.relname), c.relowner, c.relkind, c.relpersistence, c.relispartition, c.relhassubclass, c.relchecks,
                                c.relhastriggers, c.relhasrules, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relacl), ',' ORDER BY c.oid)
      INTO v_schemas, v_is_parent, v_classes
      FROM pg_class AS c WHERE c.oid = ANY (v_relations);
    SELECT array_agg(a.atttypid) FILTER (WHERE a.atttypid >= 16384), concat(array_agg(a.xmin), array_agg(a.ctid))
      INTO v_types, v_columns
      FROM pg_attribute AS a WHERE a.attrelid = ANY (v_relations) AND a.attnum > 0;
    IF v_is_parent THEN
        v_below := ARRAY(SELECT b.relid FROM unnest(v_relations) AS r(relid) CROSS JOIN LATERAL unnest(pgtrickle_changes.capture_relations(r.relid)) AS b(relid) ORDER BY b.relid);
    END IF;
    IF p_table.watched_types <> '{}' THEN
        v_types := v_types || p_table.watched_types;
    END IF;
    IF v_types IS NOT NULL THEN
        v_made := (SELECT string_agg(v.part, ',' ORDER BY v.part) FROM (SELECT DISTINCT y.oid FROM unnest(v_types) AS y(oid)) AS u
                    CROSS JOIN LATERAL unnest(pgtrickle_changes.type_versions(u.oid)) AS v(part));
    END IF;
    IF p_table.watched_functions <> '{}' THEN
        v_schemas := v_schemas || ARRAY(SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = ANY (p_table.watched_functions) ORDER BY p.oid);
    END IF;
    IF v_names IS NOT NULL THEN
        FOREACH v_buffer IN ARRAY v_names LOOP
            v_names := v_names || pgtrickle_changes.capture_functions(v_buffer);
        END LOOP;
        v_names := v_names || pgtrickle_changes.counting_name(p_table.pgt_id);
    END IF;
    SELECT concat(array_agg(v.kind), array_agg(v.oid), array_agg(v.version), array_agg(v.place)), bool_or(v.kind = 'g') INTO v_others, v_is_member
      FROM (SELECT 'n' AS kind, n.oid, n.xmin AS version, n.ctid AS place FROM pg_namespace AS n WHERE n.oid = ANY (v_schemas)
            UNION ALL SELECT 'r', r.oid, r.xmin, r.ctid FROM pg_rewrite AS r WHERE r.ev_class = ANY (v_relations)
            UNION ALL SELECT 'i', i.indexrelid, i.xmin, i.ctid FROM pg_index AS i WHERE i.indrelid = ANY (v_relations) AND i.indisunique
            UNION ALL SELECT 'p', p.oid, p.xmin, p.ctid FROM pg_policy AS p WHERE p.polrelid = ANY (v_relations)
            UNION ALL SELECT 'd', d.oid, d.xmin, d.ctid FROM pg_attrdef AS d WHERE d.adrelid = ANY (v_relations)
            UNION ALL SELECT 't', t.oid, t.xmin, t.ctid FROM pg_trigger AS t WHERE t.tgrelid = ANY (v_relations || v_below)
            UNION ALL SELECT 'f', p.oid, p.xmin, p.ctid FROM pg_proc AS p WHERE p.proname = ANY (v_names) AND p.pronamespace = 'pgtrickle_changes'::regnamespace
            UNION ALL SELECT 'h', i.inhrelid, i.xmin, i.ctid FROM pg_inherits AS i WHERE i.inhrelid = ANY (v_relations) OR i.inhparent = ANY (v_relations)
            UNION ALL SELECT 'o', o.oid, o.xmin, o.ctid FROM pg_authid AS o WHERE o.oid = p_table.owner_oid
            UNION ALL SELECT 'g', g.roleid, g.xmin, g.ctid FROM pg_auth_members AS g WHERE g.member = p_table.owner_oid
            UNION ALL SELECT 's', s.srsubid, s.xmin, s.ctid FROM pg_subscription_rel AS s WHERE s.srrelid = ANY (v_relations)
            UNION ALL SELECT 'm', m.source_relid, m.xmin, m.ctid FROM pgtrickle_changes.missed_changes AS m WHERE m.source_relid = ANY (v_relations)) AS v;
    IF v_is_member THEN
        -- What is held through others.
        v_roles := pgtrickle_changes.role_versions(p_table.owner_oid);
    END IF;
    RETURN md5(ARRAY[p_table.scc_id::text, v_captures, v_classes, v_columns, v_below::text, v_made, v_others,
        pgtrickle_changes.function_versions(p_table.watched_functions)::text, v_roles::text,
        CASE WHEN p_table.watched_others <> '{}' THEN pgtrickle_changes.other_versions(p_table.watched_others)::text END]::text);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.basis_version IS
    'A text that changes when the fingerprint of a stream table does, or the stamp of any of its captures, or would; NULL if only looking at each can tell';

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
           FROM unnest((pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source))[:4]) AS g(name)
           LEFT JOIN pg_trigger AS t ON t.tgrelid = p_source AND t.tgname = g.name
          WHERE t.tgenabled IS DISTINCT FROM 'A' AND v_capture.trigger_mode <> 'wal'
          LIMIT 1),
        (SELECT format('function "%s" was altered', p.proname)
           FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
          WHERE t.tgrelid = p_source AND t.tgname = ANY ((pgtrickle_changes.capture_triggers(v_capture.buffer, p_source, p_source))[:4])
            AND strpos(pg_get_triggerdef(t.oid), md5(pg_get_functiondef(p.oid))) = 0
          LIMIT 1),
        (SELECT format('column "%s" was renamed', o.name)
           FROM unnest(v_capture.attnums, v_capture.columns) AS o(attnum, name)
           LEFT JOIN pg_attribute AS a ON a.attrelid = p_source AND a.attnum = o.attnum
          WHERE a.attname IS DISTINCT FROM o.name
          LIMIT 1),
        CASE WHEN v_capture.trigger_mode <> 'wal' AND NOT pgtrickle_changes.is_trusted(p_owner, ARRAY[p_source])
                  AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = p_source AND pgtrickle_changes.holds_capture(t, v_capture.buffer))
             THEN 'nothing keeps its functions where they are' END,
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
