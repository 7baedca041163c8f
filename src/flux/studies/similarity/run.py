"""Demo 3: how alike pictures are; of a sweep's, which layers are vital."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import flux
from flux.device import pick_device
from flux.studies.folder import RunFolder
from flux.studies.machine import machine
from flux.studies.run import PAGE, changed, say_damage, say_made_already, say_where
from flux.studies.similarity.beside import Side, TwoSweeps, check_beside
from flux.studies.similarity.findings import pairs_of
from flux.studies.similarity.inputs import Comparison, Inputs, Matrix, Ranking, find_inputs, sweep_folder
from flux.studies.similarity.measures import REFERENCES, Pair
from flux.studies.similarity.measuring import Measured, Store, measure
from flux.studies.similarity.pictures_report import report_matrix, report_ranking
from flux.studies.similarity.probe_report import report_probe
from flux.studies.similarity.probed import files_of
from flux.studies.similarity.sources import MetricModel, default_metric, metric_models
from flux.studies.similarity.spec import DinoSpec
from flux.studies.similarity.sweep_report import report_sweep
from flux.studies.similarity.trying import Trial, bench_of, size_of_trial, spec_of
from flux.studies.sweep.folder import Sweep, read_sweep
from flux.weights.identity import pretrained_id

REPORTS = {Matrix: report_matrix, Ranking: report_ranking}
"""What writes the report, by what was compared."""


def make(spec: DinoSpec) -> None:
    """Make the run of a spec, or find it finished and its pictures unchanged.

    Prints what was left out and what was found. Raises ValueError where there is nothing to compare.
    """
    start = time.perf_counter()
    spec, inputs = found(spec)
    second = beside_of(spec, inputs)
    models = metric_models(spec, inputs)
    trial = trial_of(spec, inputs)
    run = _open(spec, inputs, models, second)
    if run.finished and not say_damage(run):
        say_made_already(run)
        return
    for line in inputs.problems:
        print(line)
    for metric, model in models.items():
        print(f"{metric.upper()}: {model.words()}")
    measured = _measure(spec, inputs)
    for line in measured.problems:
        print(line)
    problems = [*inputs.problems, *measured.problems]
    first = models.get(spec.metrics[0])
    record = first.record(spec.dtype) if first else {}
    beside = None
    if second is not None:
        for metric, model in metric_models(*second).items():
            print(f"beside, {metric.upper()}: {model.words()}")
        other = _measure(*second)
        measured.computed = {**measured.computed, **{f"beside, {k}": n for k, n in other.computed.items()}}
        problems += [*second[1].problems, *other.problems]
        beside = TwoSweeps(Side(spec, inputs, measured.figures), Side(*second, other.figures)).report
    comparison = Comparison(inputs, measured.figures, problems, record, beside, trial(run) if trial else None)
    said = _report(inputs)(spec, run, comparison)
    for line in said:
        print(line)
    seconds = time.perf_counter() - start
    came = {"computed": measured.computed, "said": said, "problems": problems}
    run.finish({"seconds": {"all": seconds}, **machine(pick_device(spec.device)), **came})
    print(f"{seconds:.1f} s; open {run.path / PAGE}")


def _to_try(spec: DinoSpec) -> str:
    return f"at most {size_of_trial(spec.editing)}"


def beside_of(spec: DinoSpec, inputs: Inputs) -> tuple[DinoSpec, Sweep] | None:
    """The second sweep, and the spec to measure it by: what a page of its own would rank by."""
    if spec.beside is None:
        return None
    other = read_sweep(sweep_folder(spec.beside))
    check_beside(inputs, other)
    return changed(spec, sweep=other.path, beside=None, metrics=(default_metric(other),)), other


def trial_of(spec: DinoSpec, inputs: Inputs) -> Callable[[RunFolder], Trial] | None:
    """What tries sets of layers in edits, in a run's folder.

    Raises ValueError for a sweep that is not by carry.
    """
    if spec.editing is None:
        return None
    if inputs.probe.name != "carry":
        raise ValueError(
            f"editing: {inputs.path} is a sweep by {inputs.probe.name}; sets are taken from the order of one "
            "by carry"
        )
    made_by = spec_of(inputs, spec.device, spec.editing)
    dino = metric_models(changed(spec, metrics=("dino",)), inputs)["dino"].source
    bench = bench_of(spec.editing, made_by, dino, spec.device, spec.clip)
    return lambda run: Trial(run, bench, made_by, spec.editing)


def _measure(spec: DinoSpec, inputs: Inputs) -> Measured:
    # Beside each picture; a sweep is a run of ours, and has one place for all.
    store = Store(inputs.path if isinstance(inputs, Sweep) else None)
    models = metric_models(spec, inputs)
    dino = next((model.source for metric, model in models.items() if metric != "clip"), "")
    return measure(spec, _pairs(inputs), dino, store, _references(inputs))


def describe(spec: DinoSpec, card: float | None = None) -> str:
    """What `--dry-run` says: what would be compared by what, and where it goes. Nothing is written."""
    if card is not None:
        raise ValueError(f"--card {card:g}: demo 3 compares pictures; ask the demo that makes them")
    spec, inputs = found(spec)
    second, trial = beside_of(spec, inputs), trial_of(spec, inputs)
    pairs = _pairs(inputs) + (_pairs(second[1]) if second else [])
    pictures = {path for pair in pairs for path in pair}
    run = RunFolder.find(spec.output, spec.recipe(), {})
    models = [
        f"  {metric.upper() + ' ':<6}{model.source}: "
        + ("there" if pretrained_id(model.source) else "not here, to be downloaded")
        for metric, model in metric_models(spec, inputs).items()
    ]
    return "\n".join(
        [
            f"would compare {len(pairs)} pairs of {len(pictures)} pictures by {', '.join(spec.metrics)}, "
            f"in {run.path}",
            *([f"because {run.note}"] if run.note else []),
            *(["needs", *models] if models else []),
            *([f"would make {_to_try(spec)} pictures to try sets of layers"] if trial else []),
            *inputs.problems,
        ]
    )


def resolved(spec: DinoSpec) -> DinoSpec:
    """The spec with the folder of its sweep in the place of the spec that made it."""
    return spec if spec.sweep is None else changed(spec, sweep=sweep_folder(spec.sweep))


def found(spec: DinoSpec) -> tuple[DinoSpec, Inputs]:
    """What is compared, and the spec with all that decides by what."""
    spec = resolved(spec)
    inputs = find_inputs(spec)
    return changed(spec, metrics=spec.metrics or (default_metric(inputs),)), inputs


def _pairs(inputs: Inputs) -> list[Pair]:
    if not isinstance(inputs, Sweep):
        return inputs.pairs
    return list(pairs_of(inputs).values()) if inputs.skips else files_of(inputs)


def _references(inputs: Inputs) -> list[Path]:
    """The first references of a sweep, which patch tokens are whitened by."""
    if not isinstance(inputs, Sweep):
        return []
    found = (inputs.reference(prompt) for prompt in range(len(inputs.prompts)))
    return [file for file in found if file is not None][:REFERENCES]


def _report(inputs: Inputs) -> Callable[[DinoSpec, RunFolder, Comparison], list[str]]:
    if isinstance(inputs, Sweep):
        return report_sweep if inputs.skips else report_probe
    return REPORTS[type(inputs)]


def _open(
    spec: DinoSpec,
    inputs: Inputs,
    models: Mapping[str, MetricModel],
    second: tuple[DinoSpec, Sweep] | None = None,
) -> RunFolder:
    """The folder of the run. A finished one counts only if pictures and models are those it was made from."""
    pairs, problems, used = _pairs(inputs), [*inputs.problems], dict(models)
    if second is not None:
        pairs += _pairs(second[1])
        problems += second[1].problems
        used |= {f"beside, {metric}": model for metric, model in metric_models(*second).items()}
    if spec.editing is not None and spec.editing.by == "clip":
        used["made"] = MetricModel(spec.clip)
    setting = {
        "flux": flux.__version__,
        "device": str(pick_device(spec.device)),
        "pictures": _fingerprint(pairs, problems),
        "models": {metric: pretrained_id(each.source, spec.dtype) for metric, each in used.items()},
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
        digest.update(os.fsencode(path) + f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
