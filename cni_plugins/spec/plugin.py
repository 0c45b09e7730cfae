"""The record that every plugin's module ends with."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result


class Plugin:
    """A plugin: its name, its configuration model and what it does for each verb.

    Args:
        name: the executable's name.
        model: the name of its configuration's model in cni_plugins.config.
        add: makes the attachment and returns its result, or undoes everything and raises.
        delete: removes it; goes on after errors; what is gone already is no error.
        check: raises when the kernel differs from `request.prev_result`.
        status: raises when an ADD could not be served.
        gc: removes what belongs to attachments that are not in `request.valid_attachments()`.
    """

    __slots__ = ("add", "check", "delete", "gc", "model", "name", "status")

    def __init__(
        self,
        name: str,
        model: str,
        *,
        add: Callable[[Request], Result],
        delete: Callable[[Request], None],
        check: Callable[[Request], None],
        status: Callable[[Request], None],
        gc: Callable[[Request], None],
    ) -> None:
        self.name = name
        self.model = model
        self.add = add
        self.delete = delete
        self.check = check
        self.status = status
        self.gc = gc
