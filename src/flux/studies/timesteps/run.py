"""Demo 1: one picture at every timestep, as noise that clears and as the model's estimate of the end."""

import math
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from flux.device import pick_device
from flux.generate import at_work, decode, encode, sample_steps
from flux.hooks import AttentionMaps, Hooks
from flux.models import configs
from flux.pictures.files import to_pil
from flux.sampling import get_schedule
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet, heat, scaled
from flux.studies.run import PAGE, Bars, about, load, machine, open_run, sampling_of
from flux.studies.timesteps.spec import LayerSpec
from flux.weights.load import Models

PICTURE, FILMSTRIP, ANIMATION, ATTENTION = "picture.png", "filmstrip.png", "animation.webp", "attention.png"

COLUMNS = 9
"""The most pictures in a row of the filmstrip."""

OCTAVES = 2
SCALE = f"dark: 1/{2**OCTAVES} of the uniform share or less; bright: {2**OCTAVES} times it or more"
"""The colours of attention maps."""


@dataclass(frozen=True)
class Files:
    """The files of a run, by step where there is one of each step; maps[layer] likewise."""

    noisy: list[str]
    estimates: list[str]
    maps: dict[int, list[str]]

    def all(self) -> list[str]:
        return [
            PICTURE,
            *self.noisy,
            *self.estimates,
            *(file for files in self.maps.values() for file in files),
        ]


def run_timesteps(spec: LayerSpec) -> RunFolder:
    """Make, or finish, the run of a spec; returns its folder."""
    start = time.perf_counter()
    run = open_run(spec)
    if run.finished:
        return run
    files = files_of(spec)
    seconds = make_pictures(spec, run, files)
    write_report(spec, run, files)
    seconds["all"] = time.perf_counter() - start
    run.finish({"seconds": seconds, **machine(pick_device(spec.model.device)), "timesteps": timesteps(spec)})
    print(f"{seconds['all']:.1f} s; open {run.path / PAGE}")
    return run


def files_of(spec: LayerSpec) -> Files:
    """Where each picture of a run goes."""
    steps = [f"step-{i:02}.png" for i in range(1, spec.steps + 1)]
    name = spec.model.record.layers.name
    return Files(
        noisy=[f"noisy/{step}" for step in steps],
        estimates=[f"estimate/{step}" for step in steps],
        maps={
            layer: [f"attention/{name(layer)}/{step}" for step in steps] for layer in spec.attention_layers()
        },
    )


def timesteps(spec: LayerSpec) -> list[float]:
    """The noise level t at which each step starts, from 1, and 0 for the finished picture."""
    tokens = (spec.width // 16) * (spec.height // 16)
    return get_schedule(spec.steps, tokens, shift=configs[spec.model.name].shift)


def make_pictures(spec: LayerSpec, run: RunFolder, files: Files) -> dict[str, float]:
    """Make the pictures that are not there yet; returns seconds by what they were spent on."""
    missing = {file for file in files.all() if run.picture(file) is None}
    if not missing:
        return {}
    start = time.perf_counter()
    models = load(spec)
    loaded = time.perf_counter()
    with Bars(len(files.all()), len(files.all()) - len(missing), spec.steps) as bars:
        tokens, maps = _sample(spec, models, files, bars)
        with at_work(models.device, spec.model.offload, models.ae):
            for file in sorted(missing & tokens.keys()):
                picture = decode(models, tokens[file], sampling_of(spec))[0]
                run.save_picture(file, to_pil(picture), {"prompt": spec.prompt, "seed": str(spec.seed)})
                bars.made(1)
        for file, picture in _drawn(spec, files, maps).items():
            run.save_picture(file, picture)
        bars.made(len(missing - tokens.keys()))
    return {"loading": loaded - start, "pictures": time.perf_counter() - loaded}


def _sample(
    spec: LayerSpec, models: Models, files: Files, bars: Bars
) -> tuple[dict[str, Tensor], dict[tuple[int, int], Tensor]]:
    """Packed latents (1, L, 64) by the file they are decoded into, and attention maps by layer and step."""
    attention = AttentionMaps()
    hooks = Hooks(inject=dict.fromkeys(files.maps, attention)) if files.maps else None
    texts = encode(models, [spec.prompt], offload=spec.model.offload)
    tokens = {}
    for step in sample_steps(
        models,
        texts,
        [spec.prompt],
        [spec.seed],
        sampling_of(spec),
        hooks=hooks,
        offload=spec.model.offload,
    ):
        tokens[files.noisy[step.index]] = step.before
        tokens[files.estimates[step.index]] = step.estimate
        tokens[PICTURE] = step.after
        bars.step(step.index)
    return tokens, attention.maps


def _drawn(spec: LayerSpec, files: Files, maps: dict[tuple[int, int], Tensor]) -> dict[str, Image.Image]:
    """Attention maps as pictures of the run's size, by file."""
    pictures = {}
    for layer, names in files.maps.items():
        for step, file in enumerate(names):
            received = maps[layer, step][0].numpy().reshape(spec.height // 16, spec.width // 16)
            # In powers of two around the uniform share, so that maps compare.
            octaves = np.log2(np.maximum(received, 1e-9)) + OCTAVES
            pictures[file] = scaled(heat(octaves, 2 * OCTAVES), spec.width, spec.height)
    return pictures


def write_report(spec: LayerSpec, run: RunFolder, files: Files) -> None:
    """The filmstrip, the animation, the sheet of maps, and the page."""
    captions = [f"step {i}, t = {t:.2f}" for i, t in enumerate(timesteps(spec)[:-1], start=1)]
    pairs = [
        [SheetCell(run.picture(noisy), caption), SheetCell(run.picture(estimate), "estimate")]
        for noisy, estimate, caption in zip(
            [*files.noisy, PICTURE], [*files.estimates, PICTURE], [*captions, "finished, t = 0"], strict=True
        )
    ]
    run.save_picture(FILMSTRIP, contact_sheet(_strip(pairs), spec.prompt))
    run.save_animation(ANIMATION, [contact_sheet([pair]) for pair in pairs], spec.frame_ms)

    def shown(names: list[str]) -> list[PagePicture]:
        return [PagePicture(*pair) for pair in zip(names, captions, strict=True)]

    name = spec.model.record.layers.name
    maps = {f"{name(layer)}, layer {layer}": shown(names) for layer, names in files.maps.items()}
    if maps:
        rows = [
            [SheetCell(run.picture(m.file), f"{layer}, {m.caption}") for m in row]
            for layer, row in maps.items()
        ]
        run.save_picture(ATTENTION, contact_sheet(rows, f"Attention that image tokens receive ({SCALE})"))
    finished = PagePicture(PICTURE, f"finished, seed {spec.seed}")
    animation = PagePicture(ANIMATION, "every step: the noisy latent, and the estimate", wide=True)
    page = render(
        "timesteps.html",
        prompt=spec.prompt,
        about=about(spec, run),
        finished=[finished, animation],
        noisy=shown(files.noisy),
        estimates=shown(files.estimates),
        maps=maps,
        scale=SCALE,
        filmstrip=FILMSTRIP,
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)


def _strip(pairs: list[list[SheetCell]]) -> list[list[SheetCell]]:
    """Pairs as columns, in as few rows of pairs as `COLUMNS` allows, of about equal length."""
    columns = math.ceil(len(pairs) / math.ceil(len(pairs) / COLUMNS))
    parts = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    return [list(row) for part in parts for row in zip(*part, strict=True)]
