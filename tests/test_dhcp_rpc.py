"""The daemon's socket, with the plugin's client, with JSON, and with what is neither."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.address import Prefix
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.result import IPConfig, Result
from ipam.dhcp import rpc
from ipam.dhcp.daemon.lease import LeaseError
from ipam.dhcp.daemon.server import Server, listen
from tests.calls import call as run
from tests.calls import variables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ARGS = {"ContainerID": "c1", "IfName": "eth0", "Netns": "/n", "Args": "", "Path": "/p", "StdinData": b"{}"}


class Service:
    """Answers without leases."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def allocate(self, args: dict[str, Any]) -> Result:
        self.calls.append(("allocate", args))
        if args["ContainerID"] == "none":
            raise LeaseError("no server\nlook for one")
        if args["ContainerID"] == "wrong":
            raise InvalidConfigError("wrong option", "take another")
        given = "0.0.0.0/24" if args["ContainerID"] == "odd" else "10.1.2.3/24"
        result = Result()
        result.ips = [IPConfig(Prefix.parse(given), bytes((10, 1, 2, 1)))]
        return result

    async def release(self, args: dict[str, Any]) -> None:
        self.calls.append(("release", args))

    async def gc(self, args: dict[str, Any]) -> list[tuple[str, str]]:
        self.calls.append(("gc", args))
        return [("c1", "eth0"), ("c2", "eth1")]


@asynccontextmanager
async def serving(sockets: Path) -> AsyncIterator[tuple[str, Service]]:
    path = str(sockets / "s.sock")
    service = Service()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        server = await listen(Server(service), listener)  # type: ignore[arg-type]
        yield path, service
        server.close()


async def call(path: str, method: str, **args: Any) -> dict[str, Any]:
    return await asyncio.to_thread(rpc.call, path, method, ARGS | args, 5.0)


async def said(path: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_calls(sockets: Path) -> None:
    async def main() -> None:
        async with serving(sockets) as (path, service):
            await asyncio.to_thread(rpc.knock, path, 5.0)
            result = rpc.from_wire(await call(path, rpc.ALLOCATE, StdinData=b"x" * 100_000))
            assert str(result.ips[0].address) == "10.1.2.3/24"
            assert await call(path, rpc.RELEASE) == {}
            assert rpc.released_from_wire(await call(path, rpc.GC)) == [("c1", "eth0"), ("c2", "eth1")]
            assert [name for name, _args in service.calls] == ["allocate", "release", "gc"]
            assert service.calls[0][1]["StdinData"] == b"x" * 100_000
            assert service.calls[1][1] == {key: value for key, value in ARGS.items() if value}

    asyncio.run(main())


def test_no_address_is_none(sockets: Path, suite_bin: str) -> None:
    """A daemon of another make may give 0.0.0.0, which a plugin would set."""

    async def main() -> None:
        async with serving(sockets) as (path, service):
            raw = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": path}}
            env = variables("ADD", suite_bin, containerid="odd")
            answer = await asyncio.to_thread(run, f"{suite_bin}/dhcp", env, raw)
            assert (answer.code, answer.json["msg"]) == (102, "dhcp: the daemon gave 0.0.0.0")
            assert [name for name, _args in service.calls] == ["allocate"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "container", "text"),
    [
        (rpc.ALLOCATE, "none", "no server\nlook for one"),
        (rpc.ALLOCATE, "wrong", "wrong option\ntake another"),
        ("DHCP.Nothing", "c1", "rpc: can't find method DHCP.Nothing"),
    ],
)
def test_refusals(sockets: Path, method: str, container: str, text: str) -> None:
    async def main() -> None:
        async with serving(sockets) as (path, _service):
            with pytest.raises(rpc.RemoteError) as caught:
                await call(path, method, ContainerID=container)
            assert str(caught.value) == text

    asyncio.run(main())


def test_json(sockets: Path) -> None:
    async def main() -> None:
        async with serving(sockets) as (path, service):
            args = ARGS | {"StdinData": base64.b64encode(b'{"a": 1}').decode()}
            calls = [
                {"method": rpc.ALLOCATE, "params": [args], "id": 1},
                {"method": rpc.RELEASE, "params": [args], "id": 2},
                {"method": rpc.ALLOCATE, "params": [args | {"ContainerID": "none"}], "id": 3},
                {"method": rpc.GC, "params": [args], "id": 4},
            ]
            answer = await said(path, b"".join(json.dumps(each).encode() + b"\n" for each in calls))
            one, two, three, four = map(json.loads, answer.splitlines())
            assert (one["id"], one["error"], two) == (1, None, {"id": 2, "result": {}, "error": None})
            assert one["result"]["ips"] == [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}]
            assert (three["result"], three["error"]) == (None, "no server\nlook for one")
            assert four["result"]["Attachments"][1] == {"ContainerID": "c2", "IfName": "eth1"}
            assert service.calls[0][1]["StdinData"] == b'{"a": 1}'

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"", b""),
        (b"\n", b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0 405"),
        (b"CONNECT /other HTTP/1.0\n\n", b"HTTP/1.0 405"),
        (rpc.HELLO + b"\x03\x04\x00\x05\x00" * 9, rpc.WELCOME),
        (rpc.HELLO + b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff", rpc.WELCOME),
        (rpc.HELLO + b"\x04\x0c\x00\x01a" * 2, rpc.WELCOME),
        (b"{\n", b""),
        (b'{"method": 1}\n', b""),
        (b'{"method": "DHCP.Release", "params": [], "id": 1}\n', b""),
        (b'{"method": "DHCP.Release", "params": [{"StdinData": "?"}], "id": 1}\n', b""),
    ],
)
def test_what_is_no_call_ends_its_own_connection_only(sockets: Path, data: bytes, start: bytes) -> None:
    async def main() -> None:
        async with serving(sockets) as (path, service):
            assert (await said(path, data)).startswith(start)
            assert service.calls == []
            assert await call(path, rpc.RELEASE) == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b"HTTP/1.0 200 OK\n\n",
        b"a" * 9000,
        rpc.WELCOME + b"\x01\x0c",
        b"\n\n",
    ],
)
def test_a_server_that_is_none(sockets: Path, answer: bytes) -> None:
    async def main() -> None:
        path = str(sockets / "s.sock")
        over = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.write_eof()
            while await reader.read(100):
                pass
            writer.close()
            over.set()

        server = await asyncio.start_unix_server(serve, path)
        with pytest.raises(ValueError, match=r"net/rpc|gob"):
            await call(path, rpc.RELEASE)
        await over.wait()
        server.close()

    asyncio.run(main())


def test_a_server_that_says_nothing_and_one_that_ends(sockets: Path) -> None:
    path = str(sockets / "s.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(OSError, match="timed out"):
            rpc.call(path, rpc.RELEASE, ARGS, 0.05)
    with pytest.raises(ConnectionRefusedError):
        rpc.call(path, rpc.RELEASE, ARGS, 0.05)
