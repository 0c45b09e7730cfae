"""Masquerade and forward rules: wanted, written, and put back when somebody removes them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from flanneld.notices import Filters
from flanneld.pauses import Pauses
from flanneld.traffic import iptables, nftables
from flanneld.traffic.rules import RuleSet, forward, masquerade

if TYPE_CHECKING:
    from flanneld.lease import Lease
    from flanneld.metrics import Metrics
    from flanneld.netconf import NetworkConfig
    from flanneld.options import Options

log = logging.getLogger(__name__)

_PERIOD = 30.0
_CONCERNED = (*nftables.concerned(), "nat", "filter")
"""Tables of nf_tables whose changes are looked at; the last two are where iptables-nft writes."""


class Backend(Protocol):
    """Where the rules are: flanneld.traffic.nftables, or one of iptables' two sides."""

    def write(self, wanted: RuleSet) -> None:
        """Make a family's rules what is wanted."""

    def listed(self, family: int) -> str:
        """Return a family's rules as they are."""


class Traffic:
    """The keeper (the protocol is daemon.Traffic's).

    Args:
        config: the cluster's network.
        options: the flags.
        metrics: where repairs and failures are counted.
    """

    def __init__(self, config: NetworkConfig, options: Options, metrics: Metrics) -> None:
        self._config = config
        self._options = options
        self._metrics = metrics
        self._wanted: list[RuleSet] = []
        self._written: dict[int, str] = {}
        self._pending: set[int] = set()
        self._backend: Backend = nftables
        self._sides: list[iptables.Side] | None = None
        self._chosen: iptables.Side | None = None

    async def want(self, lease: Lease) -> None:
        """Make the rules for this lease wanted and write them; the other backend's are removed.

        What fails is pending: `run` tries it again, also where nothing is wanted but a removal.

        The rules of another network, of a run before, are in the same chains, which are written anew.
        """
        self._backend = self._choose()
        self._wanted = [self._rules(family, lease) for family in (4, 6)]
        for wanted in self._wanted:
            self._pending.add(wanted.family)
            self._written.pop(wanted.family, None)
            self._look(wanted)

    async def run(self) -> None:
        """Look at the rules after each change that concerns them, and again and again.

        The older kernel side of iptables tells nobody of changes: it is looked at as often as flags say.
        """
        period = _PERIOD if self._backend is nftables else max(self._options.iptables_resync, 1)
        retries = Pauses(first=1.0, longest=period)
        failed = False
        with Filters(_CONCERNED) as changes:
            while True:
                try:
                    async with asyncio.timeout(retries.next() if failed else period):
                        await changes.next()
                except TimeoutError:
                    pass
                failed = False in [self._look(wanted) for wanted in self._wanted]
                if not failed:
                    retries.reset()

    def _choose(self) -> Backend:
        if self._sides is None:
            self._sides = iptables.sides()
        if self._config.enable_nftables:
            if nftables.available():
                return nftables
            log.warning("nftables cannot be used here; writing iptables' rules")
        if self._chosen is None:  # once: the node's other rules stay where they are
            self._chosen, why = iptables.choose(self._sides)
            log.info("iptables' rules are written", extra={"kind": self._chosen.kind, "why": why})
        return self._chosen

    def _rules(self, family: int, lease: Lease) -> RuleSet:
        network, subnet = self._config.cluster(family), lease.network(family)
        if network is None or subnet is None:
            return RuleSet(family)
        return RuleSet(
            family,
            tuple(masquerade(network, subnet)) if self._options.ip_masq else (),
            tuple(forward(network)) if self._options.iptables_forward_rules else (),
            random=not self._options.ip_masq_fully_random_disable,
        )

    def _write(self, wanted: RuleSet) -> None:
        """Write one family's rules, and then remove ours from everywhere else."""
        family = wanted.family
        # Without IPv6 there may be no ip6tables, and nothing to write.
        if isinstance(self._backend, iptables.Side):
            if wanted or self._backend.reachable(family):
                self._backend.write(wanted)
            if nftables.available():
                nftables.remove(family)
        elif wanted:
            nftables.write(wanted)
        else:
            nftables.remove(family)
        for side in self._sides or ():
            if side != self._backend and side.reachable(family):
                side.write(RuleSet(family))
        # The list after the first write is what it has to be. One that somebody changed before it was read
        # must not take its place: nothing would put that back.
        listed = self._backend.listed(family) if wanted else ""
        if listed != self._written.setdefault(family, listed):
            raise InterruptedError("somebody changed the traffic rules as they were written")

    def _look(self, wanted: RuleSet) -> bool:
        """Write what is pending, a removal too, or what somebody has changed; return whether it could be."""
        pending = wanted.family in self._pending
        try:
            if not pending and (
                not wanted or self._backend.listed(wanted.family) == self._written.get(wanted.family)
            ):
                return True
            self._write(wanted)
        except OSError as error:  # a program is missing, failed, or cannot be started now
            self._failed(error)
            return False
        self._pending.discard(wanted.family)
        if not pending:
            self._metrics.repaired("rules")
            log.warning(
                "somebody changed the traffic rules; they are written again", extra={"family": wanted.family}
            )
        return True

    def _failed(self, error: OSError) -> None:
        self._metrics.failed("traffic")
        log.warning("the traffic rules cannot be written; this is tried again", extra={"why": error})
