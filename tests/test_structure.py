"""The rooms of the package: what may import what. The order is data of `benchmarks/structure.py`."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import flux

PACKAGE = Path(flux.__file__).parent


def _load() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "structure.py"
    spec = importlib.util.spec_from_file_location("structure", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


structure = _load()

RULES: dict[str, Callable[[Path], object]] = {
    "a module without a place in the order": structure.homeless,
    "an import upward": structure.upward,
    "a room that is for others": structure.reserved,
    "a circle": structure.circles,
    "a circle closed in functions": lambda package: structure.circles(package, lazy=True),
    "a class name twice": structure.twice,
}


def broken(package: Path) -> dict[str, object]:
    """The rules that a package breaks, with what breaks them."""
    results = {rule: check(package) for rule, check in RULES.items()}
    return {rule: result for rule, result in results.items() if result}


def test_the_package_keeps_the_plans_order():
    assert broken(PACKAGE) == {}


def test_importing_flux_imports_none_of_its_modules():
    assert not [each for each in structure.imports(PACKAGE) if each.importer == ""]


# The rules can be broken: trees of a few files, one of which is wrong.

GOOD = {
    "__init__": "",
    "models": "class FluxParams: ...\ndef words():\n    from flux.tiny.scenes import KINDS\n",
    "hooks": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flux.model import Flux\n",
    "model": "from flux.hooks import Hooks\nfrom .models import FluxParams\n",
    "weights.load": "from flux import model, models\n",
    "methods.__init__": "",
    "methods.stable_flow": "from flux.hooks import Hooks\n",
    "studies.folder": "import flux.models\n",
    "studies.sweep.run": "import flux.studies.folder\nfrom flux.studies.similarity import run\n",
    "studies.similarity.run": "from flux.studies.folder import RunFolder\n",
    "util": "from flux.models import FluxParams\nfrom flux.weights.load import load_models\n",
    "cli": "from flux.util import load_models\n",
    "tiny.scenes": "KINDS = ()\n",
    "tiny.judge": "from flux.util import load_models\n",
    "tiny.training.flow": "from flux.tiny.judge import Judge\nclass FluxParams: ...\n",
}

BAD = {
    "no place": ("notes", "", {"a module without a place in the order"}),
    "upward": ("model", "from flux.weights.load import load_models", {"an import upward", "a circle"}),
    "upward in a function": (
        "hooks",
        "def f():\n    from flux.methods import stable_flow",
        {"an import upward", "a circle closed in functions"},
    ),
    "upward, relative": ("weights.load", "from ..methods.stable_flow import edit", {"an import upward"}),
    "upward from what studies share": (
        "studies.folder",
        "import flux.studies.edit.run",
        {"an import upward"},
    ),
    "circle": ("studies.similarity.run", "from flux.studies.sweep.run import run_sweep", {"a circle"}),
    "circle in a function": (
        "studies.similarity.run",
        "def f():\n    from flux.studies.sweep.run import run_sweep",
        {"a circle closed in functions"},
    ),
    "circle with a folder": (
        "methods.__init__",
        "from flux.methods.stable_flow import edit\nimport flux.pictures.files",
        {"a circle", "an import upward"},
    ),
    "class twice": ("hooks", "class FluxParams: ...", {"a class name twice"}),
    "util from a study": (
        "studies.sweep.run",
        "import flux.util",
        {"an import upward", "a room that is for others"},
    ),
    "util from the old path of edits": (
        "edit",
        "from flux.util import Models",
        {"a room that is for others"},
    ),
    "training from tiny": (
        "tiny.judge",
        "def f():\n    from flux.tiny.training.flow import train",
        {"a room that is for others", "a circle closed in functions"},
    ),
    "training from the command line": (
        "cli",
        "from flux.tiny.training import flow",
        {"a room that is for others"},
    ),
}
"""A module, what is added to it, and the rules that it breaks."""

NEEDED = {"studies.edit.run": "", "pictures.files": "import flux.methods.stable_flow\n"}
"""Modules in order that wrong ones import."""


def write(folder: Path, files: dict[str, str]) -> Path:
    """A package `flux` of these modules."""
    package = folder / "flux"
    for name, text in files.items():
        file = package.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return package


def test_a_tree_in_order_breaks_no_rule(tmp_path):
    assert broken(write(tmp_path, GOOD)) == {}


@pytest.mark.parametrize(("module", "text", "rules"), BAD.values(), ids=BAD)
def test_a_tree_out_of_order_breaks_a_rule(tmp_path, module, text, rules):
    files = GOOD | NEEDED
    files[module] = files.get(module, "") + text + "\n"
    assert set(broken(write(tmp_path, files))) == rules
