"""What the daemon does for plugins: Allocate, Release, GC; and what it does first after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from cni_plugins.address import Prefix
from cni_plugins.kernel.link import parse_mac
from cni_plugins.spec.request import ATTACHMENTS_KEY, fold_keys, ifname_problem, valid_identifier
from cni_plugins.spec.schema import validate
from ipam.dhcp import notes
from ipam.dhcp import options as opt
from ipam.dhcp.daemon import interface
from ipam.dhcp.daemon.interface import GoneError
from ipam.dhcp.daemon.lease import Lease, LeaseError
from ipam.dhcp.daemon.store import Record

if TYPE_CHECKING:
    from cni_plugins.config.dhcp import DhcpConf
    from cni_plugins.spec.result import Result
    from ipam.dhcp.daemon.lease import Surroundings

_log = logging.getLogger(__name__)
_MAX_CLIENT_ID = 254


class Service:
    """The daemon's leases.

    Args:
        around: what every lease needs.
        prefix: what stands before the paths that plugins name, where the host's root is not ours.
        broadcast: have servers broadcast their answers.
    """

    def __init__(self, around: Surroundings, prefix: str = "", *, broadcast: bool = False) -> None:
        self._around = around
        self._prefix = prefix
        self._broadcast = broadcast
        self._leases: dict[str, Lease] = {}

    async def restore(self) -> None:
        """Go on with the leases of the daemon before; release those that nobody was told of, or asked to."""
        ending = []
        for record in self._around.store.load():
            lease = self._enter(record, b"")
            if record.accepted and not self._around.store.release_asked(record.name):
                lease.start()
            else:
                ending.append(self._release(record.name))
        await asyncio.gather(*ending)
        if self._leases:
            _log.info("going on with %d leases", len(self._leases))

    async def allocate(self, args: dict[str, Any]) -> Result:
        """Return an attachment's lease; get one when there is none.

        Raises:
            LeaseError: there is none to be had.
            CNIError: the configuration is wrong.
        """
        conf, raw = _configuration(args)
        name = _checked_name(args, conf)
        while (lease := self._leases.get(name)) is not None and lease.releasing:
            await lease.release()
        record = self._record(args, conf)
        wanted = _previous(raw)
        if lease is not None and (lease.record.namespace, lease.record.mac) != (record.namespace, record.mac):
            # The same container in another namespace: nobody told us that the first one ended.
            wanted = bytes.fromhex(lease.record.message)[16:20] or wanted
            await lease.abandon()
            self._forget(lease)
            lease = None
        if lease is None:
            lease = self._leases.get(name) or self._enter(record, wanted)
            lease.start()
        return await lease.result()

    async def release(self, args: dict[str, Any]) -> None:
        """Give an attachment's lease back; when there is none, that is no error."""
        conf, _raw = _configuration(args)
        await self._release(_checked_name(args, conf))

    async def gc(self, args: dict[str, Any]) -> list[tuple[str, str]]:
        """Give back the network's leases that are not among its valid attachments; return whose they were."""
        conf, raw = _configuration(args)
        listed = raw.get(ATTACHMENTS_KEY)
        if not isinstance(listed, list):
            raise LeaseError(f"GC needs {ATTACHMENTS_KEY}: a list")
        valid = {(item.get("containerID"), item.get("ifname")) for item in listed if isinstance(item, dict)}
        gone = {
            name: (lease.record.container_id, lease.record.ifname)
            for name, lease in self._leases.items()
            if lease.record.network == conf.name
            and (lease.record.container_id, lease.record.ifname) not in valid
        }
        await asyncio.gather(*map(self._release, gone))
        return sorted(gone.values())

    async def stop(self) -> None:
        """Leave the leases as they are, for the next daemon."""
        await asyncio.gather(*(lease.abandon() for lease in self._leases.values()))

    def _enter(self, record: Record, wanted: bytes) -> Lease:
        lease = Lease(record, self._around, wanted, self._forget)
        self._leases[record.name] = lease
        return lease

    def _forget(self, lease: Lease) -> None:
        """Drop a lease that is over."""
        if self._leases.get(lease.record.name) is lease and not lease.releasing:
            del self._leases[lease.record.name]
            self._around.store.remove(lease.record.name)

    async def _release(self, name: str) -> None:
        lease = self._leases.get(name)
        if lease is None:
            self._around.store.remove(name)
            return
        await lease.release()
        if self._leases.get(name) is lease:
            del self._leases[name]

    def _record(self, args: dict[str, Any], conf: DhcpConf) -> Record:
        """Return the record of an attachment without a lease."""
        path = f"{self._prefix}{args.get('Netns', '')}"
        ifname = str(args.get("IfName", ""))
        assert conf.ipam is not None
        provide, request = opt.prepare(conf.ipam, str(args.get("Args", "")))
        try:
            with interface.open_namespace(path) as netns:
                mac = parse_mac(interface.find(netns, ifname).mac)
                namespace = interface.identity(netns)
        except (GoneError, ValueError) as error:
            raise LeaseError(str(error)) from None
        if len(mac) != 6:
            raise LeaseError(f"interface {ifname!r} has no Ethernet address")
        container_id = str(args["ContainerID"])
        options = {opt.CLIENT_ID: b"\0" + client_id(container_id, conf.name, ifname)}
        if request:
            options[opt.PARAMETER_LIST] = bytes(request)
        options |= provide
        return Record(
            *(container_id, conf.name, ifname, path, namespace, mac.hex()),
            {str(number): value.hex() for number, value in options.items()},
            self._broadcast,
            conf.ipam.priority,
        )


def client_id(container_id: str, network: str, ifname: str) -> bytes:
    """Return what tells a client from others (RFC 2132, section 9.14): the reference's own identifier.

    Where that is too long, its hash: the beginning could be another's, too, who would get the same address.
    """
    whole = f"{container_id}/{network}/{ifname}".encode("utf-8", "surrogateescape")
    return whole if len(whole) <= _MAX_CLIENT_ID else hashlib.sha512(whole).hexdigest().encode()


def _configuration(args: dict[str, Any]) -> tuple[DhcpConf, dict[str, Any]]:
    data = args.get("StdinData", b"")
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise LeaseError(f"error parsing netconf: {error}") from None
    if not isinstance(raw, dict):
        raise LeaseError("error parsing netconf: not an object")
    raw = fold_keys(raw)
    conf: DhcpConf = validate("DhcpConf", raw)
    if conf.ipam is None:
        raise LeaseError("IPAM config missing 'ipam' key")
    return conf, raw


def _checked_name(args: dict[str, Any], conf: DhcpConf) -> str:
    """Return the name of an attachment's file."""
    container_id, ifname = str(args.get("ContainerID", "")), str(args.get("IfName", ""))
    if not valid_identifier(container_id) or not valid_identifier(conf.name) or ifname_problem(ifname):
        raise LeaseError(f"no attachment can be {container_id!r}, {conf.name!r}, {ifname!r}")
    return notes.name_of(container_id, conf.name, ifname)


def _previous(raw: dict[str, Any]) -> bytes:
    """Return the one IPv4 address of prevResult, which a CHECK asks for when nobody knows the lease."""
    try:
        found = [Prefix.parse(ip["address"]) for ip in raw["prevResult"]["ips"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return b""
    own = [prefix.address for prefix in found if prefix.version == 4]
    return own[0] if len(own) == 1 else b""
