"""`python -m demo.cluster [PLUGINS] [FLANNELD]`: machines in two subnets, whose pods all talk to each other.

An underlay of two subnets with a router between them, a real etcd on the router, a daemon on each of three
machines, two pods on each by the flannel plugin. Then one machine leaves and another joins. Everything
happens in namespaces of its own. Exit status 0 when every step went as it should.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from demo.screen import Screen, StepFailedError
from integration.fleet import NETWORK, Fleet, Member, wait
from integration.monitor import Monitor
from integration.suite import ROOT

PLACES = ((1, 11), (1, 12), (2, 21))
NEWCOMER = (2, 22)
PODS = ("a", "b")
MEGABYTE = 1 << 20
CONFIG = {"Network": NETWORK, "Backend": {"Type": "vxlan", "DirectRouting": True}}
# What is switched within a subnet passes here too, where bridges call the packet filter.
ROUTED = "iifname . oifname { lan1 . lan2, lan2 . lan1 }"
VXLAN_COUNTER = f"{ROUTED} udp dport 8472 counter"
BARE_COUNTER = f"{ROUTED} ip saddr {NETWORK} ip daddr {NETWORK} counter"

SINK = """
import socket
server = socket.create_server(("", 5000))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    got = 0
    while data := connection.recv(65536):
        got += len(data)
    connection.close()
"""
SOURCE = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000), timeout=60) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""


class ClusterDemo:
    """The steps, and what they know of each other."""

    def __init__(self, fleet: Fleet, screen: Screen) -> None:
        self.fleet = fleet
        self.screen = screen
        self.left = ""
        self.monitor: Monitor | None = None

    def run(self) -> None:
        """Show everything."""
        screen, step = self.screen, self.screen.step
        screen.heading("Three machines in two subnets, a router with etcd between them")
        step("machines, cables, a router", self.lay_cables)
        screen.show("etcdctl put /coreos.com/network/config", json.dumps(CONFIG))
        screen.show("flanneld --etcd-endpoints=http://198.18.0.1:2379 --ip-masq")
        step("a daemon on each leases a subnet", lambda: self.start(*self.fleet.members))
        step("two pods on each, by the flannel plugin", lambda: self.add_pods(*self.fleet.members))

        screen.heading("Who reaches whom, and by which path")
        step("every pod pings every pod", self.ping_all)
        self.show_paths()
        step("full-size TCP between machines, 1 MiB each", self.send_all)
        step("only tunnelled packets crossed the router", self.look_at_router)

        screen.heading("What node-11 knows of node-21")
        step("a route, a neighbour and an FDB entry", self.show_entries)

        screen.heading("A machine leaves")
        step("its daemon ends: its pods still talk", self.stop_daemon)
        step("it is switched off, its lease deleted", self.leave)
        step("its routes, neighbours and FDB entries are gone", self.look_for_traces)

        screen.heading("A machine joins")
        step("node-22 leases a subnet", lambda: self.start(self.join()))
        step("two pods there", lambda: self.add_pods("node-22"))
        step("every pod pings every pod", self.ping_all)
        self.show_paths()

    def lay_cables(self) -> str:
        """Make the machines, count on the router what crosses it, listen on one to what its kernel tells."""
        for place in PLACES:
            self.fleet.join(*place)
        rules = (
            "add table inet demo",
            "add chain inet demo forward { type filter hook forward priority 0; }",
            f"add rule inet demo forward {VXLAN_COUNTER}",
            f"add rule inet demo forward {BARE_COUNTER}",
        )
        self.fleet.underlay.router.run(["nft", "-f", "-"], stdin="\n".join(rules).encode())
        self.monitor = Monitor(self.fleet.members["node-11"].node)
        return ", ".join(f"{name} {member.address}" for name, member in self.fleet.members.items())

    def join(self) -> str:
        """Switch the newcomer on."""
        self.fleet.join(*NEWCOMER)
        return f"node-{NEWCOMER[1]}"

    def start(self, *names: str) -> str:
        """Start daemons, and wait until each machine knows all the others."""
        members = [self.fleet.members[name] for name in names]
        self.fleet.start(*members)
        others = len(self.fleet.members) - 1
        for member in self.fleet.members.values():
            wait(partial(_knows, member, others))
        return ", ".join(f"{name} {subnet_of(self.fleet.members[name])}" for name in names)

    def add_pods(self, *names: str) -> str:
        """Attach the pods of some machines, with a server in the first."""
        for name in names:
            for letter in PODS:
                self.fleet.members[name].add_pod(f"{name.removeprefix('node-')}{letter}")
        return ", ".join(f"{pod} {ip}" for name in names for pod, ip in self.fleet.members[name].pods.items())

    def ping_all(self) -> str:
        """Ping from every pod to every other."""
        pairs = [(source, target) for source in self.pods() for target in self.pods() if source != target]
        with ThreadPoolExecutor(8) as threads:
            lost = [pair for pair, came in zip(pairs, threads.map(self.ping, pairs), strict=True) if not came]
        if lost:
            raise StepFailedError("\n".join(f"{source} does not reach {target}" for source, target in lost))
        return f"{len(pairs)} of {len(pairs)}"

    def ping(self, pair: tuple[str, str]) -> bool:
        """Ping from pod to pod with the largest packet that fits the pods' MTU, unfragmented."""
        source, target = pair
        member = self.member_of(source)
        size = int(member.subnet_env()["FLANNEL_MTU"]) - 28
        command = ["ping", "-c", "1", "-W", "5", "-M", "do", "-s", str(size), self.pods()[target]]
        return member.node.run(command, netns=source, check=False).returncode == 0

    def show_paths(self) -> None:
        """Print by which path each machine's packets go to each other's pods, as its kernel says."""
        names = list(self.fleet.members)
        rows = [["from \\ to", *names]]
        for name, member in self.fleet.members.items():
            rows.append([name, *(path(member, self.fleet.members[other]) for other in names)])
        self.screen.table(rows)

    def send_all(self) -> str:
        """Send a megabyte between the first pods of each two machines."""
        first = {name: next(iter(member.pods.items())) for name, member in self.fleet.members.items()}
        for name, (pod, _ip) in first.items():
            sink = self.fleet.members[name].node.popen(
                [sys.executable, "-ISuc", SINK], pod, stdout=subprocess.PIPE
            )
            assert sink.stdout is not None
            with sink.stdout as output:
                output.readline()
        sizes = set()
        for name, (pod, _ip) in first.items():
            for other, (_pod, ip) in first.items():
                if name != other:
                    command = [sys.executable, "-ISc", SOURCE, ip, str(MEGABYTE)]
                    done = self.fleet.members[name].node.run(command, netns=pod)
                    sizes.add(int(done.stdout))
        if len(sizes) != 1:
            raise StepFailedError(f"segments of {sizes} bytes")
        return f"segments of {sizes.pop()} bytes"

    def look_at_router(self) -> str:
        """Demand that pods' packets crossed the router in tunnels alone."""
        listed = self.fleet.underlay.router.run(["nft", "--json", "list", "chain", "inet", "demo", "forward"])
        counters = [
            part["counter"]["packets"]
            for item in json.loads(listed.stdout)["nftables"]
            for part in item.get("rule", {}).get("expr", [])
            if "counter" in part
        ]
        tunnelled, bare = counters
        if bare or not tunnelled:
            raise StepFailedError(f"{tunnelled} tunnelled, {bare} bare")
        return f"{tunnelled} tunnelled, {bare} bare"

    def show_entries(self) -> str:
        """Show the three entries that make a way through the tunnel, in the order of the kernel's notices."""
        one, other = self.fleet.members["node-11"], self.fleet.members["node-21"]
        gateway = subnet_of(other).partition("/")[0]
        route = one.node.run(["ip", "route", "show", subnet_of(other)]).stdout.decode().strip()
        neighbour = one.node.run(["ip", "neigh", "show", gateway, "dev", "flannel.1"]).stdout.decode().strip()
        mac = neighbour.split("lladdr ")[1].split()[0]
        fdb = one.node.run(["bridge", "fdb", "show", "dev", "flannel.1"]).stdout.decode().splitlines()
        entry = next(line.strip() for line in fdb if line.startswith(mac))
        self.screen.show(f"ip route show {subnet_of(other)}", route)
        self.screen.show(f"ip neigh show {gateway} dev flannel.1", neighbour)
        self.screen.show("bridge fdb show dev flannel.1", entry)
        if "permanent" not in neighbour.lower() or f"dst {other.address}" not in entry:
            raise StepFailedError("they are not what they should be")
        assert self.monitor is not None
        with self.monitor:
            order = self.monitor.take("flannel.1")
        if order != ["route", "neighbour", "fdb"]:
            raise StepFailedError(f"they were written in the order {', '.join(order)}")
        return "written in the order route, neighbour, FDB"

    def stop_daemon(self) -> str:
        """End a daemon and look whether pods still talk."""
        status = self.fleet.members["node-12"].stop()
        said = self.ping_all()
        if status:
            raise StepFailedError(f"it ended with status {status}")
        return said

    def leave(self) -> str:
        """Switch a machine off and delete its lease."""
        self.left = subnet_of(self.fleet.members["node-12"])
        self.fleet.leave("node-12")
        return f"node-12, {self.left}"

    def look_for_traces(self) -> str:
        """Wait until nobody knows of the machine that left."""
        gateway = self.left.partition("/")[0]
        for member in self.fleet.members.values():
            wait(partial(_forgot, member, gateway))
        return "on every other machine"

    def pods(self) -> dict[str, str]:
        """Return every pod's address."""
        return {pod: ip for member in self.fleet.members.values() for pod, ip in member.pods.items()}

    def member_of(self, pod: str) -> Member:
        """Return the machine a pod is on."""
        return next(member for member in self.fleet.members.values() if pod in member.pods)


def subnet_of(member: Member) -> str:
    """Return a machine's subnet."""
    return member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")


def path(member: Member, other: Member) -> str:
    """Return by which path a machine's packets go to another's pods, as its kernel says."""
    if not other.pods:
        return "none"  # an earlier step failed, and said so
    (route,) = member.ip("route", "get", next(iter(other.pods.values())))
    device = route["dev"]
    if device == "cni0":
        return "bridge"
    return f"direct, {route['gateway']}" if device == "uplink" else f"vxlan, {device}"


def _knows(member: Member, others: int) -> bool:
    return f"flanneld_leases {others}\n" in member.get("/metrics")


def _forgot(member: Member, gateway: str) -> bool:
    routes = [route for route in member.ip("route") if route["dst"].startswith(f"{gateway}/")]
    return not routes and not member.ip("neigh", "show", gateway)


def main() -> int:
    """Return 0 when every step succeeded."""
    plugins = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else f"{ROOT}/dist/cni")
    daemon = sys.argv[2] if len(sys.argv) > 2 else f"{ROOT}/dist/flanneld/flanneld"
    for program in (f"{plugins}/flannel", daemon):
        if not os.access(program, os.X_OK):
            sys.stderr.write(f"demo: there is no {program}; `make demo-cluster` builds it\n")
            return 1
    os.environ["FLANNELD"] = daemon
    if os.geteuid() != 0:
        sys.stderr.write("demo: only root can make network namespaces\n")
        return 1
    screen = Screen(sys.stdout)
    began = perf_counter()
    with Fleet(plugins, CONFIG) as fleet:
        ClusterDemo(fleet, screen).run()
    screen.summary(perf_counter() - began)
    return 1 if screen.failures else 0


if __name__ == "__main__":
    sys.exit(main())
