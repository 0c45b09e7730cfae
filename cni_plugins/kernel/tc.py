"""Traffic control: token buckets, and the redirection of what comes in (rtnetlink(7), linux/pkt_sched.h).

What a link sends passes its root qdisc, so a token bucket there limits it. What a link receives can only be
redirected to another link, an ifb, which then sends it: see tc-mirred(8).
"""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE
from cni_plugins.kernel.nlattr import (
    attr,
    attr_str,
    attr_u32,
    attribute_map,
    attributes,
    nested,
    text,
    uint,
    unpack,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from cni_plugins.kernel.netlink import Netlink

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTFILTER = 44
RTM_GETTFILTER = 46

ROOT = 0xFFFFFFFF
INGRESS = 0xFFFFFFF1
_ROOT_HANDLE = 0x00010000
_INGRESS_HANDLE = 0xFFFF0000
_CLASS = 0x00010001
_PRIORITY = 1
_ETH_P_ALL = 3

_TCA_KIND = 1
_TCA_OPTIONS = 2
_TCA_TBF_PARMS = 1
_TCA_TBF_RATE64 = 4
_TCA_U32_CLASSID = 1
_TCA_U32_SEL = 5
_TCA_U32_ACT = 7
_TC_U32_TERMINAL = 1
_TCA_ACT_KIND = 1
_TCA_ACT_OPTIONS = 2
_TCA_MIRRED_PARMS = 2
_TCA_EGRESS_REDIR = 1
_TC_ACT_STOLEN = 4

_TCMSG = Struct("=BxxxiIII")
_RATESPEC = Struct("=BBHhHI")  # struct tc_ratespec
_TBF = Struct("=12s12sIII")  # struct tc_tbf_qopt
_SELECTOR = Struct("=BBBxHHhhI")  # struct tc_u32_sel without its keys
_KEY = Struct("=IIii")  # struct tc_u32_key
_MIRRED = Struct("=IIiiiiI")  # struct tc_mirred
_MAX_U32 = 0xFFFFFFFF
_LATENCY_US = 25_000
_NS_PER_TICK = 64
"""What PSCHED_TICKS2NS(1) is in every kernel since 2.6.31; /proc/net/psched has it as the second number."""


class Tbf:
    """A token bucket filter (tc-tbf(8)).

    Attributes:
        rate: bytes a second.
        limit: bytes that may wait.
        buffer: how long the full bucket lasts at the rate, in ticks of 64 ns.
    """

    __slots__ = ("buffer", "limit", "rate")

    def __init__(self, rate: int, limit: int, buffer: int) -> None:
        self.rate = rate
        self.limit = limit
        self.buffer = buffer

    @classmethod
    def shaping(cls, rate: int, burst: int) -> Tbf:
        """Return the bucket for a rate and a burst in bits, as the reference plugins reckon it.

        What arrives at the rate waits for 25 ms at most, besides a burst. A number that is too large for
        the kernel becomes the largest it takes.
        """
        a_second, burst_bytes = rate // 8, burst // 8
        # In floating point, through whole microseconds: the reference's CHECK demands the very number.
        microseconds = min(int(burst_bytes * 1_000_000.0 / a_second), _MAX_U32)
        waiting = int(a_second * float(_LATENCY_US) / 1_000_000.0)
        limit = min(waiting + burst_bytes, _MAX_U32)
        return cls(a_second, limit, min(microseconds * 1000 // _NS_PER_TICK, _MAX_U32))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tbf) and (
            (self.rate, self.limit, self.buffer) == (other.rate, other.limit, other.buffer)
        )

    def __hash__(self) -> int:
        return hash((self.rate, self.limit, self.buffer))

    def __str__(self) -> str:
        return f"rate {self.rate * 8} bit/s, limit {self.limit} bytes, buffer {self.buffer} ticks"


def add_tbf(nl: Netlink, index: int, tbf: Tbf) -> None:
    """Make a token bucket a link's root qdisc.

    Raises:
        OSError: EEXIST: the link has one that is not the kernel's default.
    """
    options = attr(_TCA_TBF_PARMS, _tbf_parameters(tbf))
    if tbf.rate > _MAX_U32:
        options += attr(_TCA_TBF_RATE64, tbf.rate.to_bytes(8, _ORDER))
    _add_qdisc(nl, index, (_ROOT_HANDLE, ROOT), "tbf", options)


def _tbf_parameters(tbf: Tbf) -> bytes:
    rate = _RATESPEC.pack(0, 0, 0, 0, 0, min(tbf.rate, _MAX_U32))
    return _TBF.pack(rate, bytes(12), tbf.limit, tbf.buffer, 0)


def add_ingress(nl: Netlink, index: int) -> None:
    """Make the place where filters on what a link receives are put.

    Raises:
        OSError: EEXIST: the link has it already.
    """
    _add_qdisc(nl, index, (_INGRESS_HANDLE, INGRESS), "ingress", b"")


def _add_qdisc(nl: Netlink, index: int, place: tuple[int, int], kind: str, options: bytes) -> None:
    body = _TCMSG.pack(0, index, *place, 0) + attr_str(_TCA_KIND, kind)
    if options:
        body += nested(_TCA_OPTIONS, options)
    nl.tell(RTM_NEWQDISC, body, f"failed to add qdisc {kind} to link {index}", NLM_F_CREATE | NLM_F_EXCL)


def add_redirect(nl: Netlink, index: int, target: int) -> None:
    """Send everything that a link receives to another link's queue.

    Args:
        nl: the namespace of both.
        index: the link, which has an ingress qdisc.
        target: the link that everything goes to.
    """
    action = nested(
        1,  # the first action, and the only one
        attr_str(_TCA_ACT_KIND, "mirred"),
        nested(
            _TCA_ACT_OPTIONS,
            attr(_TCA_MIRRED_PARMS, _MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, target)),
        ),
    )
    options = nested(
        _TCA_OPTIONS,
        attr_u32(_TCA_U32_CLASSID, _CLASS),
        attr(_TCA_U32_SEL, _SELECTOR.pack(_TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY.pack(0, 0, 0, 0)),
        nested(_TCA_U32_ACT, action),
    )
    info = _PRIORITY << 16 | int.from_bytes(_ETH_P_ALL.to_bytes(2, "big"), _ORDER)
    body = _TCMSG.pack(0, index, 0, _INGRESS_HANDLE, info) + attr_str(_TCA_KIND, "u32") + options
    nl.tell(
        RTM_NEWTFILTER,
        body,
        f"failed to redirect what link {index} receives to link {target}",
        NLM_F_CREATE | NLM_F_EXCL,
    )


def root_tbf(nl: Netlink, index: int) -> Tbf | None:
    """Return the token bucket that is a link's root qdisc; None when that is something else."""
    kind, options = _qdisc(nl, index, ROOT)
    found = attribute_map(options) if kind == "tbf" else {}  # others' options need not be attributes
    if _TCA_TBF_PARMS not in found:
        return None
    rate, _peak, limit, buffer, _mtu = unpack(_TBF, found[_TCA_TBF_PARMS])
    whole = found.get(_TCA_TBF_RATE64)
    return Tbf(uint(whole) if whole else _RATESPEC.unpack(rate)[-1], limit, buffer)


def has_ingress(nl: Netlink, index: int) -> bool:
    """Tell whether a link has a place for filters on what it receives."""
    return _qdisc(nl, index, INGRESS)[0] == "ingress"


def _qdisc(nl: Netlink, index: int, parent: int) -> tuple[str, bytes]:
    """Return kind and options of the one qdisc at a place; no kind when there is none."""
    try:
        # The answer is an event that goes to whoever listens, and comes back only as an echo.
        replies = nl.request(RTM_GETQDISC, NLM_F_ECHO, _TCMSG.pack(0, index, 0, parent, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "", b""
        error.add_note(f"failed to read the qdisc of link {index}")
        raise
    if not replies:  # the kernel's own choice, which it does not show
        return "", b""
    found = attribute_map(replies[0].body, _TCMSG.size)
    return text(found.get(_TCA_KIND, b"")), found.get(_TCA_OPTIONS, b"")


def redirects(nl: Netlink, index: int) -> list[int]:
    """Return the links to which all that a link receives is redirected, in the order of the filters."""
    targets = []
    what = f"the filters of link {index}"
    for reply in nl.dump(RTM_GETTFILTER, _TCMSG.pack(0, index, 0, _INGRESS_HANDLE, 0), what):
        found = attribute_map(reply.body, _TCMSG.size)
        if text(found.get(_TCA_KIND, b"")) == "u32":
            targets += _redirect_of(attribute_map(found.get(_TCA_OPTIONS, b"")))
    return targets


def _redirect_of(options: dict[int, bytes]) -> list[int]:
    selector = options.get(_TCA_U32_SEL, b"")
    if len(selector) < _SELECTOR.size or _TCA_U32_ACT not in options:
        return []
    end = _SELECTOR.size + _SELECTOR.unpack_from(selector)[2] * _KEY.size
    masks = [unpack(_KEY, selector[at:end])[0] for at in range(_SELECTOR.size, end, _KEY.size)]
    if any(masks):
        return []  # only what matches
    targets = []
    for _order, body in attributes(options[_TCA_U32_ACT]):
        action = attribute_map(body)
        parameters = attribute_map(action.get(_TCA_ACT_OPTIONS, b"")).get(_TCA_MIRRED_PARMS, b"")
        if text(action.get(_TCA_ACT_KIND, b"")) == "mirred" and len(parameters) >= _MIRRED.size:
            *_rest, how, target = _MIRRED.unpack_from(parameters)
            if how == _TCA_EGRESS_REDIR:
                targets.append(target)
    return targets


def delete_root(nl: Netlink, index: int) -> None:
    """Give a link the kernel's default qdisc back; one that has it already is no error."""
    _delete_qdisc(nl, index, ROOT)


def delete_ingress(nl: Netlink, index: int) -> None:
    """Remove a link's place for filters on what it receives, with the filters; none is no error."""
    _delete_qdisc(nl, index, INGRESS)


def _delete_qdisc(nl: Netlink, index: int, parent: int) -> None:
    # ENODEV: the link is gone; ENOENT and EINVAL: no qdisc but the default one
    gone = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
    body = _TCMSG.pack(0, index, 0, parent, 0)
    nl.tell(RTM_DELQDISC, body, f"failed to delete a qdisc of link {index}", gone=gone)


def has_tbf(nl: Netlink, index: int) -> bool:
    """Tell whether the kernel knows token buckets, by a request for one without its parameters.

    Args:
        nl: any namespace.
        index: any link there; nothing happens to it, whatever its root qdisc is.

    Raises:
        OSError: the kernel did not come to look: EPERM, ENOBUFS, ….
    """
    body = _TCMSG.pack(0, index, 0, ROOT, 0) + attr_str(_TCA_KIND, "tbf")
    try:
        # All three: with EXCL alone, a link that has a root qdisc is all that the kernel would speak of.
        nl.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_EXCL, body)
    except OSError as error:
        if error.errno == errno.EINVAL:  # what the qdisc says of its parameters
            return True
        if error.errno == errno.ENOENT:
            return False
        error.add_note("cannot tell whether the kernel has token bucket filters")
        raise
    return True


_ORDER: Literal["little", "big"] = "little" if Struct("=H").pack(1)[0] else "big"
