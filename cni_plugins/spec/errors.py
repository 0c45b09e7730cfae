"""Errors of the protocol: one tree, one table of codes.

    CNIError                         any failure that a runtime is told of: code, msg, details
    ├── IncompatibleVersionError  1  a cniVersion that we do not speak, or that lacks the verb
    ├── UnknownContainerError     3  nothing is known of the container; no clean-up is needed
    ├── InvalidEnvironmentError  4   CNI_* variables missing or invalid
    ├── IOFailureError            5  reading or writing failed
    ├── DecodeError               6  the input is not JSON
    ├── InvalidConfigError        7  JSON, but not a valid configuration
    ├── NamespaceError            8  CNI_NETNS is the namespace the plugin itself runs in
    ├── TryAgainLaterError       11  a passing condition; the runtime may retry
    ├── NotAvailableError        50  STATUS: the plugin cannot serve an ADD
    ├── LimitedConnectivityError 51  the same, and running containers may lose connectivity
    ├── KernelError             100  the kernel refused a request
    ├── CheckFailedError        101  CHECK found a difference
    ├── NoAddressError          102  a range set is exhausted, or a requested address is taken
    ├── DelegateError           103  a delegated plugin cannot be found or started
    ├── TeardownError           104  DEL or GC went through all its steps; some failed
    ├── ConflictError           105  something that is not ours stands where this plugin must build
    ├── ProgramError            106  an external program (iptables) failed
    └── AlreadyAttachedError    107  a second ADD of an attachment; nothing was touched
                                999  a fault inside the plugin, as in the reference

Codes up to 99 are the specification's (CNI 1.1.0, section 5, "Error"); from 100 up they are our own.
"""

from __future__ import annotations


class CNIError(Exception):
    """A failure as the runtime sees it.

    Args:
        msg: one line that says what failed, with the names that matter.
        details: what an operator can do about it.
    """

    code = 999

    def __init__(self, msg: str, details: str = "", *, code: int | None = None) -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details
        if code is not None:
            self.code = code

    def to_json(self, version: str) -> dict[str, object]:
        """Return the error object of section 5 of the specification."""
        body: dict[str, object] = {"cniVersion": version, "code": self.code, "msg": self.msg}
        if self.details:
            body["details"] = self.details
        return body


class IncompatibleVersionError(CNIError):
    """Code 1: the configuration's cniVersion is not supported, or is older than the verb.

    Set the network's `cniVersion` to one that the message names.
    """

    code = 1


class UnknownContainerError(CNIError):
    """Code 3: CHECK by `cnictl`: no result of an ADD is cached.

    Run `cnictl add` first, with the same network, container and interface.
    """

    code = 3


class InvalidEnvironmentError(CNIError):
    """Code 4: `CNI_*` variables are missing or invalid; the message names them.

    The runtime sets them: check its version and its log.
    """

    code = 4


class IOFailureError(CNIError):
    """Code 5: standard input could not be read.

    The runtime provides it: check its log.
    """

    code = 5


class DecodeError(CNIError):
    """Code 6: the input, a state file or a delegate's answer is not JSON, or is too long or too deep.

    `cnictl lint` shows the place in a list; the message names a damaged file or the delegate.
    """

    code = 6


class InvalidConfigError(CNIError):
    """Code 7: the configuration is JSON, but invalid, or lacks what the verb needs.

    Correct the key that the message names; `cnictl lint` shows its place.
    """

    code = 7


class NamespaceError(CNIError):
    """Code 8: `CNI_NETNS` is the namespace in which the plugin itself runs.

    Set `CNI_NETNS_OVERRIDE=1` if that is intended; otherwise the runtime passed a wrong path.
    """

    code = 8


class TryAgainLaterError(CNIError):
    """Code 11: a temporary condition, such as a `subnet.env` that is not written yet.

    Wait: the runtime tries again. If it lasts, find out why flanneld or the dhcp daemon is not running.
    """

    code = 11


class NotAvailableError(CNIError):
    """Code 50: STATUS: an ADD would fail now.

    Do what `details` says; `cnictl doctor` finds more.
    """

    code = 50


class LimitedConnectivityError(CNIError):
    """Code 51: STATUS: an ADD would fail now, and running containers may lose connectivity.

    Do what `details` says, and check running pods.
    """

    code = 51


class KernelError(CNIError):
    """Code 100: the kernel refused a request, or a file could not be read or written; the message says which.

    `details` has the error number (errno(3)). Often a module or a permission is missing, or the disk is full.

    Made by the skeleton from an OSError.
    """

    code = 100


class CheckFailedError(CNIError):
    """Code 101: CHECK found that the kernel differs from what ADD made.

    Delete the pod so that it is created anew, or restore what the message names.
    """

    code = 101


class NoAddressError(CNIError):
    """Code 102: a range set is exhausted, or a requested address is taken.

    Let `cnictl doctor --fix` release leaked addresses, or enlarge the range.
    """

    code = 102


class DelegateError(CNIError):
    """Code 103: a plugin that another one calls cannot be found or started.

    Install it in a folder of `CNI_PATH`, or correct `type`.
    """

    code = 103


class TeardownError(CNIError):
    """Code 104: DEL or GC went through all its steps, and several failed.

    The message has each step's own; remove the causes and repeat the DEL or GC.
    """

    code = 104


class ConflictError(CNIError):
    """Code 105: something that is not ours stands where the plugin must build.

    Remove it, or configure another bridge, master or VLAN.
    """

    code = 105


class ProgramError(CNIError):
    """Code 106: a program such as iptables failed; the message has what it printed.

    The program may be missing, or be iptables-nft where the rules are legacy ones, or the other way round.
    """

    code = 106


class AlreadyAttachedError(CNIError):
    """Code 107: the interface exists, or belongs to an earlier ADD; nothing was changed.

    DEL the attachment first, or use another interface name.

    A caller must not answer a delegate's with a DEL, which would end the attachment.
    """

    code = 107


def name_too_long(container_id: str, bearer: str) -> InvalidEnvironmentError:
    """Return the error of an ADD that would have to make something whose name cannot be so long.

    Args:
        container_id: the container, whose id is part of the name.
        bearer: what would have it.
    """
    return InvalidEnvironmentError(
        f"CNI_CONTAINERID: container id {container_id!r} is too long: it is part of the name of {bearer}",
        "a name has 255 bytes at most, and this one is the reference plugin's own",
    )


def already_attached(ifname: str) -> AlreadyAttachedError:
    """Return the error of an ADD whose interface the container has."""
    return AlreadyAttachedError(
        f"interface {ifname!r} already exists in the container",
        "DEL the attachment that made it, or use another interface name",
    )
