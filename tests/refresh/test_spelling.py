"""Values that are equal and read differently: what a stream table shows of a group is taken away as it was shown."""

from __future__ import annotations

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.upkeep import check_reason, check_states, explained, last_refresh

# In tables without a key rows are found by all that they hold.
QUERIES = {
    "numbers": "SELECT count(*) AS c, n FROM u GROUP BY n, i",
    "spans": "SELECT count(*) AS c, t FROM u GROUP BY t, i",
    "floats": "SELECT count(*) AS c, f FROM u GROUP BY f, i",
    "below": "SELECT n FROM (SELECT n, i, count(*) AS c FROM u GROUP BY n, i) AS g WHERE i = 0",
    "mixed": "SELECT n, t FROM u GROUP BY 1, 2, i",
    "joined": "SELECT a.n FROM (SELECT n, i FROM u GROUP BY n, i) AS a"
    " JOIN (SELECT n, max(k) AS k FROM u GROUP BY n) AS b ON a.n = b.n",
    "read_again": "SELECT n, string_agg(i::text, ',' ORDER BY k) AS s FROM u GROUP BY n, i",
}
# They tell what the group's row reads like, which must be one that is there.
TELLING = {
    "shown": "SELECT n::text AS n, count(*) AS c FROM u GROUP BY n",
    "above": "SELECT n::text AS n FROM (SELECT n, i FROM u GROUP BY n, i) AS g",
    "grouped_again": "SELECT count(*) AS c, n::text AS n FROM (SELECT n, i FROM u GROUP BY n, i) AS g GROUP BY n::text",
    "distinct_below": "SELECT n::text AS n FROM (SELECT DISTINCT n FROM u) AS d",
    "united": "SELECT n / 3 AS n FROM (SELECT n FROM u UNION SELECT n + 0 FROM u) AS d",
    "passed_on": "SELECT m::text AS m FROM (SELECT n * 2 AS m FROM u GROUP BY n) AS g",
    "spans_shown": "SELECT t::text AS t FROM u GROUP BY t",
    "read_by_a_cte": "WITH g AS (SELECT n FROM u GROUP BY n) SELECT a.n::text AS n FROM g AS a JOIN g AS b USING (n)",
}
# Here it can't be told, or all that is equal reads the same.
BLIND = {
    "doubled": "SELECT n * 2 AS m, count(*) AS c FROM u GROUP BY n HAVING n > 0",
    "by_text": "SELECT n::text AS n, count(*) AS c FROM u GROUP BY n::text",
    "rounded": "SELECT round(n, 2)::text AS n, count(*) AS c FROM u GROUP BY round(n, 2)",
    "cast_down": "SELECT n::int::text AS n FROM (SELECT n FROM u GROUP BY n) AS g",
    "gathered": "SELECT array_agg(n ORDER BY n) AS a FROM (SELECT n, i FROM u GROUP BY n, i) AS g",
    "numbered": "SELECT n, count(*) OVER (PARTITION BY n) AS c FROM (SELECT n, i FROM u GROUP BY n, i) AS g",
    "rows_below": "SELECT n, string_agg(n::text, ',' ORDER BY n::text, k) AS s FROM u GROUP BY n",
}
WRITES = (
    "INSERT INTO u VALUES (2, 1, 0, '24:00:00', '-0')",
    "INSERT INTO u VALUES (3, 1.0, 1, '24:00:00', '-0')",
    "DELETE FROM u WHERE k = 1",
    "INSERT INTO u VALUES (4, 1.000, 0, '1 day', 0), (5, NULL, NULL, NULL, NULL)",
    "UPDATE u SET n = n + 0.000, f = -f WHERE k IN (2, 3)",
    "DELETE FROM u WHERE k = 2",
    "DELETE FROM u",
)

# And whether one spelling of each is left then: of several PostgreSQL shows any.
STEPS = (
    ("INSERT INTO u VALUES (2, 1, 0, '24:00:00', '-0')", False),
    ("DELETE FROM u WHERE k = 1", True),
    ("UPDATE u SET n = 1.000, t = '1 day'", True),
    ("INSERT INTO u VALUES (3, 1.0, 0, '24:00:00', 0)", False),
    ("DELETE FROM u WHERE k = 2", True),
    ("DELETE FROM u", True),
)
# By SQL's equality: which of several spellings a group shows is PostgreSQL's choice.
VERIFY = "SELECT * FROM pgtrickle.verify_stream_table(%s)"


def _stream_tables(db, queries):
    db.execute("CREATE TABLE u (k int PRIMARY KEY, n numeric, i int, t interval, f float8)")
    db.execute("INSERT INTO u VALUES (1, 1.00, 0, '1 day', 0)")
    for name, query in queries.items():
        pg_trickle.create_stream_table(db, f"public.{name}", query, schedule=None, refresh_mode="DIFFERENTIAL")


def _is_told(db, name):
    return "of which more is read than the value" in explained(db, f"public.{name}")


@pytest.mark.versions
def test_equal_values_in_other_words_contradict_nothing(db):
    every = {**QUERIES, **BLIND}
    _stream_tables(db, every)
    for write in WRITES:
        db.execute(write)
        for name in every:
            pg_trickle.refresh_stream_table(db, f"public.{name}")
            check_reason(db, name)
            check_states(db, name)
            assert db.execute(VERIFY, (f"public.{name}",)).fetchone() == (0, 0, True), (name, write)
    assert not any(_is_told(db, name) for name in every)


@pytest.mark.versions
def test_what_tells_them_apart_is_as_the_rows_that_are_left(db):
    _stream_tables(db, TELLING)
    for write, is_settled in STEPS:
        db.execute(write)
        for name in TELLING:
            pg_trickle.refresh_stream_table(db, f"public.{name}")
            if is_settled:
                assert db.execute(VERIFY, (f"public.{name}",)).fetchone() == (0, 0, True), (name, write)
    assert all(_is_told(db, name) for name in TELLING)


# What an expression tells of a group beyond the value of its key: it must read as a row does that is still there.
TOLD = {
    "as_text": "SELECT n::text AS x, count(*) AS c FROM u GROUP BY n",
    "divided": "SELECT n / 3 AS x, (n / 3)::text AS y, sum(i) AS s FROM u GROUP BY n",
    "hours": "SELECT extract(hour FROM t) AS h, count(*) AS c FROM u GROUP BY t",
    "sign": "SELECT f::text AS x, count(*) AS c FROM u GROUP BY f",
    "array": "SELECT ARRAY[n]::text AS x, count(*) AS c FROM u GROUP BY ARRAY[n]",
    "json": "SELECT to_jsonb(n)::text AS x, count(*) AS c FROM u GROUP BY to_jsonb(n)",
    "having": "SELECT count(*) AS c FROM u GROUP BY n HAVING length(n::text) > 3",
    "read_on": "SELECT q.n::text || '!' AS x, q.c FROM (SELECT n, count(*) AS c FROM u GROUP BY n) AS q",
    "distinct": "SELECT q.n::text AS x FROM (SELECT DISTINCT n, i FROM u) AS q",
    "union": "SELECT q.n::text AS x FROM (SELECT n FROM u UNION SELECT n FROM u WHERE i = 0) AS q",
    "except": "SELECT q.n::text AS x FROM (SELECT n FROM u EXCEPT SELECT n FROM u WHERE i = 9) AS q",
    "intersect": "SELECT q.n::text AS x FROM (SELECT n FROM u INTERSECT ALL SELECT n FROM u WHERE i < 9) AS q",
    "joined": "SELECT a.k, b.x, b.c FROM u AS a JOIN (SELECT n, n::text AS x, count(*) AS c FROM u GROUP BY n) AS b"
    " ON a.n = b.n",
    "sets": "SELECT n::text AS x, i, count(*) AS c FROM u GROUP BY ROLLUP (n, i)",
    "values": "SELECT n::text AS x, count(DISTINCT i) AS c FROM u GROUP BY n",
    "window": "SELECT n::text AS x, rank() OVER (ORDER BY n) AS r FROM u GROUP BY n",
    "extremes": "SELECT sum(q.n)::text AS n, avg(q.n) AS a, string_agg(q.t::text, ',' ORDER BY q.i) AS t"
    " FROM (SELECT i, max(n) AS n, min(t) AS t FROM u GROUP BY i) AS q",
    "depends": "SELECT v.id, v.price::text || ' EUR' AS x, count(u.k) AS c FROM v LEFT JOIN u ON u.i = v.id"
    " GROUP BY v.id",
    "once_each": "SELECT k, (SELECT string_agg(o.n::text || v.id, ',' ORDER BY v.id) FROM v WHERE v.id > o.i) AS x"
    " FROM u AS o",
    "tells_below": "SELECT n, (SELECT count(*) FROM v WHERE length(g.n::text) > v.id) AS c FROM u AS g GROUP BY n",
    "first": "SELECT o.k, w.x FROM u AS o LEFT JOIN LATERAL"
    " (SELECT o.t::text || v.id AS x FROM v WHERE v.id > o.i ORDER BY v.id LIMIT 1) AS w ON true",
    "not_in": "SELECT o.k FROM u AS o WHERE o.i NOT IN"
    " (SELECT v.id FROM v LEFT JOIN u AS w ON w.n = o.n AND w.i > v.id WHERE w.k IS NULL OR length(o.n::text) > 3)",
    "any": "SELECT o.k, o.i < ANY (SELECT v.id FROM v LEFT JOIN u AS w ON w.t = o.t AND w.i = v.id"
    " WHERE w.k IS NOT NULL) AS x FROM u AS o",
}
# Of what is equal only one spelling at a time, or PostgreSQL's own choice among them might change; but what each row
# reads of itself is its own.
RESPELT = (
    "INSERT INTO u VALUES (2, 1.0, 0, '24:00:00', '-0'); DELETE FROM u WHERE k = 1",
    "UPDATE u SET n = n + 0.000, t = '1 day', f = 0",
    "INSERT INTO u VALUES (3, 2.50, 1, '1 mon', 1), (4, 2.50, 9, '1 mon', 1)",
    "UPDATE u SET n = 2.5, t = '30 days' WHERE k > 2",
    "UPDATE v SET price = price + 0.000",
    "DELETE FROM u WHERE k = 3",
    "DELETE FROM u",
    "INSERT INTO u VALUES (5, 1.00000, 1, '1 day', '-0')",
)


def test_what_is_told_of_a_group_is_told_of_a_row_that_is_there(db):
    db.execute("CREATE TABLE u (k int PRIMARY KEY, n numeric, i int, t interval, f float8)")
    db.execute("CREATE TABLE v (id int PRIMARY KEY, price numeric)")
    db.execute("INSERT INTO u VALUES (1, 1.00, 0, '1 day', 0); INSERT INTO v VALUES (0, 7.5), (1, 8), (2, 9)")
    for name, query in TOLD.items():
        pg_trickle.create_stream_table(db, f'public."{name}"', query, schedule=None, refresh_mode="DIFFERENTIAL")
    for write in RESPELT:
        db.execute(write)
        for name in TOLD:
            pg_trickle.refresh_stream_table(db, f'public."{name}"')
            assert last_refresh(db, name)[0] in {"DIFFERENTIAL", "NO_DATA"}, (name, write)
            check_states(db, f'public."{name}"')
            assert_fresh(db, f'public."{name}"')


def test_rows_that_are_equal_read_each_for_themselves(db):
    """A subquery is not computed for one of them on behalf of the other."""
    db.execute("CREATE TABLE u (k int PRIMARY KEY, n numeric, i int, t interval); CREATE TABLE v (id int PRIMARY KEY)")
    db.execute("INSERT INTO u VALUES (1, 1.00, 0, '1 day'), (2, 1.0, 0, '24:00:00'); INSERT INTO v VALUES (1), (2)")
    for name in ("once_each", "first"):
        pg_trickle.create_stream_table(db, f"public.{name}", TOLD[name], schedule=None, refresh_mode="DIFFERENTIAL")
        assert_fresh(db, f"public.{name}")
    for write in ("INSERT INTO u VALUES (3, 1, 1, '1 day'), (4, 1.000, 1, '24:00')", "DELETE FROM v WHERE id = 1"):
        db.execute(write)
        for name in ("once_each", "first"):
            pg_trickle.refresh_stream_table(db, f"public.{name}")
            assert_fresh(db, f"public.{name}")


def test_a_plan_says_that_equal_keys_may_be_shown_otherwise(db):
    db.execute("CREATE TABLE u (k int PRIMARY KEY, n numeric, f int)")
    pg_trickle.create_stream_table(db, "public.told", "SELECT n::text AS x, count(*) AS c FROM u GROUP BY n")
    pg_trickle.create_stream_table(db, "public.quiet", "SELECT n, round(n, 2) AS r, count(*) AS c FROM u GROUP BY n")
    notes = {
        name: db.execute("SELECT p.plan -> 'ties' FROM pgtrickle.pgt_plans AS p JOIN pgtrickle.pgt_stream_tables AS s"
                         " USING (pgt_id) WHERE s.pgt_name = %s", (name,)).fetchone()
        for name in ("told", "quiet")
    }  # fmt: skip
    assert "equal values of it may read differently" in notes["told"][0][0]
    assert notes["quiet"] == ([],)
