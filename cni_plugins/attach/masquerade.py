"""Masquerading what an attachment sends out of its network; bridge and ptp share it.

ADD writes the rules of one backend; DEL and GC remove those of both, including the reference plugins'.
"""

from __future__ import annotations

from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import notes
from cni_plugins.kernel.nft import Nft, converse
from cni_plugins.kernel.nftbatch import Batch
from cni_plugins.kernel.nftexpr import compared
from cni_plugins.lazy import Lazy
from cni_plugins.rules.masquerade import (
    CHAIN,
    ENTRANCE,
    IPTABLES_TABLES,
    LAYOUT,
    TABLE,
    attachment_hash,
    comment,
    iptables_chain,
    network_hash,
    rule,
)
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.attach import masquerade_iptables
    from cni_plugins.kernel import nftprobe
    from cni_plugins.kernel.nft import FoundRule
    from cni_plugins.spec.request import Request

    Attachment = tuple[str, str, str]
else:
    masquerade_iptables = Lazy("cni_plugins.attach.masquerade_iptables")
    nftprobe = Lazy("cni_plugins.kernel.nftprobe")

NFTABLES = "nftables"
IPTABLES = "iptables"
_KIND = notes.MASQUERADE


def add(request: Request, addresses: Sequence[Prefix], backend: str | None) -> None:
    """Masquerade what some addresses send out of their subnets; rules of an earlier ADD are replaced.

    Args:
        request: the ADD.
        addresses: the container's, each with its subnet's length.
        backend: NFTABLES, IPTABLES, or nothing for nftables.

    Raises:
        InvalidConfigError: there is no such backend.
        ProgramError: iptables failed.
        OSError: the kernel refused the rules.
    """
    attachment = _attachment(request)
    # The note comes first: a DEL that is told of no masquerade goes by it.
    if _is_iptables(backend):
        notes.write(_KIND, attachment, [IPTABLES])
        masquerade_iptables.add(request.network, request.container_id, addresses)
        return
    with notes.begin(_KIND, attachment) as note, Nft() as tables:
        older = notes.handles_in(note.older)
        handles = tables.change(lambda: _addition(tables, attachment, addresses, older))
        note.fill([str(handle) for handle in handles])


def remove(request: Request) -> None:
    """Remove the attachment's rules, of both backends; nothing there is no error.

    Raises:
        CNIError: steps that failed; all were gone through, and the note stays.
        OSError: the kernel refused.
    """
    attachment = _attachment(request)
    handles = notes.handles(_KIND, attachment)
    tables = converse()
    if tables is None:
        masquerade_iptables.remove(attachment[0], attachment[1], ())
    else:
        teardown = Teardown()
        with tables:
            teardown.step(tables.change, lambda: _deletion(_present(tables, attachment, handles)))
            teardown.step(_remove_chains, tables, attachment, noted=handles is not None)
        teardown.finish()
    notes.remove(_KIND, attachment)


def check(request: Request, addresses: Sequence[Prefix], backend: str | None) -> None:
    """Compare the kernel's rules with those that `add` makes.

    Raises:
        CheckFailedError: one is missing; the message names it.
        InvalidConfigError: there is no such backend.
        ProgramError: iptables cannot be asked.
        OSError: the kernel refused to say.
    """
    attachment = _attachment(request)
    if not _is_iptables(backend):
        with Nft() as tables:
            # Without a word on the backend, the reference may have chosen iptables
            present = _present(tables, attachment, notes.handles(_KIND, attachment))
            if backend or present or not _iptables_families(tables, attachment):
                _check_nftables(tables, present, addresses)
                return
    masquerade_iptables.check(request.network, request.container_id, addresses)


def _check_nftables(tables: Nft, present: Sequence[FoundRule], addresses: Sequence[Prefix]) -> None:
    if tables.start(LAYOUT):
        raise CheckFailedError(
            f"the nftables chain {ENTRANCE} of table {TABLE.name} is not as it should be",
            f"its last rule must be `goto {CHAIN}`; the next ADD with ipMasq repairs it",
        )
    values = [compared(each.expressions) for each in present]
    for address in addresses:
        if not any(address.address in each for each in values):
            raise CheckFailedError(f"the nftables rule that masquerades {address} is missing in {CHAIN}")


def gc(request: Request, valid: set[tuple[str, str]], *, configured: bool) -> None:
    """Remove the rules of the network's attachments, except some.

    Args:
        request: the GC.
        valid: the container ids and interface names of attachments that stay.
        configured: the network has masquerade now. Else iptables is asked only when a note tells of it.

    Raises:
        CNIError: steps that failed; all were gone through, and the notes stay.
        OSError: the kernel refused.
    """
    network = request.network
    noted = [each for each in notes.attachments(_KIND) if each[0] == network and each[1:] not in valid]
    by_iptables = configured or any(map(_may_be_of_iptables, noted))
    teardown = Teardown()
    tables = converse() if by_iptables or nftprobe.usable() else None
    if tables is not None:
        with tables:
            teardown.step(_collect_rules, tables, network, valid)
            if by_iptables:
                teardown.step(_collect_chains, tables, network, valid)
    elif by_iptables:
        teardown.step(_collect_chains, None, network, valid)
    teardown.finish()
    for attachment in noted:
        teardown.step(notes.remove, _KIND, attachment)
    teardown.finish()


def _may_be_of_iptables(attachment: Attachment) -> bool:
    try:
        return notes.handles(_KIND, attachment) is None
    except OSError:  # who removes it will say so
        return True


def _collect_rules(tables: Nft, network: str, valid: set[tuple[str, str]]) -> None:
    stale: list[FoundRule] = []

    def collection() -> Batch:
        stale[:] = _stale(tables, network, valid)
        return _deletion(stale)

    tables.change(collection)
    for each in stale:
        skel.removed(network, f"a rule that masquerades ({each.comment.partition(', ')[2]})")


def _collect_chains(tables: Nft | None, network: str, valid: set[tuple[str, str]]) -> None:
    masquerade_iptables.gc(tables, network, {container_id for container_id, _ifname in valid})


def _is_iptables(backend: str | None) -> bool:
    if backend not in (None, "", NFTABLES, IPTABLES):
        raise InvalidConfigError(
            f"unrecognized ipMasqBackend {backend!r}", f"known are {NFTABLES} and {IPTABLES}"
        )
    return backend == IPTABLES


def _remove_chains(tables: Nft, attachment: Attachment, *, noted: bool) -> None:
    found = _iptables_families(tables, attachment)
    # Rules with a note were made here, with nftables, and are gone now; without one, iptables may have some.
    if found or not noted:
        masquerade_iptables.remove(attachment[0], attachment[1], found)


def _iptables_families(tables: Nft, attachment: Attachment) -> list[int]:
    """Return the families in which iptables, on nf_tables, has a chain of the container."""
    chain = iptables_chain(attachment[0], attachment[1])
    return [family for family, table in IPTABLES_TABLES.items() if tables.chain_use(table, chain) is not None]


def _attachment(request: Request) -> Attachment:
    return request.network, request.container_id, request.ifname


def _addition(
    tables: Nft, attachment: Attachment, addresses: Sequence[Prefix], older: Sequence[int] | None
) -> Batch:
    batch = tables.start(LAYOUT)
    for each in _noted(tables, attachment, older) or []:
        batch.delete_rule(TABLE, CHAIN, each.handle)
    text = comment(*attachment)
    for address in addresses:
        batch.add_rule(TABLE, rule(address, text))
    return batch


def _deletion(rules: Sequence[FoundRule]) -> Batch:
    batch = Batch()
    for each in rules:
        batch.delete_rule(TABLE, CHAIN, each.handle)
    return batch


def _stale(tables: Nft, network: str, valid: set[tuple[str, str]]) -> list[FoundRule]:
    """Return the rules of the network's attachments that are not valid."""
    spared = {attachment_hash(network, container_id, ifname) for container_id, ifname in valid}
    return [
        each
        for each in tables.rules(TABLE, CHAIN)
        if each.comment.startswith(f"{network_hash(network)}-")
        and each.comment.partition(",")[0] not in spared
    ]


def _present(tables: Nft, attachment: Attachment, handles: Sequence[int] | None) -> list[FoundRule]:
    """Return the attachment's rules: those noted, or, where the note is missing or stale, those found."""
    noted = _noted(tables, attachment, handles)
    if noted is not None:
        return noted
    prefix = attachment_hash(*attachment)
    return [each for each in tables.rules(TABLE, CHAIN) if each.comment.startswith(prefix)]


def _noted(tables: Nft, attachment: Attachment, handles: Sequence[int] | None) -> list[FoundRule] | None:
    if handles is None:
        return None
    prefix = attachment_hash(*attachment)
    return tables.find(TABLE, CHAIN, handles, lambda text: text.startswith(prefix))
