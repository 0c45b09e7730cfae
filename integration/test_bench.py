from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.process import Call, PluginFailedError, peak_of, run_all
from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from bench.process import Job

ROWS = ("masq-portmap", "version")
BURN = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


def bench(folder: str, *arguments: str) -> tuple[int, str]:
    """Race a folder of plugins against the Go plugins; return the exit status and standard output."""
    command = [sys.executable, "-m", "bench", *arguments]
    env = {**os.environ, "BIN": folder, "PEER_BIN": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def once(*command: str, stdin: bytes = b"", heard: list[bytes] | None = None) -> Job:
    output = yield Call(command[0], {}, stdin, command[1:])
    if heard is not None:
        heard.append(output)


@pytest.mark.peer
def test_each_verb_is_a_line_and_nothing_is_left(suite_bin: str) -> None:
    status, printed = bench(suite_bin, *ROWS, "--containers", "2", "--json")
    assert status == 0
    answer = json.loads(printed)
    assert answer["left"] == []
    verbs = [(line["row"], line["verb"]) for line in answer["lines"]]
    assert verbs == [("masq-portmap", "ADD"), ("masq-portmap", "DEL"), ("version", "VERSION")]
    for line in answer["lines"]:
        for side in ("ours", "peer"):
            assert 0 < line[side]["cpu"] < 10 * line[side]["wall"]
            assert 1 < line[side]["peak"] < 200
        assert line["ratio"] == pytest.approx(line["ours"]["wall"] / line["peer"]["wall"])


@pytest.mark.peer
def test_every_plugin_that_both_have_races(suite_bin: str) -> None:
    rows = ("ptp", "static", "macvlan", "dhcp", "host-device", "tuning", "bandwidth", "sbr", "tap")
    status, printed = bench(suite_bin, *rows, "--containers", "2", "--json")
    assert status == 0
    answer = json.loads(printed)
    assert answer["left"] == []
    # Debian's Go plugins have no tap.
    assert {line["row"] for line in answer["lines"]} == set(rows[:-1])


@pytest.mark.peer
def test_a_plugin_that_fails_fails_the_run(suite_bin: str, tmp_path: Path) -> None:
    for name in os.listdir(suite_bin):
        os.symlink(f"{suite_bin}/{name}", tmp_path / name)
    os.unlink(tmp_path / "loopback")
    os.symlink("/bin/false", tmp_path / "loopback")
    status, printed = bench(str(tmp_path), "loopback", "--containers", "2")
    assert status == 1
    assert "Nothing was left behind." in printed


def test_calls_get_their_input_and_are_measured() -> None:
    heard: list[bytes] = []
    costs = run_all([once("/bin/cat", stdin=text, heard=heard) for text in (b"one", b"two", b"three")], 2)
    assert sorted(heard) == [b"one", b"three", b"two"]
    assert len(costs) == 3
    [cost] = run_all([once("/bin/sh", "-c", BURN)])
    assert 5 < cost.cpu <= cost.wall * 1.2


def test_what_only_prepares_is_not_timed() -> None:
    def job(*, timed: bool) -> Job:
        yield Call("/bin/sh", {}, b"", ("-c", BURN), timed=timed)
        yield Call("/bin/true", {}, b"")

    whole, part = run_all([job(timed=timed) for timed in (True, False)])
    assert 0 < part.cpu < whole.cpu / 2


def test_several_run_at_the_same_time(tmp_path: Path) -> None:
    """None ends before all are there."""
    meet = f"cd '{tmp_path}'; touch $0; until [ $(ls | wc -l) = 4 ]; do sleep 0.01; done"
    assert len(run_all([once("/bin/sh", "-c", meet, str(number)) for number in range(4)], 4)) == 4


def test_a_failed_call_is_an_error_with_its_output() -> None:
    with pytest.raises(PluginFailedError, match="exit status 3: said so"):
        run_all([once("/bin/sleep", "0.1"), once("/bin/sh", "-c", "printf 'said so'; exit 3")], 2)
    with pytest.raises(PluginFailedError, match="exit status -9"):
        run_all([once("/bin/sh", "-c", "kill -9 $$")])


def test_peak_memory_is_the_programs_own() -> None:
    heard: list[bytes] = []
    assert 0.3 < peak_of(once("/bin/cat", stdin=b"text", heard=heard)) < 3
    assert heard == [b"text"]
    big = peak_of(once(sys.executable, "-IS", "-c", "b'x' * (100 << 20)"))
    assert 100 < big < 130


def test_a_cluster_is_measured(suite_bin: str) -> None:
    few = [
        "--sizes",
        "30",
        "--joins",
        "1",
        "--idle",
        "0.2",
        "--rounds",
        "1",
        "--megabytes",
        "8",
        "--backends",
        "vxlan",
    ]
    command = [sys.executable, "-m", "bench.cluster", "--bin", suite_bin, *few]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    ]
    size = next(row for row in rows if row[0] == "30")
    assert all(float(cell) > 0 for cell in size[1:6])
    paths = {(row[0], row[1]): row[2:] for row in rows if len(row) == 6}
    for what in ("1 stream, Gbit/s", "4 streams, Gbit/s", "ping, µs"):
        ours, by_hand, ratio = (float(cell) for cell in paths["vxlan", what][:3])
        assert ours > 0
        # All three are rounded, which changes the quotient of small figures, as on a busy machine, the most.
        half = 0.005
        least, most = (ours - half) / (by_hand + half), (ours + half) / max(by_hand - half, 1e-9)
        assert least - half <= ratio <= most + half
