"""A caller written for upstream runs unchanged: names, leading parameters and defaults of its public surface.

`data/upstream_interface.json` lists that surface. `flux.trt`, which is not carried, says so.
"""

import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers_models import SMALL_FLOW, small_ae, small_model
from torch import nn

from flux.model import Flux

UPSTREAM = json.loads(
    (Path(__file__).parent / "data" / "upstream_interface.json").read_text(encoding="utf-8")
)
NAMES = [(module, name) for module, names in UPSTREAM.items() for name in names]


def value_of(source: str) -> object:
    """A default as upstream's source has it."""
    return eval(source, {"torch": torch})


def check_parameters(function, upstream: list[dict], where: str) -> None:
    """Upstream's parameters come first, by name, order and default; ours have defaults.

    Ours are keyword-only, save in `forward`, whose callers may fill every parameter by position.
    """
    ours = list(inspect.signature(function).parameters.values())
    catch_all = [p for p in upstream if p["name"].startswith("*")]
    named = [p for p in upstream if not p["name"].startswith("*")]
    assert [p.name for p in ours[: len(named)]] == [p["name"] for p in named], where
    for mine, theirs in zip(ours, named, strict=False):
        assert mine.kind is mine.POSITIONAL_OR_KEYWORD, f"{where}: {mine}"
        if theirs["required"]:
            assert mine.default is mine.empty, f"{where}: {mine}"
        else:
            assert mine.default == value_of(theirs["default"]), f"{where}: {mine}"
    kinds = {"*": inspect.Parameter.VAR_POSITIONAL, "**": inspect.Parameter.VAR_KEYWORD}
    for theirs in catch_all:
        stars = theirs["name"].removesuffix(theirs["name"].lstrip("*"))
        assert any(mine.kind is kinds[stars] for mine in ours), f"{where}: {theirs['name']}"
    for mine in ours[len(named) :]:
        if mine.kind not in kinds.values():
            plain = where.endswith(".forward")
            assert mine.kind is (mine.POSITIONAL_OR_KEYWORD if plain else mine.KEYWORD_ONLY), (
                f"{where}: {mine}"
            )
            assert mine.default is not mine.empty, f"{where}: {mine}"


def base_named(name: str, module: ModuleType) -> type:
    known = {"nn.Module": nn.Module, "torch.nn.Module": nn.Module, "nn.Linear": nn.Linear}
    return known.get(name) or getattr(module, name)


def check_class(ours: type, upstream: dict, module: ModuleType, where: str) -> None:
    for base in upstream["bases"]:
        assert issubclass(ours, base_named(base, module)), where
    if "fields" in upstream:
        fields = dataclasses.fields(ours)[: len(upstream["fields"])]
        assert [field.name for field in fields] == [field["name"] for field in upstream["fields"]], where
        for mine, theirs in zip(fields, upstream["fields"], strict=True):
            if theirs["default"] is not None:
                assert mine.default == value_of(theirs["default"]), f"{where}.{mine.name}"
        extra = dataclasses.fields(ours)[len(fields) :]
        missing = dataclasses.MISSING
        assert not any(f.default is missing and f.default_factory is missing for f in extra), where
    for name, value in upstream.get("attributes", {}).items():
        assert getattr(ours, name) == value, f"{where}.{name}"
    for name, parameters in upstream["methods"].items():
        check_parameters(getattr(ours, name), parameters, f"{where}.{name}")


@pytest.mark.parametrize("module_name, name", NAMES, ids=[f"{module}.{name}" for module, name in NAMES])
def test_as_upstream(module_name, name):
    module, upstream = importlib.import_module(module_name), UPSTREAM[module_name][name]
    where = f"{module_name}.{name}"
    assert hasattr(module, name), where
    ours = getattr(module, name)
    if upstream["kind"] == "function":
        check_parameters(ours, upstream["params"], where)
    elif upstream["kind"] == "class":
        check_class(ours, upstream, module, where)
    elif "value" in upstream:
        plain = json.loads(json.dumps(ours))  # pairs may be lists or tuples
        assert plain == upstream["value"], where


@pytest.mark.parametrize("name", UPSTREAM)
def test_each_module_lists_upstreams_names(name):
    """For `dir`, completion, and `from flux.util import *`."""
    module = importlib.import_module(name)
    names = set(UPSTREAM[name])
    assert names <= set(dir(module))
    starred = {}
    exec(f"from {name} import *", starred)
    assert names <= set(starred)


def test_package_says_what_it_is():
    import flux

    assert flux.PACKAGE == "flux"
    assert (flux.PACKAGE_ROOT / "__init__.py").samefile(flux.__file__)
    assert flux.__version__


def test_what_is_not_carried_says_so():
    import flux.trt

    for name in ("TRTManager", "ModuleName"):
        with pytest.raises(
            ImportError, match="TensorRT engines are not carried, models run in PyTorch"
        ) as told:
            exec(f"from flux.trt import {name}")
        assert "\n" not in str(told.value)
    assert not hasattr(flux.trt, "__wrapped__")
    with pytest.raises(ImportError):
        importlib.import_module("flux.trt.trt_manager")


def parts_of_models() -> set[str]:
    """Classes that the models are made of, which `test_numerics.py` holds against diffusers as a whole."""
    models = small_model(Flux, SMALL_FLOW), small_ae()
    return {type(part).__name__ for model in models for part in model.modules()}


def test_every_function_is_called_by_a_test():
    """By its name; a part of a model within it. Classes of mere fields are not asked for."""
    files = Path(__file__).parent.rglob("*.py")
    tests, parts = "\n".join(file.read_text(encoding="utf-8") for file in files), parts_of_models()
    missing = []
    for module, names in UPSTREAM.items():
        for name, what in names.items():
            methods = [each for each in what.get("methods", ()) if each != "forward" and each[0] != "_"]
            plain = what["kind"] == "constant" or "fields" in what or name in parts
            called = [] if plain else [name, *methods]
            missing += [f"{module}.{each}" for each in called if not re.search(rf"\b{each}\(", tests)]
    assert missing == []


def test_the_small_parts_of_models():
    from flux.modules.autoencoder import swish
    from flux.modules.layers import Modulation, ModulationOut

    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(swish(x), x / (1 + torch.exp(-x)))
    first, second = Modulation(4, double=True)(torch.ones(2, 4))
    assert isinstance(first, ModulationOut) and isinstance(second, ModulationOut)
    made = ModulationOut(shift=x, scale=2 * x, gate=3 * x)
    assert torch.equal(made.gate - made.scale, made.shift)
