"""What holds of a stream table after every refresh, beside being its query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh, differences

Connection = psycopg.Connection[tuple[Any, ...]]


def check_states(conn: Connection, name: str) -> None:
    """State tables hold what they would hold if they were filled afresh, and delta tables nothing."""
    (plan,) = _one(
        conn,
        """SELECT p.plan FROM pgtrickle.pgt_plans AS p JOIN pgtrickle.pgt_stream_tables AS s USING (pgt_id)
            WHERE s.pgt_relid = pg_catalog.to_regclass(%s)""",
        name,
    )
    for state in plan["states"]:
        table = sql.Identifier("pgtrickle_changes", state["name"])
        columns = _comparable(conn, table, state["columns"])
        have = sql.SQL("SELECT {c} FROM {t}").format(c=columns, t=table).as_string(conn)
        want = f"SELECT {columns.as_string(conn)} FROM ({state['query']}) AS fresh"
        wrong = unlike(conn, have, want)
        assert wrong == [], f"{state['name']} of {name} differs from a fresh one: {wrong}"
    for delta in plan["deltas"]:
        assert conn.execute(f"SELECT * FROM pgtrickle_changes.{delta['name']}").fetchall() == []


def unlike(conn: Connection, have: str, want: str) -> list[tuple[Any, ...]]:
    """The rows that one query has too often or too seldom beside another; each is planned and carried out once."""
    found = conn.execute(
        f"""WITH have AS MATERIALIZED ({have}), want AS MATERIALIZED ({want})
            SELECT 'too much', * FROM (TABLE have EXCEPT ALL TABLE want) AS more
            UNION ALL
            SELECT 'too little', * FROM (TABLE want EXCEPT ALL TABLE have) AS less""".encode()
    )
    return found.fetchall()


def _comparable(conn: Connection, table: sql.Identifier, names: list[str]) -> sql.Composed:
    """The columns, those without equality as text."""
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND atttypid = ANY ('{json,point}'::regtype[])"
    )
    odd = {name for (name,) in conn.execute(query, [table.as_string(conn)])}
    plain = [sql.Identifier(name) for name in names]
    text = [sql.SQL("{name}::text AS {name}").format(name=name) for name in plain]
    return sql.Composed([two if name in odd else one for name, one, two in zip(names, plain, text, strict=True)]).join(
        ", "
    )


# Why a refresh recomputes though nobody but the compiler is to blame.
CONTRADICTIONS = ("did not hold what the changes take away", "contradicted the changes")


def check_reason(conn: Connection, name: str) -> None:
    """The last refresh met no contradiction: what a wrong delta takes away, and isn't there, is repaired unseen."""
    reason = last_refresh(conn, name)[2] or ""
    assert not any(sign in reason for sign in CONTRADICTIONS), f"refreshing {name} recomputed: {reason}"


def last_refresh(conn: Connection, name: str) -> tuple[str, int, str | None]:
    """Mode, rows written and reason of a stream table's last refresh."""
    mode, rows, reason = _one(
        conn,
        """SELECT refresh_mode, rows_out, reason FROM pgtrickle.pgt_refresh_history
            WHERE pgt_name = %s ORDER BY refresh_id DESC LIMIT 1""",
        name,
    )
    return mode, rows, reason


def check_refreshed(conn: Connection, names: Iterable[str]) -> None:
    """Stream tables, refreshed now, equal their queries, and nothing that is kept for them contradicts that."""
    for name in names:
        pg_trickle.refresh_stream_table(conn, name)
        check_reason(conn, name)
        check_states(conn, name)
        assert_fresh(conn, name)


def explained(conn: Connection, name: str) -> str:
    """What a user is told of how a stream table is kept."""
    (told,) = _one(conn, "SELECT pgtrickle.explain_stream_table(%s)", name)
    return str(told)


def is_maintained(conn: Connection, name: str) -> bool:
    row = conn.execute(
        "SELECT (plan ->> 'incremental')::boolean, plan -> 'refusal' FROM pgtrickle.pgt_plans"
        " JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = %s",
        (name,),
    ).fetchone()
    assert row is not None
    assert row[0], row[1]
    return True


def check_kept(conn: Connection, queries: Iterable[str], steps: Iterable[str]) -> None:
    """Stream tables of some queries have rules for all of it, and equal their queries after each step."""
    names = []
    for place, query in enumerate(queries):
        names.append(f"s{place}")
        pg_trickle.create_stream_table(conn, names[-1], query, schedule=None)
        assert is_maintained(conn, names[-1])
    for step in steps:
        conn.execute(step.encode())
        check_refreshed(conn, names)


def check_kept_inside(conn: Connection, queries: Iterable[str], steps: Iterable[str]) -> None:
    """Stream tables of some queries, kept inside the statements that write, equal them after each step."""
    kept = {f"s{place}": query for place, query in enumerate(queries)}
    for name, query in kept.items():
        pg_trickle.create_stream_table(conn, name, query, refresh_mode="IMMEDIATE")
    for step in steps:
        conn.execute(step.encode())
        for name, query in kept.items():
            assert differences(conn, name) == [], query


def is_noticed(conn: Connection, name: str, steps: Iterable[str]) -> bool:
    """Whether a refresh after some step fails, has to repair, or leaves something else than the query gives."""
    for step in steps:
        conn.execute(step.encode())
        if refresh_is_noticed(conn, name):
            return True
    return False


def refresh_is_noticed(conn: Connection, name: str) -> bool:
    """The same of a refresh now."""
    try:
        with conn.transaction():
            pg_trickle.refresh_stream_table(conn, name)
    except psycopg.Error:
        return True
    # A table that contradicts the changes is recomputed; that the engine says so is how it noticed.
    return differences(conn, name) != [] or last_refresh(conn, name)[2] is not None


def _one(conn: Connection, query: str, *parameters: str) -> tuple[Any, ...]:
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row


def rows_read(db: Connection, table: str) -> int:
    """How many rows of a table all sessions have read."""
    db.execute("SELECT pg_stat_force_next_flush()")
    found = db.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = %s", (table,)
    ).fetchone()
    assert found is not None
    return int(found[0])
