"""Queries that are read several times, by the name of a WITH query or a view: parsed once, that their stages be one."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from pg_trickle.algebra.correlation import free
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.parse.length import STATEFUL, check_length
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import Context
from pg_trickle.scalar import Column, column


def once(key: Hashable, context: Context, parse: Callable[[], Query]) -> Query:
    """What ``parse`` makes; and for the same key again the same plan, with its columns under new names.

    So is what has stages and stands by itself: ``cut`` makes one stage of equal operators.
    Refuses what is too long.
    """
    known = context.parsed.get(key)
    if isinstance(known, Query):
        return _renamed(known, context)
    made = parse()
    check_length(made.plan, context.most_leaves)
    if _has_stages(made.plan) and not free(made.plan):
        context.parsed[key] = made
    return made


def _renamed(query: Query, context: Context) -> Query:
    labels = {one.name: label for label, one in query.outputs}
    made = {
        one.name: Column(context.namer.fresh(labels.get(one.name, "c")), one.type, one.not_null)
        for one in query.plan.columns
    }
    plan = Project(query.plan, tuple(Item(made[one.name], column(one)) for one in query.plan.columns))
    return Query(plan, tuple((label, made.get(one.name, one)) for label, one in query.outputs))


def _has_stages(plan: Plan) -> bool:
    return any(isinstance(node, STATEFUL) for node in distinct(plan))
