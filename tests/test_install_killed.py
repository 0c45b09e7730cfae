"""install-cni and install-conf killed before any of their changes: the old or the new serves, and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import install
from flanneld.install import install_conf
from tests.test_install import NAMES, bundle, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHANGES = {
    *("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"),
    *("os.utime",),
}
WRITING = os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC


def killed(number: int, what: Callable[[], object]) -> bool:
    """Run something in a process that is killed as it makes a change; tell whether it came to that.

    Args:
        number: the how-manieth change, from 0, does not happen any more.
        what: what is run.
    """
    child = os.fork()
    if child == 0:
        left = number

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITING):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        status = 1
        try:
            sys.addaudithook(hook)
            what()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def at_every_change(what: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Run something again and again, killed one change later each time; give the changes before the kill."""
    number = 0
    prepare()
    while killed(number, what):
        yield number
        number += 1
        prepare()


def contents(folder: Path) -> dict[str, str]:
    """Return every name of a folder with its content, or where it leads to."""
    found = {}
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            full = os.path.join(path, name)
            key = os.path.relpath(full, folder)
            if os.path.islink(full):
                found[key] = os.readlink(full)
            elif os.path.isfile(full):
                with open(full, encoding="ascii") as file:
                    found[key] = file.read()
    return found


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def test_over_gos_plugins(tmp_path: Path, bindir: Path) -> None:
    source = bundle(tmp_path / "a", "1.0")

    def run() -> None:
        install.install(source, str(bindir))

    def prepare() -> None:
        shutil.rmtree(bindir, ignore_errors=True)
        bindir.mkdir()
        (bindir / "bridge").write_text("#!/bin/sh\necho Go\n")
        (bindir / "bridge").chmod(0o755)

    prepare()
    run()
    wanted = contents(bindir)
    count = 0
    for count in at_every_change(run, prepare):
        assert says(bindir, "bridge") in ("Go", "bridge 1.0")
        if os.path.lexists(bindir / "loopback"):
            assert says(bindir, "loopback") == "loopback 1.0"
        run()
        assert contents(bindir) == wanted, count
    assert count > 15


def test_an_upgrade(tmp_path: Path, bindir: Path) -> None:
    sources = [bundle(tmp_path / version, version) for version in ("1.0", "2.0", "3.0")]
    kept = tmp_path / "kept"
    for source in sources[:2]:
        install.install(source, str(bindir))
    shutil.copytree(bindir, kept, symlinks=True)

    def run() -> None:
        install.install(sources[2], str(bindir))

    def prepare() -> None:
        shutil.rmtree(bindir)
        shutil.copytree(kept, bindir, symlinks=True)

    prepare()
    run()
    wanted = contents(bindir)
    count = 0
    for count in at_every_change(run, prepare):
        versions = {says(bindir, name) for name in NAMES}
        assert versions in ({f"{name} 2.0" for name in NAMES}, {f"{name} 3.0" for name in NAMES})
        run()
        assert contents(bindir) == wanted, count
    assert count > 15


def test_a_version_that_was_half_removed_is_whole_when_it_comes_back(tmp_path: Path, bindir: Path) -> None:
    """The old image is deployed again, after an upgrade was killed as it took that version's folder away."""
    sources = [bundle(tmp_path / version, version) for version in ("1.0", "2.0", "3.0")]
    kept = tmp_path / "kept"
    whole = contents(tmp_path / "1.0/cni-runtime")
    name, _ = [install.install(source, str(bindir)) for source in sources[:2]]
    shutil.copytree(bindir, kept, symlinks=True)

    def prepare() -> None:
        shutil.rmtree(bindir)
        shutil.copytree(kept, bindir, symlinks=True)

    for count in at_every_change(lambda: install.install(sources[2], str(bindir)), prepare):
        assert install.install(sources[0], str(bindir)) == name
        assert contents(bindir / install.STATE / name) == whole, count
        assert says(bindir, "bridge") == "bridge 1.0"


@pytest.mark.parametrize("old", [None, '{"name": "edited by an operator", "plugins": [{"type": "bridge"}]}'])
def test_the_list(tmp_path: Path, old: str | None) -> None:
    template, folder = tmp_path / "cni-conf.json", tmp_path / "net.d"
    target = folder / "10-flannel.conflist"
    template.write_text(json.dumps({"name": "cbr0", "plugins": [{"type": "flannel"}]}))

    def run() -> None:
        install_conf(str(template), str(target))

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if old is not None:
            folder.mkdir()
            target.write_text(old)

    count = 0
    for count in at_every_change(run, prepare):
        found = target.read_text() if target.exists() else None
        assert found in (old, template.read_text())
        # A runtime reads what ends so; what was left beside it must not.
        names = os.listdir(folder) if folder.exists() else []
        lists = [name for name in names if name.endswith((".conf", ".conflist", ".json"))]
        assert lists == (["10-flannel.conflist"] if found else [])
        run()
        assert contents(folder) == {target.name: template.read_text()}, count
        assert target.stat().st_mode & 0o777 == 0o644
    assert count >= 1
