"""The image's files for arm64, laid out from Debian's packages and our bundles for it, run by qemu.

qemu's user mode has neither namespaces nor netlink's sockets for nftables, so programs only start and say
what they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import VERSION, preflight
from cni_plugins.multicall import MODULES
from integration.image.test_image import NOT_IN_IT, paths
from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(1200)]  # PyInstaller's programs start slowly there

PROBE = "import sys; sys.path.insert(0, sys.argv[1]); import arm64; from pathlib import Path\n"
PROBE += "print(arm64.emulate(Path(sys.argv[2]), *sys.argv[4:], env=dict([sys.argv[3].split('=')])), end='')"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm64") / "root"
    command = [sys.executable, f"{ROOT}/build/image.py", "--arch", "arm64", str(folder)]
    subprocess.run(command, check=True)
    return folder


def run(root: Path, *command: str, env: str = "HOME=/") -> str:
    """Run a program in the layout as its root, in namespaces where qemu is the handler of such programs."""
    probe = [sys.executable, "-c", PROBE, f"{ROOT}/build", str(root), env, *command]
    done = subprocess.run(probe, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_program_is_for_arm64_and_finds_its_libraries(root: Path) -> None:
    programs = 0
    for path in paths(str(root)):
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        machine = preflight.machine_of(path)
        assert machine in ("", "aarch64"), path
        name = path.removeprefix(str(root))
        if machine and name.startswith("/usr/") and "/ld-linux" not in name:
            run(root, "/lib/ld-linux-aarch64.so.1", "--list", name)
            programs += 1
    assert programs > 20
    assert not {os.path.basename(path) for path in paths(str(root))} & NOT_IN_IT


@pytest.mark.parametrize("name", ["iptables", "ip6tables"])
def test_iptables_starts(root: Path, name: str) -> None:
    assert run(root, f"/usr/sbin/{name}-legacy", "--version").startswith(f"{name} v1.8")


def test_the_daemon_starts(root: Path) -> None:
    assert run(root, "/opt/bin/flanneld", "install-conf", "--help").startswith("usage: flanneld install-conf")


def test_every_plugin_answers(root: Path) -> None:
    for name in MODULES:
        said = run(root, f"/opt/cni-plugins/{name}", env="CNI_COMMAND=VERSION")
        assert json.loads(said)["supportedVersions"][-1] == "1.1.0", name


def test_the_installer_takes_it_for_the_machines_own(root: Path) -> None:
    """As a node for arm64 does: qemu says that the machine is one."""
    said = run(root, "/opt/bin/install-cni", "/tmp/bin")
    assert said.startswith(f"/tmp/bin: {VERSION}-")
    assert set(MODULES) < set(os.listdir(root / "tmp/bin"))


def test_the_licences_are_there(root: Path) -> None:
    found = set(os.listdir(root / "usr/share/doc"))
    assert {"ca-certificates", "libc6", "nftables", "python-pydantic", "libpython3.11-dev"} <= found
