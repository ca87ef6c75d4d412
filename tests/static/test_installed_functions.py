"""What holds for every object that the extension installs."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from pg_trickle.install.install import extension_script

Connection = psycopg.Connection[tuple[Any, ...]]

OURS = "('pgtrickle'::pg_catalog.regnamespace, 'pgtrickle_changes'::pg_catalog.regnamespace)"

pytestmark = pytest.mark.versions


def names(db: Connection, condition: str) -> list[str]:
    query = f"""
        SELECT p.oid::pg_catalog.regprocedure::text
          FROM pg_catalog.pg_proc     AS p
          JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
         WHERE p.pronamespace IN {OURS} AND ({condition})
         ORDER BY 1"""
    return [name for (name,) in db.execute(query.encode())]


def test_there_are_functions(db: Connection) -> None:
    assert len(names(db, "true")) > 20


PINNED = """EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS c
                     WHERE pg_catalog.replace(c, '"', '') = 'search_path=pg_catalog, pg_temp')"""
# These hand a call to the engine, in the name and under the search path of the caller, and do nothing else.
HANDS_OVER = """p.pronamespace = 'pgtrickle'::pg_catalog.regnamespace AND NOT p.prosecdef AND p.proconfig IS NULL
                AND (l.lanname = 'sql' AND p.prosrc ~ '^[^;]* INTO pgtrickle\\.gate [^;]*$'
                     -- In read-only transactions another way.
                     OR l.lanname = 'plpgsql' AND p.proname IN ('verify_stream_table', 'validate_query')
                     -- It calls nothing but what does.
                     OR p.proname = 'write_and_refresh')"""
# With a path of its own a procedure could not commit: this one asks who calls, without it, and calls what has one.
COMMITS = """p.prokind = 'p' AND NOT p.prosecdef AND l.lanname = 'plpgsql'
             AND pg_catalog.regexp_replace(p.prosrc, '--[^\n]*\n', '', 'g')
                 ~ ('^\\s*BEGIN\\s+IF NOT \\(SELECT r\\.rolsuper FROM pg_catalog\\.pg_roles AS r'
                    ' WHERE r\\.rolname OPERATOR\\(pg_catalog\\.=\\) CURRENT_USER\\) THEN'
                    '\\s+RAISE EXCEPTION (''[^'']*''|[A-Z ]+|[=,\\s]+)+;\\s+END IF;'
                    '\\s+((PERFORM pgtrickle_changes\\.\\w+\\(\\)|COMMIT);\\s+)+END\\s*$')"""
# Bound to dblink's library: they resolve no names.
IN_C = "l.lanname = 'c'"


def test_every_function_pins_its_search_path(db: Connection) -> None:
    assert names(db, f"NOT ({PINNED} OR {HANDS_OVER} OR {COMMITS} OR {IN_C})") == []


def test_security_definers_pin_their_search_path(db: Connection) -> None:
    assert names(db, f"p.prosecdef AND NOT {PINNED}") == []


def test_public_may_execute_nothing(db: Connection) -> None:
    rights = "coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))"
    assert names(db, f"EXISTS (SELECT FROM pg_catalog.aclexplode({rights}) AS a WHERE a.grantee = 0)") == []


def test_only_the_superuser_owns_the_functions(db: Connection) -> None:
    assert names(db, "p.proowner <> 10") == []


UNCOMMENTED = "pg_catalog.obj_description(p.oid, 'pg_proc') IS NULL"


def test_every_function_is_commented(db: Connection) -> None:
    assert names(db, UNCOMMENTED) == []


def test_generated_functions_are_commented(generated: Connection) -> None:
    assert names(generated, UNCOMMENTED) == []


def test_public_relations_are_commented(db: Connection) -> None:
    found = db.execute(
        """SELECT c.relname
             FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = 'pgtrickle'::pg_catalog.regnamespace
              AND c.relkind IN ('r', 'v')
              AND pg_catalog.obj_description(c.oid, 'pg_class') IS NULL"""
    ).fetchall()
    assert found == []


def test_public_may_only_read_what_shows_each_his_own(db: Connection) -> None:
    """Without USAGE on the schema even that is out of reach; with it, each sees the rows that are for him."""
    found = db.execute(
        f"""SELECT c.oid::pg_catalog.regclass::text, a.privilege_type
             FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
            WHERE c.relnamespace IN {OURS} AND a.grantee = 0
              AND NOT (a.privilege_type = 'SELECT' AND c.relnamespace = 'pgtrickle'::pg_catalog.regnamespace
                       AND (c.relrowsecurity OR c.relname = 'quick_health'
                            OR c.reloptions && '{{security_barrier=true,security_barrier=on}}'))
            ORDER BY 1, 2""".encode()
    ).fetchall()
    assert found == []


def test_public_may_not_create_in_the_schemas(db: Connection) -> None:
    db.execute("CREATE ROLE pgt_nobody_special")
    try:
        (allowed,) = db.execute(
            """SELECT pg_catalog.bool_or(pg_catalog.has_schema_privilege('pgt_nobody_special', n, 'CREATE'))
                 FROM (VALUES ('pgtrickle'), ('pgtrickle_changes')) AS s (n)"""
        ).fetchone() or (None,)
    finally:
        db.execute("DROP ROLE pgt_nobody_special")
    assert allowed is False


def test_every_function_declares_its_volatility() -> None:
    """VOLATILE is what PostgreSQL takes an oversight for."""
    heads = re.findall(
        r"^ *CREATE (?:OR REPLACE )?FUNCTION +(pgtrickle\w*\.\w+)(.*?)\bAS (?:\$|')",
        extension_script(),
        re.DOTALL | re.MULTILINE,
    )
    assert len(heads) > 200
    assert [name for name, words in heads if not re.search(r"\b(IMMUTABLE|STABLE|VOLATILE)\b", words)] == []
