"""Changes of joins that several parts of a program read: computed once, and handed to later statements.

A statement can't see what it writes itself, so what an aggregate within a query comes to is read by a second
statement; and the query around it often joins the very rows that the aggregate sums up (``rewrite/alike.py``).  The
change of such a join is a WITH query of the first statement that reads it, and travels to the others as the deltas of
stages do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.plan import Plan, distinct, inputs
from pg_trickle.algebra.source import Changes, Field, State
from pg_trickle.render.netting import consolidated
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT, listed
from pg_trickle.render.parts import names as name_list
from pg_trickle.render.select import CommonTables
from pg_trickle.stages import AnyStage


@dataclass(frozen=True, slots=True)
class PassedOn:
    """A join that several parts read.  Of its state there is but the delta, on its way through a program."""

    state: State
    join: Plan

    @property
    def fields(self) -> tuple[Field, ...]:
        """The join's columns, and what they are called on the way."""
        return tuple(Field(column, f"c{place}", f"c{place}") for place, column in enumerate(self.join.columns, 1))

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(field.attribute for field in self.fields)

    def query(self) -> sql.Composable:
        """A query of columns of the same types under the names that they have on the way."""
        return self._named(CommonTables(()).select(self.join), sql.SQL(""))

    def add_out(self, change: Plan, common: CommonTables) -> None:
        """Add what sets the change on its way, each row once."""
        netted = consolidated(self.join.columns, common.select(change))
        common.add_writing(
            f"{self.state.name}_out",
            sql.SQL("INSERT INTO {table} ({columns}, {w}) SELECT {columns}, {w} FROM ({rows}) AS o").format(
                table=sql.Identifier(CHANGES_SCHEMA, self.state.delta_name),
                columns=name_list(self.column_names),
                w=WEIGHT,
                rows=self._named(netted, sql.SQL(", {w}").format(w=WEIGHT)),
            ),
        )

    def _named(self, rows: sql.Composable, more: sql.Composable) -> sql.Composable:
        values = [
            sql.SQL("{value} AS {name}").format(
                value=sql.Identifier(field.column.name), name=sql.Identifier(field.attribute)
            )
            for field in self.fields
        ]
        return sql.SQL("SELECT {values}{more} FROM ({rows}) AS p").format(values=listed(values), more=more, rows=rows)


def passed_on(stages: tuple[AnyStage, ...], final: Plan) -> tuple[PassedOn, ...]:
    """The joins that several stages, or a stage and the final plan, have in common: the largest ones."""
    times: Counter[Plan] = Counter()
    for plan in (*(stage.below for stage in stages), final):
        # Of a join of which no column is read there is but a number of rows.
        times.update({node for node in distinct(plan) if isinstance(node, Join) and node.columns})
    common = [join for join, found in times.items() if found > 1]
    inner = {node for join in common for below in inputs(join) for node in distinct(below)}
    family = stages[-1].state.name.rpartition("_")[0] if stages else ""
    largest = (join for join in common if join not in inner)
    return tuple(PassedOn(State(f"{family}_{number}"), join) for number, join in enumerate(largest, len(stages) + 1))


class Numbering:
    """The same number for plans that are equal, though they are made of different objects that share their parts."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        # The plan stays, so that no other gets its id.
        self._known: dict[int, tuple[Plan, int]] = {}

    def of(self, plan: Plan) -> int:
        """The number of a plan."""
        if id(plan) not in self._known:
            values = (getattr(plan, one.name) for one in fields(plan) if one.compare)
            told = (type(plan), *(self.of(value) if isinstance(value, Plan) else value for value in values))
            self._known[id(plan)] = plan, self._numbers.setdefault(told, len(self._numbers))
        return self._known[id(plan)][1]


@dataclass(frozen=True, slots=True)
class HandedOn:
    """What one statement does about the changes: ``put`` gives its plans the form in which it reads them.

    ``out`` are those that it sets on their way.
    """

    put: Callable[[Plan], Plan]
    out: dict[PassedOn, Plan]


def handed_on(statements: list[list[Plan]], changes: dict[PassedOn, Plan]) -> list[HandedOn]:
    """For each statement, given the plans that it reads: the first computes a change, the others read that.

    Within a statement whatever is equal is one object, and so computed once.
    """
    numbering = Numbering()
    occurring = [{numbering.of(node) for plan in plans for node in distinct(plan)} for plans in statements]
    instead: list[dict[int, Plan]] = [{} for _ in statements]
    out: list[dict[PassedOn, Plan]] = [{} for _ in statements]
    for one, change in changes.items():
        number = numbering.of(change)
        reading = [place for place, numbers in enumerate(occurring) if number in numbers]
        for place in reading:
            # On its way it has each row once.
            instead[place][number] = change if place == reading[0] else Changes(one.state, one.fields)
        if len(reading) > 1:
            out[reading[0]][one] = change
    return [HandedOn(_put(numbering, stand), sent) for stand, sent in zip(instead, out, strict=True)]


def _put(numbering: Numbering, instead: dict[int, Plan]) -> Callable[[Plan], Plan]:
    """What puts plans in the place of those that have these numbers, and one in the place of all that are equal."""
    done: dict[int, Plan] = dict(instead)

    def put(plan: Plan) -> Plan:
        number = numbering.of(plan)
        if number not in done:
            done[number] = plan.over(put)
        return done[number]

    return put
