"""bandwidth: rates that iperf3 measures, and what the kernel says of the queues before and after."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import address_of, bridge, check, files, leftovers, pods, port_of, ptp, refusal
from integration.node import PEER
from integration.rights import unable

if TYPE_CHECKING:
    from integration.node import Node

MBIT = 1_000_000
LIMITS = {
    "ingressRate": 10 * MBIT,
    "ingressBurst": 2 * MBIT,
    "egressRate": 20 * MBIT,
    "egressBurst": 4 * MBIT,
}
INGRESS = {key: value for key, value in LIMITS.items() if key.startswith("ingress")}
EGRESS = {key: value for key, value in LIMITS.items() if key.startswith("egress")}


def ifb_name(network: str = "net", container: str = "c1") -> str:
    return "bwp" + hashlib.sha512((network + container).encode()).hexdigest()[:12]


IFB = ifb_name()


@pytest.fixture
def pod(node: Node) -> Any:
    """The result of a container's attachment to a bridge."""
    return pods(node, bridge(), "c1")[0]


def bandwidth(result: Any, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "prevResult": result, **keys}


def qdiscs(node: Node, device: str) -> dict[str, Any]:
    """Return a device's queueing disciplines by kind, with their options."""
    listed = json.loads(node.run(["tc", "-json", "qdisc", "show", "dev", device]).stdout)
    return {each["kind"]: each.get("options", {}) for each in listed if each["kind"] != "noqueue"}


def redirected(node: Node, device: str) -> list[str]:
    """Return where a device's filters send what it receives."""
    shown = node.run(["tc", "-json", "filter", "show", "dev", device, "ingress"]).stdout
    actions = [
        action for each in json.loads(shown or b"[]") for action in each.get("options", {}).get("actions", [])
    ]
    return [action["to_dev"] for action in actions if action["kind"] == "mirred"]


def untouched(node: Node, result: Any) -> bool:
    return not qdiscs(node, port_of(result)) and IFB not in node.links()


def rate(node: Node, target: str, *options: str) -> float:
    """Return the bits a second that arrive when the node sends to a container; with -R, the other way."""
    server = node.popen(["iperf3", "-s", "-1", "--forceflush"], netns="c1", stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    server.stdout.readline()  # it listens
    done = node.run(["iperf3", "-c", target, "-J", "-t2", "-O1", *options], timeout=30)
    server.communicate()
    received: float = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
    return received


def holds(node: Node, target: str, wanted: float, *options: str) -> None:
    """Assert that a limit holds within 10 %; a machine that is busy elsewhere may fall short twice."""
    for _again in range(2):
        measured = rate(node, target, *options)
        if measured > 0.9 * wanted:
            break
    else:
        measured = rate(node, target, *options)
    assert measured == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("megabits", [10, 1000])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_rate_holds(node: Node, pod: Any, direction: str, megabits: int) -> None:
    options = ["-R"] if direction == "egress" else []
    if megabits > 10 and rate(node, address_of(pod), *options) < 1.5 * megabits * MBIT:
        pytest.skip("the machine does not manage the rate without a limit")
    limit = {f"{direction}Rate": megabits * MBIT, f"{direction}Burst": max(megabits * MBIT // 100, MBIT // 5)}
    node.add("bandwidth", bandwidth(pod, **limit), netns="c1")
    holds(node, address_of(pod), megabits * MBIT, *options)
    if megabits == 10:  # the other direction is free
        assert rate(node, address_of(pod), *([] if options else ["-R"])) > 100 * MBIT


def test_both_directions_over_ptp(node: Node) -> None:
    result = pods(node, ptp(), "c1", plugin="ptp")[0]
    node.add("bandwidth", bandwidth(result, **LIMITS), netns="c1")
    holds(node, address_of(result), 10 * MBIT)
    holds(node, address_of(result), 20 * MBIT, "-R")


def test_a_list_of_several_plugins(node: Node, pod: Any) -> None:
    """Each plugin's CHECK is given the result of the last one."""
    changes = {"mac": "c2:11:22:33:44:55", "mtu": 1400, "txQLen": 200}
    result = node.add("tuning", bandwidth(pod, **changes), netns="c1")
    result = node.add("bandwidth", bandwidth(result, **LIMITS), netns="c1")
    result = node.add("sbr", bandwidth(result), netns="c1")
    for plugin, conf in (
        ("bridge", bridge()),
        ("tuning", bandwidth(None, **changes)),
        ("bandwidth", bandwidth(None, **LIMITS)),
        ("sbr", bandwidth(None)),
    ):
        assert check(node, plugin, conf, result) == ""
    for plugin, keys in (("sbr", {}), ("bandwidth", LIMITS), ("tuning", changes)):
        node.delete(plugin, bandwidth(result, **keys), netns="c1")
    node.delete("bridge", {**bridge(), "prevResult": result}, netns="c1")
    assert leftovers(node, "c1") == []
    assert IFB not in node.links()


def test_what_is_made_and_removed(node: Node, pod: Any) -> None:
    node.exec("c1", "ip", "link", "set", "eth0", "mtu", "1400")
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    ifb = node.links()[IFB]
    assert result["interfaces"] == [*pod["interfaces"], {"name": IFB, "mac": ifb["address"]}]
    assert result["ips"] == pod["ips"]
    assert (ifb["mtu"], ifb["linkinfo"]["info_kind"]) == (1400, "ifb")
    assert "UP" in ifb["flags"]
    port = port_of(pod)
    tbf = qdiscs(node, port)["tbf"]
    assert (tbf["rate"], tbf["burst"], tbf["lat"]) == (1_250_000, 250_000, 25_000)
    assert set(qdiscs(node, port)) == {"tbf", "ingress"}
    tbf = qdiscs(node, IFB)["tbf"]
    assert (tbf["rate"], tbf["burst"], tbf["lat"]) == (2_500_000, 500_000, 25_000)
    assert redirected(node, port) == [IFB]
    assert check(node, "bandwidth", conf, result) == ""
    for _time in range(2):
        node.delete("bandwidth", {**conf, "prevResult": result}, netns="c1")
        assert untouched(node, pod)


@pytest.mark.parametrize(("keys", "made"), [(INGRESS, {"tbf"}), (EGRESS, {"ingress"})])
def test_one_direction_alone(node: Node, pod: Any, keys: Any, made: set[str]) -> None:
    conf = bandwidth(pod, **keys)
    result = node.add("bandwidth", conf, netns="c1")
    assert set(qdiscs(node, port_of(pod))) == made
    assert (IFB in node.links()) == (keys is EGRESS)
    assert check(node, "bandwidth", conf, result) == ""
    node.delete("bandwidth", {**conf, "prevResult": result}, netns="c1")
    assert untouched(node, pod)


def test_whose_settings_count(node: Node, pod: Any) -> None:
    port = port_of(pod)
    runtime = {"bandwidth": {"ingressRate": 8 * MBIT, "ingressBurst": MBIT}}
    for keys, expected in (
        ({"runtimeConfig": runtime}, MBIT),
        ({"runtimeConfig": runtime, **INGRESS}, 1_250_000),
        ({"runtimeConfig": runtime, "egressRate": 0}, None),
        ({"runtimeConfig": {"bandwidth": {}}}, None),
        ({}, None),
    ):
        conf = bandwidth(pod, **keys)
        result = node.add("bandwidth", conf, netns="c1")
        assert qdiscs(node, port).get("tbf", {}).get("rate") == expected
        assert result == pod
        assert check(node, "bandwidth", conf, result) == ""
        node.delete("bandwidth", conf, netns="c1")


@pytest.mark.parametrize("burst", [2**31 - 1, 2**35 - 8 * MBIT, 100])
def test_numbers_at_the_edge(node: Node, pod: Any, burst: int) -> None:
    """The first is what kubelet asks for; 2^32 bytes a second and more go in another attribute."""
    for bits in (MBIT, 100 * MBIT, 80_000 * MBIT):
        conf = bandwidth(pod, ingressRate=bits, ingressBurst=burst, egressRate=bits, egressBurst=burst)
        if burst // 8 * 8 * MBIT < bits:  # not a microsecond's worth
            assert refusal(node, "ADD", "bandwidth", conf, netns="c1")["code"] == 7
            continue
        result = node.add("bandwidth", conf, netns="c1")
        assert qdiscs(node, port_of(pod))["tbf"]["rate"] == bits // 8
        assert check(node, "bandwidth", conf, result) == ""
        node.delete("bandwidth", {**conf, "prevResult": result}, netns="c1")


@pytest.mark.parametrize(
    "keys",
    [
        {"ingressRate": MBIT},
        {"ingressBurst": MBIT},
        {"egressRate": MBIT},
        {"egressBurst": MBIT, "egressRate": 0},
        {"ingressRate": -1, "ingressBurst": MBIT},
        {"ingressRate": "1M", "ingressBurst": MBIT},
        {"ingressRate": MBIT, "ingressBurst": 2**35},
        {"ingressRate": 7, "ingressBurst": MBIT},
        {"runtimeConfig": {"bandwidth": {"ingressRate": MBIT}}},
    ],
)
def test_limits_that_are_refused(node: Node, pod: Any, keys: Any) -> None:
    assert refusal(node, "ADD", "bandwidth", bandwidth(pod, **keys), netns="c1")["code"] == 7
    assert untouched(node, pod)


def test_interfaces_that_are_refused(node: Node, pod: Any) -> None:
    alone = {"cniVersion": "1.1.0", "name": "net", **LIMITS}
    assert "chained" in refusal(node, "ADD", "bandwidth", alone, netns="c1")["msg"]
    unnamed = {**pod, "interfaces": pod["interfaces"][2:]}
    others = [
        (bandwidth({**pod, "interfaces": []}, **LIMITS), "eth0", "no interfaces"),
        (bandwidth(unnamed, **LIMITS), "eth0", "no veth peer"),
        (bandwidth(pod, **LIMITS), "lo", "no veth peer"),
        (bandwidth(pod, **LIMITS), "none", "no veth peer"),
        (bandwidth(pod, **LIMITS), "inner", "not in host ns"),
    ]
    node.netns("c2")
    node.exec(
        "c1",
        "ip",
        "link",
        "add",
        "inner",
        "index",
        "77",
        "type",
        "veth",
        "peer",
        "name",
        "other",
        "index",
        "78",
    )
    for conf, ifname, said in others:
        answer = refusal(node, "ADD", "bandwidth", conf, netns="c1", ifname=ifname)
        assert answer["code"] == 7
        assert said in answer["msg"]
        assert untouched(node, pod)


def test_an_add_that_fails_leaves_what_was_there(node: Node, pod: Any) -> None:
    port = port_of(pod)
    node.run(["ip", "link", "add", IFB, "type", "ifb"])
    assert refusal(node, "ADD", "bandwidth", bandwidth(pod, **LIMITS), netns="c1")["code"] == 105
    assert not qdiscs(node, port)
    assert IFB in node.links()
    node.run(["ip", "link", "delete", IFB])
    node.run(["tc", "qdisc", "add", "dev", port, "ingress"])
    assert refusal(node, "ADD", "bandwidth", bandwidth(pod, **LIMITS), netns="c1")["code"] == 100
    assert set(qdiscs(node, port)) == {"ingress"}
    assert IFB not in node.links()


BREAKS: dict[str, tuple[list[str], str]] = {
    "no ifb": (["ip", "link", "delete", IFB], "is gone"),
    "ifb down": (["ip", "link", "set", IFB, "down"], "is down"),
    "no limit": (["tc", "qdisc", "del", "dev", "PORT", "root"], "token bucket"),
    "no limit on the ifb": (["tc", "qdisc", "del", "dev", IFB, "root"], "token bucket"),
    "no ingress": (["tc", "qdisc", "del", "dev", "PORT", "ingress"], "ingress qdisc"),
    "no filter": (["tc", "filter", "del", "dev", "PORT", "ingress"], "redirected"),
    "another rate": (
        f"tc qdisc change dev {'PORT'} root handle 1: tbf rate 9mbit burst 250000 latency 25ms".split(),
        "the limit",
    ),
    "another burst": (
        f"tc qdisc change dev {IFB} root handle 1: tbf rate 20mbit burst 300000 latency 25ms".split(),
        "the limit",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_check_finds_what_is_broken(node: Node, pod: Any, name: str) -> None:
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    command, said = BREAKS[name]
    node.run([port_of(pod) if word == "PORT" else word for word in command])
    assert said in check(node, "bandwidth", conf, result)


def test_check_finds_a_filter_that_leads_elsewhere(node: Node, pod: Any) -> None:
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    port = port_of(pod)
    for match in ("u32 match u32 0 0", "u32 match ip dst 192.0.2.0/24"):
        node.run(["tc", "filter", "del", "dev", port, "ingress"])
        target = "br0" if match.endswith("0 0") else IFB
        redirect = f"{match} action mirred egress redirect dev {target}".split()
        node.run(["tc", "filter", "add", "dev", port, "ingress", *redirect])
        assert "redirected" in check(node, "bandwidth", conf, result)


@pytest.mark.parametrize("gone", ["link", "namespace", "prevResult", "everything"])
def test_delete_when_something_is_gone(node: Node, pod: Any, gone: str) -> None:
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    assert IFB in node.links()
    how = {"netns": "c1"}
    given = {**conf, "prevResult": result}
    if gone in ("link", "everything"):
        node.run(["ip", "link", "delete", port_of(pod)])
    if gone in ("namespace", "everything"):
        node.remove_netns("c1")
        how = {}
    if gone in ("prevResult", "everything"):
        del given["prevResult"]
    for _time in range(2):
        node.delete("bandwidth", given, **how)
        assert IFB not in node.links()


def test_delete_leaves_what_is_not_ours(node: Node, pod: Any) -> None:
    node.run(["tc", "qdisc", "add", "dev", port_of(pod), "ingress"])
    node.delete("bandwidth", bandwidth(pod, **LIMITS), netns="c1")
    assert set(qdiscs(node, port_of(pod))) == {"ingress"}
    node.delete("bandwidth", bandwidth(pod, ingressRate=1), netns="c1")


def test_gc_removes_the_ifbs_of_this_network(node: Node) -> None:
    names = {}
    for container, network in (("c1", "net"), ("c2", "net"), ("c3", "other")):
        result = pods(node, bridge(), container)[0]
        node.add("bandwidth", bandwidth(result, name=network, **EGRESS), container=container, netns=container)
        names[container] = ifb_name(network, container)
    node.run(["ip", "link", "add", "bwp000000000000", "type", "ifb"])
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    conf = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": valid}
    assert node.cni("GC", "bandwidth", conf) == (0, None)
    left = {name for name in node.links() if name.startswith("bwp")}
    assert left == {names["c2"], names["c3"], "bwp000000000000"}


def test_an_ifb_that_could_not_be_deleted_is_found_again(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of an ADD that was killed before the ifb had its alias, so that nothing but the note tells of it."""
    node.run(["ip", "link", "add", IFB, "type", "ifb"])
    os.makedirs(node.path("/run/cni/bandwidth"))
    with open(node.path("/run/cni/bandwidth/net:c1:eth0"), "x", encoding="ascii"):
        pass
    conf = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": []}
    folder = unable(node, "bandwidth")
    for verb in ("DEL", "GC"):
        answer = refusal(node, verb, "bandwidth", conf, plugins=folder)
        assert f"failed to delete link '{IFB}'" in answer["msg"]
        assert files(node) == {"/run/cni/bandwidth/net:c1:eth0"}
        assert IFB in node.links()
    assert "removed" not in capfd.readouterr().err
    assert node.cni("GC", "bandwidth", conf) == (0, None)
    assert f"removed the limit {IFB} of container c1" in capfd.readouterr().err
    assert (IFB in node.links(), files(node)) == (False, set())


def test_status(node: Node) -> None:
    before = set(node.links())
    assert node.cni("STATUS", "bandwidth", bandwidth(None)) == (0, None)
    assert set(node.links()) == before


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_that_has_interfaces(node: Node, version: str) -> None:
    node.netns("c1")
    first = node.add("bridge", bridge(cniVersion=version), netns="c1")
    result = node.add("bandwidth", bandwidth(first, cniVersion=version, **LIMITS), netns="c1")
    assert result["cniVersion"] == version
    assert result["interfaces"].pop()["name"] == IFB
    assert result == first


@pytest.mark.peer
@pytest.mark.parametrize(("adder", "deleter"), [("theirs", "ours"), ("ours", "theirs")])
@pytest.mark.parametrize("keys", [LIMITS, INGRESS, EGRESS, {**INGRESS, "ingressRate": 123_456_789}])
def test_what_one_made_the_other_checks_and_deletes(
    node: Node, pod: Any, adder: str, deleter: str, keys: Any
) -> None:
    folders = {"ours": node.plugins, "theirs": PEER}
    conf = bandwidth({**pod, "cniVersion": "1.0.0"}, cniVersion="1.0.0", **keys)
    result = node.add("bandwidth", conf, netns="c1", plugins=folders[adder])
    assert len(result["interfaces"]) == 3 + ("egressRate" in keys)
    given = {**conf, "prevResult": result}
    for side in folders.values():
        assert node.cni("CHECK", "bandwidth", given, netns="c1", plugins=side) == (0, None)
    node.delete("bandwidth", given, netns="c1", plugins=folders[deleter])
    assert IFB not in node.links()
    if deleter == "ours":
        assert untouched(node, pod)


@pytest.mark.peer
def test_both_make_the_same(node: Node, pod: Any) -> None:
    seen = []
    for folder in (node.plugins, PEER):
        conf = bandwidth({**pod, "cniVersion": "1.0.0"}, cniVersion="1.0.0", **LIMITS)
        result = node.add("bandwidth", conf, netns="c1", plugins=folder)
        port = port_of(pod)
        shown = node.run(["tc", "filter", "show", "dev", port, "ingress"]).stdout.decode()
        # Theirs has the same action once more; what the first one has taken never comes to the second.
        filters = shown.partition("action order 2")[0].split()
        seen.append(
            (
                qdiscs(node, port),
                qdiscs(node, IFB),
                filters,
                [each["name"] for each in result["interfaces"]],
            )
        )
        node.delete("bandwidth", {**conf, "prevResult": result}, netns="c1")
    for ours, theirs in zip(*seen, strict=True):
        assert ours == theirs
