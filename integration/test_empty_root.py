"""The plugins in a root that holds nothing but their executable and its names: no /lib and no C library.

The demo's list works there (conflist/examples/10-flannel.conflist), in a network namespace of the tests.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.result import VERSIONS
from demo.steps import CONFLIST, SUBNET_ENV
from integration import executables
from integration.executables import Root
from integration.portmaps import ask, cni_rules, refused, server

if TYPE_CHECKING:
    from integration.node import Node

BRIDGE = {
    "cniVersion": "1.1.0",
    "name": "net",
    "bridge": "cni7",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.7.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    },
}
MACHINE = "192.0.2.1"


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle's, or one that is built of the source."""
    given = f"{os.environ.get('SUITE_BIN', '')}/cni-runtime/cni"
    if os.path.exists(given):
        return os.path.abspath(given)
    return executables.built(tmp_path_factory.mktemp("executable"))


@pytest.fixture
def root(node: Node, executable: str) -> Root:
    return Root(node, executable)


def files(folder: str) -> set[str]:
    """Return the paths of everything below a folder that is no folder."""
    return {
        os.path.relpath(f"{place}/{name}", folder)
        for place, _folders, names in os.walk(folder)
        for name in names
    }


def test_version_without_proc(root: Root) -> None:
    assert files(root.folder) == {
        "opt/cni/bin/cni-runtime/cni",
        *(f"opt/cni/bin/{name}" for name in root.names),
    }
    assert set(map(tuple, root.versions().values())) == {VERSIONS}
    assert not os.path.exists(f"{root.folder}/proc")


def test_what_is_wrong_is_said_as_elsewhere(root: Root) -> None:
    done = root.run("bridge", {"CNI_COMMAND": "STATUS"}, b'{"name": "net",\n "type" 1}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 6
    assert json.loads(done.stdout)["msg"].endswith("Expecting ':' delimiter: line 2 column 9 (char 24)")


def test_addresses(root: Root) -> None:
    root.mount("/proc")
    executables.exercise_ipam(root)


def test_a_bridge(root: Root, node: Node) -> None:
    pod = node.netns("c1")
    root.mount("/proc", "/run/netns")
    of = {"container": "c1", "netns": pod}
    result = root.cni("ADD", "bridge", BRIDGE, **of)
    address = result["ips"][0]["address"]
    assert node.links("c1")["eth0"]["addr_info"][0]["local"] == address.partition("/")[0]
    with server(node, "c1", 80):
        assert ask(node, "", address.partition("/")[0], 80) == "c1 10.7.0.1"
    assert "10.7.0.2" in node.ruleset(), "masquerade"
    root.cni("CHECK", "bridge", {**BRIDGE, "prevResult": result}, **of)
    root.cni("DEL", "bridge", {**BRIDGE, "prevResult": result}, **of)
    assert "eth0" not in node.links("c1")
    assert "10.7.0.2" not in node.ruleset()
    assert os.listdir(f"{root.folder}/var/lib/cni/networks/net") == ["last_reserved_ip.0", "lock"]


def test_the_demos_list(root: Root, node: Node) -> None:
    with open(CONFLIST, encoding="utf-8") as file:
        conflist = json.load(file)
    node.run(["ip", "address", "add", f"{MACHINE}/24", "dev", "lo"])
    pod = node.netns("c1")
    root.mount("/proc", "/run/netns")
    root.write("/run/flannel/subnet.env", SUBNET_ENV)
    mapping = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}

    def call(verb: str, previous: Any = None) -> Any:
        plugins = conflist["plugins"] if verb != "DEL" else conflist["plugins"][::-1]
        for plugin in plugins:
            conf = {"cniVersion": conflist["cniVersion"], "name": conflist["name"], **plugin}
            if plugin.get("capabilities", {}).get("portMappings"):
                conf["runtimeConfig"] = mapping
            if previous is not None:
                conf["prevResult"] = previous
            answer = root.cni(verb, plugin["type"], conf, container="c1", netns=pod)
            previous = answer if verb == "ADD" else previous
        return previous

    assert [plugin["type"] for plugin in conflist["plugins"]] == ["flannel", "portmap"]
    result = call("ADD")
    assert result["ips"][0]["address"].startswith("10.244.1.")
    with server(node, "c1", 80):
        assert ask(node, "", MACHINE, 8080).startswith("c1 ")
        assert ask(node, "", "127.0.0.1", 8080) == "c1 10.244.1.1"
    assert "c1" in cni_rules(node)
    call("CHECK", result)
    call("DEL", result)
    assert "eth0" not in node.links("c1")
    assert "c1" not in cni_rules(node)
    assert refused(node, "", MACHINE, 8080)
