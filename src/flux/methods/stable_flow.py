"""Stable Flow's edits (arXiv 2411.14430): source and edits start from the same noise and run side by side.

    blue = Edit("a blue house", layers=(0, 1, 17))
    result = edit(models, EditRequest("a red house", (blue,), Sampling(15, 3.5, 1024, 1024)))
    result.source, result.edits[0], result.plain[0]

At every step, in the layers of an edit, its image-token keys and values become the source's, by `CopySource`
(`flux/hooks/copying.py`; which tokens: `selection.py` beside it) or any other injection. `edit_steps` yields
on the way, so that callers show progress and save pictures early.

Edits run `batch` at a time beside the source. The result does not depend on `batch`, beyond how the dtype
rounds sums of differently shaped batches (in float32, 8-bit pictures differ by at most one level).

A source whose keys and values are kept is sampled once, by itself, and its edits without it:

    kept = KeptSource()
    first = edit(models, request, kept=kept)
    more = edit(models, replace(request, edits=(Edit("a green house", layers=(0, 1, 17)),)), kept=kept)

The second call makes the edit alone, for what a plain picture costs. See `flux/hooks/kept.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flux.conditions import Conditions, Negative, Region, Regions
from flux.generate import Sampling, decode, encode, sample_steps
from flux.hooks import CopySource, Hooks, Injection, LayerName, Site
from flux.hooks.kept import KeepingPlace, KeptSource, kept_copies
from flux.hooks.returned import like_given, place
from flux.integrators import Velocity, integrator_record
from flux.math import rows_of
from flux.methods.field import Operator, Schedule
from flux.methods.side_by_side import BesideSource
from flux.models import FluxParams, Layers
from flux.placement.modes import Offload
from flux.references import Reference
from flux.sampling import Step, unpack
from flux.weights.load import Models


@dataclass(frozen=True)
class Edit:
    """A prompt, the layers in which it looks at the source, and how.

    how: an injection for a batch of the source (row 0) and edits; it changes the row of this edit alone.
    regions: parts of the picture with prompts of their own, see `flux.conditions`. mask: where it may change
    its source, packed, (1, L, 64) in [0, 1], which operators are told; None: everywhere.
    """

    prompt: str
    layers: tuple[LayerName, ...]
    how: Injection = CopySource()
    regions: tuple[Region, ...] = ()
    mask: Tensor | None = field(default=None, compare=False)


class Row(NamedTuple):
    """A picture of a request: the source, its repetition, or edit `index`, with injection or plain."""

    kind: Literal["source", "repeat", "edit", "plain"]
    index: int = 0


@dataclass(frozen=True)
class EditRequest:
    """A source and its edits, from the noise of one seed.

    batch: edits beside the source at once. compare: make each edit without injection too.
    repeat: make the source once more, in other company: what differs then is the noise floor of this machine.
    seconds: what T5 reads in the place of some of the prompts. negative: what all pictures move away from.
    regional: how the edits' regions obey; its own parts are not looked at.
    reference: the picture that the model looks at, for the source and all edits alike.
    keep: off: the source stands beside each batch of edits; else it is sampled once, by itself, and its keys
    and values are kept there. Edits with an injection of one's own always have it beside them, and so have
    all edits where there are operators or schedules.
    operators, source_schedule, edit_schedule: what becomes of edits' velocities beside that of their source,
    and of guidance, see `flux.methods.side_by_side`.
    """

    source: str
    edits: tuple[Edit, ...]
    sampling: Sampling
    seed: int = 0
    batch: int = 4
    compare: bool = True
    repeat: bool = False
    offload: Offload = False
    seconds: Mapping[str, str] = field(default_factory=dict)
    negative: Negative | None = None
    regional: Regions = Regions()
    reference: Reference | None = None
    keep: Literal["off"] | KeepingPlace = "off"
    operators: tuple[Operator, ...] = ()
    source_schedule: Schedule | None = None
    edit_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.edits:
            raise ValueError("edits must hold at least one edit")
        if self.batch < 1:
            raise ValueError(f"batch must be 1 or more; got {self.batch}")

    @property
    def is_beside(self) -> bool:
        """Whether velocities are looked at beside that of their source."""
        return bool(self.operators) or self.source_schedule is not None or self.edit_schedule is not None

    def prompt_of(self, row: Row) -> str:
        """The prompt that a picture of the request is made from."""
        return self.source if row.kind in ("source", "repeat") else self.edits[row.index].prompt


@dataclass(frozen=True)
class Pass:
    """Rows that are sampled together; in a pass with hooks, and with nothing kept, the first is the source.

    kept: what a pass of the source alone keeps, and its edits' passes take from.
    """

    rows: tuple[Row, ...]
    hooks: Hooks | None = None
    kept: KeptSource | None = None

    @property
    def keeps(self) -> bool:
        """Whether it is the pass of a source that is kept."""
        return self.kept is not None and self.rows == (Row("source"),)


@dataclass(frozen=True)
class EditStep:
    """One step of pass `index` of `passes`. The pictures of a pass come with its last step.

    pictures: RGB in about [-1, 1], float32 (3, height, width). latents: float32 (16, h, w). Both on the CPU.
    """

    index: int
    passes: int
    rows: tuple[Row, ...]
    step: Step
    pictures: Mapping[Row, Tensor]
    latents: Mapping[Row, Tensor]


@dataclass(frozen=True)
class EditResult:
    """Pictures, float32 (3, height, width) in about [-1, 1], and latents, (16, h, w), by row."""

    pictures: Mapping[Row, Tensor]
    latents: Mapping[Row, Tensor]

    @property
    def source(self) -> Tensor:
        return self.pictures[Row("source")]

    @property
    def repeat(self) -> Tensor | None:
        """The source made once more, if it was asked for."""
        return self.pictures.get(Row("repeat"))

    @property
    def edits(self) -> list[Tensor]:
        return self._all("edit")

    @property
    def plain(self) -> list[Tensor]:
        """The edits without injection; empty if they were not asked for."""
        return self._all("plain")

    def _all(self, kind: str) -> list[Tensor]:
        return [self.pictures[row] for row in sorted(self.pictures) if row.kind == kind]


def edit(models: Models, request: EditRequest, *, kept: KeptSource | None = None) -> EditResult:
    """Make every picture of a request. Raises ValueError for layers that the model does not have.

    kept: the request's source from an earlier call, or what it is to be kept in for later ones.
    """
    pictures: dict[Row, Tensor] = {}
    latents: dict[Row, Tensor] = {}
    for step in edit_steps(models, request, edit_passes(request, kept)):
        pictures |= step.pictures
        latents |= step.latents
    return EditResult(pictures, latents)


def edit_steps(
    models: Models, request: EditRequest, passes: Sequence[Pass] | None = None
) -> Iterator[EditStep]:
    """Yield every step of every pass, of `passes` where only some of `edit_passes(request)` are wanted.

    Of a source that is there already it is the last step alone.
    Raises ValueError for passes of edits whose source is kept without the source's own before them.
    """
    passes = edit_passes(request) if passes is None else passes
    prompts = [request.prompt_of(row) for each in passes for row in each.rows]
    prompts += [] if request.negative is None else [request.negative.prompt]
    prompts += [region.prompt for edit in request.edits for region in edit.regions]
    texts = encode(models, prompts, offload=request.offload, seconds=request.seconds)
    size, of = (request.sampling.height, request.sampling.width), _made_from(models, request)
    for index, each in enumerate(passes):
        if each.kept is not None and each.kept.of == of and each.kept.holds_wanted:
            if each.keeps:
                yield replace(each.kept.last, index=index, passes=len(passes))
                continue
        elif each.keeps:
            each.kept.begin()
            each.kept.settle(models.device, kept_bytes(request, models.flow.params, models.dtype.itemsize))
        elif each.kept is not None:
            raise ValueError("edits of a source that is kept need its own pass before them: add it to passes")
        steps = sample_steps(
            models,
            texts,
            [request.prompt_of(row) for row in each.rows],
            [request.seed] * len(each.rows),
            request.sampling,
            hooks=each.hooks,
            offload=request.offload,
            conditions=_conditions(request, each.rows),
            around=_around(request, each.rows),
        )
        for step in steps:
            pictures, latents = {}, {}
            if step.index == step.steps - 1:
                decoded = decode(models, step.after, request.sampling, offload=request.offload)
                pictures = dict(zip(each.rows, decoded, strict=True))
                latents = dict(zip(each.rows, unpack(step.after.float(), *size).cpu(), strict=True))
            done = EditStep(index, len(passes), each.rows, step, pictures, latents)
            if each.keeps and pictures:
                each.kept.of, each.kept.last = of, done
            yield done


def _made_from(models: Models, request: EditRequest) -> tuple:
    """All that a source is made from; what is kept of another one is not taken."""
    second = request.seconds.get(request.source)
    made_from = request.source, second, request.seed, request.sampling, request.negative
    return *made_from, models.flow, models.dtype, models.device, request.reference


def kept_bytes(request: EditRequest, params: FluxParams, itemsize: int) -> int:
    """How much is kept of the source of a request: keys and values of image tokens, by layer and step."""
    layers, tokens = Layers(params.depth, params.depth_single_blocks), 0
    per_step = (request.sampling.height // 16) * (request.sampling.width // 16)
    of_a_step = integrator_record(request.sampling.integrator).evaluations_in(1)  # at most
    evaluations = of_a_step * (1 + (request.negative is not None))
    looks: dict[int, list[CopySource]] = {}
    for each in (each for each in request.edits if _can_be_kept(request, each)):
        for layer in layers.indices(each.layers):
            looks.setdefault(layer, []).append(each.how)
    for hows in looks.values():
        for step in range(request.sampling.steps):
            acting = [how for how in hows if how.acts_at(step)]
            tokens += sum(any(getattr(how, part) for how in acting) for part in ("keys", "values")) * per_step
    return tokens * evaluations * params.hidden_size * itemsize


def _can_be_kept(request: EditRequest, each: Edit) -> bool:
    """Whether an edit needs no more of its source than its keys and values."""
    return isinstance(each.how, CopySource) and not request.is_beside


def _around(request: EditRequest, rows: Sequence[Row]) -> Callable[..., Velocity] | None:
    """What becomes of velocities in a batch of a source and edits; None where nothing does, as in others."""
    edits = [request.edits[row.index] for row in rows if row.kind == "edit"]
    if not (edits and request.is_beside):
        return None
    masks = [each.mask for each in edits if each.mask is not None]
    if masks:
        masks = [torch.ones_like(masks[0]) if each.mask is None else each.mask for each in edits]
    schedules = request.source_schedule, request.edit_schedule
    return BesideSource(request.operators, *schedules, torch.cat(masks) if masks else None).around


def _conditions(request: EditRequest, rows: Sequence[Row]) -> Conditions:
    """What the rows of a pass are made from beside their prompts; a source has no regions."""
    regions = tuple(request.edits[row.index].regions if row.kind in ("edit", "plain") else () for row in rows)
    return Conditions(
        negative=request.negative,
        regions=replace(request.regional, rows=regions) if any(regions) else None,
        references=() if request.reference is None else (request.reference,),
    )


def edit_passes(request: EditRequest, kept: KeptSource | None = None) -> list[Pass]:
    """The runs of the sampler that a request takes, none of more than `batch` + 1 rows.

    For each `batch` of edits: the source with these edits beside it, then the same edits without injection,
    the first time with the source's repetition beside them. Where the source is kept, it comes first, by
    itself, and edits stand without it. kept: what it is kept in, where that is to last longer.
    """
    if kept is None and request.keep != "off":
        kept = KeptSource(request.keep)
    alone = [i for i, each in enumerate(request.edits) if kept is not None and _can_be_kept(request, each)]
    beside = [i for i in range(len(request.edits)) if i not in alone]
    passes = []
    if alone:
        for each in (request.edits[i] for i in alone):
            for layer in each.layers:
                kept.want(layer, each.how)
        passes.append(Pass((Row("source"),), Hooks(inject=kept.hooks()), kept))
    repeat = (Row("repeat"),) if request.repeat else ()
    for indices in (*batched(alone, request.batch), *batched(beside, request.batch)):
        rows, edits = tuple(Row("edit", i) for i in indices), [request.edits[i] for i in indices]
        if indices[0] in alone:
            passes.append(Pass(rows, _plan_of_kept(kept, edits), kept))
        else:
            passes.append(Pass((Row("source"), *rows), _plan(edits)))
        plain = tuple(Row("plain", i) for i in indices) if request.compare else ()
        if repeat + plain:
            passes.append(Pass(repeat + plain))
        repeat = ()
    return passes


def batched(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """Indices in their order, at most `size` together."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def with_sources(passes: Sequence[Pass], wanted: Sequence[Pass]) -> list[Pass]:
    """Some passes of a request, in its order, and that of the source which they take from."""
    kept = [each.kept for each in wanted if each.kept is not None]
    return [each for each in passes if each in wanted or (each.keeps and each.kept in kept)]


def _plan_of_kept(kept: KeptSource, edits: Sequence[Edit]) -> Hooks:
    """The injections of edits in rows 0, 1, ... of a batch, from a source that does not stand in it."""
    inject: dict[LayerName, list[Injection]] = {}
    rows = [(row, each.layers, each.how) for row, each in enumerate(edits)]
    for layer, copy in kept_copies(kept, rows):
        inject.setdefault(layer, []).append(copy)
    return Hooks(inject=inject)


def _plan(edits: Sequence[Edit]) -> Hooks:
    """The injections of edits in rows 1, 2, ... of a batch; equal ones of a layer are joined."""
    rows: dict[tuple[LayerName, Injection], list[int]] = {}
    for row, each in enumerate(edits, start=1):
        for layer in each.layers:
            rows.setdefault((layer, each.how), []).append(row)
    inject: dict[LayerName, list[Injection]] = {}
    for (layer, how), where in rows.items():
        chain = inject.setdefault(layer, [])
        if isinstance(how, CopySource):
            chain.append(replace(how, rows=tuple(where)))
        else:
            chain.extend(on_row(how, row) for row in where)
    return Hooks(inject=inject)


def on_row(how: Injection, row: int) -> Injection:
    """An injection that sees the source and row `row`, as a batch of two, and changes that row alone."""

    def inject(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        pair = [0, row]
        pe = site.pe if len(site.pe) == 1 else rows_of(site.pe, pair)
        given = tuple(rows_of(x, pair) for x in (q, k, v))
        returned = how(*given, replace(site, pe=pe))
        changed = like_given(returned, given, ("q", "k", "v"), f"{place('inject', site.layer)} for row {row}")
        return tuple(
            torch.cat((old[:row], new[1:], old[row + 1 :]))
            for old, new in zip((q, k, v), changed, strict=True)
        )

    return inject
