"""Hostile bytes guided by coverage: `python -m prove.coverage [STREAM] [OPTIONS]`, `make fuzz-coverage`.

libFuzzer, by atheris, keeps every input that reaches a branch for the first time, and changes that further.
It is read by what tests/hostile_streams.py and tests/hostile_replies.py try with blind changes; STREAM is a
name of either, and without one, the first byte of an input chooses. OPTIONS are libFuzzer's. A fault ends
the run, and its input is written to a file in the working directory.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("atheris is missing: `make fuzz-coverage` has an environment with it")

with atheris.instrument_imports(include=["cni_plugins", "conflist", "flanneld", "ipam"]):
    from tests import hostile_replies, hostile_streams

_LENGTH = struct.Struct("<H")


def exchanges(data: bytes) -> list[list[bytes]]:
    """Return datagrams, each of the length before it, as the answers to as many requests."""
    found = []
    while len(data) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data)
        found.append([data[2 : 2 + length]])
        data = data[2 + length :]
    return found


def flattened(recorded: list[list[bytes]]) -> bytes:
    """Return the reverse of `exchanges`; several datagrams of one answer become one."""
    joined = [b"".join(exchange) for exchange in recorded]
    return b"".join(_LENGTH.pack(len(each)) + each for each in joined)


def _try(name: str, data: bytes) -> None:
    if name in hostile_streams.STREAMS:
        hostile_streams.read(name, data)
    else:
        hostile_replies.read(name, exchanges(data))


def main() -> None:
    """Run until a fault, or as long as the options say (-max_total_time=600)."""
    names = [*hostile_streams.STREAMS, *hostile_replies.READERS]
    chosen = sys.argv.pop(1) if sys.argv[1:] and sys.argv[1] in names else ""

    def once(data: bytes) -> None:
        if chosen:
            _try(chosen, data)
        elif data:
            _try(names[data[0] % len(names)], data[1:])

    recorded = hostile_replies.recorded()
    with tempfile.TemporaryDirectory() as corpus:
        for number, name in enumerate(names):
            if chosen not in ("", name):
                continue
            known = name in hostile_streams.STREAMS
            seeds = hostile_streams.STREAMS[name][1] if known else [flattened(recorded[name])]
            for index, seed in enumerate(seeds):
                with open(os.path.join(corpus, f"{number}-{index}"), "wb") as file:
                    file.write((b"" if chosen else bytes((number,))) + seed)
        atheris.Setup([*sys.argv, "-max_len=9000", "-timeout=20", "-rss_limit_mb=1000", corpus], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
