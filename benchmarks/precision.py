"""What precisions of the weights do to flux-tiny's pictures, and which layers are best left in full.

    python benchmarks/precision.py               a quarter of an hour; --pictures 8 for a look

Every picture is made in full (float32) and in each precision, from the same prompt and seed, in one run: PSNR
between both, 95 % by bootstrap over pictures, and the share of what the captions say that the judge reads.
Prompts are other ones than those of the sweep.

Orders, at equal bytes: some of the layers stay in full, the others are in nf4, where most is to be gained. Of
each order as many layers as fit are taken, what matters most first, until the budget is spent to the last
byte: a single block weighs one, a double block two, of 16 in all. Sweep: by the similarity in
vital_layers.json, the least first. Reversed. Random, several draws. Alone: by the error that each layer makes
when it alone is quantised, which is the question itself and costs a run for each layer. Figures go to
`results/precision.json`.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from flux.files import write_atomically
from flux.formats.fill import load_into
from flux.formats.packed import is_packed
from flux.generate import Sampling, Texts, decode, encode, sample_steps
from flux.model import Flux
from flux.precision import quantising
from flux.precision.choice import BITS, Precision
from flux.precision.evidence import read_evidence
from flux.precision.quantising import Quantiser, is_quantised
from flux.precision.sizes import rows_and_columns
from flux.tiny.asked import Asked, read_caption
from flux.tiny.judge import Reading, load_judge
from flux.tiny.prompts import draw_prompts
from flux.util import TINY_WEIGHTS, Models, configs, load_models

NAME, SEED, DRAWS, BUDGETS, ORDERED = "flux-tiny", 1700, 4, (4, 8), "nf4"
GGUF = ("Q8_0", "Q5_1", "Q4_0")
RESULTS = Path(__file__).parent / "results" / "precision.json"


@dataclass(frozen=True)
class Bench:
    """What all rows have in common. full: the pictures in full, (B, 3, H, W)."""

    models: Models
    texts: Texts
    prompts: list[str]
    asked: list[Asked]
    sampling: Sampling
    full: Tensor | None = None

    def pictures(self, flow: nn.Module, texts: Texts | None = None) -> Tensor:
        models = replace(self.models, flow=flow)
        made = []
        for start in range(0, len(self.prompts), 8):
            rows = range(start, min(start + 8, len(self.prompts)))
            prompts = [self.prompts[i] for i in rows]
            for step in sample_steps(models, texts or self.texts, prompts, list(rows), self.sampling):
                last = step.after
            made.append(decode(models, last, self.sampling).clamp(-1, 1))
        return torch.cat(made)


def psnr(found: Tensor, wanted: Tensor) -> np.ndarray:
    """Of each picture, in dB; RGB in [-1, 1]."""
    error = ((found - wanted) / 2).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return (-10 * error.log10()).double().numpy()


def interval(values: np.ndarray) -> list[float]:
    rng = np.random.default_rng(0)
    means = [rng.choice(values, len(values)).mean() for _ in range(2000)]
    return [round(float(each), 2) for each in np.percentile(means, (2.5, 97.5))]


def right(readings: Sequence[Reading], asked: Sequence[Asked]) -> float:
    """The share of attributes of the captions that the judge reads in the pictures."""
    hits: list[bool] = []
    for reading, wish in zip(readings, asked, strict=True):
        hits += [
            getattr(reading, name) == value
            for name, value in (("sky", wish.sky), ("ground", wish.ground), ("weather", wish.weather))
            if value is not None
        ]
        left = list(reading.things)
        for thing in wish.things:
            said = [(n, getattr(thing, n)) for n in ("kind", "colour", "size", "pose", "letter")]
            said = [(n, value) for n, value in said if value is not None]
            best = max(left, key=lambda t, s=said: sum(getattr(t, n) == v for n, v in s), default=None)
            hits += [best is not None and getattr(best, n) == v for n, v in said]
            if best is not None:
                left.remove(best)
    return sum(hits) / len(hits)


def quantised(flow: Flux, precision: Precision) -> Flux:
    """A copy of a flow model in a precision."""
    made = copy.deepcopy(flow)
    quantiser = Quantiser(precision, "flow model", flow.params.depth)
    for key in dict(made.named_parameters()):
        quantiser(made, key)
    return made


def with_modulation(flow: Flux, precision: Precision) -> Flux:
    before, quantising.IN_FULL = quantising.IN_FULL, quantising.re.compile(r"lora_[AB]$")
    try:
        return quantised(flow, precision)
    finally:
        quantising.IN_FULL = before


def from_gguf(flow: Flux, kind: str) -> Flux:
    """The flow model out of a GGUF file whose blocks are packed, modulation too, as in published files."""
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder) / "flow.gguf", gguf.GGMLQuantizationType[kind]
        writer = gguf.GGUFWriter(file, "flux")
        for key, tensor in flow.state_dict().items():
            if "blocks." in key and tensor.ndim == 2:
                writer.add_tensor(key, gguf.quants.quantize(tensor.numpy(), made), raw_dtype=made)
            else:
                writer.add_tensor(key, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with torch.device("meta"):
            model = Flux(flow.params)
        load_into(model, file, "cpu", torch.float32, packs=True)
    return model.requires_grad_(False)


def in_numbers(model: nn.Module) -> nn.Module:
    """The model with the numbers that its weights stand for: the same pictures, and faster on a CPU."""
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        if is_packed(module):
            parametrize.remove_parametrizations(module, "weight")
        elif is_quantised(module.weight):
            weight = module.weight
            exact = getattr(weight, "get_original_weight", weight.dequantize)()  # nf4's name for it
            module.weight = nn.Parameter(exact, requires_grad=False)
    return model


def bytes_of(tensor: Tensor) -> int:
    if not is_quantised(tensor):
        return tensor.numel() * tensor.element_size()
    parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    return sum(bytes_of(part) for part in parts if isinstance(part, Tensor))


def weigh(layer: int) -> int:
    """What a layer weighs, in single blocks."""
    spec = configs[NAME]
    numbers = [sum(a * b for a, b in rows_and_columns(spec, each)) for each in (layer, len(spec.layers) - 1)]
    return numbers[0] // numbers[1]


def fitting(order: Sequence[int], budget: int, weights: Sequence[int]) -> tuple[int, ...]:
    """The layers that an order keeps in full for a budget, which is spent to the last byte."""
    kept, left = [], budget
    for layer in order:
        if weights[layer] <= left:
            kept.append(layer)
            left -= weights[layer]
    assert left == 0
    return tuple(sorted(kept))


# Rows


def precisions(bench: Bench) -> Iterator[dict]:
    """Flow model and T5 in each precision, as `load_models` gives them; and the flow model out of GGUF."""
    judge = load_judge(TINY_WEIGHTS / "judge.safetensors")
    flow = bench.models.flow
    full = {"precision": "float32", "right": right(judge.read(bench.full), bench.asked)}
    yield full | {"flow_bytes": sum(map(bytes_of, flow.parameters())), "psnr": None}

    def row(name: str, model: nn.Module, at: Bench = bench, texts: Texts | None = None) -> dict:
        size = sum(map(bytes_of, model.parameters()))
        pictures = at.pictures(in_numbers(model), texts)
        values = psnr(pictures, bench.full)
        return {
            "precision": name,
            "flow_bytes": size,
            "psnr": round(float(values.mean()), 2),
            "interval": interval(values),
            "right": right(judge.read(pictures), bench.asked),
        }

    for name in (*BITS, "bfloat16"):
        models = load_models(NAME, device="cpu", precision=name)
        in_numbers(models.t5)
        texts = encode(models, bench.prompts)
        yield row(name, models.flow, replace(bench, models=models), texts)
    for name in BITS:
        yield row(f"{name}, modulation too", with_modulation(flow, Precision(name)))
    for kind in GGUF:
        yield row(f"GGUF {kind}", from_gguf(flow, kind))


class Ordered:
    """PSNR where some layers stay in full. Pictures are made with the numbers that the others stand for."""

    def __init__(self, bench: Bench):
        self.bench, self.flow = bench, bench.models.flow
        self.weights = [weigh(layer) for layer in range(len(configs[NAME].layers))]
        self.exact = self.flow.state_dict()
        self.lossy = in_numbers(quantised(self.flow, Precision(ORDERED))).state_dict()

    def psnr(self, kept: Sequence[int]) -> float:
        wants = Quantiser(Precision(ORDERED, tuple(kept)), "flow model", self.flow.params.depth).wants
        model = copy.deepcopy(self.flow)
        model.load_state_dict({key: (self.lossy if wants(key) else self.exact)[key] for key in self.exact})
        return round(float(psnr(self.bench.pictures(model), self.bench.full).mean()), 2)

    def row(self, budget: int, name: str, order: Sequence[int]) -> dict:
        kept = fitting(order, budget, self.weights)
        about = {"budget": budget, "of": sum(self.weights), "order": name, "kept": list(kept)}
        return about | {"psnr": self.psnr(kept)}


def orders(bench: Bench) -> Iterator[dict]:
    """PSNR at equal bytes, by what the layers in full were chosen by."""
    ordered = Ordered(bench)
    sweep = read_evidence(TINY_WEIGHTS / "vital_layers.json", NAME, configs[NAME].layers).order
    rng = np.random.default_rng(SEED)
    draws = [rng.permutation(len(sweep)).tolist() for _ in range(DRAWS)]
    yield {"budget": 0, "of": sum(ordered.weights), "order": "none", "psnr": ordered.psnr([])}
    for budget in BUDGETS:
        for name, order in (("sweep", sweep), ("reversed", sweep[::-1])):
            yield ordered.row(budget, name, order)
        for order in draws:
            yield ordered.row(budget, "random", order)


def alone(bench: Bench) -> Iterator[dict]:
    """PSNR with one layer quantised, and at equal bytes by the order that comes of it."""
    ordered = Ordered(bench)
    layers = range(len(ordered.weights))
    found = {layer: ordered.psnr([each for each in layers if each != layer]) for layer in layers}
    yield {"alone": found}
    for budget in BUDGETS:
        yield ordered.row(budget, "alone", sorted(layers, key=found.__getitem__))


TABLES = {"rows": precisions, "orders": orders, "alone": alone}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    prompts = [each["prompt"] for each in draw_prompts(given.pictures, SEED)]
    asked = [read_caption(prompt) for prompt in prompts]
    models = load_models(NAME, device="cpu", dtype="float32")
    sampling = Sampling(given.steps, 3.5, 128, 128)
    bench = Bench(models, encode(models, prompts), prompts, asked, sampling)
    bench = replace(bench, full=bench.pictures(models.flow))
    about = {"pictures": given.pictures, "steps": given.steps, "torch": torch.__version__}
    found = {**about, **{name: [] for name in TABLES}}
    for name, make in TABLES.items():
        for each in make(bench) if given.only in (None, name) else ():
            print(json.dumps(each), flush=True)
            found[name].append(each)
            write_atomically(given.out, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
