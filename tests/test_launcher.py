"""What the build demands of the plugins' executable, tried on other programs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

PROGRAM = """
#ifdef BOTH
__asm__(".section .both,\\"awx\\"; .byte 0; .text");
#endif
int main(void) { return 0; }
"""
HEADERS = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <netdb.h>\n#include <pwd.h>\n"
ARCH = "amd64"


@pytest.fixture(scope="module")
def launcher() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(f"{ROOT}/build")
        return importlib.import_module("launcher")


def compiled(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.c").write_text(source)
    command = ["gcc", "-fno-pie", f"{folder}/program.c", "-o", f"{folder}/program", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_program_that_is_linked_so_is_accepted(launcher: ModuleType, tmp_path: Path) -> None:
    assert launcher.own_architecture() == ARCH
    assert compiled(tmp_path, PROGRAM, *launcher.LINKER_OPTIONS).returncode == 0
    launcher.check(ARCH, tmp_path / "program")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-no-pie"], "it has a segment INTERP; it has a segment DYNAMIC"),
        (["-static-pie", "-fPIE"], "it is no executable for amd64; it has a segment DYNAMIC"),
        (["-static", "-no-pie", "-Wl,-z,norelro"], "nothing of it is made read-only"),
        (["-static", "-no-pie", "-Wl,-z,execstack"], "a segment GNU_STACK is RWE"),
        (["-static", "-no-pie", "-DBOTH"], "a segment LOAD is RWE"),
    ],
)
def test_what_is_not_accepted(launcher: ModuleType, tmp_path: Path, options: list[str], says: str) -> None:
    done = compiled(tmp_path, PROGRAM, *options)
    assert done.returncode == 0, done.stderr
    with pytest.raises(SystemExit, match=says):
        launcher.check(ARCH, tmp_path / "program")


def test_another_architecture_and_larger_pages(launcher: ModuleType, tmp_path: Path) -> None:
    compiled(tmp_path, PROGRAM, *launcher.LINKER_OPTIONS)
    with pytest.raises(SystemExit, match="no executable for arm64; it would not start with pages of 65536"):
        launcher.check("arm64", tmp_path / "program")


@pytest.mark.parametrize("call", ["getpwnam(0)", 'getaddrinfo(0, "", 0, 0)', 'dlopen("", 1)'])
def test_what_needs_the_nodes_libraries_is_not_linked(
    launcher: ModuleType, tmp_path: Path, call: str
) -> None:
    """A plugin that would call it, by a module in C that was added, could not be built."""
    source = f"{HEADERS}int main(void) {{ return (long){call} == 7; }}\n"
    assert compiled(tmp_path, source, "-static", "-no-pie").returncode == 0
    done = compiled(tmp_path, source, *launcher.LINKER_OPTIONS)
    assert done.returncode != 0
    assert "in statically linked applications requires at runtime the shared libraries" in done.stderr


def test_the_executable_resolves_no_names(tmp_path: Path) -> None:
    """What the C library has for that reads /etc/nsswitch.conf and loads libraries."""
    target = tmp_path / "cni"
    subprocess.run([sys.executable, f"{ROOT}/build/launcher.py", target], check=True)
    content = target.read_bytes()
    assert b"cni_plugins.plugins.bridge" in content
    for name in (b"nsswitch.conf", b"libnss_"):
        assert name not in content
