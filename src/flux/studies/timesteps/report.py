"""What demo 1 shows: the filmstrip, the animation, the sheet of attention maps, and a page."""

import math
from typing import Any

from flux.sampling import get_schedule
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, about
from flux.studies.timesteps.files import PICTURE, WATCHED, files_of
from flux.studies.timesteps.maps import SCALE
from flux.studies.timesteps.spec import LayerSpec
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.report import Shown, data_file, show

FILMSTRIP, ANIMATION, ATTENTION = "filmstrip.png", "animation.webp", "attention.png"

COLUMNS = 9
"""The most pictures in a row of the filmstrip."""


def report(spec: LayerSpec, run: RunFolder) -> dict[str, Any]:
    """Write all that shows the pictures of a run; returns the timesteps."""
    files, times = files_of(spec), timesteps(spec)
    captions = [f"step {i}, t = {t:.2f}" for i, t in enumerate(times[:-1], start=1)]
    pairs = [
        [SheetCell(run.picture(noisy), caption), SheetCell(run.picture(estimate), "estimate")]
        for noisy, estimate, caption in zip(
            [*files.noisy, PICTURE], [*files.estimates, PICTURE], [*captions, "finished, t = 0"], strict=True
        )
    ]
    run.save_picture(FILMSTRIP, contact_sheet(_strip(pairs), spec.prompt))
    # Without a margin, so that the page shows it in line with the picture beside it.
    run.save_animation(ANIMATION, [contact_sheet([pair], margin=0) for pair in pairs], spec.frame_ms)

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
        watched=_watched(spec, run),
        scale=SCALE,
        filmstrip=FILMSTRIP,
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    return {"timesteps": times}


def _watched(spec: LayerSpec, run: RunFolder) -> dict[str, Any] | None:
    if spec.watch is None:
        return None
    sets = spec.model.record.layer_sets
    shown = Shown(
        name=WATCHED,
        title="Attention",
        watched=WatchedPicture.read(run.path / data_file(WATCHED)),
        picture=run.picture(PICTURE),
        marked=sets.get("vital", sets.get("default", ())),
        marked_name="vital layers",
    )
    return show(spec.watch, spec.model.record.layers, run, [shown])


def timesteps(spec: LayerSpec) -> list[float]:
    """The noise level t at which each step starts, from 1, and 0 for the finished picture."""
    tokens = (spec.width // 16) * (spec.height // 16)
    return get_schedule(spec.steps, tokens, shift=spec.model.record.shift)


def _strip(pairs: list[list[SheetCell]]) -> list[list[SheetCell]]:
    """Pairs as columns, in as few rows of pairs as `COLUMNS` allows, of about equal length."""
    columns = math.ceil(len(pairs) / math.ceil(len(pairs) / COLUMNS))
    parts = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    return [list(row) for part in parts for row in zip(*part, strict=True)]
