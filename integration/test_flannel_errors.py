"""The flannel plugin when something is missing or broken: the daemon's file, its own, or the delegate."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import ALREADY_ATTACHED, check, leftovers, pod_rules, refusal, reservations
from integration.flannel import (
    COMMON,
    DUAL,
    ONLY4,
    ONLY6,
    SUBNET_FILE,
    flannel,
    flannel_pods,
    scratch,
    write_subnet_env,
    write_subnet_text,
)

if TYPE_CHECKING:
    from integration.node import Node

SCRATCH = "/var/lib/cni/flannel"
VALID = "cni.dev/valid-attachments"
WHOLE = "".join(f"{key}={value}\n" for key, value in DUAL.items()).encode()
INCOMPLETE: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "there is no such file"),
    "empty": (b"", "FLANNEL_NETWORK"),
    "half": (WHOLE[:60], "FLANNEL_MTU"),
    "without subnet": (WHOLE.replace(b"FLANNEL_SUBNET", b"FLANNEL_X"), "FLANNEL_SUBNET"),
    "without IPv6 network": (WHOLE.replace(b"FLANNEL_IPV6_NETWORK", b"F"), "FLANNEL_IPV6_NETWORK"),
    "without MTU": (WHOLE.replace(b"FLANNEL_MTU=1450\n", b""), "FLANNEL_MTU"),
    "MTU without value": (WHOLE.replace(b"=1450", b"="), "FLANNEL_MTU"),
    "without masquerade": (WHOLE.replace(b"FLANNEL_IPMASQ", b"IPMASQ"), "FLANNEL_IPMASQ"),
    "subnet cut off": (b"FLANNEL_NETWORK=10.76.0.0/15\nFLANNEL_SUBNET=10.7", "10.7"),
    "MTU that is none": (WHOLE.replace(b"=1450", b"=much"), "much"),
    "binary": (b"\xff\xfe\0", "0xff"),
}


@pytest.mark.parametrize(("content", "named"), INCOMPLETE.values(), ids=INCOMPLETE)
@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("STATUS", 50)])
def test_the_daemon_has_not_finished(
    node: Node, verb: str, code: int, content: bytes | None, named: str
) -> None:
    if content is not None:
        write_subnet_text(node, content)
    node.netns("c1")
    answer = refusal(node, verb, "flannel", flannel(), netns="c1")
    assert answer["code"] == code
    assert SUBNET_FILE in answer["msg"]
    assert named in answer["msg"]
    assert "flannel daemon" in answer["details"]
    assert leftovers(node, "c1") == []
    write_subnet_env(node)
    node.add("flannel", flannel(), netns="c1")


def test_status_is_the_delegates_too(node: Node) -> None:
    write_subnet_env(node, {**ONLY4, "FLANNEL_SUBNET": "10.77.0.1/30"})
    assert node.cni("STATUS", "flannel", flannel()) == (0, None)
    assert not os.path.exists(node.path(SCRATCH))
    flannel_pods(node, flannel(), "c1")
    answer = refusal(node, "STATUS", "flannel", flannel())
    assert (answer["code"], "no IP addresses available" in answer["msg"]) == (50, True)
    answer = refusal(node, "STATUS", "flannel", flannel({"type": "no-bridge"}))
    assert "'no-bridge'" in answer["msg"]


@pytest.mark.parametrize(
    ("env", "conf", "code", "text"),
    [
        ({**ONLY4, "FLANNEL_SUBNET": "10.77.0.1/32"}, {}, 7, "10.77.0"),
        (ONLY4, {"delegate": {"type": "no-bridge"}}, 103, "'no-bridge'"),
        (ONLY4, {"delegate": {"hairpinMode": True, "promiscMode": True}}, 7, "hairpin mode"),
        (ONLY4, {"delegate": {"mtu": "1400"}}, 7, "mtu"),
        (ONLY4, {"ipam": {"routes": [{"dst": "10.9.0.0/16", "gw": "10.66.0.1"}]}}, 100, "10.9.0.0/16"),
        (ONLY4, {"ipam": {"routes": {}}}, 7, "ipam.routes"),
        (ONLY4, {"ipam": {"type": "no-local"}}, 103, "'no-local'"),
    ],
)
def test_an_error_of_the_delegate_is_ours_and_leaves_nothing(
    node: Node, env: dict[str, str], conf: dict[str, Any], code: int, text: str
) -> None:
    write_subnet_env(node, env)
    node.netns("c1")
    answer = refusal(node, "ADD", "flannel", flannel(**conf), netns="c1")
    assert (answer["code"], text in answer["msg"]) == (code, True), answer
    assert leftovers(node, "c1") == []


def test_a_second_add_does_not_end_the_attachment(node: Node) -> None:
    write_subnet_env(node, ONLY4)
    conf = flannel()
    result = flannel_pods(node, conf, "c1")[0]
    before = scratch(node)
    assert refusal(node, "ADD", "flannel", conf, netns="c1")["code"] == ALREADY_ATTACHED
    assert not check(node, "flannel", conf, result)
    assert scratch(node) == before


def test_a_second_add_that_fails_keeps_what_the_firsts_del_needs(node: Node) -> None:
    write_subnet_env(node, {**ONLY4, "FLANNEL_IPMASQ": "false"})
    flannel_pods(node, flannel({"bridge": "br7"}), "c1")
    before = scratch(node)
    answer = refusal(node, "ADD", "flannel", flannel({"type": "no-bridge"}), netns="c1")
    assert "'no-bridge'" in answer["msg"]
    assert scratch(node) == before
    node.delete("flannel", flannel({"type": "no-bridge"}), netns="c1")
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize("env", [ONLY4, ONLY6, DUAL], ids=["IPv4", "IPv6", "both"])
@pytest.mark.parametrize(
    "changed", [None, {**ONLY4, "FLANNEL_SUBNET": "10.99.0.1/24"}], ids=["gone", "other"]
)
def test_del_goes_by_what_was_set_not_by_todays_file(
    node: Node, env: dict[str, str], changed: dict[str, str] | None
) -> None:
    write_subnet_env(node, {**env, "FLANNEL_IPMASQ": "false"})
    flannel_pods(node, flannel(), "c1")
    assert pod_rules(node)
    os.unlink(node.path(SUBNET_FILE))
    if changed:
        write_subnet_env(node, changed)
    for netns in ("c1", "c1", "", "/run/netns/gone"):
        node.delete("flannel", flannel(), netns=netns)
        assert leftovers(node, "c1") == []


def test_del_of_what_was_never_added(node: Node) -> None:
    for netns in ("", "/run/netns/gone"):
        node.delete("flannel", flannel(), netns=netns)
    assert leftovers(node) == []
    assert set(node.links()) == {"lo"}


@pytest.mark.parametrize("content", ["", '{"type": "bridge", "na', "[]", '{"type": 5}', "\0" * 20])
def test_del_with_a_damaged_scratch_file(node: Node, content: str) -> None:
    write_subnet_env(node, {**DUAL, "FLANNEL_IPMASQ": "false"})
    flannel_pods(node, flannel(), "c1")
    with open(node.path(f"{SCRATCH}/c1"), "w", encoding="ascii") as file:
        file.write(content)
    node.delete("flannel", flannel(), netns="c1")
    assert leftovers(node, "c1") == []


def test_del_is_tried_again_after_an_error_of_the_delegate(node: Node) -> None:
    write_subnet_env(node)
    flannel_pods(node, flannel(), "c1")
    os.mkdir(node.path("/opt/alone"))
    os.symlink(f"{node.plugins}/flannel", node.path("/opt/alone/flannel"))
    before = scratch(node)
    answer = refusal(node, "DEL", "flannel", flannel(), netns="c1", plugins="/opt/alone")
    assert "'bridge'" in answer["msg"]
    assert scratch(node) == before
    node.delete("flannel", flannel(), netns="c1")
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize(
    ("damage", "netns", "repair", "found"),
    [
        ("ip route delete 10.76.0.0/15", "c1", "ip route add 10.76.0.0/15 via 10.77.0.1", "10.76.0.0/15"),
        (
            "ip address delete 10.77.0.1/24 dev cni0",
            "",
            "ip address add 10.77.0.1/24 dev cni0",
            "gateway address 10.77.0.1/24",
        ),
        (f"mv {SCRATCH}/c1 /run/c1", "", f"mv /run/c1 {SCRATCH}/c1", f"{SCRATCH}/c1 is missing"),
    ],
)
def test_check(node: Node, damage: str, netns: str, repair: str, found: str) -> None:
    write_subnet_env(node)
    result = flannel_pods(node, flannel(), "c1")[0]
    os.unlink(node.path(SUBNET_FILE))  # CHECK, too, goes by what was set
    assert not check(node, "flannel", flannel(), result)
    node.run(["sh", "-ec", damage], netns=netns)
    assert found in check(node, "flannel", flannel(), result)
    node.run(["sh", "-ec", repair], netns=netns)
    assert not check(node, "flannel", flannel(), result)


@pytest.mark.parametrize("daemon", [True, False])
def test_gc(node: Node, daemon: bool) -> None:
    write_subnet_env(node, {**ONLY4, "FLANNEL_IPMASQ": "false"})
    result, _other = flannel_pods(node, flannel(), "c1", "c2")
    second = flannel(name="net2", delegate={"bridge": "br9"}, ipam={"dataDir": "/var/lib/other"})
    node.netns("c3")
    write_subnet_env(node, {**ONLY4, "FLANNEL_SUBNET": "10.78.0.1/24"})
    node.add("flannel", second, container="c3", netns="c3")
    write_subnet_env(node)
    if not daemon:
        os.unlink(node.path(SUBNET_FILE))
    node.remove_netns("c2")
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    assert node.cni("GC", "flannel", {**flannel(), VALID: valid}) == (0, None)
    assert reservations(node) == {"10.77.0.2"}
    assert not [line for line in pod_rules(node) if "10.77.0.3" in line]
    assert sorted(os.listdir(node.path(SCRATCH))) == ["c1", "c3"]
    assert not check(node, "flannel", flannel(), result)
    assert node.cni("GC", "flannel", {**flannel(), VALID: []}) == (0, None)
    assert reservations(node) == set()
    assert os.listdir(node.path(SCRATCH)) == ["c3"]


@pytest.mark.parametrize("content", [b"", b'{"type": "bri'])
def test_gc_is_not_stopped_by_a_damaged_scratch_file(node: Node, content: bytes) -> None:
    write_subnet_env(node)
    flannel_pods(node, flannel(), "c1")
    with open(node.path(f"{SCRATCH}/broken"), "wb") as file:
        file.write(content)
    assert node.cni("GC", "flannel", {**flannel(), VALID: []}) == (0, None)
    assert reservations(node) == set()
    assert not os.path.exists(node.path(f"{SCRATCH}/c1"))


def test_gc_without_anything(node: Node) -> None:
    assert node.cni("GC", "flannel", {**flannel(), VALID: []}) == (0, None)
    assert leftovers(node) == []


def test_settings_of_the_file_reach_the_pod(node: Node) -> None:
    write_subnet_text(
        node,
        b"# comment\n\nFLANNEL_NETWORK=10.76.0.0/15\r\n  FLANNEL_SUBNET=10.77.0.1/24 \n"
        + "".join(f"{key}={value}\n" for key, value in COMMON.items()).encode(),
    )
    result = flannel_pods(node, flannel(), "c1")[0]
    assert result["ips"][0]["address"] == "10.77.0.2/24"
    assert json.loads(scratch(node))["mtu"] == 1450
