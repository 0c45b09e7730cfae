"""What a program of the bundle runs first: it gets back the environment and the name that its caller gave it.

A run-time hook of PyInstaller, named in cni.spec and flanneld.spec. program.c says what it has put aside, and
why. Whatever the program starts afterwards has the caller's environment, with no need to think of it there.
"""

from __future__ import annotations

import os
import sys

ASIDE = b"_CNI_ASIDE_"  # program.c has these two names as well
ARGV0 = b"_CNI_ARGV0"
OURS = (b"LD_", b"_PYI_")
"""Beginnings of names that are the bundle's own here: the caller's variables of such names are put aside."""


def restore() -> None:
    """Make os.environ and sys.argv[0] what they would be if the program had been started without a bundle."""
    environment = os.environb
    for name in list(environment):
        if name.startswith(OURS):
            del environment[name]
    for name in list(environment):
        if name.startswith(ASIDE):
            environment[name.removeprefix(ASIDE)] = environment.pop(name)
    if ARGV0 in environment:
        sys.argv[0] = os.fsdecode(environment.pop(ARGV0))


restore()
