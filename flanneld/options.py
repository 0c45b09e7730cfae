"""The command line and FLANNELD_* variables, as Go's flag package and flanneld v0.28 read them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PREFIX = "FLANNELD_"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_DAY = 24 * 60
"""Minutes that a lease in etcd lives."""
_VARIABLES = {
    "NODE_NAME": "our node's name, for Kubernetes",
    "POD_NAME, POD_NAMESPACE": "else our pod, which the apiserver tells the node of",
    "WIREGUARD_KEY_FILE": "the private key of wireguard, instead of /run/flannel/wgkey",
    "EVENT_QUEUE_DEPTH": "accepted for compatibility; no queue of events can overflow here",
    "CONT_WHEN_CACHE_NOT_READY": "accepted for compatibility; it always waits until it has all nodes",
}
_ANNOTATION_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")


class UsageError(ValueError):
    """The command line cannot be understood."""


class OptionError(ValueError):
    """The command line is understood, but asks for what cannot be."""


@dataclass(slots=True)
class Options:
    """Every flag; the help text of each says what it means."""

    etcd_endpoints: Annotated[str, "etcd's URLs, separated by commas"] = (
        "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )
    etcd_prefix: Annotated[str, "the folder of the network's keys in etcd"] = "/coreos.com/network"
    etcd_keyfile: Annotated[str, "our private key for etcd, PEM"] = ""
    etcd_certfile: Annotated[str, "our certificate for etcd, PEM"] = ""
    etcd_cafile: Annotated[str, "the authorities that sign etcd's certificate, PEM"] = ""
    etcd_username: Annotated[str, "our user in etcd"] = ""
    etcd_password: Annotated[str, "that user's password"] = ""
    iface: Annotated[list[str], "the uplink, by name or address; several are tried in order"] = field(
        default_factory=list
    )
    iface_regex: Annotated[
        list[str],
        "a regular expression that the uplink's address or name matches; tried in order, after -iface",
    ] = field(default_factory=list)
    iface_can_reach: Annotated[str, "an address: the uplink is what packets to it leave by"] = ""
    subnet_file: Annotated[str, "the file that tells the CNI plugin about this node"] = (
        "/run/flannel/subnet.env"
    )
    public_ip: Annotated[str, "the address that other nodes reach this one at, if not the uplink's"] = ""
    public_ipv6: Annotated[str, "the same for IPv6"] = ""
    subnet_lease_renew_margin: Annotated[int, "minutes before its end that a lease in etcd is renewed"] = 60
    ip_masq: Annotated[bool, "masquerade what leaves the cluster's network"] = False
    ip_masq_fully_random_disable: Annotated[bool, "masquerade without choosing ports at random"] = False
    kube_subnet_mgr: Annotated[bool, "keep leases in Kubernetes' nodes, not in etcd"] = False
    kube_api_url: Annotated[str, "the apiserver's URL; unnecessary in a pod"] = ""
    kube_annotation_prefix: Annotated[str, "what the annotations of nodes start with; one slash at most"] = (
        "flannel.alpha.coreos.com"
    )
    kubeconfig_file: Annotated[str, "a kubeconfig file; unnecessary in a pod"] = ""
    healthz_ip: Annotated[str, "where /healthz, /readyz and /metrics listen"] = "0.0.0.0"  # noqa: S104
    healthz_port: Annotated[int, "their port; 0: nowhere"] = 0
    iptables_resync: Annotated[int, "seconds between looks at the traffic rules"] = 5
    iptables_forward_rules: Annotated[bool, "accept forwarded packets from and to the cluster's network"] = (
        True
    )
    ip_blackhole_route: Annotated[bool, "drop packets to addresses of our subnet that no pod has"] = False
    net_config_path: Annotated[str, "the network's configuration, for Kubernetes"] = (
        "/etc/kube-flannel/net-conf.json"
    )
    set_node_network_unavailable: Annotated[
        bool, "clear the node's condition NetworkUnavailable when ready"
    ] = True
    version: Annotated[bool, "print the version and end"] = False
    v: Annotated[int, "verbosity; from 1 on, debug messages too"] = 0
    vmodule: Annotated[str, "accepted for compatibility; does nothing"] = ""
    log_backtrace_at: Annotated[str, "accepted for compatibility; does nothing"] = ""

    def annotation_prefix(self) -> str:
        """Return what stands before an annotation's own name.

        Raises:
            OptionError: Kubernetes would take no such annotation.
        """
        prefix = self.kube_annotation_prefix
        if prefix.count("/") > 1:
            raise OptionError("kube-annotation-prefix may have one slash at most")
        if "/" not in prefix:
            prefix += "/"
        if not prefix.endswith(("/", "-")):
            prefix += "-"
        if not _ANNOTATION_PREFIX.fullmatch(prefix):
            raise OptionError("kube-annotation-prefix must be a domain name, or one, a slash and a word")
        return prefix


_ATTRIBUTES = {item.name.replace("_", "-"): item.name for item in fields(Options)}


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read the command line, then the variables of flags that it does not set.

    Flags begin with one dash or two; a value follows after `=` or as the next word; a boolean's only after
    `=`. Words after `--`, or after the first that is no flag, are ignored, as Go's flanneld ignores them.

    Raises:
        UsageError: a flag is unknown, or its value cannot be read.
        OptionError: a value cannot be used, or not without another.
    """
    options = Options()
    seen = set()
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in ("-", "--") or not word.startswith("-"):
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        if name not in _ATTRIBUTES:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not equals and isinstance(getattr(options, _ATTRIBUTES[name]), bool):
            value = "true"
        elif not equals:
            if not words:
                raise UsageError(f"flag needs an argument: -{name}")
            value = words.pop(0)
        _set(options, name, value, f"flag -{name}")
        seen.add(name)
    for name in _ATTRIBUTES:
        variable = _PREFIX + name.upper().replace("-", "_")
        if name not in seen and environment.get(variable):
            _set(options, name, environment[variable], variable)
    if not 0 < options.subnet_lease_renew_margin < _DAY:
        raise OptionError(f"subnet-lease-renew-margin must be from 1 to {_DAY - 1} minutes")
    if bool(options.etcd_keyfile) != bool(options.etcd_certfile):  # gRPC would abort the process
        raise OptionError("etcd-keyfile and etcd-certfile need each other")
    return options


def usage() -> str:
    """Return the help text."""
    lines = ["Usage: flanneld [OPTION]...", "       flanneld install-cni|install-conf -h", ""]
    hints = get_type_hints(Options, include_extras=True)
    for name, attribute in sorted(_ATTRIBUTES.items()):
        default = getattr(Options(), attribute)
        shown = f" (default {default})" if default and default is not True else ""
        shown = " (default true)" if default is True else shown
        lines += [f"  -{name}", f"    \t{hints[attribute].__metadata__[0]}{shown}"]
    lines += ["", "Variables: each flag's, as FLANNELD_ETCD_PREFIX is -etcd-prefix's, and"]
    for names, meaning in _VARIABLES.items():
        lines += [f"  {names}", f"    \t{meaning}"]
    return "\n".join(lines)


def _set(options: Options, name: str, value: str, where: str) -> None:
    attribute = _ATTRIBUTES[name]
    before = getattr(options, attribute)
    if isinstance(before, list):
        before.append(value)
    elif isinstance(before, bool):
        if value not in _TRUE + _FALSE:
            raise UsageError(f'invalid boolean value "{value}" for {where}')
        setattr(options, attribute, value in _TRUE)
    elif isinstance(before, int):
        try:
            setattr(options, attribute, int(value))
        except ValueError:
            raise UsageError(f'invalid value "{value}" for {where}: it is no number') from None
    else:
        setattr(options, attribute, value)
