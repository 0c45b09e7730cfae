"""The daemon where the apiserver is away at the wrong moment, and where other things fail that pass."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from flanneld import daemon, iface, subnetfile
from flanneld.backend.table import make
from flanneld.daemon import Daemon
from flanneld.iface import Choice
from flanneld.kube.client import Client
from flanneld.kube.manager import KubeManager
from flanneld.metrics import Metrics
from flanneld.options import Options
from flanneld.state import State
from flanneld.uplink import Uplink
from tests.apiserver import JSON, answer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from flanneld.lease import Lease

UPLINK = Uplink(
    1,
    "lo",
    1500,
    IPv4Address("192.0.2.1"),
    None,
    IPv4Address("192.0.2.1"),
    None,
    (IPv4Network("192.0.2.0/24"),),
)


def node(number: int) -> dict[str, Any]:
    annotations = {
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": f"192.0.2.{number}",
        "flannel.alpha.coreos.com/backend-type": "host-gw",
        "flannel.alpha.coreos.com/backend-data": "null",
    }
    metadata = {"name": f"n{number}", "uid": str(number), "resourceVersion": str(number)}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {"podCIDR": f"10.244.{number}.0/24"},
    }


class Apiserver:
    """Nodes, and whether conditions of them can be patched."""

    def __init__(self) -> None:
        self.nodes = [node(1)]
        self.patchable = False
        self.marked = 0

    def reply(self, head: str) -> bytes:
        line = head.partition("\r\n")[0]
        if line.startswith("PATCH"):
            if not self.patchable:
                return answer("", "503 Service Unavailable")
            self.marked += 1
            return answer(json.dumps(self.nodes[0]), "200 OK", JSON)
        if "watch=true" in line:
            changes = [{"type": "ADDED", "object": item} for item in self.nodes]
            return answer("".join(json.dumps(change) + "\n" for change in changes), "200 OK", JSON)
        listed = {"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": self.nodes}
        return answer(json.dumps(listed if "/nodes?" in line else self.nodes[0]), "200 OK", JSON)


class Kernel:
    """What is wanted of the kernel: no test here is root."""

    def __init__(self) -> None:
        self.state = State()

    async def want(self, state: State) -> bool:
        self.state = state
        return True

    async def run(self) -> None:
        await asyncio.Event().wait()


class Traffic:
    async def want(self, lease: Lease) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def running(
    apiserver: Apiserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Metrics, Kernel, Any]]:
    monkeypatch.setattr(iface, "choose", lambda *_: Choice(1))
    monkeypatch.setattr(iface, "look", lambda *_: UPLINK)
    monkeypatch.setattr(iface, "is_gone", lambda *_: False)
    monkeypatch.setenv("NODE_NAME", "n1")
    config = {"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}
    (tmp_path / "net-conf.json").write_text(json.dumps(config))
    async with serving(apiserver.reply) as port:
        options = Options(
            kube_subnet_mgr=True,
            kube_api_url=f"http://127.0.0.1:{port}",
            net_config_path=f"{tmp_path}/net-conf.json",
            subnet_file=f"{tmp_path}/flannel/subnet.env",
        )
        manager, metrics, kernel = KubeManager(Client(options), options), Metrics(), Kernel()
        task = asyncio.create_task(
            Daemon(options, manager, metrics, make, kernel, lambda _config: Traffic()).run()
        )
        try:
            yield metrics, kernel, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await manager.close()


async def until(ready: Any) -> None:
    async with asyncio.timeout(60):
        while not ready():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_changes_are_applied_while_the_apiserver_cannot_be_told_that_we_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        apiserver = Apiserver()
        async with running(apiserver, tmp_path, monkeypatch) as (metrics, kernel, task):
            await until(lambda: metrics.ready)
            assert (tmp_path / "flannel/subnet.env").exists()
            assert apiserver.marked < 1
            apiserver.nodes.append(node(2))
            await until(lambda: len(list(kernel.state)) == 1)
            apiserver.patchable = True
            await until(lambda: apiserver.marked == 1)
            assert not task.done()

    asyncio.run(scenario())


def test_an_uplink_that_the_kernel_does_not_tell_of_now_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(*_: Any) -> Uplink:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise OSError(12, "Cannot allocate memory")
        return UPLINK

    async def scenario() -> None:
        apiserver = Apiserver()
        apiserver.patchable = True
        async with running(apiserver, tmp_path, monkeypatch) as (metrics, _kernel, task):
            monkeypatch.setattr(iface, "look", look)
            await until(lambda: metrics.ready and looks > 4)
            assert not task.done()

    monkeypatch.setattr(daemon, "_UPLINK", 0.05)
    asyncio.run(scenario())


def test_readiness_follows_subnet_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody puts a folder in its place."""

    async def scenario() -> None:
        apiserver = Apiserver()
        apiserver.patchable = True
        file = tmp_path / "flannel/subnet.env"
        async with running(apiserver, tmp_path, monkeypatch) as (metrics, _kernel, _task):
            await until(lambda: metrics.ready)
            file.unlink()
            file.mkdir()
            await until(lambda: not metrics.ready)
            assert "subnetfile" in metrics.broken
            file.rmdir()
            await until(lambda: metrics.ready)
            assert file.read_text().startswith("FLANNEL_NETWORK")

    asyncio.run(scenario())


def test_readiness_comes_back_where_the_file_was_right_all_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of leases, just when no file can be opened: what subnet.env says is what it said."""
    write, broken, writes = subnetfile.write, False, 0

    def failing(path: str, content: bytes) -> bool:
        nonlocal writes
        if broken:
            raise OSError(24, "Too many open files")
        writes += 1
        return write(path, content)

    async def scenario() -> None:
        nonlocal broken
        apiserver = Apiserver()
        apiserver.patchable = True
        async with running(apiserver, tmp_path, monkeypatch) as (metrics, kernel, _task):
            await until(lambda: metrics.ready)
            await until(lambda: writes > 1)  # it was looked at
            broken = True
            apiserver.nodes.append(node(2))
            await until(lambda: len(list(kernel.state)) == 1 and not metrics.ready)
            broken = False
            await until(lambda: metrics.ready)

    monkeypatch.setattr(subnetfile, "write", failing)
    asyncio.run(scenario())


def test_a_subnet_outside_the_network_is_no_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node says itself what its podCIDR is when it registers: it must not take the host's routes away."""

    async def scenario() -> None:
        apiserver = Apiserver()
        apiserver.patchable = True
        for number, subnet in ((4, "0.0.0.0/0"), (5, "192.0.2.0/24"), (6, "10.244.0.0/15")):
            apiserver.nodes.append({**node(number), "spec": {"podCIDR": subnet}})
        async with running(apiserver, tmp_path, monkeypatch) as (metrics, kernel, _task):
            await until(lambda: metrics.ready)
            assert not list(kernel.state)
            apiserver.nodes += [node(2), {**node(7), "spec": {"podCIDR": "0.0.0.0/1"}}]
            await until(lambda: len(list(kernel.state)) == 1)
            apiserver.nodes[-2]["spec"] = {"podCIDR": "10.245.0.0/24"}
            await until(lambda: not list(kernel.state))

    asyncio.run(scenario())
    told = [record for record in caplog.records if "cannot be used" in record.message]
    assert len(told) == 5
