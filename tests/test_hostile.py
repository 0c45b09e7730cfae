"""Whatever a plugin is given: a result or a plain error, and no write outside of its folders."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugins.spec.codec import MAX_BYTES
from ipam.host_local.store import Store
from tests import hostile
from tests.calls import call, host_local, variables
from tests.host_local import call as ask
from tests.host_local import config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNPRIVILEGED = ("host-local", "static", "flannel")
"""Plugins whose calls ask nothing of the kernel."""
ENV = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


@pytest.fixture(scope="module")
def fence() -> Iterator[hostile.Fence]:
    made = hostile.Fence()
    yield made
    made.allowed = None


def test_changed_calls(tmp_path: Path, fence: hostile.Fence) -> None:
    (tmp_path / "subnet.env").write_text(ENV)
    chance = random.Random(4)
    codes = set()
    fence.allowed = (f"{tmp_path}/",)
    for _time in range(5000):
        codes.add(hostile.call(*hostile.case(chance, str(tmp_path), UNPRIVILEGED)))
    fence.allowed = None
    assert fence.crossed == []
    assert {0, 4, 6, 7} <= codes, "each kind of input is among them"


@given(
    st.binary(max_size=2000) | st.text(max_size=500).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@settings(max_examples=200)
def test_any_bytes_on_standard_input(data: bytes) -> None:
    for verb in ("ADD", "VERSION", "GC"):
        assert hostile.call("static", variables(verb, "/no"), data) in (0, 6, 7)


@given(st.text(max_size=400))
@settings(max_examples=200)
def test_any_subnet_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "subnet.env"
    path.write_text(ENV + text, encoding="utf-8", errors="surrogatepass")
    raw: dict[str, Any] = {
        **host_local("/nowhere"),
        "type": "flannel",
        "subnetFile": str(path),
        "dataDir": "/nowhere",
    }
    assert hostile.call("flannel", variables("STATUS", "/no"), json.dumps(raw).encode()) in (50, 7)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"c1", b"c1\r\n", b"../../x\r\neth0", b"\0" * 5000, b"a\nb\r\n/\r\n"]
)
def test_any_reservation(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "10.1.2.2").write_bytes(content)
    assert ask("ADD", config(tmp_path), container="new")["ips"][0]["address"] == "10.1.2.3/24"
    before = sorted(os.listdir(tmp_path))
    ask("GC", {**config(tmp_path), "cni.dev/valid-attachments": []})
    assert sorted(os.listdir(tmp_path)) == before
    with Store(str(tmp_path), "net", create=False) as store:
        assert store.scan() == {}


def test_links_planted_in_the_state_folder(tmp_path: Path) -> None:
    """Whoever could plant them would be root; a plugin writes through none of them all the same."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "data" / "net"
    folder.mkdir(parents=True)
    for name in ("10.1.2.2", "10.1.2.3"):
        (folder / name).symlink_to(victim)
    conf = config(tmp_path / "data")
    assert ask("ADD", conf)["ips"][0]["address"] == "10.1.2.4/24"
    ask("GC", {**conf, "cni.dev/valid-attachments": []})
    (folder / "last_reserved_ip.0").unlink()
    (folder / "last_reserved_ip.0").symlink_to(victim)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        ask("ADD", conf)
    assert victim.read_text() == "mine"


def test_a_link_in_the_place_of_the_lock(tmp_path: Path, suite_bin: str) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "lock").symlink_to(tmp_path / "victim")
    answer = call(f"{suite_bin}/host-local", variables("ADD", suite_bin), host_local(tmp_path))
    assert answer.code == 100
    assert not (tmp_path / "victim").exists()


def test_a_standard_input_that_never_ends(suite_bin: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES * 12, MAX_BYTES * 12))

    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [f"{suite_bin}/host-local"],
            env=variables("ADD", suite_bin),
            stdin=endless,
            capture_output=True,
            check=False,
            timeout=120,
            preexec_fn=limit,
        )
    assert done.returncode == 1
    assert b"is longer than" in done.stdout
    assert sys.getsizeof(done.stdout) < 1000
