"""JSON in and out, over a scanner in C: CPython's `_json`, or build/json.c in the plugins' executable.

`import json` costs 7 ms of start-up, because it imports re and enum. The same limits hold for everything that
is decoded here: stdin, cached files, a delegate's output.
"""

from __future__ import annotations

import _json

from cni_plugins.spec.errors import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 16 << 20
"""The longest text that is decoded. A list for a thousand containers' GC has 0.1 MB."""


class Repeated(dict[str, "Any"]):
    """An object in which a key occurs more than once: as in Go, the last one counts, but it can be told."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Repeated(made)


class _Scanner:
    """The settings `_json.make_scanner` reads: strict strings, plain objects, only finite numbers."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_object)
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 (one process reads one text)

    @staticmethod
    def parse_float(digits: str) -> float:
        number = float(digits)
        if number - number != 0:  # infinite: it could not be encoded again
            raise ValueError(f"the number {digits} is too large")
        return number

    @staticmethod
    def parse_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")


_scan = _json.make_scanner(_Scanner)  # type: ignore[arg-type]
_quote = _json.encode_basestring_ascii
_SPACE = " \t\n\r"


def decode(data: bytes, what: str) -> Any:
    """Decode one JSON text.

    Args:
        data: the text, in UTF-8.
        what: what the text is, for the message ("network configuration").

    Raises:
        DecodeError: it is empty, too long, not UTF-8, not JSON or nested too deeply.
    """
    if len(data) > MAX_BYTES:
        raise DecodeError(f"{what} is longer than {MAX_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"{what} is not UTF-8: byte {error.start}") from None
    text = text.strip(_SPACE)
    if not text:
        raise DecodeError(f"{what} is empty")
    try:
        value, end = _scan_whole(text)
    except StopIteration as stop:
        raise DecodeError(f"{what} is not JSON: no value at character {stop.value}") from None
    except RecursionError:
        raise DecodeError(f"{what} is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError is one
        raise DecodeError(f"{what} is not JSON: {error}") from None
    if end != len(text):
        raise DecodeError(f"{what} is not JSON: extra data at character {end}")
    return value


def _scan_whole(text: str) -> tuple[Any, int]:
    try:
        return _scan(text, 0)
    except SystemError:
        # CPython's scanner takes its errors' class from json.decoder if that is loaded, else it has none.
        __import__("json.decoder")
        return _scan(text, 0)


def encode(value: Any) -> bytes:
    """Encode as compact JSON, ASCII only.

    Raises:
        TypeError: the value holds something that JSON has no form for.
    """
    return _encode(value, "", "").encode()


def encode_pretty(value: Any) -> bytes:
    """Encode as the reference plugins print: four spaces of indent, no newline at the end."""
    return _encode(value, "\n", "    ").encode()


def _encode(value: Any, newline: str, indent: str) -> str:  # noqa: PLR0911 (one line a type)
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int | float):
        return repr(value)
    inner = newline + indent
    if isinstance(value, dict):
        if not value:
            return "{}"
        colon = ": " if indent else ":"
        items = [_quote(key) + colon + _encode(item, inner, indent) for key, item in value.items()]
        return "{" + inner + ("," + inner).join(items) + newline + "}"
    if isinstance(value, list | tuple):
        if not value:
            return "[]"
        return (
            "[" + inner + ("," + inner).join([_encode(item, inner, indent) for item in value]) + newline + "]"
        )
    raise TypeError(f"{type(value).__name__} is not JSON")
