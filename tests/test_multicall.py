from __future__ import annotations

import os
import sys
import tomllib

import pytest

from cni_plugins import multicall
from cni_plugins.config.compiled import MODELS
from cni_plugins.multicall import MODULES
from cni_plugins.spec.errors import DelegateError
from integration.suite import ROOT


@pytest.mark.parametrize("name", MODULES)
def test_every_name_has_a_plugin(name: str) -> None:
    plugin = multicall.lookup(name)
    assert plugin.name == name
    assert plugin is sys.modules[MODULES[name]].PLUGIN
    assert plugin.model in MODELS
    for verb in (plugin.add, plugin.delete, plugin.check, plugin.status, plugin.gc):
        assert callable(verb)


@pytest.mark.parametrize("name", ["", "Bridge", "bridge ", "ipam", "cni_plugins.plugins.bridge", "../bridge"])
def test_no_other_name_has(name: str) -> None:
    with pytest.raises(DelegateError):
        multicall.lookup(name)


def test_every_plugins_module_is_in_the_table() -> None:
    files = {name[:-3] for name in os.listdir(f"{ROOT}/cni_plugins/plugins") if name.endswith(".py")}
    ours = {f"cni_plugins.plugins.{name}" for name in files - {"__init__"}}
    ours |= {
        f"ipam.{name}.plugin"
        for name in os.listdir(f"{ROOT}/ipam")
        if os.path.exists(f"{ROOT}/ipam/{name}/plugin.py")
    }
    assert set(MODULES.values()) == ours


def test_the_import_contract_names_every_plugin() -> None:
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "independence"]
    ours = {name for name in MODULES.values() if name.startswith("cni_plugins.")}
    assert {name for name in contract["modules"] if name != "ipam"} == ours
