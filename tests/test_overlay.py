"""The list of Debian's packages, and how build/overlay.py reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.scripts import ROOT, load

overlay = load("build/overlay.py")
GROUPS = overlay.groups(overlay.PACKAGES.read_text())


def test_a_group_goes_on_in_a_second_line_and_adds_to_another() -> None:
    text = "# A comment.\nbuild: gcc make\n\ntest < build\ntest: nftables\ntest: podman\n"
    known = overlay.groups(text)
    assert known == {"build": ("", ("gcc", "make")), "test": ("build", ("nftables", "podman"))}
    assert overlay.chain("test", known) == ["test", "build"]


@pytest.mark.parametrize("line", ["build gcc", "build:gcc", "build < ", ": gcc", "Build: gcc"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"packages\.txt"):
        overlay.groups(line)


def test_every_group_adds_to_one_that_is_there() -> None:
    for name in GROUPS:
        assert set(overlay.chain(name, GROUPS)) <= set(GROUPS)


def test_every_group_that_the_makefile_names_is_there() -> None:
    named = set(re.findall(r"\$\(IN\) ([a-z-]+) ", (ROOT / "Makefile").read_text()))
    assert named
    assert named <= set(GROUPS)


def test_no_package_is_listed_twice_in_a_chain() -> None:
    for name in GROUPS:
        packages = [package for group in overlay.chain(name, GROUPS) for package in GROUPS[group][1]]
        assert len(packages) == len(set(packages)), name


def test_a_missing_package_is_found() -> None:
    assert overlay.missing(["dpkg", "no-such-package"]) == ["no-such-package"]


def test_state_is_kept_outside_of_what_is_overlaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "ROOT", Path("/var/lib/ci/clone"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/root/cache")
    assert overlay.state_folder() == Path("/root/cache/cni-plugins/debian")
    monkeypatch.setattr(overlay, "ROOT", Path("/root/clone"))
    assert overlay.state_folder() == Path("/root/clone/.work/debian")
