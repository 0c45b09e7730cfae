"""The one executable behind every plugin's name: `argv[0]` says which one was called.

The table is literal, for two readers: this dispatcher, which imports the one module it needs, and the build,
which freezes every module named here.
"""

from __future__ import annotations

import posix
import sys

from cni_plugins.spec import skel
from cni_plugins.spec.errors import DelegateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.spec.plugin import Plugin

MODULES = {
    "bandwidth": "cni_plugins.plugins.bandwidth",
    "bridge": "cni_plugins.plugins.bridge",
    "dhcp": "ipam.dhcp.plugin",
    "dummy": "cni_plugins.plugins.dummy",
    "firewall": "cni_plugins.plugins.firewall",
    "flannel": "cni_plugins.plugins.flannel",
    "host-device": "cni_plugins.plugins.host_device",
    "host-local": "ipam.host_local.plugin",
    "ipvlan": "cni_plugins.plugins.ipvlan",
    "loopback": "cni_plugins.plugins.loopback",
    "macvlan": "cni_plugins.plugins.macvlan",
    "portmap": "cni_plugins.plugins.portmap",
    "ptp": "cni_plugins.plugins.ptp",
    "sbr": "cni_plugins.plugins.sbr",
    "static": "ipam.static.plugin",
    "tap": "cni_plugins.plugins.tap",
    "tuning": "cni_plugins.plugins.tuning",
    "vlan": "cni_plugins.plugins.vlan",
    "vrf": "cni_plugins.plugins.vrf",
}
"""Executable name to the module whose PLUGIN it is."""

DAEMONS = {"dhcp": "dhcp-daemon"}
"""Names that are a daemon, too, as in `dhcp daemon`: another program in the folder of the executable."""

_DAEMON_ENVIRONMENT = (b"LISTEN_FDNAMES", b"LISTEN_FDS", b"LISTEN_PID")
"""What systemd tells a daemon: sd_listen_fds(3). The rest of our environment is not its business."""


def lookup(name: str) -> Plugin:
    """Return the plugin of a name.

    Raises:
        DelegateError: the bundle has none of that name.
    """
    module = MODULES.get(name)
    if module is None:
        raise DelegateError(f"this bundle has no plugin {name!r}", f"it has {', '.join(MODULES)}")
    # __import__ and sys.modules: importlib costs another 1 ms.
    __import__(module)
    plugin: Plugin = sys.modules[module].PLUGIN
    return plugin


def main(executable: str = "/proc/self/exe") -> None:
    """Serve this process's one call and end it.

    Args:
        executable: the file that all plugin names lead to.
    """
    name = sys.argv[0].rpartition("/")[2]
    if name not in MODULES:
        skel.warn(f"{name}: no plugin of that name; call this program as one of: {', '.join(MODULES)}")
        posix._exit(2)  # noqa: SLF001
    if name in DAEMONS and sys.argv[1:2] == ["daemon"]:
        become_daemon(name, executable)
    skel.register_local(executable, lookup)
    env = {
        key.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for key, value in posix.environ.items()
    }
    status = skel.main(name, lookup, env)
    # Everything is written and closed: tearing the interpreter down would only cost time.
    posix._exit(status)  # noqa: SLF001


def become_daemon(name: str, executable: str) -> None:
    """Execute a plugin's daemon in this process's place; return never."""
    try:
        target = posix.readlink(executable)
    except OSError:  # the source's script, by its own name
        target = executable
    folder = (target if target.startswith("/") else executable).rpartition("/")[0]
    path = f"{folder}/{DAEMONS[name]}"
    env = {key: posix.environ[key] for key in _DAEMON_ENVIRONMENT if key in posix.environ}
    try:
        posix.execve(path, [path, *sys.argv[2:]], env)
    except OSError as error:
        skel.warn(f"{name}: cannot start {path}: {error.strerror}")
        posix._exit(1)  # noqa: SLF001
