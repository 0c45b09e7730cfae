"""Builds Kubernetes' control plane from Debian's source package: `python -m integration.kube.build FOLDER`.

Debian has no package of the servers, but the source of them, and the Go that builds it. It takes some minutes
of two cores and 5 GB while it lasts, so it is built once, outside of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from integration.suite import ROOT

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubelet")
DEBIAN = (sys.executable, os.path.join(ROOT, "build/debian.py"))
_PACKAGE = "k8s.io/kubernetes"


def run(*command: str, cwd: str, **environment: str) -> None:
    """Run a step at the lowest priority; its output is shown only when it fails.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        ["nice", "-n", "19", *command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def fetch(work: str) -> str:
    """Download and unpack the source; return its folder, which is where Go looks for the package."""
    target = os.path.join(work, "go/src", _PACKAGE)
    os.makedirs(os.path.dirname(target))
    run(*DEBIAN, "source", target, "kubernetes", cwd=work)
    return target


def build(folder: str) -> None:
    """Put the programs into a folder, from which they take their names when all are there.

    Raises:
        SystemExit: a step failed, and said why.
    """
    work = f"{folder}.{os.getpid()}.work"
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    try:
        print("kubernetes: downloading the source …", flush=True)
        source = fetch(work)
        go = {
            "GOPATH": os.path.join(work, "go"),
            "GOCACHE": os.path.join(work, "cache"),
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
        }
        print("kubernetes: generating …", flush=True)
        run("make", "generated_files", cwd=source, **go)
        print("kubernetes: building …", flush=True)
        made = os.path.join(work, "bin")
        packages = [f"{_PACKAGE}/cmd/{program}" for program in PROGRAMS]
        run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", f"{made}/", *packages, cwd=source, **go)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(made, folder)
    finally:
        run("chmod", "-R", "u+w", work, cwd=os.path.dirname(work))  # Go's cache is read-only
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    build(os.path.abspath(sys.argv[1]))
