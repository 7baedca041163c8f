"""Demo 4: a source, its edits, and what they look like without injection."""

import time
from collections.abc import Iterator
from pathlib import Path

from flux.device import pick_device
from flux.methods.stable_flow import Pass, Row, edit_passes, edit_steps
from flux.models import configs
from flux.pictures.files import to_pil
from flux.studies.edit.groups import Group, groups_of
from flux.studies.edit.report import report
from flux.studies.folder import RunFolder
from flux.studies.run import PAGE, Bars, load, machine, open_run, weights_folder
from flux.studies.spec import EditSpec
from flux.studies.spec.vital import read_vital_set
from flux.weights.identity import weights_id
from flux.weights.load import Models
from flux.weights.parts import FLOW


def run_edits(spec: EditSpec) -> RunFolder:
    """Make, or finish, the run of a spec; returns its folder. What went wrong with an edit is printed."""
    start = time.perf_counter()
    run = open_run(spec)
    if run.finished:
        return run
    for line in found_on_other_weights(spec):
        print(line)
    groups = list(groups_of(spec))
    seconds = make_pictures(spec, run, groups)
    results = report(spec, run, groups)
    seconds["all"] = time.perf_counter() - start
    run.finish({"seconds": seconds, **machine(pick_device(spec.model.device)), **results})
    print(f"{seconds['all']:.1f} s; open {run.path / PAGE}")
    return run


def found_on_other_weights(spec: EditSpec) -> Iterator[str]:
    """A line for each vital-set file of the spec whose sweep had other weights of the same model."""
    choices = [spec.layers, *(edit.layers for edit in spec.edits)]
    files = dict.fromkeys(each for each in choices if isinstance(each, str) and each.endswith(".json"))
    for file in files:
        vital = read_vital_set(Path(file))
        theirs = (vital.weights or {}).get(FLOW.title)
        if vital.model != spec.model.name or theirs is None:
            continue
        if theirs != weights_id(configs[spec.model.name], weights_folder(spec))[FLOW.title]:
            yield f"{file}: was found on other weights of {vital.model}; these may have other vital layers"


def make_pictures(spec: EditSpec, run: RunFolder, groups: list[Group]) -> dict[str, float]:
    """Make the pictures that are not there yet; returns seconds by what they were spent on."""
    missing = [(group, _missing(run, group)) for group in groups]
    if not any(passes for _, passes in missing):
        return {}
    start = time.perf_counter()
    models = load(spec)
    loaded = time.perf_counter()
    total = sum(len(each.rows) for group in groups for each in edit_passes(group.request))
    left = sum(len(each.rows) for _, passes in missing for each in passes)
    with Bars(total, total - left, spec.steps) as bars:
        for group, passes in missing:
            _make_group(run, models, group, passes, bars)
    return {"loading": loaded - start, "pictures": time.perf_counter() - loaded}


def _missing(run: RunFolder, group: Group) -> list[Pass]:
    """The passes of which a picture is not there yet, or damaged."""
    passes = edit_passes(group.request)
    return [each for each in passes if any(run.picture(group.files[row]) is None for row in each.rows)]


def _make_group(run: RunFolder, models: Models, group: Group, passes: list[Pass], bars: Bars) -> None:
    for step in edit_steps(models, group.request, passes) if passes else ():
        bars.step(step.step.index)
        for row, picture in step.pictures.items():
            about = {
                "prompt": _prompt(group, row),
                "seed": str(group.seed),
                "model": models.name,
                "layers": _layers(group, row),
            }
            if run.picture(group.files[row]) is None:
                run.save_picture(group.files[row], to_pil(picture), about)
        bars.made(len(step.pictures))


def _prompt(group: Group, row: Row) -> str:
    return group.edits[row.index].prompt if row.kind in ("edit", "plain") else group.request.source


def _layers(group: Group, row: Row) -> str:
    return " ".join(map(str, group.edits[row.index].layers)) if row.kind == "edit" else ""
