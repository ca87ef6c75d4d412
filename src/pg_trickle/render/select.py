"""A plan as a query with its columns and the weight."""

from __future__ import annotations

from collections import Counter

from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.kinds import is_bag, is_delta
from pg_trickle.algebra.lateral import ITEM, ROW, Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Field, Opaque, Scan, Source, State, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.render import first
from pg_trickle.render.feed import BUFFERS, Feed, Statement
from pg_trickle.render.joins import is_tested_alone, joined, marked, semi_joined, sought
from pg_trickle.render.leaves import attributes, relation
from pg_trickle.render.netting import INT, consolidated
from pg_trickle.render.partners import found_among, partners, untouched
from pg_trickle.render.parts import (
    CHANGES_SCHEMA,
    WEIGHT,
    conjunction,
    distinct_keys,
    leading,
    names,
    touching,
)
from pg_trickle.render.recursive import recursive
from pg_trickle.render.timed import elapsed, moved, told
from pg_trickle.render.turned import turned
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.scalar import Column, Scalar
from pg_trickle.uniqueness import is_net


class CommonTables:
    """The WITH queries of one statement: each distinct delta that is read twice is computed once.

    Only deltas become WITH queries: they are small.  A table in its new state is always printed in
    place, where its indexes work.  ``local`` names the states whose delta this very statement makes.
    """

    def __init__(self, plans: tuple[Plan, ...], local: frozenset[State] = frozenset(), feed: Feed = BUFFERS) -> None:
        self.local = local
        self.feed = feed
        # By identity: a delta shares its parts as objects, and to compare or hash them as trees takes exponential time.
        self._nodes = {id(node): node for plan in plans for node in distinct(plan)}
        self._uses = Counter(id(below) for node in self._nodes.values() for below in inputs(node))
        self._uses.update(map(id, plans))
        self._deltas: dict[int, bool] = {}
        self._names: dict[int, sql.Identifier] = {}
        self._gates: dict[int, sql.Composable | None] = {}
        self._unnamed = 0
        self.nets_changes = True
        self.order: tuple[str, ...] = ()
        self.sieve: sql.Composable | None = None
        self.bodies: list[sql.Composable] = []

    def add(self, name: str, body: sql.Composable) -> sql.Identifier:
        """A WITH query of the given name."""
        identifier = sql.Identifier(name)
        self.bodies.append(sql.SQL("{name} AS MATERIALIZED ({body})").format(name=identifier, body=body))
        return identifier

    def add_unnamed(self, body: sql.Composable) -> sql.Identifier:
        """A WITH query of a name that no other has."""
        self._unnamed += 1
        return self.add(f"__pgt_{self._unnamed}", body)

    def add_writing(self, name: str, body: sql.Composable) -> sql.Identifier:
        """A WITH query that writes."""
        identifier = sql.Identifier(name)
        self.bodies.append(sql.SQL("{name} AS ({body})").format(name=identifier, body=body))
        return identifier

    def select(self, plan: Plan) -> sql.Composable:
        """The plan as a SELECT of its columns and the weight."""
        if not self._is_shared(plan):
            body = _body(plan, self)
            if not isinstance(plan, Changes) or (gate := self._gate(plan)) is None:
                return body
            return sql.SQL("SELECT {columns}{w} FROM ({body}) AS c WHERE {gate}").format(
                columns=leading(names_of(plan)), w=WEIGHT, body=body, gate=gate
            )
        if id(plan) not in self._names:
            body = _body(plan, self)
            self._names[id(plan)] = self.add_unnamed(body)
        found = sql.SQL("SELECT {columns}{w} FROM {name}").format(
            columns=leading(names_of(plan)), w=WEIGHT, name=self._names[id(plan)]
        )
        gate = self._gate(plan)
        return found if gate is None else sql.SQL("{found} WHERE {gate}").format(found=found, gate=gate)

    def summed(self, plan: Plan) -> sql.Composable:
        """The same for a reader that sums up by itself: netting the changes of a source before would be done twice."""
        # Nothing is computed of rows that came and went: the query never sees them, and it might fail.
        self.nets_changes = not self._is_from_one_source(plan, computed=False)
        body = self.select(plan)
        self.nets_changes = True
        return body

    def seeking(self, plan: Plan, other: Plan, on: tuple[Scalar, ...]) -> sql.Composable:
        """The same for a join that looks partners up in a table: the changes of a source come in the order of what they
        look for, as neighbours in an index often are on disk, and in the cache.  Of several joins the first decides.
        """
        looks_up = not self.is_delta(other) and self._is_from_one_source(plan, shared=True)
        self.order = sought(plan, on) if looks_up else ()
        body = self.select(plan)
        self.order = ()
        return body

    def sifting(self, plan: Plan, condition: sql.Composable) -> sql.Composable:
        """The changes of a source for which a condition on columns of its own is true: sifted before they are netted,
        unless somebody else reads them as well.
        """
        if not self._is_from_one_source(plan):
            return sql.SQL("SELECT {columns}{w} FROM ({rows}) AS f WHERE {condition}").format(
                columns=leading(names_of(plan)), w=WEIGHT, rows=self.select(plan), condition=condition
            )
        self.sieve = condition
        body = self.select(plan)
        self.sieve = None
        return body

    def _is_from_one_source(self, plan: Plan, *, computed: bool = True, shared: bool = False) -> bool:
        """Whether nothing stands above a source's changes but filters and columns, computed ones or not."""
        if not shared and self._is_shared(plan):
            return False
        match operator(plan):
            case Project(below, items) if computed or all(item.value.is_column for item in items):
                return self._is_from_one_source(below, computed=computed, shared=shared)
            case Filter(below) if computed:
                return self._is_from_one_source(below, shared=shared)
            case Untouched(below) if computed:
                return self._is_from_one_source(below, shared=shared)
            case Changes(Source()):
                return True
            case _:
                return False

    def _gate(self, plan: Plan) -> sql.Composable | None:
        """Whether a delta can hold anything, as far as that depends on which sources have changed."""
        if id(plan) not in self._gates:
            tables = (node.table for node in distinct(plan) if isinstance(node, Changes))
            gate = self.feed.gate(table for table in tables if isinstance(table, Source))
            self._gates[id(plan)] = None if gate is None or _moves_otherwise(plan) else gate
        return self._gates[id(plan)]

    def is_delta(self, plan: Plan) -> bool:
        """Whether the plan's size follows the change."""
        return is_delta(plan, self._deltas)

    @property
    def nets(self) -> bool:
        """Whether the changes of sources are printed netted."""
        return self.nets_changes and not (isinstance(self.feed, Statement) and self.feed.is_net)

    def with_clause(self) -> sql.Composable:
        """``WITH …``, or nothing; where the changes are a WITH query of the engine's, what follows that."""
        if not self.bodies:
            return sql.SQL(" ") if isinstance(self.feed, Statement) else sql.SQL("")
        start = sql.SQL(",\n     {bodies} ") if isinstance(self.feed, Statement) else sql.SQL("WITH {bodies} ")
        return start.format(bodies=sql.SQL(",\n     ").join(self.bodies))

    def _is_shared(self, plan: Plan) -> bool:
        if self._uses[id(plan)] < 2 or not self.is_delta(plan):
            return False
        return not (isinstance(plan, Changes) and isinstance(plan.table, State))


def _moves_otherwise(plan: Plan) -> bool:
    """Whether a delta can hold something while no source has changed: the changes of states, and the time."""
    return not isinstance(specialised(plan, lambda table: isinstance(table, State)), Empty)


def _body(plan: Plan, common: CommonTables) -> sql.Composable:
    match operator(plan):
        case Scan(table, fields):
            return sql.SQL("SELECT {columns}1 AS {w} FROM {table}").format(
                columns=attributes(fields), w=WEIGHT, table=relation(table)
            )
        case Changes(table, fields):
            return _changes(table, fields, common)
        case Found(name, schema):
            return sql.SQL("SELECT {columns}1::bigint AS {w} FROM {found}").format(
                columns=leading(column.name for column in schema), w=WEIGHT, found=sql.Identifier(name)
            )
        case Recursion(base, step) as recursion:
            assert all(map(is_bag, (base, step))), "the new state has no negative weights"
            return recursive(recursion, common.select(base), common.select(step))
        case Unit() | Unwatched():
            return sql.SQL("SELECT 1::bigint AS {w}").format(w=WEIGHT)
        case Empty():
            raise AssertionError("an empty delta is never printed")
        case Opaque(text, schema) | Recompute(_, text, schema):
            return _opaque(text, schema)
        case Filter(Mark(left, right, on, made) as mark, predicates) if is_tested_alone(made, predicates):
            return semi_joined(mark, predicates, common.seeking(left, right, on), rows(right, common))
        case Filter(below, predicates):
            return _filtered(below, conjunction(predicates), common)
        case TimedFilter(below, condition):
            return _filtered(below, condition.now.sql(), common)
        case TimedColumn(below, value, made):
            return told(names_of(below), value, made, common.select(below))
        case Elapsed(below, of, shown):
            rows_below = common.select(below)
            if shown is None:
                return elapsed(names_of(below), of, rows_below)
            return moved(names_of(below), of, shown, rows_below)
        case Project(below, items):
            values = [
                sql.SQL("{value} AS {name}, ").format(value=item.value.sql(), name=sql.Identifier(item.column.name))
                for item in items
            ]
            return sql.SQL("SELECT {values}{w} FROM ({input}) AS p").format(
                values=sql.Composed(values), w=WEIGHT, input=common.select(below)
            )
        case Negate(below):
            return sql.SQL("SELECT {columns}-{w} AS {w} FROM ({input}) AS n").format(
                columns=leading(names_of(below)), w=WEIGHT, input=common.select(below)
            )
        case UnionAll(left, right):
            return sql.SQL("{left} UNION ALL {right}").format(left=common.select(left), right=common.select(right))
        case Consolidate(below) if is_bag(plan):
            return common.select(below)
        case Consolidate(below):
            return consolidated(below.columns, common.select(below))
        case Join(left, right, on) as join:
            return joined(join, common.seeking(left, right, on), common.seeking(right, left, on))
        case LeftJoin(left, right, on):
            return sql.SQL("SELECT {columns}l.{w} FROM ({left}) AS l LEFT JOIN ({right}) AS r ON {condition}").format(
                columns=leading(names_of(plan)),
                w=WEIGHT,
                left=common.select(left),
                right=rows(right, common),
                condition=conjunction(on),
            )
        case FullJoin(left, right, on):
            return sql.SQL(
                "SELECT {columns}1 AS {w} FROM ({left}) AS l FULL JOIN ({right}) AS r ON {condition}"
            ).format(
                columns=leading(names_of(plan)),
                w=WEIGHT,
                left=rows(left, common),
                right=rows(right, common),
                condition=conjunction(on),
            )
        case Mark(left, right) as mark:
            return marked(mark, common.select(left), rows(right, common))
        case Flipped(below, right, change) as flipped:
            assert is_bag(right), "the new state has no negative weights"
            return turned(
                flipped,
                common.select(below),
                common.select(right),
                common.select(change),
                common.add_unnamed,
                are_few=common.is_delta(below),
                is_netted=common.nets and is_net(change),
            )
        case Lateral() as lateral:
            return _lateral(lateral, common)
        case Aggregate() as aggregate:
            return _aggregate(aggregate, common)
        case Window(below) as window:
            return first.window(window, rows(below, common))
        case DistinctOn(below) as distinct_on:
            return first.distinct_on(distinct_on, rows(below, common))
        case TopK(below) as top:
            return first.top(top, rows(below, common))
        case Touched(below, change, keys):
            return _touched(below, change, keys, common)
        case Untouched(below, change) as rest:
            return untouched(rest, common.select(below), common.select(change))
        case Gone(below):
            return _filtered(below, sql.SQL("{w} < 0").format(w=WEIGHT), common)
        case Partners(below, change) as found if common.is_delta(below):
            return common.sifting(below, found_among(found, common.select(change)))
        case Partners(below, change) as found:
            return partners(found, common.select(change), common.select(below), common.add_unnamed)


def _filtered(below: Plan, condition: sql.Composable, common: CommonTables) -> sql.Composable:
    return sql.SQL("SELECT {columns}{w} FROM ({input}) AS f WHERE {condition}").format(
        columns=leading(names_of(below)), w=WEIGHT, input=common.select(below), condition=condition
    )


def _changes(table: Source | State, fields: tuple[Field, ...], common: CommonTables) -> sql.Composable:
    if isinstance(table, State):
        local = table in common.local
        name = sql.Identifier(table.delta_name) if local else sql.Identifier(CHANGES_SCHEMA, table.delta_name)
        return sql.SQL("SELECT {columns}{w} FROM {delta}").format(columns=attributes(fields), w=WEIGHT, delta=name)
    captured = [
        sql.SQL("{buffered} AS {name}, ").format(
            buffered=sql.Identifier(field.buffered), name=sql.Identifier(field.column.name)
        )
        for field in fields
    ]
    interval = common.feed.rows(table, sql.Composed(captured))
    if common.sieve is not None:
        interval = sql.SQL("SELECT * FROM ({rows}) AS f WHERE {condition}").format(
            rows=interval, condition=common.sieve
        )
    if not common.nets:
        return interval
    # No row comes two thousand million times, and sums of integers are cheaper than sums of bigints.
    order = tuple(name for name in common.order if name in {field.column.name for field in fields})
    return consolidated(tuple(field.column for field in fields), interval, INT, order)


def _opaque(text: str, schema: tuple[Column, ...]) -> sql.Composable:
    return sql.SQL("SELECT {columns}1::bigint AS {w} FROM ({query}) AS q{aliases}").format(
        columns=leading(column.name for column in schema),
        w=WEIGHT,
        query=Scalar(text, frozenset(), schema[0].type).sql() if schema else sql.SQL("SELECT"),
        aliases=sql.SQL("({names})").format(names=names(column.name for column in schema)),
    )


def _lateral(plan: Lateral, common: CommonTables) -> sql.Composable:
    how = (
        sql.SQL("LEFT JOIN {item} ON {on}").format(item=plan.item.sql(), on=conjunction(plan.on))
        if plan.outer
        else sql.SQL("CROSS JOIN {item}").format(item=plan.item.sql())
    )
    return sql.SQL("SELECT {columns}{made}{row}.{w} FROM ({input}) AS {row} {how}").format(
        columns=leading(names_of(plan.input), ROW),
        made=leading((one.name for one in plan.made), ITEM),
        row=sql.Identifier(ROW),
        w=WEIGHT,
        input=common.select(plan.input),
        how=how,
    )


def rows(plan: Plan, common: CommonTables) -> sql.Composable:
    """A Z-set without negative weights as a bag: each row as often as it weighs."""
    if is_bag(plan):
        return common.select(plan)
    return sql.SQL("SELECT b.* FROM ({rows}) AS b CROSS JOIN generate_series(1, b.{w})").format(
        rows=consolidated(plan.columns, common.select(plan)), w=WEIGHT
    )


def _aggregate(plan: Aggregate, common: CommonTables) -> sql.Composable:
    values = [
        sql.SQL("{value} AS {name}, ").format(value=call.value.sql(), name=sql.Identifier(call.column.name))
        for call in plan.calls
    ]
    grouping = sql.SQL(" GROUP BY {keys}").format(keys=names(plan.keys)) if plan.keys else sql.SQL("")
    return sql.SQL("SELECT {keys}{values}1::bigint AS {w} FROM ({rows}) AS g{grouping}").format(
        keys=leading(plan.keys), values=sql.Composed(values), w=WEIGHT, rows=rows(plan.input, common), grouping=grouping
    )


def _touched(below: Plan, change: Plan, keys: tuple[str, ...], common: CommonTables) -> sql.Composable:
    if not keys:
        return common.select(below)
    by_name = {column.name: column for column in below.columns}
    return sql.SQL("SELECT {columns}t.{w} FROM ({keys}) AS k JOIN ({input}) AS t ON {match}").format(
        columns=leading(names_of(below), "t"),
        w=WEIGHT,
        keys=distinct_keys((by_name[key] for key in keys), common.select(change)),
        input=common.select(below),
        match=touching(((by_name[key], key, key) for key in keys), "k", "t"),
    )
