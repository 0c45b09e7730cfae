"""What the host itself must be like: forwarding, packet filters, MTU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.attach import firewall
from cni_plugins.spec.errors import CNIError
from conflist.doctor import facts as node
from conflist.doctor import system
from conflist.doctor.finding import ERROR, INFO, WARNING, Finding
from conflist.doctor.networks import in_list, sets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conflist.doctor.facts import Facts

_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_BRIDGE_FILTERS = {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}


def forwarding(facts: Facts) -> Iterator[Finding]:
    """Whether the host forwards the families that its pods have, once one has been attached."""
    needed: dict[int, str] = {}
    for name, network in facts.networks.items():
        if not any(key[0] == name for key in facts.attachments):
            continue  # the first ADD sees to it
        for plugin in node.objects(network):
            if plugin.get("type") == "ptp" or plugin.get("isGateway") or plugin.get("isDefaultGateway"):
                needed |= {each.version: name for each in sets_of(plugin, network.version)}
    for version, name in sorted(needed.items()):
        key = _FORWARDING[version]
        if _read(key) == "0":
            text = f"the host does not forward IPv{version}: pods reach no other network"
            repair = (("sysctl", "-w", f"{key}=1"),)
            yield Finding("forwarding", ERROR, name, text, repair=repair, safe=True)


def bridge_filter(facts: Facts) -> Iterator[Finding]:
    """Whether packets between ports of a bridge pass the packet filter, where firewall needs it."""
    for version, names in _by_family(facts, isolated=True).items():
        key = _BRIDGE_FILTERS[version]
        if names and _read(key) != "1":
            text = f"{key} is not 1: packets between pods of a bridge pass no packet filter"
            yield Finding("bridge-netfilter", ERROR, names[0], text, repair=_switch_on(key), safe=True)


def services(facts: Facts) -> Iterator[Finding]:
    """The same, where Kubernetes may need it: kubeadm's preflight checks ask for br_netfilter."""
    isolated = _by_family(facts, isolated=True)
    for version, names in _by_family(facts, isolated=False).items():
        key = _BRIDGE_FILTERS[version]
        if not names or isolated[version] or _read(key) == "1":
            continue
        flannel = [
            name
            for name in names
            if any(each.get("type") == "flannel" for each in facts.networks[name].plugins)
        ]
        text = f"{key} is not 1: pods of a bridge do not reach each other by a service of Kubernetes"
        severity, name = (WARNING, flannel[0]) if flannel else (INFO, names[0])
        # It changes every bridge of the host, those of virtual machines, too.
        yield Finding("bridge-services", severity, name, text, repair=_switch_on(key))


def _by_family(facts: Facts, *, isolated: bool) -> dict[int, list[str]]:
    """Return the networks of each family whose bridges are isolated inside, or are pods' way to services."""
    found: dict[int, list[str]] = {4: [], 6: []}
    for name, network in facts.networks.items():
        plugins = list(node.objects(network))
        families = {each.version for plugin in plugins for each in sets_of(plugin, network.version)}
        if isolated:
            chosen = any(
                each.get("type") == "firewall" and each.get("ingressPolicy") == "isolated" for each in plugins
            )
            families.add(4)  # there may be addresses that host-local does not give
        else:
            chosen = any(
                each.get("type") == "bridge" and (each.get("isGateway") or each.get("isDefaultGateway"))
                for each in plugins
            )
        for version in families if chosen else ():
            found[version].append(name)
    return found


def _switch_on(key: str) -> tuple[tuple[str, ...], ...]:
    load = () if _read(key) else (("modprobe", "br_netfilter"),)
    return (*load, ("sysctl", "-w", f"{key}=1"))


def forward_policy(facts: Facts) -> Iterator[Finding]:
    """Whether iptables drops forwarded packets where the plugin firewall is told to leave it alone."""
    for name, network in facts.networks.items():
        told = [each for each in network.plugins if each.get("type") == "firewall"]
        if not any(each.get("backend") == "nftables" for each in told):
            continue
        families = {
            each.version for plugin in node.objects(network) for each in sets_of(plugin, network.version)
        }
        try:
            dropped = firewall.iptables_drops(families or (4, 6))
        except (CNIError, OSError):
            continue  # without rights, or programs, there is nothing to be seen
        if dropped:
            text = f"the backend of its firewall is nftables, but {firewall.DROPPED}"
            advice = (
                "leave its backend out, or let the chain FORWARD accept what pods send and get: "
                "`iptables -P FORWARD ACCEPT` does so with everything"
            )
            yield Finding("forward-policy", WARNING, name, text, advice)


def mtu(facts: Facts) -> Iterator[Finding]:
    """Whether what pods send fits what leaves the host."""
    found = {link["ifname"]: link for link in facts.links}
    uplinks = [
        found[each["dev"]] for each in system.ip("route", "show", "default") if each.get("dev") in found
    ]
    if not uplinks:
        return
    uplink = min(uplinks, key=lambda each: int(each["mtu"]))
    for name, network in facts.networks.items():
        for plugin in node.objects(network):
            bridge = found.get(plugin.get("bridge") or "cni0") if plugin.get("type") == "bridge" else None
            configured = plugin.get("mtu") if plugin.get("type") in ("bridge", "ptp") else None
            used = bridge["mtu"] if bridge else configured
            if used and used > uplink["mtu"]:
                text = f"its MTU is {used}, that of the uplink {uplink['ifname']} only {uplink['mtu']}"
                advice = f'set "mtu": {uplink["mtu"]} {in_list(network)}; pods that are there keep theirs'
                yield Finding("mtu", WARNING, name, text, advice)


def _read(key: str) -> str:
    try:
        with open(f"/proc/sys/{key.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
