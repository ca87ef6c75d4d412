"""IMMEDIATE mode works in the sessions of those who write: nothing of a stranger's may run there."""

from __future__ import annotations

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place, attempted

QUERY = "SELECT tenant_id, customer_id, max(amount) AS total FROM orders GROUP BY tenant_id, customer_id"

# Whatever runs notes as whom, and tries to leave something behind, or to look around.
SPY = """
CREATE SCHEMA own;
CREATE TABLE own.log (who name, loot text);
GRANT USAGE ON SCHEMA own TO PUBLIC; GRANT INSERT ON own.log TO PUBLIC;
CREATE FUNCTION own.note() RETURNS int LANGUAGE plpgsql AS
    'BEGIN INSERT INTO own.log VALUES (current_user); RETURN 1; END';
CREATE FUNCTION own.spy() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_cursor record;
    v_row    record;
BEGIN
    INSERT INTO own.log VALUES (current_user);
    FOR v_cursor IN SELECT name FROM pg_cursors WHERE name = 'secrets' LOOP
        EXECUTE 'FETCH FIRST FROM secrets' INTO v_row;
        INSERT INTO own.log VALUES (current_user, v_row::text);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'trap') THEN
        EXECUTE 'DECLARE trap CURSOR WITH HOLD FOR SELECT own.note()';
    END IF;
    EXECUTE 'SET search_path = own';
    EXECUTE 'CREATE TEMPORARY TABLE IF NOT EXISTS customers (id int)';
    RETURN 1;
END $$;
CREATE FUNCTION own.spies(value anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN PERFORM own.spy(); RETURN value; END';
CREATE FUNCTION own.spy_trigger() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM own.spy(); RETURN coalesce(NEW, OLD); END';
CREATE DOMAIN own.watched AS numeric CHECK (own.spies(1) = 1);
CREATE VIEW own.watching AS SELECT own.spies(1) AS x;
"""
HOOKS = {
    "trigger": "CREATE TRIGGER hook BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW"
    " EXECUTE FUNCTION own.spy_trigger()",
    "statement trigger": "CREATE TRIGGER hook AFTER INSERT OR UPDATE OR DELETE ON {}"
    " EXECUTE FUNCTION own.spy_trigger()",
    "check": "ALTER TABLE {} ADD CONSTRAINT hook CHECK (own.spies(1) = 1) NOT VALID",
    "default": "ALTER TABLE {0} ADD COLUMN hook int; ALTER TABLE {0} ALTER COLUMN hook SET DEFAULT own.spy()",
    "domain": "ALTER TABLE {} ADD COLUMN hook own.watched",
    "rule": "CREATE RULE hook AS ON INSERT TO {} DO ALSO SELECT own.spy()",
    "policy": "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; ALTER TABLE {0} FORCE ROW LEVEL SECURITY;"
    " CREATE POLICY hook ON {0} USING (own.spies(true))",
    "partition": "CREATE TABLE own.whole (LIKE {0}) PARTITION BY LIST ((own.spies({1})));"
    " ALTER TABLE own.whole ATTACH PARTITION {0} DEFAULT",
    "child": "CREATE TABLE own.part () INHERITS ({0}); CREATE TRIGGER hook BEFORE DELETE OR UPDATE ON own.part"
    " FOR EACH ROW EXECUTE FUNCTION own.spy_trigger();"
    " INSERT INTO own.part ({1}) SELECT {1} FROM {0} UNION ALL SELECT NULL LIMIT 1",
}


@pytest.fixture
def villain(place: Place) -> Connection:
    """An author who may read a source that isn't his."""
    author, _ = place.split()
    place.superuser.execute(f'GRANT CREATE ON DATABASE "{place.database.name}" TO st_author'.encode())
    author.execute(SPY.encode())
    author.execute("SET search_path = public; TRUNCATE own.log")
    return author


def write(place: Place) -> Connection:
    """A superuser works with the source, in a transaction of several statements; it may fail."""
    writer = place.as_("postgres")
    statements = (
        "INSERT INTO orders VALUES (98, 1, 1, 1000, '')",
        "UPDATE orders SET amount = amount + 1 WHERE id > 20",
        "DELETE FROM orders WHERE id = 98",
    )
    for statement in statements:
        attempted(writer.execute, statement.encode())
    writer.autocommit = False
    writer.execute("DECLARE secrets CURSOR FOR SELECT secret FROM customers ORDER BY id")
    attempted(writer.execute, statements[0].encode())
    writer.rollback()
    writer.execute("DECLARE secrets CURSOR FOR SELECT secret FROM customers ORDER BY id")
    for statement in statements:
        attempted(writer.execute, statement.encode())
    attempted(writer.commit)
    writer.rollback()
    writer.autocommit = True
    return writer


def unharmed(place: Place, writer: Connection) -> None:
    """Nothing of a stranger's ran there, and nothing was left behind."""
    assert place.superuser.execute("SELECT DISTINCT who, loot FROM own.log").fetchall() == []
    left = writer.execute(
        """SELECT (SELECT count(*) FROM pg_cursors WHERE name <> ''), current_setting('search_path'),
                  (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())"""
    ).fetchone()
    assert left == (0, '"$user", public', 0)


OURS = [(where, hook) for where in ("state", "held") for hook in ("trigger", "check", "default")]


@pytest.mark.parametrize(("where", "hook"), [("st", hook) for hook in HOOKS] + [*OURS, ("state", "child")])
def test_a02_nothing_that_an_author_attaches_runs_in_a_writers_session(
    place: Place, villain: Connection, where: str, hook: str
) -> None:
    pg_trickle.create_stream_table(villain, "st", QUERY, refresh_mode="IMMEDIATE")
    found = "SELECT oid::regclass::text FROM pg_class WHERE relname ~ %s AND relkind = 'r' LIMIT 1"
    table = "public.st" if where == "st" else place.value(found, f"^{where}_")
    column = place.value("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", table)
    # Some are refused by PostgreSQL itself: what must not be NULL, say.
    done = attempted(villain.execute, HOOKS[hook].format(table, column).encode())
    assert done in {None, "23502", "42P16", "42809", "55000"}
    villain.execute("TRUNCATE own.log")
    unharmed(place, write(place))


QUERIES = {
    "function": "SELECT id, own.spies(amount) AS amount FROM orders",
    "domain": "SELECT id, amount::own.watched AS amount FROM orders",
    "array of a domain": "SELECT id, ARRAY[amount]::own.watched[] AS amounts FROM orders",
    "view": "SELECT o.id, w.x FROM orders AS o CROSS JOIN own.watching AS w",
    "table_to_xml": "SELECT id, table_to_xml('own.watching', true, true, '')::text AS x FROM orders",
    "query_to_xml": "SELECT id, query_to_xml('SELECT own.spies(1)', true, true, '')::text AS x FROM orders",
    "set_config": "SELECT id, set_config('search_path', 'own', false) AS x FROM orders",
    "ts_stat": "SELECT id, (SELECT count(*) FROM ts_stat('SELECT own.spies(NULL::tsvector)')) AS x FROM orders",
    "setting of the writer": "SELECT id, current_setting('app.secret', true) AS x FROM orders",
}


@pytest.mark.parametrize("construct", QUERIES)
def test_a02_nor_does_anything_that_his_query_calls(place: Place, villain: Connection, construct: str) -> None:
    made = attempted(
        lambda: pg_trickle.create_stream_table(villain, "st", QUERIES[construct], refresh_mode="IMMEDIATE")
    )
    villain.execute("TRUNCATE own.log")
    unharmed(place, write(place))
    assert made in {"0A000", "25000"}


HARMLESS = {
    "function": "SELECT id, own.twice(customer_id) AS v FROM orders",
    "operator": "SELECT id, customer_id OPERATOR(own.##) 1 AS v FROM orders",
    "aggregate": "SELECT customer_id, own.total(amount) AS v FROM orders GROUP BY customer_id",
    "domain": "SELECT id, amount::own.positive AS v FROM orders",
    "composite": "SELECT id, ROW(amount)::own.pair AS v FROM orders",
    "view": "SELECT id, v FROM own.doubled",
}


@pytest.mark.parametrize("construct", HARMLESS)
def test_a02_an_authors_code_is_refused_where_others_write(place: Place, villain: Connection, construct: str) -> None:
    """However harmless: he can change it afterwards.  In other modes it is welcome."""
    villain.execute(
        """CREATE FUNCTION own.twice(v int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 2 * v;
           CREATE FUNCTION own.plus(a int, b int) RETURNS int IMMUTABLE LANGUAGE sql RETURN a + b;
           CREATE OPERATOR own.## (LEFTARG = int, RIGHTARG = int, FUNCTION = own.plus);
           CREATE AGGREGATE own.total(numeric) (SFUNC = numeric_add, STYPE = numeric, INITCOND = '0');
           CREATE DOMAIN own.positive AS numeric CHECK (VALUE > -1000);
           CREATE TYPE own.pair AS (v own.positive);
           CREATE VIEW own.doubled AS SELECT id, own.twice(customer_id) AS v FROM orders"""
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.create_stream_table(villain, "st", HARMLESS[construct], refresh_mode="IMMEDIATE")
    pg_trickle.create_stream_table(villain, "st", HARMLESS[construct])
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.alter_stream_table(villain, "st", refresh_mode="IMMEDIATE")
    place.fresh("st")


def test_a02_nor_by_way_of_a_stream_table_of_his_own(place: Place, villain: Connection) -> None:
    """He owns the source of the second; but whoever writes the first's source writes that, too."""
    pg_trickle.create_stream_table(villain, "lower", "SELECT id, amount FROM orders", refresh_mode="IMMEDIATE")
    made = attempted(
        lambda: pg_trickle.create_stream_table(
            villain, "upper", "SELECT id, own.spies(amount) AS x FROM lower", refresh_mode="IMMEDIATE"
        )
    )
    villain.execute("TRUNCATE own.log")
    unharmed(place, write(place))
    assert made == "0A000"


def test_a02_who_owns_the_source_is_trusted_by_its_writers(place: Place, villain: Connection) -> None:
    """As his own trigger on it would be; and so is a superuser."""
    villain.execute("CREATE TABLE mine (id int PRIMARY KEY, v int); INSERT INTO mine VALUES (1, 1)")
    villain.execute("CREATE FUNCTION own.twice(v int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 2 * v")
    place.superuser.execute("CREATE FUNCTION thrice(v int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 3 * v")
    pg_trickle.create_stream_table(villain, "st", "SELECT id, own.twice(v) AS v FROM mine", refresh_mode="IMMEDIATE")
    pg_trickle.create_stream_table(
        villain, "st3", "SELECT id, thrice(customer_id) AS v FROM orders", refresh_mode="IMMEDIATE"
    )
    villain.execute(
        """CREATE TABLE seen (id int); CREATE FUNCTION own.see() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO public.seen VALUES (NEW.id); RETURN NEW; END';
           CREATE TRIGGER see BEFORE INSERT ON st FOR EACH ROW EXECUTE FUNCTION own.see()"""
    )
    villain.execute("INSERT INTO mine VALUES (2, 2)")
    place.superuser.execute("INSERT INTO orders VALUES (98, 1, 1, 1000, '')")
    for name in ("st", "st3"):
        assert_fresh(place.superuser, name)
    assert place.value("SELECT array_agg(id) FROM seen") == [2]


def test_a02_what_was_attached_before_is_found_too(place: Place, villain: Connection) -> None:
    """While nothing is maintained in statements anything may be attached: then it stays that way."""
    pg_trickle.create_stream_table(villain, "st", QUERY)
    for hook in ("check", "default", "domain", "trigger", "rule"):
        villain.execute(b"BEGIN")
        villain.execute(HOOKS[hook].format("public.st", "tenant_id").encode())
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            pg_trickle.alter_stream_table(villain, "public.st", refresh_mode="IMMEDIATE")
        villain.execute(b"ROLLBACK")
    villain.execute(
        "ALTER TABLE st ADD CHECK (total > -1e6), ADD CHECK (tenant_id > 0); CREATE INDEX ON st (abs(total))"
    )
    pg_trickle.alter_stream_table(villain, "st", refresh_mode="IMMEDIATE")
    villain.execute("TRUNCATE own.log")
    unharmed(place, write(place))
    assert_fresh(place.superuser, "st")


def test_a15_writers_are_free_again_as_soon_as_housekeeping_has_looked(place: Place, villain: Connection) -> None:
    """His trigger stops their statements: his stream table is suspended, and says why."""
    pg_trickle.create_stream_table(villain, "st", QUERY, refresh_mode="IMMEDIATE")
    villain.execute(HOOKS["trigger"].format("st").encode())
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="attached"):
        place.superuser.execute("UPDATE orders SET amount = 1")
    place.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()")
    place.superuser.execute("UPDATE orders SET amount = 1")
    row = villain.execute("SELECT status, last_error_message FROM pgtrickle.stream_tables_info").fetchone()
    assert row is not None
    assert row[0] == "SUSPENDED"
    assert "attached" in row[1]
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.resume_stream_table(villain, "st")
    villain.execute("DROP TRIGGER hook ON st")
    pg_trickle.resume_stream_table(villain, "st")
    place.superuser.execute("UPDATE orders SET amount = 2")
    assert_fresh(place.superuser, "st")


def test_a02_who_gives_a_source_away_is_trusted_no_more(place: Place, villain: Connection) -> None:
    villain.execute("CREATE TABLE mine (id int PRIMARY KEY, v int); INSERT INTO mine VALUES (1, 1)")
    villain.execute("CREATE FUNCTION own.twice(v int) RETURNS int IMMUTABLE LANGUAGE sql RETURN 2 * v")
    pg_trickle.create_stream_table(villain, "st", "SELECT id, own.twice(v) AS v FROM mine", refresh_mode="IMMEDIATE")
    place.superuser.execute("ALTER TABLE mine OWNER TO postgres; GRANT SELECT ON mine TO st_author")
    place.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert place.value("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.refresh_stream_table(villain, "st")


GUARDED = """SELECT bool_and(pg_get_triggerdef(oid) LIKE '%pg_get_functiondef%') FROM pg_trigger
              WHERE tgrelid = 'mine'::regclass AND tgname ~ '^pg_trickle_imm.*_(ins|upd|del|trunc)$'"""


@pytest.mark.parametrize("loss", ["ALTER TABLE mine OWNER TO postgres", "REVOKE st_team FROM st_author"])
def test_a02_functions_of_whom_writers_need_not_trust_any_more_are_asked_for(
    place: Place, villain: Connection, loss: str
) -> None:
    """Who owns a table can have his code run by its writers anyway: his functions are called as they are."""
    place.superuser.execute(
        """CREATE ROLE st_team; ALTER ROLE st_author INHERIT; GRANT st_team TO st_author;
           CREATE TABLE mine (id int PRIMARY KEY, v int); INSERT INTO mine VALUES (1, 1);
           ALTER TABLE mine OWNER TO st_team; GRANT SELECT ON mine TO st_author"""
    )
    try:
        pg_trickle.create_stream_table(villain, "st", "SELECT sum(v) AS v FROM mine", refresh_mode="IMMEDIATE")
        assert not place.value(GUARDED)
        place.superuser.execute(loss.encode())
        place.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()")
        assert place.value("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables")
        pg_trickle.refresh_stream_table(villain, "st")
        assert place.value(GUARDED)
        place.superuser.execute("INSERT INTO mine VALUES (2, 2)")
        place.fresh("st")
    finally:
        place.superuser.execute("REASSIGN OWNED BY st_team TO postgres; DROP OWNED BY st_team; DROP ROLE st_team")


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(("table", "column"), [("under_way", "xid"), ("turn", "holder")])
def test_a02_nothing_can_be_attached_to_where_it_is_noted_what_is_under_way(
    place: Place, villain: Connection, hook: str, table: str, column: str
) -> None:
    """It is the engine's, which writes there for everybody; the owner of the stream table only does what he must."""
    pg_trickle.create_stream_table(villain, "st", QUERY, refresh_mode="IMMEDIATE")
    name = place.value("SELECT oid::regclass::text FROM pg_class WHERE relname ~ %s AND relkind = 'r'", f"^{table}_")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        villain.execute(HOOKS[hook].format(name, column).encode())
    unharmed(place, write(place))


# Namesakes of what a program compares with: they come first where the search path says so.
NAMESAKES = "".join(
    f"""CREATE FUNCTION own.{name}({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql
            SET search_path = pg_catalog AS $$
        BEGIN PERFORM own.spy(); RETURN $1 OPERATOR(pg_catalog.{operator}) $2; END$$;
        CREATE OPERATOR own.{operator} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = own.{name});"""
    for kind in ("int4", "int8", "numeric", "text", "oid", "xid8", "boolean")
    for name, operator in (("equal", "="), ("other", "<>"), ("more", ">"))
)


@pytest.mark.parametrize(
    "query", [QUERY, "SELECT sum(amount) AS total FROM orders", "SELECT id FROM orders WHERE id > 3"]
)
def test_a02_nor_by_the_search_path_of_a_function_that_his_triggers_call(
    place: Place, villain: Connection, query: str
) -> None:
    """Those of the triggers are compared with an original; these can't be replaced, but be altered."""
    villain.execute(NAMESAKES.encode())
    pg_trickle.create_stream_table(villain, "st", query, refresh_mode="IMMEDIATE")
    called = place.superuser.execute(
        """SELECT oid::regprocedure::text FROM pg_proc
            WHERE proname ~ '^maintain_' AND proowner = 'st_author'::regrole AND prorettype <> 'trigger'::regtype"""
    ).fetchall()
    for (function,) in called:
        villain.execute(f"ALTER FUNCTION {function} SET search_path = own, pg_catalog".encode())
    villain.execute("TRUNCATE own.log")
    writer = write(place)
    truncated = attempted(writer.execute, b"TRUNCATE orders")
    unharmed(place, writer)
    assert truncated == "55000"
    pg_trickle.refresh_stream_table(place.superuser, "st")
    writer.execute("TRUNCATE orders")
    assert_fresh(place.superuser, "st")


def test_a02_what_notes_that_a_statement_is_under_way_is_the_engines(place: Place, villain: Connection) -> None:
    pg_trickle.create_stream_table(villain, "st", "SELECT sum(amount) AS total FROM orders", refresh_mode="IMMEDIATE")
    villain.execute("CREATE TABLE bait (id int)")
    for kind in ("begin", "gate"):
        name = place.value(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ %s", f"^maintain_[0-9]+_{kind}$"
        )
        for action in ("SECURITY INVOKER", "RESET ALL", "SET SCHEMA own", "OWNER TO st_author"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                villain.execute(f"ALTER FUNCTION {name} {action}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            villain.execute(f"CREATE TRIGGER t BEFORE INSERT ON bait EXECUTE FUNCTION {name}".encode())


def test_a02_nor_what_is_attached_where_partitions_are_followed(place: Place, villain: Connection) -> None:
    place.superuser.execute(
        """CREATE TABLE parted (id int, v int) PARTITION BY RANGE (id);
           CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
           CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);
           INSERT INTO parted VALUES (1, 1); GRANT SELECT ON parted TO st_author"""
    )
    query = "SELECT v, max(id) AS most FROM parted GROUP BY v"
    pg_trickle.create_stream_table(villain, "st", query, refresh_mode="IMMEDIATE")
    table = place.value("SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^moved_' AND relkind = 'r'")
    villain.execute(HOOKS["trigger"].format(table).encode())
    place.superuser.execute(
        """CREATE TABLE parted_3 (id int, v int);
           ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES FROM (200) TO (300)"""
    )
    writer = place.as_("postgres")
    for statement in (
        "INSERT INTO parted_3 VALUES (201, 1)",
        "UPDATE parted SET id = id + 100",
        "INSERT INTO parted VALUES (2, 2)",
    ):
        assert attempted(writer.execute, statement.encode()) is not None
    unharmed(place, writer)
