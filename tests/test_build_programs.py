"""What the build puts around PyInstaller's programs: their environment, and what they ask of a node."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SHOW = f"""
import os, sys
exec(open({str(ROOT / "build/startup.py")!r}).read())
os.write(2, repr((sys.argv[0], dict(os.environb))).encode() + b"\\n")
os.execv("/usr/bin/env", ["env", "-0"])
"""
LOCALE = {b"LC_ALL": b"C.UTF-8"}  # without one, the interpreter of this test sets LC_CTYPE


def restored(given: dict[bytes, bytes]) -> tuple[str, dict[bytes, bytes]]:
    """Return the name and the environment that a program sees, and so what it starts."""
    done = subprocess.run([sys.executable, "-ISc", SHOW], env=given, check=True, capture_output=True)
    name, seen = ast.literal_eval(done.stderr.decode().splitlines()[0])  # the loader may say more
    child = dict(line.split(b"=", 1) for line in done.stdout.split(b"\0") if line)
    assert child == seen
    return name, seen


def test_variables_that_were_put_aside_get_their_names_back() -> None:
    callers = {
        b"LD_PRELOAD": b"/lib.so",
        b"_PYI_ARCHIVE_FILE": b"/x",
        b"LANG": b"\xff",
        b"_CNI_ASIDE_A": b"(",
    }
    given = {b"_CNI_ASIDE_" + name: value for name, value in callers.items()}
    assert restored(given | {b"HOME": b"/", b"_CNI_ARGV0": b"install-cni"} | LOCALE) == (
        "install-cni",
        callers | {b"HOME": b"/"} | LOCALE,
    )


def test_what_the_bundle_has_set_is_removed() -> None:
    """Also what PyInstaller's bootloader sets where it restarts itself, of which it is kept."""
    given = {
        b"_PYI_ARCHIVE_FILE": b"/b",
        b"_PYI_PARENT_PROCESS_LEVEL": b"1",
        b"LD_LIBRARY_PATH": b"/b/lib:/c",
        b"LD_LIBRARY_PATH_ORIG": b"/c",
        b"_CNI_ASIDE_LD_LIBRARY_PATH": b"/c",
    }
    assert restored(given | LOCALE) == ("-c", {b"LD_LIBRARY_PATH": b"/c"} | LOCALE)


@pytest.fixture
def closure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "build"))
    return importlib.import_module("closure")


@pytest.fixture
def lib(tmp_path: Path, closure: ModuleType) -> Path:
    """A folder with a program of the system's, and its loader and libraries."""
    folder = tmp_path / "lib"
    folder.mkdir()
    shutil.copy("/usr/bin/env", folder / "env.bin")
    closure.add_c_library(folder, [system(closure)])
    return folder


def system(closure: ModuleType) -> Path:
    loader = Path(closure.read(Path("/usr/bin/env")).loader)
    (place,) = Path("/usr/lib").glob(f"*-linux-gnu/{loader.name}")
    return place.parent


@pytest.mark.readelf
def test_a_bundle_with_the_c_library_asks_for_nothing(closure: ModuleType, lib: Path) -> None:
    assert {"libc.so.6", "libgcc_s.so.1"} < set(os.listdir(lib))
    closure.check(lib, [])
    (lib / "libc.so.6").unlink()
    with pytest.raises(SystemExit, match=r"env\.bin asks for libc\.so\.6, which is not in"):
        closure.check(lib, [])


@pytest.mark.readelf
def test_a_library_that_is_not_the_c_librarys_is_not_taken_from_the_system(
    closure: ModuleType, lib: Path
) -> None:
    """PyInstaller has collected it, or it is missing: then the build says so."""
    (other,) = [
        path for path in system(closure).glob("libz.so.1") if "libc.so.6" in closure.read(path).needed
    ]
    content = other.read_bytes()
    (lib / "libother.so").write_bytes(content.replace(b"libc.so.6\0", b"libc.so.x\0"))
    closure.add_c_library(lib, [system(closure)])
    with pytest.raises(SystemExit, match=r"libother\.so asks for libc\.so\.x"):
        closure.check(lib, [])


@pytest.mark.readelf
def test_what_a_node_starts_has_to_be_static(closure: ModuleType, lib: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="env is not a static program"):
        closure.check(lib, [Path("/usr/bin/env")])
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(SystemExit, match="script is not a static program"):
        closure.check(lib, [tmp_path / "script"])


@pytest.mark.readelf
def test_the_loader_does_not_read_what_the_nodes_programs_load_first(
    closure: ModuleType, lib: Path, tmp_path: Path
) -> None:
    (loader,) = lib.glob("ld-*")
    assert b"/etc/ld.so.preload" not in loader.read_bytes()
    done = subprocess.run(
        [loader, "--library-path", lib, lib / "env.bin", "A=1"], env={}, check=True, capture_output=True
    )
    assert done.stdout == b"A=1\n"
    other = shutil.copytree(lib, tmp_path / "other")
    with pytest.raises(SystemExit, match=r"does not name /etc/ld\.so\.preload"):
        closure.add_c_library(lib, [other])
