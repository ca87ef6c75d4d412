"""The tree of a SELECT, with what can be written in several ways written in one."""

from __future__ import annotations

from collections.abc import MutableSequence

import postgast
from google.protobuf.message import DecodeError, Message
from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import SVFOP_CURRENT_DATE, FuncCall, Node, SelectStmt, WindowDef

from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.parse.named_windows import write_windows_out
from pg_trickle.parse.tree import fields, is_constant, kind, messages, nodes, strings
from pg_trickle.parse.undecided import is_null

_ROWS = "__pgt_rows"


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
    # A window is written where it is named before its own rows are spread.
    for one in messages(statement):
        if isinstance(one, SelectStmt):
            write_windows_out(one)
            _spread_rows(one.group_clause, one)
        elif isinstance(one, WindowDef):
            _spread_rows(one.partition_clause, one)
    parts = list(nodes(statement))
    for call in [part.func_call for part in parts if kind(part) == "func_call" and _is_age(part)]:
        _count_from_today(call)
    # Inner ones first: what goes into a count is finished then.
    for part in reversed(parts):
        if kind(part) == "sub_link" and part.sub_link.sub_link_type == kinds.EXISTS_SUBLINK:
            _count_rows(part)
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


def _spread_rows(keys: MutableSequence[Node], clause: Message) -> None:
    """Group, or partition, by the fields of rows: rows are equal if these are, NULLs alike, and no table stores rows.

    In grouping sets a row is there as a whole, or not at all.
    """
    if any(kind(node) == "grouping_set" for node in keys) or all(fields(node) == [node] for node in keys):
        return
    if any(kind(part) == "grouping_func" for part in nodes(clause)):
        return
    spread = [[one for one in fields(node) if not is_constant(one)] or [node] for node in keys]
    parts = [part for each in spread for part in each]
    keys.extend(parts)
    del keys[: len(spread)]


def _count_rows(exists: Node) -> None:
    """Write EXISTS without LIMIT and OFFSET, for which it takes no order to know how many rows they leave::

    EXISTS (Q LIMIT n)   =  EXISTS (Q)                           n > 0
    EXISTS (Q LIMIT 0)   =  FALSE
    EXISTS (Q OFFSET m)  =  (SELECT count(*) FROM (Q) AS q) > m  m > 0

    What is computed stays as it is.
    """
    statement = exists.sub_link.subselect.select_stmt
    limit, offset = (
        _number(getattr(statement, name), missing) if statement.HasField(name) else missing
        for name, missing in (("limit_count", 1), ("limit_offset", 0))
    )
    if limit is None or offset is None:
        return
    for name in ("limit_count", "limit_offset"):
        statement.ClearField(name)
    statement.limit_option = kinds.LIMIT_OPTION_DEFAULT
    if limit == 0:
        exists.Clear()
        exists.a_const.boolval.boolval = False
    elif offset > 0:
        exists.CopyFrom(_more_than(offset, exists))


def _number(node: Node, missing: int) -> int | None:
    """A number of rows that is written down, NULL as if it were not; None for what is computed."""
    if is_null(node):
        return missing
    if kind(node) != "a_const" or node.a_const.WhichOneof("val") != "ival":
        return None
    return int(node.a_const.ival.ival)


def _more_than(number: int, exists: Node) -> Node:
    counted = SelectStmt(limit_option=kinds.LIMIT_OPTION_DEFAULT, op=kinds.SETOP_NONE)
    count = counted.target_list.add().res_target.val.func_call
    count.funcname.add().string.sval = "count"
    count.agg_star, count.funcformat = True, kinds.COERCE_EXPLICIT_CALL
    rows = counted.from_clause.add().range_subselect
    rows.subquery.CopyFrom(exists.sub_link.subselect)
    rows.alias.aliasname = _ROWS
    made = Node()
    made.a_expr.kind = kinds.AEXPR_OP
    made.a_expr.name.add().string.sval = ">"
    made.a_expr.location = exists.sub_link.location
    link = made.a_expr.lexpr.sub_link
    link.sub_link_type, link.location = kinds.EXPR_SUBLINK, exists.sub_link.location
    link.subselect.select_stmt.CopyFrom(counted)
    made.a_expr.rexpr.a_const.ival.ival = number
    return made
