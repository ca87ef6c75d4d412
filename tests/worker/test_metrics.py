"""What the worker tells Prometheus: how things are, names and numbers alone, on the loopback interface."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import psycopg
import pytest

import pg_trickle
from pg_trickle.errors import InvalidDefinition
from pg_trickle.testing.process import wait_until
from pg_trickle.worker.exporter import Exporter
from pg_trickle.worker.exposition import Family, Sample, text
from pg_trickle.worker.loop import Worker
from pg_trickle.worker.metrics import Metrics
from pg_trickle.worker.tally import Tally

WORKER_ROLE = "pgtrickle_worker"
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scraped(page):
    """{(name, labels): value} of a page, whose every line has to be of the format."""
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            assert re.match(r"^# (HELP \w+ .+|TYPE \w+ (gauge|counter|histogram))$", line), line
            continue
        match = LINE.match(line)
        assert match, line
        found[match[1], match[2] or ""] = float(match[3])
    assert found
    return found


@pytest.fixture
def t(db):
    db.execute("CREATE TABLE t (a int PRIMARY KEY, note text)")
    return db


def test_it_follows_what_happens(t, worker):
    pg_trickle.create_stream_table(t, "st", "SELECT a FROM t")
    labels = 'schema="public",name="st"'
    before = scraped(worker.metrics.page())
    assert before["pgtrickle_up", ""] == before["pgtrickle_worker_active", ""] == 1
    assert before["pgtrickle_stream_table_active", labels] == 1
    assert before["pgtrickle_stream_table_needs_reinit", labels] == 0
    t.execute("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 7) AS n")
    worker.wait_for(lambda: t.execute("SELECT count(*) FROM st").fetchone() == (7,))
    worker.wait_until_idle()
    after = scraped(worker.metrics.page())
    assert after["pgtrickle_refreshes_total", f'{labels},mode="differential",outcome="refreshed"'] >= 1
    assert after["pgtrickle_refresh_rows_in_total", labels] == 7
    assert after["pgtrickle_refresh_rows_out_total", labels] == 7
    timed = f'{labels},mode="differential"'
    assert after["pgtrickle_refresh_duration_seconds_count", timed] >= 1
    infinite = after["pgtrickle_refresh_duration_seconds_bucket", f'{timed},le="+Inf"']
    assert after["pgtrickle_refresh_duration_seconds_count", timed] == infinite
    source = 'schema="public",name="t",owner="postgres"'
    assert after["pgtrickle_buffer_bytes", source] > 0
    assert after["pgtrickle_capture_intact", source] == 1
    assert after["pgtrickle_health_severity", 'check="worker_running"'] == 0


def test_what_is_wrong_shows(t, worker):
    pg_trickle.create_stream_table(t, "bad", "SELECT 1 / a AS x FROM t")
    pg_trickle.create_stream_table(t, "idle", "SELECT a FROM t", schedule=None)
    t.execute("INSERT INTO t VALUES (0, 'x')")
    status = "SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'bad'"
    worker.wait_for(lambda: t.execute(status).fetchone() == ("SUSPENDED",))
    t.execute("DROP TRIGGER pg_trickle_cdc_upd ON t")
    pg_trickle.reinitialize_stream_table(t, "idle")
    found = scraped(worker.metrics.page())
    labels = 'schema="public",name="bad"'
    assert found["pgtrickle_stream_table_active", labels] == 0
    assert found["pgtrickle_consecutive_errors", labels] == 3
    assert found["pgtrickle_refreshes_total", f'{labels},mode="none",outcome="failed"'] == 3
    assert found["pgtrickle_stream_table_needs_reinit", 'schema="public",name="idle"'] == 1
    assert found["pgtrickle_capture_intact", 'schema="public",name="t",owner="postgres"'] == 0
    assert found["pgtrickle_health_severity", 'check="error_tables"'] == 2


def test_neither_rows_nor_queries_nor_errors_are_told(t, worker):
    pg_trickle.create_stream_table(t, "st", "SELECT a, note FROM t WHERE note <> 'a secret constant'")
    pg_trickle.create_stream_table(t, "bad", "SELECT note::date AS d FROM t")
    t.execute("INSERT INTO t VALUES (1, 'a secret value')")
    worker.wait_for(lambda: t.execute("SELECT FROM pgtrickle.pgt_refresh_history WHERE NOT success").rowcount > 0)
    page = worker.metrics.page()
    assert "secret" not in page
    assert "SELECT" not in page


def test_names_that_would_break_the_format_are_escaped(t, worker):
    name = 'odd "name" \\ of\ntwo lines'
    t.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(name)))
    t.execute("SELECT pgtrickle.create_stream_table(%s, 'SELECT a FROM t')", ('"' + name.replace('"', '""') + '".st',))
    found = scraped(worker.metrics.page())
    escaped = 'schema="odd \\"name\\" \\\\ of\\ntwo lines",name="st"'
    assert found["pgtrickle_stream_table_active", escaped] == 1


def test_a_server_that_is_gone_is_a_value_and_comes_back(database, server):
    metrics = Metrics(database.dsn_of(WORKER_ROLE), Tally(), lambda: False)
    assert scraped(metrics.page())["pgtrickle_up", ""] == 1
    server.restart()
    down = scraped(metrics.page())
    assert down["pgtrickle_up", ""] == 0
    assert not any(name.startswith("pgtrickle_stream_table") for name, _ in down)
    assert scraped(metrics.page())["pgtrickle_up", ""] == 1
    metrics.close()


@pytest.fixture
def exporter(database):
    made = Exporter(Metrics(database.dsn_of(WORKER_ROLE), Tally(), lambda: False), 0)
    made.start()
    yield made
    made.stop()


def test_it_is_served_under_one_path_and_only_here(exporter):
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert scraped(answer.read().decode())["pgtrickle_up", ""] == 1
    for path, method in (("/", "GET"), ("/metrics", "POST")):
        request = urllib.request.Request(f"http://127.0.0.1:{exporter.port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)
    assert exporter._server.server_address[0] == "127.0.0.1"
    with pytest.raises(InvalidDefinition, match="can't be served"):
        Exporter(exporter._metrics, exporter.port)


def test_the_setting_says_where(db, database):
    port = free_port()
    db.execute(f"ALTER ROLE {WORKER_ROLE} SET pg_trickle.metrics_port = {port}")
    worker = Worker(database.dsn_of(WORKER_ROLE))
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active)
        assert wait_until(lambda: _answers(port), 60)
    finally:
        worker.stop()
        db.execute(f"ALTER ROLE {WORKER_ROLE} RESET pg_trickle.metrics_port")
    assert not _answers(port)


def test_the_command_line_says_where(database):
    port = free_port()
    command = [sys.executable, "-m", "pg_trickle.cli.main", "worker", "--metrics-port", str(port)]
    process = subprocess.Popen([*command, "--dsn", database.dsn_of(WORKER_ROLE)], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: _answers(port), 60)
    finally:
        process.terminate()
        assert process.wait(20) == 0
    taken = socket.create_server(("127.0.0.1", port))
    answer = subprocess.run([*command, "--dsn", database.dsn], check=False, capture_output=True, text=True)
    taken.close()
    assert answer.returncode == 1
    assert "can't be served" in answer.stderr


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return "pgtrickle_up 1.0" in answer.read().decode()
    except OSError:
        return False


def test_a_page_is_what_the_format_says():
    family = Family("a_total", "counter", "Two\nlines.", (Sample(1, (("x", '"'),)), Sample(float("inf"), (), "_sum")))
    assert (
        text([family])
        == '# HELP a_total Two\\nlines.\n# TYPE a_total counter\na_total{x="\\""} 1.0\na_total_sum +Inf\n'
    )
