"""What nft and nftexpr pack, as pyroute2 reads it. The kernel reads it in integration/test_nft.py."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink import nftsocket

from cni_plugins.address import Prefix
from cni_plugins.kernel import nft, nftbatch, nftexpr
from cni_plugins.kernel.netlink import Reply

TABLE = nftbatch.Table(nftbatch.INET, "t")
CLASSES = {
    nftsocket.NFT_MSG_NEWTABLE: nftsocket.nft_table_msg,
    nftsocket.NFT_MSG_NEWCHAIN: nftsocket.nft_chain_msg,
    nftsocket.NFT_MSG_DELCHAIN: nftsocket.nft_chain_msg,
    nftsocket.NFT_MSG_NEWRULE: nftsocket.nft_rule_msg,
    nftsocket.NFT_MSG_DELRULE: nftsocket.nft_rule_msg,
}
ECHO, APPEND, CREATE = 0x8, 0x800, 0x400

networks = st.one_of(
    st.builds(lambda host, length: (host.packed, length), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda host, length: (host.packed, length), st.ip_addresses(v=6), st.integers(0, 128)),
).map(lambda pair: Prefix(*pair))


def decoded(batch: nftbatch.Batch) -> list[dict[str, Any]]:
    found = []
    for kind, flags, body in batch.messages():
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
        message = CLASSES[kind & 0xFF](header + body)
        message.decode()
        found.append({"family": message["nfgen_family"], **plain(message)})
    return found


def plain(message: Any) -> Any:
    """Return pyroute2's attributes as dictionaries, their prefixes cut off."""
    if isinstance(message, list):
        return [plain(each) for each in message]
    if not hasattr(message, "get_attrs"):
        return message
    return {slot.name.split("_", 2)[2]: plain(slot.value) for slot in message["attrs"]}


def expressions(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    batch = nftbatch.Batch()
    batch.add_rule(TABLE, nftbatch.Rule("c", data))
    return [(each["NAME"], each["DATA"]) for each in decoded(batch)[0]["EXPRESSIONS"]]


def test_a_table_and_its_chains() -> None:
    batch = nftbatch.Batch()
    batch.add_table(nftbatch.Table(nftbatch.BRIDGE, "t", "what for"))
    batch.add_chain(TABLE, nftbatch.Chain("c"))
    batch.add_chain(TABLE, nftbatch.Chain("b", "in", "filter", nftbatch.OUTPUT, -300))
    batch.delete_chain(TABLE, "c")
    assert decoded(batch) == [
        {"family": 7, "NAME": "t", "USERDATA": "what for"},
        {"family": 1, "TABLE": "t", "NAME": "c"},
        {
            "family": 1,
            "TABLE": "t",
            "NAME": "b",
            "HOOK": {"HOOKNUM": 3, "PRIORITY": -300},
            "POLICY": 1,
            "TYPE": "filter",
            "USERDATA": "in",
        },
        {"family": 1, "TABLE": "t", "NAME": "c"},
    ]


def test_where_a_rule_goes() -> None:
    batch = nftbatch.Batch()
    rule = nftbatch.Rule("c", nftexpr.accept())
    batch.add_rule(TABLE, rule)
    batch.add_rule(TABLE, rule, front=True)
    batch.add_layout(nftbatch.Layout(TABLE, [], [rule]))
    flags = [flags for kind, flags, _body in batch.messages() if kind & 0xFF == nftsocket.NFT_MSG_NEWRULE]
    assert flags == [CREATE | ECHO | APPEND, CREATE | ECHO, CREATE | APPEND]


def test_rules_are_deleted_by_handle_or_all() -> None:
    batch = nftbatch.Batch()
    batch.delete_rule(TABLE, "c", 1 << 40)
    batch.flush_chain(TABLE, "c")
    assert decoded(batch) == [
        {"family": 1, "TABLE": "t", "CHAIN": "c", "HANDLE": 1 << 40},
        {"family": 1, "TABLE": "t", "CHAIN": "c"},
    ]


def test_batches_are_joined() -> None:
    one, two = nftbatch.Batch(), nftbatch.Batch()
    assert not one
    two.delete_chain(TABLE, "c")
    one.extend(two)
    assert one.messages() == two.messages()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_comment_comes_back_cut_to_what_nft_takes(comment: str) -> None:
    batch = nftbatch.Batch()
    batch.add_rule(TABLE, nftbatch.Rule("c", nftexpr.drop(), comment))
    (_kind, _flags, body) = batch.messages()[0]
    cut = comment.encode()[: nftbatch.MAX_COMMENT].decode("utf-8", "surrogateescape")
    # The kernel adds the handle, and tells of the rule in the same form
    body += struct.pack("=HH", 12, 3) + (5).to_bytes(8, "big")
    rule = nft._found(Reply(nftbatch.NEWRULE, 0, body))
    assert (rule.chain, rule.handle, rule.comment) == ("c", 5, cut)
    if cut == comment:
        assert decoded(batch)[0]["USERDATA"] == comment


@given(networks, st.sampled_from(["saddr", "daddr"]), st.booleans())
def test_an_address_matches_its_subnet(prefix: Prefix, field: str, equal: bool) -> None:
    found = expressions(nftexpr.address(field, prefix, equal=equal))
    assert [name for name, _data in found] in (["payload", "cmp"], ["payload", "bitwise", "cmp"])
    load = found[0][1]
    assert load["BASE"] == "NFT_PAYLOAD_NETWORK_HEADER"
    starts = {4: {"saddr": 12, "daddr": 16}, 6: {"saddr": 8, "daddr": 24}}
    assert load["OFFSET"] == starts[prefix.version][field]
    compare = found[-1][1]
    assert compare["OP"] == ("NFT_CMP_EQ" if equal else "NFT_CMP_NEQ")
    value = compare["DATA"]["VALUE"]
    network = ipaddress.ip_network((prefix.address, prefix.length), strict=False)
    size = network.max_prefixlen // 8
    mask = b"\xff" * len(value)
    if len(found) == 3:
        mask = found[1][1]["MASK"]["VALUE"]
        assert found[1][1]["XOR"]["VALUE"] == bytes(len(mask))
        assert found[1][1]["LEN"] == len(mask)
    assert load["LEN"] == len(value) == len(mask)
    assert value.ljust(size, b"\0") == network.network_address.packed
    assert mask.ljust(size, b"\0") == network.netmask.packed


@given(st.sampled_from(sorted(nftexpr.PROTOCOLS)), st.integers(0, 65535), st.integers(0, 65535))
def test_a_forwarded_port(protocol: str, port: int, target: int) -> None:
    host = b"\x0a\x01\0\x05"
    found = expressions(nftexpr.protocol(protocol) + nftexpr.port("dport", port) + nftexpr.dnat(host, target))
    assert found == [
        ("meta", {"KEY": "NFT_META_L4PROTO", "DREG": "NFT_REG_1"}),
        ("cmp", equals(bytes((nftexpr.PROTOCOLS[protocol],)))),
        (
            "payload",
            {"DREG": "NFT_REG_1", "BASE": "NFT_PAYLOAD_TRANSPORT_HEADER", "OFFSET": 2, "LEN": 2},
        ),
        ("cmp", equals(port.to_bytes(2, "big"))),
        ("immediate", {"DREG": "NFT_REG_1", "DATA": {"VALUE": host}}),
        ("immediate", {"DREG": "NFT_REG_2", "DATA": {"VALUE": target.to_bytes(2, "big")}}),
        (
            "nat",
            {
                "TYPE": "NFT_NAT_DNAT",
                "FAMILY": 2,
                "REG_ADDR_MIN": "NFT_REG_1",
                "REG_PROTO_MIN": "NFT_REG_2",
                "FLAGS": {"NF_NAT_RANGE_MAP_IPS", "NF_NAT_RANGE_PROTO_SPECIFIED"},
            },
        ),
    ]


def test_verdicts() -> None:
    data = nftexpr.jump("a") + nftexpr.goto("b") + nftexpr.leave() + nftexpr.accept() + nftexpr.drop()
    verdicts = [found["DATA"]["VERDICT"] for _name, found in expressions(data)]
    assert verdicts == [
        {"CODE": "NFT_JUMP", "CHAIN": "a"},
        {"CODE": "NFT_GOTO", "CHAIN": "b"},
        {"CODE": "NFT_RETURN"},
        {"CODE": "NF_ACCEPT"},
        {"CODE": "NF_DROP"},
    ]
    assert expressions(nftexpr.drop())[0][1]["DREG"] == "NFT_REG_VERDICT"


def test_interfaces_and_marks() -> None:
    found = expressions(nftexpr.iifname("eth0") + nftexpr.oifname("eth1") + nftexpr.mark(0x2000))
    assert [data["KEY"] for name, data in found if name == "meta"] == [
        "NFT_META_IIFNAME",
        "NFT_META_OIFNAME",
        "NFT_META_MARK",
    ]
    assert [data["DATA"]["VALUE"] for name, data in found if name == "cmp"] == [
        b"eth0".ljust(16, b"\0"),
        b"eth1".ljust(16, b"\0"),
        struct.pack("=I", 0x2000),
    ]


def test_what_a_rule_compares() -> None:
    data = nftexpr.family(6) + nftexpr.ether_saddr(b"\2\0\0\0\0\1") + nftexpr.iifname("eth0") + nftexpr.drop()
    assert nftexpr.compared(data) == [b"\x0a", b"\2\0\0\0\0\1", nftexpr.interface("eth0")]


def equals(value: bytes) -> dict[str, Any]:
    return {"SREG": "NFT_REG_1", "OP": "NFT_CMP_EQ", "DATA": {"VALUE": value}}
