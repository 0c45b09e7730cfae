"""Leases in a real apiserver: podCIDRs from the real controller-manager, the rights of flannel's role."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.kube import client as client_module
from flanneld.kube.client import Client, node_name
from flanneld.kube.manager import KubeManager
from flanneld.lease import Added, Lease, LeaseAttrs, Removed, Snapshot, encode_data
from flanneld.manager import LeaseLostError, ManagerError
from flanneld.netconf import NetworkConfig
from flanneld.options import Options
from flanneld.pauses import Pauses
from integration.kube.cluster import DAEMON, NETWORK, Cluster
from integration.kube.flags import FOLDER
from integration.waiting import PATIENCE
from integration.watched import watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

CONFIG = NetworkConfig.parse(json.dumps({"Network": NETWORK, "Backend": {"Type": "vxlan"}}))


def attrs(number: int) -> LeaseAttrs:
    data = encode_data({"VNI": 1, "VtepMAC": f"aa:bb:cc:00:00:{number:02x}"})
    return LeaseAttrs(IPv4Address(f"192.0.2.{number}"), None, "vxlan", data)


@pytest.fixture(autouse=True)
def nodes(cluster: Cluster) -> Iterator[None]:
    """Two nodes of our own."""
    for name in ("n1", "n2"):
        cluster.add_node(name)
    yield
    for name in ("n1", "n2", "n3"):
        cluster.remove_node(name)


def run(cluster: Cluster, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it where the apiserver is on loopback."""
    with cluster.node.entered():
        asyncio.run(scenario())


@contextmanager
def named(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in ("NODE_NAME", "POD_NAME", "POD_NAMESPACE"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@asynccontextmanager
async def manager(name: str) -> AsyncIterator[KubeManager]:
    options = Options(kubeconfig_file=f"{FOLDER}/daemon.conf", kube_subnet_mgr=True)
    made = KubeManager(Client(options), options)
    made._name = name
    try:
        yield made
    finally:
        await made.close()


async def publish(name: str, number: int) -> Lease:
    async with manager(name) as made:
        return await made.acquire(CONFIG, attrs(number), (None, None))


def test_the_annotations_are_the_references_key_by_key(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with manager("n1") as made:
            assert await made.published(None) is None  # type: ignore[arg-type]
            lease = await made.acquire(CONFIG, attrs(1), (None, None))
            assert str(lease) == cluster.get_node("n1")["spec"]["podCIDR"]
            assert await made.published(None) == attrs(1)  # type: ignore[arg-type]
            await made.mark_ready()

    run(cluster, scenario)
    assert cluster.annotations("n1") == {
        "backend-type": "vxlan",
        "backend-data": '{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:01"}',
        "public-ip": "192.0.2.1",
        "kube-subnet-manager": "true",
    }
    conditions = {item["type"]: item for item in cluster.get_node("n1")["status"]["conditions"]}
    ready = conditions["NetworkUnavailable"]
    assert (ready["status"], ready["reason"]) == ("False", "FlannelIsUp")


def unavailable(cluster: Cluster, name: str) -> str:
    conditions = {item["type"]: item for item in cluster.get_node(name)["status"].get("conditions", [])}
    return str(conditions.get("NetworkUnavailable", {}).get("status"))


def test_an_administrators_address_is_published(cluster: Cluster) -> None:
    for noted in ("public-ip-overwrite=203.0.113.9", "node-public-ip=192.0.2.77"):
        cluster.kubectl("annotate", "node", "n1", f"flannel.alpha.coreos.com/{noted}")

    async def scenario() -> None:
        async with manager("n1") as made:
            assert await made.public_override() == ("192.0.2.77", "")
            lease = await made.acquire(CONFIG, attrs(1), (None, None))
            assert str(lease.attrs.public_ip) == "203.0.113.9"

    run(cluster, scenario)
    assert cluster.annotations("n1")["public-ip"] == "203.0.113.9"


def test_our_node_is_known_by_name_or_by_pod(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kube-flannel-ds-x", "namespace": "default"},
        "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]},
    }
    cluster.apply(pod)

    async def scenario() -> None:
        made = Client(Options(kubeconfig_file=f"{FOLDER}/daemon.conf"))
        with named(monkeypatch, NODE_NAME="n1"):
            assert await node_name(made) == "n1"
        with named(monkeypatch, POD_NAME="kube-flannel-ds-x", POD_NAMESPACE="default"):
            assert await node_name(made) == "n2"
        with named(monkeypatch), pytest.raises(ManagerError, match="set NODE_NAME"):
            await node_name(made)
        await made.close()

    run(cluster, scenario)
    cluster.kubectl("delete", "pod", "kube-flannel-ds-x", "--force", "--grace-period=0")


def test_a_subnet_outside_the_network_and_none_at_all(cluster: Cluster) -> None:
    other = NetworkConfig.parse('{"Network": "10.5.0.0/16"}')
    dual = NetworkConfig.parse(
        json.dumps({"Network": NETWORK, "EnableIPv6": True, "IPv6Network": "fd00::/48"})
    )

    async def scenario() -> None:
        async with manager("n1") as made:
            with pytest.raises(ManagerError, match=r"outside the network 10\.5\.0\.0/16"):
                await made.acquire(other, attrs(1), (None, None))
            made._families = (4, 6)
            with pytest.raises(ManagerError, match="no IPv6 podCIDR"):
                await made.acquire(dual, attrs(1), (None, None))
        async with manager("nobody") as made:
            with pytest.raises(ManagerError, match='nodes "nobody" not found'):
                await made.published(None)  # type: ignore[arg-type]

    run(cluster, scenario)


def test_the_watch_tells_of_leases_and_not_of_heartbeats(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with manager("n1") as made, watching(made) as watched:
            await watched.until(lambda: bool(watched.events))
            assert watched.events == [Snapshot(())]
            await publish("n2", 2)
            await watched.until(lambda: len(watched.leases) == 1)
            cluster.kubectl("label", "node", "n2", "beat=1")
            await publish("n2", 3)
            await watched.until(lambda: len(watched.events) == 3)
            assert [type(event) for event in watched.events] == [Snapshot, Added, Added]
            cluster.kubectl("annotate", "node", "n2", "flannel.alpha.coreos.com/kube-subnet-manager-")
            await watched.until(lambda: len(watched.events) == 4)
            assert watched.events[3] == Removed(origin="n2")
            await publish("n2", 2)
            await watched.until(lambda: len(watched.leases) == 1)
            cluster.remove_node("n2")
            await watched.until(lambda: len(watched.leases) == 0)

    run(cluster, scenario)


def test_bookmarks_keep_the_watch_young(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_SERVED", 20)  # a bookmark comes two seconds before the end
    kinds = []

    async def scenario() -> None:
        made = Client(Options(kubeconfig_file=f"{FOLDER}/daemon.conf"))
        _nodes, version = await made.nodes()
        # A bookmark comes only after something that is newer than the watch.
        asyncio.get_running_loop().call_later(1, cluster.kubectl, "label", "node", "n1", "beat=1")
        async with asyncio.timeout(PATIENCE):
            async for kind, _node in made.changes(version):
                kinds.append(kind)
                if kind == "BOOKMARK":
                    break
        await made.close()

    run(cluster, scenario)
    assert kinds[-1] == "BOOKMARK"


def test_the_watch_survives_the_apiserver(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with manager("n1") as made, watching(made) as watched:
            await publish("n2", 2)
            await watched.until(lambda: len(watched.leases) == 1)
            cluster.stop_apiserver()
            await watched.until(lambda: watched.metrics.errors.get("manager", 0) > 1)
            assert len(watched.leases) == 1
            cluster.start_apiserver()
            await publish("n1", 1)
            await watched.until(lambda: len(watched.leases) == 2)

    run(cluster, scenario)


def test_a_version_that_is_too_old_means_a_new_list(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.stop_apiserver()  # the one that saw the cluster's first version knows all since
    cluster.start_apiserver()
    whole = Client.nodes
    asked: list[str] = []

    async def nodes(self: Client) -> Any:
        found, version = await whole(self)
        asked.append(version)
        return found, "1" if len(asked) == 1 else version

    monkeypatch.setattr(Client, "nodes", nodes)

    async def scenario() -> None:
        async with manager("n1") as made, watching(made) as watched:
            await watched.until(lambda: len(asked) > 1)
            await publish("n2", 2)
            await watched.until(lambda: len(watched.leases) == 1)

    run(cluster, scenario)


def test_a_node_that_registers_anew_is_published_again(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with manager("n1") as made, watching(made) as watched:
            lease = await made.acquire(CONFIG, attrs(1), (None, None))
            keeping = asyncio.create_task(made.keep(lease))
            await watched.until(lambda: len(watched.leases) == 1)
            await made.mark_ready()
            cluster.remove_node("n1")
            await watched.until(lambda: len(watched.leases) == 0)
            cluster.add_node("n1", [str(lease)])
            await watched.until(lambda: len(watched.leases) == 1)
            assert cluster.annotations("n1")["public-ip"] == "192.0.2.1"
            await watched.until(lambda: unavailable(cluster, "n1") == "False")
            cluster.remove_node("n1")
            cluster.add_node("n1", ["10.244.250.0/24"])
            with pytest.raises(LeaseLostError, match=r"10\.244\.250\.0/24"):
                async with asyncio.timeout(PATIENCE):
                    await keeping

    run(cluster, scenario)


def test_a_stranger_is_refused_with_the_apiservers_words(cluster: Cluster) -> None:
    async def scenario() -> None:
        made = Client(Options(kubeconfig_file=f"{FOLDER}/stranger.conf"))
        with pytest.raises(ManagerError, match="refuses: Unauthorized"):
            await made.node("n1")
        await made.close()

    with open(cluster.node.path(f"{FOLDER}/stranger.conf"), "w", encoding="ascii") as file:
        file.write(cluster.kubeconfig("nobody"))
    run(cluster, scenario)


def test_a_node_that_has_no_podcidr_yet_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller-manager is slower than the kubelet: for a moment, the node has none.

    When it gets one, its lease is published at once: the pause before another attempt is an hour here.
    """
    attempts: list[None] = []

    def pause(_pauses: Pauses) -> float:
        attempts.append(None)
        return 3600.0

    async def scenario() -> None:
        async with manager("n1") as made, watching(made) as watched:
            lease = await made.acquire(CONFIG, attrs(1), (None, None))
            keeping = asyncio.create_task(made.keep(lease))
            await watched.until(lambda: len(watched.leases) == 1)
            await made.mark_ready()
            cluster.remove_node("n1")
            await watched.until(lambda: len(watched.leases) == 0)
            cluster.stop("kube-controller-manager")
            monkeypatch.setattr(Pauses, "next", pause)
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(node).encode())
            await watched.until(lambda: bool(attempts))
            assert not keeping.done()
            assert not cluster.annotations("n1")
            spec = {"spec": {"podCIDR": str(lease), "podCIDRs": [str(lease)]}}
            cluster.kubectl("patch", "node", "n1", "--patch", json.dumps(spec))
            await watched.until(lambda: len(watched.leases) == 1)
            assert not keeping.done()
            await watched.until(lambda: unavailable(cluster, "n1") == "False")
            keeping.cancel()

    try:
        run(cluster, scenario)
    finally:
        cluster.start_controllers()


def test_a_token_that_is_valid_no_more_is_read_again(cluster: Cluster) -> None:
    """As a service account's, an hour after it was made: here the apiserver forgets it all at once."""

    def change(before: str, after: str) -> None:
        cluster.stop_apiserver()
        for name in ("tokens.csv", "token"):
            path = cluster.node.path(f"{FOLDER}/{name}")
            with open(path, encoding="ascii") as file:
                content = file.read()
            with open(path, "w", encoding="ascii") as file:
                file.write(content.replace(before, after))
        cluster.start_apiserver()

    config = json.loads(cluster.kubeconfig())
    config["users"][0]["user"] = {"tokenFile": f"{FOLDER}/token"}
    for name, text in (("rotating.conf", json.dumps(config)), ("token", DAEMON)):
        with open(cluster.node.path(f"{FOLDER}/{name}"), "w", encoding="ascii") as file:
            file.write(text)

    async def scenario() -> None:
        options = Options(kubeconfig_file=f"{FOLDER}/rotating.conf", kube_subnet_mgr=True)
        made = KubeManager(Client(options), options)
        made._name = "n1"
        async with watching(made) as watched:
            lease = await made.acquire(CONFIG, attrs(1), (None, None))
            keeping = asyncio.create_task(made.keep(lease))
            await watched.until(lambda: len(watched.leases) == 1)
            await asyncio.to_thread(change, DAEMON, "another-token")
            with pytest.raises(ManagerError, match="Unauthorized"):
                await publish("n2", 2)  # by the old token
            cluster.kubectl("annotate", "node", "n1", "flannel.alpha.coreos.com/public-ip-")
            await watched.until(lambda: cluster.annotations("n1").get("public-ip") == "192.0.2.1")
            assert len(watched.leases) == 1
            assert not keeping.done()
            keeping.cancel()
        await made.close()

    try:
        run(cluster, scenario)
    finally:
        change("another-token", DAEMON)
