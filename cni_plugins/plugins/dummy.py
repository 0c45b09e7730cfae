"""dummy: an interface that leads nowhere, to hold addresses of the container (CNI 1.1.0, section 2).

It owns the dummy link in the container, which goes with the namespace. Addresses come from an IPAM delegate.
"""

from __future__ import annotations

from cni_plugins.attach import sublink
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.sublink import DummyConf
    from cni_plugins.spec.request import Request


def _plan(request: Request) -> sublink.Plan:
    conf: DummyConf = request.conf
    if not conf.ipam.type:
        raise InvalidConfigError(
            "dummy interface requires an IPAM configuration", 'set ipam.type, as in "host-local"'
        )
    return sublink.Plan("dummy", has_parent=False)


PLUGIN = sublink.plugin("dummy", "DummyConf", _plan)
