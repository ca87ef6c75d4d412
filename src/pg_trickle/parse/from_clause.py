"""FROM: tables, views, stream tables, derived tables, WITH queries and joins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import JoinExpr, Node, RangeSubselect, RangeVar, SelectStmt
from psycopg import sql

from pg_trickle.algebra import linear
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.source import Unit, Unwatched
from pg_trickle.catalog.model import RelationFact
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.attached import Attachment
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.expressions import equated, scalar
from pg_trickle.parse.implied import with_implied
from pg_trickle.parse.laterals import FUNCTIONS, is_lateral, over_subqueries, refers
from pg_trickle.parse.once import once
from pg_trickle.parse.outer_joins import full_join, left_join, on_its_side
from pg_trickle.parse.query import ParseQuery, Query
from pg_trickle.parse.recursion import recursion
from pg_trickle.parse.relations import COMPARED, check_captured, check_visible, scan
from pg_trickle.parse.scope import Context, Entry, Scope
from pg_trickle.parse.subqueries import Lowering, is_lowered
from pg_trickle.parse.tree import conjuncts, kind, located, only, strings
from pg_trickle.parse.types import fact_type
from pg_trickle.parse.undecided import sampled
from pg_trickle.scalar import BOOL, UNKNOWN, Column, Scalar, column, composed, identifier

Item = tuple[Plan, Scope]

_RANGE_VAR = frozenset({"schemaname", "relname", "inh", "relpersistence", "alias", "location"})
_SUBSELECT = frozenset({"subquery", "alias", "lateral"})
_JOIN = frozenset(
    {"jointype", "is_natural", "larg", "rarg", "using_clause", "quals", "alias", "rtindex", "join_using_alias"}
)


def from_clause(items: list[Node], context: Context, parse: ParseQuery) -> Item:
    """The cross product of the items of FROM."""
    if not items:
        return Unit(), Scope()
    plan, scope = from_item(items[0], context, parse)
    for node in items[1:]:
        plan, own = beside(plan, scope, node, context, parse)
        scope += own
    return plan, scope


def beside(plan: Plan, scope: Scope, node: Node, context: Context, parse: ParseQuery) -> Item:
    """A plan and an item of FROM that may refer to it: both together, and the names that the item brings."""
    if refers(node, scope):
        return from_item(node, context, parse, (plan, scope))
    right, own = from_item(node, context, parse)
    return Join(plan, right), own


def from_item(node: Node, context: Context, parse: ParseQuery, left: Item | None = None) -> Item:
    """One item of FROM and the names it brings; given what it refers to on its left, the plan of both."""
    with located(node):
        return _located_item(node, context, parse, left)


def _located_item(node: Node, context: Context, parse: ParseQuery, left: Item | None) -> Item:
    if is_lateral(node) or kind(node) in FUNCTIONS:
        plan, scope = left or (Unit(), Scope())
        return over_subqueries(node, plan, replace(scope, outer=context.outer), context, parse)
    match kind(node):
        case "range_var":
            return _range_var(node.range_var, context, parse)
        case "range_subselect":
            return _derived(node.range_subselect, context, parse, left)
        case "join_expr":
            return _join(node.join_expr, context, parse, left)
        case "range_table_sample":
            raise sampled(node)
        case other:
            raise UnsupportedQuery(other.replace("_", " "), "it has no delta rule.")


def _range_var(named: RangeVar, context: Context, parse: ParseQuery) -> Item:
    only(named, _RANGE_VAR, "table reference")
    aliases = strings(list(named.alias.colnames))
    if not named.schemaname and named.relname in context.ctes:
        common = context.ctes[named.relname]
        if common.found is not None:
            query = Query(common.found, tuple(zip(common.aliases, common.found.columns, strict=True)))
        elif common.is_recursive:
            query = once(common, context, lambda: recursion(named.relname, common, context, parse))
        else:
            inside = replace(context, ctes=common.ctes, outer=common.outer)
            query = once(common, context, lambda: parse(common.statement, inside))
        return query.plan, _scope(named.alias.aliasname or named.relname, query, aliases or common.aliases)
    fact = context.relation(named.schemaname, named.relname)
    alias = named.alias.aliasname or named.relname
    check_visible(fact)
    if fact.kind == "view":
        assert fact.definition is not None
        definition = parse_select(fact.definition)
        query = once(fact.oid, context, lambda: _viewed(fact, definition, named, context, parse))
        return query.plan, _scope(alias, query, aliases, tuple(column.name for column in fact.columns))
    if not named.inh and fact.kind in {"partitioned", "inherited"}:
        raise UnsupportedQuery(
            f'ONLY "{fact.schema}.{fact.name}"', "its changes and those below it are captured together."
        )
    if fact.kind in COMPARED:
        query = once(fact.oid, context, lambda: _compared(fact, context))
        return query.plan, _scope(alias, query, aliases)
    check_captured(fact)
    table = scan(fact, context)
    query = Query(table, tuple((field.attribute, field.column) for field in table.fields))
    return table, _scope(alias, query, aliases)


def _viewed(fact: RelationFact, definition: SelectStmt, named: RangeVar, context: Context, parse: ParseQuery) -> Query:
    """A view's query.  Places in its text mean nothing in that of the query that names it."""
    try:
        return parse(definition, replace(context, ctes={}, outer=None))
    except UnsupportedQuery as refusal:
        refusal.stands_in(f"{fact.schema}.{fact.name}", named.location + 1 if named.location > 0 else None)
        raise


def _compared(fact: RelationFact, context: Context) -> Query:
    """A relation that no trigger watches: each refresh compares it with what it was.  Its NOT NULL is but a claim."""
    used = [one for one in fact.columns if one.name in fact.used] or list(fact.columns[:1])
    if not used:
        raise UnsupportedQuery(f'relation "{fact.schema}.{fact.name}"', "it has no columns to compare.")
    columns = tuple(Column(context.namer.fresh(one.name), fact_type(one)) for one in used)
    text = sql.SQL("SELECT {columns} FROM {relation}").format(
        columns=sql.SQL(", ").join(sql.Identifier(one.name) for one in used),
        relation=sql.Identifier(fact.schema, fact.name),
    )
    what = fact.kind.replace("_", " ") + (" table" if fact.kind == "foreign" else "")
    reason = (
        f"No trigger watches {what} {fact.schema}.{fact.name}: each refresh reads it and compares it with what it was."
    )
    plan = Recompute(Unwatched(), text.as_string(None), columns, reason)
    by_name = dict(zip((one.name for one in used), columns, strict=True))
    hidden = Column(context.namer.fresh("unused"), UNKNOWN)
    outputs = tuple((one.name, by_name.get(one.name, hidden)) for one in fact.columns)
    return Query(plan, outputs)


def _derived(derived: RangeSubselect, context: Context, parse: ParseQuery, left: Item | None) -> Item:
    only(derived, _SUBSELECT, "derived table")
    aliases = strings(list(derived.alias.colnames))
    if left is None:
        query = parse(derived.subquery.select_stmt, context)
        return query.plan, _scope(derived.alias.aliasname, query, aliases)
    plan, scope = left
    visible = replace(scope, outer=context.outer)
    query = parse(derived.subquery.select_stmt, replace(context, outer=visible))
    attached = Attachment(plan, context)
    made = attached.beside(query)
    return attached.plan, _scope(derived.alias.aliasname, made, aliases)


def _scope(alias: str, query: Query, *renamings: tuple[str, ...]) -> Scope:
    """The query's columns under the alias, renamed from the left by each list of column aliases."""
    outputs = list(query.outputs)
    for aliases in reversed(renamings):
        for place, name in enumerate(aliases):
            outputs[place] = (name, outputs[place][1])
    return Scope((Entry(alias, tuple(outputs)),))


def _join(join: JoinExpr, context: Context, parse: ParseQuery, around: Item | None) -> Item:
    only(join, _JOIN, "join")
    if join.is_natural:
        raise UnsupportedQuery("NATURAL JOIN", "the canonical query should have spelled it out.")
    if around and join.jointype in {kinds.JOIN_RIGHT, kinds.JOIN_FULL}:
        return _for_each(join, context, parse, around)
    left, left_scope = beside(*around, join.larg, context, parse) if around else from_item(join.larg, context, parse)
    visible = around[1] + left_scope if around else left_scope
    # What refers to its left side comes with it, unless it is several.
    is_bound = refers(join.rarg, visible) or (join.jointype == kinds.JOIN_LEFT and is_lateral(join.rarg))
    by_row = is_bound and join.jointype == kinds.JOIN_LEFT and kind(join.rarg) == "join_expr"
    outside = replace(visible, outer=context.outer)
    inside = replace(context, outer=outside) if by_row else context
    right = from_item(join.rarg, inside, parse, (left, visible) if is_bound and not by_row else None)
    pair = _Pair((left, outside), right, left_scope, is_bound)
    if join.jointype == kinds.JOIN_INNER:
        plan = _inner_join(join, pair, context, parse)
    else:
        plan, pair = _outer_join(join, pair, context, parse)
    scope = _sides(join, left_scope, pair.right[1])
    plan, merged = _merged(join, plan, pair.using(join), context)
    if join.HasField("alias"):
        return plan, _joined_alias(join, scope, merged)
    # What USING calls its columns hides nothing.
    named = (Entry(join.join_using_alias.aliasname, merged),) if join.HasField("join_using_alias") else ()
    return plan, Scope((*scope.entries, *named), (*merged, *scope.merged))


def _for_each(join: JoinExpr, context: Context, parse: ParseQuery, around: Item) -> Item:
    """A join that refers to what stands outside of it, as a subquery for each row of that."""
    plan, scope = around
    own, made = _join(join, replace(context, outer=replace(scope, outer=context.outer)), parse, None)
    attached = Attachment(plan, context)
    beside_each, on = attached.independent(own)
    return Join(attached.plan, beside_each, on), made


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both sides of a join with the names that each may use, and those that the left side itself brings.

    The plan of a right side that ``is_bound`` to the left contains it.
    """

    left: Item
    right: Item
    left_scope: Scope
    is_bound: bool

    @property
    def scope(self) -> Scope:
        """The names that the join's condition may use."""
        return replace(self.left_scope + self.right[1], outer=self.left[1].outer)

    def using(self, join: JoinExpr) -> tuple[tuple[str, Column, Column], ...]:
        """The columns that USING names, of either side."""
        listed = strings(list(join.using_clause))
        return tuple((name, self.left_scope.resolve((name,)), self.right[1].resolve((name,))) for name in listed)

    def equal(self, join: JoinExpr) -> tuple[Scalar, ...]:
        """What USING demands."""
        return tuple(_equal(one, other) for _, one, other in self.using(join))


def _conditions(join: JoinExpr) -> tuple[Node, ...]:
    return with_implied(conjuncts(join.quals)) if join.HasField("quals") else ()


def _inner_join(join: JoinExpr, pair: _Pair, context: Context, parse: ParseQuery) -> Plan:
    conditions, scope = _conditions(join), pair.scope
    on = tuple(scalar(part, scope, context) for part in conditions if not is_lowered(part)) + pair.equal(join)
    if pair.is_bound:
        plan = linear.Filter(pair.right[0], on) if on else pair.right[0]
    else:
        plan = Join(pair.left[0], pair.right[0], on)
    lowering = Lowering(plan, scope, context, parse)
    lowering.keep(filter(is_lowered, conditions))
    return lowering.plan


def _outer_join(join: JoinExpr, pair: _Pair, context: Context, parse: ParseQuery) -> tuple[Plan, _Pair]:
    """The join, and its sides as they are in it."""
    conditions, equal = _conditions(join), pair.equal(join)
    if pair.is_bound:
        return _bound_join(join, pair, conditions, context, parse)
    placed = on_its_side(pair.left[0], pair.right[0], conditions, pair.scope, context, parse)
    if placed is not None:
        left, right, conditions, lowered = placed
        scope = replace(pair.scope, lowered=lowered)
        on = tuple(scalar(part, scope, context) for part in conditions) + equal
        return _joined(join, left, right, on), pair
    match join.jointype:
        case kinds.JOIN_LEFT:
            return left_join(pair.left, pair.right, conditions, equal, context, parse), pair
        case kinds.JOIN_RIGHT:
            return left_join(pair.right, pair.left, conditions, equal, context, parse), pair
        case _:
            return full_join(pair.left, pair.right, conditions, equal, context, parse), pair


def _bound_join(
    join: JoinExpr, pair: _Pair, conditions: tuple[Node, ...], context: Context, parse: ParseQuery
) -> tuple[Plan, _Pair]:
    """A LEFT JOIN whose right side refers to its left."""
    if kind(join.rarg) != "join_expr":
        if not any(map(is_lowered, conditions)):
            on = tuple(scalar(part, pair.scope, context) for part in conditions) + pair.equal(join)
            found = _beside_its_left(pair.right[0], kind(join.rarg), on)
            if found is not None:
                return found, pair
        pair = replace(pair, right=from_item(join.rarg, replace(context, outer=pair.left[1]), parse))
    return left_join(pair.left, pair.right, conditions, pair.equal(join), context, parse), pair


def _joined(join: JoinExpr, left: Plan, right: Plan, on: tuple[Scalar, ...]) -> Plan:
    match join.jointype:
        case kinds.JOIN_LEFT:
            return LeftJoin(left, right, on)
        case kinds.JOIN_RIGHT:
            return LeftJoin(right, left, on)
        case kinds.JOIN_FULL:
            return FullJoin(left, right, on)
        case _:
            raise UnsupportedQuery("join", "it is of a kind that no rule knows.")


def _beside_its_left(beside: Plan, item: str, on: tuple[Scalar, ...]) -> Plan | None:
    """A LEFT JOIN to what is beside its left side already, if one operator is just that."""
    if isinstance(beside, Lateral):
        return replace(beside, outer=True, on=on)
    if item != "range_subselect":
        return None
    if isinstance(beside, Join):
        return LeftJoin(beside.left, beside.right, beside.on + on)
    # An aggregate of all rows has its row.
    return beside if all(one.text == "true" for one in on) else None


def _sides(join: JoinExpr, left: Scope, right: Scope) -> Scope:
    """The names of both sides, as they are above the join."""
    match join.jointype:
        case kinds.JOIN_LEFT:
            return left + right.padded
        case kinds.JOIN_RIGHT:
            return left.padded + right
        case kinds.JOIN_FULL:
            return left.padded + right.padded
        case _:
            return left + right


def _merged(
    join: JoinExpr, plan: Plan, using: tuple[tuple[str, Column, Column], ...], context: Context
) -> tuple[Plan, tuple[tuple[str, Column], ...]]:
    """The columns that USING makes of pairs: that of the side whose rows are all there, or of either where it is."""
    if join.jointype != kinds.JOIN_FULL or not using:
        from_right = join.jointype == kinds.JOIN_RIGHT
        return plan, tuple((name, other if from_right else one) for name, one, other in using)
    made = [(name, _either(one, other, context)) for name, one, other in using]
    items = tuple(linear.Item(one, column(one)) for one in plan.columns)
    return linear.Project(plan, (*items, *(item for _, item in made))), tuple((name, one.column) for name, one in made)


def _either(left: Column, right: Column, context: Context) -> linear.Item:
    text = sql.SQL("COALESCE({left}, {right})").format(left=sql.Identifier(left.name), right=sql.Identifier(right.name))
    of = left.type if left.type == right.type else UNKNOWN
    made = Column(context.namer.fresh(left.name.rpartition("__")[0]), of, left.not_null and right.not_null)
    return linear.Item(made, composed(text, frozenset((left.name, right.name)), of, not_null=made.not_null))


def _equal(left: Column, right: Column) -> Scalar:
    """``left = right`` by the operator that USING finds: the one a bare ``=`` finds too."""
    return Scalar(
        f"{identifier(left.name)} = {identifier(right.name)}",
        frozenset((left.name, right.name)),
        BOOL,
        equates=equated(left, right),
    )


def _joined_alias(join: JoinExpr, scope: Scope, merged: tuple[tuple[str, Column], ...]) -> Scope:
    """An alias over a whole join: merged columns first, then the others; it hides what is inside."""
    hidden = {name for name, _ in merged}
    rest = [pair for entry in scope.entries for pair in entry.columns if pair[0] not in hidden]
    query = Query(Unit(), (*merged, *rest))
    return _scope(join.alias.aliasname, query, strings(list(join.alias.colnames)))
