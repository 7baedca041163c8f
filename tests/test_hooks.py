"""Hooks: what a plan changes, held against FLUX and the injection rule written out plainly in float64."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux.hooks import (
    VITAL_LAYERS,
    AboveThreshold,
    AttentionMaps,
    CopySource,
    Hooks,
    Layers,
    Mask,
    Site,
    TopRatio,
    received_attention,
)
from flux.model import steering_vector
from flux.modules.layers import EmbedND
from flux.sampling import denoise, denoise_steps

DTYPES = (torch.float32, torch.bfloat16)
VITAL = (0, "double.1", "single.2")
"""Layers 0, 1 and 4 of the small model; 2 and 3 are left alone."""
VITAL_NUMBERS = (0, 1, 4)
# Text tokens, picture in tokens, edits.
SHAPES = ((5, (4, 4), 1), (1, (2, 3), 2), (9, (3, 5), 3), (22, (6, 2), 2))


# --- The reference: no batches, no fused tricks, float64 ------------------------------------------


@dataclass(frozen=True)
class Here:
    """Where the reference stands: layer, row of the batch, text length, and the RoPE angles, (L, D / 2)."""

    layer: int
    row: int
    txt_len: int
    angles: Tensor


QKV = tuple[Tensor, Tensor, Tensor]
Rule = Callable[[Here, QKV, QKV], QKV]
"""Takes the row's own and the source's q, k, v, each (H, L, D), and returns what the row attends with."""


class Reference:
    """FLUX, row by row and head by head. `rule` is asked in every layer for every row."""

    def __init__(self, model, rule: Rule | None = None):
        self.params = model.params
        self.weights = {name: weight.double() for name, weight in model.state_dict().items()}
        self.rule = rule or (lambda here, own, source: own)

    def __call__(self, *, img, img_ids, txt, txt_ids, timesteps, y, guidance) -> Tensor:
        rows = range(len(img))
        vec = [self.vector(timesteps[b], guidance[b], y[b].double()) for b in rows]
        angles = [self.angles(torch.cat((txt_ids[b], img_ids[b]))) for b in rows]
        imgs = [self.linear("img_in", img[b].double()) for b in rows]
        txts = [self.linear("txt_in", txt[b].double()) for b in rows]
        n = txt.shape[1]

        for i in range(self.params.depth):
            name = f"double_blocks.{i}"
            qkvs = [self.double_qkv(name, imgs[b], txts[b], vec[b]) for b in rows]
            for b in rows:
                out = self.attend(Here(i, b, n, angles[b]), qkvs[b], qkvs[0])
                txts[b] = self.double_rest(name, "txt", txts[b], out[:n], vec[b])
                imgs[b] = self.double_rest(name, "img", imgs[b], out[n:], vec[b])

        xs = [torch.cat((txts[b], imgs[b])) for b in rows]
        for i in range(self.params.depth_single_blocks):
            name = f"single_blocks.{i}"
            parts = [self.single_qkv(name, xs[b], vec[b]) for b in rows]
            for b in rows:
                here = Here(self.params.depth + i, b, n, angles[b])
                out = self.attend(here, parts[b][0], parts[0][0])
                gate = self.modulation(f"{name}.modulation", vec[b])[2]
                joined = torch.cat((out, F.gelu(parts[b][1], approximate="tanh")), dim=1)
                xs[b] = xs[b] + gate * self.linear(f"{name}.linear2", joined)
        return torch.stack([self.last(xs[b][n:], vec[b]) for b in rows])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def mlp_embedder(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.out_layer", F.silu(self.linear(f"{name}.in_layer", x)))

    def vector(self, t: Tensor, guidance: Tensor, y: Tensor) -> Tensor:
        def wave(value: Tensor) -> Tensor:
            angles = [1000 * float(value) * 10_000 ** (-i / 128) for i in range(128)]
            return torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles]).double()

        vec = self.mlp_embedder("time_in", wave(t)) + self.mlp_embedder("vector_in", y)
        return vec + self.mlp_embedder("guidance_in", wave(guidance)) if self.params.guidance_embed else vec

    def angles(self, ids: Tensor) -> Tensor:
        """Radians by which each channel pair of a head turns, (L, D / 2)."""
        columns = [
            ids[:, axis].double() * self.params.theta ** (-2 * i / dim)
            for axis, dim in enumerate(self.params.axes_dim)
            for i in range(dim // 2)
        ]
        return torch.stack(columns, dim=1)

    def modulation(self, name: str, vec: Tensor) -> tuple[Tensor, ...]:
        return self.linear(f"{name}.lin", F.silu(vec)).split(self.params.hidden_size)

    def normed(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, correction=0)
        return (1 + scale) * (x - mean) / (variance + 1e-6).sqrt() + shift

    def heads(self, norm: str, qkv: Tensor) -> QKV:
        """(L, 3 H D) to normed q, normed k and v, each (H, L, D)."""
        dim = self.params.hidden_size // self.params.num_heads
        parts = [torch.stack(part.split(dim, dim=1)) for part in qkv.split(self.params.hidden_size, dim=1)]
        for i, kind in enumerate(("query", "key")):
            size = (parts[i].square().mean(dim=2, keepdim=True) + 1e-6).sqrt()
            parts[i] = parts[i] / size * self.weights[f"{norm}.{kind}_norm.scale"]
        return tuple(parts)

    def double_qkv(self, name: str, img: Tensor, txt: Tensor, vec: Tensor) -> QKV:
        streams = []
        for stream, x in (("txt", txt), ("img", img)):
            shift, scale = self.modulation(f"{name}.{stream}_mod", vec)[:2]
            qkv = self.linear(f"{name}.{stream}_attn.qkv", self.normed(x, shift, scale))
            streams.append(self.heads(f"{name}.{stream}_attn.norm", qkv))
        return tuple(torch.cat(pair, dim=1) for pair in zip(*streams, strict=True))

    def double_rest(self, name: str, stream: str, x: Tensor, out: Tensor, vec: Tensor) -> Tensor:
        _, _, gate1, shift2, scale2, gate2 = self.modulation(f"{name}.{stream}_mod", vec)
        x = x + gate1 * self.linear(f"{name}.{stream}_attn.proj", out)
        hidden = self.linear(f"{name}.{stream}_mlp.0", self.normed(x, shift2, scale2))
        return x + gate2 * self.linear(f"{name}.{stream}_mlp.2", F.gelu(hidden, approximate="tanh"))

    def single_qkv(self, name: str, x: Tensor, vec: Tensor) -> tuple[QKV, Tensor]:
        shift, scale, _ = self.modulation(f"{name}.modulation", vec)
        fused = self.linear(f"{name}.linear1", self.normed(x, shift, scale))
        width = 3 * self.params.hidden_size
        return self.heads(f"{name}.norm", fused[:, :width]), fused[:, width:]

    def attend(self, here: Here, own: QKV, source: QKV) -> Tensor:
        q, k, v = self.rule(here, own, source)
        out = [weights @ v[h] for h, weights in enumerate(attention_weights(q, k, here.angles))]
        return torch.cat(out, dim=1)  # (L, H D)

    def last(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.linear("final_layer.adaLN_modulation.1", F.silu(vec)).chunk(2)
        return self.linear("final_layer.linear", self.normed(x, shift, scale))


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """RoPE by complex numbers: x (L, D), angles (L, D / 2)."""
    pairs = torch.view_as_complex(x.reshape(len(x), -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(x.shape)


def attention_weights(q: Tensor, k: Tensor, angles: Tensor) -> list[Tensor]:
    """softmax(q k / sqrt(D)) of each head, (L, L), every key summed over."""
    scores = [turned(q[h], angles) @ turned(k[h], angles).T / q.shape[2] ** 0.5 for h in range(len(q))]
    return [score.softmax(dim=1) for score in scores]


def received(q: Tensor, k: Tensor, txt_len: int, angles: Tensor) -> list[float]:
    """Attention each image token receives from image queries, mean over heads and queries."""
    mean = sum(w[txt_len:, txt_len:].mean(dim=0) for w in attention_weights(q, k, angles)) / len(q)
    return mean.tolist()


def copy_rule(
    weigh: Callable[[Here, QKV], list[float]] | None = None,
    *,
    keys: bool = True,
    values: bool = True,
    strength: float = 1.0,
    rows: tuple[int, ...] | None = None,
    layers: tuple[int, ...] = VITAL_NUMBERS,
) -> Rule:
    """Stable Flow's rule, token by token; `weigh` gives each image token its weight, from the source."""

    def rule(here: Here, own: QKV, source: QKV) -> QKV:
        chosen = here.row > 0 if rows is None else here.row in rows
        if here.layer not in layers or not chosen:
            return own
        q, k, v = own[0], own[1].clone(), own[2].clone()
        weights = weigh(here, source) if weigh else [1.0] * (k.shape[1] - here.txt_len)
        for image_token, weight in enumerate(weights):
            token, w = here.txt_len + image_token, strength * weight
            if keys:
                k[:, token] = (1 - w) * k[:, token] + w * source[1][:, token]
            if values:
                v[:, token] = (1 - w) * v[:, token] + w * source[2][:, token]
        return q, k, v

    return rule


def top_ratio(ratio: float) -> Callable[[Here, QKV], list[float]]:
    def weigh(here: Here, source: QKV) -> list[float]:
        scores = received(source[0], source[1], here.txt_len, here.angles)
        best = sorted(range(len(scores)), key=lambda token: -scores[token])[: round(ratio * len(scores))]
        return [float(token in best) for token in range(len(scores))]

    return weigh


def above_threshold(tau: float) -> Callable[[Here, QKV], list[float]]:
    def weigh(here: Here, source: QKV) -> list[float]:
        scores = received(source[0], source[1], here.txt_len, here.angles)
        uniform = 1 / (here.txt_len + len(scores))
        return [float(score / uniform >= tau) for score in scores]

    return weigh


def checkerboard(tokens: int) -> Tensor:
    return torch.arange(tokens) % 2 * 0.75


def mask_rule(here: Here, source: QKV) -> list[float]:
    return checkerboard(source[0].shape[1] - here.txt_len).tolist()


def off(a: Tensor, b: Tensor) -> float:
    """Relative difference of a from b."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def tokens_of(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def plan_of(*injections, layers=VITAL) -> Hooks:
    return Hooks(inject=dict.fromkeys(layers, injections))


# --- The plain path -------------------------------------------------------------------------------


def plain_forward(model, img, img_ids, txt, txt_ids, timesteps, y, guidance) -> Tensor:
    """FLUX's forward pass as it stands without hooks: the blocks are called as upstream calls them."""
    vec = steering_vector(model, timesteps, y, guidance)
    pe = model.pe_embedder(torch.cat((txt_ids, img_ids), dim=1))
    img, txt = model.img_in(img), model.txt_in(txt)
    for block in model.double_blocks:
        img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
    x = torch.cat((txt, img), dim=1)
    for block in model.single_blocks:
        x = block(x, vec=vec, pe=pe)
    return model.final_layer(x[:, txt.shape[1] :, ...], vec)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_hooks_and_empty_plans_leave_every_bit(small_flux, small_inputs, dtype):
    model, inputs = small_flux(dtype=dtype), small_inputs(dtype=dtype)
    plain = plain_forward(model, **inputs)
    empty = (
        None,
        Hooks(),
        Hooks(skip=[], inject={}),
        Hooks(inject={0: [], "single.1": ()}),
        plan_of(CopySource(strength=0.0)),
        plan_of(CopySource(keys=False, values=False)),
        plan_of(CopySource(rows=())),
    )
    assert torch.equal(model(**inputs), plain)
    for plan in empty:
        assert torch.equal(model(**inputs, hooks=plan), plain)


@pytest.mark.parametrize(("txt_len", "size", "edits"), SHAPES)
def test_reference_is_this_model(small_flux, small_inputs, txt_len, size, edits):
    model, inputs = small_flux(), small_inputs(1 + edits, txt_len, size)
    assert off(model(**inputs), Reference(model)(**inputs)) < 1e-5


def test_reference_is_this_model_without_guidance(small_flux, small_inputs):
    model, inputs = small_flux(guidance_embed=False), small_inputs()
    assert off(model(**inputs), Reference(model)(**inputs)) < 1e-5


# --- Skipping -------------------------------------------------------------------------------------


def without(model, small_flux, kind: str, index: int):
    """A model that was never given one of the blocks."""
    blocks = f"{kind}_blocks."
    kept = {}
    for name, weight in model.state_dict().items():
        if name.startswith(blocks):
            number, rest = name.removeprefix(blocks).split(".", 1)
            if int(number) == index:
                continue
            name = f"{blocks}{int(number) - (int(number) > index)}.{rest}"
        kept[name] = weight
    depth = {"double": "depth", "single": "depth_single_blocks"}[kind]
    smaller = small_flux(seed=9, **{depth: getattr(model.params, depth) - 1})
    smaller.load_state_dict(kept)
    return smaller


@pytest.mark.parametrize(("kind", "index", "number"), [("double", 1, 1), ("single", 0, 2), ("single", 2, 4)])
def test_skipping_a_layer_is_a_model_without_it(small_flux, small_inputs, kind, index, number):
    model, inputs = small_flux(), small_inputs()
    expected = without(model, small_flux, kind, index)(**inputs)
    for name in (number, f"{kind}.{index}"):
        assert torch.equal(model(**inputs, hooks=Hooks(skip=[name])), expected)
    assert off(model(**inputs), expected) > 1e-3


def test_skipping_all_layers_leaves_the_ends(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    vec = steering_vector(model, inputs["timesteps"], inputs["y"], inputs["guidance"])
    expected = model.final_layer(model.img_in(inputs["img"]), vec)
    assert torch.equal(model(**inputs, hooks=Hooks(skip=range(5))), expected)


def test_skipped_layers_call_no_injection(small_flux, small_inputs):
    def never(q, k, v, site):
        raise AssertionError("called")

    model, inputs = small_flux(), small_inputs()
    both = model(**inputs, hooks=Hooks(skip=["single.1"], inject={3: never}))
    assert torch.equal(both, model(**inputs, hooks=Hooks(skip=3)))


# --- Copying the source ---------------------------------------------------------------------------


@pytest.mark.parametrize(("txt_len", "size", "edits"), SHAPES)
@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, {}),
        ({"keys": False}, {"keys": False}),
        ({"values": False}, {"values": False}),
        ({"strength": 0.4}, {"strength": 0.4}),
        ({"select": TopRatio(0.3)}, {"weigh": top_ratio(0.3)}),
        ({"select": AboveThreshold(0.9), "strength": 0.6}, {"weigh": above_threshold(0.9), "strength": 0.6}),
        ({"select": "mask"}, {"weigh": mask_rule}),
        ({"rows": (1,), "values": False}, {"rows": (1,), "values": False}),
    ],
    ids=["copy", "values", "keys", "strength", "ratio", "threshold", "mask", "rows"],
)
def test_copies_as_the_method_says(small_flux, small_inputs, txt_len, size, edits, settings, rule):
    model, inputs = small_flux(), small_inputs(1 + edits, txt_len, size)
    if settings.get("select") == "mask":
        settings = settings | {"select": Mask(checkerboard(tokens_of(size)).view(size))}
    result = model(**inputs, hooks=plan_of(CopySource(**settings)))
    plain = model(**inputs)
    assert off(result, Reference(model, copy_rule(**rule))(**inputs)) < 1e-5
    assert off(result[0], plain[0]) < 1e-6, "the source is not to notice its edits"
    assert off(result[1], plain[1]) > 1e-4, "the case is too weak to tell a rule from none"


def test_rows_that_are_not_named_stay(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(4)
    result, plain = model(**inputs, hooks=plan_of(CopySource(rows=(1, 3)))), model(**inputs)
    assert [off(result[b], plain[b]) > 1e-4 for b in range(4)] == [False, True, False, True]


def test_a_ratio_of_one_copies_all_and_of_zero_none(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    everything = model(**inputs, hooks=plan_of(CopySource()))
    for select in (TopRatio(1.0), AboveThreshold(0.0), Mask(torch.ones(4, 4))):
        assert torch.equal(model(**inputs, hooks=plan_of(CopySource(select=select))), everything)
    for select in (TopRatio(0.0), AboveThreshold(1e9), Mask(torch.zeros(16))):
        assert torch.equal(model(**inputs, hooks=plan_of(CopySource(select=select))), model(**inputs))


def test_strategies_look_at_the_source_alone(small_flux, small_inputs):
    """Which tokens are copied must not depend on the edits beside the source."""
    seen = []

    def select(q, k, site):
        seen.append((q.shape, k.shape, site.pe.shape))
        return torch.ones(k.shape[2] - site.txt_len)

    small_flux()(**small_inputs(3), hooks=Hooks(inject={1: CopySource(select=select)}))
    assert seen == [((1, 3, 21, 16), (1, 3, 21, 16), (1, 1, 21, 8, 2, 2))]


def test_injections_chain_in_order(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    once = model(**inputs, hooks=plan_of(CopySource()))
    split = (CopySource(values=False), CopySource(keys=False))
    assert torch.equal(model(**inputs, hooks=plan_of(*split)), once)
    # The same layer under its two names.
    named = Hooks(inject={0: split[0], "double.0": split[1], 1: split, 4: list(split)})
    assert torch.equal(model(**inputs, hooks=named), once)

    def double(q, k, v, site):
        return q, 2 * k, v

    def add(q, k, v, site):
        return q, k + 1, v

    ordered = model(**inputs, hooks=Hooks(inject={0: (double, add)}))
    by_hand = model(**inputs, hooks=Hooks(inject={0: lambda q, k, v, site: (q, 2 * k + 1, v)}))
    assert torch.equal(ordered, by_hand)


def test_a_callable_of_ones_own(small_flux, small_inputs):
    """Its q, k and v are those of the reference, and what it returns is attended with."""
    model, inputs = small_flux(), small_inputs(2, 7, (3, 4))
    sites = []

    def mine(q, k, v, site):
        sites.append(site)
        assert q.shape == k.shape == v.shape == (2, 3, 19, 16)
        return q.flip(1), k * 1.5, torch.cat((v[:, :, : site.txt_len], -v[:, :, site.txt_len :]), dim=2)

    def reference_rule(here, own, source):
        if here.layer not in (1, 3):
            return own
        q, k, v = own[0].flip(0), own[1] * 1.5, own[2].clone()
        v[:, here.txt_len :] *= -1
        return q, k, v

    result = model(**inputs, hooks=Hooks(inject={"single.1": mine, 1: mine}))
    assert off(result, Reference(model, reference_rule)(**inputs)) < 1e-5
    places = [(site.layer, site.txt_len, site.step, site.steps) for site in sites]
    assert places == [(1, 7, 0, None), (3, 7, 0, None)]
    ids = torch.cat((inputs["txt_ids"], inputs["img_ids"]), dim=1)
    assert all(torch.equal(site.pe, model.pe_embedder(ids)) for site in sites)


# --- Properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_identical_rows_stay_to_the_bit(dtype, strength):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 3, 21, 16, generator=generator).to(dtype).repeat(4, 1, 1, 1) for _ in "qkv")
    site = Site(layer=0, txt_len=5, pe=EmbedND(16, 10_000, [4, 6, 6])(torch.rand(4, 21, 3)))
    for select in (None, TopRatio(0.5), AboveThreshold(1.0)):
        after = CopySource(strength=strength, select=select)(q, k, v, site)
        assert all(torch.equal(a, b) for a, b in zip(after, (q, k, v), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_edits_that_repeat_the_source_repeat_its_picture(small_flux, small_inputs, dtype):
    """To the bit where `align` has made the rows equal, which a matrix product may round by their place."""

    def align(q, k, v, site):
        return q[:1].expand_as(q), k[:1].expand_as(k), v[:1].expand_as(v)

    model, inputs = small_flux(dtype=dtype), small_inputs(1, dtype=dtype)
    same = {name: value.repeat(3, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    copied = model(**same, hooks=plan_of(align, CopySource()))
    assert torch.equal(copied, model(**same, hooks=plan_of(align)))
    result = model(**same, hooks=plan_of(CopySource()))
    assert off(result, model(**same)) < {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_permuted_edits_give_permuted_results(small_flux, small_inputs, dtype):
    model, inputs = small_flux(dtype=dtype), small_inputs(4, dtype=dtype)
    order = [0, 3, 1, 2]
    plan = plan_of(CopySource(select=TopRatio(0.5)))
    result = model(**inputs, hooks=plan)[order]
    permuted = model(**{name: value[order] for name, value in inputs.items()}, hooks=plan)
    assert off(permuted, result) < {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]


def run(model, inputs: dict[str, Tensor], rows: list[int], steps: int, **options) -> Tensor:
    """The final latent of some rows, denoised side by side."""
    chosen = {name: value[rows] for name, value in inputs.items() if name not in ("timesteps", "guidance")}
    chosen["vec"] = chosen.pop("y")
    timesteps = [1 - i / steps for i in range(steps + 1)]
    return denoise(model, **chosen, timesteps=timesteps, **options)


def run_reference(model, inputs: dict[str, Tensor], rules: list[Rule | None]) -> Tensor:
    """The same by the reference, at guidance 4, with one rule per step."""
    batch, x = len(inputs["img"]), inputs["img"].double()
    for i, rule in enumerate(rules):
        t = torch.full((batch,), 1 - i / len(rules))
        now = inputs | {"img": x, "timesteps": t, "guidance": torch.full((batch,), 4.0)}
        x = x - Reference(model, rule)(**now) / len(rules)
    return x


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edit_does_not_depend_on_its_neighbours(small_flux, small_inputs, dtype):
    """Beside the source alone, or among others in any place: equal but for the dtype's own rounding."""
    plan, edit = plan_of(CopySource()), 2
    model, inputs = small_flux(dtype=dtype), small_inputs(5, dtype=dtype)
    alone = run(model, inputs, [0, edit], 8, hooks=plan)[1]
    groups = ([0, edit, 1], [0, 1, edit], [0, 4, 3, edit, 1])
    worst = max(off(run(model, inputs, rows, 8, hooks=plan)[rows.index(edit)], alone) for rows in groups)
    exact = run_reference(small_flux(), small_inputs(5), [copy_rule()] * 8)[edit]
    rounding = off(alone, exact)
    print(f"\n{dtype}: an edit moves by {worst:.1e} with its neighbours, by {rounding:.1e} from rounding")
    assert worst <= 2 * rounding < {torch.float32: 2e-5, torch.bfloat16: 5e-2}[dtype]


def test_calls_with_different_plans_do_not_disturb_each_other(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(2)
    plans = (Hooks(skip=[3]), plan_of(CopySource(steps=(1, 3))), None)
    arguments = {name: inputs[name] for name in ("img", "img_ids", "txt", "txt_ids")} | {"vec": inputs["y"]}
    arguments["timesteps"] = [1.0, 0.75, 0.5, 0.25, 0.0]
    apart = [denoise(model, **arguments, hooks=plan) for plan in plans]
    interleaved = zip(*(denoise_steps(model, **arguments, hooks=plan) for plan in plans), strict=True)
    *_, last = interleaved
    for step, expected in zip(last, apart, strict=True):
        assert torch.equal(step.after, expected)


def test_nothing_is_kept_on_the_model(small_flux, small_inputs):
    model = small_flux()

    def state() -> list[tuple[str, list[str], list[int]]]:
        """Every module's attributes, and which objects they are."""
        return [(name, list(vars(m)), list(map(id, vars(m).values()))) for name, m in model.named_modules()]

    before, weights = state(), {name: weight.clone() for name, weight in model.state_dict().items()}
    model(**small_inputs(), hooks=Hooks(skip=[1], inject={0: CopySource(), 3: AttentionMaps()}))
    assert state() == before
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


# --- Plans and layer names ------------------------------------------------------------------------


def test_a_plan_cannot_be_changed(small_flux, small_inputs):
    inject, chain, skip = {}, [CopySource()], [1]
    inject[0] = chain
    plan = Hooks(skip=skip, inject=inject)
    model, inputs = small_flux(), small_inputs()
    before = model(**inputs, hooks=plan)
    inject[3], skip[0] = CopySource(), 2
    chain.append(CopySource())
    assert torch.equal(model(**inputs, hooks=plan), before)
    with pytest.raises(FrozenInstanceError):
        plan.step = 3
    with pytest.raises(TypeError):
        plan.inject[4] = CopySource()
    with pytest.raises(AttributeError):
        plan.skip.add(3)
    with pytest.raises(FrozenInstanceError):
        plan.inject[0][0].strength = 0.5


def test_layer_names_of_flux_dev():
    layers = Layers(19, 38)
    assert len(layers) == 57
    for name, index in ((0, 0), (56, 56), ("28", 28), ("double.18", 18), ("single.0", 19), ("single.9", 28)):
        assert layers.index(name) == index
    assert [layers.index(layers.name(i)) for i in range(57)] == list(range(57))
    assert (layers.name(18), layers.name(19), layers.name("56")) == ("double.18", "single.0", "single.37")


def test_numpys_numbers_name_layers():
    index = Layers(19, 38).index(np.int64(20))
    assert index == 20 and type(index) is int
    with pytest.raises(ValueError, match="0 to 56"):
        Layers(19, 38).index(np.int64(57))
    with pytest.raises(ValueError, match="does not exist"):
        Layers(19, 38).index(True)


NO_INTEGERS = (57, -1, True, False, 1.0, None)
NO_NAMES = ("double.19", "single.38", "single.-1", "single", "single.x", "triple.0", "double.1.2", "57", "")


@pytest.mark.parametrize("name", NO_INTEGERS + NO_NAMES)
def test_a_layer_that_is_not_there_states_the_range(name):
    with pytest.raises(ValueError) as error:
        Layers(19, 38).index(name)
    stated = "the model has layers 0 to 56 (double.0 to double.18, single.0 to single.37)"
    assert str(error.value) == f"layer {name!r} does not exist: {stated}"


@pytest.mark.parametrize("plan", [{"skip": [5]}, {"skip": True}, {"inject": {"double.2": CopySource()}}])
def test_a_plan_meets_the_model_it_is_for(small_flux, small_inputs, plan):
    with pytest.raises(ValueError, match=r"layers 0 to 4 \(double.0 to double.1, single.0 to single.2\)"):
        small_flux()(**small_inputs(), hooks=Hooks(**plan))


def test_named_sets_are_layers_of_flux_dev():
    sets = VITAL_LAYERS["flux-dev"]
    assert sets["paper"] == (0, 1, 2, 17, 18, 25, 28, 53, 54, 56)
    assert sets["released"] == (0, 1, 17, 18, 25, 28, 53, 54, 56)
    assert sets["reimplementation"] == (0, 1, 2, 17, 18, 53, 56)
    assert all(Layers(19, 38).index(layer) == layer for layers in sets.values() for layer in layers)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CopySource(strength=1.5), "strength must be between 0 and 1; got 1.5"),
        (lambda: CopySource(strength=math.nan), "strength must be between 0 and 1; got nan"),
        (lambda: CopySource(rows=(0, 1)), "row 0 is the source"),
        (lambda: CopySource(rows=(-1,)), "rows count from 1"),
        (lambda: CopySource(steps=(3, 1)), "steps"),
        (lambda: CopySource(steps=(-2, 1)), "steps"),
        (lambda: TopRatio(-0.1), "ratio must be between 0 and 1; got -0.1"),
        (lambda: TopRatio(math.nan), "ratio must be between 0 and 1; got nan"),
        (lambda: AboveThreshold(-1), "threshold must be 0 or more; got -1"),
        (lambda: AboveThreshold(math.nan), "threshold must be 0 or more; got nan"),
    ],
)
def test_wrong_settings_are_told_at_the_door(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_injection_must_be_callable():
    with pytest.raises(TypeError, match=r"inject\[3\] must be callable or .* callables; got 'copy'"):
        Hooks(inject={3: ["copy"]})


@pytest.mark.parametrize(
    "weight, says",
    [
        (torch.tensor([0.0, 1.5]), "between 0 and 1; got 1.5 at token 1"),
        (torch.tensor([[0.0, 1.0], [math.nan, 2.0]]), "between 0 and 1; got nan at row 1, column 0"),
        (torch.tensor([0.5, -0.25]), "got -0.25 at token 1"),
        (torch.ones(1, 4, 4), r"a mask must be a tensor \(L_img,\) or \(h, w\); got \(1, 4, 4\)"),
        (torch.tensor(1.0), r"a mask must be a tensor .*; got \(\)"),
        ([1.0, 0.0], "a mask must be a tensor .*; got list"),
    ],
)
def test_a_mask_is_weights_from_0_to_1(weight, says):
    with pytest.raises(ValueError, match=says):
        Mask(weight)


def test_masks_of_truths_and_of_levels(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    truths = torch.arange(16) % 3 == 0
    runs = [model(**inputs, hooks=plan_of(CopySource(select=Mask(m)))) for m in (truths, truths.float())]
    assert torch.equal(*runs)
    with pytest.raises(ValueError, match="got 255 at token"):
        Mask(truths.byte() * 255)


@pytest.mark.parametrize("rows", [(5,), (1, 3), (2, 9)])
@pytest.mark.parametrize("how", [{}, {"strength": 0.0}, {"steps": (5, 9)}])
def test_rows_that_are_not_there_are_named_with_the_layer(small_flux, small_inputs, rows, how):
    missing = next(row for row in rows if row > 2)
    with pytest.raises(
        ValueError,
        match=rf"^inject\[0\]: CopySource names row {missing}, but the batch has 3 rows: 0 is the source, "
        "edits are 1 to 2",
    ):
        small_flux()(**small_inputs(batch=3), hooks=plan_of(CopySource(rows=rows, **how)))


def test_a_batch_without_edits_has_no_row_for_one(small_flux, small_inputs):
    with pytest.raises(ValueError, match="has 1 rows: 0 is the source, there are no edits"):
        small_flux()(**small_inputs(batch=1), hooks=plan_of(CopySource(rows=(1,))))


def test_no_rows_are_no_edits(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    assert torch.equal(model(**inputs), model(**inputs, hooks=plan_of(CopySource(rows=()))))


@pytest.mark.parametrize("got", [None, torch.ones(1, 16), torch.ones(21), torch.ones(1)])
def test_what_a_select_returns_is_checked(small_flux, small_inputs, got):
    plan = plan_of(CopySource(select=lambda q, k, site: got))
    says = tuple(got.shape) if got is not None else "NoneType"
    with pytest.raises(ValueError, match=r"^inject\[0\]: select must return a weight per token") as error:
        small_flux()(**small_inputs(), hooks=plan)
    assert str(error.value).endswith(f"(16,); got {says}")


def test_a_mask_of_another_size_says_so(small_flux, small_inputs):
    plan = plan_of(CopySource(select=Mask(torch.ones(3, 3))))
    with pytest.raises(ValueError, match="the mask has 9 tokens, the picture 16"):
        small_flux()(**small_inputs(), hooks=plan)


# --- Steps ----------------------------------------------------------------------------------------


def test_denoise_tells_hooks_the_step(small_flux, small_inputs):
    seen = []

    def note(q, k, v, site):
        seen.append((site.step, site.steps, site.layer))
        return q, k, v

    run(small_flux(), small_inputs(2), [0, 1], 3, hooks=Hooks(inject={0: note, 4: note}))
    assert seen == [(step, 3, layer) for step in range(3) for layer in (0, 4)]


def test_a_step_window_starts_and_stops(small_flux, small_inputs):
    """Steps 1 and 2 of 4 copy, the others do not: as the reference does with the rule in those alone."""
    model, inputs = small_flux(), small_inputs(3)
    result = run(model, inputs, [0, 1, 2], 4, hooks=plan_of(CopySource(steps=(1, 3))))
    expected = run_reference(model, inputs, [None, copy_rule(), copy_rule(), None])
    assert off(result, expected) < 1e-5
    assert off(result, run(model, inputs, [0, 1, 2], 4, hooks=plan_of(CopySource()))) > 1e-3


# --- The attention image tokens receive -----------------------------------------------------------


def attention_case(txt_len: int, size: tuple[int, int], batch: int = 2, heads: int = 3, dim: int = 16):
    """Random q and k (B, H, L, D), their site, and the reference's angles (L, D / 2)."""
    generator = torch.Generator().manual_seed(txt_len)
    length = txt_len + tokens_of(size)
    q, k = (2 * torch.randn(batch, heads, length, dim, generator=generator) for _ in "qk")
    ids = torch.zeros(1, length, 3)
    ids[0, txt_len:, 1:] = torch.cartesian_prod(torch.arange(size[0]), torch.arange(size[1]))
    axes = [dim // 4, dim // 4, dim // 2]
    position = ids[0].double()
    columns = [position[:, a] * 10_000 ** (-2 * i / d) for a, d in enumerate(axes) for i in range(d // 2)]
    site = Site(layer=0, txt_len=txt_len, pe=EmbedND(dim, 10_000, axes)(ids))
    return q, k, site, torch.stack(columns, dim=1)


@pytest.mark.parametrize(("txt_len", "size"), [(5, (4, 4)), (1, (2, 3)), (0, (3, 3)), (30, (5, 2))])
def test_received_attention_is_the_mean_of_a_full_softmax(txt_len, size):
    q, k, site, angles = attention_case(txt_len, size)
    expected = torch.tensor([received(q[b].double(), k[b].double(), txt_len, angles) for b in range(2)])
    result = received_attention(q, k, site)
    assert result.shape == (2, tokens_of(size)) and result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-7)


def test_received_attention_in_bfloat16_is_as_good_as_its_inputs():
    q, k, site, angles = attention_case(5, (8, 8))
    q, k = q.bfloat16(), k.bfloat16()
    expected = torch.tensor([received(q[b].double(), k[b].double(), 5, angles) for b in range(2)])
    assert off(received_attention(q, k, site), expected) < 0.01


@pytest.mark.parametrize("budget", [1, 500, 5_000])
def test_slices_do_not_change_received_attention(budget):
    q, k, site, _ = attention_case(5, (6, 7))
    whole = received_attention(q, k, site)
    torch.testing.assert_close(received_attention(q, k, site, budget=budget), whole, rtol=1e-5, atol=1e-8)


class LargestTensor(TorchDispatchMode):
    """Watches every tensor that is made and keeps the size of the largest, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_received_attention_of_a_large_picture_holds_no_full_matrix():
    """1024 x 1024 pixels are 64 x 64 tokens; with 512 of text, one head alone has 19 million scores."""
    q, k, site, angles = attention_case(512, (64, 64), batch=1, heads=1, dim=8)
    with LargestTensor() as largest:
        result = received_attention(q, k, site, budget=2**20)
    print(f"\nat most {largest.elements:,} elements at once, of {4096 * 4608:,} scores")
    assert largest.elements <= 2**20
    expected = torch.tensor([received(q[0], k[0], 512, angles.float())])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_maps_are_kept_and_change_nothing(small_flux, small_inputs, dtype):
    model, inputs = small_flux(dtype=dtype), small_inputs(2, dtype=dtype)
    maps = AttentionMaps()
    watched = run(model, inputs, [0, 1], 2, hooks=plan_of(maps))
    assert torch.equal(watched, run(model, inputs, [0, 1], 2))
    assert set(maps.maps) == {(layer, step) for layer in VITAL_NUMBERS for step in (0, 1)}
    for attention in maps.maps.values():
        assert attention.shape == (2, 16) and attention.dtype == torch.float32
        assert attention.device.type == "cpu"


def test_attention_maps_are_those_of_the_reference(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(3, 7, (3, 4))
    expected = {}

    def watch(here, own, source):
        uniform = 1 / own[1].shape[1]
        scores = received(own[0], own[1], here.txt_len, here.angles)
        expected[here.layer, here.row] = [score / uniform for score in scores]
        return own

    Reference(model, watch)(**inputs)
    maps = AttentionMaps()
    model(**inputs, hooks=plan_of(maps))
    for (layer, _), attention in maps.maps.items():
        rows = torch.tensor([expected[layer, row] for row in range(3)])
        torch.testing.assert_close(attention, rows, rtol=1e-4, atol=1e-5)


# --- float16 --------------------------------------------------------------------------------------


def test_float16_stays_finite_where_the_residual_stream_overflows(small_flux, small_inputs):
    model = small_flux()
    for block in model.double_blocks:
        block.img_mlp[2].weight.mul_(5e5)
        block.txt_mlp[2].weight.mul_(5e5)
    for block in model.single_blocks:
        block.linear2.weight.mul_(5e5)
    inputs = small_inputs()
    streams = []

    def note(module, args, output):
        streams.extend(output if isinstance(output, tuple) else (output,))

    handles = [block.register_forward_hook(note) for block in (*model.double_blocks, *model.single_blocks)]
    model(**inputs)
    assert max(stream.abs().max() for stream in streams) > 65504, "the case does not overflow"
    streams.clear()
    half = {name: value if "ids" in name else value.half() for name, value in inputs.items()}
    result = model.half()(**half, hooks=plan_of(CopySource()))
    for handle in handles:
        handle.remove()
    assert max(stream.abs().max() for stream in streams) == 65504
    assert all(stream.isfinite().all() for stream in streams)
    assert result.isfinite().all()


# --- On a GPU -------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_copying_on_a_gpu(small_flux, small_inputs, dtype):
    """The same rule as on the CPU, by every strategy, within what the dtype rounds away."""
    inputs = {name: value.cuda() for name, value in small_inputs(3, dtype=dtype).items()}
    model, exact = small_flux(dtype=dtype).cuda(), small_flux()
    for select in (None, TopRatio(0.5), Mask(checkerboard(16))):
        plan = plan_of(CopySource(select=select))
        result = model(**inputs, hooks=plan)
        assert result.isfinite().all()
        if not isinstance(select, TopRatio):  # rounding may turn the choice between two tokens
            assert off(result.cpu(), exact(**small_inputs(3), hooks=plan)) < 0.05
