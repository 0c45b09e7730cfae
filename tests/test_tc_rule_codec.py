"""What tc and rule pack, as pyroute2 reads it, and the other way round. integration/ asks the kernel."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cni_plugins.address import Prefix
from cni_plugins.kernel import rule, tc
from cni_plugins.kernel.netlink import Netlink, Reply
from cni_plugins.kernel.rule import Rule
from cni_plugins.kernel.tc import Tbf

U32 = st.integers(1, 2**32 - 1)
RATES = st.integers(8, 2**40)


class Wire(Netlink):
    """A netlink socket that keeps what is sent, and answers what it is told to."""

    def __init__(self, *answers: bytes) -> None:
        self.sent: list[tuple[int, int, bytes]] = []
        self._answers = [Reply(0, 0, body) for body in answers]

    def request(self, kind: int, flags: int, body: bytes) -> list[Reply]:
        self.sent.append((kind, flags, body))
        return self._answers

    def dump(self, kind: int, body: bytes, what: str = "") -> list[Reply]:  # noqa: ARG002
        answers, self._answers = self._answers, []
        self.sent.append((kind, 0, body))
        return answers


def read(wire: Wire, message_type: Any) -> Any:
    """Return what was sent last, decoded by pyroute2."""
    kind, flags, body = wire.sent[-1]
    message = message_type(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    message.decode()
    return message


@given(index=st.integers(1, 2**31 - 1), rate=RATES, burst=st.integers(8, 2**35))
def test_a_token_bucket(index: int, rate: int, burst: int) -> None:
    tbf = Tbf.shaping(rate, burst)
    wire = Wire()
    tc.add_tbf(wire, index, tbf)
    message = read(wire, tcmsg)
    assert wire.sent[0][:2] == (36, 0x600)
    assert (message["index"], message["handle"], message["parent"]) == (index, 0x10000, 0xFFFFFFFF)
    assert message.get_attr("TCA_KIND") == "tbf"
    options = message.get_attr("TCA_OPTIONS")
    parameters = options.get_attr("TCA_TBF_PARMS")
    assert (parameters["rate"], parameters["limit"], parameters["buffer"]) == (
        min(tbf.rate, 2**32 - 1),
        tbf.limit,
        tbf.buffer,
    )
    # What the kernel shows is in the same form.
    assert tc.root_tbf(Wire(wire.sent[0][2]), index) == tbf


def test_other_qdiscs_are_no_token_buckets() -> None:
    fifo = struct.pack("=BxxxiIIIHH8sHHI", 0, 3, 0, tc.ROOT, 2, 12, 1, b"pfifo\0\0\0", 8, 2, 1000)
    assert tc.root_tbf(Wire(fifo), 3) is None
    assert tc.root_tbf(Wire(), 3) is None
    assert not tc.has_ingress(Wire(fifo), 3)


def test_numbers_of_the_reference() -> None:
    """As the reference's own tests have them: 8 and 16 bits a second with bursts of 8 and 9."""
    one, other = Tbf.shaping(8, 8), Tbf.shaping(16, 9)
    assert (one.rate, one.limit, one.buffer) == (1, 1, 15_625_000)
    assert (other.rate, other.limit, other.buffer) == (2, 1, 7_812_500)


@given(index=st.integers(1, 2**31 - 1), target=st.integers(1, 2**31 - 1))
def test_a_redirection(index: int, target: int) -> None:
    wire = Wire()
    tc.add_redirect(wire, index, target)
    message = read(wire, tcmsg)
    assert (message["index"], message["parent"]) == (index, 0xFFFF0000)
    assert message["info"] == 1 << 16 | 0x0300
    options = message.get_attr("TCA_OPTIONS")
    assert message.get_attr("TCA_KIND") == "u32"
    assert options.get_attr("TCA_U32_CLASSID") == 0x10001
    selector = options.get_attr("TCA_U32_SEL")
    assert (selector["flags"], selector["nkeys"]) == (1, 1)
    assert [(key["key_mask"], key["key_val"]) for key in selector["keys"]] == [(0, 0)]
    action = options.get_attr("TCA_U32_ACT").get_attr("TCA_ACT_PRIO_1")
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    parameters = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (parameters["eaction"], parameters["action"], parameters["ifindex"]) == (1, 4, target)
    assert tc.redirects(Wire(wire.sent[0][2]), index) == [target]


prefixes = st.one_of(
    st.builds(lambda host: Prefix(host.packed, 32), st.ip_addresses(v=4)),
    st.builds(lambda host: Prefix(host.packed, 128), st.ip_addresses(v=6)),
)


@given(source=prefixes, table=U32, priority=st.integers(0, 2**32 - 1))
def test_a_rule(source: Prefix, table: int, priority: int) -> None:
    wire = Wire()
    rule.add(wire, Rule(source, table, priority))
    message = read(wire, fibmsg)
    assert (message["family"], message["action"]) == (2 if source.version == 4 else 10, 1)
    assert message["src_len"] == source.length
    assert message.get_attr("FRA_TABLE") == table
    assert message.get_attr("FRA_PRIORITY") == (priority or None)
    assert Prefix.parse(f"{message.get_attr('FRA_SRC')}/{source.length}").address[-4:] == source.address[-4:]
    found = rule.rules(Wire(wire.sent[0][2]))
    assert [(each.source, each.table, each.priority) for each in found] == [(source, table, priority)]
