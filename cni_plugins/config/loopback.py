"""Configuration of the loopback plugin."""

from __future__ import annotations

from cni_plugins.config.base import NetConf


class LoopbackConf(NetConf):
    """The container's `lo`, brought up."""
