"""The traps, walked into."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traps.runner import Runner
from tests.traps.script import Script, scripts


@pytest.mark.parametrize("script", [*scripts()], ids=str)
def test_every_refresh_gives_what_the_query_gives(script: Script, database: Any) -> None:
    Runner(database.connect).run(script)
