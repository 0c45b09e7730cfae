"""deploy/'s manifest and chart, with every value set, as the real apiserver judges them; nothing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.suite import ROOT
from tests.test_deploy import RELEASE, rendered

if TYPE_CHECKING:
    from integration.kube.cluster import Cluster

BOTH: dict[str, Any] = {"labels": {"example.org/own": "yes"}, "annotations": {"example.org/why": "a test"}}
EVERYTHING: dict[str, Any] = {
    "podCidrv6": "fd00:244::/48",
    "global": {
        "imagePullSecrets": [{"name": "secret"}],
        "commonLabels": {"team": "net"},
        "commonAnnotations": {"team": "net"},
    },
    "flannel": {
        "nodeSelector": {"pool": "a"},
        "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "128Mi"}},
        "tolerations": [{"operator": "Exists"}],
        "healthz": {"port": 9999, "livenessProbe": {"timeoutSeconds": 3}},
        "seLinuxOptions": {"type": "spc_t"},
        "podLabels": {"of": "pods"},
        "podAnnotations": {"of": "pods"},
        "daemonSet": BOTH,
        "configMap": BOTH,
        "serviceAccount": BOTH,
        "rbac": {**BOTH, "clusterRole": BOTH, "clusterRoleBinding": BOTH},
    },
    "netpol": {"enabled": True},
}


def dry_run(cluster: Cluster, text: str) -> set[str]:
    """Have the apiserver look at objects; return what it would have made."""
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=true", "-f", "-", stdin=text.encode())
    assert not done.stderr
    return {line.split()[0] for line in done.stdout.decode().splitlines()}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE["Namespace"]}})


KINDS = {
    "serviceaccount/flannel",
    "clusterrole.rbac.authorization.k8s.io/flannel",
    "clusterrolebinding.rbac.authorization.k8s.io/flannel",
    "configmap/kube-flannel-cfg",
    "daemonset.apps/kube-flannel-ds",
}


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_chart_is_taken(cluster: Cluster, values: dict[str, Any]) -> None:
    assert dry_run(cluster, rendered(values)) == KINDS


@pytest.mark.usefixtures("namespace")
def test_the_manifest_is_taken(cluster: Cluster) -> None:
    with open(f"{ROOT}/deploy/kube-flannel.yml", encoding="utf-8") as file:
        assert dry_run(cluster, file.read()) == KINDS | {f"namespace/{RELEASE['Namespace']}"}
