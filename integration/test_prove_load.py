"""Load, in short: containers come and go, eight at a time, beside checks, GCs, kills and Go's host-local."""

from __future__ import annotations

from prove.load import Load, Plan


def test_nothing_is_lost_under_load(suite_bin: str) -> None:
    load = Load(suite_bin, Plan("short", containers=20, at_once=8, seconds=4, killed=0.2, steps=5))
    load.run()
    assert load.tally.failures == []
    assert load.timings["ADD"]
    assert load.collections > 1
    assert load.killed
