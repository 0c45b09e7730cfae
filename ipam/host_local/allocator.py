"""Choosing addresses: round robin, or those that were asked for."""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.spec import skel
from cni_plugins.spec.errors import AlreadyAttachedError, CNIError, InvalidConfigError, NoAddressError
from ipam.host_local.store import is_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_plugins.kernel.files import NewFile
    from cni_plugins.spec.request import Request
    from ipam.host_local.ranges import Range, RangeSet
    from ipam.host_local.store import Store

_TRIES = 32
"""Addresses that are tried one by one before the directory is listed: a listing of 50,000 takes 20 ms."""


def requested(request: Request) -> list[bytes]:
    """Return the addresses asked for, each once: by CNI_ARGS, `args.cni.ips` and `runtimeConfig.ips`.

    Raises:
        CNIError: CNI_ARGS is invalid, or one is no address.
    """
    by_env = request.cni_args().get("IP")
    conf = request.conf
    texts = [*([by_env] if by_env else []), *conf.args.cni.ips, *conf.runtime_config.ips]
    try:
        addresses = [Prefix.parse(text).address if "/" in text else parse_address(text) for text in texts]
    except ValueError as error:
        raise InvalidConfigError(
            f"cannot understand a requested IP: {error}",
            "see CNI_ARGS, args.cni.ips and runtimeConfig.ips",
        ) from None
    return list(dict.fromkeys(addresses))


def assign(sets: list[RangeSet], wanted: list[bytes]) -> list[bytes | None]:
    """Return, for each range set, the requested address that is in it.

    Raises:
        NoAddressError: some are in no set, or a second one is in the same set.
    """
    rest = list(wanted)
    chosen: list[bytes | None] = []
    for item in sets:
        match = next((address for address in rest if item.range_of(address)), None)
        if match is not None:
            rest.remove(match)
        chosen.append(match)
    if rest:
        raise NoAddressError(
            f"failed to allocate all requested IPs: {' '.join(map(format_address, rest))}",
            f"each range set gives one address; they are {' and '.join(map(str, sets))}",
        )
    return chosen


def allocate(
    store: Store, sets: list[RangeSet], chosen: list[bytes | None], container_id: str, ifname: str
) -> list[tuple[bytes, Range]]:
    """Reserve one address from every range set, or none at all.

    Args:
        store: the network's reservations.
        sets: the range sets.
        chosen: for each, the address to reserve, or None for any.
        container_id: the holder's container.
        ifname: its interface.

    Returns:
        for each set, the address and the range it is from.

    Raises:
        NoAddressError: a set is exhausted, a chosen address is taken or is the gateway, or the holder has an
            address of a set already.
        OSError: a file cannot be written.
    """
    before = [*store.held(container_id, ifname), *store.held(container_id, "")]
    held = [parse_address(name) for name in before]
    given: list[tuple[bytes, Range]] = []
    placed: list[str] = []
    try:
        for index, (item, choice) in enumerate(zip(sets, chosen, strict=True)):
            try:
                _refuse_second(item, held, container_id)
                given.append(_one(store, item, index, choice, (container_id, ifname), placed))
            except (AlreadyAttachedError, NoAddressError) as error:
                error.msg = f"failed to allocate for range {index}: {error.msg}"
                raise
    except (CNIError, OSError):
        try:
            store.withdraw(container_id, ifname, placed)
        except OSError as error:  # the DEL that follows tries again
            skel.warn(f"host-local: undoing a failed ADD: {skel.as_cni_error(error).msg}")
        raise
    store.note(container_id, ifname, placed)
    return given


def _refuse_second(item: RangeSet, held: list[bytes], container_id: str) -> None:
    for address in held:
        if item.range_of(address):
            raise AlreadyAttachedError(
                f"{format_address(address)} has been allocated to {container_id}, "
                "duplicate allocation is not allowed",
                "an ADD must be followed by a DEL before the next ADD",
            )


def _one(
    store: Store, item: RangeSet, index: int, choice: bytes | None, holder: tuple[str, str], placed: list[str]
) -> tuple[bytes, Range]:
    last = store.last(index)
    with store.prepare(*holder) as reservation:
        found = _try(store, item, choice, last, reservation)
        if found is None and not store.scanned:
            # Among those that seem taken may be some that a lost power supply left empty.
            store.scan()
            found = _try(store, item, choice, last, reservation)
    if found is None and choice is not None:
        raise NoAddressError(
            f"requested IP address {format_address(choice)} is not available in range set {item}",
            f"{store.folder}/{format_address(choice)} says which container has it",
        )
    if found is None:
        raise NoAddressError(
            f"no IP addresses available in range set: {item}",
            f"all {item.size()} are reserved in {store.folder}: `cnictl doctor --fix` releases those of "
            "containers that are gone; else delete containers or enlarge the range",
        )
    name = format_address(found[0])
    placed.append(name)
    store.set_last(index, name)
    return found


def _try(
    store: Store, item: RangeSet, choice: bytes | None, last: bytes | None, reservation: NewFile
) -> tuple[bytes, Range] | None:
    taken: set[str] = set()
    for tries, (address, within) in enumerate(_candidates(item, choice, last)):
        name = format_address(address)
        if name not in taken and store.place(reservation, name):
            return address, within
        if tries == _TRIES:
            taken = store.names()
    return None


def _candidates(item: RangeSet, choice: bytes | None, last: bytes | None) -> Iterator[tuple[bytes, Range]]:
    if choice is None:
        yield from item.candidates(last)
        return
    within = item.range_of(choice)
    assert within is not None  # assign chose it so
    if choice == within.gateway:
        raise NoAddressError(f"requested ip {format_address(choice)} is subnet's gateway")
    yield choice, within


def free(item: RangeSet, names: set[str]) -> int:
    """Return how many addresses of a set are not held.

    Args:
        item: the range set.
        names: the names of the files in the network's directory.
    """
    held = 0
    for name in names:
        if is_address(name):
            address = parse_address(name)
            within = item.range_of(address)
            held += within is not None and address != within.gateway
    return item.size() - held
