"""The connection to etcd, against a server that has forgotten our token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from aetcd import rpc

from flanneld.etcd.client import Access, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def test_a_renewal_asks_for_a_new_token(tmp_path: Path) -> None:
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
        server.add_insecure_port(f"unix:{tmp_path}/etcd")
        await server.start()
        client = Client(Access((f"unix://{tmp_path}/etcd",), username="flanneld", password="hidden"))
        try:
            assert await client.renew(1) == 77
            assert given == ["token-0", "token-1"]
        finally:
            await client.close()
            await server.stop(None)

    asyncio.run(scenario())
