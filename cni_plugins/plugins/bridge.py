"""bridge: a veth pair between the container and a Linux bridge on the host.

CNI 1.1.0, section 2. It owns the veth pair, the bridge (made when missing, never removed: other containers
use it), the bridge's gateway addresses and, with `vlan`, the gateway's veth pair `<bridge>.<vlan>`.
Masquerade and spoof-check rules are in `attach`; addresses come from an IPAM delegate.
"""

from __future__ import annotations

import posix

from cni_plugins.attach import configure, gateway, ipam, veth
from cni_plugins.attach.detach import detach, leave, noted
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import bridgeport, link, notes, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import CheckFailedError, ConflictError, InvalidConfigError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.request import ifname_problem
from cni_plugins.spec.result import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import masquerade, ready, spoofcheck, verify
    from cni_plugins.config.bridge import BridgeConf
    from cni_plugins.kernel import linkset, newlink
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
else:
    linkset = Lazy("cni_plugins.kernel.linkset")
    masquerade = Lazy("cni_plugins.attach.masquerade")
    newlink = Lazy("cni_plugins.kernel.newlink")
    ready = Lazy("cni_plugins.attach.ready")
    spoofcheck = Lazy("cni_plugins.attach.spoofcheck")
    verify = Lazy("cni_plugins.attach.verify")

_EEXIST = 17


def add(request: Request) -> Result:
    """Make the pair, get addresses, configure both ends."""
    conf: BridgeConf = request.conf
    mac, trunk = _validate(request)
    # Undoing comes before closing what it needs.
    with Namespace(request.netns) as netns, Netlink() as host, Undo() as undo:
        bridge = _ensure_bridge(host, conf)
        with netns.entered():
            inside = Netlink()
        with inside:
            name = veth.create(
                request, host, inside, netns.fd, undo, master=bridge.index, mtu=conf.mtu, mac=mac
            )
            port = link.get(host, name)
            if conf.hairpin_mode or conf.port_isolation:
                bridgeport.set_port(host, port.index, hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
            _join_vlans(host, port.index, conf, trunk)
            interface = link.get(inside, request.ifname)

            result = ipam.add(request, undo) if conf.ipam.type else Result()
            gateways = []
            if conf.is_gateway or conf.is_default_gateway:
                gateways = gateway.plan(result, default_routes=conf.is_default_gateway)
            gateway_link = bridge
            if result.ips:
                with netns.entered():
                    configure.prepare(request.ifname, result, dad=conf.enabledad)
                configure.apply(inside, interface, result, dad=conf.enabledad)
                if gateways and conf.vlan:
                    gateway_link = _ensure_gateway_pair(host, conf, bridge)
                gateway.ensure(host, gateway_link, gateways, force=conf.force_address)
                if conf.ip_masq:
                    undo.push(masquerade.remove, request)
                    masquerade.add(request, [ip.address for ip in result.ips], conf.ip_masq_backend)
            elif not conf.disable_container_interface:
                link.set_up(inside, interface.index)
            if conf.macspoofchk:
                undo.push(spoofcheck.remove, request)
                spoofcheck.add(request, name, interface.mac)

            # Read again: the first port can have changed the bridge's MTU, the bridge the port's.
            port = (link.get if conf.disable_container_interface else newlink.get_carrying)(host, name)
            # A bridge has a carrier when a port of it forwards: at once, or with STP half a minute later.
            at_once = port.carries and not bridge.stp
            bridge = (newlink.get_carrying if at_once else link.get)(host, conf.bridge)
            if result.ips:
                if conf.enabledad:
                    configure.settle(netns, inside, interface)
                configure.announce(inside, interface)
    result.interfaces = [
        Interface(bridge.name, bridge.mac, bridge.mtu),
        Interface(port.name, port.mac, port.mtu),
        Interface(interface.name, interface.mac, interface.mtu, request.netns),
    ]
    if gateway_link.index != bridge.index:
        result.interfaces.append(Interface(gateway_link.name, gateway_link.mac, gateway_link.mtu))
    for ip in result.ips:
        ip.interface = 2
    configure.prefer_dns(conf.dns, result)
    return result


def delete(request: Request) -> None:
    """Remove the pair, the addresses and the rules; what is gone already is no error."""
    conf: BridgeConf = request.conf
    teardown = Teardown()
    detach(request, teardown)
    teardown.step(veth.forget, request)
    if conf.ip_masq or noted(request, notes.MASQUERADE):
        teardown.step(masquerade.remove, request)
    if conf.macspoofchk or noted(request, notes.SPOOFCHECK):
        teardown.step(spoofcheck.remove, request)
    teardown.finish()


def check(request: Request) -> None:
    """Compare everything ADD set with the kernel."""
    conf: BridgeConf = request.conf
    _mac, trunk = _validate(request)
    result = verify.previous(request)
    index, expected = verify.container_interface(request, result)
    ipam.forward(request)
    with Namespace(request.netns) as netns, Netlink() as host, netns.netlink() as inside:
        interface = link.find(inside, request.ifname)
        if interface is None or not (interface.is_up or conf.disable_container_interface):
            raise CheckFailedError(
                f"interface {request.ifname!r} of the container is {'down' if interface else 'gone'}"
            )
        verify.matches(interface, expected)
        bridge = verify.present(host, conf.bridge, "bridge")
        port = link.get(host, index=interface.peer)
        _check_port(host, conf, bridge, port, result, trunk)
        if conf.ipam.type:
            verify.addresses(inside, interface, index, result)
            verify.routes(inside, interface, result)
            _check_gateways(host, conf, result)
            if conf.ip_masq:
                masquerade.check(request, [ip.address for ip in result.ips], conf.ip_masq_backend)
        if conf.macspoofchk:
            spoofcheck.check(request, port.name, interface.mac)


def status(request: Request) -> None:
    """Look at the configuration, the kernel's drivers and its packet filter, and ask the IPAM plugin."""
    conf: BridgeConf = request.conf
    _validate(request)
    ready.links("veth", "bridge")
    ready.notes("veth")
    if conf.ip_masq:
        ready.packet_filter(conf.ip_masq_backend, "ipMasq")
    if conf.macspoofchk:
        ready.packet_filter(ready.NFTABLES, "macspoofchk")
    ipam.forward(request)


def gc(request: Request) -> None:
    """Remove pairs and rules of attachments that are gone, and let the IPAM plugin do the same."""
    conf: BridgeConf = request.conf
    valid = request.valid_attachments()
    teardown = Teardown()
    leave(request, teardown, veth.gc, request)
    teardown.step(masquerade.gc, request, valid, configured=conf.ip_masq)
    teardown.step(spoofcheck.gc, request, valid)
    teardown.finish()


def _validate(request: Request) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the container's MAC address, empty for none, and the trunk's VLANs as ranges."""
    conf: BridgeConf = request.conf
    # The kernel would put a number in the place of %d.
    problem = "contains %" if "%" in conf.bridge else ifname_problem(conf.bridge)
    if problem:
        raise InvalidConfigError(f"bridge: interface name {conf.bridge!r} {problem}")
    if conf.hairpin_mode and conf.promisc_mode:
        raise InvalidConfigError("cannot set hairpin mode and promiscuous mode at the same time")
    if conf.vlan and conf.vlan_trunk:
        raise InvalidConfigError("cannot set vlan and vlanTrunk at the same time")
    if conf.disable_container_interface and conf.ipam.type:
        raise InvalidConfigError("cannot use IPAM when disableContainerInterface is true")
    # Most specific first: the runtime, then the configuration's arguments, then the environment.
    mac = conf.runtime_config.mac or conf.args.cni.mac or conf.mac or request.cni_args().get("MAC", "")
    trunk = []
    for entry in conf.vlan_trunk:
        if entry.id is not None:
            trunk.append((entry.id, entry.id))
        if entry.min_id is not None and entry.max_id is not None:
            if entry.min_id > entry.max_id:
                raise InvalidConfigError(f"vlanTrunk: minID {entry.min_id} is above maxID {entry.max_id}")
            trunk.append((entry.min_id, entry.max_id))
        elif entry.min_id is not None or entry.max_id is not None:
            raise InvalidConfigError("vlanTrunk: minID and maxID come together")
    return configure.parse_mac(mac), trunk


def _ensure_bridge(host: Netlink, conf: BridgeConf) -> Link:
    """Return the bridge, up; make it when it is missing."""
    filtering = bool(conf.vlan or conf.vlan_trunk)
    bridge = link.find(host, conf.bridge)
    if bridge is None:
        mac = bytearray(posix.getrandom(6))
        mac[0] = mac[0] & 0xFE | 0x02
        try:
            newlink.create_bridge(host, conf.bridge, bytes(mac), mtu=conf.mtu, vlan_filtering=filtering)
        except OSError as error:
            if error.errno != _EEXIST:  # else another ADD was faster
                raise
        bridge = link.get(host, conf.bridge)
    if bridge.kind != "bridge":
        raise ConflictError(
            f"{conf.bridge!r} already exists but is not a bridge", "name another bridge in the configuration"
        )
    if filtering and not bridge.vlan_filtering:
        raise ConflictError(
            f"bridge {conf.bridge!r} does not filter VLANs, so vlan and vlanTrunk would have no effect",
            f"ip link set {conf.bridge} type bridge vlan_filtering 1",
        )
    if conf.promisc_mode and not bridge.flags & link.IFF_PROMISC:
        linkset.set_promiscuous(host, bridge.index)
    if not bridge.is_up:  # new, or of an ADD that was killed here
        sysctl.write_if_present(f"net/ipv6/conf/{conf.bridge}/accept_ra", "0")
        # Its link-local address is made from a MAC address of its own; IPv6 from outside would wait for DAD.
        sysctl.write_if_present(f"net/ipv6/conf/{conf.bridge}/accept_dad", "0")
        link.set_up(host, bridge.index)
    return bridge


def _join_vlans(host: Netlink, port: int, conf: BridgeConf, trunk: list[tuple[int, int]]) -> None:
    if not (conf.vlan or trunk):
        return
    if not conf.preserve_default_vlan:
        bridgeport.delete_vlan(host, port, 1)
    if conf.vlan:
        bridgeport.add_vlans(host, port, conf.vlan, conf.vlan, untagged=True)
    for first, last in trunk:
        bridgeport.add_vlans(host, port, first, last)


def _gateway_pair_name(conf: BridgeConf) -> str:
    return f"{conf.bridge}.{conf.vlan}"


def _ensure_gateway_pair(host: Netlink, conf: BridgeConf, bridge: Link) -> Link:
    """Return the interface that is a VLAN's gateway: a veth whose other end is a port of the bridge."""
    name = _gateway_pair_name(conf)
    found = link.find(host, name)
    if found is not None:
        return found
    peer = "veth" + posix.getrandom(4).hex()
    try:
        newlink.create_veth(host, name, peer, None, mtu=bridge.mtu)
    except OSError as error:
        if error.errno != _EEXIST:  # else another ADD was faster
            raise
        return link.get(host, name)
    port = link.get(host, peer)
    linkset.set_master(host, port, bridge)
    link.set_up(host, port.index)
    _join_vlans(host, port.index, conf, [])
    return link.get(host, name)


def _check_port(
    host: Netlink, conf: BridgeConf, bridge: Link, port: Link, result: Result, trunk: list[tuple[int, int]]
) -> None:
    for expected in result.interfaces:
        if expected.name == bridge.name and not expected.sandbox:
            verify.matches(bridge, Interface(bridge.name, expected.mac))
        elif expected.name == port.name and not expected.sandbox:
            verify.matches(port, expected)
    if not port.is_up:
        raise CheckFailedError(f"interface {port.name!r} of the host is down")
    if port.master != bridge.index:
        raise CheckFailedError(f"interface {port.name!r} is not a port of bridge {bridge.name!r}")
    if conf.hairpin_mode and not port.hairpin:
        raise CheckFailedError(f"hairpin mode of {port.name!r} is off")
    if conf.port_isolation and not port.isolated:
        raise CheckFailedError(f"port isolation of {port.name!r} is off")
    if conf.promisc_mode and not bridge.flags & link.IFF_PROMISC:
        raise CheckFailedError(f"promiscuous mode of {bridge.name!r} is off")
    if conf.vlan or trunk:
        held = bridgeport.vlans(host).get(port.index, {})
        wanted = {conf.vlan: True} if conf.vlan else {}
        for first, last in trunk:
            wanted.update(dict.fromkeys(range(first, last + 1), False))
        for vlan, untagged in wanted.items():
            if held.get(vlan) is not untagged:
                raise CheckFailedError(f"VLAN {vlan} is missing on {port.name!r}")


def _check_gateways(host: Netlink, conf: BridgeConf, result: Result) -> None:
    if conf.is_gateway or conf.is_default_gateway:
        target = verify.present(host, _gateway_pair_name(conf) if conf.vlan else conf.bridge)
        gateway.check(host, target, result)


PLUGIN = Plugin("bridge", "BridgeConf", add=add, delete=delete, check=check, status=status, gc=gc)
