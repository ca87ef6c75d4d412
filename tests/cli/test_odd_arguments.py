"""What is called oddly ends with a message, not with a traceback."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("command", [("dev", "up", "--data"), ("install", "--files")])
def test_a_directory_that_cannot_be_made(run, tmp_path, command):
    (tmp_path / "file").write_text("")
    refused = run(*command, str(tmp_path / "file" / "below"))
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("error: ")
    assert "Not a directory" in refused.err


@pytest.mark.parametrize("dsn", ["nonsense", "x=y", "port"])
@pytest.mark.parametrize("command", [("worker",), ("dashboard", "--once"), ("bench",), ("upgrade",)])
def test_a_connection_string_that_cannot_be_read(run, command, dsn):
    refused = run(*command, "--dsn", dsn)
    assert (refused.code, refused.out) == (1, "")
    assert "--dsn" in refused.err
