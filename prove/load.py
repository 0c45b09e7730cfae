"""Load: containers on one network come and go, many at a time, beside checks, GCs, kills and Go's host-local.

    python -m prove.load [--containers 1000] [--at-once 50] [--seconds 600] [--seed 1] SUITE

Each container is in one thread's hands at a time, as with a runtime. A GC goes by every few seconds; the
only attachments it does not spare are those whose ADD or DEL was killed and which were left to it. A ledger
is kept of who was told which address, so that one told to two is seen at once. In the end every container is
detached, and the node has to be as it was; and in a run of two minutes or more, calls have to be about as
fast at the end as at the begin (prove/latency.py).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from integration.checks import ipam
from integration.node import PATH, PEER, Node
from integration.waiting import PATIENCE
from prove import latency, snapshot
from prove.latency import Timing
from prove.tally import DOUBLE, FAILED, FAILED_ADD, KINDS, LEAK, Tally

NAME = "load"
KEEPER = "keeper"
STORE = f"/var/lib/cni/networks/{NAME}"
_BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True}
_IPAM = ipam("10.80.0.0/20")
_GO = {"cniVersion": "1.0.0", "name": NAME, "type": "host-local", "ipam": _IPAM}
_OURS = {"cniVersion": "1.1.0", "name": NAME, "ipam": _IPAM, **_BRIDGE}
_LEFT = 0.3
"""How many of those are left to GC."""
_REFERENCE = 0.1
"""How many containers are Go's host-local's: reservations without an interface, killed like the others."""
_GC_EVERY = 5.0
_PATIENCE = 60.0
"""Seconds that the kernel has for what it does in its own time."""


class Plan(NamedTuple):
    """How much of it.

    Attributes:
        name: for the table.
        containers: how many there are; nearly all are attached all the time.
        at_once: how many calls at a time.
        seconds: for how long, after the first has attached them all.
        seed: of chance.
        killed: how many of the ADDs and DELs are killed, of one.
        steps: how many each of the callers makes at least, where `seconds` are too short for them.
    """

    name: str = "bridge, 1,000 containers"
    containers: int = 1000
    at_once: int = 50
    seconds: float = 600
    seed: int = 1
    killed: float = 0.04
    steps: int = 1


class Load:
    """A node under load; `run` it once.

    Attributes:
        tally: what was tried, and what was wrong.
        timings: by verb.
    """

    def __init__(self, suite: str, plan: Plan) -> None:
        self.tally = Tally()
        self.timings: dict[str, list[Timing]] = defaultdict(list)
        self._suite, self._plan = suite, plan
        self._lock = threading.Lock()
        self._free: list[str] = []
        self._abandoned: set[str] = set()
        self._results: dict[str, Any] = {}
        self._ledger: dict[str, str] = {}
        self._begin = 0.0
        self._measuring = False
        self.killed = self.collections = self.collected = 0

    def run(self) -> None:
        """Attach all, keep them coming and going, detach all, and compare the node."""
        plan = self._plan
        go = int(plan.containers * _REFERENCE) if os.access(f"{PEER}/host-local", os.X_OK) else 0
        names = [f"go{number}" for number in range(go)]
        names += [f"pod{number}" for number in range(plan.containers - go)]
        with Node(self._suite) as node, node.entered():
            for name in [KEEPER, *names[go:]]:
                node.netns(name)
            # It stays, so that the bridge always has a port, and must not notice anything.
            self._add(KEEPER)
            self._add(names[-1])
            self._delete(names[-1])
            self._collect()
            before = self._settled(None)
            with ThreadPoolExecutor(plan.at_once) as pool:
                list(pool.map(self._add, names))
                self._free = names[:]
                self._begin = time.monotonic()
                self._measuring = True
                beside = threading.Thread(target=self._collect_all_the_time)
                beside.start()
                list(pool.map(self._churn, range(plan.at_once)))
                beside.join()
                self._measuring = False
                self._collect()
                list(pool.map(self._delete, names))
            self._collect(final=True)
            self._compare(before)
        self.judge()

    def judge(self) -> None:
        """Count as failures what got slower."""
        for line in latency.slower(self.timings, self._plan.seconds):
            self._wrong(FAILED, line)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _churn(self, number: int) -> None:
        chance = random.Random(self._plan.seed * 1000 + number)
        steps = 0
        while self._elapsed() < self._plan.seconds or steps < self._plan.steps:
            steps += 1
            with self._lock:
                name = self._free.pop(chance.randrange(len(self._free)))
            if self._step(name, chance):
                with self._lock:
                    self._free.append(name)
            else:
                with self._lock:
                    self._abandoned.add(name)

    def _step(self, name: str, chance: random.Random) -> bool:
        """Do something to a container; return False when it was killed, and what it left is GC's to find."""
        attached = name in self._results
        if attached and chance.random() < 0.4:
            self._check(name)
            return True
        if chance.random() < self._plan.killed:
            self._kill(name, "DEL" if attached else "ADD", chance)
            if not name.startswith("go") and chance.random() < _LEFT:
                return False
            self._delete(name)
        elif attached:
            self._delete(name)
        self._add(name)
        return True

    def _add(self, name: str) -> None:
        answer = self._timed("ADD", name)
        if answer is None:
            return
        address = answer["ips"][0]["address"].partition("/")[0]
        with self._lock:
            holder = self._ledger.setdefault(address, name)
            self._results[name] = answer
        if holder != name:
            self._wrong(DOUBLE, f"{address} is {holder}'s, and {name}'s")
        try:
            with open(f"{STORE}/{address}", "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b"gone"
        if content != f"{name}\r\neth0".encode():
            self._wrong(LEAK, f"the reservation of {address}, which {name} has, is {content!r}")

    def _check(self, name: str) -> None:
        self._timed("CHECK", name, prevResult=self._results[name])

    def _delete(self, name: str) -> None:
        self._timed("DEL", name, **self._forget(name))

    def _forget(self, name: str) -> dict[str, Any]:
        """From now on its address may be another's."""
        with self._lock:
            result = self._results.pop(name, None)
            if result is None:
                return {}
            del self._ledger[result["ips"][0]["address"].partition("/")[0]]
            return {"prevResult": result}

    def _kill(self, name: str, verb: str, chance: random.Random) -> None:
        keys = self._forget(name) if verb == "DEL" else {}
        argv, stdin, env = self._command(verb, name, **keys)
        with subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            assert running.stdin is not None
            running.stdin.write(stdin)
            running.stdin.close()
            time.sleep(chance.uniform(0, 0.1))
            running.kill()
        with self._lock:
            self.tally.tried += 1
            self.killed += running.returncode < 0

    def _timed(self, verb: str, name: str, **keys: Any) -> Any:
        """Call a plugin, and demand success; return its answer, None for none."""
        argv, stdin, env = self._command(verb, name, **keys)
        start = time.monotonic()
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False, timeout=PATIENCE)
        end = time.monotonic()
        with self._lock:
            self.tally.tried += 1
            if self._measuring and not name.startswith("go"):
                self.timings[verb].append(Timing(end - self._begin, end - start))
        if done.returncode:
            kind = FAILED_ADD if verb == "ADD" else FAILED
            self._wrong(kind, f"{verb} of {name}: {done.stdout.decode()} {done.stderr.decode()}")
            return None
        return json.loads(done.stdout) if done.stdout else None

    def _command(self, verb: str, name: str, **keys: Any) -> tuple[list[str], bytes, dict[str, str]]:
        go = name.startswith("go")
        folder = PEER if go else self._suite
        if verb == "ADD":
            keys = {}
        env = {
            "PATH": PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": name,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/run/netns/{name}",
            "CNI_PATH": folder,
        }
        stdin = json.dumps({**(_GO if go else _OURS), **keys}).encode()
        return [f"{folder}/{'host-local' if go else 'bridge'}"], stdin, env

    def table(self) -> list[str]:
        """Return latencies of the first and of the last minute, or quarters of a shorter time, as a table."""
        rows = latency.rows(self.timings, self._plan.seconds)
        rows.append("")
        rows.append(
            f"{self.tally.tried} calls, of these {self.collections} GCs; {self.killed} killed, "
            f"{self.collected} of them left to GC"
        )
        return rows

    def _collect_all_the_time(self) -> None:
        while self._elapsed() < self._plan.seconds:
            time.sleep(min(_GC_EVERY, self._plan.seconds / 5))
            self._collect()

    def _collect(self, *, final: bool = False) -> None:
        """Run GC; what was left to it is free again."""
        with self._lock:
            left = set(self._abandoned)
        names = [KEEPER] if final else [name for name in self._every() if name not in left]
        valid = [{"containerID": name, "ifname": "eth0"} for name in names]
        env = {"PATH": PATH, "CNI_COMMAND": "GC", "CNI_PATH": self._suite}
        stdin = json.dumps({**_OURS, "cni.dev/valid-attachments": valid}).encode()
        argv = [f"{self._suite}/bridge"]
        start = time.monotonic()
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False, timeout=PATIENCE)
        said = done.stderr.decode()
        if done.returncode:
            self._wrong(FAILED, f"GC: {done.stdout.decode()} {said}")
        if final and "removed" in said:
            self._wrong(LEAK, f"the last GC found something: {said}")
        with self._lock:
            self.tally.tried += 1
            self.collections += 1
            self.collected += len(left)
            self._abandoned -= left
            self._free += left
            if self._measuring:
                self.timings["GC"].append(Timing(start - self._begin, time.monotonic() - start))

    def _every(self) -> list[str]:
        return [KEEPER] + [
            f"{kind}{number}" for kind in ("pod", "go") for number in range(self._plan.containers)
        ]

    def _settled(self, before: snapshot.Snapshot | None) -> snapshot.Snapshot:
        """Look at the node: when its own addresses are settled, or until it is as before."""
        tentative = ["ip", "-6", "-oneline", "address", "show", "tentative"]
        end = time.monotonic() + _PATIENCE
        if before is None:
            while subprocess.run(tentative, check=True, capture_output=True).stdout:
                time.sleep(0.1)
            time.sleep(0.2)  # the routes to them come after
            return snapshot.take()
        while snapshot.changes(before, now := snapshot.take()) and time.monotonic() < end:
            time.sleep(0.2)
        return now

    def _compare(self, before: snapshot.Snapshot) -> None:
        for line in snapshot.changes(before, self._settled(before)):
            self._wrong(LEAK, line)
        self._delete(KEEPER)
        held = [name for name in os.listdir(STORE) if name.startswith("10.80.")]
        if held or self._ledger:
            self._wrong(LEAK, f"addresses that are held: {held}; that somebody was told of: {self._ledger}")

    def _wrong(self, kind: str, text: str) -> None:
        with self._lock:
            self.tally.wrong[kind] += 1
            self.tally.failures.append(text)


def subjects(only: str = "") -> list[Plan]:
    """Return what `make prove` runs."""
    return [plan for plan in (Plan(),) if only in plan.name]


def plan(_suite: str, subject: Plan) -> list[Plan]:
    """Return its one case."""
    return [subject]


def run(suite: str, _subject: Plan, chosen: list[Plan]) -> Tally:
    """Run it, and print how long its calls took."""
    tally = Tally()
    for each in chosen:
        load = Load(suite, each)
        load.run()
        print("\n".join(["", *load.table(), ""]), file=sys.stderr, flush=True)
        tally.add(load.tally)
    return tally


def main() -> int:
    """Run it with other figures."""
    default = Plan()
    parser = argparse.ArgumentParser(prog="python -m prove.load", description=__doc__)
    parser.add_argument("suite", nargs="?", default="dist/cni", help="the plugins' folder")
    parser.add_argument("--containers", type=int, default=default.containers)
    parser.add_argument("--at-once", type=int, default=default.at_once)
    parser.add_argument("--seconds", type=float, default=default.seconds)
    parser.add_argument("--seed", type=int, default=default.seed)
    options = parser.parse_args()
    chosen = Plan("", options.containers, options.at_once, options.seconds, options.seed)
    print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: python -m prove.load {' '.join(sys.argv[1:])}\n")
    load = Load(os.path.abspath(options.suite), chosen)
    load.run()
    print("\n".join(load.table()))
    print(", ".join(f"{kind}: {load.tally.wrong[kind]}" for kind in KINDS))
    print(*load.tally.failures[:50], sep="\n")
    return 1 if load.tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
