"""Hostile identifiers round-trip, as schema, table, column, role and stream table (A10)."""

from __future__ import annotations

import json
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
    "🐘" * 15 + "abc",
    "%s %I %L {}",
    "select",
    "\\' E",
    "\\",
    "$1 $2 %1$s",
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


LABELLED = """
CREATE TYPE {name} AS ENUM ({label}, 'plain');
CREATE TABLE labelled (id int PRIMARY KEY, kind {name}, note text);
INSERT INTO labelled VALUES (1, {label}, {label}), (2, 'plain', {label}), (3, NULL, {label}), (4, {label}, 'hidden');
GRANT SELECT ON labelled TO st_author; GRANT USAGE ON TYPE {name} TO st_author;
ALTER TABLE labelled ENABLE ROW LEVEL SECURITY;
CREATE POLICY {name} ON labelled TO st_author USING (note = {label});
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a10_hostile_labels_and_policies_round_trip(place: Place, author: Connection, name: str, fails: Any) -> None:
    """A label of an enum is a value in plans, a policy's condition is part of them, and its name of what is said."""
    parts = {"name": sql.Identifier(name), "label": sql.Literal(name)}
    place.superuser.execute(sql.SQL(LABELLED).format(**parts))
    query = sql.SQL("SELECT kind, count(*) AS n FROM labelled WHERE kind <> 'plain' AND kind = {label} GROUP BY kind")
    for target, mode in (("st", "DIFFERENTIAL"), ("now", "IMMEDIATE")):
        pg_trickle.create_stream_table(author, target, query.format(**parts).as_string(author), refresh_mode=mode)
    place.superuser.execute(sql.SQL("UPDATE labelled SET kind = {label} WHERE id = 2").format(**parts))
    pg_trickle.refresh_stream_table(author, "st")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    for target in ("st", "now"):
        rows = place.superuser.execute(sql.SQL("SELECT kind::text, n FROM {}").format(sql.Identifier(target)))
        assert rows.fetchall() == [(name, 2)]
    setting = sql.SQL("ALTER POLICY {name} ON labelled USING (current_setting('app.note', true) = note)")
    place.superuser.execute(setting.format(**parts))
    said = fails("0A000", pg_trickle.create_stream_table, author, "no", "TABLE labelled", refresh_mode="DIFFERENTIAL")
    assert name in f"{said.diag.message_primary} {said.diag.message_detail} {said.diag.message_hint}"


@pytest.mark.parametrize("name", HOSTILE)
def test_a10_hostile_names_of_channels_groups_and_publications_round_trip(
    place: Place, author: Connection, name: str
) -> None:
    grant = sql.SQL("GRANT CREATE ON DATABASE {} TO st_author")
    place.superuser.execute(grant.format(sql.Identifier(place.database.name)))
    quoted = sql.Identifier(name).as_string(author)
    pg_trickle.create_stream_table(author, quoted, "SELECT tenant_id, count(*) AS n FROM orders GROUP BY tenant_id")
    author.execute("SELECT pgtrickle.subscribe(%s, %s)", (quoted, name))
    author.execute(sql.SQL("LISTEN {}").format(sql.Identifier(name)))
    place.superuser.execute("DELETE FROM orders WHERE id = 1")
    pg_trickle.refresh_stream_table(author, quoted)
    (told,) = author.notifies(timeout=60, stop_after=1)
    assert told.channel == name
    assert json.loads(told.payload)["stream_table"] == place.value("SELECT format('public.%%I', %s::text)", name)
    assert author.execute("SELECT channel FROM pgtrickle.list_subscriptions()").fetchall() == [(name,)]
    author.execute("SELECT pgtrickle.unsubscribe(%s, %s)", (quoted, name))
    published = author.execute("SELECT pgtrickle.stream_table_to_publication(%s)", (quoted,)).fetchone()
    assert published == author.execute("SELECT pubname FROM pg_publication").fetchone()
    assert author.execute("SELECT tablename FROM pg_publication_tables").fetchall() == [(name,)]
    author.execute("SELECT pgtrickle.drop_stream_table_publication(%s)", (quoted,))
    author.execute("CREATE TABLE a (); CREATE TABLE b ()")
    author.execute("SELECT pgtrickle.create_watermark_group(%s, ARRAY['a', 'b'], 1)", (name,))
    groups = author.execute("SELECT DISTINCT group_name FROM pgtrickle.watermark_status()")
    assert groups.fetchall() == [(name,)]
    author.execute("SELECT pgtrickle.drop_watermark_group(%s)", (name,))
    assert author.execute("SELECT count(*) FROM pgtrickle.watermark_status()").fetchone() == (0,)


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


def test_a10_a_name_is_parsed_as_an_identifier(place: Place, author: Connection, fails: Any) -> None:
    for name in ('"unclosed', "a.b.c.d", "", "a; DROP TABLE orders", 'a"b', "a."):
        with pytest.raises(psycopg.Error) as caught:
            pg_trickle.create_stream_table(author, name, "SELECT 1 AS one")
        assert caught.value.sqlstate in {"42602", "42601", "0A000", "22023", "3F000"}, (name, caught.value)
    assert place.value("SELECT count(*) FROM orders") == 30
