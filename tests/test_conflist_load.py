from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import CNIError, DecodeError, InvalidConfigError
from conflist.load import NetworkNotFoundError, iterate_networks, load_network, parse_list

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def network(name: str, *types: str, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": kind} for kind in types], **more}


def test_first_list_by_file_name_wins_over_later_ones_and_single_files(tmp_path: Path) -> None:
    write(tmp_path / "00-net.conf", {"name": "net", "type": "single"})
    write(tmp_path / "20-net.conflist", network("net", "second"))
    write(tmp_path / "10-net.conflist", network("net", "first"))
    write(tmp_path / "05-net.txt", network("net", "no"))
    found = load_network(str(tmp_path), "net")
    assert [plugin["type"] for plugin in found.plugins] == ["first"]
    assert found.path == str(tmp_path / "10-net.conflist")
    assert found.data == (tmp_path / "10-net.conflist").read_bytes()


@pytest.mark.parametrize("extension", ["conf", "json"])
def test_a_single_file_counts_as_a_list(tmp_path: Path, extension: str) -> None:
    plugin = {"cniVersion": "0.4.0", "name": "one", "type": "ptp", "mtu": 9}
    write(tmp_path / f"1.{extension}", plugin)
    write(tmp_path / "1.conflist", network("other", "x"))
    found = load_network(str(tmp_path), "one")
    assert (found.version, found.plugins) == ("0.4.0", [plugin])
    assert json.loads(found.data) == {"cniVersion": "0.4.0", "name": "one", "plugins": [plugin]}


def test_plugins_inlined_from_a_folder_come_after_the_lists_own(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", network("net", "first"))
    write(tmp_path / "net" / "b.conf", {"type": "third"})
    write(tmp_path / "net" / "a.conf", {"type": "second"})
    write(tmp_path / "net" / "c.json", {"type": "no"})
    assert [plugin["type"] for plugin in load_network(str(tmp_path), "net").plugins] == [
        "first",
        "second",
        "third",
    ]


def test_load_only_inlined_plugins_leaves_the_folder_alone(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", network("net", "first", loadOnlyInlinedPlugins=True))
    write(tmp_path / "net" / "a.conf", "not JSON")
    assert len(load_network(str(tmp_path), "net").plugins) == 1


def test_a_list_can_have_all_its_plugins_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", {"cniVersion": "1.0.0", "name": "net"})
    write(tmp_path / "net" / "a.conf", {"type": "only"})
    assert load_network(str(tmp_path), "net").plugins == [{"type": "only"}]


def test_no_plugins_at_all(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", {"cniVersion": "1.0.0", "name": "net"})
    with pytest.raises(InvalidConfigError, match=r"1\.conflist: no plugin configuration found"):
        load_network(str(tmp_path), "net")


def test_a_name_that_leads_elsewhere_reads_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "a.conf", {"type": "evil"})
    write(tmp_path / "net.d" / "1.conflist", network("../outside", "first"))
    assert len(load_network(str(tmp_path / "net.d"), "../outside").plugins) == 1


def test_not_found_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", network("net", "x"))
    with pytest.raises(NetworkNotFoundError) as caught:
        load_network(str(tmp_path), "nat")
    assert str(tmp_path) in caught.value.msg
    assert caught.value.details == "networks there: net"
    with pytest.raises(NetworkNotFoundError) as caught:
        load_network(str(tmp_path / "missing"), "nat")
    assert caught.value.details == "no configuration is there"


def test_a_broken_file_on_the_way_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.conflist", "{")
    write(tmp_path / "2.conflist", network("net", "x"))
    with pytest.raises(DecodeError, match=r"1\.conflist"):
        load_network(str(tmp_path), "net")


def test_folders_with_an_extension_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "x.conflist").mkdir()
    assert list(iterate_networks(str(tmp_path))) == []


def test_a_list_called_conf_says_so(tmp_path: Path) -> None:
    write(tmp_path / "1.conf", network("net", "x"))
    with pytest.raises(InvalidConfigError) as caught:
        load_network(str(tmp_path), "net")
    assert "conflist" in caught.value.details


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.conflist").symlink_to("nowhere")
    with pytest.raises(InvalidConfigError, match=r"gone\.conflist: cannot be read: No such file"):
        load_network(str(tmp_path), "net")
    with pytest.raises(InvalidConfigError, match=r"cannot read the folder .*: Not a directory"):
        load_network(__file__, "net")


@pytest.mark.parametrize("plugin", [{"type": "x", "name": 1}, {"type": "x", "cniVersion": 1}])
def test_single_files_with_wrong_types(tmp_path: Path, plugin: dict[str, Any]) -> None:
    write(tmp_path / "1.conf", plugin)
    with pytest.raises(InvalidConfigError, match=r"1\.conf: .* must be a string"):
        load_network(str(tmp_path), "net")


@pytest.mark.parametrize(
    ("keys", "version"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersion": "9.0.0"}, "9.0.0"),
        ({"cniVersions": ["0.3.1", "1.1.0", "1.0.0"]}, "1.1.0"),
        ({"cniVersions": ["0.3.1", "2.0.0"]}, "0.3.1"),
        ({"cniVersion": "1.0.0", "cniVersions": ["0.3.1", "2.0.0"]}, "1.0.0"),
        ({"cniVersion": "0.3.0", "cniVersions": ["1.0.0"]}, "1.0.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["2.1.0"]}, "2.0.0"),
        ({"cniVersion": "0.4.0", "cniVersions": []}, "0.4.0"),
    ],
)
def test_version_selection(keys: dict[str, Any], version: str) -> None:
    text = json.dumps({"name": "n", "plugins": [{"type": "x"}], **keys})
    assert parse_list(text.encode()).version == version


def test_flags_may_be_strings() -> None:
    found = parse_list(json.dumps(network("n", "x", disableCheck="True", disableGC="false")).encode())
    assert (found.disable_check, found.disable_gc, found.only_inlined) == (True, False, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name must be a string"),
        ({"name": None}, "name must be a string"),
        ({"cniVersion": 1}, "cniVersion must be a string"),
        ({"cniVersions": "1.0.0"}, "cniVersions must be a list"),
        ({"cniVersions": ["one"]}, "'one' is not a version"),
        ({"disableGC": "yes"}, "disableGC must be true or false"),
        ({"plugins": []}, "at least one plugin"),
        ({"plugins": {}}, "at least one plugin"),
        ({"plugins": ["x"]}, r"plugins\[0\] must be an object"),
        ({"plugins": [{"type": "x"}, {}]}, r"plugins\[1\] has no type"),
        ({"plugins": [{"type": 1}]}, r"plugins\[0\] has no type"),
    ],
)
def test_invalid_lists(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError, match=message):
        parse_list(json.dumps(network("n", "x") | change).encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be an object"),
        ("{}", "no name"),
        ('{"name": "n", "loadOnlyInlinedPlugins": true}', "no plugins key"),
        ("", "empty"),
    ],
)
def test_invalid_texts(text: str, message: str) -> None:
    with pytest.raises(CNIError, match=message):
        parse_list(text.encode())
