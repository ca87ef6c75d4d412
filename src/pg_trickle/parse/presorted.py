"""What is gathered from a sorted subquery: ``SELECT array_agg(x) FROM (SELECT x FROM t ORDER BY y) AS q``.

PostgreSQL reads such a subquery as it is sorted, and its manual says that this mostly works; not where it sorts the
rows again, into groups.  A delta has no order, so the subquery's is written where it matters:
``array_agg(x ORDER BY y)``.  So it is where subqueries that only select stand between the two, as Prisma has them, and
for LIMIT, DISTINCT ON and ``row_number() OVER ()``: ``SELECT * FROM (SELECT x FROM t ORDER BY y) AS q LIMIT 5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from postgast.pg_query_pb2 import (
    ANY_SUBLINK,
    EXISTS_SUBLINK,
    SETOP_NONE,
    SORTBY_DESC,
    SORTBY_USING,
    Node,
    ResTarget,
    SelectStmt,
    SortBy,
)

from pg_trickle.parse.bare_windows import collects, counting, counts, is_bare, is_window, numbered
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.common_tables import common_tables
from pg_trickle.parse.expressions import returns_set
from pg_trickle.parse.inlined import inlined
from pg_trickle.parse.scope import CommonTable, Context
from pg_trickle.parse.tree import (
    column_reference,
    kind,
    nodes,
    outside_subqueries,
    printed,
    rebuilt,
    strings,
)
from pg_trickle.parse.undecided import leaves_rows_out

_VALUES = "*VALUES*"
_ADDED = "__pgt_order_{place}"


def with_presorted(statement: SelectStmt, context: Context) -> SelectStmt:
    """The SELECT whose aggregates and windows say in which order they go, where what they read is sorted."""
    listed = [part for node in _listed(statement) for part in outside_subqueries(node)]
    windows = [part for part in listed if is_window(part)]
    is_grouped = bool(statement.group_clause) or statement.HasField("having_clause")
    is_grouped |= any(map(context.aggregates, listed))
    is_counted = not is_grouped and all(map(is_bare, windows)) and any(counts(part, context) for part in windows)
    if not is_counted and not any(_gathers(part, context) for part in listed):
        return statement
    found = _as_below(statement, context)
    if found is None:
        return statement
    may_be_lost = found.may_be_lost or bool(statement.group_clause) or any(_sorts(part, context) for part in listed)

    if is_counted:
        _count(found.statement, found.order, context)

    def ordered(part: Node) -> Node | None:
        if kind(part) == "sub_link":
            return part
        if not _gathers(part, context):
            return None
        if may_be_lost:
            context.borrowed[printed(part)] = None
        return _gathering(part, found.order)

    for node in _listed(found.statement):
        node.CopyFrom(rebuilt(node, ordered))
    return found.statement


def _count(statement: SelectStmt, order: list[SortBy], context: Context) -> None:
    """Say in which order rows come to the windows of a SELECT, all of which are bare."""

    def ordered(part: Node) -> Node | None:
        if kind(part) == "sub_link":
            return part
        if not (is_window(part) and counts(part, context)):
            return None
        context.borrowed[printed(part)] = None
        return counting(part, order, context)

    for node in _listed(statement):
        node.CopyFrom(rebuilt(node, ordered))


def with_choice(statement: SelectStmt, context: Context) -> SelectStmt:
    """The SELECT whose LIMIT, OFFSET or DISTINCT ON says which rows come first, where what it reads is sorted."""
    on = [node for node in statement.distinct_clause if kind(node)]
    if not on and not leaves_rows_out(statement):
        return statement
    found = _first_of_each(statement, on, context) if on else _sorted_below(statement, context)
    if found is None or found.may_be_lost:
        return statement
    what = "DISTINCT ON" if on else "LIMIT" if statement.HasField("limit_count") else "OFFSET"
    context.borrowed[what] = None
    return found.statement


def _first_of_each(statement: SelectStmt, on: list[Node], context: Context) -> _Below | None:
    """The same of DISTINCT ON: rows that are sorted by its keys, upwards, before all else aren't sorted again."""
    bare = SelectStmt()
    bare.CopyFrom(statement)
    bare.ClearField("distinct_clause")
    found = _sorted_below(bare, context)
    keys = [one.node for one in found.order] if found else []
    if found is None or len(keys) < len(on) or not all(map(_is_same, on, keys)):
        return None
    if any(one.sortby_dir in {SORTBY_DESC, SORTBY_USING} for one in found.order[: len(on)]):
        return None
    found.statement.distinct_clause.extend(statement.distinct_clause)
    for key, one in zip(found.statement.sort_clause, on, strict=False):
        key.sort_by.node.CopyFrom(one)
    return found


def sorted_as_below(statement: SelectStmt, context: Context) -> SelectStmt:
    """A SELECT that says in which order its rows come, where what it reads is sorted: for ARRAY(SELECT …)."""
    found = _with_order(statement, context)
    if found is None:
        return statement
    if found.may_be_lost:
        context.borrowed["ARRAY(subquery)"] = None
    return found.statement


def _with_order(statement: SelectStmt, context: Context) -> _Below | None:
    """The same, with the queries of its own WITH, and its LIMIT counting in that order."""
    context = replace(context, ctes=common_tables(statement, context))
    counted = with_choice(statement, context)
    if counted.sort_clause:
        return _Below(counted, [], may_be_lost=False)
    return None if leaves_rows_out(counted) else _sorted_below(counted, context)


def _sorted_below(statement: SelectStmt, context: Context) -> _Below | None:
    """A SELECT that says in which order its rows come; None if it does, or they needn't come as those it reads."""
    found = None if _changes_order(statement, context) else _as_below(statement, context)
    if found is None:
        return None
    order = found.order
    if any(is_window(part) for node in _listed(statement) for part in outside_subqueries(node)):
        _count(found.statement, found.order, context)
        # Rows that tie come as they are counted.
        order = [*order, numbered(order, context)]
    for one in order:
        found.statement.sort_clause.add().sort_by.CopyFrom(one)
    return replace(found, order=order)


def _changes_order(statement: SelectStmt, context: Context) -> bool:
    """Whether its rows needn't come as those do that it reads: it sorts them, and by windows too, or makes others."""
    clauses = (statement.sort_clause, statement.distinct_clause, statement.group_clause)
    if any(clauses) or statement.HasField("having_clause"):
        return True
    if any(returns_set(one.val, context) for one in _targets(statement)):
        return True
    listed = [part for node in _listed(statement) for part in outside_subqueries(node)]
    return any(context.aggregates(part) or (is_window(part) and not is_bare(part)) for part in listed)


def _leaves_open(statement: SelectStmt, context: Context) -> bool:
    """Whether it makes several rows of one that its sort keys don't tell apart: these come as they are made."""
    targets = _targets(_leftmost(statement))
    made = {place for place, one in enumerate(targets) if returns_set(one.val, context)}
    return not made <= {_place(node.sort_by.node, targets) for node in statement.sort_clause}


def _is_same(reference: Node, qualified: Node) -> bool:
    """Whether a reference is this column, by its name alone too: there are no others."""
    named = column_reference(_implied(qualified))
    return printed(reference) in {printed(qualified), printed(named)}


def _listed(statement: SelectStmt) -> list[Node]:
    """What a SELECT computes of all the rows that it reads: its outputs, HAVING and ORDER BY."""
    having = [statement.having_clause] if statement.HasField("having_clause") else []
    keys = [node.sort_by.node for node in statement.sort_clause]
    return [*(node.res_target.val for node in statement.target_list), *having, *keys]


def _gathers(part: Node, context: Context) -> bool:
    """Whether it is a call of an aggregate to which the order of its input matters, and which doesn't say any."""
    if kind(part) == "json_array_agg":
        return not part.json_array_agg.constructor.agg_order
    if kind(part) != "func_call" or not context.aggregates(part):
        return False
    call = part.func_call
    if call.agg_order or call.agg_within_group or call.agg_distinct or call.agg_star:
        return False
    return collects(part, context)


def _sorts(part: Node, context: Context) -> bool:
    """Whether it is an aggregate for which PostgreSQL 16 and later sort what all the others see, too."""
    is_call = kind(part) == "func_call" and context.aggregates(part)
    return is_call and bool(part.func_call.agg_order or part.func_call.agg_distinct)


def _gathering(part: Node, order: list[SortBy]) -> Node:
    made = Node()
    made.CopyFrom(part)
    held = made.func_call if kind(made) == "func_call" else made.json_array_agg.constructor
    for one in order:
        held.agg_order.add().sort_by.CopyFrom(one)
    return made


@dataclass(frozen=True, slots=True)
class _Below:
    """A SELECT, and the order of all that it reads as its own columns say it.

    ``may_be_lost``: a condition with a subquery stands between, of which PostgreSQL makes a join as it likes.
    """

    statement: SelectStmt
    order: list[SortBy]
    may_be_lost: bool


def _as_below(statement: SelectStmt, context: Context) -> _Below | None:
    """None where what it reads has no order, or one of columns that it can't see."""
    if statement.op != SETOP_NONE or len(statement.from_clause) != 1:
        return None
    copy = inlined(statement, context)
    return _as_item(statement, context) or (_as_item(copy, context) if copy is not None else None)


def _as_item(statement: SelectStmt, context: Context) -> _Below | None:
    made = SelectStmt()
    made.CopyFrom(statement)
    found = _sorted(made.from_clause[0], context)
    if found is None:
        return None
    may_be_lost = _joins(statement)
    below = _with_order(found.statement, replace(context, ctes=found.ctes))
    if below is not None:
        # Where it is part of the copy it says there in which order its rows come.
        found.statement.CopyFrom(below.statement)
        may_be_lost |= below.may_be_lost
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
    return _Below(made, order, may_be_lost)


def _joins(statement: SelectStmt) -> bool:
    """Whether PostgreSQL may join what a condition asks for: by a merge, or in batches, rows come in another order."""
    links = (part.sub_link for part in outside_subqueries(statement.where_clause) if kind(part) == "sub_link")
    return any(link.sub_link_type in {EXISTS_SUBLINK, ANY_SUBLINK} for link in links)


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
    ctes: Mapping[str, CommonTable]

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
        columns = strings(list(named.alias.colnames))
        return _Sorted(named.subquery.select_stmt, named.alias.aliasname, columns, is_own=True, ctes=context.ctes)
    if kind(item) != "range_var":
        return None
    table = item.range_var
    alias, columns = table.alias.aliasname or table.relname, strings(list(table.alias.colnames))
    if not table.schemaname and table.relname in context.ctes:
        common = context.ctes[table.relname]
        if common.is_recursive or common.found is not None:
            return None
        copy = SelectStmt()
        copy.CopyFrom(common.statement)
        names = (*columns, *common.aliases[len(columns) :])
        return _Sorted(copy, alias, names, is_own=False, ctes=common.ctes)
    fact = context.relation(table.schemaname, table.relname)
    if fact.kind != "view" or fact.definition is None:
        return None
    shown = tuple(one.name for one in fact.columns)
    names = (*columns, *shown[len(columns) :])
    return _Sorted(parse_select(fact.definition), alias, names, is_own=False, ctes={})


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
