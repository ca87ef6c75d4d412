"""``pgtrickle demo``: hand over to the demonstration."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle.demo import run


def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End after that long; by default Ctrl-C ends it.", show_default=False)
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Rows that the live stream writes per second.")] = (
        run.ROWS_PER_SECOND
    ),
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Load that many days of history only; by default nine months.", show_default=False),
    ] = None,
) -> None:
    """Stream tables on real data, live: a server of its own, a year of flights, and the proof at the end.

    Exits with 0 only if every stream table equals its query.  Leaves nothing behind.

    Example: pgtrickle demo --seconds 20
    """
    code = run.run(run.Options(seconds=seconds, rows_per_second=rate, history_days=days))
    if code:
        raise typer.Exit(code)
