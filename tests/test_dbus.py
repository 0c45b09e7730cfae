"""The message bus's client, with a real bus, and with ends that misbehave."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cni_plugins.kernel.dbus import BUS, Bus, DBusError
from integration.waiting import until
from tests.sockets import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATH = "/org/freedesktop/DBus"
HELLO = b"OK 0123\r\n"


@pytest.fixture(scope="module")
def bus_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a bus of the test's own."""
    with short(tmp_path_factory.mktemp("bus")) as folder:
        path = folder / "socket"
        command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={path}"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            try:
                until(path.exists)
                yield str(path)
            finally:
                daemon.terminate()


def test_a_real_bus(bus_path: str) -> None:
    with Bus(bus_path) as bus:
        assert bus.has_owner(BUS)
        assert not bus.has_owner("org.example.Nobody")
        assert bus.call(BUS, PATH, BUS, "GetNameOwner", BUS) == BUS
        assert isinstance(bus.call(BUS, PATH, BUS, "GetId"), str)
        assert bus.call(BUS, PATH, BUS, "ListNames") is None  # an array: nothing that we ask for
        with pytest.raises(DBusError) as caught:
            bus.call(BUS, PATH, BUS, "GetNameOwner", "org.example.Nobody")
        assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
        assert "org.example.Nobody" in caught.value.text
        with pytest.raises(DBusError, match=r"ServiceUnknown|NameHasNoOwner"):
            bus.call("org.example.Nobody", "/", "org.example", "Do", "one", "two")
        assert bus.has_owner(BUS)


def test_a_name_of_its_own_for_each_connection(bus_path: str) -> None:
    with Bus(bus_path) as one, Bus(bus_path) as other:
        assert one.has_owner(":1.0") == other.has_owner(":1.0")


@contextmanager
def end(sockets: Path, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A socket whose other end does as the test says, after the client's authentication."""
    path = str(sockets / "bus")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _peer = listener.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(4096).startswith(b"\0AUTH EXTERNAL ")
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join()


def reply(value: bytes, signature: bytes, serial: int = 1, order: str = ">") -> bytes:
    """Return a method's answer, by default as a machine of the other byte order writes it."""

    def field(code: int, kind: bytes, data: bytes) -> bytes:
        made = bytes((code, 1)) + kind + b"\0" + data
        return made + b"\0" * (-len(made) % 8)

    fields = field(5, b"u", struct.pack(f"{order}I", serial)) + field(8, b"g", b"\1" + signature + b"\0")
    head = struct.pack(
        f"{order}BBBBIII", ord("B" if order == ">" else "l"), 2, 0, 1, len(value), 9, len(fields)
    )
    return head + fields + value


def test_the_other_byte_order_and_pieces(sockets: Path) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(HELLO)
        connection.recv(4096)
        named = struct.pack(">I", 4) + b":1.7\0"
        for byte in reply(named, b"s"):
            connection.sendall(bytes((byte,)))
        said = b""
        while b"NameHasOwner" not in said:
            part = connection.recv(4096)
            assert part
            said += part
        connection.sendall(reply(struct.pack(">I", 1), b"b", serial=1))  # an old answer: skipped
        connection.sendall(reply(struct.pack(">I", 1), b"b", serial=2))

    with end(sockets, answer) as path, Bus(path) as bus:
        assert bus.has_owner("x.y")


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (b"REJECTED EXTERNAL\r\n", errno.EACCES),
        (b"", errno.ECONNRESET),
        (HELLO, errno.ECONNRESET),
        (HELLO + b"x" * 16, errno.EBADMSG),
        (HELLO + struct.pack("<BBBBIII", ord("l"), 2, 0, 1, 1 << 30, 1, 0), errno.EMSGSIZE),
        (HELLO + reply(b"\0" * 4, b"s").replace(b"\5\1u", b"\5\1v"), errno.EBADMSG),
    ],
)
def test_what_is_no_bus(sockets: Path, said: bytes, number: int) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            continue

    with end(sockets, answer) as path:
        with pytest.raises(OSError, match=r".") as caught:
            Bus(path)
        assert caught.value.errno == number
        assert "message bus" in caught.value.__notes__[0]


def test_no_bus_at_all(sockets: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Bus(str(sockets / "none"))
