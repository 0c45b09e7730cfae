"""Hostile input: valid calls of every plugin, changed at random, and what must hold whatever comes.

A call ends with a result or with a CNI error that is no fault of the plugin's (code 999); it writes only
below the folders it was given, and in the kernel's own.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cni_plugins.multicall import MODULES, lookup
from cni_plugins.spec import skel
from cni_plugins.spec.codec import encode_pretty
from cni_plugins.spec.request import check_environment
from tests.calls import VERBS, VERSIONS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

FAULT = 999
NAMES = (
    "../../etc/passwd",
    "..",
    "a/b",
    "a\0b",
    "a\nb",
    "a\r\neth0",
    "a:b:c",
    "%s%n%d",
    "c" * 4096,
    "c" * 255,
    "ü",
    "\udc80",
    "",
    " ",
    "-rf",
    "$(reboot)",
    "eth0",
    "c1",
    "net",
    "lock",
    "last_reserved_ip.0",
    "10.1.2.3",
)
VALUES: tuple[Any, ...] = (
    *NAMES,
    None,
    True,
    False,
    0,
    -1,
    1,
    65536,
    2**31,
    2**32,
    2**63,
    2**64,
    10**40,
    0.5,
    1e308,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": None},
    "0.0.0.0/0",
    "::/0",
    "255.255.255.255/32",
    "10.1.2.0/24",
    "10.1.2.0/33",
    "10.1.2.5/31",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
    "::ffff:10.1.2.3/120",
    "::ffff:10.1.2.3/24",
    "fd00::/64",
    "02:00:00:00:00:01",
    "1.1.0",
    "99.0.0",
)
DEEP = 100_000
EXTREMES = (
    b', "x": ' + b"[" * DEEP + b"]" * DEEP,
    b', "ipam": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b', "args": ' + b"[" * 900 + b"]" * 900,
    b', "mtu": ' + b"9" * 5000,
    b', "mtu": -' + b"9" * 4000,
    b', "mtu": 1e999',
    b', "mtu": 1' + b"0" * 4000 + b".5",
    b', "mtu": NaN',
    b', "mtu": 1400, "mtu": 1300, "MTU": 1200',
    b', "name": "other", "name": "net", "type": "x", "cniVersion": "1.0.0"',
    b', "ipam": {"type": "static"}, "ipam": {"type": "host-local"}',
    b', "x": "' + b"y" * (1 << 20) + b'"',
    b', "dns": {"nameservers": [' + b'"10.1.2.1", ' * 50_000 + b'"::1"]}',
    b', "cni.dev/valid-attachments": [' + b'{"containerID": "c", "ifname": "e"}, ' * 10_000 + b"{}]",
)
"""What is put at an object's end: too deep, too large, too long, twice."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_EVENTS = {
    "os.mkdir": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
}
"""Audit events that change a folder, and which of their arguments are the paths."""
_FOLLOWING = ("os.chmod", "os.truncate", "os.utime")
_KERNELS = ("/proc/", "/sys/", "/dev/null", "/dev/net/tun")
FOLDER = "/run/fuzz"
ENV = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
ALLOWED = (f"{FOLDER}/", "/run/cni/", "/run/xtables.lock/", "/var/lib/cni/")


class Fence:
    """Notes every write of this process that is outside of some folders, while it is up."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.crossed: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open":
            if isinstance(args[2], int) and args[2] & _WRITING:
                self._look(args[0], follows=not args[2] & os.O_NOFOLLOW)
        elif event in _EVENTS:
            for index in _EVENTS[event]:
                self._look(args[index], follows=event in _FOLLOWING)

    def look(self, but: Callable[[str], bool] | None = None) -> None:
        """Demand that nothing was written outside, but for paths that may be."""
        crossed = [path for path in self.crossed if but is None or not but(path)]
        self.crossed = []
        assert not crossed, f"written outside: {crossed}"

    def _look(self, path: Any, *, follows: bool) -> None:
        allowed = self.allowed
        if isinstance(path, int) or allowed is None:
            return
        name = os.path.join("/", os.fsdecode(path))
        self.allowed = None  # what follows is no plugin's doing
        if "\0" not in name and not name.startswith(_KERNELS):
            folder, last = os.path.split(name)
            real = os.path.realpath(name) if follows else os.path.join(os.path.realpath(folder), last)
            if not f"{real}/".startswith((*allowed, *_KERNELS)):
                self.crossed.append(real)
        self.allowed = allowed


def valid(plugin: str, verb: str, folder: str, version: str) -> dict[str, Any]:
    """Return a configuration that the plugin takes; all its state is below the folder."""
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "veth1"},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/no/such"},
        ],
        "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}],
        "dns": {"nameservers": ["10.1.2.1"]},
    }
    conf: dict[str, Any] = {
        "cniVersion": version,
        "name": "net",
        "type": plugin,
        "ipMasq": False,
        "mtu": 1400,
        "mac": "02:00:00:00:00:02",
        "master": "lo",
        "vlanId": 5,
        "vrfname": "blue",
        "device": "lo",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"},
        "ingressRate": 1000000,
        "ingressBurst": 1000000,
        "gateways": ["10.1.2.1"],
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}
            ],
            "bandwidth": {"egressRate": 1000000, "egressBurst": 1000000},
            "ips": ["10.1.2.9/24"],
        },
        "args": {"cni": {"ips": ["10.1.2.9"]}},
        "dns": {"nameservers": ["10.1.2.1"], "search": ["a"]},
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.2", "gateway": "10.1.2.1"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "addresses": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}],
            "dataDir": f"{folder}/networks",
        },
        "delegate": {"type": "host-local"},
        "subnetFile": f"{folder}/subnet.env",
        "dataDir": f"{folder}/state",
        "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
    }
    if verb in ("CHECK", "DEL") or plugin in ("portmap", "tuning", "bandwidth", "sbr", "vrf", "firewall"):
        conf["prevResult"] = result
    return conf


def changed(chance: random.Random, conf: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with some of its values, keys or branches replaced; folders stay."""
    made = copy.deepcopy(conf)
    for _time in range(chance.randrange(4)):
        node: Any = made
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            keys = [key for key in keys if key not in ("dataDir", "subnetFile")]
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
                node = node[key]
                continue
            if "dataDir" not in (node[key] if isinstance(node[key], dict) else ()):
                _change(chance, node, key)
            break
    return made


def _change(chance: random.Random, node: Any, key: Any) -> None:
    what = chance.randrange(4)
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node[chance.choice((key.upper(), chance.choice(NAMES)))] = node.pop(key)
    elif what == 2 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    else:
        node[key] = copy.deepcopy(chance.choice(VALUES))


def environment(chance: random.Random, verb: str, folder: str) -> dict[str, str]:
    """Return the variables of a call, some of them hostile. No path of them leads to a namespace."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/no/such/netns",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": folder,
        "CNI_ARGS": "IgnoreUnknown=1;IP=10.1.2.7",
    }
    if chance.random() < 0.4:
        key = chance.choice(
            ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS")
        )
        env[key] = chance.choice(NAMES).replace("\0", "")  # execve(2) ends a string there
        if chance.random() < 0.2:
            del env[key]
    return env


def case(
    chance: random.Random, folder: str, plugins: tuple[str, ...] = tuple(MODULES)
) -> tuple[str, dict[str, str], bytes]:
    """Return a plugin's name, its environment and what it reads.

    The same `chance` gives the same case in every folder: the case is made for FOLDER, and the other folder's
    path is put in last, so that its length decides nothing.
    """
    plugin, verb = chance.choice(plugins), chance.choice(VERBS)
    conf = changed(chance, valid(plugin, verb, FOLDER, chance.choice(VERSIONS)))
    data = json.dumps(conf, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.02:
        data = data[:-1] + chance.choice(EXTREMES) + b"}"
    elif chance.random() < 0.05:
        at = chance.randrange(len(data))
        spoilt = data[:at] + bytes(chance.randrange(256) for _ in range(chance.randrange(4))) + data[at + 1 :]
        # A plugin writes to the folders that its configuration names, so no case may name another folder. A
        # path without the quote before FOLDER, or without the slash after it, would.
        if all(spoilt.count(word) == data.count(word) for word in (f'"{FOLDER}/'.encode(), b'"dataDir"')):
            data = spoilt
    env = {key: value.replace(FOLDER, folder) for key, value in environment(chance, verb, FOLDER).items()}
    return plugin, env, data.replace(FOLDER.encode(), json.dumps(folder)[1:-1].encode())


def make_bundle(folder: str) -> None:
    """Make names in a folder by which delegates are found that run in this process."""
    executable = f"{folder}/bundle"
    with open(executable, "x", encoding="ascii"):
        os.chmod(executable, 0o755)
    for name in MODULES:
        os.symlink(executable, f"{folder}/{name}")
    skel.register_local(executable, lookup)


def call(plugin: str, env: dict[str, str], data: bytes) -> int:
    """Do in this process what a plugin's process does; return 0 or the error's code."""
    try:
        if check_environment(env) == "VERSION":
            encode_pretty(skel.versions(data))
            return 0
        answer = skel.serve(lookup(plugin), env, skel._decode_config(data))
        encode_pretty(answer)
    except Exception as error:  # noqa: BLE001 (as the skeleton does)
        body = skel.as_cni_error(error).to_json("1.1.0")
        printed = encode_pretty(body)
        assert b"\n" in printed
        code: int = body["code"]  # type: ignore[assignment]
        assert code != FAULT, (plugin, env, data[:2000], body)
        return code
    return 0


class Calls:
    """Makes and tries calls of every plugin, in a node; delegates run in this process, as in a bundle."""

    def __init__(self) -> None:
        os.makedirs(FOLDER)
        with open(f"{FOLDER}/subnet.env", "w", encoding="ascii") as file:
            file.write(ENV)
        make_bundle(FOLDER)
        self._fence = Fence()

    def __call__(self, chance: random.Random) -> str:
        """Try a case; return the code that came, 0 for none."""
        self._fence.allowed = ALLOWED
        try:
            answer = str(call(*case(chance, FOLDER)))
        finally:
            self._fence.allowed = None
        self._fence.look()
        return answer
