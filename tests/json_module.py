"""build/json.c beside CPython's `_json`: compiled, loaded, and asked the same.

`python -m tests.json_module SEED CASES` searches with AddressSanitizer and UBSan. It compares the two on
changed documents and lets every memory allocation of a call fail in turn. It fails where the answers differ
or a sanitizer finds something.
"""

from __future__ import annotations

import _json
import gc
import importlib.machinery
import importlib.util
import json.decoder
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_plugins.spec import codec
from tests.hostile_bytes import spoilt

if TYPE_CHECKING:
    from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JSON = f"{ROOT}/build/json.c"
NO_MEMORY = f"{ROOT}/tests/no_memory.c"
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

DOCUMENTS = [
    json.dumps(
        {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "bridge",
            "mtu": 1500,
            "isGateway": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]],
            },
            "prevResult": {"ips": [{"address": "10.1.2.3/24", "gateway": None}], "dns": {}},
            "args": {"labels": [{"key": "a\n\u20ac\U0001f600", "value": "\ud800"}]},
        },
        indent=indent,
        ensure_ascii=ascii_only,
    )
    for indent in (None, 2)
    for ascii_only in (True, False)
] + [
    '[0, -0, 1e5, -1.5E-3, 12345678901234567890, 1e999, NaN, Infinity, -Infinity, "", [], {}]',
    '"\\u00e9\\ud83d\\ude00\\ud83d\\u0041\\ude00\\b\\f\\n\\r\\t\\/\\\\\\""',
    '{"a": 1, "a": {"a": 2, "b": [{"a": 3}, {"a": 4}]}}',
    "[" * 1100 + "]" * 1100,
    '{"a":' * 1100 + "1" + "}" * 1100,
    "9" * 4301,
]
"""Texts that reach every branch of a scanner, themselves or with a character changed."""
TOKENS = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "\\ud800", "\\udc00", "\n", "\0"),
    *("-", "0", "1.", "e", "E+", "9" * 50, "null", "true", "false", "NaN", "-Infinity"),
    *("\u00e9", "\u20ac", "\U0001f600", "\ud800"),
)


def compiled(source: str, folder: Path, name: str, *options: str) -> str:
    """Compile an extension module; return its path."""
    target = f"{folder}/{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options),
            *("-I", sysconfig.get_path("include"), source, "-o", target),
        ],
        check=True,
    )
    return target


def load(path: str) -> ModuleType:
    """Return an extension module that a file holds, without making it known to `import`."""
    name = os.path.basename(path).partition(".")[0]
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def shape(value: Any) -> list[str]:
    """Return the parts of a value in their order, with types: 1, 1.0 and True differ, and so do 0.0 and -0.0.

    However deeply it is nested, this takes no stack.
    """
    found = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        found.append(type(each).__name__)
        if isinstance(each, dict):
            waiting += [part for pair in each.items() for part in pair]
        elif isinstance(each, list | tuple):
            waiting += each
        if isinstance(each, dict | list | tuple):
            found.append(str(len(each)))
        else:
            found.append(repr(each))
    return found


def outcome(module: Any, text: str, at: int = 0) -> Any:
    """Return what a module's scanner says of a text: value and end, or the error's kind and message."""
    try:
        return shape(module.make_scanner(codec._Scanner)(text, at))
    except StopIteration as stop:
        return "no value", stop.value
    except ValueError as error:  # the standard module raises a subclass
        return "ValueError", str(error)
    except RecursionError as error:
        return "RecursionError", str(error)


def agree(module: Any, text: str, at: int = 0) -> bool:
    """Return whether a module and the standard one say the same of a text.

    The standard module makes an error in Python code, for which the last levels of nesting before the limit
    are not enough: there a RecursionError takes the error's place.
    """
    ours, theirs = outcome(module, text, at), outcome(_json, text, at)
    short = theirs[0] == "RecursionError" and "while decoding" not in theirs[1]
    return ours == theirs or (short and ours[0] == "ValueError")


def changed(chance: random.Random) -> str:
    """Return one of the documents with some characters changed."""
    text = chance.choice(DOCUMENTS)
    if chance.random() < 0.3:
        data = spoilt(chance, text.encode("utf-8", "surrogatepass"))
        return data.decode("utf-8", chance.choice(("ignore", "replace", "surrogateescape")))
    for _time in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text) + 1)
        what = chance.randrange(3)
        token = chance.choice(TOKENS) if what else ""
        text = text[:at] + token + text[at + chance.choice((0, 0, 1, 1, 9)) :]
        if what == 2 and chance.random() < 0.5:
            text = text[: chance.randrange(len(text) + 1)]
    return text


def compare(module: Any, seed: int, cases: int) -> None:
    """Compare a module with the standard one on changed documents.

    Raises:
        AssertionError: they differ; the message has the text.
    """
    chance = random.Random(seed)
    for _case in range(cases):
        text = changed(chance)
        at = chance.choice((0, 0, 0, chance.randrange(len(text) + 2)))
        assert agree(module, text, at), (at, text)
        assert module.encode_basestring_ascii(text) == _json.encode_basestring_ascii(text), text


def starve(module: Any, memory: Any) -> int:
    """Let every allocation of a call fail in turn; return how many failed.

    Args:
        module: has the scanner.
        memory: the module no_memory.
    """
    failed = 0
    for text in [document for document in DOCUMENTS if len(document) < 1000]:
        scanner = module.make_scanner(codec._Scanner)
        for call in (
            lambda text=text, scanner=scanner: scanner(text, 0),
            lambda text=text, scanner=scanner: scanner(text[:-1], 0),
            lambda text=text: module.encode_basestring_ascii(text),
            lambda: module.make_scanner(codec._Scanner),
        ):
            left = 0
            while memory.call(call, left):  # that many allocations succeed, then none
                failed += 1
                left += 1
    return failed


ROUNDS = 150
"""More than the blocks that come and go by the strings' hashes, up to 60 in any number of rounds."""


def growth(module: Any, memory: Any) -> int:
    """Return how many blocks of memory more the interpreter has after ROUNDS rounds of answers and errors.

    A reference too many keeps an object in every round.
    """
    texts = [document[:end] for document in DOCUMENTS[:7] for end in range(0, len(document) + 1, 29)]
    before = after = 0
    for number in range(-15, ROUNDS + 1):  # the first rounds fill what the interpreter keeps for itself
        for text in texts:
            outcome(module, text)
            module.encode_basestring_ascii(text)
        starve(module, memory)
        gc.collect()  # empties the interpreter's lists of spare objects
        after = sys.getallocatedblocks()
        before = after if number <= 0 else before
    return after - before


def search(folder: Path, seed: int, cases: int, *, sanitizers: bool) -> tuple[int, int]:
    """Compare and starve the module in a process of its own.

    Args:
        folder: for what is compiled.
        seed: of the changed documents.
        cases: how many there are.
        sanitizers: compile it with them, and take memory by the C library's malloc, which they watch.

    Returns:
        How many allocations failed, and the result of `growth`.

    Raises:
        AssertionError: the process failed; the message has what it said.
    """
    env = {"PATH": os.defpath}
    if sanitizers:
        command = ["gcc", "-print-file-name=libasan.so"]
        env["LD_PRELOAD"] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        env["PYTHONMALLOC"] = "malloc"
        env["ASAN_OPTIONS"] = "detect_leaks=0"  # the interpreter itself frees little when it ends
    modules = (
        compiled(JSON, folder, "_json", *(SANITIZERS if sanitizers else ())),
        compiled(NO_MEMORY, folder, "no_memory"),
    )
    code = f"from tests import json_module; json_module.search_here({modules!r}, {seed}, {cases})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    failed, left = done.stdout.split()
    return int(failed), int(left)


def search_here(modules: tuple[str, str], seed: int, cases: int) -> None:
    """Do what `search` does, in this process, with the compiled modules; print what it returns."""
    module, memory = map(load, modules)
    compare(module, seed, cases)
    sys.stdout.write(f"{starve(module, memory)} {growth(module, memory)}\n")


def main() -> None:
    """Search as the command line says."""
    with tempfile.TemporaryDirectory() as folder:
        failed, _left = search(Path(folder), int(sys.argv[1]), int(sys.argv[2]), sanitizers=True)
    sys.stdout.write(f"{sys.argv[2]} documents, {failed} failed allocations: nothing found\n")


if __name__ == "__main__":
    main()
