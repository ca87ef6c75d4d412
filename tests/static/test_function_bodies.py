"""plpgsql_check finds nothing in the engine's PL/pgSQL, generated functions included, but what is justified here."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[tuple[Any, ...]]

# A trigger function is checked on each table that it is a trigger of, with the transition tables that it sees there.
FINDINGS = """
SELECT pg_catalog.regexp_replace(f.proname, '[0-9]+', 'N', 'g'), c.level, c.message, coalesce(c.query, ''), c.lineno
  FROM pg_catalog.pg_proc AS f
  JOIN pg_catalog.pg_language AS l ON l.oid = f.prolang AND l.lanname = 'plpgsql'
  LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgfoid = f.oid
 CROSS JOIN LATERAL plpgsql_check_function_tb(
            f.oid, CASE WHEN f.prorettype = 'trigger'::regtype THEN coalesce(t.tgrelid, 'orders'::regclass) ELSE 0 END,
            oldtable => t.tgoldtable, newtable => t.tgnewtable, fatal_errors => false, security_warnings => true) AS c
 WHERE f.pronamespace IN ('pgtrickle'::pg_catalog.regnamespace, 'pgtrickle_changes'::pg_catalog.regnamespace)
   -- No trigger's: what a function is compared with, which is looked at itself.
   AND f.proname NOT LIKE 'maintain\\_%\\_original'
 ORDER BY f.proname, c.lineno
"""
UNSANITIZED = "text type variable is not sanitized"
UNUSED_ARGUMENTS = 'unused parameter "p_args"'

# (function, message, how the statement begins): why it stays.
JUSTIFIED = {
    (
        "flush_wal",
        "function pg_catalog.pg_logical_emit_message(boolean, unknown, unknown, boolean) does not exist",
        "SELECT pg_catalog.pg_logical_emit_message",
    ): "where there is one",
    (
        "worker_drain_wal",
        "function pg_catalog.pg_log_standby_snapshot() does not exist",
        "SELECT pg_catalog.pg_log_standby_snapshot",
    ): "where there is one",
    ("as_N", UNSANITIZED, "statement"): "the runner runs any statement, with no more than its owner's rights",
    ("as_N", "cannot determinate a result of dynamic SQL", ""): "a statement's one column is named as its query likes",
    ("sync_buffer", UNSANITIZED, "format('ALTER TABLE %s ADD COLUMN"): "a type as format_type() spells it",
    (
        "make_states",
        UNSANITIZED,
        "format('CREATE TABLE",
    ): "columns whose names %I quotes, types as format_type() spells them",
    (
        "make_generated_function",
        UNSANITIZED,
        "format('CREATE FUNCTION",
    ): "constant arguments, and settings of %I and %L",
    (
        "make_standing",
        UNSANITIZED,
        "format('CREATE FUNCTION",
    ): "constant arguments and settings, and settings of %I and %L",
    (
        "make_immediate",
        UNSANITIZED,
        "format('CREATE OR REPLACE TRIGGER",
    ): "constant events, and a condition of numbers and names of ours",
    (
        "make_row_trigger",
        UNSANITIZED,
        "format('CREATE OR REPLACE TRIGGER",
    ): "constant events, and a condition of numbers, quoted columns and names of ours",
    (
        "make_turn_trigger",
        UNSANITIZED,
        "format('CREATE OR REPLACE TRIGGER",
    ): "constant events, quoted columns and names of ours",
    ("lend", UNSANITIZED, "format('GRANT"): "constant privileges, and a relation that %s prints of regclass",
    ("write_and_refresh", UNSANITIZED, "write_and_refresh.sql"): "the caller's own statement, with the caller's rights",
    ("drop_one", UNSANITIZED, "'DROP TABLE ' || v_name"): "a name that %I has quoted",
    ("maintain_N_check", 'unused parameter "p_session"', ""): "it is given what no plan knows",
    ("do_undrain", UNUSED_ARGUMENTS, ""): "the gate hands every action its arguments",
    ("do_pause_all", UNUSED_ARGUMENTS, ""): "the gate hands every action its arguments",
    ("do_resume_all", UNUSED_ARGUMENTS, ""): "the gate hands every action its arguments",
    ("do_restore_stream_tables", UNUSED_ARGUMENTS, ""): "the gate hands every action its arguments",
    ("drop_leftovers", UNSANITIZED, "v_command"): "commands of names that %s prints of regclass and regprocedure",
    ("do_change_buffer_sizes", UNUSED_ARGUMENTS, ""): "the gate hands every action its arguments",
}


def justification(name: str, message: str, statement: str) -> tuple[str, str, str] | None:
    """The entry that covers a finding."""
    for key in JUSTIFIED:
        if (name, message) == key[:2] and statement.startswith(key[2]):
            return key
    return None


@pytest.fixture
def checked(generated: Connection) -> Connection:
    generated.execute("CREATE EXTENSION plpgsql_check")
    return generated


@pytest.mark.versions(extension="plpgsql_check")
def test_every_body_is_clean(checked: Connection) -> None:
    found = checked.execute(FINDINGS.encode()).fetchall()
    covered = {row: justification(row[0], row[2], row[3]) for row in found}
    assert [row for row, why in covered.items() if why is None] == []
    assert set(covered.values()) == set(JUSTIFIED)


FAULTS = {
    "unused": ("v_idle integer;", "NULL;", 'unused variable "v_idle"'),
    "type": ("v_list text[] := '{}';", "RAISE NOTICE '%', v_list;", "target type is different type than source type"),
    "column": ("", "PERFORM gone FROM orders;", 'column "gone" does not exist'),
    "injection": ("", "EXECUTE p_text;", UNSANITIZED),
}


@pytest.mark.versions(extension="plpgsql_check")
def test_faults_are_found(checked: Connection) -> None:
    for name, (declaration, statement, _) in FAULTS.items():
        checked.execute(
            f"""CREATE FUNCTION pgtrickle_changes.fault_{name}(p_text text) RETURNS void LANGUAGE plpgsql AS $$
                DECLARE {declaration} BEGIN RAISE NOTICE '%', p_text; {statement} END $$""".encode()
        )
    found = checked.execute(FINDINGS.encode()).fetchall()
    messages = {row[0].removeprefix("fault_"): row[2] for row in found if row[0].startswith("fault_")}
    assert messages == {name: message for name, (_, _, message) in FAULTS.items()}


@pytest.mark.versions(extension="plpgsql_check")
def test_functions_of_every_kind_are_generated(checked: Connection) -> None:
    """So that a green check means something: a kind that nobody generates here is a kind that nobody checks."""
    prefixes = ("as_", "capture_%_ins", "capture_%_upd", "capture_%_del", "capture_%_trunc", "maintain_%_begin")
    maintaining = (
        "maintain_%_rest",
        "maintain_%_back",
        "maintain_%_check",
        "maintain_%_original",
        "maintain_%_ins",
        "maintain_%_upd",
        "maintain_%_del",
        "maintain_%_trunc",
        "maintain_%_texts",
    )
    for pattern in (*prefixes, *maintaining):
        (number,) = checked.execute(
            """SELECT count(*) FROM pg_catalog.pg_proc AS p
                WHERE p.pronamespace = 'pgtrickle_changes'::pg_catalog.regnamespace AND p.proname LIKE %s || '%%'""",
            (pattern,),
        ).fetchone() or (0,)
        assert number > 0, pattern
