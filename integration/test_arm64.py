"""The plugins' executable for arm64, under qemu's emulation of programs (qemu-aarch64-static).

That emulation does not pass network namespaces and NS_GET_NSTYPE through. So what needs them is not run here;
the codecs are, in a program that is built like the plugins' executable.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cni_plugins.spec.result import VERSIONS
from integration import executables
from integration.executables import QEMU, Root
from tests import codec_program, json_module
from tests.hostile_replies import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from integration.node import Node


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> str:
    return executables.built(tmp_path_factory.mktemp("arm64"), "arm64")


@pytest.fixture
def root(node: Node, executable: str) -> Root:
    return Root(node, executable, QEMU)


def test_version_without_proc(root: Root) -> None:
    assert set(map(tuple, root.versions().values())) == {VERSIONS}
    assert not os.path.exists(f"{root.folder}/proc")


def test_addresses(root: Root) -> None:
    root.mount("/proc")
    executables.exercise_ipam(root)


def test_the_codecs_give_the_same_bytes(tmp_path: Path) -> None:
    """Byte order and alignment of netlink messages, read and written, and of JSON."""
    with open(FILE, encoding="ascii") as file:
        text = file.read()
    for document in json_module.DOCUMENTS:
        text += f"json\t{document.encode('utf-8', 'surrogatepass').hex()}\n"
    expected = codec_program.report(text).splitlines()
    assert len(expected) == len(text.splitlines()) - 2 + len(codec_program.WRITERS), "flanneld's are left out"
    program = executables.built(tmp_path, "arm64", codec_program.__name__)
    done = subprocess.run([QEMU, program], input=text.encode(), capture_output=True, check=True, env={})
    assert done.stdout.decode().splitlines() == expected
