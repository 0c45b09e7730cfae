"""How the demo looks: steps in columns, marked and timed; colour only where a person looks."""

from __future__ import annotations

import os
import shutil
import textwrap
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WHAT_WIDTH = 50
TIME_WIDTH = 9
MIN_WIDTH, MAX_WIDTH = 90, 120
BOLD, DIM, RED, GREEN = "1", "2", "31", "32"


class StepFailedError(Exception):
    """A step did not go as it should; the message says what was seen."""


class Screen:
    """Prints to a stream; counts the steps that failed."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((MAX_WIDTH, 0)).columns if stream.isatty() else MAX_WIDTH
        self.width = max(MIN_WIDTH, min(MAX_WIDTH, columns))
        self.failures = 0
        self.steps = 0

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._line(f"\n{self._paint(BOLD, text)}")

    def show(self, command: str, output: str = "") -> None:
        """Show a command as one would type it, and what it prints if that is instructive."""
        for number, line in enumerate(textwrap.wrap(command, self.width - 6, break_on_hyphens=False)):
            self._line(self._paint(DIM, f"  {'$' if number == 0 else ' '} {line}"))
        for line in output.splitlines():
            self._line(self._paint(DIM, f"    {line}"))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns; the first row and column are names."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            line = "  ".join(cells)
            self._line(f"    {self._paint(BOLD, line) if number == 0 else line}")

    def step(self, what: str, act: Callable[[], str]) -> None:
        """Carry out one step and print its mark, what it told and its time."""
        began = perf_counter()
        problem = ""
        try:
            told = act()
        except (StepFailedError, AssertionError, OSError, ValueError) as error:
            # The steps after it show how far the damage goes.
            problem = str(error) or type(error).__name__
            told = ""
        elapsed = f"{(perf_counter() - began) * 1000:,.0f} ms"
        self.steps += 1
        self.failures += bool(problem)
        mark = self._paint(RED, "✗") if problem else self._paint(GREEN, "✓")
        room = self.width - WHAT_WIDTH - TIME_WIDTH - 6
        lines = textwrap.wrap(told, room, break_on_hyphens=False, break_long_words=False) or [""]
        time = self._paint(DIM, f"{elapsed:>{TIME_WIDTH}}")
        self._line(f"  {mark} {what:<{WHAT_WIDTH}} {lines[0]:<{room}} {time}")
        for line in lines[1:]:
            self._line(f"{'':{WHAT_WIDTH + 5}}{line}")
        for line in problem.splitlines():
            self._line(self._paint(RED, f"      {line}"))

    def summary(self, seconds: float) -> None:
        """End with a sentence."""
        if self.failures:
            self._line(self._paint(RED, f"\n{self.failures} of {self.steps} steps failed ({seconds:.1f} s)"))
        else:
            self._line(self._paint(GREEN, f"\nAll {self.steps} steps succeeded ({seconds:.1f} s)"))

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def _line(self, text: str) -> None:
        print(text.rstrip(), file=self.stream, flush=True)
