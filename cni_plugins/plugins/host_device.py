"""host-device: an interface of the host, lent to the container (CNI 1.1.0, section 2).

It owns the interface's place, name and alias while the attachment lasts: the alias is the name on the host,
as with the reference, and a note in /run/cni says what name, alias and state DEL has to put back. Addresses
come from an IPAM delegate. A PCI device that a userspace driver has (DPDK) stays where it is.
"""

from __future__ import annotations

import posix

from cni_plugins.attach import configure, ipam, sublink, verify
from cni_plugins.attach.detach import leave
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import link, notes, sysfs
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace, find_namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.errors import (
    AlreadyAttachedError,
    CNIError,
    InvalidConfigError,
    KernelError,
    NotAvailableError,
)
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Interface, Result, dns_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    import time

    from cni_plugins.config.devices import HostDeviceConf
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
else:
    time = Lazy("time")

_EEXIST = 17
_NOTES = "host-device"
_USERSPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_NOTE_LINES = 4
_FALL_SECONDS = 2.0
_HOST = "/proc/self/ns/net"


def add(request: Request) -> Result:
    """Move the interface, get addresses, configure it."""
    device = _Device(request.conf)
    if device.driven_by_program():
        return _add_program(request, device)
    attachment = _attachment(request)
    with (
        notes.lock(_NOTES),
        Namespace(request.netns) as netns,
        Netlink() as host,
        netns.netlink() as inside,
        Undo() as undo,
    ):
        found = device.find(host)
        if link.find(inside, request.ifname) is not None:
            raise AlreadyAttachedError(
                f"interface {request.ifname!r} already exists in the container",
                "DEL the attachment that made it, or use another interface name",
            )
        # Whoever finds the note finds the interface by it, wherever we are killed from here on.
        notes.write(
            _NOTES, attachment, [found.name, found.alias, "up" if found.is_up else "down", found.kind]
        )
        undo.push(_bring_home, request)
        link.move(host, found.index, netns.fd, request.ifname, found.name)
        result = sublink.complete(request, netns, inside, undo)
    result.interfaces[0].pci_id = device.pci
    return result


def delete(request: Request) -> None:
    """Bring the interface home and give the addresses back."""
    teardown = Teardown()
    leave(request, teardown, _bring_home_alone, request)
    teardown.finish()


def check(request: Request) -> None:
    """Compare everything ADD set with the kernel."""
    if _Device(request.conf, strict=False).driven_by_program():
        verify.previous(request)
        ipam.forward(request)
        return
    sublink.check(request, sublink.Plan("", has_parent=False))


def status(request: Request) -> None:
    """Look for IPAM, and whether the configuration names an interface; another container can have it now."""
    try:
        if not request.raw.get("capabilities"):
            _Device(request.conf)
    except CNIError as error:
        raise NotAvailableError(error.msg, error.details) from None
    ipam.forward(request)


def gc(request: Request) -> None:
    """Bring home what fell back to the host when its container's namespace went."""
    valid = request.valid_attachments()
    teardown = Teardown()
    with notes.lock(_NOTES), Netlink() as host:
        for attachment in notes.attachments(_NOTES):
            if attachment[0] == request.network and attachment[1:] not in valid:
                teardown.step(_restore_fallen, host, attachment)
    teardown.step(ipam.forward, request)
    teardown.finish()


class _Device:
    """What the configuration names."""

    def __init__(self, conf: HostDeviceConf, *, strict: bool = True) -> None:
        self.conf = conf
        self.pci, self.auxiliary = conf.pci_bus_id, ""
        chosen = conf.runtime_config.device_id
        if chosen:
            self.pci = chosen
            if not sysfs.exists(f"{sysfs.PCI}/{chosen}"):
                self.pci, self.auxiliary = "", chosen
        given = [
            each for each in (conf.device, conf.hwaddr, conf.kernelpath, self.pci, self.auxiliary) if each
        ]
        if any("/" in each for each in (self.pci, self.auxiliary)):
            raise InvalidConfigError("a device's address cannot hold a slash")
        if strict and len(given) != 1:
            raise InvalidConfigError('specify exactly one of "device", "hwaddr", "kernelpath" or "pciBusID"')
        if strict and self.auxiliary and not sysfs.exists(f"{sysfs.AUXILIARY}/{chosen}"):
            raise InvalidConfigError(f"runtime config DeviceID {chosen} not found or unsupported")

    def driven_by_program(self) -> bool:
        """Tell whether a program has the device, and no interface is to be moved."""
        if not self.pci:
            return self.conf.dpdk_mode
        try:
            return sysfs.driver(self.pci) in _USERSPACE_DRIVERS
        except FileNotFoundError:
            raise KernelError(f"failed to find host device: no PCI device {self.pci}") from None

    def find(self, host: Netlink) -> Link:
        """Return the interface, which must be on the host."""
        conf = self.conf
        found: Link | None = None
        if conf.device:
            found = link.find(host, conf.device)
        elif conf.hwaddr:
            try:
                mac = link.format_mac(link.parse_mac(conf.hwaddr))
            except ValueError as error:
                raise InvalidConfigError(f"invalid hwaddr: {error}") from None
            found = next((each for each in link.links(host) if each.mac == mac), None)
        else:
            for name in self._names():
                found = found or link.find(host, name)
        if found is None:
            raise KernelError(
                "failed to find host device: failed to find physical interface",
                "it is not there, or in another container",
            )
        return found

    def _names(self) -> list[str]:
        path = self.conf.kernelpath
        if path and not path.startswith("/sys/devices/"):
            raise InvalidConfigError(
                f"kernel device path {path!r} must be absolute and begin with /sys/devices/"
            )
        if not path:
            path = f"{sysfs.PCI}/{self.pci}" if self.pci else f"{sysfs.AUXILIARY}/{self.auxiliary}"
        try:
            return sysfs.interfaces(path)
        except OSError:
            raise KernelError(f"failed to find host device: no network devices at {path!r}") from None


def _add_program(request: Request, device: _Device) -> Result:
    with Undo() as undo:
        result = ipam.add(request, undo) if request.conf.ipam.type else Result()
    if result.ips:
        configure.prefer_dns(request.conf.dns, result)
    else:
        result.dns = dns_from(request.conf.dns)
    interface = Interface(request.ifname, sandbox=request.netns)
    interface.pci_id = device.pci
    result.interfaces = [interface]
    for ip in result.ips:
        ip.interface = 0
    return result


def _attachment(request: Request) -> tuple[str, str, str]:
    return request.network, request.container_id, request.ifname


def _bring_home_alone(request: Request) -> None:
    with notes.lock(_NOTES):
        _bring_home(request)


def _bring_home(request: Request) -> None:
    """Put the interface back from the container, or from where it fell on the host."""
    attachment = _attachment(request)
    noted = notes.read(_NOTES, attachment)
    netns = find_namespace(request.netns) if request.netns else None
    with Netlink() as host:
        if netns is not None:
            with netns, netns.netlink() as inside:
                found = link.find(inside, request.ifname)
                if found is not None and _is_lent(request, found, noted):
                    _move_home(inside, host, found, noted)
        elif noted is None:
            conf: HostDeviceConf = request.conf
            for each in link.links(host):
                if each.alias and each.alias != each.name and conf.device == each.alias:
                    _rename_home(host, each, [each.alias, "", "down", each.kind])
        if noted is not None:
            _restore_fallen(host, attachment)


def _is_lent(request: Request, found: Link, noted: list[str] | None) -> bool:
    """Tell whether a container's interface is the one that an ADD moved there."""
    if noted is not None:
        return found.alias == noted[0]
    conf: HostDeviceConf = request.conf
    return bool(found.alias) and conf.device in ("", found.alias)


def _move_home(inside: Netlink, host: Netlink, found: Link, noted: list[str] | None) -> None:
    name, alias, state = (noted or [found.alias, "", "down"])[:3]
    fd = posix.open(_HOST, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        if link.find(host, name) is not None:
            skel.warn(f"host-device: {name} is another interface by now; {found.name} gets a free name")
            link.move(inside, found.index, fd, "dev%d", name)
            return
        link.move(inside, found.index, fd, name, alias, up=state == "up")
    finally:
        posix.close(fd)


def _restore_fallen(host: Netlink, attachment: tuple[str, str, str]) -> None:
    """Finish what is noted about an interface that is on the host; forget the note."""
    noted = notes.read(_NOTES, attachment)
    if noted is not None and len(noted) == _NOTE_LINES:
        fallen = _await_fallen(host, noted)
        if fallen is None and not noted[3]:
            skel.warn(
                f"host-device: {noted[0]} is not back on the host yet; DEL or GC again will look for it"
            )
            return
        if fallen is not None and fallen.alias == noted[0]:
            _rename_home(host, fallen, noted)
    notes.remove(_NOTES, attachment)


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


def _rename_home(host: Netlink, found: Link, noted: list[str]) -> None:
    name, alias, state, _kind = noted
    if found.name != name:
        if link.find(host, name) is not None:
            skel.warn(f"host-device: {name} is another interface by now; {found.name} keeps its name")
            return
        link.set_down(host, found.index)
    # The alias goes with the last request: until then it is what the interface is found by.
    link.move(host, found.index, None, name, alias, up=state == "up")


PLUGIN = Plugin("host-device", "HostDeviceConf", add=add, delete=delete, check=check, status=status, gc=gc)
