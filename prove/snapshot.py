"""All that an attachment could leave on a node, seen by iproute2, nft, tc and plain files: never by our code.

A snapshot is a mapping from what there is to what it is like. Numbers that the kernel counts on its own
(interface indexes, timers, handles, life times) are not in it; everything else has to be equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from typing import Any

from integration.node import PATH

Snapshot = dict[str, str]

IGNORED = (
    (r"file .*/last_reserved_ip\.\d+$", "host-local's pointer for its round robin moves on with each ADD"),
    (r"file /run/cni/children\.lock$", "comes, empty, with the first GC or the first started program"),
    (r"sysctl net/netfilter/nf_conntrack_count$", "a count of flows, not a setting"),
    (r"sysctl net/(ipv4|ipv6)/route/flush$", "acts when written, says nothing"),
)
"""Never compared, and why."""
SHARED = (
    (r"file .*/lock$", "locks of host-local's folder and of notes"),
    (r"folder ", "folders stay, empty"),
    (
        r"file /run/(xtables|cni/iptables)\.lock$",
        "locks of iptables, its own and ours",
    ),
    (r"nft ", "tables and base chains, which all containers share; without a rule of any container"),
    (
        r"(link|address|route|vlan) cni0\b",
        "the bridge, with the gateway's addresses: other containers use it",
    ),
    (r"qdisc cni0\b", "the kernel's own, on the bridge"),
    (r"sysctl net/ipv[46]/(conf|neigh)/cni0/", "the bridge's"),
    (r"sysctl net/ipv4/(ip_forward|conf/[^/]+/forwarding)$", "the host is a gateway"),
    (r"sysctl net/ipv6/conf/[^/]+/forwarding$", "the host is a gateway"),
    (r"sysctl net/ipv4/conf/[^/]+/(accept|send)_redirects$", "the kernel sets it with forwarding"),
    (r"sysctl net/netfilter/", "appears with the kernel's connection tracking"),
)
"""What the first ADD on a node makes and nobody removes, as with the reference, and why."""

_IGNORED = re.compile("|".join(pattern for pattern, _why in IGNORED))
_SHARED = re.compile("|".join(pattern for pattern, _why in SHARED))
_LINK_KEYS = (
    "address",
    "allmulti",
    "ifalias",
    "link_netnsid",
    "linkmode",
    "master",
    "mtu",
    "promiscuity",
    "qdisc",
    "txqlen",
    "group",
)
_FLAGS = ("UP", "PROMISC", "ALLMULTI", "NOARP")
_TIMER = re.compile(r"timer|_id$|interval_left")
_OF_ROUTES = ("type", "dst", "gateway", "dev", "table", "protocol", "scope", "prefsrc", "metric", "via")
_FOLDERS = ("/run", "/var/lib/cni", "/etc/cni")
_LEFT_OUT = ("/run/netns", "/run/.node", "/run/lock")
_IPV4 = ("address show", "neigh show nud permanent", "route show table all", "rule show")
_IPV6 = ("route show table all", "rule show")


class ChangingError(Exception):
    """A link went while it was looked at, as the kernel removes those of a namespace in its own time."""


def take(netns: str = "") -> Snapshot:
    """Look at the namespace this process is in, or at the links of a container's.

    Args:
        netns: the container's name; its parameters are not looked at, since they go with it.
    """
    found: Snapshot = {}
    where = ["-n", netns] if netns else []
    batch = [*where, "-json", "-details", "-batch", "-"]
    links, neighbours, routes4, rules4 = _documents(["ip", *batch], _IPV4)
    routes6, rules6 = _documents(["ip", "-6", *batch], _IPV6)
    for link in links:
        _link(found, link)
    for route in [*routes4, *routes6]:
        said = {key: route[key] for key in _OF_ROUTES if key in route}
        found[f"route {route.get('dev', '')} {json.dumps(said, sort_keys=True)}"] = ""
    for kind, table in (("rule4", rules4), ("rule6", rules6), ("neighbour", neighbours)):
        for each in table:
            found[f"{kind} {json.dumps(each, sort_keys=True)}"] = ""
    if not netns:
        _traffic_control(found, [link["ifname"] for link in links])
        _nftables(found)
        _sysctls(found)
        _files(found)
    return {key: value for key, value in found.items() if not _IGNORED.match(key)}


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what differs, a line each."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            lines.append(f"lost: {key} {before[key]}")
        elif key not in before:
            lines.append(f"left: {key} {after[key]}")
        elif before[key] != after[key]:
            lines.append(f"changed: {key}: {before[key]} is now {after[key]}")
    return lines


def private(pristine: Snapshot, shared: Snapshot, now: Snapshot) -> list[str]:
    """Return what is more than a first attachment leaves behind.

    Args:
        pristine: a node before any attachment.
        shared: the same node after one came and went.
        now: the node after an attachment that was cut short at any point and removed.
    """
    lines = []
    for key in sorted(now.keys() | pristine.keys()):
        value = now.get(key)
        if value == pristine.get(key):
            continue
        # Rules are shared only if they are among those; some may still be missing.
        rules = set((value or "").splitlines()) - set(shared.get(key, "").splitlines())
        if _SHARED.match(key) and not (key.startswith("nft ") and rules):
            continue
        lines.append(f"{key}: {pristine.get(key)} is now {value}")
    return lines


def without_chance(found: Snapshot, link: str) -> Snapshot:
    """Return a snapshot in which a link's random MAC address, and what follows from it, does not show."""
    text = json.loads(found.get(f"link {link}", "{}")).get("address")
    if not text:
        return found
    local = _link_local(text)
    return {
        key.replace(local, "fe80::MAC").replace(text, "MAC"): value.replace(local, "fe80::MAC").replace(
            text, "MAC"
        )
        for key, value in found.items()
    }


def _link_local(mac: str) -> str:
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    words = [
        octets[0] << 8 | octets[1],
        octets[2] << 8 | 0xFF,
        0xFE00 | octets[3],
        octets[4] << 8 | octets[5],
    ]
    return "fe80::" + ":".join(f"{word:x}" for word in words)


def _documents(command: list[str], lines: tuple[str, ...]) -> list[Any]:
    """Run a batch of one of iproute2's programs; return what each line printed."""
    text = _output(command, "\n".join(lines))
    found = []
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def _output(command: list[str], stdin: str = "") -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env={"PATH": PATH}, check=False
    )
    if done.returncode:
        if "Cannot find device" in done.stderr:
            raise ChangingError(done.stderr)
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def _link(found: Snapshot, link: dict[str, Any]) -> None:
    name = link["ifname"]
    said = {key: link[key] for key in _LINK_KEYS if key in link}
    said["flags"] = [flag for flag in _FLAGS if flag in link["flags"]]
    said["info"] = _steady(link.get("linkinfo", {}))
    found[f"link {name}"] = json.dumps(said, sort_keys=True)
    for each in link["addr_info"]:
        if each:  # an empty object stands for one that was filtered out
            found[f"address {name} {each['local']}/{each['prefixlen']}"] = str(each["scope"])


def _steady(info: Any) -> Any:
    if isinstance(info, dict):
        return {key: _steady(value) for key, value in info.items() if not _TIMER.search(key)}
    return info


def _traffic_control(found: Snapshot, links: list[str]) -> None:
    filters = tuple(f"filter show dev {link} ingress" for link in links if link != "lo")
    qdiscs, *_rest = _documents(["tc", "-json", "-batch", "-"], ("qdisc show", *filters))
    for qdisc in qdiscs:
        found[f"qdisc {qdisc['dev']} {qdisc['kind']} {qdisc['handle']}"] = json.dumps(
            qdisc.get("options", {}), sort_keys=True
        )
    for filters_of_link in _rest:
        for each in filters_of_link:
            if each:
                found[f"filter {json.dumps(each, sort_keys=True)}"] = ""
    for vlan in json.loads(_output(["bridge", "-json", "vlan", "show"]) or "[]"):
        found[f"vlan {vlan['ifname']}"] = json.dumps(vlan["vlans"])


def _nftables(found: Snapshot) -> None:
    table = ""
    chain: list[str] = []
    for line in _output(["nft", "--stateless", "list", "ruleset"]).splitlines():
        text = line.strip()
        if line.startswith("table "):
            table = text.removesuffix(" {")
            found[f"nft {table}"] = ""
        elif line.startswith("\t") and not line.startswith("\t\t") and text.endswith("{"):
            chain = [text.removesuffix(" {")]
        elif text == "}" and chain:
            found[f"nft {table} {chain[0]}"] = "\n".join(chain[1:])
            chain = []
        elif text and text != "}":
            chain.append(text)


def _sysctls(found: Snapshot) -> None:
    for folder, _folders, names in os.walk("/proc/sys/net"):
        for name in names:
            path = f"{folder}/{name}"
            try:
                with open(path, "rb", buffering=0) as file:
                    value = file.read(4096).decode(errors="replace").strip()
            except OSError:  # write-only, not set yet, or gone with its link
                continue
            found[f"sysctl {path.removeprefix('/proc/sys/')}"] = value


def _files(found: Snapshot) -> None:
    for top in _FOLDERS:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in _LEFT_OUT]
            if folder != top:
                found[f"folder {folder}"] = ""
            for name in [*names, *(name for name in folders if os.path.islink(f"{folder}/{name}"))]:
                found[f"file {folder}/{name}"] = _content(f"{folder}/{name}")


def _content(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return f"link to {os.readlink(path)}"
        if not stat.S_ISREG(mode):
            return f"mode {mode:o}"
        with open(path, "rb") as file:
            return f"mode {mode:o}, sha256 {hashlib.sha256(file.read()).hexdigest()[:16]}"
    except FileNotFoundError:
        return "gone"
