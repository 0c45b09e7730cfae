"""Leases: which node has which subnet, and how it is reached; the set of them, as events change it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

NO_DATA = "null"


_BRACKETS = 200
"""In the data of one lease: Python's decoder ends with a RecursionError where some hundred are nested."""


def decode_data(text: str) -> Any:
    """Decode JSON that another node wrote.

    Raises:
        ValueError: it is none, or such as no backend writes.
    """
    if text.count("[") + text.count("{") > _BRACKETS:
        raise ValueError("it has too many brackets")
    return json.loads(text)


def encode_data(data: Any) -> str:
    """Return a backend's data as it is published: JSON without blanks, keys in the order given."""
    return json.dumps(data, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class LeaseAttrs:
    """What a node publishes with its lease.

    Attributes:
        public_ip: where other nodes reach it; None without IPv4.
        public_ipv6: the same for IPv6.
        backend_type: `vxlan`, `host-gw` and so on; nodes of another type are not talked to.
        backend_data: the backend's own JSON text; `null` if it has nothing to say.
        backend_v6_data: the same for IPv6.
    """

    public_ip: IPv4Address | None
    public_ipv6: IPv6Address | None
    backend_type: str
    backend_data: str = NO_DATA
    backend_v6_data: str = NO_DATA

    def public(self, family: int) -> IPv4Address | IPv6Address | None:
        """Return the node's address of family 4 or 6."""
        return self.public_ip if family == 4 else self.public_ipv6

    def data(self, family: int) -> Any:
        """Return the backend's decoded data for family 4 or 6; None when there is none.

        Raises:
            ValueError: it is no JSON; another node wrote it, so the caller goes on without that node.
        """
        return json.loads(self.backend_data if family == 4 else self.backend_v6_data)

    def text(self, family: int, name: str) -> str:
        """Return what that data say by a name, such as `VtepMAC`.

        Raises:
            ValueError: they say nothing, or no text; another node wrote them.
        """
        data = self.data(family)
        found = data.get(name) if isinstance(data, dict) else None
        if not isinstance(found, str):
            raise ValueError(f"its data have no {name}")  # noqa: TRY004
        return found


@dataclass(frozen=True, slots=True)
class Lease:
    """A node's subnets.

    Attributes:
        subnet: its IPv4 subnet, or None.
        ipv6_subnet: its IPv6 subnet, or None.
        attrs: what the node published.
        expiration: when it ends, in UTC; None when it does not: in Kubernetes, and for reservations. It does
            not count in comparisons: a renewed lease changes nothing in the kernel.
    """

    subnet: IPv4Network | None
    ipv6_subnet: IPv6Network | None
    attrs: LeaseAttrs
    expiration: datetime | None = field(default=None, compare=False)

    @property
    def key(self) -> Key:
        """What makes it this lease and no other."""
        return self.subnet, self.ipv6_subnet

    def network(self, family: int) -> IPv4Network | IPv6Network | None:
        """Return the subnet of family 4 or 6."""
        return self.subnet if family == 4 else self.ipv6_subnet

    def __str__(self) -> str:
        return ",".join(str(subnet) for subnet in self.key if subnet)


Key = tuple["IPv4Network | None", "IPv6Network | None"]


@dataclass(frozen=True, slots=True)
class Added:
    """A lease is there, or has changed; `origin` names whose it is where the source does (a node's name)."""

    lease: Lease
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """A lease is gone: the one with this key, or whatever this origin had."""

    key: Key | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """These leases exist and no others: the first list, and each one after a gap in the watch."""

    leases: tuple[Added, ...]


Event = Added | Removed | Snapshot


class Leases:
    """The leases that exist now. Immutable; `after` returns the next one."""

    __slots__ = ("_by_origin",)

    def __init__(self, by_origin: Mapping[str | Key, Lease] | None = None) -> None:
        self._by_origin = dict(by_origin or {})

    def after(self, events: Iterable[Event]) -> Leases:
        """Return the set that these events lead to; the same object when nothing changes."""
        changed = dict(self._by_origin)
        for event in events:
            if isinstance(event, Snapshot):
                changed = {added.origin or added.lease.key: added.lease for added in event.leases}
            elif isinstance(event, Added):
                changed[event.origin or event.lease.key] = event.lease
            else:
                changed.pop(event.origin or event.key or "", None)
        return self if changed == self._by_origin else Leases(changed)

    def others(self, own: Lease) -> list[Lease]:
        """Return all leases but our own: by subnet, or by address, as a node's old lease may linger."""
        ours = own.attrs
        return [
            lease
            for lease in self._by_origin.values()
            if lease.key != own.key
            and not (ours.public_ip and ours.public_ip == lease.attrs.public_ip)
            and not (ours.public_ipv6 and ours.public_ipv6 == lease.attrs.public_ipv6)
        ]

    def find(self, key: Key) -> Lease | None:
        """Return the lease of these subnets."""
        return next((lease for lease in self._by_origin.values() if lease.key == key), None)

    def __len__(self) -> int:
        return len(self._by_origin)
