"""What programs of the bundles take from their caller's environment, and what they hand on."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from integration import bundles
from integration.dhcp import SOCKET, answers, ended
from integration.fleet import NETWORK, Fleet
from integration.node import PATH
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

CALLERS = {
    "LD_LIBRARY_PATH": "/caller/lib",
    "LD_LIBRARY_PATH_ORIG": "/caller/before",
    "LD_PRELOAD": "/caller/preload.so",
    "LANG": "de_DE.UTF-8",
    "LC_TIME": "C",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=1",
    "VIRTUAL_ENV": "/caller/venv",
    "_PYI_ARCHIVE_FILE": "/caller/program",
    "_PYI_PARENT_PROCESS_LEVEL": "1",
    "_MEIPASS2": "/caller/folder",
    "PYINSTALLER_RESET_ENVIRONMENT": "1",
    "_CNI_ASIDE_LANG": "C",
    "NOTHING": "",
}
"""What a caller may have set, with all that matters to a loader, a C library and PyInstaller's bootloader."""

NOTE = """#!{python} -IS
with open("/proc/self/environ", "rb") as source, open({path!r}, "wb") as target:
    target.write(source.read())
print({said!r})
"""


def note(node: Node, program: str, said: str) -> None:
    """Make a program that notes its environment in /run/NAME and prints something."""
    name = os.path.basename(program)
    os.makedirs(node.path(os.path.dirname(program)), exist_ok=True)
    with open(node.path(program), "w", encoding="utf-8") as file:
        file.write(NOTE.format(python=sys.executable, path=f"/run/{name}.noted", said=said))
    os.chmod(node.path(program), 0o755)


def noted(node: Node, name: str) -> dict[str, str]:
    """Return the environment that a program has noted."""
    with open(node.path(f"/run/{name}.noted"), "rb") as file:
        entries = file.read().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


@pytest.mark.parametrize("callers", [{}, CALLERS], ids=["none of these", "all of these"])
def test_a_plugin_gets_the_environment_of_cnictls_caller(node: Node, callers: dict[str, str]) -> None:
    folder = "/run/plugins"
    note(node, f"{folder}/shows", json.dumps({"cniVersion": "1.0.0"}))
    conf = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "shows"}]}
    with open(node.path("/run/n.conflist"), "w", encoding="utf-8") as file:
        json.dump(conf, file)
    node.netns("c1")
    given = {**callers, "CNI_PATH": folder, "NETCONFPATH": "/run", "PATH": PATH}
    node.run([f"{node.plugins}/cnictl", "add", "n", "/run/netns/c1"], given)
    got = noted(node, "shows")
    added = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH"}
    assert added <= set(got)
    ours = {name: value for name, value in got.items() if name not in {*added, "CNI_ARGS"}}
    assert ours == {name: value for name, value in given.items() if name != "CNI_PATH"}


@pytest.mark.parametrize("callers", [{}, CALLERS], ids=["none of these", "all of these"])
def test_a_program_that_doctor_asks_gets_the_environment_of_its_caller(
    node: Node, callers: dict[str, str]
) -> None:
    note(node, "/run/programs/ip", "[]")
    given = {**callers, "NETCONFPATH": "/run", "PATH": f"/run/programs:{PATH}"}
    node.run([f"{node.plugins}/cnictl", "doctor"], given, check=False)
    assert noted(node, "ip") == given


@pytest.mark.bundles
@pytest.mark.parametrize("name", ["cnictl", "dhcp"])
def test_a_nodes_libraries_and_locales_are_not_opened(node: Node, name: str) -> None:
    """Neither what the caller's variables name, nor what /etc/ld.so.preload does."""
    with open(node.path("/etc/ld.so.preload"), "w", encoding="ascii") as file:
        file.write("/caller/everywhere.so\n")
    assert b"everywhere.so" in node.run(["true"]).stderr  # so any other program reads it
    program, asked = {"cnictl": ("cnictl", "--version"), "dhcp": ("cni-runtime/dhcp-daemon", "--help")}[name]
    trace = ["strace", "-f", "-o", "/run/trace", "-e", "trace=open,openat,access,execve"]
    callers = [word for key, value in CALLERS.items() for word in ("-E", f"{key}={value}")]
    node.run([*trace, *callers, f"{node.plugins}/{program}", asked])
    with open(node.path("/run/trace"), encoding="utf-8", errors="replace") as file:
        calls = file.read()
    assert "/cni-runtime/lib/libc.so.6" in calls
    for foreign in ('"/lib', '"/usr/lib', "/caller/", "ld.so.cache", "ld.so.preload", "locale"):
        assert foreign not in calls


@pytest.mark.bundles
def test_the_dhcp_daemon_runs_on_files_of_the_bundle(node: Node) -> None:
    daemon = f"{node.plugins}/cni-runtime/dhcp-daemon"
    process = node.popen([daemon], env=CALLERS)
    until(lambda: answers(node, SOCKET))
    bundle = os.path.realpath(f"{node.plugins}/cni-runtime")
    assert bundles.foreign_files(process.pid, bundle) == set()
    with open(f"/proc/{process.pid}/comm", encoding="ascii") as file:
        assert file.read() == "dhcp-daemon\n"
    ended(process, kill=False)
    assert process.returncode == 0


@pytest.mark.bundles
def test_a_command_of_flannelds_extension_backend(suite_bin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets what the documentation promises and nothing else; the daemon runs on files of its bundle."""
    monkeypatch.setenv("FLANNELD", bundles.flanneld())
    command = "cat /proc/self/environ >/run/noted"
    backend = {"Type": "extension", "PreStartupCommand": command}
    with Fleet(suite_bin, {"Network": NETWORK, "Backend": backend}) as fleet:
        member = fleet.join(1, 11)
        member.start([f"--etcd-endpoints={fleet.etcd.url}"], CALLERS)
        with open(member.node.path("/run/noted"), "rb") as file:
            names = {entry.split(b"=")[0] for entry in file.read().split(b"\0") if entry}
        assert names <= {b"PATH", b"PWD", b"SHLVL", b"_"}
        assert member.daemon is not None
        bundle = os.path.dirname(os.path.realpath(bundles.flanneld()))
        assert bundles.foreign_files(member.daemon.pid, bundle) == set()
        with open(f"/proc/{member.daemon.pid}/comm", encoding="ascii") as file:
            assert file.read() == "flanneld\n"
        assert member.stop() == 0
