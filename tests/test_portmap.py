from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.address import Prefix, parse_address
from cni_plugins.rules import portmap, portmap_iptables
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.result import Result
from cni_plugins.spec.schema import validate

if TYPE_CHECKING:
    from cni_plugins.config.portmap import PortmapConf

POD = Prefix.parse("10.244.1.5/24")
POD6 = Prefix.parse("fd00:10:244:1::5/64")
ATTACHMENT = ("net", "c1")


def conf(*mappings: dict[str, Any], **keys: Any) -> PortmapConf:
    made: PortmapConf = validate(
        "PortmapConf", {**keys, "runtimeConfig": {"portMappings": list(mappings)}, "type": "portmap"}
    )
    return made


def mapping(host: int = 8080, container: int = 80, protocol: str = "tcp", **rest: Any) -> dict[str, Any]:
    return {"hostPort": host, "containerPort": container, "protocol": protocol, **rest}


def one(**keys: Any) -> portmap.Mapping:
    return portmap.mappings(conf(mapping(**keys)))[0]


def test_mappings_in_order() -> None:
    found = portmap.mappings(conf(mapping(), mapping(53, 5353, "UDP"), mapping(0), mapping(9, 10, "sctp")))
    assert [(m.protocol, m.host_port, m.container_port) for m in found] == [
        ("tcp", 8080, 80),
        ("udp", 53, 5353),
        ("sctp", 9, 10),
    ]


@pytest.mark.parametrize(
    ("given", "host_ip", "families"),
    [
        ("", None, (4, 6)),
        ("192.0.2.1", "192.0.2.1", (4,)),
        ("::ffff:192.0.2.1", "192.0.2.1", (4,)),
        ("2001:db8::1", "2001:db8::1", (6,)),
        ("0.0.0.0", None, (4,)),
        ("::", None, (6,)),
    ],
)
def test_host_ip(given: str, host_ip: str | None, families: tuple[int, ...]) -> None:
    found = one(hostIP=given)
    assert found.host_ip == (parse_address(host_ip) if host_ip else None)
    assert found.families == families
    assert str(found) == f"tcp port 8080 of {host_ip or 'any'} address to port 80"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (mapping(container=0), "Invalid container port number: 0"),
        (mapping(protocol="icmp"), "unknown protocol 'icmp'"),
        (mapping(protocol=""), "unknown protocol ''"),
        (mapping(hostIP="192.0.2"), "the requested hostIP '192.0.2' is not an IP address"),
    ],
)
def test_invalid_mapping(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        portmap.mappings(conf(mapping(), bad))
    assert message in caught.value.msg
    assert [m.host_port for m in portmap.valid_mappings(conf(bad, mapping(81), mapping(0)))] == [81]


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range(port: int) -> None:
    with pytest.raises(InvalidConfigError, match=r"portMappings\[0\].hostPort must be 0 to 65535"):
        conf(mapping(port))


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ({}, ""),
        ({"backend": ""}, ""),
        ({"backend": "nftables"}, "nftables"),
        ({"backend": "iptables"}, "iptables"),
        ({"markMasqBit": 13}, "iptables"),
        ({"markMasqBit": 13, "backend": "nftables"}, "nftables"),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, "iptables"),
        ({"conditionsV4": []}, ""),
        ({"conditionsV4": ["-s", "192.0.2.0/24"]}, "iptables"),
        ({"conditionsV6": ["!", "-s", "2001:db8::/32"]}, "iptables"),
        ({"conditionsV6": ["ip6", "saddr", "2001:db8::/32"]}, "nftables"),
    ],
)
def test_backend(keys: dict[str, Any], chosen: str) -> None:
    assert portmap.backend(conf(**keys)) == chosen


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "ebtables"}, "unrecognized backend 'ebtables'"),
        (
            {"externalSetMarkChain": "X", "markMasqBit": 1},
            "Cannot specify externalSetMarkChain and markMasqBit",
        ),
        ({"backend": "nftables", "externalSetMarkChain": "X"}, "externalSetMarkChain can only"),
        ({"backend": "nftables", "conditionsV4": ["-s", "x"]}, "conditionsV4 can only"),
        ({"backend": "iptables", "conditionsV6": ["ip6", "saddr", "::1"]}, "conditionsV6 can only"),
        ({"conditionsV4": ["-s", "x"], "conditionsV6": ["iifname", "eth0"]}, "conditionsV6 can only"),
    ],
)
def test_contradictions(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        portmap.backend(conf(**keys))
    assert message in caught.value.msg


def test_container_addresses() -> None:
    result = Result.from_json(
        {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0"},
                {"name": "eth0", "sandbox": "/run/netns/a"},
                {"name": "eth1", "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.2/24", "interface": 2},
                {"address": "10.0.0.3/24", "interface": 1},
                {"address": "10.0.0.4/24", "interface": 1},
                {"address": "fd00::3/64"},
            ],
        },
        "1.0.0",
    )
    found = portmap.container_addresses(result, "eth0")
    assert found == {4: Prefix.parse("10.0.0.3/24"), 6: Prefix.parse("fd00::3/64")}
    assert portmap.container_addresses(Result(), "eth0") == {}


def test_iptables_chain_name() -> None:
    # printf netc1 | sha512sum
    assert portmap_iptables.container_chain("net", "c1") == "CNI-DN-" + NETC1
    assert len(portmap_iptables.container_chain("net", "c1")) == 28


NETC1 = hashlib.sha512(b"netc1").hexdigest()[:21]
CHAIN = f"CNI-DN-{NETC1}"


def test_iptables_rules() -> None:
    given = conf(mapping(), mapping(53, 5353, "udp", hostIP="192.0.2.1"), mapping(8081, 81))
    made = portmap_iptables.container_rules(given, ATTACHMENT, portmap.mappings(given), POD)
    comment = r'-m comment --comment "dnat name: \"net\" id: \"c1\""'
    assert made.entries == [
        f"CNI-HOSTPORT-DNAT -p tcp {comment} -m multiport --destination-ports 8080,8081 -j {CHAIN}",
        f"CNI-HOSTPORT-DNAT -p udp {comment} -m multiport --destination-ports 53 -j {CHAIN}",
    ]
    dns = f"{CHAIN} -p udp -m udp --dport 53 -d 192.0.2.1"
    assert made.rules[3:6] == [
        f"{dns} -s 10.244.1.5/24 -j CNI-HOSTPORT-SETMARK",
        f"{dns} -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK",
        f"{dns} -j DNAT --to-destination 10.244.1.5:5353",
    ]
    assert made.addition() == [
        f":{CHAIN} - [0:0]",
        *[f"-A {rule}" for rule in made.rules],
        f"-I {made.entries[1]}",
        f"-I {made.entries[0]}",
    ]


def test_iptables_rules_v6() -> None:
    given = conf(mapping(), masqAll=True, conditionsV6=["-i", "eth 0"], conditionsV4=["-i", "eth4"])
    made = portmap_iptables.container_rules(given, ATTACHMENT, portmap.mappings(given), POD6)
    assert made.entries[0].endswith(f' --destination-ports 8080 -i "eth 0" -j {CHAIN}')
    assert made.rules == [
        f"{CHAIN} -p tcp -m tcp --dport 8080 -s ::/0 -j CNI-HOSTPORT-SETMARK",
        f"{CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:10:244:1::5]:80",
    ]


def test_iptables_masquerade_options() -> None:
    bare = conf(mapping(), snat=False)
    assert portmap_iptables.base_chains(bare) == ["CNI-HOSTPORT-DNAT"]
    assert len(portmap_iptables.base_rules(bare)) == 2
    assert len(portmap_iptables.container_rules(bare, ATTACHMENT, portmap.mappings(bare), POD).rules) == 1

    external = conf(mapping(), externalSetMarkChain="KUBE-MARK-MASQ")
    assert portmap_iptables.base_chains(external) == ["CNI-HOSTPORT-DNAT"]
    made = portmap_iptables.container_rules(external, ATTACHMENT, portmap.mappings(external), POD)
    assert [rule.split(" -j ")[1] for rule in made.rules[:2]] == ["KUBE-MARK-MASQ"] * 2

    for bit, mark in ((0, "0x1"), (31, "0x80000000"), (None, "0x2000")):
        keys = {} if bit is None else {"markMasqBit": bit}
        marked = [rule for _add, rule in portmap_iptables.base_rules(conf(mapping(), **keys))]
        assert f"CNI-HOSTPORT-MASQ -m mark --mark {mark}/{mark} -j MASQUERADE" in marked

    everything = conf(mapping(), masqAll=True)
    made = portmap_iptables.container_rules(everything, ATTACHMENT, portmap.mappings(everything), POD)
    assert len(made.rules) == 2
    assert " -s 0.0.0.0/0 -j CNI-HOSTPORT-SETMARK" in made.rules[0]


def test_iptables_ports_a_rule() -> None:
    given = conf(*[mapping(port, 80) for port in range(1000, 1031)])
    made = portmap_iptables.container_rules(given, ATTACHMENT, portmap.mappings(given), POD)
    counts = [entry.split("--destination-ports ")[1].split()[0].count(",") + 1 for entry in made.entries]
    assert counts == [15, 15, 1]


@pytest.mark.parametrize(("length", "cut"), [(255, False), (256, True), (400, True)])
def test_iptables_comment_is_cut(length: int, cut: bool) -> None:
    container = "c" * (length - len('dnat name: "net" id: ""'))
    given = conf(mapping())
    made = portmap_iptables.container_rules(given, ("net", container), portmap.mappings(given), POD)
    comment = made.entries[0].split('--comment "')[1].split('" -m')[0].replace("\\", "")
    whole = f'dnat name: "net" id: "{container}"'
    assert comment == (whole[:253] + "..." if cut else whole)


@pytest.mark.parametrize("bad", ["eth0\n-F", "eth0\r"])
def test_iptables_refuses_control_characters(bad: str) -> None:
    given = conf(mapping(), conditionsV4=["-i", bad])
    with pytest.raises(InvalidConfigError, match="cannot be written in an iptables rule"):
        portmap_iptables.container_rules(given, ATTACHMENT, portmap.mappings(given), POD)


def test_iptables_removal() -> None:
    entries = [
        "-N CNI-HOSTPORT-DNAT",
        rf'-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"c1\"" -j {CHAIN}',
        r'-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"c2\"" -j CNI-DN-other',
        r'-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net2\" id: \"c3\"" -j CNI-DN-third',
    ]
    assert portmap_iptables.removal(CHAIN, entries) == [
        "-D" + entries[1][2:],
        f":{CHAIN} - [0:0]",
        f"-X {CHAIN}",
    ]
    assert portmap_iptables.container_chains("net", entries) == {CHAIN: "c1", "CNI-DN-other": "c2"}
