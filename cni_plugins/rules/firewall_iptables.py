"""The reference's iptables rules for forwarded packets, in the table filter, as `iptables -S` prints them.

FORWARD                -> CNI-ISOLATION-STAGE-1 first, if any bridge is isolated; -> CNI-FORWARD
CNI-FORWARD            -> the administrator's chain; per address: answers to it and all from it accepted
CNI-ISOLATION-STAGE-1  per bridge: what leaves elsewhere -> CNI-ISOLATION-STAGE-2; inside: dropped or not
CNI-ISOLATION-STAGE-2  per bridge: what it would receive, dropped

Nothing in an address's rules says whose they are. Chains, and the rules of bridges, stay when pods are gone:
the next one needs them again.
"""

from __future__ import annotations

from cni_plugins.rules.firewall import ISOLATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugins.address import Prefix

TABLE = "filter"
ENTRANCE = "FORWARD"
CHAIN = "CNI-FORWARD"
STAGE_1 = "CNI-ISOLATION-STAGE-1"
STAGE_2 = "CNI-ISOLATION-STAGE-2"
_COMMENT = '-m comment --comment "CNI firewall plugin'
_SAME_BRIDGE = f'{_COMMENT} rules (ingressPolicy: same-bridge)"'
_ISOLATED = f'{_COMMENT} rules (ingressPolicy: isolated)"'
_TO_STAGE_1 = f"{ENTRANCE} {_SAME_BRIDGE} -j {STAGE_1}"
_TO_CHAIN = f'{ENTRANCE} {_COMMENT} rules" -j {CHAIN}'


class Frame:
    """What all containers share.

    Args:
        admin_chain: the administrator's chain; empty: the container's addresses are another's to let through,
            and CNI-FORWARD is not needed.
        bridge: the bridge to isolate; empty: none.
        policy: SAME_BRIDGE or ISOLATED, if there is a bridge.

    Attributes:
        chains: the chains that are needed.
        rules: their rules: the command that adds one ("-A", "-I"), and the rule.
    """

    __slots__ = ("chains", "rules")

    def __init__(self, admin_chain: str, bridge: str, policy: str) -> None:
        self.chains: list[str] = []
        self.rules: list[tuple[str, str]] = []
        if admin_chain:
            self.chains += [CHAIN, admin_chain]
            self.rules += [("-I", _TO_CHAIN), ("-I", f'{CHAIN} {_COMMENT} admin overrides" -j {admin_chain}')]
        if bridge:
            self.chains += [STAGE_1, STAGE_2]
            self.rules += [
                ("-I", _TO_STAGE_1),
                ("-I", f"{STAGE_1} -i {bridge} ! -o {bridge} {_SAME_BRIDGE} -j {STAGE_2}"),
                ("-A", f"{STAGE_1} {_SAME_BRIDGE} -j RETURN"),
                ("-I", f"{STAGE_2} -o {bridge} {_SAME_BRIDGE} -j DROP"),
                ("-A", f"{STAGE_2} {_SAME_BRIDGE} -j RETURN"),
            ]
        if bridge and policy == ISOLATED:
            self.rules.append(("-I", f"{STAGE_1} -i {bridge} -o {bridge} {_ISOLATED} -j DROP"))

    def missing(self, there: set[str]) -> list[str]:
        """Return the lines that add what is missing; isolation stays before acceptance.

        Args:
            there: the table's chains and rules, as `iptables -S` prints them.
        """
        lines = [f":{each} - [0:0]" for each in self.chains if f"-N {each}" not in there]
        lines += [f"{add} {rule}" for add, rule in self.rules if f"-A {rule}" not in there]
        if f"-I {_TO_CHAIN}" in lines and f"-A {_TO_STAGE_1}" in there:
            lines += [f"-D {_TO_STAGE_1}", f"-I {_TO_STAGE_1}"]
        return lines


def address_rules(addresses: Sequence[Prefix]) -> list[str]:
    """Return the rules of a container's addresses of one family."""
    rules = []
    for host in addresses:
        rules += [
            f"{CHAIN} -d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"{CHAIN} -s {host} -j ACCEPT",
        ]
    return rules
