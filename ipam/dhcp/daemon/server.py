"""The daemon's socket: net/rpc with gob, as the reference's; and net/rpc/jsonrpc, for scripts.

echo '{"method": "DHCP.Release", "params": [{"ContainerID": …}], "id": 1}' | socat - /run/cni/dhcp.sock
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from typing import TYPE_CHECKING, Any

from cni_plugins.spec.errors import CNIError
from cni_plugins.spec.result import VERSIONS, Result
from ipam.dhcp import rpc
from ipam.dhcp.daemon.lease import LeaseError
from ipam.dhcp.gob import MAX_MESSAGE, Decoder, encode

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Awaitable, Callable

    from ipam.dhcp.daemon.service import Service
    from ipam.dhcp.gob import Struct

    Answer = Result | list[tuple[str, str]] | None

_log = logging.getLogger(__name__)
_MAX_CONNECTIONS = 1000
_HEAD_SECONDS = 10.0
_IDLE_SECONDS = 300.0
_CHUNK = 1 << 16


class Server:
    """Serves plugins that connect.

    Args:
        service: what is asked for.
    """

    def __init__(self, service: Service) -> None:
        self._methods: dict[str, Callable[[dict[str, Any]], Awaitable[Answer]]] = {
            rpc.ALLOCATE: service.allocate,
            rpc.RELEASE: service.release,
            rpc.GC: service.gc,
        }
        self._room = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection to its end."""
        async with self._room:
            try:
                await self._talk(reader, writer)
            except (OSError, EOFError, ValueError) as error:
                _log.info("a connection ended: %s", str(error) or type(error).__name__)
            finally:
                writer.close()

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SECONDS):
            line = await reader.readline()
            if line.lstrip().startswith(b"{"):
                head = b""
            else:
                head = line
                while line.strip():
                    line = await reader.readline()
        if not head:
            await self._talk_json(line, reader, writer)
        elif head.split()[:2] == rpc.HELLO.split()[:2]:
            writer.write(rpc.WELCOME)
            await self._talk_gob(reader, writer)
        elif head.strip():
            writer.write(b"HTTP/1.0 405 must CONNECT\r\n\r\n")

    async def _talk_gob(self, reader: StreamReader, writer: StreamWriter) -> None:
        decoder = Decoder()
        known: set[int] = set()
        waiting: list[Any] = []
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                data = await reader.read(_CHUNK)
            if not data:
                return
            decoder.feed(data)
            while (value := decoder.next()) is not None:
                waiting.append(value)
                if len(waiting) < 2:
                    continue
                (request, args), waiting = waiting, []
                if not isinstance(request, dict) or not isinstance(args, dict):
                    raise ValueError("not a call")  # noqa: TRY004 (of what came in)
                method = str(request.get("ServiceMethod", ""))
                answer, error = await self._call(method, args)
                head = {"ServiceMethod": method, "Seq": request.get("Seq", 0), "Error": error}
                writer.write(encode(rpc.RESPONSE, head, known) + encode(*_to_wire(answer), known))
                await writer.drain()

    async def _talk_json(self, line: bytes, reader: StreamReader, writer: StreamWriter) -> None:
        while line.strip():
            number, method, args = _json_call(line)
            answer, error = await self._call(method, args)
            # A result is as a plugin prints it, not as Go's own structures have it.
            body = answer.to_json(VERSIONS[-1]) if isinstance(answer, Result) else _to_wire(answer)[1]
            said = {"id": number, "result": None if error else body, "error": error or None}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
            async with asyncio.timeout(_IDLE_SECONDS):
                line = await reader.readline()

    async def _call(self, method: str, args: dict[str, Any]) -> tuple[Answer, str]:
        """Call a method; return its answer, and the error as text."""
        function = self._methods.get(method)
        if function is None:
            return None, f"rpc: can't find method {method}"
        try:
            return await function(args), ""
        except CNIError as error:
            return None, "\n".join(filter(None, (error.msg, error.details)))
        except (LeaseError, OSError) as error:
            return None, str(error) or type(error).__name__


def _to_wire(answer: Answer) -> tuple[Struct, dict[str, Any]]:
    """Return an answer's type and its fields."""
    if answer is None:
        return rpc.NOTHING, {}
    if isinstance(answer, Result):
        return rpc.RESULT, rpc.to_wire(answer)
    return rpc.RELEASED, rpc.released_to_wire(answer)


def _json_call(line: bytes) -> tuple[Any, str, dict[str, Any]]:
    """Return a call's number, its method and CmdArgs with StdinData as bytes, which Go writes in base64."""
    request = json.loads(line)
    try:
        number, method, (args,) = request.get("id"), str(request["method"]), request["params"]
        return number, method, {**args, "StdinData": base64.b64decode(args["StdinData"], validate=True)}
    except (binascii.Error, AttributeError, KeyError, TypeError):
        raise ValueError("not a call of net/rpc/jsonrpc") from None


async def listen(server: Server, sock: Any) -> asyncio.Server:
    """Begin to serve a listening socket."""
    return await asyncio.start_unix_server(server.serve, sock=sock, limit=MAX_MESSAGE)
