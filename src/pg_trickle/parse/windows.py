"""Windows: a SELECT with window functions as a SELECT without, the windows over it, and the outputs over those.

PostgreSQL computes windows after GROUP BY and HAVING, from columns and aggregates.  So the inner SELECT
gives just those, and everything that is computed from them stays above.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message
from postgast.pg_query_pb2 import Node, SelectStmt

from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.window import Window
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.expressions import check, over_columns
from pg_trickle.parse.grouping_sets import expanded
from pg_trickle.parse.query import Query
from pg_trickle.parse.reached import is_in_parts
from pg_trickle.parse.scope import Context, Expected
from pg_trickle.parse.timed import is_moved
from pg_trickle.parse.tree import (
    children,
    column_reference,
    has_subquery,
    is_expression,
    kind,
    location,
    printed,
    rebuilt,
    strings,
)
from pg_trickle.parse.types import Types, fact_type
from pg_trickle.scalar import UNKNOWN, Column, Scalar, Type, column

_LIKE_ARGUMENT = {"lag", "lead", "first_value", "last_value", "nth_value", "min", "max"}
# lag(x, 1, y) has the type that x and y have in common.
_WITH_DEFAULT = 3
_NEVER_NULL = {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "count"}


def is_windowed(statement: SelectStmt) -> bool:
    """Whether an output is computed by a window function."""
    return any(_is_call(part) for target in statement.target_list for part in _parts(target))


def windowed(
    statement: SelectStmt, context: Context, expected: Expected, parse: Callable[[SelectStmt, Context], Query]
) -> tuple[Plan, tuple[Scalar, ...]]:
    """The plan of a SELECT with windows before its outputs are computed, and the outputs over it."""
    targets = [node.res_target.val for node in statement.target_list]
    _check_frames(targets)
    leaves = _Leaves(statement, context)
    for target in targets:
        leaves.collect(target)
    below = parse(_inner(statement, list(leaves.found.values())), context)
    known = dict(zip(leaves.found, (made.name for _, made in below.outputs), strict=True))

    def replace(part: Node) -> Node | None:
        return column_reference(known[printed(part)]) if leaves.is_leaf(part) else None

    steps = _Steps(below.plan, context)
    nodes = [rebuilt(target, replace) for target in targets]
    for place, node in enumerate(nodes):
        wanted = fact_type(expected[place]) if expected is not None and place < len(expected) else UNKNOWN
        for part in _parts(node):
            if _is_call(part):
                steps.add(part, wanted if part is node else UNKNOWN)
    return steps.plan(), tuple(map(steps.output, nodes))


def partitioned(call: Item, keys: tuple[str, ...]) -> Item:
    """A window call that partitions by more columns."""
    node = parse_select(f"SELECT {call.value.text}").target_list[0].res_target.val
    for key in keys:
        node.func_call.over.partition_clause.add().CopyFrom(column_reference(key))
    return dataclasses.replace(
        call, value=dataclasses.replace(call.value, text=printed(node), columns=call.value.columns | set(keys))
    )


def _check_frames(targets: list[Node]) -> None:
    """Refuse frames as wide as a subquery says: no column of a plan may stand there."""
    for call in (part for target in targets for part in _parts(target) if _is_call(part)):
        if has_subquery(call.func_call.over.start_offset) or has_subquery(call.func_call.over.end_offset):
            raise UnsupportedQuery(
                "window frame with a subquery", "no rule knows the frame's width.", position=location(call)
            )


def _parts(message: Message) -> Iterator[Node]:
    """The nodes at or below a message, without those inside subqueries."""
    if isinstance(message, Node):
        yield message
        if kind(message) == "sub_link":
            return
    for child in children(message):
        yield from _parts(child)


def _outermost(message: Message) -> Iterator[Node]:
    """The outermost nodes strictly inside a message."""
    for child in children(message):
        if isinstance(child, Node):
            yield child
        else:
            yield from _outermost(child)


def _is_call(node: Node) -> bool:
    return kind(node) == "func_call" and node.func_call.HasField("over")


class _Leaves:
    """What the targets read of the inner SELECT, by its text: columns, aggregates, grouped expressions, subqueries."""

    def __init__(self, statement: SelectStmt, context: Context) -> None:
        self.found: dict[str, Node] = {}
        self._context = context
        self._grouped = {printed(key) for keys in expanded(statement.group_clause) for key in keys}

    def collect(self, message: Message) -> None:
        """Take in the outermost leaves at or below."""
        if isinstance(message, Node) and self.is_leaf(message):
            self.found.setdefault(printed(message), message)
            return
        for child in children(message):
            self.collect(child)

    def is_leaf(self, node: Node) -> bool:
        """Whether the inner SELECT computes it."""
        if kind(node) in {"column_ref", "sub_link", "grouping_func"}:
            return True
        if self._context.aggregates(node):
            return True
        if (is_moved(node) or (is_in_parts(node) and has_subquery(node))) and not any(map(_is_call, _parts(node))):
            return True
        return bool(self._grouped) and is_expression(node) and printed(node) in self._grouped


def _inner(statement: SelectStmt, leaves: list[Node]) -> SelectStmt:
    inner = SelectStmt()
    inner.CopyFrom(statement)
    for name in ("target_list", "distinct_clause", "sort_clause"):
        inner.ClearField(name)
    for place, leaf in enumerate(leaves, 1):
        target = inner.target_list.add().res_target
        target.name = f"w{place}"
        target.val.CopyFrom(leaf)
    return inner


@dataclass(slots=True)
class _Step:
    """Windows with PARTITION BY columns in common."""

    keys: frozenset[str]
    calls: list[Item]


@dataclass(slots=True)
class _Steps:
    """Collects window calls over a plan; those that share no PARTITION BY column are computed one after the other."""

    source: Plan
    context: Context
    steps: list[_Step] = field(default_factory=list)
    made: dict[str, Item] = field(default_factory=dict)
    keys: dict[str, Item] = field(default_factory=dict)

    def add(self, node: Node, wanted: Type) -> None:
        """A window call; ``wanted`` is its type if that is known from elsewhere."""
        for part in _outermost(node.func_call):
            check(part, self.context)
        if printed(node) in self.made:
            return
        value = over_columns(node, self.source.columns, self.context)
        name = strings(list(node.func_call.funcname))[-1]
        of = self._type(node, name)
        made = Column(
            self.context.namer.fresh(name), wanted if of == UNKNOWN else of, not_null=self._never_null(node, name)
        )
        self.made[printed(node)] = Item(made, value)
        self._place(frozenset(map(self._key, node.func_call.over.partition_clause)), self.made[printed(node)])

    def plan(self) -> Plan:
        """The windows over the plan."""
        made = self.source
        if any(not item.value.is_column for item in self.keys.values()):
            items = [Item(one, column(one)) for one in made.columns]
            made = Project(made, (*items, *(item for item in self.keys.values() if not item.value.is_column)))
        everything = any(not step.keys for step in self.steps)
        if everything:
            calls = tuple(call for step in self.steps for call in step.calls)
            return Window(made, (), names(made), calls)
        for step in self.steps:
            made = Window(made, tuple(sorted(step.keys)), names(made), tuple(step.calls))
        return made

    def output(self, node: Node) -> Scalar:
        """An output over what the windows made."""

        def replace(part: Node) -> Node | None:
            return column_reference(self.made[printed(part)].column.name) if _is_call(part) else None

        over = rebuilt(node, replace)
        check(over, self.context)
        return over_columns(over, (*self.source.columns, *(item.column for item in self.made.values())), self.context)

    def _place(self, keys: frozenset[str], call: Item) -> None:
        for step in self.steps:
            if step.keys & keys or not (step.keys or keys):
                step.keys &= keys
                step.calls.append(call)
                return
        self.steps.append(_Step(keys, [call]))

    def _key(self, node: Node) -> str:
        """The column that holds a PARTITION BY expression."""
        check(node, self.context)
        value = over_columns(node, self.source.columns, self.context)
        if value.text not in self.keys:
            name = next(iter(value.columns)) if value.is_column else self.context.namer.fresh("partition")
            self.keys[value.text] = Item(Column(name, value.type, value.not_null), value)
        return self.keys[value.text].column.name

    def _type(self, node: Node, name: str) -> Type:
        types = Types(self.context.request.functions, self._resolve)
        arguments = list(node.func_call.args)
        builtin = all(fact.builtin for fact in self.context.functions(strings(list(node.func_call.funcname))))
        if builtin and name in _LIKE_ARGUMENT and arguments:
            return types.of(arguments[0]) if len(arguments) < _WITH_DEFAULT else UNKNOWN
        return types.of(node)

    def _never_null(self, node: Node, name: str) -> bool:
        functions = self.context.functions(strings(list(node.func_call.funcname)))
        return name in _NEVER_NULL and all(fact.builtin for fact in functions)

    def _resolve(self, name: tuple[str, ...]) -> Column:
        return next(one for one in self.source.columns if one.name == name[0])
