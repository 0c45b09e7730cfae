"""The verbs of host-local, in this process, on real files."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import (
    AlreadyAttachedError,
    CheckFailedError,
    CNIError,
    InvalidConfigError,
    NotAvailableError,
)
from tests.host_local import addresses, call, config, held

if TYPE_CHECKING:
    from pathlib import Path

DUAL = {"ranges": [[{"subnet": "10.1.2.5/24"}], [{"subnet": "fd00:1::/64"}]]}


def failure(verb: str, conf: dict[str, Any], container: str = "c1", **more: str) -> CNIError:
    with pytest.raises(CNIError) as caught:
        call(verb, conf, container, **more)
    return caught.value


def test_add_and_del_on_disk(tmp_path: Path) -> None:
    conf = config(tmp_path, {**DUAL, "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.9", "mtu": 1400}]})
    assert call("ADD", conf) == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.9", "mtu": 1400}],
    }
    folder = tmp_path / "net"
    assert held(tmp_path) == {"10.1.2.2": b"c1\r\neth0", "fd00:1::2": b"c1\r\neth0"}
    assert stat.S_IMODE((folder / "10.1.2.2").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert (folder / "10.1.2.2").stat().st_nlink == 1
    assert (folder / "last_reserved_ip.0").read_bytes() == b"10.1.2.2"
    assert (folder / "last_reserved_ip.1").read_bytes() == b"fd00:1::2"
    assert (folder / "lock").read_bytes() == b""
    call("CHECK", {**conf, "prevResult": call("ADD", conf, "c2")}, "c2")
    call("DEL", conf)
    call("DEL", conf)
    assert held(tmp_path) == {"10.1.2.3": b"c2\r\neth0", "fd00:1::3": b"c2\r\neth0"}
    assert addresses(call("ADD", conf)) == ["10.1.2.4", "fd00:1::4"]  # round robin


def test_several_interfaces_of_a_container_are_told_apart(tmp_path: Path) -> None:
    conf = config(tmp_path)
    call("ADD", conf, ifname="eth0")
    call("ADD", conf, ifname="eth1")
    call("DEL", conf, ifname="eth0")
    assert held(tmp_path) == {"10.1.2.3": b"c1\r\neth1"}


def test_del_of_what_never_was_makes_nothing(tmp_path: Path) -> None:
    call("DEL", config(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_del_does_not_need_the_ranges(tmp_path: Path) -> None:
    call("ADD", config(tmp_path))
    call("DEL", config(tmp_path, {"subnet": "junk"}), args="K8S=1")
    assert held(tmp_path) == {}


def test_a_second_add_is_refused_and_harmless(tmp_path: Path) -> None:
    conf = config(tmp_path)
    call("ADD", conf)
    error = failure("ADD", conf)
    assert error.code == 107
    assert error.msg == (
        "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, "
        "duplicate allocation is not allowed"
    )
    assert held(tmp_path) == {"10.1.2.2": b"c1\r\neth0"}
    assert addresses(call("ADD", config(tmp_path, {"subnet": "10.7.0.0/24"}))) == ["10.7.0.2"]
    call("DEL", conf)
    assert held(tmp_path) == {}


def test_exhaustion_gives_back_what_the_other_sets_gave(tmp_path: Path) -> None:
    conf = config(tmp_path, {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.2.0/29"}]]})
    for number in range(5):
        call("ADD", conf, f"c{number}")
    before = held(tmp_path)
    error = failure("ADD", conf, "c9")
    assert "no IP addresses available in range set: 10.1.2.1-10.1.2.6" in error.msg
    assert "all 5 are reserved" in error.details
    assert held(tmp_path) == before
    call("DEL", conf, "c3")
    assert addresses(call("ADD", conf, "c9"))[1] == "10.1.2.5"


def test_a_nearly_full_range_finds_the_last_one(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    for last in range(2, 255):
        if last != 200:
            (folder / f"10.1.2.{last}").write_bytes(b"other\r\neth0")
    assert addresses(call("ADD", config(tmp_path))) == ["10.1.2.200"]


@pytest.mark.parametrize("how", ["env", "args", "runtime"])
@pytest.mark.parametrize("text", ["10.1.2.77", "10.1.2.77/24"])
def test_an_address_can_be_asked_for(tmp_path: Path, how: str, text: str) -> None:
    conf = config(tmp_path)
    env = f"IgnoreUnknown=1;K8S_POD_NAME=p;IP={text}" if how == "env" else ""
    if how == "args":
        conf["args"] = {"cni": {"ips": [text]}}
    if how == "runtime":
        conf["runtimeConfig"] = {"ips": [text]}
    assert call("ADD", conf, args=env)["ips"] == [{"address": "10.1.2.77/24", "gateway": "10.1.2.1"}]
    error = failure("ADD", conf, "c2", args=env)
    assert error.msg.endswith(
        "requested IP address 10.1.2.77 is not available in range set 10.1.2.1-10.1.2.254"
    )
    assert held(tmp_path) == {"10.1.2.77": b"c1\r\neth0"}
    assert addresses(call("ADD", config(tmp_path), "c3")) == ["10.1.2.78"]


def test_requests_are_served_from_several_sources_and_sets(tmp_path: Path) -> None:
    conf = config(
        tmp_path, DUAL, args={"cni": {"ips": ["fd00:1::9"]}}, runtimeConfig={"ips": ["10.1.2.9/24"]}
    )
    assert addresses(call("ADD", conf)) == ["10.1.2.9", "fd00:1::9"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["10.9.9.9"], "failed to allocate all requested IPs: 10.9.9.9"),
        (["10.1.2.8", "10.1.2.9", "fd00:2::1"], "failed to allocate all requested IPs: 10.1.2.9 fd00:2::1"),
        (["10.1.2.1"], "requested ip 10.1.2.1 is subnet's gateway"),
        (["ten"], "cannot understand a requested IP: 'ten' is not an IP address"),
    ],
)
def test_requests_that_cannot_be_served(tmp_path: Path, wanted: list[str], message: str) -> None:
    error = failure("ADD", config(tmp_path, DUAL, runtimeConfig={"ips": wanted}))
    assert message in error.msg
    assert not (tmp_path / "net").exists() or held(tmp_path) == {}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_results_of_older_versions(tmp_path: Path, version: str) -> None:
    result = call("ADD", config(tmp_path, DUAL, cniVersion=version))
    if version < "0.3.0":
        assert result["ip4"] == {"ip": "10.1.2.2/24", "gateway": "10.1.2.1"}
        assert result["ip6"] == {"ip": "fd00:1::2/64", "gateway": "fd00:1::1"}
    else:
        assert addresses(result) == ["10.1.2.2", "fd00:1::2"]
        assert "interfaces" not in result


def test_resolv_conf(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(
        "# a\n; b\n\nnameserver 10.0.0.1\n nameserver fd00::53 # x\ndomain d.example\nsearch a b\n"
        "options ndots:5 edns0\noptions rotate\nsortlist 10.0.0.0\nnameserver\n"
    )
    (tmp_path / "resolv.conf").symlink_to("real")
    ipam = {"subnet": "10.1.2.0/24", "resolvConf": str(tmp_path / "resolv.conf")}
    assert call("ADD", config(tmp_path, ipam))["dns"] == {
        "nameservers": ["10.0.0.1", "fd00::53"],
        "domain": "d.example",
        "search": ["a", "b"],
        "options": ["ndots:5", "edns0", "rotate"],
    }
    (tmp_path / "real").unlink()
    assert isinstance(failure("ADD", config(tmp_path, ipam), "c2"), InvalidConfigError)
    assert len(held(tmp_path)) == 1


def test_a_bad_route_reserves_nothing(tmp_path: Path) -> None:
    error = failure("ADD", config(tmp_path, {"subnet": "10.1.2.0/24", "routes": [{"dst": "here"}]}))
    assert "ipam.routes: 'here' is not an address in CIDR notation" in error.msg
    assert list(tmp_path.iterdir()) == []


def test_old_reservations_without_an_interface_count(tmp_path: Path) -> None:
    conf = config(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net/10.1.2.2").write_bytes(b"c1")
    (tmp_path / "net/10.1.2.3").write_bytes(b" c2\n")
    assert "10.1.2.2 has been allocated to c1" in failure("ADD", conf).msg
    call("CHECK", {**conf, "prevResult": {"ips": [{"address": "10.1.2.3/24"}]}}, "c2")
    call("DEL", conf, "c2", ifname="net7")
    assert held(tmp_path) == {"10.1.2.2": b"c1"}
    # Go removes these only where the holder has none of the newer kind.
    (tmp_path / "net/10.1.2.9").write_bytes(b"c1\r\neth0")
    call("DEL", conf)
    assert held(tmp_path) == {"10.1.2.2": b"c1"}
    call("DEL", conf)
    assert held(tmp_path) == {}


def test_check_finds_a_lost_reservation(tmp_path: Path) -> None:
    conf = config(tmp_path, DUAL)
    assert isinstance(failure("CHECK", {**conf, "prevResult": {}}), CheckFailedError)
    conf["prevResult"] = call("ADD", conf)
    call("CHECK", conf)
    (tmp_path / "net/fd00:1::2").write_bytes(b"c2\r\neth0")
    assert "fd00:1::2 is not reserved for container c1" in failure("CHECK", conf).msg
    (tmp_path / "net/10.1.2.2").unlink()
    error = failure("CHECK", conf)
    assert error.msg == "host-local: failed to find an address of container c1, interface eth0"


def test_status(tmp_path: Path) -> None:
    conf = config(tmp_path / "a/b", {"subnet": "10.1.2.0/30"})
    call("STATUS", conf)
    assert not (tmp_path / "a").exists()
    call("ADD", conf)
    error = failure("STATUS", conf)
    assert isinstance(error, NotAvailableError)
    assert error.msg == "no IP addresses available in range set: 10.1.2.1-10.1.2.2"
    assert "`cnictl doctor --fix`" in error.details
    (tmp_path / "a/b/net/10.1.2.2").write_bytes(b"")
    call("STATUS", conf)  # a killed reference plugin left it
    never_free = config(tmp_path / "c", {"subnet": "10.1.2.0/30", "rangeEnd": "10.1.2.1"})
    assert failure("STATUS", never_free).msg == "no IP addresses available in range set: 10.1.2.1-10.1.2.1"
    assert failure("STATUS", config(tmp_path, {})).msg == "no IP ranges specified"
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        assert failure("STATUS", config(tmp_path / place)).code == 50
    # A filesystem that takes no files.
    assert failure("STATUS", config("/proc/none/below")).msg.startswith("host-local: cannot write in /proc: ")


def test_gc_removes_the_rest_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    conf = config(tmp_path, DUAL)
    for name in ("gc-1", "gc-2", "gc-3"):
        call("ADD", conf, name)
    call("ADD", conf, "gc-1", ifname="eth1")
    folder = tmp_path / "net"
    (folder / "10.1.2.100").write_bytes(b"gc-2")
    (folder / "10.1.2.101").write_bytes(b"c9")
    (folder / "10.1.2.102").write_bytes(b"\xff\x00/../x")
    (folder / "10.1.2.103").write_bytes(b"")
    (folder / "note").write_bytes(b"c9\r\neth0")
    conf["cni.dev/valid-attachments"] = [
        {"containerID": "gc-1", "ifname": "eth0"},
        {"containerID": "gc-2", "ifname": "eth0"},
    ]
    call("GC", conf, container="")
    assert sorted(held(tmp_path)) == ["10.1.2.100", "10.1.2.2", "10.1.2.3", "fd00:1::2", "fd00:1::3", "note"]
    told = capfd.readouterr().err
    assert "host-local: network net: released 10.1.2.4, fd00:1::4 of gc-3:eth0\n" in told
    assert "released 10.1.2.5, fd00:1::5 of gc-1:eth1\n" in told
    assert "10.1.2.2 " not in told
    conf["cni.dev/valid-attachments"] = []
    call("GC", conf)
    assert list(held(tmp_path)) == ["note"]
    call("GC", {**conf, "name": "other"})


def test_networks_are_kept_apart(tmp_path: Path) -> None:
    call("ADD", config(tmp_path))
    call("ADD", config(tmp_path, name="other"))
    call("DEL", config(tmp_path, name="other"))
    assert held(tmp_path) == {"10.1.2.2": b"c1\r\neth0"}


def test_a_very_long_container_id(tmp_path: Path) -> None:
    conf, container = config(tmp_path), "c" * 5000
    call("ADD", conf, container)
    assert isinstance(failure("ADD", conf, container), AlreadyAttachedError)
    call("DEL", conf, container)
    assert held(tmp_path) == {}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk: the write fails, in the middle of an ADD."""
    conf = config(tmp_path, DUAL)
    call("ADD", conf, "c0")
    before = held(tmp_path)
    pid = os.fork()
    if pid == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            call("ADD", conf)
        except OSError as error:
            if str(error.filename).startswith(str(tmp_path)):
                os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert held(tmp_path) == before
    assert sorted(os.listdir(tmp_path / ".index/net")) == ["c0:eth0"]
    call("ADD", conf)
