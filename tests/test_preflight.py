"""Bundles that do not run here: an error that says whom to blame, and nothing swapped."""

from __future__ import annotations

import ast
import os
import select
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cni_plugins import install, preflight
from integration.suite import ROOT
from tests.test_install import ANSWER, NAMES, bundle, says

OTHERS = {"x86_64": ("aarch64", 183, "amd64"), "aarch64": ("x86_64", 62, "arm64")}
E_MACHINE = 18
NONE_OF_OURS = 22  # s390x


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    """A folder in which an older version serves."""
    folder = tmp_path / "bin"
    install.install(bundle(tmp_path / "old", "0.9"), str(folder))
    return folder


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted(
        (os.path.join(path, name), os.lstat(os.path.join(path, name)).st_ino)
        for path, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def refused(source: str, bindir: Path) -> str:
    """Return why a bundle is not installed; nothing of the folder may have changed."""
    before = everything(bindir)
    with pytest.raises(preflight.UnfitError) as caught:
        install.install(source, str(bindir))
    assert everything(bindir) == before
    assert says(bindir, "bridge") == "bridge 0.9"
    said = str(caught.value)
    assert "\n" not in said
    return said


def with_program(tmp_path: Path, content: bytes | bytearray | str, names: tuple[str, ...] = NAMES) -> str:
    source = bundle(tmp_path / "new", "1.0", names)
    path = tmp_path / "new/cni-runtime/cni"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return source


def elf(machine: int | None = None) -> bytearray:
    """Return this interpreter, as if for another machine."""
    content = bytearray(Path(sys.executable).read_bytes())
    if machine is not None:
        struct.pack_into("<H", content, E_MACHINE, machine)
    return content


def test_another_machine(tmp_path: Path, bindir: Path) -> None:
    ours = os.uname().machine
    theirs, number, release = OTHERS[ours]
    said = refused(with_program(tmp_path, elf(number)), bindir)
    assert f"new/cni-runtime/cni: it is built for {theirs}, and this machine is {ours}" in said
    assert f"take the bundle for {release}" in said
    assert said.endswith("Nothing was swapped: what served before still serves")


def test_another_machine_that_only_the_kernel_knows_of(tmp_path: Path, bindir: Path) -> None:
    said = refused(with_program(tmp_path, elf(NONE_OF_OURS)), bindir)
    assert f"it is built for s390x, and this machine is {os.uname().machine}" in said


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\0" * 4096, elf()[:40]])
def test_a_file_that_is_no_program(tmp_path: Path, bindir: Path, content: bytes) -> None:
    assert "the kernel finds no program in it: the bundle is damaged" in refused(
        with_program(tmp_path, content), bindir
    )


def test_a_program_that_is_missing(tmp_path: Path, bindir: Path) -> None:
    source = bundle(tmp_path / "new", "1.0")
    (tmp_path / "new/cni-runtime/cni").unlink()
    assert "it is missing: the bundle is damaged" in refused(source, bindir)


def test_a_program_that_is_not_executable(tmp_path: Path, bindir: Path) -> None:
    source = bundle(tmp_path / "new", "1.0")
    (tmp_path / "new/cni-runtime/cni").chmod(0o644)
    assert "the bundle lost its files' modes" in refused(source, bindir)


def test_no_loader(tmp_path: Path, bindir: Path) -> None:
    content = elf()
    loader = preflight._loader(sys.executable)
    assert os.path.exists(loader)
    missing = "/missing" + loader[len("/missing") :]
    content = content.replace(loader.encode() + b"\0", missing.encode() + b"\0")
    said = refused(with_program(tmp_path, bytes(content)), bindir)
    assert f"this system has no {missing}, the loader of the C library" in said


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SYS $$", "`bridge` was ended by SIGSYS: a seccomp filter"),
        ("kill -KILL $$", "`bridge` was ended by SIGKILL: the system ended it"),
        ("kill -ILL $$", "`bridge` was ended by SIGILL: this machine's processor"),
        ("kill -USR1 $$", "`bridge` was ended by SIGUSR1: it crashed"),
        ("echo FATAL: kernel too old >&2; exit 127", f"kernel, {os.uname().release}, is too old for it"),
        ("echo \"libc.so.6: version 'GLIBC_2.36' not found\" >&2; exit 1", "C library is older"),
        ("echo 'libpython3.11.so.1.0: cannot open shared object' >&2; exit 127", "a library is missing"),
        ("printf 'a\\nb\\33' >&2; exit 3", "`bridge` ended with status 3: a b"),
        ("echo a; exit 3", "`bridge` ended with status 3: a"),
        ("exit 4", "`bridge` ended with status 4: it says nothing"),
        ("echo hello", "`bridge` answers VERSION with 'hello\\n', which names no versions"),
        ("echo '{\"supportedVersions\": []}'", "names no versions"),
        ("echo '[]'", "names no versions"),
        ("printf '\\377'", "names no versions"),
    ],
)
def test_a_wrong_answer(tmp_path: Path, bindir: Path, script: str, why: str) -> None:
    assert why in refused(with_program(tmp_path, f"#!/bin/sh\n{script}\n"), bindir)


def test_every_name_is_tried(tmp_path: Path, bindir: Path) -> None:
    """The program fails under one of its names: sh gives it no name, so the name's own program does it."""
    source = bundle(tmp_path / "new", "1.0")
    shutil.copy(tmp_path / "new/cni-runtime/cni", tmp_path / "new/cni-runtime/other")
    (tmp_path / "new/loopback").unlink()
    (tmp_path / "new/loopback").symlink_to("cni-runtime/other")
    (tmp_path / "new/cni-runtime/other").write_text("#!/bin/sh\nexit 5\n")
    assert "`loopback` ended with status 5" in refused(source, bindir)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("cnictl 2.0", "`cnictl --version` does not name the version 1.0"),
        ("cnictl 1.0 (CNI 1.1.0)", "`dhcp` ended with status 6: no daemon"),
    ],
)
def test_the_other_programs(tmp_path: Path, bindir: Path, answer: str, why: str) -> None:
    script = f"""#!/bin/sh
case "$*" in
    --version) echo '{answer}' ;;
    "daemon --help") echo no daemon; exit 6 ;;
    *) echo '{ANSWER}' ;;
esac
"""
    assert why in refused(with_program(tmp_path, script, ("bridge", "cnictl", "dhcp")), bindir)


def test_a_program_that_does_not_end(tmp_path: Path, bindir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its children end, too: this one holds the pipe open, without which the call would not return."""
    monkeypatch.setattr(preflight, "SECONDS", 0.2)
    script = f"#!/bin/sh\n/bin/sleep 1000 & echo $! >{tmp_path}/pid; wait\n"
    assert "`bridge` did not end within 0.2 seconds" in refused(with_program(tmp_path, script), bindir)
    pid = int((tmp_path / "pid").read_text())
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], 60)[0], "it runs on"
    finally:
        os.close(process)


def test_nothing_of_our_environment_reaches_a_program(
    tmp_path: Path, bindir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_LIBRARY_PATH", "CNI_ARGS", "_PYI_ARCHIVE_FILE"):
        monkeypatch.setenv(name, "leaked")
    script = f"""#!/bin/sh
test -z "$LD_LIBRARY_PATH$CNI_ARGS$_PYI_ARCHIVE_FILE" && test "$(pwd)" = / && echo '{ANSWER}'
"""
    assert install.install(with_program(tmp_path, script), str(bindir)).startswith("1.0-")


def test_what_is_installed_already_is_tried_again(tmp_path: Path, bindir: Path) -> None:
    """An image or a system may have changed since."""
    script = f"#!/bin/sh\ntest -e {tmp_path}/fit && echo '{ANSWER}'\n"
    source = with_program(tmp_path, script)
    (tmp_path / "fit").touch()
    name = install.install(source, str(bindir))
    (tmp_path / "fit").unlink()
    before = everything(bindir)
    with pytest.raises(preflight.UnfitError, match="status 1"):
        install.install(source, str(bindir))
    assert everything(bindir) == before
    (tmp_path / "fit").touch()
    assert install.install(source, str(bindir)) == name


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda source: (source / "cni-runtime/VERSION").write_text("../../x\n"), "has no version in it"),
        (lambda source: (source / "cni-runtime/VERSION").write_text(""), "has no version in it"),
        (lambda source: (source / "tap").symlink_to("../../usr/bin/true"), "leads out of the bundle"),
        (lambda source: (source / "tap").symlink_to("cni-runtime/lib/link"), "leads out of the bundle"),
        (lambda source: [(source / name).unlink() for name in NAMES], "has no symbolic links"),
    ],
)
def test_a_damaged_bundle(tmp_path: Path, bindir: Path, damage: object, why: str) -> None:
    source = bundle(tmp_path / "new", "1.0")
    assert callable(damage)
    damage(tmp_path / "new")
    assert why in refused(source, bindir)


def test_a_folder_with_a_plugins_name(tmp_path: Path, bindir: Path) -> None:
    (bindir / "tap").mkdir()
    before = everything(bindir)
    with pytest.raises(IsADirectoryError, match="this folder has the name of a plugin"):
        install.install(bundle(tmp_path / "new", "1.0", (*NAMES, "tap")), str(bindir))
    assert everything(bindir) == before


def test_no_roll_back_to_what_does_not_run(tmp_path: Path, bindir: Path) -> None:
    install.install(bundle(tmp_path / "new", "1.0"), str(bindir))
    previous = bindir / install.STATE / "previous"
    (previous.resolve() / "cni").write_text("#!/bin/sh\nexit 5\n")
    with pytest.raises(preflight.UnfitError, match="`bridge` ended with status 5"):
        install.roll_back(str(bindir))
    assert says(bindir, "bridge") == "bridge 1.0"
    shutil.rmtree(previous.resolve())
    with pytest.raises(FileNotFoundError):
        install.roll_back(str(bindir))
    assert says(bindir, "bridge") == "bridge 1.0"


def test_roll_back_to_a_version_that_has_fewer_plugins(tmp_path: Path, bindir: Path) -> None:
    source = bundle(tmp_path / "new", "1.0", (*NAMES, "tap"))
    shutil.copy(tmp_path / "new/cni-runtime/cni", tmp_path / "new/cni-runtime/more")
    (tmp_path / "new/tap").unlink()
    (tmp_path / "new/tap").symlink_to("cni-runtime/more")
    install.install(source, str(bindir))
    assert install.roll_back(str(bindir)).startswith("0.9-")
    assert says(bindir, "bridge") == "bridge 0.9"


def pythons() -> list[str]:
    """Return this interpreter and the older ones that the machine has."""
    found = (shutil.which(f"python3.{minor}") for minor in range(6, 14))
    return [sys.executable, *(path for path in found if path)]


def test_the_script_in_the_bundle(tmp_path: Path) -> None:
    """Its two files are enough for it, whatever Python it is, and it does not change the bundle."""
    bundle(tmp_path / "new", "1.0")
    script = tmp_path / "new/cni-runtime/install.py"
    for name in ("install.py", "preflight.py"):
        shutil.copy(f"{ROOT}/cni_plugins/{name}", script.parent)
        ast.parse((script.parent / name).read_text(), feature_version=(3, 6))
    before = everything(tmp_path / "new")
    tried = 0
    for python in pythons():
        if subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode:
            continue  # a shim of a version manager, with no interpreter behind it
        bindir = tmp_path / f"bin{tried}"
        for options, wanted in (([], ": 1.0-"), (["--roll-back"], ": the plugins that were here before\n")):
            command = [python, str(script), *options, str(bindir)]
            done = subprocess.run(command, capture_output=True, check=False, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"{bindir}{wanted}")
        tried += 1
    assert tried
    assert everything(tmp_path / "new") == before


def test_the_command_says_why(tmp_path: Path, bindir: Path) -> None:
    source = with_program(tmp_path, "#!/bin/sh\nexit 5\n")
    for command in (
        ["-m", "cni_plugins.install", "--bundle", source, str(bindir)],
        ["-m", "flanneld", "install-cni", "--bundle", source, str(bindir)],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, check=False, text=True
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "/cni: `bridge` ended with status 5: it says nothing. Nothing was swapped" in done.stderr
        assert done.stderr.count("\n") == 1
