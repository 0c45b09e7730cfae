"""What each version of the CNI specification says of verbs and results, each row with its own words for it.

The quotes are from SPEC.md of containernetworking/cni, of each version's own; what 0.3.0 says is told by the
list of versions in 0.4.0.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """The keys that the objects of a result have; those with a question mark can be missing."""

    result: str
    interface: str
    address: str
    route: str


class Spec(NamedTuple):
    """A version: its verbs and its results, and where it says so."""

    verbs: str
    verbs_said: tuple[str, str]
    shape: Shape
    shape_said: tuple[str, str]


_FLAT = Shape("cniVersion ip4? ip6? dns?", "", "ip gateway? routes?", "dst gw?")
_RICH = Shape(
    "cniVersion interfaces? ips? routes? dns?",
    "name mac? sandbox?",
    "version address gateway? interface?",
    "dst gw?",
)
_NO_FAMILY = _RICH._replace(address="address gateway? interface?")
_MORE_KEYS = _NO_FAMILY._replace(
    interface="name mac? mtu? sandbox? socketPath? pciID?",
    route="dst gw? mtu? advmss? priority? table? scope?",
)

SPECS = {
    "0.1.0": Spec(
        "ADD DEL",
        ("Parameters", "`CNI_COMMAND`: indicates the desired operation; either `ADD` or `DEL`"),
        _FLAT,
        ("Parameters", "This is either an IPv4 address, an IPv6 address, or both."),
    ),
    "0.2.0": Spec(
        "ADD DEL VERSION",
        ("Parameters", "`CNI_COMMAND`: indicates the desired operation; `ADD`, `DEL` or `VERSION`"),
        _FLAT,
        ("Parameters", "This is either an IPv4 address, an IPv6 address, or both."),
    ),
    "0.3.0": Spec(
        "ADD DEL VERSION",
        ("Released versions, in 0.4.0: the major changes of 0.3.1", "none (typo fix only)"),
        _RICH,
        ("Released versions, in 0.4.0: the major changes of 0.3.0", "rich result type, plugin chaining"),
    ),
    "0.3.1": Spec(
        "ADD DEL VERSION",
        ("Parameters", "`CNI_COMMAND`: indicates the desired operation; `ADD`, `DEL` or `VERSION`"),
        _RICH,
        ("Result", "`interfaces` describes specific network interfaces the plugin created."),
    ),
    "0.4.0": Spec(
        "ADD DEL VERSION CHECK",
        (
            "Parameters",
            "`CNI_COMMAND`: indicates the desired operation; `ADD`, `DEL`, `CHECK`, or `VERSION`.",
        ),
        _RICH,
        ("Result", '"version": "<4-or-6>"'),
    ),
    "1.0.0": Spec(
        "ADD DEL VERSION CHECK",
        ("Section 2", "CNI defines 4 operations: `ADD`, `DEL`, `CHECK`, and `VERSION`."),
        _NO_FAMILY,
        ("Section 5, Success", "`address` (string): an IP address in CIDR notation"),
    ),
    "1.1.0": Spec(
        "ADD DEL VERSION CHECK STATUS GC",
        ("Section 2, headings", "`STATUS`: Check plugin status; `GC`: Clean up any stale resources"),
        _MORE_KEYS,
        ("Section 5, ADD Success", "`mtu`: (uint) The MTU of the interface (if applicable)."),
    ),
}
VERSIONS = tuple(SPECS)
SHAPES = ("0.2.0", "0.4.0", "1.0.0", "1.1.0")
"""A version for each shape that results have had."""
FLAT = tuple(version for version, spec in SPECS.items() if spec.shape is _FLAT)
"""Versions whose results have no interfaces."""
INCOMPATIBLE = 1
"""0.1.0, Well-known Error Codes: "Incompatible CNI version"."""


def has_verb(version: str, verb: str) -> bool:
    """Tell whether a version has a verb."""
    return verb in SPECS[version].verbs.split()


def faults(result: Any, version: str, sandbox: str | None) -> list[str]:
    """Return in what a result differs from what its version describes.

    Args:
        result: the result of an ADD.
        version: the configuration's.
        sandbox: the namespace of the interface that was made: 1.0.0, section 5, "For interfaces created
            inside the container, this should be the value passed via `CNI_NETNS`." Empty for an IPAM plugin:
            "Delegated IPAM plugins must return an abbreviated _Success_ object." None: not looked at.
    """
    shape = SPECS[version].shape
    found = _keys("the result", result, shape.result)
    if result["cniVersion"] != version:
        found.append(f"it is in {result['cniVersion']}")
    routes = list(result.get("routes", ()))
    interfaces = result.get("interfaces", [])
    for each in interfaces:
        found += _keys("an interface", each, shape.interface)
    for family, each in _addresses(result):
        found += _keys("an address", each, shape.address)
        if family not in ("", "6" if ":" in _cidr(each) else "4"):
            found.append(f"{_cidr(each)} is none of IPv{family}")
        routes += each.get("routes", ())
    for each in routes:
        found += _keys("a route", each, shape.route)
    if sandbox is not None and version not in FLAT:
        made = [index for index, each in enumerate(interfaces) if each.get("sandbox") == sandbox]
        if bool(sandbox) != bool(interfaces) or bool(sandbox) != bool(made):
            found.append(f"its interfaces are {interfaces}")
        owners: list[int | None] = [*made] if sandbox else [None]
        if any(each.get("interface") not in owners for each in result.get("ips", ())):
            found.append(f"its addresses are of other interfaces than {owners}")
    return found


def cidrs(result: Any) -> list[str]:
    """Return a result's addresses, with their lengths, whatever its version."""
    return [_cidr(each) for _family, each in _addresses(result)]


def _addresses(result: Any) -> list[tuple[str, Any]]:
    """Return the objects with addresses, each with the family that the result says it is of, if any."""
    flat = [(family, result[f"ip{family}"]) for family in "46" if f"ip{family}" in result]
    return flat + [(each.get("version", ""), each) for each in result.get("ips", ())]


def _cidr(given: Any) -> str:
    return str(given["ip"] if "ip" in given else given.get("address"))


def _keys(where: str, given: Any, words: str) -> list[str]:
    known = {word.rstrip("?"): word.endswith("?") for word in words.split()}
    more = [f"{where} has {key}" for key in given if key not in known]
    return more + [
        f"{where} lacks {key}" for key, optional in known.items() if not optional and key not in given
    ]
