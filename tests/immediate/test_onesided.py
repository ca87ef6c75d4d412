"""Statements that only bring rows, only take some away or only change some have programs of their own."""

from __future__ import annotations

from typing import LiteralString

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.immediate.conftest import QUERIES, SHOP, Connection, Shop, made

MORE: dict[str, LiteralString] = {
    "outer": """SELECT o.id, o.amount, c.region FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id""",
    "known": "SELECT id, amount FROM orders AS o WHERE EXISTS (SELECT FROM customers AS c WHERE c.id = o.customer_id)",
    "unknown": "SELECT id FROM customers AS c WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)",
    "extents": """SELECT c.region, min(o.amount) FILTER (WHERE o.note = 'n') AS least, max(o.note) AS last,
                         avg(o.amount) AS mean
                    FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.region""",
    "rare": """SELECT c.region, max(o.id) AS last FROM orders AS o JOIN customers AS c ON c.id = o.customer_id
                GROUP BY c.region HAVING count(*) < 15""",
    "most": "SELECT customer_id, max(amount) AS most FROM orders GROUP BY customer_id",
    "by_both": "SELECT customer_id, note, min(amount) AS least FROM orders GROUP BY customer_id, note",
    "means": """SELECT c.region, count(*) AS n, avg(o.amount) AS mean, sum(o.id) FILTER (WHERE o.amount > 9) AS s
                  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.region""",
    "named": "SELECT DISTINCT c.region, o.note FROM orders AS o JOIN customers AS c ON c.id = o.customer_id",
    "both": """SELECT id, amount FROM orders WHERE amount > 3
               UNION ALL SELECT id + 1000, amount FROM orders WHERE amount <= 3""",
}

STATEMENTS: list[LiteralString] = [
    "INSERT INTO orders VALUES (100, 1, 0, 'n')",
    "INSERT INTO orders VALUES (101, 1, NULL, NULL), (102, NULL, 70, 'z'), (103, 1, 0, 'n'), (104, 2, 90, 'n')",
    "INSERT INTO customers VALUES (20, 'r1'), (21, 'new'), (22, NULL)",
    "INSERT INTO orders SELECT g, 20 + g % 3, g, 'bulk' FROM generate_series(200, 600) AS g",
    "DELETE FROM orders WHERE id IN (100, 101)",
    "DELETE FROM orders WHERE id = 102",
    "DELETE FROM customers WHERE id = 22",
    "DELETE FROM customers WHERE id = 1",
    "DELETE FROM orders WHERE id > 250",
    "UPDATE orders SET amount = amount + 1, note = 'u' WHERE id < 20",
    "DELETE FROM orders",
    "INSERT INTO orders VALUES (1, 2, 3, 'again')",
]


UPDATES: list[LiteralString] = [
    "UPDATE orders SET id = id - 1",
    "UPDATE orders SET amount = 0 WHERE id = 5",
    "UPDATE orders SET amount = 99, note = NULL WHERE id = 5",
    "UPDATE orders SET customer_id = 2 WHERE id = 6",
    # What was in the middle becomes an extreme, and none goes.
    """UPDATE orders SET amount = 5000
        WHERE id = (SELECT id FROM orders WHERE customer_id = 1 ORDER BY amount OFFSET 1 LIMIT 1)""",
    """UPDATE orders SET amount = -5000
        WHERE id = (SELECT id FROM orders WHERE customer_id = 2 ORDER BY amount OFFSET 1 LIMIT 1)""",
    # To other partners, to none, and back to one; to keys that other rows had, and to new ones.
    "UPDATE orders SET customer_id = customer_id % 9 + 1 WHERE id < 30",
    "UPDATE orders SET customer_id = NULL WHERE customer_id = 3",
    "UPDATE orders SET customer_id = 4, amount = NULL WHERE customer_id IS NULL",
    "UPDATE orders SET id = id + 500 WHERE id % 2 = 0",
    "UPDATE orders SET amount = amount",
    # Groups that come, go, and become one; the last rows of some.
    "UPDATE customers SET region = 'r' || id",
    "UPDATE customers SET region = NULL WHERE id = 3",
    "UPDATE customers SET region = 'r1' WHERE id = 2",
    "UPDATE orders SET customer_id = 1 WHERE customer_id = 5",
    "UPDATE customers SET region = 'one'",
    "UPDATE customers SET region = 'few' WHERE id = 6",
    "DELETE FROM orders WHERE customer_id = 6 AND id % 3 = 0",
    "DELETE FROM orders WHERE customer_id = 6",
    "UPDATE orders SET amount = amount + 1, customer_id = customer_id % 9 + 1",
    "DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)",
    "DELETE FROM orders WHERE amount = (SELECT max(amount) FROM orders)",
    "UPDATE orders SET amount = amount + 100 WHERE amount = (SELECT min(amount) FROM orders)",
    "UPDATE orders SET amount = -amount",
    "INSERT INTO orders SELECT g, g % 9 + 1, g % 7, 'bulk' FROM generate_series(2000, 2600) AS g",
    "UPDATE orders SET customer_id = customer_id % 9 + 1, amount = amount + 1, id = id + 5000 WHERE id > 2100",
    "DELETE FROM orders WHERE id > 2050",
]


@pytest.fixture
def more(shop: Shop) -> Shop:
    for name, query in MORE.items():
        shop.add(name, query)
    return shop


@pytest.mark.versions
def test_rows_that_only_come_or_go(more: Shop) -> None:
    more.run(*STATEMENTS)


def test_rows_that_only_change(more: Shop) -> None:
    more.run(*UPDATES)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_all_of_it_with_one_snapshot(more: Shop, level: str) -> None:
    more.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    more.run(*UPDATES, "COMMIT")


def test_which_statements_have_such_programs(more: Shop) -> None:
    found = more.conn.execute(
        """SELECT pgt_name, s.key::oid::regclass::text, array_agg(e.key ORDER BY e.key)
             FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pgt_plans USING (pgt_id)
            CROSS JOIN LATERAL jsonb_each(plan #> '{programs,immediate,sided}') AS s
            CROSS JOIN LATERAL jsonb_object_keys(s.value) AS e(key)
            GROUP BY 1, 2"""
    ).fetchall()
    assert {(name, source): events for name, source, events in found} == {
        ("joined", "orders"): ["del", "ins", "upd"],
        ("joined", "customers"): ["del", "ins", "upd"],
        ("outer", "orders"): ["del", "ins", "upd"],
        ("known", "orders"): ["del", "ins", "upd"],
        ("unknown", "customers"): ["del", "ins", "upd"],
        ("regions", "orders"): ["ins"],
        ("regions", "customers"): ["ins"],
        ("extents", "orders"): ["ins"],
        ("extents", "customers"): ["ins"],
        ("extremes", "orders"): ["ins"],
        ("by_both", "orders"): ["ins"],
        ("most", "orders"): ["ins"],
        ("means", "orders"): ["del", "ins", "upd"],
        ("means", "customers"): ["del", "ins", "upd"],
        ("named", "orders"): ["del", "upd"],
        ("named", "customers"): ["del", "upd"],
    }


def test_what_goes_or_comes_short_of_the_extremes_writes_nothing_shown(shop: Shop) -> None:
    before = shop.version("extremes")
    middle = "SELECT id FROM orders WHERE customer_id = 3 ORDER BY id OFFSET 1 LIMIT 1"
    shop.conn.execute(f"UPDATE orders SET amount = amount + 1 WHERE id = ({middle})".encode())
    shop.conn.execute(f"DELETE FROM orders WHERE id = ({middle})".encode())
    assert shop.version("extremes") == before
    shop.check()


def test_an_insert_that_moves_no_extreme_writes_no_shown_row(more: Shop) -> None:
    before = more.version("extremes")
    more.conn.execute(
        "INSERT INTO orders SELECT 0, customer_id, min(amount), 'x' FROM orders WHERE id < 9 GROUP BY 2 LIMIT 1"
    )
    assert more.version("extremes") == before


SUMMED: LiteralString = """
    CREATE TABLE measures (id int PRIMARY KEY, customer_id int, a int2, b int8, c int, d numeric(8, 2), e bool);
    INSERT INTO measures SELECT g, g % 9 + 1, g % 5, g, g % 4, g / 4.0, g % 2 = 0 FROM generate_series(1, 30) AS g;
"""
ALL_SUMS: LiteralString = """
    SELECT c.region, count(*) AS n, count(m.d) AS d_n, count(m.d * m.a) AS p_n, sum(m.d * m.a) AS p_s, sum(m.d) AS d,
           avg(m.d * m.a) AS p_m, sum(m.a) AS a, avg(m.a) FILTER (WHERE m.e) AS a_m, sum(m.b) AS b, sum(m.c) AS c,
           variance(m.a) AS v_a, stddev_pop(m.d) AS v_d, bool_and(m.e) AS every
      FROM measures AS m JOIN customers AS c ON c.id = m.customer_id GROUP BY c.region"""
MEASURED: list[LiteralString] = [
    "INSERT INTO measures VALUES (100, 1, NULL, NULL, NULL, NULL, NULL)",
    """INSERT INTO measures VALUES (101, 2, -3, 7, 6, 'NaN', true), (102, 2, 2, 9, NULL, 1, NULL),
                                   (103, 4, 1, 1, 2, 3, true)""",
    "INSERT INTO measures SELECT g, g % 12, g % 7, -g, g * 3, g, g % 3 = 0 FROM generate_series(200, 500) AS g",
    "INSERT INTO customers VALUES (10, 'r1'), (11, 'eleven')",
    "DELETE FROM measures WHERE id IN (101, 5)",
    "INSERT INTO measures VALUES (104, 2, 9, 9, -4, 'NaN', false)",
    "DELETE FROM measures WHERE id = 102",
    "DELETE FROM customers WHERE id = 10",
    "UPDATE measures SET d = d + 1, a = a - 1 WHERE id % 3 = 0",
    "DELETE FROM measures WHERE id > 210",
    "DELETE FROM measures WHERE id >= 103",
    "DELETE FROM measures",
]


@pytest.mark.versions
def test_what_comes_and_what_goes_is_counted_and_summed_up_unweighed(db: Connection) -> None:
    db.execute(SHOP)
    db.execute(SUMMED)
    shop = Shop(db)
    shop.add("summed", ALL_SUMS)
    shop.run(*MEASURED)
    programs = "plan #>> ARRAY['programs', 'immediate', 'sided', 'measures'::regclass::oid::text, %s]"
    query = f"SELECT {programs} FROM pgtrickle.pgt_plans".encode()
    texts = {event: db.execute(query, (event,)).fetchone() for event in ("ins", "upd", "del")}
    weighed = {
        event: 'sum("__pgt_w")' in str(text).replace("\\", "").partition('"u" AS')[0] for event, text in texts.items()
    }
    assert weighed == {"ins": False, "upd": True, "del": False}


TELLTALE: LiteralString = """
    CREATE TABLE told (what text);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO public.told VALUES (TG_TABLE_NAME); RETURN NULL; END$$;
    CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON extremes FOR EACH STATEMENT EXECUTE FUNCTION tell();
    CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON most FOR EACH STATEMENT EXECUTE FUNCTION tell();
    CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON above FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""
ABOVE: LiteralString = "SELECT customer_id, max(amount) AS most FROM orders WHERE id > 0 GROUP BY customer_id"
# Customer 2 has orders 1, 10, 19, 28 and 37, as dear as their numbers.
CAME: list[tuple[LiteralString, set[str]]] = [
    ("INSERT INTO orders VALUES (9, 2, 9, 'between')", set()),
    ("INSERT INTO orders VALUES (18, 2, NULL, 'none')", set()),
    ("INSERT INTO orders VALUES (27, 2, 1, 'as little as the least')", {"extremes"}),
    ("INSERT INTO orders VALUES (36, 2, 37, 'as much as the most')", {"most"}),
    ("INSERT INTO orders VALUES (45, 2, 20, 'the last')", {"extremes"}),
    ("INSERT INTO orders VALUES (44, 2, 0, 'less')", {"extremes"}),
    ("INSERT INTO orders VALUES (43, 2, 'NaN', 'more than any number')", {"most"}),
    ("INSERT INTO orders VALUES (100, NULL, NULL, 'of a new group')", {"extremes", "most"}),
    ("INSERT INTO orders VALUES (99, NULL, 5, 'the first of these that is not NULL')", {"extremes", "most"}),
]

# Customer 2's orders 1, 9, 10, 19, 28, 37 cost their numbers now; 18: NULL, 27: 1, 36: 37, 43: NaN, 44: 0, 45: 20.
CHANGED: list[tuple[LiteralString, set[str]]] = [
    ("UPDATE orders SET amount = 18 WHERE id = 19", set()),
    ("UPDATE orders SET amount = NULL WHERE id = 28", set()),
    ("UPDATE orders SET amount = 28.5 WHERE id = 28", set()),
    ("UPDATE orders SET amount = -1 WHERE id = 10", {"extremes"}),
    ("UPDATE orders SET amount = 10 WHERE id = 10", {"extremes"}),
    ("UPDATE orders SET amount = 'NaN' WHERE id = 37", {"most"}),
    ("UPDATE orders SET amount = 37 WHERE id = 43", {"most"}),
    ("UPDATE orders SET id = 46 WHERE id = 9", {"extremes"}),
    ("UPDATE orders SET id = 47 WHERE id = 37", {"extremes"}),
    ("UPDATE orders SET id = 37 WHERE id = 47", {"extremes"}),
    ("UPDATE orders SET note = 'other' WHERE id = 46", set()),
    ("UPDATE orders SET customer_id = 3 WHERE id = 19", set()),
    ("UPDATE orders SET amount = amount + 1 WHERE id IN (28, 43)", set()),
    ("UPDATE orders SET amount = CASE id WHEN 28 THEN 27 ELSE amount END WHERE id IN (28, 43)", set()),
    ("UPDATE orders SET amount = 6 WHERE id = 100", {"extremes", "most"}),
    ("UPDATE orders SET amount = NULL WHERE id = 100", {"extremes", "most"}),
]
WENT: list[tuple[LiteralString, set[str]]] = [
    ("DELETE FROM orders WHERE id = 27", set()),
    ("DELETE FROM orders WHERE id = 18", set()),
    ("DELETE FROM orders WHERE id = 44", {"extremes"}),
    ("DELETE FROM orders WHERE id = 46", {"extremes"}),
    ("DELETE FROM orders WHERE id = 37", {"most"}),
    ("DELETE FROM orders WHERE id = 99", {"extremes", "most"}),
    ("DELETE FROM orders WHERE id = 100", {"extremes", "most"}),
]


@pytest.mark.versions
def test_a_row_that_is_no_extreme_leaves_the_stream_table_alone(db: Connection) -> None:
    shop = made(db, {"extremes": QUERIES["extremes"], "most": MORE["most"], "above": ABOVE})
    # Each has gone once, so that its number is free.
    shop.run("DELETE FROM orders WHERE id IN (9, 18, 27, 36)", TELLTALE)
    for statement, expected in (*CAME, *CHANGED, *WENT):
        shop.run(statement)
        rows = shop.conn.execute("DELETE FROM told RETURNING what").fetchall()
        assert {what for (what,) in rows} == expected | ({"above"} if "most" in expected else set()), statement


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_single_rows_of_groups_with_extremes_in_an_older_snapshot(db: Connection, level: str) -> None:
    shop = made(db, {"extremes": QUERIES["extremes"], "most": MORE["most"]})
    shop.run("DELETE FROM orders WHERE id IN (9, 18, 27, 36)")
    shop.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    shop.run(*(statement for statement, _ in (*CAME, *CHANGED, *WENT)), "COMMIT")


def test_a_chain_of_left_joins_is_not_printed_as_a_tree(db: Connection) -> None:
    """Each of the joins doubles it: twelve took half a minute to compile."""
    dimensions = range(10)
    db.execute(f"CREATE TABLE facts (id int PRIMARY KEY, {', '.join(f'd{n} int' for n in dimensions)})".encode())
    for n in dimensions:
        db.execute(
            f"CREATE TABLE d{n} (id int PRIMARY KEY, name text); INSERT INTO d{n} VALUES (1, 'a'), (2, 'b')".encode()
        )
    names = ", ".join(f"d{n}.name AS n{n}" for n in dimensions)
    joins = " ".join(f"LEFT JOIN d{n} ON d{n}.id = f.d{n}" for n in dimensions)
    pg_trickle.create_stream_table(
        db, "wide", f"SELECT f.id, {names} FROM facts AS f {joins}", refresh_mode="IMMEDIATE"
    )
    longest = db.execute("SELECT max(length(prosrc)) FROM pg_proc WHERE proname ~ '^maintain_1_'").fetchone()
    assert longest is not None
    assert 0 < longest[0] < 500_000
    for statement in (
        "INSERT INTO facts SELECT n, n % 3, n % 4, 1, 2, 3, 1, 2, 3, n % 3, n % 4 FROM generate_series(1, 6) AS n",
        "UPDATE facts SET d0 = 2, d4 = 1 WHERE id > 3",
        "UPDATE d4 SET name = 'c'",
        "DELETE FROM d2 WHERE id = 1",
        "DELETE FROM facts WHERE id = 5",
    ):
        db.execute(statement)
        assert_fresh(db, "wide")
