"""``pgtrickle upgrade``."""

from __future__ import annotations

from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, connect
from pg_trickle.install import upgrade as upgrader


def upgrade(dsn: Dsn = "") -> None:
    """Bring the SQL part in a database to the version of this package; stream tables stay and go on.

    There has been one release yet, so there is nothing to come from: it says which versions meet, and exits with
    1 if they differ and no script leads from the one to the other.

    Example: pgtrickle upgrade --dsn "host=db dbname=shop user=postgres"
    """
    with connect(dsn) as conn:
        before, after = upgrader.upgrade(conn)
    output.line(
        f"pg_trickle {after} is installed" + (f"; it was {before}" if before != after else ", as in this package")
    )
