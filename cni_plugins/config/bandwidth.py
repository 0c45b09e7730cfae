"""Configuration of the bandwidth plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import Model, NetConf

_MAX = 2**64 - 1


class Bandwidth(Model):
    """Limits of a container's interface; a direction's rate and burst go together."""

    ingress_rate: int | None = Field(
        None, ge=0, le=_MAX, description="Bits a second that the container receives; 0: no limit."
    )
    ingress_burst: int | None = Field(
        None, ge=0, le=_MAX, description="Bits that may come at once, faster than the rate."
    )
    egress_rate: int | None = Field(
        None, ge=0, le=_MAX, description="Bits a second that the container sends; 0: no limit."
    )
    egress_burst: int | None = Field(
        None, ge=0, le=_MAX, description="Bits that may leave at once, faster than the rate."
    )


class BandwidthRuntime(Model):
    """Capabilities of bandwidth."""

    bandwidth: Bandwidth | None = Field(
        None, description="Limits for this container, when the plugin object has none of its own."
    )


class BandwidthConf(NetConf, Bandwidth):
    """Rate limits on a container's veth pair; chained after the plugin that makes it."""

    runtime_config: BandwidthRuntime = Field(BandwidthRuntime(), description="The capability `bandwidth`.")
