-- Nothing is for everybody but the gate, and to reach that takes USAGE on the schema.  Nor has anybody else got a right that he
-- wasn't given after the installation: default privileges of the installing superuser may say otherwise.

REVOKE ALL ON ALL ROUTINES IN SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;
REVOKE ALL ON SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;

DO $$
DECLARE
    v_grantee text;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT quote_ident(pg_get_userbyid(g.grantee))
          FROM (SELECT p.proacl AS acl FROM pg_proc AS p WHERE p.pronamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
                UNION ALL
                SELECT c.relacl FROM pg_class AS c WHERE c.relnamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
                UNION ALL
                SELECT n.nspacl FROM pg_namespace AS n WHERE n.nspname IN ('pgtrickle', 'pgtrickle_changes')) AS o
         CROSS JOIN LATERAL aclexplode(o.acl) AS g
         -- What monitoring shows is for pg_monitor.
         WHERE g.grantee NOT IN (0, CURRENT_USER::regrole, 'pg_monitor'::regrole)
    LOOP
        EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA pgtrickle, pgtrickle_changes FROM %s', v_grantee);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA pgtrickle, pgtrickle_changes FROM %s', v_grantee);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgtrickle, pgtrickle_changes FROM %s', v_grantee);
        EXECUTE format('REVOKE ALL ON SCHEMA pgtrickle, pgtrickle_changes FROM %s', v_grantee);
    END LOOP;
END
$$;

-- Nor may those write, or read the secret of seals, whose rights are on every table of the server (pg_write_all_data, pg_read_all_data):
-- a row here may decide what runs as somebody else.  Where there are no policies, there is nothing for anybody but the owner.
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN SELECT c.oid FROM pg_class AS c
                    WHERE c.relkind = 'r' AND c.relnamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace) LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_table);
    END LOOP;
END
$$;
CREATE POLICY own ON pgtrickle_changes.missed_changes FOR INSERT WITH CHECK (owner_oid = to_regrole(quote_ident(CURRENT_USER)));

GRANT INSERT (action, args), SELECT (result) ON pgtrickle.gate TO PUBLIC;
-- And what a capture function notes of changes that it missed: for its owner, which nobody can name otherwise.
GRANT INSERT (source_relid) ON pgtrickle_changes.missed_changes TO PUBLIC;

-- In a dump of an extension nothing is of its tables but what is marked.  The rest says how far each has got, which is true of one
-- database only; and the history is of that database.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'pg_trickle') THEN
        PERFORM pg_extension_config_dump('pgtrickle.pgt_stream_tables', '');
        PERFORM pg_extension_config_dump('pgtrickle.pgt_settings', $q$WHERE name <> 'bridge'$q$);
        PERFORM pg_extension_config_dump('pgtrickle_changes.subscriptions', '');
    END IF;
END
$$;
