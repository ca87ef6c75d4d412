"""A plan as a tree for people to read: an operator a line, its inputs below it."""

from __future__ import annotations

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, inputs, names
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Opaque, Scan, Source
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window


def outline(plan: Plan, depth: int = 0) -> str:
    """The operator with what it holds, then each input one step further in."""
    lines = [f"{'  ' * depth}{type(plan).__name__}{_detail(plan)}".rstrip()]
    return "\n".join([*lines, *(outline(below, depth + 1) for below in inputs(plan))])


def _detail(plan: Plan) -> str:
    match plan:
        case Scan(table, fields) | Changes(table, fields):
            name = f"{table.schema}.{table.name}" if isinstance(table, Source) else table.name
            return f" {name} ({', '.join(field.column.name for field in fields)})"
        case Filter(_, predicates):
            return " " + " AND ".join(one.text for one in predicates)
        case TimedFilter(_, timed) | TimedColumn(_, timed) | Elapsed(_, timed):
            made = "" if isinstance(plan, TimedFilter) or plan.column is None else f" {plan.column.name} ="
            return f"{made} {timed.now.text}{' near ' + timed.near.text if timed.near else ''}"
        case Project(_, items):
            return " " + ", ".join(
                item.column.name
                if item.value.text.strip('"') == item.column.name
                else f"{item.column.name}={item.value.text}"
                for item in items
            )
        case Mark(_, _, on, marked) | Flipped(_, _, _, on, marked):
            return f" {marked.name}: " + (" AND ".join(one.text for one in on) or "TRUE")
        case Join(_, _, on) | LeftJoin(_, _, on) | FullJoin(_, _, on):
            return " " + (" AND ".join(one.text for one in on) or "TRUE")
        case Lateral(_, item, _, outer, on):
            return f" {item.text}" + (
                f" or NULLs, on {' AND '.join(one.text for one in on) or 'TRUE'}" if outer else ""
            )
        case Aggregate(_, keys, calls):
            made = ", ".join(f"{one.column.name}={one.value.text} [{one.rule.name}]" for one in calls)
            return f" by ({', '.join(keys)}) {made}".rstrip()
        case Window(_, keys, passed, calls, kept, unshown):
            made = ", ".join(f"{one.column.name}={one.value.text}" for one in calls)
            where = f" where {' AND '.join(one.text for one in kept)}" if kept else ""
            without = f" without {', '.join(sorted(unshown))}" if unshown else ""
            return f" by ({', '.join(keys)}) {', '.join((*passed, made))}{where}{without}"
        case DistinctOn(_, keys, passed, order):
            return f" by ({', '.join(keys)}) order {_ordered(order)}: {', '.join(passed)}"
        case TopK(_, order, limit, offset, ties):
            parts = [f" {name} {value.text}" for name, value in (("offset", offset), ("limit", limit)) if value]
            return f" order {_ordered(order)}{''.join(parts)}{' with ties' if ties else ''}"
        case Recompute(_, text, _):
            return f" {text}"
        case Recursion(_, _, name, is_set):
            return f" {name} by UNION{'' if is_set else ' ALL'}"
        case Found(name, schema):
            return f" {name} ({', '.join(one.name for one in schema)})"
        case Partners(_, _, on) | Untouched(_, _, on):
            return f" on {' and '.join(one.text for one in on)}"
        case Touched(_, _, keys):
            return f" by ({', '.join(keys)})"
        case Opaque(text, _):
            return f" {text}"
        case _:
            return "" if inputs(plan) else f" ({', '.join(names(plan))})"


def _ordered(order: tuple[Order, ...]) -> str:
    directions = {True: "asc", False: "desc"}
    places = {True: "nulls first", False: "nulls last"}
    return ", ".join(f"{one.column} {directions[one.is_ascending]} {places[one.nulls_first]}" for one in order)
