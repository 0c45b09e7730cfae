"""Leases in Kubernetes' nodes: codec of annotations, a connection, the subnet manager."""
