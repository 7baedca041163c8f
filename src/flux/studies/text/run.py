"""Demo 0: a picture of every prompt with every seed, and the check that an install works."""

import time
from dataclasses import dataclass

from flux.device import pick_device
from flux.generate import decode, encode, sample_steps
from flux.pictures.files import to_pil
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import (
    PAGE,
    SHEET,
    Bars,
    about,
    load,
    machine,
    open_run,
    sampling_of,
    size_in_words,
)
from flux.studies.text.spec import TestSpec
from flux.weights.load import Models


@dataclass(frozen=True)
class Wanted:
    """One picture: its prompt, its seed and its file."""

    prompt: str
    seed: int
    file: str


def run_pictures(spec: TestSpec) -> RunFolder:
    """Make, or finish, the run of a spec and return its folder; prints device, dtype, seconds and memory."""
    start = time.perf_counter()
    run = open_run(spec)
    if run.finished:
        return run
    pictures = wanted(spec)
    seconds = make_pictures(spec, run, pictures)
    write_report(spec, run, pictures)
    seconds["all"] = time.perf_counter() - start
    facts = machine(pick_device(spec.model.device))
    run.finish({"seconds": seconds, **facts, "files": [each.file for each in pictures]})
    memory = size_in_words(facts["memory_bytes"])
    print(f"{len(pictures)} pictures in {seconds['all']:.1f} s, {memory} of memory")
    print(f"open {run.path / PAGE}")
    return run


def wanted(spec: TestSpec) -> list[Wanted]:
    """Every picture of a spec, prompt by prompt."""
    return [
        Wanted(prompt, seed, f"picture-{number:02}-seed-{seed}.png")
        for number, prompt in enumerate(spec.prompts, start=1)
        for seed in spec.seeds
    ]


def make_pictures(spec: TestSpec, run: RunFolder, pictures: list[Wanted]) -> dict[str, float]:
    """Make the pictures that are not there yet; returns seconds by what they were spent on."""
    # Cut before what is there is left out, so that a resumed run samples the same rows side by side.
    batches = [pictures[i : i + spec.batch] for i in range(0, len(pictures), spec.batch)]
    missing = [batch for batch in batches if any(run.picture(each.file) is None for each in batch)]
    if not missing:
        return {}
    start = time.perf_counter()
    models = load(spec)
    loaded = time.perf_counter()
    with Bars(len(pictures), len(pictures) - sum(map(len, missing)), spec.steps) as bars:
        for batch in missing:
            _make_batch(spec, run, models, batch, bars)
    return {"loading": loaded - start, "pictures": time.perf_counter() - loaded}


def _make_batch(spec: TestSpec, run: RunFolder, models: Models, batch: list[Wanted], bars: Bars) -> None:
    prompts, seeds = [each.prompt for each in batch], [each.seed for each in batch]
    sampling, offload = sampling_of(spec), spec.model.offload
    texts = encode(models, prompts, offload=offload)
    for step in sample_steps(models, texts, prompts, seeds, sampling, offload=offload):
        bars.step(step.index)
    for each, picture in zip(batch, decode(models, step.after, sampling, offload=offload), strict=True):
        text = {"prompt": each.prompt, "seed": str(each.seed), "model": models.name}
        run.save_picture(each.file, to_pil(picture), text)
    bars.made(len(batch))


def write_report(spec: TestSpec, run: RunFolder, pictures: list[Wanted]) -> None:
    """A sheet with a row for each prompt, and the page."""
    rows = [
        [
            SheetCell(run.picture(each.file), f"{prompt}, seed {each.seed}")
            for each in pictures
            if each.prompt == prompt
        ]
        for prompt in dict.fromkeys(spec.prompts)
    ]
    run.save_picture(SHEET, contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps"))
    groups = {
        prompt: [PagePicture(each.file, f"seed {each.seed}") for each in pictures if each.prompt == prompt]
        for prompt in spec.prompts
    }
    page = render(
        "text.html",
        about=about(spec, run),
        groups=groups,
        sheet=SHEET,
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
