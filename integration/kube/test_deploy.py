"""deploy/kube-flannel.yml on a real cluster: kubelets, containerd and the image; pods on two nodes talk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from integration.fleet import wait
from integration.kube.cluster import PORT, SERVICE, Cluster
from integration.kube.kubelet import Kubelet
from integration.runtime import images
from integration.suite import ROOT
from integration.underlay import Underlay, address
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.runtime

APISERVER = "198.18.0.1"
MANIFEST = f"{ROOT}/deploy/kube-flannel.yml"
PLACES = ((1, 11), (2, 21))
IPTABLES = {"node-11": "nft", "node-21": "legacy"}
"""What `iptables` is on each node, and so which kernel interface kubelet makes its chains in."""
PING = (images.BUSYBOX, "ping", "-c", "3", "-w", "10")


class Deployed:
    """A cluster of two nodes with the manifest applied.

    Attributes:
        cluster: its control plane, on the router.
        kubelets: the nodes, by name.
    """

    def __init__(self, stack: ExitStack, programs: str, archive: str) -> None:
        underlay = stack.enter_context(Underlay())
        router = underlay.router
        for ip in (APISERVER, SERVICE):
            router.run(["ip", "address", "add", f"{ip}/32", "dev", "lo"])
        # kube-proxy's part in this: the service `kubernetes` leads to the apiserver.
        rules = (
            "add table ip services",
            "add chain ip services prerouting { type nat hook prerouting priority dstnat; }",
            f"add rule ip services prerouting ip daddr {SERVICE} tcp dport 443 redirect to :{PORT}",
        )
        router.run(["nft", "-f", "-"], stdin="\n".join(rules).encode())
        self.cluster = stack.enter_context(Cluster(router, programs, APISERVER, whole=True))
        self.kubelets = {}
        for subnet, number in PLACES:
            name = f"node-{number}"
            machine = underlay.join(subnet, number)
            for program in ("iptables", "ip6tables"):
                for action in ("", "-restore", "-save"):
                    chosen = f"/usr/sbin/{program}-{IPTABLES[name]}{action}"
                    machine.run(["ln", "-sfn", chosen, f"/etc/alternatives/{program}{action}"])
            kubelet = Kubelet(machine, name, address(subnet, number), self.cluster, programs, [archive])
            self.kubelets[name] = stack.enter_context(kubelet)
        with open(MANIFEST, "rb") as file:
            self.cluster.kubectl("apply", "-f", "-", stdin=file.read())
        for name in self.kubelets:
            wait(lambda name=name: self.daemon_on(name) != "")  # type: ignore[misc]
            wait(lambda name=name: self.ready(name))  # type: ignore[misc]

    def get(self, *words: str) -> Any:
        """Return what kubectl lists."""
        return json.loads(self.cluster.kubectl("get", "-o", "json", *words).stdout)

    def daemon_on(self, node: str) -> str:
        """Return the name of a node's flanneld pod; bind one that is for the node, as the scheduler would."""
        for pod in self.get("pods", "-n", "kube-flannel")["items"]:
            spec, name = pod["spec"], pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp"):
                continue
            if spec.get("nodeName") == node:
                return str(name)
            terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            wanted = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"]
            if "nodeName" not in spec and wanted == [node]:
                target = {"apiVersion": "v1", "kind": "Node", "name": node}
                binding = {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": name},
                    "target": target,
                }
                path = f"/api/v1/namespaces/kube-flannel/pods/{name}/binding"
                self.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding).encode())
                return str(name)
        return ""

    def ready(self, node: str) -> bool:
        """Tell whether a node and the daemon on it are ready."""
        conditions = {item["type"]: item["status"] for item in self.get("node", node)["status"]["conditions"]}
        pod = self.get("pod", "-n", "kube-flannel", self.daemon_on(node))
        states = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
        return bool(conditions["Ready"] == states.get("Ready") == "True")

    def log(self, node: str) -> str:
        """Return what a node's flanneld has printed."""
        return self.cluster.kubectl("logs", "-n", "kube-flannel", self.daemon_on(node)).stdout.decode()

    def restart(self, node: str) -> None:
        """Delete a node's flanneld pod, and wait for the next one."""
        before = self.daemon_on(node)
        self.cluster.kubectl("delete", "pod", "-n", "kube-flannel", before, "--wait=false")
        wait(lambda: self.daemon_on(node) not in ("", before))
        wait(lambda: self.ready(node))

    def run_pod(self, name: str, node: str, host_port: int = 0) -> str:
        """Start a pod that serves a page with its name; return its address."""
        port = {"containerPort": images.PORT, **({"hostPort": host_port} if host_port else {})}
        serve = f"echo {name} >{images.PAGE} && exec {' '.join(images.SERVE)}"
        container = {
            "name": "main",
            "image": images.NAME,
            "imagePullPolicy": "Never",
            "command": [images.BUSYBOX, "sh", "-c", serve],
            "ports": [port],
        }
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

        def is_ready() -> bool:
            states = self.get("pod", name)["status"].get("containerStatuses", ())
            return bool(states) and all(state["ready"] for state in states)

        wait(is_ready)
        return str(self.get("pod", name)["status"]["podIP"])

    def exec(self, pod: str, *command: str) -> str:
        """Run a program in a pod, by way of the apiserver and the kubelet."""
        return self.cluster.kubectl("exec", pod, "--", *command).stdout.decode()

    def fetch(self, pod: str, host: str, port: int = images.PORT) -> str:
        """Fetch a page from within a pod."""
        request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {images.BUSYBOX} nc -w 5 {host} {port}"
        return self.exec(pod, images.BUSYBOX, "sh", "-c", request).partition("\r\n\r\n")[2].strip()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that the Dockerfile makes, from the same files."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, f"{ROOT}/build/image.py", f"{folder}/root"], check=True)
    with open(MANIFEST, encoding="utf-8") as file:
        (name,) = {
            container["image"]
            for document in yaml.safe_load_all(file)
            if document["kind"] == "DaemonSet"
            for container in document["spec"]["template"]["spec"]["containers"]
        }
    images.write_folder_archive(f"{folder}/image.tar", f"{folder}/root", f"docker.io/library/{name}")
    return f"{folder}/image.tar"


@pytest.fixture(scope="module")
def deployed(archive: str) -> Iterator[Deployed]:
    with ExitStack() as stack:
        yield Deployed(stack, os.environ["KUBE_BIN"], archive)


@pytest.fixture(scope="module")
def pods(deployed: Deployed) -> dict[str, str]:
    """A pod on each node, by name."""
    return {"a": deployed.run_pod("a", "node-11"), "b": deployed.run_pod("b", "node-21", 8088)}


def test_pods_of_two_nodes_talk(deployed: Deployed, pods: dict[str, str]) -> None:
    cidrs = {name: deployed.get("node", name)["spec"]["podCIDR"] for name in deployed.kubelets}
    assert pods["a"].rpartition(".")[0] == cidrs["node-11"].rpartition(".")[0]
    assert pods["b"].rpartition(".")[0] == cidrs["node-21"].rpartition(".")[0]
    for source, target in (("a", "b"), ("b", "a")):
        assert "0% packet loss" in deployed.exec(source, *PING, pods[target])
        assert deployed.fetch(source, pods[target]) == target
    assert deployed.fetch("a", address(2, 21), 8088) == "b"
    route = deployed.kubelets["node-11"].node.run(["ip", "route", "get", pods["b"]]).stdout.decode()
    assert " dev flannel.1 " in route


def test_the_role_is_what_was_asked_for(deployed: Deployed, pods: dict[str, str]) -> None:
    role = deployed.get("clusterrole", "flannel")
    rights = {(what, verb) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]}
    assert deployed.cluster.asked_for("kube-flannel:flannel") == rights


def test_a_restarted_daemon_disturbs_no_pod(deployed: Deployed, pods: dict[str, str]) -> None:
    machine = deployed.kubelets["node-11"].node
    found = machine.run(["sh", "-c", "echo /run/netns/cni-*"]).stdout.decode().split()
    (netns,) = found
    ping = machine.popen(
        ["ping", "-i", "0.1", "-c", "150", "-W", "20", pods["b"]],
        os.path.basename(netns),
        stdout=subprocess.PIPE,
    )
    deployed.restart("node-11")
    assert b"150 received, 0% packet loss" in ping.communicate(timeout=PATIENCE)[0]


def test_a_deleted_pod_leaves_nothing(deployed: Deployed, pods: dict[str, str]) -> None:
    deployed.run_pod("c", "node-11", 8089)
    machine = deployed.kubelets["node-11"].node

    def traces() -> list[str]:
        held = os.listdir(machine.path("/var/lib/cni/networks/cbr0"))
        links = [name for name in machine.links() if name.startswith("veth")]
        return [*(name for name in held if name[0].isdigit()), *links]

    assert len(traces()) == 4
    deployed.cluster.kubectl("delete", "pod", "c", "--wait=false")
    wait(lambda: len(traces()) == 2)
    assert "8089" not in machine.ruleset()


def test_the_image_has_no_shell(deployed: Deployed) -> None:
    done = deployed.cluster.kubectl(
        *("exec", "-n", "kube-flannel", deployed.daemon_on("node-11"), "--", "sh", "-c", "true"), check=False
    )
    assert done.returncode != 0
    assert b"executable file not found" in done.stderr


def test_iptables_rules_are_where_kubelets_are(deployed: Deployed, pods: dict[str, str]) -> None:
    """Without nftables, on a node of each kind, by the two programs of the image."""
    held = deployed.get("configmap", "-n", "kube-flannel", "kube-flannel-cfg")["data"]["net-conf.json"]
    config = json.dumps({**json.loads(held), "EnableNFTables": False})
    patch = json.dumps({"data": {"net-conf.json": config}})
    deployed.cluster.kubectl("patch", "configmap", "-n", "kube-flannel", "kube-flannel-cfg", "-p", patch)
    for name, kubelet in deployed.kubelets.items():
        assert "flannel-ipv4" in kubelet.node.ruleset()
        deployed.restart(name)
        saved = {
            kind: kubelet.node.run([f"iptables-{kind}-save"]).stdout.decode() for kind in ("nft", "legacy")
        }
        for kind, text in saved.items():
            assert ("KUBE-KUBELET-CANARY" in text) == (kind == IPTABLES[name])
            assert text.count("-A FLANNEL-") == (8 if kind == IPTABLES[name] else 0)
        assert "flannel-ipv4" not in kubelet.node.ruleset()
        # containerd copies what is printed when it finds the time.
        wait(lambda name=name: f"rules are written kind={IPTABLES[name]}" in deployed.log(name))  # type: ignore[misc]
    assert deployed.fetch("a", pods["b"]) == "b"
    assert deployed.fetch("b", pods["a"]) == "a"
