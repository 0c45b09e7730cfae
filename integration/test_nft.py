"""The nf_tables codec on a real kernel, read back by nft."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest

from cni_plugins.address import Prefix, format_address
from cni_plugins.kernel import nft, nftbatch, nftexpr

if TYPE_CHECKING:
    from integration.node import Node

IPV4 = nftbatch.Table(nftbatch.IPV4, "t")
IPV6 = nftbatch.Table(nftbatch.IPV6, "t")
RANDOM = random.Random(7)


def prefix(size: int) -> Prefix:
    return Prefix(RANDOM.randbytes(size), RANDOM.randint(0, size * 8)).network()


def shown(prefix: Prefix) -> str:
    return str(prefix) if prefix.length < prefix.bits else format_address(prefix.address)


def test_nft_shows_what_was_meant(node: Node) -> None:
    v4, v6 = nftexpr.address, b"\xfd" + bytes(14) + b"\5"
    rules = {
        "tcp dport 80 dnat to 10.1.0.5:8080": nftexpr.protocol("tcp")
        + nftexpr.port("dport", 80)
        + nftexpr.dnat(b"\x0a\1\0\5", 8080),
        "sctp sport 65535 accept": nftexpr.protocol("sctp") + nftexpr.port("sport", 65535) + nftexpr.accept(),
        "fib daddr type local jump d": nftexpr.fib_daddr_local() + nftexpr.jump("d"),
        "ct status dnat drop": nftexpr.forwarded() + nftexpr.drop(),
        'iifname "eth0" oifname "eth1" goto d': nftexpr.iifname("eth0")
        + nftexpr.oifname("eth1")
        + nftexpr.goto("d"),
        "meta mark 0x00002000 return": nftexpr.mark(0x2000) + nftexpr.leave(),
    }
    for _number in range(100):
        source, target = prefix(4), prefix(4)
        rules[f"ip saddr {shown(source)} ip daddr != {shown(target)} masquerade"] = (
            v4("saddr", source) + v4("daddr", target, equal=False) + nftexpr.masquerade()
        )
    rules6 = {
        "udp dport 53 dnat to [fd00::5]:5353": nftexpr.protocol("udp")
        + nftexpr.port("dport", 53)
        + nftexpr.dnat(v6, 5353)
    }
    for _number in range(100):
        source, target = prefix(16), prefix(16)
        rules6[f"ip6 saddr {shown(source)} ip6 daddr != {shown(target)} masquerade"] = (
            nftexpr.address("saddr", source)
            + nftexpr.address("daddr", target, equal=False)
            + nftexpr.masquerade()
        )
    batch = nftbatch.Batch()
    for table, said in ((IPV4, rules), (IPV6, rules6)):
        batch.add_table(table)
        batch.add_chain(table, nftbatch.Chain("d"))
        batch.add_chain(table, nftbatch.Chain("c", "a comment"))
        for data in said.values():
            batch.add_rule(table, nftbatch.Rule("c", data, "whose"))
    with node.entered(), nft.Nft() as tables:
        tables.commit(batch)
        handles = [rule.handle for rule in tables.rules(IPV4, "c")]
    for family, said in (("ip", rules), ("ip6", rules6)):
        listed = node.run(["nft", "-s", "list", "chain", family, "t", "c"]).stdout.decode()
        lines = [line.strip() for line in listed.splitlines()]
        assert lines[3:-2] == [f'{text} comment "whose"' for text in said]
        assert lines[2] == 'comment "a comment"'
    with node.entered(), nft.Nft() as tables:
        first = tables.rule(IPV4, "c", handles[0])
        assert first is not None
        assert nftexpr.compared(first.expressions) == nftexpr.compared(next(iter(rules.values())))


def test_what_is_missing_is_not_there(node: Node) -> None:
    with node.entered(), nft.Nft() as tables:
        assert tables.chain_use(IPV4, "c") is None
        assert tables.rules(IPV4) == []
        assert tables.rule(IPV4, "c", 1) is None
        assert tables.find(IPV4, "c", [1], lambda _comment: True) is None
        assert tables.commit(nftbatch.Batch()) == []


def test_a_refused_batch_changes_nothing_and_the_next_works(node: Node) -> None:
    with node.entered(), nft.Nft() as tables:
        batch = nftbatch.Batch()
        batch.add_table(IPV4)
        batch.add_chain(IPV4, nftbatch.Chain("c"))
        batch.add_rule(IPV4, nftbatch.Rule("c", nftexpr.jump("nowhere")))
        batch.add_rule(IPV4, nftbatch.Rule("missing", nftexpr.accept()))
        with pytest.raises(FileNotFoundError):
            tables.commit(batch)
        assert tables.chain_use(IPV4, "c") is None
        again = nftbatch.Batch()
        again.add_table(IPV4)
        again.add_chain(IPV4, nftbatch.Chain("c"))
        again.add_rule(IPV4, nftbatch.Rule("c", nftexpr.accept()))
        again.add_rule(IPV4, nftbatch.Rule("c", nftexpr.drop()), front=True)
        last, first = tables.commit(again)
        assert [rule.handle for rule in tables.rules(IPV4, "c")] == [first, last]


def test_a_change_is_planned_anew_after_a_collision(node: Node) -> None:
    plans = 0
    with node.entered(), nft.Nft() as tables:

        def plan() -> nftbatch.Batch:
            nonlocal plans
            plans += 1
            batch = nftbatch.Batch()
            batch.add_table(IPV4)
            batch.add_chain(IPV4, nftbatch.Chain("c"))
            if plans < 3:
                batch.delete_rule(IPV4, "c", 99)  # as if somebody else had just deleted it
            return batch

        assert tables.change(plan) == []
        assert plans == 3
        assert tables.chain_use(IPV4, "c") == 0

        def hopeless() -> nftbatch.Batch:
            nonlocal plans
            plans += 1
            batch = nftbatch.Batch()
            batch.delete_rule(IPV4, "c", 99)
            return batch

        plans = 0
        with pytest.raises(FileNotFoundError):
            tables.change(hopeless)
        assert plans == nft._MAX_COLLISIONS + 1


def test_a_chain_that_is_in_use_is_not_deleted(node: Node) -> None:
    with node.entered(), nft.Nft() as tables:
        batch = nftbatch.Batch()
        batch.add_table(IPV4)
        batch.add_chain(IPV4, nftbatch.Chain("c"))
        batch.add_chain(IPV4, nftbatch.Chain("d"))
        batch.add_rule(IPV4, nftbatch.Rule("c", nftexpr.jump("d")))
        tables.commit(batch)
        assert tables.chain_use(IPV4, "d") == 1
        wrong = nftbatch.Batch()
        wrong.delete_chain(IPV4, "d")
        with pytest.raises(OSError, match="busy") as caught:
            tables.commit(wrong)
        assert caught.value.errno == errno.EBUSY
        assert caught.value.__notes__
