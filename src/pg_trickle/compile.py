"""The compiler, on one page: a request goes in, a plan comes out.

::

    text ──parse──► algebra ──rewrite──► algebra ──cut──► stages ──render──► SQL programs

Pure: no connection, no clock, no global.  Equal requests give equal plans.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import sql

from pg_trickle import explain, programs
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan as Algebra
from pg_trickle.algebra.plan import distinct
from pg_trickle.algebra.source import Opaque, State, Unwatched
from pg_trickle.algebra.timed import TimedColumn, TimedFilter
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.circular import restarting
from pg_trickle.errors import Undetermined, UnsupportedQuery
from pg_trickle.immediate import Immediate, immediate
from pg_trickle.lookups import StateIndex, lookups, state_indexes
from pg_trickle.parse import fallback
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.grouping_sets import check_keys
from pg_trickle.parse.hidden_names import check_names
from pg_trickle.parse.paths import readable
from pg_trickle.parse.query import Query
from pg_trickle.parse.relations import CAPTURED
from pg_trickle.parse.select import parse
from pg_trickle.parse.timed import check_timeless
from pg_trickle.parse.types import fact_type
from pg_trickle.parse.volatility import check_functions, is_determined_by_rows
from pg_trickle.passed_on import PassedOn
from pg_trickle.ranges import Chosen, Ranged, chosen, ranged, weighed
from pg_trickle.recomputed import Recomputed
from pg_trickle.render.apply import Target
from pg_trickle.render.recomputed import state_rows
from pg_trickle.render.select import CommonTables
from pg_trickle.rewrite.collapse import collapsed
from pg_trickle.rewrite.passes import optimised
from pg_trickle.scalar import UNKNOWN, Column, Scalar, column, composed
from pg_trickle.stages import AnyStage, Stage, cut
from pg_trickle.ties import borrowed, ties
from pg_trickle.uniqueness import indexed_keys

FORMAT = 1
_FEW = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """How a stream table is stored and maintained (docs/internals.md §5)."""

    id: int
    request_hash: str | None
    incremental: bool
    refusal: UnsupportedQuery | None
    sources: dict[int, tuple[str, ...]]
    key: tuple[str, ...] | None
    content_index: tuple[str, ...] | None
    states: tuple[AnyStage, ...]
    lookup: tuple[str, ...] | None
    deltas: tuple[State, ...]
    passed_on: tuple[PassedOn, ...]
    ranged: dict[State, tuple[Ranged, ...]]
    weighed: dict[State, tuple[Ranged, ...]]
    chosen: dict[State, tuple[Chosen, ...]]
    indexed: dict[State, tuple[StateIndex, ...]]
    fill: programs.Program
    full: programs.Program
    verify: str
    differential: dict[str, programs.Program]
    timed: bool = False
    explain: dict[str, Any] = field(default_factory=dict)
    indexes: tuple[dict[str, Any], ...] = ()
    immediate: Immediate | None = None
    immediate_refusal: str | None = None
    circular: tuple[int, ...] | None = None
    is_ordered: bool = False
    undetermined: UnsupportedQuery | None = None
    ties: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as the engine reads it."""
        return {
            "format": FORMAT,
            "id": self.id,
            "request_hash": self.request_hash,
            "incremental": self.incremental,
            "timed": self.timed,
            "refusal": self.refusal and _refusal_json(self.refusal),
            "sources": [{"oid": oid, "columns": list(columns)} for oid, columns in self.sources.items()],
            "key": self.key and list(self.key),
            "content_index": self.content_index and list(self.content_index),
            "lookup": self.lookup and list(self.lookup),
            "states": [self._state_json(stage) for stage in self.states],
            "deltas": [_delta_json(state, self.passed_on) for state in self.deltas],
            "programs": {
                "fill": list(self.fill),
                "full": list(self.full),
                "verify": self.verify,
                "differential": {changed: list(program) for changed, program in self.differential.items()},
                **({} if self.immediate is None else {"immediate": self.immediate.to_json()}),
            },
            "indexes": list(self.indexes),
            "immediate_refusal": self.immediate_refusal,
            "is_ordered": self.is_ordered,
            "ties": list(self.ties),
            "undetermined": self.undetermined and _refusal_json(self.undetermined),
            **({} if self.circular is None else {"circular": {"restart": list(self.circular)}}),
            "explain": self.explain,
        }

    def _state_json(self, stage: AnyStage) -> dict[str, Any]:
        made = {
            "name": stage.state.name,
            "columns": list(stage.column_names),
            "query": programs.fresh_state(stage, CommonTables(())).as_string(None),
            "sought": [one.to_json() for one in self.indexed[stage.state]],
        }
        if isinstance(stage, Recomputed):
            content, lookup = state_rows(stage).target.content_index, stage.lookup
            return made | {
                "key": stage.unique and list(stage.unique),
                "content_index": content and list(content),
                "lookup": lookup and list(lookup),
                "ranged": [],
                "weighed": [],
                "chosen": [],
                "not_null": [],
                "nonnegative": [],
            }
        counted = [one.name for one in stage.rest if one.follows]
        return made | {
            "key": list(stage.key_names),
            "content_index": None,
            "lookup": None,
            "ranged": [one.to_json() for one in self.ranged[stage.state]],
            "weighed": [one.to_json() for one in self.weighed[stage.state]],
            "chosen": [one.to_json() for one in self.chosen[stage.state]],
            "not_null": counted,
            "nonnegative": ["n"],
        }


def compile(request: CompileRequest) -> Plan:
    """The plan of a defining query; incremental where every operator has a rule, else recomputing.

    Raises InvalidDefinition for what isn't a query and QueryTooComplex beyond the compiler's limits.
    """
    request = readable(request)
    check_names(request)
    check_keys(request)
    return replace(_compiled(request), is_ordered=_is_ordered(request))


def _is_ordered(request: CompileRequest) -> bool:
    """Whether the query ends in an ORDER BY, which no table keeps."""
    try:
        return bool(parse_select(request.query).sort_clause)
    except UnsupportedQuery:
        return False


def _compiled(request: CompileRequest) -> Plan:
    try:
        check_functions(request)
    except UnsupportedQuery as refusal:
        return _recomputing(request, refusal)
    try:
        return _incremental(request, parse(request))
    except UnsupportedQuery as refusal:
        return _as_a_whole(request, refusal)
    except RecursionError:
        return _recomputing(
            request, UnsupportedQuery("a query nested this deeply", "its plan is deeper than the compiler goes.")
        )


def _as_a_whole(request: CompileRequest, refusal: UnsupportedQuery) -> Plan:
    """A stage that runs the query itself and compares; where its tables don't tell when, a recomputing plan."""
    try:
        return _incremental(request, fallback.whole(request, refusal))
    except (UnsupportedQuery, RecursionError):
        return _recomputing(request, refusal)


def _incremental(request: CompileRequest, query: Query) -> Plan:
    plan, columns = _output(request, query)
    check_timeless(plan)
    whole = collapsed(optimised(plan, {one.oid: one for one in request.relations}))
    stages, final = cut(whole, request.id)
    final = collapsed(final)
    key = _key(final, columns)
    target = Target(sql.Identifier(request.schema, request.name), columns, key)
    definition = programs.Definition(stages, final, target, _opaque(request, columns))
    looked_up = lookups(stages, final)
    read = programs.sources(definition)
    sources = {**_unread(request), **read}
    singles = {str(oid): frozenset((oid,)) for oid in sources}
    timed = any(map(_changes_by_itself, (final, *(stage.below for stage in stages))))
    circular = restarting(request, whole, is_set=key is not None, is_timed=timed)
    several = {} if len(singles) == 1 else {**_usual(request, sources), "*": None}
    wanted = {**singles, **several, **({"": frozenset[int]()} if timed else {})}
    refused = _policies_read(request) if sources else "It reads no table, so no statement changes what it shows."
    open_orders = (*ties(stages, explain.shown, request.functions), *map(borrowed, query.borrowed))
    made = {name: programs.differential(definition, changed) for name, changed in wanted.items()}
    plans = (final, *(stage.below for stage in stages))
    counted = [stage for stage in stages if isinstance(stage, Stage)]
    at_once = None if timed or refused or circular is not None else immediate(definition, sources, request)
    used = (at_once.deltas if at_once else frozenset[State]()).union(*(deltas for _, deltas in made.values()))
    return Plan(
        id=request.id,
        request_hash=request.hash,
        incremental=True,
        refusal=None,
        sources=sources,
        key=key,
        content_index=target.content_index,
        states=definition.stored,
        lookup=definition.lookup,
        deltas=tuple(sorted(used, key=lambda state: state.delta_name)),
        passed_on=definition.passed_on,
        ranged={stage.state: ranged(stage, plans) for stage in counted},
        weighed={stage.state: weighed(stage, plans) for stage in counted},
        chosen={stage.state: chosen(stage, plans) for stage in counted},
        indexed={stage.state: state_indexes(stage, looked_up) for stage in definition.stored},
        fill=programs.fill(definition),
        full=programs.full(definition),
        verify=programs.verify(definition),
        differential={name: program for name, (program, _) in made.items()},
        timed=timed,
        explain=explain.incremental(
            request, stages, final, definition.stored, open_orders, frozenset(sources.keys() - read.keys())
        ),
        ties=open_orders,
        indexes=explain.wanted_indexes(request, looked_up),
        immediate=at_once,
        immediate_refusal=refused,
        circular=circular,
    )


def _usual(request: CompileRequest, sources: Iterable[int]) -> dict[str, frozenset[int]]:
    """All sources but tables of a few rows, which seldom change: then nothing is printed or planned for those."""
    rows = {one.oid: one.rows for one in request.relations}
    larger = frozenset(oid for oid in sources if rows[oid] > _FEW)
    if len(larger) < 2 or larger == frozenset(sources):
        return {}
    return {",".join(str(oid) for oid in sorted(larger)): larger}


def _policies_read(request: CompileRequest) -> str | None:
    """Why no statement can maintain the query: what the owner may see of a source changes with other tables."""
    for one in request.relations:
        if one.policy_tables:
            tables = ", ".join(one.policy_tables)
            return f"Policies of {one.schema}.{one.name} read {tables}: what they show changes with that."
    return None


def _changes_by_itself(plan: Algebra) -> bool:
    """Whether a refresh has something to do although no captured source changed."""
    return any(isinstance(node, TimedFilter | TimedColumn | Unwatched) for node in distinct(plan))


def _recomputing(request: CompileRequest, refusal: UnsupportedQuery) -> Plan:
    refusal.stands_near(request.query, 1)
    columns = tuple(
        (fact.name, Column(f"out_{place}", fact_type(fact))) for place, fact in enumerate(request.columns, 1)
    )
    opaque = _opaque(request, columns)
    target = Target(sql.Identifier(request.schema, request.name), columns, None)
    definition = programs.Definition((), opaque, target, opaque)
    undetermined = refusal if isinstance(refusal, Undetermined) else fallback.undetermined(request)
    return Plan(
        id=request.id,
        request_hash=request.hash,
        incremental=False,
        refusal=refusal,
        sources=_watched(request),
        key=None,
        content_index=target.content_index,
        states=(),
        lookup=None,
        deltas=(),
        passed_on=(),
        ranged={},
        weighed={},
        chosen={},
        indexed={},
        fill=programs.fill(definition),
        full=programs.full(definition),
        verify=programs.verify(definition),
        differential={},
        explain=explain.recomputing(refusal, undetermined),
        undetermined=undetermined,
    )


def _output(request: CompileRequest, query: Query) -> tuple[Algebra, tuple[tuple[str, Column], ...]]:
    """The plan with exactly the query's columns, of exactly its types."""
    items: list[Item] = []
    columns: list[tuple[str, Column]] = []
    for place, (fact, (_, made)) in enumerate(zip(request.columns, query.outputs, strict=True), 1):
        value: Scalar = column(made)
        wanted = fact_type(fact)
        if made.type == wanted.by_value:
            wanted = made.type
        if wanted.name != made.type.name:
            text = sql.SQL("CAST({value} AS {type})").format(value=value.sql(), type=_type_name(fact.type))
            value = composed(text, value.columns, wanted, not_null=made.not_null)
        out = Column(
            made.name if value.is_column and not _taken(made.name, items) else f"out_{place}", wanted, made.not_null
        )
        items.append(Item(out, value))
        columns.append((fact.name, out))
    return Project(query.plan, tuple(items)), tuple(columns)


def _taken(name: str, items: list[Item]) -> bool:
    return any(item.column.name == name for item in items)


def _type_name(name: str) -> sql.Composable:
    return Scalar(name, frozenset(), UNKNOWN).sql()


def _key(final: Algebra, columns: tuple[tuple[str, Column], ...]) -> tuple[str, ...] | None:
    """The stream table's key in its own column names: the smallest that is certain and can be indexed."""
    by_plan_name = {made.name: name for name, made in columns}
    for key in indexed_keys(final):
        if key and key <= by_plan_name.keys():
            return tuple(name for name, made in columns if made.name in key)
    return None


def _opaque(request: CompileRequest, columns: tuple[tuple[str, Column], ...]) -> Opaque:
    """The query itself, its columns named like the plan's."""
    return Opaque(request.query, tuple(made for _, made in columns))


def _watched(request: CompileRequest) -> dict[int, tuple[str, ...]]:
    """For a recomputing plan: what to capture, merely to know whether anything changed."""
    if not is_determined_by_rows(request):
        return {}
    leaves = [one for one in request.relations if one.kind != "view"]
    if any(one.opaque is not None or one.kind not in CAPTURED for one in leaves):
        return {}
    if any(one.opaque is not None for one in request.relations):
        return {}
    return {one.oid: one.used for one in leaves}


def _unread(request: CompileRequest) -> dict[int, tuple[str, ...]]:
    """Relations that the query names, though no row of them matters: captured, lest they count as unwatched."""
    leaves = (one for one in request.relations if one.opaque is None and one.kind in CAPTURED)
    return {one.oid: () for one in leaves}


def _delta_json(state: State, passed_on: tuple[PassedOn, ...]) -> dict[str, Any]:
    """A delta table: of a state's columns, or of a join's that has no state."""
    for one in passed_on:
        if one.state == state:
            query = one.query().as_string(None)
            return {"name": state.delta_name, "columns": list(one.column_names), "query": query}
    return {"name": state.delta_name, "of": state.name}


def _refusal_json(refusal: UnsupportedQuery) -> dict[str, Any]:
    return {
        "sqlstate": refusal.sqlstate,
        "construct": refusal.construct,
        "reason": refusal.reason,
        "hint": refusal.hint,
        "position": refusal.position,
        "near": refusal.near,
        "only_full": refusal.only_full,
        "by_itself": refusal.by_itself,
    }
