"""Validation of a configuration against the compiled models, in the order and with the meaning of pydantic's.

The models of `cni_plugins.config` are the definition; `compiled.py` is their core schemas as plain data. The
Rust extension that pydantic itself uses would load the same data, but costs 2 to 4 ms and 3 MB a process,
where the whole start costs 4 (bench/startup.py prints both); these lines cost 0.1 ms. Tests feed both
with the same input and demand the same answer.
"""

from __future__ import annotations

from cni_plugins.config.compiled import MODELS
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Record:
    """A validated object. Type checkers see the pydantic model in its place."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__ = fields


def validate(model: str, data: Any, where: str = "") -> Any:
    """Return the Record of a decoded JSON object.

    Args:
        model: the name of the model's class.
        data: decoded JSON.
        where: the path of `data` in the whole configuration, for messages.

    Raises:
        InvalidConfigError: a value has another type than the model's, or is outside its bounds; the message
            has the key's path.
    """
    fields = MODELS[model]
    if not isinstance(data, dict):
        raise InvalidConfigError(
            f"{where or 'the network configuration'} must be an object, not {_json_type(data)}"
        )
    values: dict[str, Any] = {}
    given = data
    if not data.keys() <= fields.keys():
        given = _fold(fields, data)
    for key, (attribute, node, default) in fields.items():
        value = given.get(key)
        if value is not None:
            values[attribute] = _value(node, value, f"{where}.{key}" if where else key)
        elif node[0] == "model" and default is not None:
            values[attribute] = validate(node[1], default)
        else:
            values[attribute] = default
    return Record(values)


def _fold(fields: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Match keys without regard to case where no exact match exists, as Go's decoder does."""
    known = {key.lower(): key for key in fields}
    folded = {}
    for key, value in data.items():
        name = known.get(key.lower())
        if name is not None and value is not None and (key == name or name not in data):
            folded[name] = value
    return folded


def _value(node: tuple[Any, ...], value: Any, where: str) -> Any:
    kind = node[0]
    if kind == "model":
        return validate(node[1], value, where)
    if type(value) is not _TYPES[kind] and not (kind == "dict" and isinstance(value, dict)):
        raise InvalidConfigError(f"{where} must be {_NAMES[kind]}, not {_json_type(value)}")
    if kind == "int":
        low, high = node[1], node[2]
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"{low} or more" if high is None else f"{low} to {high}"
            raise InvalidConfigError(f"{where} must be {bounds}, not {value}")
    elif kind == "str" and not _is_text(value):
        raise InvalidConfigError(f"{where} has a character that no name can have: {value!r}")
    elif kind == "list":
        return [_value(node[1], item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _is_text(value: str) -> bool:
    """Tell whether a string can be a name or a path: no NUL, nothing that UTF-8 cannot say."""
    if "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_TYPES: dict[str, Any] = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}
_NAMES = {
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
}


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    for kind, python in _TYPES.items():
        if type(value) is python:
            return _NAMES[kind]
    return "a number with a fraction"
