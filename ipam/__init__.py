"""IPAM plugins: they give addresses and know nothing of interfaces."""
