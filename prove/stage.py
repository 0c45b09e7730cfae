"""A node on which one network list is put to the proof, again and again, by the process inside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni_plugins import orphans
from integration.node import PATH, Node
from prove import snapshot, strace
from prove.networks import OTHER_PORTS, PORTS
from prove.tally import DOUBLE, FAILED, FAILED_ADD, LEAK, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prove.networks import Network
    from prove.snapshot import Snapshot
    from prove.strace import Call

KEEPER = "keeper"
"""The container that stays attached, and must not notice anything."""
VICTIM = "victim"
_TRACE = "/run/.trace"
_PATIENCE = 3.0
"""Seconds that the kernel has for what it does in its own time."""


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


class Stage:
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
        self.suite = suite
        self.network = network
        self.addresses: set[str] = set()
        self.node = Node(suite)
        self._held: Any = None
        self._inside = ExitStack()
        self.keeper = keeper

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
            [*(before or []), *argv], input=stdin, env=env, capture_output=True, check=False, timeout=60
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
        if container == VICTIM:
            self.free()
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


def _addresses(result: Any) -> set[str]:
    return {ip["address"] for ip in (result or {}).get("ips", [])}
