"""bandwidth: rate limits on a container's veth pair (CNI 1.1.0; chained after the plugin that makes it).

It owns, on the host: a token bucket at the root of the pair's host end, which limits what the container
receives; and for what the container sends, an ifb with a token bucket, an ingress qdisc on the host end, and
a filter that redirects everything from the host end to the ifb. The ifb's name is the reference's: a hash of
network and container. Its alias has both in clear, so that GC finds its own. Until the ifb has its alias, and
where the two are too long for one, a note in /run/cni/bandwidth has them.
"""

from __future__ import annotations

from _sha512 import sha512  # type: ignore[import-not-found]

from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import link, notes, tc
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, ConflictError, InvalidConfigError, NotAvailableError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.attach import ready, verify
    from cni_plugins.config.bandwidth import Bandwidth, BandwidthConf
    from cni_plugins.kernel import newlink
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.tc import Tbf
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    ready = Lazy("cni_plugins.attach.ready")
    newlink = Lazy("cni_plugins.kernel.newlink")
    verify = Lazy("cni_plugins.attach.verify")

_KIND = "bandwidth"
_PREFIX = "bwp"
_NAME_LENGTH = 15
_LOOPBACK = 1
_EEXIST = 17
_ENODEV = 19


def add(request: Request) -> Result:
    """Limit the pair; return the result before this plugin, and the ifb when there is one."""
    result = request.prev_result
    ingress, egress = _limits(request.conf)
    if result is None:
        raise InvalidConfigError(
            "must be called as chained plugin", "list bandwidth after the plugin that makes the interface"
        )
    if not (ingress or egress):
        return result
    with (
        Namespace(request.netns) as netns,
        Netlink() as host,
        netns.netlink() as inside,
        Undo() as undo,
    ):
        container, end = _pair(request, result, host, inside)
        if ingress:
            _occupy(host, end, undo, tc.delete_root, tc.add_tbf, ingress)
        if egress:
            ifb = _create_ifb(request, host, container.mtu, undo)
            tc.add_tbf(host, ifb.index, egress)
            _occupy(host, end, undo, tc.delete_ingress, tc.add_ingress)
            tc.add_redirect(host, end.index, ifb.index)
            result.interfaces.append(Interface(ifb.name, ifb.mac))
    return result


def delete(request: Request) -> None:
    """Remove the ifb, and the limits of a pair that is still there."""
    teardown = Teardown()
    with Netlink() as host:
        if request.prev_result is not None:
            teardown.step(_release, request, request.prev_result, host)
        teardown.step(_remove, host, _attachment(request))
    teardown.finish()


def check(request: Request) -> None:
    """Compare the limits, and the way to the ifb, with the kernel's."""
    result = verify.previous(request)
    ingress, egress = _limits(request.conf)
    if not (ingress or egress):
        return
    with Namespace(request.netns) as netns, Netlink() as host, netns.netlink() as inside:
        try:
            _container, end = _pair(request, result, host, inside)
        except InvalidConfigError as error:
            raise CheckFailedError(error.msg) from None
        if ingress:
            _check_limit(host, end, ingress)
        if egress:
            ifb = verify.present(host, _ifb_name(request.network, request.container_id), "ifb")
            _check_limit(host, ifb, egress)
            if not tc.has_ingress(host, end.index):
                raise CheckFailedError(f"interface {end.name!r} of the host has no ingress qdisc")
            if tc.redirects(host, end.index)[:1] != [ifb.index]:
                raise CheckFailedError(f"what {end.name!r} receives is not redirected to {ifb.name!r}")


def status(_request: Request) -> None:
    """Look for ifb links and token buckets in the kernel, and for a place for notes."""
    ready.notes(_KIND)
    with Netlink() as host:
        for known, what in (
            (newlink.has_kind(host, "ifb"), "ifb links"),
            (tc.has_tbf(host, _LOOPBACK), "token bucket filters"),
        ):
            if not known:
                raise NotAvailableError(f"the kernel has no {what}", "load the modules ifb and sch_tbf")


def gc(request: Request) -> None:
    """Remove the ifbs of this network's containers that are gone.

    The reference's ifbs stay: they do not say whose they are, and only a DEL can compute the hash in their
    name. If an ADD was killed before its ifb had an alias, a note tells of it.
    """
    spared = {container_id for container_id, _ifname in request.valid_attachments()}
    teardown = Teardown()
    with Netlink() as host:
        for each in link.links(host):
            if each.kind != "ifb" or not each.name.startswith(_PREFIX):
                continue
            network, _colon, container_id = each.alias.partition(":")
            if network == request.network and container_id not in spared:
                teardown.step(_collect, host, each.name, network, container_id)
        for attachment in notes.attachments(_KIND):  # of ADDs that were killed, or could set no alias
            if attachment[0] == request.network and attachment[1] not in spared:
                teardown.step(_collect_noted, host, attachment)
    teardown.finish()


def _remove(host: Netlink, attachment: tuple[str, str, str]) -> bool:
    """Delete an attachment's ifb, and then its note: one that is still there must be found again."""
    gone = link.delete(host, _ifb_name(*attachment[:2]))
    notes.remove(_KIND, attachment)
    return gone


def _collect_noted(host: Netlink, attachment: tuple[str, str, str]) -> None:
    if _remove(host, attachment):
        skel.removed(attachment[0], f"the limit {_ifb_name(*attachment[:2])} of container {attachment[1]}")


def _collect(host: Netlink, name: str, network: str, container_id: str) -> None:
    if link.delete(host, name):
        skel.removed(network, f"the limit {name} of container {container_id}")


def _limits(conf: BandwidthConf) -> tuple[Tbf | None, Tbf | None]:
    """Return the limits of what the container receives and of what it sends.

    Raises:
        InvalidConfigError: a rate without a burst, the other way round, or either beyond what is possible.
    """
    given: Bandwidth | None = conf
    if (conf.ingress_rate, conf.ingress_burst, conf.egress_rate, conf.egress_burst) == (None,) * 4:
        given = conf.runtime_config.bandwidth
    if given is None:
        return None, None
    return (
        _limit("ingress", given.ingress_rate or 0, given.ingress_burst or 0),
        _limit("egress", given.egress_rate or 0, given.egress_burst or 0),
    )


def _limit(direction: str, rate: int, burst: int) -> Tbf | None:
    if rate and not burst:
        raise InvalidConfigError(f"{direction}: if rate is set, burst must also be set")
    if burst and not rate:
        raise InvalidConfigError(f"{direction}: if burst is set, rate must also be set")
    if burst // 8 >= 2**32 - 1:
        raise InvalidConfigError(f"{direction}: burst cannot be more than 4GB")
    if not rate:
        return None
    if rate < 8 or burst < 8:
        raise InvalidConfigError(f"{direction}: rate and burst are in bits, and must make one byte at least")
    tbf = tc.Tbf.shaping(rate, burst)
    if not tbf.buffer:
        raise InvalidConfigError(
            f"{direction}: a burst of {burst} bits is over in less than a microsecond at {rate} bit/s",
            "raise the burst: the kernel's clock is not finer",
        )
    return tbf


def _ifb_name(network: str, container_id: str) -> str:
    digest: str = sha512((network + container_id).encode()).hexdigest()
    return _PREFIX + digest[: _NAME_LENGTH - len(_PREFIX)]


def _pair(request: Request, result: Result, host: Netlink, inside: Netlink) -> tuple[Link, Link]:
    """Return the container's interface and its other end, which must be a veth pair that the result names."""
    if not result.interfaces:
        raise InvalidConfigError("no interfaces provided in prevResult")
    container = link.find(inside, request.ifname)
    if container is None or container.kind != "veth" or not container.peer:
        raise InvalidConfigError(
            f"container interface {request.ifname} has no veth peer",
            "bandwidth works on bridge and ptp networks",
        )
    try:
        end = link.get(host, index=container.peer)
    except OSError as error:
        if error.errno != _ENODEV:
            raise
        raise InvalidConfigError(f"veth peer with index {container.peer} is not in host ns") from None
    if not any(each.name == end.name and not each.sandbox for each in result.interfaces):
        raise InvalidConfigError(
            f"no veth peer of container interface found in host ns: prevResult does not name {end.name}"
        )
    return container, end


def _create_ifb(request: Request, host: Netlink, mtu: int, undo: Undo) -> Link:
    name = _ifb_name(request.network, request.container_id)
    attachment = _attachment(request)
    undo.forget(notes.remove, _KIND, attachment)
    notes.begin(_KIND, attachment).close()
    try:
        with undo.made(link.delete, host, name):
            newlink.create(host, "ifb", name, mtu=mtu)
    except OSError as error:
        if error.errno != _EEXIST:
            raise
        raise ConflictError(
            f"{name!r} exists already: the container has a limit in network {request.network!r}",
            "a container can be in a network with bandwidth once; DEL the attachment that is left over",
        ) from None
    ifb = link.get(host, name)
    if link.mark(host, name, f"{request.network}:{request.container_id}"):  # neither can hold a colon
        notes.remove(_KIND, attachment)
    return ifb


def _occupy(
    host: Netlink,
    end: Link,
    undo: Undo,
    take_back: Callable[..., object],
    make: Callable[..., object],
    *args: object,
) -> None:
    """Make a qdisc where there must be none."""
    try:
        with undo.made(take_back, host, end.index):
            make(host, end.index, *args)
    except OSError as error:
        if error.errno != _EEXIST:
            raise
        raise ConflictError(
            f"the limit has no place: interface {end.name!r} of the host has a qdisc there already",
            f"`tc qdisc show dev {end.name}` shows it: a leftover, or of another program (one that looks at "
            "packets by eBPF needs no clsact qdisc if it attaches by tcx)",
        ) from None


def _attachment(request: Request) -> tuple[str, str, str]:
    return request.network, request.container_id, request.ifname


def _release(request: Request, result: Result, host: Netlink) -> None:
    """Remove our limits from the host's end: a container can take long to end, and its pair stays so long."""
    try:
        ingress, _egress = _limits(request.conf)
    except InvalidConfigError:
        ingress = None  # no ADD can have set it
    name = _ifb_name(request.network, request.container_id)
    ifb = link.find(host, name)
    for interface in result.interfaces:
        end = None if interface.sandbox or interface.name == name else link.find(host, interface.name)
        if end is None or end.kind != "veth":
            continue
        if ingress and tc.root_tbf(host, end.index) == ingress:
            tc.delete_root(host, end.index)
        if ifb and ifb.index in tc.redirects(host, end.index):
            tc.delete_ingress(host, end.index)


def _check_limit(host: Netlink, at: Link, expected: Tbf) -> None:
    found = tc.root_tbf(host, at.index)
    if found is None:
        raise CheckFailedError(f"interface {at.name!r} of the host has no token bucket filter")
    if found != expected:
        raise CheckFailedError(f"the limit of {at.name!r} is {found}, not {expected}")


PLUGIN = Plugin("bandwidth", "BandwidthConf", add=add, delete=delete, check=check, status=status, gc=gc)
