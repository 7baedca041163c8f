"""Demo 0: a picture of every prompt with every seed, and the check that an install works."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from itertools import groupby

from flux.conditions import Conditions
from flux.generate import decode, encode, sample_steps
from flux.models import kontext_size
from flux.photos.conditions import open_conditions
from flux.pictures.files import to_pil
from flux.studies.cost import Work
from flux.studies.folder import RunFolder
from flux.studies.looking import size_of
from flux.studies.machine import size_in_words
from flux.studies.picture_run import Picture, PictureRun, Progress, Results, look_at
from flux.studies.references import References
from flux.studies.run import PAGE, sampling_of
from flux.studies.text.report import report
from flux.studies.text.requests import PictureRequest, requests
from flux.studies.text.spec import TestSpec
from flux.weights.load import Models


def work(spec: TestSpec) -> Work:
    every = requests(spec)
    wanted = spec.wanted
    prompts = [text for each in every for text in (each.prompt, each.prompt_2) if text is not None]
    return Work(
        [each.file for each in every],
        [len(batch) for batch in _batches(spec)],
        list(dict.fromkeys([*prompts, *wanted.prompts])),
        len(every),
        evaluations=len(every) * wanted.evaluations(spec.steps, spec.integrator.choice),
        notes=(*wanted.in_words(), *_looking(every)),
    )


def _looking(every: list[PictureRequest]) -> list[str]:
    """What is looked at, a line each, the first ones of many."""
    lines = list(dict.fromkeys(each.seen.in_words for each in every if each.seen is not None))
    return lines if len(lines) <= 4 else [*lines[:3], f"... and {len(lines) - 3} more"]


def pictures(spec: TestSpec, models: Models, missing: AbstractSet[str]) -> Iterator[Progress]:
    """Make the batches that lack a picture."""
    conditions = open_conditions(models, spec.wanted, sampling_of(spec), offload=spec.model.offload)
    size = (spec.width, spec.height)
    lacking = [batch for batch in _batches(spec) if not missing.isdisjoint(each.file for each in batch)]
    references = References(spec, models, ((each.seen, size) for batch in lacking for each in batch))
    for batch in lacking:
        seen = [references.of(each.seen, size) for each in batch]
        yield from _make_batch(spec, models, batch, replace(conditions, references=tuple(filter(None, seen))))


def _batches(spec: TestSpec) -> list[list[PictureRequest]]:
    """Cut before what is there is left out, so that a resumed run samples the same rows side by side.

    Pictures that Kontext sees in different sizes do not stand side by side.
    """
    runs = (list(run) for _, run in groupby(requests(spec), partial(_seen_size, spec)))
    return [run[start : start + spec.batch] for run in runs for start in range(0, len(run), spec.batch)]


def _seen_size(spec: TestSpec, request: PictureRequest) -> tuple[int, int] | None:
    if request.seen is None or spec.model.record.reference != "kontext":
        return None
    return kontext_size(*size_of(request.seen.picture))


def _make_batch(
    spec: TestSpec, models: Models, batch: list[PictureRequest], conditions: Conditions
) -> Iterator[Progress]:
    prompts, seeds = [each.prompt for each in batch], [each.seed for each in batch]
    sampling, offload = sampling_of(spec), spec.model.offload
    if spec.prompt_2 is not None:
        conditions = replace(conditions, prompts_2=tuple(each.prompt_2 for each in batch))
    texts = encode(models, [*prompts, *conditions.prompts], offload=offload)
    how = {"offload": offload, "conditions": conditions}
    for step in sample_steps(models, texts, prompts, seeds, sampling, **how):
        yield Progress(
            step.index, steps=step.steps, preview=partial(look_at, models, step.estimate, sampling, offload)
        )
    decoded = decode(models, step.after, sampling, offload=offload)
    yield Progress(
        pictures=[
            Picture(
                each.file,
                to_pil(picture),
                {"prompt": each.prompt, "seed": str(each.seed), "model": models.name, **beside(spec, each)},
            )
            for each, picture in zip(batch, decoded, strict=True)
        ]
    )


def beside(spec: TestSpec, picture: PictureRequest) -> dict[str, str]:
    """What a picture's file says of it beside its prompt; nothing where there is nothing."""
    looking = [] if picture.seen is None else [picture.seen.in_words]
    words = "; ".join([*spec.wanted.in_words(), *looking])
    second = {} if picture.prompt_2 is None else {"prompt for T5": picture.prompt_2}
    return second | ({"made": words} if words else {})


def closing(run: RunFolder, results: Results) -> str:
    """How fast this machine is, and how much memory it took."""
    memory = size_in_words(results["memory_bytes"])
    count = len(results["files"])
    made = f"{count} picture{'s' * (count != 1)} in {results['seconds']['all']:.1f} s, {memory} of memory"
    return f"{made}\nopen {run.path / PAGE}"


RUN = PictureRun(work, pictures, report, closing=closing)
