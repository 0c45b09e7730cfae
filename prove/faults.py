"""The disk says no, and the kernel says no: one system call of a plugin fails, as strace(1) has it fail.

The plugin answers with an error object that names what failed, and takes back what it did; or with a result
that is right. Whichever it says, the runtime can believe it: what a failed ADD had done is gone before the
DEL that follows, and after a DEL that succeeded nothing is done again.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from prove import trial
from prove.runtime import Failed, previous
from prove.stage import Stage
from prove.tally import FAILED, Problem

if TYPE_CHECKING:
    from prove.networks import Network
    from prove.runtime import Outcome
    from prove.strace import Call
    from prove.tally import Tally

_TRUNCATED = 20
"""Bytes of a reply: a header, and four more."""
_STATE = r"(/var/lib/cni|/run/(cni|flannel|xtables)|/etc/cni|/proc/(sys|net)|/sys)\b[^\">]*"
_PATH = re.compile(rf'["<]({_STATE})[">]')
_TO_WRITE = re.compile(rf'"{_STATE}", O_(WRONLY|RDWR)')
_SOCKET = re.compile(r"^\d+<(socket:|NETLINK)")
_NAMESPACE = re.compile(r'"/(run/netns|proc/(self|thread-self)/ns)/')
_ANY = re.compile("")
_CHANGING = r"write|pwrite64|mkdir|unlink|rmdir|rename|link|linkat|symlink|utimensat|ftruncate|fsync|fchmod"
_FULL = ("ENOSPC", "EIO", "EROFS", "EACCES")
_REFUSED = ("ENOBUFS", "EBUSY", "EEXIST", "EPERM", "EINTR")


def _errors(*names: str) -> tuple[str, ...]:
    return tuple(f"error={name}" for name in names)


KINDS = {
    "disk": (
        ("openat", _TO_WRITE, _errors(*_FULL)),
        (_CHANGING, _PATH, _errors(*_FULL)),
        ("openat|newfstatat|readlink|access|faccessat2", _PATH, _errors("EIO", "EACCES")),
        ("read|getdents64", _PATH, _errors("EIO")),
        ("flock|fcntl", _PATH, _errors("EIO", "ENOLCK", "EINTR")),
    ),
    "netlink": (
        ("sendto|sendmsg", _SOCKET, _errors(*_REFUSED)),
        ("recvfrom|recvmsg", _SOCKET, (*_errors(*_REFUSED), f"retval={_TRUNCATED}", "retval=0")),
    ),
    "process": (
        ("socket|socketpair", _ANY, _errors("EMFILE", "ENOMEM")),
        ("setsockopt", _ANY, _errors("ENOMEM")),
        ("setns", _ANY, _errors("EPERM")),
        ("openat", _NAMESPACE, _errors("EMFILE", "EACCES")),
        ("memfd_create", _ANY, _errors("EMFILE", "ENOMEM")),
        ("fork|vfork|clone|clone3", _ANY, _errors("EAGAIN", "ENOMEM")),
        ("execve", _ANY, _errors("ENOENT", "EACCES", "ENOMEM")),
        ("wait4", _ANY, _errors("EINTR")),
    ),
}
"""Names and arguments of the calls that fail, and how (strace(1), inject); the first that fits counts."""


class Case(NamedTuple):
    """One failing call: which plugin of the list, on which verb, at which call, and what is injected."""

    kind: str
    verb: str
    position: int
    call: Call
    fault: str

    def __str__(self) -> str:
        where = f"{self.call.name} {self.call.number}"
        return f"{self.verb} of plugin {self.position}, {self.fault} from {where}"


def plan(suite: str, network: Network, kind: str, *, keeper: bool = True) -> list[Case]:
    """Return every case of a list.

    Args:
        suite: the plugins' folder.
        network: the list.
        kind: one of KINDS.
        keeper: whether another container is attached; without it, those of a first ADD.
    """
    with Stage(suite, network, keeper=keeper) as stage:
        return all_cases(stage, kind)


def run(suite: str, network: Network, chosen: list[Case], *, keeper: bool = True) -> Tally:
    """Try some cases; without a keeper, each on a node that never had an attachment."""
    with Stage(suite, network, keeper=keeper) as stage:
        return tried(stage, chosen)


def tried(stage: Stage, chosen: list[Case]) -> Tally:
    """The same on a stage that is there."""

    def one(case: Case) -> tuple[list[Problem] | None, str]:
        problems, met = attempt(stage, case)
        return problems, f"{case}: {met}"

    return trial.tried(stage, chosen, one)


def all_cases(stage: Stage, *kinds: str) -> list[Case]:
    """Return every case of some kinds for a stage that is there."""
    return [
        case
        for verb, position, calls in trial.every_call(stage)
        for case in _cases(kinds, verb, position, calls)
    ]


def _cases(kinds: tuple[str, ...], verb: str, position: int, calls: list[Call]) -> list[Case]:
    found = []
    for call in calls:
        # What a program of the system makes of an error is its own affair, except that it does not start.
        if call.serving and (call.own or call.name == "execve"):
            for kind in kinds:
                found += [Case(kind, verb, position, call, fault) for fault in _faults(kind, call)]
    return found


def _faults(kind: str, call: Call) -> tuple[str, ...]:
    for names, text, faults in KINDS[kind]:
        if re.fullmatch(names, call.name) and text.search(call.text):
            return faults
    return ()


def attempt(stage: Stage, case: Case) -> tuple[list[Problem] | None, str]:
    """Try one case; return what was wrong, or None when the call was not made this time, and that call."""
    met = ""
    try:
        before = stage.ready(case.verb, case.position)
        outcome, met = stage.inject(case.call, case.fault, case.verb, case.position, **previous(before))
        problems = judge(case, outcome, met)
        follow_up = _after_add if case.verb == "ADD" else _after_del
        problems += follow_up(stage, case, outcome, before)
        problems = problems or stage.cycle()
    except Failed as error:
        return [Problem(FAILED, str(error))], met
    return (problems if met or problems else None), met


def _after_add(stage: Stage, case: Case, outcome: Outcome, before: Any) -> list[Problem]:
    if outcome.status:
        # A failed ADD has taken its own part back: only the plugins before it have something to remove.
        _detach_others(stage, before, case.position)
        found = [each._replace(text=f"by the failed ADD, {each.text}") for each in stage.rests()]
        stage.detach(before)
        return found + stage.rests()
    result = outcome.answer
    check = stage.call("CHECK", case.position, **previous(result))
    stage.detach(result, start=case.position)
    said = check.stdout.decode(errors="replace")
    found = [Problem(FAILED, f"it succeeded, and CHECK says: {said}")] if check.status else []
    return found + stage.rests()


def _after_del(stage: Stage, case: Case, outcome: Outcome, before: Any) -> list[Problem]:
    if outcome.status:
        stage.detach(before)
        return stage.rests()
    # Nobody calls it again after a success.
    _detach_others(stage, before, case.position)
    return [each for each in stage.rests() if not _INDEX.search(each.text)]


def _detach_others(stage: Stage, result: Any, position: int) -> None:
    if position:
        stage.detach(result, start=position - 1)


def judge(case: Case, outcome: Outcome, met: str) -> list[Problem]:
    """Return what is wrong with a plugin's answer alone.

    Args:
        case: what was tried.
        outcome: what the plugin answered.
        met: the call that failed, with its arguments.
    """
    said = outcome.stdout.decode(errors="replace")
    wrong = [f"a traceback: {outcome.stderr}"] if "Traceback" in outcome.stderr else []
    try:
        answer = outcome.answer
    except ValueError:
        answer = None
        wrong.append(f"no JSON: {said!r}")
    if outcome.status == 0:
        if (case.verb == "ADD") != isinstance(answer, dict):
            wrong.append(f"status 0, and {said!r}")
    elif outcome.status != 1 or not isinstance(answer, dict) or not _is_error(answer):
        wrong.append(f"status {outcome.status}, and no error object: {said!r} {outcome.stderr}")
    else:
        wrong += _unclear(case, answer, met)
    return [Problem(FAILED, each) for each in wrong]


def _is_error(answer: dict[str, Any]) -> bool:
    return isinstance(answer.get("code"), int) and bool(answer.get("msg")) and "cniVersion" in answer


def _unclear(case: Case, answer: dict[str, Any], met: str) -> list[str]:
    """Return what an error object does not say."""
    text = f"{answer['msg']} {answer.get('details', '')}"
    found = []
    if answer["code"] == _INTERNAL:
        found.append(f"a fault inside the plugin: {text}")
    why = _meaning(case.fault)
    if why and why not in text:
        found.append(f"the message does not say {why!r}: {text}")
    names = _names(met) if case.kind == "disk" else []
    if names and not any(name in text for name in names):
        found.append(f"the message names none of {names}: {text}")
    if not re.match(_DOING, answer["msg"]):
        found.append(f"the message does not say what was being done: {text}")
    return found


_INDEX = re.compile(r"file /var/lib/cni/networks/\.index/")
"""host-local's index: one that could not be written is not believed, and set right by the next call."""
_INTERNAL = 999
_DOING = r"(?!the kernel's answer|cannot ask)\w+ .+: |.* already exists|.* is not installed"
_SAID_OTHERWISE = ("EEXIST", "ENOENT", "EINTR")
"""Errors that plugins know, and say in words of their own."""


def _meaning(fault: str) -> str:
    name = fault.removeprefix("error=")
    return os.strerror(getattr(errno, name)) if name != fault and name not in _SAID_OTHERWISE else ""


def _names(met: str) -> list[str]:
    """Return what may stand for a call's path in a message: the path, or its directory."""
    paths = [match.group(1) for match in _PATH.finditer(met)]
    if not paths:
        return []
    path = paths[-1].removeprefix("/proc/sys/")
    folder, _slash, name = path.rpartition("/")
    return [path, f"{folder}/{name.removeprefix('.').removesuffix('.tmp')}", folder]
