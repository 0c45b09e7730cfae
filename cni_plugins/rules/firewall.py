"""What firewall was asked for, checked, and what its ADD notes for its DEL."""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.request import ifname_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.firewall import FirewallConf
    from cni_plugins.spec.result import Result

FIREWALLD, IPTABLES, NFTABLES = "firewalld", "iptables", "nftables"
OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
TABLE_NAME, ADMIN_CHAIN = "cni_plugins_firewall", "admin"
"""The nftables table, of the family inet, and the chain in it that is the administrator's."""
_ADMIN_CHAIN = "CNI-ADMIN"
_ZONE = "trusted"
_CHAIN_LENGTH = 28
_UNSAFE = frozenset("\"'\\")


class Wanted:
    """What a configuration asks for.

    Attributes:
        backend: FIREWALLD, IPTABLES or NFTABLES; empty: whichever fits the host.
        admin_chain: the iptables chain that goes first.
        own_chain: whether that was configured: then iptables goes before nftables.
        zone: firewalld's zone.
        policy: OPEN, SAME_BRIDGE or ISOLATED.

    Raises:
        InvalidConfigError: a value is not known, or keys contradict each other.
    """

    __slots__ = ("admin_chain", "backend", "own_chain", "policy", "zone")

    def __init__(self, conf: FirewallConf) -> None:
        self.backend = conf.backend or ""
        if self.backend not in ("", FIREWALLD, IPTABLES, NFTABLES):
            raise InvalidConfigError(
                f"unrecognized backend {self.backend!r}", f"known are {FIREWALLD}, {IPTABLES} and {NFTABLES}"
            )
        self.admin_chain = conf.iptables_admin_chain_name or _ADMIN_CHAIN
        self.zone = zone_of(conf)
        self.policy = conf.ingress_policy or OPEN
        if self.policy not in (OPEN, SAME_BRIDGE, ISOLATED):
            raise InvalidConfigError(
                f"unknown ingress policy: {self.policy!r}", f"known are {OPEN}, {SAME_BRIDGE} and {ISOLATED}"
            )
        self.own_chain = bool(conf.iptables_admin_chain_name)
        if self.own_chain:
            self._check_chain(self.admin_chain)
            if self.backend == NFTABLES:
                raise InvalidConfigError(
                    "iptablesAdminChainName is a chain of iptables, and the backend is nftables",
                    "leave it out: there the chain `admin` of table inet cni_plugins_firewall goes first",
                )

    @staticmethod
    def _check_chain(name: str) -> None:
        printable = name.isascii() and name.isprintable() and " " not in name
        if not printable or len(name) > _CHAIN_LENGTH or name[0] in "-!" or _UNSAFE & set(name):
            raise InvalidConfigError(
                f"iptablesAdminChainName {name!r} cannot be a chain's name",
                f"a name has up to {_CHAIN_LENGTH} characters, without blanks and quotes",
            )

    def bridge(self, result: Result) -> str:
        """Return the bridge to isolate: the result's first interface; empty when nothing is isolated.

        Raises:
            InvalidConfigError: there is none, or packet filters have another meaning for its name.
        """
        if self.policy == OPEN:
            return ""
        if not result.interfaces or not result.interfaces[0].name:
            raise InvalidConfigError(
                f"interface needs to be set for ingress policy {self.policy!r}",
                'make sure to chain "firewall" plugin with "bridge"',
            )
        name = result.interfaces[0].name
        problem = ifname_problem(name) or ("has quotes" if _UNSAFE & set(name) else "")
        if problem or name.endswith("+") or name[0] in "-!":
            raise InvalidConfigError(f"the bridge's name {name!r} {problem or 'is a pattern for iptables'}")
        return name


def zone_of(conf: FirewallConf) -> str:
    """Return firewalld's zone, also of a configuration that is not valid otherwise."""
    return conf.firewalld_zone or _ZONE


def addresses_of(result: Result) -> list[Prefix]:
    """Return a result's addresses as hosts, each once, in their order."""
    found: list[Prefix] = []
    for ip in result.ips:
        host = Prefix(ip.address.address, ip.address.bits)
        if host not in found:
            found.append(host)
    return found


class Note:
    """What was made for an attachment.

    Attributes:
        backend: FIREWALLD, IPTABLES or NFTABLES.
        zone: the zone of firewalld that has the addresses.
        addresses: the container's.
    """

    __slots__ = ("addresses", "backend", "zone")

    def __init__(self, backend: str, zone: str, addresses: list[Prefix]) -> None:
        self.backend = backend
        self.zone = zone
        self.addresses = addresses

    def lines(self) -> list[str]:
        """Return its text."""
        listed = [f"address {format_address(each.address)}" for each in self.addresses]
        return [f"backend {self.backend}", f"zone {self.zone}", *listed]

    @classmethod
    def parse(cls, lines: list[str] | None) -> Note | None:
        """Read a note; None when there is none, or none that can be understood."""
        note = cls("", "", [])
        try:
            for line in lines or []:
                key, _blank, value = line.partition(" ")
                if key == "address":
                    address = parse_address(value)
                    note.addresses.append(Prefix(address, len(address) * 8))
                elif key in ("backend", "zone"):
                    setattr(note, key, value)
        except ValueError:
            return None
        return note if note.backend else None
