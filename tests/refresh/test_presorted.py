"""Aggregates over a sorted subquery gather in its order, as PostgreSQL does, though nothing in them says so."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pg_trickle
from pg_trickle.parse import presorted, select
from pg_trickle.testing.oracle import differences
from tests.refresh.test_property import judged
from tests.refresh.workload.cases import Case, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.selects import GATHERED_IN_GROUPS
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.types import BOOL, INT, TEXT
from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]

FEW = max(5, settings().max_examples // 20)
SETUP = """
CREATE TABLE t (id int PRIMARY KEY, g int NOT NULL, x int, y int);
INSERT INTO t SELECT i, i % 3, i * 37 % 101, i * 53 % 97 FROM generate_series(1, 30) AS i;
CREATE VIEW v AS SELECT g, x, y AS z FROM t ORDER BY y DESC;
CREATE VIEW veiled AS SELECT g, x FROM t ORDER BY y DESC;
CREATE FUNCTION join_up(text, int) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT $1 || '/' || coalesce($2::text, '-') $$;
CREATE AGGREGATE path(int) (SFUNC = join_up, STYPE = text, INITCOND = '');
"""
QUERIES = {
    "shown": "SELECT g, array_agg(x) AS a FROM (SELECT g, x FROM t ORDER BY x) AS q GROUP BY g",
    "hidden": "SELECT g, array_agg(x) AS a FROM (SELECT g, x FROM t ORDER BY y DESC) AS q GROUP BY g",
    "expression": "SELECT g, string_agg(x::text, ',') AS a"
    " FROM (SELECT g, x FROM t ORDER BY x % 10, -y) AS q GROUP BY g",
    "renamed": "SELECT b, jsonb_agg(c) AS a"
    " FROM (SELECT g, x FROM t ORDER BY 2 DESC NULLS LAST) AS q (b, c) GROUP BY b",
    "swapped": "SELECT g, array_agg(x) AS a FROM (SELECT g, y AS x FROM t ORDER BY x) AS q GROUP BY g",
    "filtered": "SELECT g, array_agg(x) FILTER (WHERE x > 20) AS a, count(*) AS n"
    " FROM (SELECT g, x FROM t WHERE y > 5 ORDER BY x DESC) AS q WHERE x < 90 GROUP BY g",
    "pairs": "SELECT json_object_agg(id, x) AS a FROM (SELECT id, x FROM t ORDER BY y) AS q",
    "first": "SELECT array_agg(x) AS a FROM (SELECT x FROM t ORDER BY y LIMIT 12) AS q",
    "having": "SELECT g FROM (SELECT g, x FROM t ORDER BY y) AS q GROUP BY g HAVING (array_agg(x))[1] > 20",
    "with": "WITH q AS (SELECT g, x FROM t ORDER BY x) SELECT g, array_agg(x) AS a FROM q GROUP BY g",
    "view": "SELECT g, array_agg(x) AS a FROM v GROUP BY g",
    "both": "SELECT g, array_agg(x) AS a FROM (SELECT g, x FROM t UNION SELECT g, y FROM t ORDER BY 2) AS q GROUP BY g",
    "groups": "SELECT array_agg(s) AS a FROM (SELECT g, sum(x) AS s FROM t GROUP BY g ORDER BY max(y)) AS q",
    "own": "SELECT g, path(x) AS a FROM (SELECT g, x FROM t ORDER BY y) AS q GROUP BY g",
    "values": "SELECT g, (SELECT array_agg(column1) FROM (VALUES (g), (1), (7) ORDER BY 1 DESC) AS q) AS a FROM t",
    "said": "SELECT g, array_agg(x ORDER BY x) AS a FROM (SELECT g, x FROM t ORDER BY y) AS q GROUP BY g",
    "correlated": "SELECT id,"
    " (SELECT jsonb_agg(u.x) FROM (SELECT x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS u) AS a FROM t",
    "below": "SELECT g, array_agg(x) AS a"
    " FROM (SELECT p.g, p.x FROM (SELECT g, x FROM t ORDER BY y DESC) AS p WHERE p.x > 9) AS q GROUP BY g",
    # As Prisma asks for what belongs to a row.
    "document": "SELECT t1.id, COALESCE(o.made, '[]'::jsonb) AS a FROM t AS t1 LEFT JOIN LATERAL ("
    "SELECT COALESCE(jsonb_agg(made), '[]') AS made FROM (SELECT t4.made FROM ("
    "SELECT jsonb_build_object('x', t3.x) AS made, t3.y FROM (SELECT t2.* FROM t AS t2 WHERE t2.g = t1.g) AS t3"
    " ORDER BY t3.y) AS t4) AS t5) AS o ON true",
    "elements": "SELECT array_agg(e) AS a FROM (SELECT unnest(ARRAY[x, y]) AS e FROM t ORDER BY e) AS q",
    "array_below": "SELECT id, ARRAY(SELECT q.x FROM (SELECT p.x FROM"
    " (SELECT sum(s.x) AS x FROM t AS s WHERE s.g = t.g GROUP BY s.x % 7 ORDER BY max(s.y)) AS p) AS q) AS a FROM t",
    "hidden_in_with": "WITH q AS (SELECT g, x FROM t ORDER BY y) SELECT g, array_agg(x) AS a FROM q GROUP BY g",
    "kept_with": "WITH q AS MATERIALIZED (SELECT g, x AS z FROM t ORDER BY y), r (h) AS (SELECT p.z, p.g FROM q AS p)"
    " SELECT r.g, array_agg(r.h) AS a FROM r GROUP BY r.g",
    "read_twice": "WITH q AS (SELECT p.g, p.x FROM (SELECT g, x FROM t ORDER BY x DESC) AS p)"
    " SELECT g, array_agg(x) AS a FROM q WHERE x < (SELECT max(x) FROM q) GROUP BY g",
    # Within it, "r" is the one before it.
    "named_again": "WITH r AS (SELECT g, x FROM t ORDER BY x DESC), q AS (SELECT r.g, r.x FROM r)"
    " SELECT s.a FROM (WITH r AS (SELECT 1) SELECT array_agg(q.x) AS a FROM q) AS s",
    "with_within": "SELECT q.g, array_agg(q.x) AS a FROM"
    " (WITH p AS (SELECT g, x FROM t ORDER BY y) SELECT p.g, p.x FROM p) AS q GROUP BY q.g",
    "array_with": "SELECT id,"
    " ARRAY(WITH p AS (SELECT s.x FROM t AS s WHERE s.g = t.g ORDER BY s.y) SELECT x FROM p) AS a FROM t",
    "chosen": "SELECT array_agg(x) AS a FROM (SELECT p.x FROM (SELECT x FROM t ORDER BY y) AS p LIMIT 12) AS q",
    "joined": "SELECT array_agg(x) AS a FROM (SELECT x FROM t ORDER BY y) AS q WHERE q.x IN (SELECT y FROM t)",
    "array": "SELECT id, ARRAY(SELECT u.x FROM (SELECT x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS u) AS a FROM t",
}
# The order is hidden where nothing can be added, or the rows are taken as they are; or a window sorts them again, or
# several come of one, which no sort key tells apart.
LEFT_OPEN = {
    "sorted_again": "SELECT array_agg(r) AS a"
    " FROM (SELECT rank() OVER (ORDER BY p.y) AS r FROM (SELECT y FROM t ORDER BY x) AS p) AS q",
    "several_of_one": "SELECT array_agg(e) AS a"
    " FROM (SELECT unnest(ARRAY[p.x, p.y]) AS e FROM (SELECT x, y FROM t ORDER BY y) AS p) AS q",
    "several_sorted": "SELECT array_agg(e) AS a FROM (SELECT unnest(ARRAY[x, y]) AS e FROM t ORDER BY y) AS q",
    "array_of_several": "SELECT ARRAY(SELECT unnest(ARRAY[p.x, p.y]) FROM (SELECT x, y FROM t ORDER BY y) AS p) AS a",
    "hidden_in_view": "SELECT g, array_agg(x) AS a FROM veiled GROUP BY g",
    "hidden_in_with_named_again": "WITH r AS (SELECT g, x FROM t ORDER BY y), q AS (SELECT r.g, r.x FROM r)"
    " SELECT s.a FROM (WITH r AS (SELECT 1) SELECT array_agg(q.x) AS a FROM q) AS s",
}
# What takes rows as they come takes them in that order, too.
CHOICES = {
    "limit": "SELECT q.g, q.x FROM (SELECT g, x FROM t ORDER BY y DESC) AS q WHERE q.x > 10 LIMIT 5",
    "offset": "WITH q AS (SELECT g, x FROM t ORDER BY x) SELECT x FROM q OFFSET 20",
    "page": "SELECT q.s FROM (SELECT g, sum(x) AS s FROM t GROUP BY g, y % 4 ORDER BY sum(y), g) AS q LIMIT 3 OFFSET 2",
    "of_both": "SELECT x FROM (SELECT x FROM t UNION SELECT y FROM t ORDER BY 1 DESC) AS q LIMIT 4",
    "of_view": "SELECT g, x FROM v LIMIT 4",
    "of_part": "SELECT p.x FROM (SELECT q.x FROM (SELECT x FROM t ORDER BY y LIMIT 9) AS q OFFSET 2) AS p LIMIT 3",
    "for_each": "SELECT t.id,"
    " (SELECT q.x FROM (SELECT s.x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS q LIMIT 1) AS a FROM t",
    "beside_each": "SELECT t.id, q.x FROM t CROSS JOIN LATERAL"
    " (SELECT p.x FROM (SELECT s.x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS p LIMIT 2) AS q",
    "array_of_two": "SELECT id,"
    " ARRAY(SELECT q.x FROM (SELECT s.x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS q LIMIT 2) AS a FROM t",
    "member": "SELECT id FROM t WHERE x IN (SELECT q.x FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 6)",
    "first_of_each": "SELECT DISTINCT ON (q.g) q.g, q.x FROM (SELECT g, x FROM t ORDER BY g, y DESC) AS q",
    "numbers": "SELECT q.x, row_number() OVER () AS n, lag(q.x) OVER () AS l, ntile(4) OVER () AS f,"
    " sum(q.x) OVER (ROWS 1 PRECEDING) AS s, max(q.x) OVER () AS m FROM (SELECT x FROM t ORDER BY y) AS q",
    # In no order every frame but those of ROWS is all rows.
    "whole": "SELECT q.x, array_agg(q.x) OVER () AS a, first_value(q.x) OVER () AS f, nth_value(q.x, 3)"
    " OVER (RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS n, jsonb_agg(q.x) OVER"
    " (RANGE UNBOUNDED PRECEDING EXCLUDE CURRENT ROW) AS j, array_agg(q.x)"
    " OVER (RANGE UNBOUNDED PRECEDING EXCLUDE TIES) AS e FROM (SELECT x FROM t ORDER BY y DESC) AS q",
    # A window may have a name, and an aggregate be one's own.
    "named": "SELECT q.x, array_agg(q.x) OVER w AS a, row_number() OVER w AS n, jsonb_agg(q.x)"
    " OVER (w ROWS 2 PRECEDING) AS j, first_value(q.x) OVER v AS f"
    " FROM (SELECT x FROM t ORDER BY y) AS q WINDOW w AS (), v AS (w)",
    "own": "SELECT q.x, path(q.x) OVER () AS a, path(q.x) OVER w AS b, path(q.x) OVER (ROWS 1 PRECEDING) AS c"
    " FROM (SELECT x FROM t ORDER BY y DESC) AS q WINDOW w AS (RANGE UNBOUNDED PRECEDING)",
    "limit_of_named": "SELECT q.x, row_number() OVER w AS n FROM (SELECT x FROM t ORDER BY y) AS q WINDOW w AS ()"
    " LIMIT 3",
    "limit_of_numbers": "SELECT q.x, row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 3",
    "limit_and_count": "WITH q AS (SELECT x FROM t ORDER BY y)"
    " SELECT q.x, count(*) OVER () AS n FROM q WHERE q.x > 9 LIMIT 4 OFFSET 1",
    "gathered_with_numbers": "SELECT array_agg(p.x) AS a, array_agg(p.n) AS b FROM"
    " (SELECT q.x, row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY y DESC) AS q LIMIT 9) AS p WHERE p.x > 9",
    # Of rows that tie, the first are those with the lowest numbers.
    "tied_numbers": "SELECT count(*) AS n FROM"
    " (SELECT row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY g) AS q LIMIT 7) AS p WHERE p.n > 7",
    "array_of_numbers": "SELECT id, ARRAY(SELECT row_number() OVER () * 1000 + q.x FROM"
    " (SELECT s.x FROM t AS s WHERE s.g = t.g ORDER BY s.y) AS q LIMIT 3) AS a FROM t",
    "first_with_numbers": "SELECT DISTINCT ON (q.g) q.g, q.x, row_number() OVER () AS n"
    " FROM (SELECT g, x FROM t ORDER BY g, y) AS q",
    "by_number": "SELECT q.x, row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY y) AS q"
    " ORDER BY row_number() OVER () LIMIT 4",
    "by_number_of_groups": "SELECT g, array_agg(x) AS a FROM (SELECT g, x FROM t ORDER BY g, y) AS q GROUP BY g"
    " ORDER BY array_agg(x) LIMIT 2",
    # Before an order is said, all rows tie.
    "peers": "SELECT q.x, sum(q.x) OVER (ROWS 1 PRECEDING EXCLUDE TIES) AS s, rank() OVER (ROWS 1 PRECEDING) AS r,"
    " count(*) OVER (ROWS UNBOUNDED PRECEDING EXCLUDE GROUP) AS c, row_number() OVER () AS n"
    " FROM (SELECT x FROM t ORDER BY y) AS q",
    "first_numbers": "SELECT p.n, p.x FROM"
    " (SELECT q.x, row_number() OVER () AS n FROM (SELECT g, x FROM t ORDER BY y) AS q) AS p WHERE p.n <= 7",
}
# A join, a group or a window may stand between, and bring the rows into another order.
REFUSED = {
    "of_joined": "SELECT q.x FROM (SELECT x FROM t ORDER BY y) AS q JOIN t ON t.x = q.x LIMIT 3",
    "of_matched": "SELECT q.x FROM (SELECT x FROM t ORDER BY y) AS q"
    " WHERE EXISTS (SELECT FROM t WHERE t.y = q.x) LIMIT 3",
    "of_groups": "SELECT q.g FROM (SELECT g FROM t ORDER BY y) AS q GROUP BY q.g LIMIT 2",
    "of_numbered": "SELECT rank() OVER (ORDER BY q.x) AS r FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 2",
    "of_several": "SELECT unnest(ARRAY[q.x, 1]) AS e FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 2",
    "below_of_matched": "SELECT array_agg(p.x) AS a FROM (SELECT q.x FROM (SELECT x FROM t ORDER BY y) AS q"
    " WHERE q.x IN (SELECT y FROM t) LIMIT 3) AS p",
    "array_of_matched": "SELECT ARRAY(SELECT q.x FROM (SELECT x FROM t ORDER BY y) AS q"
    " WHERE q.x IN (SELECT y FROM t) LIMIT 3) AS a",
}


STEPS = (
    "UPDATE t SET x = x + 200 WHERE id IN (3, 7, 8)",
    "INSERT INTO t SELECT 100 + i, i % 4, 300 - i, 500 + i % 2 * 10 - i FROM generate_series(1, 5) AS i",
    "DELETE FROM t WHERE id % 5 = 0; UPDATE t SET y = -y WHERE g = 1",
)


@pytest.mark.versions
def test_what_is_gathered_from_a_sorted_subquery_is_in_its_order(db: Connection) -> None:
    """As long as the query itself keeps it: by hashing."""
    db.execute(SETUP.encode())
    db.execute("SET enable_sort = off")
    check_kept(db, QUERIES.values(), STEPS)


@pytest.mark.versions
def test_what_takes_rows_as_they_come_takes_them_in_that_order_and_says_so(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, CHOICES.values(), STEPS)
    told = [" ".join(ties) for (ties,) in db.execute("SELECT plan -> 'ties' FROM pgtrickle.pgt_plans")]
    assert all("has no ORDER BY: it takes rows in the order of the subquery" in notes for notes in told)


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_where_the_order_may_be_lost_a_limit_asks_for_one_of_its_own(db: Connection, query: str) -> None:
    db.execute(SETUP.encode())
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="LIMIT without ORDER BY") as raised:
        pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    hint = raised.value.diag.message_hint
    assert hint == "Add an ORDER BY that says which rows are meant, beside it: that of a subquery need not reach it."


READ_TWICE = {
    "choice": "WITH q AS (SELECT x FROM t ORDER BY y LIMIT 9) (SELECT x FROM q LIMIT 3) UNION ALL SELECT x FROM q",
    "numbers": "WITH p AS (SELECT x, row_number() OVER (ORDER BY g) AS n FROM t ORDER BY y), q AS (SELECT p.n FROM p)"
    " (SELECT n FROM q LIMIT 3) UNION ALL SELECT n FROM q",
    "first_of_each": "WITH q AS (SELECT p.x FROM (SELECT DISTINCT ON (g) g, x FROM t ORDER BY g) AS p ORDER BY p.g)"
    " (SELECT x FROM q LIMIT 2) UNION ALL SELECT x FROM q",
}


@pytest.mark.parametrize("query", READ_TWICE.values(), ids=READ_TWICE)
def test_a_choice_that_is_read_twice_is_one(db: Connection, query: str) -> None:
    """With the key that it hides added for one of its readers, it would be made again: among rows that tie, another."""
    db.execute(SETUP.encode())
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="LIMIT without ORDER BY") as raised:
        pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    assert "has to select what it is sorted by" in (raised.value.diag.message_hint or "")
    once = query.partition(" UNION ALL ")[0]
    pg_trickle.create_stream_table(db, "st", once, schedule=None, refresh_mode="DIFFERENTIAL")


def test_numbers_of_groups_are_not_those_of_rows(db: Connection) -> None:
    db.execute(SETUP.encode())
    queries = (
        "SELECT row_number() OVER () AS n, sum(q.x) AS s FROM (SELECT x FROM t ORDER BY y) AS q",
        "SELECT row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY y) AS q HAVING count(*) > 3",
        "SELECT row_number() OVER () AS n FROM (SELECT x FROM t ORDER BY y) AS q HAVING true",
        "SELECT row_number() OVER () AS n, sum(q.x) AS s FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 3",
        "SELECT 1 AS a FROM (SELECT x FROM t ORDER BY y) AS q HAVING true LIMIT 3",
        "SELECT ARRAY(SELECT 1 FROM (SELECT x FROM t ORDER BY y) AS q HAVING true) AS a",
        "SELECT array_agg(p.a) AS a FROM (SELECT 1 AS a FROM (SELECT x FROM t ORDER BY y) AS q HAVING true) AS p",
    )
    check_kept(db, queries, STEPS)


SORTED_AGAIN = {
    "beside": "SELECT row_number() OVER () AS n, rank() OVER (ORDER BY q.x) AS r FROM {} AS q",
    "by_it": "SELECT row_number() OVER () AS n, q.x FROM {} AS q ORDER BY rank() OVER (ORDER BY q.x) LIMIT 5",
    "array": "SELECT array_agg(q.x) OVER () AS n, rank() OVER (ORDER BY q.x) AS r FROM {} AS q",
}


@pytest.mark.parametrize("query", SORTED_AGAIN.values(), ids=SORTED_AGAIN)
def test_numbers_beside_a_window_that_sorts_are_left_open(db: Connection, query: str) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", query.format("(SELECT x FROM t ORDER BY y)"), schedule=None)
    ((note,),) = db.execute("SELECT plan #>> '{ties,0}' FROM pgtrickle.pgt_plans").fetchall()
    assert note.startswith("A window in no order")


def test_the_first_of_rows_that_are_sorted_downwards_is_left_open(db: Connection) -> None:
    """PostgreSQL sorts them again, by the keys alone."""
    db.execute(SETUP.encode())
    query = "SELECT DISTINCT ON (q.g) q.g, q.x FROM (SELECT g, x FROM t ORDER BY g DESC, y) AS q"
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    ((note,),) = db.execute("SELECT plan ->> 'ties' FROM pgtrickle.pgt_plans").fetchall()
    assert note.startswith('["DISTINCT ON in no order')
    assert "may lose" not in note


@pytest.mark.parametrize("other", ["count(DISTINCT x)", "string_agg(x::text, '' ORDER BY x)"])
def test_beside_an_aggregate_that_sorts_an_order_may_be_lost(db: Connection, other: str) -> None:
    """Since version 16 PostgreSQL sorts below all of them what one of them wants sorted."""
    db.execute(SETUP.encode())
    query = f"SELECT array_agg(x) AS a, {other} AS b FROM (SELECT x FROM t ORDER BY y) AS q"
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    ((note,),) = db.execute("SELECT plan ->> 'ties' FROM pgtrickle.pgt_plans").fetchall()
    assert "may lose where it sorts rows into groups, or for another aggregate" in note


def test_what_the_query_itself_leaves_open_is_told(db: Connection) -> None:
    """PostgreSQL sorts rows into groups as it likes, which may undo the order; where there are none it can't."""
    db.execute(SETUP.encode())
    for name, query in (QUERIES | LEFT_OPEN).items():
        pg_trickle.create_stream_table(db, name, query, schedule=None)
    found = db.execute(
        "SELECT pgt_name, plan -> 'ties' FROM pgtrickle.pgt_stream_tables AS s JOIN pgtrickle.pgt_plans USING (pgt_id)"
    )
    told = {name: " ".join(ties) for name, ties in found}
    plain = {"elements", "pairs", "first", "groups", "correlated", "document", "array_below", "array", "values"}
    plain |= {"named_again", "array_with"}
    assert {name for name, ties in told.items() if "has no ORDER BY" not in ties} == plain | {"said"}
    assert {name for name, ties in told.items() if "may lose" in ties} == QUERIES.keys() - plain - {"said"}


PERHAPS = {
    "path(x)": "SELECT g, path(x) AS a FROM t GROUP BY g",
    "path(x ORDER BY g)": "SELECT path(x ORDER BY g) AS a FROM t",
    "path(x) OVER (PARTITION BY g)": "SELECT x, path(x) OVER (PARTITION BY g) AS a FROM t",
    "path(x) OVER (ORDER BY g)": "SELECT x, path(x) OVER w AS a FROM t WINDOW w AS (ORDER BY g)",
    "odd.Path(x) OVER ()": 'SELECT x, odd."Path"(x) OVER () AS a FROM t',
    "nth(x) OVER (PARTITION BY g)": "SELECT x, nth(x) OVER (PARTITION BY g) AS a FROM t",
    "nth(n := 2, v := x) OVER (ORDER BY g)": "SELECT x, nth(n => 2, v => x) OVER (ORDER BY g) AS a FROM t",
}
CERTAIN = (
    "SELECT g, path(x ORDER BY id) AS a FROM t GROUP BY g",
    "SELECT x, path(x) OVER (ORDER BY id) AS a, sum(x) OVER () AS s FROM t",
    "SELECT x, nth(x) OVER (PARTITION BY g ORDER BY id) AS a FROM t",
)
# A window function of one's own is written in C; any of PostgreSQL's will do for one.
NTH = """CREATE FUNCTION nth(v int, n int DEFAULT 1) RETURNS int
         LANGUAGE internal WINDOW IMMUTABLE STRICT AS 'window_nth_value'"""


@pytest.mark.parametrize(("call", "query"), PERHAPS.items(), ids=PERHAPS)
def test_what_may_matter_to_ones_own_aggregate_or_window_is_told(db: Connection, call: str, query: str) -> None:
    db.execute(f"{SETUP}; {NTH}".encode())
    db.execute("""CREATE SCHEMA odd; CREATE AGGREGATE odd."Path"(int) (SFUNC = join_up, STYPE = text, INITCOND = '')""")
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    ((note,),) = db.execute("SELECT plan #>> '{ties,0}' FROM pgtrickle.pgt_plans").fetchall()
    assert note.removeprefix("public.").startswith(call)
    assert "if it matters to it in which order rows come" in note


@pytest.mark.parametrize("call", ["sum(x)", "sum(x) OVER ()", "var_pop(x) OVER (PARTITION BY g)", "corr(x, y)"])
def test_sums_of_floats_are_told_to_depend_on_the_order(db: Connection, call: str) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, g int, x float8, y float8)")
    pg_trickle.create_stream_table(db, "st", f"SELECT {call} AS s FROM t", schedule=None)
    ((notes,),) = db.execute("SELECT plan -> 'ties' FROM pgtrickle.pgt_plans").fetchall()
    assert [note.partition(" adds floats, ")[0] for note in notes] == [call]


@pytest.mark.parametrize("query", CERTAIN)
def test_nor_is_anything_told_where_an_order_contains_a_key(db: Connection, query: str) -> None:
    db.execute(f"{SETUP}; {NTH}".encode())
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    assert db.execute("SELECT plan -> 'ties' FROM pgtrickle.pgt_plans").fetchall() == [([],)]


@pytest.mark.versions(since=16)
def test_any_value_is_the_first_in_the_order_of_a_subquery(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, ["SELECT any_value(x) AS a FROM (SELECT x FROM t ORDER BY y) AS q"], STEPS)
    pg_trickle.create_stream_table(db, "st", "SELECT g, any_value(x) AS a FROM t GROUP BY g", schedule=None)
    ((note,),) = db.execute(
        "SELECT plan #>> '{ties,0}' FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables USING (pgt_id)"
        " WHERE pgt_name = 'st'"
    ).fetchall()
    assert note.startswith("any_value(x) has no ORDER BY")


@pytest.mark.property
@pytest.mark.slow
def test_random_rows_are_gathered_in_their_order_group_by_group(database) -> None:
    sessions = Sessions(database, "SET enable_sort = off", "SET enable_incremental_sort = off")

    @afresh(FEW)
    @given(case=cases((INT, TEXT, BOOL), along=st.just((GATHERED_IN_GROUPS,))))
    def each(case: Case) -> None:
        judged(sessions, case)

    each()


BREAKS = {
    "an order that is forgotten": (select, "with_presorted", lambda _: lambda statement, context: statement),
    "the first of two sort keys alone": (
        presorted, "_gathering", lambda whole: lambda part, order: whole(part, order[:1])),
}  # fmt: skip


@pytest.mark.parametrize(("module", "name", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(db: Connection, monkeypatch, module, name, broken) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    db.execute(SETUP.encode())
    db.execute("SET enable_sort = off")
    query = "SELECT g, array_agg(x) AS a FROM (SELECT g, x FROM t ORDER BY y % 5, x DESC) AS q GROUP BY g"
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    found = []
    for step in STEPS:
        db.execute(step.encode())
        pg_trickle.refresh_stream_table(db, "st")
        found += differences(db, "st")
    assert found != []
