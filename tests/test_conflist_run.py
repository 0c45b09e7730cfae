from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni_plugins.spec.errors import (
    CNIError,
    IncompatibleVersionError,
    InvalidConfigError,
    InvalidEnvironmentError,
    UnknownContainerError,
)
from conflist.cache import Attachment, Cache
from conflist.invoke import PluginError
from conflist.load import NetworkList
from conflist.run import CollectedError, Runner
from tests.runs import PORTS, c1, network

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder import Recorder

PEER = "/usr/lib/cni"


def test_a_cache_that_cannot_be_written(plugins: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    """ADD does nothing that would not be remembered; DEL goes on."""
    runner = Runner([str(plugins.folder)], Cache("/proc/none"))
    with pytest.raises(OSError, match="/proc/none"):
        runner.add(network("one"), c1())
    assert plugins.order() == []
    runner.delete(network("one"), c1())
    assert plugins.order() == [("DEL", "one")]
    assert "plugins that still run are not waited for" in capfd.readouterr().err


def test_add_goes_through_the_list_with_the_result_before(runner: Runner, plugins: Recorder) -> None:
    result = runner.add(network("one", "two", "three"), c1())
    assert [interface["name"] for interface in result["interfaces"]] == ["one", "two", "three"]
    assert plugins.order() == [("ADD", "one"), ("ADD", "two"), ("ADD", "three")]
    first, second, third = plugins.calls()
    assert "prevResult" not in first["conf"]
    assert second["conf"]["prevResult"]["interfaces"] == [{"name": "one"}]
    assert third["conf"]["prevResult"]["interfaces"] == [{"name": "one"}, {"name": "two"}]


def test_environment_and_request(runner: Runner, plugins: Recorder) -> None:
    declared = {"portMappings": True, "mac": True, "ips": False}
    runner.add(network({"type": "one", "capabilities": declared, "key": {"deep": [1]}}, "two"), c1())
    first, second = plugins.calls()
    assert first["env"] == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_ARGS": "A=1;B=2",
        "CNI_PATH": str(plugins.folder),
        "TEST_KEPT": "1",
    }
    assert first["conf"] == {
        "type": "one",
        "key": {"deep": [1]},
        "cniVersion": "1.1.0",
        "name": "net",
        "runtimeConfig": {"portMappings": PORTS},
    }
    assert "runtimeConfig" not in second["conf"]


def test_the_result_is_cached_for_check_and_delete(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    net = network("one", "two")
    result = runner.add(net, c1())
    cached = cache.read("net", "c1", "eth0")
    assert cached is not None
    assert (cached.result, cached.config, cached.capabilities) == (result, net.data, {"portMappings": PORTS})
    plugins.forget()
    runner.check(net, c1())
    runner.delete(net, c1())
    assert plugins.order() == [("CHECK", "one"), ("CHECK", "two"), ("DEL", "two"), ("DEL", "one")]
    assert all(call["conf"]["prevResult"] == result for call in plugins.calls())
    assert cache.attachments() == []


def test_add_stops_at_an_error_and_caches_nothing(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    error = {"cniVersion": "1.1.0", "code": 107, "msg": "no", "details": "try"}
    with pytest.raises(PluginError) as caught:
        runner.add(network("one", {"type": "two", "do": {"ADD": {"error": error}}}, "three"), c1())
    assert (caught.value.code, caught.value.msg, caught.value.details) == (107, "no", "try")
    assert (caught.value.plugin, caught.value.position, caught.value.total) == ("two", 2, 3)
    assert str(caught.value) == "plugin two (2 of 3) failed on ADD: no"
    assert plugins.order() == [("ADD", "one"), ("ADD", "two")]
    assert cache.attachments() == []


def test_delete_stops_at_an_error_and_keeps_the_cache(
    runner: Runner, plugins: Recorder, cache: Cache
) -> None:
    net = network("one", {"type": "two", "do": {"DEL": {"error": {"code": 5, "msg": "no"}}}}, "three")
    runner.add(net, c1())
    plugins.forget()
    with pytest.raises(PluginError):
        runner.delete(net, c1())
    assert plugins.order() == [("DEL", "three"), ("DEL", "two")]
    assert len(cache.attachments()) == 1


def test_delete_without_cache_or_namespace(runner: Runner, plugins: Recorder) -> None:
    runner.delete(network("one"), Attachment("c1"))
    (call,) = plugins.calls()
    assert "prevResult" not in call["conf"]
    assert call["env"]["CNI_NETNS"] == ""


def test_old_lists_delete_without_the_result(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    net = network("one", version="0.3.1")
    runner.add(net, c1())
    plugins.forget()
    runner.delete(net, c1())
    assert "prevResult" not in plugins.calls()[0]["conf"]
    assert cache.attachments() == []


def test_a_damaged_cache_does_not_keep_delete(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    os.makedirs(cache.folder)
    with open(cache.path("net", "c1", "eth0"), "w", encoding="utf-8") as file:
        file.write("{")
    with pytest.raises(CNIError):
        runner.check(network("one"), c1())
    runner.delete(network("one"), c1())
    assert plugins.order() == [("DEL", "one")]
    assert os.listdir(cache.folder) == []


def test_a_cached_result_comes_in_the_lists_version(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    attachment = c1()
    attachment.network = "net"
    attachment.result = {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/16"}}
    cache.write(attachment)
    runner.check(network("one", version="0.4.0"), c1())
    assert plugins.calls()[0]["conf"]["prevResult"] == {
        "cniVersion": "0.4.0",
        "ips": [{"version": "4", "address": "10.1.0.2/16"}],
    }


def test_check_needs_version_result_and_leave(runner: Runner, plugins: Recorder) -> None:
    with pytest.raises(IncompatibleVersionError, match=r"0\.3\.1; CHECK came with 0\.4\.0"):
        runner.check(network("one", version="0.3.1"), c1())
    with pytest.raises(UnknownContainerError):
        runner.check(network("one"), c1())
    silent = network("one")
    silent.disable_check = True
    runner.check(silent, c1())
    assert plugins.calls() == []


def test_gc_deletes_what_is_not_valid_and_tells_the_plugins(
    runner: Runner, plugins: Recorder, cache: Cache
) -> None:
    net = network("one", "two")
    for container in ("c1", "c2", "c3"):
        runner.add(net, Attachment(container, "eth0", f"/run/netns/{container}", [("K", "V")]))
    runner.add(NetworkList("other", "1.1.0", [{"type": "one"}]), Attachment("c1"))
    plugins.forget()
    runner.gc(net, [("c2", "eth0")])
    calls = plugins.calls()
    assert [(call["verb"], call["name"], call["env"].get("CNI_CONTAINERID")) for call in calls] == [
        ("DEL", "two", "c1"),
        ("DEL", "one", "c1"),
        ("DEL", "two", "c3"),
        ("DEL", "one", "c3"),
        ("GC", "one", None),
        ("GC", "two", None),
    ]
    assert calls[0]["env"]["CNI_NETNS"] == "/run/netns/c1"
    assert calls[0]["env"]["CNI_ARGS"] == "K=V"
    assert calls[-1]["conf"]["cni.dev/valid-attachments"] == [{"containerID": "c2", "ifname": "eth0"}]
    assert "CNI_IFNAME" not in calls[-1]["env"]
    assert {(found.network, found.container_id) for found in cache.attachments()} == {
        ("net", "c2"),
        ("other", "c1"),
    }


def test_gc_goes_on_through_errors(runner: Runner, plugins: Recorder) -> None:
    net = network(
        {"type": "one", "do": {"GC": {"error": {"code": 7, "msg": "left"}}, "DEL": {"status": 3}}}, "two"
    )
    runner.add(net, c1())
    with pytest.raises(CollectedError) as caught:
        runner.gc(net, [])
    assert [str(error) for error in caught.value.errors] == [
        "plugin one (1 of 2) failed on DEL: it exited with 3 and gave no error object",
        "plugin one (1 of 2) failed on GC: left",
    ]
    assert plugins.order()[-2:] == [("GC", "one"), ("GC", "two")]


def test_gc_of_older_lists_only_deletes(runner: Runner, plugins: Recorder) -> None:
    net = network("one", version="1.0.0")
    runner.add(net, c1())
    runner.gc(net, [])
    assert plugins.order() == [("ADD", "one"), ("DEL", "one")]


def test_disable_gc(runner: Runner, plugins: Recorder, cache: Cache) -> None:
    net = network("one")
    net.disable_gc = True
    runner.add(net, c1())
    runner.gc(net, [])
    assert plugins.order() == [("ADD", "one")]
    assert len(cache.attachments()) == 1


def test_status_stops_at_the_first_that_is_not_ready(runner: Runner, plugins: Recorder) -> None:
    net = network("one", {"type": "two", "do": {"STATUS": {"error": {"code": 50, "msg": "soon"}}}}, "three")
    with pytest.raises(PluginError) as caught:
        runner.status(net)
    assert caught.value.code == 50
    assert plugins.order() == [("STATUS", "one"), ("STATUS", "two")]
    runner.status(network("two", version="1.0.0"))
    assert len(plugins.calls()) == 2


def test_names_are_checked_before_anything_runs(runner: Runner, plugins: Recorder) -> None:
    with pytest.raises(InvalidEnvironmentError):
        runner.add(network("one"), Attachment("../c1"))
    with pytest.raises(InvalidEnvironmentError):
        runner.delete(network("one"), Attachment("c1", "a/b"))
    with pytest.raises(InvalidConfigError):
        runner.add(NetworkList("a b", "1.0.0", [{"type": "one"}]), c1())
    with pytest.raises(InvalidConfigError, match="has no plugins"):
        runner.add(network(), c1())
    with pytest.raises(IncompatibleVersionError):
        runner.delete(network("one", version="new"), c1())
    assert plugins.calls() == []


def test_without_a_cache(plugins: Recorder) -> None:
    runner = Runner([str(plugins.folder)])
    runner.add(network("one"), c1())
    runner.delete(network("one"), c1())
    runner.gc(network("one"), [])
    assert plugins.order() == [("ADD", "one"), ("DEL", "one"), ("GC", "one")]
    with pytest.raises(UnknownContainerError):
        runner.check(network("one"), c1())


def test_our_own_plugins(tmp_path: Path, suite_bin: str) -> None:
    _add_check_delete(Runner([suite_bin], Cache(str(tmp_path / "cache"))), tmp_path)


@pytest.mark.peer
def test_go_plugins(tmp_path: Path) -> None:
    _add_check_delete(Runner([PEER], Cache(str(tmp_path / "cache"))), tmp_path)


def _add_check_delete(runner: Runner, tmp_path: Path) -> None:
    """An IPAM plugin by itself is a list that needs no kernel."""
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "data"), "ranges": [[{"subnet": "10.9.0.0/24"}]]}
    net = network({"type": "host-local", "ipam": ipam}, version="1.0.0")
    attachment = Attachment("c1", "eth0", "/any/where")
    result = runner.add(net, attachment)
    assert result["ips"] == [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]
    runner.add(net, Attachment("c2", "eth0", "/any/where"))
    with pytest.raises(PluginError, match="duplicate allocation"):
        runner.add(net, attachment)
    runner.check(net, attachment)
    (tmp_path / "data" / "net" / "10.9.0.2").unlink()
    with pytest.raises(PluginError, match=r"plugin host-local \(1 of 1\) failed on CHECK"):
        runner.check(net, attachment)
    runner.delete(net, attachment)
    runner.delete(net, Attachment("c2"))
    assert not list((tmp_path / "data" / "net").glob("10.*"))
    assert "1.0.0" in runner.plugins.versions("host-local")
