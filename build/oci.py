"""Write the image for both architectures into one file, without an engine or a registry: `make image-oci`.

Usage: oci.py [--target FILE]. The layers are what image.py lays out, from Debian's packages and the bundles
in dist. The file is an image layout of the Open Containers Initiative (image-spec, image-layout.md), as tar:

    podman load --input FILE        ctr --namespace k8s.io images import FILE
    skopeo copy --all oci-archive:FILE docker://REGISTRY/cni-plugins-flannel:v0.1.0

It depends on nothing but the commit and the packages, as the archives of dist.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from archive import commit_time, folders, pack, write  # noqa: E402
from image import Layout  # noqa: E402
from launcher import own_architecture  # noqa: E402

from cni_plugins import VERSION  # noqa: E402

NAME = "cni-plugins-flannel"
TYPE = "application/vnd.oci.image."
LABELS = {
    "org.opencontainers.image.title": NAME,
    "org.opencontainers.image.description": "flanneld and the CNI plugins, in Python",
    "org.opencontainers.image.version": f"v{VERSION}",
    "org.opencontainers.image.licenses": "Apache-2.0",
}
"""As in the Dockerfile."""


def members(folder: Path, epoch: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return what a layer has of a folder: everything belongs to root, and is as old as the commit."""
    made = []
    for path in sorted(folder.rglob("*")):
        member = tarfile.TarInfo(str(path.relative_to(folder)))
        member.mtime, member.mode = epoch, 0o755
        content = b""
        if path.is_symlink():
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        elif path.is_dir():
            member.type = tarfile.DIRTYPE
            member.mode = 0o1777 if member.name == "tmp" else 0o755
        else:
            content = path.read_bytes()
            member.size, member.mode = len(content), 0o755 if path.stat().st_mode & 0o111 else 0o644
        made.append((member, content))
    return made


class Archive:
    """The blobs of an image layout, by their digests."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, kind: str, content: bytes, **more: Any) -> dict[str, Any]:
        """Add a blob and return its descriptor (image-spec, descriptor.md)."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": f"{TYPE}{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}

    def add_image(self, arch: str, layer: bytes, unpacked: bytes, epoch: int) -> dict[str, Any]:
        """Add an image of one layer for one architecture and return its manifest's descriptor."""
        created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {
            "created": created,
            "architecture": arch,
            "os": "linux",
            "config": {"Entrypoint": ["/opt/bin/flanneld"], "WorkingDir": "/", "Labels": LABELS},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]},
            "history": [{"created": created, "created_by": "build/oci.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{TYPE}manifest.v1+json",
            "config": self.add("config.v1+json", encoded(config)),
            "layers": [self.add("layer.v1.tar+gzip", layer)],
        }
        return self.add("manifest.v1+json", encoded(manifest), platform={"architecture": arch, "os": "linux"})

    def members(self, images: list[dict[str, Any]], epoch: int) -> list[tuple[tarfile.TarInfo, bytes]]:
        """Return the members of the tar archive, whose index has one image for each architecture."""
        index = {"schemaVersion": 2, "mediaType": f"{TYPE}index.v1+json", "manifests": images}
        names = {
            "org.opencontainers.image.ref.name": f"v{VERSION}",
            "io.containerd.image.name": f"docker.io/library/{NAME}:v{VERSION}",
        }
        top = {
            "schemaVersion": 2,
            "manifests": [self.add("index.v1+json", encoded(index), annotations=names)],
        }
        files = {f"blobs/sha256/{digest}": content for digest, content in sorted(self.blobs.items())}
        files |= {"index.json": encoded(top), "oci-layout": encoded({"imageLayoutVersion": "1.0.0"})}
        made = []
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), epoch, 0o644
            made.append((member, content))
        return made


def encoded(document: dict[str, Any]) -> bytes:
    """Return a document as JSON, always in the same form."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def main() -> None:
    """Write the archive with an image for every architecture that was built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / f"dist/{NAME}-v{VERSION}.oci.tar")
    target = parser.parse_args().target
    epoch = commit_time()
    found = folders(ROOT / "dist", own_architecture())
    architectures = sorted({arch for _, arch in found if {("cni", arch), ("flanneld", arch)} <= set(found)})
    if not architectures:
        sys.exit("there is nothing to put into an image: `make build build-flanneld` comes first")
    archive, images = Archive(), []
    for arch in architectures:
        with tempfile.TemporaryDirectory() as place:
            layout = Layout(arch, Path(place, "root"), machine=False)
            layout.fill({"cni-plugins": found["cni", arch], "flanneld": found["flanneld", arch]})
            layer = members(layout.target, epoch)
            images.append(archive.add_image(arch, pack(layer), pack(layer, compressed=False), epoch))
    write(target, pack(archive.members(images, epoch), compressed=False))
    print(f"{target}: {' and '.join(architectures)}, {target.stat().st_size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
