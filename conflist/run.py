"""Running a network list the way libcni does (CNI 1.1.0, section 3).

    runner = Runner(["/opt/cni/bin"], Cache())
    result = runner.add(load_network("/etc/cni/net.d", "pods"), Attachment("c1", netns="/run/netns/c1"))

A runner keeps no state of its own: it can be used by several threads, for different containers.
"""

from __future__ import annotations

import contextlib
import sys

from cni_plugins import orphans
from cni_plugins.spec.codec import MAX_BYTES, decode
from cni_plugins.spec.errors import (
    CNIError,
    IncompatibleVersionError,
    InvalidConfigError,
    TeardownError,
    UnknownContainerError,
)
from cni_plugins.spec.request import ATTACHMENTS_KEY
from cni_plugins.spec.result import VERSIONS, Result
from conflist.cache import check_names
from conflist.invoke import Invoker, PluginError
from conflist.load import parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from conflist.cache import Attachment, Cache
    from conflist.load import NetworkList


class CollectedError(TeardownError):
    """GC went through all its steps; `errors` has those that failed."""

    def __init__(self, errors: Sequence[CNIError | OSError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.errors = list(errors)


class Runner:
    """Calls the plugins of network lists.

    Args:
        path: folders in which plugins are looked for, in order: CNI_PATH.
        cache: where attachments are kept between ADD and DEL; None: nowhere, and CHECK cannot work.
        env: the environment plugins get besides the variables of the specification; None: this process's.
        timeout: seconds that one plugin may take; None: no limit.
        limit: bytes that one plugin may print.
        forward_stderr: let what plugins print on standard error appear on ours.
    """

    def __init__(
        self,
        path: Sequence[str],
        cache: Cache | None = None,
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int = MAX_BYTES,
        forward_stderr: bool = False,
    ) -> None:
        self.cache = cache
        self.plugins = Invoker(path, env=env, timeout=timeout, limit=limit, forward_stderr=forward_stderr)

    def add(self, network: NetworkList, attachment: Attachment) -> dict[str, Any]:
        """Run ADD through the list, each plugin with the result before it; cache and return the last result.

        When it fails, what the plugins before the failed one made is still there: run `delete`.

        Raises:
            PluginError: a plugin failed; those after it have not been called.
            CNIError: the names are invalid.
            OSError: the result could not be cached.
        """
        check_names(network.name, attachment.container_id, attachment.ifname)
        with self._turn(network, attachment):
            result: dict[str, Any] | None = None
            for index, plugin in enumerate(network.plugins):
                config = request_config(network, plugin, result, attachment.capabilities)
                with _Position(index, len(network.plugins)):
                    output = self.plugins.call("ADD", config, attachment)
                    result = self._result(network, plugin["type"], output)
            if result is None:
                raise InvalidConfigError(f"the network {network.name} has no plugins")
            attachment.network, attachment.config, attachment.result = network.name, network.data, result
            if self.cache is not None:
                self.cache.write(attachment)
            return result

    def check(self, network: NetworkList, attachment: Attachment) -> None:
        """Run CHECK through the list with the cached result.

        Raises:
            IncompatibleVersionError: the list is of a version before 0.4.0.
            UnknownContainerError: nothing is cached of the attachment.
            PluginError: a plugin found a difference.
        """
        if not at_least(network.version, "0.4.0"):
            raise IncompatibleVersionError(
                f"the network {network.name} has version {network.version}; CHECK came with 0.4.0"
            )
        if network.disable_check:
            return
        check_names(network.name, attachment.container_id, attachment.ifname)
        result = self.cached_result(network, attachment)
        if result is None:
            raise UnknownContainerError(
                f"no result is cached of {attachment.container_id} {attachment.ifname} on {network.name}",
                "CHECK compares with the result of an ADD; run that first, with the same names",
            )
        for index, plugin in enumerate(network.plugins):
            config = request_config(network, plugin, result, attachment.capabilities)
            with _Position(index, len(network.plugins)):
                self.plugins.call("CHECK", config, attachment)

    def delete(self, network: NetworkList, attachment: Attachment) -> None:
        """Run DEL backwards through the list, with the cached result from 0.4.0 on; forget the attachment.

        Raises:
            PluginError: a plugin failed; those before it in the list have not been called, and the attachment
                stays in the cache.
        """
        self._delete(network, attachment, gate=True)

    def _delete(self, network: NetworkList, attachment: Attachment, *, gate: bool) -> None:
        check_names(network.name, attachment.container_id, attachment.ifname)
        with self._turn_to_delete(network, attachment, gate=gate):
            result = None
            if at_least(network.version, "0.4.0"):
                try:
                    result = self.cached_result(network, attachment)
                except CNIError:
                    result = None  # a damaged file must not keep a container from being removed
            for index in reversed(range(len(network.plugins))):
                config = request_config(network, network.plugins[index], result, attachment.capabilities)
                with _Position(index, len(network.plugins)):
                    self.plugins.call("DEL", config, attachment)
            if self.cache is not None:
                self.cache.remove(network.name, attachment.container_id, attachment.ifname)

    def gc(self, network: NetworkList, valid: Iterable[tuple[str, str]]) -> None:
        """Remove what belongs to attachments that are not valid: DEL those cached, then GC from 1.1.0 on.

        It waits for every ADD and DEL of the network that runs, in whatever process, and keeps those waiting
        that come (section 3, "Lifecycle & Ordering"). What was attached during that wait stays.

        Args:
            network: the network; under disableGC nothing happens.
            valid: (container id, interface name) of attachments to keep. They are asked for when no ADD or
                DEL runs any more: an iterator can tell what is valid at that moment.

        Raises:
            CollectedError: some steps failed; all were tried.
            OSError: the cache's folder cannot be made, or its lock not be taken.
        """
        if network.disable_gc:
            return
        errors: list[CNIError | OSError] = []
        with self._alone(network) as came:
            keep = {*valid, *came}
            for attachment in self._cached(network):
                if (attachment.container_id, attachment.ifname) in keep:
                    continue
                try:
                    self._delete(network, attachment, gate=False)
                except (CNIError, OSError) as error:
                    errors.append(error)
            if at_least(network.version, "1.1.0"):
                listed = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(keep)]
                for index, plugin in enumerate(network.plugins):
                    config = request_config(network, plugin)
                    config[ATTACHMENTS_KEY] = listed
                    try:
                        with _Position(index, len(network.plugins)):
                            self.plugins.call("GC", config)
                    except CNIError as error:
                        errors.append(error)
        if errors:
            raise CollectedError(errors)

    def _cached(self, network: NetworkList) -> list[Attachment]:
        known = self.cache.attachments() if self.cache is not None else []
        return [each for each in known if each.network == network.name]

    @contextlib.contextmanager
    def _alone(self, network: NetworkList) -> Iterator[set[tuple[str, str]]]:
        """Keep ADD and DEL of a network out; yield what was attached while they were waited for."""
        if self.cache is None:
            yield set()
            return

        def known(cache: Cache) -> set[tuple[str, str, object]]:
            return {(each.container_id, each.ifname, cache.identity(each)) for each in self._cached(network)}

        self.cache.make_folder()
        before = known(self.cache)
        with orphans.Gate(self.cache.lock_path(), _group(network), _say) as gate:
            gate.settle()
            yield {(container_id, ifname) for container_id, ifname, _ in known(self.cache) - before}

    def status(self, network: NetworkList) -> None:
        """Run STATUS through the list; before 1.1.0 there is no such verb, and nothing happens.

        Raises:
            PluginError: a plugin is not ready for ADD; its code says how bad that is (50, 51).
        """
        if not at_least(network.version, "1.1.0"):
            return
        for index, plugin in enumerate(network.plugins):
            with _Position(index, len(network.plugins)):
                self.plugins.call("STATUS", request_config(network, plugin))

    def validate(self, network: NetworkList) -> set[str]:
        """Make sure that every plugin of the list exists and speaks its version; return its capabilities.

        Raises:
            CollectedError: with everything that was found.
        """
        errors: list[CNIError] = []
        for kind in dict.fromkeys(plugin["type"] for plugin in network.plugins):
            try:
                supported = self.plugins.versions(kind)
            except PluginError as error:
                errors.append(error)
                continue
            if network.version not in supported:
                errors.append(
                    IncompatibleVersionError(
                        f"plugin {kind} does not speak version {network.version} of the network "
                        f"{network.name}; it speaks {', '.join(supported)}"
                    )
                )
        if errors:
            raise CollectedError(errors)
        return {name for plugin in network.plugins for name in _declared(plugin)}

    def cached_result(self, network: NetworkList, attachment: Attachment) -> dict[str, Any] | None:
        """Return the final result of an attachment's ADD in the list's version; None if none is cached.

        Raises:
            CNIError: the cached file is damaged, or the version cannot say the result.
        """
        if self.cache is None:
            return None
        cached = self.cache.read(network.name, attachment.container_id, attachment.ifname)
        if cached is None or cached.result is None:
            return None
        body = cached.result
        result = Result.from_json(body, VERSIONS[0], "the cached result")
        same = (body.get("cniVersion") or VERSIONS[0]) == network.version
        return body if same else result.to_json(network.version)

    def _turn(
        self, network: NetworkList, attachment: Attachment, *, gate: bool = True
    ) -> contextlib.AbstractContextManager[object]:
        """Wait for a GC, and for a plugin that a killed runner has left at work on the attachment.

        Others are kept waiting. A plugin that runs on could finish its ADD after our DEL. Without a cache,
        nothing is known of it.

        Raises:
            OSError: the cache cannot be written.
        """
        if self.cache is None:
            return contextlib.nullcontext()
        self.cache.make_folder()
        member = (attachment.container_id, attachment.ifname)
        return orphans.Lock(self.cache.lock_path(), _group(network), member, _say, create=True, gate=gate)

    def _turn_to_delete(
        self, network: NetworkList, attachment: Attachment, *, gate: bool
    ) -> contextlib.AbstractContextManager[object]:
        """Do the same for a DEL, which must not depend on it."""
        try:
            return self._turn(network, attachment, gate=gate)
        except OSError as error:
            _say(f"plugins that still run are not waited for: {error.strerror}")
            return contextlib.nullcontext()

    def _result(self, network: NetworkList, plugin: str, output: bytes) -> dict[str, Any]:
        """Read the result of an ADD, which may leave out its version."""
        where = f"the result of {plugin}"
        try:
            body = decode(output, where)
            Result.from_json(body, network.version, where)
        except CNIError as error:
            raise PluginError(plugin, "ADD", error.msg, "it ended with status 0", error.code) from None
        return body if body.get("cniVersion") else {"cniVersion": network.version, **body}


def request_config(
    network: NetworkList,
    plugin: dict[str, Any],
    result: dict[str, Any] | None = None,
    capabilities: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make what a plugin gets on standard input (section 3, "Deriving request configuration").

    Args:
        network: gives name and version.
        plugin: its object in the list.
        result: becomes prevResult.
        capabilities: what the runtime offers; the plugin gets those that its object declares.
    """
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config["cniVersion"] = network.version
    config["name"] = network.name
    offered = capabilities or {}
    runtime = {name: offered[name] for name in _declared(plugin) if name in offered}
    if runtime:
        config["runtimeConfig"] = runtime
    if result is not None:
        config["prevResult"] = result
    return config


def at_least(version: str, wanted: str) -> bool:
    """Tell whether a list's version has what came with another.

    Raises:
        IncompatibleVersionError: the version is none.
    """
    try:
        return parse_version(version) >= parse_version(wanted)
    except ValueError as error:
        raise IncompatibleVersionError(
            f"cniVersion: {error}", f"supported are: {', '.join(VERSIONS)}"
        ) from None


class _Position:
    """Tell a PluginError that passes by which plugin of the list it is."""

    def __init__(self, index: int, total: int) -> None:
        self.position, self.total = index + 1, total

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, PluginError):
            error.position, error.total = self.position, self.total


def _group(network: NetworkList) -> tuple[str, str]:
    return "", network.name


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _declared(plugin: dict[str, Any]) -> list[str]:
    capabilities = plugin.get("capabilities")
    if not isinstance(capabilities, dict):
        return []
    return [name for name, wanted in capabilities.items() if wanted is True]
