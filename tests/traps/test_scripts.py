"""The traps, walked into."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traps.runner import Runner
from tests.traps.script import Script, scripts

# What rests on the server more than on the compiler.
EVERYWHERE = {"capture", "frontier", "identity"}


@pytest.mark.parametrize("script", [one for one in scripts() if one.topic not in EVERYWHERE], ids=str)
def test_every_refresh_gives_what_the_query_gives(script: Script, database: Any) -> None:
    Runner(database.connect).run(script)


@pytest.mark.versions
@pytest.mark.parametrize("script", [one for one in scripts() if one.topic in EVERYWHERE], ids=str)
def test_on_every_server_too(script: Script, database: Any) -> None:
    Runner(database.connect).run(script)
