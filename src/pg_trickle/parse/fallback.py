"""What has no rule: recomputed by its own text, if that decides with the rows alone what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from postgast.pg_query_pb2 import LIMIT_OPTION_DEFAULT, SETOP_NONE, Node, SelectStmt

from pg_trickle.algebra.linear import Project, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.source import Unit, Unwatched
from pg_trickle.catalog.model import CompileRequest, RelationFact
from pg_trickle.errors import Overgrown, Undetermined, UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.moments import is_time
from pg_trickle.parse.query import ParseQuery, Query
from pg_trickle.parse.relations import check_captured, check_visible, scan
from pg_trickle.parse.scope import CommonTable, Context, Namer
from pg_trickle.parse.tree import column_reference, kind, messages, nodes, printed_select
from pg_trickle.parse.types import fact_type
from pg_trickle.parse.undecided import leaves_rows_out, locked, sampled, unordered
from pg_trickle.parse.volatility import reads_named_relations
from pg_trickle.scalar import UNKNOWN, Column, Type


def whole(request: CompileRequest, refusal: UnsupportedQuery) -> Query:
    """The defining query, recomputed; raises the refusal where even that could not be relied on."""
    context = Context(request, Namer())
    columns = tuple(Column(context.namer.fresh(fact.name), fact_type(fact)) for fact in request.columns)
    plan = _recomputed(parse_select(request.query), request.query, columns, context, refusal)
    return Query(plan, tuple((fact.name, column) for fact, column in zip(request.columns, columns, strict=True)))


def part(statement: SelectStmt, context: Context, refusal: UnsupportedQuery) -> Query:
    """A derived table, view or WITH query that has no rule, recomputed with the WITH queries that it uses."""
    if any(kind(target.res_target.val) == "row_expr" for target in _first_branch(statement).target_list):
        # A row without a type can't be stored.
        raise refusal
    return _part(statement, [(name, UNKNOWN) for name in output_names(statement)], context, refusal)


def recursion(name: str, common: CommonTable, context: Context, parse: ParseQuery, refusal: UnsupportedQuery) -> Query:
    """A recursive WITH query, recomputed; its columns have the types of the term that isn't recursive."""
    first = common.statement.larg
    inside = replace(context, ctes=common.ctes, outer=None)
    try:
        types = [column.type.of_any_scale for _, column in parse(first, inside).outputs]
    except UnsupportedQuery:
        types = [UNKNOWN for _ in output_names(first)]
    names = list(output_names(common.statement))
    names[: len(common.aliases)] = common.aliases
    columns = list(zip(names, types, strict=True))
    statement = SelectStmt(limit_option=LIMIT_OPTION_DEFAULT, op=SETOP_NONE)
    for made, _ in columns:
        statement.target_list.add().res_target.val.CopyFrom(column_reference(made))
    table = statement.from_clause.add().range_var
    table.relname, table.inh, table.relpersistence = name, True, "p"
    return _part(statement, columns, replace(context, ctes={**common.ctes, name: common}, outer=None), refusal)


def _part(
    statement: SelectStmt, columns: Sequence[tuple[str, Type]], context: Context, refusal: UnsupportedQuery
) -> Query:
    if isinstance(refusal, Overgrown):
        # Only the query as its author wrote it is short.
        raise refusal
    closed = _self_contained(statement, context.ctes, refusal)
    made = tuple(Column(context.namer.fresh(name), of) for name, of in columns)
    plan = _recomputed(closed, printed_select(closed), made, context, refusal)
    return Query(plan, tuple((name, column) for (name, _), column in zip(columns, made, strict=True)))


def output_names(statement: SelectStmt) -> tuple[str, ...]:
    """The names of a SELECT's columns."""
    first = _first_branch(statement)
    if first.values_lists:
        return tuple(f"column{place}" for place, _ in enumerate(first.values_lists[0].list.items, 1))
    return tuple(target.res_target.name or _own_name(target.res_target.val) for target in first.target_list)


def _first_branch(statement: SelectStmt) -> SelectStmt:
    return statement if statement.op == SETOP_NONE else _first_branch(statement.larg)


def _own_name(node: Node) -> str:
    return node.column_ref.fields[-1].string.sval if kind(node) == "column_ref" else "?column?"


def _recomputed(
    statement: SelectStmt, text: str, columns: tuple[Column, ...], context: Context, refusal: UnsupportedQuery
) -> Plan:
    if isinstance(refusal, Undetermined):
        raise refusal
    facts: dict[int, RelationFact] = {}
    try:
        is_unseen = _gather(statement, context, facts)
    except UnsupportedQuery as deeper:
        raise refusal from deeper
    tables: Plan = Unit()
    for place, fact in enumerate(facts.values()):
        table = scan(fact, context)
        read = tuple(field for field in table.fields if field.attribute in fact.used)
        rows = Project(replace(table, fields=read, keys=()), ())
        tables = rows if place == 0 else UnionAll(tables, rows)
    if is_unseen:
        tables = UnionAll(tables, Unwatched())
    return Recompute(tables, text, columns, f"{refusal.message}: {refusal.reason}", refusal.way_out)


def _gather(statement: SelectStmt, context: Context, facts: dict[int, RelationFact]) -> bool:
    """Every table that the statement reads, through views too, and whether what it gives changes unseen.

    The time does, whenever somebody looks.  Of a table's own rows, without its children's, the changes of all
    together don't tell: a row that comes and one alike that goes from a child are none.  Refuses what isn't decided
    by rows and time.
    """
    if not reads_named_relations(statement):
        raise UnsupportedQuery("a system catalog, system column or session value", "no trigger can watch it.")
    _check_decided(statement)
    is_unseen = any(map(is_time, nodes(statement)))
    for part in nodes(statement):
        if kind(part) != "range_var" or not part.range_var.schemaname:
            continue
        fact = context.relation(part.range_var.schemaname, part.range_var.relname)
        if fact.kind != "view":
            check_captured(fact)
            facts[fact.oid] = fact
            is_unseen |= fact.kind == "inherited" and not part.range_var.inh
            continue
        check_visible(fact)
        assert fact.definition is not None
        is_unseen |= _gather(parse_select(fact.definition), context, facts)
    return is_unseen


def undetermined(request: CompileRequest) -> Undetermined | None:
    """What in a query, or in a view below it, leaves its result open although no row changes; None if nothing does."""
    for text in request.texts:
        try:
            _check_decided(parse_select(text))
        except Undetermined as found:
            return found
        except UnsupportedQuery:
            continue
    return None


def _check_decided(statement: SelectStmt) -> None:
    for message in messages(statement):
        if isinstance(message, Node) and kind(message) == "range_table_sample":
            raise sampled(message)
        if not isinstance(message, SelectStmt):
            continue
        if message.locking_clause:
            raise locked(message)
        if leaves_rows_out(message) and not message.sort_clause:
            raise unordered(message)


def _self_contained(statement: SelectStmt, known: Mapping[str, CommonTable], refusal: UnsupportedQuery) -> SelectStmt:
    """The statement with the WITH queries from around it that it uses."""
    needed: dict[str, CommonTable] = {}
    _need(statement, known, needed, refusal)
    if not needed:
        return statement
    made = SelectStmt()
    made.CopyFrom(statement)
    del made.with_clause.ctes[:]
    for common in needed.values():
        assert common.expression is not None
        made.with_clause.ctes.add().common_table_expr.CopyFrom(common.expression)
        made.with_clause.recursive = made.with_clause.recursive or common.is_recursive
    made.with_clause.ctes.extend(statement.with_clause.ctes)
    return made


def _need(
    statement: SelectStmt, known: Mapping[str, CommonTable], needed: dict[str, CommonTable], refusal: UnsupportedQuery
) -> None:
    """Collect the WITH queries that a statement uses, those before it that they use first.

    Put into one WITH clause, no two may have the same name, nor one the name of a query inside the statement.
    """
    inside = {part.common_table_expr.ctename for part in nodes(statement) if kind(part) == "common_table_expr"}
    for name in sorted(name for name in known if reads(statement, name)):
        if name in inside or needed.get(name, known[name]) is not known[name]:
            raise refusal
        common = known[name]
        if common.found is not None:
            # By itself the text of a recursive term would read all rows at each step, not those found last.
            raise refusal
        if name not in needed:
            around = {other: one for other, one in common.ctes.items() if not (common.is_recursive and other == name)}
            _need(common.statement, around, needed, refusal)
            needed[name] = common


def reads(statement: SelectStmt, name: str) -> bool:
    """Whether a statement names a WITH query, as far as its text goes."""
    parts = (part.range_var for part in nodes(statement) if kind(part) == "range_var")
    return any(one.relname == name and not one.schemaname for one in parts)
