"""Where time may have changed a condition: whatever has changed is in the range, in whatever time zone, on odd days."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.moments import before
from pg_trickle.parse.near import near
from pg_trickle.parse.tree import kind, nodes, printed
from pg_trickle.scalar import Identity, Scalar, Type

Connection = psycopg.Connection[tuple[Any, ...]]

COLUMNS = {"tz": "timestamptz", "loc": "timestamp", "d": "date", "r": "tstzrange"}
# The clocks are put forward and back; at midnight; a whole day is left out.
DAYS = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/Havana": ("2026-03-08", "2026-11-01"),
    "Pacific/Apia": ("2011-12-30",),
}
# The share of a year and a month of rows that may be looked at, on the average, for an hour or a day that passes.
FEW, SOME = 0.03, 0.25
CONDITIONS = {
    "tz <= now()": FEW,
    "tz + interval '1 hour' > now()": FEW,
    "tz - interval '30 minutes' > now()": FEW,
    "interval '1 hour' + tz > now()": FEW,
    "tz + interval '1 day' >= now()": SOME,
    "tz + interval '1 day' * 2 >= now()": SOME,
    "tz + interval '1 month' > now()": SOME,
    "tz + interval '1 month 1 day' + interval '2 hours' > now()": SOME,
    "tz > now() - interval '1 month'": FEW,
    "tz BETWEEN now() - interval '7 days' AND now()": FEW,
    "now() - tz < interval '1 day'": FEW,
    "now() - tz >= interval '1 month'": FEW,
    "now() - tz > interval '1 year'": FEW,
    "tz - now() < interval '6 hours'": FEW,
    "make_interval(days => 3) > now() - tz": FEW,
    "age(now(), tz) < interval '1 day'": SOME,
    "age(now(), tz) < interval '2 months'": SOME,
    "age(now(), tz) > interval '1 year'": SOME,
    "age(tz) < interval '3 days'": SOME,
    "extract(epoch FROM now() - tz) < 3600": FEW,
    "extract(epoch FROM now() - tz) / 60 < 90": FEW,
    "(extract(epoch FROM now() - tz) / 86400)::int < 3": SOME,
    "floor(extract(epoch FROM now() - tz) / 3600) * 2 = 4": SOME,
    "date_part('day', now() - tz) > 30": SOME,
    "extract(day FROM now() - tz) = 2": SOME,
    "tz::date = CURRENT_DATE": SOME,
    "date(tz) = CURRENT_DATE": SOME,
    "(tz AT TIME ZONE 'Asia/Tokyo')::date = (now() AT TIME ZONE 'Asia/Tokyo')::date": SOME,
    "tz AT TIME ZONE 'UTC' > now() AT TIME ZONE 'UTC'": SOME,
    "date_trunc('day', tz) = date_trunc('day', now())": SOME,
    "date_trunc('month', tz) = date_trunc('month', now() - interval '1 month')": SOME,
    "date_trunc('hour', tz) < date_trunc('hour', now())": SOME,
    "loc > now() - interval '7 days'": SOME,
    "loc < LOCALTIMESTAMP": FEW,
    "now() - loc < interval '1 hour'": SOME,
    "LOCALTIMESTAMP - loc < interval '1 hour'": FEW,
    "loc + interval '2 days' > LOCALTIMESTAMP": SOME,
    "loc::date = CURRENT_DATE": SOME,
    "d > now() - interval '7 days'": SOME,
    "now() - d < interval '3 days'": SOME,
    "CURRENT_DATE - d < 7": FEW,
    "d - CURRENT_DATE <= 7": FEW,
    "(CURRENT_DATE - d) / 7 < 2": SOME,
    "d + 30 > CURRENT_DATE": SOME,
    "d + interval '1 month' > CURRENT_DATE": SOME,
    "d = CURRENT_DATE - 1": SOME,
    "d < now()::date": SOME,
    "r @> now()": SOME,
    "now() <@ r": SOME,
    "(tz > now()) IS NOT TRUE": FEW,
    "coalesce(tz > now(), false) OR NOT d < CURRENT_DATE": SOME,
    "CASE WHEN tz > now() - interval '1 h' THEN 'new' WHEN now() - tz < interval '1 day' THEN 'old' END = 'new'": SOME,
}
UNKNOWN = (
    "tz + (loc - d) > now()",
    "tz > now() - (loc - d)",
    "tz::time < LOCALTIME",
    "tz IS DISTINCT FROM now()",
    "(tz, d) < (now(), CURRENT_DATE)",
    "to_char(now() - tz, 'HH24') = '12'",
    "extract(hour FROM now() - tz) = 2",
    "extract(epoch FROM now()) - extract(epoch FROM tz) < 60",
    "justify_days(now() - tz) < interval '1 day'",
    "greatest(tz, now()) = tz",
    "extract(epoch FROM now() - tz) / -60 < 90",
)


def parsed(text: str) -> Any:
    return parse_select(text).target_list[0].res_target.val


def scalar(node: Any) -> Scalar:
    read = [one.column_ref.fields[0].string.sval for one in nodes(node) if kind(one) == "column_ref"]
    name = COLUMNS[read[0]] if kind(node) == "column_ref" else None
    return Scalar(printed(node), frozenset(read), Type(name, Identity.EQUAL))


def at(text: str) -> str:
    """With columns for the moments of this refresh and the last one."""
    text = re.sub(r"\bnow\(\)", "m.now", text.replace("$4", "m.was"))
    text = re.sub(r"\bcurrent_date\b", "m.now::date", text, flags=re.IGNORECASE)
    return re.sub(r"\blocaltimestamp\b", "m.now::timestamp", text, flags=re.IGNORECASE)


def make_rows(conn: Connection, zone: str) -> None:
    """A year and a month of rows in a time zone, denser about odd days, and moments about those."""
    conn.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    conn.execute("CREATE TEMP TABLE t (tz timestamptz); CREATE TEMP TABLE m (was timestamptz, now timestamptz)")
    for day in DAYS[zone]:
        conn.execute(
            """INSERT INTO t SELECT %s::timestamptz + n * interval '14 h 26 min' FROM generate_series(-665, 55) AS n
               UNION ALL SELECT %s::timestamptz + n * interval '30 min' FROM generate_series(-96, 96) AS n""",
            [day, day],
        )
        conn.execute(
            """INSERT INTO m SELECT day + n * interval '15 h', day + n * interval '15 h' + passed
                 FROM (SELECT %s::timestamptz) AS b(day), generate_series(-2, 3) AS n,
                      (VALUES (interval '30 min'), ('1 h'), ('23 h'), ('26 h'), ('-1 h')) AS p(passed)""",
            [day],
        )
    conn.execute(
        """CREATE TEMP TABLE rows AS SELECT tz, tz::timestamp AS loc, tz::date AS d,
                  tstzrange(tz - interval '1 h', CASE WHEN extract(minute FROM tz) < 50 THEN tz END) AS r FROM t"""
    )


@pytest.mark.parametrize("zone", DAYS)
def test_what_has_changed_is_in_the_range(db: Connection, zone: str) -> None:
    make_rows(db, zone)
    seen = dict.fromkeys(CONDITIONS, zone != "Europe/Berlin")
    for condition, most in CONDITIONS.items():
        db.execute(f"CREATE OR REPLACE TEMP VIEW v AS SELECT ({condition})::bool AS is_true FROM rows".encode())
        (canonical,) = db.execute("SELECT pg_get_viewdef('v'::regclass)").fetchone() or ("",)
        node = parsed(canonical)
        found = near(node, scalar)
        assert found is not None, condition
        is_near = at(found.text)
        changed = f"({at(printed(node))}) IS DISTINCT FROM ({at(printed(before(node)))})"
        counts = db.execute(
            f"""SELECT count(*) FILTER (WHERE ({is_near}) IS NOT TRUE), count(*) > 0,
                       (SELECT (count(*) FILTER (WHERE {is_near}))::float8 / count(*) FROM rows AS t, m)
                  FROM rows AS t, m WHERE {changed}""".encode()
        ).fetchone()
        assert counts is not None
        missed, some, share = counts
        assert missed == 0, condition
        seen[condition] |= some
        assert share < most, condition
    assert all(seen.values()), seen


@pytest.mark.parametrize("condition", UNKNOWN)
def test_of_what_is_not_known_all_is_looked_at(condition: str) -> None:
    assert near(parsed(f"SELECT {condition}"), scalar) is None
