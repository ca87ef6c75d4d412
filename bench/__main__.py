"""Measure, print progress, and write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bench import capture, immediate, latency, pg_ivm, refresh, suites, tpch
from bench.environment import DATABASE, SETTINGS, machine, measured_server
from bench.report import Figures, markdown
from bench.star import Connection, Size, grow, load
from pg_trickle.testing.binaries import NEWEST
from pg_trickle.testing.server import EmbeddedServer

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
PARTS = ("refresh", "idle", "capture", "immediate", "latency", "tpch", "nexmark", "everyday")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    size: Size
    repetitions: int
    idles: int
    bulk_rows: int
    singles: int
    samples: int
    crowd: int
    scale: float
    rows: int
    immediate: immediate.Effort


FULL = Effort(
    Size(1_000_000),
    repetitions=5,
    idles=200,
    bulk_rows=100_000,
    singles=1000,
    samples=200,
    crowd=200,
    scale=1,
    rows=100_000,
    immediate=immediate.Effort(rows=50_000, batch=10_000, singles=200, repetitions=3, seconds=3),
)
QUICK = Effort(
    Size(2_000, customers=200, products=50),
    repetitions=1,
    idles=3,
    bulk_rows=1000,
    singles=10,
    samples=2,
    crowd=4,
    scale=0.01,
    rows=240,
    immediate=immediate.Effort(rows=500, batch=50, singles=3, repetitions=1, seconds=1),
)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.orders:
        effort = replace(effort, size=replace(effort.size, orders=options.orders))
    if options.scale:
        effort = replace(effort, scale=options.scale)
    if options.repetitions:
        effort = replace(effort, repetitions=options.repetitions)
    # Both sizes shall be in memory, as the smaller one is anyhow.
    settings = {**SETTINGS, "shared_buffers": "4GB"} if options.large and not options.quick else SETTINGS
    figures = Figures(effort.size, effort.repetitions, machine(), settings=settings)
    if options.with_pg_ivm:
        settings = {**settings, **pg_ivm.settings(options.with_pg_ivm, NEWEST)}
    with measured_server(settings) as server:
        with server.connect(DATABASE) as conn:
            pg_ivm.install(conn, options.with_pg_ivm, NEWEST)
        _measure(server, effort, options.only or PARTS, options.large, figures)
    page = markdown(figures)
    whole = not (options.quick or options.only or options.orders or options.scale)
    output = options.output or (PAGE if whole else None)
    if output is None:
        print(page)
    else:
        output.write_text(page)
        _report(f"written: {output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny tables, to see that everything runs; prints the page")
    add("--only", choices=PARTS, action="append", help="measure just this (may be repeated); prints the page")
    add("--orders", type=int, help="rows in the fact table (1,000,000); prints the page")
    add("--large", type=int, metavar="ORDERS", help="small deltas again at so many orders (10,000,000: minutes)")
    add("--scale", type=float, help="TPC-H's scale factor (1); prints the page")
    add("--repetitions", type=int, help="measurements of each refresh, of which the median counts")
    add(
        "--with-pg-ivm",
        type=pg_ivm.unpacked,
        metavar="DIR",
        help="where pg_ivm's Debian package is unpacked (dpkg-deb -x)",
    )
    add("--output", type=Path, help="where to write the page (docs/benchmarks.md)")
    return parser


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _measure(
    server: EmbeddedServer, effort: Effort, parts: tuple[str, ...], large: int | None, figures: Figures
) -> None:
    with server.connect(DATABASE) as conn:
        found = conn.execute("SELECT split_part(version(), ' on ', 1)").fetchone()
        figures.server = str(found and found[0])
    if set(parts) - {"tpch", "nexmark", "everyday"}:
        _star(server, effort, parts, large, figures)
    if "tpch" in parts:
        _tpch(server, effort, figures)
    for suite in (suites.NEXMARK, suites.EVERYDAY):
        if suite.name in parts:
            _suite(server, suite, effort, figures)


def _suite(server: EmbeddedServer, suite: suites.Suite, effort: Effort, figures: Figures) -> None:
    server.create_database(suite.name)
    with server.connect(suite.name) as conn:
        conn.execute("CREATE EXTENSION pg_trickle")
        figures.rows = effort.rows
        figures.suites[suite.name] = suites.compare(conn, suite, effort.rows, effort.repetitions, _report)


def _tpch(server: EmbeddedServer, effort: Effort, figures: Figures) -> None:
    server.create_database("tpch")
    with server.connect("tpch") as conn:
        conn.execute("CREATE EXTENSION pg_trickle")
        figures.scale = effort.scale
        figures.tpch = tpch.compare(conn, effort.scale, effort.repetitions, _report)


def _star(server: EmbeddedServer, effort: Effort, parts: tuple[str, ...], large: int | None, figures: Figures) -> None:
    with server.connect(DATABASE) as conn, server.connect(DATABASE) as other:
        _report(f"loading {effort.size.orders:,} orders")
        load(conn, effort.size)
        if "refresh" in parts:
            figures.refreshes = refresh.compare(conn, effort.size, effort.repetitions, _report)
        if "idle" in parts:
            _idle(conn, effort, figures)
        if "capture" in parts:
            _capture(conn, effort, figures)
        if "immediate" in parts:
            figures.immediate = immediate.immediate(server, conn, effort.immediate, _report), effort.immediate
        if "latency" in parts:
            with latency.running_worker(server, DATABASE):
                _latency(conn, other, effort, figures)
        if large:
            _growth(conn, effort, large, figures)


def _idle(conn: Connection, effort: Effort, figures: Figures) -> None:
    figures.idle = refresh.idle(conn, effort.idles)
    _report(f"nothing to do: {figures.idle.inside:.2f} ms in the server, {figures.idle.outside.wall:.2f} ms outside")


def _capture(conn: Connection, effort: Effort, figures: Figures) -> None:
    figures.bulk_rows = effort.bulk_rows
    figures.bulk, figures.single = capture.capture(
        conn, effort.size, rows=effort.bulk_rows, singles=effort.singles, repetitions=effort.repetitions
    )
    ratio = figures.bulk["captured"] / figures.bulk["bare"]
    _report(f"capture of {effort.bulk_rows:,} rows: {ratio.cpu:.2f}x CPU, {ratio.wall:.2f}x")


def _latency(writer: Connection, reader: Connection, effort: Effort, figures: Figures) -> None:
    figures.latency = latency.latency(writer, reader, effort.samples)
    figures.chain = latency.chain(writer, reader, effort.samples)
    figures.crowd = latency.crowd(writer, reader, effort.samples, others=effort.crowd)
    figures.others = effort.crowd
    _report(
        f"visible after {figures.latency.median:.1f} ms, at a chain's end after {figures.chain.median:.1f} ms,"
        f" in a crowd after {figures.crowd.median:.1f} ms"
    )


def _growth(conn: Connection, effort: Effort, orders: int, figures: Figures) -> None:
    figures.large_orders = orders
    figures.small = refresh.small_deltas(conn, effort.size, effort.repetitions, _report)
    _report(f"loading {orders - effort.size.orders:,} more orders")
    grown = replace(effort.size, orders=orders)
    found = conn.execute("SELECT max(id) + 1 FROM orders").fetchone()
    grow(conn, grown, first=found[0] if found else 1)
    figures.large = refresh.small_deltas(conn, grown, effort.repetitions, _report)


if __name__ == "__main__":
    sys.exit(main())
