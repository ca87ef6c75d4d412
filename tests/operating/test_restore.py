"""What pg_dump wrote, restored elsewhere: nothing is done by what was made for another database, and all is revived."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.install.install import install
from pg_trickle.testing.oracle import assert_fresh
from pg_trickle.worker.loop import Worker

Connection = psycopg.Connection[Any]

TOTALS = "SELECT customer, sum(amount) AS total, count(*) AS n FROM public.orders GROUP BY customer"
BIG = 'SELECT customer, total AS "A Total" FROM public.totals WHERE total > 20'
BY_PART = "SELECT part, count(*) AS n FROM public.parted GROUP BY part"
MINIMAL = "SELECT customer, min(amount) AS lowest FROM public.orders GROUP BY customer"
NAMES = ("public.totals", '"My Schema"."Order.Sum"', "public.minimal", "public.empty", "public.by_part", "public.later")

# What is made for stream tables, but for the definitions, has a number in its name.
GENERATED = r"""
SELECT c.relname FROM pg_class AS c
 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname ~ '_[0-9]' AND c.relname !~ '^query_[0-9]+$'
UNION ALL
SELECT p.proname FROM pg_proc AS p
 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '_[0-9]'
UNION ALL SELECT t.tgname FROM pg_trigger AS t WHERE t.tgname ~ '^pg_trickle'
"""
SOURCES = """
CREATE SCHEMA "My Schema";
CREATE TABLE public.orders (id int PRIMARY KEY, gone int, customer int, amount numeric(10,2));
ALTER TABLE public.orders DROP COLUMN gone;
INSERT INTO public.orders SELECT i, i % 7, i FROM generate_series(1, 50) AS i;
CREATE TABLE public.parted (part int) PARTITION BY LIST (part);
CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1);
CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES IN (2);
INSERT INTO public.parted VALUES (1), (1), (2);
"""


def _as_extension(conn: Connection) -> None:
    conn.execute("CREATE EXTENSION pg_trickle")


@pytest.fixture(params=[_as_extension, install], ids=["extension", "plain"])
def installed(request, bare_database) -> Any:
    """A database in which pg_trickle was installed in one of the two ways, with stream tables of role ``keeper``."""
    setup: Callable[[Connection], None] = request.param
    conn = bare_database.connect()
    setup(conn)
    for role in ("keeper", "reader"):
        bare_database.make_role(role)
    conn.execute(SOURCES)
    conn.execute("SELECT pgtrickle.grant_worker('pgtrickle_worker')")
    conn.execute('GRANT USAGE ON SCHEMA pgtrickle TO keeper; GRANT ALL ON SCHEMA public, "My Schema" TO keeper')
    conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO keeper")
    conn.execute("GRANT SELECT ON public.orders, public.parted TO keeper")
    with _worker(bare_database.dsn_of("pgtrickle_worker")):
        owner = bare_database.connect("keeper")
        create = "SELECT pgtrickle.create_stream_table(%s, %s, %s, %s, %s)"
        owner.execute(create, (NAMES[0], TOTALS, "1s", "AUTO", True))
        owner.execute(create, (NAMES[1], BIG, "calculated", "DIFFERENTIAL", True))
        owner.execute(create, (NAMES[2], MINIMAL, "calculated", "IMMEDIATE", True))
        owner.execute(create, (NAMES[3], TOTALS, None, "AUTO", False))
        # Row triggers, whose conditions have to mean the same once printed.
        owner.execute(create, (NAMES[4], BY_PART, "calculated", "IMMEDIATE", True))
        owner.execute(create, (NAMES[5], BY_PART, "calculated", "DIFFERENTIAL", True))
        owner.execute("ALTER TABLE public.totals RENAME n TO number")
        # From the second time on programs stand.
        for number in range(60, 63):
            conn.execute("INSERT INTO public.orders VALUES (%s, 1, 1)", (number,))
            owner.execute("SELECT pgtrickle.refresh_stream_table('public.totals')")
        owner.execute("SELECT pgtrickle.suspend_stream_table(%s)", (NAMES[1],))
        owner.execute("SELECT pgtrickle.subscribe('public.totals', 'news')")
    owner.execute("GRANT SELECT ON public.totals TO reader; ALTER TABLE public.totals ENABLE ROW LEVEL SECURITY")
    owner.execute("CREATE POLICY few ON public.totals FOR SELECT TO reader USING (customer < 3)")
    # What the dump holds isn't all maintained yet.
    conn.execute("INSERT INTO public.orders VALUES (100, 1, 1000)")
    return bare_database


class _worker:
    """A worker for the length of a block."""

    def __init__(self, dsn: str) -> None:
        self.worker = Worker(dsn)

    def __enter__(self) -> Worker:
        self.worker.start()
        self.worker.wait_for(lambda: self.worker.is_active)
        return self.worker

    def __exit__(self, *raised: object) -> None:
        self.worker.stop()


@pytest.fixture
def restored(installed, request) -> Iterator[str]:
    """The name of another database, into which a dump of the first was restored without any error."""
    name = f"{installed.name}_restored"
    server = installed.server
    server.create_database(name)
    try:
        _restore(server, installed.name, name)
        yield name
    finally:
        server.drop_database(name)


def _restore(server: Any, source: str, target: str, *options: str) -> None:
    programs = server.binaries.bin
    dump = subprocess.run(
        [programs / "pg_dump", *options, server.dsn(source)], check=True, capture_output=True, text=True
    )
    subprocess.run(
        [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", server.dsn(target)],
        check=True,
        input=dump.stdout,
        capture_output=True,
        text=True,
    )


def _status(conn: Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, status FROM pgtrickle.pgt_status()").fetchall())


@pytest.mark.versions(program="pg_dump")
def test_nothing_is_done_before_stream_tables_are_revived_and_then_all(installed, restored):
    """One test: to dump and restore takes seconds."""
    _nothing_is_done_by_what_was_made_for_another_database(installed, restored)
    _only_a_superuser_revives(installed, restored)
    _revived_stream_tables_are_maintained_again(installed, restored)


def _nothing_is_done_by_what_was_made_for_another_database(installed, restored):
    """No silently wrong table: it says what it is, and what to do."""
    with installed.server.connect(restored, autocommit=True) as conn:
        assert set(_status(conn)) == set(NAMES)
        assert set(_status(conn).values()) == {"ERROR"}
        detail = conn.execute(
            "SELECT detail FROM pgtrickle.health_check() WHERE check_name = 'error_tables'"
        ).fetchone()
        assert "restore_stream_tables" in detail[0]
        # Writers aren't stopped by it, and nothing is captured.
        conn.execute("INSERT INTO public.orders VALUES (200, 1, 1); DELETE FROM public.orders WHERE id = 200")
        for call in (
            "SELECT pgtrickle.refresh_stream_table('public.totals')",
            "SELECT pgtrickle.alter_stream_table('public.totals', schedule => '5s')",
            "SELECT pgtrickle.drop_stream_table('public.minimal')",
            "SELECT pgtrickle.create_stream_table('public.other', 'SELECT id FROM public.orders')",
        ):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="came with a dump") as raised:
                conn.execute(call)
            assert "restore_stream_tables" in str(raised.value.diag.message_hint)
        # Nor by a worker.  (In a plain installation the history comes with the dump.)
        scheduled = conn.execute(
            "SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'SCHEDULER'"
        ).fetchone()[0]
        with _worker(installed.server.dsn(restored, "pgtrickle_worker")) as worker:
            worker.wait_until_idle()
        assert set(_status(conn).values()) == {"ERROR"}
        tried = conn.execute("SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'SCHEDULER'")
        assert tried.fetchone() == (scheduled,)


def _only_a_superuser_revives(installed, restored):
    with installed.server.connect(restored, "keeper", autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="revive"):
            conn.execute("SELECT pgtrickle.restore_stream_tables()")
        assert set(_status(conn).values()) == {"ERROR"}


def _revived_stream_tables_are_maintained_again(installed, restored):
    server = installed.server
    with server.connect(restored, autocommit=True) as conn:
        before = {name: conn.execute("SELECT %s::regclass::oid", (name,)).fetchone() for name in NAMES}
        hints: list[str | None] = []
        conn.add_notice_handler(lambda notice: hints.append(notice.message_hint))
        assert conn.execute("SELECT pgtrickle.restore_stream_tables()").fetchone() == (len(NAMES),)
        assert hints[-1] == (
            "No worker is running: start one with pgtrickle worker --dsn ..., which refreshes those with a schedule,"
            " and compiles for refresh_stream_table(). The command line (pgtrickle refresh) and the Python API"
            " refresh any without one."
        )
        assert conn.execute(GENERATED).fetchall() == []
        assert conn.execute("SELECT pgtrickle.restore_stream_tables()").fetchone() == (0,)
        assert _status(conn) == {
            NAMES[0]: "ACTIVE",
            NAMES[1]: "SUSPENDED",
            NAMES[2]: "ACTIVE",
            NAMES[3]: "INITIALIZING",
            NAMES[4]: "ACTIVE",
            NAMES[5]: "ACTIVE",
        }
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no pg_trickle worker"):
            conn.execute("SELECT pgtrickle.refresh_stream_table('public.totals')")
        pg_trickle.refresh_stream_table(conn, "public.totals")
        assert_fresh(conn, "public.totals")
        with _worker(server.dsn(restored, "pgtrickle_worker")) as worker:
            conn.execute("SELECT pgtrickle.resume_stream_table(%s)", (NAMES[1],))
            for name in NAMES:
                conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
                assert_fresh(conn, name)
            conn.execute("INSERT INTO public.orders VALUES (300, 2, 4711), (301, 9, 1)")
            conn.execute("UPDATE public.orders SET amount = -1 WHERE id < 5; DELETE FROM public.orders WHERE id = 100")
            conn.execute(
                "UPDATE public.parted SET part = 2 WHERE ctid = '(0,1)'; INSERT INTO public.parted_1 VALUES (1)"
            )
            assert_fresh(conn, NAMES[2])
            assert_fresh(conn, NAMES[4])
            for name in NAMES:
                conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
                assert_fresh(conn, name)
            server_made = "SELECT pgtrickle.create_stream_table('public.other', 'SELECT id FROM public.orders')"
            conn.execute(server_made)
            assert_fresh(conn, "public.other")
            assert worker.is_active
        # Identity, columns renamed in the table, grants, policies and subscriptions are as they were.
        assert {name: conn.execute("SELECT %s::regclass::oid", (name,)).fetchone() for name in NAMES} == before
        assert conn.execute("SELECT count(number) > 0 FROM public.totals").fetchone() == (True,)
        assert conn.execute("SELECT stream_table, channel FROM pgtrickle.list_subscriptions()").fetchall() == [
            ("public.totals", "news")
        ]
    with server.connect(restored, "reader", autocommit=True) as conn:
        assert conn.execute("SELECT max(customer) FROM public.totals").fetchone() == (2,)


@pytest.mark.versions(program="pg_dump")
@pytest.mark.parametrize("installed", [_as_extension], indirect=True)
def test_a_dump_without_rows_leaves_room(installed):
    """It brings definitions and buffers whose names new stream tables need."""
    server = installed.server
    name = f"{installed.name}_schema"
    server.create_database(name)
    try:
        _restore(server, installed.name, name, "--schema-only")
        with server.connect(name, autocommit=True) as conn, _superuser_worker(conn, server, name):
            conn.execute("INSERT INTO public.orders VALUES (1, 1, 1)")
            conn.execute("SELECT pgtrickle.create_stream_table('public.fresh', 'SELECT id, amount FROM public.orders')")
            conn.execute("INSERT INTO public.orders VALUES (2, 2, 2)")
            conn.execute("SELECT pgtrickle.refresh_stream_table('public.fresh')")
            assert_fresh(conn, "public.fresh")
    finally:
        server.drop_database(name)


def _superuser_worker(conn: Connection, server: Any, name: str) -> _worker:
    conn.execute("SELECT pgtrickle.grant_worker('pgtrickle_worker')")
    return _worker(server.dsn(name, "pgtrickle_worker"))


@pytest.mark.versions(program="pg_dump", since=18)
@pytest.mark.parametrize("installed", [_as_extension], indirect=True)
def test_nobodys_query_becomes_a_superusers(installed):
    """Restored without owners everything is the superuser's who restores."""
    server = installed.server
    name = f"{installed.name}_owned"
    server.create_database(name)
    try:
        _restore(server, installed.name, name, "--no-owner")
        with server.connect(name, autocommit=True) as conn:
            revive = "SELECT pgtrickle.restore_stream_tables()"
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="to a superuser"):
                conn.execute(revive)
            assert set(_status(conn).values()) == {"ERROR"}
            for stream_table in NAMES:
                conn.execute(f"ALTER TABLE {stream_table} OWNER TO keeper")
            assert conn.execute(revive).fetchone() == (len(NAMES),)
            owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname ~ '^query_[0-9]+$'"
            assert conn.execute(owners).fetchall() == [("keeper",)]
    finally:
        server.drop_database(name)
