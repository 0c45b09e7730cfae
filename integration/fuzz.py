"""The long form of tests/test_hostile.py: `python -m integration.fuzz [--cases 1000000] [--seed 1]`.

Every plugin is called in this process, in a node of its own, so that DEL, GC and STATUS reach a kernel. It
prints how many calls ended with which code, and each failure with its input.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter

from integration.node import Node
from tests import hostile

ENV = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
FOLDER = "/run/fuzz"
ALLOWED = (f"{FOLDER}/", "/run/", "/var/lib/cni/", "/dev/net/tun/")


def fuzz(cases: int, seed: int) -> tuple[Counter[int], list[str]]:
    """Make calls; return how often each code came, and what went wrong.

    Args:
        cases: how many.
        seed: of their choice.
    """
    chance = random.Random(seed)
    codes: Counter[int] = Counter()
    failures: dict[str, None] = {}
    with Node() as node, node.entered():
        os.makedirs(FOLDER)
        with open(f"{FOLDER}/subnet.env", "w", encoding="ascii") as file:
            file.write(ENV)
        fence = hostile.Fence()
        for _time in range(cases):
            case = hostile.case(chance, FOLDER)
            fence.allowed = ALLOWED
            try:
                codes[hostile.call(*case)] += 1
            except AssertionError as error:
                failures[str(error)] = None
            fence.allowed = None
        failures |= dict.fromkeys(f"written outside: {path}" for path in fence.crossed)
    return codes, list(failures)


def main() -> int:
    """Print a row of a table, and what failed; return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m integration.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    codes, failures = fuzz(options.cases, options.seed)
    minutes = (time.monotonic() - start) / 60
    print("| proof | cases | failures | minutes | answers by code |\n|---|---|---|---|---|")
    answers = ", ".join(f"{code}: {number}" for code, number in sorted(codes.items()))
    row = (f"hostile input, seed {options.seed}", options.cases, len(failures), f"{minutes:.1f}", answers)
    print(f"| {' | '.join(map(str, row))} |")
    print(*failures[:50], sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
