"""The image as podman builds it from the Dockerfile: what is in it, and what the manifest runs of it."""

from __future__ import annotations

import glob
import json
import os
import ssl
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cni_plugins import VERSION, install
from integration.image.engine import NAME, SOURCE
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.image.engine import Podman

# The first test's time has the build in it.
pytestmark = [pytest.mark.podman, pytest.mark.timeout(2400)]

MAX_BYTES = 90 << 20
NOT_IN_IT = {
    "sh",
    "bash",
    "dash",
    "ash",
    "busybox",
    "env",
    "apt",
    "apt-get",
    "dpkg",
    "perl",
    "python3",
    "pip",
    "make",
}
LIST = {"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}

NAMED = "kube.example.test"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "x",
    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    "clusters": [{"name": "x", "cluster": {"server": f"http://{NAMED}:6443"}}],
    "users": [{"name": "x", "user": {}}],
}
SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 6443))
print(server.accept()[0].recv(1000).decode())
"""


@pytest.fixture(scope="module")
def root(podman: Podman) -> str:
    return podman.files()


def paths(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield os.path.join(folder, name)


def manifest_options(container: str) -> list[str]:
    """Return as podman's options what the manifest grants a container."""
    with open(f"{ROOT}/deploy/kube-flannel.yml", encoding="utf-8") as file:
        (pod,) = [
            item["spec"]["template"]["spec"]
            for item in yaml.safe_load_all(file)
            if item["kind"] == "DaemonSet"
        ]
    (found,) = [
        item["securityContext"]
        for item in (*pod["initContainers"], *pod["containers"])
        if item["name"] == container
    ]
    assert found["readOnlyRootFilesystem"]
    assert not found["allowPrivilegeEscalation"]
    capabilities = found["capabilities"]
    return [
        "--read-only",
        # podman would put filesystems that can be written over /tmp, /run and others; kubelet does not.
        "--read-only-tmpfs=false",
        "--security-opt=no-new-privileges",
        *(f"--cap-drop={name}" for name in capabilities["drop"]),
        *(f"--cap-add={name}" for name in capabilities.get("add", ())),
    ]


def test_there_is_no_shell_and_nothing_to_install_with(root: str) -> None:
    names = {os.path.basename(path) for path in paths(root)}
    assert not names & NOT_IN_IT
    # The bundle's installer, for nodes that have Python.
    assert {name for name in names if name.endswith((".py", ".pyc", ".a"))} == {"install.py", "preflight.py"}
    assert sorted(os.listdir(root)) == sorted(
        ["LICENSE", "bin", "etc", "lib", "lib64", "opt", "run", "sbin", "tmp", "usr"]
    )


def test_nothing_can_be_written_or_used_to_become_somebody_else(root: str) -> None:
    for path in paths(root):
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        if not stat.S_ISLNK(found.st_mode):
            assert not found.st_mode & 0o022 or path == f"{root}/tmp", path
            assert os.access(path, os.R_OK)
        assert "security.capability" not in os.listxattr(path, follow_symlinks=False)


RUNTIME = "/opt/cni-plugins/cni-runtime"
STATIC = {"/opt/flanneld/flanneld", *(f"{RUNTIME}/{name}" for name in ("cni", "cnictl", "dhcp-daemon"))}
"""The programs that a node starts; they start what is in a bundle's folder of libraries."""


def loader(root: str, name: str) -> list[str]:
    """Return what loads a file: the loader of its bundle, as build/program.c starts it, or the image's."""
    for lib in ("/opt/flanneld/lib", f"{RUNTIME}/lib"):
        if name.startswith(f"{lib}/"):
            (found,) = glob.glob(f"{lib}/ld-linux-*"[1:], root_dir=root)
            return [f"/{found}", "--inhibit-cache", "--library-path", lib]
    (found,) = glob.glob("lib*/ld-linux-*", root_dir=root)
    return [f"/{found}"]


def test_every_program_finds_its_libraries(podman: Podman, root: str) -> None:
    """By the loader itself, with no other files than the image's; those of a bundle in the bundle alone."""
    inside = podman("image", "mount", NAME)
    checked = 0
    for path in paths(root):
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        name = path.removeprefix(root)
        dynamic = subprocess.run(["readelf", "--dynamic", path], check=True, capture_output=True).stdout
        if b"no dynamic section" in dynamic:
            assert name in STATIC
            continue
        done = podman.node.run(["chroot", inside, *loader(root, name), "--list", name], check=False)
        said = (done.stdout + done.stderr).decode()
        assert "not found" not in said, name
        assert done.returncode == 0, f"{name}: {said}"
        if name.startswith("/opt/"):
            assert " /lib/" not in said, f"{name}: {said}"
            assert " /usr/lib/" not in said, f"{name}: {said}"
        checked += 1
    assert checked > 50


def test_the_licences_of_what_is_others_work_are_there(root: str) -> None:
    doc = f"{root}/usr/share/doc"
    packages = set(os.listdir(doc))
    assert packages >= {"ca-certificates", "iptables", "libc6", "libssl3", "libxtables12", "nftables"}
    assert packages >= {"python-grpcio", "python-pydantic", "python-pyinstaller"}
    for package in packages:
        texts = os.listdir(f"{doc}/{package}")
        assert texts == ["copyright"] or package.startswith("python-")
        assert texts
        assert all(os.path.getsize(f"{doc}/{package}/{text}") > 100 for text in texts)


def test_size(podman: Podman) -> None:
    size = int(podman("image", "inspect", NAME, "--format", "{{.Size}}"))
    print(f"{size / 1e6:.1f} MB")  # noqa: T201
    assert size < MAX_BYTES


def test_labels_and_entry_point(podman: Podman) -> None:
    found = json.loads(podman("image", "inspect", NAME))[0]
    labels = {key: value for key, value in found["Labels"].items() if "opencontainers" in key}
    assert labels == {
        "org.opencontainers.image.title": "cni-plugins-flannel",
        "org.opencontainers.image.description": "flanneld and the CNI plugins, in Python",
        "org.opencontainers.image.version": f"v{VERSION}",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": SOURCE,
    }
    assert found["Config"]["Entrypoint"] == ["/opt/bin/flanneld"]


def test_certificates_are_there_for_etcd_and_the_apiserver(root: str) -> None:
    context = ssl.create_default_context(cafile=f"{root}/etc/ssl/certs/ca-certificates.crt")
    assert context.cert_store_stats()["x509_ca"] > 100


def test_the_daemon_starts(podman: Podman) -> None:
    options = manifest_options("kube-flannel")
    assert podman.run(options, "/opt/bin/flanneld", "--version") == VERSION
    said = podman.run(options, "/opt/bin/flanneld", "--kube-subnet-mgr", check=False)
    assert "flanneld cannot start" in said


@pytest.mark.parametrize("source", ["hosts", "DNS"])
def test_names_of_apiservers_are_resolved(podman: Podman, tmp_path: Path, source: str) -> None:
    """With what the image has of the C library: it has no nsswitch.conf and no module for it."""
    (tmp_path / "config").write_text(json.dumps(KUBECONFIG))
    (tmp_path / "net-conf.json").write_text('{"Network": "10.244.0.0/16"}')
    server = podman.node.popen([sys.executable, "-Iuc", SERVER], stdout=subprocess.PIPE)
    assert server.stdout is not None
    options = [*manifest_options("kube-flannel"), "--detach", "--name=names", "--env=NODE_NAME=a"]
    if source == "hosts":
        options.append(f"--add-host={NAMED}:127.0.0.1")
    else:
        dnsmasq = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
        podman.node.popen([*dnsmasq, "--user=root", f"--address=/{NAMED}/127.0.0.1"])
        options.append("--dns=127.0.0.1")
    podman.run(
        [*options, f"--volume={tmp_path}:/etc/kube-flannel:ro"],
        *("/opt/bin/flanneld", "--kube-subnet-mgr", "--kubeconfig-file=/etc/kube-flannel/config"),
    )
    try:
        with server.stdout as printed:
            assert printed.readline().startswith(b"GET /api/v1/nodes/a ")
    finally:
        podman("rm", "--force", "--time=1", "names")
        server.kill()


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("family", ["iptables", "ip6tables"])
def test_both_kinds_of_iptables_work(podman: Podman, kind: str, family: str, tmp_path: Path) -> None:
    lock = tmp_path / "xtables.lock"
    lock.touch()
    options = [*manifest_options("kube-flannel"), f"--volume={lock}:/run/xtables.lock"]
    chain = f"TEST-{kind}"
    podman.run(options, f"/usr/sbin/{family}-{kind}", "--wait", "-t", "nat", "-N", chain)
    rule = ("-A", chain, "-m", "comment", "--comment", "x", "-j", "MASQUERADE", "--random-fully")
    podman.run(options, f"/usr/sbin/{family}-{kind}", "--wait", "-t", "nat", *rule)
    assert chain in podman.node.run([f"{family}-{kind}-save"]).stdout.decode()


def test_nft_works(podman: Podman) -> None:
    podman.run(manifest_options("kube-flannel"), "/usr/sbin/nft", "add", "table", "inet", "test")
    assert "table inet test" in podman.node.ruleset()


def test_the_init_containers_install(podman: Podman, tmp_path: Path) -> None:
    plugins, lists, templates = (tmp_path / name for name in ("bin", "net.d", "templates"))
    for folder in (plugins, lists, templates):
        folder.mkdir()
    (templates / "cni-conf.json").write_text(json.dumps(LIST))
    options = manifest_options("install-cni-plugin")
    for _ in range(2):
        podman.run([*options, f"--volume={plugins}:/opt/cni/bin"], "/opt/bin/install-cni", "/opt/cni/bin")
    assert answer(plugins, "flannel")["supportedVersions"][-1] == "1.1.0"
    there = set(os.listdir(f"{podman.files()}/opt/cni-plugins"))
    assert set(os.listdir(plugins)) == there - {install.BUNDLED_RUNTIME} | {install.STATE}
    target = "/etc/cni/net.d/10-flannel.conflist"
    podman.run(
        [
            *manifest_options("install-cni"),
            f"--volume={lists}:/etc/cni/net.d",
            f"--volume={templates}:/etc/kube-flannel:ro",
        ],
        *("/opt/bin/install-conf", "/etc/kube-flannel/cni-conf.json", target),
    )
    assert json.loads((lists / "10-flannel.conflist").read_text()) == LIST
    # What is not the host's is as it was: the root can not be written.
    said = podman.run(options, "/opt/bin/install-cni", "/opt/cni/bin", check=False)
    assert "Read-only file system" in said


def answer(folder: Path, plugin: str) -> Any:
    """Return what an installed plugin says of its versions, on this machine and not in the image."""
    done = subprocess.run([folder / plugin], env={"CNI_COMMAND": "VERSION"}, check=True, capture_output=True)
    return json.loads(done.stdout)
