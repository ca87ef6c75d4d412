"""Scalar expressions and their types: immutable, and aware of the columns they read.

What the compiler must know of a type is little: whether equal values are identical
(ALGEBRA.md §8, trap 8), and for numbers whether sums are exact.  Where it can't tell,
it says so (``UNKNOWN``) and every user of a type takes the careful way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from psycopg import sql


class Identity(StrEnum):
    """How two values are told apart, beyond ``=``."""

    EQUAL = "equal"
    SCALE = "scale"
    TEXT = "text"
    NONE = "none"


_ONE_IMAGE = {"bool", "int2", "int4", "int8", "oid", "date", "timestamp", "timestamptz", "uuid"}


@dataclass(frozen=True, slots=True)
class Type:
    """A type as far as the algebra cares.

    ``name`` is the built-in's ``typname``, None when it isn't known or not built in.
    ``scale`` is the number of decimals that every value has, None when they vary; ``scales`` are then all that
    occur, empty when that isn't known.  ``respelled``: what is shown is one of several equal values that may read
    differently, and perhaps one that no row has any more; whose keys a group's are, so that an expression may not tell.
    ``spelled``: how SQL names a type that isn't built in, where that is known; it tells nothing that decides a rule.
    ``unsorted``: rows are grouped by it, though nothing but a hash knows which values are equal.
    """

    name: str | None
    identity: Identity
    scale: int | None = None
    hashable: bool = True
    scales: frozenset[int] = frozenset()
    respelled: bool = field(default=False, compare=False)
    unsorted: bool = field(default=False, compare=False)
    spelled: str | None = field(default=None, compare=False)

    @property
    def is_row(self) -> bool:
        """Whether values are rows of no type that has a name, or arrays of them: no table has such a column."""
        return self.name in {"record", "_record"}

    @property
    def is_integer(self) -> bool:
        return self.name in {"int2", "int4", "int8"}

    @property
    def is_exact(self) -> bool:
        """Whether adding and subtracting loses nothing."""
        return self.is_integer or self.name == "numeric"

    @property
    def decimals(self) -> frozenset[int]:
        """The numbers of decimals that values have, as far as they are known."""
        return self.scales if self.scale is None else frozenset((self.scale,))

    @property
    def tells_decimals(self) -> bool:
        """Whether numbers of any decimals come and go with those that they have, and not as equal ones."""
        return self.name == "numeric" and self.identity is Identity.SCALE and self.scale is None and not self.respelled

    @property
    def is_identity(self) -> bool:
        """Whether equal values are identical: numbers are, when they all have the same decimals."""
        return self.identity is Identity.EQUAL or (self.identity is Identity.SCALE and self.scale is not None)

    @property
    def has_one_image(self) -> bool:
        """The same for certain, even where only ``by_value`` calls values identical: each has one representation."""
        return self.name in _ONE_IMAGE or (self.name == "numeric" and self.scale is not None)

    @property
    def sorts_quickly(self) -> bool:
        """Whether sorting costs less than what neighbours in an index save: not of strings, and some types can't be."""
        return self.name == "numeric" or self.name in _ONE_IMAGE

    @property
    def is_textual(self) -> bool:
        """Whether it is text: of which kind equal values are depends on the collation."""
        return self.name in {"text", "varchar", "bpchar", "name"}

    @property
    def is_varying(self) -> bool:
        """Whether it is text of any length: a varchar has no equality but that of text."""
        return self.name in {"text", "varchar"}

    @property
    def is_loose_text(self) -> bool:
        """Whether it is text of which equal values may differ."""
        return self.is_textual and self.identity is not Identity.EQUAL

    @property
    def is_narrow(self) -> bool:
        """Whether no value is too wide for an index."""
        return self.name in _NARROW

    @property
    def by_value(self) -> Type:
        """The type where any of several equal values will do: which one a group shows is PostgreSQL's free choice."""
        return self if self.identity is Identity.NONE else replace(self, identity=Identity.EQUAL)

    @property
    def of_any_scale(self) -> Type:
        """The type where nothing is known of decimals."""
        return self if self.is_integer else replace(self, scale=None, scales=frozenset())

    @property
    def of_group(self) -> Type:
        """The type of what a group shows of its key."""
        return self if self.is_identity or self.has_one_image else replace(self, respelled=True)

    @property
    def grouped(self) -> Type:
        """The type of what a query groups by: whatever it is, PostgreSQL has found equality for it."""
        none = self.identity is Identity.NONE
        return replace(self, identity=Identity.TEXT, unsorted=self.hashable) if none else self


_NARROW = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "date", "time", "timestamp", "timestamptz", "uuid"}
)
UNKNOWN = Type(None, Identity.NONE, hashable=False)
BOOL = Type("bool", Identity.EQUAL)
INT4 = Type("int4", Identity.EQUAL, 0)
INT8 = Type("int8", Identity.EQUAL, 0)
TEXT = Type("text", Identity.EQUAL)
RECORD = Type("record", Identity.TEXT, hashable=False)
RECORDS = Type("_record", Identity.TEXT, hashable=False)
NUMERIC = Type("numeric", Identity.SCALE)
_MOST_SCALES = 4


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a plan.  Names are unique within a whole plan."""

    name: str
    type: Type
    not_null: bool = False


@dataclass(frozen=True, slots=True)
class Scalar:
    """An expression over the columns of a plan.

    ``text`` was printed by a parser's deparser or composed from quoted parts; ``equates``
    names the two columns when the expression is ``a = b``, ``compares`` when it is any of PostgreSQL's own comparisons,
    ``a < b`` or the like; one that ``returns_set`` makes any number of rows
    of one, and has its place in a select list or GROUP BY alone.  A NULL in any ``strict`` column makes it NULL.
    ``fixes`` names the column when the expression is ``a = constant``.  ``sides`` are the columns of either side of
    ``… = …``: rows of two tables that satisfy it may be found by hashes.  A condition that ``only_raises`` leaves out
    no row: it is true, or an error.
    """

    text: str
    columns: frozenset[str]
    type: Type
    not_null: bool = False
    equates: tuple[str, str] | None = None
    compares: tuple[str, str] | None = None
    returns_set: bool = False
    strict: frozenset[str] = frozenset()
    fixes: str | None = None
    sides: tuple[frozenset[str], frozenset[str]] | None = None
    only_raises: bool = False

    def sql(self) -> sql.Composable:
        """The expression as SQL: the one door for parsed text."""
        return _Verbatim(self.text)

    @property
    def is_column(self) -> bool:
        return len(self.columns) == 1 and self.text == identifier(next(iter(self.columns)))

    @property
    def demanded(self) -> frozenset[str]:
        """The columns that aren't NULL in any row for which the expression, as a condition, is true."""
        # The deparser quotes a name only where it must.
        tests = {f"{spelt} IS NOT NULL" for name in self.columns for spelt in (name, identifier(name))}
        return self.columns if self.text in tests else self.strict


class _Verbatim(sql.Composable):
    """Text that a deparser printed; ``sql.SQL`` is for literals in the source alone."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def as_bytes(self, context: object = None) -> bytes:
        return str(self._obj).encode()


def identifier(name: str) -> str:
    """A name as SQL prints it, quoted."""
    return sql.Identifier(name).as_string(None)


def column(of: Column) -> Scalar:
    """The expression that is just a column."""
    only = frozenset((of.name,))
    return Scalar(identifier(of.name), only, of.type, of.not_null, strict=only)


def numeric_of(decimals: frozenset[int]) -> Type:
    """Numbers that have one of so many decimals; too many of them are as good as any."""
    if len(decimals) == 1:
        return replace(NUMERIC, scale=next(iter(decimals)))
    return replace(NUMERIC, scales=decimals if len(decimals) <= _MOST_SCALES else frozenset())


def null(of: Type) -> Scalar:
    """A NULL of a type, as far as that is known; elsewhere the other side of a sum says of which type it is."""
    if of.name is None:
        return Scalar("NULL" if of.spelled is None else f"NULL::{of.spelled}", frozenset(), of)
    return composed(sql.SQL("NULL::{type}").format(type=sql.Identifier("pg_catalog", of.name)), frozenset(), of)


def spelling(of: Column) -> Scalar | None:
    """What tells equal values of a column apart; None where they are the same, or nothing makes them equal."""
    if of.type.is_identity or of.type.identity is Identity.NONE:
        return None
    name = sql.Identifier(of.name)
    if of.type.identity is Identity.SCALE:
        return composed(sql.SQL("pg_catalog.scale({name})").format(name=name), frozenset((of.name,)), INT4)
    return composed(as_text(of.type, name), frozenset((of.name,)), TEXT)


def as_text(of: Type, value: sql.Composable) -> sql.Composable:
    """A value as text that tells it from every other: a cast would leave out blanks at the end of a ``bpchar``."""
    if of.name == "bpchar":
        return sql.SQL("pg_catalog.textin(pg_catalog.bpcharout({value}))").format(value=value)
    if of.name is None:
        # It may be one all the same, or have a cast of its owner's.  A row shows its fields as they print themselves.
        return sql.SQL("ROW({value})::text").format(value=value)
    return sql.SQL("{value}::text").format(value=value)


def composed(text: sql.Composable, columns: frozenset[str], of: Type, *, not_null: bool = False) -> Scalar:
    """An expression that the compiler itself makes."""
    return Scalar(text.as_string(None), columns, of, not_null)


def are_compared_as_row(columns: Iterable[Column]) -> bool:
    """Whether columns, some of which may be NULL or are of types that only records compare, can be hashed as a row."""
    of = list(columns)
    return not all(one.not_null and one.type.name for one in of) and all(one.type.hashable for one in of)
