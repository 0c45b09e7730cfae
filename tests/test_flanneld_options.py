"""The command line, as Go's flag package reads it, and the variables."""

from __future__ import annotations

import pytest

from flanneld import main
from flanneld.options import OptionError, Options, UsageError, parse, usage


@pytest.mark.parametrize("words", [["-ip-masq"], ["--ip-masq"], ["-ip-masq=true"], ["--ip-masq=T"]])
def test_a_boolean_needs_no_value(words: list[str]) -> None:
    assert parse(words, {}).ip_masq


def test_values_follow_after_equals_or_as_the_next_word() -> None:
    options = parse(["-etcd-prefix=/a=b", "--subnet-file", "/tmp/x", "-healthz-port", "8090"], {})
    assert (options.etcd_prefix, options.subnet_file, options.healthz_port) == ("/a=b", "/tmp/x", 8090)


def test_repeatable_flags_add_up_and_defaults_are_not_shared() -> None:
    assert parse(["-iface=eth0", "-iface", "10.0.0.1", "-iface-regex=^e"], {}).iface == ["eth0", "10.0.0.1"]
    assert parse([], {}).iface == []


def test_variables_fill_in_what_the_command_line_leaves() -> None:
    environment = {
        "FLANNELD_ETCD_PREFIX": "/env",
        "FLANNELD_IP_MASQ": "true",
        "FLANNELD_IFACE": "eth7",
        "FLANNELD_SUBNET_FILE": "",
        "FLANNELD_SET_NODE_NETWORK_UNAVAILABLE": "0",
    }
    options = parse(["-etcd-prefix=/flag"], environment)
    assert (options.etcd_prefix, options.ip_masq, options.iface) == ("/flag", True, ["eth7"])
    assert options.subnet_file == Options().subnet_file
    assert not options.set_node_network_unavailable


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-no-such"], "not defined: -no-such"),
        (["-etcd-prefix"], "needs an argument: -etcd-prefix"),
        (["-ip-masq=maybe"], 'invalid boolean value "maybe" for flag -ip-masq'),
        (["-healthz-port=x"], 'invalid value "x"'),
        (["---ip-masq"], "bad flag syntax: ---ip-masq"),
        (["-=x"], "bad flag syntax"),
    ],
)
def test_what_cannot_be_read_is_named(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(words, {})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-subnet-lease-renew-margin=0"], "subnet-lease-renew-margin must be from 1 to 1439"),
        (["-subnet-lease-renew-margin=1440"], "subnet-lease-renew-margin must be from 1 to 1439"),
        (["-etcd-keyfile=/k"], "etcd-keyfile and etcd-certfile need each other"),
    ],
)
def test_what_cannot_be_done_is_named(words: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse(words, {})


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-help"], 0),
        (["-version"], 0),
        (["-no-such"], 2),
        (["-healthz-port=x"], 2),
        (["-subnet-lease-renew-margin=0"], 1),
        (["-kube-annotation-prefix=nodots"], 1),
    ],
)
def test_the_exit_status_tells_what_is_wrong(
    words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == status
    assert capsys.readouterr().err


def test_a_variable_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UsageError, match="FLANNELD_HEALTHZ_PORT"):
        parse([], {"FLANNELD_HEALTHZ_PORT": "x"})


@pytest.mark.parametrize("minutes", [1, 1439])
def test_the_ends_of_the_margin(minutes: int) -> None:
    options = parse([], {"FLANNELD_SUBNET_LEASE_RENEW_MARGIN": str(minutes)})
    assert options.subnet_lease_renew_margin == minutes


def test_words_after_the_flags_are_ignored() -> None:
    assert parse(["-ip-masq", "--", "-no-such"], {}).ip_masq
    assert not parse(["word", "-ip-masq"], {}).ip_masq


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
        ("a.b/c", "a.b/c-"),
        ("a.b/c-", "a.b/c-"),
    ],
)
def test_the_annotations_prefix(given: str, prefix: str) -> None:
    assert Options(kube_annotation_prefix=given).annotation_prefix() == prefix


@pytest.mark.parametrize("given", ["a.b/c/d", "nodots", "A.b", "a.b/C"])
def test_an_impossible_prefix(given: str) -> None:
    with pytest.raises(OptionError):
        Options(kube_annotation_prefix=given).annotation_prefix()


def test_the_help_names_every_flag_and_default() -> None:
    text = usage()
    assert "-etcd-prefix\n" in text
    assert "(default /coreos.com/network)" in text
    assert text.count("\n  -") == len(Options.__slots__)
    for name in ("NODE_NAME", "EVENT_QUEUE_DEPTH", "CONT_WHEN_CACHE_NOT_READY"):
        assert f"\n  {name}" in text
