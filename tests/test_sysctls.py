"""Names of kernel parameters, and the expressions of an allow-list compared with Python's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.rules import allowlist, sysctls
from cni_plugins.spec.codec import decode
from cni_plugins.spec.errors import InvalidConfigError

ATOMS = st.sampled_from(
    ["a", "b", ".", "_", r"\.", "[ab]", "[^a]", "[a-c_]", r"\d", r"\w", r"\S", "[]a]", "[a-]", r"[\d.]"]
)
MARKS = st.sampled_from(["", "", "", "*", "+", "?", "*?"])
EXPRESSIONS = st.recursive(
    st.builds(lambda atom, mark: atom + mark, ATOMS, MARKS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.builds(lambda one, other, mark: f"({one}|{other}){mark}", inner, inner, MARKS),
        inner.map(lambda each: f"(?:{each})"),
    ),
    max_leaves=6,
)


@given(
    expression=EXPRESSIONS,
    start=st.sampled_from(["", "^"]),
    end=st.sampled_from(["", "$"]),
    text=st.text("abc._0-", max_size=8),
)
def test_expressions_match_as_pythons_do(expression: str, start: str, end: str, text: str) -> None:
    whole = f"{start}(?:{expression}){end}"
    assert allowlist.allows([whole], text) == bool(re.search(whole, text, re.ASCII))


@pytest.mark.parametrize(
    ("expression", "key", "matches"),
    [
        (r"^net\.ipv4\.conf\.all\.[a-z_]*$", "net.ipv4.conf.all.log_martians", True),
        (r"^net\.ipv4\.conf\.other\.[a-z_]*$", "net.ipv4.conf.all.log_martians", False),
        ("^net.ipv4.conf.IFNAME.accept_redirects$", "net.ipv4.conf.IFNAME.accept_redirects", True),
        ("^net.ipv4.conf.IFNAME.accept_redirects$", "net/ipv4/conf/IFNAME/accept_redirects", True),
        ("^net.ipv4.conf.IFNAME.accept_redirects$", "net.ipv4.conf.IFNAME.accept_redirects2", False),
        ("somaxconn", "net.core.somaxconn", True),
        ("a{2}", "", None),
        ("(a", "", None),
        ("a)", "", None),
        ("a**", "", None),
        ("*a", "", None),
        ("[a", "", None),
        ("[b-a]", "", None),
        ("[[:alpha:]]", "", None),
        (r"\pL", "", None),
        (r"[\D]", "", None),
        ("(?i)a", "", None),
        ("a\\", "", None),
    ],
)
def test_expressions(expression: str, key: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(ValueError, match="cannot be used"):
            allowlist.check(expression)
    else:
        allowlist.check(expression)
        assert allowlist.allows([expression], key) == matches


def test_no_expression_explodes() -> None:
    assert not allowlist.allows(["^(a+)+(a|aa)*$"], "a" * 500 + "b")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.IFNAME.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net", None),
        ("", None),
        ("kernel.hostname", None),
        ("networks.a", None),
        (".net.ipv4", None),
        ("net/ipv4/../../kernel/hostname", None),
        ("net.ipv4.\0", None),
    ],
)
def test_paths(key: str, place: str | None) -> None:
    if place is None:
        with pytest.raises(InvalidConfigError, match="invalid net sysctl key"):
            sysctls.path(key, "eth0.5")
    else:
        assert sysctls.path(key, "eth0.5") == place


def test_a_key_that_is_there_twice() -> None:
    for text in ('{"net.a": "1", "net.a": "1"}', '{"net.a": "1", "net/a": "2"}'):
        with pytest.raises(InvalidConfigError, match="duplicated"):
            sysctls.by_path(decode(text.encode(), "it"), "sysctl", "eth0")
