"""Numbers that are none: where latents and pictures stop being finite, and what to do about it.

A latent that is not finite stays so, hence one look behind the last step is enough. Which step was the first
is noted on the device as each is done, a flag a step; flags are read at the end, since reading them waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flux.hooks import Hooks

RANGES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes of weights that are looked at: others are of schemes that clients put in."""


class NotFinite(ValueError):
    """Weights, latents or pictures hold what is no number; the message is one line with the remedy."""


@dataclass(frozen=True)
class Ingredients:
    """What latents are made from, to find out why they are no numbers.

    dtype: of the flow model. texts: encoded prompts (B, ...), by the name of what encoded them.
    """

    flow: nn.Module
    dtype: torch.dtype
    texts: Mapping[str, Tensor]
    hooks: Hooks | None = None


def is_finite(x: Tensor) -> Tensor:
    """Whether all of x is finite: a flag that stays on the device of x, which is not waited for.

    By the ends of its range, which show what is no number too: one pass, where `isfinite` takes several.
    """
    low, high = torch.aminmax(x)
    return torch.isfinite(low) & torch.isfinite(high)


def require_finite_steps(flags: Sequence[Tensor], made_from: Ingredients) -> None:
    """Raise NotFinite unless the last step left numbers. flags: `is_finite` of the latent of each step."""
    if flags[-1]:
        return
    first = torch.stack(tuple(flags)).tolist().index(False) + 1
    skipped = list(made_from.hooks.skip) if made_from.hooks is not None else []
    where = f"from step {first} of {len(flags)} on, in {_name(made_from.dtype)}"
    without = f" with layers {skipped} skipped" if skipped else ""
    raise NotFinite(f"latents are not finite{without}: {where}; {_remedy(made_from)}")


def require_finite_pictures(
    pictures: Tensor, ae: nn.Module, precision: torch.dtype, title: str = "decoded pictures"
) -> None:
    """Raise NotFinite for pictures (B, 3, H, W), or latents, that are not finite. precision: made in."""
    if is_finite(pictures):
        return
    likely = _other_dtype(precision) or "they were decoded from numbers that are too large"
    raise NotFinite(
        f"{title} are not finite, in {_name(precision)}: {_bad_weight(ae, 'autoencoder') or likely}"
    )


def require_finite_weights(part: nn.Module, title: str) -> None:
    """Raise NotFinite for a part whose weights are not finite, or too large for their dtype."""
    if reason := _bad_weight(part, title):
        raise NotFinite(reason)


def _remedy(made_from: Ingredients) -> str:
    """What to do about latents that are no numbers: by the cause if it is found, else by what is likely."""
    if reason := _bad_weight(made_from.flow, "flow model"):
        return reason
    precise = _other_dtype(made_from.dtype)
    for title, encoded in made_from.texts.items():
        if not is_finite(encoded):
            return f"{title} gives no numbers for a prompt: {precise or 'download its weights again'}"
    hooks = made_from.hooks or Hooks()
    hooked = list(dict.fromkeys((*hooks.inject, *hooks.attend, *hooks.after)))
    likely = f"look at what the hooks of layers {hooked} return" if hooked else None
    if hooks.skip and not hooked:
        likely = "skip fewer layers"
    return " or ".join(filter(None, (precise, likely))) or "try another seed"


def _bad_weight(part: nn.Module, title: str) -> str | None:
    """Which weight is no number, and what to do; None if all are."""
    for key, tensor in part.state_dict().items():
        # Quantised weights are looked at before they are quantised.
        plain = type(tensor) is Tensor and tensor.dtype in RANGES
        if plain and tensor.numel() and not is_finite(tensor):
            if tensor.dtype == torch.float16 and not tensor.isnan().any():
                return f"the {title}'s {key} is beyond float16's range: use dtype bfloat16 or float32"
            return f"the {title}'s {key} is not finite: download its weights again"
    return None


def _other_dtype(dtype: torch.dtype) -> str | None:
    """The precisions of a larger range, or of more digits, in words."""
    words = {torch.float16: "use dtype bfloat16 or float32", torch.bfloat16: "use dtype float32"}
    return words.get(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
