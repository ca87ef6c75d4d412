"""The command line: it parses, calls, prints."""

from __future__ import annotations
