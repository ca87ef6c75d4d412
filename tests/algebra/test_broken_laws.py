"""The laws broken, once each: a test that can't see that proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from psycopg import sql

from pg_trickle.algebra import kinds
from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.states import old
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.render import first, joins, netting, parts, select, turned
from pg_trickle.rewrite import matched_early, prune, pushdown, restrict, strengthen
from pg_trickle.rewrite.passes import optimised
from pg_trickle.rewrite.strengthen import strengthened
from pg_trickle.scalar import Column
from tests.algebra.plans import ASKED, ASKED_BY_MATCH, PLANS, R, equal, predicate, projected
from tests.algebra.sources import Contents, contents, fill, net_change, prepare, scan, zset

pytestmark = pytest.mark.property
ANY = (predicate(sql.SQL("{} IS NOT NULL"), "place"),)
LOOKING = settings(
    max_examples=500, phases=[Phase.generate], derandomize=True, database=None, deadline=None, suppress_health_check=()
)


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def is_noticed(conn, plan: Plan, how: settings = LOOKING) -> bool:
    """Whether some contents show that old + Δ isn't new."""
    return _exists(conn, how, lambda _: zset(conn, UnionAll(UnionAll(old(plan), plan.delta()), Negate(plan))) != {})


def are_noticed(conn, how: settings = LOOKING) -> bool:
    """Whether some contents show that the changes read aren't those that happened."""
    return _exists(conn, how, lambda r: zset(conn, scan("r", "r", "abxj").delta()) != net_change(r))


def _exists(
    conn, how: settings, differs: Callable[[Contents], bool], filled: st.SearchStrategy[Contents] = contents
) -> bool:
    def found(tables: tuple[Contents, Contents]) -> bool:
        with conn.transaction(force_rollback=True):
            fill(conn, dict(zip("rs", tables, strict=True)))
            return differs(tables[0])

    try:
        find(st.tuples(filled, filled), found, settings=how)
    except NoSuchExample:
        return False
    return True


def test_the_laws_hold_unbroken(conn):
    few = settings(LOOKING, max_examples=50)
    assert not is_noticed(conn, PLANS["join"], few)
    assert not are_noticed(conn, few)


def test_a_join_without_the_term_of_both_sides_is_noticed(conn, monkeypatch):
    def delta(self: Join) -> Plan:
        return UnionAll(replace(self, left=self.left.delta()), replace(self, right=self.right.delta()))

    monkeypatch.setattr(Join, "delta", delta)
    assert is_noticed(conn, PLANS["join"])


def test_a_join_without_the_change_of_its_right_side_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(Join, "delta", lambda self: replace(self, left=self.left.delta()))
    assert is_noticed(conn, PLANS["join"])


def test_a_join_that_reads_old_where_the_rule_says_new_is_noticed(conn, monkeypatch):
    def delta(self: Join) -> Plan:
        left, right = self.left.delta(), self.right.delta()
        both = Negate(replace(self, left=left, right=right))
        return UnionAll(UnionAll(replace(self, left=left), replace(self, left=old(self.left), right=right)), both)

    monkeypatch.setattr(Join, "delta", delta)
    assert is_noticed(conn, PLANS["self join"])


def test_a_join_that_drops_a_weight_is_noticed(conn, monkeypatch):
    whole = joins.joined

    def one_sided(join, left, right):
        return whole(join, left, right) if not kinds.is_delta(join.right) else _weight_of_left(join, left, right)

    monkeypatch.setattr(select, "joined", one_sided)
    assert is_noticed(conn, PLANS["join"])


def _weight_of_left(join, left, right):
    return sql.SQL("SELECT {columns}, l.{w} AS {w} FROM ({left}) AS l JOIN ({right}) AS r ON {on}").format(
        columns=parts.names(one.name for one in join.columns),
        w=parts.WEIGHT,
        left=left,
        right=right,
        on=parts.conjunction(join.on),
    )


@pytest.mark.parametrize("plan", ["semi-join", "anti-join", "left join", "full join"])
def test_matches_that_do_not_turn_are_noticed(conn, monkeypatch, plan):
    monkeypatch.setattr(Mark, "change", lambda self, left, right: replace(self, left=left))
    assert is_noticed(conn, PLANS[plan])


@pytest.mark.parametrize("plan", ["mark", "left join"])
def test_turning_the_match_of_rows_that_came_is_noticed(conn, monkeypatch, plan):
    def change(self: Mark, left: Plan, right: Plan) -> Plan:
        return UnionAll(replace(self, left=left), Flipped(self.left, self.right, right, self.on, self.column))

    monkeypatch.setattr(Mark, "change", change)
    assert is_noticed(conn, PLANS[plan])


@pytest.mark.parametrize("few", [0, 10], ids=["all together", "each by itself"])
@pytest.mark.parametrize("plan", ["mark", "mark with any condition", "mark by an equality of expressions"])
def test_a_match_that_was_there_all_along_is_noticed_when_taken_for_new(conn, monkeypatch, plan, few):
    whole = turned.turned
    monkeypatch.setattr(turned, "FEW", sql.Literal(few))

    def careless(flipped, rows, right, *rest, **known):
        return whole(flipped, rows, sql.SQL("{right} LIMIT 0").format(right=right), *rest, **known)

    monkeypatch.setattr(select, "turned", careless)
    assert is_noticed(conn, PLANS[plan])


def test_keys_that_come_several_times_are_noticed_when_each_is_taken_for_the_only_one(conn, monkeypatch):
    monkeypatch.setattr(select, "is_net", lambda change: True)
    assert is_noticed(conn, PLANS["mark by one column of several"])


def test_numbers_that_are_equal_and_read_differently_are_noticed_when_told_apart(conn, monkeypatch):
    whole = turned.turned

    def careless(flipped, *rest, **known):
        right = projected(flipped.right, ("s_x", "s_x"), by_value=True)
        return whole(replace(flipped, right=right), *rest, **known)

    monkeypatch.setattr(select, "turned", careless)
    assert is_noticed(conn, PLANS["mark by numbers, of which nothing else is read"])


@pytest.mark.parametrize("plan", [ASKED, ASKED_BY_MATCH], ids=["by a key", "by a match"])
def test_rows_left_out_of_groups_that_are_asked_for_are_noticed(conn, monkeypatch, plan):
    monkeypatch.setattr(restrict, "equal", lambda mine, theirs: equal("t_b", theirs.name))
    fewer = optimised(plan)
    assert _exists(conn, LOOKING, lambda _: zset(conn, fewer) != zset(conn, plan))


@pytest.mark.parametrize("ends", [("0", "0"), ("-Infinity", "0"), ("0", "NaN")])
def test_matches_beyond_all_that_came_or_went_are_noticed(conn, monkeypatch, ends):
    monkeypatch.setitem(turned.ENDS, "numeric", ends)
    assert is_noticed(conn, PLANS["mark by a comparison"])


def test_a_left_join_that_pads_nothing_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(LeftJoin, "delta", lambda self: Join(self.left, self.right, self.on).delta())
    assert is_noticed(conn, PLANS["left join on true"])


def test_a_full_join_that_pads_one_side_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(FullJoin, "delta", lambda self: LeftJoin(self.left, self.right, self.on).delta())
    assert is_noticed(conn, PLANS["full join"])


def test_a_condition_on_the_left_side_taken_for_a_filter_is_noticed(conn, monkeypatch):
    plan = PLANS["left join with conditions on either side"]
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": _pairs((1, 0), (1, 1)), "s": _pairs((1, 1), (1, 3))})
        assert zset(conn, pushdown.pushed_down(plan)) == zset(conn, plan)
        monkeypatch.setattr(pushdown, "_matched", lambda join: pushdown.pushed_down(_filtered(join)))
        assert zset(conn, pushdown.pushed_down(plan)) != zset(conn, plan)


@pytest.mark.parametrize("test", [sql.SQL("{} IS NULL"), sql.SQL("coalesce({}, 2) <= 2")])
def test_a_condition_taken_for_strict_that_is_not_is_noticed(conn, test):
    plan = Filter(LeftJoin(R, scan("s", "s"), (equal("r_a", "s_a"),)), (predicate(test, "s_b", strict=True),))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": _pairs((1, 0)), "s": _pairs((2, 1))})
        assert zset(conn, strengthened(plan)) != zset(conn, plan)


def test_a_join_taken_for_a_semi_join_though_more_rows_decide_is_noticed(conn, monkeypatch):
    join = Join(R, scan("s", "s"), (predicate(sql.SQL("{} < {}"), "r_a", "s_a"),))
    plan = projected(join, ("one", "r_b"))
    wanted = frozenset(("one",))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": _pairs((1, 1)), "s": _pairs((2, 1), (3, 1))})
        assert zset(conn, prune.pruned(plan, wanted)) == zset(conn, plan)
        monkeypatch.setattr(prune, "keys", lambda _: (frozenset(),))
        assert zset(conn, prune.pruned(plan, wanted)) != zset(conn, plan)


@pytest.mark.parametrize("side", ["r_b", "s_b"])
def test_a_full_join_that_keeps_the_wrong_side_is_noticed(conn, monkeypatch, side):
    join = FullJoin(R, scan("s", "s"), (equal("r_a", "s_a"),))
    plan = Filter(join, (predicate(sql.SQL("{} > 0"), side, strict=True),))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": _pairs((1, 1)), "s": _pairs((2, 1))})
        assert zset(conn, strengthened(plan)) == zset(conn, plan)
        monkeypatch.setattr(strengthen, "_full", lambda found, _: Join(found.left, found.right, found.on))
        assert zset(conn, strengthened(plan)) != zset(conn, plan)


def _filtered(join: LeftJoin) -> Plan:
    return Filter(Join(join.left, join.right, join.on[:1]), join.on[1:])


def test_a_delta_that_is_not_filtered_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(Filter, "delta", lambda self: self.input.delta())
    assert is_noticed(conn, PLANS["filter"])


def test_rows_made_of_the_new_state_instead_of_the_change_are_noticed(conn, monkeypatch):
    monkeypatch.setattr(Lateral, "delta", lambda self: self)
    assert is_noticed(conn, PLANS["lateral"])


def test_a_set_dropped_because_nobody_reads_it_is_noticed(conn):
    plan = projected(PLANS["lateral"], ("two", "r_b"))
    without = projected(R, ("two", "r_b"))
    assert _exists(conn, LOOKING, lambda _: zset(conn, without) != zset(conn, plan))


@pytest.mark.parametrize(
    "delta",
    [
        lambda self: Filter(self.input.delta(), (self.condition.before,)),
        lambda self: Elapsed(self.input, self.condition),
        lambda self: UnionAll(Filter(self.input.delta(), (self.condition.now,)), Elapsed(self.input, self.condition)),
    ],
    ids=["time stands still", "rows stand still", "changes are judged by the time of now"],
)
def test_half_of_what_time_moves_is_noticed(conn, monkeypatch, delta):
    monkeypatch.setattr(TimedFilter, "delta", delta)
    assert is_noticed(conn, PLANS["filter by time"])


def test_half_a_sum_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(UnionAll, "delta", lambda self: self.left.delta())
    assert is_noticed(conn, PLANS["sum of a table with itself"])


def test_a_sign_not_turned_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(Aggregate, "delta", _groups(lambda self: self.input, sign=lambda plan: plan))
    assert is_noticed(conn, PLANS["aggregate"])


def test_groups_that_keep_their_old_row_are_noticed(conn, monkeypatch):
    monkeypatch.setattr(Aggregate, "delta", lambda self: replace(self, input=_touched(self, self.input)))
    assert is_noticed(conn, PLANS["distinct"])


def test_old_groups_computed_from_the_new_state_are_noticed(conn, monkeypatch):
    monkeypatch.setattr(Aggregate, "delta", _groups(lambda self: self.input, sign=Negate))
    assert is_noticed(conn, PLANS["aggregate of everything"])


def _touched(aggregate: Aggregate, state: Plan) -> Plan:
    return Touched(state, aggregate.input.delta(), aggregate.keys)


def _groups(before: Callable[[Aggregate], Plan], sign: Callable[[Plan], Plan]) -> Callable[[Aggregate], Plan]:
    def delta(self: Aggregate) -> Plan:
        now = replace(self, input=_touched(self, self.input))
        return UnionAll(now, sign(replace(self, input=_touched(self, before(self)))))

    return delta


@pytest.mark.parametrize(
    ("operator", "plan"), [(Window, "window"), (Window, "window of everything"), (DistinctOn, "first of each key")]
)
def test_partitions_of_the_change_alone_are_noticed(conn, monkeypatch, operator, plan):
    """As if an operator that looks at a row's neighbours were linear."""
    monkeypatch.setattr(operator, "delta", lambda self: replace(self, input=Consolidate(self.input.delta())))
    assert is_noticed(conn, PLANS[plan])


@pytest.mark.parametrize(("operator", "plan"), [(Window, "window"), (DistinctOn, "first of each key")])
def test_partitions_that_keep_their_old_rows_are_noticed(conn, monkeypatch, operator, plan):
    def delta(self: Window | DistinctOn) -> Plan:
        return replace(self, input=Touched(self.input, self.input.delta(), self.keys))

    monkeypatch.setattr(operator, "delta", delta)
    assert is_noticed(conn, PLANS[plan])


def test_rows_that_a_window_did_not_keep_and_are_taken_away_are_noticed(conn, monkeypatch):
    def delta(self: Window) -> Plan:
        change = self.input.delta()
        now = replace(self, input=Touched(self.input, change, self.keys))
        return UnionAll(now, Negate(replace(self, input=Touched(old(self.input), change, self.keys), kept=ANY)))

    monkeypatch.setattr(Window, "delta", delta)
    assert is_noticed(conn, PLANS["window of which some rows are kept"])


def test_a_filter_that_gets_lost_in_a_window_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(first, "conjunction", lambda predicates: sql.SQL("TRUE"))
    plan = PLANS["filter over a window"]
    assert _exists(conn, LOOKING, lambda _: zset(conn, optimised(plan)) != zset(conn, plan))


def test_first_rows_that_only_compete_with_what_came_are_noticed(conn, monkeypatch):
    monkeypatch.setattr(
        TopK, "delta", lambda self: UnionAll(replace(self, input=self.input.delta()), Negate(old(self)))
    )
    assert is_noticed(conn, PLANS["first rows"])


@pytest.mark.parametrize("plan", ["aggregate", "aggregate by two nullable keys", "distinct sum"])
def test_a_bare_equals_between_nullable_keys_is_noticed(conn, monkeypatch, plan):
    def bare(of: Column, left: sql.Composable, right: sql.Composable) -> sql.Composable:
        return sql.SQL("{left} = {right}").format(left=left, right=right)

    monkeypatch.setattr(parts, "_match", bare)
    assert is_noticed(conn, PLANS[plan])


def test_netting_by_equality_instead_of_identity_is_noticed(conn, monkeypatch):
    monkeypatch.setattr(netting, "identity_keys", lambda of, value: (value if of.type.hashable else _as_text(value),))
    assert are_noticed(conn)


def _as_text(value: sql.Composable) -> sql.Composable:
    return sql.SQL("{value}::text").format(value=value)


RUNNING = "xid = ANY (ARRAY(SELECT pg_snapshot_xip($1) UNION ALL SELECT $2))"
INTERVALS = {
    "the snapshot alone": sql.SQL("NOT pg_visible_in_snapshot(xid, $1)"),
    "the lower bound alone": sql.SQL("xid >= pg_snapshot_xmin($1)"),
    "the upper bound alone": sql.SQL("xid >= pg_snapshot_xmax($1)"),
    "who was running alone": sql.SQL(RUNNING),
    "the sequence alone": sql.SQL("seq > ($3 ->> '11')::bigint"),
    "the own transaction as a whole": sql.SQL(f"(xid >= pg_snapshot_xmax($1) OR {RUNNING})"),
}


@pytest.mark.parametrize("condition", INTERVALS.values(), ids=INTERVALS)
def test_an_interval_that_rests_on_half_the_frontier_is_noticed(conn, monkeypatch, condition):
    typed = sql.SQL("num_nulls($1::pg_snapshot, $2::xid8, $3::jsonb) = 0")

    def changes(table, fields, common):
        held = sql.SQL("SELECT a AS r_a, b AS r_b, x AS r_x, j AS r_j, w AS {w} FROM {buffer} WHERE {new} AND {typed}")
        rows = held.format(
            w=parts.WEIGHT, buffer=sql.Identifier("pgtrickle_changes", table.buffer), new=condition, typed=typed
        )
        return netting.consolidated(tuple(field.column for field in fields), rows)

    monkeypatch.setattr(select, "_changes", changes)
    assert are_noticed(conn)


def test_a_mark_lost_on_its_way_down_is_noticed(conn, monkeypatch):
    plan = PLANS["semi-join of a join"]
    tables = {"r": _pairs((1, 1), (2, 1), (1, 0)), "s": _pairs((1, 0), (2, 2))}
    with conn.transaction(force_rollback=True):
        fill(conn, tables)
        assert matched_early.matched_early(plan) != plan
        assert zset(conn, matched_early.matched_early(plan)) == zset(conn, plan)
        monkeypatch.setattr(matched_early, "_sunk", lambda mark, predicates: mark.left)
        assert zset(conn, matched_early.matched_early(plan)) != zset(conn, plan)


def test_a_predicate_lost_on_its_way_down_is_noticed(conn, monkeypatch):
    plan = PLANS["filter over a join"]
    tables = {"r": _pairs((1, 1), (1, 0)), "s": _pairs((1, 1), (1, -1))}
    with conn.transaction(force_rollback=True):
        fill(conn, tables)
        assert zset(conn, pushdown.pushed_down(plan)) == zset(conn, plan)
        monkeypatch.setattr(pushdown, "_sunk", lambda below, predicates: below)
        assert zset(conn, pushdown.pushed_down(plan)) != zset(conn, plan)


def _pairs(*rows: tuple[int, int]) -> Contents:
    return Contents([(a, b, None, "1") for a, b in rows], [], [], [], [], [0])


@pytest.mark.parametrize(
    "delta",
    [
        lambda self: self.at_frontier(self.input.delta()),
        lambda self: Elapsed(self.input, self.value, self.column),
        lambda self: UnionAll(replace(self, input=self.input.delta()), Elapsed(self.input, self.value, self.column)),
    ],
    ids=["time stands still", "rows stand still", "changes have the value of now"],
)
@pytest.mark.parametrize("title", ["column by time", "column by time that is a number"])
def test_half_of_what_time_moves_in_a_column_is_noticed(conn, monkeypatch, delta, title):
    monkeypatch.setattr(TimedColumn, "delta", delta)
    assert is_noticed(conn, PLANS[title])
