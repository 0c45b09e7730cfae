"""The archives of a release, and what is compared when a build is repeated."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.test_install import NAMES, bundle

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
EPOCH = 1_700_000_000
SCRIPTS = ("archive", "contents", "debian", "dist", "dpkg", "reproduce", "sbom")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "build"))
    return {name: importlib.import_module(name) for name in SCRIPTS}


@pytest.fixture
def parts(scripts: dict[str, ModuleType]) -> list[object]:
    part = scripts["contents"].Part
    return [
        part("deb", "zlib1g", "1:1.2", {"copyright": b"zlib's"}, source=("zlib", "1:1.2")),
        part("pypi", "pydantic", "2.0", {"LICENSE": b"MIT's", "NOTICE": b""}, "MIT"),
    ]


def opened(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return list(archive)


def test_the_layout(tmp_path: Path, scripts: dict[str, ModuleType], parts: list[object]) -> None:
    source = Path(bundle(tmp_path / "a", "1.0"))
    found = opened(scripts["archive"].pack(scripts["dist"].members(source, parts, EPOCH)))
    assert [member.name.removeprefix("./") for member in found] == [
        *("LICENSE", "README.md", "cni-runtime", "cni-runtime/VERSION", "cni-runtime/cni", "cni-runtime/lib"),
        *("cni-runtime/licenses", "cni-runtime/licenses/pydantic-2.0"),
        *("cni-runtime/licenses/pydantic-2.0/LICENSE", "cni-runtime/licenses/pydantic-2.0/NOTICE"),
        *("cni-runtime/licenses/zlib1g-1:1.2", "cni-runtime/licenses/zlib1g-1:1.2/copyright"),
        *("bridge", "cni-runtime/lib/link", "loopback"),
    ]
    for member in found:
        assert member.name.startswith("./")
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "root", "root")
        assert member.mtime == EPOCH
        assert not member.islnk()  # not every file system has hard links
        if not member.issym():
            assert member.mode == (0o755 if member.isdir() or member.name.endswith("/cni") else 0o644)


def test_nothing_of_the_build_is_in_an_archive(
    tmp_path: Path, scripts: dict[str, ModuleType], parts: list[object]
) -> None:
    """Another folder, umask, order of creation and time make the same bytes, without a gzip header's time."""
    made = []
    for name, mask, names in (("a", 0o022, NAMES), ("longer", 0o077, NAMES[::-1])):
        before = os.umask(mask)
        try:
            source = Path(bundle(tmp_path / name, "1.0", names))
        finally:
            os.umask(before)
        for path in source.rglob("*"):
            os.utime(path, (len(name), len(name)), follow_symlinks=False)
        made.append(scripts["archive"].pack(scripts["dist"].members(source, parts, EPOCH)))
    assert made[0] == made[1]
    # RFC 1952: no name, time 0.
    assert made[0][:8] == b"\x1f\x8b\x08\x00\0\0\0\0"
    assert gzip.decompress(made[0])


def test_an_archive_is_for_the_architecture_that_it_names(
    tmp_path: Path, scripts: dict[str, ModuleType]
) -> None:
    program = tmp_path / "cni"
    program.write_bytes(Path(sys.executable).read_bytes()[:64])
    program.chmod(0o755)
    own = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    (other,) = {"amd64", "arm64"} - {own}
    scripts["dist"].check(tmp_path, own)
    with pytest.raises(SystemExit, match=f"cni is for {os.uname().machine}, not for {other}"):
        scripts["dist"].check(tmp_path, other)


def test_the_list_of_contents(tmp_path: Path, scripts: dict[str, ModuleType], parts: list[object]) -> None:
    lock = tmp_path / "requirements.lock"
    sums = [hashlib.sha256(text).hexdigest() for text in (b"wheel", b"source")]
    lines = f"pydantic==2.0 \\\n    --hash=sha256:{sums[0]} \\\n    --hash=sha256:{sums[1]}\n    # via x\n"
    lock.write_text(lines)
    arguments = ("cni-plugins-linux-arm64-v1.0.tgz", "0" * 64, "1.0", "c" * 40, EPOCH, parts, lock)
    said = scripts["sbom"].document(*arguments)
    assert said == scripts["sbom"].document(*arguments)
    found = json.loads(said)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    main = found["metadata"]["component"]
    assert (main["name"], main["version"], main["hashes"][0]["content"]) == ("cni-plugins", "1.0", "0" * 64)
    assert {"name": "commit", "value": "c" * 40} in main["properties"]
    package, library = sorted(found["components"], key=lambda each: str(each["name"]))
    assert library["purl"].startswith("pkg:deb/debian/zlib1g@1:1.2?arch=arm64")
    assert {"name": "debian:source", "value": "zlib 1:1.2"} in library["properties"]
    assert package["purl"] == "pkg:pypi/pydantic@2.0"
    assert sorted(each["content"] for each in package["hashes"]) == sorted(sums)
    # Another archive has another serial number.
    other = scripts["sbom"].document(arguments[0], "1" * 64, *arguments[2:])
    assert json.loads(other)["serialNumber"] != found["serialNumber"]
    lock.write_text("")
    with pytest.raises(SystemExit, match=r"pydantic 2\.0 is not in the lock"):
        scripts["sbom"].document(*arguments)


def test_what_differs_is_named(tmp_path: Path, scripts: dict[str, ModuleType], parts: list[object]) -> None:
    for name in ("one", "other"):
        source = Path(bundle(tmp_path / f"bundle-{name}", "1.0"))
        if name == "other":
            (source / "cni-runtime/VERSION").write_text("1.1\n")
            (source / "cni-runtime/lib/more").write_text("")
        (tmp_path / name).mkdir()
        for archive in ("a.tgz", "b.tgz"):
            content = scripts["archive"].pack(scripts["dist"].members(source, parts, EPOCH))
            if archive == "a.tgz":
                content = scripts["archive"].pack([])
            scripts["archive"].write(tmp_path / name / archive, content)
    (tmp_path / "one/b.tgz.sha256").write_text("")
    found = scripts["reproduce"].differences(tmp_path / "one", tmp_path / "other")
    assert found == [
        "b.tgz",
        "b.tgz: ./cni-runtime/VERSION",
        "b.tgz: ./cni-runtime/lib/more",
        "b.tgz: the order of its members",
        "b.tgz.sha256: only one build made it",
    ]
    assert scripts["reproduce"].differences(tmp_path / "one", tmp_path / "one") == []


def test_the_packages_of_an_unpacked_root(tmp_path: Path, scripts: dict[str, ModuleType]) -> None:
    """They are for another architecture, and not installed: debian.py writes dpkg's database."""
    content, archive = tmp_path / "content", tmp_path / "example.deb"
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        "Package: libexample1\nSource: example (1:2.0-3)\nVersion: 1:2.0-3+b1\nArchitecture: arm64\n"
        "Multi-Arch: same\nMaintainer: nobody <nobody@example.test>\nDescription: x\n more\n"
    )
    library = "/usr/lib/aarch64-linux-gnu/libexample.so.1"
    for name, text in ((library, "\x7fELF"), ("/usr/share/doc/libexample1/copyright", "free")):
        (content / name[1:]).parent.mkdir(parents=True)
        (content / name[1:]).write_text(text)
    subprocess.run(["dpkg-deb", "--build", content, archive], check=True, capture_output=True)
    (tmp_path / "root").mkdir()
    scripts["debian"]._record(archive, tmp_path / "root")
    (found,) = scripts["dpkg"].owners(tmp_path / "root", [library, "/usr/lib/other"]).values()
    assert found[:4] == ("libexample1", "1:2.0-3+b1", "example", "1:2.0-3")
    shutil.copytree(content / "usr", tmp_path / "root/usr")
    assert found.copyright() == b"free"


def test_every_locked_package_has_its_sums(scripts: dict[str, ModuleType]) -> None:
    lock = ROOT / "build/requirements.lock"
    names = [line.split(" ")[0] for line in lock.read_text().splitlines() if "==" in line and line[0] != " "]
    found = scripts["sbom"].hashes_of(lock)
    assert sorted(found) == sorted(names)
    assert all(found.values())


def test_an_unknown_module_is_an_error(tmp_path: Path, scripts: dict[str, ModuleType]) -> None:
    (tmp_path / "base_library.zip").write_bytes(b"")
    library = tmp_path / "nobodys" / "libnobody.so.1"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF")
    with pytest.raises(SystemExit, match=r"nobody knows where this is from: nobodys/libnobody\.so\.1"):
        scripts["contents"].parts(tmp_path, "amd64")


def test_the_command_without_a_bundle(tmp_path: Path) -> None:
    """It says what to do first."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'build')!r}); import dist"]
    command[-1] += f"; from pathlib import Path; dist.ROOT = Path({str(tmp_path)!r}); dist.main()"
    environment = {"SOURCE_DATE_EPOCH": "1", "COMMIT": "x"}
    done = subprocess.run(command, capture_output=True, check=False, text=True, env=environment)
    assert done.returncode == 1
    assert "`make build build-flanneld` comes first" in done.stderr
