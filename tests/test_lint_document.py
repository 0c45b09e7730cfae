from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflist.document import Document, SyntaxProblem, line_and_column

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_same_value_as_the_library(value: Any, indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    document = Document(text)
    assert document.value == json.loads(text)
    assert json.dumps(document.value) == json.dumps(json.loads(text))
    assert document.repeated == []


@given(values)
def test_every_place_is_that_of_its_value(value: Any) -> None:
    text = json.dumps(value, indent=2)
    document = Document(text)
    for path, offset in document.values.items():
        found = value
        for step in path:
            found = found[step]
        assert json.JSONDecoder().raw_decode(text, offset)[0] == found
    for path, offset in document.keys.items():
        assert json.JSONDecoder().raw_decode(text, offset)[0] == path[-1]


@given(st.text(alphabet='[]{}",:\\ \n\t0123456789.eE+-truefalsn\x00\u2028', max_size=30))
def test_refuses_what_the_library_refuses(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except ValueError:
        with pytest.raises(SyntaxProblem) as caught:
            Document(text)
        assert 0 <= caught.value.offset <= len(text)
    else:
        assert Document(text).value == expected


def _refuse(name: str) -> None:
    raise ValueError(name)


def test_lines_and_columns() -> None:
    text = '{\n  "a": [1, {"é": "x",\n"b": null}]\n}'
    document = Document(text)
    assert document.place(()) == (1, 1)
    assert document.place(("a",)) == (2, 8)
    assert document.place(("a",), key=True) == (2, 3)
    assert document.place(("a", 1, "é")) == (2, 18)
    assert document.place(("a", 1, "b"), key=True) == (3, 1)
    assert document.place(("a", 1, "B")) == (3, 6)
    assert document.place(("a", 1, "missing", "deeper"), key=True) == (2, 12)
    assert line_and_column(text, len(text)) == (4, 2)


def test_a_repeated_key_keeps_the_last_place() -> None:
    document = Document('{"a": {"b": 1},\n "a": 2}')
    assert document.value == {"a": 2}
    assert document.repeated == [(("a",), 17)]
    assert document.place(("a",)) == (2, 7)
    assert ("a", "b") not in document.values


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "ends where a value should be"),
        ('{"a": 1', 7, "ends inside"),
        ('{"a": 1 "b": 2}', 7, "a comma or }"),
        ("[1 2]", 2, "a comma or ]"),
        ('{"a": 1,}', 8, "comma before the closing"),
        ("[1,]", 3, "comma before the closing"),
        ('{"a" 1}', 5, "colon should follow"),
        ("{a: 1}", 1, "key in double quotes"),
        ("{", 1, "key in double quotes"),
        ("{'a': 1}", 1, "double quotes"),
        ('{\n// note\n"a": 1}', 2, "no comments"),
        ('{"a": # note\n1}', 6, "no comments"),
        ('{"a": True}', 6, "true, false and null"),
        ("[NaN]", 1, "cannot begin"),
        ('["a]', 1, "unterminated string"),
        ('["\\x"]', 2, "escape"),
        ("[1] x", 4, "more text after"),
        ("\ufeff{}", 0, "byte order mark"),
        ("[" * 100_000, 0, "nested too deeply"),
        ("9" * 5000, 0, "integer string conversion"),
    ],
)
def test_messages(text: str, offset: int, message: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        Document(text)
    assert message in caught.value.message
    assert caught.value.offset == offset
