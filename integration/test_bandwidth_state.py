"""What bandwidth makes, refuses and removes, as the kernel says of queues, filters and ifbs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.bandwidths import (
    EGRESS,
    IFB,
    INGRESS,
    LIMITS,
    MBIT,
    bandwidth,
    ifb_name,
    qdiscs,
    redirected,
    untouched,
)
from integration.checks import CONFLICT, bridge, check, files, pods, port_of, refusal
from integration.rights import unable

if TYPE_CHECKING:
    from integration.node import Node


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
    assert refusal(node, "ADD", "bandwidth", bandwidth(pod, **LIMITS), netns="c1")["code"] == 105
    assert set(qdiscs(node, port)) == {"ingress"}
    assert IFB not in node.links()


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
    # What is the container's, and no limit, is not ours: its veth has the same alias, too.
    node.run(["ip", "link", "add", "theirs", "type", "ifb"])
    node.run(["ip", "link", "set", "theirs", "alias", "net:c1"])
    before = set(node.links())
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    conf = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": valid}
    assert node.cni("GC", "bandwidth", conf) == (0, None)
    assert set(node.links()) == before - {names["c1"]}


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


@pytest.mark.parametrize(
    ("direction", "qdisc"),
    [("egress", ["clsact"]), ("egress", ["ingress"]), ("ingress", ["root", "handle", "1:", "pfifo"])],
    ids=["clsact", "ingress", "root"],
)
def test_a_qdisc_of_another_program(node: Node, pod: Any, direction: str, qdisc: list[str]) -> None:
    show = ["tc", "qdisc", "show", "dev", port_of(pod)]
    node.run(["tc", "qdisc", "add", "dev", port_of(pod), *qdisc])
    before = node.run(show).stdout, files(node), set(node.links())
    limit = {f"{direction}Rate": 10 * MBIT, f"{direction}Burst": MBIT}
    answer = refusal(node, "ADD", "bandwidth", bandwidth(pod, **limit), netns="c1")
    assert (answer["code"], port_of(pod) in answer["msg"]) == (CONFLICT, True)
    assert "tc qdisc show dev" in answer["details"]
    assert (node.run(show).stdout, files(node), set(node.links())) == before
