"""The check of what source MAC address a container's frames have (`macspoofchk`)."""

from __future__ import annotations

from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import notes
from cni_plugins.kernel.link import parse_mac
from cni_plugins.kernel.nft import Nft, converse
from cni_plugins.kernel.nftbatch import MAX_COMMENT, MAX_NAME, Batch, Chain
from cni_plugins.kernel.nftexpr import compared, interface
from cni_plugins.rules.spoofcheck import (
    ENTRANCE,
    TABLE,
    chain,
    comment,
    entrance_rule,
    mac_chain,
    own_rules,
)
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, name_too_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.nft import FoundRule
    from cni_plugins.spec.request import Request

    Attachment = tuple[str, str, str]

_KIND = notes.SPOOFCHECK


def add(request: Request, port: str, mac: str) -> None:
    """Drop what comes in by a bridge port with another source address than the container's.

    Args:
        request: the ADD.
        port: the host's end of the container's link.
        mac: the address of the container's interface.

    Raises:
        InvalidEnvironmentError: the container's id is too long for a chain's name.
        OSError: the kernel refused the rules.
    """
    attachment = request.network, request.container_id, request.ifname
    if not _can_exist(attachment):
        raise name_too_long(request.container_id, "the chain of macspoofchk")
    address = parse_mac(mac)
    # GC goes by the notes: the chains do not name their network.
    with notes.begin(_KIND, attachment) as note, Nft() as tables:
        older = notes.handles_in(note.older)
        handles = tables.change(lambda: _addition(tables, attachment, port, address, older))
        note.fill([str(handle) for handle in handles[-1:]])


def remove(request: Request) -> None:
    """Remove an attachment's chains and what enters them; nothing there is no error.

    The table and its base chain stay, since others use them too.

    Raises:
        OSError: the kernel refused.
    """
    _remove((request.network, request.container_id, request.ifname))


def check(request: Request, port: str, mac: str) -> None:
    """Compare the kernel's rules with those that `add` makes.

    Raises:
        CheckFailedError: one is missing.
        OSError: the kernel refused to say.
    """
    attachment = request.network, request.container_id, request.ifname
    address = parse_mac(mac)
    checks = mac_chain(*attachment[1:])
    entrances: list[FoundRule] = []
    jumps, rules = entrances, entrances
    if _can_exist(attachment):
        with Nft() as tables:
            entrances = _entrances(tables, attachment)
            jumps = tables.rules(TABLE, chain(*attachment[1:]))
            rules = tables.rules(TABLE, checks)
    if not any(interface(port) in compared(rule.expressions) for rule in entrances) or not jumps:
        raise CheckFailedError(f"frames from {port} are not checked: its rule in {ENTRANCE.name} is missing")
    if len(rules) != 2 or compared(rules[0].expressions) != [address]:  # one passes, one drops
        raise CheckFailedError(f"the nftables chain {checks} does not let just {mac} pass")


def gc(request: Request, valid: set[tuple[str, str]]) -> None:
    """Remove the chains of the network's attachments, except some.

    Chains do not name their network, so that only attachments made by this suite are known to be of it.

    Args:
        request: the GC.
        valid: the container ids and interface names of attachments that stay.

    Raises:
        CNIError: some could not be removed; the others are.
    """
    teardown = Teardown()
    for attachment in notes.attachments(_KIND):
        if attachment[0] == request.network and attachment[1:] not in valid:
            teardown.step(_collect, attachment)
    teardown.finish()


def _collect(attachment: Attachment) -> None:
    _remove(attachment)
    skel.removed(attachment[0], f"the source address check of {' '.join(attachment[1:])}")


def _can_exist(attachment: Attachment) -> bool:
    """Tell whether the kernel takes the names of an attachment's chains."""
    return len(mac_chain(*attachment[1:]).encode("utf-8", "surrogateescape")) <= MAX_NAME


def _remove(attachment: Attachment) -> None:
    tables = converse() if _can_exist(attachment) else None
    if tables is not None:
        with tables:
            tables.change(lambda: _removal(tables, attachment))
    notes.remove(_KIND, attachment)


def _addition(tables: Nft, attachment: Attachment, port: str, mac: bytes, older: list[int] | None) -> Batch:
    batch = Batch()
    batch.add_table(TABLE)
    batch.add_chain(TABLE, ENTRANCE)
    for name in (chain(*attachment[1:]), mac_chain(*attachment[1:])):
        batch.add_chain(TABLE, Chain(name))
        batch.flush_chain(TABLE, name)
    for each in _noted(tables, attachment, older) or []:
        batch.delete_rule(TABLE, ENTRANCE.name, each.handle)
    for rule in own_rules(*attachment[1:], mac):
        batch.add_rule(TABLE, rule)
    batch.add_rule(TABLE, entrance_rule(*attachment[1:], port))
    return batch


def _removal(tables: Nft, attachment: Attachment) -> Batch:
    batch = Batch()
    for each in _entrances(tables, attachment):
        batch.delete_rule(TABLE, ENTRANCE.name, each.handle)
    for name in (chain(*attachment[1:]), mac_chain(*attachment[1:])):
        if tables.chain_use(TABLE, name) is not None:
            batch.delete_chain(TABLE, name)
    return batch


def _entrances(tables: Nft, attachment: Attachment) -> list[FoundRule]:
    """Return the rules that send frames to the attachment's chain: the one noted, or those found."""
    noted = _noted(tables, attachment, notes.handles(_KIND, attachment))
    if noted is not None:
        return noted
    text = comment(*attachment[1:])[:MAX_COMMENT]
    entered = chain(*attachment[1:]).encode("utf-8", "surrogateescape") + b"\0"
    # A comment that is cut can be another's, too.
    return [
        each
        for each in tables.rules(TABLE, ENTRANCE.name)
        if each.comment == text and entered in each.expressions
    ]


def _noted(tables: Nft, attachment: Attachment, handles: list[int] | None) -> list[FoundRule] | None:
    if handles is None:
        return None
    text = comment(*attachment[1:])[:MAX_COMMENT]
    return tables.find(TABLE, ENTRANCE.name, handles, lambda found: found == text)
