"""A real control plane for tests: kube-apiserver and kube-controller-manager, built from Debian's source."""
