"""From noise to latent: packing, schedule and velocities of a rectified flow; integrators by their names.

x_t = (1 - t) x_0 + t noise, the model predicts noise - x_0, and t runs from 1 to 0 (arXiv 2209.03003).
The integrators stand in `integrators.py`.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from einops import repeat
from torch import Tensor

from flux import references
from flux.hooks import Hooks
from flux.integrators import Evaluation, Integrator, Pin, Step, Velocity, euler
from flux.integrators import midpoint as midpoint  # handed on: it was here first
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.packing import image_ids, pack
from flux.packing import unpack as unpack  # upstream has it here
from flux.references import ControlEncoder, PictureEncoder, Reference, Source, repeated


def get_noise(
    num_samples: int,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> Tensor:
    """Starting noise, (num_samples, 16, 2 ceil(height / 16), 2 ceil(width / 16)); height and width in pixels.

    Drawn on the CPU in `dtype`, then moved, so that a seed gives the same bits on every device.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shape = (num_samples, 16, 2 * math.ceil(height / 16), 2 * math.ceil(width / 16))
    return torch.randn(shape, dtype=dtype, generator=generator).to(device)


def prepare(
    t5: HFEmbedder,
    clip: HFEmbedder,
    img: Tensor,
    prompt: str | list[str],
    *,
    prompt_2: str | list[str] | None = None,
) -> dict[str, Tensor]:
    """What the flow model takes, from a latent or noise (B, 16, 2h, 2w) and one prompt or one per row.

    A single latent is repeated for a list of prompts, a single prompt for a batch of latents.
    prompt_2: what T5 reads in the place of `prompt`, one or one per row; CLIP reads `prompt`.
    Returns img (B, h w, 64), img_ids, txt, txt_ids and vec, on the device of `img`. Texts stay in the
    encoder's dtype; the flow model takes any.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    batch = len(prompts) if len(img) == 1 else len(img)
    if len(prompts) not in (1, batch):
        raise ValueError(
            f"{len(prompts)} prompts do not match {len(img)} latents: give one prompt or one per latent"
        )
    tokens = pack(repeated(img, batch))
    ids = image_ids(img.shape[-2] // 2, img.shape[-1] // 2)
    second = prompts if prompt_2 is None else [prompt_2] if isinstance(prompt_2, str) else list(prompt_2)
    if len(second) not in (1, batch):
        raise ValueError(f"{len(second)} prompts for T5 do not match {batch} rows: give one, or one per row")
    txt, vec = (
        repeated(embed(texts).to(img.device), batch) for embed, texts in ((t5, second), (clip, prompts))
    )
    return {
        "img": tokens,
        "img_ids": repeat(ids, "n d -> b n d", b=batch).to(img.device),
        "txt": txt,
        "txt_ids": torch.zeros(batch, txt.shape[1], 3, device=img.device),
        "vec": vec,
    }


def prepare_control(
    t5: HFEmbedder,
    clip: HFEmbedder,
    img: Tensor,
    prompt: str | list[str],
    ae: AutoEncoder,
    encoder: ControlEncoder,
    img_cond_path: Source,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """As `prepare`, with `img_cond` (B, h w, 64): edges or depths of a picture, for Canny and Depth models.

    encoder: of `flux.modules.image_embedders`. img_cond_path: a file, or a picture, scaled to the size of
    `img`. dtype: of `img_cond`. Raises PictureError for a file that is no picture.
    """
    height, width = _pixels(img)
    reference = references.control(img_cond_path, height, width, encoder, ae, img.device, dtype)
    return _with(prepare(t5, clip, img, prompt), reference)


def prepare_fill(
    t5: HFEmbedder,
    clip: HFEmbedder,
    img: Tensor,
    prompt: str | list[str],
    ae: AutoEncoder,
    img_cond_path: Source,
    mask_path: Source,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """As `prepare`, with `img_cond` (B, h w, 320): what stays of a picture, and the mask, white to be filled.

    Raises ValueError where picture or mask has another size than `img` stands for.
    """
    reference = references.fill(img_cond_path, mask_path, *_pixels(img), ae, img.device, dtype)
    return _with(prepare(t5, clip, img, prompt), reference)


def prepare_redux(
    t5: HFEmbedder,
    clip: HFEmbedder,
    img: Tensor,
    prompt: str | list[str],
    encoder: PictureEncoder,
    img_cond_path: Source,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """As `prepare`, with a picture's tokens behind T5's: txt (B, L + 729, 4096), and as many `txt_ids`.

    encoder: `flux.modules.image_embedders.ReduxImageEncoder`.
    """
    return _with(prepare(t5, clip, img, prompt), references.redux(img_cond_path, encoder, img.device, dtype))


def prepare_kontext(
    t5: HFEmbedder,
    clip: HFEmbedder,
    prompt: str | list[str],
    ae: AutoEncoder,
    img_cond_path: Source,
    seed: int,
    device: torch.device,
    target_width: int | None = None,
    target_height: int | None = None,
    bs: int = 1,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[dict[str, Tensor], int, int]:
    """What `prepare` returns, with the reference tokens of a picture, and the height and width to be made.

    The noise is drawn here, one row of it, in bfloat16. target_width, target_height: of what is made, in
    pixels; else those of the picture as the model sees it: scaled to the preferred size of nearest aspect
    ratio. bs: rows that one prompt is repeated for. dtype: of the reference and the noise.
    Adds `img_cond_seq` (B, L, 64), `img_cond_seq_ids` (B, L, 3) holding (1, row, column), and
    `img_cond_orig`, the scaled picture, RGB in [-1, 1], (1, 3, H, W), which `denoise` does not take.
    """
    reference, picture = references.kontext(img_cond_path, ae, device, dtype)
    height = picture.shape[2] if target_height is None else target_height
    width = picture.shape[3] if target_width is None else target_width
    noise = get_noise(1, height, width, device, torch.bfloat16, seed).to(dtype)
    prompts = [prompt] * bs if isinstance(prompt, str) else list(prompt)
    inputs = _with(prepare(t5, clip, noise, prompts), reference)
    return inputs | {"img_cond_orig": picture}, height, width


def _pixels(img: Tensor) -> tuple[int, int]:
    """Height and width of the picture that a latent stands for."""
    return 8 * img.shape[-2], 8 * img.shape[-1]


def _with(inputs: dict[str, Tensor], reference: Reference) -> dict[str, Tensor]:
    """What `prepare` returned, with a reference for every row."""
    rows, txt = len(inputs["img"]), inputs["txt"]
    if reference.text is not None:
        txt = torch.cat((txt, repeated(reference.text, rows).to(txt)), dim=1)
        ids = torch.zeros(rows, txt.shape[1], 3, device=txt.device)
        inputs = inputs | {"txt": txt, "txt_ids": ids}
    return inputs | reference.of_denoising(rows)


def time_shift(mu: float, sigma: float, t: Tensor) -> Tensor:
    """Move timesteps towards noise: e^mu / (e^mu + (1 / t - 1)^sigma) (arXiv 2403.03206, sec. 5.3.2)."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


def get_lin_function(
    x1: float = 256, y1: float = 0.5, x2: float = 4096, y2: float = 1.15
) -> Callable[[float], float]:
    """The line through (x1, y1) and (x2, y2)."""
    slope = (y2 - y1) / (x2 - x1)
    return lambda x: y1 + slope * (x - x1)


def get_schedule(
    num_steps: int,
    image_seq_len: int,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    shift: bool = True,
) -> list[float]:
    """`num_steps + 1` timesteps from 1 to 0; with `shift`, larger pictures spend more of them near noise."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more; got {num_steps}")
    timesteps = torch.linspace(1, 0, num_steps + 1)
    if shift:
        mu = get_lin_function(y1=base_shift, y2=max_shift)(image_seq_len)
        timesteps = time_shift(mu, 1.0, timesteps)
    return timesteps.tolist()


# Velocities


def velocity(
    model: Flux,
    img_ids: Tensor,
    txt: Tensor,
    txt_ids: Tensor,
    vec: Tensor,
    guidance: float | Sequence[float] | Tensor = 4.0,
    img_cond: Tensor | None = None,
    img_cond_seq: Tensor | None = None,
    img_cond_seq_ids: Tensor | None = None,
    *,
    hooks: Hooks | None = None,
) -> Velocity:
    """The velocity a model predicts under given texts, guidance, conditions and hooks.

    guidance: one value, or one per row. img_cond is joined to the channels, img_cond_seq (with its ids) to
    the tokens of every evaluation. hooks: a plan for every step; it is told the step, and which tokens are
    the picture itself. Raises ValueError for tokens without ids, or as many values of guidance as fit no row.
    """
    if (img_cond_seq is None) != (img_cond_seq_ids is None):
        raise ValueError("img_cond_seq and img_cond_seq_ids must be given together")
    ids = img_ids if img_cond_seq is None else torch.cat((img_ids, img_cond_seq_ids), dim=1)
    takes_table, once = _takes_table(model), {}

    def evaluate(x: Tensor, t: float, at: Evaluation) -> Tensor:
        img, img_len = x, x.shape[1]
        if img_cond is not None:
            img = torch.cat((img, img_cond), dim=-1)
        if img_cond_seq is not None:
            img = torch.cat((img, img_cond_seq), dim=1)
        plan = {}
        if takes_table:
            if "pe" not in once:
                once["pe"] = model.pe_embedder(torch.cat((txt_ids, ids), dim=1))
            plan["pe"] = once["pe"]
        rows = x.dtype, x.device, len(x)
        if rows not in once:
            once[rows] = _per_row(guidance, x)
        if hooks is not None:
            plan["hooks"] = hooks.at(at.index, at.steps, substep=at.substep, t=t, img_len=img_len)
        return model(
            img=img,
            img_ids=ids,
            txt=txt,
            txt_ids=txt_ids,
            y=vec,
            timesteps=torch.full((len(x),), t, dtype=x.dtype, device=x.device),
            guidance=once[rows].clone(),  # of its own memory: clients write into it
            **plan,
        )[:, :img_len]

    return evaluate


def _takes_table(model: Flux) -> bool:
    """Whether a model takes its RoPE table; one of a client's own makes it in each evaluation."""
    forward = getattr(model, "forward", model)
    return isinstance(model, Flux) and "pe" in inspect.signature(forward).parameters


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance by two evaluations, u + scale (c - u) (arXiv 2207.12598, eq. 6).

    For models that are not guidance-distilled. scale: 1 gives `conditional`; larger follows the text more.
    """

    def evaluate(x: Tensor, t: float, at: Evaluation) -> Tensor:
        plain = unconditional(x, t, at)
        return plain + scale * (conditional(x, t, at) - plain)

    return evaluate


def guided_beside(both: Velocity, scale: float) -> Velocity:
    """The same as `guided` in one evaluation of twice as many rows, where memory is enough.

    both: the velocity of the unconditional rows and behind them, in the same order, of the conditional ones.
    """

    def evaluate(x: Tensor, t: float, at: Evaluation) -> Tensor:
        plain, conditional = both(torch.cat((x, x)), t, at).chunk(2)
        return plain + scale * (conditional - plain)

    return evaluate


# Pictures to start from


def noised(clean: Tensor, noise: Tensor, t: float) -> Tensor:
    """A clean latent at noise level t: x_t = (1 - t) x_0 + t noise, all of one shape."""
    return t * noise + (1 - t) * clean


def kept_outside(mask: Tensor, clean: Tensor, noise: Tensor, timesteps: Sequence[float]) -> Pin:
    """What inpainting does behind each step: outside the mask the latent is the clean one, as noisy as then.

    mask: packed, (1 or B, L, 64) in [0, 1], 1 where the picture is painted anew. clean, noise: (1 or B, L,
    64). timesteps: those of the run.
    """

    def pin(index: int, after: Tensor) -> Tensor:
        return mask * after + (1 - mask) * noised(clean, noise, timesteps[index + 1])

    return pin


def denoise_steps(
    model: Flux,
    img: Tensor,
    img_ids: Tensor,
    txt: Tensor,
    txt_ids: Tensor,
    vec: Tensor,
    timesteps: Sequence[float],
    guidance: float | Sequence[float] | Tensor = 4.0,
    img_cond: Tensor | None = None,
    img_cond_seq: Tensor | None = None,
    img_cond_seq_ids: Tensor | None = None,
    *,
    hooks: Hooks | None = None,
    integrator: Integrator = euler,
) -> Iterator[Step]:
    """Yield each step of a run. The caller owns progress, pictures on the way, and stopping.

    Arguments as of `velocity`.
    """
    conditions = img_cond, img_cond_seq, img_cond_seq_ids
    predicted = velocity(model, img_ids, txt, txt_ids, vec, guidance, *conditions, hooks=hooks)
    yield from integrator(predicted, img, timesteps)


def denoise(
    model: Flux,
    img: Tensor,
    img_ids: Tensor,
    txt: Tensor,
    txt_ids: Tensor,
    vec: Tensor,
    timesteps: list[float],
    guidance: float | Sequence[float] | Tensor = 4.0,
    img_cond: Tensor | None = None,
    img_cond_seq: Tensor | None = None,
    img_cond_seq_ids: Tensor | None = None,
    *,
    hooks: Hooks | None = None,
) -> Tensor:
    """Run `denoise_steps` to its end and return the final latent, (B, L_img, 64)."""
    steps = denoise_steps(
        model,
        img,
        img_ids,
        txt,
        txt_ids,
        vec,
        timesteps,
        guidance,
        img_cond,
        img_cond_seq,
        img_cond_seq_ids,
        hooks=hooks,
    )
    for step in steps:
        img = step.after
    return img


def _per_row(value: float | Sequence[float] | Tensor, img: Tensor) -> Tensor:
    there = {"dtype": img.dtype, "device": img.device}
    if isinstance(value, int | float):  # filled on the device: nothing is copied to it at each step
        return torch.full((len(img),), value, **there)
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        value = torch.cat([torch.full((1,), each, **there) for each in value])
    rows = torch.as_tensor(value, dtype=img.dtype, device=img.device)
    if rows.shape not in ((), (len(img),)):
        raise ValueError(
            f"guidance has {tuple(rows.shape)} values for {len(img)} rows: give one, or one per row"
        )
    return rows.expand(len(img))
