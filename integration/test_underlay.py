"""The underlay that tests of the node daemon stand on: machines reach each other."""

from __future__ import annotations

import pytest

from integration.checks import ping
from integration.underlay import Underlay, address


@pytest.mark.parametrize("family", [4, 6])
def test_machines_reach_each_other(family: int) -> None:
    with Underlay() as underlay:
        first = underlay.join(1, 11)
        underlay.join(1, 12)
        underlay.join(2, 13)
        assert ping(first, "", address(1, 12, family))
        assert ping(first, "", address(2, 13, family), "-M", "do", "-s", "1400")
        underlay.leave(1, 12)
        assert not ping(first, "", address(1, 12, family), wait=0.5)
