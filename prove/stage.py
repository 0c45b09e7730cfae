"""A node on which one network list is put to the proof, again and again, by the process inside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from cni_plugins import orphans
from integration.node import PATH, Node
from prove import snapshot
from prove.runtime import KEEPER, VICTIM, Failed, Runtime
from prove.tally import DOUBLE, FAILED, FAILED_ADD, LEAK, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from prove.networks import Network
    from prove.snapshot import Snapshot

_PATIENCE = 30.0
"""Seconds that the kernel has for what it does in its own time."""


class Stage(Runtime):
    """A node of its own, entered by this process; a context manager.

    Args:
        suite: the plugins' folder.
        network: the list.
        keeper: whether another container is attached all the time. Without it, nothing ever was.

    Attributes:
        suite, network, keeper: as given.
        pristine: the node before any attachment.
        baseline: the node, and the victim's namespace, when the victim has come and gone.
    """

    def __init__(self, suite: str, network: Network, *, keeper: bool) -> None:
        super().__init__(suite, network, keeper=keeper)
        self.addresses: set[str] = set()
        self.node = Node(suite)
        self._held: Any = None
        self._inside = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        network = self.network
        for name in (KEEPER, VICTIM):
            self.node.netns(name)
            self.node.run(["ip", "link", "set", "lo", "up"], netns=name)
        network.prepare(self.node)
        self._inside.enter_context(self.node.entered())
        self.wait_for_addresses()
        self.pristine = self.look()
        if self.keeper:
            self.addresses = _addresses(self.attach(KEEPER))
        result = self.attach()
        self.detach(result)
        if self.keeper and os.path.isdir(orphans.FOLDER):
            # It comes with the first GC at the latest, and stays.
            os.close(os.open(orphans.PATH, os.O_CREAT | os.O_RDWR, 0o600))
        self.wait_for_addresses()
        self.baseline = self.look()

    def __exit__(self, *exc: object) -> None:
        self._inside.close()
        self.node.close()

    def attach(self, container: str = VICTIM, *, netns: bool | str = True, upto: int | None = None) -> Any:
        """Run ADD as a runtime does; before the victim's, detach what `cycle` has attached."""
        if container == VICTIM:
            self.free()
        return super().attach(container, netns=netns, upto=upto)

    def drop_interface(self) -> None:
        """Take the container's interface away, as the end of its namespace does."""
        subprocess.run(
            ["ip", "-n", VICTIM, "link", "delete", "eth0"],
            env={"PATH": PATH},
            check=False,
            capture_output=True,
        )

    def lose_netns(self) -> None:
        """Let the victim's namespace end; the kernel takes its links with it."""
        self.node.remove_netns(VICTIM)

    def make_netns(self) -> None:
        """Make another one in its place."""
        self.node.netns(VICTIM)
        self._run("ip", "-n", VICTIM, "link", "set", "lo", "up")

    def look(self) -> Snapshot:
        """Take a snapshot of the node and of the victim's links."""
        try:
            return self._look()
        except snapshot.ChangingError:
            time.sleep(0.1)
            return self._look()

    def _look(self) -> Snapshot:
        inside = {f"in the container: {key}": value for key, value in snapshot.take(VICTIM).items()}
        return {**snapshot.take(), **inside}

    def rests(self) -> list[Problem]:
        """Return what is other than it was before the victim came, when that does not change any more."""
        if self.keeper:
            return _leaks(self._settled(lambda: snapshot.changes(self.baseline, self.look())))
        return _leaks(self._settled(lambda: snapshot.private(self.pristine, self.baseline, self.look())))

    def incomplete(self) -> list[Problem]:
        """Return what is other than after a first attachment that nothing disturbed."""
        wanted = snapshot.without_chance(self.baseline, "cni0")
        return _leaks(
            self._settled(lambda: snapshot.changes(wanted, snapshot.without_chance(self.look(), "cni0")))
        )

    def ready(self, verb: str, position: int) -> Any:
        """Attach the victim as far as a call of a plugin of the list needs it; return the result so far.

        Raises:
            Failed: a plugin failed.
        """
        if verb == "ADD":
            return self.attach(upto=position)
        result, self._held = self._held or self.attach(), None
        self.detach(result, downto=position + 1)
        return result

    def free(self) -> None:
        """Detach what `cycle` has attached.

        Raises:
            Failed: a plugin failed.
        """
        result, self._held = self._held, None
        if result is not None:
            self.detach(result)

    def cycle(self) -> list[Problem]:
        """Attach the victim again; return what was wrong with that.

        It stays attached, for the next case to begin with; without a keeper it is detached, and what is left
        of it is wrong, too.
        """
        try:
            result = self.attach()
        except Failed as error:
            return [Problem(FAILED_ADD, f"the next ADD: {error}")]
        shared = _addresses(result) & self.addresses
        found = [Problem(DOUBLE, f"address {each} is the keeper's") for each in shared]
        if self.keeper:
            self._held = result
            return found
        try:
            self.detach(result)
        except Failed as error:
            return [*found, Problem(FAILED, f"the next DEL: {error}")]
        return found + self.incomplete()

    def reset(self) -> None:
        """Bring the node back to what it was before any attachment, by iproute2, nft and plain files."""
        now = self.look()
        self.drop_interface()
        for key in sorted(now.keys() - self.pristine.keys(), reverse=True):
            kind, _, what = key.partition(" ")
            if kind == "link":
                self._run("ip", "link", "delete", what)
            elif kind == "folder":
                shutil.rmtree(what, ignore_errors=True)
            elif kind == "file" and os.path.lexists(what):
                os.unlink(what)
        self._run("nft", "flush", "ruleset")
        for name in _again(self.pristine, self.look()):
            with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
                file.write(self.pristine[f"sysctl {name}"])

    def wait_for_addresses(self) -> None:
        """Wait until the kernel has looked for duplicates of its link-local addresses: two seconds."""
        command = ["ip", "-6", "-oneline", "address", "show", "tentative"]
        while subprocess.run(command, env={"PATH": PATH}, check=True, capture_output=True).stdout:
            time.sleep(0.05)
        time.sleep(0.1)  # the routes to them come after

    def _run(self, *command: str) -> None:
        subprocess.run(command, env={"PATH": PATH}, check=False, capture_output=True)

    def _settled(self, look: Callable[[], list[str]]) -> list[str]:
        end = time.monotonic() + _PATIENCE
        while (found := look()) and time.monotonic() < end:
            time.sleep(0.05)
        return found


def _again(pristine: Snapshot, now: Snapshot) -> list[str]:
    """Return the parameters to be written again: ip_forward first, since it sets others."""
    names = [
        key.removeprefix("sysctl ")
        for key, value in pristine.items()
        if key.startswith("sysctl ") and key in now and now[key] != value
    ]
    return sorted(names, key=lambda name: ("ip_forward" not in name and "all/" not in name, name))


def _leaks(lines: list[str]) -> list[Problem]:
    return [Problem(LEAK, line) for line in lines]


def _addresses(result: Any) -> set[str]:
    return {ip["address"] for ip in (result or {}).get("ips", [])}
