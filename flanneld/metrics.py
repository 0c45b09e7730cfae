"""What the daemon counts about itself; health.py shows it to Prometheus."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counters since the start and present values; every part of the daemon writes its own.

    Attributes:
        leases: other nodes' leases, also those of another backend, to which there is no way.
        reconciles: full passes over the tables, by cause (`notice`, `look`, `timer`, `overrun`, `retry`,
            `change`).
        repairs: things put back, by their kind in lower case (`route`, `device`, `rules`, `subnetfile` …).
        errors: failures that were tried again, by where they happened (`kernel`, `traffic`, `manager`,
            `publish` …).
        last_event: when the subnet manager was last heard of, on the monotonic clock.
        up: whether the paths came up and subnet.env was written.
        broken: what is not as it should be now, and why: `kernel`, `subnetfile`.
    """

    leases: int = 0
    reconciles: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    last_event: float = field(default_factory=time.monotonic)
    up: bool = False
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether this node's paths are as they should be; who tells of leases may be away meanwhile."""
        return self.up and not self.broken

    def reconciled(self, cause: str) -> None:
        """Count a full pass."""
        self.reconciles[cause] = self.reconciles.get(cause, 0) + 1

    def repaired(self, kind: str) -> None:
        """Count something put back."""
        self.repairs[kind] = self.repairs.get(kind, 0) + 1

    def failed(self, where: str) -> None:
        """Count a failure."""
        self.errors[where] = self.errors.get(where, 0) + 1

    def heard(self) -> None:
        """Note that the subnet manager's source is there."""
        self.last_event = time.monotonic()
