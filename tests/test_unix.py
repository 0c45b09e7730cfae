"""Connections to daemons that are behind with accepting them."""

from __future__ import annotations

import _socket
import errno
import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.kernel.dbus import Bus
from cni_plugins.kernel.unix import UnixStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def busy(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], None]]]:
    """A listener without room for one more; and what makes room once somebody connects."""
    path = str(sockets / "socket")
    connects = threading.Event()

    class Telling(_socket.socket):
        """A socket that says that it is about to connect."""

        def connect(self, address: Any) -> None:
            connects.set()
            super().connect(address)

    monkeypatch.setattr(_socket, "socket", Telling)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        listener.settimeout(60)
        code, waiting = 0, -1
        while code != errno.EAGAIN:
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            code = one.connect_ex(path)
            waiting += 1

        def accept() -> None:
            assert connects.wait(60)
            for _each in range(waiting + 1):
                listener.accept()[0].close()

        thread = threading.Thread(target=accept)
        yield path, thread.start
        if thread.ident is not None:
            thread.join()


def test_who_is_behind_is_waited_for(busy: tuple[str, Callable[[], None]]) -> None:
    path, make_room = busy
    make_room()
    with UnixStream(path, 10):
        pass


def test_the_message_bus_too(busy: tuple[str, Callable[[], None]]) -> None:
    path, make_room = busy
    make_room()
    with pytest.raises(OSError, match=r"ended the connection|Broken pipe|reset") as caught:
        Bus(path)
    assert caught.value.errno != errno.EAGAIN


def test_not_for_ever(busy: tuple[str, Callable[[], None]]) -> None:
    path, _make_room = busy
    with pytest.raises(BlockingIOError):
        UnixStream(path, 0.3)
