"""Joins that stand in a query several times under other names, made one: their change is then computed once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.order import DistinctOn
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Field, Scan, Source
from pg_trickle.scalar import Column, Scalar, column, identifier

Path = tuple[str, ...]
"""The way from the root of a plan to one of its operators: the names of the inputs."""
Names = dict[str, str]
"""What the columns of one of several joins are called in the one that stands for them all."""
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[^\W\d][\w$]*")


def made_alike(plan: Plan) -> Plan:
    """The plan with joins of the same tables on the same conditions as projections of one, ``π(J)``.

    A query that compares rows with what they come to together, lines of a part with their mean, joins the same tables
    within the aggregate and around it.  J reads what any of them reads, under the names of the first.
    Larger joins go first, and what is inside one that was found is left as it is.
    """
    classes: list[_Class] = []
    found = sorted(_plain_joins(plan), key=lambda pair: -_size(pair[1]))
    for path, join in found:
        if any(path[: len(outer)] == outer for one in classes if len(one.members) > 1 for outer in one.members):
            continue
        if not any(one.takes(path, join) for one in classes):
            classes.append(_Class(join, {path: {name: name for name in names(join)}}))
    places = {path: (one.plan, known) for one in classes if len(one.members) > 1 for path, known in one.members.items()}
    return _replaced(plan, (), places) if places else plan


@dataclass(slots=True)
class _Class:
    """Joins that are alike: the one that stands for them, and where they are."""

    plan: Plan
    members: dict[Path, Names]

    def takes(self, path: Path, join: Plan) -> bool:
        """Whether a join is alike, and then it is a member."""
        both = _both(self.plan, join)
        if both is None:
            return False
        self.plan, self.members[path] = both
        return True


def _plain_joins(plan: Plan, path: Path = ()) -> Iterator[tuple[Path, Plan]]:
    if isinstance(plan, Recursion):
        return
    if isinstance(plan, Join) and _is_plain(plan):
        yield path, plan
    for name in plan.__dataclass_fields__:
        below = getattr(plan, name)
        if isinstance(below, Plan):
            yield from _plain_joins(below, (*path, name))


def _is_plain(plan: Plan) -> bool:
    """Whether it is made of tables by filters and inner joins alone, selections of them stored or not."""
    match plan:
        case Scan(Source()):
            return True
        case Filter(below) | DistinctOn(Filter() as below, order=()):
            return _is_plain(below)
        case Project(below, items):
            return all(item.value.is_column for item in items) and _is_plain(below)
        case Join(left, right):
            return _is_plain(left) and _is_plain(right)
        case _:
            return False


def _size(plan: Plan) -> int:
    match plan:
        case Join(left, right):
            return _size(left) + _size(right)
        case Filter(below) | Project(below) | DistinctOn(below):
            return _size(below)
        case _:
            return 1


def _both(one: Plan, other: Plan) -> tuple[Plan, Names] | None:
    """What stands for both plans, with all columns of the first, and what the second's are called there."""
    if isinstance(one, Project):
        inside = _both(one.input, other) if _renames_nothing(one) else None
        return inside and (inside[0], inside[1])
    match one, other:
        case _, Project(below, items):
            inside = _both(one, below)
            if inside is None:
                return None
            known = {item.column.name: inside[1][next(iter(item.value.columns))] for item in items}
            return inside[0], known
        case Scan(), Scan():
            return _scan(one, other)
        case Filter(below, predicates), Filter(other_below, other_predicates):
            inside = _both(below, other_below)
            if inside is None or _told(predicates, None) != _told(other_predicates, inside[1]):
                return None
            return replace(one, input=inside[0]), inside[1]
        case DistinctOn(below), DistinctOn(other_below):
            inside = _both(below, other_below)
            return inside and _chosen(one, other, inside)
        case Join(), Join():
            return _join(one, other, (other.left, other.right)) or _join(one, other, (other.right, other.left))
        case _:
            return None


def _renames_nothing(plan: Project) -> bool:
    return all(item.value.is_column and item.column.name in item.value.columns for item in plan.items)


def _join(one: Join, other: Join, sides: tuple[Plan, Plan]) -> tuple[Plan, Names] | None:
    left = _both(one.left, sides[0])
    right = left and _both(one.right, sides[1])
    if not left or not right:
        return None
    known = left[1] | right[1]
    if _told(one.on, None) != _told(other.on, known):
        return None
    return replace(one, left=left[0], right=right[0]), known


def _chosen(one: DistinctOn, other: DistinctOn, inside: tuple[Plan, Names]) -> tuple[Plan, Names] | None:
    below, known = inside
    if one.order or other.order or set(one.keys) != {known[name] for name in other.keys}:
        return None
    passed = tuple(dict.fromkeys((*one.passed, *(known[name] for name in other.passed))))
    return replace(one, input=below, passed=passed), known


def _scan(one: Scan, other: Scan) -> tuple[Plan, Names] | None:
    if one.table != other.table:
        return None
    there = {field.attribute: field for field in one.fields}
    known: Names = {}
    more: list[Field] = []
    for field in other.fields:
        mine = there.get(field.attribute)
        if mine is None:
            more.append(field)
        elif replace(mine.column, name=field.column.name) != field.column:
            return None
        known[field.column.name] = (mine or field).column.name
    return replace(one, fields=(*one.fields, *more)), known


def _told(predicates: tuple[Scalar, ...], known: Names | None) -> set[frozenset[str] | str]:
    """Conditions in a form in which equal ones are the same; ``known`` tells what their columns are called."""
    return {_one_told(predicate, known or {name: name for name in predicate.columns}) for predicate in predicates}


def _one_told(predicate: Scalar, known: Names) -> frozenset[str] | str:
    if predicate.equates:
        return frozenset(known[name] for name in predicate.equates)

    def called(token: re.Match[str]) -> str:
        text = token[0]
        name = text[1:-1].replace('""', '"') if text.startswith('"') else text
        return identifier(known[name]) if name in predicate.columns else text

    return _TOKEN.sub(called, predicate.text)


def _replaced(plan: Plan, path: Path, places: dict[Path, tuple[Plan, Names]]) -> Plan:
    if path in places:
        return _picked(plan.columns, *places[path])
    below = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    rebuilt = {
        name: _replaced(value, (*path, name), places) for name, value in below.items() if isinstance(value, Plan)
    }
    return replace(plan, **rebuilt) if rebuilt else plan


def _picked(columns: tuple[Column, ...], plan: Plan, known: Names) -> Plan:
    """Columns of a plan under the names that they had."""
    if [known[one.name] for one in columns] == [one.name for one in columns] == list(names(plan)):
        return plan
    by_name = {one.name: one for one in plan.columns}
    return Project(plan, tuple(Item(one, column(by_name[known[one.name]])) for one in columns))
