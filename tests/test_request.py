"""What a runtime asks (CNI 1.1.0, section 2): variables, names, versions, arguments."""

from __future__ import annotations

from typing import Any

import pytest

from cni_plugins.spec.errors import (
    CNIError,
    DecodeError,
    IncompatibleVersionError,
    InvalidConfigError,
    InvalidEnvironmentError,
)
from cni_plugins.spec.request import Request, check_environment, config_version, valid_identifier
from tests.calls import VERBS, VERSIONS, variables

REQUIRED = {
    "ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "DEL": {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"},
    "GC": {"CNI_PATH"},
    "STATUS": set(),
    "VERSION": set(),
}
NAMES = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
FIRST = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


def conf(**changes: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "prevResult": {}, **changes}


def request(verb: str = "ADD", raw: dict[str, Any] | None = None, **changes: str) -> Request:
    return Request(variables(verb, "/opt/cni/bin", **changes), conf() if raw is None else raw)


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "absent"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", VERBS)
def test_required_variables(verb: str, name: str, empty: bool) -> None:
    env = variables(verb, "/bin")
    if empty:
        env[name] = ""
    else:
        del env[name]
    if name not in REQUIRED[verb]:
        assert check_environment(env) == verb
        return
    with pytest.raises(InvalidEnvironmentError) as caught:
        check_environment(env)
    assert caught.value.code == 4
    assert caught.value.msg == f"required env variables [{name}] missing"


@pytest.mark.parametrize("verb", VERBS)
def test_all_missing_variables_are_named(verb: str) -> None:
    needed = [name for name in NAMES if name in REQUIRED[verb]]
    if not needed:
        assert check_environment({"CNI_COMMAND": verb}) == verb
        return
    with pytest.raises(InvalidEnvironmentError) as caught:
        check_environment({"CNI_COMMAND": verb})
    assert f"[{','.join(needed)}]" in caught.value.msg


@pytest.mark.parametrize("verb", ["", "add", "ADD ", "UPDATE", "ADD\n", "\udcff"])
def test_unknown_verbs_are_code_4(verb: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match=r"^unknown CNI_COMMAND") as caught:
        check_environment(variables(verb, "/bin"))
    assert all(known in caught.value.details for known in VERBS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "VERSION"])
def test_verbs_came_with_versions(verb: str, version: str) -> None:
    raw = conf(cniVersion=version)
    if VERSIONS.index(version) >= VERSIONS.index(FIRST.get(verb, "0.1.0")):
        made = request(verb, raw)
        assert (made.command, made.version) == (verb, version)
        return
    with pytest.raises(IncompatibleVersionError, match=f"config version does not allow {verb}") as caught:
        request(verb, raw)
    assert caught.value.code == 1
    assert version in caught.value.msg


@pytest.mark.parametrize("version", ["0.0.9", "0.5.0", "1.1.1", "2.0.0", "1.1", " 1.1.0", "latest"])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "VERSION"])
def test_versions_that_nobody_speaks_are_code_1(verb: str, version: str) -> None:
    with pytest.raises(IncompatibleVersionError) as caught:
        request(verb, conf(cniVersion=version))
    assert caught.value.code == 1
    assert repr(version) in caught.value.msg
    assert all(known in caught.value.msg for known in VERSIONS)


@pytest.mark.parametrize("raw", [{}, {"cniVersion": ""}, {"cniVersion": None}])
def test_no_version_is_the_first(raw: dict[str, Any]) -> None:
    assert config_version(raw) == "0.1.0"


@pytest.mark.parametrize("version", [1, 1.1, True, ["1.1.0"], {}])
def test_a_version_is_a_string(version: object) -> None:
    with pytest.raises(DecodeError, match="cniVersion must be a string"):
        config_version({"cniVersion": version})


HOSTILE = [
    "../c1",
    "..",
    ".hidden",
    "-option",
    "_c1",
    "a/b",
    "a\0b",
    "a\n",
    "\na",
    "a b",
    "a\tb",
    "a:b",
    "c\u00e9",
    "\u0661",
    "\u4f60\u597d",
    "a\udcff",
    "a;b",
    "a*",
    "$(a)",
    "a" * 4096 + "/",
]
GOOD = ["a", "0", "9a", "A-b_c.d", "a..b", "a" * 4096, "k8s-pod-network"]


@pytest.mark.parametrize("text", GOOD)
def test_identifiers(text: str) -> None:
    assert valid_identifier(text)
    made = request("ADD", conf(name=text), containerid=text)
    assert (made.container_id, made.network) == (text, text)


@pytest.mark.parametrize("text", ["", *HOSTILE])
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_hostile_container_ids_are_code_4(verb: str, text: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match=r"^CNI_CONTAINERID: invalid characters") as caught:
        request(verb, containerid=text)
    assert "\n" not in caught.value.msg
    assert not valid_identifier(text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "VERSION"])
def test_hostile_network_names_are_code_7(verb: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"^invalid characters found in network name") as caught:
        request(verb, conf(name=text))
    assert "\n" not in caught.value.msg


@pytest.mark.parametrize("name", [None, ""])
def test_a_network_has_a_name(name: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^missing network name$"):
        request(raw=conf(name=name))


@pytest.mark.parametrize("name", [0, False, [], {}, 1.5])
def test_a_networks_name_is_a_string(name: object) -> None:
    with pytest.raises(DecodeError, match="name must be a string"):
        request(raw=conf(name=name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        (".", r"is \. or \.\."),
        ("..", r"is \. or \.\."),
        ("a/b", "contains / or : or white space"),
        ("a:b", "contains / or : or white space"),
        ("a b", "contains / or : or white space"),
        ("a\tb", "contains / or : or white space"),
        ("eth0\n", "contains / or : or white space"),
        ("eth0\0", "contains / or : or white space"),
        ("a\u00a0b", "contains / or : or white space"),
        ("a" * 16, "is too long"),
        ("a" * 4096, "is too long"),
        ("\u00e9" * 8, "is too long; the kernel takes 15 bytes"),
        ("\udcff\udcfe", "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_invalid_interface_names_are_code_4(verb: str, name: str, says: str) -> None:
    """The kernel's dev_valid_name() (net/core/dev.c)."""
    with pytest.raises(InvalidEnvironmentError, match=f"^CNI_IFNAME: interface name .*{says}") as caught:
        request(verb, ifname=name)
    assert "\n" not in caught.value.msg


@pytest.mark.parametrize("name", ["a", "eth0", "a" * 15, "\u00e9" * 7, "veth.1-2@x", "..."])
def test_interface_names(name: str) -> None:
    assert request(ifname=name).ifname == name


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_no_names_are_asked_for_where_there_is_no_container(verb: str) -> None:
    made = Request({"CNI_COMMAND": verb}, conf())
    assert (made.container_id, made.ifname, made.netns, made.path) == ("", "", "", [])


def test_path_is_a_list_of_folders() -> None:
    assert request(path="/a:/b/:").path == ["/a", "/b/"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_prev_result_may_be_of_any_version(verb: str, version: str) -> None:
    old = {"cniVersion": version, "ip4": {"ip": "10.1.2.3/24"}}
    new = {"cniVersion": version, "ips": [{"address": "10.1.2.3/24"}]}
    result = request(verb, conf(prevResult=old if version in ("0.1.0", "0.2.0") else new)).prev_result
    assert result is not None
    assert [str(ip.address) for ip in result.ips] == ["10.1.2.3/24"]


@pytest.mark.parametrize("version", VERSIONS)
def test_prev_result_is_in_the_configurations_version_unless_it_says(version: str) -> None:
    result = request(raw=conf(cniVersion=version, prevResult={"ip4": {"ip": "10.1.2.3/24"}})).prev_result
    assert result is not None
    assert len(result.ips) == (1 if version in ("0.1.0", "0.2.0") else 0)


@pytest.mark.parametrize("raw", [{"cniVersion": "1.1.0", "name": "n"}, conf(prevResult=None)])
def test_only_check_needs_prev_result(raw: dict[str, Any]) -> None:
    for verb in ("ADD", "DEL", "GC", "STATUS"):
        assert request(verb, raw).prev_result is None
    with pytest.raises(InvalidConfigError, match="CHECK needs prevResult"):
        request("CHECK", raw)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", {}),
        (";", {}),
        ("IP=10.0.0.5", {"IP": "10.0.0.5"}),
        ("IP=10.0.0.5;GATEWAY=10.0.0.1;MAC=02:00:00:00:00:01;", "all three"),
        ("IP=", {"IP": ""}),
        ("IP=a=b", {"IP": "a=b"}),
        ("IP=1;IP=2", {"IP": "2"}),
        ("IgnoreUnknown=0;IP=1", {"IP": "1"}),
        ("IgnoreUnknown=1;K8S_POD_NAME=p;IP=1", {"IP": "1"}),
        ("K8S_POD_NAME=p;IgnoreUnknown=true", {}),
        ("K8S_POD_NAME=p;IgnoreUnknown=TRUE", {}),
    ],
)
def test_arguments(args: str, expected: Any) -> None:
    if expected == "all three":
        expected = {"IP": "10.0.0.5", "GATEWAY": "10.0.0.1", "MAC": "02:00:00:00:00:01"}
    assert request(args=args).cni_args() == expected


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("IP", "invalid pair 'IP'"),
        ("IP=1;;x", "invalid pair 'x'"),
        ("IgnoreUnknown=1;x", "invalid pair 'x'"),
        ("K8S_POD_NAME=p", r"unknown args \['K8S_POD_NAME=p'\]"),
        ("ip=1;A=2", r"unknown args \['ip=1', 'A=2'\]"),
        ("A=1;IgnoreUnknown=0", r"unknown args \['A=1'\]"),
        ("A=1;IgnoreUnknown=false", r"unknown args \['A=1'\]"),
        ("IgnoreUnknown=yes", "IgnoreUnknown must be true or false"),
        ("=1", r"unknown args \['=1'\]"),
    ],
)
def test_invalid_arguments_are_code_4(args: str, says: str) -> None:
    with pytest.raises(InvalidEnvironmentError, match=f"^CNI_ARGS: {says}"):
        request(args=args).cni_args()


def test_no_arguments_at_all() -> None:
    assert Request({"CNI_COMMAND": "STATUS"}, conf()).cni_args() == {}


def test_valid_attachments() -> None:
    """Section 2, "GC": containerID and ifname of what is still in use."""
    listed = [
        {"containerID": "a", "ifname": "eth0"},
        {"containerID": "a", "ifname": "eth1", "more": 1},
        {"containerID": "a", "ifname": "eth0"},
    ]
    made = request("GC", conf(**{"cni.dev/valid-attachments": listed}))
    assert made.valid_attachments() == {("a", "eth0"), ("a", "eth1")}
    assert request("GC", conf(**{"cni.dev/valid-attachments": []})).valid_attachments() == set()


@pytest.mark.parametrize(
    "listed",
    [None, {}, "a", [None], ["a"], [{}], [{"containerID": "a"}], [{"containerID": 1, "ifname": "eth0"}]],
)
def test_no_list_of_attachments_is_an_error_lest_everything_goes(listed: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"cni.dev/valid-attachments"):
        request("GC", conf(**{"cni.dev/valid-attachments": listed})).valid_attachments()
    with pytest.raises(CNIError):
        request("GC", conf()).valid_attachments()


def test_the_protocols_keys_are_matched_as_go_decodes() -> None:
    """Without regard to case, unless one matches exactly; what the plugin's delegate gets is normal again."""
    listed = [{"containerID": "a", "ifname": "eth0"}]
    raw = {"CNIVERSION": "1.0.0", "Name": "net", "prevresult": {}, "CNI.dev/valid-attachments": listed}
    made = request("CHECK", raw)
    assert (made.version, made.network, made.prev_result is not None) == ("1.0.0", "net", True)
    assert made.valid_attachments() == {("a", "eth0")}
    assert set(made.raw) == {"cniVersion", "name", "prevResult", "cni.dev/valid-attachments"}
    assert request("ADD", conf(NAME="other", name="net")).network == "net"
    assert config_version({"cniversion": "0.4.0"}) == "0.4.0"
