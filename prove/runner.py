"""cnictl killed half-way through a list, plugins left at work; then one `cnictl del` or `cnictl gc`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from integration.node import PATH
from prove import trial
from prove.networks import NAME, PORTS
from prove.runtime import KEEPER, VICTIM, Failed
from prove.stage import Stage
from prove.tally import FAILED, Problem

if TYPE_CHECKING:
    from prove.networks import Network
    from prove.strace import Call
    from prove.tally import Tally

FOLDER = "/etc/cni/net.d"
WAYS = ("del", "gc")


class Case(NamedTuple):
    """One kill: on which command, at which call, and which command cleans up."""

    verb: str
    call: Call
    way: str

    def __str__(self) -> str:
        return f"cnictl {self.verb}, killed at {self.call.name} {self.call.number}, cnictl {self.way}"


def plan(suite: str, network: Network) -> list[Case]:
    """Return a case for each call that cnictl makes after it has read the list, the ways taking turns."""
    with Stage(suite, network, keeper=True) as stage:
        prepare(stage)
        return cases(stage)


def run(suite: str, network: Network, chosen: list[Case]) -> Tally:
    """Try some of them."""
    with Stage(suite, network, keeper=True) as stage:
        prepare(stage)
        return trial.tried(stage, chosen, lambda case: (attempt(stage, case), str(case)))


def prepare(stage: Stage) -> None:
    """Write the list, and let cnictl leave on the node what it always leaves."""
    plugins = [{**plugin, "capabilities": {"portMappings": True}} for plugin in stage.network.plugins]
    os.makedirs(FOLDER, exist_ok=True)
    with open(f"{FOLDER}/10-net.conflist", "w", encoding="ascii") as file:
        json.dump({"cniVersion": "1.1.0", "name": NAME, "plugins": plugins}, file)
    for verb in ("add", "del"):
        _demand(stage, verb)
    stage.baseline = stage.look()


def cases(stage: Stage) -> list[Case]:
    """Return every case of a stage that is prepared."""
    found = []
    for verb in ("add", "del"):
        calls = [call for call in stage.traced(*_command(stage, verb)) if call.own]
        first = next(index for index, call in enumerate(calls) if "10-net.conflist" in call.text)
        # The interpreter's end changes nothing any more.
        found += [Case(verb, call, WAYS[index % len(WAYS)]) for index, call in enumerate(calls[first:])]
        # While a plugin is at work, both.
        found += [Case(verb, call, way) for call in calls[first:] if call.name == "poll" for way in WAYS]
    return list(dict.fromkeys(found))


def attempt(stage: Stage, case: Case) -> list[Problem] | None:
    """Try one case; return what was wrong, or None when nothing was killed."""
    try:
        stage.free()
        if case.verb == "del":
            _demand(stage, "add")
        with stage.orphan(case.call, *_command(stage, case.verb)) as fired:
            if case.way == "gc" and not stage.network.paired:
                stage.drop_interface()
            _demand(stage, case.way)
    except Failed as error:
        return [Problem(FAILED, str(error))]
    problems = stage.rests() or stage.cycle()
    return problems if fired or problems else None


def _command(stage: Stage, verb: str) -> tuple[list[str], bytes, dict[str, str]]:
    """Return the command line, the standard input and the environment of a command."""
    if verb == "gc":
        about = ["--valid", f"{KEEPER}/eth0"]
    else:
        about = [f"/run/netns/{VICTIM}", "--container-id", VICTIM]
    env = {
        "PATH": PATH,
        "CNI_PATH": stage.suite,
        "NETCONFPATH": FOLDER,
        "CAP_ARGS": json.dumps({"portMappings": PORTS}),
    }
    return [f"{stage.suite}/cnictl", verb, NAME, *about], b"", env


def _demand(stage: Stage, verb: str) -> None:
    outcome = stage.start(*_command(stage, verb))
    if outcome.status:
        raise Failed(f"cnictl {verb}: status {outcome.status}: {outcome.stderr}")
