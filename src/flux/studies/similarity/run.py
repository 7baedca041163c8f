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
from flux.studies.run import HUB_DINO, PAGE, machine
from flux.studies.similarity.compared import Compared, Matrix, Pair, compared, resolved
from flux.studies.similarity.layer_report import MEASURES, VITAL, write_layer_report
from flux.studies.similarity.layer_similarity import findings, pairs_of
from flux.studies.similarity.measuring import Store, measure
from flux.studies.similarity.picture_similarity import write_matrix, write_ranking
from flux.studies.spec import DinoSpec
from flux.studies.spec.dino import COSINES
from flux.studies.sweep.folder import Sweep
from flux.weights.identity import pretrained_id

OWN = configs["flux-tiny"].home
OWN_SIZE = (128, 128)
"""Pictures of flux-tiny."""


def run_similarity(spec: DinoSpec) -> RunFolder:
    """Make the run of a spec, or find it finished and its pictures unchanged; returns its folder.

    Prints what was left out and what was found. Raises ValueError where there is nothing to compare.
    """
    start = time.perf_counter()
    spec = resolved(spec)
    asked = compared(spec)
    pairs = _pairs(asked)
    sources = model_sources(spec, asked)
    run = _open(spec, asked, pairs, sources)
    if run.finished:
        print(f"made already: {run.path / PAGE} (--overwrite makes it again)")
        return run
    for line in asked.problems:
        print(line)
    for metric, source in sources.items():
        token = f", {_token(spec)}" if metric == "dino" else ""
        print(f"{metric.upper()}: {source}{token}")
    # Beside each picture; a sweep is a run of ours, and has one place for all.
    store = Store(asked.path if isinstance(asked, Sweep) else None)
    measured = measure(spec, pairs, sources.get("dino", ""), store)
    for line in measured.problems:
        print(line)
    problems = [*asked.problems, *measured.problems]
    model = _model(spec, sources)
    if isinstance(asked, Sweep):
        found = findings(spec, asked, measured.figures)
        if not any(found.metric in layer.figures for layer in found.layers):
            raise ValueError(f"{asked.path}: {MEASURES[found.metric]} could be measured for no picture")
        said = write_layer_report(spec, asked, found, run, problems, model)
        if found.vital is not None and found.vital.layers:
            said.append(f"for demo 4: --layers {run.path / VITAL}")
    else:
        write = write_matrix if isinstance(asked, Matrix) else write_ranking
        about = {"similarity": ", ".join(MEASURES[metric] for metric in spec.metrics), **_shown(model)}
        said = write(spec, asked, measured.figures, run, problems, about)
    for line in said:
        print(line)
    seconds = time.perf_counter() - start
    run.finish(
        {
            "seconds": {"all": seconds},
            **machine(pick_device(spec.device)),
            "computed": measured.computed,
            "said": said,
            "problems": problems,
        }
    )
    print(f"{seconds:.1f} s; open {run.path / PAGE}")
    return run


def describe(spec: DinoSpec) -> str:
    """What `--dry-run` says: what would be compared by what, and where it goes. Nothing is written."""
    spec = resolved(spec)
    asked = compared(spec)
    pairs = _pairs(asked)
    pictures = {path for pair in pairs for path in pair}
    sources = model_sources(spec, asked)
    run = RunFolder.find(spec.output, spec.recipe(), {})
    models = [
        f"  {metric.upper():<6}{source}: {'there' if pretrained_id(source) else 'not here, to be downloaded'}"
        for metric, source in sources.items()
    ]
    return "\n".join(
        [
            f"would compare {len(pairs)} pairs of {len(pictures)} pictures by {', '.join(spec.metrics)}, "
            f"in {run.path}",
            *([f"because {run.note}"] if run.note else []),
            *(["needs", *models] if models else []),
            *asked.problems,
        ]
    )


def model_sources(spec: DinoSpec, asked: Compared) -> dict[str, str]:
    """The folder or hub name of each model that the spec's metrics need."""
    sources = {"dino": dino_source(spec, asked), "clip": spec.clip}
    return {metric: sources[metric] for metric in spec.metrics if metric in COSINES}


def dino_source(spec: DinoSpec, asked: Compared) -> str:
    """The DINO model of the spec; with auto that of the sweep's model, or the one for the pictures' size."""
    if spec.model != "auto":
        return spec.model
    own = OWN / "dino"
    if isinstance(asked, Sweep):
        model = asked.recipe["model"]
        weights = Path(model["weights"]) / "dino" if model.get("weights") else None
        if weights and weights.is_dir():
            return str(weights)
        return str(own) if configs[model["name"]].embedded else HUB_DINO
    return str(own) if all(_size(path) == OWN_SIZE for pair in asked.pairs for path in pair) else HUB_DINO


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _pairs(asked: Compared) -> list[Pair]:
    return list(pairs_of(asked).values()) if isinstance(asked, Sweep) else asked.pairs


def _open(spec: DinoSpec, asked: Compared, pairs: Sequence[Pair], sources: dict[str, str]) -> RunFolder:
    """The folder of the run. A finished one counts only if pictures and models are those it was made from."""
    setting = {
        "flux": flux.__version__,
        "device": str(pick_device(spec.device)),
        "pictures": _fingerprint(pairs, asked.problems),
        "models": {metric: pretrained_id(source, spec.dtype) for metric, source in sources.items()},
    }
    found = RunFolder.find(spec.output, spec.recipe(), setting)
    changed = found.finished and (found.record() or {}).get("setting") != found.setting
    if changed and not spec.overwrite:
        print(f"the pictures or models have changed since {found.path} was made; it is made again")
    run = RunFolder.open(spec.output, spec.recipe(), setting, overwrite=spec.overwrite or changed)
    if run.note:
        print(f"{run.note}; this run goes to {run.path}")
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


def _shown(model: dict[str, Any]) -> dict[str, Any]:
    names = {"metric_model": "model", "token": "token"}
    return {names[key]: value for key, value in model.items() if key in names}
