"""The gate of a network, and ADDs that run, seen from outside: locks and processes, no kernel state."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cni_plugins import adding, orphans
from cni_plugins.spec.request import ATTACHMENTS_KEY, spare

if TYPE_CHECKING:
    from pathlib import Path

GROUP = ("", "net")
ONE, TWO = ("c1", "eth0"), ("c2", "eth0")


def test_an_add_waits_at_the_gate_and_a_delete_does_not(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    said: list[str] = []
    waits, passed = threading.Event(), threading.Event()

    def say(what: str) -> None:
        said.append(what)
        waits.set()

    def add() -> None:
        with orphans.Lock(path, GROUP, ONE, say, create=True, gate=True):
            passed.set()

    with orphans.Gate(path, GROUP, said.append):
        with orphans.Lock(path, ("", "other"), ONE, said.append, create=False, gate=True):
            pass
        with orphans.Lock(path, GROUP, ONE, said.append, create=False):
            pass
        assert said == []
        adding_thread = threading.Thread(target=add)
        adding_thread.start()
        assert waits.wait(60)
        assert not passed.is_set()
    assert passed.wait(60)
    adding_thread.join()
    assert said == ["a GC of the network still runs: waiting for its end"]


def test_a_gc_waits_for_who_is_at_work_but_not_for_whom_it_spares(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    said: list[str] = []
    waits = threading.Event()

    def say(what: str) -> None:
        said.append(what)
        waits.set()

    with orphans.Gate(path, GROUP, say) as gate:
        holder = orphans.Lock(path, GROUP, ONE, said.append, create=False)
        gate.settle({ONE})
        assert said == []
        settling = threading.Thread(target=gate.settle, args=({TWO},))
        settling.start()
        assert waits.wait(60)
        assert settling.is_alive()
        holder.release()
        settling.join(60)
        assert not settling.is_alive()
    assert len(said) == 1


@pytest.mark.parametrize(("verb", "seen"), [("ADD", True), ("DEL", False)])
def test_adds_that_run_are_seen(verb: str, seen: bool) -> None:
    env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": f"gate-{verb}", "CNI_IFNAME": "eth7"}
    command = [sys.executable, "-IS", "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert ((f"gate-{verb}", "eth7") in adding.attachments()) is seen
        run.communicate(b"\n")
    assert (f"gate-{verb}", "eth7") not in adding.attachments()


def test_what_is_spared_is_valid_for_delegates_too() -> None:
    raw = {"CNI.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    listed = spare(raw, [TWO])[ATTACHMENTS_KEY]
    assert json.dumps(listed) == json.dumps([{"containerID": c, "ifname": i} for c, i in (ONE, TWO)])
    assert spare({ATTACHMENTS_KEY: None}, [TWO]) == {ATTACHMENTS_KEY: None}
