"""SEARCH and CYCLE of a recursive WITH query, spelled out in columns that a table can hold.

PostgreSQL defines both by columns that the recursion carries along: the rows of a path, or how deep a row is.  Arrays
of rows can't be stored.  So each column of a path has an array of its own, a row is known again by its text, and
what the query around sees is put together from those above the recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from postgast.pg_query_pb2 import SETOP_NONE, Node, RangeVar, SelectStmt
from psycopg import sql

from pg_trickle.algebra.linear import Item, Project
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.fallback import output_names
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import CommonTable, Context
from pg_trickle.parse.tree import column_reference, kind, nodes, printed, strings
from pg_trickle.scalar import RECORD, RECORDS, UNKNOWN, Column, Identity, Scalar, column, composed

_ROW, _DEPTH, _SEEN, _ORDER, _PATH = "__pgt_row", "__pgt_depth", "__pgt_seen", "__pgt_order", "__pgt_path"
_CAST = r"('(?:[^']|'')*')::([a-z_0-9 .\"]+?)"
_MARKS = re.compile(rf" TO {_CAST} DEFAULT {_CAST} USING ")
_NOTHING = sql.SQL("")
_WHOLE = ("distinct_clause", "group_clause", "having_clause", "limit_count", "limit_offset", "values_lists")


@dataclass(frozen=True, slots=True)
class _Carried:
    """A column that the recursion carries along: its name, what it is at first, and in the row that follows."""

    name: str
    first: sql.Composable
    following: sql.Composable


@dataclass(frozen=True, slots=True)
class Paths:
    """A recursive query with SEARCH or CYCLE; ``labels`` are its columns' names without what these add."""

    common: CommonTable
    labels: tuple[str, ...]
    read: frozenset[str]

    def spelled_out(self, name: str) -> CommonTable:
        """The query without the clauses, its columns followed by those that are carried along."""
        statement, carried = self.common.statement, list(self._carried())
        if not statement.all:
            raise UnsupportedQuery(
                "UNION with SEARCH or CYCLE",
                "its rows are told apart by whole paths.",
                hint="UNION ALL gives the same rows where CYCLE ends it.",
            )
        made = SelectStmt()
        made.CopyFrom(statement)
        made.larg.CopyFrom(self._over(statement.larg, (), [(one.name, one.first) for one in carried]))
        longer = _with_columns(statement.rarg, name, [one.name for one in carried])
        following = self._over(
            longer, [one.name for one in carried], [(one.name, one.following) for one in carried], self._goes_on()
        )
        made.rarg.CopyFrom(following)
        return replace(self.common, statement=made, aliases=(*self.labels, *(one.name for one in carried)))

    def shown(self, query: Query, context: Context) -> Query:
        """The columns that the query around may read: the path's rows, put together from what was carried along."""
        held = dict(query.outputs)
        self._check(held)
        outputs = [(label, held[label]) for label in self.labels]
        items = [Item(one, column(one)) for _, one in outputs]
        for label, value in self._added(held):
            made = Column(context.namer.fresh(label), value.type)
            items.append(Item(made, value))
            outputs.append((label, made))
        return Query(Project(query.plan, tuple(items)), tuple(outputs))

    def _carried(self) -> Iterator[_Carried]:
        expression = self.common.expression
        assert expression is not None
        search, cycle = expression.search_clause, expression.cycle_clause
        if search.search_seq_column in self.read:
            if search.search_breadth_first:
                depth = sql.Identifier(_ROW, _DEPTH)
                yield _Carried(_DEPTH, sql.SQL("0::bigint"), sql.SQL("{depth} + 1").format(depth=depth))
            else:
                yield from self._arrays(_ORDER, self._places(search.search_col_list))
        if not expression.HasField("cycle_clause"):
            return
        places = self._places(cycle.cycle_col_list)
        row = sql.SQL("ROW({columns})::text").format(columns=_listed(_column(place) for place in places))
        seen = sql.Identifier(_ROW, _SEEN)
        yield _Carried(
            cycle.cycle_mark_column,
            self._marked(sql.SQL("false")),
            self._marked(sql.SQL("{row} = ANY ({seen})").format(row=row, seen=seen)),
        )
        yield _Carried(
            _SEEN,
            sql.SQL("ARRAY[{row}]").format(row=row),
            sql.SQL("array_append({seen}, {row})").format(seen=seen, row=row),
        )
        if cycle.cycle_path_column in self.read:
            yield from self._arrays(_PATH, places)

    def _marked(self, condition: sql.Composable) -> sql.Composable:
        """The mark, of one type in both terms."""
        assert self.common.expression is not None
        cycle = self.common.expression.cycle_clause
        return sql.SQL("CASE WHEN {condition} THEN {met} ELSE {other} END").format(
            condition=condition, met=_text(cycle.cycle_mark_value), other=_text(cycle.cycle_mark_default)
        )

    def _goes_on(self) -> sql.Composable:
        """Nothing follows from a row that closes a cycle."""
        assert self.common.expression is not None
        cycle = self.common.expression.cycle_clause
        if not cycle.cycle_mark_column:
            return _NOTHING
        return sql.SQL(" WHERE {mark} <> {met}").format(
            mark=sql.Identifier(_ROW, cycle.cycle_mark_column), met=_text(cycle.cycle_mark_value)
        )

    def _arrays(self, name: str, places: list[int]) -> Iterator[_Carried]:
        for place in places:
            made = f"{name}_{place}"
            yield _Carried(
                made,
                sql.SQL("ARRAY[{value}]").format(value=_column(place)),
                sql.SQL("array_append({path}, {value})").format(path=sql.Identifier(_ROW, made), value=_column(place)),
            )

    def _over(
        self,
        rows: SelectStmt,
        further: list[str] | tuple[()],
        made: list[tuple[str, sql.Composable]],
        where: sql.Composable = _NOTHING,
    ) -> SelectStmt:
        """A SELECT of the query's own columns and others over its rows."""
        own = [_name(place) for place, _ in enumerate(self.labels)]
        values: list[sql.Composable] = [_column(place) for place, _ in enumerate(self.labels)]
        values += [sql.SQL("{value} AS {name}").format(value=value, name=sql.Identifier(name)) for name, value in made]
        text = sql.SQL("SELECT {values} FROM (SELECT 1) AS {row}({names}){where}").format(
            values=_listed(values),
            row=sql.Identifier(_ROW),
            names=_listed(map(sql.Identifier, [*own, *further])),
            where=where,
        )
        statement = parse_select(text.as_string(None))
        statement.from_clause[0].range_subselect.subquery.select_stmt.CopyFrom(rows)
        return statement

    def _places(self, columns: list[Node]) -> list[int]:
        return [self.labels.index(name) for name in strings(list(columns))]

    def _added(self, held: dict[str, Column]) -> Iterator[tuple[str, Scalar]]:
        """What SEARCH and CYCLE add, in PostgreSQL's order; what nobody reads is NULL."""
        expression = self.common.expression
        assert expression is not None
        search, cycle = expression.search_clause, expression.cycle_clause
        if expression.HasField("search_clause"):
            places = self._places(search.search_col_list)
            if search.search_seq_column not in self.read:
                yield search.search_seq_column, Scalar("NULL", frozenset(), UNKNOWN)
            elif search.search_breadth_first:
                yield search.search_seq_column, _row([held[_DEPTH], *(held[self.labels[place]] for place in places)])
            else:
                yield search.search_seq_column, _rows([held[f"{_ORDER}_{place}"] for place in places])
        if expression.HasField("cycle_clause"):
            yield cycle.cycle_mark_column, column(held[cycle.cycle_mark_column])
            if cycle.cycle_path_column in self.read:
                arrays = [held[f"{_PATH}_{place}"] for place in self._places(cycle.cycle_col_list)]
                yield cycle.cycle_path_column, _rows(arrays)
            else:
                yield cycle.cycle_path_column, Scalar("NULL", frozenset(), UNKNOWN)

    def _check(self, held: dict[str, Column]) -> None:
        """A value is known again by its text, and stands in an array, if it is of a simple type."""
        expression = self.common.expression
        assert expression is not None
        for name in strings([*expression.search_clause.search_col_list, *expression.cycle_clause.cycle_col_list]):
            if held[name].type.name is None or held[name].type.identity is not Identity.EQUAL:
                raise UnsupportedQuery(
                    f'SEARCH or CYCLE by column "{name}"', "equal values of its type may differ, or it is an array."
                )


def readable(request: CompileRequest) -> CompileRequest:
    """The request with marks of CYCLE as the grammar takes them: ``text 'Y'`` for the ``'Y'::text`` that is printed."""
    relations = tuple(
        one if one.definition is None else replace(one, definition=_readable(one.definition))
        for one in request.relations
    )
    return replace(request, query=_readable(request.query), relations=relations)


def _readable(text: str) -> str:
    return _MARKS.sub(r" TO \2 \1 DEFAULT \4 \3 USING ", text)


def paths(common: CommonTable, context: Context) -> Paths | None:
    """SEARCH and CYCLE of a recursive query, if it has any."""
    assert common.expression is not None
    if not (common.expression.HasField("search_clause") or common.expression.HasField("cycle_clause")):
        return None
    labels = common.aliases + output_names(common.statement)[len(common.aliases) :]
    return Paths(
        common, labels, frozenset(name for text in context.request.texts for name in _read(parse_select(text)))
    )


def _read(statement: SelectStmt) -> Iterator[str]:
    """The columns that a statement names; an ORDER BY at its end that decides nothing aside."""
    copy = SelectStmt()
    copy.CopyFrom(statement)
    if not (copy.HasField("limit_count") or copy.HasField("limit_offset") or copy.distinct_clause):
        copy.ClearField("sort_clause")
    for part in nodes(copy):
        if kind(part) == "column_ref":
            yield from strings([one for one in part.column_ref.fields if kind(one) == "string"])


def _with_columns(statement: SelectStmt, name: str, more: list[str]) -> SelectStmt:
    """The recursive term with further columns of what it refers to."""
    if statement.op != SETOP_NONE or any(
        bool(getattr(statement, one)) if one in _REPEATED else statement.HasField(one) for one in _WHOLE
    ):
        raise UnsupportedQuery("SEARCH or CYCLE", "a row of the recursive term may follow from several rows together.")
    found = [one for one in _tables(statement.from_clause) if one.relname == name and not one.schemaname]
    made = SelectStmt()
    made.CopyFrom(statement)
    for label in more:
        target = made.target_list.add().res_target
        target.val.CopyFrom(column_reference(found[0].alias.aliasname or name, label))
    return made


_REPEATED = {"distinct_clause", "group_clause", "values_lists"}


def _tables(items: list[Node]) -> Iterator[RangeVar]:
    for item in items:
        match kind(item):
            case "range_var":
                yield item.range_var
            case "join_expr":
                yield from _tables([item.join_expr.larg, item.join_expr.rarg])


def _name(place: int) -> str:
    return f"c{place}"


def _column(place: int) -> sql.Identifier:
    return sql.Identifier(_ROW, _name(place))


def _listed(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


def _text(node: Node) -> sql.Composable:
    return Scalar(printed(node), frozenset(), UNKNOWN).sql()


def _row(columns: list[Column]) -> Scalar:
    text = sql.SQL("ROW({columns})").format(columns=_listed([sql.Identifier(one.name) for one in columns]))
    return composed(text, frozenset(one.name for one in columns), RECORD)


def _rows(arrays: list[Column]) -> Scalar:
    """The rows of which each array holds one column."""
    names = [sql.Identifier("u", _name(place)) for place, _ in enumerate(arrays)]
    text = sql.SQL(
        "(SELECT array_agg(ROW({values}) ORDER BY u.place) FROM unnest({arrays}) WITH ORDINALITY AS u({names}, place))"
    ).format(
        values=_listed([*names]),
        arrays=_listed([sql.Identifier(one.name) for one in arrays]),
        names=_listed([sql.Identifier(_name(place)) for place, _ in enumerate(arrays)]),
    )
    return composed(text, frozenset(one.name for one in arrays), RECORDS)
