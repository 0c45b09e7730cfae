"""The table, for a terminal, for the README and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.rows import Line

HEADINGS = (
    "network",
    "verb",
    "ours ms",
    "peer ms",
    "ratio",
    "target",
    "",
    "CPU ms ours",
    "peer",
    "peak MB ours",
    "peer",
)
_TEXT_COLUMNS = 2


def text(lines: list[Line]) -> str:
    """Return a table aligned for a terminal."""
    table = [list(HEADINGS), *_cells(lines)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    out = []
    for row in table:
        cells = [
            cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
    out.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(out)


def markdown(lines: list[Line]) -> str:
    """Return the table in Markdown."""
    align = ["---" if column < _TEXT_COLUMNS else "--:" for column in range(len(HEADINGS))]
    rows = [list(HEADINGS), align, *_cells(lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    """Return the lines as data for JSON."""
    return [{**asdict(line), "ratio": line.ratio, "missed": line.missed} for line in lines]


def _cells(lines: list[Line]) -> list[list[str]]:
    out = []
    last = ""
    for line in lines:
        mark = "" if line.target is None else "✗" if line.missed else "✓"
        out.append(
            [
                line.title if line.title != last else "",
                line.verb,
                _number(line.ours.wall),
                _number(line.peer.wall),
                f"{line.ratio:.2f}",
                "" if line.target is None else f"≤ {line.target}",
                mark,
                _number(line.ours.cpu),
                _number(line.peer.cpu),
                f"{line.ours.peak:.0f}",
                f"{line.peer.peak:.0f}",
            ]
        )
        last = line.title
    return out


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
