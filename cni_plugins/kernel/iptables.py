"""iptables and ip6tables, through their own programs: only they know which of their two kernels is in use.

A change is one `iptables-restore --noflush`: all of it, or nothing (iptables-restore(8)). `-C` lines in its
input make it conditional on what is there, so that the usual ADD needs one process.
"""

from __future__ import annotations

import posix

from cni_plugins.kernel import files, programs
from cni_plugins.kernel.programs import ProgramFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LOCK = "/run/cni/iptables.lock"
_NO_SUCH_CHAIN = 1
_LEGACY_TABLES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


def lock() -> files.Lock:
    """Keep other processes of ours out, while one looks what is missing and adds it; a context manager."""
    try:
        return files.Lock(_LOCK)
    except FileNotFoundError:
        files.make_directory(_LOCK.rpartition("/")[0])
        return files.Lock(_LOCK)


def problem(family: int, table: str = "nat", variant: str = "") -> str:
    """Return why a family's program cannot read a table: it is not installed, or what it says; else nothing.

    Args:
        family: 4 or 6.
        table: "nat" or "filter".
        variant: "nft" or "legacy": the programs for that kernel interface; empty: the machine's choice.

    Raises:
        OSError: it cannot be started.
    """
    try:
        programs.run(_name(family, variant), ("--wait", "-t", table, "-S", "OUTPUT"))
    except (ProgramFailed, FileNotFoundError) as error:
        return " ".join(str(error.strerror).split())
    return ""


def available(family: int, table: str = "nat", variant: str = "") -> bool:
    """Tell whether a family's programs are installed and a table can be read; the arguments are `problem`'s.

    Raises:
        OSError: they cannot be started.
    """
    return not problem(family, table, variant)


def restore(family: int, table: str, lines: Sequence[str], variant: str = "") -> None:
    """Change a table in one transaction that keeps what it does not name.

    Args:
        family: 4 or 6.
        table: "nat" or "filter".
        lines: in iptables-restore's own form. `:CHAIN - [0:0]` makes a chain, or empties it; `-A`, `-I`,
            `-D`, `-X` change; `-C` makes all fail unless the rule is there.
        variant: as of `available`.

    Raises:
        ProgramFailed: it was refused, and nothing has changed.
        FileNotFoundError: the program is not installed.
    """
    text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
    programs.run(f"{_name(family, variant)}-restore", ("--noflush", "--wait"), text.encode())


def holds(family: int, table: str, rules: Sequence[str]) -> bool:
    """Tell whether a table has all of some rules.

    Args:
        family: 4 or 6.
        table: "nat" or "filter".
        rules: each as a `-C` line without the `-C`: the chain, then the rule.

    Raises:
        FileNotFoundError: the program is not installed.
    """
    try:
        restore(family, table, [f"-C {rule}" for rule in rules])
    except ProgramFailed:
        return False
    return True


def rules(family: int, table: str, chain: str = "", variant: str = "") -> list[str]:
    """Return a chain's rules, or a whole table's, as `iptables -S` prints them; none of a missing chain.

    Raises:
        ProgramFailed: the table cannot be read.
        FileNotFoundError: the program is not installed.
    """
    try:
        said = programs.run(
            _name(family, variant), ("--wait", "-t", table, "-S", *([chain] if chain else []))
        )
    except ProgramFailed as error:
        if chain and error.status == _NO_SUCH_CHAIN:
            return []
        raise
    return said.decode("utf-8", "replace").splitlines()


def legacy_in_use(family: int, table: str) -> bool:
    """Tell whether the older kernel interface, x_tables, has a table; nothing is loaded by asking."""
    try:
        fd = posix.open(_LEGACY_TABLES[family], posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return table in posix.read(fd, 4096).decode().split()
    finally:
        posix.close(fd)


def _name(family: int, variant: str = "") -> str:
    name = "ip6tables" if family == 6 else "iptables"
    return f"{name}-{variant}" if variant else name
