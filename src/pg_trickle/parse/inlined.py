"""A WITH query put where it is read, as a derived table, to which columns may be added that only this reader sees."""

from __future__ import annotations

from postgast.pg_query_pb2 import Node, SelectStmt

from pg_trickle.parse.fallback import reads
from pg_trickle.parse.scope import CommonTable, Context
from pg_trickle.parse.tree import kind, messages, strings
from pg_trickle.parse.undecided import leaves_rows_out


def inlined(statement: SelectStmt, context: Context) -> SelectStmt | None:
    """The SELECT with the WITH query that is all it reads in its place; None where that could mean something else."""
    item = statement.from_clause[0]
    common = context.ctes.get(item.range_var.relname) if kind(item) == "range_var" else None
    if common is None or item.range_var.schemaname or common.is_recursive or common.found is not None:
        return None
    means_else = any(
        reads(common.statement, name) and context.ctes[name] is not one for name, one in common.ctes.items()
    )
    # Readers of one choice see the same rows; of rows that tie, two choices may take others.
    if means_else or common.outer is not context.outer or (common.readings > 1 and _chooses(common)):
        return None
    made = SelectStmt()
    made.CopyFrom(statement)
    derived = made.from_clause[0].range_subselect
    derived.subquery.select_stmt.CopyFrom(common.statement)
    derived.alias.aliasname = item.range_var.alias.aliasname or item.range_var.relname
    names = strings(list(item.range_var.alias.colnames))
    for name in (*names, *common.aliases[len(names) :]):
        derived.alias.colnames.add().string.sval = name
    return made


def _chooses(common: CommonTable) -> bool:
    """Whether it, or a WITH query below it, chooses or numbers rows, which may tie."""
    for message in messages(common.statement):
        if isinstance(message, SelectStmt):
            if leaves_rows_out(message) or any(map(kind, message.distinct_clause)):
                return True
        elif isinstance(message, Node) and kind(message) == "func_call" and message.func_call.HasField("over"):
            return True
    return any(_chooses(one) for name, one in common.ctes.items() if reads(common.statement, name))
