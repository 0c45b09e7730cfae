"""Delegates that run in the caller's own process: as if they had one of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec import delegate, skel
from cni_plugins.spec.errors import CNIError, DelegateError, KernelError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Result
from integration import suite
from tests.calls import Answer, call, host_local, variables
from tests.delegates import RESULT, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni_plugins.spec.request import Request


class Local:
    """A plugin of this process, failing as told, and the program that stands for it in CNI_PATH."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
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
def local(tmp_path: Path) -> Iterator[Local]:
    yield Local(Folder(tmp_path / "bin"))
    skel._Local.executable = ""


CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "x", "prevResult": {}}


def test_our_own_executable_is_not_started(local: Local) -> None:
    assert delegate.add(local.folder.request(), "ipam", CONFIG).to_json("1.1.0") == RESULT
    for verb in ("CHECK", "STATUS", "GC", "DEL"):
        delegate.call(local.folder.request(verb), "ipam", CONFIG)
    delegate.call(local.folder.request("ADD"), "ipam", CONFIG, "DEL")
    assert local.verbs() == ["ADD", "CHECK", "STATUS", "GC", "DEL", "DEL"]
    assert local.folder.log() == []


def test_our_file_under_a_name_that_we_do_not_have_is_no_plugin(local: Local) -> None:
    with pytest.raises(DelegateError, match="no plugin other"):
        delegate.add(local.folder.request(), "other", CONFIG)
    assert local.folder.log() == []
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
    failure: Exception, kind: type[CNIError], code: int, local: Local
) -> None:
    """Whatever fails is what the delegate's own process would have said."""
    local.failure = failure
    with pytest.raises(kind) as caught:
        delegate.add(local.folder.request(), "ipam", CONFIG)
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
            suite.make(str(made), str(tmp_path))
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
