"""Configuration of the flannel meta plugin."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cni_plugins.config.base import NetConf


class FlannelConf(NetConf):
    """A network whose subnet the flannel daemon leased for this node."""

    subnet_file: str = Field("/run/flannel/subnet.env", description="The file the flannel daemon writes.")
    data_dir: str = Field("/var/lib/cni/flannel", description="Where the delegate's configurations are kept.")
    delegate: dict[str, Any] = Field(
        {}, description="Keys of the delegate's configuration; default: a bridge."
    )
    ipam: dict[str, Any] = Field({}, description="Keys for the delegate's IPAM.")  # type: ignore[assignment]
    runtime_config: dict[str, Any] = Field({}, description="Capabilities, passed to the delegate.")
