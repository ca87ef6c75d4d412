"""The worker's calls to the server, one method each.  Every query is in queries.sql."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pg_trickle.repertoire import stored_plan, stored_words
from pg_trickle.worker.dag import StreamTable
from pg_trickle.worker.marks import Snapshot, full_xid
from pg_trickle.worker.scheduler import Run, Settings

Connection = psycopg.Connection[DictRow]
# The version of the graph when there is none.
NO_STREAM_TABLES = 0

# How long a refresh waits for a lock before it lets others go first.
LOCK_SECONDS = 10

SESSION = {
    "application_name": "pg_trickle worker",
    # What a database prescribes for its clients would reach us as bytes, or not at all.
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    # A server that vanished without a word is noticed in a quarter of a minute.
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
}


@cache
def queries() -> dict[str, bytes]:
    """The sections of queries.sql by name."""
    text = files("pg_trickle.worker").joinpath("queries.sql").read_text(encoding="utf-8")
    sections = text.split("-- name: ")[1:]
    return {name.strip(): body.strip().encode() for name, _, body in (section.partition("\n") for section in sections)}


def connect(dsn: str, *, statement_seconds: int = 0) -> Connection:
    """A connection on which every statement is a transaction, and takes no longer than that, if a limit is given."""
    connection = psycopg.connect(dsn, autocommit=True, row_factory=dict_row, **SESSION)  # type: ignore[arg-type]
    _configure(connection, "read committed")
    if statement_seconds:
        limit = ("statement_timeout", f"{statement_seconds}s")
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", limit)
    return connection


def connect_pool(dsn: str, *, most: int) -> ConnectionPool[Connection]:
    """Connections for refreshes: on these every statement is a REPEATABLE READ transaction."""

    def prepare(connection: Connection) -> None:
        connection.autocommit = True
        restore(connection)

    def restore(connection: Connection) -> None:
        # What an owner's functions have set for the session is gone.  And a lock on something of his keeps a
        # connection from the others for so long only.
        connection.execute("RESET ALL")
        _configure(connection, "repeatable read", lock_timeout=f"{LOCK_SECONDS}s")

    return ConnectionPool(
        dsn,
        min_size=1,
        max_size=most,
        max_idle=60,
        timeout=5,
        kwargs={"row_factory": dict_row, **SESSION},
        configure=prepare,
        reset=restore,
        name="pg_trickle refresh",
        open=False,
    )


def _configure(connection: Connection, isolation: str, **more: str) -> None:
    """Settle what a role's or a database's settings could have changed.

    A refresh whose commit a crash loses is made again from the same buffers, so no refresh waits for the disk.
    """
    settings = {
        "search_path": "pg_catalog, pg_temp",
        "default_transaction_isolation": isolation,
        "default_transaction_read_only": "off",
        "default_transaction_deferrable": "off",
        "synchronous_commit": "off",
        "client_min_messages": "warning",
        # As the gate has them: definitions printed otherwise would look altered, and be made again by every refresh.
        "quote_all_identifiers": "off",
        "standard_conforming_strings": "on",
        "transform_null_equals": "off",
    }
    connection.execute(queries()["lift_limits"])
    names, values = zip(*(settings | more).items(), strict=True)
    connection.execute(queries()["configure"], {"names": list(names), "values": list(values)})


@dataclass(frozen=True, slots=True)
class Poll:
    """What has to be known when something was written; ``enabled`` only when asked for."""

    enabled: bool | None
    catalog_version: int
    high_water: dict[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """Has anything been written, has a transaction ended, what time is it there; ``poll`` if something was written."""

    wal_lsn: str
    snapshot: Snapshot
    now: float
    poll: Poll | None


@dataclass(frozen=True, slots=True)
class Pending:
    """The stream tables that have unconsumed changes in a snapshot."""

    tables: frozenset[int]
    snapshot: Snapshot
    next_xid: int


@dataclass(frozen=True, slots=True)
class Result:
    """What ``worker_refresh`` says about one stream table."""

    id: int
    mode: str | None
    rows_in: int | None
    rows_out: int | None
    milliseconds: float | None
    sqlstate: str | None
    message: str | None
    skipped: str | None
    stale_plan: bool
    outdated: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """How far the WAL was read, and why it could not be."""

    lsn: str
    trouble: str | None


@dataclass(frozen=True, slots=True)
class Gateway:
    """A connection, as what the worker may do with it."""

    connection: Connection

    def _row(self, name: str, /, **parameters: Any) -> DictRow:
        row = self.connection.execute(queries()[name], parameters).fetchone()
        assert row is not None, name
        return row

    def lock(self) -> bool:
        """Become the one worker of this database, for as long as the connection lives; False if there is one."""
        (taken,) = self._row("lock").values()
        return bool(taken)

    def look(self, *, known_lsn: str | None, known_snapshot: Snapshot | None = None, with_enabled: bool) -> Look:
        row = self._row(
            "look",
            known_lsn=known_lsn,
            known_snapshot=known_snapshot and str(known_snapshot),
            with_enabled=with_enabled,
        )
        found = row["poll"]
        poll = found and Poll(
            enabled=found["enabled"],
            catalog_version=found["catalog_version"],
            high_water={int(source): mark for source, mark in found["high_water"].items()},
        )
        return Look(row["wal_lsn"], Snapshot.parse(row["snapshot"]), row["now"], poll)

    def graph(self) -> tuple[list[StreamTable], int]:
        """All stream tables, and the version of the graph that they are."""
        rows = self.connection.execute(queries()["stream_tables"]).fetchall()
        tables = [
            StreamTable(
                id=row["pgt_id"],
                name=row["name"],
                depends_on=frozenset(row["depends_on"] or ()),
                sources=frozenset(row["source_relids"] or ()),
                schedule=row["schedule"],
                schedule_seconds=row["schedule_seconds"],
                status=row["status"],
                tier=row["tier"],
                refresh_mode=row["refresh_mode"],
                populated=row["is_populated"],
                needs_reinit=row["needs_reinit"],
                watched=row["watched"],
                timed=row["timed"],
                circle=row["scc_id"],
                last_refresh_at=row["last_refresh_at"],
            )
            for row in rows
        ]
        return tables, rows[0]["graph_version"] if rows else NO_STREAM_TABLES

    def settings(self) -> Settings:
        found = self._row("settings")["settings"]
        return Settings(
            default_schedule_seconds=float(found["default_schedule_seconds"]),
            max_consecutive_errors=int(found["max_consecutive_errors"]),
            max_concurrent_refreshes=int(found["max_concurrent_refreshes"]),
            metrics_port=int(found["metrics_port"]),
        )

    def pending(self, tables: Collection[int]) -> Pending:
        row = self._row("pending", tables=sorted(tables))
        snapshot = Snapshot.parse(row["snapshot"])
        next_xid = full_xid(row["next_xid"], at_least=snapshot.xmax)
        return Pending(frozenset(row["pending"] or ()), snapshot, next_xid)

    def refresh(self, run: Run, *, graph: int | None) -> list[Result]:
        """Refresh a group, in its order, in one transaction, which has to be REPEATABLE READ.

        Companions come along if they have changes.  With a ``graph`` the group moves as one, if that is still the
        graph's version; else whoever can.
        """
        quiet = {source: {"mark": known.mark, "readers": known.readers} for source, known in run.quiet.items()}
        found = self._row(
            "refresh", tables=list(run.group), companions=list(run.companions), graph=graph, quiet=Jsonb(quiet)
        )
        return [
            Result(
                id=result["pgt_id"],
                mode=result.get("mode"),
                rows_in=result.get("rows_in"),
                rows_out=result.get("rows_out"),
                milliseconds=result.get("ms"),
                sqlstate=(result.get("error") or {}).get("sqlstate"),
                message=(result.get("error") or {}).get("message"),
                skipped=result.get("skipped"),
                stale_plan=bool(result.get("stale_plan")),
                outdated=bool(result.get("outdated")),
            )
            for result in found["results"]
        ]

    def failed(self, table: int, *, started_at: float, sqlstate: str, message: str, max_errors: int) -> None:
        at = datetime.fromtimestamp(started_at, UTC)
        self._row("failed", table=table, started_at=at, sqlstate=sqlstate, message=message, max_errors=max_errors)

    def compile_request(self, table: int) -> str:
        """The request, as JSON text, to compile a stream table's query again."""
        request: str = self._row("compile_request", table=table)["request"]
        return request

    def install_plan(self, table: int, plan: dict[str, Any]) -> None:
        self._row("install_plan", table=table, plan=stored_plan(self.connection, plan))

    def take_requests(self, *, most: int, longest: int) -> list[tuple[int, str | None]]:
        """The next compile requests, as JSON text; None for one that is longer than that many bytes."""
        rows = self.connection.execute(queries()["take_requests"], {"most": most, "longest": longest})
        return [(row["id"], row["request"]) for row in rows]

    def answer(self, request: int, *, plan: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
        self._row(
            "answer",
            request=request,
            plan=None if plan is None else stored_plan(self.connection, plan),
            error=None if error is None else stored_words(self.connection, error),
        )

    def metrics(self) -> Any:
        return self._row("metrics")["metrics"]

    def restore(self) -> None:
        """Take back what owners' types have set for the session, if their input functions call somebody's code."""
        self.connection.execute("RESET ALL")
        _configure(self.connection, "read committed")

    def drain_wal(self, known_lsn: str | None) -> Drained | None:
        """Decode what was written to the WAL since; None where nothing is captured from it."""
        found = self._row("drain_wal", known_lsn=known_lsn)["drained"]
        return found and Drained(found["lsn"], found["trouble"])

    def housekeeping(self) -> list[tuple[str, str]]:
        """Tidy up; what could not be done: where, and the SQLSTATE that says why."""
        return [(one["place"], one["sqlstate"]) for one in self._row("housekeeping")["done"]["problems"]]
