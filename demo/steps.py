"""The demo's steps: a node with two pods, from ADD to nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from demo.screen import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.screen import Screen
    from integration.node import Node

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NETWORK = "cbr0"
CONFLIST = f"{ROOT}/conflist/examples/10-flannel.conflist"
SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
MACHINE, OUTSIDE = "192.0.2.1", "192.0.2.100"
PODS = ("pod-a", "pod-b")
POD_PORT, HOST_PORT, OUTSIDE_PORT = 80, 8080, 9000

SERVER = """
import socket, sys
name, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("", port))
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(f"{name} {peer[0]}".encode())
    connection.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as connection:
    print(connection.recv(100).decode())
"""


class Demo:
    """The steps, and what they know of each other."""

    def __init__(self, node: Node, plugins: str, screen: Screen) -> None:
        self.node = node
        self.screen = screen
        self.env = {"CNI_PATH": plugins, "NETCONFPATH": "/run/demo"}
        self.cnictl = f"{plugins}/cnictl"
        self.address: dict[str, str] = {}

    def run(self) -> None:
        """Show everything."""
        screen, step = self.screen, self.screen.step
        screen.heading("A machine, a host outside, two pods")
        step("namespaces and an uplink", self.lay_cables)
        screen.show("cat /run/flannel/subnet.env", SUBNET_ENV)
        step("flanneld's file and the network's list", self.configure)
        self.command("the list has no mistake", "lint", f"/run/demo/{os.path.basename(CONFLIST)}")

        screen.heading("ADD")
        for pod in PODS:
            self.add(pod)
        step("a server in each pod, and one outside", self.serve)

        screen.heading("Traffic")
        a, b = PODS
        step("pod-a reaches pod-b", lambda: self.talk_to_pod(a, b))
        step("pod-b reaches pod-a", lambda: self.talk_to_pod(b, a))
        step("pod-a reaches itself by the host port", lambda: self.talk(a, MACHINE, HOST_PORT, a))
        step("pod-b reaches pod-a by the host port", lambda: self.talk(b, MACHINE, HOST_PORT, a))
        step("the machine reaches pod-a by localhost", lambda: self.talk("", "127.0.0.1", HOST_PORT, a))
        step(
            "the host outside reaches pod-a by the host port",
            lambda: self.talk("outside", MACHINE, HOST_PORT, a, OUTSIDE),
        )
        step(
            "pod-b reaches the host outside, as the machine",
            lambda: self.talk(b, OUTSIDE, OUTSIDE_PORT, "outside", MACHINE),
        )

        screen.heading("CHECK")
        self.command("nothing has changed", "check", NETWORK, "/run/netns/pod-a")
        route = ("default", "via", "10.244.1.1", "dev", "eth0")
        self.by_hand("a route is deleted by hand", "ip", "route", "del", *route)
        self.command("CHECK finds it", "check", NETWORK, "/run/netns/pod-a", fails=True)
        self.by_hand("the route is put back", "ip", "route", "add", *route)
        self.command("CHECK passes again", "check", NETWORK, "/run/netns/pod-a")

        screen.heading("DEL")
        traces = {
            "no interface left in the pods": self.pod_interfaces,
            "no pod's link left on the machine": self.host_links,
            "no rule left that names a pod": self.rules,
            "no address held, no scratch or cache file left": self.files,
        }
        before = {what: len(look()) for what, look in traces.items()}
        for pod in PODS:
            self.command(
                f"{pod} detached", "del", NETWORK, f"/run/netns/{pod}", capabilities=self.mapping(pod)
            )
        for what, look in traces.items():
            step(what, partial(self.gone, look, before[what]))

    def lay_cables(self) -> str:
        """Make the machine's uplink and the host outside."""
        for name in (*PODS, "outside"):
            self.node.netns(name)
        for line in (
            "ip link add uplink type veth peer name eth0 netns outside",
            f"ip address add {MACHINE}/24 dev uplink",
            "ip link set uplink up",
        ):
            self.node.run(line.split())
        self.node.exec("outside", *f"ip address add {OUTSIDE}/24 dev eth0".split())
        self.node.exec("outside", *["ip", "link", "set", "eth0", "up"])
        return f"machine {MACHINE}, outside {OUTSIDE}"

    def configure(self) -> str:
        """Put the two files in place that an administrator and flanneld would write."""
        with open(CONFLIST, encoding="utf-8") as file:
            conflist = file.read()
        files = {"/run/flannel/subnet.env": SUBNET_ENV, f"/run/demo/{os.path.basename(CONFLIST)}": conflist}
        with self.node.entered():
            for path, content in files.items():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(content)
        return ", ".join(plugin["type"] for plugin in json.loads(conflist)["plugins"])

    def add(self, pod: str) -> None:
        """Attach a pod and keep its address."""
        capabilities = self.mapping(pod)

        def keep(output: str) -> str:
            result = json.loads(output)
            address: str = result["ips"][0]["address"]
            self.address[pod] = address.partition("/")[0]
            port = f", host port {HOST_PORT}" if capabilities else ""
            return f"{address} via {result['ips'][0]['gateway']}{port}"

        self.command(
            f"{pod} attached", "add", NETWORK, f"/run/netns/{pod}", capabilities=capabilities, read=keep
        )

    def mapping(self, pod: str) -> dict[str, Any]:
        """Return the capability arguments of a pod: the first one has a host port."""
        if pod != PODS[0]:
            return {}
        return {"portMappings": [{"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"}]}

    def command(
        self,
        what: str,
        *arguments: str,
        capabilities: dict[str, Any] | None = None,
        fails: bool = False,
        read: Callable[[str], str] = lambda _output: "",
    ) -> None:
        """Show a cnictl command and run it as a step."""
        shown = f"CAP_ARGS='{json.dumps(capabilities)}' " if capabilities else ""
        self.screen.show(f"{shown}cnictl {' '.join(arguments)}")
        env = {**self.env, "CAP_ARGS": json.dumps(capabilities) if capabilities else ""}

        def act() -> str:
            done = self.node.run([self.cnictl, *arguments], env, check=False)
            output, complaint = done.stdout.decode(), done.stderr.decode().strip()
            if fails and done.returncode:
                return complaint.splitlines()[0].removeprefix("cnictl: ")
            if fails or done.returncode:
                raise StepFailedError(complaint or f"exit status {done.returncode}: {output}")
            return read(output)

        self.screen.step(what, act)

    def by_hand(self, what: str, *command: str) -> None:
        """Run a program in the first pod, as an administrator would, as a step."""
        self.screen.show(f"ip netns exec {PODS[0]} {' '.join(command)}")
        self.screen.step(what, lambda: self.node.exec(PODS[0], *command))

    def serve(self) -> str:
        """Start the servers, which tell each client what its address looks like."""
        for name, port in ((PODS[0], POD_PORT), (PODS[1], POD_PORT), ("outside", OUTSIDE_PORT)):
            server = self.node.popen(
                [sys.executable, "-ISuc", SERVER, name, str(port)], name, stdout=subprocess.PIPE
            )
            assert server.stdout is not None
            with server.stdout as output:
                if output.readline() != b"ready\n":
                    raise StepFailedError(f"the server in {name} did not start")
        return "each tells a client its name and the address it saw"

    def talk_to_pod(self, source: str, target: str) -> str:
        """Connect from pod to pod; no address may be rewritten on the way."""
        if not self.address.keys() >= {source, target}:
            raise StepFailedError("one of them has no address")
        return self.talk(source, self.address[target], POD_PORT, target, self.address[source])

    def talk(self, source: str, host: str, port: int, expected: str, seen_as: str = "") -> str:
        """Connect; demand an answer of the right server, and the source address it must have seen."""
        client = [sys.executable, "-ISc", CLIENT, host, str(port)]
        done = self.node.run(client, netns=source, check=False)
        if done.returncode:
            raise StepFailedError(done.stderr.decode().strip().splitlines()[-1])
        name, peer = done.stdout.decode().split()
        if name != expected or (seen_as and peer != seen_as):
            raise StepFailedError(f"{name} answered and saw {peer}; expected {expected}, {seen_as or 'any'}")
        return f"{host}:{port} → {name}, which saw {peer}"

    def pod_interfaces(self) -> list[str]:
        """List what ADD made inside the pods."""
        return [f"{name} in {pod}" for pod in PODS for name in self.node.links(pod) if name != "lo"]

    def host_links(self) -> list[str]:
        """List the host ends; the bridge stays, as it does with the reference."""
        return [name for name in self.node.links() if name not in ("lo", "uplink", "cni0")]

    def rules(self) -> list[str]:
        """List what the packet filter has for the pods; chains stay, for the next pod."""
        marks = (*self.address.values(), "cnitool-")
        lines = self.node.ruleset().splitlines()
        return [line.strip() for line in lines if any(mark in line for mark in marks)]

    def files(self) -> list[str]:
        """List what host-local, flannel and cnictl keep of attachments; empty lock files stay."""
        found = []
        with self.node.entered():
            for folder, _, names in os.walk("/var/lib/cni"):
                in_network = folder.startswith("/var/lib/cni/networks/")
                kept = (name for name in names if not name.endswith(".lock"))
                found += [f"{folder}/{name}" for name in kept if name[0].isdigit() or not in_network]
        return found

    @staticmethod
    def gone(look: Callable[[], list[str]], before: int) -> str:
        """Raise if something is left, or if there had been nothing to look for."""
        left = look()
        if left or not before:
            raise StepFailedError(f"left: {', '.join(left)}" if left else "there was none before DEL either")
        return f"{before} before"
