from __future__ import annotations

import re

import pytest

from cni_plugins.spec import errors
from cni_plugins.spec.errors import CNIError

DRAWN = re.compile(r"^ +(?:[├└]── )?(?P<name>\w*Error) +(?P<code>\d+)? ", re.MULTILINE)
CLASSES = {
    name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, CNIError)
}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [(match["name"], match["code"]) for match in DRAWN.finditer(errors.__doc__ or "")]
    assert drawn[0] == ("CNIError", None)
    assert drawn[1:] == [(name, str(cls.code)) for name, cls in CLASSES.items() if cls is not CNIError], (
        "the same classes with the same codes in the same order"
    )
    assert re.search(r"^ +999  a fault", errors.__doc__ or "", re.MULTILINE)
    assert CNIError.code == 999


def test_codes() -> None:
    """Section 5, "Error": codes below 100 are the specification's."""
    codes = [cls.code for cls in CLASSES.values()]
    assert len(codes) == len(set(codes))
    assert {code for code in codes if code < 100} == {1, 3, 4, 5, 6, 7, 8, 11, 50, 51}


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_error_objects(cls: type[CNIError]) -> None:
    assert cls("what failed").to_json("0.4.0") == {
        "cniVersion": "0.4.0",
        "code": cls.code,
        "msg": "what failed",
    }
    error = cls("what failed", "what to do", code=70)
    assert error.to_json("1.1.0") == {
        "cniVersion": "1.1.0",
        "code": 70,
        "msg": "what failed",
        "details": "what to do",
    }
    assert str(error) == "what failed"
    assert cls.code != 70
