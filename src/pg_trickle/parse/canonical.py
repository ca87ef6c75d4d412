"""The tree of a SELECT, with what can be written in several ways written in one."""

from __future__ import annotations

import postgast
from google.protobuf.message import DecodeError
from postgast.pg_query_pb2 import SVFOP_CURRENT_DATE, FuncCall, Node, SelectStmt

from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.parse.tree import kind, nodes, strings


def parse_select(text: str) -> SelectStmt:
    """The tree of a single SELECT; raises InvalidDefinition for anything else."""
    try:
        statements = postgast.parse(text).stmts
    except postgast.PgQueryError as exc:
        raise InvalidDefinition(str(exc), sqlstate="42601") from exc
    except (DecodeError, RecursionError) as exc:
        raise UnsupportedQuery("a query nested this deeply", "its tree is deeper than the compiler reads.") from exc
    if len(statements) != 1 or kind(statements[0].stmt) != "select_stmt":
        raise InvalidDefinition("a defining query must be a single SELECT", sqlstate="42601")
    statement = statements[0].stmt.select_stmt
    for call in [part.func_call for part in nodes(statement) if kind(part) == "func_call" and _is_age(part)]:
        _count_from_today(call)
    return statement


def _is_age(node: Node) -> bool:
    name = strings(list(node.func_call.funcname))
    return name in {("age",), ("pg_catalog", "age")} and len(node.func_call.args) == 1


def _count_from_today(call: FuncCall) -> None:
    """Write ``age(x)`` as what it stands for, ``age(CURRENT_DATE, x)``: then it is seen to read the time."""
    value = call.args[0]
    moment = Node()
    moment.CopyFrom(value)
    value.Clear()
    value.sqlvalue_function.op = SVFOP_CURRENT_DATE
    value.sqlvalue_function.typmod = -1
    call.args.append(moment)
