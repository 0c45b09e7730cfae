"""STATUS: each thing an ADD needs is taken away for real, and named (CNI 1.1.0, section 2, "STATUS")."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration import features
from integration.checks import bridge, ipam, ptp, refusal
from integration.flannel import flannel, write_subnet_env

if TYPE_CHECKING:
    from integration.node import Node

NOT_AVAILABLE = 50
LIMITED = 51
PLUGINS = [("bridge", bridge()), ("ptp", ptp())]
BARE = {"cniVersion": "1.1.0", "name": "net"}
TRACE = "/run/.trace"
_DUMPED = re.compile(r"^ \| ([0-9a-f]{5})  ([0-9a-f ]{48})", re.MULTILINE)
"""A line of what strace shows of a buffer: at which of its bytes, and sixteen of them."""


def status_without_rights(node: Node, plugin: str, conf: dict[str, Any]) -> Any:
    """Ask a plugin that may not change the network; return its error object."""
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": node.plugins}
    command = ["setpriv", "--bounding-set=-net_admin", f"{node.plugins}/{plugin}"]
    done = node.run(command, env, json.dumps({"type": plugin, **conf}).encode(), check=False)
    assert done.returncode == 1
    return json.loads(done.stdout)


def status_with_a_fault(node: Node, plugin: str, conf: dict[str, Any], *faults: str) -> Any:
    """Ask a plugin of which one system call fails, as strace(1) writes it; return its error object."""
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": node.plugins}
    command = ["strace", "-qq", "-o", TRACE, *faults, f"{node.plugins}/{plugin}"]
    done = node.run(command, env, json.dumps({"type": plugin, **conf}).encode(), check=False)
    assert done.returncode == 1, done
    return json.loads(done.stdout)


NO_RIGHT = "errno 1: let the plugins run as root, with CAP_NET_ADMIN"
SECOND_SOCKET = ("-e", "inject=socket:error=EPERM:when=2")
"""The first is for links, the second for nftables."""


@pytest.mark.parametrize(
    ("plugin", "conf", "kind"),
    [
        ("bridge", bridge(), "veth"),
        ("ptp", ptp(), "veth"),
        ("macvlan", {**ptp(), "master": "lo"}, "macvlan"),
        ("bandwidth", BARE, "ifb"),
        ("vrf", {**BARE, "vrfname": "blue"}, "vrf"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_right_that_is_missing(node: Node, plugin: str, conf: dict[str, Any], kind: str) -> None:
    answer = status_without_rights(node, plugin, conf)
    said = f"cannot tell whether the kernel has {kind} links: Operation not permitted"
    assert (answer["code"], answer["msg"], answer["details"]) == (NOT_AVAILABLE, said, NO_RIGHT)


@pytest.mark.parametrize(("plugin", "conf"), PLUGINS, ids=["bridge", "ptp"])
def test_nftables_that_cannot_be_used(node: Node, plugin: str, conf: dict[str, Any]) -> None:
    answer = status_with_a_fault(node, plugin, {**conf, "ipMasq": True}, *SECOND_SOCKET)
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "ipMasq needs nftables, which cannot be used: Operation not permitted"
    assert "CAP_NET_ADMIN" in answer["details"]
    assert node.cni("STATUS", plugin, {**conf, "ipMasq": True}) == (0, None)


def test_a_source_check_that_cannot_be_made(node: Node) -> None:
    answer = status_with_a_fault(node, "bridge", bridge(macspoofchk=True), *SECOND_SOCKET)
    assert (answer["code"], "macspoofchk needs nftables" in answer["msg"]) == (NOT_AVAILABLE, True)


def test_a_loopback_with_a_qdisc_of_its_own(node: Node) -> None:
    """Token buckets are asked for there."""
    node.run(["tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "pfifo", "limit", "7"])
    before = node.run(["tc", "qdisc", "show", "dev", "lo"]).stdout
    assert node.cni("STATUS", "bandwidth", BARE) == (0, None)
    assert node.run(["tc", "qdisc", "show", "dev", "lo"]).stdout == before


def test_no_memory_for_an_answer(node: Node) -> None:
    """It does not mean that the kernel lacks what it was asked for."""
    fault = ("-e", "inject=recvfrom:error=ENOBUFS:when=1")
    said = "the kernel's answer is lost: No buffer space available"
    answer = status_with_a_fault(node, "sbr", BARE, *fault)
    assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, f"failed to list the routing rules: {said}")
    answer = status_with_a_fault(node, "bandwidth", BARE, *fault)
    unknown = "cannot tell whether the kernel has ifb links"
    assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, f"{unknown}: {said}")


ALLOW_LIST = "/etc/cni/tuning/allowlist.conf"


@pytest.mark.parametrize(
    ("content", "msg"),
    [
        (b"x" * (1 << 17), f"cannot read {ALLOW_LIST}: longer than 65536 bytes"),
        (None, f"cannot read {ALLOW_LIST}: Is a directory"),
        (b"net[", f"{ALLOW_LIST}: 'net[' cannot be used as a regular expression: it ends too early"),
    ],
    ids=["too long", "a directory", "no expression"],
)
def test_an_allow_list_that_cannot_be_used(node: Node, content: bytes | None, msg: str) -> None:
    path = node.path(ALLOW_LIST)
    os.makedirs(os.path.dirname(path) if content is not None else path)
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    answer = refusal(node, "STATUS", "tuning", BARE)
    assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, msg)
    assert answer["details"] == "sysctls cannot be checked before it is right"


@pytest.mark.parametrize(("plugin", "conf"), PLUGINS, ids=["bridge", "ptp"])
def test_iptables_that_is_not_installed(node: Node, plugin: str, conf: dict[str, Any]) -> None:
    conf = {**conf, "ipMasq": True, "ipMasqBackend": "iptables"}
    assert node.cni("STATUS", plugin, conf) == (0, None)
    node.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/sbin"])
    answer = refusal(node, "STATUS", plugin, conf)
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"].startswith("ipMasq needs iptables, which cannot be used: iptables is not installed")


def test_iptables_that_fails(node: Node) -> None:
    """It is there, and what it says helps more than to install it."""
    path = "/etc/alternatives/iptables"
    os.unlink(node.path(path))
    with open(node.path(path), "x", encoding="ascii") as file:
        file.write("#!/bin/sh\necho 'no table:' >&2\necho 'insmod it' >&2\nexit 3\n")
    os.chmod(node.path(path), 0o755)
    said = "iptables failed with status 3: no table: insmod it"
    wanted = {"backend": "iptables", "ipMasqBackend": "iptables"}
    for plugin, conf, asking in (
        ("bridge", bridge(ipMasq=True), "ipMasq needs iptables, which cannot be used: "),
        ("firewall", BARE, "backend needs iptables, which cannot be used: "),
        ("portmap", BARE, "iptables cannot be used on this host: "),
    ):
        answer = refusal(node, "STATUS", plugin, {**conf, **wanted})
        assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, f"{asking}{said}")


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_an_ipam_plugin_that_is_missing(node: Node, plugin: str) -> None:
    answer = refusal(node, "STATUS", plugin, bridge(ipam={"type": "no-local"}))
    assert answer["code"] == NOT_AVAILABLE
    assert "failed to find plugin 'no-local'" in answer["msg"]
    assert "install it" in answer["details"]


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_a_folder_that_cannot_be_written(node: Node, plugin: str) -> None:
    node.run(["mkdir", "/run/full"])
    node.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run/full"])
    answer = refusal(node, "STATUS", plugin, bridge(ipam=ipam(dataDir="/run/full")))
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "host-local: cannot write in /run/full: Read-only file system"


def test_a_folder_that_leads_elsewhere(node: Node) -> None:
    os.makedirs(node.path("/run/data"))
    os.symlink("/run", node.path("/run/data/net"))
    answer = refusal(node, "STATUS", "bridge", bridge(ipam=ipam(dataDir="/run/data")))
    assert answer["code"] == NOT_AVAILABLE
    assert "it is a symbolic link; remove it" in answer["msg"]
    assert "`dataDir`" in answer["details"]


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_a_range_without_a_free_address(node: Node, plugin: str) -> None:
    conf = bridge(ipam=ipam("10.77.0.0/30"))
    assert node.cni("STATUS", plugin, conf) == (0, None)
    os.makedirs(node.path("/var/lib/cni/networks/net"))
    with open(node.path("/var/lib/cni/networks/net/10.77.0.2"), "w", encoding="ascii") as file:
        file.write("c9\r\neth0")
    answer = refusal(node, "STATUS", plugin, conf)
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "no IP addresses available in range set: 10.77.0.1-10.77.0.2"
    assert "`cnictl doctor --fix`" in answer["details"]
    assert "enlarge the range" in answer["details"]


def test_a_subnet_file_that_flanneld_has_not_written(node: Node) -> None:
    answer = refusal(node, "STATUS", "flannel", flannel())
    assert (answer["code"], "/run/flannel/subnet.env" in answer["msg"]) == (NOT_AVAILABLE, True)
    assert "see whether flanneld (kube-flannel) runs" in answer["details"]
    write_subnet_env(node)
    assert node.cni("STATUS", "flannel", flannel()) == (0, None)
    answer = refusal(node, "STATUS", "flannel", flannel({"type": "no-bridge"}))
    assert (answer["code"], "install it" in answer["details"]) == (NOT_AVAILABLE, True)


def test_a_dhcp_daemon_that_does_not_answer(node: Node) -> None:
    answer = refusal(node, "STATUS", "bridge", bridge(ipam={"type": "dhcp"}))
    assert answer["code"] == LIMITED, "leases of running containers are not renewed either"
    assert "dhcp daemon not answering on /run/cni/dhcp.sock" in answer["msg"]
    assert "systemctl enable --now cni-dhcp.socket" in answer["details"]


def test_a_machine_without_tap_devices(node: Node) -> None:
    assert node.cni("STATUS", "tap", BARE) == (0, None)
    node.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"])
    answer = refusal(node, "STATUS", "tap", BARE)
    assert answer["code"] == NOT_AVAILABLE
    assert answer["msg"] == "cannot open /dev/net/tun: No such file or directory"
    assert answer["details"] == "modprobe tun"


def test_a_tap_device_that_may_not_be_opened(node: Node) -> None:
    fault = ("-P", "/dev/net/tun", "-e", "inject=openat,open:error=EACCES")
    answer = status_with_a_fault(node, "tap", BARE, *fault)
    assert (answer["code"], answer["msg"]) == (
        NOT_AVAILABLE,
        "cannot open /dev/net/tun: Permission denied",
    )
    assert "as root" in answer["details"]


class Question(NamedTuple):
    """What a plugin asks the kernel for, and what the kernel is asked for in its place."""

    plugin: str
    conf: dict[str, Any]
    asked: bytes
    instead: bytes
    msg: str
    details: str


_LIMITS = "load the modules ifb and sch_tbf"
_RULES = "take a kernel with CONFIG_IP_MULTIPLE_TABLES, or the plugin out of the list"
QUESTIONS = [
    Question("bridge", bridge(), b"veth\0", b"vetx\0", "no veth links", "modprobe veth, or another kernel"),
    Question("ptp", ptp(), b"veth\0", b"vetx\0", "no veth links", "modprobe veth, or another kernel"),
    Question(
        "bridge", bridge(), b"bridge\0", b"bridgx\0", "no bridge links", "modprobe bridge, or another kernel"
    ),
    Question("bandwidth", BARE, b"ifb\0", b"ifx\0", "no ifb links", _LIMITS),
    Question("bandwidth", BARE, b"tbf\0", b"tbx\0", "no token bucket filters", _LIMITS),
    # A dump (0x305) of RTM_GETRULE; of such a number there is no message.
    Question("sbr", BARE, b"\x22\0\5\3", b"\xff\0\5\3", "no routing rules: Operation not supported", _RULES),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: f"{each.plugin}: {each.msg}")
def test_a_kernel_that_does_not_know_it(node: Node, question: Question) -> None:
    """The machine's kernel cannot be robbed of a driver: it is asked for one that no kernel has."""
    answer = asked_for_another(node, question.plugin, question.conf, question.asked, question.instead)
    assert answer["code"] == NOT_AVAILABLE
    assert (answer["msg"], answer["details"]) == (f"the kernel has {question.msg}", question.details)


@pytest.mark.parametrize(
    ("plugin", "conf", "msg"),
    [
        ("portmap", {**BARE, "backend": "nftables"}, "nftables cannot be used on this host"),
        ("firewall", {**BARE, "backend": "nftables"}, "nftables cannot be used on this host"),
        ("ptp", ptp(ipMasq=True), "ipMasq needs nftables, which cannot be used: the kernel does not have it"),
    ],
    ids=["portmap", "firewall", "ptp"],
)
def test_a_kernel_without_nf_tables(node: Node, plugin: str, conf: dict[str, Any], msg: str) -> None:
    """NFT_MSG_GETCHAIN (0x0a04) is made one of a subsystem of nfnetlink that there is none of."""
    answer = asked_for_another(node, plugin, conf, b"\x04\x0a\5\0", b"\x04\xfe\5\0")
    assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, msg)


def test_the_module_of_vlan_has_another_name(node: Node) -> None:
    conf = {**BARE, "master": "lo", "vlanId": 5, "ipam": {"type": "static"}}
    answer = asked_for_another(node, "vlan", conf, b"vlan\0", b"vlax\0", works=False)
    assert (answer["code"], answer["details"]) == (NOT_AVAILABLE, "modprobe 8021q, or another kernel")


def asked_for_another(
    node: Node, plugin: str, conf: dict[str, Any], asked: bytes, instead: bytes, *, works: bool = True
) -> Any:
    """Ask a plugin of which one message to the kernel is changed on its way; return its error object.

    Args:
        node: where.
        plugin: the plugin.
        conf: its configuration.
        asked: what is in the message.
        instead: what it becomes.
        works: STATUS succeeds with the message as it is.
    """
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": node.plugins}
    stdin = json.dumps({"type": plugin, **conf}).encode()

    def traced(option: str, *, check: bool) -> bytes:
        command = ["strace", "-qq", "-o", TRACE, "-e", "trace=sendto", "-e", option]
        return node.run([*command, f"{node.plugins}/{plugin}"], env, stdin, check=check).stdout

    assert traced("write=all", check=works) == b"" or not works
    (number, message), *_more = [
        (number, message) for number, message in enumerate(sent(node), 1) if asked in message
    ]
    other = message.replace(asked, instead)
    answer = traced(f"inject=sendto:poke_enter=@arg2={other.hex()}:when={number}", check=False)
    assert answer, "STATUS finds nothing amiss"
    return json.loads(answer)


def sent(node: Node) -> list[bytes]:
    """Return what was sent, by strace's word."""
    found: list[bytes] = []
    with open(node.path(TRACE), encoding="utf-8") as file:
        for offset, data in _DUMPED.findall(file.read()):
            if int(offset, 16) == 0:
                found.append(b"")
            found[-1] += bytes.fromhex(data)
    return found


@pytest.mark.kernel
def test_a_kernel_without_a_kind_of_link(node: Node) -> None:
    """Elsewhere: macvlan, ipvlan, vlan and dummy."""
    conf = {"cniVersion": "1.1.0", "name": "net", "vrfname": "blue"}
    if features.has("vrf"):
        assert node.cni("STATUS", "vrf", conf) == (0, None)
        return
    answer = refusal(node, "STATUS", "vrf", conf)
    assert (answer["code"], answer["msg"]) == (NOT_AVAILABLE, "the kernel has no vrf links")
    assert answer["details"] == "modprobe vrf, or another kernel"


@pytest.mark.parametrize(
    ("plugin", "conf"), [("portmap", {}), ("firewall", {"backend": "nftables"})], ids=["portmap", "firewall"]
)
def test_rules_that_a_chained_plugin_may_not_make(node: Node, plugin: str, conf: dict[str, Any]) -> None:
    conf = {"cniVersion": "1.1.0", "name": "net", **conf}
    assert node.cni("STATUS", plugin, conf) == (0, None)
    answer = status_without_rights(node, plugin, conf)
    assert (answer["code"], "Operation not permitted" in answer["msg"]) == (NOT_AVAILABLE, True)
    assert answer["details"] == "errno 1: let the plugins run as root, with CAP_NET_ADMIN"
