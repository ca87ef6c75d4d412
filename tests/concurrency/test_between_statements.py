"""Who commits between two statements of a refresh in READ COMMITTED: seen by one of them and not by the other."""

from __future__ import annotations

import threading

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from pg_trickle.testing.process import wait_until

WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'product'::regclass)"


def test_a_commit_between_looking_and_computing_is_counted_once(database, db):
    """The refresh has looked for changes when it comes to wait for a table that only its program reads."""
    db.execute("CREATE TABLE product (id int PRIMARY KEY, price int); INSERT INTO product VALUES (1, 10)")
    db.execute("CREATE TABLE sale (id int PRIMARY KEY, product int)")
    query = "SELECT p.id, sum(p.price) AS total FROM sale AS s JOIN product AS p ON p.id = s.product GROUP BY p.id"
    pg_trickle.create_stream_table(db, "public.totals", query, schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("INSERT INTO sale VALUES (1, 1)")
    writer, reader = database.connect(autocommit=False), database.connect()
    writer.execute("INSERT INTO sale VALUES (2, 1); LOCK TABLE product IN ACCESS EXCLUSIVE MODE")
    refresh = threading.Thread(
        target=lambda: reader.execute("SELECT pgtrickle.refresh_stream_table('public.totals')"), daemon=True
    )
    refresh.start()
    assert wait_until(lambda: db.execute(WAITS).fetchone() == (True,), 60)
    writer.commit()
    refresh.join()
    # Whether it is in already or not: once.
    for _ in range(2):
        db.execute("SELECT pgtrickle.refresh_stream_table('public.totals')")
        assert_fresh(db, "public.totals")
