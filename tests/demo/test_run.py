from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from pg_trickle.demo import run
from pg_trickle.demo.screen import Screen


def screen() -> tuple[Screen, io.StringIO]:
    written = io.StringIO()
    return Screen(Console(file=written, width=100)), written


def is_gone(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_whole_run_ends_with_the_proof_and_leaves_nothing_running(data_slice: Path):
    show, written = screen()
    seen: list[str] = []
    code = run.run(run.Options(seconds=5, directory=data_slice), show, before_proof=seen.append)
    text = written.getvalue()
    assert code == run.EQUAL, text
    assert text.count("✔ equal") == 6
    assert "all 6 stream tables equal their queries" in text
    assert is_gone(seen[0])


def test_a_falsified_stream_table_fails_the_proof(data_slice: Path):
    def falsify(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute("UPDATE miles_by_plane SET miles = miles + 1 WHERE carrier = 'UA'")

    show, written = screen()
    code = run.run(run.Options(seconds=1, directory=data_slice), show, before_proof=falsify)
    assert code == run.DIFFERENT
    assert written.getvalue().count("✔ equal") == 5
    assert "not equal to its query: miles_by_plane" in written.getvalue()


def test_what_goes_wrong_on_the_way_is_raised_and_leaves_nothing_running(
    data_slice: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def fail(demonstration: run._Demonstration) -> None:
        seen.append(demonstration.server.dsn())
        raise RuntimeError("what now?")

    monkeypatch.setattr(run._Demonstration, "_create", fail)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError, match="what now"):
        run.run(run.Options(seconds=1, directory=data_slice), screen()[0])
    assert is_gone(seen[0])
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.slow
def test_ctrl_c_brings_the_command_to_its_proof():
    process = subprocess.Popen(
        [sys.executable, "-m", "pg_trickle.cli.main", "demo", "--days", "2"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "rows written" in line:
            process.send_signal(signal.SIGINT)
            break
    text, errors = process.communicate()
    watchdog.cancel()
    assert process.returncode == 0, text + errors
    assert "all 6 stream tables equal their queries" in text
