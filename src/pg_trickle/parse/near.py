"""Where time may have changed an expression: a condition that is true wherever it may have, for rows to be found by."""

from __future__ import annotations

from collections.abc import Iterator

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node
from psycopg import sql

from pg_trickle.parse.inverse import CONTAINS, Parsed, crossed
from pg_trickle.parse.moments import before, is_long, is_time, reads_time
from pg_trickle.parse.tree import below, kind, strings
from pg_trickle.scalar import BOOL, Scalar, composed

COMPARISONS = frozenset({"<", "<=", "=", ">=", ">", "<>"})


def near(node: Node, parse: Parsed) -> Scalar | None:
    """A condition that is true wherever time may have changed an expression; None if none is known."""
    found = _places(node, parse)
    return _joined(sql.SQL(" OR "), found) if found else None


def _joined(by: sql.SQL, parts: list[Scalar]) -> Scalar:
    if len(parts) == 1:
        return parts[0]
    text = by.join(sql.SQL("({one})").format(one=one.sql()) for one in parts)
    return composed(text, frozenset(name for one in parts for name in one.columns), BOOL)


def _places(node: Node, parse: Parsed) -> list[Scalar] | None:
    """A condition for each comparison and each day or month in an expression; None if something else reads the time."""
    if not reads_time(node):
        return []
    if is_long(node):
        return [_turned(node, parse)]
    if is_time(node):
        return None
    if _is_comparison(node):
        known = [one for one in (_turning(node, parse), crossed(node.a_expr, parse)) if one is not None]
        if known:
            return [_joined(sql.SQL(" AND "), known)]
    found = [_places(part, parse) for part in below(node)]
    return None if None in found else [one for places in found if places for one in places]


def _is_comparison(node: Node) -> bool:
    if kind(node) != "a_expr" or node.a_expr.kind != kinds.AEXPR_OP:
        return False
    name = strings(list(node.a_expr.name))
    return len(name) == 1 and name[0] in COMPARISONS | CONTAINS


def _turning(node: Node, parse: Parsed) -> Scalar | None:
    """Whether one of the days, months … that a comparison reads is another now; None if it reads moments, too."""
    moments = list(_long_moments(node))
    known = [one for one in moments if one is not None]
    return _joined(sql.SQL(" OR "), [_turned(one, parse) for one in known]) if len(known) == len(moments) else None


def _long_moments(node: Node) -> Iterator[Node | None]:
    """The longest-standing parts that read the time; None for one that moves all the time."""
    if is_long(node):
        yield node
    elif is_time(node):
        yield None
    else:
        for part in below(node):
            if reads_time(part):
                yield from _long_moments(part)


def _turned(moment: Node, parse: Parsed) -> Scalar:
    text = sql.SQL("{now} IS DISTINCT FROM {was}").format(now=parse(moment).sql(), was=parse(before(moment)).sql())
    return composed(text, frozenset(), BOOL)
