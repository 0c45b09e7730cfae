"""build/json.c: the same answers and errors as CPython's `_json`, whose place it takes in the executable."""

from __future__ import annotations

import _json
import bisect
import importlib.util
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cni_plugins.spec import codec
from cni_plugins.spec.errors import DecodeError
from tests import json_module
from tests.json_module import DOCUMENTS, TOKENS, outcome
from tests.test_codec import VALUES

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

PIECES = st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=12).map("".join)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return json_module.load(json_module.compiled(json_module.JSON, tmp_path_factory.mktemp("json"), "_json"))


@pytest.fixture(scope="module")
def our_codec(ours: Any) -> ModuleType:
    """The codec as it is in the executable, over our module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "_json", ours)
        spec = importlib.util.spec_from_file_location("our_codec", codec.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    assert module._json is ours
    return module


def told(module: ModuleType, data: bytes) -> Any:
    try:
        return json_module.shape(module.decode(data, "the text"))
    except DecodeError as error:
        return error.msg


@given(VALUES)
def test_documents(our_codec: ModuleType, value: Any) -> None:
    for indent in (None, 2):
        for ascii_only in (True, False):
            text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
            data = text.encode("utf-8", "surrogatepass")
            assert told(our_codec, data) == told(codec, data)
    assert our_codec.encode(value) == codec.encode(value)
    assert our_codec.encode_pretty(value) == codec.encode_pretty(value)


@given(PIECES | st.text(), st.integers(0, 40))
@example('"\ud800\\udc00"', 0)
@example('"\\ud800\ud800"', 0)
@example('"\\ud800\\udc00', 0)
@example('"\\ud800\\u', 0)
@example('"\\u12', 0)
@example('"\\u1234', 0)
@example('"\\', 0)
@example('"\x7f"', 0)
@example("-", 0)
@example("1e-", 0)
@example("1.e5", 0)
@example("", 0)
@example("[1,]", 0)
@example("[1", 0)
@example('{"a":1,}', 0)
@example('{"a"', 0)
@example('\n\n{\n  "a" 1}', 2)
def test_any_text(ours: Any, text: str, at: int) -> None:
    assert outcome(ours, text, at) == outcome(_json, text, at)
    assert ours.encode_basestring_ascii(text) == _json.encode_basestring_ascii(text)


@given(st.binary(max_size=60))
def test_any_bytes(our_codec: ModuleType, data: bytes) -> None:
    assert told(our_codec, data) == told(codec, data)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda text: text[:20])
def test_a_document_that_ends_anywhere(ours: Any, document: str) -> None:
    for end in range(len(document) + 1) if len(document) < 1000 else range(950, 1000):
        assert json_module.agree(ours, document[:end])
        assert json_module.agree(ours, document, end)


def test_changed_documents(ours: Any) -> None:
    json_module.compare(ours, 1, 3000)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_deepest_nesting(ours: Any, opening: str, closing: str) -> None:
    def deepest(module: Any) -> int:
        def too_deep(depth: int) -> bool:
            return "RecursionError" in outcome(module, opening * depth + "1" + closing * depth)

        return bisect.bisect_left(range(2000), True, key=too_deep)

    assert 500 < deepest(ours) == deepest(_json) < 1000
    text = opening * 100_000
    assert outcome(ours, text) == outcome(_json, text)
    assert outcome(ours, "[1]")[0] == "tuple", "the count is what it was"


@pytest.mark.parametrize("digits", [4299, 4300, 4301, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_have_the_interpreters_limit(ours: Any, sign: str, digits: int) -> None:
    text = sign + "7" * digits
    assert outcome(ours, text) == outcome(_json, text)
    assert (outcome(ours, text)[0] == "ValueError") == (digits > 4300)


def test_equal_keys_are_one_object(ours: Any) -> None:
    found, _end = ours.make_scanner(codec._Scanner)('[{"name": 1}, {"name": 2}]', 0)
    first, second = (next(iter(each)) for each in found)
    assert first is second


def test_a_hook_that_scans_and_one_that_fails(ours: Any) -> None:
    class Nested(codec._Scanner):
        @staticmethod
        def object_pairs_hook(pairs: Any) -> Any:
            return ours.make_scanner(codec._Scanner)('{"a": [1]}', 0)[0], pairs

        @staticmethod
        def parse_float(digits: str) -> float:
            raise KeyError(digits)

    assert ours.make_scanner(Nested)('{"b": {"b": 2}}', 0)[0] == (
        {"a": [1]},
        [("b", ({"a": [1]}, [("b", 2)]))],
    )
    with pytest.raises(KeyError, match=r"1\.5"):
        ours.make_scanner(Nested)('{"b": [1.5]}', 0)


@pytest.mark.parametrize(
    ("name", "value"), [("strict", False), ("object_hook", dict), ("parse_int", float), ("strict", 1)]
)
def test_settings_that_it_has_not_are_refused(ours: Any, name: str, value: Any) -> None:
    settings = type("Settings", (codec._Scanner,), {name: value})
    with pytest.raises(TypeError, match=f"no other {name}"):
        ours.make_scanner(settings)


@pytest.mark.parametrize("missing", ["strict", "object_pairs_hook", "parse_float", "parse_constant"])
def test_settings_that_are_missing(ours: Any, missing: str) -> None:
    kept = {key: value for key, value in vars(codec._Scanner).items() if key != missing}
    with pytest.raises(AttributeError, match=missing):
        ours.make_scanner(type("Settings", (), kept))


def test_arguments_of_another_type(ours: Any) -> None:
    scanner = ours.make_scanner(codec._Scanner)
    for arguments in ((), (b"1", 0), ("1",), ("1", "0"), ("1", 0, 0)):
        with pytest.raises(TypeError):
            scanner(*arguments)
    with pytest.raises(ValueError, match="negative"):
        scanner("1", -1)
    with pytest.raises(TypeError, match="must be a string, not bytes"):
        ours.encode_basestring_ascii(b"x")


def test_no_answer_and_no_error_leaves_memory_behind(tmp_path: Path) -> None:
    failed, left = json_module.search(tmp_path, 2, 10, sanitizers=False)
    assert failed > 100
    assert left < json_module.ROUNDS, "a block for each round"


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    failed, _left = json_module.search(tmp_path, 3, 4000, sanitizers=True)
    assert failed > 100
