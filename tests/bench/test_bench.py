"""The benchmark runs, and its page has all its parts.  How fast anything was is nobody's business here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.star import VIEWS


@pytest.mark.slow
def test_a_quick_run_writes_the_whole_page(tmp_path: Path):
    page = tmp_path / "benchmarks.md"
    main(["--quick", "--large", "3000", "--output", str(page)])
    text = page.read_text()
    for part in (
        "Refresh",
        "Cost follows the change",
        "Nothing to do",
        "Capture",
        "IMMEDIATE",
        "From commit to visible",
        "TPC-H",
        "Nexmark",
        "Queries of applications",
        "Where",
    ):
        assert f"## {part}" in text
    for view in VIEWS:
        assert view.title in text
