"""Shapes of results (CNI 1.1.0, section 5), as `prevResult` and delegates bring them."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import DNS, Model, Route


class InterfaceModel(Model):
    """An interface of the attachment."""

    name: str = Field("", description="Interface name.")
    mac: str = Field("", description="Hardware address.")
    mtu: int = Field(0, ge=0, description="MTU in bytes (1.1.0).")
    sandbox: str = Field("", description="Path of the namespace; empty on the host.")
    socket_path: str = Field("", description="Path of a socket for the interface (1.1.0).")
    pci_id: str = Field("", alias="pciID", description="PCI address of the interface (1.1.0).")


class IPModel(Model):
    """An address of the attachment."""

    version: str = Field("", description='"4" or "6" (0.3.0 to 0.4.0).')
    address: str = Field("", description="The address in CIDR notation.")
    gateway: str = Field("", description="The subnet's gateway.")
    interface: int | None = Field(None, description="Index into `interfaces`.")


class ResultModel(Model):
    """A result from 0.3.0 on."""

    cni_version: str = Field("", description="The version the result is written in.")
    interfaces: list[InterfaceModel] = Field([], description="Interfaces made, host ends too.")
    ips: list[IPModel] = Field([], description="Addresses given.")
    routes: list[Route] = Field([], description="Routes of the container.")
    dns: DNS = Field(DNS(), description="DNS settings.")


class OldIPModel(Model):
    """One family of a result before 0.3.0."""

    ip: str = Field("", description="The address in CIDR notation.")
    gateway: str = Field("", description="The subnet's gateway.")
    routes: list[Route] = Field([], description="Routes of this family.")


class OldResultModel(Model):
    """A result of 0.1.0 or 0.2.0."""

    cni_version: str = Field("", description="The version the result is written in.")
    ip4: OldIPModel | None = Field(None, description="The IPv4 address.")
    ip6: OldIPModel | None = Field(None, description="The IPv6 address.")
    dns: DNS = Field(DNS(), description="DNS settings.")
