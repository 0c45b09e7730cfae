"""Nothing of a containerd may stay on the machine, however its test ends."""

from __future__ import annotations
