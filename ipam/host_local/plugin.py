"""host-local: gives addresses from ranges, and keeps them in files on the host (CNI 1.1.0, section 4).

It owns `<dataDir>/<network>/` (see `store`) and the index beside it (see `index`); it never looks into the
container's namespace.
"""

from __future__ import annotations

import posix

from cni_plugins.address import Prefix, format_address
from cni_plugins.kernel import files
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError, NotAvailableError, TeardownError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import DNS, IPConfig, Result, route_from
from ipam.host_local.allocator import allocate, assign, free, requested
from ipam.host_local.index import key
from ipam.host_local.ranges import range_sets
from ipam.host_local.store import DEFAULT_DATA_DIR, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.spec.request import Request


def add(request: Request) -> Result:
    """Reserve one address from every range set."""
    conf = request.conf
    sets = range_sets(conf, request.version)
    chosen = assign(sets, requested(request))
    result = Result()
    try:
        result.routes = [route_from(route) for route in conf.ipam.routes]
    except ValueError as error:
        raise InvalidConfigError(f"ipam.routes: {error}") from None
    if conf.ipam.resolv_conf:
        result.dns = resolv_conf(conf.ipam.resolv_conf)
    with Store(conf.ipam.data_dir, request.network, create=True) as store:
        for address, within in allocate(store, sets, chosen, request.container_id, request.ifname):
            result.ips.append(IPConfig(Prefix(address, within.subnet.length), within.gateway))
    return result


def delete(request: Request) -> None:
    """Release all that the container's interface holds, whatever the ranges are by now."""
    try:
        store = Store(request.conf.ipam.data_dir, request.network, create=False)
    except FileNotFoundError:
        return  # nobody ever got an address
    with store:
        for ifname in (request.ifname, ""):
            addresses = store.held(request.container_id, ifname)
            if addresses:
                store.release(key(request.container_id, ifname), addresses)
                return


def check(request: Request) -> None:
    """Fail when the container's interface holds no address, or has one of our ranges without holding it."""
    sets = range_sets(request.conf, request.version)
    holder = f"container {request.container_id}, interface {request.ifname}"
    try:
        store = Store(request.conf.ipam.data_dir, request.network, create=False)
    except FileNotFoundError:
        raise CheckFailedError(f"host-local: failed to find an address of {holder}") from None
    with store:
        held = {
            *store.held(request.container_id, request.ifname),
            *store.held(request.container_id, ""),
        }
    if not held:
        raise CheckFailedError(
            f"host-local: failed to find an address of {holder}", f"{store.folder} has no file that names it"
        )
    for ip in request.prev_result.ips if request.prev_result else ():
        name = format_address(ip.address.address)
        if name not in held and any(item.range_of(ip.address.address) for item in sets):
            raise CheckFailedError(
                f"host-local: {name} is not reserved for {holder}",
                f"it holds {', '.join(sorted(held))}; {store.folder}/{name} is missing or another's",
            )


def status(request: Request) -> None:
    """Fail when an ADD would: no place to write, or a range set without a free address."""
    sets = range_sets(request.conf, request.version)
    folder = f"{request.conf.ipam.data_dir or DEFAULT_DATA_DIR}/{request.network}"
    place = files.nearest(folder)
    try:
        files.refuse_link(folder)
        names = set(posix.listdir(folder)) if place == folder else set()
        files.try_writing(place)
    except OSError as error:
        raise NotAvailableError(
            f"host-local: cannot write in {place}: {error.strerror}",
            f"reservations are kept in {folder}: make it writable, or give `dataDir` another folder",
        ) from None
    if names and any(free(item, names) <= 0 for item in sets):
        with Store(request.conf.ipam.data_dir, request.network, create=False) as store:
            store.scan()  # frees what a killed process left empty
            names = store.names()
    for index, item in enumerate(sets):
        if free(item, names) <= 0:
            raise NotAvailableError(
                f"no IP addresses available in range set: {item}",
                f"all {item.size()} of range set {index} are reserved in {folder}: `cnictl doctor --fix` "
                "releases those of containers that are gone; else delete containers or enlarge the range",
            )


def gc(request: Request) -> None:
    """Release what belongs to attachments that are no longer valid."""
    valid = request.valid_attachments()
    spared = {key(container_id, ifname) for container_id, ifname in valid}
    spared |= {key(container_id, "") for container_id, _ in valid}
    try:
        store = Store(request.conf.ipam.data_dir, request.network, create=False)
    except FileNotFoundError:
        return
    failures = []
    with store:
        table = store.scan()
        for name in sorted(table.keys() - spared):
            addresses = table[name]
            try:
                store.release(name, addresses)
            except OSError as error:
                failures.append(f"{', '.join(addresses)} of {name}: {error.strerror}")
                continue
            skel.warn(f"host-local: network {request.network}: released {', '.join(addresses)} of {name}")
    if failures:
        raise TeardownError(f"host-local: cannot release {'; '.join(failures)}")


def resolv_conf(path: str) -> DNS:
    """Return the settings of a resolv.conf(5).

    Raises:
        InvalidConfigError: there is no such file.
        OSError: it cannot be read.
    """
    text = files.read(path, follow=True)
    if text is None:
        raise InvalidConfigError(f"ipam.resolvConf: {path} does not exist")
    dns = DNS()
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            dns.nameservers.append(words[1])
        elif words[0] == "domain":
            dns.domain = words[1]
        elif words[0] == "search":
            dns.search += words[1:]
        elif words[0] == "options":
            dns.options += words[1:]
    return dns


PLUGIN = Plugin(
    "host-local",
    "HostLocalConf",
    add=add,
    delete=delete,
    check=check,
    status=status,
    gc=gc,
)
