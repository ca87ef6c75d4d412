"""Stream tables for any PostgreSQL: tables that keep themselves equal to a query."""

from __future__ import annotations
