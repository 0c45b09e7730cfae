"""Errors of the protocol: one tree, one table of codes.

    CNIError                         any failure that a runtime is told of: code, msg, details
    ├── IncompatibleVersionError  1  a cniVersion that we, or this verb, do not speak
    ├── UnsupportedFieldError     2  a key or value this plugin cannot serve
    ├── UnknownContainerError     3  nothing is known of the container; no clean-up is needed
    ├── InvalidEnvironmentError  4   CNI_* variables missing or invalid
    ├── IOFailureError            5  reading or writing failed
    ├── DecodeError               6  the input is not JSON
    ├── InvalidConfigError        7  JSON, but not a valid configuration
    ├── NamespaceError            8  CNI_NETNS is the namespace the plugin itself runs in
    ├── TryAgainLaterError       11  a passing condition; the runtime may retry
    ├── NotAvailableError        50  STATUS: the plugin cannot serve an ADD
    ├── LimitedConnectivityError 51  the same, and running containers may be limited
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
    """Code 1."""

    code = 1


class UnsupportedFieldError(CNIError):
    """Code 2: the message names the key and the value."""

    code = 2


class UnknownContainerError(CNIError):
    """Code 3."""

    code = 3


class InvalidEnvironmentError(CNIError):
    """Code 4: the message names the variables."""

    code = 4


class IOFailureError(CNIError):
    """Code 5."""

    code = 5


class DecodeError(CNIError):
    """Code 6."""

    code = 6


class InvalidConfigError(CNIError):
    """Code 7."""

    code = 7


class NamespaceError(CNIError):
    """Code 8."""

    code = 8


class TryAgainLaterError(CNIError):
    """Code 11."""

    code = 11


class NotAvailableError(CNIError):
    """Code 50, an answer to STATUS."""

    code = 50


class LimitedConnectivityError(CNIError):
    """Code 51, an answer to STATUS."""

    code = 51


class KernelError(CNIError):
    """Code 100: made by the skeleton from an OSError, with what was being done."""

    code = 100


class CheckFailedError(CNIError):
    """Code 101: the message says what was expected and what was found."""

    code = 101


class NoAddressError(CNIError):
    """Code 102."""

    code = 102


class DelegateError(CNIError):
    """Code 103."""

    code = 103


class TeardownError(CNIError):
    """Code 104: the message joins those of the steps that failed."""

    code = 104


class ConflictError(CNIError):
    """Code 105."""

    code = 105


class ProgramError(CNIError):
    """Code 106: the message holds the program's own stderr."""

    code = 106


class AlreadyAttachedError(CNIError):
    """Code 107: a caller must not answer a delegate's with a DEL, which would end the attachment."""

    code = 107
