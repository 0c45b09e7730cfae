"""What an ADD of portmap notes for its DEL, as lines of text."""

from __future__ import annotations

from cni_plugins.address import format_address, parse_address
from cni_plugins.rules.portmap import IPTABLES, NFTABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.rules.portmap import Mapping

_FAMILIES = (4, 6)
_MAX_PORT = 0xFFFF
_MAX_HANDLE = 0xFFFF_FFFF_FFFF_FFFF
_MAX_NAME = 255


class Note:
    """What was made for an attachment.

    Attributes:
        backend: "nftables" or "iptables"; empty: the ADD came not to its end, and either may have rules.
        addresses: the container's, by family.
        udp: forwarded UDP ports, each with the host's address it is for, or None for any.
        rules: nftables rules: family, chain, handle.
    """

    __slots__ = ("addresses", "backend", "rules", "udp")

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.addresses: dict[int, bytes] = {}
        self.udp: list[tuple[int, bytes | None]] = []
        self.rules: list[tuple[int, str, int]] = []

    def lines(self) -> list[str]:
        """Return its text; last of all the backend, without which the rest says nothing of rules."""
        return [
            *[f"address {format_address(address)}" for address in self.addresses.values()],
            *[f"udp {port} {format_address(host) if host else 'any'}" for port, host in self.udp],
            *[f"rule {version} {chain} {handle}" for version, chain, handle in self.rules],
            *([f"backend {self.backend}"] if self.backend else []),
        ]

    @classmethod
    def parse(cls, lines: list[str] | None) -> Note | None:
        """Read a note; None when there is none, or none that can be understood: then DEL searches."""
        note = cls("")
        try:
            for line in lines or []:
                key, *words = line.split(" ")
                note._take(key, words)
        except (ValueError, IndexError):
            return None
        return note if note.backend or note.addresses else None

    def _take(self, key: str, words: list[str]) -> None:
        if key == "backend":
            self.backend = words[0]
            if self.backend not in (NFTABLES, IPTABLES):
                raise ValueError("no backend of ours")
        elif key == "address":
            address = parse_address(words[0])
            self.addresses[4 if len(address) == 4 else 6] = address
        elif key == "udp":
            port = _number(words[0], _MAX_PORT)
            self.udp.append((port, None if words[1] == "any" else parse_address(words[1])))
        elif key == "rule":
            version, chain, handle = _number(words[0], 6), words[1], _number(words[2], _MAX_HANDLE)
            if version not in _FAMILIES or len(chain) > _MAX_NAME:
                raise ValueError("no rule of ours")
            self.rules.append((version, chain, handle))


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(most)) or int(text) > most:
        raise ValueError(f"{text!r} is no number up to {most}")
    return int(text)


def udp_targets(mappings: list[Mapping]) -> list[tuple[int, bytes | None]]:
    """Return the UDP ports among mappings, each with the host's address it is for, or None for any."""
    return [(mapping.host_port, mapping.host_ip) for mapping in mappings if mapping.protocol == "udp"]
