"""The statements that fill, recompute, refresh and verify a stream table.

A program is a list of SQL statements, run in order in one snapshot (docs/internals.md §5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.algebra.linear import Consolidate
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Empty, Field, Opaque, Scan, Source, State
from pg_trickle.passed_on import PassedOn, handed_on, passed_on
from pg_trickle.recomputed import Recomputed
from pg_trickle.render import recomputed, recursion
from pg_trickle.render.apply import Target, apply, insert_all, renamed
from pg_trickle.render.direct import apply_directly
from pg_trickle.render.feed import BUFFERS, SIFTED, Feed, Held, Statement
from pg_trickle.render.leaves import relation
from pg_trickle.render.netting import consolidated
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT
from pg_trickle.render.parts import names as name_list
from pg_trickle.render.recomputed import Rows, rows_in, state_rows
from pg_trickle.render.recursion import Recursive
from pg_trickle.render.select import CommonTables
from pg_trickle.render.stage import add_delta, add_stage, fresh, grouped_delta, insert_fresh, needs_rows_below
from pg_trickle.render.store import Store, is_direct, store_in
from pg_trickle.rewrite.found_once import found_once
from pg_trickle.rewrite.known_before import known_before
from pg_trickle.rewrite.netted_sides import netted_sides
from pg_trickle.rewrite.selections import is_selection
from pg_trickle.rewrite.sifted import sifted
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.scalar import Column, Identity, Type
from pg_trickle.stages import AnyStage, Stage
from pg_trickle.travelling import Travelling, set_out, travelling
from pg_trickle.uniqueness import is_net

Program = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """What the programs are made from: the stages, the plan over them, the table and the query itself."""

    stages: tuple[AnyStage, ...]
    final: Plan
    target: Target
    query: Opaque

    @property
    def own(self) -> Store | Rows | None:
        """The last stage's state in the stream table, if that shows all of it."""
        last = self.stages[-1] if self.stages else None
        if isinstance(last, Recomputed):
            if isinstance(last.operator, Recursion):
                # What is taken out for a while would be missed there.
                return None
            return rows_in(self.target, self.final, last)
        return store_in(self.target, self.final, self.stages)

    @property
    def stored(self) -> tuple[AnyStage, ...]:
        """The stages that have a state table."""
        own = self.own
        return tuple(stage for stage in self.stages if own is None or stage is not own.stage)

    def store(self, stage: Stage) -> Store:
        """Where a stage's counters are kept."""
        own = self.own
        return own if isinstance(own, Store) and own.stage is stage else Store(stage)

    def rows(self, stage: Recomputed) -> Rows:
        """Where a stage's rows are kept."""
        own = self.own
        return own if isinstance(own, Rows) and own.stage is stage else state_rows(stage)

    @property
    def lookup(self) -> tuple[str, ...] | None:
        """The stream table's columns by whose hash a stage finds its rows there."""
        own = self.own
        return recomputed.looked_up(own) if isinstance(own, Rows) else None

    @property
    def passed_on(self) -> tuple[PassedOn, ...]:
        """The joins whose change several statements read."""
        return passed_on(self.stages, self.final)

    @property
    def whole(self) -> Plan:
        """The contents of the stream table, from scratch: the query's own text, or its states once those are right.

        A stage whose rows are the stream table's is computed from the states below it, as a refresh does.
        """
        own = self.own
        if isinstance(own, Rows):
            return _replaced(self.final, own.stage)
        return self.final if self.stages and own is None else self.query


def _replaced(plan: Plan, stage: Recomputed) -> Plan:
    """The plan with the operator itself in place of its stored rows."""
    if isinstance(plan, Scan) and plan.table == stage.state:
        return stage.operator
    return plan.over(lambda below: _replaced(below, stage))


def _printed(statement: sql.Composable) -> str:
    return statement.as_string(None)


def counting(count: sql.Composable, common: CommonTables) -> str:
    """A statement of WITH queries and the SELECT that counts what they wrote."""
    return _printed(sql.SQL("{ctes}{count}").format(ctes=common.with_clause(), count=count))


def fill(definition: Definition) -> Program:
    """For empty tables: the states, then the stream table."""
    statements = [
        _printed(sql.SQL("WITH y AS ({insert}) SELECT 0").format(insert=_filled(stage))) for stage in definition.stored
    ]
    rows = _contents(definition.target, definition.whole, CommonTables(()))
    return (*statements, _printed(insert_all(definition.target, rows)))


def full(definition: Definition) -> Program:
    """Recompute and diff: only rows that differ are written."""
    statements = []
    for stage in definition.stored:
        common = CommonTables(())
        target = _state_target(stage)
        wrote = apply(target, _diff_rows(target, fresh_state(stage, common)), common)
        # Rows written to a state aren't rows of the stream table.
        statements.append(
            _printed(sql.SQL("{ctes}SELECT 0 * ({wrote})").format(ctes=common.with_clause(), wrote=wrote))
        )
    common = CommonTables(())
    wanted = _contents(definition.target, definition.whole, common)
    statements.append(_written(definition.target, _diff_rows(definition.target, wanted), common))
    return tuple(statements)


def _written(target: Target, delta: sql.Composable, common: CommonTables) -> str:
    return counting(apply(target, delta, common), common)


def verify(definition: Definition) -> str:
    """Rows that the query has and the table hasn't, and the reverse, by SQL's own equality."""
    target = definition.target
    columns = tuple((name, replace(column, type=_by_equality(column))) for name, column in target.columns)
    loose = replace(target, columns=columns)
    common = CommonTables(())
    both = _diff_rows(loose, _contents(loose, definition.query, common))
    return _printed(
        sql.SQL(
            "SELECT jsonb_build_object('missing', coalesce(sum({w}) FILTER (WHERE {w} > 0), 0),"
            " 'extra', coalesce(-sum({w}) FILTER (WHERE {w} < 0), 0)) FROM ({both}) AS d"
        ).format(w=WEIGHT, both=both)
    )


def _by_equality(column: Column) -> Type:
    kept = column.type.identity is Identity.NONE
    return column.type if kept else replace(column.type, identity=Identity.EQUAL)


def _contents(target: Target, plan: Plan, common: CommonTables) -> sql.Composable:
    return sql.SQL("SELECT {columns} FROM ({rows}) AS w").format(
        columns=name_list(target.names), rows=renamed(target, common.select(plan))
    )


def fresh_state(stage: AnyStage, common: CommonTables) -> sql.Composable:
    """A state as it should be, computed from scratch."""
    return recomputed.fresh(stage, common) if isinstance(stage, Recomputed) else fresh(stage, common)


def _filled(stage: AnyStage) -> sql.Composable:
    common = CommonTables(())
    return recomputed.insert_fresh(stage, common) if isinstance(stage, Recomputed) else insert_fresh(stage, common)


def _state_target(stage: AnyStage) -> Target:
    if isinstance(stage, Recomputed):
        return state_rows(stage).target
    columns = tuple((one.name, one.column) for one in stage.columns)
    keyed = {one.name: one for one in stage.key_columns}
    typed = tuple((name, keyed.get(name, column)) for name, column in columns)
    return Target(relation(stage.state), typed, stage.key_names)


def _diff_rows(target: Target, wanted: sql.Composable) -> sql.Composable:
    """The Z-set ``wanted − target``, consolidated."""
    columns = tuple(replace(column, name=name) for name, column in target.columns)
    both = sql.SQL(
        "SELECT {c}, 1::bigint AS {w} FROM ({wanted}) AS n UNION ALL SELECT {c}, -1 FROM {table} AS o"
    ).format(c=name_list(target.names), w=WEIGHT, wanted=wanted, table=target.table)
    return consolidated(columns, both)


def differential(
    definition: Definition, changed: frozenset[int] | None, feed: Feed | None = None
) -> tuple[Program, frozenset[State]]:
    """The program for the case that just these sources changed (None: any), and the delta tables it uses.

    One statement as far as possible.  A statement can't see what it writes itself, so where a later
    part reads a state's new rows, the statements part and the delta travels in a delta table.
    """
    made: set[State] = set()

    def is_changed(table: Source | State) -> bool:
        if isinstance(table, State):
            return table in made
        return changed is None or table.oid in changed

    selections = {one.state for one in definition.stages if isinstance(one, Recomputed) and is_selection(one.operator)}

    def arranged(plan: Plan) -> Plan:
        change = plan.delta() if feed else known_before(sifted(plan.delta(), selections))
        change = netted_sides(specialised(change, is_changed))
        # What one statement changed is mostly a row or two.
        return change if feed else found_once(change)

    parts: list[_Part] = []
    for stage in definition.stages:
        change = arranged(stage.below)
        if not isinstance(change, Empty):
            parts.extend(_stage_parts(stage, change))
            made.add(stage.state)
    last = arranged(definition.final)
    if not isinstance(last, Empty):
        netted = last if is_net(last) else Consolidate(last)
        parts.append(_Part(None, netted, (netted,)))
    # What writes rows of the stream table inside somebody's statement hands nothing on but its states' deltas.
    changes = {} if feed else {one: arranged(one.join) for one in definition.passed_on}
    changes = {one: change for one, change in changes.items() if not isinstance(change, Empty)}
    return _statements(definition, parts, feed or (SIFTED if changed is None else BUFFERS), changes)


def _stage_parts(stage: AnyStage, change: Plan) -> Iterator[_Part]:
    if isinstance(stage, Recomputed) and isinstance(stage.operator, Recursion):
        lost = Recursive(stage, stage.operator).change(change)
        reads = (lost, stage.below, Recursive(stage, stage.operator).stored)
        yield _Part(stage, lost, reads, is_first=True)
        yield _Part(stage, lost, reads)
    elif isinstance(stage, Recomputed):
        netted = recomputed.netted(stage, change)
        yield _Part(stage, netted, (netted, stage.below))
    else:
        narrow = grouped_delta(stage, change)
        yield _Part(stage, narrow, (narrow, stage.below) if needs_rows_below(stage) else (narrow,))


@dataclass(frozen=True, slots=True)
class _Part:
    """A stage's statement or the final one: its delta, and every plan that it reads.

    ``is_first``: of a stage's two statements the one that writes, but doesn't make the stage's delta yet.
    """

    stage: AnyStage | None
    change: Plan
    reads: tuple[Plan, ...]
    is_first: bool = False

    @property
    def made(self) -> AnyStage | None:
        """The stage whose delta comes of the statement."""
        return None if self.is_first else self.stage

    def over(self, put: Callable[[Plan], Plan]) -> _Part:
        """The same with other plans in the place of some that it reads."""
        return replace(self, change=put(self.change), reads=tuple(map(put, self.reads)))


def _statements(
    definition: Definition, parts: list[_Part], feed: Feed, changes: dict[PassedOn, Plan]
) -> tuple[Program, frozenset[State]]:
    groups = _grouped(parts)
    handed = handed_on([[plan for part in group for plan in part.reads] for group in groups], changes)
    if not isinstance(feed, Statement | Held):
        groups = [[part.over(one.put) for part in group] for group, one in zip(groups, handed, strict=True)]
    passed = frozenset(one.state for group in handed for one in group.out)
    carried = travelling(
        ((part.made.state for part in group if part.made), tuple(plan for part in group for plan in part.reads))
        for group in groups
    )
    statements = [
        _statement(definition, group, carried, feed, one.out) for group, one in zip(groups, handed, strict=True)
    ]
    cleared = [_cleared(state, feed) for state in sorted(carried.keys() | passed, key=lambda state: state.name)]
    firsts = {part.stage.state for part in parts if part.stage and part.is_first}
    return (*statements, *cleared), passed | firsts | carried.keys()


def _grouped(parts: list[_Part]) -> list[list[_Part]]:
    """The parts that one statement can do: those that read no state which it writes."""
    groups: list[list[_Part]] = []
    for part in parts:
        written = {one.stage.state for one in groups[-1] if one.stage} if groups else set()
        if groups and not any(_scans(plan, written) for plan in part.reads):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _cleared(state: State, feed: Feed) -> str:
    common = CommonTables((), feed=feed)
    common.add_writing("y", sql.SQL("DELETE FROM {delta}").format(delta=_delta_table(state)))
    return counting(sql.SQL("SELECT 0"), common)


def _statement(
    definition: Definition, group: list[_Part], carried: Travelling, feed: Feed, out: dict[PassedOn, Plan]
) -> str:
    stages = {part.made.state: part.made for part in group if part.made}
    read = (*(plan for part in group for plan in part.reads), *out.values())
    common = CommonTables(read, frozenset(stages), feed)
    direct = _direct_stage(definition, group)
    for part in group:
        if isinstance(part.stage, Recomputed) and isinstance(part.stage.operator, Recursion):
            add = recursion.add_taken_out if part.is_first else recursion.add_derived
            add(Recursive(part.stage, part.stage.operator), part.change, common)
        elif isinstance(part.stage, Recomputed):
            recomputed.add_recomputed(definition.rows(part.stage), part.change, common)
        elif part.stage is not None:
            add_stage(definition.store(part.stage), part.change, common)
            if part.stage is not direct or part.stage.state in carried:
                add_delta(part.stage, common)
    for state in sorted(stages.keys() & carried.keys(), key=lambda state: state.name):
        common.add_writing(f"{state.name}_out", set_out(state, stages[state].column_names, carried[state], common))
    for one, change in out.items():
        one.add_out(change, common)
    if direct is not None:
        return counting(apply_directly(definition.final, definition.store(direct), definition.target, common), common)
    if group[-1].stage is None:
        return _written(definition.target, renamed(definition.target, common.select(group[-1].change)), common)
    return counting(sql.SQL("SELECT 0"), common)


def _direct_stage(definition: Definition, group: list[_Part]) -> Stage | None:
    """The stage of this statement that alone decides what the stream table shows, if there is one."""
    if group[-1].stage is not None:
        return None
    stages = [part.stage for part in group if isinstance(part.stage, Stage)]
    return next((one for one in stages if is_direct(definition.final, one, definition.target)), None)


def _delta_table(state: State) -> sql.Identifier:
    return sql.Identifier(CHANGES_SCHEMA, state.delta_name)


def _scans(plan: Plan, states: set[State]) -> bool:
    return any(isinstance(node, Scan) and node.table in states for node in distinct(plan))


def sources(definition: Definition) -> dict[int, tuple[str, ...]]:
    """The columns read of each source, in the order of their first use."""
    found: dict[int, dict[str, None]] = {}

    for plan in (*(stage.below for stage in definition.stages), definition.final):
        for node in distinct(plan):
            if isinstance(node, Scan) and isinstance(node.table, Source):
                found.setdefault(node.table.oid, {}).update(dict.fromkeys(_attributes(node.fields)))
    return {oid: tuple(read) for oid, read in found.items()}


def _attributes(fields: tuple[Field, ...]) -> tuple[str, ...]:
    return tuple(field.attribute for field in fields)
