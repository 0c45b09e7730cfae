"""Running one plugin: what it may answer, how it may fail, and what is looked for."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cni_plugins.spec.errors import (
    InvalidConfigError,
)
from conflist.invoke import PluginError, PluginNotFoundError
from conflist.run import CollectedError, Runner
from tests.runs import c1, network

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder import Recorder


def test_a_result_without_version_gets_the_lists(runner: Runner) -> None:
    answer = json.dumps({"ips": [{"version": "4", "address": "10.0.0.1/8"}]})
    net = network({"type": "one", "do": {"ADD": {"print": answer}}}, version="0.3.1")
    assert runner.add(net, c1())["cniVersion"] == "0.3.1"


@pytest.mark.parametrize(
    ("answer", "code"),
    [("", 6), ("{", 6), ("[]", 7), ('{"cniVersion": "7.0.0"}', 1), ('{"ips": [{"address": 1}]}', 7)],
)
def test_a_result_that_is_none(runner: Runner, answer: str, code: int) -> None:
    with pytest.raises(PluginError) as caught:
        runner.add(network({"type": "one", "do": {"ADD": {"print": answer}}}), c1())
    assert (caught.value.code, caught.value.position) == (code, 1)


def test_a_failure_without_an_error_object_has_what_was_printed(runner: Runner) -> None:
    with pytest.raises(PluginError) as caught:
        runner.add(
            network({"type": "one", "do": {"ADD": {"stderr": "oh\n", "print": "x", "status": 2}}}), c1()
        )
    assert (caught.value.code, caught.value.details, caught.value.stderr) == (999, "oh", b"oh\n")


def test_stderr_is_forwarded_when_asked(plugins: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    net = network({"type": "one", "do": {"ADD": {"stderr": "note\n"}}})
    Runner([str(plugins.folder)]).add(net, c1())
    assert capsys.readouterr().err == ""
    Runner([str(plugins.folder)], forward_stderr=True).add(net, c1())
    assert capsys.readouterr().err == "note\n"


def test_a_missing_plugin_tells_where_it_looked(tmp_path: Path, plugins: Recorder) -> None:
    (plugins.folder / "plain").write_text("")
    (plugins.folder / "folder").mkdir()
    runner = Runner([str(tmp_path / "none"), "", str(plugins.folder)])
    for name, reason in (
        ("absent", "absent: No such file or directory"),
        ("plain", "not executable"),
        ("folder", "not a file"),
    ):
        with pytest.raises(PluginNotFoundError) as caught:
            runner.add(network("one", name), c1())
        assert str(tmp_path / "none" / name) in caught.value.details
        assert reason in caught.value.details
        assert caught.value.position == 2
        assert str(caught.value).startswith(f"failed to find plugin {name!r} in path")
    with pytest.raises(PluginNotFoundError) as caught:
        Runner([]).add(network("one"), c1())
    assert "CNI_PATH" in caught.value.details


@pytest.mark.parametrize("kind", ["../one", "", ".", ".."])
def test_a_type_is_no_path(runner: Runner, kind: str) -> None:
    with pytest.raises(InvalidConfigError):
        runner.add(network(kind), c1())


@pytest.mark.parametrize(
    ("name", "program", "seconds", "reason"),
    [
        ("flood", "/bin/sh\nexec cat /dev/zero", 60, "printed more than 100000 bytes"),
        ("hang", "/bin/sh\nexec sleep 600", 0.3, "did not end within 0.3 s"),
        ("chatter", "/bin/sh\nexec cat /dev/zero >&2", 0.3, "did not end within 0.3 s"),
        ("broken", "/no/such/interpreter", 60, "No such file"),
    ],
)
def test_limits(plugins: Recorder, name: str, program: str, seconds: float, reason: str) -> None:
    plugins.program(name, f"#!{program}\n")
    with pytest.raises(PluginError, match=reason) as caught:
        Runner([str(plugins.folder)], limit=100_000, timeout=seconds).add(network(name), c1())
    assert (caught.value.plugin, caught.value.position) == (name, 1)


def test_a_child_that_stays_is_not_waited_for(plugins: Recorder) -> None:
    """It holds the plugin's standard output open, and cannot end while the test holds the fifo open."""
    fifo = plugins.folder / "fifo"
    os.mkfifo(fifo)
    plugins.program("daemon", f"#!/bin/sh\nexec 3<'{fifo}'\ncat <&3 &\necho '{{}}'\n")
    held = os.open(fifo, os.O_RDWR)
    try:
        answer = Runner([str(plugins.folder)], timeout=60).add(network("daemon"), c1())
        assert answer == {"cniVersion": "1.1.0"}
    finally:
        os.close(held)


def test_what_is_left_in_the_pipe_is_read(plugins: Recorder) -> None:
    plugins.program("loud", "#!/bin/sh\nhead -c 60000 /dev/zero >&2\nhead -c 60000 /dev/zero\nexit 1\n")
    with pytest.raises(PluginError) as caught:
        Runner([str(plugins.folder)]).add(network("loud"), c1())
    assert caught.value.stderr == bytes(60000)
    with pytest.raises(PluginError, match="printed more than 59999 bytes"):
        Runner([str(plugins.folder)], limit=59999).add(network("loud"), c1())


def test_killed_plugin(plugins: Recorder) -> None:
    plugins.program("dies", "#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(PluginError, match="it was killed by signal 9"):
        Runner([str(plugins.folder)]).add(network("dies"), c1())


def test_no_descriptor_is_left(runner: Runner) -> None:
    before = os.listdir("/proc/self/fd")
    runner.status(network("one", "two"))
    with pytest.raises(PluginError):
        runner.status(network({"type": "one", "do": {"STATUS": {"status": 1}}}))
    assert os.listdir("/proc/self/fd") == before


def test_versions_and_validation(runner: Runner, plugins: Recorder) -> None:
    plugins.program("old", '#!/bin/sh\necho \'{"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}\'\nexit 1\n')
    plugins.program("odd", "#!/bin/sh\necho '{\"supportedVersions\": 1}'\n")
    plugins.program("mute", "#!/bin/sh\n")
    assert runner.plugins.versions("one") == ["0.4.0", "1.0.0", "1.1.0"]
    assert runner.plugins.versions("old") == ["0.1.0"]
    for name in ("odd", "mute"):
        with pytest.raises(PluginError):
            runner.plugins.versions(name)
    net = network({"type": "one", "capabilities": {"ips": True, "mac": False}}, "two")
    assert runner.validate(net) == {"ips"}
    with pytest.raises(CollectedError) as caught:
        runner.validate(network("one", "old", "gone"))
    assert len(caught.value.errors) == 2
