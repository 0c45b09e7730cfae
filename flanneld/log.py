"""Structured logs: one line an event, the message first, then what it is about as key=value.

2026-03-01T10:00:00.123Z INFO flanneld.etcd leased a subnet subnet=10.1.2.0/24 until=2026-03-02T10:00:00
"""

from __future__ import annotations

import json
import logging
import time

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        about = "".join(f" {key}={_quote(value)}" for key, value in vars(record).items() if key not in _OWN)
        line = (
            f"{stamp}.{int(record.msecs):03}Z {record.levelname} {record.name} {record.getMessage()}{about}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quote(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


def start(verbosity: int = 0) -> None:
    """Write logs to standard error; from verbosity 1 on with debug messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("flanneld").setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request
