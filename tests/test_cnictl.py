from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import VERSION
from conflist.cache import Cache
from conflist.cnictl import cni_args, main
from integration import suite
from tests.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

NETNS = "/run/netns/c1"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}


class Setup:
    """Folders for cnictl: network lists, plugins, cache."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "net.d"
        self.config.mkdir()
        self.plugins = Recorder(folder / "bin", "one", "two")
        self.cache = str(folder / "cache")

    def network(self, name: str, *objects: dict[str, Any], version: str = "1.1.0") -> None:
        value = {"cniVersion": version, "name": name, "plugins": list(objects)}
        (self.config / f"{name}.conflist").write_text(json.dumps(value))

    def run(self, *argv: str) -> int:
        return main([argv[0], "--cache-dir", self.cache, *argv[1:]])


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    made = Setup(tmp_path)
    made.network("net", {"type": "one", "capabilities": {"portMappings": True}}, {"type": "two"})
    monkeypatch.setenv("NETCONFPATH", str(made.config))
    monkeypatch.setenv("CNI_PATH", f":{made.plugins.folder}")
    for name in ("CNI_ARGS", "CAP_ARGS", "CNI_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_add_check_delete(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.run("add", "net", NETNS) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {"cniVersion": "1.1.0", "interfaces": [{"name": "one"}, {"name": "two"}]}
    container = f"cnitool-{hashlib.sha512(NETNS.encode()).hexdigest()[:20]}"
    env = setup.plugins.calls()[0]["env"]
    assert (env["CNI_CONTAINERID"], env["CNI_IFNAME"], env["CNI_NETNS"]) == (container, "eth0", NETNS)
    assert os.listdir(os.path.join(setup.cache, "results")) == [f"net-{container}-eth0"]
    assert setup.run("check", "net", NETNS) == 0
    assert setup.run("del", "net", NETNS) == 0
    assert capsys.readouterr() == ("", "")
    assert [verb for verb, _name in setup.plugins.order()] == ["ADD", "ADD", "CHECK", "CHECK", "DEL", "DEL"]
    assert Cache(setup.cache).attachments() == []


def test_variables(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNI_ARGS", "IgnoreUnknown=1;IP=10.1.0.9")
    monkeypatch.setenv("CAP_ARGS", json.dumps(PORTS))
    monkeypatch.setenv("CNI_IFNAME", "net7")
    assert setup.run("add", "net", "c1") == 0
    first, second = setup.plugins.calls()
    assert first["env"]["CNI_ARGS"] == "IgnoreUnknown=1;IP=10.1.0.9"
    assert first["env"]["CNI_IFNAME"] == "net7"
    assert first["env"]["CNI_NETNS"] == os.path.abspath("c1")
    assert first["conf"]["runtimeConfig"] == PORTS
    assert "runtimeConfig" not in second["conf"]
    (cached,) = Cache(setup.cache).attachments()
    assert cached.args == [("IgnoreUnknown", "1"), ("IP", "10.1.0.9")]
    assert cached.capabilities == PORTS


def test_options_go_before_variables(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNI_IFNAME", "net7")
    assert setup.run("add", "-i", "net8", "--container-id", "pod", "net", NETNS) == 0
    env = setup.plugins.calls()[0]["env"]
    assert (env["CNI_IFNAME"], env["CNI_CONTAINERID"]) == ("net8", "pod")


def test_a_failure_for_people(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": 102, "msg": "no address left", "details": "make the range larger"}
    setup.network("net", {"type": "one"}, {"type": "two", "do": {"ADD": {"error": error, "stderr": "hm\n"}}})
    assert setup.run("add", "net", NETNS) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "hm",
        "cnictl: add net: plugin two (2 of 2) failed on ADD: no address left",
        "    make the range larger",
        "    code 102",
        f"    Undo what was made before that: cnictl del net {NETNS} --cache-dir {setup.cache}",
    ]


def test_the_command_that_undoes_an_add_names_the_same_attachment(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = {"do": {"ADD": {"error": {"code": 102, "msg": "no address left"}}}}
    setup.network("net", {"type": "one"}, {"type": "two", **failing})
    assert setup.run("add", "-i", "net1", "--container-id", "pod", "net", NETNS) == 1
    undo = capsys.readouterr().err.splitlines()[-1].partition(": cnictl ")[2]
    assert main(undo.split()) == 0
    env = setup.plugins.calls()[-1]["env"]
    assert (env["CNI_COMMAND"], env["CNI_CONTAINERID"], env["CNI_IFNAME"]) == ("DEL", "pod", "net1")


def test_nothing_is_to_be_undone_when_the_first_plugin_fails(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = {"do": {"ADD": {"error": {"code": 107, "msg": "already attached"}}}}
    setup.network("net", {"type": "one", **failing}, {"type": "two"})
    assert setup.run("add", "net", NETNS) == 1
    # A DEL would end the attachment that is there.
    assert "cnictl del" not in capsys.readouterr().err


def test_what_a_killed_plugin_made_is_to_be_undone(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup.plugins.program("slow", "#!/bin/sh\nexec sleep 9\n")
    setup.network("net", {"type": "slow"})
    assert setup.run("add", "--timeout", "0.1", "net", NETNS) == 1
    said = capsys.readouterr().err
    assert "`lslocks` shows who holds one" in said
    assert f": cnictl del net {NETNS} --cache-dir {setup.cache}" in said


def test_a_list_that_is_not_json_is_one_for_lint(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    path = setup.config / "00.conflist"
    path.write_text("{")
    assert setup.run("add", "net", NETNS) == 1
    assert f"    `cnictl lint {path}` shows the place" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("command", "said"), [("schema", "JSON Schema of a list"), ("list", "NETCONFPATH")])
def test_names_keep_their_capitals_in_the_help(
    setup: Setup, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert said in capsys.readouterr().out


def test_gc(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    for container in ("a", "b"):
        setup.run("add", "--container-id", container, "net", NETNS)
    assert setup.run("gc", "net", NETNS, "--valid", "b/eth0") == 0
    assert [found.container_id for found in Cache(setup.cache).attachments()] == ["b"]
    assert setup.plugins.calls()[-1]["conf"]["cni.dev/valid-attachments"] == [
        {"containerID": "b", "ifname": "eth0"}
    ]
    assert setup.run("gc", "net") == 0
    assert Cache(setup.cache).attachments() == []
    assert setup.run("gc", "net", "--valid", "b") == 1
    assert "write CONTAINER-ID/IFNAME" in capsys.readouterr().err


def test_gc_prints_every_error(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    left = {"GC": {"error": {"code": 104, "msg": "left"}}}
    setup.network("net", {"type": "one", "do": left}, {"type": "two", "do": left})
    assert setup.run("gc", "net") == 1
    assert capsys.readouterr().err.count("left") == 2


def test_status(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.run("status", "net", NETNS) == 0
    assert setup.run("status", "net") == 0
    setup.network("net", {"type": "one", "do": {"STATUS": {"error": {"code": 50, "msg": "not yet"}}}})
    assert setup.run("status", "net") == 1
    assert "code 50" in capsys.readouterr().err


def test_a_status_that_nobody_is_asked_for(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup.network("net", {"type": "one"}, version="1.0.0")
    assert setup.run("status", "net") == 0
    assert "its cniVersion is 1.0.0, and STATUS came with 1.1.0" in capsys.readouterr().err
    assert setup.plugins.calls() == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CAP_ARGS", "[]", "CAP_ARGS must be a JSON object"),
        ("CAP_ARGS", "{", "CAP_ARGS is not JSON"),
        ("CNI_ARGS", "a", "invalid CNI_ARGS pair 'a'"),
        ("CNI_ARGS", "=a", "invalid CNI_ARGS pair '=a'"),
        ("CNI_PATH", "/none", "/none/one: No such file or directory"),
        ("NETCONFPATH", "/none", "no configuration is there"),
        ("CNI_IFNAME", "a b", "interface name 'a b' contains"),
    ],
)
def test_wrong_variables(
    setup: Setup,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert setup.run("add", "net", NETNS) == 1
    assert message in capsys.readouterr().err
    assert setup.plugins.calls() == []


def test_a_cache_that_cannot_be_written(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", "--cache-dir", "/proc/none", "net", NETNS]) == 1
    assert capsys.readouterr().err.startswith("cnictl: /proc/none")


def test_pairs() -> None:
    assert cni_args("") == []
    assert cni_args("A=1;B=x=y;") == [("A", "1"), ("B", "x=y")]


def test_list(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "NETWORK  VERSION  PLUGINS  FILE",
        f"net      1.1.0    one,two  {setup.config}/net.conflist",
    ]


def test_lint(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 0
    assert capsys.readouterr().out == "1 file: 0 errors, 0 warnings\n"
    setup.network("bad", {"type": "three"})
    file = str(setup.config / "bad.conflist")
    assert main(["lint", file]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{file}:1:")
    assert ": error: no plugin 'three' in" in said
    assert main(["lint", "--json", file]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["file"], found["line"], found["severity"]) == (file, 1, "error")


def test_lint_warnings_are_no_failure(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup.network("net", {"type": "one", "name": "other"})
    assert main(["lint"]) == 0
    assert "1 warning" in capsys.readouterr().out


def test_lint_of_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETCONFPATH", str(setup.plugins.folder))
    assert main(["lint"]) == 1
    assert "no network configuration in" in capsys.readouterr().err


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "plugins" in json.loads(capsys.readouterr().out)["properties"]
    assert main(["schema", "host-local"]) == 0
    assert "ranges" in json.loads(capsys.readouterr().out)["properties"]
    assert main(["schema", "nope"]) == 1
    assert "known are: bandwidth, bridge" in capsys.readouterr().err


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"cnictl {VERSION} (CNI 0.1.0")
    for argv in ([], ["add", "net"], ["nope"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2


def test_as_a_program_it_starts_light(setup: Setup) -> None:
    """Running a network must not wait for what only the linter needs."""
    heavy = {"dataclasses", "hashlib", "json", "pydantic", "subprocess", "typing"}
    script = f"""
import sys
sys.path.insert(0, {suite.ROOT!r})
from conflist.cnictl import main
status = main(["status", "net"])
print({heavy} & set(sys.modules))
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"set()\n")


def test_module_entry_and_a_reader_that_leaves(setup: Setup) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m conflist schema | head -c 1"],
        cwd=suite.ROOT,
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"{", b"")
