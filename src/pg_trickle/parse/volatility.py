"""Functions whose result may change without any row changing."""

from __future__ import annotations

from postgast.pg_query_pb2 import Node, SelectStmt

from pg_trickle.catalog.model import CompileRequest, FunctionFact
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.moments import FUNCTIONS, is_time
from pg_trickle.parse.tree import kind, location, nodes, strings

# Built-in STABLE functions that depend on settings alone, and those settings are pinned
# to the stream table: TimeZone, DateStyle, IntervalStyle, locale (ALGEBRA.md §8, trap 16).
_PINNED_PREFIXES = (
    "date_", "timestamp_", "timestamptz_", "timetz_", "interval_", "to_", "text", "anytextcat", "array_to", "concat",
    "format", "timestamp", "timestamptz", "date", "time", "timetz", "extract", "generate_series", "age",
    "make_timestamptz", "quote_", "json_", "jsonb_", "row_to_json", "array_out", "record_out", "range_out",
    "anyarray_out", "enum_out", "cash_", "money", "numeric_cash", "ts_", "plainto_", "phraseto_", "websearch_",
    "hash_", "string_to", "overlaps", "array_in", "range_in", "domain_in", "record_in", "xmltext", "array_cat",
    "array_append", "datetime", "mul_", "in_range", "tsvector", "like", "unknown", "char", "varchar", "bpchar", "name",
)  # fmt: skip
_SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
# Their values are oids; their texts are names, which ALTER … RENAME changes.
_OBJECTS = frozenset({
    *("regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace"),
    *("regconfig", "regdictionary", "regcollation", "regdatabase", "aclitem"),
})  # fmt: skip
# Their results hold no name whatever they are about.
_BLIND = frozenset(
    (name,) for name in ("count", "sum", "avg", "bool_and", "bool_or", "every", "row_number", "rank", "dense_rank")
)
_TIMELY = frozenset({
    "statement_timestamp", "timenow", "current_setting", "current_database",
    "current_schema", "current_schemas", "inet_client_addr", "inet_server_addr", "session_user", "current_user",
    "timeofday", "age", "format_type",
})  # fmt: skip


def check_functions(request: CompileRequest) -> None:
    """Refuse a query whose functions make it depend on more than its rows; raises UnsupportedQuery."""
    # What is volatile is refused under AUTO as well, whatever stands beside it.
    for fact in sorted(request.functions, key=lambda one: one.volatility != "volatile"):
        try:
            _check(fact)
        except UnsupportedQuery as refusal:
            refusal.position = _place(parse_select(request.query), fact, request)
            refusal.by_itself = refusal.by_itself and not any(map(_reads_system, map(parse_select, request.texts)))
            raise
    _check_objects(request)


def _check_objects(request: CompileRequest) -> None:
    """Refuse what may show the name of a database object; where it is just kept, or compared, that is as an oid."""
    parts = [part for text in request.texts for part in nodes(parse_select(text))]
    holds = any(
        (column.base or "").removeprefix("_") in _OBJECTS
        for one in request.relations
        for column in one.columns
        if column.name in one.used
    ) or any(kind(part) == "type_cast" and _names_object(part) for part in parts)
    told = next(filter(_may_tell_names, parts), None) if holds else None
    if told is not None:
        raise UnsupportedQuery(
            "value that names a database object",
            "it may be shown as a text, which is another when that is renamed, without any row changing.",
            hint="Use refresh_mode => 'FULL' or 'AUTO', or compute the text where you read the stream table.",
            position=location(told),
        )


def _names_object(cast: Node) -> bool:
    """Whether a cast makes such a value of one that isn't a constant."""
    return _type_name(cast) in _OBJECTS and kind(cast.type_cast.arg) != "a_const"


def _type_name(cast: Node) -> str:
    return strings(list(cast.type_cast.type_name.names))[-1]


def _may_tell_names(part: Node) -> bool:
    match kind(part):
        case "type_cast":
            return kind(part.type_cast.arg) != "a_const" and _type_name(part) not in _OBJECTS | {"oid"}
        case "func_call":
            # Only PostgreSQL's own go without their schema.
            return strings(list(part.func_call.funcname)) not in _BLIND
        case "row_expr":
            return True
        case "a_expr":
            return strings(list(part.a_expr.name))[-1:] == ("||",)
        case other:
            return other.startswith(("json_", "xml_"))


def _place(statement: SelectStmt, fact: FunctionFact, request: CompileRequest) -> int | None:
    """Where a query calls a function, or names a view that does."""
    for part in nodes(statement):
        if kind(part) == "func_call" and part.func_call.funcname[-1].string.sval == fact.name:
            return location(part)
    for part in nodes(statement):
        if kind(part) == "range_var":
            named = (part.range_var.schemaname, part.range_var.relname)
            views = (one.definition for one in request.relations if (one.schema, one.name) == named)
            if any(text is not None and _place(parse_select(text), fact, request) for text in views):
                return location(part)
    return None


def _check(fact: FunctionFact) -> None:
    """Refuse a function whose result may change though no row does."""
    if fact.volatility == "volatile":
        raise UnsupportedQuery(
            f"volatile function {fact.name}()",
            "it may return something else every time it is called.",
            hint="Use refresh_mode => 'FULL', which computes it anew every time, or write the query without it.",
            only_full=True,
        )
    # That of a transaction's id is a number.
    is_timed = fact.name in FUNCTIONS or (fact.name == "age" and fact.returns == "interval")
    if fact.volatility != "stable" or (fact.builtin and is_timed):
        # Where it may stand is said where expressions are read.
        return
    if not fact.builtin:
        raise UnsupportedQuery(
            f"STABLE function {fact.schema}.{fact.name}()",
            "it may read tables or settings, whose changes nobody captures.",
            hint="Declare it IMMUTABLE if it computes its result from its arguments alone, or use FULL or AUTO.",
            by_itself=True,
        )
    if fact.name in _TIMELY or fact.name.startswith("to_reg") or not fact.name.startswith(_PINNED_PREFIXES):
        raise UnsupportedQuery(
            f"{fact.name}()",
            "its result changes with time or session, without any row changing.",
            hint="Use refresh_mode => 'FULL' or 'AUTO', or compute with it where you read the stream table.",
            by_itself=True,
        )


def is_determined_by_rows(request: CompileRequest) -> bool:
    """Whether the query's result can only change when rows of the relations that the request names change.

    Where it can't be watched otherwise, a query is recomputed whenever it is due.
    """
    try:
        check_functions(request)
        return all(map(_reads_named_relations_alone, map(parse_select, request.texts)))
    except UnsupportedQuery:
        return False


def _reads_named_relations_alone(statement: SelectStmt) -> bool:
    """Whether a statement reads no time, system catalog, system column or value of the session."""
    return reads_named_relations(statement) and not any(map(is_time, nodes(statement)))


def reads_named_relations(statement: SelectStmt) -> bool:
    """Whether a statement reads no system catalog, system column or value of the session, but for the time."""
    return not _reads_system(statement) and not any(
        (kind(part) == "sqlvalue_function" and not is_time(part)) or _is_system_column(part)
        for part in nodes(statement)
    )


def _reads_system(statement: SelectStmt) -> bool:
    """Whether a statement reads a system catalog or view."""
    parts = list(nodes(statement))
    common = {part.common_table_expr.ctename for part in parts if kind(part) == "common_table_expr"}
    tables = [part.range_var for part in parts if kind(part) == "range_var"]
    # Only names of PostgreSQL's own catalog go without their schema.
    return any(
        one.schemaname == "information_schema" or (not one.schemaname and one.relname not in common) for one in tables
    )


def _is_system_column(part: Node) -> bool:
    """Whether a reference may be to where and when a row was written: every UPDATE changes that."""
    return kind(part) == "column_ref" and part.column_ref.fields[-1].string.sval in _SYSTEM_COLUMNS
