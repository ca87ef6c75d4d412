"""Values that are equal and read differently, in queries that tell them apart.

Of those in a group PostgreSQL shows any.  So what such a query gives is certain only while no two values of its tables
are equal and read differently; that a row left which read as the group does, shows once the others read alike.
"""

from __future__ import annotations

from collections import defaultdict

from tests.refresh.workload.tables import Column, Table


def respelt(tables: tuple[Table, ...], salt: str) -> tuple[str, ...]:
    """Statements after which all that is equal reads the same, as some of it did; ``salt`` chooses which."""
    return tuple(
        f"UPDATE {table.name} SET {column.sql} = (SELECT m.v FROM ({every}) AS m WHERE m.v = {table.name}.{column.sql}"
        f" ORDER BY md5(m.v::text || '{salt}'), m.v::text LIMIT 1)"
        f" WHERE {column.sql} IS NOT NULL"
        for every, among in _by_type(tables)
        for table, column in among
    )


def unsettled(tables: tuple[Table, ...]) -> str | None:
    """A query that yields a row for each value that reads in several ways; None where none can."""
    found = [
        f"SELECT 1 FROM ({every}) AS m GROUP BY m.v HAVING count(DISTINCT m.v::text) > 1"
        for every, _ in _by_type(tables)
    ]
    return " UNION ALL ".join(found) or None


def _by_type(tables: tuple[Table, ...]) -> list[tuple[str, list[tuple[Table, Column]]]]:
    """All values of each type whose equal values are told apart, as a query, and where they are."""
    places: dict[str, list[tuple[Table, Column]]] = defaultdict(list)
    for table in tables:
        for column in table.columns:
            if column.type.telling:
                places[column.type.name].append((table, column))
    return [
        (" UNION ALL ".join(f"SELECT t.{column.sql} AS v FROM {table.name} AS t" for table, column in among), among)
        for among in places.values()
    ]
