"""The parser's tree: reading, rebuilding and printing it.

PostgreSQL's own grammar and deparser (libpg_query).  What is printed parses back to the same tree, but for
parentheses that the deparser leaves out: ``shielded`` puts them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import postgast
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from postgast.pg_query_pb2 import (
    AEXPR_OP,
    AND_EXPR,
    COERCE_EXPLICIT_CALL,
    EXPR_SUBLINK,
    LIMIT_OPTION_DEFAULT,
    OR_EXPR,
    SETOP_NONE,
    BoolExprType,
    Node,
    ParseResult,
    SelectStmt,
    SubLink,
)

from pg_trickle.errors import UnsupportedQuery


def kind(node: Node) -> str:
    """The name of the alternative that the node holds, e.g. ``column_ref``."""
    return node.WhichOneof("node") or ""


def is_expression(node: Node) -> bool:
    """Whether the node is a value by itself, not just a part of one (a name, an argument list, an array's bound)."""
    return kind(node) not in _PARTS


_PARTS = {
    "", "string", "integer", "list", "case_when", "sort_by", "a_indices", "named_arg_expr", "type_name", "res_target",
    "json_key_value", "json_value_expr", "json_argument", "json_format", "json_returning", "json_output",
    "json_behavior", "json_agg_constructor",
}  # fmt: skip


def inner(node: Node) -> Message:
    """The message inside the node's wrapper."""
    held: Message = getattr(node, kind(node))
    return held


def children(message: Message) -> Iterator[Message]:
    """The messages directly below, wrapped or not, in textual order."""
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        if isinstance(value, Message):
            yield value
        else:
            yield from value


def messages(message: Message) -> Iterator[Message]:
    """Every message at or below one, outermost first."""
    # Without recursion: each message would pass through as many generators as it is deep.
    pending = [message]
    while pending:
        part = pending.pop()
        yield part
        pending += reversed([*children(part)])


def nodes(message: Message) -> Iterator[Node]:
    """Every node at or below a message, outermost first."""
    return (part for part in messages(message) if isinstance(part, Node))


def below(node: Node) -> list[Node]:
    """The outermost nodes strictly inside a node."""
    found: list[Node] = []
    pending = list(children(node))
    while pending:
        part = pending.pop(0)
        if isinstance(part, Node):
            found.append(part)
        else:
            pending[:0] = children(part)
    return found


def outside_subqueries(message: Message) -> Iterator[Node]:
    """Every node at or below a message that belongs to this query, not to one inside it."""
    pending = [message]
    while pending:
        part = pending.pop()
        if isinstance(part, Node):
            yield part
        if isinstance(part, SubLink):
            pending += [part.testexpr] if part.HasField("testexpr") else []
        else:
            pending += reversed([*children(part)])


def has_subquery(node: Node) -> bool:
    """Whether there is a subquery in an expression."""
    return any(kind(part) == "sub_link" for part in outside_subqueries(node))


def rebuilt(node: Node, replace: Callable[[Node], Node | None]) -> Node:
    """A copy in which every outermost node that ``replace`` answers for is replaced."""
    copy = Node()
    copy.CopyFrom(node)
    _rebuild(copy, replace)
    return copy


def _rebuild(message: Message, replace: Callable[[Node], Node | None]) -> None:
    if isinstance(message, Node):
        other = replace(message)
        if other is not None:
            message.CopyFrom(other)
            return
    for child in children(message):
        _rebuild(child, replace)


NAMED_ROW = "row with names"
"""The type of rows whose type has no name; before it, in a cast, come the names of the fields."""


def named_row(fields: tuple[tuple[str, Node], ...]) -> Node:
    """A row whose fields have names, as that of a derived table: ``written`` makes SQL of it."""
    node = Node()
    cast = node.type_cast
    cast.type_name.typemod = -1
    cast.arg.row_expr.row_format = COERCE_EXPLICIT_CALL
    for name, value in fields:
        cast.type_name.names.add().string.sval = name
        cast.arg.row_expr.args.add().CopyFrom(value)
    cast.type_name.names.add().string.sval = NAMED_ROW
    return node


def written(node: Node) -> Node:
    """The same with rows that have names as SQL has them: ``COALESCE((SELECT r FROM (SELECT x.a AS id, …) AS r))``."""
    return rebuilt(node, _written) if any(map(_is_named_row, nodes(node))) else node


def _is_named_row(node: Node) -> bool:
    return kind(node) == "type_cast" and strings(list(node.type_cast.type_name.names))[-1:] == (NAMED_ROW,)


def _written(node: Node) -> Node | None:
    if not _is_named_row(node):
        return None
    made = Node()
    made.sub_link.sub_link_type = EXPR_SUBLINK
    query = made.sub_link.subselect.select_stmt
    query.target_list.add().res_target.val.CopyFrom(column_reference(_ROW))
    derived = query.from_clause.add().range_subselect
    derived.alias.aliasname = _ROW
    row = derived.subquery.select_stmt
    *names, _ = strings(list(node.type_cast.type_name.names))
    for name, value in zip(names, node.type_cast.arg.row_expr.args, strict=True):
        target = row.target_list.add().res_target
        target.name = name
        target.val.CopyFrom(written(value))
    for one in (query, row):
        # As the parser leaves them.
        one.op, one.limit_option = SETOP_NONE, LIMIT_OPTION_DEFAULT
    # Bare, it would be a comparison with all rows of a subquery beside ROW(…) =.
    whole = Node()
    whole.coalesce_expr.args.add().CopyFrom(made)
    return whole


_ROW = "__pgt_row"


def printed(node: Node) -> str:
    """An expression as SQL."""
    node = written(node)
    text = _deparsed(node)
    if any(map(is_risky, nodes(node))) and not is_faithful(node, text):
        return _deparsed(shielded(node))
    return text


def _deparsed(node: Node) -> str:
    statement = ParseResult()
    target = statement.stmts.add().stmt.select_stmt.target_list.add().res_target
    target.val.CopyFrom(node)
    try:
        return str(postgast.deparse(statement)).removeprefix("SELECT ")
    except postgast.PgQueryError as exc:
        raise UnsupportedQuery(f"{kind(node).replace('_', ' ')}", "its text can't be printed.") from exc


def printed_select(statement: SelectStmt) -> str:
    """A SELECT as SQL."""
    node = Node()
    node.select_stmt.CopyFrom(statement)
    node = written(node)
    node = shielded(node) if any(map(is_risky, nodes(node))) else node
    parsed = ParseResult()
    parsed.stmts.add().stmt.CopyFrom(node)
    text = str(postgast.deparse(parsed))
    try:
        again = postgast.parse(text).stmts[0].stmt
    except postgast.PgQueryError:
        again = Node()
    if placeless(again) != placeless(node):
        raise UnsupportedQuery("a query", "its text can't be printed faithfully.")
    return text


_BARE = frozenset({"bool_expr", "a_expr", "null_test", "boolean_test"})


def is_risky(node: Node) -> bool:
    """Whether the deparser may print an operand of the node without the parentheses that it needs."""
    if kind(node) == "a_expr":
        return bool(node.a_expr.kind != AEXPR_OP)
    return kind(node) in {"null_test", "boolean_test", "collate_clause", "a_indirection", "sub_link"}


def shielded(node: Node) -> Node:
    """A copy in which every operand that the deparser would leave bare is in parentheses: those of a COALESCE."""
    copy = Node()
    copy.CopyFrom(node)
    # Inner ones first: what is copied into a COALESCE is finished then.
    for part in reversed(list(nodes(copy))):
        for operand in _operands(part) if is_risky(part) else ():
            if kind(operand) in _BARE:
                bare = Node()
                bare.CopyFrom(operand)
                operand.Clear()
                operand.coalesce_expr.args.add().CopyFrom(bare)
    return copy


def _operands(node: Node) -> list[Node]:
    match kind(node):
        case "null_test":
            return [node.null_test.arg]
        case "boolean_test":
            return [node.boolean_test.arg]
        case "sub_link":
            return [node.sub_link.testexpr]
        case "collate_clause":
            return [node.collate_clause.arg]
        case "a_expr":
            sides = [node.a_expr.lexpr, node.a_expr.rexpr]
            return [one for side in sides for one in (side.list.items if kind(side) == "list" else [side])]
        case _:
            return []


def fields(node: Node) -> list[Node]:
    """The fields of a row, those of rows in it in their place, of what isn't a row the value itself."""
    if kind(node) != "row_expr":
        return [node]
    return [field for part in node.row_expr.args for field in fields(part)]


def is_constant(node: Node) -> bool:
    """Whether it is a value that is written down, perhaps with its type."""
    return is_constant(node.type_cast.arg) if kind(node) == "type_cast" else kind(node) == "a_const"


def column_reference(*name: str) -> Node:
    """A reference to a column of the plan."""
    node = Node()
    for part in name:
        node.column_ref.fields.add().string.sval = part
    return node


def conjuncts(node: Node) -> tuple[Node, ...]:
    """The operands of a top-level AND, nested ones included; what all arms of an OR demand counts among them.

    ``(a AND b) OR (a AND c)  =  a AND (b OR c)``, in SQL's logic of three values too.
    """
    if kind(node) != "bool_expr":
        return (node,)
    if node.bool_expr.boolop == AND_EXPR:
        return tuple(part for argument in node.bool_expr.args for part in conjuncts(argument))
    return _factored(node) if node.bool_expr.boolop == OR_EXPR else (node,)


def _factored(node: Node) -> tuple[Node, ...]:
    arms = [{printed(part): part for part in conjuncts(argument)} for argument in node.bool_expr.args]
    common = {text: part for text, part in arms[0].items() if all(text in arm for arm in arms)}
    if not common:
        return (node,)
    rests = [[part for text, part in arm.items() if text not in common] for arm in arms]
    rest = (combined(OR_EXPR, [combined(AND_EXPR, parts) for parts in rests]),) if all(rests) else ()
    return (*common.values(), *rest)


def combined(operator: BoolExprType, parts: list[Node]) -> Node:
    """The parts joined by AND or OR."""
    if len(parts) == 1:
        return parts[0]
    made = Node()
    made.bool_expr.boolop = operator
    made.bool_expr.args.extend(parts)
    return made


def strings(parts: Iterator[Node] | list[Node]) -> tuple[str, ...]:
    """The names in a list of string nodes."""
    return tuple(part.string.sval for part in parts)


def only(message: Message, allowed: frozenset[str], construct: str) -> None:
    """Refuse a message with a field set that nobody consumes: a clause must never be dropped silently."""
    extra = sorted(field.name for field, _ in message.ListFields() if field.name not in allowed)
    if extra:
        raise UnsupportedQuery(f"{construct} with {extra[0].replace('_', ' ')}", "no rule consumes this clause.")


@contextmanager
def located(message: Message) -> Iterator[None]:
    """Tell of a refusal where it came about, unless something inside could tell more closely."""
    try:
        yield
    except UnsupportedQuery as refusal:
        refusal.position = refusal.position or location(message)
        raise


def location(message: Message) -> int | None:
    """Where the expression, or clause, stands in the canonical query, counted from 1."""
    found = [getattr(inner(part), "location", -1) for part in nodes(message) if kind(part)]
    known = [place for place in found if place > 0]
    return min(known) + 1 if known else None


def is_faithful(node: Node, text: str) -> bool:
    """Whether printing an expression has lost nothing."""
    try:
        again = postgast.parse(f"SELECT {text}").stmts[0].stmt.select_stmt.target_list[0].res_target.val
    except postgast.PgQueryError:
        return False
    return bool(placeless(again) == placeless(node))


def placeless(node: Node) -> Node:
    """A copy without the places in the text: equal for equal SQL."""
    copy = Node()
    copy.CopyFrom(node)
    pending: list[Message] = [copy]
    while pending:
        message = pending.pop()
        for field, _ in message.ListFields():
            if field.name == "location" or field.name.endswith(("_location", "list_start", "list_end")):
                message.ClearField(field.name)
        pending += children(message)
    return copy
