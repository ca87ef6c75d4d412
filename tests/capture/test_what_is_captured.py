"""What a writer's statement leaves in the change buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Changes = Callable[..., list[tuple[Any, ...]]]

pytestmark = pytest.mark.versions


@pytest.fixture
def orders(db: Connection) -> Connection:
    """A table of which tenant and amount are captured, and nothing else."""
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, secret text, tenant int, amount numeric)")
    pg_trickle.create_stream_table(db, "sums", "SELECT tenant, sum(amount) AS s FROM orders GROUP BY tenant")
    return db


@pytest.fixture
def changes() -> Changes:
    """The captured rows since the last look, weight first, without the bookkeeping."""
    seen: dict[str, int] = {}

    def changes(db: Connection, table: str) -> list[tuple[Any, ...]]:
        (buffer, columns) = db.execute(
            """SELECT k.buffer, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
                 FROM pgtrickle.pgt_captures AS k JOIN pg_attribute AS a ON a.attrelid = k.buffer_relid
                WHERE k.source_relid = %s::regclass AND a.attnum > 3 AND NOT a.attisdropped GROUP BY 1""",
            (table,),
        ).fetchone() or ("", "")
        found = db.execute(f"SELECT seq, w, {columns} FROM pgtrickle_changes.{buffer}".encode()).fetchall()
        new = sorted((row for row in found if row[0] > seen.get(table, 0)), key=lambda row: repr(row[1:]))
        seen[table] = max((row[0] for row in found), default=0)
        return [row[1:] for row in new]

    return changes


def test_only_referenced_columns_are_kept(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO orders VALUES (1, 'hush', 7, 1.5)")
    assert [str(value) for value in changes(orders, "orders")[0]] == ["1", "7", "1.5"]


def test_an_update_leaves_the_old_image_and_the_new(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO orders VALUES (1, '', 7, 1), (2, '', 8, 2)")
    changes(orders, "orders")
    orders.execute("UPDATE orders SET tenant = 9 WHERE id = 1")
    assert changes(orders, "orders") == [(-1, 7, 1), (1, 9, 1)]


def test_an_update_of_other_columns_leaves_no_trace(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO orders SELECT n, '', n % 3, n FROM generate_series(1, 10) AS n")
    changes(orders, "orders")
    orders.execute("UPDATE orders SET secret = 'other', id = id + 100")
    assert changes(orders, "orders") == []


def test_rows_that_swap_places_leave_no_trace(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO orders VALUES (1, '', 1, 1), (2, '', 2, 1), (3, '', 2, 1)")
    changes(orders, "orders")
    orders.execute("UPDATE orders SET tenant = 3 - tenant WHERE id < 3")
    assert changes(orders, "orders") == []
    orders.execute("UPDATE orders SET tenant = 5 WHERE tenant = 2")
    assert changes(orders, "orders") == [(-1, 2, 1), (-1, 2, 1), (1, 5, 1), (1, 5, 1)]


@pytest.mark.parametrize(
    ("type_name", "old", "new"),
    [
        ("numeric", "1.0", "1.00"),
        ("float8", "0", "-0"),
        ("interval", "1 day", "24 hours"),
        ("jsonb", "1.0", "1.00"),
        ("json", '{"a":1}', '{"a": 1}'),
        ("point", "(0,0)", "(0,1)"),
        ("timetz", "12:00+00", "13:00+01"),
        ("numeric[]", "{1.0}", "{1.00}"),
        ("char(5)", "a", "b"),
        ("varchar(5)", "a", "b"),
        ("int4range", "[1,2)", "[1,3)"),
        ("bit(3)", "101", "111"),
        ("tsvector", "a", "b"),
    ],
)
def test_equal_values_that_differ_are_told_apart(
    db: Connection, changes: Changes, type_name: str, old: str, new: str
) -> None:
    db.execute(f"CREATE TABLE t (id int, v {type_name})".encode())
    db.execute(f"INSERT INTO t VALUES (1, '{old}'), (2, NULL)".encode())
    pg_trickle.create_stream_table(db, "s", "SELECT v FROM t", refresh_mode="FULL")
    db.execute("UPDATE t SET id = id + 1")
    assert changes(db, "t") == []
    db.execute(f"UPDATE t SET v = '{new}' WHERE v IS NOT NULL".encode())
    assert sorted(row[0] for row in changes(db, "t")) == [-1, 1]


def test_truncate_leaves_one_marker(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO orders VALUES (1, '', 7, 1)")
    changes(orders, "orders")
    orders.execute("TRUNCATE orders")
    assert changes(orders, "orders") == [(0, None, None)]


def test_every_way_to_write_is_captured(orders: Connection, changes: Changes) -> None:
    with orders.cursor().copy("COPY orders FROM STDIN") as copy:
        copy.write_row((1, "", 1, 1))
    assert changes(orders, "orders") == [(1, 1, 1)]
    orders.execute(
        "INSERT INTO orders VALUES (1, '', 5, 5), (2, '', 6, 6) ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant"
    )
    assert changes(orders, "orders") == [(-1, 1, 1), (1, 5, 1), (1, 6, 6)]
    orders.execute(
        """MERGE INTO orders AS o USING (VALUES (1, 50), (2, 60), (3, 70)) AS n (id, tenant) ON n.id = o.id
            WHEN MATCHED AND n.id = 1 THEN DELETE
            WHEN MATCHED THEN UPDATE SET tenant = n.tenant
            WHEN NOT MATCHED THEN INSERT VALUES (n.id, '', n.tenant, 1)"""
    )
    assert changes(orders, "orders") == [(-1, 5, 1), (-1, 6, 6), (1, 60, 6), (1, 70, 1)]
    orders.execute("CREATE VIEW v AS SELECT * FROM orders")
    orders.execute("WITH gone AS (DELETE FROM v RETURNING *) INSERT INTO v SELECT id + 10, '', 0, 0 FROM gone")
    assert sum(row[0] for row in changes(orders, "orders")) == 0


def test_a_cascade_is_captured(db: Connection, changes: Changes) -> None:
    db.execute("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1), (2)")
    db.execute("CREATE TABLE child (v int, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)")
    db.execute("INSERT INTO child VALUES (1, 1), (2, 2)")
    pg_trickle.create_stream_table(db, "s", "SELECT parent FROM child")
    db.execute("DELETE FROM parent WHERE id = 1; UPDATE parent SET id = 3")
    assert changes(db, "child") == [(-1, 1), (-1, 2), (1, 3)]


def test_a_session_that_plays_a_replica_is_captured(orders: Connection, changes: Changes) -> None:
    orders.execute("SET session_replication_role = replica")
    orders.execute("INSERT INTO orders VALUES (1, '', 1, 1)")
    assert changes(orders, "orders") == [(1, 1, 1)]


def test_columns_called_like_the_bookkeeping_are_captured(
    db: Connection, changes: Changes, assert_fresh: Callable[[Connection, str], None]
) -> None:
    db.execute('CREATE TABLE t (xid int, seq text, w int, "select" int)')
    pg_trickle.create_stream_table(db, "s", 'SELECT xid, seq, w, "select" FROM t')
    db.execute("INSERT INTO t VALUES (1, 'a', 2, 3)")
    assert changes(db, "t") == [(1, 1, "a", 2, 3)]
    db.execute("SELECT pgtrickle.refresh_stream_table('s')")
    assert_fresh(db, "s")


def test_a_domain_that_refuses_nulls_can_be_truncated(db: Connection, changes: Changes) -> None:
    db.execute("CREATE DOMAIN inner_d AS numeric(6,2) CHECK (value IS NOT NULL); CREATE DOMAIN d AS inner_d NOT NULL")
    db.execute("CREATE TABLE t (v d)")
    pg_trickle.create_stream_table(db, "s", "SELECT v FROM t")
    db.execute("INSERT INTO t VALUES (1.5); TRUNCATE t")
    assert sorted(row[0] for row in changes(db, "t")) == [0, 1]


def test_generated_columns_are_captured(db: Connection, changes: Changes, major: int) -> None:
    db.execute("CREATE TABLE t (a int, s int GENERATED ALWAYS AS (a * 2) STORED)")
    if major >= 18:
        db.execute("ALTER TABLE t ADD COLUMN v int GENERATED ALWAYS AS (a * 3) VIRTUAL")
    else:
        db.execute("ALTER TABLE t ADD COLUMN v int GENERATED ALWAYS AS (a * 3) STORED")
    pg_trickle.create_stream_table(db, "x", "SELECT s, v FROM t", refresh_mode="FULL")
    db.execute("INSERT INTO t VALUES (1); UPDATE t SET a = 2")
    assert changes(db, "t") == [(-1, 2, 3), (1, 2, 3), (1, 4, 6)]


def test_row_triggers_capture_the_same(orders: Connection, changes: Changes) -> None:
    orders.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', 'row')")
    orders.execute("CREATE TABLE t (id int, a int, b json)")
    pg_trickle.create_stream_table(orders, "s", "SELECT a, b FROM t", refresh_mode="FULL")
    (levels,) = orders.execute(
        """SELECT array_agg(tgtype & 1 ORDER BY tgname) FROM pg_trigger
            WHERE tgrelid = 't'::regclass AND tgname LIKE 'pg\\_trickle%'"""
    ).fetchone() or ([],)
    assert levels == [1, 1, 0, 1]
    orders.execute("INSERT INTO t VALUES (1, 1, '{}'), (2, NULL, NULL); UPDATE t SET id = 0")
    assert changes(orders, "t") == [(1, 1, {}), (1, None, None)]
    orders.execute("UPDATE t SET a = 2; DELETE FROM t; TRUNCATE t")
    assert [row[0] for row in changes(orders, "t")] == [-1, -1, -1, -1, 0, 1, 1]


def test_partitions_are_captured_however_they_are_written(
    db: Connection, changes: Changes, assert_fresh: Callable[[Connection, str], None]
) -> None:
    db.execute(
        """CREATE TABLE p (k int, v int) PARTITION BY LIST (k);
           CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)"""
    )
    pg_trickle.create_stream_table(db, "s", "SELECT k, v FROM p")
    db.execute("INSERT INTO p VALUES (1, 1), (2, 2); INSERT INTO p1 VALUES (1, 10)")
    assert changes(db, "p") == [(1, 1, 1), (1, 1, 10), (1, 2, 2)]
    db.execute("UPDATE p SET k = 2 WHERE v = 10")
    assert changes(db, "p") == [(-1, 1, 10), (1, 2, 10)]
    db.execute("TRUNCATE p2")
    assert changes(db, "p") == [(0, None, None)]
    refresh = "SELECT pgtrickle.refresh_stream_table('s')"
    db.execute(refresh)
    assert_fresh(db, "s")
    for ddl in (
        "CREATE TABLE p3 (k int, v int); INSERT INTO p3 VALUES (3, 3);"
        " ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)",
        "ALTER TABLE p DETACH PARTITION p1",
        "ALTER TABLE p DETACH PARTITION p3; INSERT INTO p3 VALUES (3, 4);"
        " ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)",
    ):
        db.execute(ddl.encode())
        db.execute(refresh)
        assert_fresh(db, "s")
