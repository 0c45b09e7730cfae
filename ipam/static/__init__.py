"""Addresses that somebody wrote down: the static IPAM plugin."""
