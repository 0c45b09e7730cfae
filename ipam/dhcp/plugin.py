"""dhcp: gives the address that the network's own DHCP server leases (CNI 1.1.0, section 4; RFC 2131).

It owns nothing itself: a daemon (`dhcp daemon`) asks for the lease and renews it, since a lease outlives a
call. The plugin tells the daemon what to do (see `rpc`). While no daemon runs, DEL and GC leave word for the
next one (see `notes`), so that they succeed and no lease is lost.
"""

from __future__ import annotations

from cni_plugins.address import format_address
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.codec import encode
from cni_plugins.spec.errors import (
    CheckFailedError,
    CNIError,
    InvalidConfigError,
    LimitedConnectivityError,
    NoAddressError,
    TeardownError,
    TryAgainLaterError,
)
from cni_plugins.spec.plugin import Plugin
from ipam.dhcp import notes, options, rpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.attach import ready
    from cni_plugins.config.dhcp import DhcpIPAM
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    ready = Lazy("cni_plugins.attach.ready")

_TIMEOUT = 30.0
"""Seconds for what the daemon does at once. For a lease it takes as long as it was told to try."""
_KNOCK_TIMEOUT = 3.0
_HINT = "start it: systemctl enable --now cni-dhcp.socket, or `dhcp daemon`; see docs/dhcp.md"


def add(request: Request) -> Result:
    """Have the daemon get a lease, or tell of the one it has."""
    return _allocate(request)


def delete(request: Request) -> None:
    """Have the daemon release the lease; without a daemon, leave word for the next."""
    path = _socket_path(request)
    failure = _try_remote(request, rpc.RELEASE)
    if not failure:
        return
    name = notes.name_of(request.container_id, request.network, request.ifname)
    if not notes.ask_release(notes.folder_of(path), name):
        skel.warn(f"dhcp: no daemon answers on {path} ({failure}), and none has a lease to release")
    elif _try_remote(request, rpc.RELEASE):  # one that started meanwhile need not have seen the note
        skel.warn(f"dhcp: no daemon answers on {path} ({failure}): the next one releases the lease")


def check(request: Request) -> None:
    """Compare the daemon's lease with prevResult; one it does not know it asks for."""
    held = [ip.address for ip in _allocate(request).ips]
    for ip in request.prev_result.ips if request.prev_result else ():
        if ip.address.version == 4 and ip.address not in held:
            raise CheckFailedError(
                f"dhcp: the lease is for {', '.join(map(str, held))}, not for {ip.address}",
                "another address came after the old lease's end: DEL the attachment and ADD it again",
            )


def status(request: Request) -> None:
    """Fail when no daemon answers, leases have no place, or the configuration has options that are none."""
    options.prepare(_ipam(request), "")
    path = _socket_path(request)
    try:
        rpc.knock(path, _KNOCK_TIMEOUT)
    except (OSError, ValueError) as error:
        # Nobody renews the leases that containers have.
        raise LimitedConnectivityError(
            f"dhcp daemon not answering on {path}: {_said(error)}", _HINT
        ) from None
    ready.folder(notes.folder_of(path), "leases")


def gc(request: Request) -> None:
    """Have the daemon release the leases of attachments that are gone; else leave word for the next."""
    valid = request.valid_attachments()
    path = _socket_path(request)
    try:
        released = rpc.released_from_wire(_remote(request, rpc.GC))
    except TeardownError as error:
        if "can't find method" not in error.msg:
            raise
        skel.warn("dhcp: the daemon is the reference's, which releases nothing on GC")
        return
    except OSError as error:
        skel.warn(f"dhcp: no daemon answers on {path} ({_said(error)})")
    except ValueError as error:
        raise _not_net_rpc(path, error) from None
    else:
        for container_id, ifname in released:
            skel.removed(request.network, f"the lease of {container_id} {ifname}")
        return
    folder = notes.folder_of(path)
    for name, (container_id, ifname) in notes.leases(folder, request.network).items():
        if (container_id, ifname) not in valid and notes.ask_release(folder, name):
            skel.removed(request.network, f"the lease of {container_id} {ifname}, once a daemon runs")


def _allocate(request: Request) -> Result:
    path = _socket_path(request)
    try:
        result = rpc.from_wire(_remote(request, rpc.ALLOCATE))
    except OSError as error:
        raise TryAgainLaterError(f"dhcp daemon not answering on {path}: {_said(error)}", _HINT) from None
    except ValueError as error:
        raise _not_net_rpc(path, error) from None
    for ip in result.ips:
        if ip.address.version == 4 and not any(ip.address.address):
            raise NoAddressError(f"dhcp: the daemon gave {format_address(ip.address.address)}")
    return result


def _try_remote(request: Request, method: str) -> str:
    """Call a method of a daemon that need not run; return why it does not answer, or nothing."""
    try:
        _remote(request, method)
    except OSError as error:
        return _said(error)
    return ""


def _remote(request: Request, method: str) -> dict[str, Any]:
    path = _socket_path(request)
    args = {
        "ContainerID": request.container_id,
        "Netns": request.netns,
        "IfName": request.ifname,
        "Args": request.env.get("CNI_ARGS", ""),
        "Path": request.env.get("CNI_PATH", ""),
        "StdinData": encode(request.raw),
    }
    allocates = method == rpc.ALLOCATE
    try:
        return rpc.call(path, method, args, None if allocates else _TIMEOUT)
    except rpc.RemoteError as error:
        msg, _newline, details = str(error).partition("\n")
        kind = NoAddressError if allocates else TeardownError
        raise kind(f"dhcp: {msg}", details) from None
    except ValueError as error:
        raise _not_net_rpc(path, error) from None


def _not_net_rpc(path: str, error: ValueError) -> CNIError:
    return TryAgainLaterError(f"what listens on {path} is no dhcp daemon: {error}", _HINT)


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _ipam(request: Request) -> DhcpIPAM:
    ipam: DhcpIPAM | None = request.conf.ipam
    if ipam is None:
        raise InvalidConfigError("IPAM config missing 'ipam' key")
    return ipam


def _socket_path(request: Request) -> str:
    return _ipam(request).daemon_socket_path or notes.DEFAULT_SOCKET


PLUGIN = Plugin("dhcp", "DhcpConf", add=add, delete=delete, check=check, status=status, gc=gc)
