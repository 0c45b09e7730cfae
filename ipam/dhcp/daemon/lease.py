"""A lease, from the first DISCOVER to its release: a coroutine that mostly sleeps (RFC 2131, section 4.4)."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugins.address import format_address
from ipam.dhcp.daemon.client import Client, Identity, Patience, RefusedError
from ipam.dhcp.daemon.interface import GoneError
from ipam.dhcp.daemon.packet import SERVER_PORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cni_plugins.spec.result import Result
    from ipam.dhcp.daemon.bound import Bound
    from ipam.dhcp.daemon.interface import Container
    from ipam.dhcp.daemon.packet import Message
    from ipam.dhcp.daemon.store import Record, Store

_log = logging.getLogger(__name__)
_SLOWEST_RENEWAL = 60.0
_FASTEST_RENEWAL = 1.0
_SHARE = 20
_PAUSE = 10.0
"""Seconds until something is tried again that the kernel refused."""


class LeaseError(Exception):
    """There is no lease to tell of; the text is for the plugin's caller, what to do on its second line."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every lease needs.

    Attributes:
        patience: how long to try.
        store: where leases are kept.
        clock: seconds since the boot, those asleep included: what leases are counted in.
        container: gives the interface of a lease.
    """

    patience: Patience
    store: Store
    clock: Callable[[], float]
    container: Callable[[Record], Container]


class Lease:
    """One attachment's lease.

    Args:
        record: what is known of it: nothing but the attachment, or all of it after a restart.
        around: what it needs.
        wanted: the address to ask for; empty: any.
        ended: called when it is over by itself.
    """

    def __init__(
        self, record: Record, around: Surroundings, wanted: bytes, ended: Callable[[Lease], None]
    ) -> None:
        self.record = record
        self._around = around
        self._wanted = wanted
        self._ended = ended
        self._container = around.container(record)
        self._held: Bound | None = record.bound()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if record.accepted:
            self._ready.set_result(None)
        self._task: asyncio.Task[None] | None = None
        self._release: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to get the lease, or to renew it."""
        self._task = asyncio.create_task(self._live())

    async def result(self) -> Result:
        """Return what the lease gives, as soon as there is one.

        Raises:
            LeaseError: there is none, or no longer.
        """
        await asyncio.shield(self._ready)
        if self._held is None or not self.record.configured:
            raise LeaseError(f"the lease of {self.record.who} was lost, and no server has given another yet")
        return self._held.result(self.record.priority)

    async def release(self) -> None:
        """Give the lease back and forget it, whatever state it is in."""
        if self._release is None:
            self._release = asyncio.create_task(self._give_back())
        await asyncio.shield(self._release)

    @property
    def releasing(self) -> bool:
        """Whether its release has begun."""
        return self._release is not None

    async def abandon(self) -> None:
        """Stop looking after it; the server is told nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if not self._ready.done():
            self._fail(LeaseError("given up: the lease was released, or the daemon ends"))

    async def _live(self) -> None:
        try:
            if not self.record.accepted:
                await self._begin()
            while True:
                try:
                    await self._go_on()
                except OSError as error:
                    _log.error("%s: %s", self.record.who, _said(error))
                    await asyncio.sleep(_PAUSE)
        except GoneError as error:
            await self._outlive(error)
        except (LeaseError, OSError) as error:
            if self._held is not None:  # a server offered one, and may have given it
                await self._say_goodbye(self._held)
            self._fail(error if isinstance(error, LeaseError) else LeaseError(_said(error)))
        self._ended(self)

    async def _go_on(self) -> None:
        """Take the next step of a lease that the plugin was told of."""
        assert self._held is not None
        if not self.record.configured:
            await self._regain()
        elif self._held.expiry <= self._around.clock():
            await self._ask_again()
        else:
            await self._keep()

    def _fail(self, error: LeaseError) -> None:
        _log.warning("%s: %s", self.record.who, error)
        self._ready.set_exception(error)
        self._ready.exception()  # nobody need wait for it

    async def _begin(self) -> None:
        """Get the first lease; it is on disk before anybody is told."""
        async with self._client() as client:
            try:
                held = await client.acquire(self._wanted, self._offered)
            except TimeoutError:
                raise LeaseError(
                    f"no DHCP server gave {self.record.who} a lease within "
                    f"{self._around.patience.resend_timeout:g} s\n"
                    "look whether a server is on the interface's network and has free addresses"
                ) from None
        self.record.note(held, accepted=True)
        self._around.store.save(self.record)
        self._held = held
        self._ready.set_result(None)
        self._say("has")

    def _offered(self, offer: Bound) -> None:
        """Note an offer before it is accepted: the daemon may be killed before the server's answer."""
        self.record.note(offer, accepted=False)
        self._around.store.save(self.record)
        self._held = offer

    async def _keep(self) -> None:
        """Wait until it is time to renew, and do so."""
        assert self._held is not None
        await self._until(self._held.renewal)
        try:
            self._renewed(await self._extend(self._held))
        except RefusedError:
            _log.warning("%s: the server takes %s back", self.record.who, self._held.address)
            await self._regain()
        except TimeoutError:
            _log.warning("%s: no server renewed the lease in time", self.record.who)
            await self._regain()

    async def _extend(self, held: Bound) -> Bound:
        """Renew with the server that gave the lease, then rebind with any.

        The socket is closed between two requests: an open one keeps a namespace alive after its container.
        """
        for until, alone in ((held.rebinding, True), (held.expiry, False)):
            share = (until - self._around.clock()) / _SHARE
            least = min(_SLOWEST_RENEWAL, max(_FASTEST_RENEWAL, share))
            while (left := until - self._around.clock()) > 0:
                # RFC 2131, section 4.4.5: half of what is left, a minute at least; for a short lease, less.
                pause = max(left / 2, min(least, left))
                again = self._around.clock() + pause
                try:
                    async with self._client() as client:
                        return await client.extend(
                            held, min(pause, self._around.patience.timeout), alone=alone
                        )
                except OSError as error:  # no answer is one, too
                    if not isinstance(error, TimeoutError):
                        _log.warning("%s: cannot renew: %s", self.record.who, error)
                await self._until(again)
        raise TimeoutError

    async def _ask_again(self) -> None:
        """Ask for a lease that expired while no daemon ran."""
        assert self._held is not None
        try:
            async with self._client() as client:
                self._renewed(await client.reboot(self._held.message.yiaddr))
        except (RefusedError, TimeoutError):
            await self._regain()

    def _renewed(self, held: Bound) -> None:
        before = self._held
        assert before is not None
        self._held = held
        if before.address != held.address:
            self._drop(before)
            self._restore()
        self.record.note(held, accepted=True)
        self._around.store.save(self.record)
        self._say("renewed")

    async def _regain(self) -> None:
        """Get another lease for an interface whose old one is over; until then it has no address.

        At once, not when another is there: a server that looks whether an address is free before it gives it
        would get our own answer.
        """
        assert self._held is not None
        before = self._held
        self._drop(before)
        if self.record.configured:
            self.record.configured = False
            self._around.store.save(self.record)
        while True:
            try:
                async with self._client() as client:
                    held = await client.acquire(before.message.yiaddr, lambda _offer: None)
                break
            except OSError as error:
                _log.warning("%s: no new lease: %s", self.record.who, str(error) or "no server answered")
            await asyncio.sleep(self._around.patience.resend_max * random.uniform(0.5, 1))  # noqa: S311
        self._held = held
        self.record.note(held, accepted=True)
        self._restore()
        self.record.configured = True
        self._around.store.save(self.record)
        self._say("has again")

    def _drop(self, held: Bound) -> None:
        self._container.take_address(held)
        _log.warning("%s: took %s from %s", self.record.who, held.address, self.record.ifname)

    def _restore(self) -> None:
        assert self._held is not None
        try:
            self._container.give_address(self._held)
        except OSError as error:
            _log.warning("%s: %s", self.record.who, _said(error))

    async def _outlive(self, error: GoneError) -> None:
        """Keep the record of a container that is gone until it is deleted, or the lease has expired."""
        if not self._ready.done():
            self._fail(LeaseError(str(error)))
            return
        _log.info("%s: %s; the lease is kept until DEL", self.record.who, error)
        assert self._held is not None
        await self._until(self._held.expiry)

    async def _give_back(self) -> None:
        began = self._held
        await self.abandon()
        held = self._held or began
        if held is not None and self.record.configured and held.expiry > self._around.clock():
            message = await self._say_goodbye(held)
            _log.info("%s: released %s%s", self.record.who, held.address, message)
        self._around.store.remove(self.record.name)

    async def _say_goodbye(self, held: Bound) -> str:
        try:
            async with self._client() as client:
                client.release(held)
        except (GoneError, OSError):
            # A server goes by the identifier and the address in the message, not by where it came from.
            client = Client(_HostWire(), self._identity(), self._around.patience, self._around.clock)
            client.release(held)
            return ", from the host, as its interface is gone"
        return ""

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        """Give a client with a socket in the container.

        Raises:
            GoneError: the container is gone.
            OSError: the kernel has no socket for it.
        """
        async with self._container.wire() as wire:
            yield Client(wire, self._identity(), self._around.patience, self._around.clock)

    def _identity(self) -> Identity:
        options = {int(number): bytes.fromhex(value) for number, value in self.record.options.items()}
        return Identity(bytes.fromhex(self.record.mac), options, self.record.broadcast)

    async def _until(self, when: float) -> None:
        if math.isinf(when):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(max(0.0, when - self._around.clock()))

    def _say(self, what: str) -> None:
        assert self._held is not None
        left = self._held.expiry - self._around.clock()
        server = format_address(self._held.server)
        _log.info("%s: %s %s from %s for %.0f s", self.record.who, what, self._held.address, server, left)


def _said(error: OSError) -> str:
    notes = getattr(error, "__notes__", [])
    return f"{notes[0]}: {error.strerror}" if notes else str(error)


class _HostWire:
    """Sends from the host: for the good-bye of an interface that is gone."""

    def send(self, message: Message, server: bytes = b"", _hardware: bytes = b"") -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
            try:
                udp.sendto(message.encode(), (format_address(server), SERVER_PORT))
            except OSError as error:
                _log.info("cannot tell the server %s: %s", format_address(server), error.strerror)

    async def receive(self) -> tuple[Message, bytes]:
        raise NotImplementedError
