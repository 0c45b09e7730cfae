"""host-device: an interface of the host, lent to the container (CNI 1.1.0, section 2).

It owns the interface's place, name and alias while the attachment lasts: the alias is the name on the host,
as with the reference, and a note in /run/cni says what name, alias and state DEL has to put back. Addresses
come from an IPAM delegate. A PCI device that a userspace driver has (DPDK) stays where it is.
"""

from __future__ import annotations

from cni_plugins.attach import configure, ipam, sublink
from cni_plugins.attach.detach import leave
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import link, linkset, notes, sysfs
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.errors import (
    CNIError,
    InvalidConfigError,
    KernelError,
    NotAvailableError,
    already_attached,
)
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.request import ifname_problem
from cni_plugins.spec.result import Interface, Result, dns_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import homecoming, ready, sublink_state, verify
    from cni_plugins.config.devices import HostDeviceConf
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
else:
    homecoming = Lazy("cni_plugins.attach.homecoming")
    ready = Lazy("cni_plugins.attach.ready")
    sublink_state = Lazy("cni_plugins.attach.sublink_state")
    verify = Lazy("cni_plugins.attach.verify")

_NOTES = "host-device"
_USERSPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")


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
            raise already_attached(request.ifname)
        # Whoever finds the note finds the interface by it, wherever we are killed from here on.
        notes.write(
            _NOTES, attachment, [found.name, found.alias, "up" if found.is_up else "down", found.kind]
        )
        undo.push(_bring_home, request)
        linkset.move(host, found.index, netns.fd, request.ifname, found.name)
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
    sublink_state.check(request, sublink.Plan("", has_parent=False))


def status(request: Request) -> None:
    """Look for the device and a place for notes, and ask the IPAM plugin.

    The device's interface may be in another container at the moment.
    """
    try:
        if request.raw.get("capabilities") or _Device(request.conf).look():
            ready.notes(_NOTES)
    except CNIError as error:
        raise NotAvailableError(error.msg, error.details) from None
    ipam.forward(request)


def gc(request: Request) -> None:
    """Restore interfaces that the kernel returned to the host when their containers' namespaces went."""
    teardown = Teardown()
    teardown.step(_collect, request)
    teardown.step(ipam.forward, request)
    teardown.finish()


class _Device:
    """The device that the configuration names."""

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
        """Tell whether a userspace driver has the device, so that there is no interface to move."""
        if not self.pci:
            return self.conf.dpdk_mode
        try:
            return sysfs.driver(self.pci) in _USERSPACE_DRIVERS
        except FileNotFoundError:
            raise KernelError(f"failed to find host device: no PCI device {self.pci}") from None

    def look(self) -> bool:
        """Look for the device in sysfs, wherever its interface is; tell whether an ADD would move that.

        Raises:
            KernelError: it is not in the machine.
        """
        if self.driven_by_program():
            return False
        path = self.conf.kernelpath
        if path and not sysfs.exists(path):
            raise KernelError(f"failed to find host device: nothing at {path!r}")
        return True

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
    homecoming.bring_home(request, _find_fallen)


def _collect(request: Request) -> None:
    valid = request.valid_attachments()
    teardown = Teardown()
    with notes.lock(_NOTES), Netlink() as host:
        for attachment in notes.attachments(_NOTES):
            if attachment[0] == request.network and attachment[1:] not in valid:
                teardown.step(_restore, host, attachment)
    teardown.finish()


def _restore(host: Netlink, attachment: tuple[str, str, str]) -> None:
    name = homecoming.restore_fallen(host, attachment)
    if name:
        network, *whose = attachment
        skel.warn(f"GC of network {network}: brought {name} home, which was lent to {' '.join(whose)}")


def _find_fallen(request: Request, host: Netlink) -> Link | None:
    """Return an interface that an ADD lent without a note and the kernel returned under another name."""
    conf: HostDeviceConf = request.conf
    if conf.device:
        return next((each for each in link.links(host) if each.alias == conf.device != each.name), None)
    try:
        found = _Device(conf, strict=False).find(host)
    except CNIError:
        return None
    # Down, and with a name that the kernel leaves it: another alias may be an administrator's.
    fallen = found.name == request.ifname or (found.name[:3] == "dev" and found.name[3:].isdigit())
    named = found.alias not in ("", found.name) and not ifname_problem(found.alias)
    return found if fallen and named and not found.is_up else None


PLUGIN = Plugin("host-device", "HostDeviceConf", add=add, delete=delete, check=check, status=status, gc=gc)
