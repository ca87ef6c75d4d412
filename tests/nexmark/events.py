"""Nexmark's tables, queries and a small stream of events: the same whenever it is asked for.

Of 50 events one is a new person, three are new auctions, the others are bids, most of them on
recent auctions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in (HERE / "queries").glob("q*.sql")))
BEGINNING = datetime(2020, 1, 1)

Event = tuple[str, tuple[Any, ...]]


def schema() -> str:
    return (HERE / "schema.sql").read_text()


def queries() -> dict[str, str]:
    return {name: (HERE / "queries" / f"{name}.sql").read_text() for name in NAMES}


def events(seed: int = 1) -> Iterator[Event]:
    """INSERT statements with their values, for ever."""
    chance = random.Random(seed)
    persons = auctions = number = 0
    while True:
        now = BEGINNING + timedelta(milliseconds=37 * number)
        match number % 50:
            case 0:
                persons += 1
                yield _person(chance, persons, now)
            case 1 | 17 | 34:
                auctions += 1
                yield _auction(chance, auctions, persons, now)
            case _:
                yield _bid(chance, auctions, persons, now)
        number += 1


def _person(chance: random.Random, number: int, now: datetime) -> Event:
    email = chance.choice([None, f"p{number}@example.org"])
    place = chance.choice(["OR", "ID", "CA", "WY", None])
    values = (number, f"person {number % 11}", email, chance.choice(["Boise", "Portland", "Bend"]), place, now)
    return "INSERT INTO person VALUES (%s, %s, %s, %s, %s, %s)", values


def _auction(chance: random.Random, number: int, persons: int, now: datetime) -> Event:
    first = chance.randint(1, 1000)
    closes = now + timedelta(milliseconds=chance.randint(1, 6000))
    reserve = chance.choice([None, first + chance.randint(1, 1000)])
    seller, category = chance.randint(max(1, persons - 5), persons), chance.choice([10, 11, 12, None])
    values = (number, f"item {number}", first, reserve, now, closes, seller, category)
    return "INSERT INTO auction VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", values


def _bid(chance: random.Random, auctions: int, persons: int, now: datetime) -> Event:
    channel = chance.choice(["Apple", "Google", "Facebook", "channel-1", None])
    path = chance.choice(["channel_id=", "item="])
    url = chance.choice(
        [None, f"https://www.nexmark.com/abc/{chance.randint(1, 3)}/item.htm?{path}{chance.randint(1, 9)}"]
    )
    price = int(10 ** (chance.random() * 5))
    values = (chance.randint(max(1, auctions - 8), auctions), chance.randint(1, persons), price, channel, url, now)
    return "INSERT INTO bid VALUES (%s, %s, %s, %s, %s, %s)", values
