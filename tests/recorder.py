"""A plugin for tests of the runtime's side: a real program that logs what it gets and does as configured."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """#!{python} -IS
import json, os, sys

folder, name = os.path.split(sys.argv[0])
conf = json.load(sys.stdin)
env = {{key: value for key, value in os.environ.items() if key.startswith(("CNI_", "TEST_"))}}
verb = env["CNI_COMMAND"]
with open(os.path.join(folder, "log"), "a") as log:
    log.write(json.dumps({{"name": name, "verb": verb, "env": env, "conf": conf}}) + "\\n")
wanted = conf.get("do", {{}}).get(verb, {{}})
if "stderr" in wanted:
    sys.stderr.write(wanted["stderr"])
if "error" in wanted:
    print(json.dumps(wanted["error"]))
    sys.exit(1)
if "print" in wanted:
    sys.stdout.write(wanted["print"])
elif verb == "ADD":
    result = conf.get("prevResult", {{"cniVersion": conf["cniVersion"]}})
    result.setdefault("interfaces", []).append({{"name": name}})
    print(json.dumps(result))
elif verb == "VERSION":
    print(json.dumps({{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}}))
sys.exit(wanted.get("status", 0))
"""


class Recorder:
    """A folder of recording plugins."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.program(".program", PROGRAM.format(python=sys.executable))
        for name in names:
            (folder / name).symlink_to(".program")

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        os.chmod(self.folder / name, 0o755)

    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def order(self) -> list[tuple[str, str]]:
        return [(call["verb"], call["name"]) for call in self.calls()]

    def forget(self) -> None:
        (self.folder / "log").unlink(missing_ok=True)
