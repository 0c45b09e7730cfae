"""The subnet manager that keeps leases in etcd v3."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from aetcd import rpc

from flanneld.etcd import codec
from flanneld.etcd.client import RefusedError, end_of
from flanneld.etcd.lapsed import Held, Lapsed
from flanneld.lease import Added, Lease, LeaseAttrs, Snapshot
from flanneld.manager import LeaseLostError, ManagerError
from flanneld.netconf import NetworkConfig
from flanneld.pauses import Pauses, happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from flanneld.etcd.client import Client
    from flanneld.lease import Event, Key
    from flanneld.metrics import Metrics
    from flanneld.subnets import Network
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

TTL = 24 * 3600
"""Seconds that a lease lives without being renewed."""
_ATTEMPTS = 50
_CHOICE = 1000
"""Among how many free subnets one is chosen at random, so that nodes that start together seldom collide."""
_RETRY = 60.0
"""Seconds between attempts to renew a lease."""


class EtcdManager:
    """Leases in etcd (the protocol is manager.SubnetManager's).

    Args:
        client: the connection.
        prefix: the folder of the network's keys.
        margin: how many seconds before its end a lease is renewed.
        ttl: how many seconds it lives.
        clock: the time, in seconds, in which it is counted how long paths stay when their lease has run out.
    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        margin: float,
        ttl: int = TTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._config_key = f"{prefix.rstrip('/')}/config".encode()
        self._prefix = f"{prefix.rstrip('/')}/subnets/".encode()
        self._margin = margin
        self._ttl = ttl
        self._own: Held | None = None
        self._writing: LeaseAttrs | None = None
        self._lapsed = Lapsed(self._is_over, clock)
        self._changed = asyncio.Event()

    async def network_config(self) -> NetworkConfig:
        """Read the network's configuration."""
        answer = await self._client.call("KV", "Range", rpc.RangeRequest(key=self._config_key))
        if not answer.kvs:
            raise ManagerError(f"etcd has no key {self._config_key.decode()}: write the network's JSON there")
        return NetworkConfig.parse(answer.kvs[0].value)

    async def public_override(self) -> tuple[str, str]:
        """Return nothing: etcd has no place for it."""
        return "", ""

    async def published(self, uplink: Uplink) -> LeaseAttrs | None:
        """Return what is published with our address."""
        held, _revision = await self._list()
        attrs = LeaseAttrs(uplink.public_ip, uplink.public_ipv6, "")
        mine = _find_own(held, attrs)
        return mine.lease.attrs if mine else None

    async def acquire(self, config: NetworkConfig, attrs: LeaseAttrs, previous: Key) -> Lease:
        """Take up the lease with our address, or lease the last run's subnet again, or a free one.

        Whatever is taken is taken in a transaction that fails if another node was faster; then all is looked
        at anew. Called again, it publishes `attrs` with the subnet that we have.

        Raises:
            LeaseLostError: we have it no more, while pods of ours do.
        """
        self._writing = attrs
        for _attempt in range(_ATTEMPTS):
            held, revision = await self._list()
            mine = self._mine(held, attrs)
            if mine and not _fits(config, mine.lease.key):
                log.warning(
                    "deleting a lease of ours that is outside the network", extra={"subnet": mine.lease}
                )
                await self._delete(mine)
                continue
            key = mine.lease.key if mine else self._choose(config, [item.lease for item in held], previous)
            if self._own and key != self._own.lease.key:
                raise LeaseLostError(f"the subnet {self._own.lease} is not ours any more")
            conditions = _unchanged(self._key(key), mine) if mine else self._nobody_took(key, revision)
            if taken := await self._write(key, attrs, conditions, mine):
                log.info("leased a subnet", extra={"subnet": taken.lease, "until": taken.lease.expiration})
                return taken.lease
        raise ManagerError(f"another node was faster {_ATTEMPTS} times at leasing a subnet")

    async def watch(self, metrics: Metrics) -> AsyncIterator[list[Event]]:
        """Yield a snapshot and then changes; a new snapshot where etcd has forgotten some."""
        pauses = Pauses()
        revision = 0
        while True:
            try:
                if not revision:
                    held, listed = await self._list()
                    metrics.heard()
                    self._notice({item.lease.key: item for item in held})
                    leases = [*(item.lease for item in held), *await self._lapsed.listed(held)]
                    revision = listed
                    yield [Snapshot(tuple(map(Added, leases)))]
                async for answer in self._client.watch(self._prefix, revision + 1):
                    metrics.heard()
                    if not answer.created:  # a watch that is accepted and then broken off has not worked yet
                        pauses.reset()
                    # A compacted history, or one that starts anew: etcd was restored from a backup.
                    if answer.compact_revision or answer.header.revision < revision:
                        log.warning("etcd has forgotten changes; reading all leases again")
                        revision = 0
                        break
                    changes = [change for event in answer.events if (change := self._change(event))]
                    events = [*await self._lapsed.changed(changes), *self._lapsed.overdue()]
                    revision = max([revision, *(kv.kv.mod_revision for kv in answer.events)])
                    if events:
                        yield events
            except ManagerError as error:
                metrics.failed("manager")
                pause = pauses.next()
                log.warning("the watch ended", extra={"why": error, "retry_in": f"{pause:.1f}s"})
                await asyncio.sleep(pause)

    async def keep(self, lease: Lease) -> None:
        """Renew the lease in time; lease the subnet again where it ran out; end when it is another node's.

        While nobody answers, it goes on trying, past the lease's end too: only etcd can tell whether the
        lease has run out, as its clock stands still while it has no leader.
        """
        lost, pause = False, self._until_renewal()
        while True:
            lost |= await happens(self._changed, pause)
            self._changed.clear()
            held = self._own
            assert held is not None
            try:
                seconds = await self._client.renew(held.etcd_lease) if held.etcd_lease else 0
                if held is not self._own:
                    pass  # `acquire` has written it anew meanwhile
                elif lost or not seconds:
                    await self._lease_again(held, over=bool(held.etcd_lease and not seconds))
                else:
                    expiration = datetime.now(UTC) + timedelta(seconds=seconds)
                    self._own = replace(held, lease=replace(held.lease, expiration=expiration))
                    log.info("renewed the lease", extra={"subnet": lease, "until": expiration})
            except LeaseLostError:
                raise
            except ManagerError as error:
                log.warning("the lease could not be renewed", extra={"subnet": lease, "why": error})
                pause = min(_RETRY, self._ttl / 10)
                continue
            lost, pause = False, self._until_renewal()

    async def _lease_again(self, own: Held, *, over: bool) -> None:
        """Take our subnet up again, if it is still ours, or nobody's since our lease is over.

        Raises:
            LeaseLostError: another node has it, or somebody deleted the lease.
        """
        key, attrs = own.lease.key, self._writing
        assert attrs is not None
        for _attempt in range(_ATTEMPTS):
            held, revision = await self._list()
            if self._own is not own:
                return  # `acquire` was faster
            there = next((item for item in held if item.lease.key == key), None)
            other = next((item.lease for item in held if _overlaps(item.lease.key, key)), None)
            if there is not None and self._is_ours(there.lease):
                if there.etcd_lease == own.etcd_lease and not over:
                    return  # what we heard of was an older loss
                conditions = _unchanged(self._key(key), there)
            elif other is not None:
                node = other.attrs.public_ip or other.attrs.public_ipv6
                raise LeaseLostError(f"the subnet {own.lease} is leased by {node} now, as {other}")
            elif over:
                conditions = self._nobody_took(key, revision)
            else:
                raise LeaseLostError(f"somebody deleted the lease of {own.lease}")
            if await self._write(key, attrs, conditions, there):
                log.warning(
                    "the lease had run out or was changed; it is ours again", extra={"subnet": own.lease}
                )
                return
        raise ManagerError(f"others wrote {_ATTEMPTS} times while the subnet was leased again")

    async def reconnect(self) -> None:
        """Close the connection; the next call opens another, and so does the watch."""
        await self._client.close()

    async def mark_ready(self) -> None:
        """Do nothing: nobody asks etcd."""

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _until_renewal(self) -> float | None:
        """Return in how many seconds to renew; None for a reservation, which does not end."""
        assert self._own is not None
        expiration = self._own.lease.expiration
        if expiration is None:
            return None
        return max((expiration - datetime.now(UTC)).total_seconds() - self._margin, self._ttl / 100)

    async def _list(self) -> tuple[list[Held], int]:
        """Return all leases, and as of which revision."""
        request = rpc.RangeRequest(key=self._prefix, range_end=end_of(self._prefix))
        answer = await self._client.call("KV", "Range", request)
        held = [item for kv in answer.kvs if (item := self._held(kv))]
        return held, answer.header.revision

    def _held(self, kv: Any) -> Held | None:
        name = kv.key.removeprefix(self._prefix).decode(errors="replace")
        key = codec.parse_name(name)
        if key is None:
            log.warning("this key is no lease", extra={"key": name})
            return None
        try:
            attrs = codec.decode_attrs(kv.value)
        except ValueError as error:
            log.warning("this lease cannot be read", extra={"key": name, "why": error})
            return None
        return Held(Lease(*key, attrs), kv.lease, kv.mod_revision)

    def _change(self, event: Any) -> tuple[Key, Held | None] | None:
        """Return what an event says about which lease; None for what is none."""
        if event.type == rpc.Event.PUT:
            held = self._held(event.kv)
            if held and self._own and held.lease.key == self._own.lease.key:
                self._notice({held.lease.key: held})
            return (held.lease.key, held) if held else None
        key = codec.parse_name(event.kv.key.removeprefix(self._prefix).decode(errors="replace"))
        if key and self._own and key == self._own.lease.key:
            self._notice({})
        return (key, None) if key else None

    def _notice(self, held: dict[Key, Held]) -> None:
        """Let `keep` find out what became of our own lease if it is gone or not ours any more."""
        if self._own is None:
            return
        now = held.get(self._own.lease.key)
        if now is None or not self._is_ours(now.lease):
            self._changed.set()

    async def _is_over(self, etcd_lease: int) -> bool:
        """Tell whether an etcd lease has run out; one that may not be asked about counts as alive."""
        try:
            return not await self._client.has_lease(etcd_lease)
        except RefusedError as error:
            log.info("cannot tell a lease that ran out from one that was deleted", extra={"why": error})
            return False

    def _is_ours(self, lease: Lease) -> bool:
        """Tell whether a lease is what we wrote, or are writing: the event can come before the answer."""
        own = [self._own.lease.attrs] if self._own and self._own.lease.key == lease.key else []
        return any(_is_same_node(lease.attrs, attrs) for attrs in (*own, self._writing) if attrs)

    def _mine(self, held: Iterable[Held], attrs: LeaseAttrs) -> Held | None:
        """Return the lease that we hold, whatever our address is now; else the one with our address."""
        held = list(held)
        key = self._own.lease.key if self._own else None
        kept = (item for item in held if item.lease.key == key and self._is_ours(item.lease))
        return next(kept, None) or _find_own(held, attrs)

    def _choose(self, config: NetworkConfig, leases: list[Lease], previous: Key) -> Key:
        chosen: list[Any] = []
        for family, before in zip((4, 6), previous, strict=True):
            if family not in config.families:
                chosen.append(None)
                continue
            taken: list[Network] = [network for lease in leases if (network := lease.network(family))]
            subnets = config.subnet_range(family)
            if (
                before is not None
                and before in subnets
                and not any(before.overlaps(other) for other in taken)
            ):
                chosen.append(before)
                continue
            free = list(islice(subnets.free(taken), _CHOICE))
            if not free:
                raise ManagerError(f"all subnets of {config.cluster(family)} are leased")
            chosen.append(random.choice(free))  # noqa: S311
        return chosen[0], chosen[1]

    def _nobody_took(self, key: Key, revision: int) -> list[Any]:
        """Return the conditions under which a subnet is still free.

        The IPv4 subnet begins the name, so that one comparison covers it with every IPv6 subnet beside it. An
        IPv6 subnet can stand behind any IPv4 one: there it takes that nothing at all was written since.
        """
        subnet, ipv6_subnet = key
        folder = self._prefix
        conditions = []
        if subnet:
            own = folder + codec.name_of((subnet, None)).encode()
            # `&` is the next character of a name with both; a range up to `'` covers both forms.
            conditions.append(_compare(own, own + b"'", "CREATE", "EQUAL", create_revision=0))
        if ipv6_subnet:
            conditions.append(_compare(folder, end_of(folder), "MOD", "LESS", mod_revision=revision + 1))
        return conditions

    async def _write(
        self, key: Key, attrs: LeaseAttrs, conditions: list[Any], mine: Held | None = None
    ) -> Held | None:
        """Write our lease if the conditions hold; return it, or None if they do not.

        It is noted before the etcd lease that it had goes: `keep` might renew that, and find it gone.
        """
        etcd_lease, expiration = 0, None
        if mine is None or mine.etcd_lease:  # a reservation stays one
            granted = await self._client.call("Lease", "LeaseGrant", rpc.LeaseGrantRequest(TTL=self._ttl))
            etcd_lease = granted.ID
            expiration = datetime.now(UTC) + timedelta(seconds=granted.TTL)
        put = rpc.PutRequest(key=self._key(key), value=codec.encode_attrs(attrs), lease=etcd_lease)
        request = rpc.TxnRequest(compare=conditions, success=[rpc.RequestOp(request_put=put)])
        answer = await self._client.call("KV", "Txn", request)
        useless = etcd_lease
        taken = None
        if answer.succeeded:
            useless = mine.etcd_lease if mine else 0
            taken = self._own = Held(Lease(*key, attrs, expiration), etcd_lease, answer.header.revision)
        if useless:
            await self._revoke(useless)
        return taken

    async def _revoke(self, etcd_lease: int) -> None:
        """Forget an etcd lease that no key hangs on; it would run out by itself within a day."""
        try:
            await self._client.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=etcd_lease))
        except ManagerError as error:
            log.info("an unused lease stays in etcd for a day", extra={"why": error})

    async def _delete(self, held: Held) -> None:
        key = self._key(held.lease.key)
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        request = rpc.TxnRequest(compare=_unchanged(key, held), success=[delete])
        await self._client.call("KV", "Txn", request)

    def _key(self, key: Key) -> bytes:
        return self._prefix + codec.name_of(key).encode()


def _find_own(held: Iterable[Held], attrs: LeaseAttrs) -> Held | None:
    return next((item for item in held if _is_same_node(item.lease.attrs, attrs)), None)


def _is_same_node(one: LeaseAttrs, other: LeaseAttrs) -> bool:
    """Tell whether two leases have the same public address: IPv4's, or without IPv4 IPv6's."""
    family = 4 if other.public_ip else 6
    return one.public(family) == other.public(family)


def _overlaps(one: Key, other: Key) -> bool:
    """Tell whether two leases have addresses in common."""
    return any(a and b and a.overlaps(b) for a, b in zip(one, other, strict=True))


def _fits(config: NetworkConfig, key: Key) -> bool:
    """Tell whether a lease's subnets are what would be leased today."""
    return all(
        subnet in config.subnet_range(family) if family in config.families else subnet is None
        for family, subnet in zip((4, 6), key, strict=True)
    )


def _compare(start: bytes, end: bytes, target: str, result: str, **value: int) -> Any:
    """Return a condition on every key of a range; it holds where there is none."""
    return rpc.Compare(
        key=start,
        range_end=end,
        target=rpc.Compare.CompareTarget.Value(target),
        result=rpc.Compare.CompareResult.Value(result),
        **value,
    )


def _unchanged(key: bytes, held: Held) -> list[Any]:
    return [_compare(key, b"", "MOD", "EQUAL", mod_revision=held.revision)]
