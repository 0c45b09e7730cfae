"""The seam where a failing program becomes a CNI error."""

from __future__ import annotations

from cni_plugins.kernel.programs import ProgramFailed
from cni_plugins.spec.errors import ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class ProgramErrors:
    """A context manager: what a program in its body says becomes the plugin's error.

    Raises:
        ProgramError: the program failed, or is not installed.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ProgramFailed):
            raise ProgramError(str(error.strerror)) from None
        if isinstance(error, FileNotFoundError):
            raise ProgramError(
                str(error.strerror), "install it, or leave the backend to the default, nftables"
            ) from None
