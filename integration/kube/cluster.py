"""A control plane in a node: etcd, kube-apiserver, kube-controller-manager; and kubectl to look at it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Self

from integration.etcd import Etcd

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from integration.node import Node

FOLDER = "/run/kube"
PORT = 6443
NETWORK = "10.244.0.0/16"
IPV6_NETWORK = "fd00:244::/48"
ADMIN, DAEMON = "admin-token", "daemon-token"
SERVICE = "10.96.0.1"
"""The address of the service `kubernetes`, by which pods reach the apiserver."""
CONTROLLERS = ("serviceaccount", "serviceaccount-token", "daemonset")
AUDIT = (f"--audit-log-path={FOLDER}/audit.log", f"--audit-policy-file={FOLDER}/audit.conf")
POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "flannel"},
    "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ],
}
"""What kube-flannel's manifest allows the daemon; nothing more may be needed."""
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "flannel"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "flannel"}],
}


class Cluster:
    """A control plane; a context manager.

    Args:
        node: where it runs.
        programs: the folder that integration.kube.build filled.
        address: an address of the node at which others reach it, besides 127.0.0.1.
        dual: give nodes IPv6 podCIDRs, too.
        whole: run what pods need, too: service accounts with their tokens, daemon sets, an audit log.
    """

    def __init__(
        self,
        node: Node,
        programs: str,
        address: str = "127.0.0.1",
        *,
        dual: bool = False,
        whole: bool = False,
    ) -> None:
        self.node = node
        self.url = f"https://{address}:{PORT}"
        self._programs = programs
        self._address = address
        self._dual = dual
        self._whole = whole
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd = Etcd(node, "http://127.0.0.1:2379")
        self._write_files()
        self.start_apiserver()
        for document in (ROLE, BINDING):
            self.apply(document)
        self._start_controllers()

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
            *(f"--token-auth-file={FOLDER}/tokens.csv", "--authorization-mode=RBAC"),
            *(
                "--service-account-issuer=https://kubernetes.default",
                "--service-cluster-ip-range=10.96.0.0/16",
            ),
            f"--service-account-key-file={FOLDER}/tls.key",
            f"--service-account-signing-key-file={FOLDER}/tls.key",
            *(AUDIT if self._whole else ("--disable-admission-plugins=ServiceAccount",)),
            "--feature-gates=IPv6DualStack=true",
            "--kubelet-preferred-address-types=InternalIP",
        )
        self.wait(lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 60)

    def stop_apiserver(self) -> None:
        """End the apiserver as a crash would."""
        self.stop("kube-apiserver")

    def stop(self, program: str) -> None:
        """End one of the control plane's programs."""
        process = self._servers.pop(program)
        process.kill()
        process.wait()

    def kubectl(
        self, *words: str, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl as the administrator."""
        command = ["kubectl", "--kubeconfig", f"{FOLDER}/admin.conf", "--request-timeout=20s", *words]
        return self.node.run(command, {"HOME": FOLDER}, stdin, check=check)

    def apply(self, document: Mapping[str, Any]) -> None:
        """Create or replace an object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document).encode())

    def add_node(self, name: str, pod_cidrs: Sequence[str] = ()) -> None:
        """Register a node, with podCIDRs if given, and wait until it has some."""
        spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
        document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
        self.kubectl("create", "-f", "-", stdin=json.dumps(document).encode())
        self.wait(lambda: bool(self.get_node(name)["spec"].get("podCIDR")), 60)

    def get_node(self, name: str) -> Any:
        """Return a node."""
        return json.loads(self.kubectl("get", "node", name, "-o", "json").stdout)

    def annotations(self, name: str) -> dict[str, str]:
        """Return a node's annotations that are flannel's, without the prefix."""
        prefix = "flannel.alpha.coreos.com/"
        found = self.get_node(name)["metadata"].get("annotations", {})
        return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

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

    def remove_node(self, name: str) -> None:
        """Delete a node."""
        self.kubectl("delete", "node", name, "--ignore-not-found")

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
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.1)

    def _start_controllers(self) -> None:
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
            f"--controllers=nodeipam,nodelifecycle{',' + ','.join(CONTROLLERS) if self._whole else ''}",
            *("--leader-elect=false", "--port=0"),
            *(f"--service-account-private-key-file={FOLDER}/tls.key", f"--root-ca-file={FOLDER}/tls.crt"),
            f"--feature-gates=IPv6DualStack={'true' if self._dual else 'false'}",
        )

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
