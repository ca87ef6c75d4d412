"""Subqueries in expressions: each becomes a column of the plan that the expression is over.

EXISTS, IN, ANY and ALL are marks; a scalar subquery is a left join with at most one row, ARRAY() an aggregate.
Where other parts of the expression keep PostgreSQL from computing one, it isn't computed either (``reached``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node, SubLink
from psycopg import sql

from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.mark import absent
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse import quantified
from pg_trickle.parse.arrays import array_of
from pg_trickle.parse.attached import Attachment
from pg_trickle.parse.expressions import scalar
from pg_trickle.parse.moments import reads_time
from pg_trickle.parse.quantified import Conditions, Test
from pg_trickle.parse.query import ParseQuery, Query
from pg_trickle.parse.reached import both, in_parts
from pg_trickle.parse.scope import LOWERED, Context, Scope
from pg_trickle.parse.timed import is_moved, timed
from pg_trickle.parse.tree import column_reference, has_subquery, kind, located, location, printed, rebuilt
from pg_trickle.scalar import BOOL, UNKNOWN, Column, Scalar, column, composed

Expression = Callable[[Node, Scope], Scalar]


def is_lowered(condition: Node) -> bool:
    """Whether a condition becomes columns of a plan before anything can judge it."""
    return has_subquery(condition) or reads_time(condition)


@dataclass(slots=True)
class Lowering:
    """A plan that grows a column for each subquery in the expressions over it; ``scope`` knows them.

    ``expression`` turns one without subqueries into a scalar over the plan.  ``reached`` is the condition under which
    the part that is being lowered is evaluated, if not always.
    """

    plan: Plan
    scope: Scope
    context: Context
    parse: ParseQuery
    expression: Expression | None = None
    reached: Node | None = None
    # Whether what has been lowered is so for the rows alone that reach it.
    is_bound: bool = False
    # By their text, and the condition under which they were computed.
    values: dict[tuple[str, ...], Node] = field(default_factory=dict)
    marks: dict[tuple[str, ...], Column] = field(default_factory=dict)

    def scalar(self, node: Node) -> Scalar:
        """An expression over the plan, once its subqueries are lowered."""
        with located(node):
            return self._scalar(self.value(node), self.scope)

    def value(self, node: Node) -> Node:
        """The expression with a reference to a column in place of each subquery, and of what time moves in it."""
        return self._lowered(node, lambda part: kind(part) == "sub_link" or is_moved(part))

    def _timeless(self, node: Node) -> Node:
        """The same of subqueries alone."""
        return self._lowered(node, lambda part: kind(part) == "sub_link")

    def _lowered(self, node: Node, is_column: Callable[[Node], bool]) -> Node:
        def within(part: Node, reached: Node | None) -> Node:
            around, self.reached = self.reached, both(self.reached, reached)
            made = self._lowered(part, is_column)
            self.reached = around
            return made

        def lowered(part: Node) -> Node | None:
            if is_column(part):
                return self._value(part)
            return in_parts(part, within) if has_subquery(part) else None

        return rebuilt(node, lowered)

    def keep(self, conditions: Iterable[Node]) -> None:
        """Keep the rows that satisfy conditions; a subquery may be computed for each row that the others leave."""
        for node in sorted(conditions, key=is_lowered):
            with located(node):
                self._keep(node)

    def _keep(self, node: Node) -> None:
        negated = kind(node) == "bool_expr" and node.bool_expr.boolop == kinds.NOT_EXPR
        inside = node.bool_expr.args[0] if negated else node
        found = self._tested(inside, negated) if kind(inside) == "sub_link" else None
        if found is None and reads_time(node):
            condition = self._timed(self._timeless(node))
            self.plan = TimedFilter(self.plan, condition)
            return
        if found is None:
            predicates: Conditions = (self.scalar(node),)
        else:
            marks, wanted = found
            predicates = (_any(marks),) if wanted else tuple(map(absent, marks))
        self.plan = Filter(self.plan, predicates)

    def _timed(self, node: Node) -> Timed:
        over_groups = self.expression
        if over_groups is None:
            return timed(node, lambda part: scalar(part, self.scope, self.context, timed=True))
        return timed(node, lambda part: over_groups(part, self.scope))

    def _moved(self, part: Node) -> Node:
        """The column that holds what time moves."""
        value = self._timed(self._timeless(part))
        made = Column(self.context.namer.fresh("timed"), value.now.type, value.now.not_null)
        self.plan = TimedColumn(self.plan, value, made)
        return self._reference(made)

    def _scalar(self, node: Node, scope: Scope) -> Scalar:
        return scalar(node, scope, self.context) if self.expression is None else self.expression(node, scope)

    def _tested(self, part: Node, negated: bool) -> tuple[tuple[Column, ...], bool] | None:
        """The marks by which a subquery, or its negation, holds: when one is set, or when none is."""
        match part.sub_link.sub_link_type:
            case kinds.EXISTS_SUBLINK:
                return (self._exists(part),), not negated
            case kinds.ANY_SUBLINK:
                return self._compared(part, Test.NOT_FALSE if negated else Test.TRUE), not negated
            case kinds.ALL_SUBLINK:
                return self._compared(part, Test.FALSE if negated else Test.NOT_TRUE), negated
            case _:
                return None

    def _value(self, part: Node) -> Node:
        text = printed(part)
        here = (text, printed(self.reached)) if self.reached else (text,)
        found = next((key for key in ((text,), here) if key in self.values), None)
        if found is None:
            around, self.is_bound = self.is_bound, False
            with located(part):
                made = self._made(part)
            found = here if self.is_bound else (text,)
            self.values[found] = made
            self.is_bound |= around
        self.is_bound |= len(found) > 1
        return self.values[found]

    def _made(self, part: Node) -> Node:
        if kind(part) != "sub_link":
            return self._moved(part)
        match part.sub_link.sub_link_type:
            case kinds.EXISTS_SUBLINK:
                return self._reference(self._exists(part))
            case kinds.ANY_SUBLINK:
                return self._three_valued(part, Test.TRUE, Test.NOT_FALSE, decided=True)
            case kinds.ALL_SUBLINK:
                return self._three_valued(part, Test.FALSE, Test.NOT_TRUE, decided=False)
            case kinds.EXPR_SUBLINK:
                return self._single(part)
            case kinds.ARRAY_SUBLINK:
                return self._array(part)
            case _:
                raise UnsupportedQuery("subquery", "no rule knows its kind.", position=location(part))

    def _three_valued(self, part: Node, decisive: Test, other: Test, *, decided: bool) -> Node:
        known, maybe = ([self._reference(one) for one in self._compared(part, test)] for test in (decisive, other))
        return quantified.three_valued(known, maybe, decided)

    def _reference(self, made: Column) -> Node:
        """A reference to a column of the plan; from now on the scope knows it."""
        if made not in self.scope.lowered:
            self.scope = replace(self.scope, lowered=(*self.scope.lowered, made))
        return column_reference(LOWERED, made.name)

    def subplan(self, part: Node) -> Plan:
        """A subquery's own plan."""
        return self._query(part.sub_link).plan

    def _query(self, link: SubLink) -> Query:
        return self._parsed(link.subselect.select_stmt)

    def _exists(self, part: Node) -> Column:
        plan = self.subplan(part)
        while isinstance(plan, Project):
            # Nobody looks at what it selects.
            plan = plan.input
        attached = self._attachment()
        plan, on = attached.independent(plan)
        self._take(attached)
        return self._mark(plan, on, (printed(part),))

    def _compared(self, part: Node, test: Test) -> tuple[Column, ...]:
        """Marks of which one is set iff the comparison with some row of the subquery passes the test."""
        link = part.sub_link
        left = self.value(link.testexpr)
        query = self._query(link)
        attached = self._attachment()
        plan, on = attached.independent(query.plan)
        # It may tie its rows to columns that it has put beside this plan's.
        self._take(attached)
        inside = tuple(one for _, one in query.outputs)
        scope = replace(self.scope, lowered=self.scope.lowered + inside)
        right = [column_reference(LOWERED, one.name) for one in inside]
        found = quantified.alternatives(link, test, left, right, lambda node: self._scalar(node, scope))
        return tuple(self._mark(plan, on + one.conditions, (printed(part), one.kind)) for one in found)

    def _mark(self, plan: Plan, on: Conditions, key: tuple[str, ...]) -> Column:
        name = "exists" if len(key) == 1 else "met"
        if self.is_bound and self.reached:
            key += (printed(self.reached),)
        if key not in self.marks:
            attached = self._attachment()
            self.marks[key] = attached.marked(plan, on, name)
            self._take(attached)
        return self.marks[key]

    def _single(self, part: Node) -> Node:
        attached = self._attachment()
        made = [self._reference(one) for one in attached.single(self._query(part.sub_link))]
        self._take(attached)
        return made[0] if len(made) == 1 else quantified.row(made)

    def _array(self, part: Node) -> Node:
        query, call = array_of(part.sub_link.subselect.select_stmt, self._parsed, self.context)
        attached = self._attachment()
        attached.aggregated(query.plan, (call,))
        self._take(attached)
        made = Column(self.context.namer.fresh("array"), UNKNOWN, not_null=True)
        text = sql.SQL("COALESCE({array}, '{{}}')").format(array=sql.Identifier(call.column.name))
        kept = tuple(Item(one, column(one)) for one in self.plan.columns)
        value = composed(text, frozenset((call.column.name,)), UNKNOWN, not_null=True)
        self.plan = Project(self.plan, (*kept, Item(made, value)))
        return self._reference(made)

    def _attachment(self) -> Attachment:
        return Attachment(self.plan, self.context, self._reached)

    def _reached(self) -> Conditions:
        if self.reached is None or reads_time(self.reached):
            # What time decides is no condition between rows.
            return ()
        return (self._scalar(self.reached, self.scope),)

    def _take(self, attached: Attachment) -> None:
        self.plan = attached.plan
        self.is_bound |= attached.is_bound

    def _parsed(self, statement: kinds.SelectStmt) -> Query:
        return self.parse(statement, replace(self.context, outer=self.scope))


def _any(marks: tuple[Column, ...]) -> Scalar:
    if len(marks) == 1:
        return column(marks[0])
    text = sql.SQL(" OR ").join(sql.Identifier(one.name) for one in marks)
    return composed(text, frozenset(one.name for one in marks), BOOL, not_null=True)
