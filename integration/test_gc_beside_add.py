"""GC while an ADD runs, which it has to spare, and ADD while a GC runs, which it has to wait for.

A runtime may run them only one after the other (CNI 1.1.0, section 3, "Lifecycle & Ordering"); `cnictl` sees
to that, and the plugins lose nothing to one that does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import orphans
from integration.checks import address_of, reservations
from integration.waiting import PATIENCE, until
from prove.networks import NAME, networks
from prove.runtime import KEEPER, VICTIM, previous
from prove.stage import Stage
from prove.strace import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prove.strace import Call

LISTS = ("flannel, portmap", "bridge, firewall, bandwidth, tuning")
VALID = "cni.dev/valid-attachments"
_GATES = 1 << 62


@pytest.fixture(scope="module", params=LISTS)
def stage(request: pytest.FixtureRequest, suite_bin: str) -> Iterator[Stage]:
    (network,) = networks(request.param)
    with Stage(suite_bin, network, keeper=True) as made:
        yield made


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def only_child(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


@contextmanager
def halted(stage: Stage, call: Call, verb: str, position: int, **keys: Any) -> Iterator[list[bytes]]:
    """Run a plugin that stops at one of its calls until the block ends; its answer is put into the list."""
    argv, stdin, env = stage.command(verb, position, **keys)
    before = [*COMMAND, "-o", "/dev/null", "-e", f"trace={call.name}"]
    before += ["-e", f"inject={call.name}:signal=STOP:when={call.number}"]
    answer: list[bytes] = []
    with subprocess.Popen(
        [*before, *argv], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        running.stdin.write(stdin)
        running.stdin.close()
        running.stdin = None
        try:
            until(lambda: _stopped(running))
            plugin = only_child(running.pid)
            try:
                yield answer
            finally:
                os.kill(plugin, signal.SIGCONT)
            output, _said = running.communicate(timeout=PATIENCE)
        except BaseException:
            _kill(running)  # it would stand still for ever, and its locks with it
            raise
        assert running.returncode == 0, output
        answer.append(output)


def _stopped(running: subprocess.Popen[bytes]) -> bool:
    """Tell whether the plugin stands still, and not just because strace has a look at one of its calls."""
    assert running.poll() is None
    for _look in range(6):
        try:
            if state(only_child(running.pid)) not in "tT" or state(running.pid) != "S":
                return False
        except (
            IndexError,
            FileNotFoundError,
            ProcessLookupError,
        ):  # not yet; or it was a child by which strace tries the kernel
            return False
        time.sleep(0.005)
    return True


def _kill(running: subprocess.Popen[bytes]) -> None:
    with suppress(IndexError, FileNotFoundError, ProcessLookupError):
        os.kill(only_child(running.pid), signal.SIGKILL)
    running.kill()


def collect(stage: Stage) -> str:
    """Run GC through the list with the keeper's attachment as the only valid one; return what it said."""
    valid: Any = {VALID: [{"containerID": KEEPER, "ifname": "eth0"}]}
    said = ""
    for position in range(len(stage.network.plugins)):
        outcome = stage.call("GC", position, ports=False, **valid)
        assert outcome.status == 0, outcome
        said += outcome.stderr
    return said


def test_an_add_that_runs_loses_nothing(stage: Stage) -> None:
    """It is halted half-way, and at its end, in each plugin, and a GC goes by that knows nothing of it."""
    for position in range(len(stage.network.plugins)):
        before = stage.attach(upto=position)
        traced = stage.calls("ADD", position, **previous(before))
        stage.detach()
        requests = [each for each in traced if each.own and each.name == "sendto"]
        answers = [
            each for each in traced if each.own and each.name == "write" and each.text[:2] in ("1,", "1<")
        ]
        # firewall keeps a GC waiting by a lock of its own until its rules are made.
        firewall = stage.network.plugins[position]["type"] == "firewall"
        for call in answers[:1] if firewall else (requests[len(requests) // 2], answers[0]):
            before = stage.attach(upto=position)
            with halted(stage, call, "ADD", position, **previous(before)) as answer:
                assert collect(stage) == "", call
            result = json.loads(answer[0])
            assert address_of(result) in reservations(stage.node, NAME)
            for each in range(position + 1):
                outcome = stage.call("CHECK", each, prevResult=result)
                assert outcome.status == 0, (call, outcome)
            stage.detach(result)
    assert stage.rests() == []


def test_gc_takes_what_is_left_once_and_says_so(stage: Stage) -> None:
    stage.attach()
    said = collect(stage)
    assert VICTIM in said
    assert KEEPER not in said
    assert collect(stage) == ""
    assert stage.rests() == []


def gate_is_shut() -> bool:
    """Tell whether a GC holds the lock of a whole network; see proc_locks(5)."""
    with open("/proc/locks", encoding="ascii") as file:
        rows = [line.split() for line in file]
    ours = f"{os.stat(orphans.PATH).st_ino}" if os.path.exists(orphans.PATH) else ""
    return any(
        row[1:4] == ["OFDLCK", "ADVISORY", "WRITE"] and row[5].endswith(f":{ours}") and int(row[6]) >= _GATES
        for row in rows
        if "->" not in row
    )


def test_an_add_waits_for_a_gc(stage: Stage) -> None:
    """The GC is halted, then goes on through what it finds; what comes meanwhile is not what it looks for."""
    last = len(stage.network.plugins) - 1
    valid: Any = {VALID: [{"containerID": KEEPER, "ifname": "eth0"}]}
    first = next(each for each in stage.calls("GC", 0, ports=False, **valid) if each.name == "sendto")
    with ThreadPoolExecutor(1) as beside, halted(stage, first, "GC", 0, ports=False, **valid):
        assert gate_is_shut()
        adding = beside.submit(stage.attach)
        time.sleep(0.3)
        assert not adding.done()
        assert "eth0" not in stage.node.links(VICTIM)
    result = adding.result()
    for position in range(last + 1):
        assert stage.call("CHECK", position, prevResult=result).status == 0
    stage.detach(result)
    assert stage.rests() == []
