"""cnictl doctor: each thing broken for real is found, and repaired where that is safe."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import outside
from integration.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.node import Node

LISTS = "/etc/cni/net.d"
STATE = "/var/lib/cni/networks/pods"
BRIDGE = {
    "type": "bridge",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.59.0.0/24"}]]},
}
OLD = 600.0
FILTER4, FILTER6 = "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"
SETTINGS = f"net.ipv4.ip_forward net.ipv6.conf.all.forwarding {FILTER4} {FILTER6}"
COMMAND = re.compile(r"`(cnictl|ip|iptables|kubectl|make|nft) [^`]+`")
SUBNET_ENV = """\
FLANNEL_NETWORK=10.60.0.0/16
FLANNEL_SUBNET=10.60.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""


def write_list(node: Node, *plugins: dict[str, Any], name: str = "pods", version: str = "1.1.0") -> None:
    os.makedirs(node.path(LISTS), exist_ok=True)
    with open(node.path(f"{LISTS}/10-{name}.conflist"), "w", encoding="utf-8") as file:
        json.dump({"cniVersion": version, "name": name, "plugins": plugins}, file)


def cnictl(node: Node, *arguments: str) -> tuple[int, str]:
    env = {"NETCONFPATH": LISTS, "CNI_PATH": node.plugins}
    if arguments[0] == "add":
        env["CAP_ARGS"] = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80}]})
    done = node.run([f"{node.plugins}/cnictl", *arguments], env, check=False)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.stdout or "--json" not in arguments, done.stderr
    return done.returncode, done.stdout.decode()


def doctor(node: Node, *options: str) -> list[dict[str, Any]]:
    status, text = cnictl(node, "doctor", "--json", *options)
    found: list[dict[str, Any]] = json.loads(text)
    assert status == any(each["severity"] != "info" for each in found)
    return found


def state(node: Node) -> dict[str, Any]:
    """Return what a repair could change: each file with its time, the rules, the bridge, some settings."""
    found: dict[str, Any] = {}
    for top in ("/etc/cni", "/var/lib/cni", "/run/cni", "/run/flannel"):
        for folder, _folders, names in os.walk(node.path(top)):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                status = os.lstat(path)
                found[path] = status.st_mode, status.st_size, status.st_mtime_ns, _content(path)
    for line in ("nft --stateless list ruleset", "ip address show br0", "ip rule", f"sysctl {SETTINGS}"):
        found[line] = node.run(line.split()).stdout
    return found


def _content(path: str) -> bytes:
    if os.path.islink(path) or not os.path.isfile(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


def checks(found: list[dict[str, Any]]) -> set[str]:
    return {each["check"] for each in found}


@pytest.fixture
def net(node: Node) -> Node:
    """A node with an uplink, and a pod on a bridge."""
    outside(node)
    node.run(["ip", "route", "add", "default", "via", "192.0.2.2"])
    write_list(node, BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}})
    node.netns("c1")
    assert cnictl(node, "add", "pods", "/run/netns/c1", "--container-id", "c1")[0] == 0
    return node


def put(node: Node, path: str, text: str = "", *, age: float = OLD) -> None:
    os.makedirs(os.path.dirname(node.path(path)), exist_ok=True)
    with open(node.path(path), "w", encoding="utf-8") as file:
        file.write(text)
    then = os.stat(node.path(path)).st_mtime - age
    os.utime(node.path(path), (then, then))


def ip(*words: str) -> Callable[[Node], None]:
    def change(node: Node) -> None:
        node.run(["ip", *words])

    return change


def leak_an_address(node: Node) -> None:
    put(node, f"{STATE}/10.59.0.9", "gone\r\neth0")


def leave_an_empty_file(node: Node) -> None:
    put(node, f"{STATE}/10.59.0.9")


def lose_a_namespace(node: Node) -> None:
    node.netns("c2")
    assert cnictl(node, "add", "pods", "/run/netns/c2", "--container-id", "c2")[0] == 0
    node.remove_netns("c2")
    os.utime(node.path(f"{STATE}/10.59.0.3"), (0, 0))
    age_notes(node)


def age_notes(node: Node) -> None:
    """Make what is kept below /run/cni older than an ADD takes."""
    for folder, _folders, names in os.walk(node.path("/run/cni")):
        for name in names:
            os.utime(os.path.join(folder, name), (0, 0))


def forget_an_attachment(node: Node) -> None:
    """Its namespace stays, but neither the runtime nor host-local knows of it."""
    lose_a_namespace(node)
    os.unlink(node.path("/var/lib/cni/results/pods-c2-eth0"))
    os.unlink(node.path(f"{STATE}/10.59.0.3"))


def strand_a_pair(node: Node) -> None:
    node.run(["ip", "link", "add", "veth0000cafe", "type", "veth", "peer", "name", "other"])
    node.run(["ip", "link", "set", "veth0000cafe", "alias", "pods:gone:eth0"])


def note_an_attachment(node: Node) -> None:
    put(node, "/run/cni/portmap/pods:gone:eth0")
    put(node, "/run/cni/portmap/pods:young:eth0", age=0)
    put(node, "/run/cni/portmap/others:gone:eth0")


def stop_forwarding(node: Node) -> None:
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])


REPAIRED: dict[str, tuple[Callable[[Node], None], str]] = {
    "leaked-address": (leak_an_address, "rm /var/lib/cni/networks/pods/10.59.0.9"),
    "empty-reservation": (leave_an_empty_file, "rm /var/lib/cni/networks/pods/10.59.0.9"),
    "attachment": (
        lose_a_namespace,
        "cnictl del pods /run/netns/c2 --container-id c2 --ifname eth0",
    ),
    "stale-rule stale-note": (forget_an_attachment, "nft delete rule"),
    "stale-note": (
        note_an_attachment,
        "cnictl del pods /gone --container-id gone --ifname eth0",
    ),
    "stale-link": (strand_a_pair, "ip link delete veth0000cafe"),
    "forwarding": (stop_forwarding, "sysctl -w net.ipv4.ip_forward=1"),
    "bridge-address": (
        ip("address", "delete", "10.59.0.1/24", "dev", "br0"),
        "ip address add 10.59.0.1/24 dev br0",
    ),
    "bridge-down": (ip("link", "set", "br0", "down"), "ip link set br0 up"),
}


@pytest.mark.parametrize("check", REPAIRED)
def test_what_is_safe_is_repaired(net: Node, check: str) -> None:
    assert doctor(net) == []
    breaks, command = REPAIRED[check]
    breaks(net)
    before = state(net)
    found = doctor(net)
    assert state(net) == before
    assert checks(found) == set(check.split()), found
    assert all(each["safe"] for each in found)
    assert any(line.startswith(command) for each in found for line in each["repair"]), found
    assert doctor(net, "--fix") == []
    assert doctor(net) == []
    assert "eth0" in net.links("c1")
    assert cnictl(net, "check", "pods", "/run/netns/c1", "--container-id", "c1")[0] == 0


def replace_the_address(node: Node) -> None:
    node.run(["ip", "address", "delete", "10.59.0.1/24", "dev", "br0"])
    node.run(["ip", "address", "add", "10.99.0.1/24", "dev", "br0"])


def forget_a_plugin(node: Node) -> None:
    write_list(node, BRIDGE, {"type": "no-such"})


def shrink_the_range(node: Node) -> None:
    ranges = [[{"subnet": "10.59.0.0/24", "rangeEnd": "10.59.0.3"}]]
    write_list(node, {**BRIDGE, "ipam": {"type": "host-local", "ranges": ranges}})
    for address in ("10.59.0.3",):
        put(node, f"{STATE}/{address}", "young\r\neth0", age=0)


def overlap_a_list(node: Node) -> None:
    write_list(node, {**BRIDGE, "bridge": "br1"}, name="other")


def run_in_a_container(node: Node) -> None:
    """The node's uplink is a macvlan that our plugin made, of the network that the node is in."""
    for command in (
        "link add link uplink name eth0 type macvlan mode bridge",
        "link set eth0 up alias machines:node1:eth0",
        "address add 10.59.0.200/25 dev eth0",
    ):
        node.run(["ip", *command.split()])


def filter_by_nftables_alone(node: Node) -> None:
    write_list(node, BRIDGE, {"type": "firewall", "backend": "nftables"})
    assert doctor(node) == []
    node.run(["iptables", "-P", "FORWARD", "DROP"])


def leave_a_dead_pair(node: Node) -> None:
    node.run(["ip", "link", "add", "veth0dead", "type", "veth", "peer", "name", "other"])
    node.run(["ip", "link", "set", "veth0dead", "master", "br0", "up"])


def nearly_fill_the_range(node: Node) -> None:
    for last in range(3, 240):
        put(node, f"{STATE}/10.59.0.{last}", f"young{last}\r\neth0", age=0)


def wait_for_flanneld(node: Node) -> None:
    write_list(node, {"type": "flannel"}, name="flannel")


def wait_for_the_rest_of_subnet_env(node: Node) -> None:
    wait_for_flanneld(node)
    put(node, "/run/flannel/subnet.env", "".join(SUBNET_ENV.splitlines(keepends=True)[:2]))


def name_a_master_that_is_missing(node: Node) -> None:
    write_list(node, {"type": "macvlan", "master": "nope"}, name="lan")


def name_it_in_an_older_version(node: Node) -> None:
    write_list(node, {"type": "macvlan", "master": "nope"}, name="lan", version="0.4.0")


def give_a_port_to_two(node: Node) -> None:
    node.netns("c2")
    assert cnictl(node, "add", "pods", "/run/netns/c2", "--container-id", "c2")[0] == 0


def damage_a_result(node: Node) -> None:
    put(node, "/var/lib/cni/results/pods-c9-eth0", "{")


TOLD: dict[str, tuple[Callable[[Node], None], str, str]] = {
    "wrong address": (replace_the_address, "bridge-address", "it has 10.99.0.1/24"),
    "plugin missing": (forget_a_plugin, "lists", "no-such"),
    "range full": (shrink_the_range, "range", "0 of 2 addresses"),
    "range nearly full": (nearly_fill_the_range, "range", "15 of 253 addresses"),
    "dead pair": (leave_a_dead_pair, "dead-veth", "veth0dead on bridge br0 has no working other end"),
    "same subnet": (overlap_a_list, "lists", "overlaps 10.59.0.0/24"),
    "subnet of the host": (
        ip("address", "add", "10.59.0.200/25", "dev", "uplink"),
        "conflict",
        "which the host has on uplink",
    ),
    "subnet of a host in a container": (run_in_a_container, "conflict", "which the host has on eth0"),
    "MTU": (ip("link", "set", "uplink", "mtu", "1400"), "mtu", "uplink only 1400"),
    "dropped by iptables": (filter_by_nftables_alone, "forward-policy", "nftables cannot change that"),
    "no daemon": (wait_for_flanneld, "subnet-file", "/run/flannel/subnet.env: there is no such file"),
    "half a subnet.env": (wait_for_the_rest_of_subnet_env, "subnet-file", "has no FLANNEL_MTU"),
    "no master": (name_a_master_that_is_missing, "status", "failed to look up master 'nope'"),
    "no master, no STATUS": (name_it_in_an_older_version, "status", "failed to look up master 'nope'"),
    "a port twice": (
        give_a_port_to_two,
        "host-port",
        "is forwarded to 10.59.0.3 and to 10.59.0.2, which gets",
    ),
    "a damaged result": (damage_a_result, "damaged-result", "results/pods-c9-eth0 is damaged"),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_an_administrator_must_decide_is_told(net: Node, what: str) -> None:
    breaks, check, says = TOLD[what]
    breaks(net)
    found = doctor(net)
    (told,) = [each for each in found if each["check"] == check]
    assert says in told["text"]
    assert not told["safe"]
    assert told["repair"] or COMMAND.search(told["advice"]), told
    assert doctor(net, "--fix") == found


BOTH = {
    **BRIDGE,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.59.0.0/24"}], [{"subnet": "fd77::/64"}]]},
}


@pytest.mark.parametrize(("key", "bridge"), [(FILTER4, BRIDGE), (FILTER6, BOTH)])
def test_packets_that_pass_no_filter(net: Node, key: str, bridge: dict[str, Any]) -> None:
    net.run(["ip", "address", "add", "fd77::1/64", "dev", "br0"])
    net.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])
    write_list(net, bridge, {"type": "firewall", "ingressPolicy": "isolated"})
    assert doctor(net) == []
    net.run(["sysctl", "-qw", f"{key}=0"])
    (found,) = doctor(net)
    assert (found["check"], found["severity"]) == ("bridge-netfilter", "error")
    assert found["repair"] == [f"sysctl -w {key}=1"]
    assert doctor(net, "--fix") == []


def test_packets_of_another_family_need_no_filter(net: Node) -> None:
    write_list(net, BRIDGE, {"type": "firewall", "ingressPolicy": "isolated"})
    net.run(["sysctl", "-qw", f"{FILTER6}=0"])
    assert doctor(net) == []


def test_services_between_pods_of_a_bridge(net: Node) -> None:
    """A node need not be one of Kubernetes: with flannel it is."""
    net.run(["sysctl", "-qw", f"{FILTER4}=0"])
    (found,) = doctor(net, "--fix")
    assert (found["check"], found["severity"]) == ("bridge-services", "info")
    assert (found["repair"], found["safe"]) == ([f"sysctl -w {FILTER4}=1"], False)
    status, text = cnictl(net, "doctor")
    assert (status, text.splitlines()[-1]) == (0, "nothing is wrong")
    put(net, "/run/flannel/subnet.env", "FLANNEL_SUBNET=10.60.1.1/24\nFLANNEL_NETWORK=10.60.0.0/16\n")
    write_list(net, {"type": "flannel"}, name="flannel")
    (found,) = [each for each in doctor(net) if each["check"] == "bridge-services"]
    assert (found["network"], found["severity"]) == ("flannel", "warning")


def test_a_broken_list_does_not_hide_the_others(net: Node) -> None:
    put(net, f"{LISTS}/05-broken.conflist", '{"name": "broken", ')
    put(net, f"{LISTS}/06-broken.conf", '{"name": "broken"}')
    leak_an_address(net)
    found = doctor(net)
    assert checks(found) == {"lists", "leaked-address"}
    told = [each["text"] for each in found if each["check"] == "lists"]
    assert any("05-broken.conflist" in text for text in told)
    assert checks(doctor(net, "--fix")) == {"lists"}


def test_plugins_that_are_not_installed(net: Node) -> None:
    env = {"NETCONFPATH": LISTS, "CNI_PATH": "/opt/cni/none"}
    done = net.run([f"{net.plugins}/cnictl", "doctor", "--json"], env, check=False)
    said = f"{LISTS}/10-pods.conflist:1: no plugin 'portmap' in /opt/cni/none"
    (told,) = [each for each in json.loads(done.stdout) if each["text"] == said]
    assert told["advice"].startswith("`make install BINDIR=/opt/cni/none`")


def test_scratch_files_of_flannel(net: Node) -> None:
    put(net, "/run/flannel/subnet.env", SUBNET_ENV)
    write_list(net, {"type": "flannel"}, name="flannel")
    path = "/var/lib/cni/flannel/gone"
    put(net, path, json.dumps({"name": "flannel", "type": "bridge"}))
    put(net, "/var/lib/cni/flannel/young", json.dumps({"name": "flannel", "type": "bridge"}), age=0)
    put(net, "/var/lib/cni/flannel/other", json.dumps({"name": "theirs", "type": "bridge"}))
    (found,) = doctor(net)
    assert (found["check"], found["repair"]) == ("stale-scratch", [f"rm {path}"])
    assert doctor(net, "--fix") == []
    assert sorted(os.listdir(net.path("/var/lib/cni/flannel"))) == ["other", "young"]


def test_an_address_that_somebody_has_is_not_leaked(net: Node) -> None:
    """Another runtime, with a cache elsewhere, attached the pod."""
    path = net.path(f"{STATE}/10.59.0.2")
    os.utime(path, (0, 0))
    os.unlink(net.path("/var/lib/cni/results/pods-c1-eth0"))
    assert doctor(net) == []


def test_an_add_that_waits_is_no_leftover(net: Node) -> None:
    """It has made its pair, and waits for an address longer than the doctor takes."""
    net.netns("c2")
    before = len(net.links())
    locked = net.popen(["flock", "--no-fork", f"{STATE}/lock", "sleep", "600"])
    until(lambda: net.run(["flock", "-n", f"{STATE}/lock", "true"], check=False).returncode != 0)
    env = {"NETCONFPATH": LISTS, "CNI_PATH": net.plugins}
    adding = net.popen(
        [f"{net.plugins}/cnictl", "add", "pods", "/run/netns/c2", "--container-id", "c2"],
        env=env,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(net.links()) > before)
    assert doctor(net, "--fix") == []
    locked.kill()
    assert adding.wait(PATIENCE) == 0


def test_in_words(net: Node) -> None:
    assert cnictl(net, "doctor") == (0, "nothing is wrong\n")
    leak_an_address(net)
    status, text = cnictl(net, "doctor")
    assert status == 1
    assert text.splitlines() == [
        "warning: network pods: address 10.59.0.9 is reserved for container gone, which is gone",
        f"    rm {STATE}/10.59.0.9",
        "0 errors, 1 warning",
    ]
