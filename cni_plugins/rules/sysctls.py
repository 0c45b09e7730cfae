"""Kernel parameters that a configuration names: their paths below /proc/sys, and who may set which."""

from __future__ import annotations

from cni_plugins.lazy import Lazy
from cni_plugins.spec.codec import Repeated
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.rules import allowlist
else:
    allowlist = Lazy("cni_plugins.rules.allowlist")


def path(key: str, ifname: str) -> str:
    """Return a parameter's path below /proc/sys.

    The separator is what comes first, a dot or a slash, as in sysctl(8): with slashes, dots are part of a
    name. IFNAME stands for the interface, whose name may hold dots.

    Args:
        key: `net.ipv4.conf.IFNAME.arp_filter` or `net/ipv4/conf/eth0.5/arp_filter`.
        ifname: the container's interface.

    Raises:
        InvalidConfigError: it is not a parameter of the network.
    """
    dot, slash = key.find("."), key.find("/")
    dotted = dot >= 0 and (slash < 0 or dot < slash)
    parts = (key.replace(".", "/") if dotted else key).split("/")
    if parts[0] != "net" or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts) or "\0" in key:
        raise InvalidConfigError(
            f"invalid net sysctl key: {key!r}", "only parameters below net are the container's own"
        )
    return "/".join(parts).replace("IFNAME", ifname, 1)


def by_path(given: dict[str, Any], where: str, ifname: str) -> dict[str, str]:
    """Return the values by path.

    Args:
        given: as configured: values by key.
        where: the place in the configuration, for messages.
        ifname: the container's interface.

    Raises:
        InvalidConfigError: a key is not a parameter of the network, or one parameter is there twice.
    """
    if isinstance(given, Repeated):
        raise InvalidConfigError(f"{where}: duplicated sysctl keys are not allowed")
    found: dict[str, str] = {}
    for key, value in given.items():
        if type(value) is not str:
            raise InvalidConfigError(f"{where}: the value of {key!r} must be a string")
        place = path(key, ifname)
        if place in found:
            raise InvalidConfigError(f"{where}: duplicated sysctl keys are not allowed: {key!r} is {place}")
        found[place] = value
    return found


def expressions(data: bytes) -> list[str]:
    """Return the lines of an allow-list file that are not empty."""
    return [line for line in map(str.strip, data.decode("utf-8", "replace").split("\n")) if line]


def check(allowed: list[str]) -> None:
    """Raise ValueError when an allow-list holds what is no expression."""
    for expression in allowed:
        allowlist.check(expression)


def permit(keys: list[str], allowed: list[str]) -> None:
    """Hold the configured keys against an allow-list.

    Raises:
        InvalidConfigError: one is not on it, or the list holds what is no expression.
    """
    for key in keys:
        try:
            ok = allowlist.allows(allowed, key)
        except ValueError as error:
            raise InvalidConfigError(f"the allow-list of sysctls: {error}") from None
        if not ok:
            raise InvalidConfigError(
                f"Sysctl {key} is not allowed. Only the following sysctls are allowed: [{' '.join(allowed)}]"
            )
