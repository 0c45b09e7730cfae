"""Write docs/errors.md from `cni_plugins/spec/errors.py`, the code's own table; `--check` compares.

A class's docstring has, in this order: its code and when it occurs, what to do, and what only a reader of the
code needs to know.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "errors.md"
sys.path.insert(0, str(ROOT))

from cni_plugins.spec import errors  # noqa: E402

HEADER = """\
# Errors

A plugin that fails exits with status 1 and prints one JSON object (CNI 1.1.0, section 5, "Error"):

```json
{"cniVersion": "1.1.0", "code": 102, "msg": "what failed, with its names", "details": "what to do"}
```

Codes up to 99 are the specification's; from 100 up they are our own. The kubelet shows `msg` and `details` in
the pod's events; `cnictl` shows both and the code. [Troubleshooting](troubleshooting.md) has examples.

| code | when | what to do |
|---|---|---|
"""
LAST = "| 999 | A fault inside the plugin. | Please report it, with `msg` and `details`. |\n"
FOOTER = """
These plugins never use the specification's code 2 (an unsupported value of a key): they use 7. If one of our
plugins calls another suite's, it passes that plugin's errors on unchanged, whatever their code.

This page is made by `build/errors_page.py` from the docstrings of `cni_plugins/spec/errors.py`.
"""


def page() -> str:
    """Return the page."""
    rows = []
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.CNIError) and error is not errors.CNIError:
            when, advice, *_rest = (error.__doc__ or "").split("\n\n")
            code, _colon, text = when.partition(": ")
            if code != f"Code {error.code}":
                raise ValueError(
                    f"{error.__name__}: its docstring does not begin with its code, {error.code}"
                )
            rows.append(f"| {error.code} | {text[0].upper()}{text[1:]} | {' '.join(advice.split())} |\n")
    return HEADER + "".join(rows) + LAST + FOOTER


def main() -> int:
    """Write or check the page."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(page())
    elif TARGET.read_text() != page():
        print("docs/errors.md is not what build/errors_page.py makes")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
