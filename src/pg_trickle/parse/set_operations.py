"""UNION, INTERSECT and EXCEPT, with ALL or without.

UNION ALL is a sum.  The others count, for each row, how often it stands on either side; the counters stay
whatever the operation shows of them (ALGEBRA.md §6)::

    UNION          a row while l + r > 0
    INTERSECT      a row while l > 0 and r > 0         INTERSECT ALL    least(l, r) of them
    EXCEPT         a row while l > 0 and r = 0         EXCEPT ALL       l − r of them, if that is above 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from postgast.pg_query_pb2 import SETOP_INTERSECT, SETOP_NONE, SETOP_UNION, SelectStmt
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.lateral import ITEM, Lateral
from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.parse.aggregate_rules import as_shown
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import Context, Expected, Namer
from pg_trickle.parse.tree import only
from pg_trickle.parse.types import Common, common_type, fact_type
from pg_trickle.scalar import BOOL, INT8, UNKNOWN, Column, Scalar, column, composed

SET_OPERATION = frozenset({"op", "all", "larg", "rarg", "sort_clause", "with_clause", "limit_option"})
Parse = Callable[[SelectStmt, Context, Expected], Query]
_LEFT, _RIGHT = "on_left", "on_right"


def set_operation(statement: SelectStmt, context: Context, expected: Expected, parse: Parse) -> Query:
    """A set operation; ``expected`` are its columns where it is the defining query itself."""
    only(statement, SET_OPERATION, "set operation")
    is_union = statement.op == SETOP_UNION
    arms = list(_arms(statement)) if is_union else [statement.larg, statement.rarg]
    queries = [parse(arm, context, expected if _is_open(arm) else None) for arm in arms]
    plans = _aligned(queries, expected, context.namer)
    by_value = expected is not None or not context.spelt
    if is_union:
        whole = reduce(UnionAll, plans)
        combined: Plan = whole if statement.all else distinct(whole, context.namer, by_value=by_value)
    else:
        left, right = plans
        combined = _counted(statement, left, right, context.namer, by_value=by_value)
    outputs = zip((name for name, _ in queries[0].outputs), combined.columns, strict=True)
    return Query(combined, tuple(outputs))


def distinct(plan: Plan, namer: Namer, *, by_value: bool) -> Plan:
    """DISTINCT is grouping by everything: a row for each group whose count is above zero.

    The columns are in their places.  Unless equal values will do, ``by_value``, each is as it reads in a row that is
    there.
    """
    items = tuple(Item(replace(one, type=one.type.grouped), column(one)) for one in plan.columns)
    is_known = all(item.column == one for item, one in zip(items, plan.columns, strict=True))
    known = plan if is_known else Project(plan, items)
    calls = {} if by_value else _spelt(known.columns, namer)
    groups = Aggregate(known, names(known), tuple(calls.values()))
    return _shown(groups, groups.columns[: len(known.columns)], calls) if calls else groups


def _spelt(keys: Sequence[Column], namer: Namer) -> dict[str, Call]:
    """For each key of which equal values may differ, the aggregate that reads one of them again."""
    told = {one.name: as_shown(one, namer) for one in keys}
    return {name: call for name, call in told.items() if call is not None}


def _shown(plan: Plan, keys: Sequence[Column], calls: Mapping[str, Call]) -> Project:
    """The keys, each as it is read again if it is."""
    columns = [calls[one.name].column if one.name in calls else one for one in keys]
    return Project(plan, tuple(Item(one, column(one)) for one in columns))


def _arms(statement: SelectStmt) -> Iterator[SelectStmt]:
    """What a UNION adds up: a UNION inside is part of it, unless it drops duplicates that this one keeps."""
    for side in (statement.larg, statement.rarg):
        is_alike = side.op == SETOP_UNION and (side.all or not statement.all)
        closed = any(side.HasField(name) for name in ("with_clause", "limit_count", "limit_offset"))
        if is_alike and not closed:
            yield from _arms(side)
        else:
            yield side


def _is_open(arm: SelectStmt) -> bool:
    """Whether the arm may be computed in the type of the whole: not if it compares rows in one of its own."""
    return bool(arm.op == SETOP_NONE or (arm.op == SETOP_UNION and arm.all))


def _aligned(queries: list[Query], expected: Expected, namer: Namer) -> list[Plan]:
    """The branches with columns of one type each.

    PostgreSQL coerces them to a common type that the query's text doesn't show; at the top it is the
    output's, deeper it follows from PostgreSQL's rules where all types are known.
    """
    types: list[Common] = []
    for place, (label, _) in enumerate(queries[0].outputs):
        found = [query.plan.columns[place].type for query in queries]
        wanted = None if expected is None else (fact_type(expected[place]), expected[place].type)
        types.append(common_type(found, wanted, label))
    return [_cast(query.plan, types, namer) for query in queries]


def _cast(plan: Plan, types: list[Common], namer: Namer) -> Plan:
    if all(of == one.type for one, (of, _) in zip(plan.columns, types, strict=True)):
        return plan
    items = []
    for one, (of, name) in zip(plan.columns, types, strict=True):
        value = column(one)
        if name is not None and of != one.type:
            # As ``format_type`` prints it: quoted already.
            target = Scalar(name, frozenset(), of).sql()
            text = sql.SQL("CAST({value} AS {type})").format(value=value.sql(), type=target)
            value = composed(text, value.columns, of, not_null=one.not_null)
        items.append(Item(Column(namer.fresh("cast"), of, one.not_null), value))
    return Project(plan, tuple(items))


def _counted(statement: SelectStmt, left: Plan, right: Plan, namer: Namer, *, by_value: bool) -> Plan:
    """INTERSECT or EXCEPT over the counts of each row on either side."""
    both = UnionAll(_told(left, namer, is_left=True), _told(right, namer, is_left=False))
    keys, marks = both.columns[:-2], both.columns[-2:]
    counts = [_count(mark, namer.fresh(name)) for mark, name in zip(marks, ("left_rows", "right_rows"), strict=True)]
    calls = {} if by_value else _spelt(keys, namer)
    counted = Aggregate(both, tuple(one.name for one in keys), (*counts, *calls.values()))
    pair = [sql.Identifier(one.column.name) for one in counts]
    is_intersection = statement.op == SETOP_INTERSECT
    if statement.all:
        times = sql.SQL("least({}, {})") if is_intersection else sql.SQL("{} - {}")
        shown: Plan = _repeated(counted, times.format(*pair), counts, namer)
    else:
        test = sql.SQL("{} > 0 AND {} > 0") if is_intersection else sql.SQL("{} > 0 AND {} = 0")
        shown = Filter(counted, (composed(test.format(*pair), _names(counts), BOOL, not_null=True),))
    return _shown(shown, counted.columns[: len(keys)], calls)


def is_counted(aggregate: Aggregate) -> bool:
    """Whether an aggregation counts the rows on either side, for INTERSECT or EXCEPT."""
    return any((call.condition or "").startswith(_LEFT) for call in aggregate.calls)


def _told(side: Plan, namer: Namer, *, is_left: bool) -> Plan:
    """A side with two columns more: whether a row is of the left one, and whether of the right."""
    yes, no = (composed(text, frozenset(), BOOL, not_null=True) for text in (sql.SQL("TRUE"), sql.SQL("FALSE")))
    marks = zip((_LEFT, _RIGHT), (yes, no) if is_left else (no, yes), strict=True)
    kept = [Item(one, column(one)) for one in side.columns]
    return Project(side, (*kept, *(Item(Column(namer.fresh(name), BOOL, not_null=True), is_) for name, is_ in marks)))


def _count(mark: Column, name: str) -> Call:
    text = sql.SQL("pg_catalog.count(*) FILTER (WHERE {mark})").format(mark=sql.Identifier(mark.name))
    value = composed(text, frozenset((mark.name,)), INT8)
    return Call(Column(name, INT8, not_null=True), Rule.COUNT, value, condition=mark.name)


def _repeated(plan: Plan, times: sql.Composable, counts: list[Call], namer: Namer) -> Lateral:
    copy = Column(namer.fresh("copy"), INT8)
    item = sql.SQL("LATERAL generate_series(1, {times}) AS {item}({copy})").format(
        times=times, item=sql.Identifier(ITEM), copy=sql.Identifier(copy.name)
    )
    return Lateral(plan, composed(item, _names(counts), UNKNOWN), (copy,))


def _names(counts: list[Call]) -> frozenset[str]:
    return frozenset(one.column.name for one in counts)
