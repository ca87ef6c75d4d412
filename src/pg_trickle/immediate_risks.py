"""What maintenance inside a statement has to allow for: values that can't be evaluated, and the writer's settings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pg_trickle.catalog.model import CompileRequest

# Values of these types look the same as text under any settings.
PLAIN_TYPES = frozenset(
    {"int2", "int4", "int8", "numeric", "bool", "text", "varchar", "bpchar", "uuid", "oid", "name", "char"}
)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_CAST = re.compile(r'::\s*"?([a-z][a-z0-9_ ]*)', re.IGNORECASE)
_PLAIN_CAST = re.compile(
    r"(?:text|character|bpchar|varchar|name|bigint|integer|int|int2|int4|int8|smallint|numeric|boolean|bool|record"
    r"|uuid|oid|char|any[a-z]*|internal)\b",
    re.IGNORECASE,
)
# Functions of PostgreSQL's that take any values of theirs: but for numbers too large for their type, which no rows
# that come and go in one statement are likely to bring.
_SAFE = re.compile(
    r"(?!.*(?:range|merge|table|circle|line)$)"
    r"(?:.*(?:eq|ne|lt|le|gt|ge|cmp|pl|mi|mul|um|_interval)|numeric_(?:add|sub|mul)|numeric|int8|float8|abs|date_trunc"
    r"|(?:text|bpchar|name)(?:cat|like|nlike|iclike|icnlike)|(?:any|text)+cat|lower|upper|length|text|timestamp|date"
    r"|date_part|extract|[blr]trim|replace|concat|concat_ws|md5"
    r"|jsonb?_(?:object_field|array_element|extract_path)(?:_text)?|jsonb_exists)"
)


def may_fail(request: CompileRequest) -> bool:
    """Whether the query calls anything that may raise an error for some values: a division, a conversion.

    Rows that a nested statement changes again, and pairs of an old row and a new one, are evaluated too, unless the
    query is simply run.
    """
    return any(
        not one.builtin or (one.kind == "function" and _SAFE.fullmatch(one.name) is None) for one in request.functions
    )


def is_sensitive(request: CompileRequest, texts: Iterable[str]) -> bool:
    """Whether the session's settings (DateStyle, TimeZone …) may matter to the programs.

    They matter to functions that are not immutable, and where values, of columns or given by functions, are read from
    or turned into text.
    A cautious guess: it is only about saving the time that pinning them takes.
    """
    # PostgreSQL calls quote_ident() immutable, though it goes by quote_all_identifiers.
    if any(
        one.volatility != "immutable" or one.name == "quote_ident" or not _PLAIN_CAST.match(one.returns.strip('"'))
        for one in request.functions
    ):
        return True
    used = [one for relation in request.relations for one in relation.columns if one.name in relation.used]
    if any(one.base not in PLAIN_TYPES for one in (*request.columns, *used)):
        return True
    casts = (cast for text in texts for cast in _CAST.findall(_LITERAL.sub("''", text)))
    return any(not _PLAIN_CAST.match(cast) for cast in casts)
