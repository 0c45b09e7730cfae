"""tap: its options, whose it is, frames through it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.kernel import selinux, tuntap
from integration.checks import GW4, V4, address_of, check, ipam, mac_bytes, refusal, reservations
from integration.sublinks import data_of
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.node import Node

MAC = "02:00:00:00:00:01"
TUNSETIFF, TUNSETOWNER, TAP, MULTI_QUEUE = 0x400454CA, 0x400454CC, 0x1002, 0x100
"""linux/if_tun.h; a tap without a header before each frame."""
OPEN = f"""
import fcntl, os, struct
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, {TUNSETIFF}, struct.pack("16sH22x", b"eth0", {TAP}))
"""


def network(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", **keys}


def test_a_tap_has_its_options(node: Node) -> None:
    node.netns("c1")
    node.exec("c1", "ip", "link", "add", "br0", "type", "bridge")
    conf = {"cniVersion": "1.1.0", "name": "net", "multiQueue": True, "owner": 54321, "group": 0}
    conf |= {"mtu": 1400, "mac": "02:00:00:00:00:01", "bridge": "br0"}
    result = node.add("tap", conf, netns="c1")
    inside = node.links("c1")["eth0"]
    assert (inside["mtu"], inside["address"], inside["master"]) == (1400, "02:00:00:00:00:01", "br0")
    data = data_of(node, "c1")
    assert (data["type"], data["multi_queue"], data["persist"]) == ("tap", True, True)
    assert (str(data["user"]), data["group"]) == ("54321", "root")
    assert not check(node, "tap", conf, result)
    for key, value in (("multiQueue", False), ("owner", 7), ("group", 7), ("bridge", "br9")):
        assert check(node, "tap", {**conf, key: value}, result)
    assert refusal(node, "ADD", "tap", conf, netns="c1", container="c2")["code"] == 107
    node.delete("tap", conf, netns="c1")
    assert set(node.links("c1")) == {"lo", "br0"}
    node.exec("c1", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for bridge, said in (("v0", "failed to put 'eth0' into veth 'v0'"), ("br9", "'br9'")):
        assert said in refusal(node, "ADD", "tap", network(bridge=bridge), netns="c1")["msg"]
        assert "eth0" not in node.links("c1")
    plain = {"cniVersion": "1.1.0", "name": "net", "ipam": ipam(V4)}
    result = node.add("tap", plain, netns="c1")
    assert not check(node, "tap", plain, result)
    assert node.cni("STATUS", "tap", plain) == (0, None)
    node.delete("tap", plain, netns="c1")
    assert reservations(node) == set()


@contextmanager
def opened(node: Node, flags: int = 0) -> Iterator[int]:
    """Open the container's tap, as a virtual machine does."""
    with node.entered("c1"):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"eth0", TAP | flags))
        except OSError:
            os.close(fd)
            raise
    try:
        yield fd
    finally:
        os.close(fd)


def test_frames_go_through_it(node: Node) -> None:
    node.netns("c1")
    conf = network(ipam=ipam(V4))
    result = node.add("tap", conf, netns="c1")
    own = result["interfaces"][0]["mac"]
    machine = mac_bytes("02:00:00:00:00:99")
    target = bytes(map(int, address_of(result).split(".")))
    sender = bytes(map(int, GW4.split(".")))
    question = b"\0\1\x08\0\6\4\0\1" + machine + sender + bytes(6) + target
    answer = machine + mac_bytes(own) + b"\x08\x06" + b"\0\1\x08\0\6\4\0\2" + mac_bytes(own) + target
    with opened(node) as fd:
        deadline = time.monotonic() + PATIENCE
        frame = b""
        # The kernel answers once it has seen that the link has a carrier, by its being open.
        while not frame.startswith(answer):
            assert time.monotonic() < deadline
            os.write(fd, b"\xff" * 6 + machine + b"\x08\x06" + question)
            if select.select([fd], [], [], 0.1)[0]:
                frame = os.read(fd, 2000)


def test_several_queues(node: Node) -> None:
    node.netns("c1")
    node.add("tap", network(multiQueue=True), netns="c1")
    with opened(node, MULTI_QUEUE), opened(node, MULTI_QUEUE):
        queues = node.exec("c1", "sh", "-c", "mount -t sysfs none /mnt && ls /mnt/class/net/eth0/queues")
    assert {"rx-0", "rx-1"} <= set(queues.split())
    node.delete("tap", network(), netns="c1")
    node.add("tap", network(), netns="c1")
    with opened(node), pytest.raises(OSError, match="busy"), opened(node):
        pytest.fail("a single queue is opened once")


def can_open(node: Node, *ids: str) -> bool:
    """Tell whether a process without capabilities can open the tap."""
    command = ["setpriv", *ids, "--clear-groups", "--bounding-set=-all", "/usr/bin/python3", "-ISc", OPEN]
    done = node.run(command, netns="c1", check=False)
    assert done.returncode == 0 or b"Operation not permitted" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(
    ("kind", "ids"), [("owner", ("--reuid={}", "--regid=7")), ("group", ("--reuid=7", "--regid={}"))]
)
def test_who_may_open_it(node: Node, kind: str, ids: tuple[str, str]) -> None:
    node.run(["mount", "-t", "tmpfs", "dev", "/dev/net"])
    node.run(["mknod", "-m", "666", "/dev/net/tun", "c", "10", "200"])
    node.netns("c1")
    conf = network(**{kind: 54321})
    result = node.add("tap", conf, netns="c1")
    assert can_open(node, *(each.format(54321) for each in ids))
    assert not can_open(node, *(each.format(54322) for each in ids))
    assert not check(node, "tap", conf, result)
    if kind == "owner":
        with opened(node) as fd:
            fcntl.ioctl(fd, TUNSETOWNER, 7)
        assert "owner 54321" in check(node, "tap", conf, result)


@pytest.mark.parametrize(
    ("keys", "args", "expected"),
    [
        ({"mac": MAC}, "", MAC),
        ({"mac": MAC}, "IgnoreUnknown=1;MAC=02:00:00:00:00:02", "02:00:00:00:00:02"),
        (
            {"mac": MAC, "runtimeConfig": {"mac": "02:00:00:00:00:03"}},
            "IgnoreUnknown=1;MAC=02:00:00:00:00:02",
            "02:00:00:00:00:03",
        ),
    ],
    ids=["configuration", "CNI_ARGS", "runtimeConfig"],
)
def test_the_most_particular_mac_is_taken(node: Node, keys: dict[str, Any], args: str, expected: str) -> None:
    node.netns("c1")
    result = node.add("tap", network(**keys), netns="c1", args=args)
    assert node.links("c1")["eth0"]["address"] == expected
    assert result["interfaces"][0]["mac"] == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mtu 1300", "MTU"),
        ("address 02:00:00:00:00:09", "02:00:00:00:00:09"),
        ("down", "down"),
        ("nomaster", "no port of bridge"),
    ],
)
def test_check_finds_what_is_broken(node: Node, change: str, said: str) -> None:
    node.netns("c1")
    node.exec("c1", "ip", "link", "add", "br0", "type", "bridge")
    conf = network(mtu=1400, mac=MAC, bridge="br0")
    result = node.add("tap", conf, netns="c1")
    assert check(node, "tap", conf, result) == ""
    node.exec("c1", "ip", "link", "set", "eth0", *change.split())
    assert said in check(node, "tap", conf, result)


@pytest.mark.parametrize("multi_queue", [False, True])
def test_with_a_context_ip_makes_the_same(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multi_queue: bool
) -> None:
    """What decides is a policy; here a file takes the label, and the device is the kernel's own."""
    label = tmp_path / "exec"
    label.touch()
    monkeypatch.setattr(selinux, "_EXEC", str(label))
    monkeypatch.setattr(selinux, "_ENFORCE", "/dev/null")
    with node.entered():
        for name, context in (("tap0", ""), ("tap1", "system_u:object_r:tap_t:s0")):
            tuntap.create(name, owner=4321, group=54, multi_queue=multi_queue, selinux_context=context)
    links = node.links()
    assert links["tap1"]["linkinfo"] == links["tap0"]["linkinfo"]
    assert label.read_text() == "system_u:object_r:tap_t:s0"


def test_a_context_is_no_matter_without_selinux(node: Node) -> None:
    assert not selinux.enabled()
    node.netns("c1")
    node.add("tap", network(selinuxContext="system_u:object_r:tap_t:s0"), netns="c1")
    assert "eth0" in node.links("c1")


def test_a_context_that_the_kernel_refuses(node: Node) -> None:
    """As one without SELinux does with any."""
    node.netns("c1")
    context = "system_u:object_r:tap_t:s0"
    node.run(["mount", "-t", "tmpfs", "fs", "/sys/fs"])
    node.run(["mkdir", "/sys/fs/selinux"])
    node.run(["touch", "/sys/fs/selinux/enforce"])
    conf = network(selinuxContext=context)
    error = refusal(node, "ADD", "tap", conf, netns="c1")
    assert (error["code"], f"in the SELinux context {context!r}" in error["msg"]) == (100, True)
    assert set(node.links("c1")) == {"lo"}
    assert node.cni("STATUS", "tap", conf) == (0, None)
    node.run(["mount", "--bind", "/dev/null", "/usr/bin/ip"])
    assert refusal(node, "STATUS", "tap", conf)["details"] == "install iproute2"
