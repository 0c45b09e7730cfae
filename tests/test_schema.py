from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cni_plugins import config
from cni_plugins.config.base import Model
from cni_plugins.config.compiled import MODELS
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.schema import Record, validate
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


def all_models() -> Iterator[type[Model]]:
    for name in sorted(os.listdir(config.__path__[0])):
        if name.endswith(".py") and name != "compiled.py":
            module = importlib.import_module(f"{config.__name__}.{name[:-3]}")
            for value in vars(module).values():
                if (
                    isinstance(value, type)
                    and issubclass(value, Model)
                    and value.__module__ == module.__name__
                ):
                    yield value


BY_NAME = {model.__name__: model for model in all_models() if model is not Model}

TEXT = st.text(max_size=8) | st.sampled_from(["4", "1", "true", "\0", "\ud800", "10.0.0.1"])
NUMBERS = st.integers(-2, 5000) | st.sampled_from(
    [31, 32, 255, 256, 4094, 4095, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, -(2**31), 10**30]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from([0.0, 1.0, 1.5, 1e300]) | TEXT
JSON = st.recursive(
    SCALARS,
    # a lone surrogate in a key of a free-form object is let through: nothing is ever made of it
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def spelling(key: str) -> st.SearchStrategy[str]:
    others = st.sampled_from([key.upper(), key.lower(), key.swapcase(), key.capitalize(), key + "x"])
    return st.one_of(st.just(key), st.just(key), st.just(key), others)


def value_of(node: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Return values that are mostly of a node's type."""
    kinds: dict[str, st.SearchStrategy[Any]] = {"str": TEXT, "bool": st.booleans()}
    if node[0] == "int":
        bounds = [number for number in node[1:] if number is not None]
        right: st.SearchStrategy[Any] = st.sampled_from(
            [0, 1, *(number + by for number in bounds for by in (-1, 0, 1))]
        )
    elif node[0] == "dict":
        right = st.dictionaries(st.text(max_size=4), JSON, max_size=3)
    elif node[0] == "list":
        right = st.lists(value_of(node[1]), max_size=3)
    elif node[0] == "model":
        right = st.deferred(lambda: objects(node[1]))
    else:
        right = kinds[node[0]]
    return st.one_of(right, right, right, right, right, JSON)


def objects(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return JSON objects that nearly are of a model."""
    pairs = [
        st.tuples(spelling(key), value_of(node)) for key, (_attribute, node, _default) in MODELS[name].items()
    ]
    unknown = st.tuples(st.text(max_size=5), JSON)
    return st.lists(st.one_of(*pairs, *pairs, unknown), max_size=6).map(dict)


def same(record: Any, model: Any) -> bool:
    """Compare what both made; True is not 1 here."""
    if isinstance(model, BaseModel):
        assert isinstance(record, Record)
        assert vars(record).keys() == type(model).model_fields.keys()
        return all(same(getattr(record, key), getattr(model, key)) for key in type(model).model_fields)
    if isinstance(model, list):
        return type(record) is list and len(record) == len(model) and all(map(same, record, model))
    if isinstance(model, dict):
        return (
            type(record) is dict
            and record.keys() == model.keys()
            and all(same(record[key], model[key]) for key in model)
        )
    return type(record) is type(model) and bool(record == model)


@pytest.mark.parametrize("name", sorted(MODELS))
@settings(max_examples=25)
@given(data=st.data())
def test_the_hot_path_validates_as_pydantic_does(name: str, data: st.DataObject) -> None:
    given = data.draw(objects(name) | JSON)
    try:
        expected = BY_NAME[name].model_validate(given)
    except ValidationError:
        with pytest.raises(InvalidConfigError) as caught:
            validate(name, given)
        assert caught.value.code == 7
        return
    assert same(validate(name, given), expected)


def test_every_model_is_compiled() -> None:
    assert MODELS.keys() == BY_NAME.keys()
    for name, model in BY_NAME.items():
        assert list(MODELS[name]) == [field.alias for field in model.model_fields.values()]


def test_compiled_models_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "build/compile_config.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run build/compile_config.py"


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        ("BridgeConf", [], "the network configuration must be an object, not a list"),
        ("BridgeConf", None, "the network configuration must be an object, not null"),
        ("BridgeConf", {"mtu": "1500"}, "mtu must be an integer, not a string"),
        ("BridgeConf", {"mtu": 1500.0}, "mtu must be an integer, not a number with a fraction"),
        ("BridgeConf", {"mtu": True}, "mtu must be an integer, not true or false"),
        ("BridgeConf", {"mtu": 65536}, "mtu must be 0 to 65535, not 65536"),
        ("BridgeConf", {"isGateway": 1}, "isGateway must be true or false, not an integer"),
        ("BridgeConf", {"ipam": []}, "ipam must be an object, not a list"),
        (
            "BridgeConf",
            {"vlanTrunk": [{}, {"minID": 4095}]},
            "vlanTrunk[1].minID must be 0 to 4094, not 4095",
        ),
        ("BridgeConf", {"dns": {"search": ["a", None]}}, "dns.search[1] must be a string, not null"),
        ("FlannelConf", {"delegate": "bridge"}, "delegate must be an object, not a string"),
        ("InterfaceModel", {"mtu": -1}, "mtu must be 0 or more, not -1"),
        ("PortmapConf", {"runtimeConfig": {"portMappings": [{"hostPort": -1}]}}, "[0].hostPort must be 0 to"),
    ],
)
def test_the_message_has_the_path(model: str, data: Any, says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        validate(model, data)
    assert says in caught.value.msg
    with pytest.raises(InvalidConfigError) as caught:
        validate(model, data, "here")
    assert caught.value.msg.startswith("here")


def test_case_of_keys_is_folded_unless_a_key_matches() -> None:
    assert validate("BridgeConf", {"ISGATEWAY": True, "Bridge": "br7"}).is_gateway
    assert validate("BridgeConf", {"MTU": 1400, "mtu": 1300}).mtu == 1300
    assert validate("BridgeConf", {"mtu": 1300, "MTU": 1400}).mtu == 1300
    assert validate("BridgeConf", {"mtu": None, "MTU": 1400}).mtu == 0
    overridden = {"BRIDGE": "\0", "Bridge": "br7"}
    assert same(validate("BridgeConf", overridden), BY_NAME["BridgeConf"].model_validate(overridden))


def test_null_is_absent() -> None:
    nothing = validate("BridgeConf", dict.fromkeys(MODELS["BridgeConf"]))
    assert same(nothing, BY_NAME["BridgeConf"].model_validate({}))
