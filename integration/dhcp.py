"""DHCP for tests: real servers on a network of a node's own, and daemons, ours and the reference's."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from integration.waiting import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from integration.node import Node

BRIDGE = "br0"
SERVER = "10.77.0.1"
LEASES = "/run/dnsmasq/leases"
DNSMASQ_LOG, DHCPD_LOG, DAEMON_LOG = "/run/dnsmasq/log", "/run/dhcpd/log", "/run/log/dhcp"
SOCKET = "/run/cni/dhcp.sock"
FOLDER = "/run/cni/dhcp"
DEADLINE = 15.0


def network(**keys: Any) -> dict[str, Any]:
    """Return a bridge network's configuration with addresses by DHCP; keys are the `ipam` object's."""
    return {
        "cniVersion": "1.0.0",
        "name": "net",
        "bridge": BRIDGE,
        "ipam": {"type": "dhcp", **keys},
    }


def lan(node: Node, *, bridged: bool = True) -> None:
    """Make the network: a link `lan` to the namespace `server`, whose eth0 has SERVER; and a bridge on it."""
    node.netns("server")
    node.run(["ip", "link", "add", "lan", "type", "veth", "peer", "eth0", "netns", "server"])
    if bridged:
        # With an address of its own, which does not change with its ports.
        node.run(["ip", "link", "add", BRIDGE, "up", "address", "02:00:00:00:00:77", "type", "bridge"])
        node.run(["ip", "link", "set", "lan", "master", BRIDGE])
    for name, netns in (("lan", ""), ("eth0", "server"), ("lo", "server")):
        node.run(["ip", "link", "set", name, "up"], netns=netns)
    node.exec("server", "ip", "address", "add", f"{SERVER}/24", "dev", "eth0")


def ended(process: subprocess.Popen[bytes], *, kill: bool = True) -> None:
    """End a process: at once, or by asking it to."""
    (process.kill if kill else process.terminate)()
    process.wait(DEADLINE)


@contextmanager
def dnsmasq(node: Node, *options: str, **how: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Debian's dnsmasq as a DHCP server; give its process. Keys as in `start_dnsmasq`."""
    process = start_dnsmasq(node, *options, **how)
    try:
        yield process
    finally:
        ended(process)


def start_dnsmasq(
    node: Node,
    *options: str,
    pool: str = "10.77.0.100,10.77.0.199",
    lease: str = "1h",
    said: str = DNSMASQ_LOG,
) -> subprocess.Popen[bytes]:
    """Start dnsmasq, which ends with the node at the latest; return its process when it listens."""
    os.makedirs(node.path(os.path.dirname(LEASES)), exist_ok=True)
    command = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"),
        *("--interface=eth0", "--bind-interfaces", "--no-ping", "--log-facility=-", "--log-dhcp"),
        *("--pid-file=", f"--dhcp-leasefile={LEASES}", "--dhcp-authoritative"),
        *(f"--dhcp-range={pool},255.255.255.0,{lease}", *options),
    ]
    with open(node.path(said), "ab") as file:
        process = node.popen(command, netns="server", stderr=file)
    _wait_for_server(node)
    return process


@contextmanager
def dhcpd(
    node: Node,
    *statements: str,
    lease: int = 3600,
    pool: str = "10.77.0.50 10.77.0.99",
    mask: str = "255.255.255.0",
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Debian's isc-dhcp-server, which goes on with what it has leased before; give its process."""
    os.makedirs(node.path("/run/dhcpd"), exist_ok=True)
    conf = (
        f"authoritative; ping-check false; default-lease-time {lease}; max-lease-time {lease};"
        f"min-lease-time 1; {' '.join(statements)}\n"
        f"subnet 10.77.0.0 netmask {mask} {{ range {pool}; option routers {SERVER}; }}\n"
    )
    for name, text in (("conf", conf), ("leases", "")):
        with open(
            node.path(f"/run/dhcpd/{name}"), "a" if name == "leases" else "w", encoding="ascii"
        ) as file:
            file.write(text)
    files = ("-cf", "/run/dhcpd/conf", "-lf", "/run/dhcpd/leases", "-pf", "/run/dhcpd/pid")
    with open(node.path(DHCPD_LOG), "ab") as said:
        process = node.popen(["dhcpd", "-4", "-f", "-d", *files, "eth0"], netns="server", stderr=said)
    try:
        _wait_for_server(node)
        yield process
    finally:
        ended(process)


def _wait_for_server(node: Node) -> None:
    until(lambda: b":67 " in node.run(["ss", "-lunH"], netns="server").stdout)


def leased(node: Node) -> dict[str, str]:
    """Return what dnsmasq has leased: address to client identifier, in hexadecimal with colons."""
    try:
        with open(node.path(LEASES), encoding="ascii") as file:
            return {line.split()[2]: line.split()[4] for line in file if len(line.split()) == 5}
    except FileNotFoundError:
        return {}


@contextmanager
def daemon(
    node: Node, *flags: str, plugins: str = "", socket: str = SOCKET
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dhcp daemon`, of the node's plugins or of others; the block begins when it listens."""
    process = start_daemon(node, *flags, plugins=plugins, socket=socket)
    try:
        yield process
    finally:
        ended(process)
        if os.path.lexists(node.path(socket)) and plugins:
            os.unlink(node.path(socket))  # the reference's next daemon would not start


def start_daemon(
    node: Node, *flags: str, plugins: str = "", socket: str = SOCKET, said: str = DAEMON_LOG
) -> subprocess.Popen[bytes]:
    """Start a daemon, which ends with the node at the latest; return its process when it listens."""
    os.makedirs(node.path(os.path.dirname(said)), exist_ok=True)
    with open(node.path(said), "ab") as log:
        process = node.popen([f"{plugins or node.plugins}/dhcp", "daemon", *flags], stderr=log, stdout=log)
    until(lambda: answers(node, socket))
    return process


def answers(node: Node, socket: str = SOCKET) -> bool:
    """Tell whether somebody listens on a daemon's socket."""
    done = node.run(["ss", "-lxH", "src", socket], check=False)
    return bool(done.stdout.strip())


def attach_all(node: Node, conf: dict[str, Any], *names: str) -> list[Any]:
    """Make a namespace for each name and attach all at once; return the results."""
    for name in names:
        node.netns(name)
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: node.add("bridge", conf, container=name, netns=name), names))


def log(node: Node, name: str = DAEMON_LOG) -> str:
    """Return what daemons, or dnsmasq, have said."""
    with open(node.path(name), encoding="utf-8", errors="replace") as file:
        return file.read()
