"""Train the flow model: first on small canvases, then mixed with whole ones, then distil its guidance.

What makes it learn in hours on a CPU:

- 64 x 64 pictures first: a thing fills most of the tokens, and RoPE carries over to 128 x 128;
- tokens that show a thing weigh more, and timesteps lean to noise, where what is drawn is decided;
- signs are drawn more often than chance would have it, first most, as letters are learned last;
- a part of each batch is pairs of scenes that differ in one thing or attribute, with the same noise, time and
  wording, so that the difference stands out;
- a linear head on the image tokens after the double blocks must name what each token shows (the idea of REPA,
  arXiv 2410.06940, with the scene's truth in place of another network's features); the head is dropped at the
  end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from flux.files import write_atomically
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.sampling import image_ids, pack
from flux.tiny.scenes import GROUNDS, SKIES, THING_VALUES, WEATHERS, Scene, token_labels
from flux.tiny.training.data import paired_pictures, to_model
from flux.tiny.training.device import CPU, device_of, half_convolutions, half_precision, moved
from flux.tiny.training.layouts import paired_scenes
from flux.tiny.training.loop import Drawn, Stage
from flux.tiny.training.muon import FloatMuon
from flux.tiny.training.processes import spread
from flux.tiny.training.shapes import SHIPPED
from flux.tiny.training.wordings import with_strays, word

THING_WEIGHT = 4.0
LETTER_WEIGHT = 4.0
SIGN_SHARES = (0.4, 0.25)
"""Letters are learned last: their tokens weigh more still, and this share of a batch is drawn from scenes
with a sign, in the first half of the steps and in the second."""
PAIRED = 0.5
"""The share of a batch that is pairs."""
UNWEIGHTED = 0.15
"""The last share of the steps, in which all tokens weigh the same: as long as things weigh more, a token that
may show a thing or not leans to the thing, and things come out twice."""
EMPTY_CAPTIONS = 0.08
LABEL_WEIGHT = 0.15
GUIDANCE_RANGE = (1.0, 5.0)
PART = 2000
"""Pictures that are encoded before they are kept."""
RESCALE = 0.7
"""How far guided pictures are brought back to the contrast of captioned ones (arXiv 2305.08891)."""
LABELS = {name: len(values) for name, values in THING_VALUES.items()}
SCENERY_LABELS = len(SKIES) * len(WEATHERS) + len(GROUNDS)


@dataclass(frozen=True)
class Canvas:
    """Pictures of one size: how many, how many to a batch, and where their timesteps centre."""

    side: int
    count: int
    batch: int
    logit_mean: float


SMALL = Canvas(side=64, count=16_000, batch=128, logit_mean=0.3)
WHOLE = Canvas(side=128, count=48_000, batch=64, logit_mean=0.9)


@dataclass(frozen=True)
class Examples:
    """A canvas's scenes, in pairs, with their latents, packed, (N, tokens, 64) float16, and what each token
    shows."""

    canvas: Canvas
    scenes: tuple[Scene, ...]
    latents: np.ndarray
    labels: dict[str, np.ndarray]
    """Each int8 (N, tokens), -1: none; `scenery` counts skies by weather, then grounds."""

    @cached_property
    def signs(self) -> np.ndarray:
        """The numbers of the scenes with a sign."""
        return np.flatnonzero((self.labels["letter"] >= 0).any(axis=1))


class Batch(NamedTuple):
    """Arrays as they are drawn, tensors where they are learned from."""

    clean: Tensor  # (B, tokens, 64), float16
    captions: list[str]
    labels: dict[str, Tensor]
    same: Tensor  # (B,), the row whose noise and time a row has: its own, or that of its pair's other one
    tokens: dict[str, Tensor] | None = None
    fade: Tensor | float = 0.0  # the weight of what the head learns, to what it is at first

    @property
    def side(self) -> int:
        """Of the canvas, in pixels."""
        return 16 * round(self.clean.shape[1] ** 0.5)


class Given(NamedTuple):
    """What a batch becomes with times, noise and encoded captions."""

    inputs: dict[str, Tensor]
    target: Tensor  # the velocity, (B, tokens, 64)
    labels: dict[str, Tensor]
    fade: Tensor
    guidance: Tensor  # (B,), in `GUIDANCE_RANGE`


class TextEncoder:
    """Captions to `txt` and `vec`, as the command line's encoders give them, in two steps."""

    def __init__(self, repo: Path, device: torch.device):
        folders = {"txt": repo / "text_encoder_2", "y": repo / "text_encoder"}
        self.encoders = {
            name: HFEmbedder(str(folder), max_length=SHIPPED.t5_length).to(device)
            for name, folder in folders.items()
        }

    def tokens(self, captions: list[str]) -> dict[str, np.ndarray]:
        """The ids for each encoder, (B, length)."""
        padded = {"truncation": True, "padding": "max_length", "return_tensors": "np"}
        padded["max_length"] = SHIPPED.t5_length
        ids = {name: encoder.tokenizer(captions, **padded) for name, encoder in self.encoders.items()}
        return {name: found["input_ids"] for name, found in ids.items()}

    @torch.no_grad()
    def __call__(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        out = {name: encoder.hf_module(tokens[name]) for name, encoder in self.encoders.items()}
        return {
            name: out[name][encoder.output_key].bfloat16().float() for name, encoder in self.encoders.items()
        }


class FlowInTraining(nn.Module):
    """The flow model with the head that names tokens."""

    def __init__(self):
        super().__init__()
        self.flow = Flux(SHIPPED.params)
        self.head = nn.Linear(SHIPPED.params.hidden_size, sum(LABELS.values()) + len(LABELS) + SCENERY_LABELS)
        self._features: list[Tensor] = []
        self.flow.double_blocks[-1].register_forward_hook(lambda m, args, out: self._features.append(out[0]))

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and label logits."""
        self._features.clear()
        velocity = self.flow(**inputs)
        return velocity, self.head(self._features.pop())


def train(folder: Path, repo: Path, ae: AutoEncoder, steps: int, small_steps: int, seed: int = 0) -> Flux:
    """Train on rendered scenes; the first `small_steps` on 64 x 64 alone, then every fourth. Returns the
    average."""
    examples = {c.side: load_examples(c, folder, ae, seed) for c in (SMALL, WHOLE)}
    device = device_of(ae)
    encode = TextEncoder(repo, device)
    torch.manual_seed(seed)
    model = FlowInTraining()
    model.flow.apply(_torch_default_init)
    model.to(device)
    compile_blocks(model.flow)

    def draw_batch(rng: np.random.Generator, step: int) -> Drawn:
        side = 64 if step < small_steps or step % 4 == 0 else 128
        batch = draw(examples[side], rng, SIGN_SHARES[2 * step >= steps])
        # The head helps while the picture's plan is learned; the end belongs to the velocity alone.
        fade = min(1.0, max(0.0, 2.0 - 2.0 * step / steps))
        batch = batch._replace(tokens=encode.tokens(batch.captions), fade=np.float32([fade]))
        return Drawn((side, step < (1 - UNWEIGHTED) * steps), batch)

    def loss(kind: tuple[int, bool], given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        side, weighted = kind
        with half_precision(device):
            velocity, logits = model(**given.inputs, guidance=torch.ones_like(given.guidance))
        there = (given.labels["kind"] >= 0).float()
        weight = 1 + THING_WEIGHT * there + LETTER_WEIGHT * (given.labels["letter"] >= 0)
        if not weighted:
            weight = torch.ones_like(weight)
        flow_loss = weighted_mse(velocity.float(), given.target, weight)
        label_loss, right = label_losses(logits.float(), given.labels)
        figures = {f"flow{side}": flow_loss.detach(), f"label{side}": label_loss.detach(), **right}
        return flow_loss + LABEL_WEIGHT * (given.fade * label_loss).sum(), figures

    stage = Stage("flow", folder, model, optimizers(model), draw_batch, loss, steps, seed, ema_decay=0.999)
    stage.given = partial(with_noise, encode=encode, examples=examples)
    stage.run()
    return model.flow


def distil(folder: Path, repo: Path, ae: AutoEncoder, teacher: Flux, steps: int, seed: int = 0) -> Flux:
    """Guidance distillation (arXiv 2210.03142): the student's one evaluation at guidance g gives what the
    teacher needs two for, see `guided`. g is uniform in [1, 5]. All tokens weigh the same, or things come out
    twice."""
    examples = {c.side: load_examples(c, folder, ae, seed) for c in (SMALL, WHOLE)}
    device = device_of(ae)
    encode = TextEncoder(repo, device)
    student = Flux(SHIPPED.params).to(device)
    student.load_state_dict(teacher.state_dict())
    for flow in (student, teacher):
        compile_blocks(flow)
    empty = encode(moved(encode.tokens([""]), device))

    def draw_batch(rng: np.random.Generator, step: int) -> Drawn:
        side = 64 if step % 6 == 0 else 128
        batch = draw(examples[side], rng, SIGN_SHARES[1])
        return Drawn(side, batch._replace(tokens=encode.tokens(batch.captions), fade=np.zeros(1, np.float32)))

    def loss(side: int, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, guidance, one = given.inputs, given.guidance, torch.ones_like(given.guidance)
        with half_precision(device):
            with torch.no_grad():
                captioned = teacher(**inputs, guidance=one).float()
                without = {k: v.expand(len(one), *v.shape[1:]) for k, v in empty.items()}
                plain = teacher(**{**inputs, **without}, guidance=one).float()
                target = guided(plain, captioned, guidance, inputs["img"], inputs["timesteps"])
            velocity = student(**inputs, guidance=guidance).float()
        value = F.mse_loss(velocity, target)
        return value, {f"distil{side}": value.detach()}

    opts = optimizers(student, muon_lr=0.005, adam_lr=5e-4)
    stage = Stage("distil", folder, student, opts, draw_batch, loss, steps, seed, warmup=50, ema_decay=0.995)
    stage.given = partial(with_noise, encode=encode, examples=examples)
    return stage.run()


def load_examples(canvas: Canvas, folder: Path, ae: AutoEncoder, seed: int) -> Examples:
    """Scenes, latents and labels of a canvas; latents and labels are kept in `folder`."""
    truth = paired_scenes(seed, canvas.count, canvas.side)
    images = paired_pictures(folder, seed, canvas.count, canvas.side)
    latents = _kept(folder, f"latents-{canvas.side}", len(truth), lambda part: _encode(ae, images[part]))
    return Examples(canvas, truth, latents, load_labels(canvas, folder, seed))


def load_labels(canvas: Canvas, folder: Path, seed: int) -> dict[str, np.ndarray]:
    """What each token of a canvas's scenes shows, see `Examples`; kept in `folder`."""
    truth = paired_scenes(seed, canvas.count, canvas.side)
    labels = _kept(folder, f"labels-{canvas.side}", len(truth), lambda part: _label(truth[part]), len(truth))
    return dict(zip((*LABELS, "scenery"), labels.swapaxes(0, 1), strict=True))


def draw(examples: Examples, rng: np.random.Generator, sign_share: float) -> Batch:
    """A random batch, a part of it pairs: first their one half, then the other, then scenes alone.

    Scenes with a sign are drawn more often than chance would; some captions are empty.
    """
    size = examples.canvas.batch
    pairs = int(PAIRED * size / 2)
    chosen = rng.integers(len(examples.scenes), size=size - pairs)
    if len(examples.signs):
        shown = examples.signs[rng.integers(len(examples.signs), size=len(chosen))]
        chosen = np.where(rng.random(len(chosen)) < sign_share, shown, chosen)
    seeds = rng.integers(2**32, size=len(chosen))
    same = np.r_[:pairs, :pairs, 2 * pairs : size]
    # Of scenes 2 k and 2 k + 1, each is the other one's number with the last bit turned.
    chosen, seeds = np.r_[chosen[:pairs], chosen[:pairs] ^ 1, chosen[pairs:]], np.r_[seeds[:pairs], seeds]
    captions = [_caption(examples.scenes[i], seed) for i, seed in zip(chosen, seeds, strict=True)]
    labels = {name: values[chosen] for name, values in examples.labels.items()}
    return Batch(examples.latents[chosen], captions, labels, same)


def _caption(scene: Scene, seed: int) -> str:
    """Of scenes that differ little, the same seed's captions differ little."""
    rng = np.random.default_rng(seed)
    empty, complete = rng.random() < EMPTY_CAPTIONS, rng.random() < 0.6
    return "" if empty else with_strays(word(scene, rng, complete=complete).text, rng)


def times_and_noise(batch: Batch, logit_mean: float) -> tuple[Tensor, Tensor]:
    """A time and noise for each row, the same for both of a pair."""
    t = timesteps(len(batch.captions), logit_mean, batch.clean.device)
    noise = torch.randn(batch.clean.shape, device=batch.clean.device)
    return t[batch.same], noise[batch.same]


def guided(plain: Tensor, captioned: Tensor, guidance: Tensor, mixed: Tensor, t: Tensor) -> Tensor:
    """The velocity plain + g (captioned - plain), its picture brought back to the captioned one's contrast.

    plain, captioned: velocities at `mixed`, (B, tokens, 64); guidance, t: (B,). Without the rescaling strong
    guidance overexposes.
    """
    t = t.clamp(min=0.02)[:, None, None]
    strong = plain + guidance[:, None, None] * (captioned - plain)
    wanted, found = ((mixed - t * velocity).std(dim=(1, 2), keepdim=True) for velocity in (captioned, strong))
    scale = 1 + RESCALE * (wanted / found - 1)
    return (mixed - (mixed - t * strong) * scale) / t


def timesteps(count: int, logit_mean: float, device: torch.device = CPU) -> Tensor:
    """Logit-normal around `logit_mean`, a quarter uniform; (count,) in (0, 1)."""
    on = {"device": device}
    t = torch.sigmoid(torch.randn(count, **on) + logit_mean)
    return torch.where(torch.rand(count, **on) < 0.25, torch.rand(count, **on), t)


def with_noise(batch: Batch, encode: TextEncoder, examples: dict[int, Examples]) -> Given:
    """examples: by the canvas's side."""
    t, noise = times_and_noise(batch, examples[batch.side].canvas.logit_mean)
    clean, on = batch.clean.float(), {"device": t.device}
    text = encode(batch.tokens)
    inputs = {
        "img": torch.lerp(clean, noise, t[:, None, None]),
        "img_ids": image_ids(batch.side // 16, batch.side // 16)[None].to(t.device),
        "txt_ids": torch.zeros(1, text["txt"].shape[1], 3, **on),
        "timesteps": t,
        **text,
    }
    guidance = torch.empty(len(t), **on).uniform_(*GUIDANCE_RANGE)
    labels = {name: values.long() for name, values in batch.labels.items()}
    return Given(inputs, noise - clean, labels, batch.fade, guidance)


def weighted_mse(out: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over channels, weighted mean over tokens; weight: (B, tokens)."""
    return ((out - target).square().mean(dim=-1) * weight).sum() / weight.sum()


def label_losses(logits: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of what each token shows, and the share of thing tokens named right, NaN where there are
    none."""
    parts = logits.split([n + 1 for n in LABELS.values()] + [SCENERY_LABELS], dim=-1)
    total = F.cross_entropy(parts[-1].flatten(0, 1), labels["scenery"].flatten())
    there = labels["kind"] >= 0
    weight = 1 + THING_WEIGHT * there.flatten().float()
    figures = {}
    for part, (name, none) in zip(parts, LABELS.items(), strict=False):
        has = there & (labels[name] >= 0)
        target = torch.where(has, labels[name], none)
        losses = F.cross_entropy(part.flatten(0, 1), target.flatten(), reduction="none")
        total = total + (losses * weight).mean()
        figures[name] = ((part.argmax(-1) == target) & has).sum() / has.sum()
    return total, figures


def optimizers(model: nn.Module, muon_lr: float = 0.02, adam_lr: float = 2e-3) -> list[torch.optim.Optimizer]:
    """Muon (arXiv 2502.16982) for the matrices of the blocks, AdamW for modulations, embedders, norms and
    heads."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inside = "_blocks." in name and p.ndim == 2 and "mod" not in name
        (matrices if inside else rest).append(p)
    return [
        FloatMuon(matrices, lr=muon_lr, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def compile_blocks(flow: Flux) -> None:
    """Compile each block kind once; fusing what lies between the matrices halves a step on a CPU. On a GPU
    compiling takes longer than it saves."""
    if device_of(flow).type != "cpu":
        return
    for block in (*flow.double_blocks, *flow.single_blocks):
        block.compile(dynamic=False)


def _torch_default_init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.reset_parameters()


def _kept(
    folder: Path, name: str, count: int, make: Callable[[slice], np.ndarray], each: int | None = None
) -> np.ndarray:
    """`count` rows, made and kept in parts of `each` (`PART`), so that an interruption loses one at most."""
    each, parts = each or PART, []
    for start in range(0, count, each):
        path = folder / f"{name}-{start}.npy"
        if not path.exists():
            write_atomically(path, partial(np.save, arr=make(slice(start, min(start + each, count)))))
        parts.append(np.load(path))
    return np.concatenate(parts)


@torch.no_grad()
def _encode(ae: AutoEncoder, images: np.ndarray) -> np.ndarray:
    """Packed latents, float16, (N, tokens, 64)."""
    parts = []
    for i in tqdm(range(0, len(images), 32), desc="encode", mininterval=10):
        with half_convolutions(device_of(ae)):
            z = ae.encode(to_model(images[i : i + 32]).to(device_of(ae)))
        parts.append(pack(z.float()).half().cpu().numpy())
    return np.concatenate(parts)


def _label(truth: tuple[Scene, ...]) -> np.ndarray:
    """int8 (N, labels + 1, tokens)."""
    rows = []
    for scene, labels in zip(truth, spread(token_labels, truth, "label"), strict=True):
        below = SCENERY_LABELS - len(GROUNDS) + GROUNDS.index(scene.ground)
        above = SKIES.index(scene.sky) * len(WEATHERS) + WEATHERS.index(scene.weather)
        scenery = np.where(labels["ground"] == 1, below, above)
        rows.append(np.stack([labels[name].ravel() for name in LABELS] + [scenery.ravel()]))
    return np.stack(rows).astype(np.int8)
