"""The tests on Debian's kernel: `python -m integration.vm KERNEL [PYTEST-ARGUMENT…]`.

`python -m integration.vm KERNEL bench [ARGUMENT…]` runs `python -m bench` there instead; bench.cluster, too.

KERNEL is the folder of an unpacked kernel (integration/vm/kernel.py). Without arguments for pytest, the tests
marked `kernel` run. A test is not skipped there because a feature is missing: it fails.
"""

from __future__ import annotations

import os
import sys
import tempfile

from integration.node import PATH
from integration.vm import machine
from integration.vm.kernel import Kernel

TIMEOUT = 900
KUBE_TIMEOUT = 1500
"""Seconds; a control plane takes minutes to start on a machine that has other work."""
DEFAULT = ("-m", "kernel and not kube", "integration")


def main() -> int:
    """Run pytest, or the benchmark, in a machine of its own; return its exit status."""
    folder, *arguments = sys.argv[1:]
    kernel = Kernel(os.path.realpath(folder))  # a link would lead elsewhere in the machine
    env = {"PATH": PATH, "HOME": "/root", "COLUMNS": "110", "PYTHONUNBUFFERED": "1", "NO_SKIP": "1"}
    env["PYTEST_TIMEOUT"] = "900" if "KUBE_BIN" in os.environ else "300"  # all takes ten times as long there
    if "SUITE_BIN" in os.environ:
        env["SUITE_BIN"] = os.environ["SUITE_BIN"]
        env["BIN"] = env["SUITE_BIN"]  # what bench calls it
    env |= {name: os.environ[name] for name in ("FLANNELD", "KUBE_BIN") if name in os.environ}
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(arguments or DEFAULT)]
        if arguments[:1] in (["bench"], ["bench.cluster"]):
            command = [sys.executable, "-m", *arguments]
        return machine.run(
            kernel, command, env, results, KUBE_TIMEOUT if "KUBE_BIN" in os.environ else TIMEOUT
        )


if __name__ == "__main__":
    sys.exit(main())
