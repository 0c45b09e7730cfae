"""What the doctor reads of a node: lists, attachments, reservations, addresses in namespaces."""

from __future__ import annotations

import bisect
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cni_plugins import adding
from cni_plugins.address import format_address
from cni_plugins.kernel import files
from cni_plugins.spec.codec import decode
from cni_plugins.spec.errors import CNIError
from cni_plugins.spec.result import VERSIONS, Result
from conflist.cache import Cache
from conflist.doctor import state, system
from conflist.doctor.state import is_young
from conflist.load import LIST_EXTENSIONS, SINGLE_EXTENSIONS, config_files, load_list, load_single
from ipam.host_local.store import DEFAULT_DATA_DIR, is_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conflist.doctor.state import Kept
    from conflist.load import NetworkList

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
        damaged: files in their place that cannot be read.
        reservations: of all networks that host-local serves.
        scratch: flannel's scratch files: path to (network, container id).
        kept: notes of all networks' attachments, and leases of these networks'.
        given: the addresses in cached results.
        links: of the host, as `ip -json -details` has them.
        inside: every address in a namespace other than the host's.
        live: ids of containers that are attached, as far as can be told.
    """

    networks: dict[str, NetworkList] = field(default_factory=dict)
    attachments: dict[tuple[str, str, str], str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    scratch: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    links: list[dict[str, Any]] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)

    def is_known(self, container_id: str) -> bool:
        """Tell whether a container may be attached, or have its DEL; a comment cuts its id short."""
        known = self._known
        at = bisect.bisect_left(known, container_id)
        return at < len(known) and known[at].startswith(container_id)

    def is_known_by(self, name: str, separator: str) -> bool:
        """Tell the same of what has a container's id, a separator and more in its name; any may hold both."""
        return any(name[:at] in self._ids for at, each in enumerate(name) if each == separator)

    @cached_property
    def held(self) -> set[str]:
        """Every address that somebody has, or that is a container's which may have its DEL."""
        return {
            *self.inside,
            *(each.address for each in self.reservations if self.is_known(each.container_id)),
            *(
                address
                for each in self.kept
                if self.is_known(each.container_id)
                for address in each.addresses
            ),
            *self.given,
        }

    @cached_property
    def _known(self) -> list[str]:
        """All ids, sorted: those that begin with a text stand where it would. Asked when all is read."""
        return sorted(self._ids)

    @cached_property
    def _ids(self) -> set[str]:
        return self.live | {key[1] for key in self.attachments}


def collect(folder: str, cache_folder: str) -> Facts:
    """Read a node.

    Args:
        folder: of the lists.
        cache_folder: libcni's.
    """
    facts = Facts()
    for network in _networks(folder):
        facts.networks.setdefault(network.name, network)  # as a runtime: the first of a name
    cache = Cache(cache_folder)
    facts.damaged = cache.damaged()
    for each in cache.attachments():
        facts.attachments[each.network, each.container_id, each.ifname] = each.netns
        facts.given.update(_addresses(each.result))
    facts.reservations = list(_reservations(facts))
    facts.scratch = dict(_scratch_files(facts))
    facts.kept = list(state.notes())
    for name, network in facts.networks.items():
        facts.kept += state.leases(name, objects(network))
    facts.links = system.ip("-details", "address")
    facts.inside = set(system.addresses_inside())
    facts.live = set(_live(facts))
    facts.live.discard("")
    return facts


def _networks(folder: str) -> Iterator[NetworkList]:
    """Load those lists that can be loaded; of the others the linter says what is wrong."""
    for load, extensions in ((load_list, LIST_EXTENSIONS), (load_single, SINGLE_EXTENSIONS)):
        try:
            paths = config_files(folder, extensions)
        except CNIError:
            continue
        for path in paths:
            try:
                yield load(path)
            except CNIError:
                continue


def _addresses(result: dict[str, Any] | None) -> Iterator[str]:
    """Return the addresses of a cached result."""
    try:
        found = Result.from_json(result or {}, VERSIONS[0], "the cached result")
    except CNIError:
        return
    for each in found.ips:
        yield format_address(each.address.address)


def _live(facts: Facts) -> Iterator[str]:
    """Return the containers of which a namespace, an address, a young file or a running ADD is there."""
    for container, _ifname in adding.attachments(by_anyone=True):
        yield container
    for key, netns in facts.attachments.items():
        if os.path.exists(netns):
            yield key[1]
    for each in facts.reservations:
        if each.young or each.address in facts.inside:
            yield each.container_id
    for path, (_network, container) in facts.scratch.items():
        if is_young(path):
            yield container
    for kept in facts.kept:
        if kept.young or facts.inside.intersection(kept.addresses) or os.path.exists(kept.netns):
            yield kept.container_id


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
