#!/usr/bin/env bash
# A kind cluster of three nodes with our network, and Kubernetes' conformance tests on it.
#
#   deploy/kind/run.sh              all of them: about two hours
#   deploy/kind/run.sh network      those of the network alone
#   deploy/kind/run.sh up           only the cluster
#
# It needs docker, kind, kubectl and, for the tests, hydrophone. `kind delete cluster --name cni-plugins` ends it.
set -euo pipefail
cd "$(dirname "$0")/../.."

what=${1:-all}
case $what in all | network | up) ;; *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
cluster=cni-plugins
image=$(sed -n 's/^ *image: *//p' deploy/kube-flannel.yml | sort -u)
results=${RESULTS:-dist/conformance}
mkdir -p "$results"
results=$(cd "$results" && pwd)
export KUBECONFIG=$results/kubeconfig # not the user's own

for program in docker kind kubectl $([ "$what" = up ] || echo hydrophone); do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
done

docker build -t "$image" .
if grep -qx "$cluster" <<<"$(kind get clusters)"; then
    kind export kubeconfig --name "$cluster"
else
    kind create cluster --config deploy/kind/kind.yaml
fi
kind load docker-image --name "$cluster" "$image"
kubectl apply -f deploy/kube-flannel.yml
kubectl --namespace kube-flannel rollout status daemonset/kube-flannel-ds --timeout 180s
kubectl wait --for condition=Ready node --all --timeout 180s
kubectl --namespace kube-system rollout status deployment/coredns --timeout 180s

case $what in
    all) hydrophone --kubeconfig "$KUBECONFIG" --conformance --output-dir "$results" ;;
    network) hydrophone --kubeconfig "$KUBECONFIG" --focus '\[sig-network\].*\[Conformance\]' --output-dir "$results" ;;
    up) kubectl get nodes -o wide ;;
esac
