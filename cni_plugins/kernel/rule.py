"""Routing policy: rules that choose a routing table by a packet's source (linux/fib_rules.h, ip-rule(8))."""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.kernel.addr import AF_INET, AF_INET6, received
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, uint, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.kernel.netlink import Netlink

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34

_FRA_SRC = 2
_FRA_PRIORITY = 6
_FRA_TABLE = 15
_FR_ACT_TO_TBL = 1
_FIB_RULE_HDR = Struct("=BBBBBBBBI")


class Rule:
    """A rule: packets from a source are routed by a table.

    Attributes:
        source: where they come from; None: anywhere.
        table: the table; 0 when the rule does something else.
        priority: lower ones are asked first.
        family: AF_INET or AF_INET6.
    """

    __slots__ = ("family", "priority", "source", "table")

    def __init__(self, source: Prefix | None, table: int, priority: int = 0, family: int = 0) -> None:
        self.source = source
        self.table = table
        self.priority = priority
        self.family = family or (AF_INET if source is None or source.version == 4 else AF_INET6)

    def __str__(self) -> str:
        return f"from {self.source or 'all'} lookup {self.table}"


def _message(rule: Rule) -> bytes:
    length = rule.source.length if rule.source else 0
    table = rule.table if rule.table < 256 else 0
    body = _FIB_RULE_HDR.pack(rule.family, 0, length, 0, table, 0, 0, _FR_ACT_TO_TBL, 0)
    body += attr_u32(_FRA_TABLE, rule.table)
    if rule.source:
        body += attr(_FRA_SRC, rule.source.first())
    if rule.priority:
        body += attr_u32(_FRA_PRIORITY, rule.priority)
    return body


def add(nl: Netlink, rule: Rule) -> None:
    """Add a rule; one without a priority goes before all but the one for the table local.

    Raises:
        OSError: EEXIST: the very same is there already.
    """
    nl.tell(RTM_NEWRULE, _message(rule), f"failed to add the rule {rule}", NLM_F_CREATE | NLM_F_EXCL)


def delete(nl: Netlink, rule: Rule) -> None:
    """Delete a rule; one that is gone already is no error."""
    nl.tell(RTM_DELRULE, _message(rule), f"failed to delete the rule {rule}", gone=(errno.ENOENT,))


def rules(nl: Netlink) -> list[Rule]:
    """Return the rules of both families, each in the order in which the kernel asks them.

    Raises:
        OSError: EOPNOTSUPP: the kernel has no routing policy.
    """
    found = []
    for family in (AF_INET, AF_INET6):
        try:
            replies = nl.dump(RTM_GETRULE, _FIB_RULE_HDR.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        except OSError as error:
            if family == AF_INET6 and error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                continue  # IPv6 is switched off
            error.add_note("failed to list the routing rules")
            raise
        for reply in replies:
            _family, _dst, length, _tos, small, _r1, _r2, action, _flags = unpack(_FIB_RULE_HDR, reply.body)
            given = attribute_map(reply.body, _FIB_RULE_HDR.size)
            source = received(given[_FRA_SRC], length) if _FRA_SRC in given else None
            table = uint(given[_FRA_TABLE]) if _FRA_TABLE in given else small
            priority = uint(given.get(_FRA_PRIORITY, b""))
            found.append(Rule(source, table if action == _FR_ACT_TO_TBL else 0, priority, family))
    return found
