"""The backends by the name that `Backend.Type` gives them; one literal table, which freezing reads, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend import BackendError
from flanneld.backend.alloc import Alloc
from flanneld.backend.extension import Extension
from flanneld.backend.hostgw import HostGateway
from flanneld.backend.ipip import Ipip
from flanneld.backend.udp import Udp
from flanneld.backend.vxlan import Vxlan
from flanneld.backend.wireguard import Wireguard

if TYPE_CHECKING:
    from flanneld.backend import Backend
    from flanneld.netconf import NetworkConfig

BACKENDS: dict[str, type[Backend]] = {
    "alloc": Alloc,
    "extension": Extension,
    "host-gw": HostGateway,
    "ipip": Ipip,
    "udp": Udp,
    "vxlan": Vxlan,
    "wireguard": Wireguard,
}


def make(config: NetworkConfig) -> Backend:
    """Return the backend that a configuration names.

    Raises:
        BackendError: there is none of that name, or its options are wrong.
    """
    backend = BACKENDS.get(config.backend.type)
    if backend is None:
        raise BackendError(
            f"there is no backend {config.backend.type}; there are {', '.join(sorted(BACKENDS))}"
        )
    return backend(config)
