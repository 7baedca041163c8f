"""Demo 4: a source, its edits, and what they look like without injection.

An edit is pasted into its source by what it changed, unless the spec says that it is not: see
`flux.photos.beside`.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

from PIL import Image

from flux.methods.masks import unpacked
from flux.methods.stable_flow import EditRequest, EditStep, Pass, Row, edit_passes, edit_steps, with_sources
from flux.models import configs
from flux.photos.beside import GeneratedEdit, come_back
from flux.photos.paste import PASTE_BELOW
from flux.pictures.files import to_pil
from flux.studies.cost import Work
from flux.studies.edit.figures import FIGURES, as_text
from flux.studies.edit.finding import evaluations_to_find, first_run, with_found_masks
from flux.studies.edit.keeping import KeptSources, held_bytes, kept_note, kept_record
from flux.studies.edit.report import report
from flux.studies.edit.requests import file_of, found_mask_of, items_of, mask_of, requests
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.wanted import looking_notes, more_prompts
from flux.studies.edit.watch import watch_files, watch_passes, watched_of
from flux.studies.folder import RunFolder
from flux.studies.layers import layer_file
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress, look_at
from flux.studies.references import References
from flux.studies.run import dino_source, lora_id, precision_in_words, precision_record, weights_folder
from flux.studies.vital import read_vital_set
from flux.weights.identity import weights_id
from flux.weights.load import Models
from flux.weights.parts import FLOW, LORA


def work(spec: EditSpec) -> Work:
    asked = requests(spec)
    passes = [(request, each) for request in asked for each in edit_passes(request)]
    firsts = filter(None, (first_run(spec, request, each) for request, each in passes))
    rows = [len(each.rows) for _, each in passes]
    batches = [*rows, *(len(each.rows) for each in firsts)]
    dino = {} if spec.checks.dino == "off" else {"DINO for the checks": dino_source(spec, spec.checks.dino)}
    sampled = sum(batches) * spec.integrator.record.evaluations_in(spec.steps)
    items = [item for request in asked for _, item in items_of(spec, request.seed)]
    to_find = sum(evaluations_to_find(spec, found_mask_of(spec, item)) for item in items)
    guided = spec.true_cfg is not None
    return Work(
        files=list(dict.fromkeys(file for request, each in passes for file in _files(spec, request, each))),
        batches=batches,
        prompts=list(dict.fromkeys((*_prompts(spec), *more_prompts(spec)))),
        decoded=sum(rows),
        models=dino,
        kept=watch_files(spec),
        held=held_bytes(spec),
        notes=notes_of([spec]),
        evaluations=(1 + guided) * sampled + to_find if guided or to_find else None,
    )


def _prompts(spec: EditSpec) -> list[str]:
    found = (found_mask_of(spec, edit) for edit in spec.edits)
    empty = [""] if any(mask is not None and mask.where != "auto" for mask in found) else []
    return [spec.source.prompt, *(edit.prompt for edit in spec.edits), *empty]


def notes_of(specs: Sequence[EditSpec]) -> tuple[str, ...]:
    """What `--dry-run` says of a spec, or of all cells of a scan: what is looked at, pasted and kept."""
    when, looking = specs[0].paste.when, looking_notes(specs[0])
    only = f" where that is less than {PASTE_BELOW:.0%} of it" if when == "auto" else ""
    pasted = [] if when is False else [f"  each edit is pasted into its source by what it changed{only}"]
    return (*looking, *pasted, *kept_note(*specs))


def pictures(
    spec: EditSpec,
    models: Models,
    missing: AbstractSet[str],
    run: RunFolder,
    sources: KeptSources | None = None,
) -> Iterator[Progress]:
    """Make the passes that lack a picture. sources: those that are kept for other runs, too."""
    size, sources = (spec.width, spec.height), sources or KeptSources()
    seen = References(spec, models, [(spec.reference, size)]).of(spec.reference, size)
    for request in requests(spec):
        request = replace(request, reference=seen)
        every = edit_passes(request, sources.of(request))
        passes = [
            each
            for each in every
            if not missing.isdisjoint([*_files(spec, request, each), *watched_of(spec, request, each)])
        ]
        if not passes:
            continue
        for each in passes:
            request = yield from with_found_masks(spec, models, request, each)
        rows = [each.rows for each in passes]
        every = edit_passes(request, sources.of(request))
        passes = with_sources(every, [each for each in every if each.rows in rows])
        file = file_of(spec, request.seed, Row("source"))
        # The one that is kept: made again in other company, a source may differ by a rounding.
        source = None if file in missing else run.picture(file)
        passes, watched = watch_passes(spec, request, passes, models)
        for step in edit_steps(models, request, passes):
            made: list[Picture | KeptFile] = []
            kept, at_end = passes[step.index].kept, {}
            if kept is not None and step.pictures:
                at_end = kept_record(kept)
                step = _beside(kept.last, step)
            if source is None and Row("source") in step.pictures:
                source = to_pil(step.pictures[Row("source")])
            for row in step.rows if step.pictures else ():
                made += _pictures(spec, request, row, step, source, models)
            if made:
                made += watched(step.index)
            estimate = step.step.estimate
            preview = partial(look_at, models, estimate, request.sampling, request.offload)
            yield Progress(step.step.index, made, at_end, steps=step.step.steps, preview=preview)


def _beside(source: EditStep, step: EditStep) -> EditStep:
    """The last step of a pass with the pictures of the source that was made before it."""
    pictures, latents = (
        {**a, **b} for a, b in ((source.pictures, step.pictures), (source.latents, step.latents))
    )
    return replace(step, pictures=pictures, latents=latents)


def _files(spec: EditSpec, request: EditRequest, each: Pass) -> list[str]:
    """The pictures of a pass."""
    masks = (mask_of(spec, request.seed, row) for row in each.rows)
    return [*(file_of(spec, request.seed, row) for row in each.rows), *filter(None, masks)]


def _pictures(
    spec: EditSpec,
    request: EditRequest,
    row: Row,
    step: EditStep,
    source: Image.Image | None,
    models: Models,
) -> list[Picture]:
    """The pictures of a row: of an edit that may be pasted also what it changed."""
    file, about = file_of(spec, request.seed, row), _about(request, row, models)
    mask = mask_of(spec, request.seed, row)
    if mask is None:
        return [Picture(file, to_pil(step.pictures[row]), about)]
    both = (Row("source"), row)
    pictures, latents = (tuple(of[each] for each in both) for of in (step.pictures, step.latents))
    where = request.edits[row.index].mask
    grid = None if where is None else unpacked(where, (spec.height // 16, spec.width // 16))[0]
    edit = GeneratedEdit(source, pictures, latents, models.spec.latent_spread, grid)
    back = come_back(edit, spec.paste.when, spec.paste.residual)
    about |= {FIGURES: as_text(back.figures)}
    return [Picture(file, back.picture, about), Picture(mask, back.mask_image, about)]


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
    files = dict.fromkeys(file for each in choices if (file := layer_file(each)) is not None)
    for file in files:
        vital = read_vital_set(file)
        theirs = vital.weights or {}
        if vital.model != spec.model.name or FLOW.title not in theirs:
            continue
        ours = weights_id(configs[spec.model.name], weights_folder(spec)) | lora_id(spec)
        if any(theirs.get(part.title) != ours.get(part.title) for part in (FLOW, LORA)):
            yield f"{file}: was found on other weights of {vital.model}; these may have other vital layers"
        kept, now = {"precision": vital.precision}, precision_record(spec)
        if vital.precision != now.get("precision"):
            words = f"was found with weights in {precision_in_words(kept)}, and these are in"
            yield f"{file}: {words} {precision_in_words(now)}; they may have other vital layers"


RUN = PictureRun(work, pictures, report, notes=found_on_other_weights, goes_on=True)
