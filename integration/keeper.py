"""A backend and the reconciler at work on a machine without a daemon and etcd, whose starts take long."""

from __future__ import annotations

import asyncio
import json
import threading
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Self

from flanneld import iface
from flanneld.backend.table import make
from flanneld.lease import Lease, LeaseAttrs
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from flanneld.options import Options
from flanneld.reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from integration.node import Node


class Keeper:
    """The node's part of a cluster; a context manager that leaves the kernel's state.

    Args:
        node: the machine.
        config: net-conf.json.
        number: its subnets are 10.244.NUMBER.0/24 and fd00:244:0:NUMBER::/64.
        published: what it published when it ran before; its MAC addresses stay.

    Attributes:
        lease: what it publishes.
        metrics: what it counts.
    """

    def __init__(
        self, node: Node, config: Mapping[str, Any], number: int, published: LeaseAttrs | None = None
    ) -> None:
        self.node = node
        self.metrics = Metrics()
        self._published = published
        self._config = NetworkConfig.parse(json.dumps(config))
        families = self._config.families
        self._subnets = (
            IPv4Network(f"10.244.{number}.0/24") if 4 in families else None,
            IPv6Network(f"fd00:244:0:{number}::/64") if 6 in families else None,
        )
        self.lease = Lease(*self._subnets, LeaseAttrs(None, None, ""))
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeper-{number}", daemon=True)
        self._thread.start()
        self._started.wait(60)
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def know(self, *others: Keeper) -> None:
        """Let these be the other nodes."""
        leases = [other.lease for other in others]
        asyncio.run_coroutine_threadsafe(self._apply(leases), self._loop).result(60)

    def _run(self) -> None:
        try:
            with self.node.entered():
                asyncio.set_event_loop(self._loop)
                self._loop.run_until_complete(self._main())
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001  # the thread that made us raises it
            self._failure = error
        finally:
            self._loop.close()
            self._started.set()

    async def _main(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        choice = iface.choose(Options(), self._config.families)
        self._uplink = iface.look(choice, self._config.families)
        self._backend = make(self._config)
        self._reconciler = Reconciler(self.metrics)
        try:
            attrs = await self._backend.start(self._uplink, self._published)
            self.lease = Lease(*self._subnets, attrs)
            await self._apply([])
            self._started.set()
            await self._reconciler.run()
        finally:
            await self._backend.close()

    async def _apply(self, leases: Sequence[Lease]) -> None:
        await self._reconciler.want(self._backend.desired(self._uplink, self.lease, leases))
        await self._backend.settle(self._uplink, self.lease, leases)
