"""subnet.env, the installed files, health and metrics, log lines."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import socket
import struct
import urllib.error
import urllib.request
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest

from cni_plugins.plugins.flannel import SubnetEnv
from flanneld import health as health_module
from flanneld import install, log, subnetfile
from flanneld.health import Health
from flanneld.lease import Lease, LeaseAttrs
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from tests.test_install import bundle, says

if TYPE_CHECKING:
    from pathlib import Path

MODIFY, MOVED_FROM, MOVED_TO = 0x2, 0x40, 0x80  # inotify(7)
CONFIG = NetworkConfig.parse('{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}')
LEASE = Lease(IPv4Network("10.5.34.0/24"), IPv6Network("fd00:5:0:22::/64"), LeaseAttrs(None, None, "alloc"))


def test_subnet_env_byte_for_byte_and_back(tmp_path: Path) -> None:
    path = tmp_path / "run/subnet.env"
    content = subnetfile.compose(CONFIG, LEASE, 1450, masquerade=True)
    assert content == (
        b"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\n"
        b"FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n"
        b"FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    assert subnetfile.write(str(path), content)
    assert not subnetfile.write(str(path), content)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [item.name for item in path.parent.iterdir()] == ["subnet.env"]
    found = subnetfile.SubnetFile.read(str(path))
    assert found.key == LEASE.key
    assert found.networks == (CONFIG.network, CONFIG.ipv6_network)
    assert [str(item) for item in SubnetEnv(content.decode()).subnets] == ["10.5.34.0/24", "fd00:5:0:22::/64"]


@pytest.mark.parametrize("content", ["", "FLANNEL_SUBNET=x\n", "\0\xff"])
def test_a_damaged_or_missing_file_says_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "subnet.env"
    assert subnetfile.SubnetFile.read(str(path)) == subnetfile.SubnetFile()
    path.write_text(content)
    assert subnetfile.SubnetFile.read(str(path)).key == (None, None)


def test_the_list_is_installed_once_and_only_if_it_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template, target = tmp_path / "cni-conf.json", tmp_path / "net.d/10-flannel.conflist"
    template.write_text('{"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}')
    assert install.main(["install-conf", str(template), str(target)]) == 0
    assert target.read_text() == template.read_text()
    assert install.main(["install-conf", str(template), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: written\n{target}: up to date\n"
    template.write_text('{"name": "cbr0"}')
    assert install.main(["install-conf", str(template), str(target)]) == 1
    assert "it needs name and plugins" in capsys.readouterr().err
    template.write_text("{")
    assert install.main(["install-conf", str(template), str(target)]) == 1
    assert "plugins" in target.read_text()


def test_a_runtime_that_watches_the_folder_hears_of_the_list(tmp_path: Path) -> None:
    template, target = tmp_path / "cni-conf.json", tmp_path / "10-flannel.conflist"
    template.write_text('{"name": "cbr0", "plugins": [{"type": "flannel"}]}')
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(watch, bytes(tmp_path), MODIFY | MOVED_FROM | MOVED_TO) > 0
        install.install_conf(str(template), str(target))
        events = os.read(watch, 4096)
    finally:
        os.close(watch)
    masks = []
    while events:  # struct inotify_event: wd, mask, cookie, len, name
        _, mask, _, length = struct.unpack_from("iIII", events)
        masks.append(mask)
        events = events[16 + length :]
    # containerd acts on the first of these two; by then the second has happened.
    assert masks[-2:] == [MOVED_FROM, MOVED_TO]


def test_the_bundle_is_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bundle(tmp_path / "bundle", "1.2.3")
    target = tmp_path / "bin"
    assert install.main(["install-cni", "--bundle", source, str(target)]) == 0
    assert says(target, "bridge") == "bridge 1.2.3"
    assert "1.2.3" in capsys.readouterr().out
    assert install.main(["install-cni", "--bundle", str(tmp_path / "none"), str(target)]) == 1


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_client_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a thread and a file descriptor of the daemon's."""
    monkeypatch.setattr(health_module, "_TIMEOUT", 0.2)
    health = Health(Metrics(), "127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", health.port), timeout=60) as client:
            assert client.recv(1) == b""
    finally:
        health.close()


def test_health_readiness_and_metrics() -> None:
    metrics = Metrics(leases=3)
    metrics.repaired("route")
    metrics.repaired("route")
    metrics.reconciled("timer")
    metrics.failed("manager")
    health = Health(metrics, "127.0.0.1", 0)
    try:
        assert get(health.port, "/healthz")[0] == 200
        assert get(health.port, "/readyz")[0] == 503
        metrics.up = True
        metrics.broken["kernel"] = "no such device"
        assert get(health.port, "/readyz") == (503, "kernel: no such device\n")
        metrics.broken.clear()
        assert get(health.port, "/readyz?verbose")[0] == 200
        assert get(health.port, "/nothing")[0] == 404
        status, text = get(health.port, "/metrics")
        assert status == 200
        lines = text.splitlines()
        for line in (
            "# HELP flanneld_leases Other nodes' leases, of every backend.",
            "flanneld_leases 3",
            "flanneld_ready 1",
            'flanneld_repairs_total{kind="route"} 2',
            'flanneld_reconciles_total{cause="timer"} 1',
            'flanneld_errors_total{where="manager"} 1',
            "# TYPE flanneld_repairs_total counter",
        ):
            assert line in lines
        health._beat -= 60  # as if the event loop had hung for a minute
        assert get(health.port, "/healthz")[0] == 503

        async def turn() -> None:
            beating = asyncio.create_task(health.beat())
            await asyncio.sleep(0)
            beating.cancel()

        asyncio.run(turn())
        assert get(health.port, "/healthz")[0] == 200
    finally:
        health.close()


def test_a_log_line_says_what_it_is_about() -> None:
    record = logging.makeLogRecord(
        {
            "name": "flanneld.etcd",
            "levelname": "INFO",
            "msg": "leased",
            "subnet": "10.1.0.0/24",
            "why": "two words",
            "created": 0.25,
            "msecs": 250.0,
        }
    )
    line = log._Formatter().format(record)
    assert line == '1970-01-01T00:00:00.250Z INFO flanneld.etcd leased subnet=10.1.0.0/24 why="two words"'
