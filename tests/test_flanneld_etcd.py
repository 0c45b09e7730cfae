"""The connection to etcd, against a server that has forgotten our token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aetcd import rpc

from flanneld.etcd.client import Access, Client
from flanneld.manager import ManagerError
from tests.certificates import certify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def test_a_renewal_asks_for_a_new_token(sockets: Path) -> None:
    given: list[str] = []

    async def authenticate(request: Any, context: Any) -> Any:
        given.append(f"token-{len(given)}")
        return rpc.AuthenticateResponse(token=given[-1])

    async def keep_alive(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        if ("token", "token-1") not in [tuple(pair) for pair in context.invocation_metadata()]:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        async for request in requests:
            yield rpc.LeaseKeepAliveResponse(ID=request.ID, TTL=77)

    async def scenario() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "etcdserverpb.Auth",
                    {
                        "Authenticate": grpc.unary_unary_rpc_method_handler(
                            authenticate,
                            rpc.AuthenticateRequest.FromString,
                            rpc.AuthenticateResponse.SerializeToString,
                        )
                    },
                ),
                grpc.method_handlers_generic_handler(
                    "etcdserverpb.Lease",
                    {
                        "LeaseKeepAlive": grpc.stream_stream_rpc_method_handler(
                            keep_alive,
                            rpc.LeaseKeepAliveRequest.FromString,
                            rpc.LeaseKeepAliveResponse.SerializeToString,
                        )
                    },
                ),
            )
        )
        server.add_insecure_port(f"unix:{sockets}/etcd")
        await server.start()
        client = Client(Access((f"unix://{sockets}/etcd",), username="flanneld", password="hidden"))
        try:
            assert await client.renew(1) == 77
            assert given == ["token-0", "token-1"]
        finally:
            await client.close()
            await server.stop(None)

    asyncio.run(scenario())


def test_certificates_that_are_replaced_are_read_again(tmp_path: Path) -> None:
    """etcd comes back with another one, of another authority, and demands another one of ours."""

    async def keep_alive(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield rpc.LeaseKeepAliveResponse(ID=request.ID, TTL=77)

    async def serve(name: str, port: int) -> tuple[Any, int]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            keep_alive, rpc.LeaseKeepAliveRequest.FromString, rpc.LeaseKeepAliveResponse.SerializeToString
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("etcdserverpb.Lease", {"LeaseKeepAlive": handler}),)
        )
        key, certificate = (tmp_path / f"{name}.key").read_bytes(), (tmp_path / f"{name}.crt").read_bytes()
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=certificate, require_client_auth=True
        )
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        return server, bound

    def install(name: str) -> None:
        for ours, theirs in (("ca.crt", "crt"), ("our.crt", "crt"), ("our.key", "key")):
            (tmp_path / ours).write_bytes((tmp_path / f"{name}.{theirs}").read_bytes())

    async def scenario() -> None:
        for name in ("old", "new"):
            certify(tmp_path, name)
        install("old")
        server, port = await serve("old", 0)
        files = (f"{tmp_path}/our.key", f"{tmp_path}/our.crt", f"{tmp_path}/ca.crt")
        client = Client(Access((f"https://127.0.0.1:{port}",), *files))
        try:
            assert await client.renew(1) == 77
            await server.stop(None)
            server, _port = await serve("new", port)
            with pytest.raises(ManagerError):
                await client.renew(1)
            (tmp_path / "ca.crt").write_text("half of it")
            with pytest.raises(ManagerError):
                await client.renew(1)
            install("new")
            assert await client.renew(1) == 77
        finally:
            await client.close()
            await server.stop(None)

    asyncio.run(scenario())
