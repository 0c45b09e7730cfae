"""A software bill of materials in CycloneDX's JSON, for an archive of build/dist.py.

The document depends on nothing but what is archived and the commit: its serial number is derived from its
content, and its time is the commit's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

if TYPE_CHECKING:
    from pathlib import Path

    from contents import Part


def hashes_of(lock: Path) -> dict[str, list[str]]:
    """Return the SHA-256 sums that a lock file admits for each package's files, by `name==version`."""
    text = lock.read_text()
    found = re.findall(
        r"^([a-z0-9.-]+==\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    return {name: re.findall(r"[0-9a-f]{64}", sums) for name, sums in found}


def document(
    archive: str, digest: str, version: str, commit: str, epoch: int, parts: list[Part], lock: Path
) -> str:
    """Return the document.

    Args:
        archive: the archive's file name, as `cni-plugins-linux-amd64-v0.1.0.tgz`.
        digest: its SHA-256.
        version: our version.
        commit: the commit that was built.
        epoch: the commit's time, in seconds since 1970.
        parts: what of others is in it.
        lock: the file with the hashes of the Python packages.

    Raises:
        SystemExit: a Python package is not in the lock.
    """
    name, _, rest = archive.partition("-linux-")
    architecture = rest.partition("-")[0]
    main = Component(
        type=ComponentType.APPLICATION,
        bom_ref=archive,
        name=name,
        version=version,
        purl=PackageURL("generic", None, name, version, {"arch": architecture, "os": "linux"}),
        licenses=[LicenseFactory().make_with_id("Apache-2.0")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        properties=[Property(name="file", value=archive), Property(name="commit", value=commit)],
    )
    locked = hashes_of(lock)
    components = [_component(part, architecture, locked) for part in parts]
    bom = Bom(components=components)
    bom.metadata.component = main
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.register_dependency(main, components)
    bom.serial_number = uuid5(NAMESPACE_URL, f"{archive} {digest} {commit}")
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _component(part: Part, architecture: str, locked: dict[str, list[str]]) -> Component:
    if part.kind == "deb":
        source, version = part.source
        purl = PackageURL(
            *("deb", "debian", part.name, part.version),
            {"arch": architecture, "distro": "debian-12", "upstream": f"{source}@{version}"},
        )
        properties = [Property(name="debian:source", value=f"{source} {version}")]
        sums = []
    else:
        purl = PackageURL("pypi", None, part.name, part.version)
        properties = []
        # Of the release's files; the wheel for the architecture that was built is one of them.
        sums = locked.get(f"{part.name}=={part.version}", [])
        if not sums:
            raise SystemExit(f"{part.name} {part.version} is not in the lock")
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        name=part.name,
        version=part.version,
        purl=purl,
        licenses=[LicenseFactory().make_from_string(part.licence)] if part.licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in sums],
        properties=properties,
    )
