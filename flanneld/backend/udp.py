"""udp: packets in UDP packets, by a proxy in this process; for old kernels, and to look at what is sent.

Device `flannel0`, a tun device with a route for the cluster's network. It outlives the process, so that
without a proxy packets are dropped, and do not leave in the clear by the default route.
"""

from __future__ import annotations

import logging
from ipaddress import ip_interface
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from flanneld.backend import BackendError
from flanneld.backend.common import demand_ipv4, read_options
from flanneld.lease import LeaseAttrs
from flanneld.netconf import FoldedModel
from flanneld.proxy import Proxy, Table
from flanneld.state import Address, Device, Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

NAME = "flannel0"
_OVERHEAD = 28
"""Bytes of the outer IP and UDP headers."""
_TYPES = ("", "udp")
"""The reference's udp backend publishes no type."""


class UdpOptions(FoldedModel):
    """Options of `Backend` with Type udp."""

    port: int = Field(8285, ge=1, le=65535, description="UDP port of every node's proxy.")


class Udp:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "udp"

    def __init__(self, config: NetworkConfig) -> None:
        demand_ipv4(config, log)
        self._options = read_options(UdpOptions, config)
        self._network = config.network
        self._proxy = Proxy(NAME)

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Take the port, and publish the uplink's addresses."""
        del published
        assert uplink.address is not None
        try:
            self._proxy.bind(uplink.address, self._options.port)
        except OSError as error:
            raise BackendError("; ".join([str(error), *error.__notes__])) from None
        return LeaseAttrs(uplink.public_ip, uplink.public_ipv6, "")

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's, less the headers."""
        return uplink.mtu - _OVERHEAD

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return the device with the cluster's route."""
        del others
        assert own.subnet is not None
        assert self._network is not None
        return State(
            (
                Device(NAME, "tun", self.mtu(uplink)),
                Address(NAME, ip_interface(own.subnet.network_address)),
                Route(self._network, NAME),
            )
        )

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Tell the proxy where subnets are."""
        del own
        assert uplink.address is not None
        try:
            self._proxy.bind(uplink.address, self._options.port)
        except OSError as error:
            log.warning("the proxy stays where it was", extra={"why": error})
        nodes = {
            lease.subnet: (str(lease.attrs.public_ip), self._options.port)
            for lease in others
            if lease.attrs.backend_type in _TYPES and lease.subnet and lease.attrs.public_ip
        }
        self._proxy.know(Table(nodes))

    async def close(self) -> None:
        """End the proxy; the device stays."""
        self._proxy.close()
