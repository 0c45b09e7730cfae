"""Bytes spoilt at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 254, 255)
TOKENS = (
    b"\0",
    b"\n",
    b"\r\n",
    b"..",
    b"/",
    b"../../x",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"%s",
    b"-1",
    b"9" * 5000,
)


def spoilt(chance: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return data with some bytes changed, cut, doubled or put in; now and then something else altogether."""
    made = bytearray(data)
    for _time in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        what = chance.randrange(9)
        at = chance.randrange(len(made) + 1)
        if what == 0:
            del made[at:]
        elif what == 1:
            del made[at : at + chance.randrange(1, 9)]
        elif what == 2:
            made[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif what == 3:
            made[at:at] = chance.choice(TOKENS)
        elif what == 4:
            made[at:at] = made[at : at + chance.randrange(1, 64)]
        elif what == 5 and others:
            other = chance.choice(others)
            cut = chance.randrange(len(other) + 1)
            made[at:] = other[cut:]
        elif at < len(made):
            made[at] = chance.choice(EDGES) if what < 8 else made[at] ^ 1 << chance.randrange(8)
    if chance.random() < 0.01:
        return chance.randbytes(chance.randrange(300))
    return bytes(made)
