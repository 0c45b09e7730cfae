from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cni_plugins.spec.codec import MAX_BYTES, decode, encode, encode_pretty
from cni_plugins.spec.errors import DecodeError

TEXT = st.text(st.characters(), max_size=20)  # lone surrogates too: JSON can escape them
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def outcome(data: bytes) -> Any:
    try:
        return decode(data, "the text")
    except DecodeError as error:
        return DecodeError if error.msg.startswith("the text is ") else error


def refuse(name: str) -> None:
    raise ValueError(name)


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def oracle(data: bytes) -> Any:
    """Decode as `json` does, without its extensions of the format."""
    try:
        return json.loads(data.decode(), parse_constant=refuse, parse_float=finite)
    except ValueError:
        return DecodeError


@given(VALUES)
def test_decodes_what_json_encodes(value: Any) -> None:
    assert decode(json.dumps(value).encode(), "x") == value
    assert decode(json.dumps(value, indent=3).encode(), "x") == value


@given(VALUES)
def test_encodes_as_json_does(value: Any) -> None:
    assert encode(value) == json.dumps(value, separators=(",", ":")).encode()
    assert encode_pretty(value) == json.dumps(value, indent=4).encode()
    assert encode(value).isascii()


def test_tuples_are_lists() -> None:
    assert encode({"versions": ("0.1.0", ())}) == b'{"versions":["0.1.0",[]]}'


@pytest.mark.parametrize("value", [b"bytes", {"key": object()}, [{1, 2}]])
def test_what_json_has_no_form_for_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError, match="is not JSON"):
        encode(value)


@given(
    st.binary(max_size=30)
    | st.text('{}[]",:0123456789.eE+-truefalsn \\u\t\r\n\ufeff\v', max_size=30).map(str.encode)
)
@example(b"\xef\xbb\xbf{}")
@example(b"\xff\xfe{\0}\0")
@example(b'"\x01"')
@example(b'"\\u00"')
@example(b'"\\ud800\\udc00"')
@example(b"01")
@example(b"1.")
@example(b"-")
@example(b"1e999")
@example(b"[-1e999]")
@example(b"{} {}")
@example(b'{"a":1,}')
@example(b"\xc2\xa0{}")
@example(b"\x0c{}")
def test_any_bytes_are_decoded_as_by_json_or_refused(data: bytes) -> None:
    found, expected = outcome(data), oracle(data)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b'{"name":', "is not JSON"),
        (b'{"name": "ne', "is not JSON"),
        (b"{}}", "extra data at character 2"),
        (b"{'a': 1}", "is not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b'{"mtu": NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"mtu": 1e400}', "1e400"),
        (b"9" * 5000, "is not JSON"),
        (b'"\xff"', "is not UTF-8: byte 1"),
        (b"\xed\xa0\x80", "is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b" " * (MAX_BYTES + 1), f"is longer than {MAX_BYTES} bytes"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_hostile_text_is_code_6(data: bytes, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data, "the text")
    assert caught.value.code == 6
    assert says in caught.value.msg
    assert len(caught.value.msg) < 200


def test_the_longest_text() -> None:
    assert decode(b'"' + b"a" * (MAX_BYTES - 2) + b'"', "x") == "a" * (MAX_BYTES - 2)


def test_of_a_key_that_occurs_twice_the_last_counts() -> None:
    assert decode(b'{"mtu": 1, "mtu": 2, "mtu": null}', "x") == {"mtu": None}
