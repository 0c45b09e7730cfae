"""Hostile state: the files that a call leaves for the next, spoilt or replaced, below every plugin.

Only root can write where they are, so this is not about an attacker: it is about disks that filled up, other
programs, old versions and slips of the hand. Nothing outside of the state folders may be touched even so.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_plugins.kernel import link, newlink
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from ipam.dhcp import notes as dhcp
from tests import hostile
from tests.hostile import ALLOWED, ENV, FOLDER
from tests.hostile_bytes import spoilt
from tests.hostile_streams import LEASE

if TYPE_CHECKING:
    import random

NETNS = f"{FOLDER}/netns"
OUTSIDE = "/run/outside"
"""What links lead to, and nothing may change."""
SUFFIX = "net:c1:eth0"
DELEGATE = {"cniVersion": "1.1.0", "name": "net", "type": "host-local"}


class Place(NamedTuple):
    """A file that plugins keep, and what is in it as a rule."""

    path: str
    content: bytes


def _delegate() -> bytes:
    ipam = {"type": "host-local", "dataDir": f"{FOLDER}/networks", "ranges": [[{"subnet": "10.1.2.0/24"}]]}
    return json.dumps({**DELEGATE, "ipam": ipam}).encode()


_HOST_LOCAL = (
    Place(f"{FOLDER}/networks/net/10.1.2.3", b"c1\r\neth0"),
    Place(f"{FOLDER}/networks/net/10.1.2.9", b"c2\r\neth0"),
    Place(f"{FOLDER}/networks/net/last_reserved_ip.0", b"10.1.2.9"),
    Place(f"{FOLDER}/networks/net/lock", b""),
    Place(f"{FOLDER}/networks/.index/net/c1:eth0", b""),
    Place(f"{FOLDER}/networks/net", b""),
    Place(f"{FOLDER}/networks/.index/net", b""),
    Place(f"{FOLDER}/networks/.index", b""),
)
_PORTMAP = b"backend nftables\naddress 10.1.2.3\nudp 53 any\nudp 54 10.1.2.1\nrule 4 hostports 7\n"
_FIREWALL = b"backend nftables\nzone trusted\naddress 10.1.2.3\naddress fd00::3\n"
_STASH = (
    b'{\n "mac": "02:00:00:00:00:09",\n "promisc": false,\n "mtu": 1500,\n "allmulti": true,\n "txQLen": 5\n}'
)


def _notes(kind: str, content: bytes) -> tuple[Place, ...]:
    folder = f"/run/cni/{kind}"
    return Place(f"{folder}/{SUFFIX}", content), Place(f"{folder}/lock", b""), Place(folder, b"")


PLACES = {
    "host-local": _HOST_LOCAL,
    "flannel": (
        Place(f"{FOLDER}/state/c1", _delegate()),
        Place(f"{FOLDER}/state/c2", _delegate()),
        Place(f"{FOLDER}/subnet.env", ENV.encode()),
        *_HOST_LOCAL,
    ),
    "portmap": _notes("portmap", _PORTMAP),
    "firewall": (
        *_notes("firewall", _FIREWALL),
        Place("/run/cni/firewall-addresses/address:0a010203:", b"net:c1:eth0\n"),
        Place("/run/cni/firewall-addresses", b""),
    ),
    "bridge": (*_notes("spoofcheck", b"5\n"), *_notes("masquerade", b"5\n6\n"), *_HOST_LOCAL),
    "ptp": (*_notes("masquerade", b"5\n6\n"), *_HOST_LOCAL),
    "bandwidth": _notes("bandwidth", b""),
    "tuning": (
        *_notes("tuning-stashes", f"{FOLDER}/state/c1_eth0.json\n".encode()),
        *_notes("tuning-stashes", f"{OUTSIDE}/file\n../outside/file\n".encode()),
        Place(f"{FOLDER}/state/c1_eth0.json", _STASH),
        Place("/etc/cni/tuning/allowlist.conf", b"^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n"),
    ),
    "host-device": _notes("host-device", b"dev7\n\nup\nveth\n"),
    "dhcp": (
        Place(f"/run/cni/dhcp/{dhcp.name_of('c1', 'net', 'eth0')}", json.dumps(LEASE).encode()),
        Place("/run/cni/dhcp", b""),
        Place("/run/cni/dhcp.sock", b""),
    ),
}
"""What each plugin keeps and reads."""
VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")


class State:
    """Makes and tries cases, in a node."""

    def __init__(self) -> None:
        os.makedirs(FOLDER)
        hostile.make_bundle(FOLDER)
        make_outside()
        _make_namespace()
        self._fence = hostile.Fence()
        self._outside = look(OUTSIDE)
        self._plugins = sorted(PLACES)

    def __call__(self, chance: random.Random) -> str:
        """Try a case; return the codes that came, 0 for none."""
        plugin = chance.choice(self._plugins)
        _make_interface()
        for place in PLACES[plugin]:
            plant(chance, place, spoil=chance.random() < 0.3)
        raw = hostile.valid(plugin, "CHECK", FOLDER, "1.1.0")
        raw.update(device="dev7", ipMasq=True, macspoofchk=True)
        if plugin == "dhcp":
            raw["ipam"] = {"type": "dhcp"}
        answers = []
        self._fence.allowed = ALLOWED
        try:
            for verb in chance.choices(VERBS, k=2):
                env = {**_ENVIRONMENT, "CNI_COMMAND": verb}
                conf = {**raw, "cni.dev/valid-attachments": chance.choice(_VALID)}
                answers.append(hostile.call(plugin, env, json.dumps(conf).encode()))
        finally:
            self._fence.allowed = None
            _clear()
        self._fence.look(_as_noted if plugin == "tuning" else None)
        assert look(OUTSIDE) == self._outside, f"{plugin}: changed outside"
        return " ".join(map(str, sorted(set(answers))))


def _as_noted(path: str) -> bool:
    """Tell whether tuning may remove a file, in whichever folder its note says that it is."""
    return os.path.basename(path) in ("c1_eth0.json", ".c1_eth0.json.tmp")


_VALID: tuple[list[dict[str, Any]], ...] = ([], [{"containerID": "c1", "ifname": "eth0"}])
_ENVIRONMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": NETNS,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": FOLDER,
}


def plant(chance: random.Random, place: Place, *, spoil: bool) -> None:
    """Make a file as it should be, or something else in its place."""
    path = place.path
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError:
        return  # what is above has been replaced already
    if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path) or os.path.lexists(path):
        return
    if not spoil:
        if "." in os.path.basename(path) or ":" in path or path.startswith(f"{FOLDER}/state/"):
            _write(path, place.content)
        return
    _spoil(chance, place)


def _spoil(chance: random.Random, place: Place) -> None:
    path, content = place
    what = chance.randrange(12)
    if what < 4:
        made = spoilt(chance, content)
        # A folder for state is somebody's word, wherever it stands: another one is written to as told.
        told = (f'"dataDir": "{FOLDER}/networks"'.encode(), b'"type": "host-local"')
        _write(path, made if all(word in made for word in told) or told[0] not in content else content)
    elif what == 4:
        os.symlink(chance.choice((f"{OUTSIDE}/file", f"{OUTSIDE}/folder", f"{OUTSIDE}/nothing")), path)
    elif what == 5:
        os.symlink(chance.choice((path, "/dev/zero", "/dev/full", "/proc/self/mem", "x" * 255)), path)
    elif what == 6:
        os.mkdir(path)
    elif what == 7:
        os.mkfifo(path)
    elif what == 8:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    elif what == 9:
        with open(path, "wb") as file:
            file.truncate(chance.choice((1 << 20, (1 << 20) + 1, 1 << 40)))
    else:
        _write(path, content * 200 if what == 10 else b"")


def look(folder: str) -> dict[str, tuple[Any, ...]]:
    """Return what is in a folder: kind, size, time of change and content."""
    found: dict[str, tuple[Any, ...]] = {}
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names, "."):
            path = os.path.join(above, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content
    return found


def make_outside() -> None:
    """Make what a plugin could mistake for its own, were it to follow a link."""
    os.makedirs(f"{OUTSIDE}/folder/net")
    for name in (
        "file",
        "folder/lock",
        "folder/10.1.2.3",
        "folder/c1",
        f"folder/{SUFFIX}",
        "folder/.x.tmp",
        "folder/.last_reserved_ip.0.tmp",
        "folder/net/c1:eth0",
        "folder/10.1.2.4",
    ):
        _write(f"{OUTSIDE}/{name}", b"" if name.endswith(".4") else b"mine")


def _make_namespace() -> None:
    """Make a container's namespace, and a link of ours in the node for host-device."""
    from integration import namespaces

    _write(NETNS, b"")
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.NEWNET)
    namespaces.mount("/proc/thread-self/ns/net", NETNS, flags=namespaces.MS_BIND)
    namespaces.setns(back, namespaces.NEWNET)
    os.close(back)


def _make_interface() -> None:
    """Give the container its interface again, and the node the device, if a case has taken them."""
    with Namespace(NETNS) as netns, netns.netlink() as inside, Netlink() as host:
        if link.find(inside, "eth0") is None:
            link.delete(host, "veth1")
            newlink.create_veth(host, "veth1", "eth0", netns.fd)
        if link.find(host, "dev7") is None and link.find(host, "dev8") is None:
            newlink.create_veth(host, "dev7", "dev8", None)


def _clear() -> None:
    for folder in (f"{FOLDER}/networks", f"{FOLDER}/state", "/run/cni", "/etc/cni/tuning"):
        if os.path.islink(folder) or not os.path.isdir(folder):
            if os.path.lexists(folder):
                os.unlink(folder)
        else:
            shutil.rmtree(folder)
    for name in ("subnet.env",):
        path = f"{FOLDER}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
