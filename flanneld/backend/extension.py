"""extension: commands of the administrator's build the paths.

They are the cluster's own configuration, so whoever may write that runs them as root on every node. Each is
given to `/bin/sh -c` with nothing in its environment but PATH and what it is about.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from flanneld.backend import BackendError
from flanneld.backend.common import read_options
from flanneld.lease import NO_DATA, LeaseAttrs, encode_data
from flanneld.netconf import FoldedModel
from flanneld.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Key, Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

_SHELL = "/bin/sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 60.0
_LAST_TIMEOUT = 10.0
"""Seconds for the last command: whoever stops us waits."""
_NAMES = {4: ("NETWORK", "SUBNET", "PUBLIC_IP"), 6: ("IPV6_NETWORK", "IPV6SUBNET", "PUBLIC_IPV6")}


class ExtensionOptions(FoldedModel):
    """Options of `Backend` with Type extension: commands, each in the syntax of sh(1)."""

    pre_startup_command: str = Field("", description="Before the lease; what it prints is published.")
    post_startup_command: str = Field("", description="When the node has its lease.")
    subnet_add_command: str = Field("", description="For each other node; reads what that one published.")
    subnet_remove_command: str = Field("", description="For each other node that leaves; likewise.")
    shutdown_command: str = Field("", description="When the daemon is stopped.")


class CommandError(Exception):
    """A command failed, or did not end; the message has what it printed."""


class Extension:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "extension"

    def __init__(self, config: NetworkConfig) -> None:
        self._options = read_options(ExtensionOptions, config)
        self._networks = {family: config.cluster(family) for family in config.families}
        self._data: str | None = None
        self._own: Lease | None = None
        self._known: dict[Key, Lease] = {}

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Run the first command, once, and publish what it prints."""
        del published
        if self._data is None:
            command = self._options.pre_startup_command
            try:
                self._data = encode_data(await run(command, {})) if command else NO_DATA
            except CommandError as error:
                raise BackendError(f"PreStartupCommand: {error}") from None
        data = [self._data if family in self._networks else NO_DATA for family in (4, 6)]
        return LeaseAttrs(uplink.public_ip, uplink.public_ipv6, self.type, *data)

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's."""
        return uplink.mtu

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Want nothing of the kernel: the commands do all."""
        del uplink, own, others
        return State()

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Run the commands for our lease when it is new, and for leases that are gone, new and changed.

        One that fails for another node's lease is logged; the next change of that lease runs it again.

        Raises:
            BackendError: that for our own failed.
        """
        del uplink
        if own != self._own:
            await self._run_own("PostStartupCommand", self._options.post_startup_command, own)
            self._own = own
        wanted = {lease.key: lease for lease in others if lease.attrs.backend_type == self.type}
        gone = [lease for key, lease in self._known.items() if key not in wanted]
        new = [lease for key, lease in wanted.items() if self._known.get(key) != lease]
        self._known = wanted
        for lease in gone:
            await self._run_for("SubnetRemoveCommand", self._options.subnet_remove_command, lease)
        for lease in new:
            await self._run_for("SubnetAddCommand", self._options.subnet_add_command, lease)

    async def close(self) -> None:
        """Run the last command, if there was a lease."""
        if self._own is not None:
            command = self._options.shutdown_command
            try:
                await self._run_own("ShutdownCommand", command, self._own, _LAST_TIMEOUT)
            except BackendError as error:
                log.warning("the last command failed", extra={"why": error})

    async def _run_own(self, name: str, command: str, own: Lease, limit: float = _TIMEOUT) -> None:
        if not command:
            return
        try:
            said = await run(command, self._about(own, network=True), limit=limit)
        except CommandError as error:
            raise BackendError(f"{name}: {error}") from None
        log.info("ran a command", extra={"command": name, "said": said})

    async def _run_for(self, name: str, command: str, lease: Lease) -> None:
        if not command:
            return
        try:
            data = lease.attrs.data(min(self._networks)) or ""
            if not isinstance(data, str):
                raise ValueError("what it published is no string")  # noqa: TRY004, TRY301
            said = await run(command, self._about(lease), data)
        except (CommandError, ValueError) as error:
            log.error("a command failed", extra={"command": name, "subnet": lease, "why": error})  # noqa: TRY400
        else:
            log.info("ran a command", extra={"command": name, "subnet": lease, "said": said})

    def _about(self, lease: Lease, *, network: bool = False) -> dict[str, str]:
        found: dict[str, str] = {}
        for family, cluster in self._networks.items():
            values = (cluster if network else None, lease.network(family), lease.attrs.public(family))
            found |= {name: str(value) for name, value in zip(_NAMES[family], values, strict=True) if value}
        return found


async def run(command: str, about: dict[str, str], data: str = "", *, limit: float = _TIMEOUT) -> str:
    """Run a command; return what it printed, on either output, without blanks around it.

    Args:
        command: for the shell.
        about: its environment, besides PATH.
        data: what it reads, without the newline behind it.
        limit: seconds after which it is killed, with all that it started.

    Raises:
        CommandError: it failed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(_SHELL, "-c", command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": _PATH, **about},
            start_new_session=True,
        )
    except FileNotFoundError:
        raise CommandError(f"there is no {_SHELL} here, as in an image without a shell") from None
    except OSError as error:
        raise CommandError(f"{_SHELL} cannot be started: {error}") from None
    try:
        async with asyncio.timeout(limit):
            output, _errors = await process.communicate(f"{data}\n".encode())
    except TimeoutError:
        raise CommandError(f"not done after {limit:.0f} s: {command}") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    said = output.decode(errors="replace").strip()
    if process.returncode:
        raise CommandError(f"exit status {process.returncode} of {command}: {said}")
    return said
