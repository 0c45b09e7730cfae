"""Offloads of a device, as `ethtool -k` and `-K` show and switch them (linux/ethtool_netlink.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.kernel.nlattr import attr, attr_str, attribute_map, attributes, nested, text
from flanneld.genl import HEADER_SIZE, Family

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = "ethtool"
_FEATURES_GET = 11
_FEATURES_SET = 12
_HEADER_DEV_NAME = 2
_FEATURES_HEADER = 1
_FEATURES_WANTED = 3
_FEATURES_ACTIVE = 4
_BITSET_BITS = 3
_BITSET_BIT = 1
_BIT_NAME = 2
_BIT_VALUE = 3


def active(device: str) -> frozenset[str]:
    """Return the names of the features that are on.

    Raises:
        OSError: ENODEV: there is no such device.
    """
    with Family(_NAME) as family:
        (found,) = family.request(_FEATURES_GET, _header(device))
    bitset = attribute_map(attribute_map(found.body, HEADER_SIZE)[_FEATURES_ACTIVE])
    bits = (attribute_map(bit) for _kind, bit in attributes(bitset.get(_BITSET_BITS, b"")))
    return frozenset(text(bit[_BIT_NAME]) for bit in bits)


def switch(device: str, wanted: Iterable[tuple[str, bool]]) -> bool:
    """Switch features that are not as wanted; return whether there were any.

    Raises:
        OSError: EOPNOTSUPP: there is no feature of that name.
    """
    wanted = tuple(wanted)
    if not wanted:
        return False
    now = active(device)
    wrong = [(name, on) for name, on in wanted if (name in now) is not on]
    if not wrong:
        return False
    bits = (
        nested(_BITSET_BIT, attr_str(_BIT_NAME, name), attr(_BIT_VALUE, b"") if on else b"")
        for name, on in wrong
    )
    body = _header(device) + nested(_FEATURES_WANTED, nested(_BITSET_BITS, *bits))
    try:
        with Family(_NAME) as family:
            family.request(_FEATURES_SET, body)
    except OSError as error:
        error.add_note(f"failed to switch {', '.join(name for name, _on in wrong)} of {device}")
        raise
    return True


def _header(device: str) -> bytes:
    return nested(_FEATURES_HEADER, attr_str(_HEADER_DEV_NAME, device))
