"""Windows over all rows as they come, ``OVER ()``, and what it takes to say in which order they come."""

from __future__ import annotations

from postgast.pg_query_pb2 import SORTBY_DEFAULT, SORTBY_NULLS_DEFAULT, Node, SortBy

from pg_trickle.algebra.aggregate import COLLECTING
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import kind, strings

_COUNTS = frozenset({"row_number", "ntile", "lag", "lead"})
_SHOWS = {"first_value", "last_value", "nth_value"}
_ROWS = 0x00004  # FRAMEOPTION_ROWS
# ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING, but for what it excludes.
_ALL_ROWS = 0x00001 | _ROWS | 0x00010 | 0x00020 | 0x00100
_DEFAULT = 0x00002 | 0x00020 | 0x00400  # RANGE UNBOUNDED PRECEDING
_EXCLUDES_ITSELF = 0x08000
# Which rows tie matters to them: FRAMEOPTION_EXCLUDE_GROUP and _TIES, and functions that any frame leaves as they are.
_WITHOUT_PEERS = 0x10000 | 0x20000
_OF_PEERS = frozenset({"rank", "dense_rank", "percent_rank", "cume_dist"})


def is_window(part: Node) -> bool:
    """Whether it is a call of a window function, or of an aggregate as one."""
    return kind(part) == "func_call" and part.func_call.HasField("over")


def is_bare(window: Node) -> bool:
    """Whether it is a call over all rows as they come, ``OVER ()``."""
    over = window.func_call.over
    return not (over.partition_clause or over.order_clause)


def collects(call: Node, context: Context) -> bool:
    """Whether it is a call of an aggregate to which the order of its input may matter: any of somebody's own may."""
    name = strings(list(call.func_call.funcname))
    return name[-1] in COLLECTING or any(
        fact.kind == "aggregate" and not fact.builtin for fact in context.functions(name)
    )


def counts(window: Node, context: Context) -> bool:
    """Whether it matters to it in which order rows come, but not which of them tie."""
    name, frame = strings(list(window.func_call.funcname))[-1], window.func_call.over.frame_options
    if name in _COUNTS:
        return True
    shows = frame & _ROWS or name in _SHOWS or collects(window, context)
    return bool(shows and not frame & _WITHOUT_PEERS and name not in _OF_PEERS)


def counting(window: Node, order: list[SortBy], context: Context) -> Node:
    """The call over rows in an order.  In none all rows are peers, and all frames but those of ROWS are all of them."""
    made = Node()
    made.CopyFrom(window)
    over = made.func_call.over
    shows = strings(list(made.func_call.funcname))[-1] in _SHOWS or collects(made, context)
    if shows and not over.frame_options & _ROWS:
        over.frame_options = _ALL_ROWS | over.frame_options & _EXCLUDES_ITSELF
    for one in order:
        over.order_clause.add().sort_by.CopyFrom(one)
    return made


def numbered(order: list[SortBy], context: Context) -> SortBy:
    """The sort key that is a row's number among all in an order."""
    made = Node()
    made.func_call.funcname.add().string.sval = "row_number"
    made.func_call.over.frame_options = _DEFAULT
    return SortBy(node=counting(made, order, context), sortby_dir=SORTBY_DEFAULT, sortby_nulls=SORTBY_NULLS_DEFAULT)
