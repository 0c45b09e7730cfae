from __future__ import annotations

import base64
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import CNIError, DecodeError, InvalidConfigError, InvalidEnvironmentError
from conflist.cache import Attachment, Cache

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = b'{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}\n'
LIBCNI = {
    "kind": "cniCacheV1",
    "containerId": "c1",
    "config": base64.b64encode(CONFIG).decode(),
    "ifName": "eth0",
    "networkName": "net",
    "netns": "/run/netns/c1",
    "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "web-0"]],
    "capabilityArgs": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    "result": {
        "cniVersion": "1.0.0",
        "dns": {},
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 0}],
    },
}
"""As libcni writes it for a bridge network, in its order of keys."""


def put(cache: Cache, name: str, value: Any) -> str:
    os.makedirs(cache.folder, exist_ok=True)
    path = os.path.join(cache.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cni"))


def test_reads_what_libcni_writes(cache: Cache) -> None:
    put(cache, "net-c1-eth0", LIBCNI)
    found = cache.read("net", "c1", "eth0")
    assert found is not None
    assert (found.container_id, found.ifname, found.netns, found.network) == (
        "c1",
        "eth0",
        "/run/netns/c1",
        "net",
    )
    assert found.args == [("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web-0")]
    assert found.capabilities == LIBCNI["capabilityArgs"]
    assert found.config == CONFIG
    assert found.result == LIBCNI["result"]


def test_writes_what_libcni_writes(cache: Cache) -> None:
    put(cache, "net-c1-eth0", LIBCNI)
    found = cache.read("net", "c1", "eth0")
    assert found is not None
    cache.remove("net", "c1", "eth0")
    cache.write(found)
    path = os.path.join(cache.folder, "net-c1-eth0")
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    assert list(written) == list(LIBCNI)
    for key, value in LIBCNI.items():
        assert written[key] == value, key
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(cache.folder) == ["net-c1-eth0"]


def test_what_is_empty_is_left_out_and_folders_are_private(cache: Cache) -> None:
    attachment = Attachment("c1", "eth0")
    attachment.network, attachment.config = "net", b"{}"
    cache.write(attachment)
    with open(os.path.join(cache.folder, "net-c1-eth0"), encoding="utf-8") as file:
        assert list(json.load(file)) == ["kind", "containerId", "config", "ifName", "networkName"]
    for folder in (cache.folder, os.path.dirname(cache.folder)):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_older_files_hold_the_bare_result(cache: Cache) -> None:
    put(cache, "net-c1-eth0", LIBCNI["result"])
    found = cache.read("net", "c1", "eth0")
    assert found is not None
    assert (found.result, found.network, found.config) == (LIBCNI["result"], "net", b"")
    assert cache.attachments() == []


def test_nothing_there(cache: Cache) -> None:
    assert cache.read("net", "c1", "eth0") is None
    cache.remove("net", "c1", "eth0")
    assert cache.attachments() == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "[]",
        "{",
        LIBCNI | {"config": "***"},
        LIBCNI | {"cniArgs": [["one"]]},
        LIBCNI | {"cniArgs": {}},
        LIBCNI | {"result": []},
        LIBCNI | {"ifName": 1},
    ],
)
def test_damaged_files(cache: Cache, value: Any) -> None:
    put(cache, "net-c1-eth0", value)
    with pytest.raises(DecodeError):
        cache.read("net", "c1", "eth0")
    assert cache.attachments() == []


def test_lists_attachments(cache: Cache) -> None:
    put(cache, "net-c1-eth0", LIBCNI)
    put(cache, "net-c2-eth0", LIBCNI | {"containerId": "c2"})
    put(cache, "net-c2-eth1", LIBCNI | {"containerId": "c2", "ifName": "eth1"})
    put(cache, "net-c3-", LIBCNI | {"containerId": "c3", "ifName": ""})
    put(cache, ".draft", LIBCNI)
    os.mkdir(os.path.join(cache.folder, "folder"))
    pairs = [(found.container_id, found.ifname) for found in cache.attachments()]
    assert pairs == [("c1", "eth0"), ("c2", "eth0"), ("c2", "eth1")]
    assert [found.ifname for found in cache.attachments("c2")] == ["eth0", "eth1"]


def test_nulls_count_as_absent(cache: Cache) -> None:
    put(cache, "net-c1-eth0", LIBCNI | {"config": None, "result": None})
    found = cache.read("net", "c1", "eth0")
    assert found is not None
    assert (found.config, found.result) == (b"", None)


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("../x", "c1", "eth0"), InvalidConfigError),
        (("", "c1", "eth0"), InvalidConfigError),
        (("net", "a/b", "eth0"), InvalidEnvironmentError),
        (("net", "c1", "../eth0"), InvalidEnvironmentError),
        (("net", "c1", ""), InvalidEnvironmentError),
    ],
)
def test_names_cannot_lead_elsewhere(
    cache: Cache, names: tuple[str, str, str], error: type[CNIError]
) -> None:
    with pytest.raises(error):
        cache.read(*names)


def test_a_failed_write_leaves_no_draft(cache: Cache) -> None:
    os.makedirs(os.path.join(cache.folder, "net-c1-eth0", "in the way"))
    attachment = Attachment("c1")
    attachment.network = "net"
    with pytest.raises(OSError, match="directory"):
        cache.write(attachment)
    assert os.listdir(cache.folder) == ["net-c1-eth0"]


def attachment_of(network: str, container_id: str, ifname: str = "eth0") -> Attachment:
    made = Attachment(container_id, ifname)
    made.network, made.result = network, {"cniVersion": "1.1.0"}
    return made


def names(found: Attachment | None) -> tuple[str, str, str] | None:
    return (found.network, found.container_id, found.ifname) if found else None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("net", "c" * 249 + "1"), ("net", "c" * 249 + "2")),
        (("net", "c" * 5000), ("net", "c" * 5001)),
        (("n" * 300, "c1"), ("n" * 300, "c2")),
        (("a", "b-c"), ("a-b", "c")),
    ],
    ids=["long", "longer", "a long network", "of one name"],
)
def test_names_that_a_file_cannot_have(cache: Cache, first: tuple[str, str], second: tuple[str, str]) -> None:
    for each in (first, second):
        cache.write(attachment_of(*each))
    for each in (first, second):
        assert names(cache.read(*each, "eth0")) == (*each, "eth0")
        assert [names(found) for found in cache.attachments(each[1])] == [(*each, "eth0")]
        assert cache.identity(attachment_of(*each)) is not None
    assert len(cache.attachments()) == 2
    cache.remove(*first, "eth0")
    assert cache.read(*first, "eth0") is None
    assert names(cache.read(*second, "eth0")) == (*second, "eth0")
    cache.write(attachment_of(*second))
    cache.remove(*second, "eth0")
    assert os.listdir(cache.folder) == []


def test_the_longest_name_that_a_file_can_have(cache: Cache) -> None:
    container_id = "c" * (255 - len("net--eth0"))
    cache.write(attachment_of("net", container_id))
    assert os.listdir(cache.folder) == [f"net-{container_id}-eth0"]
