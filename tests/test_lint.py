from __future__ import annotations

import copy
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXAMPLES = os.path.join(suite.ROOT, "conflist/examples")
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> str:
    return suite.make(str(tmp_path_factory.mktemp("bin")))


@pytest.fixture
def check(tmp_path: Path, plugins: str) -> Callable[..., list[Finding]]:
    """Return a function that lints lists: each a list of plugin objects, a whole object or a text."""

    def run(*contents: Any) -> list[Finding]:
        files = []
        for index, content in enumerate(contents):
            value = network(f"net{index}", content) if isinstance(content, list) else content
            path = tmp_path / f"{index}.conflist"
            path.write_text(value if isinstance(value, str) else json.dumps(value, indent=2))
            files.append(str(path))
        return lint(files, [plugins])

    return run


def network(name: str, objects: list[Any], **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": objects, **more}


def bridge(**more: Any) -> dict[str, Any]:
    return {"type": "bridge", "ipam": copy.deepcopy(IPAM), **more}


def host_local(*subnets: str, **more: Any) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets], **more}


def texts(findings: list[Finding]) -> list[str]:
    return [f"{finding.severity}: {finding.text}" for finding in findings]


def samples() -> list[str]:
    return sorted(os.path.join(EXAMPLES, name) for name in os.listdir(EXAMPLES))


@pytest.mark.parametrize("file", samples(), ids=os.path.basename)
def test_samples_are_clean(file: str, plugins: str) -> None:
    assert lint([file], [plugins]) == []


def test_samples_go_together(plugins: str) -> None:
    assert lint([EXAMPLES], [plugins]) == []
    assert len(samples()) >= 6


def test_place_text_and_advice(tmp_path: Path, plugins: str) -> None:
    path = tmp_path / "1.conflist"
    path.write_text(
        '{"cniVersion": "1.0.0", "name": "n",\n "plugins": [{"type": "bridge",\n  "mtu": "1500"}]}'
    )
    assert lint([str(path)], [plugins]) == [
        Finding(str(path), 3, 10, ERROR, "mtu must be an integer, not a string", "write 1500 without quotes")
    ]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([bridge()], []),
        ([bridge(isGateway="true")], ["error: isGateway must be true or false, not a string"]),
        ([bridge(mtu=-1)], ["error: mtu must be 0 or more, not -1"]),
        ([bridge(mtu=70000)], ["error: mtu must be 65535 or less, not 70000"]),
        ([bridge(mtu=1.5)], ["error: mtu must be an integer, not a number with a fraction"]),
        ([bridge(mtu=60)], ["error: an MTU of 60 is too small for IPv4"]),
        ([bridge(vlanTrunk={})], ["error: vlanTrunk must be a list, not an object"]),
        ([bridge(vlanTrunk=[{"id": "5"}])], ["error: vlanTrunk[0].id must be an integer, not a string"]),
        ([bridge(dns=[])], ["error: dns must be an object, not a list"]),
        ([bridge(isGatway=True)], ["warning: unknown key 'isGatway': nobody reads it"]),
        ([bridge(isgateway=True)], ["warning: the key 'isgateway' is spelt 'isGateway'"]),
        ([bridge(vlanTrunk=[{"id": 1, "idd": 2}])], ["warning: unknown key 'idd': nobody reads it"]),
        ([bridge(args={"cni": {"ips": ["10.1.0.9"]}})], []),
        (
            [bridge(hairpinMode=True, promiscMode=True)],
            ["error: hairpinMode and promiscMode exclude each other"],
        ),
        ([bridge(vlan=5, vlanTrunk=[{"id": 6}])], ["error: vlan and vlanTrunk exclude each other"]),
        ([bridge(vlanTrunk=[{"minID": 6}])], ["error: a range of VLANs has minID and maxID"]),
        ([bridge(vlanTrunk=[{"minID": 6, "maxID": 5}])], ["error: minID 6 is greater than maxID 5"]),
        ([bridge(vlanTrunk=[{}])], ["error: an entry of vlanTrunk has id, or minID and maxID"]),
        (
            [bridge(disableContainerInterface=True)],
            ["error: an interface that stays down cannot have addresses"],
        ),
        ([{"type": "bridge", "isGateway": True}], ["warning: isGateway does nothing without ipam"]),
        (
            [{"type": "bridge", "ipam": {"subnet": "10.1.0.0/16"}}],
            ["warning: ipam has no type: the container gets no address"],
        ),
        ([{"type": "bridge", "ipam": {}}], []),
        ([bridge(mac="0a:58")], ["error: '0a:58' is not a MAC address"]),
        (
            [bridge(bridge="a-name-that-is-long")],
            ["error: the bridge's name 'a-name-that-is-long' is too long; the kernel takes 15 bytes"],
        ),
        ([bridge(ipMasqBackend="ipfw")], ["error: 'ipfw' is no backend"]),
        ([bridge(dns={"nameservers": ["one"]})], ["error: 'one' is not an IP address"]),
        ([bridge(runtimeConfig={})], ["error: the key 'runtimeConfig' is the runtime's to write"]),
        ([bridge(**{"cni.dev/x": 1})], ["error: the key 'cni.dev/x' is the runtime's to write"]),
        ([bridge(name="other")], ["warning: the plugin's name is replaced by the list's"]),
        ([bridge(capabilities=["mac"])], ["error: capabilities must be an object"]),
        ([bridge(capabilities={"mac": "yes"})], ["error: the capability mac must be true or false"]),
        ([bridge(capabilities={"mca": True})], ["warning: bridge does not know the capability mca"]),
        ([bridge(capabilities={"mca": False, "ips": True, "ipRanges": True})], []),
        (
            [bridge(capabilities={"portMappings": True})],
            ["warning: host ports are asked for, but portmap is not in the list"],
        ),
        (
            [bridge(), {"type": "portmap"}],
            ["warning: portmap never gets a mapping: it does not declare the capability portMappings"],
        ),
        ([bridge(), PORTMAP, PORTMAP], ["warning: portmap is in the list twice"]),
        ([bridge(), PORTMAP | {"backend": "ebpf"}], ["error: 'ebpf' is no backend"]),
        (
            [bridge(), PORTMAP | {"markMasqBit": 3, "externalSetMarkChain": "X"}],
            ["error: markMasqBit and externalSetMarkChain exclude each other"],
        ),
        ([PORTMAP], ["error: portmap works on the result of another plugin; it cannot be the first"]),
        ([bridge(), {"type": "flannel"}], ["error: flannel makes the interface that bridge has made before"]),
        ([IPAM], ["error: host-local is an IPAM plugin, no member of a list"]),
        ([{}], ["error: the plugin object has no type"]),
        ([{"type": "a/b"}], ["error: invalid plugin type 'a/b'"]),
        ([{"type": 1}], ["error: invalid plugin type 1"]),
        ([1], ["error: plugins[0] must be an object, not a number"]),
        ([bridge(ipam={"type": "../x"})], ["error: invalid plugin type '../x'"]),
        ([], ["error: the list has no plugins"]),
    ],
)
def test_plugin_objects(check: Callable[..., list[Finding]], objects: list[Any], expected: list[str]) -> None:
    assert texts(check(objects)) == expected


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        (host_local("10.1.0.0/16", "fd00::/64"), []),
        ({"type": "host-local", "subnet": "10.1.0.0/16"}, []),
        ({"type": "host-local"}, ["error: host-local has no range to give addresses from"]),
        ({"type": "host-local", "ranges": [[]]}, ["error: a range set needs at least one range"]),
        (
            {"type": "host-local", "ranges": [{"subnet": "10.1.0.0/16"}]},
            ["error: ranges[0] must be a list, not an object"],
        ),
        ({"type": "host-local", "rangeStart": "10.1.0.5"}, ["error: a range needs a subnet"]),
        (host_local("10.1.0.0"), ["error: the subnet '10.1.0.0' is not an address in CIDR notation"]),
        (host_local("10.1.0.0/31"), ["error: 10.1.0.0/31 is too small to give addresses from"]),
        (host_local("10.1.0.9/24"), ["warning: 10.1.0.9/24 has host bits; the subnet is 10.1.0.0/24"]),
        (
            host_local("10.1.0.0/16", "10.1.2.0/24"),
            ["error: 10.1.2.1-10.1.2.254 overlaps 10.1.0.1-10.1.255.254 (F)"],
        ),
        (
            {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]},
            ["error: one range set holds IPv4 and IPv6"],
        ),
        (
            host_local(subnet="10.1.0.0/24", gateway="10.2.0.1"),
            ["error: gateway 10.2.0.1 is outside the subnet 10.1.0.0/24"],
        ),
        (
            host_local(subnet="10.1.0.0/24", rangeStart="10.2.0.1"),
            ["error: rangeStart 10.2.0.1 is outside the subnet 10.1.0.0/24"],
        ),
        (host_local(subnet="10.1.0.0/24", rangeEnd="x"), ["error: rangeEnd 'x' is not an IP address"]),
        (
            host_local(subnet="10.1.0.0/24", rangeStart="10.1.0.9", rangeEnd="10.1.0.8"),
            ["error: rangeStart 10.1.0.9 is after rangeEnd 10.1.0.8"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0"}]),
            ["error: the destination '10.0.0.0' is not an address in CIDR notation"],
        ),
        (host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.1/8"}]), ["warning: 10.0.0.1/8 has host bits"]),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "x"}]),
            ["error: 'x' is not an IP address"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "fd00::1"}]),
            ["error: the next hop fd00::1 is of another family than 10.0.0.0/8"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "10.2.0.1"}]),
            ["warning: the next hop 10.2.0.1 is in none of the network's subnets"],
        ),
        (host_local("fd00::/64", routes=[{"dst": "::/0", "gw": "fe80::1"}]), []),
        (host_local("10.1.0.0/24", datadir="/x"), ["warning: the key 'datadir' is spelt 'dataDir'"]),
        (host_local("10.1.0.0/24", rnages=[]), ["warning: unknown key 'rnages': nobody reads it"]),
    ],
)
def test_host_local(
    check: Callable[..., list[Finding]], tmp_path: Path, ipam: dict[str, Any], expected: list[str]
) -> None:
    found = texts(check([{"type": "bridge", "ipam": ipam}]))
    place = f"{tmp_path}/0.conflist"
    assert [text.split(place)[0] + "F)" if place in text else text for text in found] == expected


def test_ranges_can_come_at_run_time(check: Callable[..., list[Finding]]) -> None:
    ipam = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0", "gw": "10.2.0.1"}]}
    assert check([bridge(capabilities={"ipRanges": True}, ipam=ipam)]) == []


def test_two_mistakes_at_once(check: Callable[..., list[Finding]]) -> None:
    found = check([bridge(mtu="x", ipam=host_local("10.1.0.0/24", routes=[{"dst": "x"}]))])
    assert [item.severity for item in found] == [ERROR, ERROR]


def test_another_ipam_plugin_only_has_to_exist(tmp_path: Path, plugins: str) -> None:
    (tmp_path / "static").symlink_to("/bin/true")
    file = tmp_path / "n.conflist"
    file.write_text(json.dumps(network("n", [bridge(ipam={"type": "static", "addresses": []})])))
    assert lint([str(file)], [plugins, str(tmp_path)]) == []


def test_two_default_routes(check: Callable[..., list[Finding]]) -> None:
    ipam = host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0"}])
    (found,) = check([bridge(isDefaultGateway=True, ipam=ipam)])
    assert found.text == "isDefaultGateway already makes a default route; a second one fails"
    assert check([bridge(isGateway=True, ipam=ipam)]) == []


def test_two_addresses_of_a_family_before_their_time(check: Callable[..., list[Finding]]) -> None:
    value = network("n", [bridge(ipam=host_local("10.1.0.0/24", "10.2.0.0/24"))])
    assert check(value) == []
    (found,) = check(value | {"cniVersion": "0.2.0"})
    assert found.text == "version 0.2.0 cannot return two addresses of a family"


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
def test_list_keys(check: Callable[..., list[Finding]], change: dict[str, Any], expected: list[str]) -> None:
    assert texts(check(network("n", [{"type": "loopback"}]) | change)) == expected


def test_missing_plugins_are_named_with_a_guess(check: Callable[..., list[Finding]], plugins: str) -> None:
    found = check([{"type": "brigde", "ipam": {"type": "host-locl"}}])
    assert [(item.text, item.advice) for item in found] == [
        (f"no plugin 'brigde' in {plugins}", "did you mean 'bridge'?"),
        (f"no plugin 'host-locl' in {plugins}", "did you mean 'host-local'?"),
    ]
    assert [item.text for item in check([{"type": "macvlan"}])] == [f"no plugin 'macvlan' in {plugins}"]


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


@pytest.mark.parametrize(
    ("flannel", "expected"),
    [
        ({}, []),
        ({"delegate": {"type": "bridge", "isDefaultGateway": True}, "ipam": {"routes": []}}, []),
        (
            {"delegate": {"name": "x", "ipam": {}}},
            [
                "error: flannel makes the delegate's name itself",
                "error: flannel makes the delegate's ipam itself",
            ],
        ),
        ({"delegate": {"hairpinmode": True}}, ["warning: the key 'hairpinmode' is spelt 'hairpinMode'"]),
        ({"delegate": {"vlan": 9000}}, ["error: vlan must be 4094 or less, not 9000"]),
        (
            {"delegate": {"hairpinMode": True, "promiscMode": True}},
            ["error: hairpinMode and promiscMode exclude each other"],
        ),
        ({"delegate": {"type": 1}}, ["error: type must be a string"]),
        ({"delegate": []}, ["error: delegate must be an object, not a list"]),
        ({"subnetfile": "/x"}, ["warning: the key 'subnetfile' is spelt 'subnetFile'"]),
        ({"ipam": {"dataDir": 1}}, ["error: dataDir must be a string, not a number"]),
    ],
)
def test_flannel(check: Callable[..., list[Finding]], flannel: dict[str, Any], expected: list[str]) -> None:
    assert texts(check([{"type": "flannel"} | flannel, PORTMAP])) == expected


def test_networks_against_each_other(check: Callable[..., list[Finding]], tmp_path: Path) -> None:
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


def test_plugins_in_the_folder_beside(tmp_path: Path, plugins: str) -> None:
    (tmp_path / "1.conflist").write_text(json.dumps(network("net", [bridge()])))
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a.conf").write_text('{"type": "portmap",\n "snat": 1}')
    found = lint([str(tmp_path)], [plugins])
    assert [(item.file, item.line) for item in found] == [
        (str(tmp_path / "net" / "a.conf"), line) for line in (1, 2)
    ]
    (tmp_path / "net" / "a.conf").write_text("{")
    assert [item.text for item in lint([str(tmp_path)], [plugins])] == [
        "not JSON: a key in double quotes should be here"
    ]
    (tmp_path / "1.conflist").write_text(json.dumps(network("net", [bridge()], loadOnlyInlinedPlugins=True)))
    assert lint([str(tmp_path)], [plugins]) == []


def test_single_plugin_files(tmp_path: Path, plugins: str) -> None:
    file = tmp_path / "1.conf"
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "n"} | bridge(prevResult={})))
    assert texts(lint([str(file)], [plugins])) == [
        "error: the key 'prevResult' is the runtime's to write",
    ]
    file.write_text(json.dumps(network("n", [bridge()])))
    (found,) = lint([str(file)], [plugins])
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


def test_a_repeated_key(check: Callable[..., list[Finding]]) -> None:
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
    assert models.capabilities("macvlan") is None
    assert models.capabilities("bridge", "dhcp") is None
