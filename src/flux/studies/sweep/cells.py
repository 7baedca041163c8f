"""What a sweep makes, and what is made side by side. Imports no torch.

A cell is one picture: a prompt with a part of the model changed by the sweep's probe, such as layer 6
skipped; with no part changed it is the prompt's reference. A task is a batch of prompts with one part
changed. Batches are the same in every run, shard and engine, since rows of a batch see the batch's shape in
the rounding of sums.

Where the probe needs a source beside each picture (`carry`), that is another prompt of the sweep, or one of
its own, drawn from the prompt's noise; it is a cell too. It looks at the picture that its prompt looks at.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from flux.probes import RECORDS

Group = tuple[int, ...]
"""Numbers of layers that are changed together, ascending."""

Window = tuple[int, int]
"""Sampling steps: the first, from 0, and the one behind the last."""

Json = Mapping[str, Any]

REFERENCE, REPEAT, SOURCE = "", "repeat", "source"
SKIP = "skip"
LABEL = re.compile(r"(?:([a-z-]+):)?([0-9]+(?:\+[0-9]+)*)(?:\.h([0-9]+))?(?:@([0-9]+)-([0-9]+))?")


@dataclass(frozen=True)
class CellPart:
    """What a probe changes: layers together, one head of them or all, in a window of steps or in all.

    With no layer it is what references have: nothing changed. word: what the probe is called in files.
    """

    layers: Group = ()
    head: int | None = None
    window: Window | None = None
    word: str = SKIP

    def __bool__(self) -> bool:
        return bool(self.layers)

    @property
    def label(self) -> str:
        """`6`, `17+18`, with a head `6.h3`, with a window `6@0-4`; of other probes `carry:6`.

        Empty for no layer.
        """
        word = "" if self.word == SKIP else f"{self.word}:"
        head = "" if self.head is None else f".h{self.head}"
        window = "" if self.window is None else "@{}-{}".format(*self.window)
        return f"{word}{'+'.join(map(str, self.layers))}{head}{window}"

    @property
    def order(self) -> tuple[Any, ...]:
        """To sort by: single layers, then sets; heads and windows ascending."""
        return len(self.layers) > 1, self.layers, -1 if self.head is None else self.head, self.window or ()

    @staticmethod
    def labelled(label: str) -> "CellPart":
        """The part of a label; ValueError for what is none."""
        found = LABEL.fullmatch(label)
        if found is None:
            raise ValueError(f"{label!r} is no label of layers")
        head = None if found[3] is None else int(found[3])
        window = None if found[4] is None else (int(found[4]), int(found[5]))
        return CellPart(tuple(map(int, found[2].split("+"))), head, window, found[1] or SKIP)


NOTHING = CellPart()


@dataclass(frozen=True)
class Prompt:
    """A prompt and the seed of its noise.

    picture, mask: files of the picture that the model looks at. digests: their SHA-256.
    """

    text: str
    seed: int
    picture: str | None = None
    mask: str | None = None
    digests: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Json) -> "Prompt":
        """From an entry of a recipe; KeyError and others for what is none."""
        digests = tuple(str(entry[key]) for key in ("sha256", "mask_sha256") if key in entry)
        files = (None if entry.get(key) is None else str(entry[key]) for key in ("picture", "mask"))
        return cls(str(entry["prompt"]), int(entry["seed"]), *files, digests)


@dataclass(frozen=True)
class Cell:
    """One picture of a sweep.

    prompt: its index. part: what the probe changes. repeat: the reference once more, for the noise floor.
    source: the prompt's source, see above. Layers alone, as part, are these layers skipped.
    """

    prompt: int
    part: CellPart = NOTHING
    repeat: bool = False
    source: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.part, CellPart):
            object.__setattr__(self, "part", CellPart(tuple(self.part)))

    @property
    def label(self) -> str:
        """That of the part, empty for a reference, `repeat` for its repeat, `source` for the source."""
        return REPEAT if self.repeat else SOURCE if self.source else self.part.label

    @property
    def file(self) -> str:
        """The picture's place in the folder of its sweep."""
        name = self.label or "reference"
        if self.part:
            name = f"{self.part.word}-" + "+".join(f"{layer:02}" for layer in self.part.layers)
            name += "" if self.part.head is None else f"-head-{self.part.head:02}"
            name += "" if self.part.window is None else "-steps-{:02}-{:02}".format(*self.part.window)
        return f"pictures/{self.prompt:04}/{name}.png"

    @staticmethod
    def labelled(prompt: int, label: str) -> "Cell":
        """The cell of a prompt by its label; ValueError for what is no label."""
        if label in (REFERENCE, REPEAT, SOURCE):
            return Cell(prompt, repeat=label == REPEAT, source=label == SOURCE)
        return Cell(prompt, CellPart.labelled(label))


@dataclass(frozen=True)
class Task:
    """Prompts, by index and in the order of their rows, that run side by side with one part changed.

    Layers alone, as part, are these layers skipped.
    """

    prompts: tuple[int, ...]
    part: CellPart = NOTHING
    repeat: bool = False
    source: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.part, CellPart):
            object.__setattr__(self, "part", CellPart(tuple(self.part)))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One per row."""
        return tuple(Cell(prompt, self.part, self.repeat, self.source) for prompt in self.prompts)

    @property
    def halves(self) -> tuple["Task", ...]:
        """The same for half of the prompts each; none for one prompt."""
        middle = (len(self.prompts) + 1) // 2
        parts = (self.prompts[:middle], self.prompts[middle:])
        return tuple(replace(self, prompts=part) for part in parts) if len(self.prompts) > 1 else ()

    def smaller(self) -> Iterator["Task"]:
        """Its halves, theirs, and so on: what it may be made in where memory is too small for it."""
        for half in self.halves:
            yield half
            yield from half.smaller()


def tasks(
    prompts: int, parts: Sequence[CellPart], batch: int, noise: int, *, sources: bool = False
) -> list[Task]:
    """All tasks, batch by batch: references, for the noise floor their repeat, sources, then every part.

    prompts: how many. noise: so many prompts are repeated, rounded up to whole batches. A repeat has the rows
    of its references in another order, so that what differs is the numerics alone. sources: whether the probe
    needs them.
    """
    return [
        task
        for start in range(0, prompts, batch)
        for task in _batch(tuple(range(start, min(start + batch, prompts))), parts, start < noise, sources)
    ]


def _batch(rows: tuple[int, ...], parts: Sequence[CellPart], repeated: bool, sources: bool) -> Iterator[Task]:
    yield Task(rows)
    if repeated:
        half = (len(rows) + 1) // 2
        yield Task(rows[half:] + rows[:half], repeat=True)
    if sources:
        yield Task(rows, source=True)
    for part in parts:
        yield Task(rows, part)


def shard(tasks: Sequence[Task], index: int, count: int) -> list[Task]:
    """Part `index`, from 1, of `count`. Parts differ by one task at most and together hold each task once."""
    if not 1 <= index <= count:
        raise ValueError(f"shard {index}/{count}: the first number must be between 1 and the second")
    return list(tasks[index - 1 :: count])


@dataclass(frozen=True)
class Probe:
    """What is done to a part: a probe's name, or the dotted name of a user's own, and its options."""

    name: str = SKIP
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def word(self) -> str:
        """What it is called in files: its name, or `own`."""
        return self.name if self.name in RECORDS else "own"

    @property
    def done(self) -> str:
        """What was done to the layers, in words that follow them."""
        return RECORDS[self.name].done if self.name in RECORDS else f"changed by {self.name}"

    @property
    def about(self) -> str:
        """Under which name a picture's file says what was changed."""
        return "skipped" if self.name == SKIP else self.name

    @property
    def sources(self) -> bool:
        """Whether each picture has a source beside it."""
        return self.name in RECORDS and RECORDS[self.name].sources


@dataclass(frozen=True)
class Plan:
    """All that a sweep makes.

    sources: by prompt, the text of its source; empty where the probe has none. identities: by cell, what its
    picture is made from, as one number. common: what all of these hold.
    """

    prompts: tuple[Prompt, ...]
    parts: tuple[CellPart, ...]
    tasks: tuple[Task, ...]
    identities: Mapping[Cell, str]
    probe: Probe = Probe()
    sources: tuple[str, ...] = ()
    common: Json = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for task in self.tasks for cell in task.cells)

    def identity_in(self, task: Task, cell: Cell) -> str:
        """A cell's identity as part of another task than its own, such as one with fewer rows."""
        return identity(self, task, task.cells.index(cell), self.common)

    def smaller_identities(self) -> dict[Cell, set[str]]:
        """By cell, the identities of its pictures that were made with fewer rows side by side."""
        found: dict[Cell, set[str]] = {cell: set() for cell in self.cells}
        for task in self.tasks:
            for part in task.smaller():
                for cell in part.cells:
                    found[cell].add(self.identity_in(part, cell))
        return found

    @property
    def texts(self) -> list[str]:
        """The prompts and sources that its tasks ask for, each once."""
        needed = dict.fromkeys(index for task in self.tasks for index in task.prompts)
        prompts = [self.prompts[index].text for index in sorted(needed)]
        return list(
            dict.fromkeys(prompts + [self.sources[index] for index in sorted(needed) if self.sources])
        )

    def of(self, cell: Cell) -> Prompt:
        """What a cell's picture is made from."""
        prompt = self.prompts[cell.prompt]
        return replace(prompt, text=self.sources[cell.prompt]) if cell.source else prompt


DECISIVE = ("steps", "guidance", "width", "height")


def plan(recipe: Json, setting: Json) -> Plan:
    """The plan of a sweep's recipe. setting: weights, dtype and device. ValueError for no sweep's recipe."""
    try:
        prompts = tuple(map(Prompt.of, recipe["prompts"]))
        probe, sources, heads = _probe(recipe)
        if sources and len(sources) != len(prompts):
            raise ValueError("a source for each prompt")
        groups = [tuple(int(layer) for layer in group) for group in recipe["layers"]]
        windows = [tuple(map(int, window)) for window in recipe.get("windows") or ()] or [None]
        parts = tuple(CellPart(*each, probe.word) for each in product(groups, heads, windows))
        batch, noise = int(recipe["batch"]), int(recipe["noise_floor"])
        common = {"model": recipe["model"]["name"], **{key: recipe[key] for key in DECISIVE}, **setting}
        all_tasks = tuple(tasks(len(prompts), parts, batch, noise, sources=bool(sources)))
        if recipe.get("until") is not None:
            all_tasks = _shuffled(all_tasks, len(prompts))
    except (KeyError, TypeError, ValueError):
        raise ValueError("not the recipe of a sweep") from None
    made = Plan(prompts, parts, all_tasks, {}, probe, sources, common)
    identities = {
        cell: identity(made, task, row, common) for task in all_tasks for row, cell in enumerate(task.cells)
    }
    return replace(made, identities=identities)


def _probe(recipe: Json) -> tuple[Probe, tuple[str, ...], Sequence[int | None]]:
    """The recipe's probe, the sources of its prompts, and the heads it is done to."""
    given = dict(recipe.get("probe") or {"name": SKIP})
    name, sources, heads = given.pop("name"), given.pop("sources", None), given.pop("heads", None)
    probe = Probe(str(name), tuple(sorted(given.items())))
    heads = [None] if heads is None else [int(head) for head in heads]
    return probe, tuple(map(str, sources)) if probe.sources else (), heads


def _shuffled(tasks: Sequence[Task], prompts: int) -> tuple[Task, ...]:
    """The same tasks with the prompts in another order, always the same.

    A list of prompts is often sorted by subject, and the first ones of a sweep that stops when it is decided
    must stand for all.
    """
    order = sorted(range(prompts), key=lambda index: hashlib.sha256(f"prompt {index}".encode()).digest())
    return tuple(replace(task, prompts=tuple(order[index] for index in task.prompts)) for task in tasks)


def order_of(plan: Plan) -> list[int]:
    """The prompts, by index, in the order in which a plan takes them."""
    return [
        index
        for task in plan.tasks
        if not (task.part or task.repeat or task.source)
        for index in task.prompts
    ]


def identity(plan: Plan, task: Task, row: int, common: Json) -> str:
    """The SHA-256 of all that a row's picture is made from.

    common: what all cells share: weights, dtype, device, steps, guidance, width, height.
    """
    rows = [plan.of(cell) for cell in task.cells]
    made_from = {
        "common": dict(common),
        "batch": [[each.text, each.seed, *each.digests] for each in rows],
        "row": row,
        "skip": list(task.part.layers),
        "repeat": task.repeat,
    }
    if task.part and task.part != CellPart(task.part.layers):
        sources = [plan.sources[index] for index in task.prompts] if plan.sources else []
        made_from |= {
            "probe": [plan.probe.name, [list(option) for option in plan.probe.options]],
            "head": task.part.head,
            "window": task.part.window,
            "sources": sources,
        }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
