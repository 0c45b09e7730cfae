"""What portmap makes, notes and removes, seen in the kernel's tables."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration.portmaps import (
    BACKENDS,
    NODE4,
    ask,
    cni_rules,
    conf,
    make_pod,
    mapping,
    nat,
    nft_rules,
    pod4,
    server,
)

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_mappings_no_work(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, backend=backend)
    for verb in ("ADD", "CHECK", "DEL"):
        assert net.cni(verb, "portmap", given, netns=pod)[0] == 0
    del given["runtimeConfig"]
    for verb in ("ADD", "CHECK", "DEL"):
        assert net.cni(verb, "portmap", given, netns=pod)[0] == 0
    net.add("portmap", conf(2, mapping(0, 80), backend=backend), netns=pod)
    assert net.ruleset() == ""
    assert not os.path.exists(net.path("/run/cni"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_goes_by_the_note(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    assert os.listdir(net.path("/run/cni/portmap")) == ["net:c1:eth0"]
    net.delete("portmap", {"cniVersion": "1.0.0", "name": "net", "backend": backend})
    assert cni_rules(net) == ""
    assert os.listdir(net.path("/run/cni/portmap")) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_without_a_note(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    os.unlink(net.path("/run/cni/portmap/net:c1:eth0"))
    del given["prevResult"], given["backend"]
    net.delete("portmap", given)
    assert cni_rules(net) == ""


def test_stale_note_takes_nothing_of_others(net: Node) -> None:
    """The tables were written anew, as a firewall's restart does: handles now are other rules'."""
    first, second = make_pod(net, 2), make_pod(net, 3)
    net.add("portmap", conf(2, mapping(80, 80)), container="a", netns=first)
    net.add("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    saved = net.run(["nft", "list", "ruleset"]).stdout
    net.run(["nft", "flush", "ruleset"])
    assert net.cni("CHECK", "portmap", conf(2, mapping(80, 80)), container="a", netns=first)[0] == 1
    net.run(["nft", "-f", "-"], stdin=saved)
    net.delete("portmap", conf(2, mapping(80, 80)), container="a", netns=first)
    assert 'comment "a"' not in net.ruleset()
    assert net.cni("CHECK", "portmap", conf(3, mapping(81, 80)), container="b", netns=second) == (0, None)
    net.run(["nft", "flush", "ruleset"])
    net.delete("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    net.add("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    with server(net, second, 80):
        assert ask(net, "out", NODE4, 81).startswith(second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_attachments_of_a_container(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    one, two = (
        conf(2, mapping(port, 80), name=name, backend=backend) for port, name in ((80, "n1"), (81, "n2"))
    )
    net.add("portmap", one, netns=pod)
    net.add("portmap", two, netns=pod)
    net.delete("portmap", one, netns=pod)
    net.delete("portmap", one, netns=pod)
    assert net.cni("CHECK", "portmap", two, netns=pod) == (0, None)
    net.delete("portmap", two, netns=pod)
    assert cni_rules(net) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_add(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    once = sorted(net.ruleset().splitlines())
    net.add("portmap", given, netns=pod)
    assert sorted(net.ruleset().splitlines()) == once
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""


@pytest.mark.parametrize("chain", ["hostports", "masquerading", "prerouting", "hostports_all"])
def test_check_finds_what_is_missing(net: Node, chain: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80))
    net.add("portmap", given, netns=pod)
    handle = nft_rules(net, chain)[0]
    net.run(["nft", "delete", "rule", "ip", "cni_hostport", chain, "handle", str(handle)])
    status, error = net.cni("CHECK", "portmap", given, netns=pod)
    assert (status, error["code"]) == (1, 101)
    assert "missing" in error["msg"] or "not as portmap makes them" in error["msg"]
    if chain == "hostports":
        assert "tcp port 80" in error["msg"]


def test_check_compares_the_target(net: Node) -> None:
    pod = make_pod(net, 2)
    net.add("portmap", conf(2, mapping(80, 80), mapping(81, 81)), netns=pod)
    status, error = net.cni("CHECK", "portmap", conf(2, mapping(80, 80), mapping(81, 82)), netns=pod)
    assert status == 1
    assert "tcp port 81" in error["msg"]


@pytest.mark.parametrize("rule", ["CNI-HOSTPORT-DNAT 1", "OUTPUT 1", "POSTROUTING 1", "{own} 3"])
def test_iptables_check(net: Node, rule: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend="iptables")
    net.add("portmap", given, netns=pod)
    own = next(line.split()[1] for line in nat(net).splitlines() if line.startswith("-N CNI-DN-"))
    net.run(["iptables", "-t", "nat", "-D", *rule.format(own=own).split()])
    status, error = net.cni("CHECK", "portmap", given, netns=pod)
    assert (status, error["code"]) == (1, 101)


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_once(net: Node, backend: str) -> None:
    def attach(number: int) -> None:
        given = conf(number, mapping(8000 + number, 80), backend=backend)
        name = f"c{number}"
        net.add("portmap", given, container=name, netns="out")
        assert net.cni("CHECK", "portmap", given, container=name, netns="out") == (0, None)
        if number % 2:
            net.delete("portmap", given, container=name, netns="out")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(attach, range(10)))
    if backend == "nftables":
        assert len(nft_rules(net, "hostports")) == 5
        assert len(nft_rules(net, "masquerading")) == 10
        assert len(nft_rules(net, "prerouting")) == 1
        assert len(nft_rules(net, "hostports_all")) == 2
    else:
        shown = nat(net).splitlines()
        assert sum(line.startswith("-A CNI-HOSTPORT-DNAT") for line in shown) == 5
        assert sum(line.startswith(("-A PREROUTING", "-A OUTPUT", "-A POSTROUTING")) for line in shown) == 3
        assert sum(line.startswith("-N CNI-DN-") for line in shown) == 5
    for number in range(0, 10, 2):
        net.delete("portmap", conf(number, mapping(1, 1)), container=f"c{number}")
    assert cni_rules(net) == ""


def test_gc(net: Node, capfd: pytest.CaptureFixture[str]) -> None:
    for number, (backend, container) in enumerate(zip(("nftables", "iptables") * 2, "acbd", strict=True)):
        given = conf(2, mapping(80, 80), mapping(5300 + number, 53, "udp"), backend=backend)
        net.add("portmap", given, container=container, netns="out")
        flow = f"-p udp -s 192.0.2.9 -d {NODE4} --sport {9 + number} --dport {5300 + number}"
        back = f"-r {pod4(2)} -q 192.0.2.9 --reply-port-src 53 --reply-port-dst {9 + number} -t 600"
        net.run(["conntrack", "-I", *flow.split(), *back.split()])
    net.add("portmap", conf(2, mapping(80, 80), name="else"), container="e", netns="out")
    given = {
        "cniVersion": "1.1.0",
        "name": "net",
        "cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in ("a", "c")],
    }
    capfd.readouterr()
    assert net.cni("GC", "portmap", given) == (0, None)
    said = capfd.readouterr().err
    gone = {f"GC of network net: removed host ports of {name} eth0" for name in ("b", "d")}
    assert set(said.removeprefix("portmap GC: ").splitlines()) - {""} == gone
    flows = net.run(["conntrack", "-L", "-p", "udp"]).stdout
    assert [b"dport=%d " % port in flows for port in range(5300, 5304)] == [True, True, False, False]
    for name, backend in (("a", "nftables"), ("c", "iptables")):
        checked = conf(2, mapping(80, 80), backend=backend)
        assert net.cni("CHECK", "portmap", checked, container=name, netns="out") == (0, None)
    rules = net.ruleset()
    assert 'comment "a"' in rules
    assert 'comment "b"' not in rules
    assert 'comment "e"' in rules
    shown = nat(net)
    assert r"id: \"c\"" in shown
    assert r"id: \"d\"" not in shown
    capfd.readouterr()
    assert net.cni("GC", "portmap", given) == (0, None)
    assert (capfd.readouterr().err, net.ruleset()) == ("", rules)
    given["cni.dev/valid-attachments"] = []
    assert net.cni("GC", "portmap", given) == (0, None)
    assert sorted(os.listdir(net.path("/run/cni/portmap"))) == ["else:e:eth0"]
    assert "CNI-DN-" not in nat(net)


def test_status(net: Node) -> None:
    for backend in (None, "nftables", "iptables"):
        given = {"cniVersion": "1.1.0", "name": "net", "backend": backend}
        assert net.cni("STATUS", "portmap", given) == (0, None)
    assert net.run(["nft", "list", "tables"]).stdout.decode().count("cni_hostport") == 0


def test_needs_a_previous_result(net: Node) -> None:
    given = {"cniVersion": "1.0.0", "name": "net", "runtimeConfig": {"portMappings": [mapping(80, 80)]}}
    status, error = net.cni("ADD", "portmap", given, netns="out")
    assert status == 1
    assert error["msg"] == "must be called as chained plugin"
    net.delete("portmap", given, netns="out")


def test_speed(net: Node) -> None:
    """No process is started for nftables, by ADD or by DEL."""
    given = conf(2, mapping(80, 80), mapping(53, 53, "udp"))
    for verb in ("ADD", "DEL"):
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/out",
            "CNI_PATH": net.plugins,
        }  # fmt: skip
        trace = net.run(
            ["strace", "-f", "-e", "trace=execve,clone,vfork,fork,clone3", f"{net.plugins}/portmap"],
            env,
            json.dumps({**given, "type": "portmap"}).encode(),
        ).stderr.decode()
        assert trace.count("execve(") == 1, trace
        assert "clone" not in trace
        assert "fork" not in trace
