"""The image in one file, made without an engine: an engine takes it, and runs it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import VERSION
from integration.image.engine import Podman
from integration.image.test_image import manifest_options
from integration.node import Node
from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.podman, pytest.mark.timeout(1200)]

NAME = f"docker.io/library/cni-plugins-flannel:v{VERSION}"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("oci") / "image.oci.tar"
    subprocess.run([sys.executable, f"{ROOT}/build/oci.py", "--target", str(path)], check=True)
    return path


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {member.name: file.read() for member in opened if (file := opened.extractfile(member))}


def test_every_blob_is_what_its_name_says(archive: Path) -> None:
    found = blobs(archive)

    def get(descriptor: dict[str, Any]) -> bytes:
        content = found[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(content) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
        return content

    (top,) = json.loads(found["index.json"])["manifests"]
    assert top["annotations"]["io.containerd.image.name"] == NAME
    images = json.loads(get(top))["manifests"]
    assert ARCH in [image["platform"]["architecture"] for image in images]
    for image in images:
        manifest = json.loads(get(image))
        assert json.loads(get(manifest["config"]))["architecture"] == image["platform"]["architecture"]
        for layer in manifest["layers"]:
            get(layer)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_podman_loads_and_runs_it(archive: Path, tmp_path: Path) -> None:
    with Node() as node:
        podman = Podman(node, str(tmp_path))
        podman("load", "--input", str(archive))
        run = ("run", "--rm", "--network=host", *manifest_options("kube-flannel"))
        assert podman(*run, NAME, "--version") == VERSION
        said = podman(*run, "--entrypoint=/usr/sbin/iptables-nft", NAME, "--version")
        assert "nf_tables" in said
        (found,) = json.loads(podman("image", "inspect", NAME))
        assert found["Labels"]["org.opencontainers.image.version"] == f"v{VERSION}"
