"""The archive of the built bundle, unpacked where people unpack it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_plugins import VERSION, install
from cni_plugins.multicall import MODULES
from integration.node import PEER
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bundle

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
STEM = f"cni-plugins-linux-{ARCH}-v{VERSION}"
COMMIT = "0" * 40


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(f"{ROOT}/build")
        dist = importlib.import_module("dist")
        dist.release(Path(os.environ["SUITE_BIN"]), ARCH, "cni", folder, 1_700_000_000, COMMIT)
        yield folder


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def answers(bindir: Path) -> None:
    """Check that every name is ours, and that the tools work."""
    for name in MODULES:
        done = subprocess.run(
            [bindir / name], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True, text=True
        )
        assert "1.1.0" in json.loads(done.stdout)["supportedVersions"], name
        assert (bindir / name).resolve() == (
            bindir / "cni-runtime/cni"
        ).resolve() or install.STATE in os.readlink(bindir / name)
    done = subprocess.run(
        [bindir / "cnictl", "--version"], env={}, capture_output=True, check=True, text=True
    )
    assert VERSION in done.stdout


def unpack(release: Path, bindir: Path, *program: str) -> None:
    subprocess.run([*(program or ["tar"]), "-C", bindir, "-xzf", release / f"{STEM}.tgz"], check=True)


def test_the_sum(release: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", f"{STEM}.tgz.sha256"], cwd=release, check=True)


@pytest.mark.parametrize("program", [("tar",), ("busybox", "tar")])
def test_an_empty_folder(release: Path, bindir: Path, program: tuple[str, ...]) -> None:
    before = bindir.stat()
    unpack(release, bindir, *program)
    answers(bindir)
    assert sorted(os.listdir(bindir)) == sorted(["LICENSE", "README.md", "cni-runtime", "cnictl", *MODULES])
    after = bindir.stat()
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


@pytest.mark.peer
@pytest.mark.parametrize("program", [("tar",), ("busybox", "tar")])
def test_over_gos_plugins(release: Path, bindir: Path, program: tuple[str, ...]) -> None:
    for path in Path(PEER).iterdir():
        if path.is_file():
            shutil.copy(path, bindir)
    (bindir / "not-ours").write_text("stays")
    unpack(release, bindir, *program)
    answers(bindir)
    assert (bindir / "not-ours").read_text() == "stays"


def test_over_an_older_one_of_ours(release: Path, bindir: Path) -> None:
    """Which a plugin still runs from."""
    unpack(release, bindir)
    (bindir / "cni-runtime/VERSION").write_text("0.0.1\n")
    inode = (bindir / "cni-runtime/cni").stat().st_ino
    with (bindir / "cni-runtime/cni").open("rb") as running:
        unpack(release, bindir)
        assert os.fstat(running.fileno()).st_ino == inode  # it keeps the file that it has
    assert (bindir / "cni-runtime/cni").stat().st_ino != inode
    assert (bindir / "cni-runtime/VERSION").read_text() == f"{VERSION}\n"
    answers(bindir)


def test_over_what_the_installer_installed_and_back(release: Path, bindir: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "unpacked"
    bundle.mkdir()
    unpack(release, bundle)
    script = str(bundle / "cni-runtime/install.py")
    subprocess.run([sys.executable, script, str(bindir)], check=True)
    answers(bindir)
    unpack(release, bindir)
    answers(bindir)
    assert os.readlink(bindir / "bridge") == "cni-runtime/cni"
    subprocess.run([sys.executable, script, str(bindir)], check=True)
    answers(bindir)
    assert os.readlink(bindir / "bridge").startswith(install.STATE)
    subprocess.run([sys.executable, script, "--roll-back", str(bindir)], check=True)
    answers(bindir)
    assert os.readlink(bindir / "bridge") == "cni-runtime/cni"


def test_a_file_system_without_hard_links(release: Path, bindir: Path) -> None:
    inject = ["strace", "-qq", "-f", "-e", "trace=link,linkat", "-e", "inject=link,linkat:error=EPERM"]
    unpack(release, bindir, *inject, "-o", "/dev/null", "tar")
    answers(bindir)


def test_the_licences_are_there(release: Path, bindir: Path) -> None:
    unpack(release, bindir)
    found = json.loads((release / f"{STEM}.cdx.json").read_text())
    names = {f"{part['name']}-{part['version']}" for part in found["components"]}
    assert names == set(os.listdir(bindir / "cni-runtime/licenses"))
    for name in names:
        texts = list((bindir / "cni-runtime/licenses" / name).iterdir())
        assert texts
        assert all(path.stat().st_size > 100 for path in texts), name
    kinds = {part["purl"].partition("/")[0] for part in found["components"]}
    assert kinds == {"pkg:deb", "pkg:pypi"}
    assert {"pydantic", "libpython3.11-dev", "pyinstaller"} <= {part["name"] for part in found["components"]}
    properties = found["metadata"]["component"]["properties"]
    assert {"name": "commit", "value": COMMIT} in properties
