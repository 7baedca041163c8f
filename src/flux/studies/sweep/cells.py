"""What a sweep makes, and what is made side by side. Imports no torch.

A cell is one picture: a prompt with a group of layers skipped together; with no layer skipped it is the
prompt's reference. A task is a batch of prompts under one group. Batches are the same in every run, shard and
engine, since rows of a batch see the batch's shape in the rounding of sums.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Group = tuple[int, ...]
"""Numbers of layers that are skipped together, ascending; empty for references."""

Json = Mapping[str, Any]

REFERENCE, REPEAT = "", "repeat"


@dataclass(frozen=True)
class Prompt:
    """A prompt and the seed of its noise."""

    text: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One picture of a sweep. prompt: its index. repeat: the reference once more, for the noise floor."""

    prompt: int
    group: Group
    repeat: bool = False

    @property
    def label(self) -> str:
        """`6` or `17+18`, empty for a reference, `repeat` for its repeat."""
        return REPEAT if self.repeat else label(self.group)

    @property
    def file(self) -> str:
        """The picture's place in the folder of its sweep."""
        name = "repeat" if self.repeat else "reference"
        if self.group:
            name = "skip-" + "+".join(f"{layer:02}" for layer in self.group)
        return f"pictures/{self.prompt:04}/{name}.png"

    @staticmethod
    def labelled(prompt: int, label: str) -> "Cell":
        """The cell of a prompt by its label; ValueError for what is no label."""
        if label in (REFERENCE, REPEAT):
            return Cell(prompt, (), repeat=label == REPEAT)
        return Cell(prompt, tuple(int(layer) for layer in label.split("+")))


def label(group: Group) -> str:
    return "+".join(map(str, group))


@dataclass(frozen=True)
class Task:
    """Prompts, by index and in the order of their rows, that run side by side under one group."""

    prompts: tuple[int, ...]
    group: Group
    repeat: bool = False

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One per row."""
        return tuple(Cell(prompt, self.group, self.repeat) for prompt in self.prompts)


def tasks(prompts: int, groups: Sequence[Group], batch: int, noise: int) -> list[Task]:
    """All tasks, batch by batch: references, for the noise floor their repeat, then every group.

    prompts: how many. noise: so many prompts are repeated, rounded up to whole batches. A repeat has the rows
    of its references in another order, so that what differs is the numerics alone.
    """
    return [
        task for start in range(0, prompts, batch) for task in _batch(start, prompts, groups, batch, noise)
    ]


def _batch(start: int, prompts: int, groups: Sequence[Group], batch: int, noise: int) -> Iterator[Task]:
    rows = tuple(range(start, min(start + batch, prompts)))
    yield Task(rows, ())
    if start < noise:
        half = (len(rows) + 1) // 2
        yield Task(rows[half:] + rows[:half], (), repeat=True)
    for group in groups:
        yield Task(rows, group)


def shard(tasks: Sequence[Task], index: int, count: int) -> list[Task]:
    """Part `index`, from 1, of `count`. Parts differ by one task at most and together hold each task once."""
    if not 1 <= index <= count:
        raise ValueError(f"shard {index}/{count}: the first number must be between 1 and the second")
    return list(tasks[index - 1 :: count])


@dataclass(frozen=True)
class Plan:
    """All that a sweep makes. identities: by cell, what its picture is made from, as one number."""

    prompts: tuple[Prompt, ...]
    groups: tuple[Group, ...]
    tasks: tuple[Task, ...]
    identities: Mapping[Cell, str]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for task in self.tasks for cell in task.cells)

    def of(self, cell: Cell) -> Prompt:
        return self.prompts[cell.prompt]


DECISIVE = ("steps", "guidance", "width", "height")


def plan(recipe: Json, setting: Json) -> Plan:
    """The plan of a sweep's recipe. setting: weights, dtype and device. ValueError for no sweep's recipe."""
    try:
        prompts = tuple(Prompt(str(each["prompt"]), int(each["seed"])) for each in recipe["prompts"])
        groups = tuple(tuple(int(layer) for layer in group) for group in recipe["layers"])
        batch, noise = int(recipe["batch"]), int(recipe["noise_floor"])
        common = {"model": recipe["model"]["name"], **{key: recipe[key] for key in DECISIVE}, **setting}
        all_tasks = tuple(tasks(len(prompts), groups, batch, noise))
        if recipe.get("until") is not None:
            all_tasks = _shuffled(all_tasks, len(prompts))
    except (KeyError, TypeError, ValueError):
        raise ValueError("not the recipe of a sweep") from None
    identities = {
        cell: identity(task, row, prompts, common)
        for task in all_tasks
        for row, cell in enumerate(task.cells)
    }
    return Plan(prompts, groups, all_tasks, identities)


def _shuffled(tasks: Sequence[Task], prompts: int) -> tuple[Task, ...]:
    """The same tasks with the prompts in another order, always the same.

    A list of prompts is often sorted by subject, and the first ones of a sweep that stops when it is decided
    must stand for all.
    """
    order = sorted(range(prompts), key=lambda index: hashlib.sha256(f"prompt {index}".encode()).digest())
    return tuple(replace(task, prompts=tuple(order[index] for index in task.prompts)) for task in tasks)


def order_of(plan: Plan) -> list[int]:
    """The prompts, by index, in the order in which a plan takes them."""
    return [index for task in plan.tasks if not task.group and not task.repeat for index in task.prompts]


def identity(task: Task, row: int, prompts: Sequence[Prompt], common: Json) -> str:
    """The SHA-256 of all that a row's picture is made from.

    common: what all cells share: weights, dtype, device, steps, guidance, width, height.
    """
    made_from = {
        "common": dict(common),
        "batch": [[prompts[index].text, prompts[index].seed] for index in task.prompts],
        "row": row,
        "skip": list(task.group),
        "repeat": task.repeat,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
