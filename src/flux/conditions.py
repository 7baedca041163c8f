"""What a picture is made from beside its prompt: a second prompt, a negative one, pictures, regions.

    picture = encode_pictures(models, photo)                                # packed, (1, L, 64)
    generate(models, ["a cat"], [0], sampling, conditions=Conditions(start=Start(picture, strength=0.6)))
    generate(models, ["a cat"], [0], sampling, conditions=Conditions(negative=Negative("blurred", 2.0)))

Each is absent by default, and then all is to the bit as without it. They go together as one likes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flux.hooks import Hooks, LayerName
from flux.hooks.halves import in_halves
from flux.hooks.regions import region_hooks
from flux.integrators import Evaluation, Pin, Velocity
from flux.limits import MOST_GUIDANCE
from flux.model import Flux, layers_of
from flux.references import Reference, joined, repeated
from flux.sampling import guided, guided_beside, kept_outside, noised, velocity
from flux.strength import START_RULES, first_step

BESIDE_TEXT = "regions cannot go with a picture that is read as text: leave out one of them"


@dataclass(frozen=True)
class Negative:
    """A prompt to move away from, by true classifier-free guidance: v = n + true_cfg (v - n).

    prompt: the negative one; it may be empty. true_cfg: above 1; 1 would be no guidance by it.
    prompt_2: what T5 reads in its place. beside: both are evaluated side by side, in twice as many rows;
    False takes two passes, for small memories. Results are the same, beyond how sums are rounded.
    Raises ValueError for a true_cfg that is none.
    """

    prompt: str
    true_cfg: float
    prompt_2: str | None = None
    beside: bool = True

    def __post_init__(self) -> None:
        if not 1 < self.true_cfg <= MOST_GUIDANCE:
            raise ValueError(
                f"true_cfg must be above 1, {MOST_GUIDANCE} or less, to guide by a negative prompt; "
                f"got {self.true_cfg}"
            )


@dataclass(frozen=True, eq=False)
class Start:
    """A picture to start from: image to image, or with a mask inpainting.

    clean: its latent, packed, (1 or B, L, 64), as `encode_pictures` gives it. strength: above 0, the share of
    steps that is sampled; 1 starts from noise. mask: where it is painted anew, packed, (1 or B, L, 64) in
    [0, 1], see `flux.methods.masks.packed`; what lies outside is put back behind every step, as noisy as
    the step leaves it. None: everywhere. rule: whose rule of where a strength starts, see
    `flux.strength.START_RULES`.
    Raises ValueError for a strength or a rule that is none.
    """

    clean: Tensor
    strength: float = 1.0
    mask: Tensor | None = None
    rule: str = "upstream"

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1; got {self.strength}")
        if self.rule not in START_RULES:
            raise ValueError(f"rule {self.rule!r} does not exist: choose from {', '.join(START_RULES)}")

    def on(self, noise: Tensor, times: Sequence[float]) -> tuple[Tensor, list[float], Pin | None]:
        """Where sampling starts, (B, L, 64), its times, and what becomes of the latent behind each step.

        noise: (B, L, 64). times: of the whole schedule. Raises ValueError for a strength that leaves no step,
        and for a latent of another size.
        """
        if self.clean.shape[1:] != noise.shape[1:] or len(self.clean) not in (1, len(noise)):
            raise ValueError(
                f"the picture to start from is {tuple(self.clean.shape)}, packed, and the one to make is "
                f"{tuple(noise.shape)}: encode it at the size of the sampling"
            )
        times = list(times)[first_step(len(times) - 1, self.strength, self.rule) :]
        clean = self.clean.to(noise)
        pin = None if self.mask is None else kept_outside(self.mask.to(noise), clean, noise, times)
        return noised(clean, noise, times[0]), times, pin


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture with a prompt of its own. where: its image tokens, (h, w) in [0, 1]; those of a
    half or more count."""

    prompt: str
    where: Tensor


@dataclass(frozen=True, eq=False)
class Regions:
    """The parts of pictures, and the layers in which they obey their prompts.

    parts: of every picture of a call. rows: in their place, those of each row; a row may have none.
    alone, apart: see `flux.hooks.regions.RegionAttention`.
    """

    parts: tuple[Region, ...] = ()
    layers: tuple[LayerName, ...] = ("all",)
    alone: bool = False
    apart: bool = False
    rows: tuple[tuple[Region, ...], ...] | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(each.prompt for parts in self._rows(1) for each in parts)

    def _rows(self, rows: int) -> tuple[tuple[Region, ...], ...]:
        if self.rows is None:
            return (self.parts,) * rows
        if len(self.rows) != rows != 1:
            raise ValueError(f"regions of {len(self.rows)} rows do not match {rows} rows")
        return self.rows

    def texts(self, txt: Mapping[str, Tensor], own: Tensor) -> list[Tensor]:
        """What T5 gave for each region, (B, L_txt, C) each. own: the rows' own texts, which stand where a row
        has fewer regions than others."""
        rows = self._rows(len(own))
        return [
            torch.cat(
                [
                    txt[parts[number].prompt].to(own) if number < len(parts) else own[row : row + 1]
                    for row, parts in enumerate(rows)
                ]
            )
            for number in range(max(map(len, rows)))
        ]

    def inside(self, rows: int, tokens: int) -> Tensor:
        """Which of the tokens lie in which region, bool (B, R, L_img)."""
        every = self._rows(rows)
        empty = [torch.zeros(tokens, dtype=torch.bool)] * max(map(len, every))
        return torch.stack(
            [
                torch.stack([*(each.where.flatten() >= 0.5 for each in parts), *empty[len(parts) :]])
                for parts in every
            ]
        )


def box_region(prompt: str, box: tuple[float, float, float, float], size: tuple[int, int]) -> Region:
    """A region by its box: left, top, right, bottom in pixels of a picture of `size` (width, height).

    A token belongs to it if half of its 16 x 16 pixels do. Raises ValueError for a box that holds none.
    """
    left, top, right, bottom = box
    width, height = size
    across = _covered(left, right, math.ceil(width / 16))
    down = _covered(top, bottom, math.ceil(height / 16))
    where = down[:, None] * across[None]
    if not (where >= 0.5).any():
        raise ValueError(
            f"box {list(box)} holds no token of 16 x 16 pixels of a picture of {width} x {height}"
        )
    return Region(prompt, where)


def _covered(start: float, stop: float, count: int) -> Tensor:
    """How much of each of `count` tokens in a row lies between two pixels."""
    edges = torch.arange(count + 1) * 16.0
    return ((edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)) / 16).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Conditions:
    """What pictures are made from beside their prompts.

    prompts_2: what T5 reads in the place of each row's prompt; CLIP reads the prompt.
    references: the picture that the model looks at, of each row, or one for all.
    """

    prompts_2: tuple[str, ...] | None = None
    negative: Negative | None = None
    start: Start | None = None
    regions: Regions | None = None
    references: tuple[Reference, ...] = ()

    @property
    def prompts(self) -> list[str]:
        """All prompts that are to be encoded beside those of the rows."""
        negative = self.negative
        return [
            *(self.prompts_2 or ()),
            *(() if negative is None else (negative.prompt, negative.prompt_2 or negative.prompt)),
            *(() if self.regions is None else self.regions.prompts),
        ]


def conditioned(
    model: Flux,
    inputs: Mapping[str, Tensor],
    txt: Mapping[str, Tensor],
    vec: Mapping[str, Tensor],
    guidance: float | Sequence[float],
    conditions: Conditions,
    hooks: Hooks | None,
) -> Velocity:
    """The velocity of rows that `prepare` made, under a negative prompt, with regions and references.

    inputs: what `prepare` returns. txt, vec: encoded prompts, see `flux.generate.Texts`.
    Raises ValueError for hooks that attend in a layer where regions do, for as many references as fit no
    row, and for regions beside a picture that stands behind their text.
    """
    rows, negative, regions = len(inputs["img"]), conditions.negative, conditions.regions
    seen = _seen(conditions.references, rows)
    texts = {"txt": inputs["txt"], "vec": inputs["vec"]}
    if seen.text is not None:
        if regions is not None:
            raise ValueError(BESIDE_TEXT)
        texts["txt"] = torch.cat((texts["txt"], repeated(seen.text, rows).to(texts["txt"])), dim=1)
    if regions is not None:
        texts["txt"] = torch.cat((inputs["txt"], *regions.texts(txt, inputs["txt"])), dim=1)
    plans = _plans(model, regions, inputs["img"].shape[:2], hooks)
    ids = inputs["img_ids"]
    if negative is None:
        return _velocity(model, ids, texts, guidance, plans, seen.of_denoising(rows))
    # Each region moves away from the same text, which stands in the place of its own.
    times = texts["txt"].shape[1] // inputs["txt"].shape[1]
    against = {
        "txt": txt[negative.prompt_2 or negative.prompt].to(texts["txt"]).repeat(rows, times, 1),
        "vec": vec[negative.prompt].to(texts["vec"]).expand(rows, -1),
    }
    of_rows = seen.of_denoising(rows)
    if not negative.beside or seen.text is not None:  # whose text is the longer one
        plain, wanted = (_velocity(model, ids, each, guidance, plans, of_rows) for each in (against, texts))
        return guided(wanted, plain, negative.true_cfg)
    both = {name: torch.cat((against[name], texts[name])) for name in texts}
    twice = guidance if isinstance(guidance, int | float) else [*guidance, *guidance]
    halves = tuple(plan and in_halves(plan) for plan in plans)
    doubled = {name: torch.cat((x, x)) for name, x in of_rows.items()}
    ids = torch.cat((ids, ids))
    return guided_beside(_velocity(model, ids, both, twice, halves, doubled), negative.true_cfg)


def _seen(references: Sequence[Reference], rows: int) -> Reference:
    """The references of all rows as one; one that adds nothing where there are none."""
    if len(references) not in (0, 1, rows):
        raise ValueError(f"{len(references)} references do not match {rows} rows: give one, or one per row")
    return joined(references) if references else Reference()


Plans = tuple[Hooks | None, Hooks | None]
"""The plan of a step within the window of the hooks that were given, and outside it."""


def _plans(model: Flux, regions: Regions | None, shape: Sequence[int], hooks: Hooks | None) -> Plans:
    """shape: (B, L_img)."""
    if regions is None:
        return hooks, hooks
    layers = layers_of(model)
    inside = regions.inside(*shape)
    own = region_hooks(inside, layers, regions.layers, alone=regions.alone, apart=regions.apart)
    if hooks is None:
        return own, own
    # What is given holds in its window alone, regions hold always.
    return replace(own.joined(hooks.resolve(layers)), window=hooks.window), own


def _velocity(
    model: Flux,
    img_ids: Tensor,
    texts: Mapping[str, Tensor],
    guidance: float | Sequence[float],
    plans: Plans,
    seen: Mapping[str, Tensor],
) -> Velocity:
    """seen: what references add to the arguments of `flux.sampling.velocity`, by name."""
    txt = texts["txt"]
    txt_ids = torch.zeros(len(txt), txt.shape[1], 3, device=txt.device)
    within, outside = (
        velocity(model, img_ids, txt, txt_ids, texts["vec"], guidance, **seen, hooks=plan) for plan in plans
    )
    window = None if plans[0] is None else plans[0].window

    def evaluate(x: Tensor, t: float, at: Evaluation) -> Tensor:
        inside = window is None or window[0] <= at.index < window[1]
        return (within if inside else outside)(x, t, at)

    return evaluate
