"""``pgtrickle dashboard``: how stream tables and worker are, drawn anew until q or Ctrl-C."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import psycopg
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pg_trickle.cli import output
from pg_trickle.cli.dashboard_view import Picture, look, picture
from pg_trickle.cli.failure import report
from pg_trickle.cli.options import AsJson, Dsn, connect


def dashboard(
    dsn: Dsn = "",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once; so it is where there is no terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show stream tables live: status, lag, last refresh, what waits in buffers, history; q or Ctrl-C ends it.

    Example: pgtrickle dashboard --dsn "dbname=shop"
    """
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with connect(dsn) as conn:
        seen = look(conn)
    if as_json:
        output.document(seen.to_json())
    elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        console.print(picture(seen, width=console.width, height=None))
    else:
        with suppress(KeyboardInterrupt):
            _watch(dsn, every, console)


def _watch(dsn: str, every: float, console: Console) -> None:
    """Draw until somebody presses q; a server that goes away is waited for."""
    looks = _looks(dsn)
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys():
        while True:
            started = time.monotonic()
            live.update(_drawn(next(looks), console), refresh=True)
            if _is_quit(every - (time.monotonic() - started)):
                return


def _looks(dsn: str) -> Iterator[Picture | psycopg.Error]:
    """What there is to see, again and again, over one connection for as long as it lasts; or why there is nothing."""
    while True:
        try:
            with connect(dsn) as conn:
                while True:
                    yield look(conn)
        except psycopg.Error as error:
            yield error


def _drawn(seen: Picture | psycopg.Error, console: Console) -> RenderableType:
    if isinstance(seen, psycopg.Error):
        return Text(f"{report(seen)}\n\ntrying again; q ends", style="red")
    return picture(seen, width=console.width, height=console.height)


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one, unseen, without waiting for Return."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_quit(seconds: float) -> bool:
    """Wait that long for a key; whether it was q, or there will be none any more."""
    until = time.monotonic() + seconds
    while select.select([sys.stdin], [], [], max(until - time.monotonic(), 0))[0]:
        # Past the buffer of sys.stdin, of which select knows nothing.
        keys = os.read(sys.stdin.fileno(), 64)
        if not keys or b"q" in keys.lower():
            return True
    return False
