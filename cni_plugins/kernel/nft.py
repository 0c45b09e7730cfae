"""nf_tables: tables, chains and rules over nfnetlink (linux/netfilter/nf_tables.h, nfnetlink.h).

What a rule says is bytes, made by `nftexpr`. An ADD, in outline:

    with nft.Nft() as tables:
        handles = tables.change(lambda: plan(tables))

where `plan` looks at what is there and returns a Batch: `tables.start(LAYOUT)`, which holds what is missing
of a table's fixed part and usually is empty, and then `batch.add_rule(…)`. A DEL looks its rules up
(`tables.find`, by the handles that were noted) and returns a Batch of `delete_rule`s.
"""

from __future__ import annotations

import errno

from cni_plugins.kernel import netlink
from cni_plugins.kernel.netlink import attr, attribute_map, nested, required

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol, Self

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
NEWSET, NEWSETELEM, GETSETELEM, DELSETELEM = 9, 12, 13, 14
"""Messages about sets (NFT_MSG_*)."""
MAX_COMMENT = 128
"""Bytes that nft takes for a comment."""

_SUBSYSTEM = 10 << 8
_NEWTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _GETRULE, _DELRULE = (
    _SUBSYSTEM | number for number in (0, 3, 4, 5, 6, 7, 8)
)
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_HEADER = b"\0\0\0\x0a"  # nfgenmsg: no family, version 0, res_id: the subsystem, big-endian
_ECHO = 0x8
_CREATE = netlink.NLM_F_CREATE

_TABLE_NAME, _TABLE_USERDATA = 1, 6
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE, _CHAIN_USERDATA = (
    1, 3, 4, 5, 6, 7, 12,
)  # fmt: skip
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_NFGENMSG = 4
_NF_ACCEPT = 1
_UDATA_COMMENT = 0
"""Type of a comment in the user data of a table, chain or rule (libnftnl/udata.h)."""

_ABSENT = (errno.ENOENT, errno.EINVAL)
"""What is said of a missing table, chain or rule; EINVAL by a kernel that has no nf_tables at all."""
_PASSING = (errno.ENOENT, errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ERESTART, errno.EBUSY)
"""Errors by which another writer shows that it came between the look and the change."""
_MAX_COLLISIONS = 20
"""So many in a row are no chance. The kernel takes some 10 ms to take a refused batch back."""


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


class FoundRule:
    """A rule in the kernel.

    Attributes:
        chain: its chain's name.
        handle: its number, never used again as long as the table lives.
        comment: empty when it has none.
        expressions: as the kernel says them; not always byte for byte what was sent.
    """

    __slots__ = ("chain", "comment", "expressions", "handle")

    def __init__(self, chain: str, handle: int, comment: str, expressions: bytes) -> None:
        self.chain = chain
        self.handle = handle
        self.comment = comment
        self.expressions = expressions


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
        self._append(_NEWTABLE, _CREATE, table, body)

    def add_chain(self, table: Table, chain: Chain) -> None:
        """Make a chain unless it exists; one of that name with another hook or type is an error (EEXIST…)."""
        body = string(_CHAIN_TABLE, table.name) + string(_CHAIN_NAME, chain.name)
        if chain.kind:
            hook = nested(_CHAIN_HOOK, be32(_HOOK_NUMBER, chain.hook), be32(_HOOK_PRIORITY, chain.priority))
            body += hook + be32(_CHAIN_POLICY, _NF_ACCEPT) + string(_CHAIN_TYPE, chain.kind)
        self._append(_NEWCHAIN, _CREATE, table, body + user_data(_CHAIN_USERDATA, chain.comment))

    def add_rule(self, table: Table, rule: Rule, *, front: bool = False) -> None:
        """Put a rule at its chain's end, or at its front; `Nft.commit` returns its handle."""
        self._add_rule(table, rule, _ECHO if front else _ECHO | netlink.NLM_F_APPEND)

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
            self._add_rule(table, rule, netlink.NLM_F_APPEND)

    def _add_rule(self, table: Table, rule: Rule, flags: int) -> None:
        body = (
            _rule_key(table, rule.chain)
            + nested(_RULE_EXPRESSIONS, rule.expressions)
            + user_data(_RULE_USERDATA, rule.comment)
        )
        self._append(_NEWRULE, _CREATE | flags, table, body)

    def delete_rule(self, table: Table, chain: str, handle: int) -> None:
        """Delete one rule; ENOENT when it is gone."""
        self._append(_DELRULE, 0, table, _rule_key(table, chain, handle))

    def flush_chain(self, table: Table, chain: str) -> None:
        """Delete all rules of a chain."""
        self._append(_DELRULE, 0, table, _rule_key(table, chain))

    def delete_chain(self, table: Table, chain: str) -> None:
        """Delete an empty chain that nothing enters; EBUSY when it is not so, ENOENT when it is gone."""
        self._append(_DELCHAIN, 0, table, string(_CHAIN_TABLE, table.name) + string(_CHAIN_NAME, chain))

    def add(self, kind: int, table: Table, attributes: bytes, *, create: bool = False) -> None:
        """Append a change that another module packed: `nftset` those of elements.

        Args:
            kind: the message's number in nf_tables (NEWSET, …).
            table: the table it is about.
            attributes: what follows the family.
            create: make what is named; it is no error when it exists already.
        """
        self._append(_SUBSYSTEM | kind, _CREATE if create else 0, table, attributes)

    def _append(self, kind: int, flags: int, table: Table, attributes: bytes) -> None:
        self._messages.append((kind, flags, _body(table, attributes)))


class Nft:
    """A conversation with nf_tables, in the namespace the thread is in; a context manager."""

    __slots__ = ("_netlink",)

    def __init__(self) -> None:
        self._netlink = netlink.Netlink(netlink.NETLINK_NETFILTER)

    def close(self) -> None:
        """End the conversation."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def chain_use(self, table: Table, chain: str) -> int | None:
        """Return how many rules a chain has plus how many enter it; None when there is no such chain.

        Raises:
            OSError: the kernel refuses to say.
        """
        found = self._chain(table, chain)
        return None if found is None else int.from_bytes(required(found, _CHAIN_USE), "big")

    def decides(self, table: Table, chain: str) -> bool:
        """Tell whether a base chain decides on packets: by a rule, or by dropping what no rule accepts.

        Raises:
            OSError: the kernel refuses to say.
        """
        found = self._chain(table, chain) or {}
        return bool(any(found.get(_CHAIN_USE, b"")) or self._drops(found))

    def drops(self, table: Table, chain: str) -> bool:
        """Tell whether a base chain drops what no rule accepts; a missing one does not.

        Raises:
            OSError: the kernel refuses to say.
        """
        return self._drops(self._chain(table, chain) or {})

    @staticmethod
    def _drops(found: dict[int, bytes]) -> bool:
        policy = found.get(_CHAIN_POLICY)
        return policy is not None and int.from_bytes(policy, "big") != _NF_ACCEPT

    def _chain(self, table: Table, chain: str) -> dict[int, bytes] | None:
        body = _body(table, string(_CHAIN_TABLE, table.name) + string(_CHAIN_NAME, chain))
        try:
            reply = self._netlink.get(_GETCHAIN, body)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            error.add_note(f"cannot look for chain {chain} of table {table.name}")
            raise
        return attribute_map(reply.body, _NFGENMSG)

    def ask(
        self, kind: int, table: Table, attributes: bytes, *, dump: bool = False
    ) -> list[dict[int, bytes]]:
        """Ask a question that another module packed; return each answer's attributes, none of what is not.

        Args:
            kind: the message's number in nf_tables.
            table: the table it is about.
            attributes: what follows the family.
            dump: ask for all there is.

        Raises:
            OSError: the kernel refuses to say.
        """
        body = _body(table, attributes)
        try:
            if dump:
                replies = self._netlink.dump(_SUBSYSTEM | kind, body)
            else:
                replies = self._netlink.request(_SUBSYSTEM | kind, 0, body)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            error.add_note(f"cannot look into table {table.name}")
            raise
        return [attribute_map(reply.body, _NFGENMSG) for reply in replies]

    def rule(self, table: Table, chain: str, handle: int) -> FoundRule | None:
        """Return a rule by its handle; None when the chain has none of that number.

        Raises:
            OSError: the kernel refuses to say.
        """
        try:
            reply = self._netlink.get(_GETRULE, _body(table, _rule_key(table, chain, handle)))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            error.add_note(f"cannot look for rule {handle} of chain {chain} of table {table.name}")
            raise
        return _found(reply)

    def rules(self, table: Table, chain: str = "") -> list[FoundRule]:
        """Return the rules of a chain, or of a whole table, in order; of a missing one, none.

        Raises:
            OSError: the kernel refuses to say.
        """
        key = string(_RULE_TABLE, table.name) + (string(_RULE_CHAIN, chain) if chain else b"")
        try:
            replies = self._netlink.dump(_GETRULE, _body(table, key))
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            error.add_note(f"cannot list the rules of table {table.name}")
            raise
        return [_found(reply) for reply in replies if reply.kind == _NEWRULE]

    def find(
        self, table: Table, chain: str, handles: Iterable[int], mine: Callable[[str], bool]
    ) -> list[FoundRule] | None:
        """Return the rules that were noted, if each is still there and has a comment of ours.

        Args:
            table: the table.
            chain: the chain they are in.
            handles: their handles.
            mine: tells of a comment whether it is ours.

        Returns:
            None when a rule is gone or is another's now: then the note is stale, and a search must tell.
        """
        found = []
        for handle in handles:
            rule = self.rule(table, chain, handle)
            if rule is None or not mine(rule.comment):
                return None
            found.append(rule)
        return found

    def start(self, layout: Layout) -> Batch:
        """Return a batch that makes what is missing of a layout: usually an empty one, to add rules to.

        A base chain counts as whole when it has as many rules as it should. Where one is not, all is made.

        Raises:
            OSError: the kernel refuses to say what is there.
        """
        batch = Batch()
        for name, count in layout.entrances.items():
            if self.chain_use(layout.table, name) != count:
                batch.add_layout(layout)
                break
        return batch

    def commit(self, batch: Batch) -> list[int]:
        """Make the changes of a batch; nothing is sent for an empty one.

        Returns:
            The handles of the rules added by `Batch.add_rule`, in order.

        Raises:
            OSError: a change was refused, and none was made.
        """
        changes = batch.messages()
        if not changes:
            return []
        # One acknowledgement is enough: the kernel answers when all is done, and every refusal is told.
        kind, flags, body = changes[-1]
        changes[-1] = kind, flags | netlink.NLM_F_ACK, body
        begin, end = (_BATCH_BEGIN, 0, _BATCH_HEADER), (_BATCH_END, 0, _BATCH_HEADER)
        try:
            replies = self._netlink.transaction([begin, *changes, end])
        except OSError as error:
            error.add_note("cannot change the rules of nf_tables")
            raise
        return [_found(reply).handle for reply in replies if reply.kind == _NEWRULE]

    def change(self, plan: Callable[[], Batch]) -> list[int]:
        """Commit what `plan` returns; plan anew when somebody else made a change between look and commit.

        Args:
            plan: looks at what is there and returns what to change; called again after each such collision.

        Returns:
            The handles of the rules added by `Batch.add_rule`, in order.

        Raises:
            OSError: a change was refused, also after planning anew for a while.
        """
        for _collision in range(_MAX_COLLISIONS):
            try:
                return self.commit(plan())
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
        return self.commit(plan())


def be32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes, the highest first, as nf_tables has them."""
    return attr(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def string(kind: int, text: str) -> bytes:
    """Return an attribute of a name, with the NUL at its end."""
    return attr(kind, text.encode("utf-8", "surrogateescape") + b"\0")


def _body(table: Table, attributes: bytes) -> bytes:
    return bytes((table.family, 0, 0, 0)) + attributes


def _rule_key(table: Table, chain: str, handle: int = 0) -> bytes:
    key = string(_RULE_TABLE, table.name) + string(_RULE_CHAIN, chain)
    return key + attr(_RULE_HANDLE, handle.to_bytes(8, "big")) if handle else key


def user_data(kind: int, comment: str) -> bytes:
    """Return user data that holds a comment, cut to what nft takes; nothing for an empty one."""
    if not comment:
        return b""
    data = comment.encode("utf-8", "surrogateescape")[:MAX_COMMENT] + b"\0"
    return attr(kind, bytes((_UDATA_COMMENT, len(data))) + data)


def comment_of(data: bytes) -> str:
    """Return the comment in user data; empty when there is none."""
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        if kind == _UDATA_COMMENT:
            return netlink.text(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _found(reply: netlink.Reply) -> FoundRule:
    attributes = attribute_map(reply.body, _NFGENMSG)
    return FoundRule(
        netlink.text(required(attributes, _RULE_CHAIN)),
        int.from_bytes(required(attributes, _RULE_HANDLE), "big"),
        comment_of(attributes.get(_RULE_USERDATA, b"")),
        attributes.get(_RULE_EXPRESSIONS, b""),
    )
