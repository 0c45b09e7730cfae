from __future__ import annotations

import hashlib

import pytest

from cni_plugins.address import Prefix
from cni_plugins.rules import masquerade, spoofcheck

LONG = "x" * 200


def digest(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()


def test_comment() -> None:
    one, two = digest("net")[:16], digest("eth0:c1")[:16]
    assert masquerade.comment("net", "c1", "eth0") == f"{one}-{two}, net: net, if: eth0, id: c1"
    assert masquerade.attachment_hash("net", "c1", "eth0") == f"{one}-{two}"
    assert masquerade.network_hash("net") == one


@pytest.mark.parametrize("ifname", ['et"h', "ü\udcff"])
def test_comment_of_an_odd_interface(ifname: str) -> None:
    said = masquerade.comment("net", "c1", ifname)
    assert f"if: {ifname.replace(chr(34), '')}, id" in said


def test_a_long_comment_is_cut_and_keeps_its_hashes() -> None:
    said = masquerade.comment("net", LONG, "eth0")
    assert len(said) == 128
    assert said.startswith(masquerade.attachment_hash("net", LONG, "eth0") + ", net: net, if: eth0, id: xxx")
    rules = masquerade.iptables_rules(LONG, LONG, [Prefix.parse("10.0.0.1/8")])
    assert all(len(rule.split('"', 1)[1].rsplit('"', 1)[0].replace("\\", "")) == 255 for rule in rules)


def test_iptables_chain() -> None:
    chain = masquerade.iptables_chain("net", "c1")
    assert chain == f"CNI-{digest('netc1')[:24]}"


def test_an_added_subnet_is_spared_before_all_is_masqueraded() -> None:
    rules = masquerade.iptables_rules("net", "c1", [Prefix.parse("10.0.0.1/8")])
    assert [line[:2] for line in masquerade.iptables_addition(rules)] == ["-I", "-A", "-A"]


def test_iptables_removal_takes_what_enters_the_chain() -> None:
    entries = ["-P POSTROUTING ACCEPT", "-A POSTROUTING -s 10.0.0.1/32 -j CNI-a", "-A POSTROUTING -j CNI-b"]
    assert masquerade.iptables_removal("CNI-a", entries) == [
        "-D POSTROUTING -s 10.0.0.1/32 -j CNI-a",
        ":CNI-a - [0:0]",
        "-X CNI-a",
    ]


def test_iptables_chains_of_a_network() -> None:
    own = [
        f"-A {rule}"
        for network in ("net", "net2")
        for rule in masquerade.iptables_rules(network, "c1", [Prefix.parse("10.0.0.1/8")])
    ]
    assert masquerade.iptables_chains("net", [*own, "-A POSTROUTING -j OTHER", "-N CNI-x"]) == {
        masquerade.iptables_chain("net", "c1")
    }


def test_spoofcheck_names() -> None:
    assert spoofcheck.mac_chain("c1", "eth0") == "cni-br-iface-c1-eth0-mac"
    assert spoofcheck.comment("c1", "eth0") == "macspoofchk-c1-eth0"
