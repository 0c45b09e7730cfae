"""The conversation with servers (RFC 2131, sections 3 and 4.4): one exchange after another."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ipam.dhcp import options as opt
from ipam.dhcp.daemon import packet
from ipam.dhcp.daemon.bound import Bound, usable
from ipam.dhcp.daemon.packet import BOOT_REQUEST, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FAST_TRIES, _FAST = 4, 2.0
_AT_ONCE = (0.05, 0.25)
"""Seconds until a first request is repeated: a bridge may not yet forward for a port that just came up."""
_FIRST = 4.0
_JITTER = 1.0


class RefusedError(Exception):
    """A server said no: the address is not, or no longer, ours."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: seconds that a server has to acknowledge what it offered.
        resend_max: seconds between two requests at most.
        resend_timeout: seconds after which no server answers.
    """

    timeout: float = 10.0
    resend_max: float = 62.0
    resend_timeout: float = 208.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Attributes:
        mac: the interface's address.
        options: what every message has: the client identifier, the list of wanted options, what the
            configuration provides.
        broadcast: have answers broadcast.
    """

    mac: bytes
    options: dict[int, bytes]
    broadcast: bool = False


class Wire(Protocol):
    """What carries messages."""

    def send(self, message: Message, server: bytes = b"", hardware: bytes = b"") -> None:
        """Send to a server, at a hardware address if that is known; else to all."""

    async def receive(self) -> tuple[Message, bytes]:
        """Return the next message, and the hardware address it came from."""


class Client:
    """A client of RFC 2131.

    Args:
        wire: an open socket on the interface.
        identity: who asks.
        patience: how long to try.
        clock: the time, in seconds, that leases are counted in.
    """

    def __init__(
        self, wire: Wire, identity: Identity, patience: Patience, clock: Callable[[], float]
    ) -> None:
        self._wire = wire
        self._identity = identity
        self._patience = patience
        self._clock = clock
        self._began = clock()

    async def acquire(self, wanted: bytes, on_offer: Callable[[Bound], None]) -> Bound:
        """Get a lease: DISCOVER, OFFER, REQUEST, ACK.

        Args:
            wanted: the address to ask for; empty: any.
            on_offer: called with what a server offered, before it is accepted.

        Raises:
            TimeoutError: no server gave one in time.
        """
        asked = {opt.REQUESTED_ADDRESS: wanted} if wanted else {}
        async with asyncio.timeout(self._patience.resend_timeout):
            while True:
                discover = self._message(packet.DISCOVER, asked)
                offer = await self._ask(discover, (packet.OFFER,), self._backoff())
                on_offer(offer)
                chosen = {
                    opt.REQUESTED_ADDRESS: offer.message.yiaddr,
                    opt.SERVER_ID: offer.server,
                }
                request = replace(self._message(packet.REQUEST, chosen), xid=discover.xid)
                try:
                    async with asyncio.timeout(self._patience.timeout):
                        return await self._ask(
                            request, (packet.ACK, packet.NAK), self._backoff(), offer.server
                        )
                except (RefusedError, TimeoutError):
                    # Not at once: a server that offers and refuses must not keep us busy.
                    await asyncio.sleep(_jittered(_FAST))

    async def reboot(self, address: bytes) -> Bound:
        """Ask whether an address that we had is still ours (INIT-REBOOT).

        Raises:
            RefusedError: it is not.
            TimeoutError: nobody said.
        """
        request = self._message(packet.REQUEST, {opt.REQUESTED_ADDRESS: address})
        async with asyncio.timeout(self._patience.timeout):
            return await self._ask(request, (packet.ACK, packet.NAK), self._backoff())

    async def extend(self, held: Bound, listen: float, *, alone: bool) -> Bound:
        """Ask once for more time.

        Args:
            held: the lease.
            listen: seconds to wait for the answer.
            alone: ask the server that gave it (RENEWING), else every server (REBINDING).

        Raises:
            RefusedError: the address is no longer ours.
            TimeoutError: there was no answer.
        """
        request = replace(self._message(packet.REQUEST, {}), ciaddr=held.message.yiaddr)
        server, hardware = (held.server, held.hardware) if alone else (b"", b"")
        return await self._ask(request, (packet.ACK, packet.NAK), iter((listen,)), server, hardware)

    def release(self, held: Bound) -> None:
        """Give a lease back. There is no answer to that."""
        self._wire.send(self.release_message(held), held.server, held.hardware)

    def release_message(self, held: Bound) -> Message:
        """Return the message that gives a lease back (RFC 2131, section 4.4.6)."""
        options = {opt.MESSAGE_TYPE: bytes((packet.RELEASE,)), opt.SERVER_ID: held.server}
        if opt.CLIENT_ID in self._identity.options:
            options[opt.CLIENT_ID] = self._identity.options[opt.CLIENT_ID]
        message = self._message(packet.RELEASE, {})
        return replace(message, ciaddr=held.message.yiaddr, options=options, secs=0, broadcast=False)

    async def _ask(
        self,
        request: Message,
        kinds: tuple[int, ...],
        delays: Iterator[float],
        server: bytes = b"",
        hardware: bytes = b"",
    ) -> Bound:
        """Send a request, again and again, until an answer fits.

        Args:
            request: what to send.
            kinds: the kinds of message that answer it.
            delays: seconds until the request is sent again.
            server: the only server whose answer counts; empty: any's. With a `ciaddr` it alone is asked.
            hardware: where that server is.

        Raises:
            RefusedError: the answer is a NAK.
        """
        alone = server if any(request.ciaddr) else b""
        for delay in delays:
            sent = self._clock()
            secs = int(sent - self._began)
            self._wire.send(replace(request, secs=secs), alone, hardware)
            try:
                async with asyncio.timeout(delay):
                    while True:
                        answer = self._answer(request, kinds, server, sent, await self._wire.receive())
                        if answer is not None:
                            return answer
            except TimeoutError:
                continue
        raise TimeoutError

    def _answer(
        self,
        request: Message,
        kinds: tuple[int, ...],
        server: bytes,
        sent: float,
        got: tuple[Message, bytes],
    ) -> Bound | None:
        """Return what a message that came in says; None when it is not for us, or says nothing of use."""
        reply, source = got
        if (reply.op, reply.xid, reply.chaddr) != (packet.BOOT_REPLY, request.xid, self._identity.mac):
            return None
        said = reply.options.get(opt.SERVER_ID, b"")
        # Without an identifier it is BOOTP's, or worse: there is nobody to accept it from.
        if reply.kind not in kinds or len(said or server) != 4 or said not in (b"", server or said):
            return None
        if reply.kind == packet.NAK:
            if not said:
                return None
            raise RefusedError("the server refused the address")
        if not usable(reply.yiaddr) or reply.options.get(opt.LEASE_TIME) == bytes(4):
            return None
        return Bound.of(replace(reply, options={opt.SERVER_ID: server} | reply.options), source, sent)

    def _message(self, kind: int, options: dict[int, bytes]) -> Message:
        every = {opt.MESSAGE_TYPE: bytes((kind,)), opt.MAX_SIZE: (1500).to_bytes(2, "big")}
        return Message(
            BOOT_REQUEST,
            random.getrandbits(32),
            self._identity.mac,
            broadcast=self._identity.broadcast,
            options=every | self._identity.options | options,
        )

    def _backoff(self) -> Iterator[float]:
        """Yield delays: some short ones, as the reference has, then doubling (RFC 2131, section 4.1)."""
        yield from _AT_ONCE
        for _try in range(_FAST_TRIES):
            yield _jittered(min(_FAST, self._patience.resend_max))
        delay = _FIRST
        while True:
            yield _jittered(min(delay, self._patience.resend_max))
            delay = min(delay * 2, self._patience.resend_max)


def _jittered(delay: float) -> float:
    return max(_JITTER / 2, delay + random.uniform(-_JITTER, _JITTER))  # noqa: S311 (no secret)
