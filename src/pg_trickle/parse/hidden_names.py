"""References whose printed text means another column than the query does.

PostgreSQL prints the column that USING made of two by its bare name.  In a subquery below, where everything else is
qualified, a bare name means what the subquery's own FROM has under it, if it has::

    SELECT j.k, (SELECT count(*) FROM c WHERE c.k = j.k) FROM a FULL JOIN b USING (k) AS j
    SELECT k,   (SELECT count(*) FROM c WHERE c.k = k)   FROM a FULL JOIN b USING (k) AS j      -- as it is printed

So it is too when a column of that name comes to one of the subquery's tables later.

And it gives columns of derived tables another name where some are called alike, or like those of a USING beside them,
which a row shows then::

    SELECT to_json(q) FROM (SELECT id, a AS id FROM t) AS q                  -- {"id":1,"id":2}
    SELECT to_json(q.*) FROM (SELECT id, a AS id FROM t) AS q(id, id_1)      -- as it is printed: {"id":1,"id_1":2}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import Message
from postgast.pg_query_pb2 import SETOP_NONE, JoinExpr, Node, RangeVar, SelectStmt, WithClause

from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.fallback import output_names
from pg_trickle.parse.tree import children, inner, kind, location, nodes, strings

_MADE_UP = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, slots=True)
class _Level:
    """A query: the columns that USING merged, those of them that an alias can name, and what else FROM brings.

    ``items`` are what FROM lists, ``renamed`` those of them with columns under names that PostgreSQL has made up.
    """

    merged: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    brought: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    renamed: frozenset[str] = frozenset()

    def beside(self, other: _Level) -> _Level:
        """With what another item of FROM brings."""
        return _Level(
            self.merged | other.merged,
            self.named | other.named,
            self.brought | other.brought,
            self.items | other.items,
            self.renamed | other.renamed,
        )


Levels = tuple[_Level, ...]


def check_names(request: CompileRequest) -> None:
    """Refuse a query whose text doesn't say which column is meant; raises InvalidDefinition."""
    for text in request.texts:
        try:
            statement = parse_select(text)
        except UnsupportedQuery:
            continue
        _Reader(request, _common_tables(statement)).read(statement, ())


def _common_tables(statement: SelectStmt) -> dict[str, list[tuple[str, ...]]]:
    """The columns of the queries of WITH that are called so, wherever they stand."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for part in nodes(statement):
        if kind(part) == "common_table_expr":
            common = part.common_table_expr
            query = common.ctequery.select_stmt
            made = (common.search_clause.search_seq_column, common.cycle_clause.cycle_mark_column)
            given = strings(list(common.aliascolnames))
            names = (*given, *output_names(query)[len(given) :], *made)
            found.setdefault(common.ctename, []).append(names)
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    request: CompileRequest
    common: dict[str, list[tuple[str, ...]]]

    def read(self, statement: SelectStmt, around: Levels) -> None:
        """Look at a query, around which are others, the nearest first."""
        for common in statement.with_clause.ctes:
            self.read(common.common_table_expr.ctequery.select_stmt, around)
        if statement.op != SETOP_NONE:
            self.read(statement.larg, around)
            self.read(statement.rarg, around)
            return
        own = self._level(list(statement.from_clause))
        for part in children(statement):
            if not isinstance(part, WithClause):
                self._look(part, own, around)

    def _look(self, message: Message, own: _Level, around: Levels) -> None:
        if isinstance(message, SelectStmt):
            self.read(message, (own, *around))
            return
        if isinstance(message, Node) and kind(message) == "range_subselect":
            derived = message.range_subselect
            self.read(derived.subquery.select_stmt, (own, *around) if derived.lateral else around)
            return
        if isinstance(message, Node) and kind(message) == "column_ref":
            _check(message, (own, *around))
        for part in children(message):
            self._look(part, own, around)

    def _level(self, items: list[Node]) -> _Level:
        level = _Level()
        for item in items:
            one = self._item(item)
            level = level.beside(one)
        return level

    def _item(self, item: Node) -> _Level:
        match kind(item):
            case "join_expr":
                return self._join(item.join_expr)
            case "range_var":
                return self._table(item.range_var)
            case "range_subselect":
                derived = item.range_subselect
                own, given = output_names(derived.subquery.select_stmt), strings(list(derived.alias.colnames))
                return _listed(derived.alias.aliasname, (*own, *given), renamed=_is_renamed(own, given))
            case "range_table_sample":
                return self._item(item.range_table_sample.relation)
            case _:
                return _listed(inner(item).alias.aliasname, tuple(_names(item)))  # type: ignore[attr-defined]

    def _join(self, join: JoinExpr) -> _Level:
        sides = self._level([join.larg, join.rarg])
        if join.HasField("alias"):
            # Its columns are called by the alias.
            given = strings(list(join.alias.colnames))
            renamed = any(_MADE_UP.fullmatch(name) for name in given)
            return _listed(join.alias.aliasname, (*sides.merged, *sides.brought, *given), renamed=renamed)
        using = frozenset(strings(list(join.using_clause)))
        named = using if join.HasField("join_using_alias") else frozenset[str]()
        return sides.beside(_Level(merged=using, named=named))

    def _table(self, table: RangeVar) -> _Level:
        alias, given = table.alias.aliasname or table.relname, strings(list(table.alias.colnames))
        if not table.schemaname and table.relname in self.common:
            known = self.common[table.relname]
            names = (*given, *(name for one in known for name in one))
            return _listed(alias, names, renamed=any(_is_renamed(one, given) for one in known))
        wanted = (table.schemaname or "pg_catalog", table.relname)
        facts = (one for one in self.request.relations if (one.schema, one.name) == wanted)
        return _listed(alias, (*given, *(column.name for one in facts for column in one.columns[len(given) :])))


def _listed(alias: str, names: tuple[str, ...], *, renamed: bool = False) -> _Level:
    items = frozenset((alias,))
    return _Level(brought=frozenset(names), items=items, renamed=items if renamed else frozenset())


def _names(item: Node) -> Iterator[str]:
    """Whatever a function, or a table made by an expression, may call its columns."""
    yield inner(item).alias.aliasname  # type: ignore[attr-defined]
    for part in nodes(item):
        match kind(part):
            case "string":
                yield part.string.sval
            case "column_def":
                yield part.column_def.colname
            case "json_table_column":
                yield part.json_table_column.name


def _check(reference: Node, levels: Levels) -> None:
    """Of a bare name the level is meant that merged it; no other can be meant in a subquery."""
    name, *further = strings(list(reference.column_ref.fields))
    if further and kind(reference.column_ref.fields[-1]) == "a_star":
        of = next((level for level in levels if name in level.items), _Level())
        if name in of.renamed:
            raise _told_otherwise(name, reference)
    if further or len(levels) == 1:
        return
    for place, level in enumerate(levels):
        beyond = levels[place + 1 :]
        if name in level.merged and not any(name in one.named for one in beyond):
            return
        if name in level.merged | level.brought:
            if any(name in one.merged for one in beyond):
                raise _hidden(name, reference)
            return


def _is_renamed(names: tuple[str, ...], printed: tuple[str, ...]) -> bool:
    return any(map(_is_made_up, names, printed))


def _is_made_up(name: str, printed: str) -> bool:
    """Whether a column of this name is printed under one that PostgreSQL makes of it, or of its beginning."""
    found = _MADE_UP.fullmatch(printed)
    return found is not None and name != printed and name.startswith(found[1])


def _told_otherwise(alias: str, reference: Node) -> InvalidDefinition:
    return InvalidDefinition(
        f"rows of \"{alias}\" can't be told by their fields' names",
        sqlstate="0A000",
        detail="Where columns are called alike PostgreSQL prints one by another name, and its rows would show that.",
        hint="Give each column of its FROM a name of its own, or name the columns: jsonb_build_object('a', x.a, …).",
        position=location(reference),
    )


def _hidden(name: str, reference: Node) -> InvalidDefinition:
    return InvalidDefinition(
        f'column "{name}" of a join can\'t be told from another in a subquery',
        sqlstate="0A000",
        detail="PostgreSQL prints the column that USING makes by its bare name,"
        " which means the subquery's own column there.",
        hint=f'Call it something else: make the join a derived table, with "{name}" AS its_name, and refer to that.',
        position=location(reference),
    )
