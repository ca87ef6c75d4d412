"""Hostile identifiers round-trip, as schema, table, column, role and stream table (A10)."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place

HOSTILE = [
    'q"uote',
    "a.b.c",
    "with space",
    "UPPER",
    "$$body$$",
    "';--",
    "🐘🐘",
    "x" * 63,
    "%s %I %L {}",
    "select",
    "\\' E",
    "new\nline",
    'a"; DROP TABLE orders; --',
]
# Whatever an identifier may hold: anything but NUL, up to 63 bytes.
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63).filter(
    lambda name: len(name.encode()) <= 63 and not name.startswith("pg_") and name not in {"public", "none"}
)


def lived(place: Place, owner: Connection, schema: str, table: str, column: str, name: str) -> None:
    """The life of a stream table with these names."""
    superuser = place.superuser
    superuser.execute(
        sql.SQL(
            """CREATE TABLE {table} (id int PRIMARY KEY, {column} text); INSERT INTO {table} VALUES (1, 'a'), (2, 'b');
               GRANT SELECT ON {table} TO {owner}; GRANT ALL ON SCHEMA {schema} TO {owner}"""
        ).format(
            table=sql.Identifier(schema, table),
            column=sql.Identifier(column),
            owner=sql.Identifier(owner.info.user),
            schema=sql.Identifier(schema),
        )
    )
    source = sql.SQL("SELECT {c}, count(*) AS n FROM {t} GROUP BY {c}").format(
        c=sql.Identifier(column), t=sql.Identifier(schema, table)
    )
    target = sql.Identifier(schema, name)
    text = target.as_string(owner)
    pg_trickle.create_stream_table(owner, text, source.as_string(owner))
    superuser.execute(
        sql.SQL("UPDATE {t} SET {c} = 'c' WHERE id = 1; INSERT INTO {t} VALUES (3, 'c')").format(
            t=sql.Identifier(schema, table), c=sql.Identifier(column)
        )
    )
    pg_trickle.refresh_stream_table(owner, text)
    assert_fresh(superuser, text)
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    shown = superuser.execute("SELECT pgt_schema, pgt_name FROM pgtrickle.pgt_stream_tables").fetchall()
    assert shown == [(schema, name)]
    assert owner.execute(sql.SQL("SELECT {}, n FROM {} ORDER BY 1").format(sql.Identifier(column), target)).fetchall()
    pg_trickle.drop_stream_table(owner, text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a10_hostile_names_round_trip(place: Place, name: str) -> None:
    owner = place.author(name)
    place.superuser.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    lived(place, owner, name, name, name, name[:-1] + "y")


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schema=NAMES, table=NAMES, column=NAMES, name=NAMES)
def test_a10_names_of_any_kind_round_trip(
    place: Place, author: Connection, schema: str, table: str, column: str, name: str
) -> None:
    if name == table or column == "id":
        return
    place.superuser.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    try:
        lived(place, author, schema, table, column, name)
    finally:
        place.superuser.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def test_a10_a_name_is_parsed_as_an_identifier(place: Place, author: Connection, stopped: Any) -> None:
    for name in ('"unclosed', "a.b.c.d", "", "a; DROP TABLE orders", 'a"b', "a."):
        with pytest.raises(psycopg.Error) as caught:
            pg_trickle.create_stream_table(author, name, "SELECT 1 AS one")
        assert caught.value.sqlstate in {"42602", "42601", "0A000", "22023", "3F000"}, (name, caught.value)
    assert place.value("SELECT count(*) FROM orders") == 30
