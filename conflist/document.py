"""A JSON reader that remembers where every key and value stands, for messages that point at the place."""

from __future__ import annotations

import re
from _json import scanstring
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
"""How to get to a value from the top: keys and indexes."""

_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_SPACE = re.compile(r"[ \t\n\r]*")
_WORDS = {"true": True, "false": False, "null": None}
_BOM = "\ufeff"


class SyntaxProblem(Exception):  # noqa: N818 (it is not raised beyond the linter)
    """The text is not JSON; `offset` is the character where that shows."""

    def __init__(self, offset: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.hint = hint


class Document:
    """A decoded JSON text.

    Attributes:
        text: the text.
        value: what `json.loads` would return.
        keys: the offset of each member's key, by its path.
        values: the offset of each value, by its path.
        repeated: path and offset of keys that come again in the same object; the last one counts.
    """

    def __init__(self, text: str) -> None:
        """Read the text.

        Raises:
            SyntaxProblem: it is not JSON, or nested too deeply.
        """
        self.text = text
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self.repeated: list[tuple[Path, int]] = []
        if text.startswith(_BOM):
            raise SyntaxProblem(0, "the text starts with a byte order mark", "save it as UTF-8 without one")
        try:
            self.value, end = self._value(self._skip(0), ())
        except RecursionError:
            raise SyntaxProblem(0, "the text is nested too deeply") from None
        end = self._skip(end)
        if end != len(text):
            raise SyntaxProblem(end, "there is more text after the end", "one file holds one JSON value")

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of a value or of its key.

        A path that leads nowhere, as to a key that is missing, gives the nearest object above; keys match
        without regard to case where there is no exact match.
        """
        steps: Path = ()
        for step in path:
            found = next(self._matches(steps, step), None)
            if found is None:
                break
            steps = found
        exact = len(steps) == len(path)
        offset = self.keys[steps] if key and exact and steps in self.keys else self.values[steps]
        return line_and_column(self.text, offset)

    def _matches(self, parent: Path, step: str | int) -> Iterator[Path]:
        if (*parent, step) in self.values:
            yield (*parent, step)
        elif isinstance(step, str):
            for path in self.keys:
                if path[:-1] == parent and str(path[-1]).lower() == step.lower():
                    yield path

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None
        return match.end()

    def _value(self, at: int, path: Path) -> tuple[Any, int]:
        self.values[path] = at
        head = self.text[at : at + 1]
        if head == '"':
            return self._string(at)
        if head == "{":
            return self._object(at + 1, path)
        if head == "[":
            return self._array(at + 1, path)
        for word, value in _WORDS.items():
            if self.text.startswith(word, at):
                return value, at + len(word)
        match = _NUMBER.match(self.text, at)
        if match is None:
            raise SyntaxProblem(at, *self._no_value(at))
        whole, fraction, exponent = match.groups()
        try:
            number = float(match.group()) if fraction or exponent else int(whole)
        except ValueError as error:  # more digits than the interpreter converts
            raise SyntaxProblem(at, str(error)) from None
        return number, match.end()

    def _no_value(self, at: int) -> tuple[str, str]:
        """Say what stands where a value should be."""
        rest = self.text[at : at + 8]
        if not rest:
            return "the text ends where a value should be", "a bracket or a value is missing"
        if rest[0] in "}]" and self.text[:at].rstrip().endswith(","):
            return "there is a comma before the closing bracket", "remove the comma"
        if rest.startswith(("//", "/*", "#")):
            return "JSON has no comments", "remove the comment"
        if rest[0] == "'":
            return "strings stand in double quotes", 'write "…"'
        if rest.startswith(("True", "False", "None")):
            return "the words of JSON are true, false and null", "write it in lower case"
        return f"{rest[0]!r} cannot begin a value", "strings stand in double quotes"

    def _string(self, at: int) -> tuple[str, int]:
        try:
            text, end = scanstring(self.text, at + 1, True)
        except ValueError as error:  # JSONDecodeError
            message = getattr(error, "msg", str(error)).lower().removesuffix(" at")
            raise SyntaxProblem(getattr(error, "pos", at), message) from None
        return text, end

    def _object(self, start: int, path: Path) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self._skip(start)
        if self.text[at : at + 1] == "}":
            return members, at + 1
        while True:
            if self.text[at : at + 1] != '"':
                message, hint = self._no_value(at)
                if "cannot begin" in message or self.text[at : at + 1] in ("", "{", "["):
                    message, hint = "a key in double quotes should be here", ""
                raise SyntaxProblem(at, message, hint)
            key, end = self._string(at)
            here = (*path, key)
            if key in members:
                self.repeated.append((here, at))
                self._forget(here)
            self.keys[here] = at
            end = self._skip(end)
            if self.text[end : end + 1] != ":":
                raise SyntaxProblem(end, f"a colon should follow the key {key!r}")
            members[key], end = self._value(self._skip(end + 1), here)
            at, done = self._next(end, "}")
            if done:
                return members, at

    def _array(self, start: int, path: Path) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self._skip(start)
        if self.text[at : at + 1] == "]":
            return items, at + 1
        while True:
            item, end = self._value(at, (*path, len(items)))
            items.append(item)
            at, done = self._next(end, "]")
            if done:
                return items, at

    def _next(self, end: int, closing: str) -> tuple[int, bool]:
        """Go past the comma after a member or item, or past the closing bracket."""
        at = self._skip(end)
        head = self.text[at : at + 1]
        if head == closing:
            return at + 1, True
        if head != ",":
            at_end = "the text ends inside a value" if not head else ""
            # The mistake is where the comma is missing, not at the next key some lines further down.
            raise SyntaxProblem(end, at_end or f"a comma or {closing} should be here")
        return self._skip(at + 1), False

    def _forget(self, path: Path) -> None:
        """Drop the places below a key that comes again."""
        for places in (self.keys, self.values):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of a character; a column is a character."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
