"""Generic netlink: requests to families that the kernel knows by name (linux/genetlink.h).

pyroute2 speaks it, too, for 20 MiB of memory and a tenth of a second of processor time for a thousand peers;
tests decode with it what is encoded here, and the other way round.
"""

from __future__ import annotations

from _struct import Struct
from typing import TYPE_CHECKING, Self

from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.nlattr import attr_str, attribute_map, uint

if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Reply

_NETLINK_GENERIC = 16
_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2
_VERSION = 1

_HEADER = Struct("=BBxx")
HEADER_SIZE = _HEADER.size


class Family:
    """A socket for one family, in the namespace the thread is in; a context manager.

    Args:
        name: such as `wireguard`; the kernel loads the module if there is one.

    Raises:
        OSError: ENOENT: the kernel has no such family.
    """

    def __init__(self, name: str) -> None:
        self._netlink = Netlink(_NETLINK_GENERIC)
        try:
            body = _HEADER.pack(_CTRL_CMD_GETFAMILY, _VERSION) + attr_str(_CTRL_ATTR_FAMILY_NAME, name)
            (found,) = self._netlink.request(_GENL_ID_CTRL, 0, body)
        except OSError as error:
            self._netlink.close()
            error.add_note(f"the kernel knows nothing of {name} (generic netlink)")
            raise
        self._id = uint(attribute_map(found.body, HEADER_SIZE)[_CTRL_ATTR_FAMILY_ID])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._netlink.close()

    def request(self, command: int, attributes: bytes) -> list[Reply]:
        """Send a request and return the replies up to its acknowledgement.

        Raises:
            OSError: the kernel's answer.
        """
        return self._netlink.request(self._id, 0, _HEADER.pack(command, _VERSION) + attributes)

    def dump(self, command: int, attributes: bytes) -> list[Reply]:
        """Return what a request lists.

        Raises:
            OSError: the kernel's answer.
        """
        return self._netlink.dump(self._id, _HEADER.pack(command, _VERSION) + attributes)
