"""The plan told to people: a tree of operators, each with the rule that maintains it and what that costs."""

from __future__ import annotations

import re
from typing import Any

from pg_trickle import explain_again, explain_cost, explain_recomputed
from pg_trickle.algebra.aggregate import Aggregate, Call, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import ITEM, ROW, Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Source, State, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, Timed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.lookups import Lookup
from pg_trickle.recomputed import Recomputed
from pg_trickle.rewrite.restrict import ASKED
from pg_trickle.scalar import Scalar, identifier
from pg_trickle.stages import AnyStage

Line = dict[str, Any]


_OWN = "The stream table shows all that the {what} has to remember: there is no state table for it."


def incremental(
    request: CompileRequest,
    stages: tuple[AnyStage, ...],
    final: Plan,
    stored: tuple[AnyStage, ...],
    open_orders: tuple[str, ...],
    unread: frozenset[int],
) -> dict[str, Any]:
    """The tree of the final plan with each stage's tree below the scan of its state; ``open_orders``: see ties.py.

    ``unread`` are relations that the query names, and of which no row matters.
    """
    by_state = {stage.state.name: stage for stage in stages}
    lines: list[Line] = []
    _walk(final, 0, by_state, lines)
    notes = [note for stage in stages if isinstance(stage, Recomputed) for note in explain_recomputed.notes(stage)]
    for stage in stages:
        if stage not in stored:
            what = explain_recomputed.NAMES[type(stage.operator)] if isinstance(stage, Recomputed) else "aggregation"
            notes.append(_OWN.format(what=what))
    return {
        "tree": lines,
        "notes": [*notes, *_unread(request, unread), *open_orders, *_policies(request), *_circle(request)],
    }


def _unread(request: CompileRequest, unread: frozenset[int]) -> list[str]:
    """What was left out of the query."""
    told = "Nothing of {}.{} is read: whatever rows it has, the query shows the same."
    return [told.format(one.schema, one.name) for one in request.relations if one.oid in unread]


def _circle(request: CompileRequest) -> list[str]:
    """Whom it is refreshed together with."""
    members = ", ".join(f"{one.schema}.{one.name}" for one in request.relations if one.circular)
    told = (
        f"{members} come to read it in turn: all that read each other in a circle are refreshed together, in rounds,"
        " until one finds nothing more; when rows of their other sources went, all begin with nothing."
    )
    return [told] if members else []


def _policies(request: CompileRequest) -> list[str]:
    """Which rows of its sources the owner is shown by row-level security."""
    protected = [one for one in request.relations if one.policy is not None]
    return [
        f"Of {one.schema}.{one.name} its policies show the owner the rows with {one.policy}; no others are captured."
        for one in protected
    ] + [
        f"What they show depends on {', '.join(one.policy_tables)}: a change there makes the next refresh recompute."
        for one in protected
        if one.policy_tables
    ]


def recomputing(refusal: UnsupportedQuery, undetermined: UnsupportedQuery | None) -> dict[str, Any]:
    """One line: the query is run again and compared; and whether its rows decide what comes out."""
    line = {
        "depth": 0,
        "operator": "Query",
        "detail": refusal.construct,
        "rule": "recomputed and diffed",
        "cost": explain_cost.WHOLE_QUERY,
    }
    notes = [f"{refusal.message}: {refusal.reason} It stands at: {refusal.near}"]
    if undetermined is not None:
        notes.append(f"its rows don't decide its result ({undetermined.construct}): a refresh may show others")
    return {"tree": [line], "notes": notes}


def _walk(plan: Plan, depth: int, stages: dict[str, AnyStage], lines: list[Line]) -> None:
    if isinstance(plan, Project) and (_is_state(plan.input) or all(item.value.is_column for item in plan.items)):
        _walk(plan.input, depth, stages, lines)
        return
    if isinstance(plan, Scan) and isinstance(plan.table, State):
        _read(plan.table, depth, stages, lines)
        return
    if isinstance(plan, Consolidate):
        _walk(plan.input, depth, stages, lines)
        return
    name, detail, rule = _described(plan)
    cost = explain_cost.cost(plan)
    lines.append({"depth": depth, "operator": name, "detail": shown(detail), "rule": rule, "cost": cost})
    for below in inputs(plan):
        _walk(below, depth + 1, stages, lines)


def _read(state: State, depth: int, stages: dict[str, AnyStage], lines: list[Line]) -> None:
    """A stage where its state is read, in full the first time: told again by each reader, it would grow with each."""
    if state.name in stages:
        _stage(stages.pop(state.name), depth, stages, lines)
        return
    told = {"operator": "State", "detail": state.name, "rule": "as told above", "cost": explain_cost.NOTHING}
    lines.append({"depth": depth, **told})


def _is_state(plan: Plan) -> bool:
    """Whether the plan reads a stage's state: what is computed from it is told with the stage."""
    return isinstance(plan, Scan) and isinstance(plan.table, State)


def shown(text: str) -> str:
    """Plan columns by the names they come from: ``"amount__2"`` is some ``amount``."""
    return re.sub(r'"?\b([a-z0-9_]+?)__\d+\b"?', r"\1", text).replace('pg_catalog."', '"').replace('"', "")


def _stage(stage: AnyStage, depth: int, stages: dict[str, AnyStage], lines: list[Line]) -> None:
    if isinstance(stage, Recomputed):
        lines.append({"depth": depth, **explain_recomputed.line(stage, shown), "cost": explain_cost.of_rows(stage)})
        for below in inputs(stage.operator):
            _walk(below, depth + 1, stages, lines)
        return
    aggregate = stage.aggregate
    name = "Aggregate" if aggregate.calls or not aggregate.keys else "Distinct"
    keys = {item.column.name: item.value.text for item in _items(aggregate.input)}
    grouped = ", ".join(keys.get(key, key) for key in aggregate.keys)
    detail = shown(f"by {grouped}" if grouped else "of all rows") + f", state {stage.state.name}"
    cost = explain_cost.of_counters(stage)
    lines.append(
        {"depth": depth, "operator": name, "detail": detail, "rule": explain_again.rule_of(aggregate), "cost": cost}
    )
    lines.extend(
        {
            "depth": depth + 1,
            "operator": "Call",
            "detail": shown(_call(call, keys)),
            "rule": explain_again.rule_of_call(call, aggregate.input),
            "cost": explain_cost.of_call(call),
        }
        for call in aggregate.calls
    )
    below = aggregate.input
    _walk(below.input if isinstance(below, Project) else below, depth + 1, stages, lines)


def _items(plan: Plan) -> tuple[Item, ...]:
    return plan.items if isinstance(plan, Project) else ()


def _call(call: Call, values: dict[str, str]) -> str:
    """An aggregate with the expressions that it is computed from in place of their columns."""
    text = call.value.text
    for name in (call.argument, call.condition):
        if name is not None:
            text = text.replace(identifier(name), values.get(name, name))
    return text


def _item(text: str) -> str:
    """An item of FROM without the aliases that the compiler gave it."""
    return re.sub(rf'\bAS (?="?{ITEM})|"?\b{ITEM}\b"?|"?\b{ROW}\b"?\.', "", text).removeprefix("LATERAL ")


def _described(plan: Plan) -> tuple[str, str, str]:
    match operator(plan):
        case Scan(table, _) | Changes(table, _):
            where = f"{table.schema}.{table.name}" if isinstance(table, Source) else table.name
            return "Scan", where, "changes since the frontier"
        case Filter(_, predicates):
            return "Filter", " AND ".join(one.text for one in predicates), "Δσ(R) = σ(ΔR)"
        case TimedFilter(_, condition):
            rule = f"Δσ(R) = σ°(ΔR) + what passed a boundary since, {_found(condition)}"
            return "Filter by time", condition.now.text, rule
        case TimedColumn(_, value):
            return "Column by time", value.now.text, f"Δτ(R) = τ°(ΔR) + what time gave another value, {_found(value)}"
        case Project(_, items):
            return "Project", ", ".join(item.value.text for item in items), "Δπ(R) = π(ΔR)"
        case UnionAll() as both:
            return "Union all", "", explain_again.rule_of_sum(both)
        case Join(_, _, on):
            return "Join", _conditions(on), "Δ(L ⋈ R) = ΔL ⋈ R′ + L′ ⋈ ΔR − ΔL ⋈ ΔR"
        case LeftJoin(_, _, on):
            return "Left join", _conditions(on), "Δ(L ⟕ R) = Δ(L ⋈ R) + pad(Δ(L ▷ R))"
        case FullJoin(_, _, on):
            return "Full join", _conditions(on), "Δ(L ⟗ R) = Δ(L ⋈ R) + pad(Δ(L ▷ R)) + pad(Δ(R ▷ L))"
        case Mark(_, _, on, marked) if marked.name.endswith(ASKED):
            return (
                "Match",
                f"groups that are asked for: {_conditions(on)}",
                "γ(R) ⋈ (L ⋉ P) = γ(R ⋉ P) ⋈ (L ⋉ P): groups that no match asks for aren't kept",
            )
        case Mark(_, _, on, marked):
            return (
                "Match",
                f"{marked.name}: {_conditions(on)}",
                "rows that came or went, and those whose match the change turned",
            )
        case Lateral(_, item):
            return "Lateral", _item(item.text), "Δ(R ↗ f) = ΔR ↗ f"
        case Aggregate(_, keys, _):
            return "Aggregate", ", ".join(keys), "recomputed for the touched groups"
        case Unit():
            return "Constant", "", "never changes"
        case Found():
            return "Recursive reference", "", "the rows found before"
        case Window() | DistinctOn() | TopK() | Recompute() | Recursion():
            raise AssertionError("told with its stage")
        case Unwatched():
            return "Unwatched", "", "counts as changed at every refresh"
        case Empty() | Negate() | Consolidate() | Touched() | Partners() | Untouched() | Gone() | Flipped() | Elapsed():
            return type(plan).__name__, "", ""
        case Opaque():
            return type(plan).__name__, "", ""


def _found(timed: Timed) -> str:
    """How the rows are found that time alone moves."""
    if timed.near is None:
        return "found by reading all"
    read = ", ".join(sorted(timed.near.columns))
    return shown(f"found by a range of {read}") if read else "looked for when the hour or the day is another"


def _conditions(on: tuple[Scalar, ...]) -> str:
    return " AND ".join(one.text for one in on)


def wanted_indexes(request: CompileRequest, wanted: tuple[Lookup, ...]) -> tuple[Line, ...]:
    """Indexes that let a change look up what it meets in a source instead of scanning it, where no key of it serves."""
    keyed = {(one.oid, key[0]) for one in request.relations for key in one.keys if key}
    return tuple(
        {"relation": one.table.oid, "columns": list(one.columns), "why": shown(one.why)}
        for one in wanted
        if isinstance(one.table, Source) and not any((one.table.oid, name) in keyed for name in one.columns)
    )
