"""The velocities of sources and of their edits: all that a method knows of the model.

A batch holds S sources and N edits; edit i belongs to source `of[i]`. Sources and edits of a pair are
evaluated side by side, in one call of the model, so that an edit can look at its source (`look`), and so that
operators can compare the two velocities (`operators`). Latents are packed, (rows, L, 64), in float32 whatever
the model's dtype, since inversions and differences add up many small steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from flux.conditions import BESIDE_TEXT, Region, Regions
from flux.generate import Texts
from flux.hooks import Hooks
from flux.hooks.regions import region_hooks
from flux.math import rows_of
from flux.model import Flux, layers_of
from flux.references import Reference, repeated
from flux.sampling import Evaluation, image_ids, velocity


@dataclass(frozen=True, eq=False)
class RegionText:
    """A part of a picture with a text of its own: txt (1, L_txt, C), inside bool (L_img,)."""

    txt: Tensor
    inside: Tensor


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, one per row: txt (rows, L_txt, C), vec (rows, C). regions: of each row its own."""

    txt: Tensor
    vec: Tensor
    regions: tuple[tuple[RegionText, ...], ...] = ()

    @classmethod
    def of(
        cls, texts: Texts, prompts: Sequence[str], regions: Sequence[Sequence[Region]] = ()
    ) -> "Conditioning":
        """regions: of each row its own, whose prompts are encoded too; empty for none of any."""
        parts = (
            tuple(RegionText(texts.txt[each.prompt], each.where.flatten() >= 0.5) for each in row)
            for row in regions or [()] * len(prompts)
        )
        return cls(
            torch.cat([texts.txt[p] for p in prompts]),
            torch.cat([texts.vec[p] for p in prompts]),
            tuple(parts),
        )

    def __post_init__(self) -> None:
        if not self.regions:
            object.__setattr__(self, "regions", ((),) * len(self.vec))

    @property
    def most(self) -> int:
        """How many regions a row has at most."""
        return max(map(len, self.regions), default=0)

    def rows(self, rows: Sequence[int]) -> "Conditioning":
        regions = tuple(self.regions[row] for row in rows)
        return Conditioning(rows_of(self.txt, rows), rows_of(self.vec, rows), regions)

    def joined(self, other: "Conditioning") -> "Conditioning":
        both = torch.cat((self.txt, other.txt)), torch.cat((self.vec, other.vec))
        return Conditioning(*both, self.regions + other.regions)

    def for_all(self, regions: Sequence[Sequence[RegionText]]) -> "Conditioning":
        """Its only row for each of these regions' rows, and in the place of their texts."""
        own = tuple(tuple(replace(each, txt=self.txt) for each in row) for row in regions)
        return replace(self.rows([0] * len(regions)), regions=own)

    def behind_each_other(self, count: int) -> Tensor:
        """The rows' texts, each with those of its regions behind it, (rows, (1 + count) L_txt, C).

        A row's own text stands in the place of those that it has not.
        """
        rows = []
        for i, parts in enumerate(self.regions):
            own = self.txt[i : i + 1]
            rows.append(
                torch.cat((own, *(each.txt.to(own) for each in parts), *[own] * (count - len(parts))), 1)
            )
        return torch.cat(rows)

    def inside(self, count: int, tokens: int) -> Tensor:
        """Which of a picture's tokens lie in which region, bool (rows, count, L_img)."""
        none = torch.zeros(tokens, dtype=torch.bool)
        rows = (
            [*(each.inside.cpu() for each in parts), *[none] * (count - len(parts))] for parts in self.regions
        )
        return torch.stack([torch.stack(row) for row in rows])


@dataclass(frozen=True)
class Beside:
    """A source and its edit at one evaluation, row by row of the edits; latents and velocities (N, L, 64).

    z_source, z_edit: where they are, at noise level t; the model may be asked ahead of there, see `replay`.
    v_source: the source's velocity. clean: the source's latent, where its way ends. mask: where the edit may
    change it, packed from the latent's own grid as latents are, (N, L, 64) in [0, 1], equal over a position's
    channels; None without one. See `masks.py`.
    """

    z_source: Tensor
    z_edit: Tensor
    v_source: Tensor
    t: float
    at: Evaluation
    clean: Tensor
    mask: Tensor | None


Operator = Callable[[Tensor, Beside], Tensor]
"""Takes an edit's velocity, (N, L, 64), and what stands beside it; returns a new velocity."""

Schedule = Callable[[float, float, float], float]
"""Takes a guidance, the noise level t, and how alike the velocities of source and edit are: their cosine over
the whole latent at the evaluation before, 1 where there was none. Returns the guidance for this evaluation.
"""


@dataclass(frozen=True)
class WatchedRows:
    """Which rows of an evaluation at noise level t are edits, by their number in the run, from 0.

    sources: the row of the source beside each; none where edits are evaluated alone.
    """

    edits: Mapping[int, int]
    sources: Mapping[int, int]
    t: float


Watcher = Callable[[Hooks | None, WatchedRows], Hooks]
"""Takes the hooks of an evaluation and what its rows are; returns hooks that look on, and change nothing."""

Look = Callable[[tuple[int, ...], int, Tensor | None], Hooks]
"""Takes `of`, the number of sources and the mask; returns the hooks of a batch of the sources and edits."""


@dataclass(frozen=True)
class Field:
    """Velocities under given prompts. Each method of it calls the model once and counts what that took.

    sources, edits: their prompts, S and N rows. empty: the empty prompt, one row. of: each edit's source.
    size: of the picture, in tokens (h, w). clean: the sources' latents, (S, L, 64).
    mask: where edits may change their sources, packed like latents, (N, L, 64) in [0, 1]; see `masks.py`.
    reference: the picture that the model looks at, for sources and edits alike.
    look, operators: applied wherever source and edit are evaluated side by side. watch: looks on wherever
    edits are evaluated. source_schedule,
    edit_schedule: what becomes of the guidance that a method asks for; a source, which may have many edits,
    is never told how alike they are.
    away: the text of a negative prompt, one row, and how far edits move away from it (true classifier-free
    guidance), which takes their evaluations once more. Sources do not.
    regional: how regions of sources and edits obey their texts; its own parts are not looked at.
    counts: by edit, the evaluations of one row that it took so far, its source's included. alike: by edit,
    the noise level of the last evaluation side by side and the cosine of the two velocities there; kept where
    there is an `edit_schedule`. plans: those of regions, kept for the next step.
    """

    flow: Flux
    sources: Conditioning
    edits: Conditioning
    empty: Conditioning
    of: tuple[int, ...]
    size: tuple[int, int]
    clean: Tensor
    mask: Tensor | None = None
    look: Look | None = None
    operators: tuple[Operator, ...] = ()
    source_schedule: Schedule | None = None
    edit_schedule: Schedule | None = None
    watch: Watcher | None = None
    away: tuple[Conditioning, float] | None = None
    counts: list[int] = field(default_factory=list)
    alike: dict[int, tuple[float, float]] = field(default_factory=dict)
    members: tuple[int, ...] | None = None
    reference: Reference | None = None
    regional: Regions = Regions()
    plans: dict[Any, Hooks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.members is None:
            object.__setattr__(self, "members", tuple(range(len(self.of))))
            object.__setattr__(self, "counts", [0] * len(self.of))

    def of_edits(self, x: Tensor) -> Tensor:
        """Each edit's source's part of x: (S, ...) to (N, ...)."""
        return rows_of(x, self.of)

    def rows(self, rows: Sequence[int]) -> "Field":
        """The field of some of the edits, in the order given; it counts for the same run."""
        sources = list(dict.fromkeys(self.of[row] for row in rows))
        return replace(
            self,
            sources=self.sources.rows(sources),
            edits=self.edits.rows(rows),
            of=tuple(sources.index(self.of[row]) for row in rows),
            clean=rows_of(self.clean, sources),
            mask=None if self.mask is None else rows_of(self.mask, rows),
            members=tuple(self.members[row] for row in rows),
        )

    def source(
        self, z: Tensor, t: float, at: Evaluation, guidance: float, hooks: Hooks | None = None
    ) -> Tensor:
        """The sources' velocities at z, (S, L, 64)."""
        self._count(1)
        guidance = self._source_guidance(guidance, t)
        return self._velocity(z, t, at, self.sources, guidance, hooks)

    def edit(
        self, z: Tensor, t: float, at: Evaluation, guidance: float, hooks: Hooks | None = None
    ) -> Tensor:
        """The edits' velocities at z, (N, L, 64), without a source beside them."""
        self._count(1)
        guidances = self._edit_guidances(guidance, t)
        v = self._velocity(z, t, at, self.edits, guidances, self._watched(hooks, t))
        if self.away is None:
            return v
        self._count(1)
        return self._moved_away(v, self._velocity(z, t, at, self._against(), guidances, hooks))

    def unprompted(self, z: Tensor, t: float, at: Evaluation, guidance: float) -> Tensor:
        """The velocities of the empty prompt at z, (S, L, 64)."""
        self._count(1)
        return self._velocity(z, t, at, self.empty.rows([0] * len(z)), guidance, None)

    def pair(
        self,
        z_source: Tensor,
        z_edit: Tensor,
        t: float,
        at: Evaluation,
        guidances: tuple[float, float],
        *,
        apart: bool = False,
        here: tuple[Tensor, Tensor, float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The velocities of sources at z_source, (S, L, 64), and of edits at z_edit, (N, L, 64).

        apart: every edit has its source at a place of its own; z_source and its velocities are (N, L, 64).
        guidances: the sources' and the edits'. here: where sources and edits are, and at which noise level,
        for operators; None: where the model is asked.
        """
        self._count(2)
        sources, of = self.sources, self.of
        if apart or len(z_source) != len(sources.vec):
            sources, of = sources.rows(of), tuple(range(len(of)))
        guidance = [self._source_guidance(guidances[0], t)] * len(z_source)
        guidance += self._edit_guidances(guidances[1], t)
        hooks = None if self.look is None else self.look(of, len(z_source), self.mask)
        watched = self._watched(hooks, t, of, len(z_source))
        both = torch.cat((z_source, z_edit))
        v = self._velocity(both, t, at, sources.joined(self.edits), guidance, watched)
        v_source, v_edit = v[: len(z_source)], v[len(z_source) :]
        if self.away is not None:
            self._count(2)
            against = self._velocity(both, t, at, sources.joined(self._against()), guidance, hooks)
            v_edit = self._moved_away(v_edit, against[len(z_source) :])
        at_source, at_edit, level = here or (z_source, z_edit, t)
        own = rows_of(at_source, of), at_edit, rows_of(v_source, of)
        beside = Beside(*own, level, at, self.of_edits(self.clean), self.mask)
        if self.edit_schedule is not None:
            cosines = cosine_similarity(v_edit.flatten(1), beside.v_source.flatten(1)).tolist()
            self.alike.update((member, (t, each)) for member, each in zip(self.members, cosines, strict=True))
        for operator in self.operators:
            v_edit = operator(v_edit, beside)
        return v_source, v_edit

    def _watched(
        self, hooks: Hooks | None, t: float, of: tuple[int, ...] = (), sources: int = 0
    ) -> Hooks | None:
        """The hooks of an evaluation of so many sources and of the edits, with those that look on."""
        if self.watch is None:
            return hooks
        edits = {member: sources + row for row, member in enumerate(self.members)}
        return self.watch(hooks, WatchedRows(edits, dict(zip(self.members, of, strict=False)), t))

    def _regional(self, texts: Conditioning, most: int, hooks: Hooks | None, at: Evaluation) -> Hooks:
        """The plan of rows with regions, and what hooks do beside."""
        layers, how = layers_of(self.flow), self.regional
        key = tuple(tuple(id(each.inside) for each in row) for row in texts.regions), most
        if key not in self.plans:
            if len(self.plans) > 1:  # of pairs, and of edits alone: masks are large
                self.plans.clear()
            inside = texts.inside(most, self.size[0] * self.size[1])
            self.plans[key] = region_hooks(inside, layers, how.layers, alone=how.alone, apart=how.apart)
        plan, window = self.plans[key], None if hooks is None else hooks.window
        if hooks is None or (window is not None and not window[0] <= at.index < window[1]):
            return plan
        return plan.joined(hooks.resolve(layers))

    def _against(self) -> Conditioning:
        """The negative prompt's text, for each edit and its regions."""
        return self.away[0].for_all(self.edits.regions)

    def _moved_away(self, v: Tensor, against: Tensor) -> Tensor:
        return against + self.away[1] * (v - against)

    def _count(self, evaluations: int) -> None:
        for member in self.members:
            self.counts[member] += evaluations

    def _source_guidance(self, guidance: float, t: float) -> float:
        return guidance if self.source_schedule is None else self.source_schedule(guidance, t, 1.0)

    def _edit_guidances(self, guidance: float, t: float) -> list[float]:
        """The guidance of each edit."""
        if self.edit_schedule is None:
            return [guidance] * len(self.members)
        last = [self.alike.get(member, (t, 1.0)) for member in self.members]
        # What is known of a lower noise level is left from an earlier run of a method that takes several.
        return [self.edit_schedule(guidance, t, cosine if level >= t else 1.0) for level, cosine in last]

    @torch.no_grad()
    def _velocity(
        self,
        z: Tensor,
        t: float,
        at: Evaluation,
        texts: Conditioning,
        guidance: float | Sequence[float],
        hooks: Hooks | None,
    ) -> Tensor:
        ids = _ids(*self.size, z.device).expand(len(z), -1, -1)
        seen, txt = self.reference or Reference(), texts.txt
        # What hooks keep of one evaluation for another fits it if both have as many texts.
        most = max(self.sources.most, self.edits.most)
        if most and (texts.most or hooks is not None):
            if seen.text is not None:
                raise ValueError(BESIDE_TEXT)
            txt, hooks = texts.behind_each_other(most), self._regional(texts, most, hooks, at)
        if seen.text is not None:
            txt = torch.cat((txt, repeated(seen.text, len(txt)).to(txt)), dim=1)
        txt_ids = torch.zeros(len(z), txt.shape[1], 3, device=z.device)
        named = seen.of_denoising(len(z))
        predicted = velocity(self.flow, ids, txt, txt_ids, texts.vec, guidance, **named, hooks=hooks)
        return predicted(z.to(next(self.flow.parameters()).dtype), t, at).float()


@lru_cache(maxsize=8)
def _ids(height: int, width: int, device: torch.device) -> Tensor:
    """Positions of image tokens, on the device once for all evaluations."""
    return image_ids(height, width).to(device)
