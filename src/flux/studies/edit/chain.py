"""Demo 4 with a chain: each edit goes on from the one before it, from latents that were kept.

Nothing is decoded and encoded again on the way. Side by side, without a method, a link stands beside the way
that its source took from noise, which is kept whole; by a method it starts from its source's last latent.
Either way its pixels are pasted into the picture before, as that was pasted; side by side its way too becomes
that of its source where it changed nothing. A link is made again from what is kept, so that a run that was
stopped goes on to the same bytes.
"""

from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from flux.conditions import Conditions, Region
from flux.generate import Sampling, Texts, at_work, decode, encode, sample_steps
from flux.integrators import Evaluation
from flux.methods.masks import packed, unpacked
from flux.methods.task import EditTask, open_task
from flux.photos.beside import GeneratedEdit, ReturnedEdit, come_back
from flux.photos.editing import EditedPhoto, SourceEdit, edit_photo_steps
from flux.photos.sources import EditSource
from flux.pictures.files import to_pil
from flux.placement.modes import Offload
from flux.references import Reference
from flux.sampling import unpack
from flux.studies.cost import Work
from flux.studies.edit import by_method
from flux.studies.edit.chain_report import report
from flux.studies.edit.chaining import ChainLink, links_of
from flux.studies.edit.figures import FIGURES, as_text
from flux.studies.edit.finding import evaluations_to_find
from flux.studies.edit.gates import gates_of, replay_of_spec
from flux.studies.edit.items import FOUND
from flux.studies.edit.jobs import Batch, mask_picture
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import load_dino
from flux.studies.edit.wanted import regional_of, regions_of
from flux.studies.edit.ways import found_mask, look_of, mask_grid, operators_of, schedules_of
from flux.studies.folder import RunFolder
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress
from flux.studies.references import References
from flux.studies.run import dino_source, sampling_of
from flux.weights.load import Models


@dataclass(frozen=True, eq=False)
class ChainState:
    """A picture that can be gone on from.

    latents: float32 on the CPU; side by side its way from noise, (T + 1, L, 64), both ends included; by a
    method what it ended with, (1, L, 64). photo: what the next edit is pasted into; by a method None where it
    is the picture itself.
    """

    prompt: str
    latents: Tensor
    photo: Image.Image | None = None


def work(spec: EditSpec) -> Work:
    links = links_of(spec)
    files = {
        "files": [file for link in links for file in link.pictures],
        "kept": [file for link in links for file in link.kept],
    }
    if spec.method is not None:
        first = Batch((links[0].job,), (links[0].job,))  # which opens the source; others go on from latents
        return replace(by_method.work(spec, [first]), **files, batches=[2] * len(links))
    batches = [1, *[2] * sum(1 + _has_first_run(link) for link in links)]
    to_find = sum(evaluations_to_find(spec, link.job.way.mask) for link in links)
    dino = {} if spec.checks.dino == "off" else {"DINO for the checks": dino_source(spec, spec.checks.dino)}
    return Work(
        batches=batches,
        prompts=list(dict.fromkeys(_prompts(spec))),
        decoded=1 + len(links) * (1 if spec.paste.when is False else 2),
        models=dino,
        evaluations=sum(batches) * spec.steps + to_find if to_find else None,
        **files,
    )


def _has_first_run(link: ChainLink) -> bool:
    """Whether a link is made twice, side by side: first without its mask, which is its own change."""
    return link.job.mask is not None and link.job.mask.where == "auto"


def _prompts(spec: EditSpec) -> list[str]:
    regions = (region.prompt for edit in spec.edits for region in edit.regions or ())
    return [spec.source.prompt, *(edit.prompt for edit in spec.edits), "", *regions]


def pictures(spec: EditSpec, models: Models, missing: AbstractSet[str], run: RunFolder) -> Iterator[Progress]:
    """Make the links that lack a file, from latents that were made just now, or are kept in the folder."""
    states: dict[ChainLink | None, ChainState] = {}
    make = _side_by_side if spec.method is None else _by_method
    lacking = [link for link in links_of(spec) if not missing.isdisjoint([*link.pictures, *link.kept])]
    references = by_method.references_of(spec, models, [link.job for link in lacking])
    if spec.method is not None and lacking and lacking[0].number > 1:
        gates = gates_of(spec, run)
        yield by_method.told_of(spec, gates, [*gates])
    for link in lacking:
        if link.after not in states:
            states[link.after] = _kept_state(link, run) if _is_kept(link, missing) else None
        yield from make(spec, models, link, states, references)


def _is_kept(link: ChainLink, missing: AbstractSet[str]) -> bool:
    return link.source_latents not in missing


def _kept_state(link: ChainLink, run: RunFolder) -> ChainState:
    """What a link goes on from, as an earlier run has kept it."""
    latents = load_file(run.path / link.source_latents)["latents"]
    if link.job.spec.method is None:
        return ChainState(link.source_prompt, latents, run.picture(link.source_file))
    if link.after is None:
        return ChainState(link.source_prompt, latents)
    return ChainState(link.source_prompt, latents, _photo_of(link, run.picture(link.after.job.file("full"))))


def _photo_of(link: ChainLink, full: Image.Image) -> Image.Image | None:
    """What later edits are pasted into: an edit at the source's own size."""
    return full if full.size == link.job.frame.photo else None


def _latents_file(name: str, latents: Tensor) -> KeptFile:
    return KeptFile(name, save({"latents": latents.contiguous()}))


# Side by side


def _side_by_side(
    spec: EditSpec,
    models: Models,
    link: ChainLink,
    states: dict[ChainLink | None, ChainState | None],
    references: References,
) -> Iterator[Progress]:
    """Sample the source if it is not there, then the edit beside the way its source took."""
    sampling, offload = sampling_of(spec), spec.model.offload
    texts = encode(models, _prompts(spec), offload=offload)
    seen = references.of(spec.reference, link.job.frame.size)
    made: list[Picture | KeptFile] = []
    if link.number == 1:
        way = []
        how = {"offload": offload, "conditions": Conditions(references=() if seen is None else (seen,))}
        for step in sample_steps(models, texts, [spec.source.prompt], [spec.seed], sampling, **how):
            way += [step.before, step.after] if step.index == 0 else [step.after]
            yield Progress(step.index)
        latents = torch.cat(way).float().cpu()
        picture = to_pil(_decoded(models, latents, sampling, offload))
        states[None] = ChainState(spec.source.prompt, latents, picture)
        made += [
            Picture(link.job.file("source"), picture, _about(spec, models)),
            _latents_file("latents/source.safetensors", latents),
        ]
    source = states[link.after]
    way = [source.latents[:1]]
    task = _task(spec, models, texts, link, source, sampling, seen)
    with at_work(models.device, offload, models.flow, times=task.times):
        task = yield from _masked(spec, task, link, source)
        for index, edit in _beside(spec, task, source):
            way.append(edit.cpu())
            yield Progress(index)
    latents, back = _come_back(spec, models, source, torch.cat(way), sampling, task.field.mask)
    states[link] = ChainState(link.job.edit.prompt, latents, back.picture)
    about = _about(spec, models, link)
    if spec.paste.when is not False:
        about[FIGURES] = as_text(back.figures)
    yield Progress(
        pictures=[
            *made,
            Picture(link.job.file("edit"), back.picture, about),
            Picture(link.job.file("mask"), back.mask_image),
            _latents_file(link.latents, latents),
        ]
    )


def _come_back(
    spec: EditSpec, models: Models, source: ChainState, way: Tensor, sampling: Sampling, mask: Tensor | None
) -> tuple[Tensor, ReturnedEdit]:
    """An edit's way, (T + 1, L, 64), as it is gone on from, and its picture; both pasted, or neither."""
    size = (spec.height // 16, spec.width // 16)
    grid = None if mask is None else unpacked(mask, size)[0].cpu()
    when, ends, offload = spec.paste.when, (source.latents[-1:], way[-1:]), spec.model.offload
    after = _decoded(models, way, sampling, offload)
    before = after if when is False else _decoded(models, source.latents, sampling, offload)
    latents = tuple(unpack(each, spec.height, spec.width)[0] for each in ends)
    edit = GeneratedEdit(source.photo, (before, after), latents, models.spec.latent_spread, grid)
    back = come_back(edit, when, spec.paste.residual)
    return (torch.lerp(source.latents, way, packed(back.mask[None])) if back.pasted else way), back


def _task(
    spec: EditSpec,
    models: Models,
    texts: Texts,
    link: ChainLink,
    source: ChainState,
    sampling: Sampling,
    seen: Reference | None,
) -> EditTask:
    """A link beside its source, with all that the spec says of their velocities but the mask."""
    clean = source.latents[-1:].to(models.device)
    prompts, regions = ([source.prompt], [link.job.edit.prompt]), ([_regions(link.after)], [_regions(link)])
    task = open_task(
        models, texts, *prompts, [0], clean, [spec.seed], sampling, seen, regions, regional_of(spec)
    )
    return replace(
        task,
        field=replace(
            task.field,
            look=look_of(link.job.way, models.spec.layers),
            operators=operators_of(spec, link.job.mask is not None),
            **schedules_of(spec),
        ),
    )


def _masked(
    spec: EditSpec, task: EditTask, link: ChainLink, source: ChainState
) -> Generator[Progress, None, EditTask]:
    """The task with the link's mask: one that is given, or found; the edit's own change by a first run."""
    job, edit = link.job, None
    if job.mask is None:
        return task
    if (found := job.way.mask) is None:
        return task.with_mask(mask_grid(job.mask, job.frame).to(task.clean))
    if _has_first_run(link):
        for index, changed in _beside(spec, task, source):
            edit = changed
            yield Progress(index, phase="mask")
    return task.with_mask(found_mask(found, task, edit))


def _beside(spec: EditSpec, task: EditTask, source: ChainState) -> Iterator[tuple[int, Tensor]]:
    """The edit's latent, (1, L, 64), behind every step beside its source, which goes the way that it took.

    The edit goes that way too, and by the difference of the two velocities: if the source has looked at
    another picture itself, its way is not where its own velocity leads, and what that made of it is kept. An
    edit that asks for nothing new stays where its source is. Of a source that was sampled plainly this is
    Stable Flow's rule.
    """
    latents = source.latents.to(task.clean)
    guidances, edit = (spec.guidance or 0.0,) * 2, latents[:1]
    for index, (t, t_next) in enumerate(pairwise(task.times)):
        here, there = latents[index : index + 1], latents[index + 1 : index + 2]
        at = Evaluation(index, task.steps)
        v_source, v_edit = task.field.pair(here, edit, t, at, guidances)
        edit = edit + (there - here) + (t_next - t) * (v_edit - v_source)
        yield index, edit


def _regions(link: ChainLink | None) -> tuple[Region, ...]:
    """The regions by which a link was made; of the source none."""
    return () if link is None else regions_of(link.job)


def _decoded(models: Models, way: Tensor, sampling: Sampling, offload: Offload) -> Tensor:
    """What a way ends with, as `decode` gives it, (3, height, width)."""
    return decode(models, way[-1:].to(models.device), sampling, offload=offload)[0]


def _about(spec: EditSpec, models: Models, link: ChainLink | None = None) -> dict[str, str]:
    """What a picture's file says of it."""
    own = {"prompt": spec.source.prompt if link is None else link.job.edit.prompt, "seed": str(spec.seed)}
    if link is None:
        return {**own, "model": models.name}
    layers = " ".join(map(str, link.job.way.layers))
    return {**own, "model": models.name, "after": link.source_file, "layers": layers}


# By a method


def _by_method(
    spec: EditSpec,
    models: Models,
    link: ChainLink,
    states: dict[ChainLink | None, ChainState | None],
    references: References,
) -> Iterator[Progress]:
    """Edit what the link goes on from, which the first one opens."""
    job, source, first = link.job, states[link.after], link.number == 1
    request = by_method.request_of(spec, Batch((job,), (job,) if first else ()), models, references)
    whole = EditSource(job.source.prompt, job.source.image, spec.seed)
    if source is not None:
        photo = job.source.image if link.after is None else source.photo
        whole = EditSource(source.prompt, photo, spec.seed, source.latents[0], _regions(link.after))
        if (
            photo is None and job.source.image is not None
        ):  # of a photo's picture, what is left is the picture
            mask = None if job.mask is None or job.mask.where in FOUND else mask_picture(job.mask, job.frame)
            inside = None if mask is None else job.frame.cut(mask)
            request = replace(
                request,
                sampling=Sampling(spec.steps, request.sampling.guidance, *job.frame.size),
                edits=(SourceEdit(job.edit.prompt, 0, inside, _regions(link)),),
            )
    request = replace(request, sources=(whole,), gate=request.gate and first)
    measured = job.source.image is not None or replay_of_spec(spec) is not None
    dino = load_dino(spec)[0] if request.gate and measured else None
    made: list[Picture | KeptFile] = []
    for step in edit_photo_steps(models, request, dino):
        for opened in step.sources.values():
            if first:
                latents = opened.latent[None]
                states[None] = ChainState(job.source.prompt, latents)
                made += by_method.source_pictures(job, opened, models)
                file = job.file("source")
                yield by_method.told_of(spec, {file: by_method.gate_in(made[0])}, [file])
                made.append(_latents_file(link.source_latents, latents))
        for result in step.results.values():
            made += _result(link, result, models, states)
        yield Progress(step.step)
    yield Progress(pictures=made)


def _result(
    link: ChainLink,
    result: EditedPhoto,
    models: Models,
    states: dict[ChainLink | None, ChainState | None],
) -> list[Picture | KeptFile]:
    made = by_method.edit_pictures(link.job, result, models)
    full = next(each.image for each in made if each.file == link.job.file("full"))
    latents = result.latent[None]
    states[link] = ChainState(link.job.edit.prompt, latents, _photo_of(link, full))
    return [*made, _latents_file(link.latents, latents)]


CHAIN = PictureRun(work, pictures, report, goes_on=True)
