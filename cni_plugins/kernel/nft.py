"""A conversation with nf_tables: what is there, and changes (linux/netfilter/nf_tables.h, nfnetlink.h).

An ADD, in outline:

    with nft.Nft() as tables:
        handles = tables.change(lambda: plan(tables))

where `plan` looks at what is there and returns a Batch: `tables.start(LAYOUT)`, which holds what is missing
of a table's fixed part and usually is empty, and then `batch.add_rule(…)`. A DEL looks its rules up
(`tables.find`, by the handles that were noted) and returns a Batch of `delete_rule`s.
"""

from __future__ import annotations

import errno

from cni_plugins.kernel.netlink import NLM_F_ACK
from cni_plugins.kernel.nfnetlink import Netfilter
from cni_plugins.kernel.nftbatch import (
    CHAIN_NAME,
    CHAIN_POLICY,
    CHAIN_TABLE,
    NEWRULE,
    NF_ACCEPT,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    RULE_HANDLE,
    RULE_TABLE,
    RULE_USERDATA,
    SUBSYSTEM,
    UDATA_COMMENT,
    Batch,
    body,
    rule_key,
    string,
)
from cni_plugins.kernel.nlattr import attribute_map, required, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from cni_plugins.kernel.netlink import Reply
    from cni_plugins.kernel.nftbatch import Layout, Table

_GETCHAIN, _GETRULE = SUBSYSTEM | 4, SUBSYSTEM | 7
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_HEADER = b"\0\0\0\x0a"  # nfgenmsg: no family, version 0, res_id: the subsystem, big-endian
_CHAIN_USE = 6
_NFGENMSG = 4

_NONE_SUCH = (errno.ENOENT,)
_ABSENT = (errno.ENOENT, errno.EINVAL)
"""What is said of a missing table, chain or rule; EINVAL by a kernel that has no nf_tables at all."""
_PASSING = (errno.ENOENT, errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ERESTART, errno.EBUSY)
"""Errors by which another writer shows that it came between the look and the change."""
_MAX_COLLISIONS = 20
"""So many in a row are no chance. The kernel takes some 10 ms to take a refused batch back."""


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


class Nft:
    """A conversation with nf_tables, in the namespace the thread is in; a context manager."""

    __slots__ = ("_netlink",)

    def __init__(self) -> None:
        self._netlink = Netfilter()

    def close(self) -> None:
        """End the conversation."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def chain_use(self, table: Table, chain: str, *, served: bool = False) -> int | None:
        """Return how many rules a chain has plus how many enter it; None when there is no such chain.

        Args:
            table: the chain's table.
            chain: its name.
            served: a kernel without nf_tables is an error, too.

        Raises:
            OSError: the kernel refuses to say; EINVAL: it has no nf_tables.
        """
        found = self._chain(table, chain, _NONE_SUCH if served else _ABSENT)
        return None if found is None else int.from_bytes(required(found, _CHAIN_USE), "big")

    def decides(self, table: Table, chain: str, *, served: bool = False) -> bool:
        """Tell whether a base chain decides on packets: by a rule, or by dropping what no rule accepts.

        Args and errors are those of `chain_use`.
        """
        found = self._chain(table, chain, _NONE_SUCH if served else _ABSENT) or {}
        return bool(any(found.get(_CHAIN_USE, b"")) or self._drops(found))

    def drops(self, table: Table, chain: str) -> bool:
        """Tell whether a base chain drops what no rule accepts; a missing one does not.

        Raises:
            OSError: the kernel refuses to say.
        """
        return self._drops(self._chain(table, chain) or {})

    @staticmethod
    def _drops(found: dict[int, bytes]) -> bool:
        policy = found.get(CHAIN_POLICY)
        return policy is not None and int.from_bytes(policy, "big") != NF_ACCEPT

    def _chain(self, table: Table, chain: str, absent: tuple[int, ...] = _ABSENT) -> dict[int, bytes] | None:
        key = string(CHAIN_TABLE, table.name) + string(CHAIN_NAME, chain)
        doing = f"cannot look for chain {chain} of table {table.name}"
        replies = self._ask(_GETCHAIN, table, key, doing, absent=absent)
        return attribute_map(replies[0].body, _NFGENMSG) if replies else None

    def _ask(
        self,
        kind: int,
        table: Table,
        attributes: bytes,
        doing: str,
        *,
        dump: bool = False,
        absent: tuple[int, ...] = _ABSENT,
    ) -> list[Reply]:
        """Return the answers to a question; none when there is no such thing."""
        asked = body(table, attributes)
        try:
            return self._netlink.dump(kind, asked) if dump else [self._netlink.get(kind, asked)]
        except OSError as error:
            if error.errno in absent:
                return []
            error.add_note(doing)
            raise

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
        doing = f"cannot look into table {table.name}"
        replies = self._ask(SUBSYSTEM | kind, table, attributes, doing, dump=dump)
        return [attribute_map(reply.body, _NFGENMSG) for reply in replies]

    def rule(self, table: Table, chain: str, handle: int) -> FoundRule | None:
        """Return a rule by its handle; None when the chain has none of that number.

        Raises:
            OSError: the kernel refuses to say.
        """
        doing = f"cannot look for rule {handle} of chain {chain} of table {table.name}"
        replies = self._ask(_GETRULE, table, rule_key(table, chain, handle), doing)
        return _found(replies[0]) if replies else None

    def rules(self, table: Table, chain: str = "") -> list[FoundRule]:
        """Return the rules of a chain, or of a whole table, in order; of a missing one, none.

        Raises:
            OSError: the kernel refuses to say.
        """
        key = string(RULE_TABLE, table.name) + (string(RULE_CHAIN, chain) if chain else b"")
        doing = f"cannot list the rules of table {table.name}"
        replies = self._ask(_GETRULE, table, key, doing, dump=True)
        return [_found(reply) for reply in replies if reply.kind == NEWRULE]

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
        changes[-1] = kind, flags | NLM_F_ACK, body
        begin, end = (_BATCH_BEGIN, 0, _BATCH_HEADER), (_BATCH_END, 0, _BATCH_HEADER)
        try:
            replies = self._netlink.transaction([begin, *changes, end])
        except OSError as error:
            error.add_note("cannot change the rules of nf_tables")
            raise
        return [_found(reply).handle for reply in replies if reply.kind == NEWRULE]

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


def converse() -> Nft | None:
    """Return a conversation; None where the kernel has nobody to talk to, and so nothing to be removed.

    Raises:
        OSError: the socket cannot be opened for another reason.
    """
    try:
        return Nft()
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return None


def comment_of(data: bytes) -> str:
    """Return the comment in user data; empty when there is none."""
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        if kind == UDATA_COMMENT:
            return text(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _found(reply: Reply) -> FoundRule:
    attributes = attribute_map(reply.body, _NFGENMSG)
    return FoundRule(
        text(required(attributes, RULE_CHAIN)),
        int.from_bytes(required(attributes, RULE_HANDLE), "big"),
        comment_of(attributes.get(RULE_USERDATA, b"")),
        attributes.get(RULE_EXPRESSIONS, b""),
    )
