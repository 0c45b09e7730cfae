"""The watch of nodes, at an apiserver that ends every watch at once or has forgotten every version."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from flanneld.kube import manager
from flanneld.kube.client import Client
from flanneld.kube.manager import KubeManager
from flanneld.options import Options
from integration.watched import watching

if TYPE_CHECKING:
    import pytest

LIST = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []}
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": 410}
HEAD = ("HTTP/1.1 200 OK", "Content-Type: application/json", "Connection: close", "Content-Length: {}")
ANSWER = "\r\n".join((*HEAD, "", "{}"))


async def asked(said: str, seconds: float = 1.5) -> list[str]:
    """Watch an apiserver that answers each watch with this and ends it; return what it was asked for."""
    found = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]
        found.append("watch" if b"watch=true" in request else "list")
        body = said if found[-1] == "watch" else json.dumps(LIST)
        writer.write(ANSWER.format(len(body), body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = Options(kube_api_url=f"http://127.0.0.1:{port}")
    made = KubeManager(Client(options), options)
    async with server, watching(made):
        await asyncio.sleep(seconds)
    await made.close()
    return found


def test_a_watch_that_ends_at_once_is_asked_for_again_in_time() -> None:
    found = asyncio.run(asked(""))
    assert found[0] == "list"
    assert 2 <= found.count("watch") <= 6
    assert found.count("list") == 1


def test_a_version_that_is_forgotten_again_and_again_is_no_storm_of_lists() -> None:
    found = asyncio.run(asked(json.dumps({"type": "ERROR", "object": GONE}) + "\n"))
    assert 2 <= found.count("list") <= 6


def test_all_nodes_are_listed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "_RESYNC", 0.0)
    assert asyncio.run(asked("")).count("list") >= 2
