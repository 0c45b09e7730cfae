"""The verbs of static, in this process."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from cni_plugins.spec import skel
from cni_plugins.spec.errors import (
    CheckFailedError,
    CNIError,
    IncompatibleVersionError,
    InvalidConfigError,
    InvalidEnvironmentError,
)
from ipam.static.plugin import PLUGIN
from tests.calls import VERSIONS, variables

PEER = "/usr/lib/cni/static"
BOTH = [
    {"address": "10.10.0.1/24", "gateway": "10.10.0.254"},
    {"address": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1"},
]


def config(version: str = "1.1.0", ips: Any = None, runtime: Any = None, **ipam: Any) -> dict[str, Any]:
    conf: dict[str, Any] = {"cniVersion": version, "name": "net", "type": "bridge"}
    conf["ipam"] = {"type": "static", **ipam}
    if ips is not None:
        conf["args"] = {"cni": {"ips": ips}}
    if runtime is not None:
        conf["runtimeConfig"] = {"ips": runtime}
    return conf


def call(verb: str, conf: dict[str, Any], args: str = "") -> dict[str, Any]:
    return skel.serve(PLUGIN, variables(verb, "/nowhere", args=args), conf) or {}


def failure(verb: str, conf: dict[str, Any], args: str = "") -> CNIError:
    with pytest.raises(CNIError) as caught:
        call(verb, conf, args)
    return caught.value


def given(conf: dict[str, Any], args: str = "") -> list[tuple[str, str]]:
    return [(ip["address"], ip.get("gateway", "")) for ip in call("ADD", conf, args).get("ips", [])]


ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "192.168.0.0/16", "gw": "10.10.5.1"},
    {"dst": "0.0.0.0/0", "gw": "10.10.0.7", "priority": 5, "mtu": 1400, "advmss": 1300},
    {"dst": "3ffe:ffff:0:1ff::1/64"},
    {"dst": "0.0.0.0/0", "table": 100, "scope": 0},
]
DNS = {"nameservers": ["192.0.2.53"], "domain": "example.org", "search": ["a.example.org"], "options": ["x"]}


def test_all_that_is_written_is_returned_in_its_order() -> None:
    assert call("ADD", config(addresses=BOTH, routes=ROUTES, dns=DNS)) == {
        "cniVersion": "1.1.0",
        "ips": BOTH,
        "routes": ROUTES,
        "dns": DNS,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_its_shape(version: str) -> None:
    result = call("ADD", config(version, addresses=BOTH, routes=[{"dst": "0.0.0.0/0"}]))
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"] == {
            "ip": "10.10.0.1/24",
            "gateway": "10.10.0.254",
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        assert result["ip6"] == {"ip": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1"}
    else:
        families = [ip.get("version") for ip in result["ips"]]
        assert families == (["4", "6"] if version.startswith("0.") else [None, None])


def test_old_versions_take_one_address_of_a_family() -> None:
    two = [{"address": "10.10.0.1/24"}, {"address": "10.11.0.1/24"}]
    error = failure("ADD", config("0.2.0", addresses=two))
    assert isinstance(error, IncompatibleVersionError)
    assert "0.2.0 does not support more than 1 address per family" in error.msg
    assert "no valid IP addresses" in failure("ADD", config("0.2.0")).msg


ENVIRONMENT = "IP=10.12.0.1/24, 3ffe::5/64;GATEWAY=10.12.0.254, 3ffe::1"
BY_ENVIRONMENT = [("10.12.0.1/24", "10.12.0.254"), ("3ffe::5/64", "3ffe::1")]
CONFIGURED = [(each["address"], each["gateway"]) for each in BOTH]


def test_cni_args_add_to_the_configuration() -> None:
    assert given(config(), ENVIRONMENT) == BY_ENVIRONMENT
    assert given(config(addresses=BOTH), ENVIRONMENT) == CONFIGURED + BY_ENVIRONMENT
    assert given(config(), "IP=10.12.0.1/24;GATEWAY=10.13.0.1") == [("10.12.0.1/24", "")]
    assert given(config(addresses=BOTH), "GATEWAY=10.10.0.9") == CONFIGURED
    assert given(config(addresses=BOTH), "FOO=1;IgnoreUnknown=1") == CONFIGURED


def test_args_take_the_place_of_both_and_the_runtime_of_all() -> None:
    ips = ["10.10.0.2/24", "3ffe:ffff::2/64"]
    assert given(config(ips=ips, addresses=BOTH), ENVIRONMENT) == [(each, "") for each in ips]
    runtime = ["10.10.0.3/24"]
    assert given(config(ips=ips, runtime=runtime, addresses=BOTH), ENVIRONMENT) == [("10.10.0.3/24", "")]
    assert given(config(ips=[], runtime=[], addresses=BOTH)) == CONFIGURED
    # What is not used may be anything, as in the reference.
    assert given(config(runtime=runtime, addresses=[{"address": "somewhere"}])) == [("10.10.0.3/24", "")]


@pytest.mark.parametrize(
    ("conf", "args", "kind", "where"),
    [
        (config(addresses=[*BOTH, {"address": "10.1.1.1"}]), "", InvalidConfigError, "ipam.addresses[2]"),
        (config(ips=["10.1.0.1/24", "10.1.1.1"]), "", InvalidConfigError, "args.cni.ips[1]"),
        (config(runtime=["10.1.1.1"]), "", InvalidConfigError, "runtimeConfig.ips[0]"),
        (config(), "IP=10.2.2.2/24,10.1.1.1", InvalidEnvironmentError, "CNI_ARGS: IP"),
        (config(runtime=["10.1.0.1/24"]), "IP=10.1.1.1", InvalidEnvironmentError, "CNI_ARGS: IP"),
    ],
)
def test_what_is_not_in_cidr_notation_is_named(
    conf: dict[str, Any], args: str, kind: type[CNIError], where: str
) -> None:
    wrong = "10.1.1.1"
    error = failure("ADD", conf, args)
    assert isinstance(error, kind)
    assert error.msg.startswith(f"{where}: ")
    assert "CIDR notation" in error.msg
    assert f"'{wrong}'" in error.msg


@pytest.mark.parametrize(
    ("conf", "args", "words"),
    [
        (config(addresses=[{"address": "10.1.0.1/24", "gateway": "foo"}]), "", "ipam.addresses[0]: 'foo'"),
        (config(addresses=[{"gateway": "10.1.1.1"}]), "", "ipam.addresses[0]: ''"),
        (config(), "IP=10.1.0.1/24;GATEWAY=foo", "CNI_ARGS: GATEWAY: 'foo'"),
        (config(routes=[{"dst": "10.1.0.0/24"}, {"dst": "10.1.0.0"}]), "", "ipam.routes[1]: '10.1.0.0'"),
        (config(routes=[{"dst": "10.1.0.0/24", "gw": "foo"}]), "", "ipam.routes[0]: 'foo'"),
        ({"cniVersion": "1.1.0", "name": "net"}, "IP=10.1.0.1/24", "missing 'ipam' key"),
        (config(), "FOO=1", "FOO"),
    ],
)
def test_other_mistakes_are_named(conf: dict[str, Any], args: str, words: str) -> None:
    assert words in failure("ADD", conf, args).msg


def test_check() -> None:
    conf = config(addresses=BOTH)
    result = call("ADD", conf)
    call("CHECK", {**conf, "prevResult": result})
    call("CHECK", {**conf, "prevResult": {**result, "ips": [*result["ips"], {"address": "10.9.0.1/24"}]}})
    lost = failure("CHECK", {**conf, "prevResult": {**result, "ips": result["ips"][:1]}})
    assert isinstance(lost, CheckFailedError)
    assert "3ffe:ffff:0:1ff::1/64 is not in prevResult" in lost.msg
    moved = [{**result["ips"][0], "gateway": "10.10.0.9"}, result["ips"][1]]
    msg = failure("CHECK", {**conf, "prevResult": {**result, "ips": moved}}).msg
    assert "the gateway of 10.10.0.1/24 is 10.10.0.9 in prevResult, not 10.10.0.254" in msg
    bare = [{"address": "10.10.0.1/24"}, result["ips"][1]]
    assert "is none in prevResult" in failure("CHECK", {**conf, "prevResult": {**result, "ips": bare}}).msg


def test_nothing_is_kept() -> None:
    broken = config(addresses=[{"address": "10.1.1.1"}])
    assert call("DEL", broken) == {}
    assert call("GC", {**broken, "cni.dev/valid-attachments": []}) == {}
    assert call("STATUS", config(addresses=BOTH, routes=ROUTES)) == {}
    assert "ipam.addresses[0]" in failure("STATUS", broken).msg
    assert "ipam.routes[0]" in failure("STATUS", config(routes=[{"dst": "x"}])).msg


@pytest.mark.peer
@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.parametrize(
    ("keys", "args"),
    [
        ({"addresses": BOTH, "routes": [*ROUTES[:2], *ROUTES[3:4], *ROUTES[:2]], "dns": DNS}, ""),
        ({"addresses": BOTH[:1]}, "IP=3ffe::5/64;GATEWAY=3ffe::1,10.10.0.9"),
        ({"addresses": BOTH}, ENVIRONMENT),
        ({"addresses": BOTH, "ips": ["10.10.0.2/24", "3ffe::2/64"]}, ENVIRONMENT),
        ({"addresses": BOTH, "ips": ["10.10.0.2/24"], "runtime": ["3ffe::3/64"]}, ENVIRONMENT),
        ({"ips": ["10.10.0.2"]}, ""),
        ({"runtime": ["10.10.0.2"], "addresses": BOTH}, ""),
        ({"addresses": [{"address": "10.1.0.1"}], "runtime": ["3ffe::3/64"]}, ""),
        ({"addresses": [{"address": "10.1.0.1/24", "gateway": "foo"}]}, ""),
        ({}, "IP=10.1.0.1"),
        ({}, "FOO=1"),
        ({}, ""),
    ],
)
def test_the_reference_gives_the_same(version: str, keys: dict[str, Any], args: str) -> None:
    conf = config(version, **keys)
    done = subprocess.run(
        [PEER],
        input=json.dumps(conf).encode(),
        env=variables("ADD", "/nowhere", args=args),
        capture_output=True,
        check=False,
    )
    theirs = json.loads(done.stdout)
    if done.returncode:
        assert failure("ADD", conf, args).msg
        return
    ours = call("ADD", conf, args)
    assert {"dns": {}, **ours} == theirs
    if version in ("0.4.0", "1.0.0"):
        call("CHECK", {**conf, "prevResult": theirs}, args)
