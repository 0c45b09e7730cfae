"""Delegation (CNI 1.1.0, section 4): finding, running, and what a caller is told of failures."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec import delegate, skel
from cni_plugins.spec.errors import (
    CNIError,
    DecodeError,
    DelegateError,
    InvalidConfigError,
    KernelError,
    NotAvailableError,
)
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.request import Request
from cni_plugins.spec.result import Result
from integration import suite
from tests.calls import Answer, call, host_local, variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}]}


class Folder:
    """A folder of CNI_PATH with small real programs, which log each call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def program(self, name: str, **scripts: str) -> None:
        """Write a plugin that runs a piece of shell for a verb."""
        cases = "".join(f"{verb})\n{script}\n;;\n" for verb, script in scripts.items())
        (self.path / name).write_text(
            f'#!/bin/sh\necho "$CNI_COMMAND" >>{self.path}/log\ncat >{self.path}/stdin.$CNI_COMMAND\n'
            f'case "$CNI_COMMAND" in\n{cases}esac\n'
        )
        os.chmod(self.path / name, 0o755)

    def log(self) -> list[str]:
        log = self.path / "log"
        return log.read_text().split() if log.exists() else []

    def request(self, verb: str = "ADD", path: str = "", **changes: Any) -> Request:
        env = {"PATH": os.environ["PATH"], **variables(verb, path or str(self.path), args="A=\udcff")}
        return Request(env, {"cniVersion": "1.1.0", "name": "net", "prevResult": {}, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "bin")


def echo(value: object) -> str:
    return f"cat <<'END'\n{json.dumps(value)}\nEND"


def test_the_delegate_gets_the_configuration_and_the_environment(folder: Folder) -> None:
    folder.program("ipam", ADD=f"env >{folder.path}/env\n{echo(RESULT)}")
    config = {"cniVersion": "1.1.0", "name": "net", "unknown": ["\u00e9", 1.5]}
    result = delegate.add(folder.request(), "ipam", config)
    assert result.to_json("1.1.0") == RESULT
    assert json.loads((folder.path / "stdin.ADD").read_bytes()) == config
    seen = (folder.path / "env").read_bytes()
    for line in (b"CNI_COMMAND=ADD", b"CNI_CONTAINERID=c1", b"CNI_IFNAME=eth0", b"CNI_ARGS=A=\xff"):
        assert line in seen.split(b"\n")
    assert folder.log() == ["ADD"]


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "STATUS", "GC"])
def test_other_verbs_are_passed_on(verb: str, folder: Folder) -> None:
    folder.program("ipam", **{verb: "echo this is not read"})
    delegate.call(folder.request(verb), "ipam", {})
    assert folder.log() == [verb]


def test_an_add_gives_back_with_del(folder: Folder) -> None:
    folder.program("ipam", DEL="exit 0")
    delegate.call(folder.request("ADD"), "ipam", {"name": "net"}, "DEL")
    assert folder.log() == ["DEL"]
    assert (folder.path / "stdin.DEL").read_bytes() == b'{"name":"net"}'


def test_the_result_may_be_of_any_version(folder: Folder) -> None:
    folder.program("ipam", ADD=echo({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}))
    assert delegate.add(folder.request(), "ipam", {}).to_json("1.1.0") == RESULT


def test_the_first_folder_that_has_it_counts(folder: Folder, tmp_path: Path) -> None:
    folder.program("ipam")
    (tmp_path / "a" / "ipam").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ipam").write_text("not executable")
    (tmp_path / "c").mkdir()
    os.symlink(folder.path / "ipam", tmp_path / "c" / "ipam")
    path = ":".join(f"{tmp_path}/{name}" for name in ("none", "a", "b", "c", "bin"))
    assert delegate.find(folder.request(path=path), "ipam") == f"{tmp_path}/c/ipam"


@pytest.mark.parametrize("name", ["none", "directory", "data", "fifo", "dangling", "\ud800", "x" * 300])
def test_not_found_is_code_103_and_says_where_it_was_looked_for(name: str, folder: Folder) -> None:
    (folder.path / "directory").mkdir()
    (folder.path / "data").write_text("#!/bin/sh")
    os.mkfifo(folder.path / "fifo", 0o755)
    os.symlink("nowhere", folder.path / "dangling")
    for run in (delegate.add, delegate.call):
        with pytest.raises(DelegateError, match="failed to find plugin") as caught:
            run(folder.request(), name, {})
        assert caught.value.code == 103
        assert str(folder.path) in caught.value.msg
        assert repr(name) in caught.value.msg


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/bin/sh", "../bin/ipam", "a\0"])
def test_a_type_is_a_plain_file_name(name: str, folder: Folder) -> None:
    """Section 1: a type holds no path separators."""
    folder.program("ipam")
    with pytest.raises(InvalidConfigError, match="invalid plugin type"):
        delegate.add(folder.request(), name, {})
    assert folder.log() == []


@pytest.mark.parametrize("content", ["\0\1\2", "#!/no/such/interpreter\n"])
def test_what_cannot_be_started_is_code_103(content: str, folder: Folder) -> None:
    """In answer to STATUS it is code 50: an ADD could not be served (section 2, "STATUS")."""
    (folder.path / "ipam").write_text(content)
    os.chmod(folder.path / "ipam", 0o755)
    said = f"^cannot start {folder.path}/ipam: "
    with pytest.raises(DelegateError, match=said):
        delegate.add(folder.request(), "ipam", {})
    for verb in ("CHECK", "GC", "DEL"):
        with pytest.raises(DelegateError, match=said):
            delegate.call(folder.request(verb), "ipam", {})
    with pytest.raises(NotAvailableError, match=said) as caught:
        delegate.call(folder.request("STATUS"), "ipam", {})
    assert caught.value.code == 50


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": 7, "msg": "bad", "details": "do this"}, (7, "bad", "do this")),
        ({"cniVersion": "0.4.0", "code": 11, "msg": "later"}, (11, "later", "")),
        ({"code": 999, "msg": "m", "details": None}, (999, "m", "")),
        ({"code": 12345, "msg": "\u00e9", "details": "", "more": 1}, (12345, "\u00e9", "")),
    ],
)
def test_error_objects_pass_unchanged(
    body: dict[str, Any], expected: tuple[int, str, str], folder: Folder
) -> None:
    failing = f"{echo(body)}\nexit 1"
    folder.program("ipam", ADD=failing, CHECK=failing)
    for run in (
        lambda: delegate.add(folder.request(), "ipam", {}),
        lambda: delegate.call(folder.request("CHECK"), "ipam", {}),
    ):
        with pytest.raises(CNIError) as caught:
            run()
        assert (caught.value.code, caught.value.msg, caught.value.details) == expected
    assert folder.log() == ["ADD", "DEL", "CHECK"]


NO_ERROR_OBJECT = {
    "nothing": "exit 3",
    "garbage": "echo 'panic: runtime error'; exit 3",
    "cut off": """echo '{"code": 7, "ms'; exit 3""",
    "a list": "echo '[]'; exit 3",
    "a number": "echo 1; exit 3",
    "no code": """echo '{"msg": "m"}'; exit 3""",
    "no msg": """echo '{"code": 1}'; exit 3""",
    "code is null": """echo '{"code": null, "msg": "m"}'; exit 3""",
    "code is text": """echo '{"code": "seven", "msg": "m"}'; exit 3""",
    "not UTF-8": r"printf '\377'; exit 3",
    "deep": f"{sys.executable} -IS -c 'print(\"[\" * 100000)'; exit 3",
}


@pytest.mark.parametrize("script", NO_ERROR_OBJECT.values(), ids=NO_ERROR_OBJECT)
def test_a_failure_without_an_error_object_is_code_103(script: str, folder: Folder) -> None:
    folder.program("ipam", ADD=script)
    with pytest.raises(DelegateError, match=r"^ipam failed with status 3 and no error object$"):
        delegate.add(folder.request(), "ipam", {})
    assert folder.log() == ["ADD", "DEL"]


def test_a_delegate_that_dies_without_a_word(folder: Folder) -> None:
    folder.program("ipam", ADD="kill -9 $$", STATUS="kill -9 $$")
    with pytest.raises(DelegateError, match=r"^ipam failed with status -9 and no error object$"):
        delegate.add(folder.request(), "ipam", {})
    assert folder.log() == ["ADD", "DEL"]
    with pytest.raises(NotAvailableError, match="status -9"):
        delegate.call(folder.request("STATUS"), "ipam", {})


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("exit 0", DecodeError, "the result of ipam is empty"),
        ("echo garbage", DecodeError, "the result of ipam is not JSON"),
        ("echo '[]'", InvalidConfigError, "the result of ipam must be an object"),
        ("echo null", InvalidConfigError, "the result of ipam must be an object"),
        (echo({"ips": [{"address": "x"}]}), InvalidConfigError, "the result of ipam: 'x'"),
        (echo({"cniVersion": "3.0.0"}), CNIError, "the result of ipam: unsupported CNI result version"),
    ],
)
def test_a_success_without_a_result_is_a_failed_add(
    script: str, error: type[CNIError], says: str, folder: Folder
) -> None:
    folder.program("ipam", ADD=script)
    with pytest.raises(error) as caught:
        delegate.add(folder.request(), "ipam", {})
    assert caught.value.msg.startswith(says)
    assert caught.value.details == "" or "supported" in caught.value.details
    assert folder.log() == ["ADD", "DEL"]


def test_when_the_del_fails_too_the_first_error_counts(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = f"{echo({'code': 102, 'msg': 'no address'})}\nexit 1"
    folder.program("ipam", ADD=failing, DEL=f"{echo({'code': 5, 'msg': 'disk gone'})}\nexit 1")
    with pytest.raises(CNIError, match=r"^no address$"):
        delegate.add(folder.request(), "ipam", {})
    assert capfd.readouterr().err == "ipam: DEL after a failed ADD: disk gone\n"


def test_a_delegates_standard_error_goes_to_ours(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.program("ipam", STATUS="echo warning >&2")
    delegate.call(folder.request("STATUS"), "ipam", {})
    assert capfd.readouterr().err == "warning\n"


class Local:
    """A plugin of this process, failing as told, and the program that stands for it in CNI_PATH."""

    def __init__(self, folder: Folder) -> None:
        self.failure: Exception | None = None
        self.calls: list[Request] = []
        verbs = dict.fromkeys(("delete", "check", "status", "gc"), self.note)
        self.plugin = Plugin("ipam", "NetConf", add=self.add, **verbs)
        folder.program("ipam", ADD="exit 99", DEL="exit 99")
        os.link(folder.path / "ipam", folder.path / "other")
        skel.register_local(f"{folder.path}/ipam", self.lookup)

    def lookup(self, name: str) -> Plugin:
        if name != self.plugin.name:
            raise DelegateError(f"no plugin {name}")
        return self.plugin

    def note(self, request: Request) -> None:
        self.calls.append(request)

    def add(self, request: Request) -> Result:
        self.note(request)
        if self.failure is not None:
            raise self.failure
        return Result.from_json(RESULT, "1.1.0")

    def verbs(self) -> list[str]:
        return [request.command for request in self.calls]


@pytest.fixture
def local(folder: Folder) -> Iterator[Local]:
    yield Local(folder)
    skel._Local.executable = ""


CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "x", "prevResult": {}}


def test_our_own_executable_is_not_started(folder: Folder, local: Local) -> None:
    assert delegate.add(folder.request(), "ipam", CONFIG).to_json("1.1.0") == RESULT
    for verb in ("CHECK", "STATUS", "GC", "DEL"):
        delegate.call(folder.request(verb), "ipam", CONFIG)
    delegate.call(folder.request("ADD"), "ipam", CONFIG, "DEL")
    assert local.verbs() == ["ADD", "CHECK", "STATUS", "GC", "DEL", "DEL"]
    assert folder.log() == []


def test_our_file_under_a_name_that_we_do_not_have_is_no_plugin(folder: Folder, local: Local) -> None:
    with pytest.raises(DelegateError, match="no plugin other"):
        delegate.add(folder.request(), "other", CONFIG)
    assert folder.log() == []
    assert local.calls == []


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (CNIError("own", code=42), CNIError, 42),
        (OSError(1, "Operation not permitted"), KernelError, 100),
        (KeyError("a fault"), CNIError, 999),
    ],
)
def test_a_failed_add_in_this_process_is_undone_too(
    failure: Exception, kind: type[CNIError], code: int, folder: Folder, local: Local
) -> None:
    """Whatever fails is what the delegate's own process would have said."""
    local.failure = failure
    with pytest.raises(kind) as caught:
        delegate.add(folder.request(), "ipam", CONFIG)
    assert caught.value.code == code
    assert caught.value.to_json("1.1.0") == skel.as_cni_error(failure).to_json("1.1.0")
    assert local.verbs() == ["ADD", "DEL"]


class Both:
    """The suite twice: the same program at two places, so that one's delegates are not the other's."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.folders = []
        for name in ("one", "two"):
            made = tmp_path / name
            made.mkdir()
            suite.make(str(made))
            script = made / ".suite"
            first, rest = script.read_text().split("\n", 1)
            log = f"open({str(tmp_path / 'starts')!r}, 'a').write(sys.argv[0].rpartition('/')[2] + ' ')"
            script.write_text(f"{first}\nimport sys\n{log}\n{rest}")
            self.folders.append(str(made))
        (tmp_path / "subnet.env").write_text(
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/29\n"
            "FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:2::1/64\n"
            "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )

    def flannel(self, verb: str, path: str, container: str = "c1", **ipam: Any) -> Answer:
        state = str(self.tmp_path / f"state-{os.path.basename(path)}")
        raw = {
            **host_local(f"{state}/ipam", **ipam),
            "type": "flannel",
            "subnetFile": str(self.tmp_path / "subnet.env"),
            "dataDir": f"{state}/notes",
            "delegate": {"type": "host-local", "hairpinMode": True},
        }
        raw["prevResult"] = {"ips": [{"address": "10.1.2.2/29"}]}
        del raw["ipam"]["subnet"]
        # A name of its own: GC spares whatever a process of this machine is adding just now.
        env = variables(verb, path, containerid=f"{self.tmp_path.name}-{container}")
        return call(f"{self.folders[0]}/flannel", env, raw)

    def starts(self) -> list[str]:
        log = self.tmp_path / "starts"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    def neutral(self, path: str, said: bytes) -> bytes:
        """Take a side's own name out of what it said."""
        return said.replace(f"state-{os.path.basename(path)}".encode(), b"state")

    def state(self, path: str) -> dict[str, bytes]:
        """Return every file of a side's state."""
        root = self.tmp_path / f"state-{os.path.basename(path)}"
        return {
            str(file.relative_to(root)): self.neutral(path, file.read_bytes())
            for file in sorted(root.rglob("*"))
            if file.is_file()
        }


STEPS: list[tuple[str, int, dict[str, Any]]] = [
    ("STATUS", 0, {}),
    ("CHECK", 1, {}),
    ("ADD", 0, {}),
    ("CHECK", 0, {}),
    ("ADD", 1, {}),  # no DEL follows this refusal: it would end the attachment
    ("CHECK", 0, {}),
    ("ADD", 0, {"container": "c2"}),
    ("ADD", 1, {"container": "c3", "routes": [{"dst": "x"}]}),
    ("ADD", 1, {"container": "c3", "routes": [1]}),
    ("ADD", 1, {"container": "c3", "resolvConf": "/no/such/file"}),
    ("ADD", 1, {"container": "c3", "resolvConf": "/a\0"}),
    ("GC", 0, {}),
    ("ADD", 0, {"container": "c4"}),
    ("DEL", 0, {"container": "c4"}),
    ("DEL", 0, {"container": "c4"}),
    ("ADD", 0, {"container": "c5"}),
]


def test_executed_or_in_process_a_delegate_does_and_says_the_same(tmp_path: Path) -> None:
    both = Both(tmp_path)
    for verb, status, arguments in STEPS:
        answers = []
        for path in both.folders:
            answer = both.flannel(verb, path, **arguments)
            assert answer.status == status, (verb, arguments, answer.stdout, answer.stderr)
            answers.append((answer.status, both.neutral(path, answer.stdout), answer.stderr))
            started = both.starts()
            assert started.count("flannel") == 1
            if path == both.folders[0]:
                assert started == ["flannel"]
        assert answers[0] == answers[1], verb
        assert both.state(both.folders[0]) == both.state(both.folders[1])
    assert f"notes/{tmp_path.name}-c5" in both.state(both.folders[0])


def test_the_second_suite_really_is_executed(tmp_path: Path) -> None:
    both = Both(tmp_path)
    statuses = {path: both.flannel("ADD", path).status for path in both.folders}
    assert list(statuses.values()) == [0, 0]
    assert both.starts() == ["flannel", "flannel", "host-local"]
