from __future__ import annotations

from typing import Any

import pytest

from cni_plugins.address import Prefix
from cni_plugins.kernel import nftset
from cni_plugins.kernel.nftbatch import Batch
from cni_plugins.rules import firewall_nftables as nft_rules
from cni_plugins.rules.firewall import Note, Wanted, addresses_of
from cni_plugins.rules.firewall_iptables import Frame, address_rules
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.result import Interface, IPConfig, Result
from cni_plugins.spec.schema import validate

V4, V6 = Prefix.parse("10.1.2.3/24"), Prefix.parse("fd00::3/64")


def wanted(**keys: Any) -> Wanted:
    return Wanted(validate("FirewallConf", {"name": "net", "type": "firewall", **keys}))


def result(*names: str) -> Result:
    made = Result()
    made.interfaces = [Interface(name) for name in names]
    made.ips = [IPConfig(V4), IPConfig(V6), IPConfig(V4)]
    return made


def test_defaults() -> None:
    plain = wanted()
    assert (plain.backend, plain.admin_chain, plain.zone, plain.policy) == (
        "",
        "CNI-ADMIN",
        "trusted",
        "open",
    )
    assert plain.bridge(Result()) == ""
    empty = wanted(backend="", iptablesAdminChainName="", firewalldZone="", ingressPolicy="")
    assert (empty.backend, empty.policy) == ("", "open")


def test_a_chain_asks_for_iptables() -> None:
    asked = wanted(iptablesAdminChainName="OURS")
    assert (asked.backend, asked.admin_chain, asked.own_chain) == ("", "OURS", True)
    assert not wanted().own_chain


@pytest.mark.parametrize("name", ["a b", "a" * 29, "-j", "!x", 'a"b', "a\\b", "ä", "a\nb"])
def test_what_is_no_chain(name: str) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be a chain's name"):
        wanted(iptablesAdminChainName=name)


@pytest.mark.parametrize("names", [(), ("",), ("br+",), ('b"r',), ("b r",), ("-br",), ("x" * 16,)])
def test_what_is_no_bridge(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfigError):
        wanted(ingressPolicy="isolated").bridge(result(*names))


def test_addresses_are_hosts_each_once() -> None:
    assert [str(host) for host in addresses_of(result("br0"))] == ["10.1.2.3/32", "fd00::3/128"]


def test_a_note_is_read_as_it_was_written() -> None:
    note = Note("firewalld", "home", addresses_of(result()))
    again = Note.parse(note.lines())
    assert again is not None
    assert again.lines() == note.lines()
    assert (again.backend, again.zone, again.addresses) == ("firewalld", "home", note.addresses)
    for lines in (None, [], ["zone x"], ["backend iptables", "address nowhere"]):
        assert Note.parse(lines) is None


def test_only_what_is_missing_is_added() -> None:
    frame = Frame("CNI-ADMIN", "br0", "same-bridge")
    everything = frame.missing(set())
    assert everything[:4] == [
        ":CNI-FORWARD - [0:0]",
        ":CNI-ADMIN - [0:0]",
        ":CNI-ISOLATION-STAGE-1 - [0:0]",
        ":CNI-ISOLATION-STAGE-2 - [0:0]",
    ]
    there = {f"-N {chain}" for chain in frame.chains} | {f"-A {rule}" for _add, rule in frame.rules}
    assert frame.missing(there) == []
    entrance = frame.rules[0][1]
    lines = frame.missing(there - {f"-A {entrance}"})
    assert lines[0] == f"-I {entrance}"
    assert [line[:11] for line in lines[1:]] == ["-D FORWARD ", "-I FORWARD "]
    assert Frame("", "", "open").missing(set()) == []
    assert len(Frame("", "br0", "isolated").rules) == len(frame.rules) - 2 + 1


def test_rules_of_addresses() -> None:
    hosts = addresses_of(result())
    assert address_rules(hosts[1:]) == [
        "CNI-FORWARD -d fd00::3/128 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "CNI-FORWARD -s fd00::3/128 -j ACCEPT",
    ]


def test_elements_of_isolation() -> None:
    name = b"br0".ljust(16, b"\0")
    assert nft_rules.isolation("br0", "open") == nft_rules.isolation("", "isolated") == []
    same = nft_rules.isolation("br0", "same-bridge")
    assert [(among.name, key) for among, key in same] == [("bridges", name), ("inside", name + name)]
    isolated = nft_rules.isolation("br0", "isolated")
    assert [among.name for among, _key in isolated] == ["bridges", "inside", "isolated"]


def test_the_layout_counts_its_entrances() -> None:
    assert nft_rules.LAYOUT.entrances == {"isolation": 4, "forward": 6}


def test_an_element_is_one_message() -> None:
    batch = Batch()
    nftset.add(batch, nft_rules.PODS[4], V4.address, "whose")
    nftset.delete(batch, nft_rules.PODS[4], V4.address)
    (kind, flags, body), (gone, none, _body) = batch.messages()
    assert (kind & 0xFF, flags, gone & 0xFF, none) == (12, 0x400, 14, 0)
    assert b"pods4\0" in body
    assert V4.address in body
    assert b"whose\0" in body
