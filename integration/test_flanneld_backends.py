"""Every backend in every family, with leases in a real etcd: what is published, and pods that all talk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration import backends
from integration.fleet import Fleet, Member

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from integration.backends import Case


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    with Fleet(suite_bin) as made:
        yield made


def value(case: Case, member: Member) -> dict[str, Any]:
    """Return what etcd is to hold of a node: what is null is left out, but for the address."""
    found = {
        "PublicIP": member.at(4) if 4 in case.families else "0.0.0.0",
        "PublicIPv6": member.at(6) if 6 in case.families else None,
    }
    if case.type_published():
        found["BackendType"] = case.type
    for family, name in ((4, "BackendData"), (6, "BackendV6Data")):
        if family in case.families and (data := case.data(member, family)) is not None:
            found[name] = data
    return found


def subnets(case: Case, key: str) -> Mapping[int, str]:
    """Return the subnets that a lease's key names, by family."""
    names = [name.rpartition("-") for name in key.split("&")]
    found = dict(zip((4, 6), (f"{address}/{length}" for address, _, length in names), strict=False))
    assert 4 in case.families or found.pop(4) == "0.0.0.0/0"
    return found


@pytest.mark.parametrize("case", backends.parameters())
def test_pods_of_all_nodes_talk(fleet: Fleet, case: Case) -> None:
    with fleet.gathered(case.config, case.places) as members:
        published = {key: json.loads(text) for key, text in fleet.etcd.leases().items()}
        assert len(published) == len(members)
        for member in members:
            wanted = value(case, member)
            (key,) = [key for key, found in published.items() if found == wanted]
            assert member.subnet_env() == case.subnet_env(subnets(case, key))
        backends.talk(case, members)
        if case.type == "wireguard":
            backends.whisper(case, fleet.underlay.router, *members)
