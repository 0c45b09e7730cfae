from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from integration.holder import PARAMETERS, reset_parameters
from integration.node import PEER, Node
from integration.suite import ROOT
from integration.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "net",
    "bridge": "br-node",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"},
}


def wait_until_gone(pids: list[int]) -> None:
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def host() -> tuple[bytes, bytes, list[str], str]:
    def out(*command: str) -> bytes:
        return subprocess.run(command, capture_output=True, check=True).stdout

    names = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return out("ip", "-brief", "link"), out("nft", "list", "ruleset"), names, file.read()


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from integration.node import Node
node = Node()
node.netns("c1")
sleepers = [node.popen(["sleep", "1000"]), node.popen(["sleep", "1000"], "c1"),
            node.popen(["ip", "netns", "exec", "c1", "sleep", "1000"])]
node.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $! >/run/daemon"])
with open(node.path("/run/daemon")) as file:
    print(node.pid, file.read(), *[sleeper.pid for sleeper in sleepers], flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script, ROOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pids = [int(word) for word in (owner.stdout.readline() + owner.stdout.readline()).split()]
        assert len(pids) == 5
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_until_gone(pids)


def test_close_ends_what_runs_inside(node: Node) -> None:
    sleeper = node.popen(["sleep", "1000"])
    node.close()
    assert sleeper.wait() == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{node.pid}")


@pytest.mark.peer
def test_two_nodes_do_not_see_each_other_and_the_machine_sees_neither() -> None:
    """The machine is a node of this test's own, too, in which nobody else works."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from integration import namespaces
from integration.test_node import make_two_nodes
namespaces.unshare(namespaces.NEWNS | namespaces.NEWNET)
namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
namespaces.mount("machine", "/run", "tmpfs")
make_two_nodes()
"""
    subprocess.run([sys.executable, "-c", script, ROOT], check=True)


def make_two_nodes() -> None:
    before = host()
    with Node() as one, Node() as two:
        for node in (one, two):
            node.netns("c1")
            result = node.add("bridge", BRIDGE, netns="c1")
            assert result["ips"][0]["address"] == "10.77.0.2/24"
            assert "br-node" in node.links()
            assert "CNI-" in node.ruleset()
            assert os.path.exists(node.path("/var/lib/cni/networks/net/10.77.0.2"))
        one.delete("bridge", BRIDGE, netns="c1")
        assert not os.path.exists(one.path("/var/lib/cni/networks/net/10.77.0.2"))
        assert os.path.exists(two.path("/var/lib/cni/networks/net/10.77.0.2"))
        assert len(two.links()) == len(one.links()) + 1
        assert host() == before
    assert host() == before


@pytest.mark.peer
def test_a_failure_is_returned_with_its_error_object(peer_node: Node) -> None:
    status, answer = peer_node.cni("ADD", "bridge", BRIDGE, netns="/run/netns/none")
    assert status == 1
    assert "failed to open netns" in answer["msg"]


def test_files_written_inside_stay_inside(node: Node, tmp_path: Path) -> None:
    with node.entered():
        for folder in ("/etc", "/opt", "/run", "/var/lib"):
            with open(f"{folder}/node-was-here", "x", encoding="ascii"):
                pass
        assert sorted(os.listdir("/sys/class/net")) == ["lo"]
        assert os.path.isdir(tmp_path)  # temporary files are shared, to hand things in
    for folder in ("/etc", "/opt", "/run", "/var/lib"):
        assert not os.path.exists(f"{folder}/node-was-here")
        assert os.path.exists(node.path(f"{folder}/node-was-here"))


def test_entered_comes_back_to_where_it_was(node: Node) -> None:
    def place() -> list[str]:
        return [os.getcwd(), *(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net"))]

    node.netns("c1")
    before = place()
    places: list[list[str]] = []

    def fail_inside() -> None:
        with node.entered("c1"):
            places.append(place())
            raise ValueError("from the block")

    with pytest.raises(ValueError, match="from the block"):
        fail_inside()
    assert place() == before
    assert not set(places.pop()[1:]) & set(before[1:])

    def in_thread() -> None:
        with node.entered():
            places.append(place())
        places.append(place())

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert places[0] != before
    assert places[1] == before


def test_containers_namespaces(node: Node) -> None:
    assert node.netns("c1") == "/run/netns/c1"
    node.netns("c2")
    assert node.run(["ip", "netns", "list"]).stdout.split() == [b"c2", b"c1"]
    assert list(node.links("c1")) == ["lo"]
    assert node.links("c1")["lo"]["operstate"] == "DOWN"
    with pytest.raises(FileExistsError):
        node.netns("c1")
    node.remove_netns("c1")
    assert node.run(["ip", "netns", "list"]).stdout.split() == [b"c2"]


def test_peer_is_the_default_and_the_suite_is_the_fixtures(node: Node, suite_bin: str) -> None:
    assert node.plugins == suite_bin
    assert PEER == "/usr/lib/cni"


def test_what_the_machine_keeps_of_containers_is_hidden() -> None:
    """The machine is a mount namespace of the test's own, with empty folders where the machine's are."""
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from integration import namespaces
from integration.holder import HIDDEN, OVERLAID
from integration.node import Node
namespaces.unshare(namespaces.NEWNS)
namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
for folder in OVERLAID:
    namespaces.mount("machine", folder, "tmpfs")
for path in HIDDEN:
    os.makedirs(f"{path}/theirs")
with Node() as node, node.entered():
    print([path for path in HIDDEN if os.path.lexists(path)])
    for path in HIDDEN:
        os.makedirs(f"{path}/ours")
    print([path for path in HIDDEN if os.listdir(path) != ["ours"]])
print([path for path in HIDDEN if os.listdir(path) != ["theirs"]])
"""
    done = subprocess.run([sys.executable, "-c", script, ROOT], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n" * 3


def test_parameters_are_not_the_machines(node: Node) -> None:
    keys = [f"net.ipv4.{name.replace('/', '.')}" for name in PARAMETERS]
    show = ["sysctl", "-n", *keys]
    assert node.run(show).stdout == b"0\n" * len(keys)
    node.run(["sysctl", "-qw", *(f"{key}=1" for key in keys)])
    with node.entered():
        reset_parameters()
    assert node.run(show).stdout == b"0\n" * len(keys)


def test_an_overlay_is_told_from_other_file_systems(node: Node) -> None:
    """A node has one over /etc; build/overlay.py makes none where a node could make none any more."""
    look = (
        "import sys; sys.path[:0] = ['build']; import overlay; print(*map(overlay.is_overlay, sys.argv[1:]))"
    )
    done = node.run(
        ["env", f"--chdir={ROOT}", "python3", "-c", look, "/etc", "/etc/nowhere", "/proc", "/run"]
    )
    assert done.stdout == b"True True False False\n"
