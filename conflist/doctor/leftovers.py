"""What containers left that are gone: addresses, links, and what is kept in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conflist.doctor import facts as node
from conflist.doctor import state
from conflist.doctor.finding import WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conflist.doctor.facts import Facts
    from conflist.doctor.state import Kept

_MAKERS: dict[str, tuple[tuple[str, ...], str]] = {
    "bandwidth": (("bandwidth",), ""),
    "firewall": (("firewall",), ""),
    "host-device": (("host-device",), ""),
    "masquerade": (("bridge", "ptp"), "ipMasq"),
    "portmap": (("portmap",), ""),
    "spoofcheck": (("bridge",), "macspoofchk"),
    "tuning-stashes": (("tuning",), ""),
    "veth": (("bridge", "ptp"), ""),
}
"""Which plugins' DEL sees to what is noted, and the key without which it does not."""


def attachments(facts: Facts) -> Iterator[Finding]:
    """What is cached, though the namespace is gone: its DEL never came, or failed."""
    for (network, container, ifname), netns in facts.attachments.items():
        if network not in facts.networks or container in facts.live:
            continue
        yield Finding(
            "attachment",
            WARNING,
            network,
            f"container {container} is still attached, but its namespace {netns} is gone",
            repair=(_delete(network, container, ifname, netns),),
            safe=True,
        )


def damaged(facts: Facts) -> Iterator[Finding]:
    """Cached results that cannot be read: CHECK fails, and nobody knows of the attachment."""
    for path in facts.damaged:
        text = f"the cached result {path} is damaged: CHECK of its container fails"
        advice = "`cnictl del NETWORK NETNS` works without it; if the container is gone, remove the file"
        yield Finding("damaged-result", WARNING, "", text, advice)


def _delete(network: str, container: str, ifname: str, netns: str = "") -> tuple[str, ...]:
    """Return the command for the DEL that never came.

    GC would do the same for all at once, but would have to be told every attachment that another runtime
    made on this node; a DEL is about this one alone.
    """
    names = ("--container-id", container, "--ifname", ifname)
    return ("cnictl", "del", network, netns or "/gone", *names)


def addresses(facts: Facts) -> Iterator[Finding]:
    """Reservations that nobody has, and empty ones."""
    for each in facts.reservations:
        remove = (("rm", each.path),)
        if not each.container_id and not each.young:
            text = f"{each.path} is empty: a process was killed while it made it, and nobody has the address"
            yield Finding("empty-reservation", WARNING, each.network, text, repair=remove, safe=True)
        elif each.container_id and not facts.is_known(each.container_id):
            text = f"address {each.address} is reserved for container {each.container_id}, which is gone"
            yield Finding("leaked-address", WARNING, each.network, text, repair=remove, safe=True)


def scratch(facts: Facts) -> Iterator[Finding]:
    """Configurations that flannel keeps of containers that are gone."""
    for path, (network, container) in facts.scratch.items():
        if not facts.is_known(container):
            text = f"{path} keeps the configuration of a container that is gone"
            yield Finding("stale-scratch", WARNING, network, text, repair=(("rm", path),), safe=True)


def links(facts: Facts) -> Iterator[Finding]:
    """Host ends of pairs, and limits, whose attachment is gone."""
    bridges = {
        plugin.get("bridge") or "cni0": name
        for name, network in facts.networks.items()
        for plugin in node.objects(network)
        if plugin.get("type") == "bridge"
    }
    for link in facts.links:
        kind = link.get("linkinfo", {}).get("info_kind")
        network, *owner = link.get("ifalias", "").split(":")
        remove = (("ip", "link", "delete", link["ifname"]),)
        if kind in ("veth", "ifb") and network in facts.networks and owner and not facts.is_known(owner[0]):
            what = "the end of a veth pair" if kind == "veth" else "a bandwidth limit"
            text = f"{link['ifname']} is {what} of container {owner[0]}, which is gone"
            yield Finding("stale-link", WARNING, network, text, repair=remove, safe=True)
        elif kind == "veth" and not owner and link.get("master") in bridges and _has_no_carrier(link):
            text = f"{link['ifname']} on bridge {link['master']} has no working other end"
            yield Finding("dead-veth", WARNING, bridges[link["master"]], text, repair=remove)


def _has_no_carrier(link: dict[str, object]) -> bool:
    return link.get("operstate") in ("DOWN", "LOWERLAYERDOWN")


def kept(facts: Facts) -> Iterator[Finding]:
    """Notes and leases of attachments that are gone: their DEL removes them, and all that they tell of."""
    gone: dict[tuple[str, str, str], list[Kept]] = {}
    for each in facts.kept:
        if each.network not in facts.networks or facts.is_known(each.container_id):
            continue
        owner = f"{each.container_id} {each.ifname}, which is gone"
        if each.kind == state.LEASE and state.is_awaited(each):
            text = f"a daemon has to release the lease of {owner}"
            advice = "start one: `systemctl enable --now cni-dhcp.socket`, or `dhcp daemon`"
            yield Finding("stale-lease", WARNING, each.network, text, advice)
        elif _is_seen_to(facts, each):
            gone.setdefault((each.network, each.container_id, each.ifname), []).append(each)
        else:
            text = f"{each.path} is kept for {owner}, and no plugin of the list sees to that any more"
            yield Finding("stale-note", WARNING, each.network, text, repair=(("rm", each.path),))
    for attachment, files in gone.items():
        paths = ", ".join(each.path for each in files)
        leased = any(each.kind == state.LEASE for each in files)
        yield Finding(
            "stale-lease" if leased else "stale-note",
            WARNING,
            attachment[0],
            f"container {attachment[1]} is gone without a DEL for {attachment[2]}, of which is kept: {paths}",
            repair=(_delete(*attachment),),
            safe=True,
        )


def _is_seen_to(facts: Facts, note: Kept) -> bool:
    """Tell whether a DEL by the list as it is now removes a note, or has a lease released."""
    if note.kind == state.LEASE:
        return True
    makers, key = _MAKERS.get(note.kind, ((), ""))
    for plugin in facts.networks[note.network].plugins:
        if plugin.get("type") in makers and (not key or plugin.get(key)):
            return True
        if plugin.get("type") == "flannel" and "bridge" in makers:
            # It knows its delegate as long as it has that configuration.
            return (note.network, note.container_id) in facts.scratch.values()
    return False


def stashes(facts: Facts) -> Iterator[Finding]:
    """Files of tuning's that no note tells of: the reference's, which do not name their network."""
    noted = {path for each in facts.kept for path in each.tells}
    plugins = [plugin for network in facts.networks.values() for plugin in network.plugins]
    for path, name in state.stashes(plugins):
        if path not in noted and not facts.is_known_by(name, "_") and not state.is_young(path):
            text = f"{path} keeps what an interface was like before, and its container is gone"
            yield Finding("stale-stash", WARNING, "", text, repair=(("rm", path),))
