"""A connection to the apiserver, by lightkube; nodes are read only as far as a lease needs them."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.core.exceptions import ApiError, ConfigError, NotReadyError
from lightkube.core.generic_client import GenericAsyncClient, WatchDriver
from lightkube.core.resource import ApiInfo, GlobalResource, ResourceDef
from lightkube.resources.core_v1 import NodeStatus, Pod
from lightkube.types import PatchType

from flanneld.manager import ManagerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flanneld.options import Options

log = logging.getLogger(__name__)

_PAGE = 250
_SERVED = 300
"""Seconds after which the apiserver is to end a watch, so that apiservers share the load anew."""
_UNAUTHORIZED = 401
_GONE = 410
_UNUSABLE = (
    ConfigError,
    OSError,
    yaml.YAMLError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What lightkube raises for files that are missing, half written, or of another form."""
_TIMEOUT = httpx2.Timeout(10, read=None)
"""Of a watch, in which silence is no error; whoever reads it decides how much is too much."""


class GoneError(ManagerError):
    """The apiserver has forgotten the changes since the version that was asked for."""


class _StrangerError(ManagerError):
    """The apiserver does not know us: a token that has run out, most often."""


class _Status(msgspec.Struct):
    """What is read of a refusal."""

    message: str = ""


class Metadata(msgspec.Struct):
    """What is read of an object's metadata."""

    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815
    annotations: dict[str, str] | None = None


class Spec(msgspec.Struct):
    """What is read of a node's specification."""

    podCIDR: str = ""  # noqa: N815
    podCIDRs: list[str] | None = None  # noqa: N815


class Node(GlobalResource, msgspec.Struct):
    """A node; a whole one is 10 kB of images and conditions, times a thousand."""

    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)
    _api_info = ApiInfo(ResourceDef("", "v1", "Node"), "nodes", ["get", "list", "watch"])

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return self.metadata.annotations or {}

    @property
    def pod_cidrs(self) -> list[str]:
        """Its pods' subnets."""
        return self.spec.podCIDRs or ([self.spec.podCIDR] if self.spec.podCIDR else [])


class _Api(GenericAsyncClient):
    """lightkube's client, but for refusals, of which it takes each for a whole Status of Kubernetes."""

    @staticmethod
    def raise_for_status(response: httpx2.Response) -> None:
        """Raise what an answer other than 2xx means: a proxy's or a load balancer's is of any form."""
        if response.is_success:
            return
        try:
            said = msgspec.json.decode(response.content, type=_Status).message
        except ValueError:
            said = ""
        kind = {_GONE: GoneError, _UNAUTHORIZED: _StrangerError}.get(response.status_code, ManagerError)
        raise kind(f"the apiserver refuses: {said or f'{response.status_code} {response.reason_phrase}'}")


class Client:
    """The apiserver, as the flags and the pod's service account describe it.

    After a failure, the next request is another connection's, for which all files are read again: addresses,
    tokens, certificates and authorities may be replaced while we run. A token's file is read as soon as the
    apiserver knows the token no more; a kubelet replaces it every hour.

    Raises:
        ManagerError: they do not describe one.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = _connect(options)
        self._left: _Api | None = None
        self._failed = False

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._client, self._left):
            if client is not None:
                await client.close()  # type: ignore[no-untyped-call]

    async def leave(self) -> None:
        """Use none of the present connections any more, unless others cannot be made.

        They are closed the next time: somebody may be reading.
        """
        try:
            client = _connect(self._options)
        except ManagerError as error:
            log.warning("no other connection can be made", extra={"why": error})
            return
        before, self._left, self._client, self._failed = self._left, self._client, client, False
        if before is not None:
            await before.close()  # type: ignore[no-untyped-call]

    async def node(self, name: str) -> Node:
        """Return a node.

        Raises:
            ManagerError: there is none, or it cannot be had.
        """
        async with self._asking() as client:
            node: Node = await client.request("get", res=Node, name=name)
        return node

    async def node_of_pod(self, namespace: str, name: str) -> str:
        """Return the name of the node that a pod runs on.

        Raises:
            ManagerError: it cannot be had.
        """
        async with self._asking() as client:
            pod: Pod = await client.request("get", res=Pod, name=name, namespace=namespace)
        node = pod.spec.nodeName if pod.spec else None
        if not node:
            raise ManagerError(f"pod {namespace}/{name} is on no node")
        return node

    async def nodes(self) -> tuple[list[Node], str]:
        """Return all nodes, asked for in pages, and the version to watch from.

        Raises:
            ManagerError: they cannot be had.
        """
        async with self._asking() as client:
            request = client.prepare_request("list", res=Node, params={"limit": str(_PAGE)})
            listed = client.list(request)
            nodes = [node async for node in listed]
            return nodes, listed.resourceVersion

    async def changes(self, version: str) -> AsyncIterator[tuple[str, Node]]:
        """Yield changes of nodes after a version: `ADDED`, `MODIFIED`, `DELETED`, and `BOOKMARK`s between.

        It ends when the apiserver ends it. lightkube's own watch would ask again at once, without end.

        Raises:
            GoneError: the version is too old: list again.
            ManagerError: the connection broke.
        """
        asked = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(_SERVED)}
        async with self._asking() as client:
            request = client.prepare_request("list", res=Node, watch=True, params=asked)
            request.timeout = _TIMEOUT
            driver = WatchDriver(request, None)
            sent = client.build_adapter_request(request)
            response = await client.send(sent, stream=True)  # type: ignore[no-untyped-call]
            try:
                if not response.is_success:
                    await response.aread()
                client.raise_for_status(response)
                async for line in response.aiter_lines():
                    yield driver.process_one_line(line)  # type: ignore[no-untyped-call]
            finally:
                await response.aclose()

    async def patch_status(self, name: str, patch: dict[str, Any]) -> str:
        """Patch a node through its `status` subresource, the one that flannel's role may write.

        Returns:
            The uid of the node: one that is deleted and registers anew has another.

        Raises:
            ManagerError: it was refused, or could not be sent.
        """
        headers = {"Content-Type": PatchType.STRATEGIC.value}
        async with self._asking() as client:
            node = await client.request("patch", res=NodeStatus, name=name, obj=patch, headers=headers)
        return str(node.metadata.uid)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[_Api]:
        """Give the client for a request; turn whatever goes wrong with it into a ManagerError."""
        if self._failed:
            await self.leave()
        try:
            yield self._client
        except ApiError as error:
            kind = GoneError if error.status.code == _GONE else ManagerError
            raise kind(f"the apiserver refuses: {error.status.message}") from None
        except _StrangerError:
            self._failed = True
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ConfigError) as error:
            self._failed = True
            raise ManagerError(f"the apiserver does not answer: {error!r}") from None
        except (ValueError, NotReadyError, RuntimeError) as error:
            self._failed = True  # RuntimeError: the client was closed meanwhile
            raise ManagerError(f"the apiserver's answer cannot be read: {error!r}") from None


def _connect(options: Options) -> _Api:
    try:
        return _Api(ConnectionParams(), _config(options))
    except _UNUSABLE as error:
        raise ManagerError(f"the apiserver's address and our identity are not known: {error!r}") from None


def _config(options: Options) -> Any:
    if not options.kubeconfig_file and not options.kube_api_url:
        return KubeConfig.from_service_account().get()
    if not options.kubeconfig_file:
        return KubeConfig.from_one(cluster=Cluster(server=options.kube_api_url), user=User()).get()
    config = KubeConfig.from_file(options.kubeconfig_file).get()
    if config is not None and options.kube_api_url:
        config.cluster.server = options.kube_api_url
    return config


async def node_name(client: Client) -> str:
    """Return the name of the node we are on: NODE_NAME, or the node of POD_NAME in POD_NAMESPACE.

    Raises:
        ManagerError: neither is set, or the pod cannot be had.
    """
    if name := os.environ.get("NODE_NAME"):
        return name
    pod, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    if not pod or not namespace:
        raise ManagerError("set NODE_NAME, or POD_NAME and POD_NAMESPACE, so that we know our node")
    return await client.node_of_pod(namespace, pod)
