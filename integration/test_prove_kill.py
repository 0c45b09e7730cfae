"""Killed everywhere: a sample of the kills of prove/kill.py, and those that once left something.

`make prove` tries them all.
"""

from __future__ import annotations

import re

import pytest

from prove import kill
from prove.networks import Network, networks
from prove.stage import Stage

SAMPLE = 5
SEED = 20


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.name)
@pytest.mark.parametrize("keeper", [True, False], ids=["busy node", "new node"])
def test_a_kill_leaves_nothing(suite_bin: str, network: Network, keeper: bool) -> None:
    tally = kill.sample(suite_bin, network, SAMPLE, SEED, keeper=keeper)
    assert tally.failures == []
    assert tally.tried == SAMPLE


ONCE = {
    "flannel": [
        # Rules without a note, and a DEL that is told of no mappings.
        ("portmap", r"write\(\d+</run/cni/portmap/", "bare DEL"),
        # The draft of a file, named after the process that wrote it.
        ("flannel", r'(linkat|rename)\(.*"/var/lib/cni/flannel/', "DEL"),
    ],
    "bandwidth": [
        # Chains that do not name their network, without a note, and GC.
        ("bridge", r"write\(\d+</run/cni/spoofcheck/", "GC"),
        # The file of an interface's properties, whose note came after it.
        ("tuning", r'(link|linkat|rename)\(.*"/run/cni/tuning', "GC"),
        # An ifb that has no alias yet.
        ("bandwidth", r"sendto\(.*IFLA_IFALIAS", "GC"),
    ],
    # A pair that has no alias yet, in a namespace that lives on.
    "ptp": [("ptp", r"sendto\(.*IFLA_IFALIAS", "GC beside the namespace")],
}


@pytest.mark.parametrize("network", ONCE)
def test_what_was_left_once(suite_bin: str, network: str) -> None:
    (chosen,) = [each for each in networks() if network in each.name]
    positions = {each["type"]: position for position, each in enumerate(chosen.plugins)}
    with Stage(suite_bin, chosen, keeper=True) as stage:
        every = kill.all_cases(stage)
        for plugin, call, way in ONCE[network]:
            cases = [
                case._replace(way=way)
                for case in every
                if (case.verb, case.position) == ("ADD", positions[plugin])
                and re.match(call, f"{case.call.name}({case.call.text}")
            ]
            assert cases
            for case in dict.fromkeys(cases):
                assert kill.attempt(stage, case) == [], case


def test_a_bridge_that_was_not_finished_is_finished(suite_bin: str) -> None:
    (chosen,) = networks("flannel")
    with Stage(suite_bin, chosen, keeper=False) as stage:
        cases = [
            case._replace(way="DEL")
            for case in kill.all_cases(stage)
            if case.position == 0 and "conf/cni0/accept_" in case.call.text
        ]
        assert cases
        for case in dict.fromkeys(cases):
            stage.reset()
            assert kill.attempt(stage, case) == [], case
