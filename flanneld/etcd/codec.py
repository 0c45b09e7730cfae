"""Keys and values in etcd, as Go's flanneld writes and reads them.

/coreos.com/network/subnets/10.5.34.0-24
/coreos.com/network/subnets/10.5.34.0-24&fd00:5:0:22::-64
{"PublicIP":"192.168.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"…"}}
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from flanneld.lease import NO_DATA, LeaseAttrs, decode_data, encode_data

if TYPE_CHECKING:
    from flanneld.lease import Key

_NAME = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?")
_NO_IPV4 = IPv4Network("0.0.0.0/0")
"""What stands for IPv4 where there is none: the key's form demands something."""


def name_of(key: Key) -> str:
    """Return the last part of a lease's key in etcd."""
    subnet, ipv6_subnet = key
    name = _dashed(subnet or _NO_IPV4)
    return f"{name}&{_dashed(ipv6_subnet)}" if ipv6_subnet else name


def parse_name(name: str) -> Key | None:
    """Return the subnets that the last part of a key means; None for what is no lease."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    try:
        subnet = IPv4Network((found[1], int(found[2])))
        ipv6_subnet = IPv6Network((found[3], int(found[4]))) if found[3] else None
    except ValueError:
        return None
    return (None if subnet == _NO_IPV4 else subnet), ipv6_subnet


def encode_attrs(attrs: LeaseAttrs) -> bytes:
    """Return a lease's value; data that is `null` is left out, and a type that is empty."""
    value: dict[str, Any] = {
        "PublicIP": str(attrs.public_ip or IPv4Address(0)),
        "PublicIPv6": str(attrs.public_ipv6) if attrs.public_ipv6 else None,
    }
    if attrs.backend_type:
        value["BackendType"] = attrs.backend_type
    for name, data in (("BackendData", attrs.backend_data), ("BackendV6Data", attrs.backend_v6_data)):
        if data != NO_DATA:
            value[name] = json.loads(data)
    return encode_data(value).encode()


def decode_attrs(value: bytes) -> LeaseAttrs:
    """Read a lease's value.

    Raises:
        ValueError: it is none.
    """
    found = decode_data(value.decode())
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is no lease")  # noqa: TRY004
    public_ip = IPv4Address(found.get("PublicIP") or 0)
    public_ipv6 = IPv6Address(found["PublicIPv6"]) if found.get("PublicIPv6") else None
    return LeaseAttrs(
        None if public_ip.is_unspecified else public_ip,
        public_ipv6,
        str(found.get("BackendType", "")),
        encode_data(found.get("BackendData")),
        encode_data(found.get("BackendV6Data")),
    )


def _dashed(subnet: IPv4Network | IPv6Network) -> str:
    return f"{subnet.network_address}-{subnet.prefixlen}"
