"""Whatever is refused, or run again for want of a rule, and the query that its hint asks for: that is maintained."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.compile.test_every_refusal import CALLS, literals
from tests.upkeep import check_reason

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

TABLES = """
CREATE TABLE t (id int PRIMARY KEY, g int, n numeric, at timestamptz, d date, doc json);
CREATE TYPE mood AS ENUM ('low', 'high');
CREATE TABLE u (id int PRIMARY KEY, t_id int, v int, m mood DEFAULT 'high');
CREATE TABLE edges (a int, b int, w numeric);
CREATE TABLE above (id int); CREATE TABLE under () INHERITS (above);
CREATE SEQUENCE numbers;
CREATE FUNCTION settled(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 * 2';
CREATE FUNCTION certain(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
INSERT INTO t SELECT i, i % 3, i % 4 + 0.50, now() - i * interval '1 h', CURRENT_DATE - i, '{}'
  FROM generate_series(1, 9) AS i;
INSERT INTO u SELECT i, i % 7, i % 5 FROM generate_series(1, 12) AS i;
INSERT INTO edges VALUES (1, 2, 1.0), (2, 3, 2.50), (3, 4, 1);
"""
WRITES = (
    "INSERT INTO t VALUES (20, 1, 1.500, now(), CURRENT_DATE, '[]'), (21, NULL, NULL, NULL, NULL, NULL)",
    "UPDATE u SET v = v + 1, t_id = 3 WHERE id < 4; UPDATE edges SET b = 4 WHERE a = 2; DELETE FROM t WHERE id = 2",
    "INSERT INTO edges VALUES (4, 5, 1.00), (4, 5, 1.00); INSERT INTO u VALUES (30, 20, 9); UPDATE t SET n = 2.50",
)
WALK = "WITH RECURSIVE w AS ({}) SELECT * FROM w"
ROUND = (
    "WITH RECURSIVE w AS (SELECT 1 AS n UNION {} SELECT b FROM w JOIN edges ON a = n) CYCLE n SET c USING p"
    " SELECT DISTINCT n, c FROM w"
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A query, what is told of it and why, and the query as the hint asks for it to be written, if it asks for that.

    ``refused``: DIFFERENTIAL refuses it, and says where, at ``near``.  Else it is run again, in part or as a whole.
    """

    construct: str
    query: str
    instead: str | None
    near: str = ""
    refused: bool = False


def refused(construct: str, query: str, near: str, instead: str | None) -> Remedy:
    return Remedy(construct, query, instead, near, refused=True)


MANY = [f"g + {n}" for n in range(40)]
REMEDIES = {
    "LIMIT": refused(
        "LIMIT without ORDER BY", "SELECT id FROM t LIMIT 3", "LIMIT 3", "SELECT id FROM t ORDER BY id LIMIT 3"),
    "OFFSET": refused(
        "OFFSET without ORDER BY", "SELECT id FROM t OFFSET 3", "OFFSET 3", "SELECT id FROM t ORDER BY id OFFSET 3"),
    "LIMIT in a subquery": refused(
        "LIMIT without ORDER BY", "SELECT id FROM u WHERE t_id IN (SELECT id FROM t LIMIT 2)", "LIMIT 2",
        "SELECT id FROM u WHERE t_id IN (SELECT id FROM t ORDER BY id LIMIT 2)"),
    "LIMIT of a WITH query that is read twice, and sorted by what it doesn't show": refused(
        "LIMIT without ORDER BY",
        "WITH w AS (SELECT id FROM t ORDER BY n, id LIMIT 5)"
        " SELECT q.id FROM (SELECT id FROM w LIMIT 2) AS q JOIN w ON w.id = q.id",
        "LIMIT 2",
        "WITH w AS (SELECT id, n FROM t ORDER BY n, id LIMIT 5)"
        " SELECT q.id FROM (SELECT id FROM w ORDER BY n, id LIMIT 2) AS q JOIN w ON w.id = q.id"),
    "a value of a type that isn't known, beside distinct ones": Remedy(
        "aggregate of an expression of a type of somebody's own, beside one with DISTINCT",
        "SELECT t_id, count(DISTINCT v) AS n, max(nullif(m, 'low')) AS m FROM u GROUP BY t_id",
        "SELECT t_id, n, m FROM (SELECT t_id, count(DISTINCT v) AS n FROM u GROUP BY t_id) AS a"
        " JOIN (SELECT t_id, max(nullif(m, 'low')) AS m FROM u GROUP BY t_id) AS b USING (t_id)"),
    "TABLESAMPLE": refused(
        "TABLESAMPLE", "SELECT id FROM t TABLESAMPLE system (50)", "FROM public.t TABLESAMPLE",
        "SELECT id FROM t WHERE hashint4(id) % 2 = 0"),
    "FOR UPDATE": refused("FOR UPDATE", "SELECT id FROM t FOR UPDATE", "SELECT id", "SELECT id FROM t"),
    "a volatile function": refused(
        "volatile function random()", "SELECT id, random() AS r FROM t", "random()", "SELECT id FROM t"),
    "a catalog": refused(
        'system catalog "pg_class"', "SELECT id, relkind FROM t JOIN pg_class ON relname = 't'", "JOIN pg_class",
        "SELECT id FROM t"),
    "a system column": refused(
        'column "ctid"', "SELECT id, ctid AS place FROM t", "", "SELECT id FROM t"),
    "an object's name": refused(
        "value that names a database object", "SELECT id::regclass::text AS c FROM t", "SELECT ((id)::regclass)::text",
        "SELECT id::regclass AS c FROM t"),
    "a sequence": refused('relation "public.numbers"', "SELECT last_value FROM numbers", "", None),
    "a session value": Remedy("session value", "SELECT id, CURRENT_USER AS who FROM t", "SELECT id FROM t"),
    "a whole row": Remedy(
        "whole-row reference",
        "SELECT t.id, to_jsonb(r) AS j FROM t, jsonb_to_record(jsonb_build_object('a', t.id)) AS r(a int)",
        "SELECT t.id, jsonb_build_object('a', r.a) AS j"
        " FROM t, jsonb_to_record(jsonb_build_object('a', t.id)) AS r(a int)"),
    "a whole row counted": Remedy(
        'whole-row reference to "r"', "SELECT t.id, count(r) AS n"
        " FROM t, jsonb_to_record(jsonb_build_object('a', t.id)) AS r(a int) GROUP BY t.id",
        "SELECT t.id, count(r.a) AS n"
        " FROM t, jsonb_to_record(jsonb_build_object('a', t.id)) AS r(a int) GROUP BY t.id"),
    "a field of a row": Remedy(
        "field of a row without a type", "SELECT (r.q).g AS g FROM (SELECT q FROM (SELECT id, g FROM t) AS q) AS r",
        "SELECT r.g FROM (SELECT q.g FROM (SELECT id, g FROM t) AS q) AS r"),
    "a STABLE function": Remedy(
        "STABLE function public.settled()", "SELECT settled(id) AS s FROM t", "SELECT certain(id) AS s FROM t"),
    "a setting": Remedy(
        "current_setting()", "SELECT id, current_setting('TimeZone') AS z FROM t", "SELECT id FROM t"),
    "the time, shown": Remedy("time outside a condition", "SELECT id, now() - at AS a FROM t", "SELECT id, at FROM t"),
    "the time beside a row": Remedy(
        "time or session value", "SELECT id, s.age FROM t, LATERAL (SELECT now() - t.at AS age) AS s",
        "SELECT id, s.at FROM t, LATERAL (SELECT t.at) AS s"),
    "what a group reads like, in a subquery": Remedy(
        "subquery that tells equal values of a group apart",
        "SELECT n, (SELECT count(*) FROM u WHERE length(t.n::text) > u.v) AS c FROM t GROUP BY n",
        "SELECT n, (SELECT count(*) FROM u WHERE length(q.n::text) > u.v) AS c FROM"
        " (SELECT n::numeric(10, 2) AS n FROM t) AS q GROUP BY n"),
    "what a grouping expression is made of": Remedy(
        "subquery about a grouping expression",
        "SELECT id, (SELECT max(v) FROM u WHERE u.t_id = t.g) AS m FROM t GROUP BY id, g + 1",
        "SELECT id, (SELECT max(v) FROM u WHERE u.t_id = q.g) AS m FROM (SELECT id, g, g + 1 AS h FROM t) AS q"
        " GROUP BY id, g, h"),
    "no order": Remedy(
        "grouping by a type without an order", "SELECT g::text::xid AS x, count(*) AS n FROM t GROUP BY 1",
        "SELECT g::text AS x, count(*) AS n FROM t GROUP BY 1"),
    "more keys than an index has columns": Remedy(
        "grouping by 40 columns", f"SELECT count(*) AS n FROM t GROUP BY {', '.join(MANY)}",
        f"SELECT count(*) AS n FROM t GROUP BY ARRAY[{', '.join(MANY)}]"),
    "rows": Remedy(
        "rows without a type", "SELECT q.g, count(*) AS c FROM (SELECT g, ROW(v, g) AS r FROM t, u) AS q GROUP BY g, r",
        "SELECT q.g, count(*) AS c FROM (SELECT g, ROW(v, g)::text AS r FROM t, u) AS q GROUP BY g, r"),
    "a row as a key": Remedy(
        "row in grouping sets", "SELECT count(*) AS n FROM t GROUP BY ROLLUP (ROW(g, n))",
        "SELECT count(*) AS n FROM t GROUP BY ROLLUP ((g, n))"),
    "distinct rows": Remedy(
        "DISTINCT of rows", "SELECT count(*) AS c FROM (SELECT DISTINCT ROW(g, id) AS r FROM t) AS q",
        "SELECT count(*) AS c FROM (SELECT DISTINCT g, id FROM t) AS q"),
    "types of branches": Remedy(
        "set operation over different types inside a derived table",
        "SELECT q.m FROM (SELECT int4range(g, 9) AS m FROM t UNION SELECT '[1,3)') AS q",
        "SELECT q.m FROM (SELECT int4range(g, 9)::text AS m FROM t UNION SELECT '[1,3)'::text) AS q"),
    "a recursive term of sets": Remedy(
        "its recursive term", WALK.format("SELECT 1 AS n UNION ALL SELECT DISTINCT b FROM w JOIN edges ON a = w.n"),
        WALK.format("SELECT 1 AS n UNION SELECT b FROM w JOIN edges ON a = w.n")),
    "a recursion of numerics": Remedy(
        'UNION over column "w"',
        WALK.format("SELECT 1 AS n, w FROM edges UNION SELECT b, edges.w FROM w JOIN edges ON a = n"),
        WALK.format("SELECT 1 AS n, w::int FROM edges UNION SELECT b, edges.w::int FROM w JOIN edges ON a = n")),
    "a recursion of collated text": Remedy(
        "COLLATE in a recursive query",
        WALK.format('SELECT \'1\' COLLATE "C" AS n UNION SELECT b::text COLLATE "C" FROM w JOIN edges ON a::text = n'),
        "WITH RECURSIVE w AS (SELECT '1' AS n UNION SELECT b::text FROM w JOIN edges ON a::text = n)"
        ' SELECT n COLLATE "C" AS n FROM w'),
    "paths of a set": Remedy("UNION with SEARCH or CYCLE", ROUND.format(""), ROUND.format("ALL")),
}  # fmt: skip
# Such a part is run again; what stands in it isn't advised to be written otherwise.
IN_PART = {
    "correlation by a column of unknown type":
        "SELECT (SELECT max(v) FROM u WHERE t_id = q.h AND v > q.h) AS m FROM (SELECT nullif(g, 7) AS h FROM t) AS q",
    "correlation by a type without equality":
        "SELECT id, (SELECT count(*) FROM u WHERE length(t.doc::text) > u.v) AS n FROM t",
    "aggregate of a query around":
        "SELECT g, (SELECT max(u.v) FROM u WHERE u.v = sum(t.id)) AS s FROM t GROUP BY g",
    "correlated subquery over grouping sets":
        "SELECT g, (SELECT max(v) FROM u WHERE t_id = t.g) AS m FROM t GROUP BY ROLLUP (g)",
    "window frame with a subquery":
        "SELECT id, sum(g) OVER (ORDER BY id ROWS (SELECT count(*) FROM u) PRECEDING) AS s FROM t",
    "ordered-set aggregate with a subquery":
        "SELECT percentile_disc((SELECT max(v) / 10.0 FROM u)) WITHIN GROUP (ORDER BY id) AS p FROM t",
    "set-returning ORDER BY": "SELECT id FROM t ORDER BY (generate_series(1, id))",
    "WITH RECURSIVE":
        "SELECT id, (WITH RECURSIVE w AS (SELECT t.id AS n UNION SELECT b FROM w JOIN edges ON a = n)"
        " SELECT count(*) FROM w) AS n FROM t",
    'SEARCH or CYCLE by column "n"':
        "WITH RECURSIVE w AS (SELECT n FROM t UNION ALL SELECT n + 1 FROM w WHERE n < 9) SEARCH DEPTH FIRST BY n SET o"
        " SELECT n FROM w ORDER BY o",
    'ONLY "public.above"': "SELECT id FROM ONLY above",
    "SQL/JSON aggregate as a window function": "SELECT id, json_arrayagg(g) OVER () AS j FROM t",
}  # fmt: skip
LEVELS = (f"w{n} AS (SELECT a.id, b.v FROM w{n - 1} AS a JOIN w{n - 1} AS b ON a.id = b.id)" for n in range(1, 9))
IN_PART["WITH query or view that is named very often"] = (
    f"WITH w0 AS (SELECT id, g AS v FROM t), {', '.join(LEVELS)} SELECT * FROM w8"
)
COLLATIONS = "set operation over different collations"
# What no query has been found to come to: PostgreSQL refuses it, prints it otherwise, or a rule comes before.
# The first of them needs a query of some thousand parts.
NOT_MET = {
    "a query nested this deeply", "ARRAY(subquery) with ORDER BY … USING", "ARRAY(subquery) in this order",
    "correlated subquery with an aggregate of your own", "correlated subquery with x()", "window function x()",
    "expression that tells equal values of a group apart", "subquery in an expression",
    "a system catalog, system column or session value", "NATURAL JOIN", "column beside grouping sets", "ORDER BY",
    "ORDER BY … USING", "comparison of rows", "a recursive query that isn't a UNION",
    "a recursive query without columns", "join", 'x relation "x.x"', "data-modifying WITH", "a query",
    "a result of x columns",
}  # fmt: skip


@pytest.mark.parametrize("remedy", REMEDIES.values(), ids=REMEDIES)
def test_what_a_hint_asks_for_is_maintained(db: Connection, assert_fresh: Oracle, remedy: Remedy) -> None:
    db.execute(TABLES.encode())
    names = ["st"]
    if remedy.refused:
        with pytest.raises(psycopg.errors.FeatureNotSupported) as found:
            pg_trickle.create_stream_table(db, "st", remedy.query, refresh_mode="DIFFERENTIAL")
        assert (found.value.diag.message_primary or "").startswith(remedy.construct)
        assert f": {remedy.near}" in (found.value.diag.message_detail or "")
        assert found.value.diag.message_hint
        names.clear()
    else:
        assert remedy.construct in _told(db, "st", remedy.query)
    if remedy.instead is not None:
        assert _told(db, "other", remedy.instead) == ""
        names.append("other")
    _keep(db, names, assert_fresh)


@pytest.mark.parametrize(("construct", "query"), IN_PART.items(), ids=IN_PART)
def test_what_has_no_rule_is_run_again(db: Connection, assert_fresh: Oracle, construct: str, query: str) -> None:
    db.execute(TABLES.encode())
    assert construct in _told(db, "st", query)
    _keep(db, ["st"], assert_fresh)


@pytest.mark.versions(icu=True)
def test_a_collation_in_every_branch(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(TABLES.encode())
    db.execute("CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    query = "SELECT q.n FROM (SELECT g::text {} AS n FROM t UNION SELECT v::text COLLATE blind FROM u) AS q"
    assert COLLATIONS in _told(db, "st", query.format(""))
    assert _told(db, "other", query.format("COLLATE blind")) == ""
    _keep(db, ["st", "other"], assert_fresh)


def _told(db: Connection, name: str, query: str) -> str:
    """What is said of a query that is taken, and has no rule in part or as a whole."""
    pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    found = db.execute(
        "SELECT plan FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = %s",
        (name,),
    ).fetchone()
    assert found is not None
    (plan,) = found
    if plan["refusal"]:
        return f"{plan['refusal']['construct']}: {plan['refusal']['reason']}"
    is_run = any(line["operator"] == "Query" for line in plan["explain"]["tree"])
    return str(plan["explain"]["notes"][0]) if is_run else ""


def _keep(db: Connection, names: list[str], assert_fresh: Oracle) -> None:
    for write in WRITES if names else ():
        db.execute(write.encode())
        for name in names:
            with db.transaction():
                pg_trickle.refresh_stream_table(db, name)
                check_reason(db, name)
                assert_fresh(db, name)


def test_whatever_the_compiler_has_no_rule_for_is_here() -> None:
    """A construct that somebody adds needs a case."""
    cases = {*(one.construct for one in REMEDIES.values()), *IN_PART, COLLATIONS}
    raised = {text for _, call in CALLS for text in literals(call.args[0])}
    patterns = {text: re.compile(re.escape(text).replace("x", ".*")) for text in raised}
    assert {text for text, found in patterns.items() if not any(map(found.match, cases))} == NOT_MET
