"""Every kind of aggregate: exact ones from counters, to PostgreSQL's last digit; the others by their touched groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pg_trickle
from tests.upkeep import check_kept, check_reason, is_maintained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);
CREATE AGGREGATE longest_of(VARIADIC text[]) (SFUNC = longer_of, STYPE = text);
CREATE TABLE t (id int, g int, i int, s smallint, b bigint, n numeric(12,3), u numeric, f float8, x text, y boolean,
    j jsonb);
INSERT INTO t VALUES
    (1, 1, 5, 3, 5000000000, 1.500, 1.5, 0.5, 'abc', true, '1'),
    (2, 1, 7, 3, -9223372036854775808, 2.250, 2, 1, 'z', NULL, '2'),
    (3, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL),
    (4, NULL, 2, 1, 9223372036854775807, 0.001, 3, 2, 'zz', true, '3'),
    (5, 2, 5, 7, 1, 'NaN', 1, 64, 'abc', false, '[]');
"""
LONGER = """
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT CASE WHEN length($2) > coalesce(length($1), -1) THEN $2 ELSE $1 END $$;
CREATE FUNCTION longer_of(text, VARIADIC text[]) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT greatest($1, $2[1]) $$;
"""
STEPS = (
    "INSERT INTO t VALUES (6, 1, 5, 3, 1, 100000000.001, 1.50, 3, 'abcd', true, '1'),"
    " (7, 3, 1, 1, 1, 1, 1, 1, 'x', true, '{}')",
    "UPDATE t SET i = i + 10, n = n + 10, s = s + 1",
    "DELETE FROM t WHERE id = 1",
    "UPDATE t SET g = 1 WHERE g IS NULL",
    "INSERT INTO t (id, g, u) SELECT 8, g, 0.12345678901234567890123456 FROM generate_series(1, 3) AS g",
    "DELETE FROM t WHERE id = 8",
    "DELETE FROM t WHERE id = 5; UPDATE t SET x = 'abc', y = NOT y",
    "UPDATE t SET i = NULL, s = NULL, b = NULL, n = NULL, x = NULL WHERE id IN (2, 6)",
    "INSERT INTO t SELECT * FROM t",
    "DELETE FROM t",
    "INSERT INTO t VALUES (9, 2, 3, 3, 3, 3, 3, 3, 'w', NULL, '1')",
    "TRUNCATE t",
)
COUNTED = {
    "variance": "variance(i) AS vi, var_samp(n) AS vn, var_pop(s) AS ps, var_pop(b) AS pb",
    "deviation": "stddev(i) AS di, stddev_samp(n) AS dn, stddev_pop(n) AS pn, stddev_pop(b) AS pb, stddev(s) AS ds",
    "variance of products": "variance(n * n) AS v, stddev_pop(i * n) FILTER (WHERE y) AS d",
    "several scales": "sum(CASE WHEN y THEN n ELSE 0 END) / 7 AS q, avg(CASE WHEN y THEN n ELSE 2.5 END) AS a,"
    " sum(CASE WHEN i > 5 THEN n * n WHEN y THEN i ELSE n END) FILTER (WHERE s > 0) AS f, sum(coalesce(n, i)) AS c,"
    " scale(sum(greatest(n, 1))) AS d",
    # They have, and round by, the decimals of the longest number, which may leave.
    "unscaled": "avg(u) AS a, stddev(u) AS d, var_pop(u) AS v, stddev_pop(u * n) FILTER (WHERE y) AS f",
    "spelled sums": "sum(u)::text AS t, sum(u) / 7 AS q, scale(sum(u)) AS s, (sum(u) FILTER (WHERE y))::text AS f",
    "bits": "bit_xor(i) AS xi, bit_xor(s) AS xs, bit_xor(b) FILTER (WHERE y) AS xb, bit_and(i) AS a, bit_or(b) AS o",
    "distinct": "count(DISTINCT x) AS cx, count(DISTINCT i) AS ci, sum(DISTINCT i) AS si,"
    " avg(DISTINCT n) AS an, count(*)",
    "distinct and not": "count(DISTINCT n) AS cn, sum(n) AS sn, count(*) AS c, min(i) AS l, bool_or(y) AS o,"
    " count(n) AS k",
    "distinct and filtered": "count(DISTINCT i) FILTER (WHERE y) AS a, count(DISTINCT i) AS b, sum(i) FILTER (WHERE y)",
    "distinct that is none": "min(DISTINCT i) AS a, bool_and(DISTINCT y) AS b, bit_or(DISTINCT s) AS c",
    "distinct variance": "variance(DISTINCT i) AS v, stddev(DISTINCT n) AS d, bit_xor(DISTINCT s) AS x",
    "distinct of loose values": "count(DISTINCT u) AS u, count(DISTINCT f) AS f, count(DISTINCT j) AS j",
}
OTHERS = {
    "ordered": "string_agg(x, ',' ORDER BY x DESC, id) AS s, array_agg(i ORDER BY id) AS a",
    "distinct and ordered": "string_agg(DISTINCT x, ',') AS s, array_agg(DISTINCT i ORDER BY i DESC) AS a,"
    " count(DISTINCT i)",
    "ordered set": "percentile_disc(0.5) WITHIN GROUP (ORDER BY i) AS p,"
    " percentile_cont(0.5) WITHIN GROUP (ORDER BY f) AS q, mode() WITHIN GROUP (ORDER BY x) AS m",
    "several percentiles": "percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY i) FILTER (WHERE y) AS p",
    "hypothetical": "rank(5) WITHIN GROUP (ORDER BY i) AS r, percent_rank(2) WITHIN GROUP (ORDER BY i) AS p,"
    " cume_dist(5) WITHIN GROUP (ORDER BY i) AS c, dense_rank(1) WITHIN GROUP (ORDER BY i) AS d",
    # Sums of floats depend on the order of the rows, which an UPDATE of other columns changes.
    "floats": "sum(f) AS s, avg(f) AS a, round(stddev(f)::numeric, 9) AS d, round(corr(f, i)::numeric, 9) AS c,"
    " round(regr_slope(f, i)::numeric, 9) AS r, round(covar_pop(i, s)::numeric, 9) AS v, regr_count(f, i) AS k,"
    " round(regr_r2(i, s)::numeric, 9) AS r2, sum(f::real) AS fr",
    "unscaled and distinct": "avg(DISTINCT u) AS a, stddev(DISTINCT u) AS d, sum(DISTINCT u)::text AS s",
    "spelled and distinct beside what is read again": "sum(DISTINCT i)::text AS s, sum(DISTINCT n)::text AS t,"
    " array_agg(i ORDER BY id) AS a, count(*) AS c, sum(i) AS u",
    "sums by value": "trim_scale(coalesce(sum(u), 0) + 1) AS c, round(sum(u), 1)::text AS r, sum(u)::float8 / 7 AS f,"
    " (sum(u) > 2)::text AS b, sum(u)::numeric(20, 4) / 7 AS n, trim_scale(abs(- sum(u)) * 2) AS a",
    "documents": "jsonb_agg(j ORDER BY id) AS a, jsonb_object_agg(id, x ORDER BY id) AS o,"
    " json_agg(i ORDER BY id)::text AS t",
    "of one's own": "longest(x ORDER BY id) AS l, count(*) AS n",
    "ranges": "range_agg(int4range(i, i + 2)) AS r, max(j::text) AS j, count(j) AS c",
    "variadic": "longest_of(VARIADIC ARRAY[x, y::text]) AS l, min(ARRAY[i, id]) AS a",
}
QUERIES = {
    **{f"{name}, grouped": f"SELECT g, {calls} FROM t GROUP BY g" for name, calls in (COUNTED | OTHERS).items()},
    **{f"{name}, of all": f"SELECT {calls} FROM t" for name, calls in (COUNTED | OTHERS).items()},
    **{f"{name}, in sets": f"SELECT g, y, {calls} FROM t GROUP BY CUBE (g, y)" for name, calls in COUNTED.items()},
    "HAVING": "SELECT g FROM t GROUP BY g HAVING count(DISTINCT x) > 1 AND stddev(i) > 0",
    "HAVING by decimals": "SELECT g FROM t GROUP BY g HAVING length(sum(u)::text) > 3",
    "sums spelled above": "SELECT q.g, q.s::text AS s FROM (SELECT g, sum(u) AS s FROM t GROUP BY g) q",
    "spelled sums in sets": "SELECT g, y, sum(u)::text AS s FROM t GROUP BY CUBE (g, y)",
    "sums spelled for each outer row": "SELECT o.id, (SELECT sum(t.u)::text FROM t WHERE t.g = o.g) AS s FROM t o",
    "grouped again": "SELECT q.c, trim_scale(sum(q.v)) AS v"
    " FROM (SELECT g, count(DISTINCT x) AS c, variance(i) AS v FROM t GROUP BY g) q GROUP BY 1",
    "for each outer row": "SELECT o.id, (SELECT count(DISTINCT t.x) FROM t WHERE t.g = o.g) AS c,"
    " (SELECT variance(t.i) FROM t WHERE t.id < o.id) AS v FROM t o",
    "ordinals": "SELECT g, i + 1, count(DISTINCT x) FROM t GROUP BY 1, 2",
}  # fmt: skip
FLOATS = ("floats, grouped", "floats, of all")


@pytest.mark.versions
def test_aggregates_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(LONGER.encode())
    db.execute(SETUP.encode())
    check_kept(db, (query for name, query in QUERIES.items() if name not in FLOATS), STEPS)


@pytest.mark.versions
def test_floats_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    """A group that is read again in another order than a fresh state's may differ from that in the last digit."""
    db.execute(LONGER.encode())
    db.execute(SETUP.encode())
    for place, name in enumerate(FLOATS):
        pg_trickle.create_stream_table(db, f"s{place}", QUERIES[name], schedule=None)
        assert is_maintained(db, f"s{place}")
    for step in STEPS:
        db.execute(step.encode())
        for place, _ in enumerate(FLOATS):
            pg_trickle.refresh_stream_table(db, f"s{place}")
            check_reason(db, f"s{place}")
            assert_fresh(db, f"s{place}")


AROUND = (
    "SELECT (SELECT max(t.i)) AS m FROM t",
    "SELECT (SELECT max((SELECT max(v.i) FROM t v WHERE v.id > t.id))) AS m FROM t",
    "SELECT g, (SELECT max((SELECT max(v.i) FROM t v WHERE v.id > t.id))) AS m FROM t GROUP BY g",
    "SELECT (SELECT sum(t.i) FILTER (WHERE EXISTS (SELECT FROM t v WHERE v.id = t.i)) FROM (VALUES (1)) AS one) AS s"
    " FROM t",
    "SELECT (SELECT count(*) FILTER (WHERE (SELECT t.i > 1))) AS n FROM t",
    "SELECT g FROM t GROUP BY g HAVING (SELECT count((SELECT t.i))) > 1",
    "SELECT (SELECT q.m FROM LATERAL (SELECT max((SELECT v.y FROM (VALUES (1, t.i)) v(x, y) WHERE v.x = t.s)) AS m) q)"
    " AS m FROM t",
)


def test_an_aggregate_is_of_the_query_that_it_reads(db: Connection, assert_fresh: Oracle) -> None:
    """Be it in a subquery of its own: then it makes one row of all rows of a query around."""
    db.execute(LONGER.encode())
    db.execute(SETUP.encode())
    for place, query in enumerate(AROUND):
        pg_trickle.create_stream_table(db, f"s{place}", query, schedule=None)
        assert_fresh(db, f"s{place}")
    for step in STEPS:
        db.execute(step.encode())
        for place, _ in enumerate(AROUND):
            pg_trickle.refresh_stream_table(db, f"s{place}")
            assert_fresh(db, f"s{place}")


def test_counters_are_kept_inside_the_statement(db: Connection, assert_fresh: Oracle) -> None:
    """By adding up, where that is enough."""
    db.execute(LONGER.encode())
    db.execute(SETUP.encode())
    names = [f"s{place}" for place, _ in enumerate(COUNTED)]
    for name, calls in zip(names, COUNTED.values(), strict=True):
        query = f"SELECT g, {calls} FROM t GROUP BY g"
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE", schedule=None)
    for step in STEPS:
        db.execute(step.encode())
        for name in names:
            assert_fresh(db, name)


NUMBERS = st.one_of(
    st.integers(-9, 9),
    st.integers(-(2**62), 2**62),
    st.sampled_from([0, 1, 10, 9999, 10000, 10001, 99999999, 10**9, 3 * 10**17]),
)


@pytest.mark.property
@pytest.mark.versions
@given(first=st.lists(NUMBERS, min_size=1, max_size=8), came=st.lists(NUMBERS, max_size=3), gone=st.integers(0, 8))
def test_variances_and_sums_have_the_digits_that_postgresql_gives_them(
    db: Connection, first: list[int], came: list[int], gone: int
) -> None:
    """Of numbers of every size; sums have as many decimals as the longest number that is there."""
    if db.execute("SELECT to_regclass('v')").fetchone() == (None,):
        db.execute("CREATE TABLE v (b bigint, n numeric(30,3), u numeric)")
        calls = ", ".join(
            f"{f}({x}) AS {f}_{x}" for f in ("var_pop", "var_samp", "stddev_pop", "stddev_samp") for x in "bnu"
        )
        mixed = "CASE b % 3 WHEN 0 THEN n WHEN 1 THEN n * n ELSE 5 END"
        pg_trickle.create_stream_table(
            db,
            "s",
            f"SELECT {calls}, sum({mixed}) AS sum, avg({mixed}) AS avg, sum(u)::text AS told, avg(u) AS mean FROM v",
            schedule=None,
        )
        rules = db.execute("SELECT plan #>> '{explain,tree}' FROM pgtrickle.pgt_plans").fetchone() or ("",)
        assert "recomputed" not in rules[0]
    db.execute("TRUNCATE v")
    _add(db, first)
    pg_trickle.refresh_stream_table(db, "s")
    db.execute("DELETE FROM v WHERE ctid IN (SELECT ctid FROM v ORDER BY b LIMIT %s)", (gone,))
    _add(db, came)
    pg_trickle.refresh_stream_table(db, "s")
    (view,) = db.execute("SELECT definition_view::regclass::text FROM pgtrickle.pgt_stream_tables").fetchone() or ("",)
    have = db.execute("SELECT s::text FROM s").fetchone()
    assert have == db.execute(f"SELECT v::text FROM {view} AS v".encode()).fetchone()


def _add(db: Connection, numbers: list[int]) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO v VALUES (%(x)s, %(x)s / 7.0, CASE %(x)s %% 41
                   WHEN 9 THEN 'Infinity' WHEN -9 THEN '-Infinity' WHEN 4 THEN 'NaN'
                   ELSE %(x)s * ('1e-' || abs(%(x)s %% 5) * 97)::numeric END)""",
            [{"x": number} for number in numbers],
        )


def test_extremes_that_come_and_go_between_refreshes(db: Connection, assert_fresh: Oracle) -> None:
    """The changes below MIN and MAX aren't netted: a value that came and left again must not stay, nor one be lost."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v int, u int)")
    db.execute("INSERT INTO t SELECT n, n % 2, n, 0 FROM generate_series(1, 10) AS n")
    for name, query in (
        ("ends", "SELECT k, min(v) AS least, max(v) AS most, count(*) AS n, sum(u) AS total FROM t GROUP BY k"),
        ("kept", "SELECT k, min(v) AS least FROM t WHERE v > 2 GROUP BY k"),
        ("whole", "SELECT min(v) AS least, max(v) AS most FROM t"),
    ):
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    for batch in (
        ["INSERT INTO t VALUES (20, 0, -5, 0), (21, 1, 99, 0)", "DELETE FROM t WHERE id IN (20, 21)"],
        ["UPDATE t SET v = v - 100", "UPDATE t SET v = v + 100"],
        ["DELETE FROM t WHERE v IN (1, 10)", "INSERT INTO t VALUES (1, 1, 1, 0), (10, 0, 10, 0)"],
        [
            "DELETE FROM t WHERE v IN (1, 10)",
            "INSERT INTO t VALUES (22, 1, 0, 0)",
            "UPDATE t SET v = NULL WHERE id = 22",
        ],
        ["UPDATE t SET u = u + 1"] * 5,
        ["UPDATE t SET k = 1 - k, v = -v", "DELETE FROM t WHERE k = 0"],
    ):
        for statement in batch:
            db.execute(statement)
        for name in ("ends", "kept", "whole"):
            db.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
            assert_fresh(db, name)


def test_what_a_group_is_by_is_read_beside_distinct_arguments(db, assert_fresh):
    """Rows that bring distinct values have the group's keys: they must not count as rows of the table."""
    db.execute(
        "CREATE TABLE t (k int, b boolean, a int); INSERT INTO t VALUES (1, true, 1), (1, true, 1), (NULL, NULL, 3)"
    )
    queries = {
        "counted": "SELECT k, count(k) AS n, sum(k) AS s, avg(k) AS v, count(DISTINCT a) AS m FROM t GROUP BY k",
        "itself": "SELECT k, count(k) AS n, count(DISTINCT k) AS m FROM t GROUP BY k",
        "computed": "SELECT count(k + 0) AS n, count(DISTINCT k) FILTER (WHERE a = 1) AS m FROM t GROUP BY k + 0",
        "filtered": "SELECT b, count(*) FILTER (WHERE b) AS n, count(DISTINCT a) AS m FROM t GROUP BY b",
        "sets": "SELECT k, b, count(k) AS n, sum(k) AS s, sum(DISTINCT a) AS m FROM t GROUP BY k, ROLLUP (b)",
    }
    for name, query in queries.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        assert_fresh(db, name)
    for change in (
        "INSERT INTO t VALUES (1, false, 5), (2, true, 1), (NULL, true, 3)",
        "UPDATE t SET a = 1, b = NOT b WHERE k = 1",
        "DELETE FROM t WHERE a = 3",
    ):
        db.execute(change)
        for name in queries:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)


def test_numbers_with_thousands_of_decimals(db: Connection, assert_fresh: Oracle) -> None:
    db.execute("CREATE TABLE v (n numeric)")
    rounded = "avg(n) AS a, variance(n) AS v, stddev_pop(n) AS d"
    pg_trickle.create_stream_table(db, "st", f"SELECT {rounded} FROM v", schedule=None)
    pg_trickle.create_stream_table(db, "told", f"SELECT sum(n)::text AS s, {rounded} FROM v", schedule=None)
    for step in (
        "INSERT INTO v VALUES (1e-8191), (2e-8191), (1e30000), (0e-8191), (7)",
        "DELETE FROM v WHERE n > 10",
        "DELETE FROM v WHERE n IN (0, 2e-8191); INSERT INTO v VALUES (1e-1200), (3e-1200)",
        "DELETE FROM v WHERE scale(n) = 8191",
        "DELETE FROM v WHERE n < 1; INSERT INTO v VALUES (7.5)",
    ):
        db.execute(step.encode())
        for name in ("st", "told"):
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
    # Only a sum can tell so many: who rounds goes on.
    db.execute("INSERT INTO v VALUES (1e-8192), (3e-16383)")
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        pg_trickle.refresh_stream_table(db, "told")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    db.execute("UPDATE v SET n = round(n, 20) WHERE scale(n) < 9000")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    db.execute("UPDATE v SET n = round(n, 20)")
    for name in ("st", "told"):
        pg_trickle.refresh_stream_table(db, name)
        assert_fresh(db, name)
