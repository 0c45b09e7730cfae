"""The set-up is closed: what the lock names is installed, whatever else a package index offers that day."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from integration.suite import ROOT

LOCK = Path(ROOT, "build/requirements.lock")
WHEELS = Path(ROOT, ".work/wheels")
"""The locked wheels, which `make` has downloaded."""
NEWER = "9999.1"

pytestmark = pytest.mark.timeout(600)  # it makes a whole environment


def locked() -> dict[str, str]:
    """Return each package of the lock and its version."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))


def normal(name: str) -> str:
    """Return a package's name as an index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_newer(folder: Path, name: str) -> None:
    """Make a release of a package that nobody has published."""
    stem = f"{name.replace('-', '_')}-{NEWER}"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {NEWER}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path) -> str:
    """A package index (PEP 503) with the locked release and a newer one of each package."""
    top = tmp_path / "index"
    for name in locked():
        (top / name).mkdir(parents=True)
        make_newer(top / name, name)
    for wheel in WHEELS.glob("*.whl"):
        folder = top / normal(wheel.name.split("-")[0])
        if folder.is_dir():
            (folder / wheel.name).symlink_to(wheel)
    for folder in top.iterdir():
        links = (f'<a href="{path.name}">{path.name}</a>' for path in folder.glob("*.whl"))
        (folder / "index.html").write_text("<!DOCTYPE html>\n" + "\n".join(links))
    return top.as_uri()


def test_newer_releases_change_nothing(index: str, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    env |= {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    made, wheels = tmp_path / "venv", tmp_path / "wheels"

    command = ["/usr/bin/python3", f"{ROOT}/build/venv.py", str(made), str(LOCK), str(wheels)]
    subprocess.run(command, check=True, env=env)
    pip = [str(made / "bin/python"), "-m", "pip"]
    said = subprocess.run(
        [*pip, "freeze", "--all"], check=True, capture_output=True, text=True, env=env
    ).stdout
    there = {normal(name): version for name, version in (line.split("==") for line in said.splitlines())}
    there.pop("pip")  # the interpreter's own
    assert there == locked()

    # The index is one that a set-up which looks for the newest would have taken others from.
    asked = [*pip, "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "coverage[toml]"]
    subprocess.run(asked, check=True, env=env)
    assert (tmp_path / f"coverage-{NEWER}-py3-none-any.whl").exists()
