"""Addresses from the network's own DHCP server: the dhcp IPAM plugin and the daemon that keeps its leases."""
