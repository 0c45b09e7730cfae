"""flannel's GC: what it forgets, what it keeps, and which delegates it calls."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from tests.flannel import V4, held, text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flannel import Flannel


def own(name: str) -> str:
    """Return a container id that no other process has: GC spares what any of this machine is adding."""
    return f"{name}-{os.getpid()}"


def test_gc_forgets_what_is_gone(flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    for container in (own("gone-1"), "kept", own("gone-2")):
        assert flannel.call("ADD", container).status == 0
    other = {"type": "host-local", "name": "other"}
    (flannel.notes / "c9").write_text(json.dumps(other))
    answer = flannel.call("GC", valid=["kept"])
    assert answer.status == 0
    assert sorted(path.name for path in flannel.notes.iterdir()) == ["c9", "kept"]
    assert flannel.held() == ["10.244.3.3"]


def test_gc_goes_on_after_half_a_note(flannel: Flannel) -> None:
    """Section 2, "GC": a plugin goes on after errors."""
    flannel.env.write_text(text(V4))
    for container in (own("half"), "kept", own("whole")):
        assert flannel.call("ADD", container).status == 0
    (flannel.notes / own("half")).write_text('{"type": "host-lo')
    (flannel.notes / "folder").mkdir()
    answer = flannel.call("GC", valid=["kept"])
    assert (answer.status, answer.stdout) == (0, b"")
    assert f"{flannel.notes}/{own('half')} is not JSON" in answer.stderr
    assert sorted(path.name for path in flannel.notes.iterdir()) == ["folder", own("half"), "kept"]
    assert flannel.held() == ["10.244.3.3"]


def test_gc_keeps_what_a_delegate_that_failed_was_given(flannel: Flannel) -> None:
    """It says which file; other configurations are gone by all the same, and a later GC tries again."""
    flannel.env.write_text(text(V4))
    for container in (own("failing"), "kept", own("whole")):
        assert flannel.call("ADD", container).status == 0
    note = flannel.notes / own("failing")
    whole = note.read_text()
    note.write_text(whole.replace('"type":"host-local"', '"type":"gone"', 1))
    flannel.env.unlink()
    for _turn in range(2):
        answer = flannel.call("GC", valid=["kept"])
        assert (answer.code, str(note) in answer.json["msg"]) == (103, True)
        assert f"container {own('failing')}" not in answer.stderr
        assert sorted(path.name for path in flannel.notes.iterdir()) == [own("failing"), "kept"]
        assert flannel.held() == ["10.244.3.3"]
    note.write_text(whole)
    assert flannel.call("GC", valid=["kept"]).status == 0
    assert [path.name for path in flannel.notes.iterdir()] == ["kept"]


def test_gc_goes_by_each_configuration_that_was_given(flannel: Flannel, tmp_path: Path) -> None:
    """Without the daemon's file, too; containers that differ only in what is their own are one."""
    folders = [tmp_path / name for name in ("first", "second")]
    flannel.env.write_text(text(V4))
    for number, container in enumerate((own("gone-1"), "kept", own("gone-2"), own("gone-3"))):
        ipam = {"dataDir": str(folders[number // 2])}
        runtime = {"mac": f"02:00:00:00:00:0{number}"}
        assert flannel.call("ADD", container, ipam=ipam, runtimeConfig=runtime).status == 0
    assert [len(held(folder / "net")) for folder in folders] == [2, 2]
    flannel.env.unlink()
    answer = flannel.call("GC", valid=["kept"])
    assert (answer.status, answer.stdout) == (0, b"")
    assert [held(folder / "net") for folder in folders] == [["10.244.3.3"], []]
    assert [path.name for path in flannel.notes.iterdir()] == ["kept"]
    assert re.findall(r"forgot .* of container (\S+),", answer.stderr) == [
        own("gone-1"),
        own("gone-2"),
        own("gone-3"),
    ]


def test_gc_calls_the_delegate_once_for_each_configuration(flannel: Flannel, tmp_path: Path) -> None:
    """Those of the notes, in their order, then the one that an ADD would be given now."""
    log = tmp_path / "log"
    for name in ("one", "two"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = GC ] || exit 1\ncat >>{log}\necho >>{log}\n")
        program.chmod(0o755)
    flannel.path = f"{flannel.bin}:{tmp_path}"
    flannel.env.write_text(text(V4))
    flannel.notes.mkdir()
    noted = {"name": "net", "cniVersion": "1.0.0", "type": "one", "ipam": {"type": "x", "a": 1}}
    for name, changes in (
        ("b", {"runtimeConfig": {"mac": "a"}}),
        ("a", {"type": "two"}),
        ("c", {"cniVersion": "1.1.0", "ipam": {"a": 1, "type": "x"}}),
    ):
        (flannel.notes / name).write_text(json.dumps({**noted, **changes}))
    assert flannel.call("GC", valid=["c"], delegate={"type": "one"}).status == 0
    called = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["type"] for each in called] == ["two", "one", "one"]
    assert [each["ipam"].get("a") for each in called] == [1, 1, None]
    for each in called:
        assert (each["cniVersion"], "runtimeConfig" in each) == ("1.1.0", False)
        # Besides, those that any process of this machine is adding just now.
        assert each["cni.dev/valid-attachments"][0] == {"containerID": "c", "ifname": "eth0"}
    assert [path.name for path in flannel.notes.iterdir()] == ["c"]


def test_gc_without_a_list_forgets_nothing(flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    assert flannel.call("ADD").status == 0
    assert flannel.call("GC").code == 7
    assert flannel.held() == ["10.244.3.2"]
    assert [path.name for path in flannel.notes.iterdir()] == ["c1"]
