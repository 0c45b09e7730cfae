"""What a runtime does: it calls the plugins of one network list, plainly or under strace(1)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.node import PATH
from integration.waiting import PATIENCE
from prove import strace
from prove.networks import OTHER_PORTS, PORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prove.networks import Network
    from prove.strace import Call

KEEPER = "keeper"
"""The container that stays attached, and must not notice anything."""
VICTIM = "victim"
_TRACE = "/run/.trace"


class Outcome(NamedTuple):
    """What a plugin did: its exit status (negative: a signal), what it printed, and what it said."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def answer(self) -> Any:
        """The JSON that it printed; None for nothing. Raises ValueError for anything else."""
        return json.loads(self.stdout) if self.stdout else None


class Failed(Exception):  # noqa: N818 (it is what a plugin has, not what went wrong here)
    """A plugin failed where it must not."""


class Runtime:
    """Calls the plugins of a list, in the namespaces that this process is in.

    Args:
        suite: the plugins' folder.
        network: the list.
        keeper: whether another container is attached all the time.
    """

    def __init__(self, suite: str, network: Network, *, keeper: bool) -> None:
        self.suite = suite
        self.network = network
        self.keeper = keeper

    def call(
        self,
        verb: str,
        position: int,
        *,
        container: str = VICTIM,
        before: list[str] | None = None,
        netns: bool | str = True,
        ports: bool = True,
        **keys: Any,
    ) -> Outcome:
        """Call a plugin of the list.

        Args:
            verb: CNI_COMMAND.
            position: the plugin's.
            container: whose attachment.
            before: the beginning of the command line: strace and its options.
            netns: whether the container's namespace is told; or the name of another that is.
            ports: whether the capability is.
            keys: of the configuration: prevResult, for example.
        """
        command = self.command(verb, position, container=container, netns=netns, ports=ports, **keys)
        return self.start(*command, before=before)

    def start(
        self, argv: list[str], stdin: bytes, env: dict[str, str], *, before: list[str] | None = None
    ) -> Outcome:
        """Run a command line to its end, after the beginning of another."""
        done = subprocess.run(
            [*(before or []), *argv], input=stdin, env=env, capture_output=True, check=False, timeout=PATIENCE
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def command(
        self,
        verb: str,
        position: int,
        *,
        container: str = VICTIM,
        netns: bool | str = True,
        ports: bool = True,
        **keys: Any,
    ) -> tuple[list[str], bytes, dict[str, str]]:
        """Return the command line, the standard input and the environment of a call."""
        chosen = (OTHER_PORTS if container == KEEPER else PORTS) if ports else None
        config = {**self.network.config(position, chosen), **keys}
        env = {
            "PATH": PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/run/netns/{netns if isinstance(netns, str) else container}" if netns else "",
            "CNI_PATH": self.suite,
        }
        return [f"{self.suite}/{config['type']}"], json.dumps(config).encode(), env

    def attach(self, container: str = VICTIM, *, netns: bool | str = True, upto: int | None = None) -> Any:
        """Run ADD through the list, or its first plugins; return the last result, None of none.

        Raises:
            Failed: a plugin failed.
        """
        result: Any = None
        for position in range(len(self.network.plugins))[:upto]:
            result = self._demand("ADD", position, container=container, netns=netns, **previous(result))
        return result

    def detach(
        self,
        result: Any = None,
        *,
        container: str = VICTIM,
        netns: bool | str = True,
        ports: bool = True,
        downto: int = 0,
        start: int = -1,
    ) -> None:
        """Run DEL backwards through the list.

        Args:
            result: the prevResult; None: none is known.
            container: whose attachment.
            netns: whether its namespace is told; or the name of another that is.
            ports: whether the capability is.
            downto: the last plugin that is called.
            start: the first; -1: the list's last.

        Raises:
            Failed: a plugin failed.
        """
        first = len(self.network.plugins) - 1 if start == -1 else start
        for position in range(first, downto - 1, -1):
            how = {"container": container, "netns": netns, "ports": ports}
            self._demand("DEL", position, **how, **previous(result))

    def collect(self) -> None:
        """Run GC through the list; the keeper's attachment is the only valid one.

        Raises:
            Failed: a plugin failed.
        """
        valid = [{"containerID": KEEPER, "ifname": "eth0"}] if self.keeper else []
        for position in range(len(self.network.plugins)):
            self._demand("GC", position, ports=False, **{"cni.dev/valid-attachments": valid})

    def calls(self, verb: str, position: int, **keys: Any) -> list[Call]:
        """Return the system calls that a plugin of the list makes, by letting it run.

        Raises:
            Failed: it failed.
        """
        return self.traced(*self.command(verb, position, **keys))

    def traced(self, argv: list[str], stdin: bytes, env: dict[str, str]) -> list[Call]:
        """Return the system calls of a command line, by letting it run.

        Raises:
            Failed: it failed.
        """
        outcome = self.start(argv, stdin, env, before=strace.traced(_TRACE))
        text = _taken(_TRACE)
        if outcome.status:
            raise Failed(f"{argv} under strace: {outcome}")
        return strace.parse(text)

    def inject(self, call: Call, fault: str, verb: str, position: int, **keys: Any) -> tuple[Outcome, str]:
        """Let a call of a plugin fail; return what came of it, and the call as it was made, if it was."""
        outcome = self.call(verb, position, before=strace.failing(call, fault, _TRACE), **keys)
        return outcome, strace.failed(_taken(_TRACE))

    def kill(self, call: Call, verb: str, position: int, **keys: Any) -> bool:
        """Let a plugin, or a program it started, be killed as it enters a call; tell whether it was."""
        self.call(verb, position, before=strace.killed(call, _TRACE), **keys)
        return strace.was_killed(_taken(_TRACE))

    @contextmanager
    def orphan(self, call: Call, argv: list[str], stdin: bytes, env: dict[str, str]) -> Iterator[bool]:
        """Kill a command while a program that it started runs on; the block begins when it is dead.

        Yields:
            Whether it was killed. The block's end waits for the program.
        """
        with subprocess.Popen(
            [*strace.orphaning(call, _TRACE), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
        ) as running:
            assert running.stdin is not None
            running.stdin.write(stdin)
            running.stdin.close()
            while not (fired := _is_in(_TRACE, strace.was_killed)) and running.poll() is None:
                time.sleep(0.002)
            yield fired
        os.unlink(_TRACE)

    def _demand(self, verb: str, position: int, **how: Any) -> Any:
        outcome = self.call(verb, position, **how)
        if outcome.status:
            kind = self.network.plugins[position]["type"]
            said = outcome.stdout.decode(errors="replace")
            raise Failed(f"{kind} {verb}: status {outcome.status}: {said} {outcome.stderr}")
        return outcome.answer


def previous(result: Any) -> dict[str, Any]:
    """Return the keys that tell a plugin the result before it; none if there is none."""
    return {} if result is None else {"prevResult": result}


def _is_in(path: str, wanted: Callable[[str], bool]) -> bool:
    """Tell whether a file that is being written has something already."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return wanted(file.read())
    except FileNotFoundError:
        return False


def _taken(path: str) -> str:
    """Return a file's content, and remove it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    os.unlink(path)
    return text
