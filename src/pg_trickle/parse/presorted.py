"""What is gathered from a sorted subquery: ``SELECT array_agg(x) FROM (SELECT x FROM t ORDER BY y) AS q``.

PostgreSQL reads such a subquery as it is sorted, and its manual says that this mostly works; not where it sorts the
rows again, into groups.  A delta has no order, so the subquery's is written where it matters:
``array_agg(x ORDER BY y)``.  So it is where subqueries that only select stand between the two, as Prisma has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from postgast.pg_query_pb2 import SETOP_NONE, Node, ResTarget, SelectStmt, SortBy

from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.expressions import returns_set
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import (
    column_reference,
    kind,
    nodes,
    outside_subqueries,
    printed,
    rebuilt,
    strings,
)

# Those of PostgreSQL's own whose result depends on the order.
_COLLECTS = frozenset({
    "array_agg", "string_agg", "json_agg", "jsonb_agg", "json_agg_strict", "jsonb_agg_strict", "json_object_agg",
    "jsonb_object_agg", "xmlagg",
})  # fmt: skip
_VALUES = "*VALUES*"
_ADDED = "__pgt_order_{place}"


def with_presorted(statement: SelectStmt, context: Context) -> SelectStmt:
    """The SELECT whose aggregates say in which order they gather, where what they read is sorted."""
    listed = [part for node in _listed(statement) for part in outside_subqueries(node)]
    if not any(_gathers(part, context) for part in listed):
        return statement
    found = _as_below(statement, context)
    if found is None:
        return statement
    made, order = found

    def replace(part: Node) -> Node | None:
        if kind(part) == "sub_link":
            return part
        if not _gathers(part, context):
            return None
        if statement.group_clause:
            context.borrowed[printed(part)] = None
        return _gathering(part, order)

    for node in _listed(made):
        node.CopyFrom(rebuilt(node, replace))
    return made


def sorted_as_below(statement: SelectStmt, context: Context) -> SelectStmt:
    """A SELECT that says in which order its rows come, where what it reads is sorted: for ARRAY(SELECT …)."""
    found = None if _changes_order(statement, context) else _as_below(statement, context)
    if found is None:
        return statement
    made, order = found
    for one in order:
        made.sort_clause.add().sort_by.CopyFrom(one)
    return made


def _changes_order(statement: SelectStmt, context: Context) -> bool:
    """Whether its rows needn't come as those do that it reads: it sorts them, and by windows too, or makes others."""
    if statement.sort_clause or statement.distinct_clause or statement.group_clause:
        return True
    if any(returns_set(one.val, context) for one in _targets(statement)):
        return True
    listed = [part for node in _listed(statement) for part in outside_subqueries(node)]
    return any(context.aggregates(part) or _is_window(part) for part in listed)


def _leaves_open(statement: SelectStmt, context: Context) -> bool:
    """Whether it makes several rows of one that its sort keys don't tell apart: these come as they are made."""
    targets = _targets(_leftmost(statement))
    made = {place for place, one in enumerate(targets) if returns_set(one.val, context)}
    return not made <= {_place(node.sort_by.node, targets) for node in statement.sort_clause}


def _only_selects(statement: SelectStmt) -> bool:
    """Whether it neither chooses rows by their order nor has names of its own for what it reads."""
    return not any(statement.HasField(name) for name in ("limit_count", "limit_offset", "with_clause"))


def _is_window(part: Node) -> bool:
    return kind(part) == "func_call" and part.func_call.HasField("over")


def _listed(statement: SelectStmt) -> list[Node]:
    having = [statement.having_clause] if statement.HasField("having_clause") else []
    return [*(node.res_target.val for node in statement.target_list), *having]


def _gathers(part: Node, context: Context) -> bool:
    """Whether it is a call of an aggregate to which the order of its input matters, and which doesn't say any."""
    if kind(part) == "json_array_agg":
        return not part.json_array_agg.constructor.agg_order
    if kind(part) != "func_call" or not context.aggregates(part):
        return False
    call = part.func_call
    if call.agg_order or call.agg_within_group or call.agg_distinct or call.agg_star:
        return False
    name = strings(list(call.funcname))
    return name[-1] in _COLLECTS or not all(fact.builtin for fact in context.functions(name))


def _gathering(part: Node, order: list[SortBy]) -> Node:
    made = Node()
    made.CopyFrom(part)
    held = made.func_call if kind(made) == "func_call" else made.json_array_agg.constructor
    for one in order:
        held.agg_order.add().sort_by.CopyFrom(one)
    return made


def _as_below(statement: SelectStmt, context: Context) -> tuple[SelectStmt, list[SortBy]] | None:
    """The SELECT, and the order of all that it reads as its own columns say it; None where that has none."""
    if statement.op != SETOP_NONE or len(statement.from_clause) != 1:
        return None
    made = SelectStmt()
    made.CopyFrom(statement)
    found = _sorted(made.from_clause[0], context)
    if found is None:
        return None
    if found.is_own and _only_selects(found.statement):
        # It is part of the copy, and so says there in which order its rows come.
        found.statement.CopyFrom(sorted_as_below(found.statement, context))
    if not found.statement.sort_clause or _leaves_open(found.statement, context):
        return None
    may_add = found.is_own and not any(_is_row(part, found.alias) for part in nodes(statement))
    order = []
    for node in found.statement.sort_clause:
        name = found.name_of(node.sort_by.node) or (found.add(node.sort_by.node) if may_add else None)
        if name is None:
            return None
        by = SortBy()
        by.CopyFrom(node.sort_by)
        by.node.CopyFrom(column_reference(*([found.alias] if found.alias else []), name))
        order.append(by)
    return made, order


def _is_row(part: Node, alias: str) -> bool:
    """Whether it would take in a column that is added to a subquery: ``*``, or its name as a value."""
    if kind(part) != "column_ref":
        return False
    return _is_star(part) or (len(part.column_ref.fields) == 1 and part.column_ref.fields[0].string.sval == alias)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """What FROM lists; ``is_own``: its text stands there, and nowhere else."""

    statement: SelectStmt
    alias: str
    columns: tuple[str, ...]
    is_own: bool

    def name_of(self, key: Node) -> str | None:
        """The output that a sort key is, by the names outside; None if there is none, or its name may be another's."""
        targets = _targets(_leftmost(self.statement))
        place = None if any(_is_star(one.val) for one in targets) else _place(key, targets)
        own = [one.name or _implied(one.val) for one in targets]
        names = [*self.columns, *own[len(self.columns) :]]
        if place is None:
            return None
        return names[place] if names[place] and names.count(names[place]) == 1 else None

    def add(self, key: Node) -> str | None:
        """Select a sort key, too; the name that it gets."""
        if self.statement.op != SETOP_NONE or self.statement.distinct_clause or self.statement.values_lists:
            return None
        if kind(key) == "a_const" or any(_is_star(node.res_target.val) for node in self.statement.target_list):
            return None
        name = _ADDED.format(place=len(self.statement.target_list))
        target = self.statement.target_list.add().res_target
        target.name = name
        target.val.CopyFrom(key)
        return name


def _place(key: Node, targets: list[ResTarget]) -> int | None:
    """Which output a sort key is, as PostgreSQL looks for it: by number, by name, by text."""
    if kind(key) == "a_const" and key.a_const.WhichOneof("val") == "ival":
        return int(key.a_const.ival.ival) - 1
    # PostgreSQL prints an output of VALUES as "*VALUES*".column1.
    if (
        kind(key) == "column_ref"
        and len(key.column_ref.fields) - (key.column_ref.fields[0].string.sval == _VALUES) == 1
    ):
        named = [place for place, one in enumerate(targets) if (one.name or _implied(one.val)) == _implied(key)]
        if named:
            return named[0]
    texts = [printed(one.val) if one.HasField("val") else None for one in targets]
    return texts.index(printed(key)) if printed(key) in texts else None


def _sorted(item: Node, context: Context) -> _Sorted | None:
    """A derived table, a query of WITH or a view, to be read by that name."""
    if kind(item) == "range_subselect":
        named = item.range_subselect
        return _Sorted(
            named.subquery.select_stmt, named.alias.aliasname, strings(list(named.alias.colnames)), is_own=True
        )
    if kind(item) != "range_var":
        return None
    table = item.range_var
    alias, columns = table.alias.aliasname or table.relname, strings(list(table.alias.colnames))
    if not table.schemaname and table.relname in context.ctes:
        common = context.ctes[table.relname]
        if common.is_recursive or common.found is not None:
            return None
        return _Sorted(common.statement, alias, columns or common.aliases, is_own=False)
    fact = context.relation(table.schemaname, table.relname)
    if fact.kind != "view" or fact.definition is None:
        return None
    return _Sorted(
        parse_select(fact.definition), alias, columns or tuple(one.name for one in fact.columns), is_own=False
    )


def _leftmost(statement: SelectStmt) -> SelectStmt:
    """The SELECT that names what a set operation shows."""
    while statement.op != SETOP_NONE:
        statement = statement.larg
    return statement


def _targets(statement: SelectStmt) -> list[ResTarget]:
    """What a SELECT lists; VALUES names its columns itself."""
    if statement.values_lists:
        return [ResTarget(name=f"column{n}") for n, _ in enumerate(statement.values_lists[0].list.items, 1)]
    return [node.res_target for node in statement.target_list]


def _is_star(node: Node) -> bool:
    return kind(node) == "column_ref" and kind(node.column_ref.fields[-1]) == "a_star"


def _implied(node: Node) -> str:
    """The name of an output that is given none."""
    return node.column_ref.fields[-1].string.sval if kind(node) == "column_ref" and not _is_star(node) else ""
