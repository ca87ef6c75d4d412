"""What a subquery gives, put beside the rows of the query around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from postgast.pg_query_pb2 import Node
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.correlation import Lifted, Unnesting, equal, filled, free, grouped, lifted, same
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Project
from pg_trickle.algebra.mark import Mark, mark
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import kind, strings
from pg_trickle.parse.windows import partitioned
from pg_trickle.scalar import BOOL, INT8, UNKNOWN, Column, Scalar, column, composed, spelling
from pg_trickle.uniqueness import is_single

_ZERO = frozenset({"count", "regr_count"})
_ONE = frozenset({"rank", "dense_rank"})
_CERTAIN = frozenset({"percent_rank", "cume_dist"})


@dataclass(slots=True)
class Attachment:
    """A plan to which subqueries' results are attached as columns; its rows stay what they are.

    Of rows that don't satisfy ``reached`` nobody reads the result, and PostgreSQL doesn't compute it: where that could
    tell, as by an error, it isn't computed here either, and the attachment ``is_bound``.
    """

    plan: Plan
    context: Context
    reached: Callable[[], tuple[Scalar, ...]] = tuple
    is_bound: bool = False

    def independent(self, plan: Plan) -> Lifted:
        """A subquery's plan without this plan's columns in it, and the conditions that tie its rows to this plan's."""
        outer = free(plan)
        return lifted(plan, outer, self.context.namer.fresh) or self._for_each(plan)

    def marked(self, plan: Plan, on: tuple[Scalar, ...], name: str) -> Column:
        """A column that says whether a row has a match."""
        made = mark(self.context.namer.fresh(name))
        self.plan = Mark(self.plan, plan, on, made)
        return made

    def single(self, query: Query) -> tuple[Column, ...]:
        """The columns of a subquery's only row; NULLs where it has none, an error where it has more."""
        parts = _over_all(query.plan)
        if parts is not None:
            return self._computed(*parts)
        plan, on = self.independent(query.plan)
        outputs = tuple(replace(one, not_null=False) for _, one in query.outputs)
        if is_single(plan, on):
            self.plan = LeftJoin(self.plan, plan, on)
            return outputs
        plan, on, count = self._counted(query.plan, plan, on)
        # Netted, so that no pair of rows is judged that only terms of a change have and take back.
        self.plan = Filter(Consolidate(LeftJoin(self.plan, plan, on + self._bound())), (_at_most_one(count),))
        return outputs

    def beside(self, query: Query) -> Query:
        """Every row beside each of those that a subquery has for it: by a join, or as columns of its only row."""
        parts = _over_all(query.plan)
        if parts is not None and not parts[1] and free(query.plan):
            made = self._computed(*parts)
            named = tuple((name, one) for (name, _), one in zip(query.outputs, made, strict=True))
            return Query(self.plan, named)
        plan, on = self.independent(query.plan)
        self.plan = Join(self.plan, plan, on)
        return query

    def aggregated(self, below: Plan, calls: tuple[Call, ...]) -> None:
        """Aggregates of all rows of a subquery, as columns of their names."""
        outer = free(below)
        whole = Aggregate(below, (), calls)
        if not outer:
            self.plan = Join(self.plan, whole)
            return
        found = lifted(below, outer, self.context.namer.fresh)
        by_key = found and grouped(whole, found, outer)
        if by_key is None:
            unnesting = self._unnesting(below)
            by_key = unnesting.renamed(Aggregate(unnesting.over(below), names(unnesting.domain), calls))
        joined = LeftJoin(self.plan, *by_key)
        kept = tuple(Item(one, column(one)) for one in self.plan.columns)
        self.plan = Project(joined, kept + filled(calls, self.of_nothing))

    def of_nothing(self, call: Call) -> Scalar:
        """What an aggregate gives for no rows."""
        if call.rule is Rule.COUNT:
            return Scalar("0", frozenset(), INT8, not_null=True)
        if call.rule is not Rule.RECOMPUTE:
            return Scalar("NULL", frozenset(), UNKNOWN)
        name = _function(call)
        if name is None or not all(fact.builtin for fact in self.context.functions(name)):
            raise UnsupportedQuery(
                "correlated subquery with an aggregate of your own", "what it gives for no rows isn't known."
            )
        of_none = {**dict.fromkeys(_ZERO, "0"), **dict.fromkeys(_ONE, "1")}
        if name[-1] in _CERTAIN:
            raise UnsupportedQuery(f"correlated subquery with {name[-1]}()", "what it gives for no rows isn't NULL.")
        text = of_none.get(name[-1])
        return Scalar(text or "NULL", frozenset(), call.column.type, not_null=text is not None)

    def _computed(self, items: tuple[Item, ...], having: tuple[Scalar, ...], whole: Aggregate) -> tuple[Column, ...]:
        made = tuple(self._kept_if(having, item) for item in items)
        row = Project(whole, made)
        if not free(row):
            # The same row beside each: conditions on it become those of the join.
            self.plan = Join(self.plan, row)
            return tuple(item.column for item in made)
        self.aggregated(whole.input, whole.calls)
        self.plan = Project(self.plan, tuple(Item(one, column(one)) for one in self.plan.columns) + made)
        return tuple(item.column for item in made)

    def _kept_if(self, having: tuple[Scalar, ...], item: Item) -> Item:
        made = Column(self.context.namer.fresh(item.column.name.rpartition("__")[0]), item.value.type)
        if not having:
            return Item(made, replace(item.value, not_null=False, equates=None))
        text = sql.SQL("CASE WHEN {having} THEN {value} END").format(having=_every(having), value=item.value.sql())
        read = frozenset(item.value.columns).union(*(one.columns for one in having))
        return Item(made, composed(text, read, item.value.type))

    def _for_each(self, plan: Plan) -> Lifted:
        unnesting = self._unnesting(plan)
        return unnesting.renamed(unnesting.over(plan))

    def _unnesting(self, plan: Plan) -> Unnesting:
        """The domain: what the plan reads of each row, as it reads there, for the plan may tell equal values apart."""
        read = free(plan)
        columns = tuple(one for one in self.plan.columns if one.name in read)
        spelt = tuple(
            Item(Column(self.context.namer.fresh("spelt"), one.type), one) for one in map(spelling, columns) if one
        )
        if spelt:
            self.plan = Project(self.plan, (*(Item(one, column(one)) for one in self.plan.columns), *spelt))
            columns += tuple(item.column for item in spelt)
        reached = self._bound()
        rows = Filter(self.plan, reached) if reached else self.plan
        picked = Project(rows, tuple(Item(one, column(one)) for one in columns))
        domain = Aggregate(picked, names(picked), ())
        return Unnesting(domain, self.context.namer.fresh, self.of_nothing, partitioned)

    def _bound(self) -> tuple[Scalar, ...]:
        found = self.reached()
        self.is_bound |= bool(found)
        return found

    def _counted(self, whole: Plan, plan: Plan, on: tuple[Scalar, ...]) -> tuple[Plan, tuple[Scalar, ...], Column]:
        """Each row of a subquery with the number of those that match the same outer rows."""
        inner = frozenset(names(plan))
        if not all(one.equates and len(inner & set(one.equates)) == 1 for one in on):
            plan, on = self._for_each(whole)
        keys = tuple(one for one in plan.columns if any(one.name in predicate.columns for predicate in on))
        count = Column(self.context.namer.fresh("count"), INT8, not_null=True)
        text = Scalar("pg_catalog.count(*)", frozenset(), INT8, not_null=True)
        counts = Aggregate(plan, tuple(one.name for one in keys), (Call(count, Rule.COUNT, text),))
        copies = tuple(replace(one, name=self.context.namer.fresh(one.name.rpartition("__")[0])) for one in keys)
        pairs = tuple(zip(copies, keys, strict=True))
        items = tuple(Item(copy, column(one)) for copy, one in pairs)
        renamed = Project(counts, (*items, Item(count, column(count))))
        tie = equal if all(one.equates for one in on) else same
        return Join(plan, renamed, tuple(tie(one, copy) for copy, one in pairs)), on, count


def _over_all(plan: Plan) -> tuple[tuple[Item, ...], tuple[Scalar, ...], Aggregate] | None:
    """The outputs, the HAVING condition and the aggregation of a query that aggregates all rows."""
    match plan:
        case Project(Aggregate(_, ()) as whole, items):
            return items, (), whole
        case Project(Filter(Aggregate(_, ()) as whole, having), items):
            return items, having, whole
        case _:
            return None


def _at_most_one(count: Column) -> Scalar:
    """True, or PostgreSQL's own error when there are more."""
    text = sql.SQL("COALESCE({n}, 0) <= 1 OR (SELECT TRUE FROM generate_series(1, {n}))").format(
        n=sql.Identifier(count.name)
    )
    return replace(composed(text, frozenset((count.name,)), BOOL), only_raises=True)


def _function(call: Call) -> tuple[str, ...] | None:
    """The name of the function that a recomputed aggregate calls."""
    target: Node = parse_select(f"SELECT {call.value.text}").target_list[0].res_target.val
    return strings(list(target.func_call.funcname)) if kind(target) == "func_call" else None


def _every(conditions: tuple[Scalar, ...]) -> sql.Composable:
    return sql.SQL(" AND ").join(sql.SQL("({one})").format(one=one.sql()) for one in conditions)
