"""The modules that the VM's initramfs loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.vm.kernel import Kernel

if TYPE_CHECKING:
    from pathlib import Path

# As depmod writes it: what a module needs, the nearest first.
DEPENDENCIES = """\
kernel/ring.ko:
kernel/virtio.ko: kernel/ring.ko
kernel/net/9pnet.ko:
kernel/net/9pnet_virtio.ko: kernel/net/9pnet.ko kernel/virtio.ko kernel/ring.ko
kernel/overlay.ko:
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    modules = tmp_path / "lib/modules/6.1.0-0-amd64"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(DEPENDENCIES)
    return Kernel(str(tmp_path))


def test_the_release_is_what_was_unpacked(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.release == "6.1.0-0-amd64"
    assert kernel.image == f"{tmp_path}/boot/vmlinuz-6.1.0-0-amd64"


def test_what_a_module_needs_loads_before_it_and_once(kernel: Kernel) -> None:
    top = f"{kernel.modules}/{kernel.release}/kernel"
    assert kernel.files("virtio", "9pnet_virtio", "overlay") == [
        f"{top}/ring.ko",
        f"{top}/virtio.ko",
        f"{top}/net/9pnet.ko",
        f"{top}/net/9pnet_virtio.ko",
        f"{top}/overlay.ko",
    ]
