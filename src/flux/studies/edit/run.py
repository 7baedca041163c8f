"""Demo 4: a source, its edits, and what they look like without injection."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from flux.methods.stable_flow import EditRequest, Pass, Row, edit_passes, edit_steps
from flux.models import configs
from flux.pictures.files import to_pil
from flux.studies.cost import Work
from flux.studies.edit.report import report
from flux.studies.edit.requests import file_of, requests
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.watch import watch_files, watch_passes, watched_of
from flux.studies.layers import is_layer_file
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress
from flux.studies.run import dino_source, weights_folder
from flux.studies.vital import read_vital_set
from flux.weights.identity import weights_id
from flux.weights.load import Models
from flux.weights.parts import FLOW


def work(spec: EditSpec) -> Work:
    passes = [(request, each) for request in requests(spec) for each in edit_passes(request)]
    rows = [len(each.rows) for _, each in passes]
    dino = {} if spec.checks.dino == "off" else {"DINO for the checks": dino_source(spec, spec.checks.dino)}
    return Work(
        files=list(
            dict.fromkeys(file_of(spec, request.seed, row) for request, each in passes for row in each.rows)
        ),
        batches=rows,
        prompts=list(dict.fromkeys((spec.source.prompt, *(edit.prompt for edit in spec.edits)))),
        decoded=sum(rows),
        models=dino,
        kept=watch_files(spec),
    )


def pictures(spec: EditSpec, models: Models, missing: AbstractSet[str]) -> Iterator[Progress]:
    """Make the passes that lack a picture."""
    for request in requests(spec):
        passes = [
            each for each in edit_passes(request) if not missing.isdisjoint(_files(spec, request, each))
        ]
        if not passes:
            continue
        passes, watched = watch_passes(spec, request, passes, models)
        for step in edit_steps(models, request, passes):
            made: list[Picture | KeptFile] = [
                Picture(file_of(spec, request.seed, row), to_pil(picture), _about(request, row, models))
                for row, picture in step.pictures.items()
            ]
            if made:
                made += watched(step.index)
            yield Progress(step.step.index, made)


def _files(spec: EditSpec, request: EditRequest, each: Pass) -> list[str]:
    return [*(file_of(spec, request.seed, row) for row in each.rows), *watched_of(spec, request, each)]


def _about(request: EditRequest, row: Row, models: Models) -> dict[str, str]:
    """What a picture's file says of it."""
    injected = request.edits[row.index].layers if row.kind == "edit" else ()
    return {
        "prompt": request.prompt_of(row),
        "seed": str(request.seed),
        "model": models.name,
        "layers": " ".join(map(str, injected)),
    }


def found_on_other_weights(spec: EditSpec) -> Iterator[str]:
    """A line for each vital-set file of the spec whose sweep had other weights of the same model."""
    choices = [spec.layers, *(edit.layers for edit in spec.edits)]
    files = dict.fromkeys(each for each in choices if is_layer_file(each))
    for file in files:
        vital = read_vital_set(Path(file))
        theirs = (vital.weights or {}).get(FLOW.title)
        if vital.model != spec.model.name or theirs is None:
            continue
        if theirs != weights_id(configs[spec.model.name], weights_folder(spec))[FLOW.title]:
            yield f"{file}: was found on other weights of {vital.model}; these may have other vital layers"


RUN = PictureRun(work, pictures, report, notes=found_on_other_weights)
