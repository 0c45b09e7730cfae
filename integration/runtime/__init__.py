"""Pods made by Debian's containerd, through CRI, on networks made by the plugins."""
