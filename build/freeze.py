"""Write the modules of the plugins' executable as a C table of marshalled code (PyImport_FrozenModules).

Usage: freeze.py TARGET. Every module of ours that the hot path can reach is in it, from `multicall` and its
literal table on, and what the interpreter imports by itself: the launcher leaves out the standard library
that libpython carries.
"""

from __future__ import annotations

import ast
import importlib
import marshal
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cni_plugins.multicall import MODULES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("cni_plugins", "ipam")
# For text in another form than the fast paths know, and for a JSON error that is raised in C.
IMPLICIT = (
    "encodings",
    "encodings.aliases",
    "encodings.utf_8",
    "encodings.ascii",
    "encodings.latin_1",
    "json.decoder",
)


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
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in PACKAGES:
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
    probe = (
        f"import sys, {', '.join(IMPLICIT)}\n"
        "for name, module in sys.modules.items():\n"
        "    file = getattr(module, '__file__', None) or ''\n"
        "    if name != '__main__' and file.endswith('.py'): print(name, file)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-ISc", probe], check=True, capture_output=True, text=True
    ).stdout
    paths = dict(line.split(" ", 1) for line in answer.splitlines())
    modules = {name: (Path(path), ast.parse(Path(path).read_bytes())) for name, path in paths.items()}
    # The interpreter asks for utf-8, ascii and latin-1, which need no alias; the table of 300 takes 0.2 ms.
    modules["encodings.aliases"] = (modules["encodings.aliases"][0], ast.parse("aliases = {}"))
    return modules


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
    modules = {**theirs(), **ours(["cni_plugins.multicall", *MODULES.values()])}
    for name in MODULES.values():
        if name not in modules:
            raise SystemExit(f"freeze: {name} was not found")
    # `import` itself (importlib/_bootstrap.py), which the interpreter asks for before anything else.
    path = Path(importlib.__file__).with_name("_bootstrap.py")
    bootstrap = {"_frozen_importlib": (path, ast.parse(path.read_bytes()))}
    Path(sys.argv[1]).write_text(tables(bootstrap, "frozen_bootstrap") + tables(modules, "frozen_modules"))
    print(f"{len(modules)} modules frozen")


if __name__ == "__main__":
    main()
