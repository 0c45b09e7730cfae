"""Delegation (CNI 1.1.0, section 4): finding, running, and what a caller is told of failures."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec import delegate
from cni_plugins.spec.errors import (
    CNIError,
    DecodeError,
    DelegateError,
    InvalidConfigError,
    NotAvailableError,
)
from tests.delegates import RESULT, Folder, echo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "bin")


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
