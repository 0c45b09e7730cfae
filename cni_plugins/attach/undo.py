"""Undoing an ADD that fails half-way: each step pushes what takes it back."""

from __future__ import annotations

from cni_plugins.kernel.netlink import LostAnswer
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError, TeardownError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Undo:
    """A context manager: when its body raises, the steps that were pushed run in reverse.

    An undo step that fails is reported on standard error. The DEL that follows a failed ADD tries again; what
    it needs to know is kept for it (`forget`).
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...], bool]] = []

    def push(self, step: Callable[..., object], *args: object) -> None:
        """Push what undoes the step that was just made."""
        self._steps.append((step, args, False))

    def forget(self, step: Callable[..., object], *args: object) -> None:
        """Push what removes a note: the note stays if a step that was pushed after it cannot be undone."""
        self._steps.append((step, args, True))

    def made(self, step: Callable[..., object], *args: object) -> Made:
        """Return a context manager whose body makes something that a step undoes.

        The step is pushed unless the body fails. It is also pushed when the kernel's answer is lost: the
        thing may be there.
        """
        return Made(self, step, args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            return
        failed = False
        for step, args, forgets in reversed(self._steps):
            if forgets and failed:
                continue
            try:
                step(*args)
            except (CNIError, OSError) as error:
                failed = True
                skel.warn(f"undoing a failed ADD: {skel.as_cni_error(error).msg}")


class Made:
    """See `Undo.made`."""

    __slots__ = ("_args", "_step", "_undo")

    def __init__(self, undo: Undo, step: Callable[..., object], args: tuple[object, ...]) -> None:
        self._undo = undo
        self._step = step
        self._args = args

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, LostAnswer):
            self._undo.push(self._step, *self._args)


class Teardown:
    """Collects the errors of a DEL or GC, which goes through all its steps.

    Usage: `teardown.step(function, args…)` for each, then `teardown.finish()`.
    """

    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: list[CNIError] = []

    def step(self, function: Callable[..., object], *args: object, **named: object) -> None:
        """Run a step; keep its error for the end."""
        try:
            function(*args, **named)
        except (CNIError, OSError) as error:
            self._errors.append(skel.as_cni_error(error))

    def finish(self) -> None:
        """Raise what was collected.

        Raises:
            CNIError: the one error, unchanged; of several, a TeardownError with all their messages.
        """
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise TeardownError("; ".join(error.msg for error in self._errors))
