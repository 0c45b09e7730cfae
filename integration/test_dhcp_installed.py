"""`dhcp daemon` as its systemd units start it, from /opt/cni/bin."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from integration.checks import address_of, pods
from integration.dhcp import SOCKET, answers, dnsmasq, ended, lan, leased, network
from integration.suite import ROOT
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

BIN = "/opt/cni/bin"
BUNDLED = f"{BIN}/.cni-runtime/current/systemd"


def install(node: Node) -> str:
    """Put the suite where runtimes look for it; return the folder of its units."""
    if os.path.isdir(f"{node.plugins}/cni-runtime"):
        command = [sys.executable, "-m", "cni_plugins.install", "--bundle", node.plugins, BIN]
        node.run(command, env={"PYTHONPATH": ROOT})
        return node.path(BUNDLED)
    os.makedirs(node.path(os.path.dirname(BIN)), exist_ok=True)
    node.run(["ln", "-sfn", node.plugins, BIN])
    return f"{ROOT}/ipam/dhcp/systemd"


def setting(path: str, key: str) -> str:
    """Return what a unit says of a key."""
    with open(path, encoding="utf-8") as file:
        (found,) = [line.partition("=")[2].strip() for line in file if line.startswith(f"{key}=")]
    return found


def test_the_units_start_what_is_installed(node: Node) -> None:
    lan(node)
    conf = network()
    units = install(node)
    assert setting(f"{units}/cni-dhcp.socket", "ListenStream") == SOCKET
    start = shlex.split(setting(f"{units}/cni-dhcp.service", "ExecStart"))
    with dnsmasq(node):
        # systemd gives a service neither our PATH nor a terminal.
        process = node.popen(start, env={})
        until(lambda: answers(node))
        (result,) = pods(node, conf, "c1", plugins=BIN)
        assert set(leased(node)) == {address_of(result)}
        install(node)  # an upgrade, from under the daemon
        node.delete("bridge", conf, netns="c1", plugins=BIN)
        until(lambda: not leased(node))
        ended(process, kill=False)
        assert process.returncode == 0
