"""A connection to etcd v3: gRPC over the stubs of the aetcd package, with TLS, a token and a second server.

aetcd's own client speaks no TLS and hides the revision of an answer, which a gapless watch needs.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import grpc
from aetcd import rpc

from flanneld.manager import ManagerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from flanneld.options import Options

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Metadata = tuple[tuple[str, str], ...]
_TIMEOUT = 5.0
_ASK = 10.0
"""Seconds between the questions whether a watch is still served."""
_SILENCE = 30.0
"""Seconds without an answer after which it counts as dead."""
_SIZE = 64 << 20  # a list of 5,000 leases is 1 MB
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _SIZE),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, and not one that is dead
)
_UNUSABLE = (grpc.aio.UsageError, asyncio.InvalidStateError, OSError)
"""A channel that another task has closed meanwhile, and a file that is being replaced."""
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")


@dataclass(frozen=True, slots=True)
class Access:
    """Where etcd is and how we show who we are; the files are PEM."""

    endpoints: tuple[str, ...]
    keyfile: str = ""
    certfile: str = ""
    cafile: str = ""
    username: str = ""
    password: str = ""

    @classmethod
    def of(cls, options: Options) -> Access:
        """Return what the flags say."""
        return cls(
            tuple(url.strip() for url in options.etcd_endpoints.split(",") if url.strip()),
            options.etcd_keyfile,
            options.etcd_certfile,
            options.etcd_cafile,
            options.etcd_username,
            options.etcd_password,
        )


class RefusedError(ManagerError):
    """etcd answered with a refusal; another server would, too."""


class Client:
    """A connection to one of the endpoints; after a failure, to the next one."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turn = 0
        self._channel: Any = None
        self._token = ""

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel, self._token = self._channel, None, ""
        if channel is not None:
            await channel.close()

    async def call(self, service: str, method: str, request: Any) -> Any:
        """Ask once and return the answer.

        Args:
            service: `KV` or `Lease`.
            method: its name in etcd's rpc.proto.
            request: its message.

        Raises:
            RefusedError: etcd says no.
            ManagerError: nobody answers; the next call goes to the next endpoint.
        """

        async def ask(channel: Any, metadata: _Metadata) -> Any:
            stub = getattr(rpc, f"{service}Stub")(channel)
            return await getattr(stub, method)(request, timeout=_TIMEOUT, metadata=metadata)

        return await self._answer(ask)

    async def renew(self, lease: int) -> int:
        """Renew an etcd lease; return its seconds to live, 0 when there is no such lease any more.

        Raises:
            RefusedError: etcd says no.
            ManagerError: nobody answers.
        """

        async def ask(channel: Any, metadata: _Metadata) -> int:
            stream = rpc.LeaseStub(channel).LeaseKeepAlive(timeout=_TIMEOUT, metadata=metadata)
            await stream.write(rpc.LeaseKeepAliveRequest(ID=lease))
            answer = await stream.read()
            stream.cancel()
            return 0 if answer is grpc.aio.EOF else int(answer.TTL)

        return await self._answer(ask)

    async def has_lease(self, lease: int) -> bool:
        """Tell whether an etcd lease lives: one that ran out or was revoked has taken its keys with it.

        Raises:
            RefusedError: etcd says no.
            ManagerError: nobody answers.
        """
        answer = await self.call("Lease", "LeaseTimeToLive", rpc.LeaseTimeToLiveRequest(ID=lease))
        return bool(answer.TTL > 0)

    async def watch(self, prefix: bytes, revision: int) -> AsyncIterator[Any]:
        """Yield what etcd says about the keys under a prefix: changes, and answers without any every 10 s.

        Args:
            prefix: what the keys begin with.
            revision: the first one to hear of.

        It ends after an answer with a `compact_revision`: the history that was asked for is no more.

        Raises:
            RefusedError: etcd says no, or ends the watch for another reason.
            ManagerError: the stream broke, or etcd was silent for 30 s.
        """
        create = rpc.WatchCreateRequest(key=prefix, range_end=end_of(prefix), start_revision=revision)
        asking: asyncio.Task[None] | None = None
        stream: Any = None
        try:
            async with asyncio.timeout(_TIMEOUT):  # gRPC itself would try to connect for 20 seconds
                channel, metadata = await self._connect()
                stream = rpc.WatchStub(channel).Watch(metadata=(*metadata, ("hasleader", "true")))
                await stream.write(rpc.WatchRequest(create_request=create))
            asking = asyncio.create_task(_ask(stream))
            while True:
                async with asyncio.timeout(_SILENCE):
                    answer = await stream.read()
                if answer is grpc.aio.EOF:
                    raise ManagerError("etcd ended the watch")
                if answer.canceled and not answer.compact_revision:
                    # etcd says "permission denied" to a token from before a change of users or roles, too.
                    self._token = ""
                    raise RefusedError(f"etcd ended the watch: {answer.cancel_reason or 'it says not why'}")
                yield answer
                if answer.canceled:
                    return
        except TimeoutError:
            await self._leave()
            raise ManagerError("etcd is silent") from None
        except rpc.AioRpcError as error:
            if _is_stale(error):
                self._token = ""
            raise await self._failed(error) from None
        except asyncio.CancelledError:
            raise _cancelled() from None
        except _UNUSABLE as error:
            raise ManagerError(f"the connection to etcd cannot be used: {error}") from None
        finally:
            if asking is not None:
                asking.cancel()
            if stream is not None:
                stream.cancel()

    async def _answer(self, ask: Callable[[Any, _Metadata], Awaitable[_T]]) -> _T:
        """Ask; once more, with a new token, if etcd does not know ours any more."""
        for last in (False, True):
            try:
                # gRPC's own timeout is none for a stream whose channel is closed while it is opened.
                async with asyncio.timeout(2 * _TIMEOUT + 1):
                    return await ask(*await self._connect())
            except TimeoutError:
                await self._leave()
                raise ManagerError("etcd is silent") from None
            except rpc.AioRpcError as error:
                if last or not _is_stale(error):
                    raise await self._failed(error) from None
                self._token = ""
            except asyncio.CancelledError:
                raise _cancelled() from None
            except _UNUSABLE as error:
                raise ManagerError(f"the connection to etcd cannot be used: {error}") from None
        raise AssertionError("unreachable")

    async def _connect(self) -> tuple[Any, _Metadata]:
        """Connect, show who we are; return the channel, and what goes with every request."""
        channel = self._channel
        if channel is None:
            channel = self._channel = self._open(
                self._access.endpoints[self._turn % len(self._access.endpoints)]
            )
        if self._access.username and not self._token:
            request = rpc.AuthenticateRequest(name=self._access.username, password=self._access.password)
            answer = await rpc.AuthStub(channel).Authenticate(request, timeout=_TIMEOUT)
            self._token = answer.token
        return channel, (("token", self._token),) if self._token else ()

    def _open(self, url: str) -> Any:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        target = f"unix:{parts.netloc}{parts.path}" if parts.scheme == "unix" else parts.netloc
        if parts.scheme != "https":
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            _content(self._access.cafile), _content(self._access.keyfile), _content(self._access.certfile)
        )
        return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)

    async def _failed(self, error: Any) -> ManagerError:
        """Return what to raise for a failed call; go on to the next endpoint if this one does not answer."""
        code, said = error.code(), error.details()
        if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return RefusedError(f"etcd refuses: {said}")
        endpoint = self._access.endpoints[self._turn % len(self._access.endpoints)]
        await self._leave()
        return ManagerError(f"etcd does not answer at {endpoint}: {said}")

    async def _leave(self) -> None:
        self._turn += 1
        await self.close()


def _cancelled() -> BaseException:
    """Return what to raise for a CancelledError: gRPC raises one in users of a closed channel, too."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return ManagerError("the connection to etcd was closed meanwhile")


async def _ask(stream: Any) -> None:
    """Ask again and again whether the watch is served: the answer is a message without events."""
    request = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
    while True:
        await asyncio.sleep(_ASK)
        try:
            await stream.write(request)
        except (rpc.AioRpcError, asyncio.InvalidStateError):
            return  # the reader hears of it, too


def end_of(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with a prefix."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _is_stale(error: Any) -> bool:
    return any(text in str(error.details()) for text in _STALE_TOKEN)


def _content(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()
