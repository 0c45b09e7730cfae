"""Leases in etcd v3: codec of keys and values, a connection, the subnet manager."""
