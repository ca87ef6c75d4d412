"""Values that are equal and read differently: what a stream table shows of a group is taken away as it was shown."""

from __future__ import annotations

import pytest

import pg_trickle
from tests.upkeep import check_reason, check_states

# In tables without a key rows are found by all that they hold.
QUERIES = {
    "numbers": "SELECT count(*) AS c, n FROM u GROUP BY n, i",
    "spans": "SELECT count(*) AS c, t FROM u GROUP BY t, i",
    "floats": "SELECT count(*) AS c, f FROM u GROUP BY f, i",
    "below": "SELECT n FROM (SELECT n, i, count(*) AS c FROM u GROUP BY n, i) AS g WHERE i = 0",
    "mixed": "SELECT n, t FROM u GROUP BY 1, 2, i",
    "joined": "SELECT a.n FROM (SELECT n, i FROM u GROUP BY n, i) AS a"
    " JOIN (SELECT n, max(k) AS k FROM u GROUP BY n) AS b ON a.n = b.n",
    "read_again": "SELECT n, string_agg(i::text, ',' ORDER BY k) AS s FROM u GROUP BY n, i",
}
WRITES = (
    "INSERT INTO u VALUES (2, 1, 0, '24:00:00', '-0')",
    "INSERT INTO u VALUES (3, 1.0, 1, '24:00:00', '-0')",
    "DELETE FROM u WHERE k = 1",
    "INSERT INTO u VALUES (4, 1.000, 0, '1 day', 0), (5, NULL, NULL, NULL, NULL)",
    "UPDATE u SET n = n + 0.000, f = -f WHERE k IN (2, 3)",
    "DELETE FROM u WHERE k = 2",
    "DELETE FROM u",
)

# By SQL's equality: which of several spellings a group shows is PostgreSQL's choice.
VERIFY = "SELECT * FROM pgtrickle.verify_stream_table(%s)"


@pytest.mark.versions
def test_equal_values_in_other_words_contradict_nothing(db):
    db.execute("CREATE TABLE u (k int PRIMARY KEY, n numeric, i int, t interval, f float8)")
    db.execute("INSERT INTO u VALUES (1, 1.00, 0, '1 day', 0)")
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, f"public.{name}", query, schedule=None, refresh_mode="DIFFERENTIAL")
    for write in WRITES:
        db.execute(write)
        for name in QUERIES:
            pg_trickle.refresh_stream_table(db, f"public.{name}")
            check_reason(db, name)
            check_states(db, name)
            assert db.execute(VERIFY, (f"public.{name}",)).fetchone() == (0, 0, True), (name, write)
