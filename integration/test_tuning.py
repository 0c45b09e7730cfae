"""tuning: what the kernel says of a container's parameters and interface, before, between and after."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, check, files, pods, refusal, unmount_netns
from integration.node import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.node import Node

MAC = "c2:11:22:33:44:55"
ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
STASH = "/run/cni/tuning/c1_eth0.json"
FORWARD = "net.ipv4.conf.IFNAME.forwarding"


def tuning(result: Any, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "prevResult": result, **keys}


def look(node: Node, netns: str = "c1") -> dict[str, Any]:
    """Return the properties of a container's interface, by the keys that tuning has for them."""
    link = node.links(netns)["eth0"]
    return {
        "mac": link["address"],
        "mtu": link["mtu"],
        "promisc": "PROMISC" in link["flags"],
        "allmulti": "ALLMULTI" in link["flags"],
        "txQLen": link.get("txqlen", 0),  # ip leaves out a 0
    }


def read(node: Node, key: str, netns: str = "c1") -> str:
    return node.exec(netns, "cat", f"/proc/sys/{key}").strip()


def stash(node: Node, path: str = STASH) -> Any:
    with open(node.path(path), encoding="ascii") as file:
        return json.load(file)


def allow(node: Node, *lines: str) -> None:
    with node.entered():
        os.makedirs(os.path.dirname(ALLOWLIST), exist_ok=True)
        with open(ALLOWLIST, "w", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))


PROPERTIES: dict[str, Any] = {
    "mac": MAC,
    "mtu": 1400,
    "promisc": True,
    "allmulti": True,
    "txQLen": 500,
}
DIFFERENT: dict[str, list[str]] = {
    "mac": ["ip", "link", "set", "eth0", "address", "c2:00:00:00:00:01"],
    "mtu": ["ip", "link", "set", "eth0", "mtu", "1399"],
    "promisc": ["ip", "link", "set", "eth0", "promisc", "off"],
    "allmulti": ["ip", "link", "set", "eth0", "allmulticast", "off"],
    "txQLen": ["ip", "link", "set", "eth0", "txqueuelen", "501"],
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_is_set_checked_and_put_back(node: Node, pod: Any, name: str) -> None:
    before = look(node)
    assert before[name] != PROPERTIES[name]
    conf = tuning(pod, **{name: PROPERTIES[name]})
    result = node.add("tuning", conf, netns="c1")
    assert look(node) == {**before, name: PROPERTIES[name]}
    assert stash(node) == {name: before[name]}
    assert check(node, "tuning", conf, result) == ""
    node.exec("c1", *DIFFERENT[name])
    assert name in check(node, "tuning", conf, result)
    for _time in range(2):
        node.delete("tuning", conf, netns="c1")
        assert look(node) == before
        assert not [path for path in files(node) if "tuning" in path]


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_from_args(node: Node, pod: Any, name: str) -> None:
    before = look(node)
    conf = tuning(pod, args={"cni": {name: PROPERTIES[name]}})
    result = node.add("tuning", conf, netns="c1")
    assert look(node) == {**before, name: PROPERTIES[name]}
    assert check(node, "tuning", conf, result) == ""
    node.delete("tuning", conf, netns="c1")
    assert look(node) == before


def test_everything_at_once_in_a_folder_of_its_own(node: Node, pod: Any) -> None:
    before = look(node)
    conf = tuning(pod, dataDir="/run/elsewhere", **PROPERTIES)
    result = node.add("tuning", conf, netns="c1")
    assert look(node) == PROPERTIES
    assert stash(node, "/run/elsewhere/c1_eth0.json") == before
    inside = result["interfaces"][2]
    assert (inside["mac"], inside["mtu"]) == (MAC, 1400)
    assert result["interfaces"][:2] == pod["interfaces"][:2]
    assert result["ips"] == pod["ips"]
    node.delete("tuning", conf, netns="c1")
    assert look(node) == before
    assert not os.listdir(node.path("/run/elsewhere"))


def test_all_multicast_off_and_a_queue_of_nothing(node: Node, pod: Any) -> None:
    node.exec("c1", "ip", "link", "set", "eth0", "allmulticast", "on")
    conf = tuning(pod, allmulti=False, txQLen=0)
    node.add("tuning", conf, netns="c1")
    assert (look(node)["allmulti"], look(node)["txQLen"]) == (False, 0)
    node.delete("tuning", conf, netns="c1")
    assert look(node)["allmulti"]


def test_nothing_is_kept_when_nothing_changes(node: Node, pod: Any) -> None:
    before = look(node)
    sysctl = {"net.ipv4.conf.all.log_martians": "1"}
    for keys in (
        {"sysctl": sysctl},
        {"mac": before["mac"].upper(), "mtu": before["mtu"]},
        {"promisc": False},
    ):
        result = node.add("tuning", tuning(pod, **keys), netns="c1")
        assert result["ips"] == pod["ips"]
        assert not [path for path in files(node) if "tuning" in path]


def test_a_repeated_add_keeps_what_was_there_first(node: Node, pod: Any) -> None:
    before = look(node)
    conf = tuning(pod, mtu=1400)
    for _time in range(2):
        node.add("tuning", conf, netns="c1")
    node.delete("tuning", conf, netns="c1")
    assert look(node) == before


def test_where_a_mac_address_comes_from(node: Node, pod: Any) -> None:
    asked: dict[str, Any] = {"mac": "c2:00:00:00:00:01"}
    arguments = ""
    sources: list[tuple[dict[str, Any], str, str]] = [
        ({}, "", "c2:00:00:00:00:01"),
        ({}, "IgnoreUnknown=1;MAC=c2:00:00:00:00:02;K8S_POD_NAME=p", "c2:00:00:00:00:02"),
        ({"runtimeConfig": {"mac": "c2:00:00:00:00:03"}}, "", "c2:00:00:00:00:03"),
        ({"args": {"cni": {"mac": "c2-00-00-00-00-04"}}}, "", "c2:00:00:00:00:04"),
    ]
    for keys, given, expected in sources:
        asked |= keys
        arguments = given or arguments
        conf = tuning(pod, **asked)
        result = node.add("tuning", conf, netns="c1", args=arguments)
        assert look(node)["mac"] == expected == result["interfaces"][2]["mac"]
        assert check(node, "tuning", conf, result, args=arguments) == ""
        node.delete("tuning", conf, netns="c1", args=arguments)
    assert refusal(node, "ADD", "tuning", tuning(pod), netns="c1", args="X=1")["code"] == 4
    for bad in ("nonsense", "01:00:00:00:00:01"):
        assert refusal(node, "ADD", "tuning", tuning(pod, mac=bad), netns="c1")["code"] == 7


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.conf.eth0.forwarding",
        "net/ipv4/conf/eth0/forwarding",
        FORWARD,
        "net/ipv4/conf/IFNAME/forwarding",
    ],
)
def test_a_parameter_is_the_containers_own(node: Node, pod: Any, key: str) -> None:
    place = "net/ipv4/conf/eth0/forwarding"
    assert read(node, place) == "0"
    conf = tuning(pod, sysctl={key: "1", "net.ipv4.tcp_rmem": "4096 65536 131072"})
    result = node.add("tuning", conf, netns="c1")
    assert result["interfaces"] == pod["interfaces"]
    assert read(node, place) == "1"
    assert read(node, "net/ipv4/tcp_rmem").split() == ["4096", "65536", "131072"]
    assert node.run(["cat", "/proc/sys/net/ipv4/tcp_rmem"]).stdout.split()[1] != b"65536"
    assert check(node, "tuning", conf, result) == ""
    node.exec("c1", "sh", "-c", f"echo 0 > /proc/sys/{place}")
    assert place in check(node, "tuning", conf, result)


def test_an_interface_with_a_dot_in_its_name(node: Node, pod: Any) -> None:
    node.exec("c1", "ip", "link", "add", "net.5", "type", "veth", "peer", "name", "other")
    for key in (FORWARD, "net/ipv4/conf/net.5/forwarding"):
        node.add("tuning", tuning(pod, sysctl={key: "1"}), netns="c1", ifname="net.5")
        assert read(node, "net/ipv4/conf/net.5/forwarding") == "1"
        node.exec("c1", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/net.5/forwarding")


def test_a_parameter_that_only_acts(node: Node, pod: Any) -> None:
    conf = tuning(pod, sysctl={"net.ipv4.route.flush": "1"})
    result = node.add("tuning", conf, netns="c1")
    assert check(node, "tuning", conf, result) == ""


def test_args_go_before_the_configuration(node: Node, pod: Any) -> None:
    args = {"cni": {"sysctl": {"net/ipv4/conf/eth0/forwarding": "1", "net.ipv4.conf.eth0.arp_filter": "1"}}}
    conf = tuning(pod, sysctl={FORWARD: "0", "net.ipv4.conf.eth0.log_martians": "1"}, args=args)
    result = node.add("tuning", conf, netns="c1")
    for name in ("forwarding", "arp_filter", "log_martians"):
        assert read(node, f"net/ipv4/conf/eth0/{name}") == "1"
    assert check(node, "tuning", conf, result) == ""


@pytest.mark.parametrize(
    "sysctl",
    [
        {"kernel.hostname": "x"},
        {"net": "1"},
        {"net/../kernel/hostname": "x"},
        {"net.ipv4..ip_forward": "1"},
        {"/proc/sys/net/ipv4/ip_forward": "1"},
        {"net.ipv4.ip_forward": 1},
        {"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0"},
        {FORWARD: "1", "net.ipv4.conf.eth0.forwarding": "0"},
    ],
)
def test_parameters_that_are_refused(node: Node, pod: Any, sysctl: Mapping[str, Any]) -> None:
    said = refusal(node, "ADD", "tuning", tuning(pod, sysctl=sysctl), netns="c1")
    assert said["code"] == 7
    assert "duplicated" in said["msg"] or len(sysctl) == 1


def test_a_key_that_stands_there_twice(node: Node, pod: Any) -> None:
    text = json.dumps({"type": "tuning", **tuning(pod, sysctl={"net.ipv4.a": "1", "net.ipv4.b": "0"})})
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_PATH": node.plugins,
    }
    twice = text.replace("net.ipv4.a", "net.ipv4.b").encode()
    done = node.run([f"{node.plugins}/tuning"], env, twice, check=False)
    assert done.returncode == 1
    assert "duplicated" in json.loads(done.stdout)["msg"]


def test_who_may_set_what(node: Node, pod: Any) -> None:
    martians = {"net.ipv4.conf.all.log_martians": "1"}
    allow(node, r"^net\.ipv4\.conf\.other\.[a-z_]*$", "", "  ^net.ipv4.conf.IFNAME.forwarding$  ")
    said = refusal(node, "ADD", "tuning", tuning(pod, sysctl=martians), netns="c1")
    assert "Sysctl net.ipv4.conf.all.log_martians is not allowed" in said["msg"]
    by_args = tuning(pod, args={"cni": {"sysctl": martians}})
    assert refusal(node, "ADD", "tuning", by_args, netns="c1")["code"] == 7
    assert read(node, "net/ipv4/conf/all/log_martians") == "0"
    node.add("tuning", tuning(pod, sysctl={FORWARD: "1"}, mtu=1400), netns="c1")
    allow(node, r"^net\.ipv4\.conf\.all\.[a-z_]*$")
    node.add("tuning", tuning(pod, sysctl=martians), netns="c1")
    assert read(node, "net/ipv4/conf/all/log_martians") == "1"
    assert node.cni("STATUS", "tuning", tuning(None)) == (0, None)
    allow(node, "net.ipv4", "(net")
    assert refusal(node, "STATUS", "tuning", tuning(None))["code"] == 50
    bad = tuning(pod, sysctl={"net.core.somaxconn": "9"})
    assert refusal(node, "ADD", "tuning", bad, netns="c1")["code"] == 7


def test_an_add_that_fails_leaves_nothing(node: Node, pod: Any) -> None:
    before = look(node)
    somaxconn = read(node, "net/core/somaxconn")
    for keys in ({"mtu": 70000, "mac": MAC}, {"sysctl": {"net.core.somaxconn": "77", "net.no.such": "1"}}):
        asked = {"sysctl": {"net.core.somaxconn": "77"}, **keys}
        assert refusal(node, "ADD", "tuning", tuning(pod, **asked), netns="c1")["code"] == 100
        assert look(node) == before
        assert read(node, "net/core/somaxconn") == somaxconn
        assert not [path for path in files(node) if "tuning" in path]
    alone = {"cniVersion": "1.1.0", "name": "net", "mtu": 1400}
    assert refusal(node, "ADD", "tuning", alone, netns="c1")["code"] == 7


@pytest.mark.parametrize("gone", ["link", "namespace", "mount", "path"])
def test_delete_when_something_is_gone(node: Node, pod: Any, gone: str) -> None:
    conf = tuning(pod, mtu=1400)
    node.add("tuning", conf, netns="c1")
    netns = "c1"
    if gone == "link":
        node.exec("c1", "ip", "link", "delete", "eth0")
    elif gone == "namespace":
        node.remove_netns("c1")
    elif gone == "mount":
        unmount_netns(node, "c1")
    else:
        netns = ""
    for given in (conf, tuning(None, mtu=1400)):
        node.delete("tuning", given, netns=netns)
        assert not [path for path in files(node) if "tuning" in path]


def test_a_delete_that_fails_leaves_what_the_next_one_needs(node: Node, pod: Any) -> None:
    before = look(node)
    conf = tuning(pod, mtu=1400, mac=MAC)
    node.add("tuning", conf, netns="c1")
    os.symlink("circle", node.path("/run/circle"))
    os.rename(node.path("/run/cni/tuning-stashes"), node.path("/run/kept"))
    os.symlink("/run/kept", node.path("/run/cni/tuning-stashes"))
    failed = refusal(node, "DEL", "tuning", conf, netns="/run/circle")
    assert "failed to open netns '/run/circle'" in failed["msg"]  # and no later step has been tried
    assert stash(node)["mtu"] == before["mtu"]
    os.unlink(node.path("/run/cni/tuning-stashes"))
    os.rename(node.path("/run/kept"), node.path("/run/cni/tuning-stashes"))
    assert len([path for path in files(node) if "tuning" in path]) == 2
    node.delete("tuning", conf, netns="c1")
    assert look(node) == before
    assert not [path for path in files(node) if "tuning" in path]


def test_a_container_id_that_no_stash_can_have(node: Node, pod: Any) -> None:
    """The stash's name is the reference's; parameters need none."""
    container, before = "c" * 250, look(node)
    conf = tuning(pod, mtu=1400)
    refused = refusal(node, "ADD", "tuning", conf, container=container, netns="c1")
    assert (refused["code"], "too long" in refused["msg"]) == (4, True)
    assert look(node) == before
    node.add("tuning", tuning(pod, sysctl={FORWARD: "1"}), container=container, netns="c1")
    assert node.cni("CHECK", "tuning", tuning(pod), container=container, netns="c1") == (0, None)
    node.delete("tuning", conf, container=container, netns="c1")
    assert not [path for path in files(node) if "tuning" in path]


def test_a_stash_that_is_no_stash(node: Node, pod: Any) -> None:
    conf = tuning(pod, mtu=1400)
    for content in ("{", '{"mtu": "x"}', '{"mac": "nonsense"}', '{"mtu": 1}'):
        node.add("tuning", conf, netns="c1")
        with open(node.path(STASH), "w", encoding="ascii") as file:
            file.write(content)
        node.delete("tuning", conf, netns="c1")
        assert not os.path.exists(node.path(STASH))
        node.exec("c1", "ip", "link", "set", "eth0", "mtu", "1500")


def test_gc_throws_away_what_is_of_this_network(node: Node) -> None:
    for name in ("c1", "c2", "c3"):
        result = pods(node, bridge(), name)[0]
        net = "other" if name == "c3" else "net"
        node.add("tuning", tuning(result, name=net, mtu=1400), container=name, netns=name)
    with open(node.path("/run/cni/tuning/theirs_eth0.json"), "w", encoding="ascii") as file:
        file.write("{}")
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    conf = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": valid}
    assert node.cni("GC", "tuning", conf) == (0, None)
    kept = {os.path.basename(path) for path in files(node) if path.startswith("/run/cni/tuning/")}
    assert kept == {"c2_eth0.json", "c3_eth0.json", "theirs_eth0.json"}


@pytest.mark.peer
@pytest.mark.parametrize(("adder", "deleter"), [("theirs", "ours"), ("ours", "theirs")])
def test_what_one_set_the_other_checks_and_puts_back(node: Node, pod: Any, adder: str, deleter: str) -> None:
    folders = {"ours": node.plugins, "theirs": PEER}
    before = look(node)
    keys = {name: value for name, value in PROPERTIES.items() if name != "txQLen"}  # not in that version
    sysctl = {"net.ipv4.conf.eth0.forwarding": "1"}
    previous = {**pod, "cniVersion": "1.0.0"}
    conf = tuning(previous, cniVersion="1.0.0", sysctl=sysctl, **keys)
    result = node.add("tuning", conf, netns="c1", plugins=folders[adder])
    with open(node.path(STASH), "rb") as file:
        text = file.read()
    assert json.loads(text) == {name: before[name] for name in keys}
    assert text.startswith(b'{\n "mac": "')
    assert text.endswith(b"\n}")
    for side in folders.values():
        given = {**conf, "prevResult": result}
        assert node.cni("CHECK", "tuning", given, netns="c1", plugins=side) == (0, None)
    node.delete("tuning", {**conf, "prevResult": result}, netns="c1", plugins=folders[deleter])
    assert look(node) == before
    assert not os.path.exists(node.path(STASH))
