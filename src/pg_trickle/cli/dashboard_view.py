"""What the dashboard shows: looked up in one transaction, and drawn to fit the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pg_trickle.cli import output

Row = dict[str, Any]

TABLES = """
    SELECT s.name, s.status, coalesce(i.effective_refresh_mode, s.refresh_mode) AS mode, s.schedule,
           round(extract(epoch FROM s.staleness)::numeric, 1)::float8 AS lag_s, i.stale AS late,
           h.finished_at AS last_refresh,
           round((extract(epoch FROM h.finished_at - h.started_at) * 1000)::numeric, 1)::float8 AS ms,
           h.rows_in, h.rows_out, s.consecutive_errors AS errors,
           coalesce(i.last_error_message, CASE WHEN NOT h.success THEN h.error_message END) AS error
      FROM pgtrickle.pgt_status() AS s
      LEFT JOIN pgtrickle.stream_tables_info AS i ON i.name = s.name
      LEFT JOIN LATERAL (SELECT r.* FROM pgtrickle.pgt_refresh_history AS r
                          WHERE r.pgt_id = i.pgt_id AND r.skipped_reason IS NULL
                          ORDER BY r.started_at DESC, r.refresh_id DESC LIMIT 1) AS h ON true
     ORDER BY s.status = 'ACTIVE', s.name
"""
BUFFERS = """
    SELECT stream_table, source_table, cdc_mode, pending_rows, buffer_bytes
      FROM pgtrickle.change_buffer_sizes() ORDER BY pending_rows DESC NULLS LAST, stream_table, source_table
"""
HISTORY = """
    SELECT finished_at AS at, pgt_name AS name, initiated_by AS "by", refresh_mode AS mode, rows_in, rows_out,
           round((extract(epoch FROM finished_at - started_at) * 1000)::numeric, 1)::float8 AS ms,
           success, error_message AS error
      FROM pgtrickle.refresh_timeline(200) WHERE skipped_reason IS NULL ORDER BY started_at DESC LIMIT 20
"""
CHECKS = "SELECT check_name, severity, detail FROM pgtrickle.health_check() WHERE severity <> 'OK'"

# From here on there is room for figures.
WIDE = 80
FIGURES = ("ms", "rows_in", "rows_out", "error")
NUMBERS = frozenset({"lag_s", "ms", "rows_in", "rows_out", "pending_rows"})
HEADINGS = {
    "lag_s": "lag s",
    "rows_in": "in",
    "rows_out": "out",
    "stream_table": "stream table",
    "source_table": "changes of",
    "pending_rows": "rows",
}
# Above the rows of a table: an empty line, what they are, what the columns are.
TITLES = ("", "title", "headings")
# The first line, the stream tables' titles, and the line of keys.
FRAME_LINES = 6
# As many lines as a program may read.
ALL = 40
STYLES = {"ACTIVE": "green", "SUSPENDED": "yellow", "INITIALIZING": "yellow", "ERROR": "red", "WARN": "yellow"}


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is shown, of one moment."""

    database: str
    at: Any
    stream_tables: Sequence[Row]
    buffers: Sequence[Row]
    history: Sequence[Row]
    checks: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def look(conn: psycopg.Connection[Any]) -> Picture:
    """What the connection's role may see."""
    with conn.transaction():
        here = conn.execute("SELECT current_database(), clock_timestamp()").fetchone()
        assert here is not None
        return Picture(*here, *(output.rows_of(conn.execute(query))[0] for query in (TABLES, BUFFERS, HISTORY, CHECKS)))


def picture(seen: Picture, *, width: int, height: int | None) -> RenderableType:
    """The dashboard, in no more lines than that: history and buffers give way to stream tables."""
    title = output.printable(f"pg_trickle {seen.database} {seen.at:%H:%M:%S} {_counts(seen)}")
    head = Text(title, "bold", no_wrap=True)
    parts: list[RenderableType] = [head, *_checks(seen.checks), Text(), _stream_tables(seen.stream_tables, width)]
    room = ALL if height is None else height - FRAME_LINES - len(seen.checks) - len(seen.stream_tables)
    waiting = [row for row in seen.buffers if row["pending_rows"]][: max(room // 2, 0)]
    if waiting:
        parts += [Text(), _grid("waiting", waiting, ("stream_table", "source_table", "pending_rows"))]
        room -= len(waiting) + len(TITLES)
    if room > len(TITLES) and seen.history:
        parts += [Text(), _history(seen.history[: room - len(TITLES)], width)]
    if height is not None:
        parts += [Text(), Text("q ends", style="dim")]
    return Group(*parts)


def _counts(seen: Picture) -> str:
    errors = sum(row["status"] == "ERROR" for row in seen.stream_tables)
    late = sum(bool(row["late"]) for row in seen.stream_tables)
    return f"· {len(seen.stream_tables)} stream tables, {late} late, {errors} in error"


def _checks(checks: Iterable[Row]) -> list[Text]:
    return [
        Text(
            output.printable(f"{row['severity']} {row['check_name']}: {row['detail']}"),
            STYLES.get(row["severity"], ""),
            no_wrap=True,
            overflow="ellipsis",
        )
        for row in checks
    ]


def _stream_tables(rows: Sequence[Row], width: int) -> RenderableType:
    if not rows:
        return Text("no stream tables that you may see")
    columns = ("name", "status", "lag_s") if width < WIDE else ("name", "status", "mode", "lag_s", *FIGURES)
    return _grid("stream tables", rows, columns)


def _history(rows: Sequence[Row], width: int) -> Table:
    columns = ("at", "name", "ms") if width < WIDE else ("at", "name", "by", "mode", *FIGURES)
    return _grid("refreshes", [{**row, "at": f"{row['at']:%H:%M:%S}"} for row in rows], columns)


def _grid(title: str, rows: Iterable[Row], columns: Sequence[str]) -> Table:
    """A table whose cells are cut rather than wrapped."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for name in columns:
        grid.add_column(HEADINGS.get(name, name), justify="right" if name in NUMBERS else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(_cell(row[name]) for name in columns))
    return grid


def _cell(value: Any) -> Text:
    text = "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value).split("\n", 1)[0]
    text = output.printable(text)
    return Text(text, STYLES.get(text, ""), overflow="ellipsis")
