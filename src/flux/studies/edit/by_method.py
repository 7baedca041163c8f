"""Demo 4 with a method: sources are opened, edited and brought home; pictures come with their figures."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from functools import lru_cache, partial

from PIL import Image

from flux.generate import Sampling
from flux.methods import MethodRecord
from flux.methods.counting import count_evaluations
from flux.methods.lookup import find_method, load_function
from flux.photos.editing import EditedPhoto, PhotoRequest, PhotoStep, SourceEdit, edit_photo_steps
from flux.photos.framing import Frame
from flux.photos.sources import EditSource, OpenedSource
from flux.pictures.features import Dino
from flux.pictures.files import to_pil
from flux.studies.cost import Work
from flux.studies.edit.choices import as_word, evaluations_of
from flux.studies.edit.figures import FIGURES, as_text, figures_of
from flux.studies.edit.gates import Told, lines_of, listed, replay_evaluations, replay_of_spec
from flux.studies.edit.items import FOUND
from flux.studies.edit.jobs import (
    Batch,
    EditJob,
    FoundMask,
    batches_of,
    edited_size,
    jobs_of,
    mask_picture,
    size_of,
    sizes,
)
from flux.studies.edit.method_report import report
from flux.studies.edit.method_watch import BatchWatcher, watch_files
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import load_dino
from flux.studies.edit.wanted import looking_notes, more_prompts, negative_of, regional_of, regions_of
from flux.studies.edit.ways import look_of, mask_of, operators_of, schedules_of
from flux.studies.folder import RunFolder
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress, look_at
from flux.studies.references import References
from flux.studies.run import dino_source
from flux.weights.load import Models


def work(spec: EditSpec, opening: Sequence[Batch] | None = None) -> Work:
    """What a spec asks for. opening: batches in which its sources are opened; None for all."""
    batches, jobs = batches_of(spec), jobs_of(spec)
    each = _evaluations(spec)
    sources = {job.file("source") for job in jobs}
    beside = _of_sources(spec, batches if opening is None else opening)
    dino = {} if spec.checks.dino == "off" else {"DINO for the checks": dino_source(spec, spec.checks.dino)}
    prompts = [prompt for job in jobs for prompt in (job.source.prompt, job.edit.prompt)]
    return Work(
        files=[file for batch in batches for file in batch.files],
        batches=[2 * len(batch.jobs) for batch in batches],
        prompts=list(dict.fromkeys([*prompts, "", *more_prompts(spec)])),
        decoded=len(jobs) + len(sources),
        models=dino,
        kept=[file for batch in batches for file in watch_files(spec, batch)],
        evaluations=None if each is None else sum(each) + beside,
        notes=notes_of([spec]),
        size=edited_size(spec),
    )


def _of_sources(spec: EditSpec, batches: Sequence[Batch]) -> int:
    """Evaluations of one row that sources take.

    One that is generated is sampled in each batch anew; if any is new to a batch, all of it are measured.
    """
    sampled = spec.integrator.record.evaluations_in(spec.steps)
    drawn = [batch for batch in batches if batch.jobs[0].source.image is None]
    measured = [batch for batch in batches if batch.first]
    replays = replay_evaluations(spec) * sum(len(_sources(batch)) for batch in measured)
    return sampled * sum(len(_sources(batch)) for batch in drawn) + replays


def _evaluations(spec: EditSpec) -> list[int] | None:
    """Of one row, for each edit, its source's included, and what it takes to find its mask.

    None for a method of the user's own, which might do anything.
    """
    if spec.method.is_own:
        return None
    masks = [job.way.mask for job in jobs_of(spec)]
    by_mask = {mask: _to_make(spec, mask) for mask in set(masks)}
    return [by_mask[mask] for mask in masks]


def _to_make(spec: EditSpec, mask: FoundMask | None) -> int:
    settings = json.dumps(spec.settings, sort_keys=True)
    return _counted(spec.method.name, spec.steps, settings, spec.true_cfg is not None, mask)


@lru_cache(maxsize=2048)
def _counted(method: str, steps: int, settings: str, negative: bool, mask: FoundMask | None) -> int:
    """As `count_evaluations`, once: a dry run of a scan asks for each cell's several times.

    settings: as JSON.
    """
    found = {} if mask is None else {"mask": mask.where, "of_mask": dict(mask.settings)}
    return count_evaluations(find_method(method), steps, json.loads(settings), negative=negative, **found)


def notes_of(specs: Sequence[EditSpec]) -> tuple[str, ...]:
    """What `--dry-run` says of the method and of the photos of a spec, or of all cells of a scan."""
    spec, row = specs[0], find_method(specs[0].method.name)
    every = [_settings_in_words(each, row) for each in specs]
    said = [f"{name} {_one(*(each[name] for each in every))}" for name in every[0]]
    return (
        f"by {row.name} ({row.source}): {row.about}",
        f"  {', '.join(said) or 'no settings'}",
        f"  evaluations of one row an edit: {_taken(specs)}",
        *([f"  where it tries again: {row.again} more"] if getattr(row, "again", "") else []),
        *_replay_notes(specs),
        *looking_notes(spec),
        *(f"  {line}" for line in sizes(spec)),
    )


def _settings_in_words(spec: EditSpec, row: MethodRecord) -> dict[str, str]:
    settings = row.defaults | spec.settings
    if spec.model.record.guidance is None:
        settings = {name: value for name, value in settings.items() if not name.endswith("guidance")}
    return {name: as_word(value) for name, value in settings.items()}


def _one(*words: str) -> str:
    """What is the same in all cells of a scan, else that it is not."""
    return words[0] if len(set(words)) == 1 else "varies"


def _range(counts: Iterable[int]) -> str:
    low, *_, high = sorted([*counts] * 2)
    return f"{low}" if low == high else f"{low} to {high}, by cell"


def _taken(specs: Sequence[EditSpec]) -> str:
    """Evaluations of an edit, in words; where cells of a scan differ, from the least to the most."""
    every = [_evaluations(spec) for spec in specs]
    if all(each == every[0] for each in every):
        return _in_words(specs[0], every[0])
    return _range(max(each) for each in every)


def _in_words(spec: EditSpec, each: list[int] | None) -> str:
    """Evaluations, with the method's formula: `3 T = 48, T being 16 steps`, where that says as many."""
    row = find_method(spec.method.name)
    formula = f"{row.evaluations}, T being {spec.steps} steps"
    if each is None:
        return formula
    count = f"{max(each)}" + (f", {sum(each)} for all" if len(each) > 1 else "")
    stated = evaluations_of(row, spec.steps, spec.settings)
    plain = max(each) == _to_make(spec, None)
    if plain and stated is not None and abs(stated - max(each)) <= 1:  # where a share of steps is rounded
        return formula.replace(",", f" = {count},", 1)
    return f"{count}; by itself, at its defaults, {formula}"


def _replay_notes(specs: Sequence[EditSpec]) -> Iterator[str]:
    """What `--dry-run` says of sources that go to noise and back before they are edited."""
    told: dict[str, list[int]] = {}
    for spec in specs:
        if (replay := replay_of_spec(spec)) is not None:
            told.setdefault(replay.about, []).append(replay_evaluations(spec))
    for about, counts in told.items():
        yield f"  and before editing, {_range(counts)} a source, {about}" if any(counts) else f"  {about}"


def pictures(spec: EditSpec, models: Models, missing: AbstractSet[str], run: RunFolder) -> Iterator[Progress]:
    """Make the batches that lack a picture; first it is told of each source how well it comes back."""
    dino: Dino | None = None
    measured = replay_of_spec(spec) is not None or any(job.source.image is not None for job in jobs_of(spec))
    if spec.checks.gate and measured:
        dino, _ = load_dino(spec)
    gates: dict[str, Told | None] = {}
    lacking = [
        batch
        for batch in batches_of(spec)
        if not missing.isdisjoint([*batch.files, *watch_files(spec, batch)])
    ]
    references = references_of(spec, models, [job for batch in lacking for job in batch.jobs])
    for batch in lacking:
        files = {job.file("source") for job in batch.jobs}
        kept = [file for file in sorted(files - gates.keys()) if file not in missing]
        if kept:
            gates |= {file: figures_of(run, file).get("gate") for file in kept}
            yield told_of(spec, gates, kept)
        watcher = None if spec.watch is None else BatchWatcher(spec, batch, models)
        request = replace(request_of(spec, batch, models, references), watch=watcher)
        # What is measured is kept in the files of a source.
        shown = [job.file(kind) for job in batch.first for kind in job.shown]
        request = replace(request, gate=request.gate and not missing.isdisjoint(shown))
        for step in edit_photo_steps(models, request, dino):
            made: list[Picture | KeptFile] = []
            for number, source in step.sources.items():
                job = next(job for job in batch.jobs if _sources(batch)[job.file("source")] == number)
                made += source_pictures(job, source, models)
                if (file := job.file("source")) not in gates:
                    gates[file] = gate_in(made[-1])
                    yield told_of(spec, gates, [file])
            for number, result in step.results.items():
                made += edit_pictures(batch.jobs[number], result, models)
                made += [] if watcher is None else watcher.files(number)
            preview = _preview(spec, batch, step, models)
            yield Progress(step.step, made, steps=step.steps, phase=step.phase, preview=preview)


def _preview(
    spec: EditSpec, batch: Batch, step: PhotoStep, models: Models
) -> Callable[[], list[Image.Image]] | None:
    """How the edits stand behind a step, if there is anything to see yet."""
    if step.edit is None:
        return None
    size = Sampling(spec.steps, spec.model.record.guidance, *batch.jobs[0].frame.size)
    return partial(look_at, models, step.edit, size, spec.model.offload)


def references_of(spec: EditSpec, models: Models, jobs: Sequence[EditJob]) -> References:
    """What is looked at for jobs."""
    return References(spec, models, ((job.source.reference, job.frame.size) for job in jobs))


def request_of(spec: EditSpec, batch: Batch, models: Models, references: References) -> PhotoRequest:
    """What is asked of the photos' room for a batch."""
    first = batch.jobs[0]
    numbers = _sources(batch)
    firsts = {number: job for job in reversed(batch.jobs) for number in [numbers[job.file("source")]]}
    size = size_of(spec) if first.source.image is not None else (spec.width, spec.height)
    method, way = spec.method, first.way
    return PhotoRequest(
        sources=tuple(
            EditSource(firsts[i].source.prompt, firsts[i].source.image, firsts[i].seed)
            for i in range(len(firsts))
        ),
        edits=tuple(
            SourceEdit(job.edit.prompt, numbers[job.file("source")], _given_mask(job), regions_of(job))
            for job in batch.jobs
        ),
        sampling=Sampling(spec.steps, spec.model.record.guidance, *size, spec.integrator.choice),
        method=load_function(method.name) if method.is_own else method.name,
        settings=spec.settings,
        fit=spec.fit,
        mask=mask_of(spec, way),
        look=look_of(way, models.spec.layers),
        operators=operators_of(spec, any(job.mask is not None for job in batch.jobs)),
        **schedules_of(spec),
        paste="auto" if spec.paste is None else spec.paste.when,
        residual="auto" if spec.paste is None else spec.paste.residual,
        gate=spec.checks.gate and bool(batch.first),
        batch=len(batch.jobs),
        offload=spec.model.offload,
        seconds=spec.seconds,
        negative=negative_of(spec),
        regional=regional_of(spec),
        reference=references.of(first.source.reference, first.frame.size),
    )


def _sources(batch: Batch) -> dict[str, int]:
    """The number of each source in the batch's request, by the source's file and seed."""
    numbers: dict[str, int] = {}
    for job in batch.jobs:
        numbers.setdefault(job.file("source"), len(numbers))
    return numbers


def _given_mask(job: EditJob) -> Image.Image | None:
    mask = job.mask
    return None if mask is None or mask.where in FOUND else mask_picture(mask, job.frame)


def told_of(spec: EditSpec, gates: Mapping[str, Told | None], files: Sequence[str]) -> Progress:
    """Before they are edited, how well the sources of these files come back. gates: all that is known."""
    told = [line for file in files for line in lines_of(file, gates[file], spec)]
    return Progress(record={"sources": listed(gates)}, told=told)


def gate_in(picture: Picture) -> Told | None:
    """The gate of a source, as its picture's file will hold it."""
    return json.loads(picture.about[FIGURES]).get("gate")


def source_pictures(job: EditJob, source: OpenedSource, models: Models) -> list[Picture]:
    """The pictures of a source that was opened for a job."""
    figures = {} if source.gate is None else {"gate": asdict(source.gate)}
    about = {"prompt": job.source.prompt, "model": models.name, FIGURES: as_text(figures)}
    if job.source.image is None:
        about["seed"] = str(job.seed)
    shown = {"source": source.image, "reconstruction": to_pil(source.reconstruction)}
    return [Picture(job.file(kind), shown[kind], about) for kind in job.shown]


def edit_pictures(job: EditJob, result: EditedPhoto, models: Models) -> list[Picture]:
    """The pictures of a job's edit."""
    figures = {
        "evaluations": result.evaluations,
        "mask": result.share,
        "pasted": result.pasted is not None,
        "note": result.note,
    }
    about = {
        "prompt": job.edit.prompt,
        "source prompt": job.source.prompt,
        "seed": str(job.seed),
        "model": models.name,
        "method": as_text({"name": job.spec.method.name, **job.spec.settings}),
        FIGURES: as_text(figures),
    }
    made = {"edit": result.image, "full": _at_own_size(result), "mask": result.mask_image}
    return [Picture(job.file(kind), image, about) for kind, image in made.items()]


def _at_own_size(result: EditedPhoto) -> Image.Image:
    """The edit in the photo's own pixels; where it is not pasted, scaled to what it shows of the photo."""
    if result.pasted is not None:
        return result.pasted
    return scaled_home(result.image, result.source.frame)


def scaled_home(picture: Image.Image, frame: Frame) -> Image.Image:
    """A picture of a frame at the size that the part of the photo has which it shows; padding goes."""
    left, top, right, bottom = frame.box
    inside = (max(left, 0), max(top, 0), min(right, frame.photo[0]), min(bottom, frame.photo[1]))
    across, down = picture.width / (right - left), picture.height / (bottom - top)
    box = (
        (inside[0] - left) * across,
        (inside[1] - top) * down,
        (inside[2] - left) * across,
        (inside[3] - top) * down,
    )
    size = round(inside[2] - inside[0]), round(inside[3] - inside[1])
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS, box=box)


BY_METHOD = PictureRun(work, pictures, report, goes_on=True)
