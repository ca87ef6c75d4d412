"""GROUPING SETS, ROLLUP and CUBE: every row once for each set, then one plain aggregation.

::

    γ_{S1, …, Sn}(R)  =  γ_{set, keys}( each row of R, for each set i, with NULL for the keys that Si lacks )

The copies are a linear function of the row, so one delta, rolled up once, keeps all the sets.  The number
of the set is a key as well, because a NULL in a key may be a subtotal's or the row's own.  A set without keys has its
row even of nothing: a row that no aggregate counts makes that group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product

from postgast.pg_query_pb2 import (
    COERCE_IMPLICIT_CAST,
    GROUPING_SET_CUBE,
    GROUPING_SET_EMPTY,
    GROUPING_SET_ROLLUP,
    Node,
    SelectStmt,
)
from psycopg import sql

from pg_trickle.algebra.lateral import ITEM, Lateral
from pg_trickle.algebra.linear import Item, Project, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Unit
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.scope import Namer
from pg_trickle.parse.tree import kind, location, messages, printed, rebuilt, strings
from pg_trickle.scalar import INT4, UNKNOWN, Column, Scalar, column, composed, null

Keys = tuple[Node, ...]
Sets = tuple[frozenset[str], ...]
"""For each set the keys that it has, by a name for each."""


def is_grouping_set(node: Node) -> bool:
    """Whether an item of GROUP BY stands for several sets, or for the one without keys."""
    return kind(node) == "grouping_set"


def expanded(items: Iterable[Node]) -> list[Keys]:
    """The sets that GROUP BY asks for: those of its items combined, each with each."""
    return [sum(choice, ()) for choice in product(*(_alternatives(item) for item in items))]


def _alternatives(item: Node) -> list[Keys]:
    if not is_grouping_set(item):
        return [_together(item)]
    content = list(item.grouping_set.content)
    match item.grouping_set.kind:
        case kinds if kinds == GROUPING_SET_EMPTY:
            return [()]
        case kinds if kinds == GROUPING_SET_ROLLUP:
            parts = [_together(part) for part in content]
            return [sum(parts[:length], ()) for length in range(len(parts), -1, -1)]
        case kinds if kinds == GROUPING_SET_CUBE:
            return [sum(choice, ()) for choice in product(*([_together(part), ()] for part in content))]
        case _:
            return [keys for part in content for keys in _alternatives(part)]


def _together(item: Node) -> Keys:
    """The keys of an element: several, if it is a list in parentheses."""
    is_list = kind(item) == "row_expr" and item.row_expr.row_format == COERCE_IMPLICIT_CAST
    return tuple(item.row_expr.args) if is_list else (item,)


def as_outputs(item: Node) -> Node:
    """An item of GROUP BY as PostgreSQL prints its keys among the outputs: constants without the type that they have.

    In GROUP BY it prints ``1::integer``, for ``1`` would number an output.
    """

    def replace(part: Node) -> Node | None:
        if is_grouping_set(part) or _together(part) != (part,):
            return None
        return part.type_cast.arg if _has_its_type(part) else part

    return rebuilt(item, replace)


def _has_its_type(node: Node) -> bool:
    if kind(node) != "type_cast" or kind(node.type_cast.arg) != "a_const":
        return False
    written = node.type_cast.arg.a_const.WhichOneof("val")
    name = strings(list(node.type_cast.type_name.names))[-1:]
    return (written, name) in {("ival", ("int4",)), ("fval", ("numeric",)), ("boolval", ("bool",))}


def check_keys(request: CompileRequest) -> None:
    """Refuse sets in which several outputs that look alike are keys, each by itself; raises InvalidDefinition.

    In a set of one of them the others are NULL; but which is meant, what PostgreSQL prints doesn't say.
    """
    for text in request.texts:
        try:
            statement = parse_select(text)
        except UnsupportedQuery:
            continue
        for one in messages(statement):
            if isinstance(one, SelectStmt) and any(map(is_grouping_set, one.group_clause)):
                _check_keys(one)


def _check_keys(statement: SelectStmt) -> None:
    keys = Counter(printed(key) for item in statement.group_clause for key in _keys(as_outputs(item)))
    targets = {printed(node.res_target.val): node.res_target.val for node in statement.target_list}
    outputs = Counter(printed(node.res_target.val) for node in statement.target_list)
    for text in (text for text in targets if keys[text] > 1 < outputs[text]):
        raise InvalidDefinition(
            "outputs that read alike are keys of grouping sets",
            sqlstate="0A000",
            detail="Each is a key by itself, and PostgreSQL prints them so that nobody can tell which is meant.",
            hint="Name them in a subquery, and group by the names: FROM (SELECT a AS x, a AS y, …) AS q GROUP BY …",
            position=location(targets[text]),
        )


def _keys(item: Node) -> Keys:
    if not is_grouping_set(item):
        return _together(item)
    return tuple(key for part in item.grouping_set.content for key in _keys(part))


class Copies:
    """Rows once for each grouping set, with the keys that tell the groups apart.

    ``keys`` are the columns below, by the names that ``sets`` uses.
    """

    def __init__(self, sets: Sets, keys: dict[str, Column], namer: Namer) -> None:
        self._sets = sets
        self._namer = namer
        self._number = Column(namer.fresh("set"), INT4, not_null=True)
        self.masked = {
            name: one if self._is_constant(name) else Column(namer.fresh(f"{one.name}_or_all"), one.type)
            for name, one in keys.items()
        }
        self._keys = keys
        # A subtotal's NULL is no key's own value, and no set comes twice: then the keys alone tell the groups.
        self._is_told = len(set(sets)) == len(sets) and all(one.not_null for one in keys.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """What to group by."""
        number = () if self._is_told else (self._number.name,)
        return (*number, *(one.name for one in self.masked.values()))

    def plan(self, below: Plan) -> Plan:
        """The rows of a plan, once for each set, and one that isn't counted for each set without keys."""
        item = sql.SQL("LATERAL generate_series(1, {last}) AS {item}({number})").format(
            last=sql.Literal(len(self._sets)), item=sql.Identifier(ITEM), number=sql.Identifier(self._number.name)
        )
        copies = Lateral(below, composed(item, frozenset(), UNKNOWN), (self._number,))
        kept = [Item(one, column(one)) for one in below.columns]
        masks = [Item(one, self._mask(name)) for name, one in self.masked.items() if one.name != self._keys[name].name]
        counted = Project(copies, (*kept, Item(self._number, column(self._number)), *masks))
        empty = [place for place, keys in enumerate(self._sets, 1) if not keys]
        return UnionAll(counted, self._phantoms(counted, empty)) if empty else counted

    def grouping(self, arguments: list[str]) -> Scalar:
        """GROUPING(): a bit for each argument, set if the set lacks that key."""
        if self._is_told:
            return self._grouping_by_nulls(arguments)
        bits = [
            sum((name not in keys) << place for place, name in enumerate(reversed(arguments))) for keys in self._sets
        ]
        text = sql.SQL("(ARRAY[{bits}])[{number}]").format(
            bits=sql.SQL(", ").join(map(sql.Literal, bits)), number=sql.Identifier(self._number.name)
        )
        return composed(text, frozenset((self._number.name,)), INT4, not_null=True)

    def _grouping_by_nulls(self, arguments: list[str]) -> Scalar:
        bits = [
            sql.SQL("{bit} * ({key} IS NOT DISTINCT FROM NULL)::pg_catalog.int4").format(
                bit=sql.Literal(1 << place), key=sql.Identifier(self.masked[name].name)
            )
            for place, name in enumerate(reversed(arguments))
        ]
        used = frozenset(self.masked[name].name for name in arguments)
        return composed(sql.SQL(" + ").join(bits), used, INT4, not_null=True)

    def _is_constant(self, name: str) -> bool:
        return all(name in keys for keys in self._sets)

    def _mask(self, name: str) -> Scalar:
        raw = self._keys[name]
        places = [place for place, keys in enumerate(self._sets, 1) if name in keys]
        text = sql.SQL("CASE WHEN {number} IN ({places}) THEN {key} END").format(
            number=sql.Identifier(self._number.name),
            places=sql.SQL(", ").join(map(sql.Literal, places)),
            key=sql.Identifier(raw.name),
        )
        return composed(text, frozenset((self._number.name, raw.name)), raw.type)

    def _phantoms(self, counted: Project, empty: list[int]) -> Plan:
        """A row of NULLs for each set without keys."""
        number = Column(self._namer.fresh("set"), INT4, not_null=True)
        item = sql.SQL("LATERAL unnest(ARRAY[{places}]) AS {item}({number})").format(
            places=sql.SQL(", ").join(map(sql.Literal, empty)),
            item=sql.Identifier(ITEM),
            number=sql.Identifier(number.name),
        )
        rows = Lateral(Unit(), composed(item, frozenset(), UNKNOWN), (number,))
        items = []
        for one in counted.columns:
            is_number = one.name == self._number.name
            made = Column(self._namer.fresh("of_none"), one.type, is_number)
            items.append(Item(made, column(number) if is_number else null(one.type)))
        return Project(rows, tuple(items))
