"""What the linter finds, and how it is printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conflist.document import Document, Path

ERROR = "error"
WARNING = "warning"
_COLOURS = {ERROR: "\033[1;31m", WARNING: "\033[1;33m"}
_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake: where it is, how bad it is, what it is and what to do about it."""

    file: str
    line: int
    column: int
    severity: str
    text: str
    advice: str = ""


class Spot:
    """A value in a document, as the place of findings; `at` goes further down."""

    def __init__(self, findings: list[Finding], file: str, document: Document, path: Path = ()) -> None:
        self.findings = findings
        self.file = file
        self.document = document
        self.path = path

    def at(self, *steps: str | int) -> Spot:
        """Return the spot of a value inside this one."""
        return Spot(self.findings, self.file, self.document, (*self.path, *steps))

    def error(self, text: str, advice: str = "", *, key: bool = False) -> None:
        """Note that the configuration cannot work."""
        self._add(ERROR, text, advice, key=key)

    def warning(self, text: str, advice: str = "", *, key: bool = False) -> None:
        """Note that the configuration works, but hardly as meant."""
        self._add(WARNING, text, advice, key=key)

    def __str__(self) -> str:
        line, column = self.document.place(self.path)
        return f"{self.file}:{line}:{column}"

    def _add(self, severity: str, text: str, advice: str, *, key: bool) -> None:
        line, column = self.document.place(self.path, key=key)
        finding = Finding(self.file, line, column, severity, text, advice)
        if finding not in self.findings:
            self.findings.append(finding)


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings as plain data."""
    return [asdict(finding) for finding in findings]


def to_text(findings: Sequence[Finding], files: int, *, colour: bool) -> str:
    """Return the findings as a person reads them: a line each, its advice below, and a summary."""
    lines = []
    for finding in findings:
        place = f"{finding.file}:{finding.line}:{finding.column}:"
        severity = f"{finding.severity}:"
        if colour:
            place, severity = _BOLD + place + _PLAIN, _COLOURS[finding.severity] + severity + _PLAIN
        lines.append(f"{place} {severity} {finding.text}")
        if finding.advice:
            advice = f"    {finding.advice}"
            lines.append(_DIM + advice + _PLAIN if colour else advice)
    errors = sum(finding.severity == ERROR for finding in findings)
    warnings = len(findings) - errors
    lines.append(f"{count(files, 'file')}: {count(errors, 'error')}, {count(warnings, 'warning')}")
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the right form."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
