"""What flannel makes of `subnet.env` and its own configuration, before anybody is called."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.plugins.flannel import SubnetEnv, _delegate_config
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError, InvalidConfigError, TryAgainLaterError
from cni_plugins.spec.request import Request
from cni_plugins.spec.schema import validate
from tests.calls import Answer, call, variables

if TYPE_CHECKING:
    from pathlib import Path

V4 = {
    "FLANNEL_NETWORK": "10.244.0.0/16",
    "FLANNEL_SUBNET": "10.244.3.1/24",
    "FLANNEL_MTU": "1450",
    "FLANNEL_IPMASQ": "true",
}
V6 = {"FLANNEL_IPV6_NETWORK": "fd00:10::/48", "FLANNEL_IPV6_SUBNET": "fd00:10:0:3::1/64"}
BOTH = {**V4, **V6}
ONLY6 = {"FLANNEL_MTU": "1450", "FLANNEL_IPMASQ": "true", **V6}


def text(values: dict[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def without(values: dict[str, str], *keys: str) -> str:
    return text({key: value for key, value in values.items() if key not in keys})


def config(values: dict[str, str], verb: str = "ADD", **keys: Any) -> dict[str, Any]:
    raw = {"cniVersion": "1.0.0", "name": "net", "type": "flannel", **keys}
    request = Request(variables(verb, "/bin"), raw)
    request.conf = validate("FlannelConf", raw)
    before = json.dumps(raw)
    made = _delegate_config(request, SubnetEnv(text(values)))
    assert json.dumps(raw) == before, "the configuration itself is left alone"
    return made


def test_defaults_are_a_bridge_with_host_local() -> None:
    assert config(V4) == {
        "name": "net",
        "cniVersion": "1.0.0",
        "type": "bridge",
        "ipMasq": False,
        "mtu": 1450,
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    }


@pytest.mark.parametrize(
    ("values", "subnets", "networks"),
    [
        (V4, ["10.244.3.0/24"], ["10.244.0.0/16"]),
        (BOTH, ["10.244.3.0/24", "fd00:10:0:3::/64"], ["10.244.0.0/16", "fd00:10::/48"]),
        (ONLY6, ["fd00:10:0:3::/64"], ["fd00:10::/48"]),
        (
            {
                **BOTH,
                "FLANNEL_NETWORK": "10.244.0.0/16,10.9.0.0/16, 10.244.0.0/16",
                "FLANNEL_IPV6_NETWORK": "fd00::/48,fd00::1/48",
            },
            ["10.244.3.0/24", "fd00:10:0:3::/64"],
            ["10.244.0.0/16", "10.9.0.0/16", "fd00::/48"],
        ),
    ],
)
def test_families_and_networks(values: dict[str, str], subnets: list[str], networks: list[str]) -> None:
    ipam = config(values)["ipam"]
    assert ipam["ranges"] == [[{"subnet": subnet}] for subnet in subnets]
    assert ipam["routes"] == [{"dst": network} for network in networks]


@pytest.mark.parametrize(
    ("said", "masquerade"), [("true", True), ("false", False), ("TRUE", False), ("1", False)]
)
def test_somebody_masquerades(said: str, masquerade: bool) -> None:
    """The delegate's ipMasq is the opposite of what the daemon does."""
    values = {**V4, "FLANNEL_IPMASQ": said}
    assert SubnetEnv(text(values)).masquerade is masquerade
    assert config(values)["ipMasq"] is not masquerade


def test_what_the_administrator_wrote_goes_before_the_defaults() -> None:
    delegate = {"type": "ptp", "mtu": 1300, "ipMasq": True, "more": [1]}
    made = config(
        V4, delegate=delegate, runtimeConfig={"portMappings": []}, ipam={"dataDir": "/d", "type": "x"}
    )
    assert made == {
        **delegate,
        "name": "net",
        "cniVersion": "1.0.0",
        "ipam": {
            "type": "x",
            "dataDir": "/d",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    } | ({"runtimeConfig": {"portMappings": []}})
    assert "isGateway" not in made
    assert config(V4, delegate={"isGateway": False})["isGateway"] is False
    assert config(V4, delegate={"type": "bridge"})["isGateway"] is True
    assert config(V4, runtimeConfig={"mac": "a"})["runtimeConfig"] == {"mac": "a"}


def test_routes_of_the_configuration_come_first() -> None:
    routes = [{"dst": "192.0.2.0/24", "gw": "10.244.3.9"}]
    made = config(V4, ipam={"routes": routes, "ranges": "replaced"})
    assert made["ipam"]["routes"] == [*routes, {"dst": "10.244.0.0/16"}]
    assert made["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"delegate": {"name": "x"}}, "must not have 'name' field"),
        ({"delegate": {"ipam": {}}}, "must not have 'ipam' field"),
        ({"delegate": {"type": 1}}, "must have (string) 'type' field"),
        ({"delegate": {"type": ""}}, "must have (string) 'type' field"),
        ({"delegate": {"type": None}}, "must have (string) 'type' field"),
        ({"ipam": {"routes": {}}}, "ipam.routes must be a list"),
    ],
)
def test_what_cannot_be_completed_is_code_7(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config(V4, **keys)
    assert says in caught.value.msg


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ("", "FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        (without(V4, "FLANNEL_MTU"), "FLANNEL_MTU"),
        (without(V4, "FLANNEL_IPMASQ"), "FLANNEL_IPMASQ"),
        (without(V4, "FLANNEL_NETWORK"), "FLANNEL_NETWORK"),
        (without(V4, "FLANNEL_SUBNET"), "FLANNEL_SUBNET"),
        (without(BOTH, "FLANNEL_IPV6_SUBNET"), "FLANNEL_IPV6_SUBNET"),
        (without(BOTH, "FLANNEL_IPV6_NETWORK"), "FLANNEL_IPV6_NETWORK"),
        (text({**V4, "FLANNEL_MTU": ""}), "FLANNEL_MTU"),
        ("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUB", "FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
    ],
)
def test_what_is_missing_is_named(content: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"^it has no {missing}$"):
        SubnetEnv(content)


@pytest.mark.parametrize(
    "broken",
    [
        {"FLANNEL_SUBNET": "10.244.3"},
        {"FLANNEL_SUBNET": "10.244.3.1"},
        {"FLANNEL_NETWORK": "10.244.0.0/16,"},
        {"FLANNEL_NETWORK": "10.244.0.0/33"},
        {"FLANNEL_MTU": "14x"},
        {"FLANNEL_MTU": "1450.0"},
    ],
)
def test_what_is_cut_off_or_garbled_is_tried_again_later(broken: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text(text({**V4, **broken}))
    with pytest.raises(TryAgainLaterError) as caught:
        SubnetEnv.load(str(path))
    assert caught.value.code == 11
    assert str(path) in caught.value.msg
    assert "flanneld" in caught.value.details


def test_lines_of_other_kinds_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(b"# a comment\r\n\r\n  " + text(V4).replace("\n", "\r\n").encode() + b"MORE=1=2\nword\n")
    env = SubnetEnv.load(str(path))
    assert (env.mtu, env.masquerade, [str(each) for each in env.subnets]) == (1450, True, ["10.244.3.0/24"])


def test_bytes_that_are_no_text_are_tried_again_later(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(text(V4).encode() + b"\xff")
    with pytest.raises(TryAgainLaterError):
        SubnetEnv.load(str(tmp_path / "env"))


def held(folder: Path) -> list[str]:
    """Return the addresses that host-local gave from a folder."""
    return sorted(path.name for path in folder.glob("[0-9f]*[0-9]"))


class Node:
    """flannel as a process, with host-local as its delegate."""

    def __init__(self, suite_bin: str, tmp_path: Path) -> None:
        self.bin = self.path = suite_bin
        self.notes = tmp_path / "notes"
        self.env = tmp_path / "subnet.env"
        self.addresses = tmp_path / "ipam" / "net"

    def call(self, verb: str, container: str = "c1", valid: list[str] | None = None, **keys: Any) -> Answer:
        raw = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "flannel",
            "subnetFile": str(self.env),
            "dataDir": str(self.notes),
            "delegate": {"type": "host-local"},
            "ipam": {"dataDir": str(self.addresses.parent)},
            **keys,
        }
        if valid is not None:
            raw["cni.dev/valid-attachments"] = [{"containerID": each, "ifname": "eth0"} for each in valid]
        return call(f"{self.bin}/flannel", variables(verb, self.path, containerid=container), raw)

    def held(self) -> list[str]:
        return held(self.addresses)


@pytest.fixture
def node(suite_bin: str, tmp_path: Path) -> Node:
    return Node(suite_bin, tmp_path)


def test_without_the_daemon(node: Node) -> None:
    """Section 5, "Error": 11 is to be tried again, 50 is STATUS's not available."""
    assert (added := node.call("ADD")).code == 11
    assert str(node.env) in added.json["msg"]
    assert "there is no such file" in added.json["msg"]
    assert (status := node.call("STATUS")).code == 50
    assert status.json["msg"] == added.json["msg"]
    assert node.call("DEL").status == 0
    gc = node.call("GC", valid=[])
    assert (gc.status, gc.stderr) == (0, "")
    assert not node.notes.exists()


def test_the_note_is_exactly_the_delegates_configuration(node: Node) -> None:
    node.env.write_text(text(BOTH))
    assert node.call("STATUS").status == 0
    answer = node.call("ADD")
    assert [ip["address"] for ip in answer.json["ips"]] == ["10.244.3.2/24", "fd00:10:0:3::2/64"]
    note = node.notes / "c1"
    assert json.loads(note.read_bytes()) == {
        "type": "host-local",
        "name": "net",
        "cniVersion": "1.1.0",
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "dataDir": str(node.addresses.parent),
            "ranges": [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:10:0:3::/64"}]],
            "routes": [{"dst": "10.244.0.0/16"}, {"dst": "fd00:10::/48"}],
        },
    }
    assert note.stat().st_mode & 0o777 == 0o600
    assert node.notes.stat().st_mode & 0o777 == 0o700


def test_del_goes_by_the_note(node: Node) -> None:
    node.env.write_text(text(V4))
    assert node.call("ADD").status == 0
    node.env.unlink()
    assert node.held() == ["10.244.3.2"]
    for _turn in range(2):
        answer = node.call("DEL", delegate={"type": "no-such-plugin"})
        assert (answer.status, answer.stdout, answer.stderr) == (0, b"", "")
        assert node.held() == []
        assert list(node.notes.iterdir()) == []


def test_a_failed_add_leaves_no_note(node: Node) -> None:
    node.env.write_text(text({**V4, "FLANNEL_SUBNET": "10.244.3.1/32"}))
    assert node.call("ADD").status == 1
    assert list(node.notes.iterdir()) == []
    node.env.write_text(text(V4))
    assert node.call("ADD", delegate={"type": "no-such-plugin"}).code == 103
    assert list(node.notes.iterdir()) == []


@pytest.mark.parametrize(("length", "fits"), [(250, True), (255, True), (256, False), (4000, False)])
def test_a_long_container_id(node: Node, length: int, fits: bool) -> None:
    """The note's name is the reference's: the id, and so no longer than a file's can be."""
    node.env.write_text(text(V4))
    container = "c" * length
    answers = [node.call("ADD", container) for _again in range(2)]
    result = answers[0].json
    if fits:
        assert answers[0].status == 0
        assert [path.name for path in node.notes.iterdir()] == [container]
        assert node.call("CHECK", container, prevResult=result).status == 0
    else:
        assert [each.code for each in answers] == [4, 4]
        assert "too long: it is part of the name of the file" in answers[0].json["msg"]
        assert not node.notes.exists()
        assert node.call("CHECK", container, prevResult={"cniVersion": "1.1.0"}).code == 101
    for _again in range(2):
        assert node.call("DEL", container).status == 0
    assert node.held() == []
    assert not node.notes.exists() or list(node.notes.iterdir()) == []


def test_a_failed_add_of_an_attached_container_keeps_its_note(node: Node) -> None:
    node.env.write_text(text(V4))
    assert node.call("ADD").status == 0
    before = (node.notes / "c1").read_bytes()
    node.env.write_text(text({**V4, "FLANNEL_MTU": "1300"}))
    assert node.call("ADD").status == 1
    assert (node.notes / "c1").read_bytes() == before


@pytest.mark.parametrize("half", [b"", b'{"type": "host-lo', b"[]", b"{}", b'{"type": 1}'])
def test_half_a_note_of_a_killed_writer(half: bytes, node: Node) -> None:
    node.env.write_text(text(V4))
    assert node.call("ADD").status == 0
    (node.notes / "c1").write_bytes(half)
    answer = node.call("DEL")
    assert (answer.status, answer.stdout) == (0, b"")
    assert f"going by {node.env}" in answer.stderr
    assert node.held() == []
    assert list(node.notes.iterdir()) == []


def test_check_needs_the_note(node: Node) -> None:
    node.env.write_text(text(V4))
    result = node.call("ADD").json
    assert node.call("CHECK", prevResult=result).status == 0
    (node.addresses / "10.244.3.2").unlink()
    assert node.call("CHECK", prevResult=result).code == 101
    (node.notes / "c1").unlink()
    missing = node.call("CHECK", prevResult=result)
    assert (missing.code, str(node.notes / "c1") in missing.json["msg"]) == (101, True)


def test_gc_forgets_what_is_gone(node: Node) -> None:
    node.env.write_text(text(V4))
    for container in ("gone-1", "kept", "gone-2"):
        assert node.call("ADD", container).status == 0
    other = {"type": "host-local", "name": "other"}
    (node.notes / "c9").write_text(json.dumps(other))
    answer = node.call("GC", valid=["kept"])
    assert answer.status == 0
    assert sorted(path.name for path in node.notes.iterdir()) == ["c9", "kept"]
    assert node.held() == ["10.244.3.3"]


def test_gc_goes_on_after_half_a_note(node: Node) -> None:
    """Section 2, "GC": a plugin goes on after errors."""
    node.env.write_text(text(V4))
    for container in ("half", "kept", "whole"):
        assert node.call("ADD", container).status == 0
    (node.notes / "half").write_text('{"type": "host-lo')
    (node.notes / "folder").mkdir()
    answer = node.call("GC", valid=["kept"])
    assert (answer.status, answer.stdout) == (0, b"")
    assert f"{node.notes}/half is not JSON" in answer.stderr
    assert sorted(path.name for path in node.notes.iterdir()) == ["folder", "half", "kept"]
    assert node.held() == ["10.244.3.3"]


def test_gc_keeps_what_a_delegate_that_failed_was_given(node: Node) -> None:
    """It says which file; other configurations are gone by all the same, and a later GC tries again."""
    node.env.write_text(text(V4))
    for container in ("failing", "kept", "whole"):
        assert node.call("ADD", container).status == 0
    note = node.notes / "failing"
    whole = note.read_text()
    note.write_text(whole.replace('"type":"host-local"', '"type":"gone"', 1))
    node.env.unlink()
    for _turn in range(2):
        answer = node.call("GC", valid=["kept"])
        assert (answer.code, str(note) in answer.json["msg"]) == (103, True)
        assert "container failing" not in answer.stderr
        assert sorted(path.name for path in node.notes.iterdir()) == ["failing", "kept"]
        assert node.held() == ["10.244.3.3"]
    note.write_text(whole)
    assert node.call("GC", valid=["kept"]).status == 0
    assert [path.name for path in node.notes.iterdir()] == ["kept"]


def test_gc_goes_by_each_configuration_that_was_given(node: Node, tmp_path: Path) -> None:
    """Without the daemon's file, too; containers that differ only in what is their own are one."""
    folders = [tmp_path / name for name in ("first", "second")]
    node.env.write_text(text(V4))
    for number, container in enumerate(("gone-1", "kept", "gone-2", "gone-3")):
        ipam = {"dataDir": str(folders[number // 2])}
        runtime = {"mac": f"02:00:00:00:00:0{number}"}
        assert node.call("ADD", container, ipam=ipam, runtimeConfig=runtime).status == 0
    assert [len(held(folder / "net")) for folder in folders] == [2, 2]
    node.env.unlink()
    answer = node.call("GC", valid=["kept"])
    assert (answer.status, answer.stdout) == (0, b"")
    assert [held(folder / "net") for folder in folders] == [["10.244.3.3"], []]
    assert [path.name for path in node.notes.iterdir()] == ["kept"]
    assert re.findall(r"forgot .* of container (\S+),", answer.stderr) == ["gone-1", "gone-2", "gone-3"]


def test_gc_calls_the_delegate_once_for_each_configuration(node: Node, tmp_path: Path) -> None:
    """Those of the notes, in their order, then the one that an ADD would be given now."""
    log = tmp_path / "log"
    for name in ("one", "two"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = GC ] || exit 1\ncat >>{log}\necho >>{log}\n")
        program.chmod(0o755)
    node.path = f"{node.bin}:{tmp_path}"
    node.env.write_text(text(V4))
    node.notes.mkdir()
    noted = {"name": "net", "cniVersion": "1.0.0", "type": "one", "ipam": {"type": "x", "a": 1}}
    for name, changes in (
        ("b", {"runtimeConfig": {"mac": "a"}}),
        ("a", {"type": "two"}),
        ("c", {"cniVersion": "1.1.0", "ipam": {"a": 1, "type": "x"}}),
    ):
        (node.notes / name).write_text(json.dumps({**noted, **changes}))
    assert node.call("GC", valid=["c"], delegate={"type": "one"}).status == 0
    called = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["type"] for each in called] == ["two", "one", "one"]
    assert [each["ipam"].get("a") for each in called] == [1, 1, None]
    for each in called:
        assert (each["cniVersion"], "runtimeConfig" in each) == ("1.1.0", False)
        # Besides, those that any process of this machine is adding just now.
        assert each["cni.dev/valid-attachments"][0] == {"containerID": "c", "ifname": "eth0"}
    assert [path.name for path in node.notes.iterdir()] == ["c"]


def test_gc_without_a_list_forgets_nothing(node: Node) -> None:
    node.env.write_text(text(V4))
    assert node.call("ADD").status == 0
    assert node.call("GC").code == 7
    assert node.held() == ["10.244.3.2"]
    assert [path.name for path in node.notes.iterdir()] == ["c1"]


def test_hostile_paths() -> None:
    """Nothing of the configuration can make the note leave its folder, or end in a traceback."""
    for container in ("../x", "a/b", ".."):
        with pytest.raises(CNIError):
            Request(variables("ADD", "/bin", containerid=container), {"cniVersion": "1.1.0", "name": "net"})
    assert skel.as_cni_error(FileNotFoundError(2, "No such file", "/x")).code == 100
