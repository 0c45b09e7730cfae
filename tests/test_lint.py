from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from cni_plugins.spec.errors import InvalidConfigError
from conflist import models, shape
from conflist.document import Document
from conflist.findings import ERROR, WARNING, Finding, Spot, to_text
from conflist.lint import expand, lint
from integration import suite
from tests.linting import Linter, bridge, host_local, network, texts

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = os.path.join(suite.ROOT, "conflist/examples")


@pytest.fixture
def check(tmp_path: Path, suite_bin: str) -> Linter:
    return Linter(tmp_path, suite_bin)


def samples() -> list[str]:
    return sorted(os.path.join(EXAMPLES, name) for name in os.listdir(EXAMPLES))


@pytest.mark.parametrize("file", samples(), ids=os.path.basename)
def test_samples_are_clean(file: str, suite_bin: str) -> None:
    assert lint([file], [suite_bin]) == []


def test_samples_go_together(suite_bin: str) -> None:
    assert lint([EXAMPLES], [suite_bin]) == []
    assert len(samples()) >= 6


def test_place_text_and_advice(tmp_path: Path, suite_bin: str) -> None:
    path = tmp_path / "1.conflist"
    path.write_text(
        '{"cniVersion": "1.0.0", "name": "n",\n "plugins": [{"type": "bridge",\n  "mtu": "1500"}]}'
    )
    assert lint([str(path)], [suite_bin]) == [
        Finding(str(path), 3, 10, ERROR, "mtu must be an integer, not a string", "write 1500 without quotes")
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "a b"}, ["error: invalid network name 'a b'"]),
        ({"name": 1}, ["error: name must be a string"]),
        ({"name": None}, ["error: the network has no name"]),
        ({"cniVersion": "1.0"}, ["error: unknown version 1.0"]),
        ({"cniVersion": "one"}, ["error: 'one' is not a version"]),
        ({"cniVersion": 1}, ["error: 1 is not a version"]),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.0.0"]}, []),
        ({"cniVersions": "1.0.0"}, ["error: cniVersions must be a list, not a string"]),
        (
            {"cniVersion": None},
            ["warning: no cniVersion: 0.1.0 is taken, whose results have one address and no interfaces"],
        ),
        ({"disableCheck": "true"}, ["warning: disableCheck must be true or false, not a string"]),
        ({"disableGC": 1}, ["error: disableGC must be true or false"]),
        ({"disablecheck": True}, ["warning: the key 'disablecheck' is spelt 'disableCheck'"]),
        ({"plugin": []}, ["warning: unknown key 'plugin': nobody reads it"]),
        ({"plugins": {}}, ["error: plugins must be a list, not an object"]),
    ],
)
def test_list_keys(check: Linter, change: dict[str, Any], expected: list[str]) -> None:
    assert texts(check(network("n", [{"type": "loopback"}]) | change)) == expected


def test_missing_plugins_are_named_with_a_guess(check: Linter, suite_bin: str, tmp_path: Path) -> None:
    found = check([{"type": "brigde", "ipam": {"type": "host-locl"}}])
    assert [(item.text, item.advice) for item in found] == [
        (f"no plugin 'brigde' in {suite_bin}", "did you mean 'bridge'?"),
        (f"no plugin 'host-locl' in {suite_bin}", "did you mean 'host-local'?"),
    ]
    found = Linter(tmp_path, str(tmp_path))([{"type": "macvlan"}])
    assert [item.text for item in found] == [f"no plugin 'macvlan' in {tmp_path}"]


def test_plugins_without_a_model_only_have_to_exist(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("")
    (tmp_path / "odd").chmod(0o755)
    file = tmp_path / "n.conflist"
    file.write_text(
        json.dumps(network("n", [{"type": "odd", "any": {"key": 1}, "capabilities": {"x": True}}]))
    )
    assert lint([str(file)], [str(tmp_path)]) == []
    file.write_text(json.dumps(network("n", [{"type": "odd", "ipam": 1}])))
    assert texts(lint([str(file)], [str(tmp_path)])) == ["error: ipam must be an object, not a number"]


def test_networks_against_each_other(check: Linter, tmp_path: Path) -> None:
    first = [bridge(isGateway=True)]
    found = check(first, [bridge(bridge="br1", ipam=host_local("10.1.7.0/24"))])
    assert [(item.file, item.severity) for item in found] == [(f"{tmp_path}/1.conflist", WARNING)]
    assert found[0].text == "the subnet 10.1.7.0/24 overlaps 10.1.0.0/16 of the network net0"
    assert f"{tmp_path}/0.conflist:" in found[0].advice
    other = host_local("10.2.0.0/16")
    assert texts(check(first, [bridge(isGateway=True, ipam=other)])) == [
        "warning: the network net0 is the gateway of another subnet on the same bridge 'cni0'"
    ]
    assert texts(check(first, [{"type": "flannel"}])) == [
        "warning: the network net0 is the gateway of another subnet on the same bridge 'cni0'"
    ]
    for fine in ({"isGateway": False}, {"vlan": 5}, {"bridge": "br1"}, {"forceAddress": True}):
        assert check(first, [bridge(**({"isGateway": True, "ipam": other} | fine))]) == []
    same_name = network("net0", [{"type": "loopback"}])
    assert texts(check(first, same_name)) == [
        f"warning: {tmp_path}/0.conflist has a network of this name too"
    ]


def test_plugins_in_the_folder_beside(tmp_path: Path, suite_bin: str) -> None:
    (tmp_path / "1.conflist").write_text(json.dumps(network("net", [bridge()])))
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a.conf").write_text('{"type": "portmap",\n "snat": 1}')
    found = lint([str(tmp_path)], [suite_bin])
    assert [(item.file, item.line) for item in found] == [
        (str(tmp_path / "net" / "a.conf"), line) for line in (1, 2)
    ]
    (tmp_path / "net" / "a.conf").write_text("{")
    assert [item.text for item in lint([str(tmp_path)], [suite_bin])] == [
        "not JSON: a key in double quotes should be here"
    ]
    (tmp_path / "1.conflist").write_text(json.dumps(network("net", [bridge()], loadOnlyInlinedPlugins=True)))
    assert lint([str(tmp_path)], [suite_bin]) == []


def test_single_plugin_files(tmp_path: Path, suite_bin: str) -> None:
    file = tmp_path / "1.conf"
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "n"} | bridge(prevResult={})))
    assert texts(lint([str(file)], [suite_bin])) == [
        "error: the key 'prevResult' is the runtime's to write",
    ]
    file.write_text(json.dumps(network("n", [bridge()])))
    (found,) = lint([str(file)], [suite_bin])
    assert found.advice == "name it 1.conflist"


@pytest.mark.parametrize(
    ("data", "place", "text"),
    [
        (b"", (1, 1), "not JSON: the text ends where a value should be"),
        (b'{\n "a": "\xff"}', (2, 8), "the text is not UTF-8"),
        (b'{\n "a": 1,\n}', (3, 1), "not JSON: there is a comma before the closing bracket"),
        (b"[]", (1, 1), "a network configuration is an object"),
    ],
)
def test_unreadable_texts(tmp_path: Path, data: bytes, place: tuple[int, int], text: str) -> None:
    file = tmp_path / "1.conflist"
    file.write_bytes(data)
    (found,) = lint([str(file)], [])
    assert ((found.line, found.column), found.text) == (place, text)


def test_unreadable_files(tmp_path: Path) -> None:
    (found,) = lint([str(tmp_path / "none.conflist")], [])
    assert found.text == "cannot be read: No such file or directory"
    with pytest.raises(InvalidConfigError, match="no network configuration in"):
        expand([str(tmp_path)])


def test_a_repeated_key(check: Linter) -> None:
    found = check('{"cniVersion": "1.0.0", "name": "a",\n "name": "n", "plugins": [{"type": "loopback"}]}')
    assert [(item.line, item.column, item.text) for item in found] == [
        (2, 2, "the key 'name' comes a second time in this object")
    ]


def test_text_for_people() -> None:
    findings = [Finding("f", 1, 2, ERROR, "bad", "mend it"), Finding("f", 3, 4, WARNING, "odd")]
    assert to_text(findings, 1, colour=False).splitlines() == [
        "f:1:2: error: bad",
        "    mend it",
        "f:3:4: warning: odd",
        "1 file: 1 error, 1 warning",
    ]
    assert "\033[1;31merror:\033[0m bad" in to_text(findings, 1, colour=True)
    assert to_text([], 2, colour=False) == "2 files: 0 errors, 0 warnings"


def test_bounds_that_have_no_words_of_their_own() -> None:
    class Model(BaseModel):
        key: str = Field(pattern="^a")

    findings: list[Finding] = []
    spot = Spot(findings, "f", Document('{"key": "b"}'))
    assert shape.check(spot, Model, {"key": "b"}) is None
    assert texts(findings) == ["error: key: String should match pattern '^a'"]


def test_suggestions() -> None:
    assert shape.suggest("ISGATEWY", ["isGateway", "mtu"]) == "did you mean 'isGateway'?"
    assert shape.suggest("zzz", ["isGateway", "mtu"]) == ""


def test_schema_of_lists_has_every_plugin() -> None:
    schema = models.schema()
    json.dumps(schema)
    assert schema["required"] == ["name"]
    assert {
        "cniVersion",
        "cniVersions",
        "disableCheck",
        "disableGC",
        "name",
        "loadOnlyInlinedPlugins",
        "plugins",
    } == set(schema["properties"])
    references = {
        item["then"].get("$ref", "").rpartition("/")[2]
        for item in schema["properties"]["plugins"]["items"]["allOf"]
    }
    assert {model.__name__ for model in models.PLUGINS.values()} <= references
    assert references - {""} <= set(schema["$defs"])
    assert "isDefaultGateway" in models.schema("bridge")["properties"]
    assert "ranges" in models.schema("host-local")["properties"]
    with pytest.raises(KeyError):
        models.schema("nope")


def test_capabilities_come_from_the_models() -> None:
    assert models.capabilities("portmap") == {"portMappings"}
    assert models.capabilities("bridge", "host-local") == {"mac", "ips", "ipRanges"}
    assert models.capabilities("loopback") == set()
    assert models.capabilities("flannel") == set(models.CONVENTIONAL)
    assert models.capabilities("macvlan") == {"mac"}
    assert models.capabilities("calico") is None
    assert models.capabilities("bridge", "dhcp") == {"mac"}
    assert models.capabilities("bridge", "whereabouts") is None
