from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import install
from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("bridge", "loopback")
ANSWER = '{"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}'


def bundle(folder: Path, version: str, names: tuple[str, ...] = NAMES) -> str:
    """Make what the build makes: a runtime folder, and names that lead to its executable."""
    runtime = folder / "cni-runtime"
    (runtime / "lib").mkdir(parents=True)
    (runtime / "VERSION").write_text(version + "\n")
    program = runtime / "cni"
    program.write_text(f"""#!/bin/sh
case "$CNI_COMMAND" in
    VERSION) echo '{ANSWER}' ;;
    *) echo "${{0##*/}} {version}" ;;
esac
""")
    os.chmod(program, 0o755)
    os.symlink("../cni", runtime / "lib" / "link")
    for name in names:
        os.symlink("cni-runtime/cni", folder / name)
    (folder / ".built").write_text("")
    return str(folder)


def says(bindir: Path, name: str) -> str:
    return subprocess.run([bindir / name], capture_output=True, check=True, text=True).stdout.strip()


def versions(bindir: Path) -> list[str]:
    state = bindir / install.STATE
    return sorted(entry.name for entry in os.scandir(state) if entry.is_dir(follow_symlinks=False))


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    return tmp_path / "opt" / "cni" / "bin"


def test_first_installation(tmp_path: Path, bindir: Path) -> None:
    version = install.install(bundle(tmp_path / "a", "1.0"), str(bindir))
    assert re.fullmatch(r"1\.0-[0-9a-f]{12}", version)
    assert sorted(os.listdir(bindir)) == [install.STATE, *NAMES]
    for name in NAMES:
        assert os.readlink(bindir / name) == f"{install.STATE}/current/cni"
        assert says(bindir, name) == f"{name} 1.0"
    assert versions(bindir) == [version]
    assert not os.path.lexists(bindir / install.STATE / "previous")
    assert os.stat(bindir).st_mode & 0o777 == 0o755


def test_upgrades_keep_one_version_to_return_to(tmp_path: Path, bindir: Path) -> None:
    made = [install.install(bundle(tmp_path / v, v), str(bindir)) for v in ("1.0", "2.0", "3.0")]
    assert says(bindir, "bridge") == "bridge 3.0"
    assert versions(bindir) == made[1:]
    assert install.roll_back(str(bindir)) == made[1]
    assert says(bindir, "bridge") == "bridge 2.0"
    assert install.roll_back(str(bindir)) == made[2]
    assert says(bindir, "bridge") == "bridge 3.0"


def test_the_same_again_changes_nothing(tmp_path: Path, bindir: Path) -> None:
    install.install(bundle(tmp_path / "a", "1.0"), str(bindir))
    second = install.install(bundle(tmp_path / "b", "2.0"), str(bindir))

    def state() -> list[tuple[str, int]]:
        return sorted(
            (path, os.lstat(f"{path}/{name}").st_ino)
            for path, folders, files in os.walk(bindir)
            for name in [*folders, *files]
        )

    before = state()
    assert install.install(str(tmp_path / "b"), str(bindir)) == second
    assert state() == before


def test_a_changed_bundle_of_the_same_version_is_another(tmp_path: Path, bindir: Path) -> None:
    first = install.install(bundle(tmp_path / "a", "1.0"), str(bindir))
    bundle(tmp_path / "b", "1.0")
    (tmp_path / "b" / "cni-runtime" / "lib" / "more").write_text("")
    assert install.install(str(tmp_path / "b"), str(bindir)) != first


def test_what_was_there_before_comes_back(tmp_path: Path, bindir: Path) -> None:
    bindir.mkdir(parents=True)
    (bindir / "bridge").write_text("#!/bin/sh\necho Go\n")
    os.chmod(bindir / "bridge", 0o755)
    os.symlink("bridge", bindir / "loopback")
    (bindir / "vlan").write_text("not ours")
    install.install(bundle(tmp_path / "a", "1.0", (*NAMES, "portmap")), str(bindir))
    assert says(bindir, "bridge") == "bridge 1.0"
    assert (bindir / "vlan").read_text() == "not ours"
    assert install.roll_back(str(bindir)) == "the plugins that were here before"
    assert sorted(os.listdir(bindir)) == ["bridge", "loopback", "vlan"]
    assert says(bindir, "bridge") == "Go"
    assert os.readlink(bindir / "loopback") == "bridge"
    with pytest.raises(FileNotFoundError, match="nothing to roll back"):
        install.roll_back(str(bindir))


def replaced(tmp_path: Path, bindir: Path) -> None:
    """Install over somebody else's plugin, and take ours away again."""
    bindir.mkdir(parents=True)
    (bindir / "bridge").write_text("before")
    install.install(bundle(tmp_path / "a", "1.0"), str(bindir))
    os.unlink(bindir / "bridge")


def test_what_was_there_before_comes_back_even_if_its_name_is_gone(tmp_path: Path, bindir: Path) -> None:
    replaced(tmp_path, bindir)
    install.roll_back(str(bindir))
    assert (bindir / "bridge").read_text() == "before"


def test_what_somebody_installed_over_us_stays(tmp_path: Path, bindir: Path) -> None:
    replaced(tmp_path, bindir)
    (bindir / "bridge").write_text("over us")
    install.roll_back(str(bindir))
    assert (bindir / "bridge").read_text() == "over us"


def test_installing_again_over_what_was_installed_over_us(tmp_path: Path, bindir: Path) -> None:
    replaced(tmp_path, bindir)
    (bindir / "bridge").write_text("second")
    install.install(str(tmp_path / "a"), str(bindir))
    assert says(bindir, "bridge") == "bridge 1.0"
    install.roll_back(str(bindir))
    assert (bindir / "bridge").read_text() == "second"


def test_leftovers_of_a_killed_installer(tmp_path: Path, bindir: Path) -> None:
    """In a container every installer has the same process id, so that its names are taken."""
    state = bindir / install.STATE
    state.mkdir(parents=True)
    source = bundle(tmp_path / "a", "1.0")
    version = f"1.0-{install._digest(f'{source}/cni-runtime', plan=True)[:12]}"
    (state / f"{version}.{os.getpid()}.new" / "lib").mkdir(parents=True)
    (state / "0.9-000000000000.1.new").mkdir()
    os.symlink("x", state / f"current.{os.getpid()}.new")
    os.symlink("x", bindir / f"bridge.{os.getpid()}.new")
    assert install.install(source, str(bindir)) == version
    assert says(bindir, "bridge") == "bridge 1.0"
    assert sorted(os.listdir(bindir)) == [install.STATE, *NAMES]
    assert sorted(os.listdir(state)) == [version, "current"]


def test_a_failure_leaves_the_old_version_serving(tmp_path: Path, bindir: Path) -> None:
    first = install.install(bundle(tmp_path / "a", "1.0"), str(bindir))
    os.unlink(tmp_path / "a" / "cni-runtime" / "VERSION")
    with pytest.raises(OSError, match="VERSION"):
        install.install(str(tmp_path / "a"), str(bindir))
    assert says(bindir, "bridge") == "bridge 1.0"
    assert versions(bindir) == [first]


def test_a_name_is_never_missing_during_an_upgrade(tmp_path: Path, bindir: Path) -> None:
    """Every name leads to a whole program of the old or the new version at any moment."""
    sources = [bundle(tmp_path / v, v) for v in ("1.0", "2.0")]
    install.install(sources[0], str(bindir))
    script = (
        f"import sys; sys.path.insert(0, {ROOT!r})\nfrom cni_plugins.install import install\n"
        f"for turn in range(60): install({sources!r}[turn % 2], {str(bindir)!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as installer:
        calls = 0
        while installer.poll() is None:
            assert says(bindir, "bridge") in ("bridge 1.0", "bridge 2.0")
            calls += 1
    assert installer.returncode == 0
    assert calls > 5


def test_the_command(tmp_path: Path, bindir: Path) -> None:
    source = bundle(tmp_path / "a", "1.0")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cni_plugins.install", *arguments, str(bindir)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)

    done = run("--bundle", source)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{bindir}: 1.0-")
    done = run("--roll-back")
    assert (done.returncode, done.stdout) == (0, f"{bindir}: the plugins that were here before\n")
    done = run("--roll-back")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing to roll back" in done.stderr
    done = run("--bundle", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/none: No such file or directory\n"
