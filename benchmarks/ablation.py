"""An ablation sweep against the plain way, in one run: one whole generation for each picture.

    python benchmarks/ablation.py                        flux-tiny, 8 prompts, 3 layers, 16 steps
    python benchmarks/ablation.py --prompts 64 --layers 4

Three ways make the same pictures from the same weights and noise:

    sweep       what demo 2 does: texts encoded once, prompts side by side under one skipped layer
    one by one  our own `generate`, one call for each picture, as a user would write it
    diffusers   a FluxPipeline call for each picture, the block's forward replaced by one that skips it

The library's own skip hook, `apply_layer_skip`, returns a FLUX block's two streams in the wrong order
(diffusers 0.42), so that a skipped layer ends in a shape error: it cannot be used here.

They take turns, A B B A, once with each of the plain ways as B; loading is not timed. How often encoders,
blocks and decoder run is counted by hooks on the modules in a separate pass. How close the pictures are is
measured too, since a faster way that makes other pictures is no gain. Figures go to
`benchmarks/results/ablation-<device>.json`.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor, nn

from flux.generate import Sampling, generate
from flux.hooks import Hooks
from flux.model import layers_of
from flux.pictures.files import to_pil
from flux.pictures.metrics import psnr
from flux.sampling import get_noise, pack
from flux.studies.sweep.cells import Cell, Prompt, tasks
from flux.studies.sweep.engines.local import local
from flux.studies.sweep.make import Job
from flux.tiny.prompts import draw_prompts
from flux.util import TINY_WEIGHTS, Models, configs, load_models
from flux.weights import convert

TINY = configs["flux-tiny"]
RESULTS = Path(__file__).parent / "results"
Pictures = dict[Cell, Image.Image]


@dataclass(frozen=True)
class Work:
    """What is made: a reference for each prompt, and a picture for each prompt with each layer skipped."""

    prompts: tuple[Prompt, ...]
    layers: tuple[int, ...]
    sampling: Sampling
    batch: int

    @property
    def cells(self) -> list[Cell]:
        groups = [(), *((layer,) for layer in self.layers)]
        return [Cell(i, group) for group in groups for i in range(len(self.prompts))]


def sweep(models: Models, work: Work) -> Pictures:
    """As demo 2 does it, files and all."""
    groups = [(layer,) for layer in work.layers]
    with TemporaryDirectory() as folder:
        job = Job(Path(folder), work.prompts, tuple(range(len(work.prompts))), work.sampling, lambda: models)
        with local(job) as run:
            done = list(run(tasks(len(work.prompts), groups, work.batch, noise=0)))
        failed = [each.error for each in done if each.error]
        if failed:
            raise RuntimeError(failed[0])
        return {cell: Image.open(Path(folder, cell.file)).convert("RGB") for cell in work.cells}


def one_by_one(models: Models, work: Work) -> Pictures:
    """A call of our `generate` for each picture."""
    made: Pictures = {}
    for cell in work.cells:
        prompt = work.prompts[cell.prompt]
        hooks = Hooks(skip=cell.group) if cell.group else None
        picture = generate(models, [prompt.text], [prompt.seed], work.sampling, hooks=hooks)[0]
        made[cell] = to_pil(picture)
    return made


def with_diffusers(pipeline, models: Models, work: Work) -> Pictures:
    """A call of the pipeline for each picture."""
    transformer = pipeline.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    made: Pictures = {}
    size = (work.sampling.height, work.sampling.width)
    for cell in work.cells:
        prompt = work.prompts[cell.prompt]
        noise = get_noise(1, *size, models.device, torch.bfloat16, prompt.seed).to(models.dtype)
        with skipped([blocks[layer] for layer in cell.group]):
            out = pipeline(
                prompt=prompt.text,
                height=size[0],
                width=size[1],
                num_inference_steps=work.sampling.steps,
                guidance_scale=work.sampling.guidance,
                latents=pack(noise),
                max_sequence_length=TINY.t5_length,
            )
        made[cell] = out.images[0]
    return made


@contextmanager
def skipped(blocks: list[nn.Module]) -> Iterator[None]:
    """Blocks of diffusers' FLUX that return what they got: text stream, image stream."""

    def passed_by(hidden_states: Tensor, encoder_hidden_states: Tensor, **others) -> tuple[Tensor, Tensor]:
        return encoder_hidden_states, hidden_states

    for block in blocks:
        block.forward = passed_by
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own again


def pipeline_of(models: Models):
    """diffusers' pipeline with flux-tiny's weights."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import AutoTokenizer

    transformer = FluxTransformer2DModel(**convert.flow_config(TINY.params))
    transformer.load_state_dict(
        dict(_tensors(convert.to_diffusers(convert.flow_rules(TINY.params), models.flow.state_dict())))
    )
    transformer.pos_embed.theta = TINY.params.theta  # no argument of the class
    vae = AutoencoderKL(**convert.ae_config(TINY.ae_params))
    vae.load_state_dict(
        dict(_tensors(convert.to_diffusers(convert.ae_rules(TINY.ae_params), models.ae.state_dict())))
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    pipeline = FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=models.clip.hf_module,
        tokenizer=AutoTokenizer.from_pretrained(Path(TINY_WEIGHTS) / "tokenizer"),
        text_encoder_2=models.t5.hf_module,
        tokenizer_2=AutoTokenizer.from_pretrained(Path(TINY_WEIGHTS) / "tokenizer_2"),
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(models.device, models.dtype)


def _tensors(lazy) -> Iterator[tuple[str, Tensor]]:
    return ((key, lazy[key].float()) for key in lazy)


@contextmanager
def counted(parts: dict[str, list[nn.Module]]) -> Iterator[Counter]:
    """Counts rows that pass through modules, by the name of their kind."""
    counts: Counter = Counter()

    def count(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output) -> None:
            if kwargs.get("skip") or "forward" in vars(module):
                return  # passed by
            first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor | list))
            counts[f"{name}, calls"] += 1
            counts[f"{name}, rows"] += len(first)

        return hook

    handles = [
        module.register_forward_hook(count(name), with_kwargs=True)
        for name, modules in parts.items()
        for module in modules
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def parts_of(models: Models, pipeline=None) -> dict[str, list[nn.Module]]:
    """The modules whose use is counted, ours or the pipeline's."""
    if pipeline is None:
        blocks = [*models.flow.double_blocks, *models.flow.single_blocks]
        return {"T5": [models.t5.hf_module], "block": blocks, "decoder": [models.ae.decoder]}
    transformer = pipeline.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return {"T5": [pipeline.text_encoder_2], "block": blocks, "decoder": [pipeline.vae.decoder]}


def agreement(ours: Pictures, theirs: Pictures) -> dict[str, float]:
    """PSNR in dB by cell: the least and the median; equal ones count as 99."""
    values = []
    for cell in ours:
        values.append(min(99.0, psnr(ours[cell], theirs[cell])))
    return {"least_db": round(float(min(values)), 1), "median_db": round(statistics.median(values), 1)}


def timed(make: Callable[[], Pictures]) -> tuple[float, Pictures]:
    start = time.perf_counter()
    made = make()
    return time.perf_counter() - start, made


def compare(sweep_side: Callable, plain: Callable, repeats: int) -> dict:
    """Sweep and a plain way in turns, A B B A, `repeats` times."""
    seconds: dict[str, list[float]] = {"sweep": [], "plain": []}
    for _ in range(repeats):
        for side in ("sweep", "plain", "plain", "sweep"):
            taken, _ = timed(sweep_side if side == "sweep" else plain)
            seconds[side].append(round(taken, 2))
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["sweep"])
    return {"seconds": seconds, "ratio": round(ratio, 2)}


@torch.inference_mode()
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--prompts", type=int, default=8, help="how many of flux-tiny's prompts")
    options.add_argument("--layers", type=int, default=3, help="how many layers are skipped in turn")
    options.add_argument("--steps", type=int, default=16)
    options.add_argument("--batch", type=int, default=8, help="prompts side by side in the sweep")
    options.add_argument("--repeats", type=int, default=1, help="rounds of A B B A")
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="on a CPU, for all ways"
    )
    given = options.parse_args()

    torch.set_num_threads(given.threads)
    models = load_models("flux-tiny", device=given.device)
    pipeline = pipeline_of(models)
    layers = [
        round(i * (len(layers_of(models.flow)) - 1) / max(1, given.layers - 1)) for i in range(given.layers)
    ]
    work = Work(
        prompts=tuple(Prompt(each["prompt"], each["seed"]) for each in draw_prompts()[: given.prompts]),
        layers=tuple(dict.fromkeys(layers)),
        sampling=Sampling(given.steps, 3.5, 128, 128),
        batch=given.batch,
    )
    ways = {
        "sweep": lambda: sweep(models, work),
        "one by one": lambda: one_by_one(models, work),
        "diffusers": lambda: with_diffusers(pipeline, models, work),
    }
    made, counts = {}, {}
    for name, make in ways.items():  # warms up too
        with counted(parts_of(models, pipeline if name == "diffusers" else None)) as counted_here:
            made[name] = make()
        counts[name] = dict(counted_here)
    figures = {
        "device": str(models.device),
        "threads": torch.get_num_threads(),
        "dtype": str(models.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "prompts": len(work.prompts),
        "layers": list(work.layers),
        "steps": given.steps,
        "batch": given.batch,
        "cells": len(work.cells),
        "counts": counts,
    }
    for name in ("one by one", "diffusers"):
        figures[name] = compare(ways["sweep"], ways[name], given.repeats)
        figures[name]["same_pictures"] = agreement(made["sweep"], made[name])
    sweep_seconds = [t for name in ("one by one", "diffusers") for t in figures[name]["seconds"]["sweep"]]
    figures["sweep_seconds_per_picture"] = round(statistics.median(sweep_seconds) / len(work.cells), 4)
    print(json.dumps(figures, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"ablation-{models.device.type}.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
