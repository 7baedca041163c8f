"""Pictures from text: encode prompts, sample step by step, decode.

A picture depends on its prompt, its seed and its sampling, not on what is made beside it: each prompt is
encoded and each latent decoded by itself, each row's noise comes from its own seed, and in between rows do
not see each other, unless hooks make them. What remains is how a dtype rounds sums of different batches.

Latents and pictures that are no numbers would be black pictures: they end in `flux.finite.NotFinite`, a
ValueError, before anyone sees them.
"""

import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flux.conditions import Conditions, conditioned
from flux.finite import Ingredients, is_finite, require_finite_pictures, require_finite_steps
from flux.hooks import Hooks
from flux.integrators import IntegratorRecord, Velocity, integrator_record
from flux.models import MOST_GUIDANCE
from flux.placement.modes import Offload
from flux.placement.tables import times_asked
from flux.placement.work import at_work
from flux.sampling import Step, get_noise, get_schedule, pack, prepare, unpack
from flux.weights.load import Models


@dataclass(frozen=True)
class Sampling:
    """How a picture is sampled. width, height: multiples of 16. guidance: None where the model has none.

    integrator: a name of `flux.integrators.INTEGRATORS`, or what `integrator_record` makes of one and its
    settings.
    Raises ValueError for guidance that is no number or more than `MOST_GUIDANCE`, and for an integrator that
    does not exist.
    """

    steps: int
    guidance: float | None
    width: int
    height: int
    integrator: str | IntegratorRecord = "euler"

    def __post_init__(self) -> None:
        integrator_record(self.integrator)
        if self.guidance is not None and not -math.inf < self.guidance <= MOST_GUIDANCE:
            raise ValueError(f"guidance must be a number, {MOST_GUIDANCE} or less; got {self.guidance}")


@dataclass(frozen=True)
class Texts:
    """Encoded prompts: txt[prompt] is T5's (1, L, C), vec[prompt] is CLIP's (1, C)."""

    txt: Mapping[str, Tensor]
    vec: Mapping[str, Tensor]


@torch.no_grad()
def encode(
    models: Models,
    prompts: Sequence[str],
    *,
    offload: Offload = False,
    seconds: Mapping[str, str] | None = None,
) -> Texts:
    """Encode each prompt once, by itself. offload: the encoders leave the device afterwards, whichever way
    of `flux.placement.modes` it is.

    seconds: what T5 reads in the place of some of the prompts.

    Warns of words that the model never learned, where that is known.
    """
    prompts, seconds = list(dict.fromkeys(prompts)), seconds or {}
    if models.spec.unknown_words is not None:
        _warn_of_unknown_words(models, [*prompts, *seconds.values()])
    with at_work(models.device, offload, models.t5, models.clip):
        return Texts(
            txt={prompt: models.t5([seconds.get(prompt, prompt)]) for prompt in prompts},
            vec={prompt: models.clip([prompt]) for prompt in prompts},
        )


@torch.no_grad()
def sample_steps(
    models: Models,
    texts: Texts,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    hooks: Hooks | None = None,
    offload: Offload = False,
    conditions: Conditions | None = None,
    around: Callable[[Callable[[float | Sequence[float]], Velocity], float], Velocity] | None = None,
) -> Iterator[Step]:
    """Yield each step of sampling one row per prompt, each from the noise of its seed.

    conditions: what pictures are made from beside their prompts; `texts` must hold its prompts too.
    around: takes what makes a velocity from guidance, one value or one per row, and the sampling's guidance;
    returns the velocity that is followed in its place.
    Raises NotFinite in the place of the last step, where it is known which step was the first to go wrong.
    """
    size = (sampling.height, sampling.width)
    # Drawn in bfloat16, as upstream does, so that a seed gives one picture whatever the precision.
    noise = torch.cat([get_noise(1, *size, models.device, torch.bfloat16, seed) for seed in seeds])
    given = conditions or Conditions()
    inputs = prepare(
        *(_lookup(texts.txt), _lookup(texts.vec), noise.to(models.dtype), list(prompts)),
        prompt_2=given.prompts_2,
    )
    x = inputs["img"]
    timesteps, pin = get_schedule(sampling.steps, x.shape[1], shift=models.spec.shift), None
    if given.start is not None:
        x, timesteps, pin = given.start.on(x, timesteps)
    guidance, finite = sampling.guidance or 0.0, []

    def predict(guidance: float | Sequence[float]) -> Velocity:
        return conditioned(models.flow, inputs, texts.txt, texts.vec, guidance, given, hooks)

    predicted = predict(guidance) if around is None else around(predict, guidance)
    integrate = integrator_record(sampling.integrator).function
    with at_work(models.device, offload, models.flow, times=times_asked(integrate, timesteps)):
        steps = integrate(predicted, x, timesteps, pin=pin)
        for step in steps:
            finite.append(is_finite(step.after))
            if step.index < step.steps - 1:
                yield step
    texts_used = {"T5": inputs["txt"], "CLIP": inputs["vec"]}
    require_finite_steps(finite, Ingredients(models.flow, models.dtype, texts_used, hooks))
    yield step  # behind `at_work`: while a caller decodes it, the flow model is not waited on


def _warn_of_unknown_words(models: Models, prompts: Sequence[str]) -> None:
    unknown_words = pkgutil.resolve_name(models.spec.unknown_words)
    if unknown := list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt))):
        named = ", ".join(repr(word if len(word) <= 30 else word[:29] + "…") for word in unknown[:10])
        more = f" and {len(unknown) - 10} more words" if len(unknown) > 10 else ""
        warnings.warn(
            f"{models.name} never learned {named}{more}: pictures will not show what is "
            f"meant; its README section lists what it draws, {unknown_words.__module__} its words",
            stacklevel=3,
        )


def _lookup(texts: Mapping[str, Tensor]):
    """Encoded prompts in the place of an encoder."""
    return lambda prompts: torch.cat([texts[prompt] for prompt in prompts])


@torch.no_grad()
def encode_pictures(models: Models, pictures: Tensor, *, offload: Offload = False) -> Tensor:
    """RGB in [-1, 1], (B, 3, height, width), to packed latents, float32 (B, L, 64), on the models' device.

    height, width: multiples of 16. The latents are the means of what the encoder gives, always in float32,
    since an edit is compared with them. Each picture is encoded by itself. Raises NotFinite.
    """
    with at_work(models.device, offload, models.ae):
        latents = torch.cat([models.ae.encode(each.to(models.device)) for each in pictures.split(1)])
    require_finite_pictures(latents, models.ae, torch.float32, "encoded pictures")
    return pack(latents.float())


@torch.no_grad()
def decode(
    models: Models, tokens: Tensor, sampling: Sampling, *, offload: Offload = False, together: int = 1
) -> Tensor:
    """Packed latents (B, L, 64) to RGB in about [-1, 1], float32 (B, 3, height, width) on the CPU.

    together: how many are decoded side by side, which is faster and ties their rounding to each other.
    Raises NotFinite.
    """
    precision = torch.bfloat16 if models.dtype == torch.bfloat16 else torch.float32
    half = torch.autocast(models.device.type, torch.bfloat16, enabled=precision == torch.bfloat16)
    latents = unpack(tokens.float(), sampling.height, sampling.width)
    with at_work(models.device, offload, models.ae), half:
        pictures = torch.cat([models.ae.decode(part).float().cpu() for part in latents.split(together)])
    require_finite_pictures(pictures, models.ae, precision)
    return pictures


def generate(
    models: Models,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    hooks: Hooks | None = None,
    offload: Offload = False,
    conditions: Conditions | None = None,
) -> Tensor:
    """One picture per prompt and seed, side by side: RGB in about [-1, 1], float32 (B, 3, height, width)."""
    texts = encode(models, [*prompts, *(conditions or Conditions()).prompts], offload=offload)
    how = {"hooks": hooks, "offload": offload, "conditions": conditions}
    for step in sample_steps(models, texts, prompts, seeds, sampling, **how):  # noqa: B007
        pass
    return decode(models, step.after, sampling, offload=offload)


def several(prompts: Sequence[str], seeds: Sequence[int], each: int) -> tuple[list[str], list[int]]:
    """Prompts and seeds of `each` pictures per prompt: from its seed and from those that follow it."""
    return (
        [prompt for prompt in prompts for _ in range(each)],
        [seed + number for seed in seeds for number in range(each)],
    )
