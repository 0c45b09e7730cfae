"""A clock that jumps, and a DHCP server that does as it is told: years of leases in milliseconds."""

from __future__ import annotations

import asyncio
import os
import selectors
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ipam.dhcp.daemon import packet
from ipam.dhcp.daemon.client import Patience
from ipam.dhcp.daemon.interface import GoneError
from ipam.dhcp.daemon.lease import Lease, Surroundings
from ipam.dhcp.daemon.packet import Message
from ipam.dhcp.daemon.store import Record, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from ipam.dhcp.daemon.bound import Bound

MAC = bytes.fromhex("020000000001")
SERVER, OTHER = bytes((10, 1, 0, 1)), bytes((10, 1, 0, 2))
ADDRESS = bytes((10, 1, 2, 3))
HARDWARE = bytes.fromhex("020000000099")
START = 1000.0


class _Jumping(selectors.SelectSelector):
    """Instead of waiting, the time of its loop goes on."""

    now = START

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for ever"
            self.now += timeout
        return ready


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop whose time jumps to what happens next."""
    selector = _Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)


def now() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


@dataclass
class Sent:
    """A message that the client sent, when, and to whom; an empty server is everybody."""

    when: float
    message: Message
    server: bytes
    hardware: bytes

    @property
    def kind(self) -> int:
        """DISCOVER, REQUEST, …."""
        return self.message.kind


@dataclass
class Network:
    """A container's interface, and the server behind it.

    Attributes:
        answers: makes the answers to a message; replaced by what a test needs.
        sent: what the client has sent.
        addresses: what has been done with the interface's address.
        gone: whether the container has ended.
        open: how many sockets there are.
    """

    answers: Callable[[Sent], list[Message]] = field(default_factory=lambda: friendly)
    sent: list[Sent] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    gone: bool = False
    open: int = 0

    def take_address(self, held: Bound) -> None:
        self.addresses.append(f"-{held.address}")

    def give_address(self, held: Bound) -> None:
        self.addresses.append(f"+{held.address}")

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[_Wire]:
        if self.gone:
            raise GoneError("gone")
        self.open += 1
        try:
            yield _Wire(self)
        finally:
            self.open -= 1

    def of(self, kind: int) -> list[Sent]:
        """Return what was sent of a kind."""
        return [each for each in self.sent if each.kind == kind]


class _Wire:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._waiting: asyncio.Queue[tuple[Message, bytes]] = asyncio.Queue()

    def send(self, message: Message, server: bytes = b"", hardware: bytes = b"") -> None:
        sent = Sent(now(), Message.decode(message.encode()), server, hardware)
        self._network.sent.append(sent)
        for answer in self._network.answers(sent):
            self._waiting.put_nowait((Message.decode(answer.encode()), HARDWARE))

    async def receive(self) -> tuple[Message, bytes]:
        return await self._waiting.get()


def answer(sent: Sent, kind: int, *, lease: int = 1000, address: bytes = ADDRESS, **change: Any) -> Message:
    """Return a server's answer, as it should be but for what is changed."""
    options = {
        53: bytes((kind,)),
        54: SERVER,
        1: b"\xff\xff\xff\x00",
        3: SERVER,
        51: lease.to_bytes(4, "big"),
    }
    message = Message(2, sent.message.xid, sent.message.chaddr, yiaddr=address, options=options)
    given = {54: change.pop("server")} if "server" in change else {}
    changed: Message = replace(message, **change)
    return replace(changed, options=changed.options | given)


def friendly(sent: Sent, **change: Any) -> list[Message]:
    """Answer as a server does that has an address for everybody."""
    kinds = {packet.DISCOVER: packet.OFFER, packet.REQUEST: packet.ACK}
    return [answer(sent, kinds[sent.kind], **change)] if sent.kind in kinds else []


def record(**change: Any) -> Record:
    """Return the record of an attachment without a lease."""
    options = {"61": b"\0c1/net/eth0".hex(), "55": b"\3\1".hex()}
    return replace(
        Record("c1", "net", "eth0", "/run/netns/c1", "1:2", MAC.hex(), options, False, 0), **change
    )


def lease(folder: Path, network: Network, ended: list[Lease], given: Record | None = None) -> Lease:
    """Return a lease that is not yet started."""
    around = Surroundings(Patience(), Store(str(folder / "leases")), now, lambda _record: network)  # type: ignore[arg-type,return-value]
    return Lease(given or record(), around, b"", ended.append)


async def bound(tmp_path: Path, network: Network, ended: list[Lease] | None = None) -> Lease:
    """Get a lease of 1000 s."""
    made = lease(tmp_path, network, ended if ended is not None else [])
    made.start()
    await made.result()
    return made


def saved(tmp_path: Path) -> list[str]:
    """Return the names of the leases on disk."""
    return sorted(name for name in os.listdir(tmp_path / "leases") if "." not in name)
