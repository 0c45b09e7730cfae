"""The interface plugin's side of IPAM: it is a delegate that gives addresses (CNI 1.1.0, section 4)."""

from __future__ import annotations

from cni_plugins.spec import delegate
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach.undo import Undo
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result


def add(request: Request, undo: Undo) -> Result:
    """Get addresses, to be given back when the ADD fails later.

    Raises:
        CNIError: the IPAM plugin's own error, unchanged.
        InvalidConfigError: it gave none.
    """
    plugin = request.conf.ipam.type
    result = delegate.add(request, plugin, request.raw)
    undo.push(delegate.call, request, plugin, request.raw, "DEL")
    if not result.ips:
        raise InvalidConfigError(f"IPAM plugin {plugin!r} returned missing IP config")
    return result


def forward(request: Request) -> None:
    """Pass a DEL, CHECK, STATUS or GC on, when the configuration names an IPAM plugin."""
    plugin = request.conf.ipam.type
    if plugin:
        delegate.call(request, plugin, request.raw)
