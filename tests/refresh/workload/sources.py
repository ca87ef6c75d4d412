"""FROM of random queries: tables and subqueries, joined, and what is made of each row to the left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.refresh.workload import subqueries
from tests.refresh.workload.tables import Relation, quoted
from tests.refresh.workload.types import ARRAY, COUNT, INT, JSONB, NUMBER, TEXT, Type
from tests.refresh.workload.values import TABLE, Built, From, Query, Value

ALIASES = ("a", "b", "q", "select", 'o"o', "Z", "r2", "s")
JOINS = ("join", "left join", "full join")
LATERALS = ("lateral", "left lateral", "lateral first")
FROM_OPERATORS = (*JOINS, *LATERALS, "function")

Path = tuple[str, ...]
Make = Callable[[tuple[Relation, ...], Path], st.SearchStrategy[Query]]


@dataclass
class Builder:
    """Draws an item of FROM; ``make`` draws the queries in it, ``json_table`` is whether the server knows that."""

    draw: st.DrawFn
    relations: tuple[Relation, ...]
    make: Make
    names: list[str]
    json_table: bool
    further: int = 0

    def source(self, path: Path) -> From:
        """Something whose operators from the top are the path's, over tables."""
        if not path:
            return self._tables()
        if path[0] in JOINS:
            one, other = self.source(path[1:]), self._tables()
            return self._joined(*self.draw(st.sampled_from([(one, other), (other, one)])), path[0])
        if path[0] in LATERALS:
            return self._lateral(path)
        if path[0] == "function":
            return self._function(self.source(path[1:]))
        query = self.draw(self.make(self.relations, path))
        return self._item(query.relation, query.built)

    def _tables(self) -> From:
        """A relation, or two of them joined."""
        made = self._item(self.draw(st.sampled_from(self.relations)))
        if self.draw(st.integers(0, 3)) or len(self.names) < 3:
            return made
        other = self._item(self.draw(st.sampled_from(self.relations)))
        return self._joined(made, other, self.draw(st.sampled_from(JOINS)))

    def _name(self) -> str:
        """An alias that no other item has; long paths use up the drawn ones."""
        if not self.names:
            self.further += 1
            return f"x{self.further}"
        return quoted(self.names.pop())

    def _item(self, relation: Relation, built: Built = TABLE) -> From:
        name, columns, renamed = self._name(), relation.columns, ""
        if self.draw(st.integers(0, 7)) == 0:
            columns = tuple(replace(one, name=f"y{place}") for place, one in enumerate(columns))
            renamed = f" ({', '.join(one.name for one in columns)})"
        values = [Value(f"{name}.{one.sql}", one.type, one.loose) for one in columns]
        return From(f"{relation.name} AS {name}{renamed}", values, self.relations, built)

    def _joined(self, left: From, right: From, operator: str) -> From:
        draw = self.draw
        made = From(
            "", [*left.qualified, *right.qualified], self.relations, Built(operator, (left.built, right.built)), True
        )
        outer = {"join": "", "full join": "FULL "}.get(operator) or ""
        if operator == "left join":
            outer = draw(st.sampled_from(["LEFT ", "LEFT ", "RIGHT "]))
        item = f"({right.text})" if right.is_join else right.text
        if draw(st.integers(0, 5)) == 0 and all(_has_one_k(one) for one in (left, right)):
            made.text = f"{left.text} {outer}JOIN {item} USING (k)"
            made.values.insert(0, Value("k", INT))
            return made
        made.text = f"{left.text} {outer}JOIN {item} ON {self._condition(left, right, operator)}"
        return made

    def _condition(self, left: From, right: From, operator: str) -> str:
        draw = self.draw
        same = [
            (one.sql, other.sql)
            for one in left.qualified
            for other in right.qualified
            if one.type.comparable and one.type.name == other.type.name and one.type is not INT
        ]
        if same and draw(st.integers(0, 3)) == 0:
            one, other = draw(st.sampled_from(same))
            return f"{other} = {one}"
        ours, theirs = (left.named_integers, right.named_integers)
        if not ours or not theirs:
            return "true"
        one, other = draw(st.sampled_from(ours)), draw(st.sampled_from(theirs))
        if operator in {"left join", "full join"} and draw(st.integers(0, 7)) == 0:
            return f"{other} = {one} AND {self._decided([one, other])}"
        if operator == "full join":
            # PostgreSQL itself knows no other condition of a full join.
            return f"{other} = {one}"
        extra = draw(st.sampled_from(["", "", "", f" OR {one} IS NULL", f" AND {one} > 0", f" AND {other} > 0"]))
        return draw(st.sampled_from([f"{other} = {one}{extra}"] * 9 + [f"{other} < {one}{extra}", "true"]))

    def _decided(self, integers: list[str]) -> str:
        """A condition about integers that a subquery decides."""
        usable = any(column.type is INT for one in self.relations for column in one.columns)
        return self.draw(subqueries.conditions(integers, self.relations)) if usable else "true"

    def _lateral(self, path: Path) -> From:
        """A subquery for each row to the left; what the path says next is in it, or to the left."""
        draw = self.draw
        inside = draw(st.booleans())
        left = self.source(() if inside else path[1:])
        right = self.source(path[1:]) if inside else self._item(draw(st.sampled_from(self.relations)))
        name = self._name()
        text, values = self._correlated(left, right, path[0] == "lateral first")
        made = From(relations=self.relations, built=Built(path[0], (left.built, right.built)), is_join=True)
        outer = path[0] == "left lateral" or (path[0] == "lateral first" and draw(st.booleans()))
        choices = ["true", "true", f"{name}.x IS NOT NULL"]
        numbers = [f"{name}.x"] if values[0].type is INT else []
        if left.named_integers and draw(st.integers(0, 3)) == 0:
            choices = [self._decided([*numbers, draw(st.sampled_from(left.named_integers))])]
        on = draw(st.sampled_from(choices)) if outer else ""
        made.text = f"{left.text} {'LEFT' if outer else 'CROSS'} JOIN LATERAL ({text}) AS {name}{on and f' ON {on}'}"
        made.values = [*left.qualified, *(replace(one, sql=f"{name}.{one.sql}") for one in values)]
        return made

    def _correlated(self, left: From, right: From, first: bool) -> tuple[str, list[Value]]:
        """The subquery's text and outputs."""
        draw = self.draw
        where = f" WHERE {self._condition(left, right, 'lateral')}"
        certain = [one for one in right.values if not one.loose] or [Value("1", INT)]
        one, other = draw(st.sampled_from(certain)), draw(st.sampled_from(certain))
        rows = f"SELECT {one.sql} AS x, {other.sql} AS y FROM {right.text}{where}"
        shown = [Value("x", one.type), Value("y", other.type)]
        if first:
            direction = draw(st.sampled_from(["", " DESC", " NULLS FIRST"]))
            letters = f"{other.type.text(other.sql)}{direction}, {one.type.text(one.sql)}"
            limit = draw(st.sampled_from([" LIMIT 1", " LIMIT 2", " LIMIT 1 OFFSET 1", " OFFSET 1"]))
            return f"{rows} ORDER BY {letters}{limit}", shown
        integers = [one.sql for one in right.values if one.type is INT]
        choices = [(rows, shown), (rows, shown)]
        if integers:
            of = draw(st.sampled_from(integers))
            counted = f"SELECT sum({of}) AS x, count(*) AS y FROM {right.text}{where}"
            choices += [
                (counted, [Value("x", NUMBER, True), Value("y", COUNT)]),
                (f"{counted} HAVING count(*) > 1", [Value("x", NUMBER, True), Value("y", COUNT)]),
                (f"SELECT {of} AS x, count(*) AS y FROM {right.text}{where} GROUP BY {of}",
                 [Value("x", INT), Value("y", COUNT)]),
                (f"SELECT DISTINCT {of} AS x, {of} + 1 AS y FROM {right.text}{where}",
                 [Value("x", INT), Value("y", INT)]),
                (f"SELECT {of} AS x, row_number() OVER (ORDER BY {of}) AS y FROM {right.text}{where}",
                 [Value("x", INT), Value("y", COUNT)]),
            ]  # fmt: skip
        return draw(st.sampled_from(choices))

    def _function(self, left: From) -> From:
        """An item that is made of the row to its left alone."""
        draw = self.draw
        item, x, y = draw(st.sampled_from(self._items(draw(st.sampled_from(left.qualified)))))
        joined = f" CROSS JOIN {item}" if draw(st.booleans()) else f" LEFT JOIN {item} ON lat.x > 1"
        name = self._name()
        text = joined.replace(" LEFT JOIN (", " LEFT JOIN LATERAL (").replace(" lat.", f" {name}.")
        text = text.replace(" lat (", f" {name} (")
        values = [*left.qualified, Value(f"{name}.x", x), Value(f"{name}.y", y)]
        return From(left.text + text, values, self.relations, Built("function", (left.built,)), True)

    def _greatest(self, of: str) -> str:
        """A subquery about an integer."""
        usable = [(one.name, column.sql) for one in self.relations for column in one.columns if column.type is INT]
        if not usable:
            return of
        name, column = self.draw(st.sampled_from(usable))
        where = self.draw(st.sampled_from(["", f" WHERE i.{column} <= {of}", f" WHERE i.{column} = {of}"]))
        return f"(SELECT max(i.{column}) FROM {name} AS i{where})"

    def _items(self, one: Value) -> list[tuple[str, Type, Type]]:
        items = [("(VALUES (1, 'a'), (2, NULL), (1, 'a')) AS lat (x, y)", INT, TEXT)]
        if one.type is INT:
            items = [
                *items,
                (f"generate_series(0, least({one.sql}, 3)) WITH ORDINALITY AS lat (x, y)", INT, COUNT),
                (f"LATERAL (VALUES ({one.sql}, 'v'), (2, NULL)) AS lat (x, y)", INT, TEXT),
                (f"LATERAL (SELECT max(i), 'm'::text FROM (VALUES (1), ({one.sql})) AS q (i)) AS lat (x, y)",
                 INT, TEXT),
                (f"generate_series(0, least({self._greatest(one.sql)}, 3)) WITH ORDINALITY AS lat (x, y)", INT, COUNT),
                (f"ROWS FROM (generate_series(1, least({one.sql}, 2)), jsonb_array_elements_text('[1, 2, 3]'))"
                 " AS lat (x, y)", INT, TEXT),
            ]  # fmt: skip
        if one.type is ARRAY:
            items += [(f"ROWS FROM (unnest({one.sql}), generate_series(1, 2)) AS lat (x, y)", INT, INT)] * 3
        if one.type == JSONB and self.json_table:
            columns = "COLUMNS (x int PATH '$.a', y int PATH '$')"
            items += [(f"LATERAL JSON_TABLE({one.sql}, 'strict $' {columns}) AS lat (x, y)", INT, INT)] * 3
        if self.json_table and one.type is INT:
            columns = "COLUMNS (y FOR ORDINALITY, NESTED PATH '$.n[*]' COLUMNS (x int PATH '$'))"
            made = f"jsonb_build_object('n', jsonb_build_array({one.sql}, 2))"
            items += [(f"LATERAL JSON_TABLE({made}, '$' {columns}) AS lat (y, x)", INT, INT)] * 2
        return items


def _has_one_k(source: From) -> bool:
    named = [one for one in source.values if one.sql.rpartition(".")[2] in {'"k"', "k"}]
    return len(named) == 1 and named[0].type is INT
