"""Values that are equal and read differently: what a stream table shows of a group is taken away as it was shown."""

from __future__ import annotations

import pytest

import pg_trickle
from tests.upkeep import check_reason, check_states

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
# They tell what the group's row reads like: no rule, since the row that read so may be gone.
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
    (explained,) = db.execute("SELECT pgtrickle.explain_stream_table(%s)", (f"public.{name}",)).fetchone()
    return "tells equal values of a group apart" in explained


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
