"""Every claim of the security guide has a test, but for those that README.md says are waiting."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def numbers(pattern: str) -> set[str]:
    paths = [*HERE.glob("test_*.py"), HERE.parent / "wal" / "test_security.py"]
    text = "\n".join(path.read_text() for path in paths)
    return set(re.findall(pattern, text))


def waiting() -> set[str]:
    return set(re.findall(r"^\| ([SA]\d+) \|", (HERE / "README.md").read_text(), re.MULTILINE))


def test_every_claim_has_a_test() -> None:
    tested = {f"S{int(number)}" for number in numbers(r"def test_s(\d\d)_")}
    assert {f"S{number}" for number in range(1, 62)} - tested == waiting()


def test_every_attack_has_a_test() -> None:
    tested = {f"A{int(number)}" for number in numbers(r"def test_a(\d\d)_")}
    assert {f"A{number}" for number in range(1, 16)} - tested == set()
