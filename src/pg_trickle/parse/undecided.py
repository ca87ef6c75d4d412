"""What is refused whatever rules there are: the rows that a query reads don't decide what it gives."""

from __future__ import annotations

from google.protobuf.message import Message
from postgast.pg_query_pb2 import Node, SelectStmt

from pg_trickle.errors import Undetermined
from pg_trickle.parse.tree import kind, location, nodes


def leaves_rows_out(statement: SelectStmt) -> bool:
    """Whether LIMIT or OFFSET may leave rows out: not LIMIT ALL, nor OFFSET 0, which is there to bar the planner."""
    counts = [statement.limit_count] if statement.HasField("limit_count") else []
    offsets = [statement.limit_offset] if statement.HasField("limit_offset") else []
    return not all(map(is_null, counts)) or not all(is_null(one) or is_zero(one) for one in offsets)


def is_null(node: Node) -> bool:
    """Whether it is NULL, of whatever type."""
    return is_null(node.type_cast.arg) if kind(node) == "type_cast" else kind(node) == "a_const" and node.a_const.isnull


def is_zero(node: Node) -> bool:
    """Whether it is the number 0."""
    if kind(node) == "type_cast":
        return is_zero(node.type_cast.arg)
    return kind(node) == "a_const" and node.a_const.WhichOneof("val") == "ival" and node.a_const.ival.ival == 0


def is_some(node: Node) -> bool:
    """Whether it is a number above 0."""
    return kind(node) == "a_const" and node.a_const.WhichOneof("val") == "ival" and node.a_const.ival.ival > 0


def sampled(item: Message) -> Undetermined:
    """TABLESAMPLE in FROM."""
    return Undetermined(
        "TABLESAMPLE",
        "a sample isn't a function of the table's rows.",
        hint="Choose the rows by a condition on their columns, such as a hash of the key.",
        position=location(item),
    )


def locked(statement: SelectStmt) -> Undetermined:
    """FOR UPDATE and the like."""
    return Undetermined(
        "FOR UPDATE",
        "a stream table can't lock its sources' rows.",
        hint="Leave it out, and lock rows where you read the stream table.",
        position=location(statement),
    )


def unordered(statement: SelectStmt) -> Undetermined:
    """LIMIT or OFFSET of rows in no order."""
    clause = "limit_count" if statement.HasField("limit_count") else "limit_offset"
    sorts = any(kind(node) == "select_stmt" and node.select_stmt.sort_clause for node in nodes(statement))
    beside = ", beside it: that of a subquery need not reach it" if sorts else ""
    # Nothing may be added to what others read, too (inlined.py).
    names = any(kind(node) == "range_var" and not node.range_var.schemaname for node in statement.from_clause)
    selected = "; a WITH query that is read several times has to select what it is sorted by, for that" if names else ""
    return Undetermined(
        "LIMIT without ORDER BY" if clause == "limit_count" else "OFFSET without ORDER BY",
        "which rows come first is up to PostgreSQL, and another choice whenever it likes.",
        hint=f"Add an ORDER BY that says which rows are meant{beside}{selected}.",
        position=location(getattr(statement, clause)) or location(statement),
    )
