"""What demo 3 compares: a sweep's cells, pictures with pictures, or one with many. Imports no torch."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux.extras import need
from flux.files import read_json_object
from flux.models import FROM_TEXT, Layers, configs
from flux.studies.folder import RECORD, RunFolder
from flux.studies.pages.plots import check_plots
from flux.studies.pages.render import PagePicture
from flux.studies.similarity.measures import Figures, Pair
from flux.studies.similarity.places import pictures_in, printable
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.folder import Sweep, read_sweep

if TYPE_CHECKING:
    from flux.studies.similarity.trying import Trial


@dataclass(frozen=True)
class Matrix:
    """Each of some pictures with each of others; the same list twice for all with all."""

    rows: tuple[Path, ...]
    columns: tuple[Path, ...]
    problems: tuple[str, ...]

    @property
    def pairs(self) -> list[Pair]:
        """In order; of a list with itself each pair once, and no picture with itself."""
        if self.rows == self.columns:
            return [(a, b) for i, a in enumerate(self.rows) for b in self.columns[i + 1 :]]
        return [(a, b) for a in self.rows for b in self.columns]


@dataclass(frozen=True)
class Ranking:
    """One picture with many."""

    picture: Path
    against: tuple[Path, ...]
    problems: tuple[str, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [(self.picture, other) for other in self.against]


Inputs = Sweep | Matrix | Ranking

Report = Callable[[RunFolder], tuple[PagePicture, str]]
"""Writes into a run's folder; returns a picture for its page and a sentence."""


@dataclass(frozen=True)
class Comparison:
    """What was compared and what came of it.

    problems: what was left out, a line each. model: what measured similarity, for records; empty where no
    model did. beside: writes what comes of a second sweep.
    trial: tries sets of layers in edits.
    """

    inputs: Inputs
    figures: Mapping[Pair, Figures]
    problems: Sequence[str]
    model: Mapping[str, Any]
    beside: Report | None = None
    trial: "Trial | None" = None


def check(spec: DinoSpec) -> None:
    """Whether the job can be done: the extras it needs, and pictures to compare.

    Raises ImportError and ValueError, one line.
    """
    if spec.sweep is not None:
        check_plots()
        need("scipy.stats", "similarity", "a confidence interval")
        sweep_folder(spec.sweep)
    if "ssim" in (spec.metrics or ()):
        need("skimage.metrics", "similarity", "SSIM")


def find_inputs(spec: DinoSpec) -> Inputs:
    """What the spec asks for, as it is found on the disk. ValueError, one line, for nothing to compare."""
    if spec.sweep is not None:
        sweep = read_sweep(spec.sweep)
        model_layers(sweep)
        able = {cell.prompt for cell in sweep.cells if cell.part and sweep.reference(cell.prompt)}
        beside = "reference"
        if able and sweep.probe.sources:
            able, beside = {cell.prompt for cell in sweep.cells if cell.source} & able, "source"
        if not able:
            why = f": {sweep.problems[0]}" if sweep.problems else ""
            raise ValueError(f"{spec.sweep} has no picture beside its {beside} to compare{why}")
        return sweep
    if spec.pictures is not None:
        return _matrix(spec.pictures)
    (picture,), problems = pictures_in([spec.picture])
    against, more = pictures_in(spec.against)
    others = tuple(path for path in against if path != picture)
    if not others:
        raise ValueError(f"{printable(picture)}: against names nothing but itself to compare it with")
    return Ranking(picture, others, tuple(problems + more))


def model_layers(sweep: Sweep) -> Layers:
    """The layers of the sweep's model. ValueError for a model or a layer that is not known here."""
    name = sweep.recipe["model"]["name"]
    if name not in FROM_TEXT:
        raise ValueError(f"{sweep.path}: made with the model {name!r}, which is not known here")
    layers = configs[name].layers
    try:
        layers.indices(layer for part in sweep.parts for layer in part.layers)
    except ValueError as error:
        raise ValueError(f"{sweep.path}: {error}") from None
    return layers


def sweep_folder(path: Path) -> Path:
    """The folder itself, or that of the latest run of demo 2's spec in the file.

    Raises ValueError, one line that says what to do, where there is none.
    """
    if path.is_dir():
        return path
    from flux.studies.reading import load_spec
    from flux.studies.sweep.spec import SkipSpec

    spec = load_spec(SkipSpec, path)
    recipe = json.loads(json.dumps(spec.recipe()))
    made = [folder for folder in _numbered(spec.output) if _recipe(folder) == recipe]
    if made:
        return max(made, key=lambda folder: (folder / RECORD).stat().st_mtime_ns)
    if _recipe(spec.output) is not None:
        raise ValueError(
            f"{spec.output} holds a sweep of another spec than {path}: name the folder, --sweep {spec.output}"
        )
    raise ValueError(f"no sweep of {path} in {spec.output}: run demos/demo_2_skip.py {path} first")


def _numbered(base: Path) -> Iterator[Path]:
    """The folder and `<folder>-2`, `<folder>-3`, ... as far as they are there."""
    number, path = 1, base
    while path.exists():
        yield path
        number += 1
        path = base.with_name(f"{base.name}-{number}")


def _recipe(folder: Path) -> Any:
    return (read_json_object(folder / RECORD) or {}).get("spec")


def _matrix(places: Sequence[Path]) -> Matrix:
    if len(places) == 2:
        rows, problems = pictures_in(places[:1])
        columns, more = pictures_in(places[1:])
        problems += more
    else:
        rows, problems = pictures_in(places)
        columns = rows
    if rows == columns and len(rows) < 2:
        raise ValueError(f"{printable(places[0])}: one picture alone; name a second one to compare it with")
    return Matrix(tuple(rows), tuple(columns), tuple(problems))
