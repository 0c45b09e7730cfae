"""What is left, and what is said, when a system call fails that hardly ever does."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cni_plugins import process
from cni_plugins.attach.undo import Undo
from cni_plugins.kernel import link, netns
from cni_plugins.kernel.netlink import LostAnswer, Netlink
from cni_plugins.kernel.nfnetlink import Netfilter
from cni_plugins.spec import skel
from tests.kernel_end import KernelEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = "/proc/self/ns/net"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let the process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def said(error: OSError) -> str:
    return skel.as_cni_error(error).msg


def test_an_answer_that_ends_anywhere_is_lost() -> None:
    with KernelEnd() as kernel:
        whole = kernel.error(errno.EEXIST)
    for length in range(1, len(whole)):
        with KernelEnd() as kernel:
            kernel.say(whole[:length])
            with pytest.raises(LostAnswer) as caught:
                link.delete(kernel.netlink, "eth0")
        assert (
            said(caught.value) == "failed to delete link 'eth0': the kernel's answer is lost: it is cut off"
        )


def test_an_answer_that_cannot_be_read_is_no_refusal() -> None:
    with KernelEnd() as kernel:
        kernel.netlink._socket.settimeout(0.01)
        with pytest.raises(LostAnswer, match=r"lost: timed out$") as caught:
            kernel.netlink.request(16, 0, b"")
        assert caught.value.errno == errno.EBADMSG
        # It comes late, and is not taken for the next one's.
        kernel.say(kernel.error(errno.EEXIST, sequence=42))
        kernel.acknowledge()
        assert kernel.netlink.request(16, 0, b"") == []


def test_a_request_that_cannot_be_sent_is_no_refusal() -> None:
    kernel = KernelEnd()
    kernel.__exit__()
    with pytest.raises(OSError, match=r"cannot ask the kernel: Bad file descriptor$") as caught:
        kernel.netlink.request(16, 0, b"")
    assert (caught.value.errno, isinstance(caught.value, LostAnswer)) == (errno.EBADMSG, False)


def test_what_is_listed_is_named() -> None:
    with KernelEnd() as kernel:
        kernel.say(kernel.error(errno.EPERM))
        with pytest.raises(PermissionError) as caught:
            link.links(kernel.netlink)
        assert said(caught.value) == "failed to list the links: Operation not permitted"


def test_no_descriptor_for_a_socket() -> None:
    before = descriptors()
    with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
        Netlink()
    assert said(caught.value) == "cannot open a socket to the kernel: Too many open files"
    assert descriptors() == before


def test_no_descriptor_to_close_one() -> None:
    before = descriptors()
    made = Netfilter()
    with no_descriptors():
        made.close()
    assert descriptors() == before


@pytest.mark.parametrize("capture", [True, False])
def test_no_descriptor_for_a_program(capture: bool) -> None:
    before = descriptors()
    with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
        process.run(["/bin/true"], {}, capture_stderr=capture)
    assert said(caught.value) == "cannot run /bin/true: Too many open files"
    assert descriptors() == before


def failing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let so many calls of setns(2) fail after the first; return the list of all."""
    calls: list[int] = []

    def setns(fd: int, _kind: int) -> None:
        calls.append(fd)
        if 1 < len(calls) <= 1 + times:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(netns, "_setns", setns)
    return calls


def test_the_way_home_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    calls = failing(1, monkeypatch)
    with netns.Namespace(OURS) as namespace, namespace.entered():
        pass
    assert len(calls) == 3
    assert calls[1] == calls[2]
    assert descriptors() == before


def test_no_way_home(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(2, monkeypatch)
    with (
        netns.Namespace(OURS) as namespace,
        pytest.raises(OSError, match="memory") as caught,
        namespace.entered(),
    ):
        pass
    assert said(caught.value) == f"failed to leave netns '{OURS}': Cannot allocate memory"


def test_no_descriptor_to_enter_with() -> None:
    with netns.Namespace(OURS) as namespace:
        before = descriptors()
        with no_descriptors(), pytest.raises(OSError, match="Too many") as caught, namespace.entered():
            pass
        assert descriptors() == before
    assert said(caught.value).startswith(f"failed to enter netns '{OURS}': Too many open files")


def succeed() -> None:
    return


def lose() -> None:
    raise LostAnswer("no memory")


def refuse() -> None:
    raise OSError(errno.EPERM, "no")


@pytest.mark.parametrize(("make", "undone"), [(succeed, ["it"]), (lose, ["it"]), (refuse, [])])
def test_what_may_have_been_made_is_undone(make: Callable[[], None], undone: list[str]) -> None:
    done: list[str] = []
    with pytest.raises((OSError, KeyError)), Undo() as undo:  # noqa: PT012
        with undo.made(done.append, "it"):
            make()
        raise KeyError
    assert done == undone


def test_a_file_is_named_when_nothing_else_is_said() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        os.stat("/no/such")
    assert said(caught.value) == "failed to use a file: No such file or directory (/no/such)"
