from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import pytest

from pg_trickle.demo import data, flights, replay
from pg_trickle.demo.data import STREAM_FROM
from pg_trickle.demo.flights import Flight
from pg_trickle.demo.replay import Event, Kind
from tests.conftest import Connection, Database


@pytest.fixture(scope="session")
def stream(data_slice: Path) -> list[Flight]:
    every = flights.read(data_slice / "flights.csv.zip", flights.zones(data_slice / "airports.csv"))
    return [flight for flight in every if flight.sched_dep_time >= STREAM_FROM]


def once(stream: list[Flight]) -> list[Event]:
    """All that happens before it starts again."""
    scheduled = len(stream)
    departed = sum(not flight.is_cancelled for flight in stream)
    arrived = sum(flight.arr_time is not None for flight in stream)
    return list(islice(replay.events(stream), 2 * scheduled + arrived)) if scheduled > departed else []


def test_the_same_seed_gives_the_same_stream_and_another_seed_another(stream: list[Flight]):
    first, again, other = (list(islice(replay.events(stream, seed), 5000)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_there_are_inserts_updates_and_deletes(stream: list[Flight]):
    counts = Counter(event.kind for event in once(stream))
    assert counts == {
        Kind.SCHEDULED: len(stream),
        Kind.DEPARTED: sum(flight.dep_time is not None for flight in stream),
        Kind.ARRIVED: sum(flight.arr_time is not None for flight in stream),
        Kind.CANCELLED: sum(flight.is_cancelled for flight in stream),
    }
    assert min(counts.values()) > 0


def test_everything_happens_in_order_and_to_each_flight_in_the_order_of_life(stream: list[Flight]):
    events = once(stream)
    assert [event.at for event in events] == sorted(event.at for event in events)
    lives = defaultdict(list)
    for event in events:
        lives[event.flight].append(event.kind)
    for flight, life in lives.items():
        assert life == sorted(life), flight
        assert life[0] is Kind.SCHEDULED


def test_transactions_hold_events_of_one_kind_and_are_small(stream: list[Flight]):
    batches = list(islice(replay.transactions(replay.events(stream)), 2000))
    assert all(len({event.kind for event in batch}) == 1 for batch in batches)
    assert 1 < max(map(len, batches)) < 50


def test_after_the_last_flight_it_goes_on_with_flights_that_were_never_there(stream: list[Flight]):
    events = list(islice(replay.events(stream), 2 * len(once(stream))))
    scheduled = [event.flight for event in events if event.kind is Kind.SCHEDULED]
    assert len(scheduled) == 2 * len(stream)
    assert len({(flight.time_hour, flight.carrier, flight.flight) for flight in scheduled}) == len(scheduled)


def test_at_the_end_the_table_holds_the_flights_as_they_went(
    database: Database, db: Connection, data_slice: Path, stream: list[Flight]
):
    for role in ("flight_desk", "flight_analyst"):
        database.adopt_role(role)
    data.load(db, data_slice)
    db.execute("DELETE FROM flights")
    with database.connect("flight_desk") as desk:
        for batch in replay.transactions(once(stream)):
            replay.write(desk, batch)
    found = {Flight(*row) for row in db.execute("SELECT * FROM flights")}
    assert found == {as_flown(flight) for flight in stream if not flight.is_cancelled}


def as_flown(flight: Flight) -> Flight:
    # Of a flight that never got anywhere there is no arrival to write down.
    return flight if flight.arr_time is not None else flight._replace(arr_delay=None, air_time=None)


def test_a_writer_that_fails_says_so():
    writer = replay.Writer("host=127.0.0.1 port=1", [], rows_per_second=1)
    writer.start()
    writer.stop()
    assert writer.error is not None
