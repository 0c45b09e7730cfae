"""What a killed plugin has started runs on: the next call of the attachment waits for its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni_plugins.spec.errors import ProgramError
from integration.node import PEER
from prove import kill, orphan, runner
from prove.networks import networks
from prove.runtime import previous
from prove.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path


def test_iptables_runs_on(suite_bin: str) -> None:
    (chosen,) = networks("by iptables")
    with Stage(suite_bin, chosen, keeper=True) as stage:
        tried = set()
        for case in orphan.cases(stage):
            if (case.verb, case.position, case.way) in (("ADD", 1, "DEL"), ("ADD", 0, "GC")):
                assert orphan.attempt(stage, case) == [], case
                tried.add(case.position)
        assert tried == {0, 1}


def test_programs_that_are_killed_when_their_work_is_done(suite_bin: str, tmp_path: Path) -> None:
    """Each iptables seems to have failed, and so does each that is to undo it: a DEL must still find all."""
    (chosen,) = networks("by iptables")
    log = tmp_path / "log"
    at_exit = [
        "strace",
        "-f",
        "-o",
        str(log),
        "-e",
        "trace=exit_group",
        "-e",
        "inject=exit_group:signal=KILL",
    ]
    with Stage(suite_bin, chosen, keeper=True) as stage:
        for position in range(len(chosen.plugins)):
            for way in ("bare DEL", "GC"):
                before = stage.attach(upto=position)
                outcome = stage.call("ADD", position, before=at_exit, **previous(before))
                assert log.read_text().count("killed by SIGKILL") > 2
                assert outcome.answer["code"] == ProgramError.code
                kill.clean_up(stage, way, None)
                assert stage.rests() == [], (position, way)


def test_nft_runs_on(suite_bin: str) -> None:
    (flannel,) = networks("flannel")
    plugins = [flannel.plugins[0], {**flannel.plugins[1], "conditionsV4": ["ip", "daddr", "192.0.2.1"]}]
    with Stage(suite_bin, flannel._replace(plugins=plugins), keeper=True) as stage:
        cases = [case for case in orphan.cases(stage) if case.verb == "ADD"]
        assert {case.way for case in cases} == set(orphan.WAYS)
        for case in cases:
            assert orphan.attempt(stage, case) == [], case


@pytest.mark.peer
def test_a_delegate_of_the_reference_runs_on(suite_bin: str, tmp_path: Path) -> None:
    """Ours is killed, and Go's bridge, which has host-local to run yet, is not."""
    for name in ("bridge", "host-local", "portmap"):
        (tmp_path / name).symlink_to(f"{PEER}/{name}")
    (tmp_path / "flannel").symlink_to(os.path.abspath(f"{suite_bin}/flannel"))
    (chosen,) = networks("flannel")
    # Debian's are of CNI 1.0.0, which has no GC.
    only = chosen._replace(plugins=[{**chosen.plugins[0], "cniVersion": "1.0.0"}])
    with Stage(str(tmp_path), only, keeper=True) as stage:
        cases = [case for case in orphan.cases(stage) if (case.verb, case.way) == ("ADD", "DEL")]
        assert cases
        for case in cases:
            assert orphan.attempt(stage, case) == [], case


def test_a_killed_cnictl(suite_bin: str) -> None:
    """While a plugin is at work, which runs on; and with the result written, but not in its place."""
    (chosen,) = networks("ptp")
    with Stage(suite_bin, chosen, keeper=True) as stage:
        runner.prepare(stage)
        adds = [each for each in runner.cases(stage) if each.verb == "add"]
        polls = [each for each in adds if (each.call.name, each.call.number) == ("poll", 1)]
        assert {each.way for each in polls} == set(runner.WAYS)
        places = [
            each._replace(way="gc")
            for each in adds
            if each.call.changing and "/var/lib/cni/results" in each.call.text
        ]
        assert places
        for case in polls + places:
            assert runner.attempt(stage, case) == [], case
