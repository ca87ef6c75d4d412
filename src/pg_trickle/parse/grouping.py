"""GROUP BY, aggregates and HAVING: from expressions to an Aggregate and what stands on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from postgast.pg_query_pb2 import AND_EXPR, FuncCall, Node
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Unit
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.aggregate_rules import (
    argument_type,
    as_shown,
    call_text,
    can_be_distinct,
    counts_decimals,
    ignores_distinct,
    result_type,
    rule_of,
)
from pg_trickle.parse.distinct_arguments import Distinct, with_distinct
from pg_trickle.parse.expressions import check, over_columns, resolved, scalar
from pg_trickle.parse.grouping_sets import Copies, Sets, expanded
from pg_trickle.parse.laterals import sets
from pg_trickle.parse.scope import JSON_AGGREGATES, Context, Entry, Scope
from pg_trickle.parse.spelling import has_fixed_decimals, spelled
from pg_trickle.parse.timed import is_moved
from pg_trickle.parse.tree import (
    below,
    column_reference,
    fields,
    inner,
    is_constant,
    is_expression,
    kind,
    location,
    outside_subqueries,
    printed,
    rebuilt,
    strings,
)
from pg_trickle.parse.types import Types
from pg_trickle.scalar import BOOL, INT4, Column, Identity, Scalar, column, composed, identifier

_REAL = "__pgt_real"


@dataclass(slots=True)
class Grouping:
    """Collects keys and aggregates of one SELECT, then turns its expressions into ones over the groups."""

    scope: Scope
    context: Context
    keys: dict[str, Column] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    # What aggregates read, apart from the keys, where not all rows below have it: see _read.
    read: dict[str, Item] = field(default_factory=dict)
    groupings: dict[str, tuple[Column, list[str]]] = field(default_factory=dict)
    sets: Sets = ()
    # TRUE in rows of FROM; NULL in those that bring distinct values, or merely give a set without keys its row.
    real: Column | None = None
    distincts: dict[tuple[tuple[Column, ...], tuple[Column, ...], bool], Distinct] = field(default_factory=dict)
    tells_distinct: bool = False
    # Aggregates and keys of which more is told than the value.
    told: frozenset[str] = frozenset()
    # Keys as they read in a row that is there, by their name.
    shown: dict[str, Column] = field(default_factory=dict)
    # Of the outputs equal ones will do.
    by_value: bool = True

    def expect(self, keys: list[Node], targets: list[Node], having: list[Node], *, by_value: bool) -> None:
        """Look at what is to be computed: distinct values are counted apart, unless groups are read again anyway.

        ``by_value``: of the outputs, equal ones will do.
        """
        self.by_value = by_value
        grouped = frozenset(self._text(node) for each in expanded(keys) for node in each)
        told = list(self._told(grouped, targets, having))
        self.told = frozenset(self._text(node) for node in told)
        expressions = [*targets, *having]
        calls = [node for one in expressions for node in outside_subqueries(one) if self._is_aggregate(node)]
        self.tells_distinct = any(node.func_call.agg_distinct for node in calls)
        reads_again = any(not self._is_aggregate(node) and not self._types.of(node).is_identity for node in told)
        if reads_again or any(self._rule(node) is Rule.RECOMPUTE for node in calls):
            self.tells_distinct = False

    def _told(self, keys: frozenset[str], targets: list[Node], having: list[Node]) -> Iterator[Node]:
        """The aggregates and the columns of groups whose spelling is told.

        What reads a key further on says so itself; only then every key is shown as a row reads that is there.
        """

        def is_part(node: Node) -> bool:
            return is_expression(node) and (
                self._text(node) in keys
                or self._is_aggregate(node)
                or (kind(node) == "column_ref" and self._is_own(node))
            )

        for of_aggregates, of_numbers in product((True, False), repeat=2):
            by_value = self.by_value if of_aggregates else self._keys_by_value
            told = [part for one in targets for part in spelled(one, is_part, by_value=by_value, of_numbers=of_numbers)]
            told += [part for one in having for part in spelled(one, is_part, by_value=True, of_numbers=of_numbers)]
            for part in told:
                if (self._is_aggregate(part), self._is_number(part)) == (of_aggregates, of_numbers):
                    yield part

    @property
    def _keys_by_value(self) -> bool:
        """Whether of an output that is a key, an equal one will do, for what reads it tells nothing more."""
        return self.by_value or not self.context.spelt

    def _is_number(self, node: Node) -> bool:
        if kind(node) == "func_call" and self._is_aggregate(node):
            return len(node.func_call.args) == 1 and argument_type(node.func_call, self._types).is_exact
        return self._types.of(node).is_exact

    @property
    def _types(self) -> Types:
        return Types(self.context.request.functions, self.scope.resolve)

    def add_keys(self, items: list[Node], *, is_distinct: bool) -> None:
        """Group by the items of GROUP BY."""
        sets = expanded(items)
        for keys in sets:
            for node in keys:
                self.add_key(node)
        named = tuple(frozenset(self._text(node) for node in keys) for keys in sets)
        self.sets = tuple(dict.fromkeys(named)) if is_distinct else named
        if self.tells_distinct or (self._has_copies and not all(self.sets)):
            self.real = self._item(composed(sql.SQL("TRUE"), frozenset(), BOOL, not_null=True), "real").column

    def add_key(self, node: Node) -> None:
        """Group by an expression."""
        if kind(node) == "row_expr":
            raise UnsupportedQuery("row in grouping sets", "no column can store a row without a type.")
        value = scalar(node, self.scope, self.context)
        if value.type.name == "numeric" and has_fixed_decimals(node):
            # It may be infinite, which no declared scale is.
            value = replace(value, type=replace(value.type, identity=Identity.EQUAL))
        self.keys.setdefault(self._text(node), self._key(value))

    def add_expression(self, node: Node, *, is_timed: bool = False) -> None:
        """Take in the aggregates of an output or HAVING expression.

        A column outside them that isn't grouped by depends on a grouped primary key (PostgreSQL
        has checked that), so grouping by it too makes the same groups.  What time moves is a column over the groups.
        """
        check(rebuilt(node, lambda part: Node() if is_moved(part) else None), self.context, timed=is_timed)
        self._collect(node)

    def grouped(self, node: Node, scope: Scope) -> Scalar:
        """An output or HAVING expression over the columns of the groups, and others that a wider scope knows."""
        others: dict[str, Column] = {}

        def replace_part(part: Node) -> Node | None:
            if not is_expression(part):
                return None
            text = printed(resolved(part, scope))
            # A constant that is a key is NULL in sets without it only as an output, not in expressions.
            if text in self.keys and (is_constant(node) or not is_constant(part)):
                return column_reference(self.shown.get(text, self.keys[text]).name)
            if self._is_aggregate(part):
                return column_reference(self.calls[self._text(part)].column.name)
            if kind(part) == "grouping_func":
                return column_reference(self.groupings[self._text(part)][0].name)
            if kind(part) == "column_ref":
                other = scope.resolve(strings(list(part.column_ref.fields)))
                others[other.name] = other
                return column_reference(other.name)
            return None

        over = rebuilt(node, replace_part)
        keys = (replace(key, type=key.type.of_group) for key in self.keys.values())
        made = (one for one, _ in self.groupings.values())
        calls = (call.column for call in self.calls.values())
        known = (*keys, *self.shown.values(), *calls, *made, *others.values())
        return over_columns(over, known, self.context)

    def plan(self, source: Plan) -> Plan:
        """The aggregation over what FROM and WHERE give."""
        every = (*self.items.values(), *self.read.values())
        series = [(item.column.name, item.value) for item in every if item.value.returns_set]
        if series:
            source, made = sets(source, series, self.context)
            values = dict(zip((name for name, _ in series), made, strict=True))
            items = (replace(item, value=values.get(item.column.name, item.value)) for item in every)
            prepared: Plan = Project(source, tuple(items))
        else:
            prepared = Project(source, every)
        if not (self.keys or self.calls):
            # One row whatever there is: PostgreSQL doesn't read the rows either, which could raise errors.
            prepared = Unit()
        if not self._has_copies:
            aggregate = self._aggregate(prepared, tuple(key.name for key in self.keys.values()), self.keys)
            never = composed(sql.SQL("0"), frozenset(), INT4, not_null=True)
            return self._with_groupings(aggregate, [never] * len(self.groupings))
        copies = Copies(self.sets, self.keys, self.context.namer)
        aggregate = self._aggregate(copies.plan(prepared), copies.keys, copies.masked)
        self.keys = copies.masked
        return self._with_groupings(aggregate, [copies.grouping(keys) for _, keys in self.groupings.values()])

    def _aggregate(self, rows: Plan, keys: tuple[str, ...], named: dict[str, Column]) -> Aggregate:
        if self.distincts:
            rows = with_distinct(rows, keys, list(self.distincts.values()), self.context.namer)
        told = {text: as_shown(key, self.context.namer) for text, key in named.items() if text in self.told}
        calls = {text: call for text, call in told.items() if call is not None}
        self.shown = {text: call.column for text, call in calls.items()}
        return Aggregate(rows, keys, (*self.calls.values(), *calls.values()))

    @property
    def _has_copies(self) -> bool:
        return len(self.sets) > 1

    def _with_groupings(self, aggregate: Aggregate, values: list[Scalar]) -> Plan:
        if not values:
            return aggregate
        made = (Item(one, value) for (one, _), value in zip(self.groupings.values(), values, strict=True))
        return Project(aggregate, (*(Item(one, column(one)) for one in aggregate.columns), *made))

    def _collect(self, node: Node) -> None:
        if is_expression(node) and self._text(node) in self.keys:
            return
        if self._is_aggregate(node):
            self.calls.setdefault(self._text(node), self._call(node))
            return
        if kind(node) == "grouping_func":
            made = Column(self.context.namer.fresh("grouping"), INT4, not_null=True)
            self.groupings.setdefault(self._text(node), (made, [self._text(one) for one in node.grouping_func.args]))
            return
        if kind(node) == "column_ref":
            if not self._is_own(node):
                return
            if self._has_copies:
                raise UnsupportedQuery("column beside grouping sets", "it isn't grouped by.", position=location(node))
            self.add_key(node)
            return
        # Of a subquery, what it is compared with.
        for part in [node.sub_link.testexpr] if kind(node) == "sub_link" else below(node):
            self._collect(part)

    def require(self, read: Column, *, is_told: bool) -> None:
        """Take in a column that a subquery over the groups reads: one of a grouped row's, as for expressions.

        ``is_told``: it does more than compare it.
        """
        if is_told and not read.type.grouped.is_identity:
            raise UnsupportedQuery(
                "subquery that tells equal values of a group apart",
                f'which of them "{read.name.rpartition("__")[0]}" is may change with the rows of the group.',
                hint="Cast it in a derived table to a type whose equal values are the same, such as numeric(10, 2).",
            )
        if self._has_copies:
            raise UnsupportedQuery("correlated subquery over grouping sets", "no rule knows which set it is about.")
        if any(read.name == key.name for key in self.keys.values()):
            return
        if any(not item.value.is_column for item in self.items.values() if item.column in self.keys.values()):
            raise UnsupportedQuery(
                "subquery about a grouping expression",
                "it reads what the expression is made of.",
                hint="Compute the expression in a derived table and group by its column.",
            )
        self.keys.setdefault(identifier(read.name), self._key(column(read)))

    def _key(self, value: Scalar) -> Column:
        item = self._item(value, "key")
        # An aggregate may read it, too.
        made = Item(replace(item.column, type=value.type.grouped), item.value)
        self.items[value.text] = made
        return made.column

    def _is_own(self, node: Node) -> bool:
        """Whether a reference is to this query's FROM, not to a query around it."""
        return self.scope.resolve(strings(list(node.column_ref.fields))) in set(self.scope.columns)

    def _text(self, node: Node) -> str:
        return printed(resolved(node, self.scope))

    def _is_aggregate(self, node: Node) -> bool:
        return self.context.aggregates(node)

    def _item(self, value: Scalar, base: str) -> Item:
        """A column below the aggregation that holds the value, made once."""
        if value.text not in self.items:
            own = value.is_column and value.columns <= {one.name for one in self.scope.columns}
            name = next(iter(value.columns)) if own else self.context.namer.fresh(base)
            self.items[value.text] = Item(Column(name, value.type, value.not_null), value)
        return self.items[value.text]

    def _call(self, node: Node) -> Call:
        rule = self._rule(node)
        if rule is Rule.RECOMPUTE:
            return self._recomputed(node)
        call = node.func_call
        name = strings(list(call.funcname))[-1]
        # A row that isn't there has NULL for every argument and every condition: only count(*) would count it.
        is_once = call.agg_distinct and not ignores_distinct(rule)
        counted = None if call.HasField("agg_filter") else self.real
        argument = self._once(call) if is_once else counted if call.agg_star else self._argument(call.args[0])
        condition = None if is_once else self._filter(call)
        of = result_type(rule, argument, is_told=self._text(node) in self.told)
        result = Column(self.context.namer.fresh(name), of, not_null=rule is Rule.COUNT)
        value = call_text(name, argument, condition, of)
        return Call(result, rule, value, argument.name if argument else None, condition.name if condition else None)

    def _recomputed(self, node: Node) -> Call:
        whole = self._counting_real(node)
        for used in sorted(whole.columns - ({self.real.name} if self.real else set())):
            self._item(column(self._column(used)), used)
        name = strings(list(node.func_call.funcname))[-1] if kind(node) == "func_call" else kind(node)
        of = replace(self._types.of(node), respelled=whole.type.respelled)
        return Call(Column(self.context.namer.fresh(name), of), Rule.RECOMPUTE, whole)

    def _once(self, call: FuncCall) -> Column:
        """The column that holds each value of an argument once."""
        parts = tuple(map(self._argument, fields(call.args[0])))
        condition = self._filter(call)
        is_row = kind(call.args[0]) == "row_expr"
        of = BOOL if is_row else replace(parts[0].type, scales=frozenset())
        # No NULL in a row tells that there is none.
        tests = tuple(one for one in (self.real if is_row else None, condition) if one is not None)
        wanted = Distinct(parts, tests, Column(self.context.namer.fresh("once"), of), is_row)
        return self.distincts.setdefault((parts, tests, is_row), wanted).made

    def _counting_real(self, node: Node) -> Scalar:
        """A whole aggregate, over just the rows that are there."""
        if self.real is None:
            return scalar(node, self.scope, self.context, is_aggregate=True)
        filtered = Node()
        filtered.CopyFrom(node)
        both = Node()
        both.bool_expr.boolop = AND_EXPR
        both.bool_expr.args.add().CopyFrom(column_reference(_REAL, _REAL))
        held = filtered.func_call if kind(node) == "func_call" else inner(filtered).constructor  # type: ignore[attr-defined]
        if held.HasField("agg_filter"):
            both.bool_expr.args.add().CopyFrom(held.agg_filter)
        held.agg_filter.CopyFrom(both if len(both.bool_expr.args) > 1 else both.bool_expr.args[0])
        own = Scope((Entry(_REAL, ((_REAL, self.real),)),))
        return scalar(filtered, self.scope + own, self.context, is_aggregate=True)

    def _argument(self, node: Node) -> Column:
        return self._read(scalar(node, self.scope, self.context), "arg")

    def _condition(self, node: Node) -> Column:
        return self._read(scalar(node, self.scope, self.context), "filter")

    def _filter(self, call: FuncCall) -> Column | None:
        return self._condition(call.agg_filter) if call.HasField("agg_filter") else None

    def _read(self, value: Scalar, base: str) -> Column:
        """The column that an aggregate reads.  Rows that bring distinct values have their group's keys and nothing
        else: what is read is a column beside the keys, though it be one of them.
        """
        if not self.tells_distinct:
            return self._item(value, base).column
        if value.text not in self.read:
            made = Column(self.context.namer.fresh(base), value.type, value.not_null)
            self.read[value.text] = Item(made, value)
        return self.read[value.text].column

    def _column(self, name: str) -> Column:
        return self.scope.column(name)

    def _rule(self, node: Node) -> Rule:
        if kind(node) in JSON_AGGREGATES:
            return Rule.RECOMPUTE
        call = node.func_call
        types = self._types
        rule = rule_of(call, self.context.functions(strings(list(call.funcname))), types)
        if rule is Rule.SUM and self._text(node) in self.told:
            known = argument_type(call, types).decimals or counts_decimals(call, types)
            rule = rule if known else Rule.RECOMPUTE
        if not call.agg_distinct or rule is Rule.RECOMPUTE or ignores_distinct(rule):
            return rule
        return rule if self.tells_distinct and can_be_distinct(call.args[0], types) else Rule.RECOMPUTE
