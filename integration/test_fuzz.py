"""A share of `python -m integration.fuzz`: every plugin, with a kernel to reach."""

from __future__ import annotations

from integration.fuzz import fuzz


def test_hostile_calls_of_every_plugin() -> None:
    codes, failures = fuzz(3000, 7)
    assert failures == []
    assert codes[0] > 100
