"""Compile requests made by hand: what the server would tell of a small catalog, without a server."""

from __future__ import annotations

import re
from dataclasses import replace

import postgast
from postgast.pg_query_pb2 import SelectStmt

from pg_trickle.catalog.model import ColumnFact, CompileRequest, FunctionFact, RelationFact
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.query import Query
from pg_trickle.parse.select import parse
from pg_trickle.scalar import Type

# name: (typname, identity)
_TYPES = {
    "integer": ("int4", "equal"),
    "bigint": ("int8", "equal"),
    "text": ("text", "equal"),
    "boolean": ("bool", "equal"),
    "date": ("date", "equal"),
    "timestamp with time zone": ("timestamptz", "equal"),
    "numeric": ("numeric", "scale"),
    "numeric(10,2)": ("numeric", "scale"),
    "double precision": ("float8", "text"),
    "jsonb": ("jsonb", "text"),
    "json": ("json", "none"),
    "interval": ("interval", "text"),
    "public.citext": (None, "text"),
    "integer[]": ("_int4", "text"),
}
_FUNCTIONS = {
    **dict.fromkeys(("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every"), "aggregate immutable"),
    **dict.fromkeys(("array_agg", "string_agg", "stddev", "percentile_disc"), "aggregate immutable"),
    **dict.fromkeys(("variance", "var_pop", "stddev_pop", "bit_and", "bit_or", "bit_xor"), "aggregate immutable"),
    **dict.fromkeys(("row_number", "rank"), "window immutable"),
    **dict.fromkeys(("upper", "round", "abs", "length"), "function immutable"),
    **dict.fromkeys(("random", "clock_timestamp"), "function volatile"),
    **dict.fromkeys(("now", "current_setting", "to_char", "date_trunc"), "function stable"),
    **dict.fromkeys(("generate_series", "unnest"), "set immutable"),
}
_RETURNS = {
    **{"upper": "text", "length": "integer", "count": "bigint", "to_char": "text", "random": "double precision"},
    "percentile_disc": "anyelement",
}


def columns(text: str) -> tuple[ColumnFact, ...]:
    """Columns written like ``id integer!, name text``; the mark means NOT NULL."""
    return tuple(_column(part.strip()) for part in text.split(";"))


def _column(text: str) -> ColumnFact:
    name, _, kind = text.partition(" ")
    of = kind.rstrip("!")
    base, identity = _TYPES[of]
    scale = {"numeric(10,2)": 2, "integer": 0, "bigint": 0}.get(of)
    comparable = of != "json"
    return ColumnFact(
        name=name,
        type=of,
        base=base,
        spelled=of if base is None else None,
        not_null=kind.endswith("!"),
        identity=identity,
        orderable=comparable,
        hashable=comparable,
        scale=scale,
        buffer_column=name,
    )


def table(oid: int, name: str, text: str, *keys: tuple[str, ...], kind: str = "table") -> RelationFact:
    """A table in schema public."""
    return RelationFact(
        oid=oid,
        schema="public",
        name=name,
        kind=kind,
        columns=columns(text),
        keys=keys,
        buffer=f"changes_{oid}",
        rows=0,
        definition=None,
        policy=None,
        policy_tables=(),
        opaque=None,
        used=tuple(one.name for one in columns(text)),
    )


def view(oid: int, name: str, text: str, definition: str) -> RelationFact:
    """A view in schema public; its columns as it calls them."""
    return replace(table(oid, name, text, kind="view"), buffer=None, definition=definition)


SHOP = (
    table(1, "customers", "id integer!; name text; region text!; limit_amount numeric", ("id",)),
    table(2, "orders", "id integer!; customer_id integer!; amount numeric(10,2); placed date; paid boolean", ("id",)),
    table(3, "items", "order_id integer!; line integer!; product text; price numeric; weight double precision",
          ("order_id", "line")),
    table(4, "visits", "customer_id integer; page text; seconds integer; seen timestamp with time zone"),
    table(5, "labels", "tag text; kind text; info jsonb; doc json", ("tag",)),
    table(6, "totals", "region text; total numeric", ("region",), kind="stream_table"),
    view(7, "big_orders", "number integer; customer integer; amount numeric(10,2)",
         "SELECT o.id, o.customer_id, o.amount FROM public.orders o WHERE o.amount > 100::numeric"),
)  # fmt: skip


def functions(query: str) -> tuple[FunctionFact, ...]:
    """The functions that a query names."""
    named = set(re.findall(r"(\w+)\s*\(", query))
    return tuple(_function(name) for name in sorted(named & _FUNCTIONS.keys()))


def _function(name: str) -> FunctionFact:
    kind, volatility = _FUNCTIONS[name].split()
    return FunctionFact(
        schema="pg_catalog",
        name=name,
        kind="function" if kind == "set" else kind,
        volatility=volatility,
        returns=_RETURNS.get(name, "numeric"),
        set_returning=kind == "set",
        builtin=True,
    )


def request(query: str, catalog: tuple[RelationFact, ...] = SHOP, outputs: str | None = None) -> CompileRequest:
    """What the server would ask for a query; ``outputs`` are its columns, worked out if they aren't given."""
    catalog = tuple(one for one in catalog if one.name in _named(query, catalog))
    texts = " ".join([query, *(one.definition or "" for one in catalog)])
    made = CompileRequest(
        id=9,
        schema="public",
        name="st",
        query=query,
        columns=columns(outputs) if outputs else (),
        relations=catalog,
        functions=functions(texts),
    )
    return made if outputs else replace(made, columns=_outputs(made))


def _named(query: str, catalog: tuple[RelationFact, ...]) -> set[str]:
    """The relations that a query, or a view that it names, names."""
    found = set(re.findall(r'public\.(?:(\w+)|"((?:[^"]|"")+)")', query))
    names = {plain or quoted.replace('""', '"') for plain, quoted in found}
    views = (one.definition for one in catalog if one.name in names and one.definition)
    return names.union(*(_named(text, catalog) for text in views))


def _outputs(made: CompileRequest) -> tuple[ColumnFact, ...]:
    """The columns of the query, as far as the compiler can tell: those of the first branch of a UNION."""
    statement = postgast.parse(made.query)
    select = statement.stmts[0].stmt.select_stmt
    while select.HasField("larg"):
        first = SelectStmt()
        first.CopyFrom(select.larg)
        select.CopyFrom(first)
    try:
        outputs = parsed(replace(made, query=postgast.deparse(statement))).outputs
    except UnsupportedQuery:
        return columns("refused text")
    return tuple(_fact(name, column.type) for name, column in outputs)


def parsed(made: CompileRequest) -> Query:
    """The query as algebra."""
    return parse(made)


def _fact(name: str, of: Type) -> ColumnFact:
    known = {base: (text, base) for text, (base, _) in _TYPES.items() if base and "(" not in text}
    text, base = known.get(of.name or "", ("public.citext", None))
    return ColumnFact(
        name=name,
        type=text,
        base=base,
        spelled=text if base is None else None,
        not_null=False,
        identity=of.identity.value,
        orderable=of.hashable,
        hashable=of.hashable,
        scale=of.scale,
        buffer_column=name,
    )
