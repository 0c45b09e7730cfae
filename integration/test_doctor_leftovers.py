"""cnictl doctor on a node that Go plugins left things on, and on one that has hundreds of leftovers."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

import pytest

from integration.node import PEER
from integration.test_doctor import BRIDGE, STATE, checks, cnictl, doctor, net, put, state, write_list

if TYPE_CHECKING:
    from integration.node import Node

__all__ = ["net"]
CONF = {"cniVersion": "1.0.0", "name": "pods", **BRIDGE}
PORTS = {"portMappings": [{"hostPort": 8081, "containerPort": 81, "protocol": "tcp"}]}
MANY = 250


def attach_by_go(node: Node, name: str) -> Any:
    node.netns(name)
    result = node.add("bridge", CONF, container=name, netns=name, plugins=PEER)
    portmap = {**CONF, "type": "portmap", "runtimeConfig": PORTS, "prevResult": result}
    node.add("portmap", portmap, container=name, netns=name, plugins=PEER)
    return result


@pytest.mark.peer
def test_rules_that_go_plugins_left(net: Node) -> None:
    """The pod, its namespace and its reservation are gone; iptables has what was made for it."""
    before = net.run(["iptables-save"]).stdout
    attach_by_go(net, "stays")
    kept = net.run(["iptables-save"]).stdout
    attach_by_go(net, "gone")
    assert not {"stale-iptables-rule"} & checks(doctor(net)), "both are there"
    net.remove_netns("gone")
    put(net, f"{STATE}/10.59.0.4", "gone\r\neth0")
    saved = state(net)
    found = [each for each in doctor(net) if each["check"].startswith("stale-iptables")]
    assert state(net) == saved
    assert {each["network"] for each in found} == {"pods"}
    assert all("container gone" in each["text"] and each["safe"] for each in found)
    assert any("CNI-HOSTPORT-DNAT" in each["text"] for each in found)
    assert any("POSTROUTING" in each["text"] for each in found)
    assert doctor(net, "--fix") == []
    left = net.run(["iptables-save"]).stdout.decode()
    assert 'id: \\"stays\\"' in left
    assert sorted(_rules(left)) == sorted(_rules(kept.decode()))
    assert _rules(before.decode()) < _rules(left)


def _rules(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith(("-A ", ":CNI"))}


def test_a_chain_that_nothing_leads_to(net: Node) -> None:
    chain = f"CNI-{'0123456789ab' * 2}"
    net.run(["iptables", "-t", "nat", "-N", chain])
    (found,) = doctor(net)
    assert (found["check"], found["safe"]) == ("stale-iptables-chain", False)
    assert found["repair"] == [f"iptables -t nat -F {chain}", f"iptables -t nat -X {chain}"]


def measured(net: Node) -> tuple[int, str, float]:
    """Run the doctor; return its exit status, what it printed, and the CPU time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, text = cnictl(net, "doctor")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status, text, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_hundreds_of_leftovers(net: Node) -> None:
    status, _text, clean = measured(net)
    assert status == 0
    ranges = [[{"subnet": "10.59.0.0/16"}]]
    write_list(net, {**BRIDGE, "ipam": {"type": "host-local", "ranges": ranges}})
    iptables, nft, links = ["*nat"], [], []
    for number in range(MANY):
        put(net, f"{STATE}/10.59.1.{number}", f"gone{number}\r\neth0")
        chain, owner = f"CNI-{number:024x}", f'"name: \\"pods\\" id: \\"gone{number}\\""'
        iptables += [f":{chain} - [0:0]", f"-A {chain} -d 10.59.0.0/16 -j ACCEPT"]
        iptables.append(f"-A POSTROUTING -s 10.59.1.{number}/32 -m comment --comment {owner} -j {chain}")
        comment = f'"0-0, net: pods, if: eth0, id: gone{number}"'
        rule = f"ip saddr 10.59.1.{number} masquerade comment {comment}"
        nft.append(f"add rule inet cni_plugins_masquerade masq_checks {rule}")
    for number in range(30):
        links.append(f"link add stale{number} type veth peer name end{number}")
        links.append(f"link set stale{number} alias pods:gone:eth0")
    for command, given in (
        (["iptables-restore", "--noflush"], [*iptables, "COMMIT"]),
        (["nft", "-f", "-"], nft),
        (["ip", "-batch", "-"], links),
    ):
        net.run(command, stdin="\n".join([*given, ""]).encode())
    status, text, spent = measured(net)
    assert status == 1
    assert spent < 3 * clean, "CPU time: what else the machine does is not in it"
    lines = text.splitlines()
    assert len(lines) < 90
    more = f"... and {MANY - 8} more (leaked-address, network pods); --json tells each; --fix repairs all"
    assert more in lines
    status, text = cnictl(net, "doctor", "--json")
    assert len([each for each in json.loads(text) if each["check"] == "stale-iptables-rule"]) == MANY
