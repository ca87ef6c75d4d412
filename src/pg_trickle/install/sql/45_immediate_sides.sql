-- Writers of one source of a join who have its turn together (decision 0010, "Writers of one side").
--
-- slots_<id>: who shares updates one row of it, any that is free, and is found there by whoever wants the turn whole: he locks them all, after the turn's row.  side_<id> says who may
-- share: nothing, until enough transactions one after the other have written one source only; then the number of that source; -1, since one of them came to another source,
-- until all who shared have ended: -2 from then on.  Sharing begins and ends only where the turn is held whole.

CREATE FUNCTION pgtrickle_changes.immediate_shared(p_id bigint) RETURNS oid[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT s.oid::oid FROM pgtrickle.pgt_plans AS p CROSS JOIN LATERAL jsonb_array_elements_text(p.plan #> '{programs,immediate,shared}') AS s(oid)
                  WHERE p.pgt_id = p_id ORDER BY 1);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_shared IS 'The sources of a stream table whose writers may have its turn together';

CREATE FUNCTION pgtrickle_changes.immediate_side(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('pg_catalog.pg_sequence_last_value(''pgtrickle_changes.side_%s''::pg_catalog.regclass)', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_side IS 'Whose writers may have a stream table''s turn together by now, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_slots() RETURNS integer
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Who takes the turn whole locks every one of them; who finds none that is free waits with his rows locked.
SELECT 128
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_slots IS 'How many transactions may share a stream table''s turn at once';

CREATE FUNCTION pgtrickle_changes.immediate_own_slot() RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('(pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.%%) %s)', pgtrickle_changes.immediate_slots());
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_own_slot IS 'The slot that a session tries first, as an expression; others may have the same';

CREATE FUNCTION pgtrickle_changes.immediate_sharing(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('EXISTS (SELECT FROM pgtrickle_changes.slots_%s AS s WHERE s.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id_if_assigned())', p_id);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_sharing IS 'Whether this transaction has a slot, as an expression';

CREATE FUNCTION pgtrickle_changes.immediate_share(p_id bigint, p_source oid, p_whole text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- His own slot, if it is free: it isn't waited for, or who has it couldn't go on to rows that this one has locked.  Where it was found; if another session took it and ended just now that is
-- a place that this statement doesn't see yet, and he takes another slot.
-- Who has his slot looks again whether slots are still looked at: whoever ended it has had all slots before he says that nobody shares any more.  Who shares already finds that they are: he is waited for.
-- An older snapshot learns of others by what they updated, so it takes the turn whole, and finds there all who have shared since.
BEGIN
    RETURN format($q$
        __pgt_side := %1$s;
        IF __pgt_side OPERATOR(pg_catalog.=) %2$s AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' THEN
            UPDATE pgtrickle_changes.slots_%3$s AS s SET holder = pg_catalog.pg_current_xact_id(), side = %2$s WHERE s.ctid OPERATOR(pg_catalog.=) (
                SELECT o.ctid FROM pgtrickle_changes.slots_%3$s AS o WHERE o.slot OPERATOR(pg_catalog.=) %5$s AND o.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id() FOR NO KEY UPDATE SKIP LOCKED) AND %4$s;
            IF NOT FOUND THEN
                IF NOT EXISTS (SELECT FROM pgtrickle_changes.slots_%3$s AS s WHERE s.slot OPERATOR(pg_catalog.=) %5$s AND s.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id_if_assigned()) THEN
                    PERFORM pgtrickle_changes.maintain_%3$s_slot(%2$s);
                END IF;
            END IF;
            __pgt_shared := %1$s OPERATOR(pg_catalog.>=) -1;
        ELSIF __pgt_side OPERATOR(pg_catalog.>=) -1 AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' THEN
            __pgt_shared := EXISTS (SELECT FROM pgtrickle_changes.slots_%3$s AS s WHERE s.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id_if_assigned() AND s.side OPERATOR(pg_catalog.=) %2$s);
        END IF;
        IF __pgt_shared IS NOT TRUE THEN
            %6$s
        END IF;
$q$, pgtrickle_changes.immediate_side(p_id), p_source::bigint, p_id, pgtrickle_changes.immediate_mention(p_id), pgtrickle_changes.immediate_own_slot(), p_whole);
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_share IS 'What shares a stream table''s turn with other writers of a source, or takes it whole, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_other_slot(p_id bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The slot that the transaction has already, or one that is free; if none is, it waits for its own.
BEGIN
    RETURN format($q$UPDATE pgtrickle_changes.slots_%1$s AS s SET holder = pg_catalog.pg_current_xact_id(), side = p_side WHERE s.slot OPERATOR(pg_catalog.=) (SELECT coalesce(
        (SELECT o.slot FROM pgtrickle_changes.slots_%1$s AS o WHERE o.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() LIMIT 1),
        (SELECT o.slot FROM pgtrickle_changes.slots_%1$s AS o ORDER BY o.slot LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED), %2$s)) AND s.holder OPERATOR(pg_catalog.<>) pg_catalog.pg_current_xact_id();$q$,
        p_id, pgtrickle_changes.immediate_own_slot());
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_other_slot IS 'What takes a slot where a session''s own is taken, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_alone(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Before the turn's row.  Who has it waits for this slot, or will: waiting for him is a deadlock.  Sharing ends all the same, or it would be met again and again; that slots are looked at lasts as long as this one is had.
BEGIN
    RETURN format($q$
    IF %1$s AND NOT EXISTS (SELECT FROM pgtrickle_changes.turn_%2$s AS t WHERE t.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()) THEN
        IF %4$s OPERATOR(pg_catalog.>) 0 THEN
            PERFORM pg_catalog.setval('pgtrickle_changes.side_%2$s'::pg_catalog.regclass, -1);
        END IF;
        PERFORM FROM pgtrickle_changes.turn_%2$s FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            %3$s
        END IF;
    END IF;$q$, pgtrickle_changes.immediate_sharing(p_id), p_id,
        pgtrickle_changes.immediate_again(p_id, 'This transaction and another have both begun to maintain it for one source, and one of them came to another source.'),
        pgtrickle_changes.immediate_side(p_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_alone IS 'What ends sharing when who shares needs the turn whole, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.immediate_sides(p_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- After the turn's row, so nobody begins or ends sharing meanwhile but who gives up sharing here; and before -2 is said, all slots were had, by one who doesn't share: if he goes back to a savepoint, a sharer's
-- changes may stay where his having all slots doesn't.  Older snapshots look for who has shared since, also when nobody does any more.
DECLARE
    v_lock text := format('PERFORM FROM pgtrickle_changes.slots_%s AS s ORDER BY s.slot FOR NO KEY UPDATE;', p_id);
BEGIN
    RETURN format($q$
    IF NOT EXISTS (SELECT FROM pgtrickle_changes.turn_%2$s AS t WHERE t.holder OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()) THEN
        RETURN;
    ELSIF %1$s IS NULL THEN
        %3$s
        PERFORM pg_catalog.setval('pgtrickle_changes.side_%2$s'::pg_catalog.regclass, t.side::pg_catalog.int8)
           FROM pgtrickle_changes.turn_%2$s AS t WHERE t.side OPERATOR(pg_catalog.=) ANY (%4$L::pg_catalog.oid[]);
        RETURN;
    ELSIF %1$s OPERATOR(pg_catalog.=) -2 AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' THEN
        RETURN;
    ELSIF %5$s THEN
        BEGIN
            %3$s
        EXCEPTION WHEN deadlock_detected THEN
            %6$s
        END;
    ELSE
        %3$s
    END IF;
    IF %1$s OPERATOR(pg_catalog.=) -1 AND NOT %5$s THEN
        PERFORM pg_catalog.setval('pgtrickle_changes.side_%2$s'::pg_catalog.regclass, -2);
    END IF;$q$, pgtrickle_changes.immediate_side(p_id), p_id, v_lock, pgtrickle_changes.immediate_shared(p_id), pgtrickle_changes.immediate_sharing(p_id),
        pgtrickle_changes.immediate_again(p_id, 'Another transaction that maintains it for the same source waits for what this one has locked.'));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.immediate_sides IS 'What waits for all who share a stream table''s turn, and begins sharing, as PL/pgSQL';

CREATE FUNCTION pgtrickle_changes.make_sides(p_table pgtrickle.pgt_stream_tables) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
-- The sequence outlives a crash, as prepared transactions do.  Slots are few on a page; from then on what was updated is cleared away when a quarter of it is full, and not each time.
DECLARE
    v_id bigint := p_table.pgt_id;
BEGIN
    IF pgtrickle_changes.immediate_shared(v_id) = '{}' THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE pgtrickle_changes.slots_%s (slot integer PRIMARY KEY, side oid NOT NULL, holder xid8 NOT NULL) WITH (fillfactor = 10)', v_id);
    EXECUTE format('INSERT INTO pgtrickle_changes.slots_%s SELECT s, 0, ''0'' FROM generate_series(0, %s - 1) AS s', v_id, pgtrickle_changes.immediate_slots());
    EXECUTE format('ALTER TABLE pgtrickle_changes.slots_%s SET (fillfactor = 25)', v_id);
    EXECUTE format('CREATE SEQUENCE pgtrickle_changes.side_%s MINVALUE -2 OWNED BY pgtrickle_changes.slots_%1$s.side', v_id);
    EXECUTE format('COMMENT ON TABLE pgtrickle_changes.slots_%s IS %L', v_id, 'Who maintains stream table ' || v_id || ' together with others');
    EXECUTE format('COMMENT ON SEQUENCE pgtrickle_changes.side_%s IS %L', v_id, 'The source whose writers maintain stream table ' || v_id || ' together');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.slots_%s', v_id), 'SELECT, UPDATE');
    PERFORM pgtrickle_changes.lend(p_table, format('pgtrickle_changes.side_%s', v_id), 'SELECT');
    PERFORM pgtrickle_changes.make_lent_function(p_table, format('maintain_%s_slot', v_id), pgtrickle_changes.immediate_other_slot(v_id), 'p_side oid');
    PERFORM pgtrickle_changes.make_lent_function(p_table, format('maintain_%s_alone', v_id), pgtrickle_changes.immediate_alone(v_id));
    PERFORM pgtrickle_changes.make_lent_function(p_table, format('maintain_%s_sides', v_id), pgtrickle_changes.immediate_sides(v_id));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.make_sides IS 'Makes what writers of one source share a stream table''s turn by';
