"""The types that random tables are made of, each with a few values that collide."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Type:
    """A type, and SQL literals of it.

    ``loose``: equal values may differ in what they show, so which of them a group shows is PostgreSQL's free choice.
    """

    name: str
    values: tuple[str, ...]
    number: bool = False
    exact: bool = False
    loose: bool = False
    comparable: bool = True
    # Sums whose order doesn't matter, to the last digit.
    summable: bool = False
    # Whether expressions may show which of its equal values one is; a case that has such types settles now and then.
    telling: bool = field(default=False, compare=False)
    # A value is a distance from the moment at which it is written: what is compared with now() passes during a case.
    moves: bool = False

    def literal(self, value: str) -> str:
        if self.moves:
            return f"clock_timestamp() + interval '{value}'"
        return f"'{value.replace(chr(39), chr(39) * 2)}'::{self.name}"

    def told(self, expression: str) -> str:
        """An expression of the type as a text of which more is known than the value."""
        return f"('is ' || {self.text(expression)})"

    def text(self, expression: str) -> str:
        """An expression of the type as a text that tells all values apart."""
        return f'({expression})::text COLLATE "C"' if self.is_collated else f"({expression})::text"

    @property
    def is_collated(self) -> bool:
        return "COLLATE" in self.name


INT = Type("int", ("0", "1", "2", "3", "-1"), number=True, exact=True, summable=True)
BIGINT = Type(
    "bigint", ("0", "1", "9223372036854775807", "-4611686018427387904"), number=True, exact=True, summable=True
)
NUMERIC = Type(
    "numeric", ("1", "1.0", "1.00", "2.5", "-3", "0.125", "NaN", "Infinity", "-Infinity"),
    number=True, exact=True, loose=True, summable=True,
)  # fmt: skip
MONEY = Type("numeric(10,2)", ("1", "2.50", "-1.25", "0", "NaN"), number=True, exact=True, summable=True)
FLOAT = Type("float8", ("1.5", "0", "-0", "0.25", "NaN", "Infinity"), number=True, loose=True, summable=True)
TEXT = Type("text", ("", "a", "A", "b ", "it's", 'q"', "\x1e"))
BOOL = Type("boolean", ("true", "false"))
DATE = Type("date", ("2024-01-01", "2024-02-29", "infinity"))
TIMESTAMPTZ = Type("timestamptz", ("2024-01-01 00:00+00", "2024-01-01 01:00+01", "2024-06-01 12:00+02"))
INTERVAL = Type("interval", ("1 day", "24 hours", "1 mon", "30 days", "0"), loose=True)
JSONB = Type("jsonb", ("1", "1.0", '{"a": 1}', '{"a": 1.0}', "null"), loose=True)
JSON = Type("json", ("1", "[]", '{"a":1}'), comparable=False)
ARRAY = Type("int[]", ("{}", "{1,2}", "{NULL}", "{2,1}"))
BPCHAR = Type("char(3)", ("a", "ab", "", "b"))
ENUM = Type("public.mood", ("sad", "ok", "happy"))
DOMAIN = Type("public.small", ("0", "1", "2"))
CITEXT = Type("public.citext", ("a", "A", "b"), loose=True)
# As a whole such a value isn't NULL because its fields are.
PAIR = Type("public.pair", ("(1,a)", "(1.0,a)", "(1,)", "(,)"), loose=True)
NUMERICS = Type("numeric[]", ("{}", "{1}", "{1.0}", "{NULL}"), loose=True)
RANGE = Type("int4range", ("empty", "[1,3)", "(,2]"))
POINT = Type("point", ("(0,0)", "(1,1)", "(0,-0)"), comparable=False)
# Equal by a collation of ICU's, which not every build of PostgreSQL has.
FOLDED = Type("text COLLATE public.folded", ("a", "A", "b"), loose=True)
MOMENT = Type("timestamptz", ("-1 hour", "-20 ms", "15 ms", "40 ms", "120 ms", "1 hour"), moves=True)

TYPES = (
    INT, BIGINT, NUMERIC, MONEY, FLOAT, TEXT, BOOL, DATE,
    TIMESTAMPTZ, INTERVAL, JSONB, JSON, ARRAY, BPCHAR, ENUM, DOMAIN, CITEXT, PAIR, NUMERICS, RANGE, POINT,
)  # fmt: skip
TELLING = tuple(replace(one, telling=True) for one in (NUMERIC, FLOAT, INTERVAL, JSONB, CITEXT, PAIR, NUMERICS))
NUMBER = Type("numeric", (), number=True, exact=True, summable=True)
COUNT = replace(BIGINT, values=("0", "1", "2", "3"))

JSON_TABLE_SINCE = 17
PREPARATION = (
    "CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE TYPE public.pair AS (a numeric, b text)",
    "CREATE DOMAIN public.small AS int CHECK (VALUE < 100)",
    "CREATE EXTENSION citext SCHEMA public",
)
FOLDING = ("CREATE COLLATION public.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",)
