"""An embedded PostgreSQL with the extension, for tests, demos and playing: users' as well as our own."""

from __future__ import annotations

from pg_trickle.testing.binaries import Binaries, find_binaries, installed_binaries
from pg_trickle.testing.server import EmbeddedServer

__all__ = ["Binaries", "EmbeddedServer", "find_binaries", "installed_binaries"]
