"""The pictures of a task, and the worker that makes them into a sweep's folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from flux.conditions import Conditions
from flux.device import is_gpu_full
from flux.generate import Sampling, Texts, decode, encode, sample_steps
from flux.hooks import Hooks
from flux.pictures.files import to_pil
from flux.pictures.looked_at import LookedAt
from flux.pictures.referencing import make_references
from flux.placement.modes import Offload
from flux.placement.peaks import Demand, decoder_bytes
from flux.placement.picking import free_bytes
from flux.probes import hooks_of
from flux.references import Reference
from flux.studies.sweep.cells import Cell, Plan, Probe, Prompt, Task
from flux.studies.sweep.folder import save_picture
from flux.weights.load import Models

DECODED = {"cpu": 2**15}
"""Pixels that are decoded side by side. More are slower on a CPU, whose caches they overflow."""

OnStep = Callable[[int], None]
"""Is told the index of each sampling step that is done."""


def make_task(
    models: Models,
    texts: Texts,
    task: Task,
    asked: Plan,
    sampling: Sampling,
    *,
    references: Mapping[LookedAt, Reference] | None = None,
    offload: Offload = False,
    on_step: OnStep = lambda index: None,
) -> list[Image.Image]:
    """The pictures of a task, one per row; sources stand before them. ValueError for what is no number.

    references: of the pictures that its prompts look at.
    """
    rows = [asked.of(cell) for cell in task.cells]
    words, seeds = [each.text for each in rows], [each.seed for each in rows]
    beside = [asked.sources[index] for index in task.prompts] if task.part and asked.sources else []
    hooks = _hooks(asked.probe, task, len(beside))
    words, seeds = beside + words, seeds[: len(beside)] + seeds
    seen = [references[looked].to(models.device) for looked in looked_at(rows)] if references else []
    conditions = Conditions(references=tuple(seen[: len(beside)] + seen))
    how = {"hooks": hooks, "offload": offload, "conditions": conditions}
    for step in sample_steps(models, texts, words, seeds, sampling, **how):
        on_step(step.index)
    made = step.after[len(beside) :]
    return [to_pil(picture) for picture in _decoded(models, made, sampling, offload)]


def looked_at(prompts: Sequence[Prompt]) -> list[LookedAt]:
    """The files that prompts look at, of those that look at any."""
    return [
        LookedAt(Path(each.picture), None if each.mask is None else Path(each.mask))
        for each in prompts
        if each.picture is not None
    ]


def _hooks(probe: Probe, task: Task, sources: int) -> Hooks:
    if not task.part:
        return Hooks()
    return hooks_of(
        probe.name,
        task.part.layers,
        head=task.part.head,
        window=task.part.window,
        sources=sources,
        options=dict(probe.options),
    )


def _decoded(models: Models, tokens: Tensor, sampling: Sampling, offload: Offload) -> Tensor:
    together = pictures_together(models, sampling, len(tokens))
    return decode(models, tokens, sampling, offload=offload, together=together)


def pictures_together(models: Models, sampling: Sampling, most: int) -> int:
    """How many of `most` pictures are decoded side by side; on a GPU, what fits into half of what is free."""
    if models.device.type != "cuda":
        return max(1, DECODED.get(models.device.type, 2**20) // (sampling.width * sampling.height))
    demand = Demand(1, sampling.width, sampling.height, sampling.steps)
    each = decoder_bytes(models.spec, models.dtype, demand)
    return min(most, max(1, int(free_bytes(models.device) / 2 / each)))


@dataclass(frozen=True)
class Job:
    """What a worker is asked to work on. It can be sent to another process.

    folder: of the sweep. asked: all that the sweep makes. load: returns the models. weights: the folder of
    all weights, if there is one.
    """

    folder: Path
    asked: Plan
    sampling: Sampling
    load: Callable[[], Models]
    offload: Offload = False
    weights: Path | None = None


class Maker:
    """Loaded models and encoded prompts, to make the tasks of a job. The text encoders are let go."""

    def __init__(self, job: Job):
        models = job.load()
        self.references = _references(models, job)
        texts = encode(models, job.asked.texts, offload=job.offload)
        self.texts = Texts(txt=_on_cpu(texts.txt), vec=_on_cpu(texts.vec))
        self.models = replace(models, t5=None, clip=None)
        self.job = job
        self._parts: dict[Task, tuple[Task, ...]] = {}
        del models, texts
        if self.models.device.type == "cuda":
            torch.cuda.empty_cache()

    def make(self, task: Task) -> dict[Cell, str]:
        """Make the pictures of a task into the job's folder; returns each cell's SHA-256."""
        return self.save(task, self.pictures(task))

    def pictures(self, task: Task, on_step: OnStep = lambda index: None) -> list[Image.Image]:
        """Make the pictures of a task: what the device has to do. Where its memory is too small for all rows
        side by side, those of each half, one after the other."""
        self._parts.pop(task, None)
        try:
            return self._side_by_side(task, on_step)
        except RuntimeError as error:
            if not (is_gpu_full(error) and task.halves):
                raise
            more = len(task.prompts)
        # Behind the handler, in which the error still holds what has filled the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"memory is too small for {more} prompts side by side: each half of them is made by itself")
        made = [picture for half in task.halves for picture in self.pictures(half, on_step)]
        self._parts[task] = tuple(part for half in task.halves for part in self.parts_of(half) or (half,))
        return made

    def parts_of(self, task: Task) -> tuple[Task, ...]:
        """The tasks with fewer rows that the pictures of a task were made in; none for all at once."""
        return self._parts.get(task, ())

    def _side_by_side(self, task: Task, on_step: OnStep) -> list[Image.Image]:
        job = self.job
        return make_task(
            *(self.models, self.texts, task, job.asked, job.sampling),
            references=self.references,
            offload=job.offload,
            on_step=on_step,
        )

    def save(self, task: Task, pictures: Sequence[Image.Image]) -> dict[Cell, str]:
        """Write the pictures of a task into the job's folder; returns each cell's SHA-256."""
        return {
            cell: save_picture(self.job.folder, cell, picture, self._about(cell))
            for cell, picture in zip(task.cells, pictures, strict=True)
        }

    def _about(self, cell: Cell) -> dict[str, str]:
        prompt = self.job.asked.of(cell)
        changed = {self.job.asked.probe.about: cell.part.label} if cell.part else {}
        return {"prompt": prompt.text, "seed": str(prompt.seed), "model": self.models.name, **changed}


def _references(models: Models, job: Job) -> dict[LookedAt, Reference]:
    """Of all pictures that a job's tasks look at, on the CPU."""
    needed = dict.fromkeys(index for task in job.asked.tasks for index in task.prompts)
    seen = looked_at([job.asked.prompts[index] for index in needed])
    kind, size = models.spec.reference, (job.sampling.height, job.sampling.width)
    if not seen:
        return {}
    made = make_references(kind, models, seen, *size, offload=job.offload, weights=job.weights)
    return {looked: reference.to("cpu") for looked, reference in made.items()}


def _on_cpu(texts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prompt: encoded.cpu() for prompt, encoded in texts.items()}
