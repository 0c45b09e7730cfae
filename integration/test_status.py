"""STATUS: each thing an ADD needs is taken away for real, and named (CNI 1.1.0, section 2, "STATUS")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, ipam, ptp, refusal

if TYPE_CHECKING:
    from integration.node import Node

NOT_AVAILABLE = 50
PLUGINS = [("bridge", bridge()), ("ptp", ptp())]


def status_without_rights(node: Node, plugin: str, conf: dict[str, Any]) -> Any:
    """Ask a plugin that may not change the network; return its error object."""
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": node.plugins}
    command = ["setpriv", "--bounding-set=-net_admin", f"{node.plugins}/{plugin}"]
    done = node.run(command, env, json.dumps({"type": plugin, **conf}).encode(), check=False)
    assert done.returncode == 1
    return json.loads(done.stdout)


@pytest.mark.parametrize(("plugin", "conf"), PLUGINS, ids=["bridge", "ptp"])
def test_nftables_that_cannot_be_used(node: Node, plugin: str, conf: dict[str, Any]) -> None:
    answer = status_without_rights(node, plugin, {**conf, "ipMasq": True})
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "ipMasq needs nftables, which cannot be used: Operation not permitted"
    assert "CAP_NET_ADMIN" in answer["details"]
    assert node.cni("STATUS", plugin, {**conf, "ipMasq": True}) == (0, None)


def test_a_source_check_that_cannot_be_made(node: Node) -> None:
    answer = status_without_rights(node, "bridge", bridge(macspoofchk=True))
    assert (answer["code"], "macspoofchk needs nftables" in answer["msg"]) == (NOT_AVAILABLE, True)


@pytest.mark.parametrize(("plugin", "conf"), PLUGINS, ids=["bridge", "ptp"])
def test_iptables_that_is_not_installed(node: Node, plugin: str, conf: dict[str, Any]) -> None:
    conf = {**conf, "ipMasq": True, "ipMasqBackend": "iptables"}
    assert node.cni("STATUS", plugin, conf) == (0, None)
    node.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/sbin"])
    answer = refusal(node, "STATUS", plugin, conf)
    assert (answer["code"], answer["msg"]) == (
        NOT_AVAILABLE,
        "ipMasq needs iptables, which cannot be used",
    )


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_an_ipam_plugin_that_is_missing(node: Node, plugin: str) -> None:
    answer = refusal(node, "STATUS", plugin, bridge(ipam={"type": "no-local"}))
    assert answer["code"] == NOT_AVAILABLE
    assert "failed to find plugin 'no-local'" in answer["msg"]
    assert "install it" in answer["details"]


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_a_folder_that_cannot_be_written(node: Node, plugin: str) -> None:
    node.run(["mkdir", "/run/full"])
    node.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run/full"])
    answer = refusal(node, "STATUS", plugin, bridge(ipam=ipam(dataDir="/run/full")))
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "host-local: cannot write in /run/full: Read-only file system"
