"""The SQL API from Python, with the queries compiled in this process: no worker is needed.

Every function takes a psycopg connection and works in its transaction, as the SQL function
of the same name does.  What the server refuses is raised as psycopg's own exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pg_trickle.catalog.model import CompileRequest
from pg_trickle.compile import Plan
from pg_trickle.compile import compile as compile_query
from pg_trickle.repertoire import stored_plan

Connection = psycopg.Connection[Any]

# A new plan may change a key, and with it what those who read the table may count on.
_PLANS = 5


class Verdict(NamedTuple):
    """How a stream table compares with its query: rows it lacks, rows it has too many, and whether all is well."""

    missing: int
    extra: int
    ok: bool


class Check(NamedTuple):
    """One finding about a query."""

    check_name: str
    result: str
    severity: str


def create_stream_table(
    conn: Connection,
    name: str,
    query: str,
    schedule: str | None = "calculated",
    refresh_mode: str = "AUTO",
    initialize: bool = True,
    diamond_consistency: str | None = None,
    diamond_schedule_policy: str | None = None,
    cdc_mode: str | None = None,
    append_only: bool = False,
) -> None:
    """Create a stream table, filled and kept equal to ``query``."""
    _create(
        conn,
        "create_stream_table",
        name,
        query,
        schedule=schedule,
        refresh_mode=refresh_mode,
        initialize=initialize,
        diamond_consistency=diamond_consistency,
        diamond_schedule_policy=diamond_schedule_policy,
        cdc_mode=cdc_mode,
        append_only=append_only,
    )


def create_stream_table_if_not_exists(
    conn: Connection,
    name: str,
    query: str,
    schedule: str | None = "calculated",
    refresh_mode: str = "AUTO",
    initialize: bool = True,
    diamond_consistency: str | None = None,
    diamond_schedule_policy: str | None = None,
    cdc_mode: str | None = None,
    append_only: bool = False,
) -> None:
    """Create a stream table unless there is one of that name."""
    _create(
        conn,
        "create_stream_table_if_not_exists",
        name,
        query,
        schedule=schedule,
        refresh_mode=refresh_mode,
        initialize=initialize,
        diamond_consistency=diamond_consistency,
        diamond_schedule_policy=diamond_schedule_policy,
        cdc_mode=cdc_mode,
        append_only=append_only,
    )


def create_or_replace_stream_table(
    conn: Connection,
    name: str,
    query: str,
    schedule: str | None = "calculated",
    refresh_mode: str = "AUTO",
    initialize: bool = True,
    diamond_consistency: str | None = None,
    diamond_schedule_policy: str | None = None,
    cdc_mode: str | None = None,
    append_only: bool = False,
) -> None:
    """Create a stream table, or make the one of that name so; one that is so already is left alone."""
    _create(
        conn,
        "create_or_replace_stream_table",
        name,
        query,
        schedule=schedule,
        refresh_mode=refresh_mode,
        initialize=initialize,
        diamond_consistency=diamond_consistency,
        diamond_schedule_policy=diamond_schedule_policy,
        cdc_mode=cdc_mode,
        append_only=append_only,
    )


def alter_stream_table(
    conn: Connection,
    name: str,
    query: str | None = None,
    schedule: str | None = None,
    refresh_mode: str | None = None,
    status: str | None = None,
    diamond_consistency: str | None = None,
    diamond_schedule_policy: str | None = None,
    cdc_mode: str | None = None,
    append_only: bool | None = None,
    tier: str | None = None,
    fuse_ceiling: int | None = None,
) -> None:
    """Change a stream table; what is None stays as it is."""
    arguments = {
        "name": name,
        "query": query,
        "schedule": schedule,
        "refresh_mode": refresh_mode,
        "status": status,
        "diamond_consistency": diamond_consistency,
        "diamond_schedule_policy": diamond_schedule_policy,
        "cdc_mode": cdc_mode,
        "append_only": append_only,
        "tier": tier,
        "fuse_ceiling": fuse_ceiling,
    }
    with conn.transaction():
        if query is None:
            # A new plan comes with the new mode: the old mode might not take it.
            changes = arguments if refresh_mode is not None else {}
            is_done = (changes or (status or "").upper() == "ACTIVE") and _compile_stale(conn, name, changes)
            if not is_done:
                _call(conn, "alter_stream_table", arguments)
        else:
            plan = compile_locally(conn, name, query, existing=True)
            _call(conn, "alter_stream_table_with_plan", {**arguments, "plan": stored_plan(conn, plan.to_json())})
            if _is_to_settle(conn, name):
                refresh_stream_table(conn, name)


def drop_stream_table(conn: Connection, name: str, cascade: bool = False) -> None:
    """Drop a stream table; with ``cascade`` those that depend on it as well."""
    _call(conn, "drop_stream_table", {"name": name, "cascade": cascade})


def refresh_stream_table(conn: Connection, name: str) -> None:
    """Bring a stream table up to date now, those it reads first."""
    with conn.transaction():
        _compile_stale(conn, name)
        _call(conn, "refresh_stream_table", {"name": name})


def refresh_if_stale(conn: Connection, name: str, max_age: timedelta = timedelta(minutes=5)) -> bool:
    """Refresh a stream table if what it shows is older than ``max_age``; whether it was."""
    with conn.transaction():
        _compile_stale(conn, name)
        (was,) = _row(conn, "SELECT pgtrickle.refresh_if_stale(%s, %s)", name, max_age)
    return bool(was)


def repair_stream_table(conn: Connection, name: str) -> str:
    """Mend a stream table's capture and states, refresh it and compare it with its query; what was wrong, in words."""
    with conn.transaction():
        _compile_stale(conn, name)
        (report,) = _row(conn, "SELECT pgtrickle.repair_stream_table(%s)", name)
    return str(report)


def suspend_stream_table(conn: Connection, name: str) -> None:
    """Leave a stream table as it is until it is resumed."""
    _call(conn, "suspend_stream_table", {"name": name})


def resume_stream_table(conn: Connection, name: str) -> None:
    """Let a suspended or failed stream table go on."""
    with conn.transaction():
        _compile_stale(conn, name)
        _call(conn, "resume_stream_table", {"name": name})


def reinitialize_stream_table(conn: Connection, name: str) -> None:
    """Compute a stream table anew at its next refresh."""
    _call(conn, "reinitialize_stream_table", {"name": name})


def verify_stream_table(conn: Connection, name: str) -> Verdict:
    """Compare a stream table with its query, in one snapshot."""
    return Verdict(*_row(conn, "SELECT missing, extra, ok FROM pgtrickle.verify_stream_table(%s)", name))


def validate_query(conn: Connection, query: str) -> list[Check]:
    """What would happen to a query as a stream table; nothing is created."""
    with conn.transaction(force_rollback=True):
        plan = compile_locally(conn, "pg_trickle_validated_query", query)
    checks = [Check("resolved_refresh_mode", "DIFFERENTIAL" if plan.incremental else "FULL", "OK")]
    if plan.refusal:
        place = f" It stands at: {plan.refusal.near}" if plan.refusal.near else ""
        checks.append(Check(plan.refusal.construct, plan.refusal.reason + place, "WARN"))
        if plan.refusal.only_full:
            checks.append(Check("refresh_mode", "it is refused unless asked for with refresh_mode => 'FULL'", "WARN"))
    checks.append(Check("key", ", ".join(plan.key) if plan.key else "none: rows are told apart by their content", "OK"))
    checks.extend(Check("wanted_index", str(index["why"]), "WARN") for index in plan.indexes)
    return checks


def compile_locally(
    conn: Connection, name: str, query: str, *, existing: bool = False, mode: str | None = None
) -> Plan:
    """The plan of a query for a stream table of that name; an ``existing`` one is found along the search path.

    ``mode`` is the refresh mode that one which is yet to be created is to have.
    """
    found = _document(conn, "SELECT pgtrickle.compile_request(%s, %s, %s)::text", name, query, existing)
    request = CompileRequest.from_json(found)
    return compile_query(request.of_statements if (mode or "").upper() == "IMMEDIATE" else request)


def _create(conn: Connection, function: str, name: str, query: str, **options: Any) -> None:
    # One transaction: the plan is made for facts that must still hold when it is stored.
    with conn.transaction():
        plan = compile_locally(conn, name, query, mode=options.get("refresh_mode"))
        _call(
            conn,
            f"{function}_with_plan",
            {"name": name, "query": query, **options, "plan": stored_plan(conn, plan.to_json())},
        )


def _compile_stale(conn: Connection, name: str, changes: Mapping[str, Any] | None = None) -> bool:
    """Compile again what a refresh would ask the worker for, because definitions changed.

    ``changes`` are made to the stream table itself together with its new plan; whether they were.
    """
    is_changed = False
    for _ in range(_PLANS):
        stale = _document(
            conn,
            """INSERT INTO pgtrickle.gate (action, args)
               VALUES ('stale_plans', pg_catalog.jsonb_build_object('name', %s::text)) RETURNING result::text""",
            name,
        )
        for table in stale:
            request = _document(conn, "SELECT pgtrickle.compile_request(%s, NULL, true)::text", table)
            plan = compile_query(CompileRequest.from_json(request))
            (is_own,) = _row(
                conn, "SELECT %s::pg_catalog.regclass OPERATOR(pg_catalog.=) %s::pg_catalog.regclass", table, name
            )
            arguments = {**(changes or {}), "name": table} if is_own and not is_changed else {"name": table}
            is_changed = is_changed or bool(is_own and changes)
            _call(conn, "alter_stream_table_with_plan", {**arguments, "plan": stored_plan(conn, plan.to_json())})
        if not stale:
            break
    return is_changed


def _is_to_settle(conn: Connection, name: str) -> bool:
    """Whether a stream table has become part of a circle whose other members have to be compiled again first."""
    (unsettled,) = _row(
        conn,
        """SELECT EXISTS (SELECT FROM pgtrickle.stream_tables_info AS i
                           WHERE i.pgt_relid OPERATOR(pg_catalog.=) %s::pg_catalog.regclass
                             AND i.scc_id IS NOT NULL AND i.needs_reinit AND i.is_populated)""",
        name,
    )
    return bool(unsettled)


def _row(conn: Connection, query: LiteralString, *parameters: str | bool | timedelta) -> tuple[Any, ...]:
    # Whatever row factory the caller's connection has.
    row = conn.cursor(row_factory=tuple_row).execute(query, parameters).fetchone()
    assert row is not None
    return row


def _document(conn: Connection, query: LiteralString, *parameters: str | bool) -> Any:
    # As text: psycopg reads jsonb as UTF-8, whatever the connection's encoding.
    (text,) = _row(conn, query, *parameters)
    return json.loads(text)


def _call(conn: Connection, function: str, arguments: dict[str, Any]) -> None:
    named = (
        sql.SQL("{name} => {value}").format(name=sql.Identifier(name), value=sql.Placeholder(name))
        for name in arguments
    )
    conn.execute(
        sql.SQL("SELECT {function}({arguments})").format(
            function=sql.Identifier("pgtrickle", function), arguments=sql.SQL(", ").join(named)
        ),
        arguments,
    )
