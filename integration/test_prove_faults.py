"""The disk and the kernel say no: a sample of the faults of prove/faults.py, and those that once did harm.

`make prove` tries them all.
"""

from __future__ import annotations

import re

import pytest

from prove import faults
from prove.networks import Network, networks
from prove.stage import Stage
from prove.tally import Share

SAMPLE = 3
FIRST = 2
"""How many on a node that never had an attachment: each begins with a new one."""
SEED = 5
ONCE = {
    "macvlan": [
        # The link was made, and nobody heard of it.
        ("macvlan", "ADD", r"recvfrom\(.*NLMSG_ERROR.*RTM_NEWLINK", "error=ENOBUFS"),
    ],
    "ptp with ipMasq": [
        # An index that could not be read was taken for an empty one, and the addresses were lost.
        ("ptp", "DEL", r'readlink\("/var/lib/cni/networks/\.index/', "error=EIO"),
        # What came after was done in the container's namespace.
        ("ptp", "DEL", r"setns\(\d+<net:", "error=EPERM"),
        # Closing a socket failed, for want of another.
        ("ptp", "DEL", r"socketpair\(", "error=EMFILE"),
    ],
    "flannel, portmap": [
        # Rules without handles: the note had their backend already, so that nothing was searched.
        ("portmap", "ADD", r"recvfrom\(.*NFT_MSG_NEWRULE", "error=ENOBUFS"),
    ],
    "bridge, firewall, bandwidth, tuning": [
        # Taken for another writer's change, and made a second time.
        ("bridge", "ADD", r"recvfrom\(.*NFT_MSG_NEWRULE", "error=EBUSY"),
        ("bandwidth", "ADD", r"recvfrom\(.*NLMSG_ERROR.*RTM_NEW(LINK|QDISC)", "error=ENOBUFS"),
    ],
    "bridge, portmap by iptables": [
        # The answer was never printed.
        ("portmap", "ADD", r"fcntl\(.*children\.lock.*F_UNLCK", "error=ENOLCK"),
        # The message did not say what could not be started.
        ("portmap", "ADD", r"memfd_create\(", "error=EMFILE"),
    ],
}


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.name)
def test_one_call_fails(suite_bin: str, network: Network) -> None:
    with Stage(suite_bin, network, keeper=True) as stage:
        cases = faults.all_cases(stage, *faults.KINDS)
        chosen = Share(sample=SAMPLE, seed=SEED).of(cases)
        plugins = [plugin["type"] for plugin in network.plugins]
        for plugin, verb, call, fault in ONCE.get(network.name, []):
            found = [
                case
                for case in cases
                if (plugins[case.position], case.verb, case.fault) == (plugin, verb, fault)
                and re.match(call, f"{case.call.name}({case.call.text}")
            ]
            assert found, (plugin, verb, call)
            chosen += found[:1]
        tally = faults.tried(stage, chosen)
    assert tally.tried >= 1
    assert tally.failures == []


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.name)
def test_one_call_of_a_first_add_fails(suite_bin: str, network: Network) -> None:
    with Stage(suite_bin, network, keeper=False) as stage:
        cases = faults.all_cases(stage, *faults.KINDS)
        assert {case.verb for case in cases} == {"ADD"}
        tally = faults.tried(stage, Share(sample=FIRST, seed=SEED).of(cases))
    assert tally.tried >= 1
    assert tally.failures == []
