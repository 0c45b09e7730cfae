"""Forwarded packets let through by firewalld: the container's addresses are sources of one of its zones."""

from __future__ import annotations

from cni_plugins.kernel import firewalld
from cni_plugins.kernel.dbus import DBusError
from cni_plugins.spec.errors import CheckFailedError, ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from cni_plugins.address import Prefix


class _Refusals:
    """A context manager: what firewalld says in its body becomes the plugin's error."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DBusError):
            notes = getattr(error, "__notes__", ["firewalld refuses"])
            raise ProgramError(f"{notes[0]}: {error.text or error.name}") from None


def add(zone: str, addresses: Sequence[Prefix]) -> None:
    """Put addresses into a zone.

    Raises:
        ProgramError: firewalld refused.
        OSError: it cannot be asked.
    """
    with _Refusals():
        firewalld.add_sources(zone, [str(host) for host in addresses])


def remove(zone: str, addresses: Sequence[Prefix]) -> None:
    """Take addresses out of a zone; what is not there is no error.

    Raises:
        ProgramError: firewalld refused.
        OSError: it cannot be asked.
    """
    with _Refusals():
        firewalld.remove_sources(zone, [str(host) for host in addresses])


def check(zone: str, addresses: Sequence[Prefix]) -> None:
    """Look for addresses in a zone.

    Raises:
        CheckFailedError: one is missing, or firewalld is.
        ProgramError: there is no such zone.
    """
    if not firewalld.running():
        raise CheckFailedError(
            "firewalld is not running any more", "start it, then attach the container anew"
        )
    with _Refusals():
        for host in addresses:
            if not firewalld.has_source(zone, str(host)):
                raise CheckFailedError(f"{host} is missing in firewalld's zone {zone}")
