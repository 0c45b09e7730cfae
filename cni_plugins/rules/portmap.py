"""What portmap was asked for: mappings, backend and addresses, checked."""

from __future__ import annotations

from cni_plugins.address import format_address, parse_address
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.config.portmap import PortmapConf, PortMapping
    from cni_plugins.spec.result import Result

NFTABLES = "nftables"
IPTABLES = "iptables"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
"""The transport protocols a mapping can have, with their numbers (/etc/protocols)."""


class Mapping:
    """One forwarded port.

    Attributes:
        protocol: a key of PROTOCOLS.
        host_port: the port on the host.
        container_port: the port in the container.
        host_ip: only traffic to this address of the host; None: to any.
        families: 4 and 6, or the one that `host_ip`, though it may mean any address, restricts it to.
    """

    __slots__ = ("container_port", "families", "host_ip", "host_port", "protocol")

    def __init__(self, protocol: str, host_port: int, container_port: int, host_ip: str = "") -> None:
        self.protocol = protocol
        self.host_port = host_port
        self.container_port = container_port
        self.host_ip: bytes | None = None
        self.families: tuple[int, ...] = (4, 6)
        if host_ip:
            address = parse_address(host_ip)
            self.families = (4,) if len(address) == 4 else (6,)
            self.host_ip = address if any(address) else None

    def __str__(self) -> str:
        host = format_address(self.host_ip) if self.host_ip else "any"
        return f"{self.protocol} port {self.host_port} of {host} address to port {self.container_port}"


def mappings(conf: PortmapConf) -> list[Mapping]:
    """Return the mappings of the runtime's capability, in its order, those without a host port left out.

    Raises:
        InvalidConfigError: a protocol, a port or an address is not one.
    """
    return [_mapping(given) for given in conf.runtime_config.port_mappings if given.host_port]


def valid_mappings(conf: PortmapConf) -> list[Mapping]:
    """Return those of the mappings that are valid: for DEL, which no bad configuration may stop."""
    valid = []
    for given in conf.runtime_config.port_mappings:
        try:
            valid.append(_mapping(given))
        except InvalidConfigError:
            continue  # its ADD was refused
    return valid


def _mapping(given: PortMapping) -> Mapping:
    if not given.host_port:
        raise InvalidConfigError("Invalid host port number: 0")
    if not given.container_port:
        raise InvalidConfigError(f"Invalid container port number: 0 (for host port {given.host_port})")
    protocol = given.protocol.lower()
    if protocol not in PROTOCOLS:
        raise InvalidConfigError(
            f"unknown protocol {given.protocol!r} (for host port {given.host_port})",
            f"known are {', '.join(PROTOCOLS)}",
        )
    try:
        return Mapping(protocol, given.host_port, given.container_port, given.host_ip)
    except ValueError:
        raise InvalidConfigError(
            f"the requested hostIP {given.host_ip!r} is not an IP address (for host port {given.host_port})"
        ) from None


def backend(conf: PortmapConf) -> str:
    """Return the backend that the configuration asks for; empty when either will do.

    Keys that only iptables has a use for (`externalSetMarkChain`, `markMasqBit`), and conditions in its
    language, which start with a hyphen, ask for it too. `markMasqBit` is let pass with nftables, which needs
    no mark, as the reference does.

    Raises:
        InvalidConfigError: there is no such backend, or keys contradict each other.
    """
    if conf.external_set_mark_chain is not None and conf.mark_masq_bit is not None:
        raise InvalidConfigError("Cannot specify externalSetMarkChain and markMasqBit")
    if conf.backend not in (None, "", NFTABLES, IPTABLES):
        raise InvalidConfigError(
            f"unrecognized backend {conf.backend!r}", f"known are {NFTABLES} and {IPTABLES}"
        )
    asking: dict[str, list[str]] = {NFTABLES: [], IPTABLES: []}
    if conf.external_set_mark_chain is not None:
        asking[IPTABLES].append("externalSetMarkChain")
    for key, family in (("conditionsV4", 4), ("conditionsV6", 6)):
        words = conditions(conf, family)
        if words:
            # "!" negates what follows in iptables; in nftables it cannot stand first
            asking[IPTABLES if words[0][:1] in ("-", "!") else NFTABLES].append(key)
    chosen = conf.backend or ""
    if not chosen and (asking[IPTABLES] or conf.mark_masq_bit is not None):
        chosen = IPTABLES
    elif not chosen and asking[NFTABLES]:
        chosen = NFTABLES
    wrong = asking[NFTABLES if chosen == IPTABLES else IPTABLES]
    if chosen and wrong:
        raise InvalidConfigError(
            f"the {chosen} backend was chosen, but {' and '.join(wrong)} can only be of the other",
            "set `backend`, or write the conditions in the language of the one that is wanted",
        )
    return chosen


def conditions(conf: PortmapConf, family: int) -> list[str]:
    """Return the words of a family's extra conditions."""
    given = conf.conditions_v4 if family == 4 else conf.conditions_v6
    return [word for word in given or [] if word]


def container_addresses(result: Result, ifname: str) -> dict[int, Prefix]:
    """Return where ports are forwarded to: the first address of each family on the container's interface.

    An address that names no interface counts.

    Args:
        result: the result before this plugin.
        ifname: the container's interface.

    Returns:
        Addresses by family (4, 6).
    """
    addresses: dict[int, Prefix] = {}
    for ip in result.ips:
        if ip.interface is not None and 0 <= ip.interface < len(result.interfaces):
            interface = result.interfaces[ip.interface]
            if interface.name != ifname or not interface.sandbox:
                continue
        addresses.setdefault(ip.address.version, ip.address)
    return addresses
