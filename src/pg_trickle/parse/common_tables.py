"""WITH: the queries that a SELECT names, each with those that it may use itself."""

from __future__ import annotations

from collections.abc import Mapping

from postgast.pg_query_pb2 import SelectStmt

from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.fallback import reads
from pg_trickle.parse.scope import CommonTable, Context
from pg_trickle.parse.tree import kind, location, nodes, strings


def common_tables(statement: SelectStmt, context: Context) -> Mapping[str, CommonTable]:
    """The queries of WITH that the SELECT may use: its own, and those around it; raises for one that writes."""
    if not statement.HasField("with_clause"):
        return context.ctes
    known = dict(context.ctes)
    tables = (part.range_var for part in nodes(statement) if kind(part) == "range_var")
    named = [one.relname for one in tables if not one.schemaname]
    for node in statement.with_clause.ctes:
        common = node.common_table_expr
        if kind(common.ctequery) != "select_stmt":
            raise UnsupportedQuery("data-modifying WITH", "a stream table only reads.", position=location(node))
        recursive = statement.with_clause.recursive and reads(common.ctequery.select_stmt, common.ctename)
        known[common.ctename] = CommonTable(
            common.ctequery.select_stmt,
            strings(list(common.aliascolnames)),
            dict(known),
            context.outer,
            expression=common,
            is_recursive=recursive,
            readings=named.count(common.ctename),
        )
    return known
