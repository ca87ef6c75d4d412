"""Random circles over random edges, against WITH RECURSIVE of the same rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.circles.conftest import allow, rows

Connection = psycopg.Connection[tuple[Any, ...]]
pytestmark = [pytest.mark.property, pytest.mark.slow]

FEW = max(5, settings().max_examples // 8)
MEMBERS = ("m1", "m2", "m3")
# From a row r of one member to rows of another; each can be said of a table and of WITH RECURSIVE alike.
RULES = (
    "SELECT r.src, e.dst FROM {r} AS r JOIN edges AS e ON e.src = r.dst AND e.colour = {colour}",
    "SELECT e.src, r.dst FROM edges AS e JOIN {r} AS r ON e.dst = r.src AND e.colour = {colour}",
    "SELECT r.dst AS src, r.src AS dst FROM {r} AS r",
    "SELECT r.src, r.dst FROM {r} AS r WHERE r.src <> r.dst",
    "SELECT r.src, r.src AS dst FROM {r} AS r WHERE r.dst IN (SELECT e.dst FROM edges AS e WHERE e.colour = {colour})",
    "SELECT e.src, e.dst FROM edges AS e JOIN {r} AS r ON r.src = e.src OR r.dst IS NULL",
    "SELECT r.src, s.dst FROM {r} AS r JOIN (SELECT DISTINCT src, dst FROM edges WHERE colour = {colour}) AS s"
    " ON s.src = r.dst AND NOT EXISTS (SELECT FROM blocked AS x WHERE x.node = s.dst)",
)
colours = st.integers(0, 1)
nodes = st.none() | st.integers(0, 4)


@dataclass(frozen=True)
class Rule:
    """A row of ``body`` leads to rows of ``head``; without a body, edges of a colour are rows of it."""

    head: str
    body: str | None
    number: int
    colour: int

    def arm(self, table: str) -> str:
        if self.body is None:
            return f"SELECT e.src, e.dst FROM edges AS e WHERE e.colour = {self.colour}"
        return RULES[self.number].format(r=table, colour=self.colour)


def rules_of(members: tuple[str, ...]) -> st.SearchStrategy[list[Rule]]:
    numbers = st.integers(0, len(RULES) - 1)
    some = st.lists(st.builds(Rule, st.sampled_from(members), st.sampled_from(members), numbers, colours), max_size=4)
    # All in a ring, so that there is a circle; the first has rows of its own.
    ring = st.tuples(*(st.builds(Rule, st.just(a), st.just(b), numbers, colours) for a, b in _ring(members)))
    bases = st.tuples(st.builds(Rule, st.just(members[0]), st.none(), st.just(0), colours))
    more = st.lists(st.builds(Rule, st.sampled_from(members), st.none(), st.just(0), colours), max_size=1)
    return st.builds(lambda *parts: [rule for part in parts for rule in part], bases, more, ring, some)


def _ring(members: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(one, members[place - 1]) for place, one in enumerate(members)]


programs = st.integers(1, 3).flatmap(lambda n: rules_of(MEMBERS[:n]))
edge = st.tuples(nodes, nodes, colours)
inserted = st.lists(edge, min_size=1, max_size=4).map(lambda new: ("insert", new))
changes = st.lists(
    st.one_of(
        inserted,
        inserted,
        st.tuples(st.just("delete"), nodes),
        st.tuples(st.just("update"), st.tuples(nodes, nodes)),
        st.tuples(st.just("block"), st.integers(0, 4)),
        st.tuples(st.just("unblock"), st.integers(0, 4)),
        st.just(("truncate", None)),
    ),
    min_size=1,
    max_size=3,
)


def carry_out(conn: Connection, kind: str, what: Any) -> None:
    match kind:
        case "insert":
            with conn.cursor() as cursor:
                cursor.executemany("INSERT INTO edges VALUES (%s, %s, %s)", what)
        case "delete":
            conn.execute("DELETE FROM edges WHERE src IS NOT DISTINCT FROM %s", (what,))
        case "update":
            conn.execute("UPDATE edges SET dst = %s WHERE src IS NOT DISTINCT FROM %s", what)
        case "block":
            conn.execute("INSERT INTO blocked VALUES (%s)", (what,))
        case "unblock":
            conn.execute("DELETE FROM blocked WHERE node = %s", (what,))
        case _:
            conn.execute("TRUNCATE edges")


def query_of(member: str, rules: list[Rule]) -> str:
    arms = [rule.arm(rule.body or "") for rule in rules if rule.head == member]
    return " UNION ".join(arms) if len(arms) > 1 else arms[0].replace("SELECT", "SELECT DISTINCT", 1)


def least(conn: Connection, rules: list[Rule]) -> dict[str, list[tuple[Any, ...]]]:
    """What WITH RECURSIVE gives of all members together: rows with the member's name in front."""
    bases = [f"SELECT '{rule.head}', b.* FROM ({rule.arm('')}) AS b" for rule in rules if rule.body is None]
    steps = [
        f"SELECT '{rule.head}', x.* FROM ({rule.arm('(SELECT q.src, q.dst)')}) AS x WHERE q.member = '{rule.body}'"
        for rule in rules
        if rule.body is not None
    ]
    text = (
        f"WITH RECURSIVE q(member, src, dst) AS ({' UNION '.join(bases)}"
        f" UNION SELECT n.* FROM q CROSS JOIN LATERAL ({' UNION ALL '.join(steps)}) AS n(member, src, dst))"
        " SELECT member, src, dst FROM q ORDER BY 1, 2, 3"
    )
    found: dict[str, list[tuple[Any, ...]]] = {rule.head: [] for rule in rules}
    for member, src, dst in rows(conn, text):
        found[member].append((src, dst))
    return found


@settings(max_examples=FEW, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    rules=programs, start=st.lists(edge, max_size=5), steps=st.lists(changes, min_size=1, max_size=4), data=st.data()
)
def test_random_circles_hold_their_least_fixpoint(
    db: Connection, rules: list[Rule], start: list[Any], steps: list[Any], data: Any
) -> None:
    allow(db)
    db.execute("DROP TABLE IF EXISTS m1, m2, m3, edges, blocked CASCADE")
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    db.execute("CREATE TABLE edges (src int, dst int, colour int); CREATE TABLE blocked (node int)")
    if start:
        carry_out(db, "insert", start)
    members = sorted({rule.head for rule in rules})
    for member in members:
        pg_trickle.create_stream_table(db, member, "SELECT DISTINCT src, dst FROM edges WHERE colour = 5")
    for member in members:
        pg_trickle.alter_stream_table(db, member, query=query_of(member, rules))
    for step in [[], *steps]:
        for kind, what in step:
            carry_out(db, kind, what)
        pg_trickle.refresh_stream_table(db, data.draw(st.sampled_from(members)))
        wanted = least(db, rules)
        for member in members:
            assert rows(db, f"SELECT src, dst FROM {member} ORDER BY 1, 2") == wanted[member], member
            assert_fresh(db, member)
