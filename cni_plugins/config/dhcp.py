"""Configuration of the dhcp IPAM plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import Model


class DhcpProvide(Model):
    """An option to send to the server."""

    option: str = Field("", description="The option, by number or by its name in dhcp-options(5).")
    value: str = Field("", description="Its value, sent as it is.")
    from_arg: str = Field("", description="The key of CNI_ARGS that has the value instead.")


class DhcpRequest(Model):
    """An option to ask the server for."""

    skip_default: bool = Field(
        False, description="Do not ask for the subnet mask and the routers, which is done otherwise."
    )
    option: str = Field("", description="The option, by number or by its name in dhcp-options(5).")


class DhcpIPAM(Model):
    """The `ipam` object."""

    type: str = Field("", description='"dhcp".')
    daemon_socket_path: str = Field(
        "", description="The socket of the daemon; when absent, /run/cni/dhcp.sock."
    )
    provide: list[DhcpProvide] = Field([], description="Options to send to the server.")
    request: list[DhcpRequest] = Field([], description="Options to ask the server for.")
    priority: int = Field(0, ge=0, le=0xFFFFFFFF, description="Metric of the routes; 0: the kernel's.")


class DhcpRuntime(Model):
    """Capabilities: none."""


class DhcpConf(Model):
    """What dhcp reads of the network configuration."""

    cni_version: str = Field(
        "", description="The version of the specification the configuration is written in."
    )
    name: str = Field("", description="The network's name.")
    ipam: DhcpIPAM | None = Field(None, description="Address management.")
