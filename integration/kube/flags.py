"""What the control plane of integration.kube.cluster is told: flags, the audit's policy, flannel's rights."""

from __future__ import annotations

from typing import Any

FOLDER = "/run/kube"
"""Where its files are."""
APIS = (
    "api/v1",
    # It does not start without these.
    "apiextensions.k8s.io/v1",
    "apiregistration.k8s.io/v1",
)
NO_USE = (
    *("CertificateApproval", "CertificateSigning", "CertificateSubjectRestriction", "DefaultIngressClass"),
    *("DefaultStorageClass", "DefaultTolerationSeconds", "LimitRanger", "MutatingAdmissionWebhook"),
    *("PersistentVolumeClaimResize", "Priority", "ResourceQuota", "RuntimeClass", "ServiceAccount"),
    *("StorageObjectInUseProtection", "TaintNodesByCondition", "ValidatingAdmissionWebhook"),
)
SMALL = (
    f"--runtime-config=api/all=false,{','.join(f'{api}=true' for api in APIS)}",
    f"--disable-admission-plugins={','.join(NO_USE)}",
    "--enable-priority-and-fairness=false",
)
"""Of the apiserver: nodes, and what is no use to them switched off. It starts in half the time."""
CONTROLLERS = ("serviceaccount", "serviceaccount-token", "daemonset")
"""What pods need besides those that give nodes their podCIDRs."""
AUDIT = (f"--audit-log-path={FOLDER}/audit.log", f"--audit-policy-file={FOLDER}/audit.conf")
POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
ROLE: dict[str, Any] = {
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
BINDING: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "flannel"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "flannel"}],
}
