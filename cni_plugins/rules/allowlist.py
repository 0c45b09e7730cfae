r"""Regular expressions of an allow-list file, without the 8 ms that importing `re` takes.

The syntax is the part of Go's (RE2) that such lists are written in: literals, `.`, `[…]` with ranges and `^`,
`\d \w \s` and other escaped characters, groups, `|`, `*`, `+`, `?`, and the anchors `^` and `$`. As there,
an expression matches anywhere in a text unless it is anchored. An expression is compiled to a function from
the positions a match may have reached to those it may reach next, so that time grows with the text's length
and no expression can make it explode.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[str, frozenset[int]], frozenset[int]]

_DIGITS = frozenset("0123456789")
_WORD = _DIGITS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_SPACE = frozenset("\t\n\f\r ")
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}


def allows(expressions: list[str], text: str) -> bool:
    """Tell whether one of the expressions matches.

    Raises:
        ValueError: one before it is no expression, or uses more than is known here.
    """
    everywhere = frozenset(range(len(text) + 1))
    return any(_Parser(expression).whole()(text, everywhere) for expression in expressions)


def check(expression: str) -> None:
    """Raise ValueError when this is no expression that can be used."""
    _Parser(expression).whole()


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._at = 0

    def whole(self) -> Step:
        step = self._choice()
        if self._at < len(self._text):
            raise self._problem("a ) too many")
        return step

    def _problem(self, what: str) -> ValueError:
        return ValueError(f"{self._text!r} cannot be used as a regular expression: {what}")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise self._problem("it ends too early")
        self._at += 1
        return char

    def _choice(self) -> Step:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        return lambda text, places: frozenset().union(*(branch(text, places) for branch in branches))

    def _sequence(self) -> Step:
        steps = []
        while self._peek() not in ("", "|", ")"):
            steps.append(self._repeated(self._atom()))

        def follow(text: str, places: frozenset[int]) -> frozenset[int]:
            for step in steps:
                places = step(text, places)
            return places

        return follow

    def _repeated(self, step: Step) -> Step:
        mark = self._peek()
        if mark == "{":
            raise self._problem("{} is not known here; write the part several times")
        if mark not in ("*", "+", "?") or not mark:
            return step
        self._at += 1
        if self._peek() == "?":  # least, not most: the same question when all that counts is whether
            self._at += 1
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise self._problem("a repetition of a repetition")

        def repeat(text: str, places: frozenset[int]) -> frozenset[int]:
            reached = places if mark != "+" else frozenset()
            fresh = places
            while fresh:
                fresh = step(text, fresh) - reached
                reached |= fresh
                if mark == "?":
                    break
            return reached

        return repeat

    def _atom(self) -> Step:
        char = self._next()
        if char == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            elif self._peek() == "?":
                raise self._problem("(? is not known here")
            step = self._choice()
            if self._next() != ")":
                raise self._problem("a ( too many")
            return step
        if char == "^":
            return lambda _text, places: places & {0}
        if char == "$":
            return lambda text, places: places & {len(text)}
        if char in ("*", "+", "?"):
            raise self._problem(f"nothing before {char}")
        if char == ".":
            return _one_of(frozenset("\n"), inverse=True)
        if char == "[":
            return self._set()
        return _one_of(*self._escape() if char == "\\" else (frozenset(char), False))

    def _escape(self) -> tuple[frozenset[str], bool]:
        """Return the characters that an escape stands for, and whether it is all but these."""
        char = self._next()
        if char.lower() in _CLASSES:
            return _CLASSES[char.lower()], char.isupper()
        if char.isalnum():
            raise self._problem(f"\\{char} is not known here")
        return frozenset(char), False

    def _set(self) -> Step:
        inverse = self._peek() == "^"
        self._at += inverse
        members: set[str] = set()
        first = True
        while self._peek() != "]" or first:
            first = False
            if self._text.startswith("[:", self._at):
                raise self._problem("[: is not known here")
            low = self._member(members)
            if low and self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                high = self._member(members)
                if not high or high < low:
                    raise self._problem("a range from high to low")
                members.update(map(chr, range(ord(low), ord(high) + 1)))
        self._at += 1
        return _one_of(frozenset(members), inverse)

    def _member(self, members: set[str]) -> str:
        """Add one member of a set; return it when it is a single character."""
        char = self._next()
        chars, inverse = self._escape() if char == "\\" else (frozenset(char), False)
        if inverse:
            raise self._problem("an inverse class in a set")
        members |= chars
        return next(iter(chars)) if len(chars) == 1 else ""


def _one_of(chars: frozenset[str], inverse: bool = False) -> Step:
    def step(text: str, places: frozenset[int]) -> frozenset[int]:
        return frozenset(
            place + 1 for place in places if place < len(text) and (text[place] in chars) != inverse
        )

    return step
