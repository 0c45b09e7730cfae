"""The command: options, signals, exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from cni_plugins import VERSION
from flanneld import install, log
from flanneld.backend import BackendError
from flanneld.daemon import Daemon
from flanneld.health import Health
from flanneld.manager import ManagerError
from flanneld.metrics import Metrics
from flanneld.netconf import NetconfError
from flanneld.options import OptionError, Options, UsageError, parse, usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flanneld.manager import SubnetManager

logger = logging.getLogger(__name__)

_HELP = frozenset(("-h", "--h", "-help", "--help"))
_EXPECTED = (BackendError, ManagerError, NetconfError)


def main(arguments: Sequence[str]) -> int:
    """Run the daemon, or an init container's command.

    Returns:
        0 after SIGTERM or SIGINT; 1 when the daemon could not go on, or was asked for what cannot be; 2 for a
        command line that cannot be read.
    """
    if arguments and arguments[0] in install.COMMANDS:
        return install.main(arguments)
    if _HELP.intersection(arguments):
        sys.stderr.write(usage() + "\n")
        return 0
    try:
        options = parse(arguments, os.environ)
        options.annotation_prefix()
    except UsageError as error:
        sys.stderr.write(f"{error}\n{usage()}\n")
        return 2
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.version:
        sys.stderr.write(f"{VERSION}\n")
        return 0
    log.start(options.v)
    logger.info("flanneld starts", extra={"version": VERSION})
    return asyncio.run(_run(options))


async def _run(options: Options) -> int:
    metrics = Metrics()
    health = None
    try:
        if options.healthz_port:
            health = Health(metrics, options.healthz_ip, options.healthz_port)
        manager = _manager(options)
    except (OSError, ManagerError) as error:
        logger.critical("flanneld cannot start", extra={"why": error})
        return 1
    running = asyncio.create_task(_daemon(options, manager, metrics, health))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logger.info("flanneld ends; the paths stay as they are")
        return 0
    except Exception as error:  # whatever it is, it is told before the end
        for leaf in _leaves(error):
            trace = None if isinstance(leaf, _EXPECTED) else leaf
            logger.critical("flanneld cannot go on", extra={"why": leaf}, exc_info=trace)
    finally:
        if health is not None:
            health.close()
    return 1


async def _daemon(options: Options, manager: SubnetManager, metrics: Metrics, health: Health | None) -> None:
    # What only one of the two managers needs costs memory: they are imported where they are used.
    from flanneld.backend.table import make  # noqa: PLC0415
    from flanneld.reconcile import Reconciler  # noqa: PLC0415
    from flanneld.traffic import Traffic  # noqa: PLC0415

    daemon = Daemon(
        options,
        manager,
        metrics,
        make,
        Reconciler(metrics),
        lambda config: Traffic(config, options, metrics),
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            if health is not None:
                tasks.create_task(health.beat())
            tasks.create_task(daemon.run())
    finally:
        await manager.close()


def _manager(options: Options) -> SubnetManager:
    """Return the subnet manager; the packages of the other one are not imported, for the memory's sake."""
    if options.kube_subnet_mgr:
        from flanneld.kube.client import Client as KubeClient  # noqa: PLC0415
        from flanneld.kube.manager import KubeManager  # noqa: PLC0415

        return KubeManager(KubeClient(options), options)
    from flanneld.etcd.client import Access, Client  # noqa: PLC0415
    from flanneld.etcd.manager import EtcdManager  # noqa: PLC0415

    margin = options.subnet_lease_renew_margin * 60
    return EtcdManager(Client(Access.of(options)), options.etcd_prefix, margin)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
