"""The codec of netlink attributes: against pyroute2's, and against what a kernel can answer (netlink(7))."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nla, nlmsg

from cni_plugins.kernel import nlattr


class Sample(nlmsg):  # type: ignore[misc]
    """A message with an attribute of every kind."""

    prefix = "T_"
    nla_map = (
        ("T_UNSPEC", "none"),
        ("T_U8", "uint8"),
        ("T_U16", "uint16"),
        ("T_U32", "uint32"),
        ("T_TEXT", "asciiz"),
        ("T_BYTES", "cdata"),
        ("T_NEST", "inner"),
    )

    class inner(nla):  # type: ignore[misc]  # noqa: N801 (pyroute2 finds it by this name)
        prefix = "T_IN_"
        nla_map = (("T_IN_UNSPEC", "none"), ("T_IN_U32", "uint32"), ("T_IN_TEXT", "asciiz"))


BYTE, WORD, LONG = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
NAME = st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=20)
BLOB = st.binary(max_size=40)


@given(BYTE, WORD, LONG, NAME, BLOB)
def test_pyroute2_reads_what_is_written(byte: int, word: int, long: int, name: str, blob: bytes) -> None:
    body = b"".join(
        [
            nlattr.attr_u8(1, byte),
            nlattr.attr_u16(2, word),
            nlattr.attr_u32(3, long),
            nlattr.attr_str(4, name),
            nlattr.attr(5, blob),
            nlattr.nested(6, nlattr.attr_u32(1, long), nlattr.attr_str(2, name)),
        ]
    )
    assert len(body) % 4 == 0
    message = Sample(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    found = dict(message["attrs"])
    assert (found["T_U8"], found["T_U16"], found["T_U32"]) == (byte, word, long)
    assert found["T_TEXT"] == name
    assert bytes(found["T_BYTES"]) == blob
    assert dict(found["T_NEST"]["attrs"]) == {"T_IN_U32": long, "T_IN_TEXT": name}


@given(BYTE, WORD, LONG, NAME, BLOB)
def test_what_pyroute2_writes_is_read(byte: int, word: int, long: int, name: str, blob: bytes) -> None:
    message = Sample()
    message["attrs"] = [
        ("T_U8", byte),
        ("T_U16", word),
        ("T_U32", long),
        ("T_TEXT", name),
        ("T_BYTES", blob),
        ("T_NEST", {"attrs": [("T_IN_U32", long), ("T_IN_TEXT", name)]}),
    ]
    message.encode()
    found = nlattr.attribute_map(bytes(message.data), 16)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert (nlattr.uint(found[1]), nlattr.uint(found[2]), nlattr.uint(found[3])) == (byte, word, long)
    assert nlattr.text(found[4]) == name
    assert found[5] == blob
    inner = nlattr.attribute_map(found[6])
    assert (nlattr.uint(inner[1]), nlattr.text(inner[2])) == (long, name)


@given(st.integers(-(2**31), 2**31 - 1))
def test_negative_numbers_are_twos_complement(number: int) -> None:
    assert nlattr.attr_u32(1, number)[4:] == struct.pack("=i", number)


def test_flags_of_a_type_are_no_part_of_it() -> None:
    assert nlattr.attribute_map(nlattr.nested(6, b"")) == {6: b""}
    assert nlattr.attribute_map(nlattr.attr(6 | 0x4000, b"x")) == {6: b"x"}
    assert struct.unpack_from("=HH", nlattr.nested(6)) == (4, 6 | 0x8000)


@given(st.binary(max_size=60), st.integers(0, 8))
def test_any_bytes_are_attributes_or_a_bad_message(data: bytes, offset: int) -> None:
    try:
        found = list(nlattr.attributes(data, offset))
    except OSError as error:
        assert error.errno == errno.EBADMSG  # noqa: PT017
    else:
        assert sum(4 + len(payload) for _kind, payload in found) <= max(0, len(data) - offset)
        assert all(0 <= kind <= 0x3FFF for kind, _payload in found)


@pytest.mark.parametrize("length", [0, 3, 13, 0xFFFF])
def test_lengths_that_lead_astray(length: int) -> None:
    with pytest.raises(OSError, match="cut off") as caught:
        list(nlattr.attributes(struct.pack("=HH8s", length, 1, b"12345678")))
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"eth0\0", "eth0"), (b"eth0", "eth0"), (b"", ""), (b"a\0b\0", "a"), (b"\xff\0", "\udcff")],
)
def test_text(payload: bytes, expected: str) -> None:
    assert nlattr.text(payload) == expected
