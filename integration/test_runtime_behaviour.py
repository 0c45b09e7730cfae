"""What runtimes do to plugins: DEL twice and for nothing, calls that cross, time-outs; then nothing is left.

The node is compared as a whole: links, addresses, routes, rules, qdiscs, parameters, files.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import address_of, reservations
from prove import snapshot
from prove.networks import NAME, Network, networks
from prove.runtime import VICTIM, Failed, previous
from prove.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS = ("flannel, portmap", "bridge, firewall, bandwidth, tuning", "ptp with ipMasq")


@pytest.fixture(scope="module", params=LISTS)
def stage(request: pytest.FixtureRequest, suite_bin: str) -> Iterator[Stage]:
    """A node with another container attached all the time, which must not notice anything."""
    (network,) = networks(request.param)
    with Stage(suite_bin, network, keeper=True) as made:
        yield made
        assert made.cycle() == []


@pytest.fixture
def network(stage: Stage) -> Network:
    return stage.network


def test_delete_again_and_again(stage: Stage) -> None:
    """containerd calls DEL twice for each pod, the second time with an empty CNI_NETNS."""
    result = stage.attach()
    stage.detach(result)
    stage.detach(result)
    stage.detach(result, netns=False)
    stage.detach()
    stage.detach(netns=False, ports=False)
    assert stage.rests() == []


@pytest.mark.parametrize("known", [True, False], ids=["with prevResult", "without"])
@pytest.mark.parametrize("told", [True, False], ids=["a path that is gone", "no path"])
def test_delete_after_the_namespace(stage: Stage, known: bool, told: bool) -> None:
    result = stage.attach()
    stage.lose_netns()
    stage.detach(result if known else None, netns=told)
    stage.make_netns()
    assert stage.rests() == []


def test_delete_when_the_path_is_another_containers_by_now(stage: Stage) -> None:
    """As /proc/PID/ns/net may be: the other container keeps its interface and its address."""
    result = stage.attach()
    stage.lose_netns()
    stage.make_netns()
    other = stage.attach(container="other", netns=VICTIM)
    undisturbed = snapshot.take(VICTIM)
    stage.detach(result)
    assert snapshot.changes(undisturbed, snapshot.take(VICTIM)) == []
    assert address_of(other) in reservations(stage.node, NAME)
    assert stage.call("CHECK", 0, container="other", netns=VICTIM, **previous(other)).answer is None
    stage.detach(other, container="other", netns=VICTIM)
    assert stage.rests() == []


def test_delete_of_what_was_never_added(stage: Stage) -> None:
    stage.detach(container="never")
    stage.detach(container="never", netns=False)
    assert stage.rests() == []


def test_add_again_after_one_that_failed(stage: Stage, network: Network) -> None:
    """The last plugin is given an impossible task; the runtime's DEL, then an ADD that works."""
    last = len(network.plugins) - 1
    result = stage.attach(upto=last)
    outcome = stage.call("ADD", last, netns=False, **previous(result))
    assert (outcome.status, "code" in outcome.answer) == (1, True)
    stage.detach()
    assert stage.rests() == []
    assert stage.cycle() == []


def test_an_add_beside_the_same_containers_delete(stage: Stage) -> None:
    """A runtime that gave an ADD up may call DEL while it still runs; a last DEL finds all of it."""
    with ThreadPoolExecutor(2) as both:
        for turn in range(8):
            adding = both.submit(_try_attach, stage)
            time.sleep(turn * 0.01)
            deleting = both.submit(stage.detach)
            adding.result()
            deleting.result()
            stage.detach()
            assert stage.rests() == [], turn
    assert stage.cycle() == []


def test_killed_by_a_runtime_that_waited_too_long(stage: Stage, network: Network) -> None:
    """kubelet's time-out: SIGKILL to the plugin, at any moment, and DEL."""
    chosen = random.Random(4)
    for turn in range(8):
        position = chosen.randrange(len(network.plugins))
        result = stage.attach(upto=position)
        delay = chosen.uniform(0.002, 0.03)
        before = ["/usr/bin/timeout", "--foreground", "-s", "KILL", f"{delay:.3f}"]
        outcome = stage.call("ADD", position, before=before, **previous(result))
        assert outcome.status in {0, 124, 128 + signal.SIGKILL, -signal.SIGKILL}
        stage.detach()
        assert stage.rests() == [], (turn, position, delay)


def test_loopback_at_the_same_time(stage: Stage) -> None:
    """containerd attaches `lo` and `eth0` of a pod at once, and detaches them so."""
    env = {"CNI_CONTAINERID": VICTIM, "CNI_IFNAME": "lo", "CNI_NETNS": f"/run/netns/{VICTIM}"}
    env["CNI_PATH"] = stage.suite
    config = b'{"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"}'

    def loopback(verb: str) -> None:
        command = [f"{stage.suite}/loopback"]
        done = subprocess.run(
            command, env={**env, "CNI_COMMAND": verb}, input=config, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout

    with ThreadPoolExecutor(2) as both:
        for _turn in range(3):
            up = both.submit(loopback, "ADD")
            result: Any = stage.attach()
            up.result()
            down = both.submit(loopback, "DEL")
            stage.detach(result)
            down.result()
    subprocess.run(["ip", "-n", VICTIM, "link", "set", "lo", "up"], check=True)
    assert stage.rests() == []


def _try_attach(stage: Stage) -> None:
    try:
        stage.attach()
    except Failed as error:  # the DEL took something away that the next plugin looked for
        if '"code"' not in str(error):
            raise
