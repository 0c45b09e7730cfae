"""What is left in nftables of containers that are gone: rules, elements of sets, chains."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from cni_plugins.rules.firewall import TABLE_NAME
from cni_plugins.rules.spoofcheck import ENTRANCE
from conflist.doctor import system
from conflist.doctor.finding import ERROR, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from conflist.doctor.facts import Facts

_OWNER = re.compile(r"net: (?P<network>[^,]+), if: (?P<ifname>[^,]+), id: (?P<container>\S+)")
_TABLES = (
    ("inet", "cni_plugins_masquerade", "masquerades for"),
    ("ip", "cni_hostport", "forwards host ports to"),
    ("ip6", "cni_hostport", "forwards host ports to"),
)
_FIREWALL = ("inet", TABLE_NAME)
_BRIDGES = ("bridge", "nat")
_CHAIN = re.compile(r"cni-br-iface-(?P<owner>[A-Za-z0-9_./-]+)")
"""The chains of an attachment's spoof check, of container id and interface name; the second ends in _MAC."""
_MAC = "-mac"


def rules(facts: Facts) -> Iterator[Finding]:
    """Rules whose comment names a container that is gone."""
    for family, table, does in _TABLES:
        for item in system.nft("list", "table", family, table):
            rule = item.get("rule", {})
            comment = rule.get("comment", "")
            match = _OWNER.search(comment)
            container = match["container"] if match else comment
            network = match["network"] if match else ""
            if not comment or facts.is_known(container) or (match and network not in facts.networks):
                continue
            if (not match and table.startswith("cni_plugins")) or facts.inside & set(_strings(rule)):
                continue  # of another kind, or somebody has the address
            command = ("nft", "delete", "rule", family, table, rule["chain"], "handle", str(rule["handle"]))
            text = f"a rule in {family} {table} {does} container {container}, which is gone"
            yield Finding("stale-rule", WARNING, network, text, repair=(command,), safe=True)


def host_ports(facts: Facts) -> Iterator[Finding]:
    """Ports of the host that are forwarded to two containers: the rule that comes first gets all packets."""
    for family in ("ip", "ip6"):
        chosen: dict[str, dict[str, Any]] = {}
        for item in system.nft("list", "table", family, "cni_hostport"):
            rule = item.get("rule", {})
            target = next((each["dnat"] for each in rule.get("expr", ()) if "dnat" in each), None)
            if target is None or target.get("addr") not in facts.inside:
                continue
            matches = [each["match"] for each in rule["expr"] if "match" in each]
            first = chosen.setdefault(json.dumps([rule["chain"], matches]), target)
            port = next((each["right"] for each in matches if "payload" in each["left"]), "")
            if first is not target:
                text = (
                    f"host port {port} is forwarded to {first['addr']} and to {target['addr']}, "
                    "which gets no packet"
                )
                advice = f"give one of them another port; `nft list table {family} cni_hostport` shows both"
                yield Finding("host-port", ERROR, "", text, advice)


def elements(facts: Facts) -> Iterator[Finding]:
    """Addresses that the plugin firewall lets through, whose comment names a container that is gone."""
    for item in system.nft("list", "table", *_FIREWALL):
        for each in item.get("set", {}).get("elem", []):
            element = each.get("elem", {}) if isinstance(each, dict) else {}
            match = _OWNER.search(element.get("comment", ""))
            if match is None or match["network"] not in facts.networks:
                continue
            address = element["val"]
            if facts.is_known(match["container"]) or address in facts.inside:
                continue
            name = item["set"]["name"]
            command = ("nft", "delete", "element", *_FIREWALL, name, "{", address, "}")
            text = (
                f"set {name} of {' '.join(_FIREWALL)} lets {address} through "
                f"for container {match['container']}, which is gone"
            )
            yield Finding("stale-element", WARNING, match["network"], text, repair=(command,), safe=True)


def spoof_checks(facts: Facts) -> Iterator[Finding]:
    """Chains that check source addresses for containers that are gone, the reference's among them."""
    listed = system.nft("list", "table", *_BRIDGES)
    chains = {item["chain"]["name"] for item in listed if "chain" in item}
    noted = {
        f"{each.container_id}-{each.ifname}": each.network for each in facts.kept if each.kind == "spoofcheck"
    }
    links = {link["ifname"] for link in facts.links}
    for name in sorted(chains):
        match = _CHAIN.fullmatch(name)
        if match is None or name.removesuffix(_MAC) in chains - {name}:
            continue
        owner = match["owner"] if f"{name}{_MAC}" in chains else match["owner"].removesuffix(_MAC)
        entries = [item["rule"] for item in listed if name in _targets(item.get("rule", {}))]
        network = noted.get(owner, "")
        if facts.is_known_by(owner, "-") or (network and network not in facts.networks):
            continue
        if not network and any(links & set(_strings(rule)) for rule in entries):
            continue  # its port is there, and whose it is, nobody says
        table = " ".join(_BRIDGES)
        own = [each for each in (name, f"{name}{_MAC}") if each in chains]
        lines = [
            f"delete rule {table} {ENTRANCE.name} handle {rule['handle']}"
            for rule in entries
            if rule["chain"] == ENTRANCE.name
        ]
        lines += [f"flush chain {table} {each}" for each in own]
        lines += [f"delete chain {table} {each}" for each in own]
        text = f"chain {name} of {table} checks source addresses for a container that is gone"
        repair = (("nft", "; ".join(lines)),)
        yield Finding("stale-spoof-check", WARNING, network, text, repair=repair, safe=True)


def _targets(rule: dict[str, Any]) -> Iterator[str]:
    """Return the chains that a rule jumps to."""
    for each in rule.get("expr", []):
        jump = each.get("jump") if isinstance(each, dict) else None
        if jump:
            yield jump["target"]


def _strings(value: Any) -> Iterator[str]:
    """Return every string in decoded JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
