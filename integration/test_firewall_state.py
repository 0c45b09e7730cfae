"""firewall's own state: what it checks, removes and answers for, with nftables and iptables."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from integration import namespaces
from integration.checks import (
    address_of,
    bridge,
    check,
    dual_stack,
    pods,
    refusal,
)
from integration.firewalls import (
    BACKENDS,
    FORWARD,
    choose_iptables,
    conf,
    drop_forwarded,
    elements,
    iptables,
    traces,
)
from integration.rights import unable

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_finds_each_missing_piece(node: Node, backend: str) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result, backend=backend, ingressPolicy="isolated")
    node.add("firewall", given, netns="c1")
    if backend == "iptables":
        saved = {
            family: [line[3:] for line in iptables(node, family=family) if line[:2] == "-A"]
            for family in (4, 6)
        }
        for family, rules in saved.items():
            program = "iptables" if family == 4 else "ip6tables"
            for rule in rules:
                table = f"*filter\n-D {rule}\nCOMMIT\n"
                node.run([f"{program}-restore", "--noflush"], stdin=table.encode())
                said = check(node, "firewall", given, result)
                assert rule.split(" ")[0] in said, (rule, said)
                node.add("firewall", given, netns="c1")
                assert check(node, "firewall", given, result) == ""
        return
    four, six = address_of(result), address_of(result, 1)
    table = "inet cni_plugins_firewall"
    for broken, said in (
        (f"delete element {table} pods4 {{ {four} }}", four),
        (f"delete element {table} pods6 {{ {six} }}", six),
        (f'delete element {table} bridges {{ "br0" }}', "bridge br0"),
        (f'delete element {table} isolated {{ "br0" . "br0" }}', "bridge br0"),
        (f'delete element {table} inside {{ "br0" . "br0" }}', "bridge br0"),
        (f"flush chain {table} isolation", "not as firewall makes them"),
        (f"flush chain {table} forward", "not as firewall makes them"),
        ("flush ruleset", "not as firewall makes them"),
    ):
        node.run(["nft", broken])
        assert said in check(node, "firewall", given, result), broken
        node.add("firewall", given, netns="c1")
        assert check(node, "firewall", given, result) == ""


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_check_finds_that_iptables_drops_since(node: Node, variant: str) -> None:
    choose_iptables(node, variant)
    (result,) = pods(node, bridge(), "c1")
    node.add("firewall", conf(result), netns="c1")
    assert check(node, "firewall", conf(result), result) == ""
    drop_forwarded(node)
    assert "now it drops them" in check(node, "firewall", conf(result), result)
    # Attached anew it is iptables' and nothing is left in the other place
    node.add("firewall", conf(result), netns="c1")
    assert check(node, "firewall", conf(result), result) == ""
    assert elements(node, "pods4") == ""
    node.delete("firewall", conf(), netns="c1")
    assert traces(node) == []
    node.add("firewall", conf(result, backend="nftables"), netns="c1")
    assert check(node, "firewall", conf(result, backend="nftables"), result) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_address_that_passed_to_another(node: Node, backend: str) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result, backend=backend)
    node.add("firewall", given, container="old", netns="c1")
    node.add("firewall", given, container="new", netns="c1")
    node.delete("firewall", given, container="old")
    node.delete("firewall", given, container="old")
    assert check(node, "firewall", given, result, container="new") == ""
    collect = conf(**{"cni.dev/valid-attachments": [{"containerID": "new", "ifname": "eth0"}]})
    assert node.cni("GC", "firewall", collect) == (0, None)
    assert check(node, "firewall", given, result, container="new") == ""
    node.delete("firewall", given, container="new")
    assert traces(node) == []


def test_gc_of_both_backends(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    for number, (name, backend) in enumerate((("a", "nftables"), ("b", "nftables"), ("c", "iptables"))):
        ips = [{"address": f"10.77.0.{10 + number}/24"}, {"address": f"fd00:77::{10 + number}/64"}]
        node.add("firewall", conf({**result, "ips": ips}, backend=backend), container=name, netns="c1")
    ips = [{"address": "10.77.0.20/24"}]
    node.add("firewall", conf({**result, "ips": ips}, name="else"), container="d", netns="c1")
    os.unlink(node.path("/run/cni/firewall/net:b:eth0"))
    keep = conf(**{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]})
    assert node.cni("GC", "firewall", keep) == (0, None)
    said = capfd.readouterr().err
    for address in ("10.77.0.11", "fd00:77::11"):  # it had no note
        assert f"removed {address} from the firewall (net: net, if: eth0, id: b)" in said
    assert "removed what let c eth0 through the firewall" in said
    assert "10.77.0.10" not in said
    assert "10.77.0.10 " in elements(node, "pods4")
    assert "10.77.0.11 " not in elements(node, "pods4")
    assert [line for line in iptables(node, "CNI-FORWARD") if "10.77.0.12/" in line] == []
    none = conf(**{"cni.dev/valid-attachments": []})
    assert node.cni("GC", "firewall", none) == (0, None)
    assert elements(node, "pods4") == ""
    assert len([line for line in iptables(node, "CNI-FORWARD") if "10.77.0.20/" in line]) == 2
    assert node.cni("GC", "firewall", {**none, "name": "else"}) == (0, None)
    assert [line for line in traces(node) if "address:" not in line] == []


def test_gc_that_is_refused_claims_nothing(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    (result,) = pods(node, bridge(), "c1")
    node.add("firewall", conf(result, backend="nftables"), netns="c1")
    none = conf(**{"cni.dev/valid-attachments": []})
    refusal(node, "GC", "firewall", none, plugins=unable(node, "firewall"))
    assert "removed" not in capfd.readouterr().err
    assert f"{address_of(result)} " in elements(node, "pods4")
    assert node.cni("GC", "firewall", none) == (0, None)
    assert "removed what let c1 eth0 through the firewall" in capfd.readouterr().err
    assert elements(node, "pods4") == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_without_the_note(node: Node, backend: str) -> None:
    (result,) = pods(node, bridge(), "c1")
    node.add("firewall", conf(result, backend=backend), netns="c1")
    os.unlink(node.path("/run/cni/firewall/net:c1:eth0"))
    # nftables knows by the comment, iptables by the addresses alone; the backend is another by now
    node.delete("firewall", conf(None if backend == "nftables" else result, backend="nftables"))
    assert [line for line in traces(node) if "address:" not in line] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_once(node: Node, backend: str) -> None:
    (result,) = pods(node, bridge(), "c1")

    def serve(number: int) -> None:
        given = conf({**result, "ips": [{"address": f"10.77.0.{number}/24"}]}, backend=backend)
        name = f"p{number}"
        node.add("firewall", given, container=name, netns="c1")
        assert check(node, "firewall", given, given["prevResult"], container=name) == ""
        if number % 2:
            node.delete("firewall", given, container=name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(10, 22)))
    if backend == "nftables":
        assert elements(node, "pods4").count("comment") == 6
        assert node.ruleset().count("jump admin") == 1
    else:
        assert len(iptables(node, "CNI-FORWARD")) == 2 + 6 * 2
        assert iptables(node, "FORWARD")[1:] == [FORWARD]
    none = conf(**{"cni.dev/valid-attachments": []})
    assert node.cni("GC", "firewall", none) == (0, None)
    assert traces(node) == []


def status(node: Node, **keys: Any) -> tuple[int, str]:
    answered, error = node.cni("STATUS", "firewall", conf(**keys))
    return (0, "") if answered == 0 else (error["code"], error["msg"])


@pytest.mark.kernel("bridge netfilter")
def test_status(node: Node) -> None:
    for keys in ({}, {"backend": "nftables"}, {"backend": "iptables"}, {"ingressPolicy": "isolated"}):
        assert status(node, **keys) == (0, "")
    assert node.ruleset() == ""
    missing = "firewalld is not on the system's message bus: No such file or directory"
    assert status(node, backend="firewalld") == (50, missing)
    node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])
    code, said = status(node, ingressPolicy="isolated")
    assert (code, "ports of a bridge" in said) == (50, True)
    assert status(node, ingressPolicy="same-bridge") == (0, "")
    assert status(node, ingressPolicy="closed")[0] == 7
    node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"])
    node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0"])
    assert status(node, ingressPolicy="isolated") == (0, ""), "nothing tells of IPv6 addresses"
    note = "/run/cni/firewall/net:c6:eth0"
    os.makedirs(os.path.dirname(node.path(note)))
    with open(node.path(note), "w", encoding="ascii") as file:
        file.write("backend nftables\nzone trusted\naddress fd77::2\n")
    code, said = status(node, ingressPolicy="isolated")
    assert (code, "IPv6 packets between ports of a bridge" in said) == (50, True)
    os.unlink(node.path("/etc/alternatives/iptables"))
    code, said = status(node, backend="iptables")
    assert (code, said.startswith("backend needs iptables, which cannot be used: iptables is not")) == (
        50,
        True,
    )


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_status_where_iptables_drops(node: Node, capfd: pytest.CaptureFixture[str], variant: str) -> None:
    """nftables alone cannot help then, and whether rules of the administrator's do, nobody can tell."""
    choose_iptables(node, variant)
    said = "iptables drops what it does not accept itself"
    assert status(node, backend="nftables") == (0, "")
    drop_forwarded(node)
    assert status(node) == (0, ""), "iptables is chosen"
    if variant == "nft":
        code, message = status(node, backend="nftables")
        assert (code, said in message) == (50, True)
    for program in ("iptables", "ip6tables"):
        node.run([program, "-A", "FORWARD", "-i", "br0", "-j", "ACCEPT"])
    assert said not in capfd.readouterr().err
    assert status(node, backend="nftables") == (0, "")
    assert said in capfd.readouterr().err


def test_rules_of_programs_that_are_not_installed(node: Node) -> None:
    """As kube-proxy's own iptables leaves them: a policy to drop needs iptables, rules alone do not."""
    (result,) = pods(node, bridge(), "c1")
    node.run(["iptables", "-A", "FORWARD", "-j", "ACCEPT"])
    hidden = node.path("/run/hidden")
    os.mkdir(hidden)
    with node.entered():
        namespaces.mount("/run/hidden", "/usr/sbin", flags=namespaces.MS_BIND)
    node.add("firewall", conf(result), netns="c1")
    node.delete("firewall", conf(result, backend="nftables"), netns="c1")
    with node.entered():
        namespaces.unmount("/usr/sbin")
    assert traces(node)[1:] == []
    drop_forwarded(node)
    with node.entered():
        namespaces.mount("/run/hidden", "/usr/sbin", flags=namespaces.MS_BIND)
    error = refusal(node, "ADD", "firewall", conf(result), netns="c1")
    assert (error["code"], "iptables" in error["msg"], "not installed" in error["msg"]) == (106, True, True)
