"""Installing a bundle again, over an installation of it that was damaged."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cni_plugins import install
from tests.test_install import NAMES, bundle, says, versions
from tests.test_install_killed import at_every_change, contents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def flip(folder: Path) -> None:
    """Change one byte, and leave size and times as they are."""
    path = folder / "VERSION"
    found = path.stat()
    path.write_text("9.0\n")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def relink(folder: Path) -> None:
    (folder / "lib" / "link").unlink()
    (folder / "lib" / "link").symlink_to("../VERSION")


def fill_link(folder: Path) -> None:
    """Put a copy in a link's place, as `cp -L` does."""
    (folder / "lib" / "link").unlink()
    shutil.copy(folder / "cni", folder / "lib" / "link")


def put_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "content": flip,
    "cut short": lambda folder: os.truncate(folder / "cni", 20),
    "empty": lambda folder: os.truncate(folder / "cni", 0),
    "missing": lambda folder: (folder / "VERSION").unlink(),
    "missing program": lambda folder: (folder / "cni").unlink(),
    "mode": lambda folder: (folder / "cni").chmod(0o644),
    "mode of a folder": lambda folder: (folder / "lib").chmod(0o700),
    "mode of all": lambda folder: folder.chmod(0o777),
    "unreadable": lambda folder: (folder / "lib").chmod(0o000),
    "extra file": lambda folder: (folder / "lib" / "sitecustomize.py").write_text(""),
    "extra folder": lambda folder: (folder / "more").mkdir(),
    "extra pipe": lambda folder: os.mkfifo(folder / "lib" / "pipe"),
    "link": relink,
    "link turned into a file": fill_link,
    "all": shutil.rmtree,
    "a file in its place": put_file,
}


@pytest.fixture
def source(tmp_path: Path) -> str:
    return bundle(tmp_path / "a", "1.0")


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def modes(folder: Path) -> dict[str, int]:
    return {
        os.path.relpath(os.path.join(path, name), folder): os.lstat(os.path.join(path, name)).st_mode
        for path, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_replaced(tmp_path: Path, source: str, bindir: Path, damage: str) -> None:
    name = install.install(source, str(bindir))
    state = bindir / install.STATE
    whole, whole_modes = contents(state / name), modes(state / name)
    DAMAGES[damage](state / name)
    repaired = install.install(source, str(bindir))
    assert os.readlink(state / "current") == repaired
    assert contents(state / repaired) == whole
    assert modes(state / repaired) == whole_modes
    assert {says(bindir, each) for each in NAMES} == {f"{each} 1.0" for each in NAMES}
    # A plugin may run from the damaged folder until the next time.
    assert install.install(source, str(bindir)) == repaired
    assert versions(bindir) == [repaired]
    assert not os.path.lexists(state / "previous")


def test_the_version_to_return_to_stays(tmp_path: Path, source: str, bindir: Path) -> None:
    first = install.install(source, str(bindir))
    second = install.install(bundle(tmp_path / "b", "2.0"), str(bindir))
    flip(bindir / install.STATE / second)
    repaired = install.install(str(tmp_path / "b"), str(bindir))
    assert repaired == f"{second}.1"
    assert install.roll_back(str(bindir)) == first
    assert says(bindir, "bridge") == "bridge 1.0"
    assert install.roll_back(str(bindir)) == repaired


def test_it_can_be_damaged_again_and_again(source: str, bindir: Path) -> None:
    name = install.install(source, str(bindir))
    for wanted in (f"{name}.1", name, f"{name}.1"):
        flip(bindir / install.STATE / os.readlink(bindir / install.STATE / "current"))
        assert install.install(source, str(bindir)) == wanted
        assert install.install(source, str(bindir)) == wanted


def test_names_and_links_that_are_missing_or_wrong(source: str, bindir: Path) -> None:
    name = install.install(source, str(bindir))
    wanted = contents(bindir)
    state = bindir / install.STATE

    def another_link(path: Path) -> None:
        path.unlink()
        path.symlink_to(f"{install.STATE}/current/VERSION")

    def empty_file(path: Path) -> None:
        path.unlink()
        path.write_text("")

    def copied(path: Path) -> None:
        path.unlink()
        shutil.copytree(state / name, path, symlinks=True)

    damages: list[tuple[Path, Callable[[Path], None]]] = [
        (bindir / "bridge", os.unlink),
        (bindir / "bridge", another_link),
        (state / "current", os.unlink),
        (state / "current", another_link),
        (state / "current", empty_file),
        (state / "current", copied),
    ]
    for path, damage in damages:
        damage(path)
        assert install.install(source, str(bindir)) == name
        assert contents(bindir) == wanted


def test_the_umask_where_it_was_unpacked_does_not_matter(tmp_path: Path, source: str, bindir: Path) -> None:
    name = install.install(source, str(bindir))
    wanted = modes(bindir)
    other = bundle(tmp_path / "b", "1.0")
    for path, folders, files in os.walk(other):
        for each in (*folders, *files):
            full = os.path.join(path, each)
            if not os.path.islink(full):
                os.chmod(full, os.stat(full).st_mode & 0o700)
    before = os.umask(0o077)
    try:
        assert install.install(other, str(bindir)) == name
        shutil.rmtree(bindir)
        bindir.mkdir()
        assert install.install(other, str(bindir)) == name
    finally:
        os.umask(before)
    assert {key: mode for key, mode in modes(bindir).items() if "/lib" in key or "/cni" in key} == {
        key: mode for key, mode in wanted.items() if "/lib" in key or "/cni" in key
    }


def test_killed_before_any_change(tmp_path: Path, source: str, bindir: Path) -> None:
    """Whoever looks meanwhile sees all of the damaged folder, or all of the new one."""
    name = install.install(source, str(bindir))
    flip(bindir / install.STATE / name)
    (bindir / "loopback").unlink()
    kept = tmp_path / "kept"
    shutil.copytree(bindir, kept, symlinks=True)
    whole, damaged = contents(tmp_path / "a/cni-runtime"), contents(bindir / install.STATE / name)

    def run() -> None:
        install.install(source, str(bindir))

    def prepare() -> None:
        shutil.rmtree(bindir)
        shutil.copytree(kept, bindir, symlinks=True)

    prepare()
    run()
    run()
    wanted = contents(bindir)
    count = 0
    for count in at_every_change(run, prepare):
        assert says(bindir, "bridge") == "bridge 1.0"
        assert contents((bindir / install.STATE / "current").resolve()) in (damaged, whole)
        run()
        assert contents((bindir / install.STATE / "current").resolve()) == whole
        assert says(bindir, "loopback") == "loopback 1.0"
        run()
        assert contents(bindir) == wanted, count
    assert count > 15
