"""The programs on nodes with glibc 2.31, with musl, and with no C library: see roots.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import VERSION
from integration import bundles
from integration.node import PATH
from integration.roots import DAEMON, PACKAGES, PLUGINS, Root
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from integration.node import Node

pytestmark = pytest.mark.bundles

ADDRESS = "192.0.2.1"
GOOD = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}]]},
        }
    ],
}
SERVER = f"""
import socket
with socket.create_server(({ADDRESS!r}, 6443)) as server:
    print("listening", flush=True)
    while True:
        client, _address = server.accept()
        with client:
            print(client.recv(4096), flush=True)
"""
"""Prints the beginning of what each client says."""
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


@pytest.fixture(params=list(PACKAGES))
def root(request: pytest.FixtureRequest, node: Node) -> Root:
    return Root(node, request.param, os.path.dirname(bundles.flanneld()))


@pytest.fixture
def server(node: Node) -> Iterator[IO[bytes]]:
    """What a server on ADDRESS prints: a line for each client."""
    node.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])
    with node.popen([sys.executable, "-ISuc", SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield process.stdout
        process.kill()


def test_the_root_is_what_its_name_says(root: Root, request: pytest.FixtureRequest) -> None:
    """Else the others would show nothing: in none of the roots does a program of this machine start."""
    kind = request.node.callspec.params["root"]
    machines = os.path.realpath("/usr/bin/env")
    with open(machines, "rb") as file:
        assert file.read(4) == b"\x7fELF"
    root.write("/machines/about", "")
    root.copy(machines, "/machines/env")
    done = root.run("/machines/env", "--version")
    if kind == "glibc 2.31":
        assert b"GLIBC_2.3" in done.stderr
    else:
        assert b"No such file or directory" in done.stderr
    if kind != "empty":
        assert root.run("/bin/sh", "-c", "echo here").stdout == b"here\n"


def test_cnictl(root: Root) -> None:
    cnictl = f"{PLUGINS}/cnictl"
    done = root.run(cnictl, "--version")
    assert done.stdout.startswith(f"cnictl {VERSION} ".encode())
    assert done.stderr == b""
    env = {"CNI_PATH": PLUGINS, "NETCONFPATH": "/etc/cni/net.d", "LANG": "de_DE.UTF-8"}
    root.write("/etc/cni/net.d/10-pods.conflist", json.dumps(GOOD, indent=2))
    done = root.run(cnictl, "lint", env=env)
    assert (done.returncode, done.stdout) == (0, b"1 file: 0 errors, 0 warnings\n")
    text = json.dumps(GOOD, indent=2).replace('"10.85.0.0/16"', '"10.85.0.0/33"').replace("pods", "b\u00fcro")
    root.write("/etc/cni/net.d/20-wrong.conflist", text)
    done = root.run(cnictl, "lint", env=env)
    assert done.returncode == 1
    assert "/etc/cni/net.d/20-wrong.conflist:3:11: error: invalid network name 'büro'" in done.stdout.decode()
    assert b"the subnet '10.85.0.0/33' is not an address" in done.stdout
    root.remove("/etc/cni/net.d/20-wrong.conflist")
    done = root.run(cnictl, "doctor", "--json", env=env)
    assert done.stderr == b""
    assert isinstance(json.loads(done.stdout), list | dict)


def test_the_dhcp_daemon(root: Root) -> None:
    """The plugin finds it beside itself."""
    done = root.run(f"{PLUGINS}/dhcp", "daemon", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: dhcp daemon ")


def test_flanneld(root: Root) -> None:
    for asked in ("--version", "-version"):
        done = root.run(f"{DAEMON}/flanneld", asked)
        assert (done.returncode, done.stdout + done.stderr) == (0, f"{VERSION}\n".encode())
    done = root.run(f"{DAEMON}/flanneld", "--no-such-option")
    assert done.returncode == 2
    assert b"flag provided but not defined: -no-such-option" in done.stderr


@pytest.mark.parametrize("name", ["files.test", "dns.test"])
def test_flanneld_finds_the_apiserver_by_its_name_and_speaks_tls(
    node: Node, root: Root, server: IO[bytes], name: str
) -> None:
    """The name is in /etc/hosts, or a DNS server knows it; TLS says it in the clear (SNI)."""
    dnsmasq = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]
    dnsmasq += [
        f"--listen-address={ADDRESS}",
        "--bind-interfaces",
        "--pid-file=",
        f"--address=/dns.test/{ADDRESS}",
    ]
    node.popen([*dnsmasq, "--log-facility=/run/dnsmasq.log"])
    root.write("/etc/hosts", f"{ADDRESS} files.test\n")
    root.write("/etc/resolv.conf", f"nameserver {ADDRESS}\n")
    root.write("/etc/nsswitch.conf", "hosts: files dns\n")
    cluster = {"name": "c", "cluster": {"server": f"https://{name}:6443"}}
    root.write("/etc/kubeconfig", json.dumps({**KUBECONFIG, "clusters": [cluster]}))
    root.write("/etc/net-conf.json", json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}))
    flags = ["--kube-subnet-mgr", "--kubeconfig-file=/etc/kubeconfig", "--net-config-path=/etc/net-conf.json"]
    node.popen(root.argv(f"{DAEMON}/flanneld", *flags), env={"PATH": PATH, "NODE_NAME": "n1"})
    assert name in server.readline().decode()


def test_flanneld_asks_etcd(node: Node, root: Root, server: IO[bytes]) -> None:
    """gRPC brings libraries and a resolver of its own. HTTP/2 begins with this word."""
    root.write("/etc/hosts", f"{ADDRESS} files.test\n")
    node.popen(root.argv(f"{DAEMON}/flanneld", "--etcd-endpoints=http://files.test:6443"))
    assert server.readline().startswith(b"b'PRI * HTTP/2.0")


def test_what_the_examples_say_is_found(root: Root) -> None:
    """cnictl's own data are in the bundle."""
    examples = sorted(os.listdir(f"{ROOT}/conflist/examples"))
    folder = f"{PLUGINS}/cni-runtime/lib/conflist/examples"
    assert examples == sorted(os.listdir(f"{os.environ['SUITE_BIN']}/cni-runtime/lib/conflist/examples"))
    done = root.run(
        f"{PLUGINS}/cnictl", "lint", *(f"{folder}/{name}" for name in examples), env={"CNI_PATH": PLUGINS}
    )
    assert done.stdout.splitlines()[-1] == f"{len(examples)} files: 0 errors, 0 warnings".encode()
