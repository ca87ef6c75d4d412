"""Relations by their facts: what a change of is noticed."""

from __future__ import annotations

from pg_trickle.algebra.source import Field, Scan, Source
from pg_trickle.catalog.model import RelationFact
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.scope import Context
from pg_trickle.parse.types import fact_type
from pg_trickle.scalar import Column

# Kinds of relations that are compared with what they were, and those whose changes triggers write down.
COMPARED = frozenset({"materialized_view", "foreign"})
CAPTURED = frozenset({"table", "stream_table", "partitioned", "inherited"})


def check_visible(fact: RelationFact) -> None:
    """Refuse a relation whose changes may not be used on the owner's behalf."""
    if fact.opaque is not None:
        raise UnsupportedQuery(f'relation "{fact.schema}.{fact.name}"', fact.opaque)


def check_captured(fact: RelationFact) -> None:
    """Refuse a relation whose changes nobody writes down."""
    check_visible(fact)
    if fact.kind not in CAPTURED:
        raise UnsupportedQuery(
            f'{fact.kind.replace("_", " ")} relation "{fact.schema}.{fact.name}"', "its changes aren't captured yet."
        )


def scan(fact: RelationFact, context: Context) -> Scan:
    """The relation with all its columns, under fresh names."""
    assert fact.buffer is not None
    fields = tuple(
        Field(
            Column(context.namer.fresh(column.name), fact_type(column), column.not_null),
            column.name,
            column.buffer_column,
        )
        for column in fact.columns
    )
    by_name = {field.attribute: field.column for field in fields}
    # A stream table's key index treats NULLs as equal; any other unique index lets them repeat.
    keys = tuple(
        tuple(by_name[name].name for name in key)
        for key in fact.keys
        if fact.kind == "stream_table" or all(by_name[name].not_null for name in key)
    )
    return Scan(Source(fact.oid, fact.schema, fact.name, fact.buffer, fact.indexed), fields, keys)
