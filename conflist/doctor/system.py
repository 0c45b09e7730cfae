"""What iproute2 and nft say of the host, and which addresses its containers have."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from cni_plugins.address import format_address
from cni_plugins.kernel import addr, link
from cni_plugins.kernel.netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


def ip(*arguments: str) -> list[dict[str, Any]]:
    """Ask iproute2; nothing where it fails."""
    return [each for each in _json(["ip", "-json", *arguments]) or [] if each]


def nft(*arguments: str) -> list[dict[str, Any]]:
    """Ask nft; nothing where there is no such table."""
    listed: list[dict[str, Any]] = (_json(["nft", "--json", "--handle", *arguments]) or {}).get(
        "nftables", []
    )
    return listed


def _json(command: list[str]) -> Any:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None
    except (OSError, ValueError):
        return None


def addresses_inside() -> Iterator[str]:
    """Return the addresses in every namespace that a process or a file under /run/netns holds."""
    own = os.stat("/proc/self/ns/net")
    seen = {(own.st_dev, own.st_ino)}
    places = [f"/proc/{pid}/ns/net" for pid in os.listdir("/proc") if pid.isdigit()]
    for folder in ("/run/netns", "/run/docker/netns"):
        places += [
            os.path.join(folder, name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])
        ]
    for place in places:
        try:
            status = os.stat(place)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with Namespace(place) as netns, netns.netlink() as inside:
                held = [each for found in link.links(inside) for each in addr.of_link(inside, found.index)]
        except OSError:  # gone meanwhile
            continue
        yield from (format_address(each.address) for each in held)
