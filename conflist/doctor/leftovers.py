"""What containers left that are gone: addresses, files, links, rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conflist.doctor import facts as node
from conflist.doctor.finding import WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from conflist.doctor.facts import Facts

_MASQUERADE = re.compile(r"net: (?P<network>[^,]+), if: (?P<ifname>[^,]+), id: (?P<container>\S+)")
_TABLES = (
    ("inet", "cni_plugins_masquerade", "masquerades for"),
    ("ip", "cni_hostport", "forwards host ports to"),
    ("ip6", "cni_hostport", "forwards host ports to"),
)


def attachments(facts: Facts) -> Iterator[Finding]:
    """What is cached, though the namespace is gone: its DEL never came, or failed."""
    for (network, container, ifname), netns in facts.attachments.items():
        if network not in facts.networks or container in facts.live:
            continue
        command = (
            "cnictl",
            "del",
            network,
            netns or "/gone",
            "--container-id",
            container,
            "--ifname",
            ifname,
        )
        yield Finding(
            "attachment",
            WARNING,
            network,
            f"container {container} is still attached, but its namespace {netns} is gone",
            repair=(command,),
            safe=True,
        )


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


def rules(facts: Facts) -> Iterator[Finding]:
    """Rules in the suite's nftables whose comment names a container that is gone."""
    for family, table, does in _TABLES:
        for item in node.nft("list", "table", family, table):
            rule = item.get("rule", {})
            comment = rule.get("comment", "")
            match = _MASQUERADE.search(comment)
            container = match["container"] if match else comment
            network = match["network"] if match else ""
            if not comment or facts.is_known(container) or (match and network not in facts.networks):
                continue
            if (not match and table.startswith("cni_plugins")) or facts.inside & set(_strings(rule)):
                continue  # of another kind, or somebody has the address
            command = ("nft", "delete", "rule", family, table, rule["chain"], "handle", str(rule["handle"]))
            text = f"a rule in {family} {table} {does} container {container}, which is gone"
            yield Finding("stale-rule", WARNING, network, text, repair=(command,), safe=True)


def _strings(value: Any) -> Iterator[str]:
    """Return every string in decoded JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
