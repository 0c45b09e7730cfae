"""Sets of nf_tables: what rules look packets up in, at a cost that does not grow with the elements.

An element is a key and a comment. The kernel keeps one element a key, and what adds it a second time leaves
the first one's comment: whoever takes a key over removes the element and adds it in one batch, and whoever
removes one looks at the comment first, with others kept out by a lock.
"""

from __future__ import annotations

from cni_plugins.kernel import nft, nftbatch
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, attributes, nested, required

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_plugins.kernel.nft import Nft
    from cni_plugins.kernel.nftbatch import Batch, Table

IPV4_ADDR, IPV6_ADDR, IFNAME = 7, 8, 41
"""Types of keys, by which nft shows them (enum datatypes in nftables' datatype.h)."""
_SIZES = {IPV4_ADDR: 4, IPV6_ADDR: 16, IFNAME: 16}
_TYPE_BITS = 6

_SET_TABLE, _SET_NAME, _SET_KEY_TYPE, _SET_KEY_LEN, _SET_ID, _SET_USERDATA = 1, 2, 4, 5, 10, 13
_ELEM_TABLE, _ELEM_SET, _ELEM_ELEMENTS = 1, 2, 3
_KEY, _USERDATA = 1, 6
_LIST_ELEM = 1
_DATA_VALUE = 1
_UDATA_KEY_BYTE_ORDER, _UDATA_SET_COMMENT = 0, 7  # libnftnl/udata.h
_HOST_ENDIAN, _BIG_ENDIAN = 1, 2


class Set:
    """A named set.

    Args:
        table: the table it is in.
        name: its name.
        kinds: the types of its key's parts (IPV4_ADDR, …).
        comment: shown by `nft list ruleset`.
    """

    __slots__ = ("comment", "kinds", "name", "table")

    def __init__(self, table: Table, name: str, kinds: tuple[int, ...], comment: str = "") -> None:
        self.table = table
        self.name = name
        self.kinds = kinds
        self.comment = comment

    def definition(self, number: int) -> bytes:
        """Return the attributes that make it.

        Args:
            number: tells it from other new sets of the same batch.
        """
        kind = 0
        for each in self.kinds:
            kind = kind << _TYPE_BITS | each
        order = _HOST_ENDIAN if IFNAME in self.kinds else _BIG_ENDIAN
        user_data = bytes((_UDATA_KEY_BYTE_ORDER, 4)) + attr_u32(0, order)[4:]
        if self.comment:
            text = self.comment.encode() + b"\0"
            user_data += bytes((_UDATA_SET_COMMENT, len(text))) + text
        return (
            nftbatch.string(_SET_TABLE, self.table.name)
            + nftbatch.string(_SET_NAME, self.name)
            + nftbatch.be32(_SET_KEY_TYPE, kind)
            + nftbatch.be32(_SET_KEY_LEN, sum(_SIZES[each] for each in self.kinds))
            + nftbatch.be32(_SET_ID, number)
            + attr(_SET_USERDATA, user_data)
        )


def add(batch: Batch, to: Set, key: bytes, comment: str = "") -> None:
    """Add an element unless its key is there, which then keeps its comment."""
    batch.add(nftbatch.NEWSETELEM, to.table, _elements(to, key, comment), create=True)


def delete(batch: Batch, among: Set, key: bytes) -> None:
    """Delete an element; ENOENT when it is gone."""
    batch.add(nftbatch.DELSETELEM, among.table, _elements(among, key))


def comment(tables: Nft, among: Set, key: bytes) -> str | None:
    """Return an element's comment, which may be empty; None when the set has no such key, or is not there.

    Raises:
        OSError: the kernel refuses to say.
    """
    for _key, text in _found(tables.ask(nftbatch.GETSETELEM, among.table, _elements(among, key))):
        return text
    return None


def elements(tables: Nft, among: Set) -> list[tuple[bytes, str]]:
    """Return all elements: key and comment; none when there is no such set.

    Raises:
        OSError: the kernel refuses to say.
    """
    return list(_found(tables.ask(nftbatch.GETSETELEM, among.table, _key_of(among), dump=True)))


def _key_of(among: Set) -> bytes:
    return nftbatch.string(_ELEM_TABLE, among.table.name) + nftbatch.string(_ELEM_SET, among.name)


def _elements(among: Set, key: bytes, comment: str = "") -> bytes:
    element = nested(_KEY, attr(_DATA_VALUE, key)) + nftbatch.user_data(_USERDATA, comment)
    return _key_of(among) + nested(_ELEM_ELEMENTS, nested(_LIST_ELEM, element))


def _found(answers: list[dict[int, bytes]]) -> Iterable[tuple[bytes, str]]:
    for answer in answers:
        for _kind, element in attributes(answer.get(_ELEM_ELEMENTS, b"")):
            parts = attribute_map(element)
            key = attribute_map(required(parts, _KEY))
            yield required(key, _DATA_VALUE), nft.comment_of(parts.get(_USERDATA, b""))
