"""Choose which tiers of tests one run of CI has time for, and print their names.

Usage: tiers.py NUMBER, the commit's number (`git rev-list --count HEAD`). `make test` always runs and is not
among them. All others run as long as everything takes BUDGET minutes at most; beyond that they take turns,
commit by commit, so that none is left out more than twice in a row.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

BUDGET = 60
"""Minutes for everything, on two cores."""
TEST = 10
"""Minutes that `make test` takes, with the set-up and the build."""


class Tier(NamedTuple):
    """A target of the Makefile.

    Attributes:
        minutes: how long it takes, with what it builds each time.
        once: minutes more where what it builds once is not there yet.
    """

    name: str
    minutes: int
    once: int = 0


TIERS = (
    Tier("test-vm", 6),
    Tier("test-kube", 5, once=12),
    Tier("test-image", 12),
    Tier("test-kube-vm", 6),
    Tier("test-arm64", 10),
    Tier("reproduce", 6),
)
CONTROL_PLANE = "cni-plugins/kubernetes/kubelet"
"""Below the cache folder: what `test-kube` builds once (KUBE in the Makefile)."""


def turns(minutes: dict[str, int], budget: int) -> list[list[str]]:
    """Return groups of tiers that each stay within the budget; a tier is in one of them.

    Raises:
        ValueError: there are more than three, so a tier would be left out more than twice in a row.
    """
    groups: list[list[str]] = []
    for name in sorted(minutes, key=lambda name: -minutes[name]):
        for group in groups:
            if sum(minutes[other] for other in group) + minutes[name] <= budget:
                group.append(name)
                break
        else:
            groups.append([name])
    if len(groups) > 3:
        raise ValueError(f"{sum(minutes.values())} minutes are too many for three runs of {budget}")
    return groups


def chosen(number: int, minutes: dict[str, int], budget: int) -> list[str]:
    """Return the tiers that run for a commit: the group whose turn it is, and what else there is time for.

    Args:
        number: the commit's.
        minutes: each tier's.
        budget: minutes for all of them.
    """
    groups = turns(minutes, budget)
    start = number % len(groups)
    taken: list[str] = []
    for name in (name for group in groups[start:] + groups[:start] for name in group):
        if sum(minutes[other] for other in taken) + minutes[name] <= budget:
            taken.append(name)
    return taken


def main() -> None:
    """Print the choice: for people on standard error, for the script on standard output."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    built = os.path.exists(os.path.join(cache, CONTROL_PLANE))
    minutes = {tier.name: tier.minutes + (0 if built else tier.once) for tier in TIERS}
    names = chosen(int(sys.argv[1]), minutes, BUDGET - TEST)
    left_out = [name for name in minutes if name not in names]
    print(
        f"tiers: test, {', '.join(names)}; left out this time: {', '.join(left_out) or 'none'}",
        file=sys.stderr,
    )
    print("\n".join(names))


if __name__ == "__main__":
    main()
