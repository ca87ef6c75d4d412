"""What else a query names than relations, functions and types: text search, collations, operators, schemas of these."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.upkeep import last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]
SIMPLE = "ALTER TEXT SEARCH CONFIGURATION {} ALTER MAPPING FOR asciiword WITH simple"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute(
        """
        CREATE SCHEMA s;
        CREATE TABLE t (id int PRIMARY KEY, c text);
        INSERT INTO t VALUES (1, 'The stars'), (2, 'the rats'), (3, 'A star');
        CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple, stopwords = english);
        CREATE TEXT SEARCH CONFIGURATION english_too (COPY = english);
        CREATE TEXT SEARCH CONFIGURATION wordy (COPY = english);
        ALTER TEXT SEARCH CONFIGURATION wordy ALTER MAPPING FOR asciiword WITH words;
        CREATE VIEW v AS SELECT id, to_tsvector('english_too', c) AS words FROM t;
        CREATE FUNCTION words_of(text) RETURNS tsvector IMMUTABLE LANGUAGE sql
            AS 'SELECT to_tsvector(''public.english_too'', $1)';
        CREATE FUNCTION read_words_of(text) RETURNS tsvector IMMUTABLE LANGUAGE sql
            BEGIN ATOMIC SELECT to_tsvector('english_too', $1); END;
        CREATE COLLATION s.bytes (LOCALE = 'C');
        CREATE TYPE s.mood AS ENUM ('well', 'ill');
        CREATE FUNCTION joined(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1 || $2';
        CREATE FUNCTION other(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $2 || $1';
        CREATE OPERATOR s.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = joined);
        CREATE FUNCTION moods() RETURNS text IMMUTABLE LANGUAGE sql
            BEGIN ATOMIC SELECT enum_range(NULL::s.mood)::text; END
        """
    )
    return db


CASES = {
    "a mapping": ("SELECT id, to_tsvector('english_too', c) AS w FROM t", SIMPLE.format("english_too")),
    "a mapping, in a condition": (
        "SELECT count(*) AS n FROM t WHERE to_tsvector('english_too', c) @@ to_tsquery('english_too', 'star')",
        SIMPLE.format("english_too"),
    ),
    "a mapping, in a view": ("SELECT id, words FROM v", SIMPLE.format("english_too")),
    "a mapping, in a function": ("SELECT id, words_of(c) AS w FROM t", SIMPLE.format("english_too")),
    "a mapping, in a function that is read": ("SELECT id, read_words_of(c) AS w FROM t", SIMPLE.format("english_too")),
    "a mapping that was dropped": (
        "SELECT id, to_tsvector('english_too', c) AS w FROM t",
        "ALTER TEXT SEARCH CONFIGURATION english_too DROP MAPPING FOR asciiword",
    ),
    "a configuration of PostgreSQL's own": (
        "SELECT id, to_tsvector('english', c) AS w FROM t",
        SIMPLE.format("english"),
    ),
    "the default configuration": (
        "SELECT id FROM t WHERE c @@ 'star'",
        SIMPLE.format("english"),
    ),
    "a dictionary": (
        "SELECT id, to_tsvector('wordy', c) AS w FROM t",
        "ALTER TEXT SEARCH DICTIONARY words (stopwords)",
    ),
    "a dictionary that is called": (
        "SELECT id, ts_lexize('words', c) AS w FROM t",
        "UPDATE t SET c = 'the'; SELECT pgtrickle.refresh_stream_table('st');"
        "ALTER TEXT SEARCH DICTIONARY words (stopwords)",
    ),
    "a configuration renamed, another in its place": (
        "SELECT id, to_tsvector('english_too', c) AS w FROM t",
        "ALTER TEXT SEARCH CONFIGURATION english_too RENAME TO former;"
        "CREATE TEXT SEARCH CONFIGURATION english_too (COPY = simple); INSERT INTO t VALUES (4, 'the bats')",
    ),
    "a collation renamed": (
        "SELECT id, row_number() OVER (ORDER BY c COLLATE s.bytes) AS n FROM t",
        "ALTER COLLATION s.bytes RENAME TO octets; INSERT INTO t VALUES (4, 'B')",
    ),
    "an operator moved, another in its place": (
        "SELECT id, c OPERATOR(s.<>) '!' AS c FROM t",
        "ALTER OPERATOR s.<> (text, text) SET SCHEMA public;"
        "CREATE OPERATOR s.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = other); INSERT INTO t VALUES (4, 'B')",
    ),
    "a schema renamed, with a type": (
        "SELECT id, CASE WHEN id = 1 THEN 'well'::s.mood ELSE 'ill'::s.mood END AS m FROM t",
        "ALTER SCHEMA s RENAME TO z; INSERT INTO t VALUES (4, 'B')",
    ),
    "a schema renamed, with a collation": (
        "SELECT id, row_number() OVER (ORDER BY c COLLATE s.bytes) AS n FROM t",
        "ALTER SCHEMA s RENAME TO z; INSERT INTO t VALUES (4, 'B')",
    ),
    "a type in a function that is read": ("SELECT id, moods() AS m FROM t", "ALTER TYPE s.mood ADD VALUE 'so-so'"),
}


@pytest.mark.versions
@pytest.mark.parametrize(("query", "alteration"), CASES.values(), ids=CASES)
def test_what_is_altered_about_it_is_noticed(source, query, alteration):
    source.execute("SET default_text_search_config = 'english'")
    pg_trickle.create_stream_table(source, "st", query, schedule=None)
    for _ in range(2):
        pg_trickle.refresh_stream_table(source, "st")
        assert_fresh(source, "st")
    source.execute(alteration.encode())
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")


@pytest.mark.versions
def test_text_search_that_a_query_does_not_use_is_left_alone(source):
    pg_trickle.create_stream_table(source, "st", "SELECT id, joined(c, '!') AS c FROM t", schedule=None)
    pg_trickle.refresh_stream_table(source, "st")
    source.execute(f"{SIMPLE.format('english_too')}; INSERT INTO t VALUES (4, 'B')".encode())
    pg_trickle.refresh_stream_table(source, "st")
    assert last_refresh(source, "st") == ("DIFFERENTIAL", 1, None)


@pytest.mark.versions(icu=True)
def test_a_collation_whose_version_is_said_anew_is_one_to_sort_by_anew(source):
    """Who upgrades what his collations come from says so: rows may be in another order then."""
    source.execute("CREATE TABLE u (id int, c text COLLATE \"und-x-icu\"); INSERT INTO u VALUES (1, 'a'), (2, 'b')")
    pg_trickle.create_stream_table(source, "st", "SELECT id, c FROM u ORDER BY c LIMIT 1", schedule=None)
    for _ in range(2):
        pg_trickle.refresh_stream_table(source, "st")
    source.execute("UPDATE pg_collation SET collversion = '1' WHERE collname = 'und-x-icu'")
    source.execute('ALTER COLLATION "und-x-icu" REFRESH VERSION')
    pg_trickle.refresh_stream_table(source, "st")
    assert last_refresh(source, "st")[0] == "FULL"


CASTS = {
    "explicit": "SELECT id, m::int AS n FROM paid",
    "implicit": "SELECT id, abs(m) AS n FROM paid",
    "of a value": "SELECT id, (CASE WHEN id < 9 THEN ROW(id)::sum_of END)::int AS n FROM paid",
    "to it": "SELECT id, id::sum_of::text AS n FROM paid",
}


@pytest.mark.versions
@pytest.mark.parametrize("query", CASTS.values(), ids=CASTS)
def test_another_cast_of_a_type_is_noticed(db: Connection, query: str) -> None:
    """Rows of the former one would stand beside those of the other.

    PostgreSQL keeps the former in views, so it is the text that is asked.
    """
    db.execute(
        """CREATE TYPE sum_of AS (n int);
           CREATE FUNCTION one(sum_of) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT ($1).n';
           CREATE FUNCTION ten(sum_of) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT ($1).n * 10';
           CREATE FUNCTION of_one(int) RETURNS sum_of IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1)::public.sum_of';
           CREATE FUNCTION of_ten(int) RETURNS sum_of IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1 * 10)::public.sum_of';
           CREATE CAST (sum_of AS int) WITH FUNCTION one(sum_of) AS IMPLICIT;
           CREATE CAST (int AS sum_of) WITH FUNCTION of_one(int);
           CREATE TABLE paid (id int PRIMARY KEY, m sum_of);
           INSERT INTO paid VALUES (1, ROW(1)), (2, ROW(2))"""
    )
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    for _ in range(2):
        pg_trickle.refresh_stream_table(db, "st")
        assert_fresh(db, "st")
    db.execute(
        """DROP CAST (sum_of AS int); CREATE CAST (sum_of AS int) WITH FUNCTION ten(sum_of) AS IMPLICIT;
           DROP CAST (int AS sum_of); CREATE CAST (int AS sum_of) WITH FUNCTION of_ten(int);
           INSERT INTO paid VALUES (3, ROW(3))"""
    )
    pg_trickle.refresh_stream_table(db, "st")
    assert db.execute("TABLE st ORDER BY 1").fetchall() == db.execute(f"{query} ORDER BY 1".encode()).fetchall()
    assert pg_trickle.verify_stream_table(db, "st").ok
