"""Masquerade on a real kernel: what nft shows, what packets show, and what is left."""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins.address import Prefix
from cni_plugins.attach import masquerade
from cni_plugins.kernel import notes
from cni_plugins.rules.masquerade import attachment_hash, comment
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError
from integration.checks import files, pod_rules, ptp
from integration.killing import killed
from integration.masquerades import ADDRESSES, add, remove, request
from integration.suite import ROOT
from integration.waiting import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from types import FrameType

    from integration.node import Node

HEAD = """\
table inet cni_plugins_masquerade {
	comment "Masquerading for plugins from github.com/containernetworking/plugins"
	chain masq_checks {
		comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
"""
TAIL = """\
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		goto masq_checks
	}
}
"""
PARALLEL = 20
OTHERS = 100


def ruleset(*rules: str) -> str:
    return HEAD + "".join(f"\t\t{rule}\n" for rule in rules) + TAIL


def text(address: Prefix, container: str = "c1", ifname: str = "eth0", network: str = "net") -> str:
    ip = "ip" if address.version == 4 else "ip6"
    host = Prefix(address.address, address.bits).__str__().partition("/")[0]
    said = comment(network, container, ifname)
    return f'{ip} saddr {host} {ip} daddr != {address.network()} masquerade comment "{said}"'


def peer_ruleset(*containers: str) -> bytes:
    """Return what the reference's nftables backend sends to nft."""
    rules = "".join(
        f"add rule inet cni_plugins_masquerade masq_checks ip saddr == 10.77.0.5 ip daddr != 10.77.0.0/24"
        f' masquerade comment "{comment("net", container, "eth0")}"\n'
        for container in containers
    )
    return f"""\
add table inet cni_plugins_masquerade {{ comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }}
add chain inet cni_plugins_masquerade masq_checks {{ comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }}
add chain inet cni_plugins_masquerade postrouting {{ type nat hook postrouting priority 100 ; }}
flush chain inet cni_plugins_masquerade postrouting
add rule inet cni_plugins_masquerade postrouting ip daddr == 224.0.0.0/4  return
add rule inet cni_plugins_masquerade postrouting ip6 daddr == ff00::/8  return
add rule inet cni_plugins_masquerade postrouting goto masq_checks
{rules}""".encode()  # noqa: E501


def note(node: Node, container: str = "c1") -> list[str] | None:
    with node.entered():
        return notes.read("masquerade", ("net", container, "eth0"))


def handles(node: Node) -> dict[int, str]:
    listed = json.loads(node.run(["nft", "-j", "list", "table", "inet", "cni_plugins_masquerade"]).stdout)
    rules = [item["rule"] for item in listed["nftables"] if "rule" in item]
    return {rule["handle"]: rule.get("comment", "") for rule in rules}


def test_the_ruleset_is_the_references(node: Node) -> None:
    add(node)
    ours = node.ruleset()
    assert ours == ruleset(*map(text, ADDRESSES))
    remove(node)
    assert node.ruleset() == ruleset()
    assert note(node) is None
    remove(node)
    node.run(["nft", "flush", "ruleset"])
    node.run(["nft", "-f", "-"], stdin=peer_ruleset("c1"))
    assert node.ruleset() == ruleset(text(ADDRESSES[0]))


def test_an_unknown_backend_is_refused(node: Node) -> None:
    with pytest.raises(InvalidConfigError, match="ipfw"):
        add(node, backend="ipfw")


def test_nothing_there_is_no_error_and_makes_nothing(node: Node) -> None:
    remove(node)
    with node.entered():
        masquerade.gc(request("GC"), set(), configured=True)
    assert node.ruleset() == ""


def test_the_note_holds_the_rules_handles(node: Node) -> None:
    add(node)
    assert sorted(map(int, note(node) or [])) == sorted(
        handle for handle, said in handles(node).items() if said == comment("net", "c1", "eth0")
    )


def test_a_second_add_replaces_the_first_ones_rules(node: Node) -> None:
    add(node)
    add(node, Prefix.parse("10.77.0.9/24"))
    assert node.ruleset() == ruleset(text(Prefix.parse("10.77.0.9/24")))


def test_an_emptied_entrance_is_made_again(node: Node) -> None:
    add(node)
    node.run(["nft", "flush", "chain", "inet", "cni_plugins_masquerade", "postrouting"])
    with node.entered(), pytest.raises(CheckFailedError, match="postrouting"):
        masquerade.check(request("CHECK"), ADDRESSES, None)
    add(node, Prefix.parse("10.77.0.6/24"), container="c2")
    assert node.ruleset() == ruleset(
        *map(text, ADDRESSES), text(Prefix.parse("10.77.0.6/24"), container="c2")
    )


def test_what_the_reference_made_is_taken_over_and_removed(node: Node) -> None:
    node.run(["nft", "-f", "-"], stdin=peer_ruleset("c1", "c2"))
    before = handles(node)
    add(node, container="c3")
    assert set(before) <= set(handles(node)), "the reference's chains were written anew"
    with node.entered():
        masquerade.check(request("CHECK"), ADDRESSES[:1], None)
    remove(node, container="c1")
    remove(node, container="c3")
    assert node.ruleset() == ruleset(text(ADDRESSES[0], "c2"))


def test_a_handle_that_is_anothers_now_is_left_alone(node: Node) -> None:
    add(node, ADDRESSES[0])
    stale = note(node)
    node.run(["nft", "flush", "ruleset"])
    add(node, ADDRESSES[0], container="c2")
    assert note(node, "c2") == stale
    remove(node, container="c1")
    assert node.ruleset() == ruleset(text(ADDRESSES[0], "c2"))


@pytest.mark.parametrize("damage", [["12x"], [], ["99999999"], ["", "1"]])
def test_a_damaged_note_is_not_believed(node: Node, damage: list[str]) -> None:
    add(node)
    with node.entered():
        notes.write("masquerade", ("net", "c1", "eth0"), damage)
    remove(node)
    assert node.ruleset() == ruleset()


def test_interfaces_of_one_container_are_told_apart(node: Node) -> None:
    add(node, ADDRESSES[0])
    add(node, ADDRESSES[1], ifname="eth1")
    remove(node)
    assert node.ruleset() == ruleset(text(ADDRESSES[1], ifname="eth1"))


def test_check_names_the_address_that_is_missing(node: Node) -> None:
    with node.entered(), pytest.raises(CheckFailedError):
        masquerade.check(request("CHECK"), ADDRESSES, None)
    add(node)
    with node.entered():
        masquerade.check(request("CHECK"), ADDRESSES, None)
    gone = next(handle for handle, said in handles(node).items() if said)
    node.run(["nft", "delete", "rule", "inet", "cni_plugins_masquerade", "masq_checks", "handle", str(gone)])
    with node.entered(), pytest.raises(CheckFailedError, match=r"10\.77\.0\.5/24"):
        masquerade.check(request("CHECK"), ADDRESSES, None)


def test_gc_spares_the_valid_and_other_networks(node: Node) -> None:
    node.run(["nft", "-f", "-"], stdin=peer_ruleset("old"))
    for container in ("c1", "c2"):
        add(node, ADDRESSES[0], container=container)
    add(node, ADDRESSES[0], network="other")
    with node.entered():
        masquerade.gc(request("GC"), {("c2", "eth0"), ("c1", "eth1")}, configured=True)
    assert node.ruleset() == ruleset(text(ADDRESSES[0], "c2"), text(ADDRESSES[0], network="other"))
    assert note(node) is None
    assert note(node, "c2")


def test_parallel_calls_leave_the_chains_and_nothing_else(node: Node) -> None:
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from cni_plugins.address import Prefix
from cni_plugins.attach import masquerade
from cni_plugins.spec.request import Request
command, number = sys.argv[1:]
env = {{"CNI_COMMAND": command, "CNI_CONTAINERID": f"c{{number}}", "CNI_IFNAME": "eth0"}}
request = Request(env, {{"cniVersion": "1.1.0", "name": "net"}})
if command == "ADD":
    masquerade.add(request, [Prefix.parse(f"10.77.0.{{number}}/24")], None)
else:
    masquerade.remove(request)
"""

    def start(command: str, number: int) -> subprocess.Popen[bytes]:
        return node.popen([sys.executable, "-IS", "-c", script, command, str(number)])

    def finish(processes: list[subprocess.Popen[bytes]]) -> None:
        assert [process.wait() for process in processes] == [0] * len(processes)

    finish([start("ADD", number) for number in range(1, PARALLEL + 1)])
    assert sorted(node.ruleset().splitlines()) == sorted(
        ruleset(
            *(text(Prefix.parse(f"10.77.0.{number}/24"), f"c{number}") for number in range(1, PARALLEL + 1))
        ).splitlines()
    )
    mixed = [start("DEL", number) for number in range(1, PARALLEL + 1)]
    mixed += [start("ADD", number) for number in range(PARALLEL + 1, 2 * PARALLEL + 1)]
    finish(mixed)
    finish([start("DEL", number) for number in range(PARALLEL + 1, 2 * PARALLEL + 1)])
    assert node.ruleset() == ruleset()


def test_the_outside_sees_the_nodes_address(node: Node) -> None:
    for name, ends in {
        "pod": ("10.77.0.5/24", "10.77.0.1/24"),
        "far": ("192.0.2.9/24", "192.0.2.1/24"),
    }.items():
        node.netns(name)
        node.run(["ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name])
        node.run(["ip", "address", "add", ends[1], "dev", name])
        node.run(["ip", "link", "set", name, "up"])
        node.exec(name, "ip", "link", "set", "lo", "up")
        node.exec(name, "ip", "address", "add", ends[0], "dev", "eth0")
        node.exec(name, "ip", "link", "set", "eth0", "up")
        node.exec(name, "ip", "route", "add", "default", "via", ends[1].partition("/")[0])
    for name, inside, outside in (
        ("pod", "fd77::5/64", "fd77::1/64"),
        ("far", "2001:db8::9/64", "2001:db8::1/64"),
    ):
        node.run(["ip", "address", "add", outside, "dev", name, "nodad"])
        node.exec(name, "ip", "address", "add", inside, "dev", "eth0", "nodad")
        node.exec(name, "ip", "route", "add", "default", "via", outside.partition("/")[0])
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    assert source(node, "192.0.2.9") == "10.77.0.5"
    assert source(node, "2001:db8::9") == "fd77::5"
    add(node)
    assert source(node, "192.0.2.9") == "192.0.2.1"
    assert source(node, "2001:db8::9") == "2001:db8::1"
    remove(node)
    assert source(node, "192.0.2.9") == "10.77.0.5"
    assert source(node, "2001:db8::9") == "fd77::5"


def source(node: Node, target: str) -> str:
    """Return the address from which a datagram of the pod reaches the target."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with node.entered("far"):
        server = socket.socket(family, socket.SOCK_DGRAM)
    # A port of its own each time, or the connection's earlier translation would still hold
    with node.entered("pod"):
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.bind((target, 9000))

        def arrives() -> bool:
            client.sendto(b"x", (target, 9000))
            return bool(select.select([server], [], [], 0.05)[0])

        until(arrives)
        seen: str = server.recvfrom(10)[1][0]
        return seen


def test_a_call_costs_little_and_starts_no_program(node: Node) -> None:
    """It costs about the same however many others there are: what Python calls is counted."""
    with node.entered():
        asked, deleted = request("ADD"), request("DEL")

        def once() -> None:
            masquerade.add(asked, ADDRESSES, None)
            masquerade.remove(deleted)

        once()  # this one makes the table
        alone = calls_of(once)
        for number in range(OTHERS):
            masquerade.add(
                request("ADD", container=f"old{number}"), [Prefix.parse(f"10.77.0.{number}/24")], None
            )
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        assert calls_of(once) < alone + OTHERS // 2
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt == children
    assert attachment_hash("net", "c1", "eth0") not in node.ruleset()


def calls_of(act: Callable[[], None]) -> int:
    """Count the functions that are called."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


CALLS = frozenset(("getrandom", "link", "lstat", "mkdir", "open", "rename", "send", "unlink", "write"))
"""What changes something, or comes right after something that does."""


def test_an_add_killed_anywhere_leaves_word_for_del(node: Node) -> None:
    """The option may be turned off meanwhile."""
    reached, number = True, 0
    while reached:
        number += 1
        reached = killed(node, number, CALLS, lambda: masquerade.add(request("ADD"), ADDRESSES, None))
        node.delete("ptp", ptp())
        assert pod_rules(node) == [], number
        assert [path for path in files(node) if "/masquerade" in path] == [], number
    assert number > 5
