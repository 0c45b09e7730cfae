"""Settings and fixtures of the tests that need no root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from cni_plugins import orphans
from conflist.cache import Cache
from conflist.run import Runner
from integration import needs, suite
from tests.flannel import Flannel
from tests.kernel_end import KernelEnd
from tests.recorder import Recorder
from tests.sockets import short

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Other work on the machine must not fail a test, nor a run leave anything in the tree.
settings.register_profile("suite", deadline=None, database=None, print_blob=True)
settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the machine cannot run."""
    needs.demand(item)


@pytest.fixture(scope="session")
def suite_bin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of the plugins, run from their source."""
    return suite.make(str(tmp_path_factory.mktemp("suite")), str(tmp_path_factory.mktemp("run")))


@pytest.fixture
def kernel() -> Iterator[KernelEnd]:
    """The kernel's end of a netlink socket."""
    with KernelEnd() as end:
        yield end


@pytest.fixture
def flannel(suite_bin: str, tmp_path: Path) -> Flannel:
    """The plugin flannel as a process, with host-local as its delegate."""
    return Flannel(suite_bin, tmp_path)


@pytest.fixture
def plugins(tmp_path: Path) -> Recorder:
    """Plugins that say what they were asked."""
    return Recorder(tmp_path / "bin", "one", "two", "three")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """libcni's cache, in a folder of the test's own."""
    return Cache(str(tmp_path / "cache"))


@pytest.fixture
def runner(plugins: Recorder, cache: Cache) -> Runner:
    """Runs lists of these plugins."""
    return Runner(
        [str(plugins.folder)], cache, env={"TEST_KEPT": "1", "CNI_ARGS": "old", "CNI_IFNAME": "old"}
    )


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own whose path leaves room for a socket's name."""
    with short(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _umask() -> Iterator[None]:
    """The modes of files are tested: those of whoever runs the tests do not matter."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def _run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def _own_locks(_run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep plugins that run in this process out of the machine's folder, where others wait for them."""
    monkeypatch.setattr(orphans, "FOLDER", _run)
    monkeypatch.setattr(orphans, "PATH", f"{_run}/children.lock")
