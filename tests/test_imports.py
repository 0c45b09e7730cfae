"""The import budget of the hot path (docs/design.md): what a process has loaded when its call is done."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins.multicall import MODULES
from integration.suite import ROOT
from tests.calls import VERBS, host_local, variables

if TYPE_CHECKING:
    from pathlib import Path

FORBIDDEN = {
    "asyncio",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "enum",
    "functools",
    "importlib",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "netaddr",
    "os",
    "pathlib",
    "pydantic",
    "pydantic_core",
    "pyroute2",
    "re",
    "socket",
    "ssl",
    "struct",
    "subprocess",
    "typing",
}
OURS = ("cni_plugins", "ipam", "__future__")

# What multicall.main does, then the list: its own last act is to end the process without one.
SCRIPT = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {ROOT!r})
import posix
from cni_plugins import multicall
from cni_plugins.spec import skel
if len(sys.argv) > 3:
    from cni_plugins.kernel import notes
    notes.FOLDER = sys.argv[3]
plugin = multicall.lookup(sys.argv[1])
skel.register_local(sys.argv[2], multicall.lookup)
env = {{key.decode(): value.decode() for key, value in posix.environ.items()}}
status = skel.main(sys.argv[1], lambda _name: plugin, env)
for name in sorted(set(sys.modules) - before):
    file = getattr(sys.modules[name], "__file__", None) or ""
    sys.stderr.write(f"{{name}} {{file}}\\n")
posix._exit(status)
"""


def loaded(name: str, env: dict[str, str], stdin: bytes, *folder: str) -> tuple[int, bytes, dict[str, str]]:
    """Return a call's status and answer, and the modules it loaded with their files.

    Args:
        name: the plugin.
        env: its environment.
        stdin: its configuration.
        folder: for its notes in place of the machine's; their module is loaded in any case, then.
    """
    done = subprocess.run(
        [sys.executable, "-IS", "-c", SCRIPT, name, f"{env['CNI_PATH']}/.suite", *folder],
        env=env,
        input=stdin,
        capture_output=True,
        check=False,
    )
    lines = done.stderr.decode().splitlines()
    return done.returncode, done.stdout, {line.split()[0]: line.partition(" ")[2] for line in lines}


def heavy(modules: dict[str, str]) -> list[str]:
    """Return modules of Python code that are not ours, and what is forbidden by name."""
    return [
        name
        for name, file in modules.items()
        if name.partition(".")[0] in FORBIDDEN
        or (name.partition(".")[0] not in OURS and file.endswith((".py", ".pyc")))
    ]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", MODULES)
def test_import_budget(name: str, verb: str, suite_bin: str, tmp_path: Path) -> None:
    raw = host_local(tmp_path)
    if verb == "ADD" and name != "portmap":
        del raw["prevResult"]
    _status, _output, modules = loaded(
        name, variables(verb, suite_bin), json.dumps(raw).encode(), str(tmp_path)
    )
    assert MODULES[name] in modules
    assert heavy(modules) == []
    assert "cni_plugins.config" in modules, "only the compiled models are read"
    assert not [each for each in modules if each.startswith("cni_plugins.config.") and "compiled" not in each]


def test_import_budget_of_an_address(suite_bin: str, tmp_path: Path) -> None:
    status, output, modules = loaded(
        "host-local", variables("ADD", suite_bin), json.dumps(host_local(tmp_path)).encode()
    )
    assert (status, b"10.1.2.2/24" in output) == (0, True)
    assert heavy(modules) == []
    assert not [name for name in modules if name.startswith("cni_plugins.rules")]


def test_import_budget_of_a_delegation(suite_bin: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    raw = {
        **host_local(tmp_path),
        "type": "flannel",
        "subnetFile": str(tmp_path / "env"),
        "dataDir": str(tmp_path / "notes"),
        "delegate": {"type": "host-local"},
        "ipam": {"dataDir": str(tmp_path / "data")},
    }
    status, output, modules = loaded("flannel", variables("ADD", suite_bin), json.dumps(raw).encode())
    assert (status, b"10.1.2.2/24" in output) == (0, True), output
    assert heavy(modules) == []
    assert "ipam.host_local.plugin" in modules


def test_what_a_delete_without_masquerade_leaves_unloaded(suite_bin: str, tmp_path: Path) -> None:
    """It asks for notes of options that were on, and no more."""
    raw = {**host_local(tmp_path), "type": "bridge"}
    env = variables("DEL", suite_bin, containerid="c-without-notes")
    status, output, modules = loaded("bridge", env, json.dumps(raw).encode())
    assert (status, output) == (0, b"")
    assert "cni_plugins.kernel.notes" in modules
    for name in ("attach.masquerade", "attach.spoofcheck", "kernel.nft", "kernel.nftprobe"):
        assert f"cni_plugins.{name}" not in modules


def test_the_budget_is_noticed(suite_bin: str, tmp_path: Path) -> None:
    """Text that is no JSON may cost the error's own module, which is what these tests look for."""
    _status, _output, modules = loaded("loopback", variables("STATUS", suite_bin), b'{"a" 1}')
    assert "json.decoder" in heavy(modules)
