"""Returning an interface that host-device lent: from the container, or from where the kernel left it.

When a namespace goes, the kernel gives hardware back to the host: down, under the name it had inside, or as
`dev` and a number if that is taken. What the interface was before is in the attachment's note and, as with
the reference, its name is in its alias.
"""

from __future__ import annotations

import posix

from cni_plugins.kernel import link, linkset, notes
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import find_namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.request import ifname_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    import time
    from collections.abc import Callable

    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
else:
    time = Lazy("time")

KIND = "host-device"
"""The kind of its notes: name, alias, "up" or "down", and the link's kind, which hardware has none of."""
_LINES = 4
_FALL_SECONDS = 2.0
_HOST = "/proc/self/ns/net"


def bring_home(request: Request, search: Callable[[Request, Netlink], Link | None]) -> None:
    """Put the interface back; the caller holds the lock of the notes.

    Args:
        request: the DEL, or the ADD that failed.
        search: finds the interface on the host where no note tells which it is.

    Raises:
        OSError: the kernel refused; the note stays.
    """
    attachment = (request.network, request.container_id, request.ifname)
    noted = _noted(attachment)
    netns = find_namespace(request.netns) if request.netns else None
    moved = False
    with Netlink() as host:
        if netns is not None:
            with netns, netns.netlink() as inside:
                found = _find_lent(request, inside, noted)
                if found is not None:
                    _move(inside, host, found, noted)
                    moved = True
        elif noted is None and (found := search(request, host)) is not None:
            _rename(host, found, [found.alias, "", "down"])
        if moved:
            notes.remove(KIND, attachment)
        else:
            restore_fallen(host, attachment)


def restore_fallen(host: Netlink, attachment: tuple[str, str, str]) -> str:
    """Finish what is noted about an interface that is on the host; forget the note.

    Returns:
        The interface's name, which it has again; empty: nothing was to be done, or could be.

    Raises:
        OSError: the kernel refused; the note stays.
    """
    home = ""
    noted = _noted(attachment)
    if noted is not None:
        fallen = _await_fallen(host, noted)
        if fallen is None and not noted[3]:
            skel.warn(
                f"host-device: {noted[0]} is not back on the host yet; DEL or GC again will look for it"
            )
            return home
        if fallen is not None and fallen.alias == noted[0] and _rename(host, fallen, noted):
            home = noted[0]
    notes.remove(KIND, attachment)
    return home


def _noted(attachment: tuple[str, str, str]) -> list[str] | None:
    """Return what name, alias, state and kind the interface had; None without a note that can be right."""
    lines = notes.read(KIND, attachment)
    if lines is None or len(lines) != _LINES or ifname_problem(lines[0]):
        return None
    return lines if len(lines[1].encode()) <= link.MAX_ALIAS else None


def _find_lent(request: Request, inside: Netlink, noted: list[str] | None) -> Link | None:
    """Return the container's interface that an ADD moved there, also one that was renamed there since."""
    found = link.find(inside, request.ifname)
    if found is not None and _is_lent(request, found, noted):
        return found
    if noted is None:
        return None
    return next((each for each in link.links(inside) if each.alias == noted[0]), None)


def _is_lent(request: Request, found: Link, noted: list[str] | None) -> bool:
    """Tell whether a container's interface is the one that an ADD moved there."""
    if noted is not None:
        return found.alias == noted[0]
    # Other aliases are an administrator's, or say whose a link is that was never lent.
    return not ifname_problem(found.alias) and request.conf.device in ("", found.alias)


def _move(inside: Netlink, host: Netlink, found: Link, noted: list[str] | None) -> None:
    name, alias, state = (noted or [found.alias, "", "down"])[:3]
    fd = posix.open(_HOST, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        if link.find(host, name) is None:
            linkset.move(inside, found.index, fd, name, alias, up=state == "up")
            return
        # Nothing is lost: the alias says what name it had, and an administrator can give it another.
        linkset.move(inside, found.index, fd, "dev%d", name)
    finally:
        posix.close(fd)
    for each in link.links(host):
        if (each.alias, each.mac) == (name, found.mac):
            _say_taken(name, each)


def _rename(host: Netlink, found: Link, noted: list[str]) -> bool:
    """Make a fallen interface what it was; tell whether its name was free."""
    name, alias, state = noted[:3]
    if found.name != name:
        if link.find(host, name) is not None:
            _say_taken(name, found)
            return False
        link.set_down(host, found.index)
    # The alias goes with the last request: until then it is what the interface is found by.
    linkset.move(host, found.index, None, name, alias, up=state == "up")
    return True


def _say_taken(name: str, home: Link) -> None:
    skel.warn(f"host-device: {name} is another interface by now; the one that was lent is {home.name}")


def _await_fallen(host: Netlink, noted: list[str]) -> Link | None:
    """Return what is noted, once it is on the host.

    A namespace that is gone lets go of hardware a little later. A virtual link never comes: it dies there.
    """
    deadline = time.monotonic() + _FALL_SECONDS
    with Netlink(groups=link.RTMGRP_LINK) as events:
        while True:
            # What came home by the last DEL has its name, and no alias of ours any more.
            for each in link.links(host):
                if each.alias == noted[0]:
                    return each
            if (home := link.find(host, noted[0])) is not None:
                return home
            if noted[3]:
                return None
            try:
                events.wait(deadline - time.monotonic())
            except TimeoutError:
                return None
