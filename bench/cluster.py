"""`python -m bench.cluster`: the node daemon among many nodes, and what its paths carry.

Two tables: what 1,000 and 5,000 nodes cost each of them, and pod to pod throughput and latency of each
backend over the same devices made by hand, both sides in turn. Everything happens in namespaces of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields

from bench import paths, scale
from integration import features
from integration.suite import ROOT

_SIZES = (1000, 5000)
_ASKED = 1000
_MEMORY, _IDLE = 60, 1.0
"""What _ASKED nodes may cost at most: MB, and percent of a core."""
_BAND = (0.95, 1.05)
"""What is no slower and no faster than the same by hand."""


def main() -> int:
    """Measure and print what is asked for."""
    options = _options()
    if not options.no_scale:
        print("| nodes | start s | all at once s | join ms | leave ms | MB | idle CPU % |")
        print("| --: | --: | --: | --: | --: | --: | --: |", flush=True)
        sizes = []
        for size in options.sizes:
            found = scale.measure(size, joins=options.joins, idle=options.idle)
            print(
                f"| {found.nodes:,} | {found.start:.2f} | {found.burst:.2f} | {found.join:.1f} "
                f"| {found.leave:.1f} | {found.memory:.0f}{_mark(found, found.memory < _MEMORY)} "
                f"| {found.idle:.2f}{_mark(found, found.idle < _IDLE)} |",
                flush=True,
            )
            sizes.append(found)
        if len(sizes) > 1:
            print(_growth(sizes[-2], sizes[-1]))
        print(f"\nJoin and leave: medians of {options.joins}. Idle: {options.idle:g} seconds.\n")
    if not options.no_paths:
        print("| backend | pod to pod | ours | by hand | ratio | 0.95 to 1.05 |")
        print("| --- | --- | --: | --: | --: | --: |", flush=True)
        for backend in (each for each in paths.BACKENDS if each.key in options.backends):
            if backend.feature and not features.has(backend.feature):
                print(f"{backend.key}: left out, the kernel has no {backend.feature}", file=sys.stderr)
                continue
            for row in paths.measure(
                backend, rounds=options.rounds, megabytes=options.megabytes, plugins=options.bin
            ):
                ratio = row.ours / row.by_hand
                print(
                    f"| {row.backend} | {row.what} | {row.ours:.2f} | {row.by_hand:.2f} | {ratio:.2f} "
                    f"| {_in_band(ratio) if backend.same else ''} |",
                    flush=True,
                )
        print(f"\nThe best quarter of {options.rounds} rounds of {options.megabytes} MB, both sides in turn.")
    return 0


def _in_band(ratio: float) -> str:
    return "✓" if _BAND[0] <= ratio <= _BAND[1] else "✗"


def _mark(found: scale.Scale, reached: bool) -> str:
    return "" if found.nodes != _ASKED else " ✓" if reached else " ✗"


def _growth(one: scale.Scale, other: scale.Scale) -> str:
    """Return a row that says how much more of everything the other one has."""
    ratios = [getattr(other, item.name) / (getattr(one, item.name) or 0.01) for item in fields(one)]
    return f"| {' | '.join(f'{ratio:.2f} times' for ratio in ratios)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="Measure the node daemon.")
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="nodes (default: %(default)s)")
    parser.add_argument("--joins", type=int, default=20, help="nodes that join (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=60, help="seconds to do nothing (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="of each side (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=256, help="of a round (default: %(default)s)")
    keys = [backend.key for backend in paths.BACKENDS]
    parser.add_argument("--backends", nargs="+", choices=keys, default=keys, help="default: all")
    parser.add_argument("--no-scale", action="store_true", help="leave the first table out")
    parser.add_argument("--no-paths", action="store_true", help="leave the second table out")
    parser.add_argument(
        "--bin",
        default=os.environ.get("BIN") or f"{ROOT}/dist/cni",
        help="our plugins (default: %(default)s)",
    )
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    return options


if __name__ == "__main__":
    sys.exit(main())
