"""A server that answers HTTP requests as a test says: what stands where the apiserver should be."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

JSON = "Content-Type: application/json"


def answer(body: str | bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole answer."""
    body = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def serving(reply: Callable[[str], bytes], context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answer each request, of which `reply` gets the head, and close; yield the port.

    In the end no connection is left: the next test would be told of it.
    """
    served: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served[task] = writer
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.write(reply(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever connected does not trust us, or has left
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for _turn in range(10):  # a connection that was accepted just now has no task yet
                await asyncio.sleep(0)
            for writer in served.values():
                writer.transport.abort()
            await asyncio.gather(*served)
