"""A control plane in a node: etcd, kube-apiserver, kube-controller-manager; and kubectl to look at it."""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from integration.etcd import Etcd
from integration.kube.flags import AUDIT, BINDING, CONTROLLERS, FOLDER, POLICY, ROLE, SMALL

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from integration.node import Node

PORT = 6443
PATIENCE = 240
"""Seconds for a program to start: on a machine that is emulated it takes a minute."""
NETWORK = "10.244.0.0/16"
IPV6_NETWORK = "fd00:244::/48"
ADMIN, DAEMON = "admin-token", "daemon-token"
SERVICE = "10.96.0.1"
"""The address of the service `kubernetes`, by which pods reach the apiserver."""


class Cluster:
    """A control plane; a context manager.

    Args:
        node: where it runs.
        programs: the folder that integration.kube.build filled.
        address: an address of the node at which others reach it, besides 127.0.0.1.
        dual: give nodes IPv6 podCIDRs, too.
        whole: run what pods need, too: service accounts with their tokens, daemon sets, an audit log.
        small: run what nodes and their podCIDRs need, and nothing else: no roles either.
    """

    def __init__(
        self,
        node: Node,
        programs: str,
        address: str = "127.0.0.1",
        *,
        dual: bool = False,
        whole: bool = False,
        small: bool = False,
    ) -> None:
        self.node = node
        self.url = f"https://{address}:{PORT}"
        self._programs = programs
        self._address = address
        self._dual = dual
        self._whole = whole
        self._small = small
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd = Etcd(node, "http://127.0.0.1:2379")
        self._write_files()
        self.start_apiserver()
        for document in () if small else (ROLE, BINDING):
            self.apply(document)
        self.start_controllers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._servers.values():
            process.kill()  # the apiserver ends slowly when it is asked to
            process.wait()
        self._etcd.stop()

    def start_apiserver(self) -> None:
        """Start the apiserver, on the data it had, and wait until it serves."""
        self._start(
            "kube-apiserver",
            *("--etcd-servers=http://127.0.0.1:2379", f"--secure-port={PORT}", "--bind-address=0.0.0.0"),
            *(f"--advertise-address={self._address}", "--endpoint-reconciler-type=none"),
            *(f"--tls-cert-file={FOLDER}/tls.crt", f"--tls-private-key-file={FOLDER}/tls.key"),
            *(
                f"--token-auth-file={FOLDER}/tokens.csv",
                f"--authorization-mode={'AlwaysAllow' if self._small else 'RBAC'}",
            ),
            *(
                "--service-account-issuer=https://kubernetes.default",
                "--service-cluster-ip-range=10.96.0.0/16",
            ),
            f"--service-account-key-file={FOLDER}/tls.key",
            f"--service-account-signing-key-file={FOLDER}/tls.key",
            *(
                AUDIT
                if self._whole
                else SMALL
                if self._small
                else ("--disable-admission-plugins=ServiceAccount",)
            ),
            "--feature-gates=IPv6DualStack=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",  # as kubeadm has it
        )
        try:
            self.wait(self._serves, PATIENCE)
        except AssertionError as error:
            with open(self.node.path(f"{FOLDER}/kube-apiserver.log"), encoding="utf-8") as file:
                error.add_note("".join(file.readlines()[-20:]))
            raise

    def _serves(self) -> bool:
        ended = self._servers["kube-apiserver"].poll()
        assert ended is None, f"kube-apiserver ended with exit status {ended}"
        try:
            return self.ask("/readyz") == b"ok"
        except OSError:
            return False

    def stop_apiserver(self) -> None:
        """End the apiserver as a crash would."""
        self.stop("kube-apiserver")

    def stop(self, program: str) -> None:
        """End one of the control plane's programs."""
        process = self._servers.pop(program)
        process.kill()
        process.wait()

    def ask(self, path: str, method: str = "GET", document: Mapping[str, Any] | None = None) -> bytes:
        """Ask the apiserver as the administrator: what kubectl would take seconds for, where all is slow.

        Raises:
            OSError: it does not answer, or refuses (an HTTPError).
        """
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with self.node.entered():
            trust = ssl.create_default_context(cafile=f"{FOLDER}/tls.crt")
            with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
                said: bytes = answer.read()
        return said

    def kubectl(
        self, *words: str, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl as the administrator."""
        command = ["kubectl", "--kubeconfig", f"{FOLDER}/admin.conf", "--request-timeout=60s", *words]
        return self.node.run(command, {"HOME": FOLDER}, stdin, check=check)

    def apply(self, document: Mapping[str, Any]) -> None:
        """Create or replace an object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document).encode())

    def add_node(self, name: str, pod_cidrs: Sequence[str] = ()) -> None:
        """Register a node, with podCIDRs if given, and wait until it has some."""
        self.add_nodes({name: pod_cidrs})

    def add_nodes(self, pod_cidrs: Mapping[str, Sequence[str]]) -> None:
        """Register nodes, by their names, with podCIDRs if given, and wait until each has some."""
        for name, given in pod_cidrs.items():
            spec = {"podCIDR": given[0], "podCIDRs": list(given)} if given else {}
            document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
            self.ask("/api/v1/nodes", "POST", document)

        self.nodes_when(lambda nodes: all(nodes[name]["spec"].get("podCIDR") for name in pod_cidrs))

    def nodes_when(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until all nodes are as they should be, and return them, by their names."""
        found: dict[str, Any] = {}

        def is_done() -> bool:
            found.update(self.nodes())
            return ready(found)

        self.wait(is_done, PATIENCE)
        return found

    def nodes(self) -> dict[str, Any]:
        """Return all nodes, by their names."""
        listed = json.loads(self.ask("/api/v1/nodes"))["items"]
        return {node["metadata"]["name"]: node for node in listed}

    def get_node(self, name: str) -> Any:
        """Return a node."""
        return json.loads(self.ask(f"/api/v1/nodes/{name}"))

    def annotations(self, name: str) -> dict[str, str]:
        """Return a node's annotations that are flannel's, without the prefix."""
        return flannels(self.get_node(name))

    def asked_for(self, account: str) -> set[tuple[str, str]]:
        """Return what a service account, `namespace:name`, has asked for: resources with their verbs."""
        found = set()
        with open(self.node.path(f"{FOLDER}/audit.log"), encoding="utf-8") as file:
            for line in file:
                event = json.loads(line)
                if event["user"]["username"] == f"system:serviceaccount:{account}":
                    what = event["objectRef"]
                    names = [what["resource"], what.get("subresource")]
                    found.add(("/".join(filter(None, names)), event["verb"]))
        return found

    def remove_node(self, *names: str) -> None:
        """Delete a node, or several."""
        for name in names:
            try:
                self.ask(f"/api/v1/nodes/{name}", "DELETE")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise

    def kubeconfig(self, token: str = DAEMON) -> str:
        """Return a kubeconfig by which the bearer of a token reaches the apiserver."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.url, "certificate-authority": f"{FOLDER}/tls.crt"}}
            ],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        return json.dumps(document)

    @staticmethod
    def wait(ready: Any, seconds: float) -> None:
        """Wait until something is so."""
        began = time.monotonic()
        while not ready():
            passed = time.monotonic() - began
            assert passed < seconds, "it did not come to pass"
            time.sleep(max(0.1, passed / 20))  # to ask costs time, too, where all is slow

    def start_controllers(self) -> None:
        """Start the controller-manager, which gives nodes their podCIDRs."""
        ranges = f"{NETWORK},{IPV6_NETWORK}" if self._dual else NETWORK
        sizes = (
            ("--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64")
            if self._dual
            else ("--node-cidr-mask-size=24",)
        )
        self._start(
            "kube-controller-manager",
            *(
                f"--kubeconfig={FOLDER}/admin.conf",
                "--allocate-node-cidrs",
                f"--cluster-cidr={ranges}",
                *sizes,
            ),
            f"--controllers={','.join(self._controllers())}",
            *("--leader-elect=false", "--port=0"),
            *(f"--service-account-private-key-file={FOLDER}/tls.key", f"--root-ca-file={FOLDER}/tls.crt"),
            f"--feature-gates=IPv6DualStack={'true' if self._dual else 'false'}",
        )

    def _controllers(self) -> Sequence[str]:
        always = ("nodeipam",) if self._small else ("nodeipam", "nodelifecycle")
        return (*always, *CONTROLLERS) if self._whole else always

    def _start(self, program: str, *words: str) -> None:
        with open(self.node.path(f"{FOLDER}/{program}.log"), "ab") as log:
            self._servers[program] = self.node.popen(
                ["sh", "-c", 'cd "$0" && exec "$@"', FOLDER, os.path.join(self._programs, program), *words],
                stdout=log,
                stderr=log,
            )

    def _write_files(self) -> None:
        self.node.run(["mkdir", "-p", FOLDER])
        names = "subjectAltName=" + ",".join(
            f"IP:{ip}" for ip in sorted({"127.0.0.1", SERVICE, self._address})
        )
        self.node.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=tests",
                ),
                *("-addext", names, "-keyout", f"{FOLDER}/tls.key", "-out", f"{FOLDER}/tls.crt"),
            ]
        )
        texts = {
            "tokens.csv": f'{ADMIN},admin,1,"system:masters"\n{DAEMON},flannel,2,\n',
            "admin.conf": self.kubeconfig(ADMIN),
            "daemon.conf": self.kubeconfig(DAEMON),
            "audit.conf": json.dumps(POLICY),
        }
        for name, text in texts.items():
            with open(self.node.path(f"{FOLDER}/{name}"), "w", encoding="ascii") as file:
                file.write(text)


def flannels(node: Mapping[str, Any]) -> dict[str, str]:
    """Return a node's annotations that are flannel's, without the prefix."""
    prefix = "flannel.alpha.coreos.com/"
    found = node["metadata"].get("annotations", {})
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
