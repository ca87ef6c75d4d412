"""``pgtrickle alter``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.create import (
    CdcMode,
    Diamond,
    DiamondPolicy,
    File,
    Mode,
    Query,
    Schedule,
    pointing_into,
    query_text,
)
from pg_trickle.cli.options import Dsn, Name, connect


def alter(
    name: Name,
    query: Query = None,
    file: File = None,
    schedule: Schedule = None,
    refresh_mode: Mode = None,
    status: Annotated[str | None, typer.Option(help="ACTIVE or SUSPENDED.")] = None,
    diamond_consistency: Diamond = None,
    diamond_schedule_policy: DiamondPolicy = None,
    cdc_mode: CdcMode = None,
    append_only: Annotated[bool | None, typer.Option(help="A promise: the sources only see INSERTs.")] = None,
    tier: Annotated[str | None, typer.Option(help="hot, warm, cold or frozen.")] = None,
    fuse_ceiling: Annotated[
        int | None,
        typer.Option(help="Pending changes above which it isn't refreshed; 0: no fuse, -1: as the setting says."),
    ] = None,
    dsn: Dsn = "",
) -> None:
    """Change a stream table: what isn't given stays as it is.

    Example: pgtrickle alter order_totals --schedule 30s --refresh-mode DIFFERENTIAL
    """
    text = query_text(query, file)
    with connect(dsn) as conn, pointing_into(text or ""):
        api.alter_stream_table(
            conn,
            name,
            query=text,
            schedule=schedule,
            refresh_mode=refresh_mode,
            status=status,
            diamond_consistency=diamond_consistency,
            diamond_schedule_policy=diamond_schedule_policy,
            cdc_mode=cdc_mode,
            append_only=append_only,
            tier=tier,
            fuse_ceiling=fuse_ceiling,
        )
    output.line(f"altered {name}")
