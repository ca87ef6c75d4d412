"""Stream tables for any PostgreSQL: tables that keep themselves equal to a query."""

from __future__ import annotations

from pg_trickle.api import (
    Check,
    Verdict,
    alter_stream_table,
    create_or_replace_stream_table,
    create_stream_table,
    create_stream_table_if_not_exists,
    drop_stream_table,
    refresh_if_stale,
    refresh_stream_table,
    reinitialize_stream_table,
    repair_stream_table,
    resume_stream_table,
    suspend_stream_table,
    validate_query,
    verify_stream_table,
)
from pg_trickle.errors import PgTrickleError

__all__ = [
    "Check",
    "PgTrickleError",
    "Verdict",
    "alter_stream_table",
    "create_or_replace_stream_table",
    "create_stream_table",
    "create_stream_table_if_not_exists",
    "drop_stream_table",
    "refresh_if_stale",
    "refresh_stream_table",
    "reinitialize_stream_table",
    "repair_stream_table",
    "resume_stream_table",
    "suspend_stream_table",
    "validate_query",
    "verify_stream_table",
]
