"""What the smaller backends want, and what every one makes of its options; docs/backends.md has them all."""

from __future__ import annotations

import asyncio
import os
import re
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.backend import BackendError
from flanneld.backend.extension import ExtensionOptions
from flanneld.backend.ipip import Ipip, IpipOptions
from flanneld.backend.table import BACKENDS, make
from flanneld.backend.udp import Udp, UdpOptions
from flanneld.backend.vxlan import VxlanOptions
from flanneld.backend.wireguard import WireguardOptions
from flanneld.lease import Lease, LeaseAttrs
from flanneld.netconf import NetworkConfig
from flanneld.state import Address, Device, Route
from flanneld.uplink import Uplink

if TYPE_CHECKING:
    from pydantic import BaseModel

UPLINK = Uplink(
    2,
    "uplink",
    1500,
    *(IPv4Address("198.18.1.11"), None, IPv4Address("198.18.1.11"), None),
    (IPv4Network("198.18.1.0/24"),),
)
OPTIONS: dict[str, type[BaseModel]] = {
    "extension": ExtensionOptions,
    "ipip": IpipOptions,
    "udp": UdpOptions,
    "vxlan": VxlanOptions,
    "wireguard": WireguardOptions,
}


def config(kind: str, families: str = "4", **options: Any) -> NetworkConfig:
    return NetworkConfig.model_validate(
        {
            "Network": "10.244.0.0/16",
            "IPv6Network": "fd00:244::/48",
            "EnableIPv4": "4" in families,
            "EnableIPv6": "6" in families,
            "Backend": {"Type": kind, **options},
        }
    )


def lease(number: int, public_ip: str, kind: str = "ipip") -> Lease:
    attrs = LeaseAttrs(IPv4Address(public_ip), None, kind)
    return Lease(IPv4Network(f"10.244.{number}.0/24"), None, attrs)


OWN, NEAR, FAR = lease(11, "198.18.1.11"), lease(12, "198.18.1.12"), lease(21, "198.18.2.21")


@pytest.mark.parametrize("direct", [False, True])
def test_ipip(direct: bool) -> None:
    made = Ipip(config("ipip", DirectRouting=direct))
    state = made.desired(UPLINK, OWN, [NEAR, FAR, lease(5, "198.18.2.5", "vxlan")])
    device, address, *routes = state
    assert device == Device("flannel.ipip", "ipip", 1480, options=(("local", "198.18.1.11"),))
    assert isinstance(address, Address)
    assert str(address.interface) == "10.244.11.0/32"
    assert {
        (str(r.destination), r.device, str(r.gateway), r.onlink) for r in routes if isinstance(r, Route)
    } == {
        ("10.244.12.0/24", "uplink" if direct else "flannel.ipip", "198.18.1.12", True),
        ("10.244.21.0/24", "flannel.ipip", "198.18.2.21", True),
    }


def test_udp() -> None:
    made = Udp(config("udp"))
    device, address, route = made.desired(UPLINK, OWN, [FAR])
    assert device == Device("flannel0", "tun", 1472)
    assert isinstance(address, Address)
    assert str(address.interface) == "10.244.11.0/32"
    assert route == Route(IPv4Network("10.244.0.0/16"), "flannel0")
    asyncio.run(made.close())


@pytest.mark.parametrize("kind", ["ipip", "udp"])
def test_ipv4_alone_is_carried(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BackendError, match=f"{kind} carries IPv4 alone"):
        make(config(kind, "6"))
    asyncio.run(make(config(kind, "46")).close())
    assert "IPv6 packets find no way" in caplog.text


def test_options_are_checked() -> None:
    for kind, options, said in (
        ("vxlan", {"VNI": 0}, "Backend: vni: "),
        ("udp", {"Port": "x"}, "Backend: port: "),
        ("ipip", {"DirectRouting": "sometimes"}, "Backend: directrouting: "),
        ("carrier-pigeon", {}, "there is no backend carrier-pigeon; there are alloc, extension, host-gw"),
    ):
        with pytest.raises(BackendError, match=said):
            make(config(kind, **options))


def test_the_manual_has_every_option() -> None:
    path = os.path.join(os.path.dirname(__file__), "../docs/backends.md")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for kind in BACKENDS:
        section = re.search(rf"^## {kind}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section, kind
        told = {key.lower() for key in re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)}
        model = OPTIONS.get(kind)
        known = {field.alias or name for name, field in model.model_fields.items()} if model else set()
        assert told == known, kind


@pytest.mark.parametrize("kind", ["vxlan", "wireguard"])
@pytest.mark.parametrize(
    "data",
    [
        "null",
        "5",
        "[]",
        "{}",
        '"x"',
        *(
            f'{{"VtepMAC":{it},"PublicKey":{it}}}'
            for it in ("null", "5", '"é"', '"01:00:5e:00:00:01"', '"00:00:00:00:00:00"')
        ),
    ],
)
def test_what_one_node_publishes_is_no_other_nodes_end(kind: str, data: str) -> None:
    """Whoever may write one node's annotations must not end every daemon of the cluster."""
    backend = make(config(kind))
    if kind == "vxlan":
        asyncio.run(backend.start(UPLINK, LeaseAttrs(UPLINK.public_ip, None, kind, data)))
    attrs = LeaseAttrs(IPv4Address("198.18.2.21"), None, kind, data)
    other = Lease(IPv4Network("10.244.21.0/24"), None, attrs)
    before = backend.desired(UPLINK, OWN, [])
    after = backend.desired(UPLINK, OWN, [other])
    assert not after.since(before).write
