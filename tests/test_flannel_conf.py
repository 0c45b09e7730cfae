"""What flannel makes of `subnet.env` and its own configuration, before anybody is called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.plugins.flannel import SubnetEnv, _delegate_config
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError, InvalidConfigError, TryAgainLaterError
from cni_plugins.spec.request import Request
from cni_plugins.spec.schema import validate
from tests.calls import variables
from tests.flannel import BOTH, ONLY6, V4, text

if TYPE_CHECKING:
    from pathlib import Path


def without(values: dict[str, str], *keys: str) -> str:
    return text({key: value for key, value in values.items() if key not in keys})


def config(values: dict[str, str], verb: str = "ADD", **keys: Any) -> dict[str, Any]:
    raw = {"cniVersion": "1.0.0", "name": "net", "type": "flannel", **keys}
    request = Request(variables(verb, "/bin"), raw)
    request.conf = validate("FlannelConf", raw)
    before = json.dumps(raw)
    made = _delegate_config(request, SubnetEnv(text(values)))
    assert json.dumps(raw) == before, "the configuration itself is left alone"
    return made


def test_defaults_are_a_bridge_with_host_local() -> None:
    assert config(V4) == {
        "name": "net",
        "cniVersion": "1.0.0",
        "type": "bridge",
        "ipMasq": False,
        "mtu": 1450,
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    }


@pytest.mark.parametrize(
    ("values", "subnets", "networks"),
    [
        (V4, ["10.244.3.0/24"], ["10.244.0.0/16"]),
        (BOTH, ["10.244.3.0/24", "fd00:10:0:3::/64"], ["10.244.0.0/16", "fd00:10::/48"]),
        (ONLY6, ["fd00:10:0:3::/64"], ["fd00:10::/48"]),
        (
            {
                **BOTH,
                "FLANNEL_NETWORK": "10.244.0.0/16,10.9.0.0/16, 10.244.0.0/16",
                "FLANNEL_IPV6_NETWORK": "fd00::/48,fd00::1/48",
            },
            ["10.244.3.0/24", "fd00:10:0:3::/64"],
            ["10.244.0.0/16", "10.9.0.0/16", "fd00::/48"],
        ),
    ],
)
def test_families_and_networks(values: dict[str, str], subnets: list[str], networks: list[str]) -> None:
    ipam = config(values)["ipam"]
    assert ipam["ranges"] == [[{"subnet": subnet}] for subnet in subnets]
    assert ipam["routes"] == [{"dst": network} for network in networks]


@pytest.mark.parametrize(
    ("said", "masquerade"), [("true", True), ("false", False), ("TRUE", False), ("1", False)]
)
def test_somebody_masquerades(said: str, masquerade: bool) -> None:
    """The delegate's ipMasq is the opposite of what the daemon does."""
    values = {**V4, "FLANNEL_IPMASQ": said}
    assert SubnetEnv(text(values)).masquerade is masquerade
    assert config(values)["ipMasq"] is not masquerade


def test_what_the_administrator_wrote_goes_before_the_defaults() -> None:
    delegate = {"type": "ptp", "mtu": 1300, "ipMasq": True, "more": [1]}
    made = config(
        V4, delegate=delegate, runtimeConfig={"portMappings": []}, ipam={"dataDir": "/d", "type": "x"}
    )
    assert made == {
        **delegate,
        "name": "net",
        "cniVersion": "1.0.0",
        "ipam": {
            "type": "x",
            "dataDir": "/d",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    } | ({"runtimeConfig": {"portMappings": []}})
    assert "isGateway" not in made
    assert config(V4, delegate={"isGateway": False})["isGateway"] is False
    assert config(V4, delegate={"type": "bridge"})["isGateway"] is True
    assert config(V4, runtimeConfig={"mac": "a"})["runtimeConfig"] == {"mac": "a"}


def test_routes_of_the_configuration_come_first() -> None:
    routes = [{"dst": "192.0.2.0/24", "gw": "10.244.3.9"}]
    made = config(V4, ipam={"routes": routes, "ranges": "replaced"})
    assert made["ipam"]["routes"] == [*routes, {"dst": "10.244.0.0/16"}]
    assert made["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"delegate": {"name": "x"}}, "must not have 'name' field"),
        ({"delegate": {"ipam": {}}}, "must not have 'ipam' field"),
        ({"delegate": {"type": 1}}, "must have (string) 'type' field"),
        ({"delegate": {"type": ""}}, "must have (string) 'type' field"),
        ({"delegate": {"type": None}}, "must have (string) 'type' field"),
        ({"ipam": {"routes": {}}}, "ipam.routes must be a list"),
    ],
)
def test_what_cannot_be_completed_is_code_7(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config(V4, **keys)
    assert says in caught.value.msg


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ("", "FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        (without(V4, "FLANNEL_MTU"), "FLANNEL_MTU"),
        (without(V4, "FLANNEL_IPMASQ"), "FLANNEL_IPMASQ"),
        (without(V4, "FLANNEL_NETWORK"), "FLANNEL_NETWORK"),
        (without(V4, "FLANNEL_SUBNET"), "FLANNEL_SUBNET"),
        (without(BOTH, "FLANNEL_IPV6_SUBNET"), "FLANNEL_IPV6_SUBNET"),
        (without(BOTH, "FLANNEL_IPV6_NETWORK"), "FLANNEL_IPV6_NETWORK"),
        (text({**V4, "FLANNEL_MTU": ""}), "FLANNEL_MTU"),
        ("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUB", "FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
    ],
)
def test_what_is_missing_is_named(content: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"^it has no {missing}$"):
        SubnetEnv(content)


@pytest.mark.parametrize(
    "broken",
    [
        {"FLANNEL_SUBNET": "10.244.3"},
        {"FLANNEL_SUBNET": "10.244.3.1"},
        {"FLANNEL_NETWORK": "10.244.0.0/16,"},
        {"FLANNEL_NETWORK": "10.244.0.0/33"},
        {"FLANNEL_MTU": "14x"},
        {"FLANNEL_MTU": "1450.0"},
    ],
)
def test_what_is_cut_off_or_garbled_is_tried_again_later(broken: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text(text({**V4, **broken}))
    with pytest.raises(TryAgainLaterError) as caught:
        SubnetEnv.load(str(path))
    assert caught.value.code == 11
    assert str(path) in caught.value.msg
    assert "flanneld" in caught.value.details


def test_lines_of_other_kinds_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(b"# a comment\r\n\r\n  " + text(V4).replace("\n", "\r\n").encode() + b"MORE=1=2\nword\n")
    env = SubnetEnv.load(str(path))
    assert (env.mtu, env.masquerade, [str(each) for each in env.subnets]) == (1450, True, ["10.244.3.0/24"])


def test_bytes_that_are_no_text_are_tried_again_later(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(text(V4).encode() + b"\xff")
    with pytest.raises(TryAgainLaterError):
        SubnetEnv.load(str(tmp_path / "env"))


def test_hostile_paths() -> None:
    """Nothing of the configuration can make the note leave its folder, or end in a traceback."""
    for container in ("../x", "a/b", ".."):
        with pytest.raises(CNIError):
            Request(variables("ADD", "/bin", containerid=container), {"cniVersion": "1.1.0", "name": "net"})
    assert skel.as_cni_error(FileNotFoundError(2, "No such file", "/x")).code == 100
