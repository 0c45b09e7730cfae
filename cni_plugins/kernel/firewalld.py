"""firewalld: sources of its zones, over D-Bus (firewalld.dbus(5), the interface FirewallD1.zone)."""

from __future__ import annotations

from cni_plugins.kernel.dbus import Bus, DBusError

SERVICE = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_ZONE = f"{SERVICE}.zone"
_THERE = "ZONE_ALREADY_SET"
_GONE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT")
"""What is said of a source that is in no zone, or in another one."""


def running() -> bool:
    """Tell whether firewalld is on the system's message bus; it is not started by asking."""
    return not absence()


def absence() -> str:
    """Return why there is no firewalld for us, as that it does not run; nothing when there is."""
    try:
        with Bus() as bus:
            return "" if bus.has_owner(SERVICE) else "the bus does not know it"
    except OSError as error:
        return error.strerror or str(error)


def add_sources(zone: str, sources: list[str]) -> None:
    """Put sources into a zone, until firewalld ends or is loaded anew; what is in it already stays.

    Args:
        zone: an existing zone.
        sources: addresses with lengths: "10.1.2.3/32".

    Raises:
        DBusError: firewalld refused: no such zone, or a source is in another one.
        OSError: it cannot be asked.
    """
    with Bus() as bus:
        for source in sources:
            try:
                bus.call(SERVICE, _PATH, _ZONE, "addSource", zone, source, start=True)
            except DBusError as error:
                if _THERE not in error.text:
                    error.add_note(f"cannot put {source} into firewalld's zone {zone}")
                    raise


def remove_sources(zone: str, sources: list[str]) -> None:
    """Take sources out of a zone; what is not in it is no error, nor is that firewalld does not run.

    Raises:
        DBusError: firewalld refused.
        OSError: it cannot be asked.
    """
    try:
        bus = Bus()
    except (FileNotFoundError, ConnectionRefusedError):
        return  # what was in it has ended with firewalld
    with bus:
        if not bus.has_owner(SERVICE):
            return
        for source in sources:
            try:
                bus.call(SERVICE, _PATH, _ZONE, "removeSource", zone, source)
            except DBusError as error:
                if not any(each in error.text for each in _GONE):
                    error.add_note(f"cannot take {source} out of firewalld's zone {zone}")
                    raise


def has_source(zone: str, source: str) -> bool:
    """Tell whether a source is in a zone.

    Raises:
        DBusError: firewalld refused: no such zone.
        OSError: it cannot be asked.
    """
    with Bus() as bus:
        return bus.call(SERVICE, _PATH, _ZONE, "querySource", zone, source) is True
