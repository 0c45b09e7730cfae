"""The rows of the table: which networks race, and what each must reach."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.process import Cost, peak_of, run_all
from integration import features

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.attachment import Attachment
    from bench.process import Job
    from bench.side import Side

    Plugins = Callable[[Side], list[dict[str, Any]]]

WARM_UP = 3
ROUNDS = 3
WIDTH = 10
MANY = 50


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        key: its name on the command line.
        title: its name in the table.
        ours: the list on our side.
        targets: the ratio, ours over the peer's, that each verb must not exceed.
        peer: the list on the other side, if it is another one.
        verbs: what is measured, in order.
        width: how many containers at a time; more than one: the wall time of all of them is measured.
        alone: both sides are ours.
        kernel: a feature that the kernel must have (integration/features.py).
    """

    key: str
    title: str
    ours: Plugins
    targets: dict[str, float]
    peer: Plugins | None = None
    verbs: tuple[str, ...] = ("add", "delete")
    width: int = 1
    alone: bool = False
    kernel: str = ""


@dataclass(frozen=True)
class Line:
    """What came out for one verb of one row: medians over the containers."""

    row: str
    title: str
    verb: str
    ours: Cost
    peer: Cost
    target: float | None

    @property
    def ratio(self) -> float:
        """Our wall time over the peer's."""
        return self.ours.wall / self.peer.wall

    @property
    def missed(self) -> bool:
        """Whether a target is there and not reached."""
        return self.target is not None and self.ratio > self.target


def _masquerade_portmap(side: Side) -> list[dict[str, Any]]:
    return [side.bridge(masquerade=True), side.portmap()]


_LIMITS = {
    "ingressRate": 10_000_000,
    "ingressBurst": 1_000_000,
    "egressRate": 10_000_000,
    "egressBurst": 1_000_000,
}

ROWS = (
    Row(
        "masq-portmap",
        "bridge ipMasq, portmap with a host port",
        ours=_masquerade_portmap,
        targets={"add": 0.8, "delete": 0.5},
    ),
    Row(
        "masq",
        "bridge ipMasq",
        ours=lambda side: [side.bridge(masquerade=True)],
        targets={"add": 0.9, "delete": 0.5},
        # Not in the row above: the peer's portmap fails CHECK when a container has no IPv6 address.
        verbs=("add", "check", "delete"),
    ),
    Row(
        "plain",
        "bridge, no masquerade",
        ours=lambda side: [side.bridge(masquerade=False)],
        targets={"add": 1.7, "delete": 1.7},
    ),
    Row(
        "parallel",
        f"the first row, all of {MANY}, {WIDTH} at a time",
        ours=_masquerade_portmap,
        targets={"add": 0.8, "delete": 0.6},
        width=WIDTH,
    ),
    Row(
        "held",
        "host-local, 10,000 addresses held",
        ours=lambda side: [side.held(10_000)],
        targets={"add": 0.25, "delete": 0.25},
    ),
    Row(
        "growth",
        "host-local, ours with 50,000 over ours with 10",
        ours=lambda side: [side.held(50_000)],
        peer=lambda side: [side.held(10)],
        targets={"add": 1.3, "delete": 1.3},
        alone=True,
    ),
    Row(
        "flannel",
        "flannel and portmap, over the peer's first row",
        ours=lambda side: [side.flannel(), side.portmap()],
        peer=_masquerade_portmap,
        targets={"add": 0.8, "delete": 0.5},
    ),
    Row(
        "firewall",
        "bridge, firewall as each chooses",
        ours=lambda side: [side.bridge(masquerade=False), side.firewall()],
        targets={"add": 0.9, "delete": 0.9},
    ),
    Row(
        "firewall-iptables",
        "bridge, firewall by iptables",
        ours=lambda side: [side.bridge(masquerade=False), side.firewall("iptables")],
        targets={"add": 0.9},
        verbs=("add", "check", "delete"),
    ),
    Row(
        "ptp",
        "ptp, no masquerade",
        ours=lambda side: [side.alone("ptp")],
        targets={"add": 2.0},
    ),
    Row(
        "ptp-masq",
        "ptp ipMasq",
        ours=lambda side: [side.alone("ptp", ipMasq=True)],
        targets={"add": 0.9},
    ),
    Row("static", "static alone", ours=lambda side: [side.static()], targets={"add": 2.0}),
    Row("macvlan", "macvlan", ours=lambda side: [side.on_uplink("macvlan")], targets={"add": 2.0}),
    Row(
        "dhcp",
        "macvlan, dhcp; mostly waiting: the peer's daemon asks after 1 to 3 s",
        ours=lambda side: [side.leased()],
        targets={"add": 2.0},
    ),
    Row("host-device", "host-device", ours=lambda side: [side.lent()], targets={"add": 2.0}),
    Row(
        "tuning",
        "tuning alone, after a bridge: a sysctl, MTU, promiscuous",
        ours=lambda side: [
            side.before(),
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400, "promisc": True},
        ],
        targets={"add": 2.0},
    ),
    Row(
        "bandwidth",
        "bandwidth alone, after a bridge: both directions",
        ours=lambda side: [side.before(), {"type": "bandwidth", **_LIMITS}],
        targets={"add": 2.0},
    ),
    Row(
        "sbr",
        "sbr alone, after a bridge",
        ours=lambda side: [side.before(), {"type": "sbr"}],
        targets={"add": 2.0},
    ),
    Row(
        "ipvlan",
        "ipvlan",
        ours=lambda side: [side.on_uplink("ipvlan")],
        targets={"add": 2.0},
        kernel="ipvlan",
    ),
    Row("vlan", "vlan", ours=lambda side: [side.on_uplink("vlan")], targets={"add": 2.0}, kernel="802.1Q"),
    Row("dummy", "dummy", ours=lambda side: [side.alone("dummy")], targets={"add": 2.0}, kernel="dummy"),
    Row(
        "vrf",
        "vrf alone, after a bridge",
        ours=lambda side: [side.before(), {"type": "vrf", "vrfname": "red"}],
        targets={"add": 2.0},
        kernel="vrf",
    ),
    Row("tap", "tap", ours=lambda side: [side.alone("tap")], targets={"add": 2.0}),
    Row("loopback", "loopback", ours=lambda _side: [{"type": "loopback"}], targets={"add": 2.0}),
    Row(
        "version",
        "VERSION of bridge",
        ours=lambda side: [side.bridge(masquerade=False)],
        targets={},
        verbs=("version",),
    ),
)


def missing(row: Row, ours: Side, peer: Side) -> str:
    """Return what a row needs and a suite or the kernel lacks; nothing when it can run."""
    if row.kernel and not features.has(row.kernel):
        return f"{row.kernel} in this kernel"
    pairs = [(ours, row.ours)] if row.alone else [(ours, row.ours), (peer, row.peer or row.ours)]
    for side, plugins in pairs:
        for plugin in plugins(side):
            if not side.has(plugin["type"]):
                return f"{plugin['type']} in {side.folder}"
    return ""


def measure(row: Row, ours: Side, peer: Side, containers: int) -> list[Line]:
    """Race both sides through one row; return a line for each verb."""
    if row.alone:
        peer = ours
    racers = [(ours, row.ours(ours)), (peer, (row.peer or row.ours)(peer))]
    for side, plugins in racers:
        warm = [side.attachment(plugins, number) for number in range(WARM_UP)]
        for verb in row.verbs:
            _run(side, [_job(attachment, verb) for attachment in warm], 1)
    costs: dict[str, tuple[list[Cost], list[Cost]]] = {verb: ([], []) for verb in row.verbs}
    if row.width > 1:
        for _ in range(ROUNDS):
            _race_groups(row, racers, costs)
    else:
        _race_singles(row, racers, costs, containers)
    peaks = [_peaks(row, side, plugins) for side, plugins in racers]
    return [
        Line(
            row.key,
            row.title,
            {"delete": "DEL"}.get(verb, verb.upper()),
            _median(costs[verb][0], peaks[0][verb]),
            _median(costs[verb][1], peaks[1][verb]),
            row.targets.get(verb),
        )
        for verb in row.verbs
    ]


def _race_singles(
    row: Row,
    racers: list[tuple[Side, list[dict[str, Any]]]],
    costs: dict[str, tuple[list[Cost], list[Cost]]],
    containers: int,
) -> None:
    """Add every container, then check them, then delete them: one of ours, one of the peer's, in turn."""
    made = [[side.attachment(plugins, number) for number in range(containers)] for side, plugins in racers]
    for verb in row.verbs:
        for number in range(containers):
            # Who goes second finds the caches warmer, so each goes second half of the time.
            for which in (0, 1) if number % 2 else (1, 0):
                side = racers[which][0]
                costs[verb][which].extend(_run(side, [_job(made[which][number], verb)], 1))


def _race_groups(
    row: Row,
    racers: list[tuple[Side, list[dict[str, Any]]]],
    costs: dict[str, tuple[list[Cost], list[Cost]]],
) -> None:
    """Add and delete all containers of one side, several at a time, then of the other."""
    for which, (side, plugins) in enumerate(racers):
        made = [side.attachment(plugins, number) for number in range(MANY)]
        for verb in row.verbs:
            total = Cost()
            with side.node.entered():
                began = perf_counter()
                for cost in run_all([_job(attachment, verb) for attachment in made], row.width):
                    total.add(cost)
                total.wall = (perf_counter() - began) * 1000
            costs[verb][which].append(total)


def _peaks(row: Row, side: Side, plugins: list[dict[str, Any]]) -> dict[str, float]:
    attachment = side.attachment(plugins, 0)
    with side.node.entered():
        return {verb: peak_of(_job(attachment, verb)) for verb in row.verbs}


def _run(side: Side, jobs: list[Job], width: int) -> list[Cost]:
    with side.node.entered():
        return run_all(jobs, width)


def _job(attachment: Attachment, verb: str) -> Job:
    job: Job = getattr(attachment, verb)()
    return job


def _median(costs: list[Cost], peak: float) -> Cost:
    return Cost(median(cost.wall for cost in costs), median(cost.cpu for cost in costs), peak)
