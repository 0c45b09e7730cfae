"""What the plugin and the daemon say to each other: Go's net/rpc over HTTP's CONNECT, as the reference does.

    CONNECT /_goRPC_ HTTP/1.0                    HTTP/1.0 200 Connected to Go RPC
    Request{ServiceMethod, Seq}, CmdArgs{…}  →   ← Response{ServiceMethod, Seq, Error}, Result{…}

Everything after the first line of each side is gob. Either side can be the reference's.
"""

from __future__ import annotations

from cni_plugins.address import Prefix
from cni_plugins.kernel.unix import UnixStream
from cni_plugins.spec.result import DNS, IPConfig, Result, Route
from ipam.dhcp.gob import BYTES, INT, STRING, UINT, Decoder, List, PointedTo, Struct, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALLOCATE = "DHCP.Allocate"
RELEASE = "DHCP.Release"
GC = "DHCP.GC"
"""Ours alone: releases what is not among the valid attachments of CmdArgs' configuration.

Its answer is RELEASED, which no client of the reference's ever sees.
"""

HELLO = b"CONNECT /_goRPC_ HTTP/1.0\n\n"
WELCOME = b"HTTP/1.0 200 Connected to Go RPC\n\n"
_STATUS_LINE_END = b" 200 Connected to Go RPC"
_MAX_HEAD = 4096

REQUEST = Struct(65, "Request", (("ServiceMethod", STRING), ("Seq", UINT)))
RESPONSE = Struct(66, "Response", (("ServiceMethod", STRING), ("Seq", UINT), ("Error", STRING)))
CMD_ARGS = Struct(
    67,
    "CmdArgs",
    (
        ("ContainerID", STRING),
        ("Netns", STRING),
        ("IfName", STRING),
        ("Args", STRING),
        ("Path", STRING),
        ("StdinData", BYTES),
    ),
)
NOTHING = Struct(68, "InvalidRequest", ())
_IP_NET = Struct(69, "IPNet", (("IP", BYTES), ("Mask", BYTES)))
_IP_CONFIG = Struct(70, "IPConfig", (("Interface", INT), ("Address", _IP_NET), ("Gateway", BYTES)))
_ROUTE = Struct(
    71,
    "Route",
    (("Dst", _IP_NET), ("GW", BYTES), ("MTU", INT), ("AdvMSS", INT), ("Priority", INT), ("Scope", INT)),
)
_STRINGS = List(72, STRING)
_DNS = Struct(
    73,
    "DNS",
    (("Nameservers", _STRINGS), ("Domain", STRING), ("Search", _STRINGS), ("Options", _STRINGS)),
)
RESULT = Struct(74, "Result", (("IPs", List(75, _IP_CONFIG)), ("Routes", List(76, _ROUTE)), ("DNS", _DNS)))
_ATTACHMENT = Struct(77, "Attachment", (("ContainerID", STRING), ("IfName", STRING)))
RELEASED = Struct(78, "Released", (("Attachments", List(79, _ATTACHMENT)),))


class RemoteError(Exception):
    """The daemon's refusal: what it says, and on the next line, if it is ours, what to do about it."""


def call(path: str, method: str, args: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Call a method of the daemon and return its answer.

    Args:
        path: the daemon's socket.
        method: ALLOCATE, RELEASE or GC.
        args: the fields of CmdArgs.
        timeout: seconds to wait for each part of the answer; None: as long as it takes.

    Raises:
        RemoteError: the daemon refused.
        OSError: it does not answer.
        ValueError: it answers something else than net/rpc.
    """
    with UnixStream(path, timeout) as stream:
        stream.send(HELLO)
        decoder = Decoder()
        # Only then: what comes with the first line is lost on Go, which reads ahead.
        decoder.feed(_after_welcome(stream))
        known: set[int] = set()
        stream.send(encode(REQUEST, {"ServiceMethod": method}, known) + encode(CMD_ARGS, args, known))
        response, answer = _next(decoder, stream), _next(decoder, stream)
        if not isinstance(response, dict) or not isinstance(answer, dict):
            raise ValueError("the answer is not net/rpc's")  # noqa: TRY004 (of what came in)
        if response.get("Error"):
            raise RemoteError(str(response["Error"]))
        return answer


def knock(path: str, timeout: float) -> None:
    """Look whether a daemon answers.

    Raises:
        OSError: it does not.
        ValueError: it answers something else than net/rpc.
    """
    with UnixStream(path, timeout) as stream:
        stream.send(HELLO)
        _after_welcome(stream)


def _after_welcome(stream: UnixStream) -> bytes:
    """Wait for the head of the answer; return what came after it."""
    head = b""
    while True:
        head += stream.receive()
        for end in (b"\r\n\r\n", b"\n\n"):
            line, found, rest = head.partition(end)
            if found:
                if not line.partition(b"\n")[0].rstrip(b"\r").endswith(_STATUS_LINE_END):
                    raise ValueError(f"the answer is {line[:80]!r}, not net/rpc's")
                return rest
        if len(head) > _MAX_HEAD:
            raise ValueError("the answer is not net/rpc's")


def _next(decoder: Decoder, stream: UnixStream) -> Any:
    while (value := decoder.next()) is None:
        decoder.feed(stream.receive())
    return value


def to_wire(result: Result) -> dict[str, Any]:
    """Return the fields of RESULT."""
    return {
        "IPs": [{"Address": _net_to_wire(ip.address), "Gateway": ip.gateway} for ip in result.ips],
        "Routes": [
            {
                "Dst": _net_to_wire(route.dst),
                "GW": route.gw,
                "Priority": route.priority,
                "Scope": None if route.scope is None else PointedTo(route.scope),
            }
            for route in result.routes
        ],
        "DNS": {
            "Nameservers": result.dns.nameservers,
            "Domain": result.dns.domain,
            "Search": result.dns.search,
        },
    }


def from_wire(fields: dict[str, Any]) -> Result:
    """Return the result of an ALLOCATE.

    Raises:
        ValueError: it is none.
    """
    result = Result()
    try:
        for ip in fields.get("IPs", []):
            result.ips.append(IPConfig(_net_from_wire(ip["Address"]), _address(ip.get("Gateway", b""))))
        for given in fields.get("Routes", []):
            route = Route(_net_from_wire(given.get("Dst", {})), _address(given.get("GW", b"")))
            route.mtu, route.advmss = given.get("MTU", 0), given.get("AdvMSS", 0)
            route.priority = given.get("Priority", 0)
            route.table, route.scope = given.get("Table"), given.get("Scope")
            result.routes.append(route)
        dns = fields.get("DNS", {})
        result.dns = DNS(dns.get("Nameservers"), dns.get("Domain", ""), dns.get("Search"), dns.get("Options"))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("the daemon's result is none") from None
    return result


def released_to_wire(attachments: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of RELEASED: container ids and interface names."""
    return {"Attachments": [{"ContainerID": each, "IfName": ifname} for each, ifname in attachments]}


def released_from_wire(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the attachments whose leases a GC has released; a daemon of before names none.

    Raises:
        ValueError: it is no answer to GC.
    """
    try:
        return [(str(each["ContainerID"]), str(each["IfName"])) for each in fields.get("Attachments", [])]
    except (KeyError, TypeError):
        raise ValueError("what the daemon says that it released is no list of attachments") from None


def _net_to_wire(prefix: Prefix) -> dict[str, bytes]:
    host = prefix.bits - prefix.length
    mask = ((1 << prefix.bits) - 1) >> host << host
    return {"IP": prefix.address, "Mask": mask.to_bytes(len(prefix.address), "big")}


def _net_from_wire(net: dict[str, bytes]) -> Prefix:
    address, mask = _address(net["IP"]), net["Mask"]
    if address is None or len(mask) not in (4, 16):
        raise ValueError("the daemon's result has an address that is none")
    # Go gives an IPv4 address four bytes or sixteen, and its mask, too.
    length = int.from_bytes(mask[-len(address) :], "big").bit_count()
    return Prefix(address, length)


def _address(data: bytes) -> bytes | None:
    if not data:
        return None
    if len(data) == 16 and data[:12] == b"\0" * 10 + b"\xff\xff":
        return data[12:]
    if len(data) not in (4, 16):
        raise ValueError("the daemon's result has an address that is none")
    return data
