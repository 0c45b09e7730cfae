from __future__ import annotations

import pytest

from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.spec.errors import CNIError, InvalidConfigError, KernelError, TeardownError


def fail(error: Exception) -> None:
    raise error


def test_what_was_done_is_undone_in_reverse() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Undo() as undo:  # noqa: PT012
        undo.push(done.append, "first")
        undo.push(done.append, "second")
        raise KeyError
    assert done == ["second", "first"]


def test_nothing_is_undone_after_success() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.push(done.append, "first")
    assert done == []


@pytest.mark.parametrize(
    ("failure", "says"),
    [(OSError(16, "Device or resource busy"), "Device or resource busy"), (CNIError("later"), "later")],
)
def test_a_step_that_fails_does_not_hold_up_the_others(
    failure: Exception, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    with pytest.raises(InvalidConfigError, match=r"^the reason$"), Undo() as undo:  # noqa: PT012
        undo.push(done.append, "first")
        undo.push(fail, failure)
        undo.push(done.append, "third")
        raise InvalidConfigError("the reason")
    assert done == ["third", "first"]
    assert capfd.readouterr().err == f"undoing a failed ADD: {says}\n"


def test_what_a_del_needs_is_kept_when_undoing_fails(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    with pytest.raises(InvalidConfigError, match=r"^the reason$"), Undo() as undo:  # noqa: PT012
        undo.push(done.append, "first")
        undo.forget(done.append, "the note of what failed")
        undo.push(fail, OSError(16, "busy"))
        undo.forget(done.append, "another note")
        undo.push(done.append, "last")
        raise InvalidConfigError("the reason")
    assert done == ["last", "another note", "first"]
    assert capfd.readouterr().err == "undoing a failed ADD: busy\n"


def test_teardown_goes_through_all_steps() -> None:
    done: list[str] = []
    teardown = Teardown()
    teardown.step(done.append, "first")
    teardown.step(fail, OSError(16, "busy"))
    teardown.step(done.append, "third")
    with pytest.raises(KernelError, match=r"^busy$"):
        teardown.finish()
    assert done == ["first", "third"]


def test_one_error_is_itself() -> None:
    teardown = Teardown()
    error = CNIError("own", "details", code=77)
    teardown.step(fail, error)
    with pytest.raises(CNIError) as caught:
        teardown.finish()
    assert caught.value is error


def test_several_errors_are_told_together() -> None:
    """Section 2, "GC": a plugin goes on after errors and reports them all."""
    teardown = Teardown()
    teardown.step(fail, CNIError("one"))
    teardown.step(fail, OSError(16, "two"))
    with pytest.raises(TeardownError, match=r"^one; two$") as caught:
        teardown.finish()
    assert caught.value.code == 104


def test_no_error() -> None:
    teardown = Teardown()
    teardown.step(list)
    teardown.finish()


def test_a_fault_of_our_own_is_not_collected() -> None:
    with pytest.raises(KeyError):
        Teardown().step(fail, KeyError("x"))
