"""Write the modules of an executable as C tables: marshalled code, and the interpreter's own modules.

Usage: freeze.py [--main MODULE] TARGET. Every module of ours that the hot path can reach is in it, from
`multicall` and its literal table on, and what the interpreter imports by itself: the launcher leaves out the
standard library that libpython carries. Of the modules that are written in C, the table has those that are
imported, so that the linker leaves out the others.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import marshal
import sys
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cni_plugins.multicall import MODULES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN = "cni_plugins.multicall"
PACKAGES = ("cni_plugins", "ipam")
LEFT_OUT = ("cni_plugins.kernel.setns",)
"""Modules that a module imports only where the launcher has not given it the same thing."""
IMPLICIT = (
    "codecs",
    "encodings",
    "encodings.aliases",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
)
"""What the interpreter imports for text in another form than its fast paths know."""
INTERPRETER = ("_codecs", "_imp", "_thread", "_warnings", "_weakref", "builtins", "marshal", "sys")
"""The modules in C that the interpreter and IMPLICIT import."""
INITIALISERS = {
    "_warnings": "_PyWarnings_Init",
    "builtins": "NULL",
    "marshal": "PyMarshal_Init",
    "sys": "NULL",
}
"""Their functions, where they are not PyInit_NAME (Modules/config.c.in)."""
OURS = ("_json",)
"""Modules in C that are not libpython's."""


class _Stripper(ast.NodeTransformer):
    """Drops what only a type checker reads: its imports, and every annotation."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Keep what stands under `else` of `if TYPE_CHECKING:`."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Drop `from __future__ import annotations`."""
        return None if node.module == "__future__" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Drop a function's annotations."""
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Drop a parameter's annotation."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Make an annotated assignment a plain one; drop one without a value."""
        if node.value is None:
            return None
        plain = ast.Assign(targets=[node.target], value=node.value)
        return self.generic_visit(ast.copy_location(plain, node))


def source_of(name: str) -> Path | None:
    """Return the file of a module of ours; None when there is none of that name."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def ours(names: list[str]) -> dict[str, tuple[Path, ast.Module]]:
    """Return the modules of ours that `names` reach, with their parents."""
    found: dict[str, tuple[Path, ast.Module]] = {}
    waiting = list(names)
    packages = {*PACKAGES, *(name.partition(".")[0] for name in names)}
    while waiting:
        name = waiting.pop()
        if name in found or name in LEFT_OUT or name.partition(".")[0] not in packages:
            continue
        path = source_of(name)
        if path is None:  # a name within a module
            continue
        tree = ast.fix_missing_locations(_Stripper().visit(ast.parse(path.read_bytes())))
        found[name] = (path, tree)
        waiting.append(name.rpartition(".")[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isascii():
                waiting.append(node.value)  # Lazy("…"): other strings are no modules
    return found


def theirs() -> dict[str, tuple[Path, ast.Module]]:
    """Return the standard library's modules that the interpreter needs."""
    modules = {}
    for name in IMPLICIT:
        path = Path(importlib.import_module(name).__file__ or "")
        modules[name] = (path, ast.parse(path.read_bytes()))
    # The interpreter asks for utf-8, ascii and latin-1, which need no alias; the table of 300 takes 0.2 ms.
    modules["encodings.aliases"] = (modules["encodings.aliases"][0], ast.parse("aliases = {}"))
    return modules


def imported(tree: ast.Module) -> set[str]:
    """Return the names that a module imports with a statement or by Lazy("…")."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Lazy":
            names.update(
                each.value
                for each in node.args
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )
    return names


def builtin(modules: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Return the modules in C that modules of ours and the interpreter import.

    Raises:
        SystemExit: a module imports what the executable has not.
    """
    found = set(INTERPRETER)
    for module, (_path, tree) in modules.items():
        for name in imported(tree) - modules.keys() - {*LEFT_OUT, *IMPLICIT}:
            if name not in sys.builtin_module_names and name not in OURS:
                raise SystemExit(f"freeze: {module} imports {name}, which is neither frozen nor in libpython")
            found.add(name)
    return sorted(found)


def inittab(names: list[str]) -> str:
    """Return the C text of the table of modules in C (`struct _inittab`, cpython/import.h)."""
    functions = {name: INITIALISERS.get(name, f"PyInit_{name}") for name in names}
    declared = [f"PyObject *{function}(void);\n" for function in functions.values() if function != "NULL"]
    rows = [f'    {{"{name}", {function}}},\n' for name, function in functions.items()]
    table = "struct _inittab _PyImport_Inittab[] = {\n" + "".join(rows) + "    {NULL, NULL},\n};\n"
    return "".join(declared) + table


def constants(code: CodeType) -> Iterator[str]:
    """Yield the strings that a module's code holds."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from constants(constant)
        elif isinstance(constant, str):
            yield constant


def compiled(module: str, tree: ast.Module, place: str) -> bytes:
    """Return a module's marshalled code.

    Raises:
        SystemExit: it holds a lone surrogate, for which the interpreter would import its codecs, in 0.3 ms.
    """
    code = compile(tree, place, "exec", optimize=2, dont_inherit=True)
    for text in constants(code):
        if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
            raise SystemExit(f"freeze: {module} holds {text!a}, which is not UTF-8; write it with chr()")
    return marshal.dumps(code)


def tables(modules: dict[str, tuple[Path, ast.Module]], name: str) -> str:
    """Return the C text of a `struct _frozen` array of modules (cpython/import.h)."""
    blobs = []
    rows = []
    for number, (module, (path, tree)) in enumerate(sorted(modules.items())):
        place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        data = compiled(module, tree, str(place))
        blobs.append(f"static const unsigned char {name}_{number}[] = {{{','.join(map(str, data))}}};")
        package = int(path.name == "__init__.py")
        rows.append(f'    {{"{module}", {name}_{number}, sizeof {name}_{number}, {package}, NULL}},')
    end = "    {NULL, NULL, 0, 0, NULL},\n};\n"
    return "\n".join(blobs) + f"\nstatic const struct _frozen {name}[] = {{\n" + "\n".join(rows) + "\n" + end


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--main", default=MAIN, help="the module whose main() the executable runs")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    own = ours([options.main])
    modules = {**theirs(), **own}
    for name in MODULES.values() if options.main == MAIN else (options.main,):
        if name not in modules:
            raise SystemExit(f"freeze: {name} was not found")
    # `import` itself (importlib/_bootstrap.py), which the interpreter asks for before anything else.
    path = Path(importlib.__file__).with_name("_bootstrap.py")
    bootstrap = {"_frozen_importlib": (path, ast.parse(path.read_bytes()))}
    options.target.write_text(
        f'#define MAIN_MODULE "{options.main}"\n'
        + inittab(builtin(own))
        + tables(bootstrap, "frozen_bootstrap")
        + tables(modules, "frozen_modules")
    )


if __name__ == "__main__":
    main()
