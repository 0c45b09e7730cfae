"""What nf_tables shall hold: tables, chains, rules, and batches of changes (linux/netfilter/nf_tables.h).

What a rule says is bytes, made by `nftexpr`; `nft` asks what is there and makes the changes.
"""

from __future__ import annotations

from cni_plugins.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_ECHO
from cni_plugins.kernel.nlattr import attr, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Set(Protocol):
        """What looks like `nftset.Set`."""

        def definition(self, number: int) -> bytes:
            """Return what makes it."""


INET, IPV4, BRIDGE, IPV6 = 1, 2, 7, 10
"""Families of tables (NFPROTO_* in linux/netfilter.h)."""
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
"""Hooks (NF_INET_* in linux/netfilter.h; NF_BR_* are the same numbers)."""
SRCNAT, DSTNAT, FILTER = 100, -100, 0
"""Priorities that nft shows by name (NF_IP_PRI_*)."""
MAX_COMMENT = 128
"""Bytes that nft takes for a comment."""
MAX_NAME = 255
"""Bytes of a chain's name (NFT_NAME_MAXLEN in linux/netfilter/nf_tables.h, less the NUL)."""

SUBSYSTEM = 10 << 8
"""What is added to the number of a message (NFT_MSG_*) to tell that it is for nf_tables."""
NEWSET, NEWSETELEM, GETSETELEM, DELSETELEM = 9, 12, 13, 14
"""Messages about sets."""
NEWRULE = SUBSYSTEM | 6
_NEWTABLE, _NEWCHAIN, _DELCHAIN, _DELRULE = (SUBSYSTEM | number for number in (0, 3, 5, 8))

_TABLE_NAME, _TABLE_USERDATA = 1, 6
CHAIN_TABLE, CHAIN_NAME, CHAIN_POLICY = 1, 3, 5
_CHAIN_HOOK, _CHAIN_TYPE, _CHAIN_USERDATA = 4, 7, 12
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
NF_ACCEPT = 1
UDATA_COMMENT = 0
"""Type of a comment in the user data of a table, chain or rule (libnftnl/udata.h)."""


class Table:
    """A table's family (INET, …), name and comment."""

    __slots__ = ("comment", "family", "name")

    def __init__(self, family: int, name: str, comment: str = "") -> None:
        self.family = family
        self.name = name
        self.comment = comment


class Chain:
    """A chain; with a hook, a base chain.

    Args:
        name: its name.
        comment: shown by `nft list ruleset`.
        kind: a base chain's type: "nat" or "filter"; empty: a regular chain.
        hook: PREROUTING, ….
        priority: where in the hook: SRCNAT, DSTNAT, ….
    """

    __slots__ = ("comment", "hook", "kind", "name", "priority")

    def __init__(
        self, name: str, comment: str = "", kind: str = "", hook: int = 0, priority: int = 0
    ) -> None:
        self.name = name
        self.comment = comment
        self.kind = kind
        self.hook = hook
        self.priority = priority


class Rule:
    """A rule that is to be: its chain's name, its expressions (`nftexpr`) and its comment."""

    __slots__ = ("chain", "comment", "expressions")

    def __init__(self, chain: str, expressions: bytes, comment: str = "") -> None:
        self.chain = chain
        self.expressions = expressions
        self.comment = comment


class Layout:
    """A table's fixed part: its sets, its chains, and the rules that enter them.

    Args:
        table: the table.
        chains: in an order in which no rule of one enters a later one.
        rules: of base chains, which hold these rules and no others.
        sets: what rules look packets up in; their elements are not part of the layout.
    """

    __slots__ = ("chains", "entrances", "rules", "sets", "table")

    def __init__(
        self, table: Table, chains: Sequence[Chain], rules: Sequence[Rule], sets: Sequence[Set] = ()
    ) -> None:
        self.table = table
        self.chains = chains
        self.rules = rules
        self.sets = sets
        self.entrances: dict[str, int] = {}
        for rule in rules:
            self.entrances[rule.chain] = self.entrances.get(rule.chain, 0) + 1


class Batch:
    """Changes that take effect together or not at all."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: list[tuple[int, int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._messages)

    def extend(self, other: Batch) -> None:
        """Append the changes of another batch, which may be of another table."""
        self._messages += other.messages()

    def messages(self) -> list[tuple[int, int, bytes]]:
        """Return type, flags and body of each change, in order, without what frames a batch."""
        return list(self._messages)

    def add_table(self, table: Table) -> None:
        """Make a table unless it exists."""
        body = string(_TABLE_NAME, table.name) + user_data(_TABLE_USERDATA, table.comment)
        self._append(_NEWTABLE, NLM_F_CREATE, table, body)

    def add_chain(self, table: Table, chain: Chain) -> None:
        """Make a chain unless it exists; one of that name with another hook or type is an error (EEXIST…)."""
        body = string(CHAIN_TABLE, table.name) + string(CHAIN_NAME, chain.name)
        if chain.kind:
            hook = nested(_CHAIN_HOOK, be32(_HOOK_NUMBER, chain.hook), be32(_HOOK_PRIORITY, chain.priority))
            body += hook + be32(CHAIN_POLICY, NF_ACCEPT) + string(_CHAIN_TYPE, chain.kind)
        self._append(_NEWCHAIN, NLM_F_CREATE, table, body + user_data(_CHAIN_USERDATA, chain.comment))

    def add_rule(self, table: Table, rule: Rule, *, front: bool = False) -> None:
        """Put a rule at its chain's end, or at its front; `Nft.commit` returns its handle."""
        self._add_rule(table, rule, NLM_F_ECHO if front else NLM_F_ECHO | NLM_F_APPEND)

    def add_layout(self, layout: Layout) -> None:
        """Make a layout's chains where they are missing, and write its base chains' rules anew.

        Two processes that do so one after the other leave the same as one.
        """
        table = layout.table
        self.add_table(table)
        for number, each in enumerate(layout.sets, 1):
            self.add(NEWSET, table, each.definition(number), create=True)
        for chain in layout.chains:
            self.add_chain(table, chain)
        for name in layout.entrances:
            self.flush_chain(table, name)
        for rule in layout.rules:
            self._add_rule(table, rule, NLM_F_APPEND)

    def _add_rule(self, table: Table, rule: Rule, flags: int) -> None:
        body = (
            rule_key(table, rule.chain)
            + nested(RULE_EXPRESSIONS, rule.expressions)
            + user_data(RULE_USERDATA, rule.comment)
        )
        self._append(NEWRULE, NLM_F_CREATE | flags, table, body)

    def delete_rule(self, table: Table, chain: str, handle: int) -> None:
        """Delete one rule; ENOENT when it is gone."""
        self._append(_DELRULE, 0, table, rule_key(table, chain, handle))

    def flush_chain(self, table: Table, chain: str) -> None:
        """Delete all rules of a chain."""
        self._append(_DELRULE, 0, table, rule_key(table, chain))

    def delete_chain(self, table: Table, chain: str) -> None:
        """Delete an empty chain that nothing enters; EBUSY when it is not so, ENOENT when it is gone."""
        self._append(_DELCHAIN, 0, table, string(CHAIN_TABLE, table.name) + string(CHAIN_NAME, chain))

    def add(self, kind: int, table: Table, attributes: bytes, *, create: bool = False) -> None:
        """Append a change that another module packed: `nftset` those of elements.

        Args:
            kind: the message's number in nf_tables (NEWSET, …).
            table: the table it is about.
            attributes: what follows the family.
            create: make what is named; it is no error when it exists already.
        """
        self._append(SUBSYSTEM | kind, NLM_F_CREATE if create else 0, table, attributes)

    def _append(self, kind: int, flags: int, table: Table, attributes: bytes) -> None:
        self._messages.append((kind, flags, body(table, attributes)))


def be32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes, the highest first, as nf_tables has them."""
    return attr(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def string(kind: int, text: str) -> bytes:
    """Return an attribute of a name, with the NUL at its end."""
    return attr(kind, text.encode("utf-8", "surrogateescape") + b"\0")


def body(table: Table, attributes: bytes) -> bytes:
    """Return a message's body: the table's family, then attributes (struct nfgenmsg)."""
    return bytes((table.family, 0, 0, 0)) + attributes


def rule_key(table: Table, chain: str, handle: int = 0) -> bytes:
    """Return the attributes that say which rule, or, without a handle, which chain's rules are meant."""
    key = string(RULE_TABLE, table.name) + string(RULE_CHAIN, chain)
    return key + attr(RULE_HANDLE, handle.to_bytes(8, "big")) if handle else key


def user_data(kind: int, comment: str) -> bytes:
    """Return user data that holds a comment, cut to what nft takes; nothing for an empty one."""
    if not comment:
        return b""
    data = comment.encode("utf-8", "surrogateescape")[:MAX_COMMENT] + b"\0"
    return attr(kind, bytes((UDATA_COMMENT, len(data))) + data)
