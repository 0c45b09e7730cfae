"""By which aliases an interface is another container's, and by which it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_plugins.attach import owner
from cni_plugins.kernel import link
from cni_plugins.kernel.nlattr import attr_str
from cni_plugins.spec.request import Request
from tests.calls import variables

if TYPE_CHECKING:
    from cni_plugins.kernel.link import Link


def request(container: str = "c1") -> Request:
    env = variables("DEL", "/bin", containerid=container)
    return Request(env, {"cniVersion": "1.1.0", "name": "net"})


def found(alias: str, name: str = "eth0") -> Link:
    body = link.header(2) + attr_str(link.IFLA_IFNAME, name)
    return link.Link(body + (attr_str(link.IFLA_IFALIAS, alias) if alias else b""))


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (owner.alias(request("c2")), True),
        ("other:c2:net1", True),
        (owner.alias(request()), False),
        ("other:c1:net1", False),  # a chained plugin of this container
        ("", False),
        ("uplink of rack 7", False),
        ("net:c2", False),
        ("net:c2:eth0:", False),
        ("fe80::1", False),
        ("02:00:5e:10:00:01", False),
        ("see: rack 7: left", False),
        ("net:c2:", False),
        ("net:c2:an-interface-name", False),
    ],
)
def test_whose_it_is(alias: str, expected: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert owner.is_anothers(request(), found(alias)) is expected
    said = f"eth0 in /no/such/netns is left alone: eth0 is of {alias.replace(':', ' ')}\n"
    assert capfd.readouterr().err == (said if expected else "")


@pytest.mark.parametrize(("alias", "expected"), [("net:c2:eth0", True), ("net:c1:eth0", False), ("", False)])
def test_whose_a_namespace_is(alias: str, expected: bool, capfd: pytest.CaptureFixture[str]) -> None:
    links = [found("", "lo"), found(alias)]
    assert owner.is_shared(request(), links, "lo") is expected
    said = "lo in /no/such/netns is left alone: eth0 is of net c2 eth0\n"
    assert capfd.readouterr().err == (said if expected else "")
