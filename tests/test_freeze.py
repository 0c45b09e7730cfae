"""What the build puts into the plugins' executable."""

from __future__ import annotations

import ast
import marshal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scripts import load

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def freeze() -> ModuleType:
    return load("build/freeze.py")


def test_a_constant_that_would_load_the_codecs_is_refused(freeze: ModuleType) -> None:
    nested = "def f(char):\n    return lambda: char < '\\ud800'\n"
    with pytest.raises(SystemExit, match=r"some\.module holds '.ud800'"):
        freeze.compiled("some.module", ast.parse(nested), "module.py")
    assert marshal.loads(freeze.compiled("some.module", ast.parse("x = 'é'"), "module.py"))


def test_every_module_of_the_executable_can_be_frozen(freeze: ModuleType) -> None:
    modules = {**freeze.theirs(), **freeze.ours(["cni_plugins.multicall"])}
    assert "cni_plugins.plugins.bridge" in modules
    for name, (path, tree) in modules.items():
        assert freeze.compiled(name, tree, path.name)


def test_the_modules_in_c_are_those_that_are_imported(freeze: ModuleType) -> None:
    found = freeze.builtin(freeze.ours([freeze.MAIN]))
    assert {"posix", "_socket", "_json", "time"} <= {*found}, "statements and Lazy() are read"
    assert not {"pyexpat", "zlib", "_io", "gc"} & {*found}
    text = freeze.inittab(["_warnings", "builtins", "posix"])
    assert '{"_warnings", _PyWarnings_Init},' in text
    assert '{"builtins", NULL},' in text
    assert "PyObject *PyInit_posix(void);" in text
    assert "PyInit_builtins" not in text


def test_an_import_that_the_executable_cannot_have_is_refused(freeze: ModuleType) -> None:
    trees = {"ours": (Path("ours.py"), ast.parse("def f():\n    import _ctypes\n"))}
    with pytest.raises(SystemExit, match="ours imports _ctypes"):
        freeze.builtin(trees)
