"""host-local on filesystems that refuse: full at every possible step, and read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.node import Node

DIR = "/run/ipam"
CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "ipam": {
        "type": "host-local",
        "dataDir": DIR,
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]],
    },
}


def reservations(node: Node) -> list[str]:
    """Return the addresses that are held, and the drafts of anything that were left."""
    names = node.run(["find", DIR, "-mindepth", "2", "-printf", "%P\n"]).stdout.decode().split()
    known = {"net/lock", "net/last_reserved_ip.0", "net/last_reserved_ip.1", ".index/net"}
    return sorted(set(names) - known)


@pytest.mark.parametrize("inodes", range(2, 14))
def test_a_full_filesystem(node: Node, inodes: int) -> None:
    node.run(["mkdir", DIR])
    node.run(["mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "tmpfs", DIR])
    status, answer = node.cni("ADD", "host-local", CONF, netns="/nowhere")
    if status:
        assert "No space left on device" in answer["msg"]
        assert f"{DIR}/net" in answer["msg"]
        assert reservations(node) == []
    else:
        # The index beside the reservations may have found no room; it is not needed.
        assert [name for name in reservations(node) if name.startswith("net/")] == [
            "net/10.1.2.2",
            "net/fd00::2",
        ]
    assert status == (0 if inodes > 8 else 1)
    if node.run(["test", "-d", f"{DIR}/net"], check=False).returncode == 0 and inodes > 3:
        node.delete("host-local", CONF)
        assert reservations(node) == []
    if inodes > 2:
        node.run(["mount", "-o", "remount,nr_inodes=100", DIR])
        node.add("host-local", CONF, netns="/nowhere")
        node.delete("host-local", CONF)


def test_a_filesystem_without_room_for_data(node: Node) -> None:
    node.run(["mkdir", DIR])
    node.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", DIR])
    node.add("host-local", CONF, netns="/nowhere")  # four files: four pages
    assert node.cni("STATUS", "host-local", CONF)[1]["code"] == 50
    before = reservations(node)
    status, answer = node.cni("ADD", "host-local", CONF, container="c2", netns="/nowhere")
    assert status == 1
    assert f"{DIR}/net" in answer["msg"]
    assert reservations(node) == before
    node.delete("host-local", CONF)
    assert reservations(node) == []


def test_a_read_only_filesystem(node: Node) -> None:
    node.run(["mkdir", DIR])
    node.run(["mount", "-t", "tmpfs", "tmpfs", DIR])
    node.add("host-local", CONF, netns="/nowhere")
    before = reservations(node)
    node.run(["mount", "-o", "remount,ro", DIR])
    for verb in ("ADD", "DEL"):
        status, answer = node.cni(verb, "host-local", CONF, container="c2", netns="/nowhere")
        assert status == 1
        assert "Read-only file system" in answer["msg"]
        assert f"{DIR}/net/lock" in answer["msg"]
    status, answer = node.cni("STATUS", "host-local", CONF)
    assert (status, answer["code"]) == (1, 50)
    assert f"cannot write in {DIR}/net: Read-only file system" in answer["msg"]
    assert reservations(node) == before
