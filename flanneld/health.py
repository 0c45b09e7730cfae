"""/healthz, /readyz and /metrics over HTTP.

The server has a thread of its own, so that it can tell that the event loop hangs: the loop's heartbeat is
then old.
"""

from __future__ import annotations

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.metrics import Metrics

_TIMEOUT = 10.0
"""Seconds after which a client that says nothing is left: each has a thread."""
_BEAT = 1.0
_DEAD = 10.0
"""Seconds without a heartbeat after which the daemon counts as hung."""


class Health:
    """The server; `beat` has to run in the event loop.

    Args:
        metrics: what the daemon counts.
        address: where to listen.
        port: its port; 0 lets the kernel choose, see `port`.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, metrics: Metrics, address: str, port: int) -> None:
        self._metrics = metrics
        self._beat = time.monotonic()
        health = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT

            def do_GET(self) -> None:
                status, kind, body = health.answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing: a probe comes every few seconds."""

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in address else AF_INET
            daemon_threads = True

        self._server = Server((address, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    async def beat(self) -> None:
        """Show that the event loop turns, until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(_BEAT)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        plain = "text/plain; charset=utf-8"
        alive = time.monotonic() - self._beat < _DEAD
        if path == "/healthz":
            return (200, plain, b"flanneld is running\n") if alive else (503, plain, b"flanneld hangs\n")
        if path == "/readyz":
            if alive and self._metrics.ready:
                return 200, plain, b"the paths are up\n"
            broken = [f"{part}: {why}\n" for part, why in list(self._metrics.broken.items())]
            return 503, plain, ("".join(broken) or "the paths are not up yet\n").encode(errors="replace")
        if path == "/metrics":
            text = "\n".join(expose(self._metrics)) + "\n"
            return 200, "text/plain; version=0.0.4; charset=utf-8", text.encode()
        return 404, plain, b"there are /healthz, /readyz and /metrics\n"


def expose(metrics: Metrics) -> Iterator[str]:
    """Yield the metrics in Prometheus' text format, version 0.0.4."""
    age = time.monotonic() - metrics.last_event
    gauges: tuple[tuple[str, str, float], ...] = (
        ("leases", "Other nodes' leases, of every backend.", metrics.leases),
        (
            "ready",
            "Whether the paths are up and subnet.env is written, and both as they should be.",
            int(metrics.ready),
        ),
        ("watch_age_seconds", "Since the source of leases was last heard of.", round(age, 3)),
    )
    for name, text, value in gauges:
        yield from (
            f"# HELP flanneld_{name} {text}",
            f"# TYPE flanneld_{name} gauge",
            f"flanneld_{name} {value}",
        )
    counters = (
        ("reconciles", "cause", "Full passes over the kernel's tables.", metrics.reconciles),
        (
            "repairs",
            "kind",
            "Things that somebody removed or changed and that were put back.",
            metrics.repairs,
        ),
        ("errors", "where", "Failures that are tried again.", metrics.errors),
    )
    for name, label, text, values in counters:
        yield from (f"# HELP flanneld_{name}_total {text}", f"# TYPE flanneld_{name}_total counter")
        for key, count in sorted(values.items()):
            yield f'flanneld_{name}_total{{{label}="{key}"}} {count}'
