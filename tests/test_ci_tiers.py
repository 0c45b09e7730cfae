"""Which tiers of tests a run of CI has time for."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripts import ROOT, load

tiers = load(".ci/tiers.py")
BUDGET = tiers.BUDGET - tiers.TEST


@pytest.mark.parametrize("first_time", [False, True])
def test_the_tiers_fit_into_an_hour_in_turns(*, first_time: bool) -> None:
    minutes = {tier.name: tier.minutes + tier.once * first_time for tier in tiers.TIERS}
    runs = [tiers.chosen(number, minutes, BUDGET) for number in range(3)]
    assert {name for run in runs for name in run} == set(minutes)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_none_is_left_out_more_than_twice_in_a_row(costs: list[int]) -> None:
    minutes = {f"tier-{number}": cost for number, cost in enumerate(costs)}
    runs = [tiers.chosen(number, minutes, BUDGET) for number in range(3 * len(costs))]
    assert all(sum(minutes[name] for name in run) <= BUDGET for run in runs)
    for name in minutes:
        longest = max(
            (len(list(group)) for ran, group in itertools.groupby(name in run for run in runs) if not ran),
            default=0,
        )
        assert longest <= 2, (name, runs)


def test_more_tiers_than_three_runs_can_take_are_refused() -> None:
    with pytest.raises(ValueError, match="104 minutes are too many for three runs of 50"):
        tiers.chosen(0, dict.fromkeys("abcd", 26), 50)


def test_every_tier_of_the_makefile_takes_part() -> None:
    found = re.findall(r"^(test-[a-z0-9-]+|reproduce):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(found) == sorted(tier.name for tier in tiers.TIERS)
