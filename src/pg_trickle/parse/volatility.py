"""Functions whose result may change without any row changing."""

from __future__ import annotations

from collections.abc import Iterable

from pg_trickle.catalog.model import FunctionFact
from pg_trickle.errors import UnsupportedQuery

# Built-in STABLE functions that depend on settings alone, and those settings are pinned
# to the stream table: TimeZone, DateStyle, IntervalStyle, locale (ALGEBRA.md §8, trap 16).
_PINNED_PREFIXES = (
    "date_", "timestamp_", "timestamptz_", "timetz_", "interval_", "to_", "text", "array_to", "concat", "format",
    "timestamp", "timestamptz", "date", "time", "timetz", "extract", "generate_series", "age", "make_timestamptz",
    "quote_", "json_", "jsonb_", "row_to_json", "array_out", "record_out", "range_out", "anyarray_out", "enum_out",
    "cash_", "money", "numeric_cash", "ts_", "plainto_", "phraseto_", "websearch_", "hash_", "string_to", "overlaps",
    "array_in", "range_in", "domain_in", "record_in", "regclassout", "xmltext", "array_cat", "array_append",
    "datetime", "mul_", "in_range", "tsvector", "like", "unknown", "char", "varchar", "bpchar", "name",
)  # fmt: skip
_TIMELY = frozenset({
    "now", "transaction_timestamp", "statement_timestamp", "timenow", "current_setting", "current_database",
    "current_schema", "current_schemas", "inet_client_addr", "inet_server_addr", "session_user", "current_user",
    "timeofday", "to_regclass", "to_regproc", "to_regtype", "to_regrole", "to_regnamespace", "to_regoper",
})  # fmt: skip


def check_functions(functions: Iterable[FunctionFact]) -> None:
    """Refuse a query whose functions make it depend on more than its rows; raises UnsupportedQuery."""
    for fact in functions:
        if fact.volatility == "volatile":
            raise UnsupportedQuery(
                f"volatile function {fact.name}()", "it may return something else every time it is called."
            )
        if fact.volatility != "stable":
            continue
        if not fact.builtin:
            raise UnsupportedQuery(
                f"STABLE function {fact.schema}.{fact.name}()",
                "it may read tables or settings, whose changes nobody captures.",
                hint="Declare it IMMUTABLE if it computes its result from its arguments alone, or use FULL or AUTO.",
            )
        if fact.name in _TIMELY or not fact.name.startswith(_PINNED_PREFIXES):
            raise UnsupportedQuery(
                f"{fact.name}()", "its result changes with time or session, without any row changing."
            )
