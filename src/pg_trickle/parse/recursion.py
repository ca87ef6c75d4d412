"""WITH RECURSIVE as algebra, where the term that repeats is a linear function of the rows it refers to."""

from __future__ import annotations

from dataclasses import replace

from postgast.pg_query_pb2 import SETOP_UNION

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.recursion import Found, Recursion, is_linear
from pg_trickle.errors import Overgrown, Undetermined, UnsupportedQuery
from pg_trickle.parse import fallback
from pg_trickle.parse.paths import paths
from pg_trickle.parse.query import ParseQuery, Query
from pg_trickle.parse.scope import CommonTable, Context
from pg_trickle.parse.tree import kind, location, nodes, only
from pg_trickle.parse.types import named
from pg_trickle.scalar import Column, Identity, column

_UNION = frozenset({"op", "all", "larg", "rarg", "limit_option"})
_BY_CARE = (Identity.NONE, Identity.TEXT, Identity.SCALE, Identity.EQUAL)


def recursion(name: str, common: CommonTable, context: Context, parse: ParseQuery) -> Query:
    """A recursive WITH query: maintained by the law of ``Recursion``, or recomputed where that doesn't hold."""
    assert common.expression is not None
    place = location(common.statement)
    if common.outer is not None:
        raise UnsupportedQuery(
            "WITH RECURSIVE", "inside a subquery it may refer to the query around it.", position=place
        )
    carried = paths(common, context)
    try:
        if carried is not None:
            return carried.shown(_by_rule(name, carried.spelled_out(name), context, parse), context)
        return _by_rule(name, common, context, parse)
    except (Undetermined, Overgrown):
        raise
    except UnsupportedQuery as refusal:
        why = UnsupportedQuery(
            "WITH RECURSIVE",
            f"no rule knows {refusal.construct} ({refusal.reason.removesuffix('.')}).",
            hint=refusal.way_out,
            position=refusal.position or place,
        )
        if carried is not None:
            # Its rows without a type can't be stored by themselves; the query around shows something else.
            raise why from refusal
        return fallback.recursion(name, common, context, parse, why)


def _by_rule(name: str, common: CommonTable, context: Context, parse: ParseQuery) -> Query:
    statement = common.statement
    only(statement, _UNION, "recursive query")
    if statement.op != SETOP_UNION:
        raise UnsupportedQuery("a recursive query that isn't a UNION", "no rule knows what follows from a row.")
    if any(kind(node) == "collate_clause" for node in nodes(statement)):
        raise UnsupportedQuery(
            "COLLATE in a recursive query",
            "the rows that are stored would clash with those that come.",
            hint="Write COLLATE in the query that reads the recursive one.",
        )
    base = parse(statement.larg, replace(context, ctes=common.ctes, outer=None))
    beginning = base.plan if statement.all else _repeated(base.plan)
    labels = tuple(label for label, _ in base.outputs)
    if not labels:
        raise UnsupportedQuery("a recursive query without columns", "nothing tells its rows apart.")
    labels = common.aliases + labels[len(common.aliases) :]
    itself = context.namer.fresh(name)
    first = _outputs(base, beginning)
    columns = tuple(replace(one, type=one.type.of_any_scale) for one in first)
    step, known = _step(itself, labels, columns, (name, common), context, parse)
    while known != columns:
        columns = known
        step, known = _step(itself, labels, columns, (name, common), context, parse)
    if not is_linear(step, itself):
        raise UnsupportedQuery(
            "its recursive term",
            "a row of it may follow from several rows together.",
            hint="Leave joins, filters and expressions in the recursive term, and the rest to the query that reads it.",
        )
    if not statement.all:
        _check_distinct(labels, columns)
    made = tuple(replace(one, name=context.namer.fresh(label)) for label, one in zip(labels, columns, strict=True))
    items = tuple(Item(one, column(source)) for one, source in zip(made, first, strict=True))
    plan = Recursion(Project(beginning, items), step, itself, is_set=not statement.all)
    return Query(plan, tuple(zip(labels, made, strict=True)))


def _step(
    itself: str,
    labels: tuple[str, ...],
    columns: tuple[Column, ...],
    common: tuple[str, CommonTable],
    context: Context,
    parse: ParseQuery,
) -> tuple[Plan, tuple[Column, ...]]:
    """The recursive term over rows of such columns, and what is known of the columns if it makes rows of them."""
    name, query = common
    given = tuple(replace(one, name=context.namer.fresh(label)) for label, one in zip(labels, columns, strict=True))
    reference = replace(query, aliases=labels, found=Found(itself, given))
    made = parse(query.statement.rarg, replace(context, ctes={**query.ctes, name: reference}, outer=None))
    plan = made.plan if query.statement.all else _repeated(made.plan)
    shown = _outputs(made, plan)
    known = tuple(map(_either, columns, shown))
    return Project(plan, tuple(Item(one, column(one)) for one in shown)), known


def _repeated(plan: Plan) -> Plan:
    """The plan without a DISTINCT at its top: a UNION takes each row but once anyhow."""
    is_distinct = isinstance(plan, Aggregate) and not plan.calls and plan.keys == names(plan.input)
    return plan.input if is_distinct and isinstance(plan, Aggregate) else plan


def _outputs(query: Query, plan: Plan) -> tuple[Column, ...]:
    """A query's outputs as columns of a plan that has the same in the same places."""
    places = {name: place for place, name in enumerate(names(query.plan))}
    return tuple(plan.columns[places[one.name]] for _, one in query.outputs)


def _either(base: Column, step: Column) -> Column:
    """What is known of a column that holds values of two; PostgreSQL has made sure that they are of one type."""
    found = {base.type.identity}
    if step.type.name == base.type.name:
        found.add(step.type.identity)
    elif base.type.is_textual:
        found.add(Identity.TEXT)
    if base.type.name is not None and named(base.type.name).name is not None:
        # Which of equal values stands for a group is not the same in both terms.
        found.add(named(base.type.name).identity)
    careful = min(found, key=_BY_CARE.index)
    return replace(base, type=replace(base.type, identity=careful), not_null=base.not_null and step.not_null)


def _check_distinct(labels: tuple[str, ...], columns: tuple[Column, ...]) -> None:
    for label, one in zip(labels, columns, strict=True):
        if one.type.identity is not Identity.EQUAL:
            raise UnsupportedQuery(
                f'UNION over column "{label}"',
                "equal values of it may differ, and what follows from the one that is kept may, too.",
                hint="Use UNION ALL, or cast the column to a type whose equal values are the same: integer, text.",
            )
