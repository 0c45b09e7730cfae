from __future__ import annotations

import pytest

from cni_plugins.address import parse_address
from cni_plugins.kernel.nlattr import attr, attr_str, attribute_map, nested
from cni_plugins.rules import portmap_nftables as rules
from cni_plugins.rules.portmap import Mapping
from cni_plugins.rules.portmap_note import Note, udp_targets
from cni_plugins.spec.errors import InvalidConfigError
from tests.test_portmap import conf

POD4 = parse_address("10.244.1.5")
POD6 = parse_address("fd00::5")
WEB = Mapping("tcp", 8080, 80)
DNS = Mapping("udp", 53, 5353, "192.0.2.1")


def test_mapping_rule_says_host_port_and_target() -> None:
    rule = rules.mapping_rule("c1", DNS, POD4)
    assert (rule.chain, rule.comment) == ("hostports", "c1")
    host = parse_address("192.0.2.1")
    assert rules.signature(rule.expressions) == [host, b"\x11", b"\0\x35", POD4, b"\x14\xe9", b"nat"]
    assert rules.signature(rules.mapping_rule("c1", WEB, POD6).expressions)[-3:] == [POD6, b"\0\x50", b"nat"]


def test_masquerade_rules() -> None:
    def said(address: bytes, **keys: bool) -> list[list[bytes]]:
        made = rules.masquerade_rules("c1", conf(**keys), address)
        assert all(rule.chain == "masquerading" for rule in made)
        return [rules.signature(rule.expressions) for rule in made]

    assert said(POD4) == [[POD4, POD4, b"masq"], [b"\x7f\0\0\1", POD4, b"masq"]]
    assert said(POD6) == [[POD6, POD6, b"masq"]]
    assert said(POD4, masqAll=True) == [[b"\0\0\0\0", POD4, b"masq"]]
    assert said(POD4, snat=False) == []


def test_layout_is_whole_with_these_counts() -> None:
    assert rules.layout(4).entrances == {"hostports_all": 4, "prerouting": 1, "output": 1}
    assert rules.layout(6).table.family == 10


def test_comment_is_what_nft_takes() -> None:
    assert len(rules.comment("c" * 200)) == 128


def test_script_has_conditions_before_the_match() -> None:
    words = ["ip", "saddr", "!=", "192.0.2.0/24"]
    assert rules.script("c1", [WEB, DNS], words, POD4).splitlines() == [
        (
            "insert rule ip cni_hostport hostports ip saddr != 192.0.2.0/24 ip daddr 192.0.2.1 udp dport 53"
            ' dnat to 10.244.1.5:5353 comment "c1"'
        ),
        (
            "insert rule ip cni_hostport hostports ip saddr != 192.0.2.0/24 tcp dport 8080"
            ' dnat to 10.244.1.5:80 comment "c1"'
        ),
    ]
    assert "dnat to [fd00::5]:80" in rules.script("c1", [WEB], ["iifname", "eth0"], POD6)


@pytest.mark.parametrize("word", ["x;", "x\n", "#", "x\\"])
def test_script_refuses_what_ends_a_rule(word: str) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be written in an nftables rule"):
        rules.script("c1", [WEB], ["iifname", word], POD4)


def test_signature_passes_over_what_it_does_not_know() -> None:
    counter = nested(1, attr_str(1, "counter"), nested(2))
    assert rules.signature(counter + rules.mapping_rule("c1", WEB, POD4).expressions)[0] == b"\x06"
    verdict = nested(1, attr_str(1, "immediate"), nested(2, attr(1, b"\0\0\0\0"), nested(2, nested(2))))
    assert rules.signature(verdict) == []
    assert attribute_map(verdict)


def test_note_comes_back() -> None:
    note = Note("nftables")
    note.addresses = {4: POD4, 6: POD6}
    note.udp = udp_targets([WEB, DNS, Mapping("udp", 54, 54)])
    note.rules = [(4, "hostports", 12), (6, "masquerading", 3)]
    back = Note.parse([*note.lines(), "later something"])
    assert back is not None
    assert back.lines() == note.lines()
    assert (back.addresses, back.udp, back.rules) == (note.addresses, note.udp, note.rules)


@pytest.mark.parametrize(
    "lines", [None, [], ["backend"], ["backend nftables", "rule x hostports 1"], ["udp 53 any"]]
)
def test_note_that_cannot_be_understood(lines: list[str] | None) -> None:
    assert Note.parse(lines) is None
