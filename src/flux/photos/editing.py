"""Edit photographs, and generated pictures as if they were, by any method of `flux.methods.METHODS`.

    edited = edit_photo(models, "photo.jpg", "a red house in a field", "a blue house in a field")
    edited.pasted.save("edited.png")

`edit_photo_steps` takes many sources and edits at once and yields on the way, so that callers show progress
and save pictures early. Edits of pictures of one size run `batch` at a time, each with its source beside it.
The result does not depend on `batch`, beyond how the dtype rounds sums of differently shaped batches.
"""

import pkgutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flux.conditions import Negative, Region, Regions
from flux.finite import Ingredients, is_finite, require_finite_steps
from flux.generate import Sampling, Texts, at_work, decode, encode
from flux.hooks import Hooks
from flux.methods import DEFAULT_METHOD, MethodRecord
from flux.methods.counting import walk
from flux.methods.field import Conditioning, Look, Operator, Schedule, WatchedRows, Watcher
from flux.methods.looks import Role, look_at_source
from flux.methods.lookup import find_method
from flux.methods.masks import own_mask, packed, unpacked
from flux.methods.operators import masked
from flux.methods.tables import MASKS, build, part_record
from flux.methods.task import EditTask, Method, MethodStep, open_task
from flux.photos.framing import CELL, Box, Fit, Frame, cut_mask
from flux.photos.gate import REMEDIES
from flux.photos.paste import PASTE_BELOW, nothing_to_paste, paste
from flux.photos.replays import Replay, replay_of
from flux.photos.sources import (
    EditSource,
    OpenedSource,
    Picture,
    frame_source,
    latents_of,
    open_photo,
    show_source,
)
from flux.pictures.features import Dino
from flux.pictures.files import to_pil
from flux.placement.modes import Offload
from flux.references import Reference
from flux.sampling import Step
from flux.weights.load import Models

NOTHING_MADE = 0.5
"""An edit whose own change, as a mask, is nowhere as large has changed nothing, however small what it may."""

CHANGED_NOTHING = "the edit changed nothing"


@dataclass(frozen=True, eq=False)
class SourceEdit:
    """A prompt for the edit of source `source` of the request.

    mask: where the edit may change it: white in a picture of the photo's size, or a box (left, top, right,
    bottom) in the photo's pixels. regions: parts of the picture as it is edited that have prompts of their
    own, see `flux.photos.wanted.RegionPlace.in_frame`.
    """

    prompt: str
    source: int = 0
    mask: Picture | Box | None = None
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class PhotoRequest:
    """Sources, their edits, and how they are edited.

    sampling: how generated sources are sampled; its steps are the method's too, and its size that of the
    model's pictures (see `flux.photos.framing` for what becomes of photos).
    method: a name of METHODS, a dotted name `package.module:name`, or a method itself. settings: beside its
    defaults.
    mask: for edits that bring none: "auto" finds the edit's own change by a first pass; or a function of the
    task that returns one, (N, L, 64). look, operators, *_schedule: as in `flux.methods.field.Field`.
    A mask, an edit's own too, says where edits are pasted, and to operators and looks where they may change
    their sources. It limits an edit itself by the operator `masked` alone, which is named here (`edit_photo`
    and specs name it where there is a mask); `decflowedit`, `inpaint` and `kv-edit` keep to it by themselves.
    paste: whether edits come back in the photo's own pixels; "auto": where the mask covers less than
    `PASTE_BELOW` of the picture. residual: whether the photo's details stay inside the mask; "auto": where
    the edit left them, see `flux.photos.paste`. gate: whether it is measured how well each source comes back;
    with methods that invert, that takes evaluations of its own, see `flux.photos.replays`. watch: looks on
    while the method evaluates edits, by their number in the request; not while masks are looked for.
    seconds: what T5 reads in the place of some of the prompts. negative: what edits move away from, see
    `flux.methods.field.Field`. reference: the picture that the model looks at, for sources and edits alike.
    regional: how regions obey their prompts; its own parts are not looked at.
    """

    sources: tuple[EditSource, ...]
    edits: tuple[SourceEdit, ...]
    sampling: Sampling
    method: str | Method = DEFAULT_METHOD
    settings: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit = "fit"
    mask: Literal["auto"] | Callable[[EditTask], Tensor] | None = None
    look: Look | None = None
    operators: tuple[Operator, ...] = ()
    source_schedule: Schedule | None = None
    edit_schedule: Schedule | None = None
    paste: bool | Literal["auto"] = "auto"
    residual: bool | Literal["auto"] = "auto"
    gate: bool = True
    watch: Watcher | None = None
    batch: int = 4
    offload: Offload = False
    seconds: Mapping[str, str] = field(default_factory=dict)
    negative: Negative | None = None
    reference: Reference | None = None
    regional: Regions = Regions()

    def __post_init__(self) -> None:
        if not self.edits:
            raise ValueError("edits must hold at least one edit")
        if isinstance(self.mask, str) and self.mask != "auto":
            raise ValueError(
                f'mask is {self.mask!r}: give "auto" or a function; edit_photo takes others by name'
            )
        if self.batch < 1:
            raise ValueError(f"batch must be 1 or more; got {self.batch}")
        for index, each in enumerate(self.edits):
            if not 0 <= each.source < len(self.sources):
                raise ValueError(
                    f"edits[{index}].source is {each.source}: sources are 0 to {len(self.sources) - 1}"
                )


@dataclass(frozen=True, eq=False)
class EditedPhoto:
    """An edit of `source`.

    picture: at the model's size, RGB in about [-1, 1], float32 (3, height, width). latent: packed, float32
    (L, 64). mask: where it changed its source, or was allowed to, (2 h, 2 w) in [0, 1], on the latent's grid.
    pasted: the photo with the edit inside the mask, at the photo's own size; None where nothing is pasted.
    evaluations: of one row, the source's included. note: what is to be said of it, if anything.
    """

    source: OpenedSource
    picture: Tensor
    latent: Tensor
    mask: Tensor
    pasted: Image.Image | None
    evaluations: int
    note: str | None = None

    @property
    def image(self) -> Image.Image:
        """The edit at the model's size, in 8 bits."""
        return to_pil(self.picture)

    @property
    def mask_image(self) -> Image.Image:
        """The mask at the model's size, white where the picture may have changed."""
        grey = Image.fromarray((self.mask * 255).round().byte().numpy())
        return grey.resize(self.source.frame.size, Image.Resampling.BILINEAR)

    @property
    def share(self) -> float:
        """The mean of the mask where the picture shows the photo."""
        return self.source.frame.mean_inside(self.mask.numpy())


@dataclass(frozen=True, eq=False)
class PhotoStep:
    """Progress in batch `index` of `batches`, which holds these `edits` of the request, by their number.

    phase: "sample" while sources are generated, "gate" while they go to noise and back, "mask" while the
    edit's own change is looked for, else the method's. step: of `steps` in this phase, from 0; None where
    pictures come. edit: latents of the edits behind it, (N, L, 64), where there are any. sources: opened just
    now, by their number, before the first edit of them. results: edits that are done, by their number.
    """

    index: int
    batches: int
    edits: tuple[int, ...]
    phase: str
    step: int | None = None
    steps: int | None = None
    edit: Tensor | None = None
    sources: Mapping[int, OpenedSource] = field(default_factory=dict)
    results: Mapping[int, EditedPhoto] = field(default_factory=dict)


def edit_photo(
    models: Models,
    photo: Picture,
    source_prompt: str,
    edit_prompt: str,
    *,
    method: str | Method = DEFAULT_METHOD,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    mask: Picture | Box | Literal["auto", "velocity", "words"] | None = None,
    dino: Dino | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> EditedPhoto:
    """Edit one photo. source_prompt describes it as it is, edit_prompt as it shall be.

    steps, size: the method's and the model's own where they are left out. settings: of the method.
    mask: where the edit may change the photo, as of `SourceEdit`, or one of `MASKS` by name, which is found;
    with one the change of the velocities is limited to it (`masked`), if operators limit the method.
    options: further fields of `PhotoRequest`, by name; `operators` stand in the place of `masked`, and `look`
    in that of the layers in which the method's edits look at their source where nobody says.
    Raises what `edit_photo_steps` does.
    """
    found = {} if mask not in [each.name for each in MASKS] else {"mask": _finder(mask)}
    row = None if callable(method) else find_method(method)
    limited = mask is not None and (row is None or row.limitable)
    beside = found | ({"operators": (masked(),)} if limited else {})
    if row is not None and row.layers and "look" not in (options or {}):
        beside["look"] = _usual_look(models, row)
    request = PhotoRequest(
        sources=(EditSource(source_prompt, photo, seed),),
        edits=(SourceEdit(edit_prompt, mask=None if found else mask),),
        sampling=usual_sampling(models, method, steps, size),
        method=method,
        settings=settings,
        **beside | dict(options or {}),
    )
    steps_taken = edit_photo_steps(models, request, dino)
    return next(each for step in steps_taken for each in step.results.values())


def _usual_look(models: Models, row: MethodRecord) -> Look:
    """A method's look in the layers of its set; ValueError, in one line, for a model that has none."""
    sets = models.spec.layer_sets
    if row.layers not in sets:
        raise ValueError(
            f"{row.name} looks at its source in the set {row.layers!r} of layers, and the model has none: "
            'give a look of your own, options={"look": look_at_source(...)}'
        )
    return look_at_source([Role(tuple(sets[row.layers]))], models.spec.layers)


def _finder(mask: str) -> Literal["auto"] | Callable[[EditTask], Tensor]:
    """What finds a mask that is named, at its defaults."""
    return "auto" if mask == "auto" else build(part_record(MASKS, mask))


def usual_sampling(
    models: Models,
    method: str | Method = DEFAULT_METHOD,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
) -> Sampling:
    """The model's size and guidance; the method's number of steps, or the model's where it takes fewer."""
    spec = models.spec
    usual = [] if callable(method) else [find_method(method).steps]
    steps = min([spec.num_steps, *usual]) if steps is None else steps
    return Sampling(steps, spec.guidance, *(size or (spec.size, spec.size)))


def method_of(method: str | Method, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with its settings, those left out at their defaults: a function of the task alone.

    Raises ValueError, in one line, for a name that no method has, and for settings that it does not take.
    """
    if callable(method):
        return partial(method, **(settings or {}))
    row = find_method(method)
    for name in settings or {}:
        if name not in row.settings:
            raise ValueError(f"{method} takes no {name}: its settings are {', '.join(row.settings)}")
    return partial(pkgutil.resolve_name(row.function), **row.defaults | dict(settings or {}))


def _steps_of(request: PhotoRequest, method: Method, task: EditTask) -> Iterator[MethodStep]:
    """The steps of a method; ValueError, one line, where one of the client's own yields something else."""
    own = request.method if isinstance(request.method, str) else _name_of(request.method)
    must = f"the method {own} must yield a MethodStep for each step"
    steps, shape = method(task), task.field.of_edits(task.clean).shape
    if not isinstance(steps, Iterator):
        raise ValueError(f"{must}; it returned {_kind(steps)}")
    for step in steps:
        if not isinstance(step, MethodStep):
            raise ValueError(f"{must}; it yielded {_kind(step)}")
        if step.edit is not None and step.edit.shape != shape:
            raise ValueError(f"{must} with latents {tuple(shape)}; its are {tuple(step.edit.shape)}")
        yield step


def _name_of(function: Method) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _kind(thing: object) -> str:
    return "nothing" if thing is None else f"a {type(thing).__name__}"


def edit_photo_steps(models: Models, request: PhotoRequest, dino: Dino | None = None) -> Iterator[PhotoStep]:
    """Yield every step of every batch, sources as they are opened and edits as they are done.

    dino: for the gate's similarity. Raises PictureError and ValueError, in one line each, for photos that
    cannot be opened or edited, ValueError too for edits without the mask that their method needs, and
    NotFinite for latents that are no numbers.
    """
    method = method_of(request.method, request.settings)
    _require_what_it_needs(request)
    size = (request.sampling.width, request.sampling.height)
    frames = [frame_source(each, request.fit, size, models.spec.largest) for each in request.sources]
    prompts = [each.prompt for each in (*request.sources, *request.edits)]
    prompts += [""] if request.negative is None else ["", request.negative.prompt]
    prompts += [part.prompt for each in (*request.sources, *request.edits) for part in each.regions]
    texts = encode(models, prompts, offload=request.offload, seconds=request.seconds)
    batches = edit_batches(request, frames)
    opened: dict[int, OpenedSource] = {}
    for index, batch in enumerate(batches):
        progress = PhotoStep(index, len(batches), batch, "open")
        numbers = tuple(dict.fromkeys(request.edits[row].source for row in batch))
        new = [number for number in numbers if number not in opened]
        for step in _open(models, request, texts, new, frames, progress, dino):
            opened |= step.sources
            yield step
        sources = [opened[number] for number in numbers]
        task = _task(models, request, texts, batch, numbers, sources)
        with at_work(models.device, request.offload, models.flow, times=_times(request, task)):
            masks = yield from _masks(request, method, task, batch, sources, progress)
            task = _limited(task, masks)
            watched = _watched(request, task, batch)
            latents = yield from _made(models, _steps_of(request, method, watched), watched, progress)
        yield from _come_back(models, request, task, masks, latents, sources, progress)
        later = {request.edits[row].source for each in batches[index + 1 :] for row in each}
        opened = {number: source for number, source in opened.items() if number in later}


def edit_batches(request: PhotoRequest, frames: Sequence[Frame]) -> list[tuple[int, ...]]:
    """The numbers of the edits that run together: at most `batch`, of pictures of one size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for row, each in enumerate(request.edits):
        by_size.setdefault(frames[each.source].size, []).append(row)
    return [
        tuple(rows[start : start + request.batch])
        for rows in by_size.values()
        for start in range(0, len(rows), request.batch)
    ]


def _open(
    models: Models,
    request: PhotoRequest,
    texts: Texts,
    numbers: Sequence[int],
    frames: Sequence[Frame],
    progress: PhotoStep,
    dino: Dino | None,
) -> Iterator[PhotoStep]:
    """Open the sources of these numbers; one step for each, behind those of sampling."""
    sources = [request.sources[number] for number in numbers]
    of_these = [frames[number] for number in numbers]
    latents: dict[int, Tensor] = {}
    how = {"reference": request.reference, "offload": request.offload}
    for each in latents_of(models, texts, sources, of_these, request.sampling, **how):
        if isinstance(each, Step):
            yield replace(progress, phase="sample", step=each.index, steps=each.steps)
        else:
            latents[each[0]] = each[1]
    replays, replay = None, None if (row := _row(request)) is None else replay_of(row, request.settings)
    if sources and request.gate and replay is not None and replay.way != "left out":
        ordered = torch.stack([latents[i] for i in range(len(sources))])
        how = (replay, of_these[0], progress)
        replays = yield from _replayed(models, request, texts, sources, ordered, *how)
    for i, (number, source, frame) in enumerate(zip(numbers, sources, of_these, strict=True)):
        shown = show_source(
            models,
            source,
            latents[i],
            frame,
            request.sampling,
            replay=None if replays is None else replays[i],
            gate=request.gate,
            remedies=REMEDIES if replay is None else replay.remedies,
            dino=dino,
            offload=request.offload,
        )
        yield replace(progress, sources={number: shown})


def _times(request: PhotoRequest, task: EditTask) -> tuple[float, ...]:
    """The noise levels at which the model will be asked, as far as they are known."""
    if callable(request.method) or ":" in request.method:  # a client's own might do anything
        return task.times
    row = _row(request)
    asked = [each.t for each in walk(row, task.times, row.defaults | dict(request.settings))]
    by_mask = task.times if callable(request.mask) else ()
    return tuple(dict.fromkeys((*asked, *by_mask)))


def _row(request: PhotoRequest) -> MethodRecord | None:
    """What is known of the request's method; nothing of one that is a function."""
    return None if callable(request.method) else find_method(request.method)


def _require_what_it_needs(request: PhotoRequest) -> None:
    """Refuse too few steps, and edits by a method that needs a mask without one or by their own change."""
    row = _row(request)
    if row is not None and request.sampling.steps < row.fewest:
        raise ValueError(f"{row.name} takes {row.fewest} steps at least, got {request.sampling.steps}")
    if row is None or not row.needs_mask or callable(request.mask):
        return
    if any(each.mask is None for each in request.edits):
        why = "" if request.mask is None else ', and "auto" is found by a run without one'
        raise ValueError(
            f"{row.name} edits inside a mask alone{why}: give a picture, a box, or what finds one"
        )


def _replayed(
    models: Models,
    request: PhotoRequest,
    texts: Texts,
    sources: Sequence[EditSource],
    latents: Tensor,
    replay: Replay,
    frame: Frame,
    progress: PhotoStep,
) -> Generator[PhotoStep, None, Tensor]:
    """What comes back of sources' latents, (S, L, 64), on the CPU."""
    width, height = frame.size
    prompts, seeds = [each.prompt for each in sources], [each.seed for each in sources]
    sampling = replace(request.sampling, width=width, height=height)
    of = range(len(sources))
    task = open_task(models, texts, prompts, prompts, of, latents, seeds, sampling, request.reference)
    schedules = {"source_schedule": request.source_schedule, "edit_schedule": request.edit_schedule}
    task = replace(task, field=replace(task.field, **schedules))
    with at_work(models.device, request.offload, models.flow, times=_times(request, task)):
        for step in replay.steps(task):
            yield replace(progress, phase="gate", step=step.index, steps=step.steps)
    return replay.back(step).cpu()


def _task(
    models: Models,
    request: PhotoRequest,
    texts: Texts,
    batch: Sequence[int],
    numbers: Sequence[int],
    sources: Sequence[OpenedSource],
) -> EditTask:
    width, height = sources[0].frame.size
    task = open_task(
        models,
        texts,
        [request.sources[number].prompt for number in numbers],
        [request.edits[row].prompt for row in batch],
        [numbers.index(request.edits[row].source) for row in batch],
        torch.stack([each.latent for each in sources]),
        [request.sources[number].seed for number in numbers],
        replace(request.sampling, width=width, height=height),
        request.reference,
        (
            [request.sources[number].regions for number in numbers],
            [request.edits[row].regions for row in batch],
        ),
        request.regional,
        request.seconds,
    )
    beside = {
        "look": request.look,
        "operators": request.operators,
        "source_schedule": request.source_schedule,
        "edit_schedule": request.edit_schedule,
    }
    if (negative := request.negative) is not None:
        beside["away"] = (Conditioning.of(texts, [negative.prompt]), negative.true_cfg)
    shown = np.stack([each.frame.shown(CELL) for each in sources])
    padded = None if (shown == 1).all() else torch.from_numpy(shown).to(task.clean)
    return replace(task, field=replace(task.field, **beside), shown=padded)


def _masks(
    request: PhotoRequest,
    method: Method,
    task: EditTask,
    batch: Sequence[int],
    sources: Sequence[OpenedSource],
    progress: PhotoStep,
) -> Generator[PhotoStep, None, dict[int, Tensor]]:
    """Masks by row, packed, (L, 64): those that edits bring, and for the others what the request says."""
    masks = {
        i: packed(_grid(request.edits[row].mask, sources[task.field.of[i]].frame)[None])[0].to(task.clean)
        for i, row in enumerate(batch)
        if request.edits[row].mask is not None
    }
    rows = [i for i in range(len(batch)) if i not in masks]
    if request.mask is None or not rows:
        return masks
    others = task.rows(rows)
    if callable(request.mask):
        found = request.mask(others)
    else:
        for step in _steps_of(request, method, others):
            yield replace(progress, phase="mask", step=step.index, steps=step.steps)
        found = _own_mask(others, step.edit)
    return masks | dict(zip(rows, found, strict=True))


def _limited(task: EditTask, masks: Mapping[int, Tensor]) -> EditTask:
    """The task with these masks by row; beside them, rows that have none may change everywhere."""
    if not masks:
        return task
    everywhere = torch.ones_like(task.clean[0])
    return task.with_mask(torch.stack([masks.get(i, everywhere) for i in range(len(task.field.of))]))


def _watched(request: PhotoRequest, task: EditTask, batch: Sequence[int]) -> EditTask:
    """The task, looked on at if the request says so."""
    if request.watch is None:
        return task

    def watch(hooks: Hooks | None, rows: WatchedRows) -> Hooks:
        edits, sources = ({batch[i]: row for i, row in each.items()} for each in (rows.edits, rows.sources))
        return request.watch(hooks, replace(rows, edits=edits, sources=sources))

    return replace(task, field=replace(task.field, watch=watch))


def _made(
    models: Models, steps: Iterator[MethodStep], task: EditTask, progress: PhotoStep
) -> Generator[PhotoStep, None, Tensor]:
    """The edits' latents, (N, L, 64), behind the last step of the task's method."""
    flags, step = [], None
    for step in steps:
        flags += [] if step.edit is None else [is_finite(step.edit)]
        yield replace(progress, phase=step.phase, step=step.index, steps=step.steps, edit=step.edit)
    if step is None or step.edit is None:
        raise ValueError("the method ended without an edit: its last step must hold one")
    read = {"T5": task.field.edits.txt, "CLIP": task.field.edits.vec}
    require_finite_steps(flags, Ingredients(models.flow, models.dtype, read))
    return step.edit


def _come_back(
    models: Models,
    request: PhotoRequest,
    task: EditTask,
    masks: Mapping[int, Tensor],
    latents: Tensor,
    sources: Sequence[OpenedSource],
    progress: PhotoStep,
) -> Iterator[PhotoStep]:
    """The edits as pictures, and pasted; one step for each, so that no more than one is held at its size.

    masks: those by row that were not found in what the edits changed.
    """
    clean, mask = task.field.of_edits(task.clean), task.field.mask
    changes = _own_mask(task, latents if mask is None else torch.lerp(clean, latents, mask))
    grids = torch.stack([masks.get(i, each) for i, each in enumerate(changes)])
    grids, changes = (unpacked(each, task.field.size).cpu() for each in (grids, changes))
    shown = [source.frame.shown(CELL) for source in sources]
    for i, row in enumerate(progress.edits):
        source = sources[task.field.of[i]]
        width, height = source.frame.size
        size = replace(request.sampling, width=width, height=height)
        picture = decode(models, latents[i : i + 1], size, offload=request.offload)[0]
        pasted, note = _paste(request, row, source, picture, grids[i])
        if float(changes[i][shown[task.field.of[i]] > 0].amax()) < NOTHING_MADE:
            note = CHANGED_NOTHING
        result = EditedPhoto(source, picture, latents[i].cpu(), grids[i], pasted, task.field.counts[i], note)
        yield replace(progress, results={row: result})


def _paste(
    request: PhotoRequest, row: int, source: OpenedSource, picture: Tensor, grid: Tensor
) -> tuple[Image.Image | None, str | None]:
    """The photo with the edit in it, if it is pasted, and what is to be said."""
    share = source.frame.mean_inside(grid.numpy())
    if request.paste is False:
        return None, None
    if request.paste == "auto" and share >= PASTE_BELOW:
        return None, nothing_to_paste(share)
    photo = request.sources[request.edits[row].source].photo
    whole = to_pil(source.picture) if photo is None else open_photo(photo)
    back = source.reconstruction
    return paste(whole, source.frame, grid, picture, back, request.residual), None


def _own_mask(task: EditTask, latents: Tensor) -> Tensor:
    clean = task.field.of_edits(task.clean)
    return own_mask(clean, latents, task.field.size, task.spread, shown=task.shown_by_edit)


def _grid(mask: Picture | Box, frame: Frame) -> Tensor:
    if not isinstance(mask, tuple | list | str | Path | Image.Image):
        raise ValueError(f"a mask must be a picture, its path, or a box; got {_kind(mask)}")
    picture = mask if isinstance(mask, tuple | list) else open_photo(mask)
    return torch.from_numpy(cut_mask(picture, frame))
