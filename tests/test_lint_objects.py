from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.linting import IPAM, PORTMAP, Linter, bridge, texts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def check(tmp_path: Path, suite_bin: str) -> Linter:
    return Linter(tmp_path, suite_bin)


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
        ([{"type": "macvlan", "master": "eth0", "mode": "vepa", "mtu": 1400}], []),
        ([{"type": "macvlan", "mode": "bridged"}], ["error: 'bridged' is no mode"]),
        ([{"type": "macvlan", "mac": "02"}], ["error: '02' is not a MAC address"]),
        ([{"type": "macvlan", "mtu": -1}], ["error: mtu must be 0 or more, not -1"]),
        ([{"type": "macvlan", "bcqueuelen": -1}], ["error: bcqueuelen must be 0 or more, not -1"]),
        (
            [{"type": "macvlan", "master": "a/b"}],
            ["error: the master's name 'a/b' contains / or : or white space"],
        ),
        ([{"type": "ipvlan", "mode": "l4", "ipam": IPAM}], ["error: 'l4' is no mode"]),
        ([{"type": "ptp", "ipam": IPAM}, {"type": "ipvlan"}], []),
        ([{"type": "vlan", "vlanId": 4095, "ipam": IPAM}], ["error: 4095 is no VLAN id"]),
        ([{"type": "vlan", "vlanId": 4}], ["error: vlan needs an IPAM plugin"]),
        ([{"type": "dummy"}], ["error: dummy needs an IPAM plugin"]),
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
def test_plugin_objects(check: Linter, objects: list[Any], expected: list[str]) -> None:
    assert texts(check(objects)) == expected


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
def test_flannel(check: Linter, flannel: dict[str, Any], expected: list[str]) -> None:
    assert texts(check([{"type": "flannel"} | flannel, PORTMAP])) == expected
