"""What make says on another machine, and when it builds anew."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = "dist/cni/.built"
ALONE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
"""Without what a make that runs the tests tells the makes below it."""

RECORDER = """#!/bin/sh
# An interpreter that only notes what it is asked to run.
[ "$1" != -c ] || exec /usr/bin/python3 "$@"
printf '%s\\n' "$*" >>"$RECORD"
mkdir -p dist/cni .venv
"""


class Tree:
    """A copy of the sources, in which make runs with an interpreter that notes what it would do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tree"
        for name in ("Makefile", "build", "cni_plugins", "conflist", "flanneld", "ipam", "deploy"):
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, self.folder / name, ignore=ignored)
            else:
                self.folder.mkdir(exist_ok=True)
                shutil.copy2(source, self.folder / name)
        self._record = folder / "record"
        self._python = folder / "python"
        self._python.write_text(RECORDER)
        self._python.chmod(0o755)

    def make(self, *words: str) -> list[str]:
        """Run make and return what it would have run."""
        self._record.write_text("")
        subprocess.run(
            ["make", "--silent", *words, f"PYTHON={self._python}"],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "RECORD": str(self._record), "HOME": str(self.folder)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return self._record.read_text().splitlines()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


BUILT = "build/overlay.py build .venv/bin/python build/build.py"


def test_what_is_built_is_not_built_again(tree: Tree) -> None:
    assert tree.make(BUNDLE)[-1] == BUILT
    assert tree.make(BUNDLE) == []


@pytest.mark.parametrize("module", ["cni_plugins/plugins/tap.py", "ipam/static/plugin.py"])
def test_a_deleted_module_makes_a_new_bundle(tree: Tree, module: str) -> None:
    tree.make(BUNDLE)
    (tree.folder / module).unlink()
    assert tree.make(BUNDLE) == [BUILT]


def test_a_new_lock_makes_a_new_environment(tree: Tree) -> None:
    tree.make(BUNDLE)
    stamp = tree.folder / ".venv/.made"
    os.utime(tree.folder / "build/requirements.lock", (stamp.stat().st_mtime + 10,) * 2)
    python = f"{tree.folder.parent}/python"
    command = f"build/overlay.py build {python} build/venv.py .venv build/requirements.lock .work/wheels"
    assert tree.make(".venv/.made") == [command]


@pytest.mark.parametrize("goals", [["demo"], ["test"], ["-j8", "demo", "build-flanneld"]])
def test_the_first_line_says_what_is_missing(goals: list[str]) -> None:
    command = ["make", *goals, "PYTHON=/nonexistent/python3"]
    done = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = (done.stdout + done.stderr).splitlines()[0]
    assert "make needs Debian 12 and its python3 (3.11), and this is " in said
    assert "Python not found" in said


def test_help_needs_nothing() -> None:
    command = ["make", "PYTHON=/nonexistent/python3"]
    said = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, check=True).stdout
    assert "make demo" in said
