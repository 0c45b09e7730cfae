"""A runtime that adds, deletes and collects at once, by `conflist`: nothing is lost to a GC."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from conflist.cache import Attachment, Cache
from conflist.load import NetworkList
from conflist.run import Runner
from integration.checks import address_of, bridge, ipam, ptp
from integration.node import PEER
from prove.networks import NAME, networks
from prove.runtime import KEEPER
from prove.stage import Stage

PODS = 4
TURNS = 2
COLLECTIONS = 3
"""How many turns and GCs there are at least."""


class Runtime:
    """A runtime of several threads: each attaches and detaches containers of its own, one collects."""

    def __init__(self, stage: Stage, network: NetworkList) -> None:
        self._stage, self._network = stage, network
        self._runner = Runner([stage.suite], Cache("/run/cache"), env={"PATH": os.environ["PATH"]})
        self._valid: set[tuple[str, str]] = set()
        self._at_work = PODS
        self.collections = 0
        self.addresses: set[str] = set()

    def churn(self, number: int) -> None:
        """Attach and detach, and look between."""
        mapping = {"hostPort": 9000 + number, "containerPort": 80, "protocol": "tcp"}
        name = f"pod{number}"
        with self._stage.node.entered():
            turn = 0
            while turn < TURNS or self.collections < COLLECTIONS:
                turn += 1
                pod = Attachment(name, "eth0", f"/run/netns/{name}", capabilities={"portMappings": [mapping]})
                self._valid.add((name, "eth0"))
                self.addresses.add(address := address_of(self._runner.add(self._network, pod)))
                time.sleep(0.1)
                with open(f"/var/lib/cni/networks/{NAME}/{address}", "rb") as file:
                    assert file.read() == f"{name}\r\neth0".encode()
                assert address in self._stage.node.ruleset()
                self._runner.check(self._network, pod)
                self._runner.delete(self._network, pod)
                self._valid.discard((name, "eth0"))
        self._at_work -= 1

    def collect(self) -> None:
        """Collect all the time; what is valid is asked for when no ADD runs."""
        with self._stage.node.entered():
            while self._at_work:
                self._runner.gc(self._network, (each for each in [*self._valid, (KEEPER, "eth0")]))
                self.collections += 1
                time.sleep(0.05)


def test_a_runtime_that_adds_and_collects_at_once(suite_bin: str) -> None:
    """Another network's attachments, and the reference's, are there all the time, too."""
    (network,) = networks("flannel")
    with Stage(suite_bin, network, keeper=True) as stage:
        other = bridge(name="other", bridge="br1", ipam=ipam("10.78.0.0/24"), ipMasq=True)
        stage.node.netns("other")
        stage.node.add("bridge", other, container="other", netns="other")
        if os.path.exists(f"{PEER}/ptp"):
            theirs = ptp(name="theirs", cniVersion="1.0.0", ipam=ipam("10.79.0.0/24"), ipMasq=True)
            stage.node.netns("theirs")
            stage.node.add("ptp", theirs, container="theirs", netns="theirs", plugins=PEER)
        for number in range(PODS):
            stage.node.netns(f"pod{number}")
        plugins = [{**each, "capabilities": {"portMappings": True}} for each in network.plugins]
        runtime = Runtime(stage, NetworkList(NAME, "1.1.0", plugins))
        os.mkdir("/run/cache")
        stage.wait_for_addresses()
        stage.baseline = stage.look()
        with ThreadPoolExecutor(PODS + 1) as pool:
            collecting = pool.submit(runtime.collect)
            list(pool.map(runtime.churn, range(PODS)))
            collecting.result()
        shutil.rmtree("/run/cache")
        os.mkdir("/run/cache")
        assert not runtime.addresses & stage.addresses
        assert stage.rests() == []
