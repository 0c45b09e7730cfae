"""Configuration of the sbr plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import NetConf


class SbrConf(NetConf):
    """Source-based routing: what leaves from an interface's addresses uses its own routes; chained."""

    table: int | None = Field(
        None,
        ge=1,
        le=2**32 - 1,
        description="An existing routing table that the rules lead to; no routes are moved. When absent, "
        "each address gets a table of its own, from 100 up.",
    )
    gateways: list[str] = Field(
        [],
        description="One IPv4 address, one IPv6 address or both: the next hops of the tables' default "
        "routes, in the place of the addresses' gateways.",
    )
    add_source_hints: bool = Field(
        False,
        description="Leave the routes to the addresses' subnets in the main table too, with the address as "
        "the source, for what is sent without one.",
    )
