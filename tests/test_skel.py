"""The skeleton in this process: what `serve` refuses, and how every failure leaves `main`."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import VERSION
from cni_plugins.spec import errors, skel
from cni_plugins.spec.codec import MAX_BYTES
from cni_plugins.spec.errors import CNIError, NamespaceError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Result
from tests.calls import VERBS, VERSIONS, variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni_plugins.spec.request import Request

OWN = "/proc/self/ns/net"


class Trial:
    """A plugin that notes its calls, and fails as it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.calls: list[tuple[str, Request]] = []
        noted = {verb.lower(): self.noting(verb) for verb in ("CHECK", "STATUS", "GC")}
        self.plugin = Plugin("trial", "NetConf", add=self.add, delete=self.noting("DEL"), **noted)

    def add(self, request: Request) -> Result:
        self.noting("ADD")(request)
        result = Result.from_json({"ips": [{"address": "10.1.2.3/24"}]}, "1.1.0")
        return request.prev_result or result

    def noting(self, verb: str) -> Any:
        def note(request: Request) -> None:
            self.calls.append((verb, request))
            if self.failure is not None:
                raise self.failure

        return note


def conf(**changes: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "type": "trial", "prevResult": {}, **changes}


@contextmanager
def standard_input(data: bytes, folder: Path) -> Iterator[None]:
    path = folder / "stdin"
    path.write_bytes(data)
    saved, given = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(given, 0)
    os.close(given)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


class Console:
    """Runs `main` on this process's own descriptors."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capfd = capfd
        self.err = ""

    def main(self, trial: Trial, env: dict[str, str], stdin: bytes | dict[str, Any]) -> tuple[int, Any]:
        data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
        with standard_input(data, self.folder):
            status = skel.main(trial.plugin.name, lambda _name: trial.plugin, env)
        out, self.err = self.capfd.readouterr()
        assert not out.endswith("\n")
        return status, json.loads(out) if out else None


@pytest.fixture
def console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Console:
    return Console(tmp_path, capfd)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "VERSION"])
def test_each_verb_reaches_its_function(verb: str, console: Console) -> None:
    trial = Trial()
    status, output = console.main(trial, variables(verb, "/bin"), conf())
    assert status == 0
    assert output == ({"cniVersion": "1.1.0"} if verb == "ADD" else None), "only ADD answers (section 2)"
    ((called, request),) = trial.calls
    assert called == request.command == verb
    assert request.conf.name == request.network == "net"
    assert request.raw["type"] == "trial"


@pytest.mark.parametrize("version", VERSIONS)
def test_add_answers_in_the_configurations_version(version: str, console: Console) -> None:
    raw = conf(cniVersion=version)
    del raw["prevResult"]
    status, output = console.main(Trial(), variables("ADD", "/bin"), raw)
    assert status == 0
    assert output["cniVersion"] == version
    assert json.dumps(output).count("10.1.2.3/24") == 1


@pytest.mark.parametrize(
    ("stdin", "asked"),
    [
        (b"", "1.1.0"),
        (b"  \n", "1.1.0"),
        (b'{"cniVersion": "0.2.0"}', "0.2.0"),
        (b'{"cniVersion": "7.0.0"}', "7.0.0"),
        (b"{}", "0.1.0"),
        (b"{", "1.1.0"),
        (b"[]", "1.1.0"),
        (b'{"cniVersion": 1}', "1.1.0"),
    ],
)
def test_version_always_answers(stdin: bytes, asked: str, console: Console) -> None:
    """Section 2, "VERSION": cniVersion as given."""
    status, output = console.main(Trial(), {"CNI_COMMAND": "VERSION"}, stdin)
    assert status == 0
    assert output == {"cniVersion": asked, "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
def test_without_a_command_it_says_what_it_is(env: dict[str, str], console: Console) -> None:
    assert console.main(Trial(), env, b"") == (1, None)
    assert console.err == (
        f"CNI trial plugin v{VERSION}\nCNI protocol versions supported: {', '.join(VERSIONS)}\n"
    )


@pytest.mark.parametrize(
    ("failure", "code", "msg", "details"),
    [
        (errors.TryAgainLaterError("not yet", "wait"), 11, "not yet", "wait"),
        (CNIError("a delegate's", "own", code=77), 77, "a delegate's", "own"),
        (
            OSError(errno.EPERM, "Operation not permitted"),
            100,
            "Operation not permitted",
            "errno 1: let the plugins run as root, with CAP_NET_ADMIN",
        ),
        (FileNotFoundError(errno.ENOENT, "None", "/a"), 100, "failed to use a file: None (/a)", "errno 2"),
        (OSError("no number"), 100, "no number", None),
        (RecursionError("maximum"), 6, "the network configuration is nested too deeply", None),
    ],
)
def test_failures(failure: Exception, code: int, msg: str, details: str | None, console: Console) -> None:
    for version in VERSIONS:
        raw = conf(cniVersion=version)
        status, output = console.main(Trial(failure), variables("ADD", "/bin"), raw)
        expected = {"cniVersion": version, "code": code, "msg": msg}
        assert (status, output) == (1, {**expected, "details": details} if details else expected)
        assert console.err == ""


def test_what_was_being_done_goes_before_the_kernels_words() -> None:
    error = OSError(errno.EEXIST, "File exists: already there")
    error.add_note("failed to add address 10.0.0.1/24 to link 3")
    error.add_note("while doing something larger")
    seen = skel.as_cni_error(error)
    assert seen.msg == "failed to add address 10.0.0.1/24 to link 3: File exists: already there"
    assert (seen.code, seen.details) == (100, "errno 17")


def test_a_file_is_named_once() -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/run/netns/a")
    error.add_note("failed to open netns '/run/netns/a'")
    assert skel.as_cni_error(error).msg == "failed to open netns '/run/netns/a': No such file or directory"


def test_a_fault_of_our_own_is_code_999_with_its_place(console: Console) -> None:
    status, output = console.main(Trial(KeyError("x")), variables("DEL", "/bin"), conf())
    assert (status, output["code"]) == (1, 999)
    assert output["msg"] == "internal error: KeyError: 'x'"
    assert __file__ in output["details"]
    assert skel.as_cni_error(ValueError("y")).details == "a fault in the plugin; please report it"


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"", 6),
        (b"\xff", 6),
        (b"[]", 6),
        (b'"text"', 6),
        (b"null", 6),
        (b'{"cniVersion": 1, "name": "net"}', 6),
        (b'{"cniVersion": "1.1.0", "name": 1}', 6),
        (b'{"cniVersion": "1.1.0"}', 7),
        (b'{"cniVersion": "1.1.0", "name": "net", "dns": []}', 7),
        (b'{"cniVersion": "1.1.0", "name": "net", "prevResult": []}', 7),
        (b'{"cniVersion": "1.1.0", "name": "net", "prevResult": {"cniVersion": "3"}}', 1),
        (b'{"cniVersion": "9.0.0", "name": "net"}', 1),
        (b'{"name": "net", "dns": []}', 7),
        (b" " * (MAX_BYTES + 70_000), 6),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else None,
)
def test_standard_input_is_judged_before_the_plugin_is_called(
    stdin: bytes, code: int, console: Console
) -> None:
    trial = Trial()
    status, output = console.main(trial, variables("ADD", "/bin"), stdin)
    assert (status, output["code"], trial.calls) == (1, code, [])
    assert output["cniVersion"] == ("0.1.0" if stdin.startswith(b'{"name"') else "1.1.0")


def test_the_environment_is_judged_before_standard_input(console: Console) -> None:
    for env in ({"CNI_COMMAND": "ADD"}, {"CNI_COMMAND": "NONE"}):
        status, output = console.main(Trial(), env, b"\xff")
        assert (status, output["code"]) == (1, 4)


def test_standard_input_that_cannot_be_read_is_code_5(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved, folder = os.dup(0), os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, 0)
    try:
        assert skel.main("trial", lambda _name: Trial().plugin, variables("ADD", "/bin")) == 1
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(folder)
    output = json.loads(capfd.readouterr().out)
    assert (output["code"], output["msg"]) == (5, "cannot read standard input: Is a directory")


@contextmanager
def full(*fds: int) -> Iterator[None]:
    """Let writing to descriptors fail."""
    saved, target = [os.dup(fd) for fd in fds], os.open("/dev/full", os.O_WRONLY)
    for fd in fds:
        os.dup2(target, fd)
    try:
        yield
    finally:
        for fd, old in zip(fds, saved, strict=True):
            os.dup2(old, fd)
            os.close(old)
        os.close(target)


def test_an_answer_that_cannot_be_written_is_a_failure(console: Console) -> None:
    with full(1):
        assert console.main(Trial(), variables("ADD", "/bin"), conf()) == (1, None)
    assert console.err == "cannot write the answer: No space left on device\n"


def test_nobody_needs_to_listen_to_warnings(console: Console) -> None:
    with full(2):
        skel.warn("nobody hears this")
        assert console.main(Trial(), {}, b"") == (1, None)
    skel.warn("\udcff is no text")
    assert console.capfd.readouterr().err == "? is no text\n"


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_our_own_namespace_is_refused(verb: str) -> None:
    trial = Trial()
    with pytest.raises(NamespaceError) as caught:
        skel.serve(trial.plugin, variables(verb, "/bin", netns=OWN), conf())
    assert caught.value.code == 8
    assert OWN in caught.value.msg
    assert "CNI_NETNS_OVERRIDE" in caught.value.details
    assert trial.calls == []


@pytest.mark.parametrize("verb", ["STATUS", "GC"])
def test_without_a_container_the_namespace_does_not_matter(verb: str) -> None:
    trial = Trial()
    skel.serve(trial.plugin, variables(verb, "/bin", netns=OWN), conf())
    assert len(trial.calls) == 1


@pytest.mark.parametrize("netns", ["", "/no/such/netns", "/dev/null", "relative", "a" * 5000])
def test_other_namespaces_are_left_to_the_plugin(netns: str) -> None:
    trial = Trial()
    skel.serve(trial.plugin, variables("DEL", "/bin", netns=netns), conf())
    assert trial.calls[0][1].netns == netns


@pytest.mark.parametrize(
    ("override", "passes"),
    [("1", True), ("t", True), ("true", True), ("TRUE", True), ("0", False), ("false", False), ("", False)],
)
def test_override_of_the_own_namespace(override: str, passes: bool) -> None:
    trial = Trial()
    env = variables("ADD", "/bin", netns=OWN, netns_override=override)
    if passes:
        skel.serve(trial.plugin, env, conf())
    else:
        with pytest.raises(NamespaceError):
            skel.serve(trial.plugin, env, conf())
    assert bool(trial.calls) is passes
