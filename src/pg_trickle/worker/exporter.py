"""The worker's metrics over HTTP: one path, GET alone, on the loopback interface unless somebody says otherwise."""

from __future__ import annotations

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pg_trickle.errors import InvalidDefinition
from pg_trickle.worker.exposition import CONTENT_TYPE
from pg_trickle.worker.log import logger
from pg_trickle.worker.metrics import Metrics

LOOPBACK = "127.0.0.1"
PATH = "/metrics"

log = logger("pg_trickle.worker.metrics")


class Exporter:
    """Serves ``Metrics`` from a thread until it is told to stop; ``port`` 0 takes a free one."""

    def __init__(self, metrics: Metrics, port: int, address: str = LOOPBACK) -> None:
        """Raises InvalidDefinition if the port can't be had."""
        self._metrics = metrics
        try:
            self._server = ThreadingHTTPServer((address, port), partial(_Handler, metrics))
        except (OSError, OverflowError) as exc:
            hint = "Choose another --metrics-port, or set pg_trickle.metrics_port."
            raise InvalidDefinition(f"metrics can't be served on {address}:{port}", detail=str(exc), hint=hint) from exc
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="pg_trickle metrics", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()
        log.info("serving metrics", port=self.port)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._metrics.close()


class _Handler(BaseHTTPRequestHandler):
    # Whoever connects and says nothing is let go.
    timeout = 5

    def __init__(self, metrics: Metrics, *arguments: Any) -> None:
        self._metrics = metrics
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        body = self._metrics.page().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes aren't worth a line in the log."""
