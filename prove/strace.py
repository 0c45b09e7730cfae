"""strace(1) as a tool: which system calls a program makes, and what happens when one of them goes wrong."""

from __future__ import annotations

import re
from typing import NamedTuple

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
_CHANGING = re.compile(
    r"^(send(to|msg)|p?write(64)?|rename|link|unlink|mkdir|rmdir|symlink|utimensat|ftruncate|v?fork|clone|"
    r"posix_spawn|execve|setns|close)"
)
_CREATING = re.compile(r"O_CREAT|O_TRUNC|O_TMPFILE")
PAUSE = 400_000
"""Microseconds by which `orphaning` delays every program's begin."""
COMMAND = ["strace", "-f", "-qq"]


class Call(NamedTuple):
    """One system call of a run.

    Attributes:
        name: as strace names it.
        number: the how-manieth of that name in its process, from 1.
        text: its arguments, and what came of it.
        changing: whether something outside the process may be other after it.
        own: whether the plugin itself made it, not a program that it started.
        serving: whether it comes after the plugin began to read its configuration.
    """

    name: str
    number: int
    text: str
    changing: bool
    own: bool
    serving: bool


def traced(output: str) -> list[str]:
    """Return what goes before a command whose calls shall be written to a file."""
    return [*COMMAND, "-y", "-o", output]


def killed(call: Call, output: str) -> list[str]:
    """Return what goes before a command that shall be killed as it enters a call, which then does nothing."""
    return injected(call, "signal=KILL", output)


def orphaning(call: Call, output: str) -> list[str]:
    """Return what goes before a command that shall be killed at a call while programs it started run on.

    They take their time: each pauses as it begins (ld.so(8) looks for /etc/ld.so.preload first of all).
    """
    command = killed(call, output)
    command[command.index(f"trace={call.name}")] = f"trace={call.name},access"
    return [*command, "-e", f"inject=access:delay_enter={PAUSE}"]


def was_killed(log: str) -> bool:
    """Tell from the output of `killed` whether that came to pass."""
    return "+++ killed by SIGKILL +++" in log


def failing(call: Call, fault: str, output: str) -> list[str]:
    """Return what goes before a command of which one call shall fail: its own, not that of what it starts.

    A program that it starts can only be kept from starting: by its execve(2).
    """
    command = injected(call, fault, output)
    if call.own:
        command.remove("-f")
    return [*command, "-y"]


def failed(log: str) -> str:
    """Return from the output of `failing` the call that was made to fail; empty: it was not made."""
    return next((line for line in log.splitlines() if "(INJECTED)" in line), "")


def injected(call: Call, what: str, output: str = "/dev/null") -> list[str]:
    """Return what goes before a command of which one call shall be tampered with (strace(1), inject)."""
    return [
        *COMMAND,
        "-o",
        output,
        "-e",
        f"trace={call.name}",
        "-e",
        f"inject={call.name}:{what}:when={call.number}",
    ]


def parse(text: str) -> list[Call]:
    """Return the calls of a trace in order, each name and number once, from the whole family of processes."""
    first = ""
    counted: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, int]] = set()
    serving: set[str] = set()
    calls = []
    for line in text.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        pid, name, rest = match.groups()
        first = first or pid
        number = counted[pid, name] = counted.get((pid, name), 0) + 1
        if name == "execve" and number == 1 and pid == first:
            continue  # it is strace's own, before the program
        if pid == first and name == "read" and rest.startswith(("0,", "0<")):
            serving.add(pid)
        if (name, number) in seen:
            continue
        seen.add((name, number))
        changing = bool(_CHANGING.match(name)) or (name == "openat" and bool(_CREATING.search(rest)))
        calls.append(Call(name, number, rest, changing, pid == first, first in serving))
    return calls
