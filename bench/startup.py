"""`python -m bench.startup`: what starting costs, the numbers that comments in the code quote.

Every program is started in turn with the others, many times; the table shows medians, and for an import what
it adds to an empty program.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from statistics import median
from typing import TYPE_CHECKING

from bench.__main__ import ROOT
from bench.process import Call, peak_of, run_all
from integration.node import PEER

if TYPE_CHECKING:
    from bench.process import Job

TIMES = 40
STDIN = b'{"cniVersion": "1.0.0"}'
# The packages of the venv, without the start-up files that `site` would run.
FIND_PACKAGES = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); "
# The Rust extension alone: an empty package in the place of pydantic_core's own.
RUST = (
    "p = type(sys)('pydantic_core'); p.__path__ = [sys.path[-1] + '/pydantic_core']; "
    "sys.modules['pydantic_core'] = p; import pydantic_core._pydantic_core"
)
IMPORTS = (
    "os",
    "_json",
    "json",
    "re",
    "typing",
    "enum",
    "dataclasses",
    "importlib",
    "_socket",
    "socket",
    "struct",
    "_ctypes",
    "ctypes",
    "ipaddress",
    "pathlib",
    "subprocess",
    "asyncio",
    "pydantic",
    "pyroute2",
)


def main() -> int:
    """Print the table."""
    bundle = os.path.abspath(os.environ.get("BIN") or f"{ROOT}/dist/cni")
    peer = os.path.abspath(os.environ.get("PEER_BIN") or PEER)
    calls = {
        f"{whose} {plugin}, VERSION": _version(f"{folder}/{plugin}")
        for whose, folder in (("our", bundle), ("the peer's", peer))
        for plugin in ("bridge", "host-local")
        if os.access(f"{folder}/{plugin}", os.X_OK)
    }
    empty = "python3 -I -S -c pass"
    calls[empty] = _python("pass")
    packages = _python(FIND_PACKAGES)
    imports = {f"import {name}": _python(f"{FIND_PACKAGES}import {name}") for name in IMPORTS}
    imports["import pydantic_core._pydantic_core alone"] = _python(FIND_PACKAGES + RUST)
    times = _race({**calls, **imports, "": packages})
    width = max(map(len, imports))
    print(f"{'program':{width}}  {'ms':>6}  {'peak MB':>7}")
    for name, call in calls.items():
        print(f"{name:{width}}  {times[name]:6.1f}  {peak_of(_once(call)):7.1f}")
    print(f"\n{'adds to an empty program':{width}}  {'ms':>6}  {'peak MB':>7}")
    base_peak = peak_of(_once(packages))
    for name, call in imports.items():
        print(f"{name:{width}}  {times[name] - times['']:6.1f}  {peak_of(_once(call)) - base_peak:7.1f}")
    return 0


def _version(executable: str) -> Call:
    return Call(executable, {"CNI_COMMAND": "VERSION"}, STDIN)


def _python(code: str) -> Call:
    return Call(sys.executable, {}, b"", ("-I", "-S", "-c", code))


def _race(calls: dict[str, Call]) -> dict[str, float]:
    walls: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TIMES):
        for name, call in calls.items():
            walls[name].append(run_all([_once(call)])[0].wall)
    return {name: median(wall) for name, wall in walls.items()}


def _once(call: Call) -> Job:
    yield call


if __name__ == "__main__":
    sys.exit(main())
