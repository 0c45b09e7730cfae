"""Packet filter rule sets as data, for nftables and for iptables; nothing here talks to the kernel."""
