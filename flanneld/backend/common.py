"""What backends share: reading their options, and complaining about a lease once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from flanneld.backend import BackendError
from flanneld.netconf import FoldedModel

if TYPE_CHECKING:
    import logging

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig

_Options = TypeVar("_Options", bound=FoldedModel)


def read_options(model: type[_Options], config: NetworkConfig) -> _Options:
    """Return a backend's options.

    Raises:
        BackendError: they cannot be used; the message names the key.
    """
    try:
        return model.model_validate(config.backend.options)
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        raise BackendError(": ".join(["Backend", *map(str, first["loc"][:1]), what])) from None


def demand_ipv4(config: NetworkConfig, log: logging.Logger) -> None:
    """See that a backend that carries IPv4 alone is of use.

    Raises:
        BackendError: the cluster has IPv6 alone.
    """
    if 4 not in config.families:
        raise BackendError(f"Backend: {config.backend.type} carries IPv4 alone; vxlan carries IPv6, too")
    if 6 in config.families:
        log.warning("this backend carries IPv4 alone; IPv6 packets find no way to other nodes")


class Complaints:
    """Leases that cannot be used, each told of once."""

    __slots__ = ("_log", "_told")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[Lease] = set()

    def about(self, lease: Lease, why: object) -> None:
        """Log why a lease is left out, unless that was logged before."""
        if lease not in self._told:
            self._told.add(lease)
            self._log.error("this lease cannot be used", extra={"subnet": lease, "why": why})
