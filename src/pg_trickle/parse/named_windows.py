"""WINDOW: each call over a window that has a name, with the window as if it stood there."""

from __future__ import annotations

from postgast.pg_query_pb2 import SelectStmt, WindowDef

from pg_trickle.parse.tree import kind, outside_subqueries


def write_windows_out(statement: SelectStmt) -> None:
    """Put the windows of a SELECT's own WINDOW clause where its calls name them."""
    defined = {node.window_def.name: node.window_def for node in statement.window_clause}
    if not defined:
        return
    for clause in (*statement.target_list, *statement.distinct_clause, *statement.sort_clause):
        for part in list(outside_subqueries(clause)):
            if kind(part) == "func_call" and part.func_call.HasField("over"):
                part.func_call.over.CopyFrom(_definition(part.func_call.over, defined))
    statement.ClearField("window_clause")


def _definition(window: WindowDef, defined: dict[str, WindowDef]) -> WindowDef:
    """A window in full: OVER w takes all of w, OVER (w …) its PARTITION BY and, lacking one, its ORDER BY."""
    if window.name in defined:
        return _definition(_anonymous(defined[window.name]), defined)
    made = _anonymous(window)
    if window.refname:
        base = _definition(_anonymous(defined[window.refname]), defined)
        made.ClearField("refname")
        made.partition_clause.extend(base.partition_clause)
        if not made.order_clause:
            made.order_clause.extend(base.order_clause)
    return made


def _anonymous(window: WindowDef) -> WindowDef:
    made = WindowDef()
    made.CopyFrom(window)
    made.ClearField("name")
    return made
