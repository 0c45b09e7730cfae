"""`python -m bench [ROW …]`: race our plugins against the Go reference plugins and print the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack

from bench import report
from bench.process import PluginFailedError
from bench.rows import MANY, ROUNDS, ROWS, WARM_UP, Line, measure, missing
from bench.side import Side
from integration.node import PEER

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> int:
    """Return 0 unless a plugin failed or left something behind: a slow machine is no fault."""
    options = _options()
    rows = [row for row in ROWS if not options.row or row.key in options.row]
    for folder in (options.bin, options.peer):
        if not os.access(f"{folder}/bridge", os.X_OK):
            print(
                f"bench: no plugins in {folder}: run `make build`, or set BIN= and PEER_BIN=", file=sys.stderr
            )
            return 1
    lines = []
    failed = False
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="cni-bench-"))
        wide = any(row.width > 1 for row in rows)
        count = max(MANY if wide else WARM_UP, options.containers)
        ours = Side("ours", options.bin, f"{data}/ours", count)
        stack.callback(ours.node.close)
        peer = Side("peer", options.peer, f"{data}/peer", count)
        stack.callback(peer.node.close)
        for row in rows:
            lacks = missing(row, ours, peer)
            if lacks:
                print(f"bench: {row.key}: left out, there is no {lacks}", file=sys.stderr)
                continue
            _progress(f"{row.title} …")
            try:
                lines += measure(row, ours, peer, options.containers)
            except PluginFailedError as error:
                _progress("")
                print(f"bench: {row.title}: {error}", file=sys.stderr)
                failed = True
        _progress("")
        left = ours.leftovers()
    if options.json:
        print(json.dumps({"lines": report.plain(lines), "left": left}, indent=2, ensure_ascii=False))
    else:
        print(report.markdown(lines) if options.markdown else report.text(lines))
        print(_footer(options.containers, left, lines))
    return 1 if left or failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Race our plugins against the Go ones, in namespaces of its own."
    )
    keys = [row.key for row in ROWS]
    parser.add_argument("row", nargs="*", help=f"rows to run (default: all): {', '.join(keys)}")
    parser.add_argument("--containers", type=int, default=20, help="containers a row (default: %(default)s)")
    parser.add_argument("--bin", default=os.environ.get("BIN") or f"{ROOT}/dist/cni", help="our plugins")
    parser.add_argument("--peer", default=os.environ.get("PEER_BIN") or PEER, help="the peer's plugins")
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--markdown", action="store_true", help="print a Markdown table")
    style.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    unknown = set(options.row) - set(keys)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    options.bin, options.peer = os.path.abspath(options.bin), os.path.abspath(options.peer)
    return options


def _footer(containers: int, left: list[str], lines: list[Line]) -> str:
    aimed = sum(line.target is not None for line in lines)
    reached = aimed - sum(line.missed for line in lines)
    parts = [
        f"\nMedians of {containers} containers, {ROUNDS} rounds of the {MANY}, both sides in turn.",
        "CPU: with the programs a plugin starts. Peak: its largest process.",
        f"{reached} of {aimed} targets reached." if aimed else "",
    ]
    found = (
        f"{len(left)} things were left behind: {'; '.join(left[:5])}" if left else "Nothing was left behind."
    )
    return f"{' '.join(parts).rstrip()}\nOurs, after all DELs: {found}"


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
