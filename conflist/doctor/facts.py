"""What the doctor reads of a node: lists, attachments, reservations, addresses in namespaces."""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cni_plugins.address import format_address
from cni_plugins.kernel import addr, files, link
from cni_plugins.kernel.netns import Namespace
from cni_plugins.spec.codec import decode
from cni_plugins.spec.errors import CNIError
from conflist.cache import Cache
from conflist.load import iterate_networks
from ipam.host_local.store import DEFAULT_DATA_DIR, is_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conflist.load import NetworkList

YOUNG = 60.0
"""Seconds in which an ADD is over: what is younger may belong to one that has not been cached yet."""
FLANNEL_DIR = "/var/lib/cni/flannel"
SUBNET_FILE = "/run/flannel/subnet.env"


@dataclass(frozen=True)
class Reservation:
    """An address that host-local keeps for a container; an empty container id: nobody's."""

    network: str
    address: str
    container_id: str
    ifname: str
    path: str
    young: bool


@dataclass
class Facts:
    """What was read.

    Attributes:
        networks: the lists, by name.
        attachments: those cached, as (network, container id, interface name) to the namespace's path.
        reservations: of all networks that host-local serves.
        scratch: flannel's scratch files: path to (network, container id).
        links: of the host, as `ip -json -details` has them.
        inside: every address in a namespace other than the host's.
        live: ids of containers that are attached, as far as can be told.
    """

    networks: dict[str, NetworkList] = field(default_factory=dict)
    attachments: dict[tuple[str, str, str], str] = field(default_factory=dict)
    reservations: list[Reservation] = field(default_factory=list)
    scratch: dict[str, tuple[str, str]] = field(default_factory=dict)
    links: list[dict[str, Any]] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)

    def is_known(self, container_id: str) -> bool:
        """Tell whether a container may be attached, or have its DEL; a comment cuts its id short."""
        known = self._known
        at = bisect.bisect_left(known, container_id)
        return at < len(known) and known[at].startswith(container_id)

    @cached_property
    def _known(self) -> list[str]:
        """All ids, sorted: those that begin with a text stand where it would. Asked when all is read."""
        return sorted(self.live | {key[1] for key in self.attachments})


def collect(folder: str, cache_folder: str) -> Facts:
    """Read a node.

    Args:
        folder: of the lists.
        cache_folder: libcni's.
    """
    facts = Facts()
    try:
        facts.networks = {network.name: network for network in iterate_networks(folder)}
    except CNIError:
        facts.networks = {}  # the linter says why
    for each in Cache(cache_folder).attachments():
        facts.attachments[each.network, each.container_id, each.ifname] = each.netns
    facts.reservations = list(_reservations(facts))
    facts.scratch = dict(_scratch_files(facts))
    facts.links = ip("-details", "address")
    facts.inside = set(_addresses_inside())
    facts.live = {key[1] for key, netns in facts.attachments.items() if os.path.exists(netns)}
    facts.live |= {
        each.container_id for each in facts.reservations if each.young or each.address in facts.inside
    }
    facts.live |= {container for path, (_network, container) in facts.scratch.items() if is_young(path)}
    facts.live.discard("")
    return facts


def ip(*arguments: str) -> list[dict[str, Any]]:
    """Ask iproute2; nothing where it fails."""
    return [each for each in _json(["ip", "-json", *arguments]) or [] if each]


def nft(*arguments: str) -> list[dict[str, Any]]:
    """Ask nft; nothing where there is no such table."""
    listed: list[dict[str, Any]] = (_json(["nft", "--json", "--handle", *arguments]) or {}).get(
        "nftables", []
    )
    return listed


def _json(command: list[str]) -> Any:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None
    except (OSError, ValueError):
        return None


def objects(network: NetworkList) -> Iterator[dict[str, Any]]:
    """Return a list's plugin objects, and the delegates that flannel makes of its own."""
    for plugin in network.plugins:
        yield plugin
        if plugin.get("type") == "flannel":
            yield {
                "type": "bridge",
                "isGateway": True,
                **(plugin.get("delegate") or {}),
                "ipam": flannel_ipam(plugin),
            }


def flannel_ipam(plugin: dict[str, Any]) -> dict[str, Any]:
    """Return the `ipam` that flannel gives its delegate."""
    values = subnet_env(plugin)
    subnets = [values[key] for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET") if key in values]
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    return {"type": "host-local", **(plugin.get("ipam") or {}), "ranges": ranges}


def subnet_env(plugin: dict[str, Any]) -> dict[str, str]:
    """Return what flannel's daemon says; nothing when it has said nothing."""
    try:
        data = files.read(str(plugin.get("subnetFile") or SUBNET_FILE), follow=True)
    except OSError:
        return {}
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    return dict(line.strip().partition("=")[::2] for line in lines)


def is_young(path: str) -> bool:
    """Tell whether a file may be of an ADD that still runs."""
    try:
        return time.time() - os.stat(path).st_mtime < YOUNG
    except OSError:
        return True  # gone meanwhile: whoever has it works


def _reservations(facts: Facts) -> Iterator[Reservation]:
    for name, network in facts.networks.items():
        for data_dir in sorted({_data_dir(each) for each in objects(network)} - {""}):
            folder = os.path.join(data_dir, name)
            try:
                names = sorted(filter(is_address, os.listdir(folder)))
            except OSError:
                continue
            for address in names:
                path = os.path.join(folder, address)
                try:
                    text = (files.read(path) or b"").decode("utf-8", "replace")
                except OSError:
                    continue
                container_id, _, ifname = text.partition("\r\n")
                yield Reservation(name, address, container_id.strip(), ifname, path, is_young(path))


def _data_dir(plugin: dict[str, Any]) -> str:
    ipam = plugin.get("ipam")
    if not isinstance(ipam, dict) or ipam.get("type") != "host-local":
        return ""
    return str(ipam.get("dataDir") or DEFAULT_DATA_DIR)


def _scratch_files(facts: Facts) -> Iterator[tuple[str, tuple[str, str]]]:
    for network in facts.networks.values():
        for plugin in network.plugins:
            if plugin.get("type") != "flannel":
                continue
            folder = str(plugin.get("dataDir") or FLANNEL_DIR)
            for container in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                path = os.path.join(folder, container)
                try:
                    noted = decode(files.read(path) or b"", path)
                except (OSError, CNIError):
                    continue
                if isinstance(noted, dict) and noted.get("name") == network.name:
                    yield path, (network.name, container)


def _addresses_inside() -> Iterator[str]:
    """Return the addresses in every namespace that a process or a file under /run/netns holds."""
    own = os.stat("/proc/self/ns/net")
    seen = {(own.st_dev, own.st_ino)}
    places = [f"/proc/{pid}/ns/net" for pid in os.listdir("/proc") if pid.isdigit()]
    for folder in ("/run/netns", "/run/docker/netns"):
        places += [
            os.path.join(folder, name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])
        ]
    for place in places:
        try:
            status = os.stat(place)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with Namespace(place) as netns, netns.netlink() as inside:
                held = [each for found in link.links(inside) for each in addr.of_link(inside, found.index)]
        except OSError:  # gone meanwhile
            continue
        yield from (format_address(each.address) for each in held)
