"""host-gw: routes to the nodes themselves; every node has to be on a link of ours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from flanneld.backend.common import Complaints
from flanneld.lease import LeaseAttrs
from flanneld.state import Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)


class HostGateway:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "host-gw"

    def __init__(self, config: NetworkConfig) -> None:
        self._families = config.families
        self._complaints = Complaints(log)

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Publish the uplink's addresses; there is nothing else to know."""
        del published
        return LeaseAttrs(uplink.public_ip, uplink.public_ipv6, self.type)

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's: nothing is added to packets."""
        return uplink.mtu

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return a route for each node that is on the link."""
        del own
        things = []
        for lease in others:
            for family in self._families if lease.attrs.backend_type == self.type else ():
                subnet, node = lease.network(family), lease.attrs.public(family)
                if subnet is None or node is None:
                    continue
                if uplink.is_direct(node):
                    things.append(Route(subnet, uplink.name, node))
                else:
                    self._complaints.about(lease, f"host-gw cannot reach {node}, which is in another subnet")
        return State(things)

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do nothing: the kernel does all."""

    async def close(self) -> None:
        """Do nothing: the routes stay."""
