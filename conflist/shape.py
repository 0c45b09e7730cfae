"""Comparing a JSON object with the model that describes it: types, bounds and keys nobody reads."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from conflist.models import inner_model, keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from conflist.findings import Spot

Conf = TypeVar("Conf", bound=BaseModel)

_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def check(spot: Spot, model: type[Conf], data: Any, *, partial: bool = False) -> Conf | None:
    """Note every value that is not as the model says.

    Args:
        spot: where the object is.
        model: its model.
        data: the object.
        partial: leave out keys with such values, so that the others can be looked at further.

    Returns:
        The validated object; None when there is a wrong value, or, if partial, no object at all.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]).lower() for problem in error.errors() if problem["loc"]}
        for problem in error.errors(include_url=False):
            where = spot.at(*problem["loc"])
            name = path_text(problem["loc"])
            given = problem["input"]
            bounds = problem.get("ctx", {})
            expected = _EXPECTED.get(problem["type"])
            if expected is not None:
                where.error(f"{name} must be {expected}, not {_NAMES[type(given)]}", _remedy(expected, given))
            elif "ge" in bounds:
                where.error(f"{name} must be {bounds['ge']} or more, not {given}")
            elif "le" in bounds:
                where.error(f"{name} must be {bounds['le']} or less, not {given}")
            else:
                where.error(f"{name}: {problem['msg']}")
    if not partial or not isinstance(data, dict):
        return None
    return quiet(model, {key: value for key, value in data.items() if key.lower() not in wrong})


def check_keys(
    spot: Spot, model: type[BaseModel], data: Any, *, also: Collection[str] = (), skip: Collection[str] = ()
) -> None:
    """Note the keys that the model does not have, there and in the objects inside.

    Args:
        spot: where the object is.
        model: its model.
        data: the object.
        also: further keys that are known.
        skip: keys whose values are not looked into.
    """
    if isinstance(data, list):
        for index, item in enumerate(data):
            check_keys(spot.at(index), model, item, also=also, skip=skip)
    if not isinstance(data, dict):
        return
    known = keys(model)
    folded = {key.lower(): key for key in (*also, *known)}
    for key, value in data.items():
        name = folded.get(key.lower())
        if name is None:
            spot.at(key).warning(
                f"unknown key {key!r}: nobody reads it", suggest(key, folded.values()), key=True
            )
        elif name != key:
            spot.at(key).warning(
                f"the key {key!r} is spelt {name!r}", "other plugins and tools need not take it", key=True
            )
        if name in known and name not in skip:
            inner = inner_model(known[name])
            if inner is not None:
                check_keys(spot.at(key), inner, value)


def suggest(word: str, known: Collection[str]) -> str:
    """Return a question with the known word that is most like another; empty when none is."""
    lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"did you mean {lower[close[0]]!r}?" if close else ""


def path_text(path: Collection[str | int]) -> str:
    """Return a path as people write it: ipam.ranges[0][0].subnet."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the value"


def _remedy(expected: str, given: Any) -> str:
    if not isinstance(given, str):
        return "put it in double quotes" if expected == "a string" and isinstance(given, int) else ""
    if expected == "true or false" and given.lower() in ("true", "false"):
        return f"write {given.lower()} without quotes"
    if expected == "an integer" and given.strip().lstrip("-").isdigit():
        return f"write {given.strip()} without quotes"
    if expected == "a list":
        return "put it in square brackets"
    return ""


def quiet(model: type[Conf], data: Any) -> Conf | None:
    """Return the validated object, or None, without a word."""
    try:
        return model.model_validate(data)
    except ValidationError:
        return None
