"""Demo 3: how alike pictures are; of a sweep's, which layers are vital."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import flux
from flux.device import pick_device
from flux.models import configs
from flux.studies.folder import RunFolder
from flux.studies.machine import machine
from flux.studies.run import HUB_DINO, PAGE, changed, say_made_already, say_where
from flux.studies.similarity.findings import pairs_of
from flux.studies.similarity.inputs import Comparison, Inputs, Matrix, Ranking, find_inputs, sweep_folder
from flux.studies.similarity.measures import Pair
from flux.studies.similarity.measuring import Store, measure
from flux.studies.similarity.pictures_report import report_matrix, report_ranking
from flux.studies.similarity.spec import COSINES, DinoSpec
from flux.studies.similarity.sweep_report import report_sweep
from flux.studies.sweep.folder import Sweep
from flux.weights.identity import pretrained_id

OWN = configs["flux-tiny"].home
OWN_SIZE = (128, 128)
"""Pictures of flux-tiny."""


REPORTS = {Sweep: report_sweep, Matrix: report_matrix, Ranking: report_ranking}
"""What writes the report, by what was compared."""


def make(spec: DinoSpec) -> None:
    """Make the run of a spec, or find it finished and its pictures unchanged.

    Prints what was left out and what was found. Raises ValueError where there is nothing to compare.
    """
    start = time.perf_counter()
    spec = resolved(spec)
    inputs = find_inputs(spec)
    sources = model_sources(spec, inputs)
    run = _open(spec, inputs, sources)
    if run.finished:
        say_made_already(run)
        return
    for line in inputs.problems:
        print(line)
    for metric, source in sources.items():
        token = f", {_token(spec)}" if metric == "dino" else ""
        print(f"{metric.upper()}: {source}{token}")
    # Beside each picture; a sweep is a run of ours, and has one place for all.
    store = Store(inputs.path if isinstance(inputs, Sweep) else None)
    measured = measure(spec, _pairs(inputs), sources.get("dino", ""), store)
    for line in measured.problems:
        print(line)
    problems = [*inputs.problems, *measured.problems]
    comparison = Comparison(inputs, measured.figures, problems, _model(spec, sources))
    said = REPORTS[type(inputs)](spec, run, comparison)
    for line in said:
        print(line)
    seconds = time.perf_counter() - start
    found = {"computed": measured.computed, "said": said, "problems": problems}
    run.finish({"seconds": {"all": seconds}, **machine(pick_device(spec.device)), **found})
    print(f"{seconds:.1f} s; open {run.path / PAGE}")


def describe(spec: DinoSpec) -> str:
    """What `--dry-run` says: what would be compared by what, and where it goes. Nothing is written."""
    spec = resolved(spec)
    inputs = find_inputs(spec)
    pairs = _pairs(inputs)
    pictures = {path for pair in pairs for path in pair}
    run = RunFolder.find(spec.output, spec.recipe(), {})
    models = [
        f"  {metric.upper():<6}{source}: {'there' if pretrained_id(source) else 'not here, to be downloaded'}"
        for metric, source in model_sources(spec, inputs).items()
    ]
    return "\n".join(
        [
            f"would compare {len(pairs)} pairs of {len(pictures)} pictures by {', '.join(spec.metrics)}, "
            f"in {run.path}",
            *([f"because {run.note}"] if run.note else []),
            *(["needs", *models] if models else []),
            *inputs.problems,
        ]
    )


def resolved(spec: DinoSpec) -> DinoSpec:
    """The spec with the folder of its sweep in the place of the spec that made it."""
    return spec if spec.sweep is None else changed(spec, sweep=sweep_folder(spec.sweep))


def model_sources(spec: DinoSpec, inputs: Inputs) -> dict[str, str]:
    """The folder or hub name of each model that the spec's metrics need."""
    sources = {"dino": _dino_source(spec, inputs), "clip": spec.clip}
    return {metric: sources[metric] for metric in spec.metrics if metric in COSINES}


def _dino_source(spec: DinoSpec, inputs: Inputs) -> str:
    """The DINO model of the spec; with auto that of the sweep's model, or the one for the pictures' size."""
    if spec.model != "auto":
        return spec.model
    own = OWN / "dino"
    if isinstance(inputs, Sweep):
        model = inputs.recipe["model"]
        weights = Path(model["weights"]) / "dino" if model.get("weights") else None
        if weights and weights.is_dir():
            return str(weights)
        return str(own) if configs[model["name"]].embedded else HUB_DINO
    return str(own) if all(_size(path) == OWN_SIZE for pair in inputs.pairs for path in pair) else HUB_DINO


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _pairs(inputs: Inputs) -> list[Pair]:
    return list(pairs_of(inputs).values()) if isinstance(inputs, Sweep) else inputs.pairs


def _open(spec: DinoSpec, inputs: Inputs, sources: dict[str, str]) -> RunFolder:
    """The folder of the run. A finished one counts only if pictures and models are those it was made from."""
    setting = {
        "flux": flux.__version__,
        "device": str(pick_device(spec.device)),
        "pictures": _fingerprint(_pairs(inputs), inputs.problems),
        "models": {metric: pretrained_id(source, spec.dtype) for metric, source in sources.items()},
    }
    found = RunFolder.find(spec.output, spec.recipe(), setting)
    outdated = found.finished and (found.record() or {}).get("setting") != found.setting
    if outdated and not spec.overwrite:
        print(f"the pictures or models have changed since {found.path} was made; it is made again")
    run = RunFolder.open(spec.output, spec.recipe(), setting, overwrite=spec.overwrite or outdated)
    say_where(run)
    return run


def _fingerprint(pairs: Sequence[Pair], problems: Sequence[str]) -> str:
    """A number that changes with the pictures: their names, sizes and times of change."""
    digest = hashlib.sha256(json.dumps(list(problems)).encode())
    for path in dict.fromkeys(path for pair in pairs for path in pair):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _token(spec: DinoSpec) -> str:
    return "class token" if spec.token == "class" else "mean of the patch tokens"


def _model(spec: DinoSpec, sources: dict[str, str]) -> dict[str, Any]:
    """What measured similarity, for records: no place on this machine, but the identity of the weights."""
    metric = spec.metrics[0]
    if metric not in sources:
        return {}
    source = sources[metric]
    own = source == str(OWN / "dino")
    name = "flux-tiny's own DINO" if own else Path(source).name if Path(source).is_dir() else source
    token = {"token": spec.token} if metric == "dino" else {}
    return {"metric_model": name, "identity": pretrained_id(source, spec.dtype), **token}
