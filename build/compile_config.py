"""Write cni_plugins/config/compiled.py: the core schemas of the configuration models, as plain data.

Usage: compile_config.py [--check]. With --check nothing is written; the exit status says whether the file is
what the models give.
"""

from __future__ import annotations

import importlib
import pkgutil
import pprint
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel  # noqa: E402

from cni_plugins import config  # noqa: E402
from cni_plugins.config.base import Model  # noqa: E402

TARGET = ROOT / "cni_plugins/config/compiled.py"
HEADER = '''"""The configuration models as plain data. Written by build/compile_config.py; do not edit."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# model: {JSON key: (attribute, node, default)}; a model's default is the object it is validated from.
'''


def models() -> list[type[Model]]:
    """Return every model that the modules of cni_plugins.config define."""
    for module in pkgutil.iter_modules(config.__path__):
        if module.name != "compiled":
            importlib.import_module(f"{config.__name__}.{module.name}")

    def below(cls: type[Model]) -> list[type[Model]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    return sorted({cls for cls in below(Model) if cls is not Model}, key=lambda cls: cls.__name__)


class Compiler:
    """Turns one model's core schema into a table, following references among its definitions."""

    def __init__(self, model: type[BaseModel]) -> None:
        schema: dict[str, Any] = dict(model.__pydantic_core_schema__)
        self.definitions: dict[str, dict[str, Any]] = {}
        if schema["type"] == "definitions":
            self.definitions = {item["ref"]: item for item in schema["definitions"]}
            schema = schema["schema"]
        self.top = self.resolve(schema)

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Follow a definition-ref."""
        return self.definitions[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema

    def table(self) -> dict[str, tuple[str, tuple[Any, ...], Any]]:
        """Return the model's fields."""
        inner = self.top["schema"]
        if (
            inner["type"] != "function-before"
            or inner["function"]["function"].__func__ is not Model.as_go_decodes.__func__
        ):
            raise TypeError(f"{self.top['cls']} has a validator that the hot path does not know")
        return {
            field["validation_alias"]: (attribute, *self.field(field["schema"]))
            for attribute, field in inner["schema"]["fields"].items()
        }

    def field(self, schema: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Return a field's node and default; every key is optional, as in Go."""
        if schema["type"] != "default":
            raise TypeError(f"every key needs a default: {schema}")
        default = schema["default"]
        return self.node(schema["schema"]), default.model_dump(
            by_alias=True, exclude_defaults=True
        ) if isinstance(default, BaseModel) else default

    def node(self, given: dict[str, Any]) -> tuple[Any, ...]:
        """Return the node of a value's schema."""
        schema = self.resolve(given)
        kind = schema["type"]
        known = {"type", "metadata", "ref", "serialization"}
        if kind == "nullable":  # null is absent everywhere
            return self.node(schema["schema"])
        if kind == "model":
            return ("model", schema["cls"].__name__)
        if kind == "list" and set(schema) - known == {"items_schema"}:
            return ("list", self.node(schema["items_schema"]))
        if kind == "int" and set(schema) - known <= {"ge", "le"}:
            return ("int", schema.get("ge"), schema.get("le"))
        if kind == "dict":
            return ("dict",)
        if kind in ("str", "bool") and set(schema) <= known:
            return (kind,)
        raise TypeError(f"the hot path does not know {kind} with {sorted(set(schema) - known)}")


def main() -> int:
    """Write or check the file."""
    tables = {model.__name__: Compiler(model).table() for model in models()}
    text = (
        HEADER
        + "MODELS: dict[str, dict[str, tuple[str, tuple[Any, ...], Any]]] = "
        + pprint.pformat(tables, width=110, sort_dicts=False)
        + "\n"
    )
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
