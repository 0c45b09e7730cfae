"""tuning: kernel parameters of the container, properties of its interface (CNI 1.1.0; a chained plugin).

It owns what it changes. Properties of the interface are put back by DEL, which matters when the interface
outlives the container: those it had before are kept in <dataDir>/<containerID>_<ifname>.json, as the
reference keeps them, and a note in /run/cni says to GC whose that file is. Parameters go with the namespace.
Which parameters may be set can be limited by /etc/cni/tuning/allowlist.conf.
"""

from __future__ import annotations

from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import files, link, linkset, notes, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace, find_namespace
from cni_plugins.lazy import Lazy
from cni_plugins.rules import sysctls
from cni_plugins.spec import skel
from cni_plugins.spec.codec import decode, encode_pretty
from cni_plugins.spec.errors import (
    CheckFailedError,
    CNIError,
    InvalidConfigError,
    NotAvailableError,
    name_too_long,
)
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.schema import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.attach import configure, owner, ready, verify
    from cni_plugins.config.tuning import TuningConf
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    configure = Lazy("cni_plugins.attach.configure")
    owner = Lazy("cni_plugins.attach.owner")
    ready = Lazy("cni_plugins.attach.ready")
    verify = Lazy("cni_plugins.attach.verify")

_ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
_NOTES = "tuning-stashes"
_LONGEST_LIST = 1 << 16
"""Bytes of the allow-list: with as many, a call takes half a second."""


def add(request: Request) -> Result:
    """Set what is asked for; return the result before this plugin, with the interface's new MAC and MTU."""
    result = request.prev_result
    if result is None:
        raise InvalidConfigError(
            "required prevResult missing", "list tuning after the plugin that makes the interface"
        )
    parameters, wanted = _sysctls(request), _properties(request)
    with Namespace(request.netns) as netns, netns.entered(), Netlink() as inside, Undo() as undo:
        for key, value in parameters.items():
            old = sysctl.exchange(key, value)
            if old is not None:
                undo.push(sysctl.write, key, old)
        if wanted:
            _change(request, inside, wanted, undo)
    for interface in result.interfaces:
        if interface.name == request.ifname:
            interface.mac = wanted.get("mac", interface.mac)
            interface.mtu = wanted.get("mtu", interface.mtu)
    return result


def delete(request: Request) -> None:
    """Put the interface's properties back, if it is still there.

    No step is taken after one that fails: the next DEL needs what is kept, and GC the note that says where.
    """
    path = _stash(request)
    data = files.read(path)
    if data is not None:
        _restore(request, data)
        files.remove(path)
    notes.remove(_NOTES, _attachment(request))


def check(request: Request) -> None:
    """Compare what was asked for with the kernel."""
    verify.previous(request)
    parameters, wanted = _sysctls(request), _properties(request)
    with Namespace(request.netns) as netns, netns.entered(), Netlink() as inside:
        for key, value in parameters.items():
            _check_sysctl(key, value)
        found = link.find(inside, request.ifname)
        if found is None:
            raise CheckFailedError(f"interface {request.ifname!r} of the container is gone")
        for name, now in _current(found, wanted).items():
            if now != wanted[name]:
                raise CheckFailedError(
                    f"{name} of interface {request.ifname!r} is {_say(now)}, not {_say(wanted[name])}"
                )


def status(request: Request) -> None:
    """The allow-list must be made of regular expressions; what interfaces had before must have a place."""
    if _properties(request):
        ready.folder(request.conf.data_dir, "the properties that interfaces had before")
        ready.notes(_NOTES)
    advice = "sysctls cannot be checked before it is right"
    try:
        sysctls.check(_allowed() or [])
    except ValueError as error:
        raise NotAvailableError(f"{_ALLOWLIST}: {error}", advice) from None
    except OSError as error:
        raise NotAvailableError(f"cannot read {_ALLOWLIST}: {error.strerror}", advice) from None


def gc(request: Request) -> None:
    """Throw away what is kept for attachments that are gone, and was kept by this suite.

    A file of the reference does not say which network it belongs to.
    """
    valid = request.valid_attachments()
    teardown = Teardown()
    for attachment in notes.attachments(_NOTES):
        if attachment[0] == request.network and attachment[1:] not in valid:
            teardown.step(_forget, attachment)
    teardown.finish()


def _forget(attachment: tuple[str, str, str]) -> None:
    for path in notes.read(_NOTES, attachment) or []:
        # The folder was configured at ADD, the name never is: a damaged note must not cost another's file.
        if "\0" in path or not path.endswith(f"/{_file_name(*attachment[1:])}"):
            skel.warn(f"tuning: {path!r} is not where the properties of {' '.join(attachment)} are kept")
            continue
        files.remove(path)
        skel.removed(attachment[0], f"{path}, with the properties of an interface that is gone")
    notes.remove(_NOTES, attachment)


def _attachment(request: Request) -> tuple[str, str, str]:
    return request.network, request.container_id, request.ifname


def _stash(request: Request) -> str:
    conf: TuningConf = request.conf
    return f"{conf.data_dir}/{_file_name(request.container_id, request.ifname)}"


def _file_name(container_id: str, ifname: str) -> str:
    return f"{container_id}_{ifname}.json"


def _sysctls(request: Request) -> dict[str, str]:
    """Return the parameters by path, each held against the allow-list as it was written."""
    conf: TuningConf = request.conf
    args = conf.args.cni
    parameters = sysctls.by_path(conf.sysctl, "sysctl", request.ifname)
    parameters.update(sysctls.by_path(args.sysctl, "args.cni.sysctl", request.ifname))
    if parameters and (allowed := _allowed()) is not None:
        sysctls.permit([*conf.sysctl, *args.sysctl], allowed)
    return parameters


def _allowed() -> list[str] | None:
    """Return the allow-list; None without the file: then all is allowed."""
    data = files.read(_ALLOWLIST, _LONGEST_LIST, follow=True)
    return None if data is None else sysctls.expressions(data)


def _properties(request: Request) -> dict[str, Any]:
    """Return the properties that the interface shall have, by their keys; what is left alone is missing."""
    conf: TuningConf = request.conf
    args = conf.args.cni
    mac = conf.runtime_config.mac or request.cni_args().get("MAC", "") or conf.mac
    mac = mac if args.mac is None else args.mac
    mac = link.format_mac(configure.parse_mac(mac)) if mac else ""
    promisc = conf.promisc if args.promisc is None else args.promisc
    mtu = conf.mtu if args.mtu is None else args.mtu
    wanted = {
        "mac": mac or None,
        "promisc": promisc or None,
        "mtu": mtu or None,
        "allmulti": conf.allmulti if args.allmulti is None else args.allmulti,
        "txQLen": conf.tx_q_len if args.tx_q_len is None else args.tx_q_len,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _current(found: Link, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the same properties as the interface has them."""
    now = {
        "mac": found.mac,
        "promisc": found.promiscuous,
        "mtu": found.mtu,
        "allmulti": found.all_multicast,
        "txQLen": found.tx_queue_len,
    }
    return {name: now[name] for name in wanted}


def _change(request: Request, inside: Netlink, wanted: dict[str, Any], undo: Undo) -> None:
    """Change the interface, once what it was is on disk."""
    found = link.get(inside, request.ifname)
    before = _current(found, wanted)
    if before == wanted:
        # Nothing to put back. When this ADD repeats another, what that one kept must stay.
        return
    conf: TuningConf = request.conf
    path = _stash(request)
    if not files.name_fits(path):
        raise name_too_long(request.container_id, "the file that keeps what the interface was like")
    files.make_directory(conf.data_dir, 0o700)
    undo.forget(notes.remove, _NOTES, _attachment(request))
    undo.forget(files.remove, path)
    # GC must know whose file it is, whenever there is one.
    notes.write(_NOTES, _attachment(request), [path])
    # One space of indent, as the reference writes it: a flat object, and JSON has no line ends in strings.
    files.write_atomic(path, encode_pretty(before).replace(b"\n    ", b"\n "))
    undo.push(_set, inside, found.index, before)
    _set(inside, found.index, wanted)


def _set(inside: Netlink, index: int, properties: dict[str, Any]) -> None:
    linkset.configure(
        inside,
        index,
        mac=link.parse_mac(properties["mac"]) if properties.get("mac") else b"",
        mtu=properties.get("mtu", 0),
        promiscuous=properties.get("promisc"),
        all_multicast=properties.get("allmulti"),
        tx_queue_len=properties.get("txQLen"),
    )


def _restore(request: Request, data: bytes) -> None:
    """Put back each property by itself: one that the device refuses must not keep the others.

    A refusal is said and no more, as in the reference: it would be the same at the next DEL, and the
    container could never be removed.
    """
    if not request.netns:
        return
    try:
        stash = validate("TuningStash", decode(data, "the file of previous properties"))
    except CNIError as error:
        skel.warn(f"tuning: {error.msg}")
        return
    netns = find_namespace(request.netns)
    if netns is None:
        return  # the interface went with it
    named = {"mac": stash.mac, "promisc": stash.promisc, "mtu": stash.mtu}
    named.update(allmulti=stash.allmulti, txQLen=stash.tx_q_len)
    with netns, netns.netlink() as inside:
        found = link.find(inside, request.ifname)
        if found is None or owner.is_anothers(request, found):
            return
        for name, value in named.items():
            if value is None or (name in ("mac", "mtu") and not value):
                continue
            try:
                _set(inside, found.index, {name: value})
            except (OSError, ValueError) as error:
                skel.warn(f"tuning: cannot put {name} back to {value}: {error}")


def _check_sysctl(key: str, value: str) -> None:
    try:
        now = sysctl.read(key)
    except FileNotFoundError:
        raise CheckFailedError(f"sysctl {key} is gone") from None
    except OSError:
        return  # of the kind that only acts when written
    if now.split() != value.split():
        raise CheckFailedError(f"sysctl {key} is {now!r}, not {value!r}")


def _say(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


PLUGIN = Plugin("tuning", "TuningConf", add=add, delete=delete, check=check, status=status, gc=gc)
