"""flannel: a network whose subnet the flannel daemon leased for this node.

CNI 1.1.0, section 4. It reads the daemon's `subnet.env`, completes the delegate's configuration with it, and
lets the delegate (bridge, unless another is named) do the work. It owns `<dataDir>/<container id>`, the
configuration the delegate was given, so that DEL works when the daemon's file has changed or is gone.
"""

from __future__ import annotations

import posix

from cni_plugins.address import Prefix
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import files
from cni_plugins.lazy import Lazy
from cni_plugins.spec import delegate, skel
from cni_plugins.spec.codec import decode, encode
from cni_plugins.spec.errors import (
    CheckFailedError,
    CNIError,
    DecodeError,
    InvalidConfigError,
    NotAvailableError,
    TryAgainLaterError,
    name_too_long,
)
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.attach import ready
    from cni_plugins.config.flannel import FlannelConf
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result

    _Given = tuple[dict[str, Any], list[str]]
    """A configuration as GC passes it on, and the notes of it whose containers are gone."""
else:
    ready = Lazy("cni_plugins.attach.ready")


def add(request: Request) -> Result:
    """Note the delegate's configuration, then call its ADD, which undoes itself when it fails."""
    note = _note_path(request)
    if not files.name_fits(note):
        raise name_too_long(request.container_id, "the file of the delegate's configuration")
    config = _delegate_config(request, SubnetEnv.load(request.conf.subnet_file))
    files.make_directory(request.conf.data_dir, 0o700)
    # A container that is attached already has a note, which its DEL will need whatever happens here.
    before = files.read(note)
    with Undo() as undo:
        if before is None:
            undo.push(files.remove, note)
        else:
            undo.push(files.write_atomic, note, before)
        files.write_atomic(note, encode(config))
        return delegate.add(request, config["type"], config)


def delete(request: Request) -> None:
    """Call the delegate's DEL with what it was given; without a note of that, with what it would be now.

    Usually there was no ADD then. But a DEL that ran at the same time, or that of another network of the
    container, may have removed the note.
    """
    note = _note_path(request)
    try:
        config = _read_note(note)
    except DecodeError as error:
        # A killed writer of the reference's can leave half a file: what it would have said is known.
        skel.warn(f"flannel: {error.msg}; going by {request.conf.subnet_file}")
        config = _delegate_config(request, SubnetEnv.load(request.conf.subnet_file))
    if config is None:
        try:
            config = _delegate_config(request, SubnetEnv.load(request.conf.subnet_file))
        except CNIError:
            return  # no ADD could have worked
    delegate.call(request, config["type"], _with_previous(request, config))
    files.remove(note)


def check(request: Request) -> None:
    """Let the delegate check what it set."""
    config = _read_note(_note_path(request))
    if config is None:
        raise CheckFailedError(
            f"{_note_path(request)} is missing: the delegate's configuration is not known",
            "DEL the container and ADD it again",
        )
    delegate.call(request, config["type"], _with_previous(request, config))


def status(request: Request) -> None:
    """Look for the daemon's file and a place for notes, and ask the delegate."""
    try:
        env = SubnetEnv.load(request.conf.subnet_file)
    except TryAgainLaterError as error:
        raise NotAvailableError(error.msg, error.details) from None
    config = _delegate_config(request, env)
    ready.folder(request.conf.data_dir, "configurations of delegates")
    delegate.call(request, config["type"], config)


def gc(request: Request) -> None:
    """Let the delegate clean up by each configuration it was given; forget those of containers that are gone.

    Containers of one network can have been given different ones: the daemon's file and the administrator's
    change. A note stays until GC by it succeeded: nothing else tells where to look for what its ADD made.
    """
    valid = {container for container, _ifname in request.valid_attachments()}
    teardown = Teardown()
    given: list[_Given] = []
    for name in _noted_containers(request):
        path = f"{request.conf.data_dir}/{name}"
        try:
            noted = _read_note(path)
        except (CNIError, OSError) as error:  # whose network it is cannot be told: that is left to its DEL
            skel.warn(f"flannel: {skel.as_cni_error(error).msg}")
            continue
        if noted is None or noted.get("name") != request.network:
            continue
        stale = _stale_of(request, given, noted)
        if name not in valid:
            stale.append(path)
    teardown.step(_add_current, request, given)
    for config, stale in given:
        teardown.step(_collect, request, config, stale)
    teardown.finish()


class SubnetEnv:
    """What the daemon's file says.

    Attributes:
        networks: the cluster's networks, IPv4 first, each once.
        subnets: this node's subnets, IPv4 first.
        mtu: for the pods' interfaces, in bytes.
        masquerade: whether the daemon itself masquerades.
    """

    __slots__ = ("masquerade", "mtu", "networks", "subnets")

    def __init__(self, text: str) -> None:
        values = {}
        for line in text.splitlines():
            key, equals, value = line.strip().partition("=")
            if equals:
                values[key] = value
        self.networks: list[Prefix] = []
        self.subnets: list[Prefix] = []
        missing = []
        for family in ("", "IPV6_"):
            network, subnet = values.get(f"FLANNEL_{family}NETWORK"), values.get(f"FLANNEL_{family}SUBNET")
            for item in network.split(",") if network else ():
                prefix = Prefix.parse(item.strip()).network()
                if prefix not in self.networks:
                    self.networks.append(prefix)
            if subnet:
                self.subnets.append(Prefix.parse(subnet).network())
            if bool(network) != bool(subnet):
                missing.append(f"FLANNEL_{family}{'SUBNET' if network else 'NETWORK'}")
        if not self.networks and not self.subnets:
            missing += ["FLANNEL_NETWORK", "FLANNEL_SUBNET"]
        missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if not values.get(key)]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        self.mtu = int(values["FLANNEL_MTU"])
        self.masquerade = values["FLANNEL_IPMASQ"] == "true"

    @classmethod
    def load(cls, path: str) -> SubnetEnv:
        """Read the file.

        Raises:
            TryAgainLaterError: it is missing or not complete: the daemon has not finished yet.
        """
        data = files.read(path, follow=True)
        problem = "there is no such file"
        if data is not None:
            try:
                return cls(data.decode())
            except ValueError as error:
                problem = str(error)
        raise TryAgainLaterError(
            f"cannot use the flannel subnet file {path}: {problem}",
            "the flannel daemon writes it once it has a lease; see whether flanneld (kube-flannel) runs on "
            "this node, and whether subnetFile names the file it writes",
        )


def _delegate_config(request: Request, env: SubnetEnv) -> dict[str, Any]:
    """Complete the delegate's configuration; what the administrator wrote overrides the defaults."""
    conf: FlannelConf = request.conf
    config = dict(conf.delegate)
    if "type" in config and (not isinstance(config["type"], str) or not config["type"]):
        raise InvalidConfigError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in config:
            raise InvalidConfigError(
                f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel",
                "write the keys of IPAM into 'ipam' beside 'delegate'" if key == "ipam" else "remove it",
            )
    if conf.runtime_config:
        config["runtimeConfig"] = conf.runtime_config
    config["name"] = request.network
    config["cniVersion"] = request.version
    config.setdefault("type", "bridge")
    config.setdefault("ipMasq", not env.masquerade)
    config.setdefault("mtu", env.mtu)
    if config["type"] == "bridge":
        config.setdefault("isGateway", True)
    routes = conf.ipam.get("routes", [])
    if not isinstance(routes, list):
        raise InvalidConfigError("ipam.routes must be a list")
    config["ipam"] = {
        "type": "host-local",
        **conf.ipam,
        "ranges": [[{"subnet": str(subnet)}] for subnet in env.subnets],
        "routes": routes + [{"dst": str(network)} for network in env.networks],
    }
    return config


def _note_path(request: Request) -> str:
    return f"{request.conf.data_dir}/{request.container_id}"


def _read_note(path: str) -> dict[str, Any] | None:
    data = files.read(path)
    if data is None:
        return None
    config = decode(data, path)
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        raise DecodeError(f"{path} is no delegate's configuration")
    return config


def _with_previous(request: Request, config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration in the request's version, with its prevResult, which the note cannot have."""
    config = {**config, "cniVersion": request.version}
    if "prevResult" in request.raw:
        config["prevResult"] = request.raw["prevResult"]
    return config


def _stale_of(request: Request, given: list[_Given], config: dict[str, Any]) -> list[str]:
    """Return the notes listed beside a configuration; add one that is not there yet.

    What differs from container to container is left out: GC is about them all.
    """
    config = {**config, "cniVersion": request.version}
    config.pop("runtimeConfig", None)
    for known, stale in given:
        if known == config:
            return stale
    given.append((config, []))
    return given[-1][1]


def _add_current(request: Request, given: list[_Given]) -> None:
    """Add the configuration that an ADD would use now: what one has made may have lost its note."""
    try:
        env = SubnetEnv.load(request.conf.subnet_file)
    except TryAgainLaterError:
        return  # no daemon: whatever was given is in the notes
    _stale_of(request, given, _delegate_config(request, env))


def _collect(request: Request, config: dict[str, Any], stale: list[str]) -> None:
    """Call the delegate's GC by a configuration, then forget the notes of it."""
    attachments = {key: value for key, value in request.raw.items() if key.startswith("cni.dev/")}
    try:
        delegate.call(request, config["type"], {**config, **attachments})
    except (CNIError, OSError) as error:
        failure = skel.as_cni_error(error)
        if not stale:
            raise failure from None
        raise CNIError(
            f"{failure.msg}; kept for the next GC: {', '.join(stale)}",
            "; ".join(filter(None, (failure.details, "remove what is kept if it can never succeed"))),
            code=failure.code,
        ) from None
    forgetting = Teardown()
    for path in stale:
        forgetting.step(_forget, path)
    forgetting.finish()


def _forget(path: str) -> None:
    files.remove(path)
    name = path.rpartition("/")[2]
    skel.warn(f"flannel: forgot the delegate's configuration of container {name}, which is gone")


def _noted_containers(request: Request) -> list[str]:
    try:
        names = sorted(posix.listdir(request.conf.data_dir))
    except FileNotFoundError:
        return []
    return [name for name in names if not name.startswith(".")]  # what is being written has a dot first


PLUGIN = Plugin("flannel", "FlannelConf", add=add, delete=delete, check=check, status=status, gc=gc)
