"""One denoising step, ours against diffusers: time and peak memory of the same architecture in one run.

    python benchmarks/gpu_step.py                 FLUX.1-dev's shape, 1024 x 1024, bfloat16, on a GPU of 40 GB
    python benchmarks/gpu_step.py --scale small   the same code on a model that a CPU can run

Weights are random, so no checkpoint is needed; nothing is compiled on either side. The two models take turns
(ours, diffusers, diffusers, ours) and each is alone in memory while it is measured. Before them the device is
calibrated: the rates that one plain matrix product and one plain attention reach give the floor of a step.
Figures go to `benchmarks/results/gpu_step-<device>.json`; `benchmarks/README.md` says how to read them.
"""

import argparse
import gc
import json
import re
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.hooks import VITAL_LAYERS, CopySource, Hooks
from flux.model import Flux, FluxParams
from flux.sampling import image_ids

RESULTS = Path(__file__).parent / "results"
ORDER = ("ours", "diffusers", "diffusers", "ours")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Scale:
    """What is run: the model's shape, the picture in tokens, and where hooks act."""

    name: str
    params: FluxParams
    grid: tuple[int, int]
    txt_len: int
    skip: int
    inject: tuple[int, ...]
    matmul: int

    @property
    def tokens(self) -> int:
        return self.txt_len + self.grid[0] * self.grid[1]


FULL = Scale(
    name="full",
    params=FluxParams(
        in_channels=64,
        out_channels=64,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=19,
        depth_single_blocks=38,
        axes_dim=[16, 56, 56],
        theta=10_000,
        qkv_bias=True,
        guidance_embed=True,
    ),
    grid=(64, 64),
    txt_len=512,
    skip=28,
    inject=VITAL_LAYERS["flux-dev"]["released"],
    matmul=8192,
)
SMALL = replace(
    FULL,
    name="small",
    params=replace(FULL.params, hidden_size=384, num_heads=3, depth=2, depth_single_blocks=4),
    grid=(16, 16),
    txt_len=64,
    skip=3,
    inject=(0, 5),
    matmul=1024,
)
SCALES = {scale.name: scale for scale in (FULL, SMALL)}


@dataclass(frozen=True)
class Case:
    """One way to run a step. Only ours knows hooks, so diffusers runs the cases without."""

    name: str
    batch: int
    hooks: Hooks | None = None


def cases_of(scale: Scale, batches: list[int]) -> list[Case]:
    inject = Hooks(inject=dict.fromkeys(scale.inject, CopySource()))
    return [
        *(Case(f"plain, batch {batch}", batch) for batch in batches),
        Case("skip one layer, batch 1", 1, Hooks(skip=[scale.skip])),
        Case(f"inject {len(scale.inject)} layers, batch 2", 2, inject),
    ]


# --- Models: random weights, made where they are used ---------------------------------------------


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype):
    """New parameters are born on the device and in the dtype: no copy on the CPU, none in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def our_model(params: FluxParams) -> nn.Module:
    return Flux(params)


def diffusers_model(params: FluxParams) -> nn.Module:
    try:
        from diffusers import FluxTransformer2DModel
    except ImportError:
        raise SystemExit("diffusers is not installed: pip install '.[test]'") from None
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=params.in_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.hidden_size // params.num_heads,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=params.guidance_embed,
        axes_dims_rope=tuple(params.axes_dim),
    )


def inputs_of(scale: Scale, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random arguments of `Flux.forward`."""
    params, (h, w) = scale.params, scale.grid
    place = {"device": device, "dtype": dtype}
    return {
        "img": torch.randn(batch, h * w, params.in_channels, **place),
        "img_ids": image_ids(h, w).to(device).expand(batch, -1, -1),
        "txt": torch.randn(batch, scale.txt_len, params.context_in_dim, **place),
        "txt_ids": torch.zeros(batch, scale.txt_len, 3, device=device),
        "timesteps": torch.full((batch,), 0.7, **place),
        "y": torch.randn(batch, params.vec_in_dim, **place),
        "guidance": torch.full((batch,), 3.5, **place),
    }


def step_of(name: str, model: nn.Module, inputs: dict, hooks: Hooks | None) -> Callable[[], Tensor]:
    """One Euler step as a call without arguments."""
    if name == "ours":
        return lambda: inputs["img"] - 0.05 * model(**inputs, hooks=hooks)
    arguments = {
        "hidden_states": inputs["img"],
        "encoder_hidden_states": inputs["txt"],
        "pooled_projections": inputs["y"],
        "timestep": inputs["timesteps"],
        "guidance": inputs["guidance"],
        # diffusers takes the ids of one row for all.
        "img_ids": inputs["img_ids"][0],
        "txt_ids": inputs["txt_ids"][0],
    }
    return lambda: inputs["img"] - 0.05 * model(**arguments, return_dict=False)[0]


# --- Measuring ------------------------------------------------------------------------------------


def milliseconds(call: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> list[float]:
    """How long each of `repeats` calls took: by CUDA events on a GPU, by the clock elsewhere."""
    for _ in range(warmup):
        call()
    if device.type != "cuda":
        return [_by_clock(call) for _ in range(repeats)]
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize(device)
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) for start, end in pairs]


def _by_clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def calibrate(scale: Scale, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """TFLOP/s that one large matrix product and one attention of the model's shape reach here."""
    n, heads, length = scale.matmul, scale.params.num_heads, scale.tokens
    dim = scale.params.hidden_size // heads
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    q, k, v = torch.randn(3, 1, heads, length, dim, device=device, dtype=dtype)
    matmul = statistics.median(milliseconds(lambda: a @ b, device, 5, 20))
    attend = statistics.median(milliseconds(lambda: F.scaled_dot_product_attention(q, k, v), device, 5, 20))
    return {
        "matmul_tflops": 2 * n**3 / matmul / 1e9,
        "attention_tflops": 4 * length**2 * heads * dim / attend / 1e9,
    }


def work(scale: Scale, batch: int) -> dict[str, float]:
    """TFLOP of one step: the linear layers of the blocks over all tokens, and attention."""
    p, length = scale.params, scale.tokens
    # Queries, keys, values and output, 4 h^2, and the MLP, 2 r h^2, in both block kinds.
    linear = (4 + 2 * p.mlp_ratio) * p.hidden_size**2
    layers = p.depth + p.depth_single_blocks
    return {
        "linear": 2 * batch * layers * linear * length / 1e12,
        "attention": 4 * batch * layers * length**2 * p.hidden_size / 1e12,
    }


def floor_of(scale: Scale, batch: int, rates: dict[str, float]) -> float:
    """Milliseconds a step of the whole model would take if its products ran at the calibrated rates."""
    flop = work(scale, batch)
    seconds = flop["linear"] / rates["matmul_tflops"] + flop["attention"] / rates["attention_tflops"]
    return 1000 * seconds


@torch.inference_mode()
def measure(
    name: str,
    scale: Scale,
    cases: list[Case],
    device: torch.device,
    dtype: torch.dtype,
    warmup: int,
    repeats: int,
) -> list[dict]:
    """Build one model, run the cases it can, and leave nothing behind."""
    build = {"ours": our_model, "diffusers": diffusers_model}[name]
    with made_on(device, dtype):
        model = build(scale.params).eval().requires_grad_(False)
    rows = []
    for case in cases:
        if case.hooks is not None and name != "ours":
            continue
        step = step_of(name, model, inputs_of(scale, case.batch, device, dtype), case.hooks)
        reset_peak(device)
        times = milliseconds(step, device, warmup, repeats)
        row = {"model": name, "case": case.name, "batch": case.batch, "peak_gb": peak_gb(device)}
        rows.append(row | {"ms": times})
        print(f"  {name:10} {case.name:24} {statistics.median(times):10.2f} ms", flush=True)
    del model, step
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return rows


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """Most memory held by tensors since `reset_peak`; only a GPU's allocator can tell."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


# --- Figures --------------------------------------------------------------------------------------


def summarise(rows: list[dict], scale: Scale, rates: dict[str, float]) -> list[dict]:
    """One entry per model and case, its turns joined: median, spread and floor."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["case"]), []).append(row)
    return [_entry(turns, scale, rates) for turns in groups.values()]


def _entry(turns: list[dict], scale: Scale, rates: dict[str, float]) -> dict:
    times = sorted(ms for turn in turns for ms in turn["ms"])
    deciles = statistics.quantiles(times, n=10, method="inclusive") if len(times) > 1 else times * 9
    entry = {key: turns[0][key] for key in ("model", "case", "batch", "peak_gb")}
    return entry | {
        "median_ms": statistics.median(times),
        "least_ms": times[0],
        "p10_ms": deciles[0],
        "p90_ms": deciles[-1],
        "turns_ms": [statistics.median(turn["ms"]) for turn in turns],
        "floor_ms": floor_of(scale, turns[0]["batch"], rates),
    }


def ratios(entries: list[dict]) -> dict[str, float]:
    """Ours over diffusers for each case both ran, and each hooked case over ours plain: below 1 is faster."""
    median = {(entry["model"], entry["case"]): entry["median_ms"] for entry in entries}
    result = {}
    for entry in entries:
        model, case, plain = entry["model"], entry["case"], f"plain, batch {entry['batch']}"
        if model == "diffusers":
            result[f"ours / diffusers, {case}"] = median["ours", case] / median[model, case]
        elif case != plain and (model, plain) in median:
            result[f"{case} / {plain}"] = median[model, case] / median[model, plain]
    return result


def table(report: dict) -> str:
    """The report as Markdown, as `benchmarks/README.md` shows it."""
    lines = ["| model | case | median ms | p10 - p90 | floor ms | peak GB |", "| --- " * 6 + "|"]
    for entry in report["cases"]:
        peak = "-" if entry["peak_gb"] is None else f"{entry['peak_gb']:.1f}"
        spread = f"{entry['p10_ms']:.1f} - {entry['p90_ms']:.1f}"
        figures = f"{entry['median_ms']:.1f} | {spread} | {entry['floor_ms']:.1f} | {peak}"
        lines.append(f"| {entry['model']} | {entry['case']} | {figures} |")
    lines += ["", *(f"- {name}: {ratio:.3f}" for name, ratio in report["ratios"].items())]
    return "\n".join(lines)


def machine(device: torch.device, dtype: torch.dtype) -> dict:
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "threads": None if on_gpu else torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
    }


def arguments() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if gpu else "cpu"))
    parser.add_argument("--scale", choices=SCALES, help="full on a GPU, small elsewhere")
    parser.add_argument("--dtype", choices=DTYPES, help="bfloat16 on a GPU, float32 elsewhere")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15, help="timed steps per case and turn")
    parser.add_argument("--rounds", type=int, default=1, help="how often the four turns are run")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, help="the file to write")
    given = parser.parse_args()
    on_gpu = given.device.type == "cuda"
    given.scale = SCALES[given.scale or ("full" if on_gpu else "small")]
    given.dtype = DTYPES[given.dtype or ("bfloat16" if on_gpu else "float32")]
    return given


def main() -> None:
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    about, cases = machine(given.device, given.dtype), cases_of(given.scale, given.batches)
    print(f"{about['device']}, {about['dtype']}, scale {given.scale.name}")
    rates = calibrate(given.scale, given.device, given.dtype)
    print("  " + ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()))

    rows = []
    for name in ORDER * given.rounds:
        rows += measure(name, given.scale, cases, given.device, given.dtype, given.warmup, given.repeats)
    entries = summarise(rows, given.scale, rates)
    report = {
        "what": f"one denoising step, eager, random weights, {given.scale.name} scale",
        "machine": about,
        "scale": asdict(given.scale),
        "work_tflop_batch_1": work(given.scale, 1),
        "calibration": rates,
        "order": ORDER,
        "rounds": given.rounds,
        "warmup": given.warmup,
        "repeats": given.repeats,
        "cases": entries,
        "ratios": ratios(entries),
    }
    name = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    out = given.out or RESULTS / f"gpu_step-{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{table(report)}\n\nwritten to {out}")


if __name__ == "__main__":
    main()
