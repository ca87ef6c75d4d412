"""Correlated plans: a subquery's plan may read columns that only the query around it provides.

Such a plan has *free* columns.  Where they stand only in conditions, those conditions are lifted out and judge
pairs of an outer and an inner row.  Elsewhere the plan is computed once for every combination of values that the
outer query has (the *domain*), which are ordinary columns then (Neumann and Kemper, Unnesting Arbitrary Queries).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call
from pg_trickle.algebra.first import by_keys, first_of_each
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Project, UnionAll
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, inputs, names
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.scalar import BOOL, UNKNOWN, Column, Identity, Scalar, column, composed

Lifted = tuple[Plan, tuple[Scalar, ...]]
Fresh = Callable[[str], str]


def free(plan: Plan) -> frozenset[str]:
    """The columns that expressions of the plan read and nothing in it provides."""
    below = inputs(plan)
    provided = {name for one in below for name in names(one)}
    own = {name for value in _expressions(plan) for name in value.columns} - provided
    return frozenset(own).union(*map(free, below))


def tells(plan: Plan, name: str) -> bool:
    """Whether expressions of the plan do more with a column than compare it."""
    own = any(name in value.columns and not value.compares for value in _expressions(plan))
    return own or any(tells(below, name) for below in inputs(plan))


def _expressions(part: object) -> Iterator[Scalar]:
    """The expressions in a plan's own fields, or in parts of them."""
    if isinstance(part, Scalar):
        yield part
    elif isinstance(part, tuple):
        for one in part:
            yield from _expressions(one)
    elif isinstance(part, Plan | Item | Call | Timed):
        for field in fields(part):
            value = getattr(part, field.name)
            if not isinstance(value, Plan):
                yield from _expressions(value)


def same(left: Column, right: Column) -> Scalar:
    """The condition that two columns of one type hold the same value, NULLs alike."""
    if left.type == UNKNOWN:
        raise UnsupportedQuery(
            "correlation by a column of unknown type", "by what its values are compared isn't certain."
        )
    if left.type.identity is Identity.NONE:
        raise UnsupportedQuery("correlation by a type without equality", "its values can't be told apart.")
    certain = left.not_null and right.not_null
    if left.type.name is None:
        template = sql.SQL("ROW({left})::record = ROW({right})::record")
    elif certain:
        template = sql.SQL("{left} = {right}")
    else:
        template = sql.SQL("({left} = {right} OR ({left} IS NULL AND {right} IS NULL))")
    text = template.format(left=sql.Identifier(left.name), right=sql.Identifier(right.name))
    made = composed(text, frozenset((left.name, right.name)), BOOL)
    return replace(made, equates=(left.name, right.name)) if certain and left.type.name else made


def equal(left: Column, right: Column) -> Scalar:
    """The condition that two columns of one type are equal; a NULL never is."""
    return same(replace(left, not_null=True), replace(right, not_null=True))


def lifted(plan: Plan, outer: frozenset[str], fresh: Fresh) -> Lifted | None:
    """The plan without free columns among ``outer``, and the conditions they stood in; None if they stand elsewhere.

    ``σ_θ(R)`` for θ over the outer row o gives ``{r ∈ R: θ(o, r)}``; the plan keeps what the conditions read.
    """
    if not free(plan) & outer:
        return plan, ()
    match plan:
        case Filter(below, predicates):
            return _without(lifted(below, outer, fresh), predicates, outer)
        case Project(below, items) if not any(item.value.columns & outer for item in items):
            found = lifted(below, outer, fresh)
            return found and (_keeping(plan, found), found[1])
        case Join(left, right, on):
            one, other = lifted(left, outer, fresh), lifted(right, outer, fresh)
            if one is None or other is None:
                return None
            here = tuple(predicate for predicate in on if not predicate.columns & outer)
            up = tuple(predicate for predicate in on if predicate.columns & outer)
            return Join(one[0], other[0], here), one[1] + other[1] + up
        case Mark(left, right, on) | LeftJoin(left, right, on) as kept:
            if free(right) & outer or any(predicate.columns & outer for predicate in on):
                return None
            found = lifted(left, outer, fresh)
            return found and (replace(kept, left=found[0]), found[1])
        case Consolidate(below):
            found = lifted(below, outer, fresh)
            return found and (replace(plan, input=found[0]), found[1])
        case TimedFilter(below, timed) | TimedColumn(below, timed) if not timed.columns & outer:
            found = lifted(below, outer, fresh)
            return found and (replace(plan, input=found[0]), found[1])
        case Lateral(below, item, on=on) if not any(one.columns & outer for one in (item, *on)):
            found = lifted(below, outer, fresh)
            return found and (replace(plan, input=found[0]), found[1])
        case Aggregate(input=below) | DistinctOn(input=below) | TopK(input=below) | Window(input=below):
            found = lifted(below, outer, fresh)
            return found and _by_group(plan, found, outer, fresh)
        case _:
            return None


def _without(found: Lifted | None, predicates: tuple[Scalar, ...], outer: frozenset[str]) -> Lifted | None:
    if found is None:
        return None
    here = tuple(one for one in predicates if not one.columns & outer)
    up = tuple(one for one in predicates if one.columns & outer)
    return (Filter(found[0], here) if here else found[0]), found[1] + up


def _keeping(plan: Project, found: Lifted) -> Plan:
    """The projection with the columns that the lifted conditions read."""
    below, up = found
    read = {name for one in up for name in one.columns} - set(names(plan))
    more = tuple(Item(one, column(one)) for one in below.columns if one.name in read)
    return Project(below, plan.items + more)


def _by_group(plan: Plan, found: Lifted, outer: frozenset[str], fresh: Fresh) -> Lifted | None:
    """What depends on a group's rows alone, over what conditions were lifted from: grouped by what they equate, too.

    Rows equal to one outer value are whole groups then.  None if other conditions were lifted.
    """
    below, up = found
    equated = _equated(found, outer)
    if equated is None:
        return None
    match plan:
        case Aggregate(_, (_, *_)):
            return grouped(plan, found, outer)
        case DistinctOn():
            return by_keys(plan, below, equated), up
        case TopK():
            return first_of_each(plan, below, equated, fresh), up
        case Window(_, keys) if set(equated) <= set(keys):
            return replace(plan, input=below, passed=names(below)), up
        case _:
            return None


def grouped(plan: Aggregate, found: Lifted, outer: frozenset[str]) -> Lifted | None:
    """The aggregation over what conditions were lifted from: grouped by the values they equate to outer ones, too."""
    equated = _equated(found, outer)
    if equated is None:
        return None
    return replace(plan, input=found[0], keys=_more(plan.keys, equated)), found[1]


def _equated(found: Lifted, outer: frozenset[str]) -> tuple[str, ...] | None:
    """The columns that lifted conditions equate to outer ones; None if there are other conditions."""
    if not all(one.equates and len(outer & set(one.equates)) == 1 == len(set(one.equates) - outer) for one in found[1]):
        return None
    return tuple(dict.fromkeys(name for one in found[1] for name in sorted(one.columns - outer)))


def _more(keys: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return keys + tuple(name for name in others if name not in keys)


@dataclass(frozen=True, slots=True)
class Unnesting:
    """Takes the free columns of plans from a domain: a plan of distinct rows of those columns.

    ``nothing`` is what an aggregate gives for no rows, ``partitioned`` has a window call partition by more columns,
    ``fresh`` hands out names.
    """

    domain: Plan
    fresh: Fresh
    nothing: Callable[[Call], Scalar]
    partitioned: Callable[[Item, tuple[str, ...]], Item]

    def over(self, plan: Plan) -> Plan:
        """``{(d, r): d ∈ D, r ∈ plan(d)}``: the plan's columns, with the domain's."""
        outer = frozenset(names(self.domain))
        if not free(plan) & outer:
            return Join(self.domain, plan)
        match plan:
            case Filter(below) | Aggregate(below, (_, *_)) as stacked:
                made = self.over(below)
                if isinstance(stacked, Filter):
                    return replace(stacked, input=made)
                return replace(stacked, input=made, keys=_more(stacked.keys, names(self.domain)))
            case Lateral(below) | TimedFilter(below) | TimedColumn(below) | Consolidate(below) as beside:
                return replace(beside, input=self.over(below))
            case Project(below, items):
                return Project(self.over(below), items + self._passed(names(plan)))
            case Join(left, right, on) if not free(left) & outer:
                return Join(left, self.over(right), on)
            case Join(left, right, on) | LeftJoin(left, right, on) | Mark(left, right, on) as pair:
                if not free(right) & outer:
                    return replace(pair, left=self.over(left))
                other, pairs = self.renamed(self.over(right))
                return replace(pair, left=self.over(left), right=other, on=on + pairs)
            case FullJoin():
                return self.over(plan.split())
            case Aggregate():
                return self._of_all(plan)
            case Window(below, keys, passed, calls):
                here = names(self.domain)
                further = tuple(self.partitioned(call, here) for call in calls)
                return Window(self.over(below), _more(keys, here), _more(passed, here), further)
            case DistinctOn(below):
                return by_keys(plan, self.over(below), names(self.domain))
            case TopK(below):
                return first_of_each(plan, self.over(below), names(self.domain), self.fresh)
            case UnionAll(left, right):
                return UnionAll(*(Project(self._branch(side), self._listed(side)) for side in (left, right)))
            case _:
                raise UnsupportedQuery(
                    "correlated subquery",
                    f"an operator of it ({type(plan).__name__}) can't be computed for each outer row.",
                )

    def renamed(self, plan: Plan) -> tuple[Plan, tuple[Scalar, ...]]:
        """The plan with its copy of the domain under new names, and the conditions that tie them to the old ones."""
        copies = {one.name: replace(one, name=self.fresh(one.name.rpartition("__")[0])) for one in self.domain.columns}
        here = {one.name: one for one in plan.columns}
        items = tuple(Item(copies.get(one.name, one), column(one)) for one in plan.columns)
        pairs = tuple(same(one, replace(here[one.name], name=copies[one.name].name)) for one in self.domain.columns)
        return Project(plan, items), pairs

    def _branch(self, plan: Plan) -> Plan:
        """A branch of a sum, its constants still at the top: there a bare NULL takes the other branch's type."""
        if isinstance(plan, Project) and not free(plan) & frozenset(names(self.domain)):
            return Project(Join(self.domain, plan.input), plan.items + self._passed(names(plan)))
        return self.over(plan)

    def _passed(self, taken: tuple[str, ...]) -> tuple[Item, ...]:
        return tuple(Item(one, column(one)) for one in self.domain.columns if one.name not in taken)

    def _listed(self, side: Plan) -> tuple[Item, ...]:
        return tuple(Item(one, column(one)) for one in side.columns) + self._passed(names(side))

    def _of_all(self, plan: Aggregate) -> Plan:
        """An aggregate of all rows has its row even where there are none."""
        grouped = Aggregate(self.over(plan.input), names(self.domain), plan.calls)
        other, pairs = self.renamed(grouped)
        return Project(LeftJoin(self.domain, other, pairs), self._passed(()) + filled(plan.calls, self.nothing))


def filled(calls: tuple[Call, ...], nothing: Callable[[Call], Scalar]) -> tuple[Item, ...]:
    """Aggregates beside groups that may be missing: what they give for no rows in place of NULL."""
    return tuple(map(partial(_filled, nothing=nothing), calls))


def _filled(call: Call, nothing: Callable[[Call], Scalar]) -> Item:
    missing = nothing(call)
    value = replace(column(call.column), not_null=False)
    if not missing.not_null:
        return Item(replace(call.column, not_null=False), value)
    text = sql.SQL("COALESCE({value}, {missing})").format(value=value.sql(), missing=missing.sql())
    return Item(call.column, replace(value, text=text.as_string(None), not_null=True, strict=frozenset()))
