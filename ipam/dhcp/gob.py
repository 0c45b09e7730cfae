"""Go's gob encoding (the documentation of the package encoding/gob), as far as net/rpc needs it.

A stream is a sequence of messages, each with its length before it: the definition of a type, under a negative
number, or a value, under its type's number. Every stream defines its own types, so that a reader needs to
know none beforehand; fields are matched by name, and those that are zero are left out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

BOOL, INT, UINT, BYTES, STRING = 1, 2, 3, 5, 6
_WIRE_TYPE, _ARRAY, _COMMON, _SLICE, _STRUCT, _FIELD, _FIELDS, _MAP = 16, 17, 18, 19, 20, 21, 22, 23
FIRST_FREE = 65
"""Numbers below are the format's own."""

MAX_MESSAGE = 2 << 20
"""The longest message that is read, in bytes: a configuration has 1 MiB at most."""
_MAX_TYPES = 200
_MAX_DEPTH = 20


class Struct:
    """The type of a record.

    Args:
        number: the type's, from FIRST_FREE on.
        name: what Go calls it.
        fields: names and types, in order: a number above, a Struct or a List.
    """

    __slots__ = ("fields", "name", "number")

    def __init__(self, number: int, name: str, fields: Sequence[tuple[str, int | Struct | List]]) -> None:
        self.number = number
        self.name = name
        self.fields = fields


class List:
    """The type of a sequence; arguments as for Struct."""

    __slots__ = ("element", "number")

    def __init__(self, number: int, element: int | Struct) -> None:
        self.number = number
        self.element = element


# The types that definitions themselves are made of.
_DEFINED: dict[int, tuple[str, Any]] = {
    _WIRE_TYPE: (
        "struct",
        [("ArrayT", _ARRAY), ("SliceT", _SLICE), ("StructT", _STRUCT), ("MapT", _MAP)],
    ),
    _ARRAY: ("struct", [("CommonType", _COMMON), ("Elem", INT), ("Len", INT)]),
    _COMMON: ("struct", [("Name", STRING), ("Id", INT)]),
    _SLICE: ("struct", [("CommonType", _COMMON), ("Elem", INT)]),
    _STRUCT: ("struct", [("CommonType", _COMMON), ("Field", _FIELDS)]),
    _FIELD: ("struct", [("Name", STRING), ("Id", INT)]),
    _FIELDS: ("list", _FIELD),
    _MAP: ("struct", [("CommonType", _COMMON), ("Key", INT), ("Elem", INT)]),
}


def encode(kind: Struct, value: dict[str, Any], known: set[int]) -> bytes:
    """Return the messages that define a type, unless its number is in `known`, and one with a value.

    Args:
        kind: the value's type.
        value: the fields by name; one that is missing, or zero, is left out.
        known: the numbers that the stream has defined already; those of `kind` are added.
    """
    definitions: list[bytes] = []
    _define(kind, definitions, known)
    return b"".join(definitions) + _message(_int(kind.number) + _record(kind, value))


def _define(kind: int | Struct | List, into: list[bytes], known: set[int]) -> None:
    if isinstance(kind, int) or kind.number in known:
        return
    known.add(kind.number)
    if isinstance(kind, List):
        # WireType {SliceT: {CommonType: {Id}, Elem}}
        body = b"\x02\x01\x02" + _int(kind.number) + b"\x00\x01" + _int(_number(kind.element)) + b"\x00\x00"
        parts: list[int | Struct | List] = [kind.element]
    else:
        # WireType {StructT: {CommonType: {Name, Id}, Field: [{Name, Id}, …]}}
        body = b"\x03\x01\x01" + _text(kind.name) + b"\x01" + _int(kind.number) + b"\x00"
        if kind.fields:
            body += b"\x01" + _uint(len(kind.fields))
        for name, part in kind.fields:
            body += b"\x01" + _text(name) + b"\x01" + _int(_number(part)) + b"\x00"
        body += b"\x00\x00"
        parts = [part for _name, part in kind.fields]
    into.append(_message(_int(-kind.number) + body))
    for part in parts:
        _define(part, into, known)


def _number(kind: int | Struct | List) -> int:
    return kind if isinstance(kind, int) else kind.number


def _message(body: bytes) -> bytes:
    return _uint(len(body)) + body


def _uint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    length = (value.bit_length() + 7) // 8
    return bytes((256 - length,)) + value.to_bytes(length, "big")


def _int(value: int) -> bytes:
    return _uint(~value << 1 | 1 if value < 0 else value << 1)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return _uint(len(data)) + data


def _value(kind: int | Struct | List, value: Any) -> bytes:
    if isinstance(kind, Struct):
        return _record(kind, value)
    if isinstance(kind, List):
        return _uint(len(value)) + b"".join([_value(kind.element, item) for item in value])
    if kind == BYTES:
        return _uint(len(value)) + bytes(value)
    if kind == STRING:
        return _text(value)
    return _int(value) if kind == INT else _uint(int(value))


def _record(kind: Struct, value: dict[str, Any]) -> bytes:
    body = b""
    last = -1
    for index, (name, part) in enumerate(kind.fields):
        given = value.get(name)
        # A pointer to zero (a table, a scope) is something else than no pointer: None is that.
        if given is None or (given == 0 and not isinstance(given, PointedTo)) or given in ("", b"", [], {}):
            continue
        body += _uint(index - last) + _value(part, given)
        last = index
    return body + b"\x00"


class PointedTo(int):
    """A number that is sent even if it is zero, since the field is a pointer."""

    __slots__ = ()


class Decoder:
    """Reads a stream as it comes in.

    Usage: `feed(data)`, then `next()` until it returns None. Structures are dicts by field name, without
    the fields that are zero.
    """

    __slots__ = ("_at", "_data", "_end", "_types", "_waiting")

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._types = dict(_DEFINED)
        self._data = b""
        self._at = self._end = 0

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._waiting += data

    def next(self) -> Any | None:
        """Return the next value; None while it is not complete.

        Raises:
            ValueError: this is no gob, or more of it than MAX_MESSAGE.
        """
        while (message := self._take()) is not None:
            self._data, self._at, self._end = message, 0, len(message)
            number = self._read_int()
            if number < 0:
                self._learn(-number)
            else:
                return self._top(number)
        return None

    def _take(self) -> bytes | None:
        """Return the next message without its length."""
        waiting = self._waiting
        if not waiting:
            return None
        length, start = waiting[0], 1
        if length >= 128:
            start = 257 - length
            if start > 9:
                raise ValueError("gob: a length of more than eight bytes")
            if len(waiting) < start:
                return None
            length = int.from_bytes(waiting[1:start], "big")
        if length > MAX_MESSAGE:
            raise ValueError(f"gob: a message of {length} bytes")
        if len(waiting) < start + length:
            return None
        message = bytes(waiting[start : start + length])
        del waiting[: start + length]
        return message

    def _learn(self, number: int) -> None:
        if len(self._types) >= _MAX_TYPES or number < FIRST_FREE - 1:
            raise ValueError("gob: a definition of what needs none")
        wire = self._read(_WIRE_TYPE, 0)
        if "StructT" in wire:
            listed = wire["StructT"].get("Field", [])
            self._types[number] = ("struct", [(item.get("Name", ""), item.get("Id", 0)) for item in listed])
        elif "SliceT" in wire:
            self._types[number] = ("list", wire["SliceT"].get("Elem", 0))
        elif "ArrayT" in wire:
            self._types[number] = ("list", wire["ArrayT"].get("Elem", 0))
        elif "MapT" in wire:
            self._types[number] = ("map", (wire["MapT"].get("Key", 0), wire["MapT"].get("Elem", 0)))
        else:
            raise ValueError("gob: a type that encodes itself")

    def _top(self, number: int) -> Any:
        kind = self._types.get(number)
        if (kind is None or kind[0] != "struct") and self._read_uint() != 0:
            raise ValueError("gob: a value by itself that is none")
        value = self._read(number, 0)
        if self._at != self._end:
            raise ValueError("gob: more after a value")
        return value

    def _read(self, number: int, depth: int) -> Any:  # noqa: PLR0911 (one line a type)
        if number == STRING:
            return self._read_bytes().decode("utf-8", "surrogateescape")
        if number == BYTES:
            return self._read_bytes()
        if number == INT:
            return self._read_int()
        if number == UINT:
            return self._read_uint()
        if number == BOOL:
            return self._read_uint() != 0
        kind = self._types.get(number)
        if kind is None or depth > _MAX_DEPTH:
            raise ValueError(f"gob: a value of the type {number}")
        if kind[0] == "struct":
            return self._read_struct(kind[1], depth)
        count = self._read_uint()
        if count > self._end - self._at:  # each takes a byte at least
            raise ValueError("gob: more elements than there are bytes")
        if kind[0] == "list":
            return [self._read(kind[1], depth + 1) for _item in range(count)]
        key, element = kind[1]
        pairs = [(self._read(key, depth + 1), self._read(element, depth + 1)) for _item in range(count)]
        if pairs and not isinstance(pairs[0][0], str | int | bytes):
            raise ValueError("gob: a map by something else than strings and numbers")
        return dict(pairs)

    def _read_struct(self, fields: list[tuple[str, int]], depth: int) -> dict[str, Any]:
        found = {}
        index = -1
        while (step := self._read_uint()) != 0:
            index += step
            if index >= len(fields):
                raise ValueError("gob: a field that its type does not have")
            name, number = fields[index]
            found[name] = self._read(number, depth + 1)
        return found

    def _read_bytes(self) -> bytes:
        length = self._read_uint()
        start = self._at
        if length > self._end - start:
            raise ValueError("gob: a string that is cut off")
        self._at += length
        return self._data[start : self._at]

    def _read_int(self) -> int:
        value = self._read_uint()
        return ~(value >> 1) if value & 1 else value >> 1

    def _read_uint(self) -> int:
        if self._at >= self._end:
            raise ValueError("gob: a message that is cut off")
        first = self._data[self._at]
        self._at += 1
        if first < 128:
            return first
        start = self._at
        self._at += 256 - first
        if first < 248 or self._at > self._end:
            raise ValueError("gob: a number that is cut off")
        return int.from_bytes(self._data[start : self._at], "big")
