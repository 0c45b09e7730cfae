"""Which packets are masqueraded and forwarded: one list of rules, for nftables and for iptables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

KUBE_PROXY = "0x4000/0x4000"
"""kube-proxy's mark for what it masquerades itself."""
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
RETURN, MASQUERADE, ACCEPT = "return", "masquerade", "accept"


@dataclass(frozen=True, slots=True)
class Match:
    """A rule: what it matches and does.

    Attributes:
        verdict: RETURN, MASQUERADE or ACCEPT.
        source: a network; with a `!` before it, everything outside.
        destination: the same.
        mark: a mark and its mask.
    """

    verdict: str
    source: str = ""
    destination: str = ""
    mark: str = ""


def masquerade(network: Network, subnet: Network) -> list[Match]:
    """Return the rules by which what leaves the cluster gets the node's address, in order.

    Args:
        network: the cluster's.
        subnet: our own pods'.
    """
    return [
        Match(RETURN, mark=KUBE_PROXY),
        Match(RETURN, str(subnet), str(network)),
        Match(RETURN, str(network), str(subnet)),
        Match(RETURN, f"!{network}", str(subnet)),
        Match(MASQUERADE, str(network), f"!{MULTICAST[network.version]}"),
        Match(MASQUERADE, f"!{network}", str(network)),
    ]


def forward(network: Network) -> list[Match]:
    """Return the rules by which packets from and to the cluster's network are forwarded."""
    return [Match(ACCEPT, source=str(network)), Match(ACCEPT, destination=str(network))]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What is wanted of one family.

    Attributes:
        family: 4 or 6.
        masquerade: rules after routing; none: the chain is not wanted.
        forward: rules where packets are forwarded.
        random: choose source ports fully at random, so that two connections seldom race for one.
    """

    family: int
    masquerade: tuple[Match, ...] = ()
    forward: tuple[Match, ...] = ()
    random: bool = True

    def __bool__(self) -> bool:
        return bool(self.masquerade or self.forward)
