"""The spec of demo 2: which layers are skipped, for which prompts, and where it is done."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from flux.models import LayerName, Layers
from flux.studies.spec.errors import Problem, Refused, SpecError, one_line
from flux.studies.spec.part import Part, key, part, part_of
from flux.studies.spec.specs import MORE_THAN_ANY_SEED, Spec, count, seed
from flux.studies.spec.strict_json import read_value
from flux.studies.spec.values import (
    Context,
    Kind,
    flag,
    hub_or_folder,
    list_of,
    number,
    one_of,
    or_null,
    refuse,
    text,
    whole,
)

# Prompts


@part
class Prompt(Part):
    """A prompt and its seed."""

    prompt: str = key(text, "what the picture shows")
    seed: int | None = key(or_null(seed), "of its noise; null: the spec's seed plus the prompt's index", None)


_entries = list_of(part_of(Prompt, "prompt"))


def _prompts(value: Any, context: Context) -> tuple[Prompt, ...]:
    """Prompts as they stand, or those of a file. A single word from the command line may be its path."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, list | tuple):
        for entry in value:
            if isinstance(entry, str) and entry.endswith(".json"):
                raise refuse("a file of prompts stands alone: name one, or give texts", entry)
    if not isinstance(value, str):
        return _entries.read(value, context)
    return _from_file(value, context) if value.endswith(".json") else (Prompt(prompt=value),)


def _from_file(name: str, context: Context) -> tuple[Prompt, ...]:
    file = context.path(name)
    try:
        data = read_value(file)
        if isinstance(data, list):
            data = {"prompts": data}
        return _PromptFile.read(data, context).prompts
    except SpecError as error:
        raise refuse(str(error), name) from None
    except Refused as refused:
        first, more = refused.problems[:3], len(refused.problems) - 3
        rest = f"; and {more} more" if more > 0 else ""
        raise refuse(one_line(first, str(file)) + rest, name) from None


@part
class _PromptFile(Part):
    """What a file of prompts holds."""

    prompts: tuple[Prompt, ...] = key(_entries, "a list of prompts, each with its seed")


prompts = Kind(_prompts, {"anyOf": [{"type": "string"}, _entries.schema]})

# Layers

Entry = LayerName | tuple[LayerName, ...]
"""A name that stands for layers to skip one by one, or names of layers to skip together."""

RANGE = re.compile(r"((?:double|single)\.)?([0-9]+)-([0-9]+)")


def _layers(value: Any, context: Context) -> tuple[Entry, ...]:
    """Entries as they stand; whether the model has them is asked later."""
    if isinstance(value, str | int):
        value = [value]
    if not isinstance(value, list | tuple):
        raise refuse('must be "all", or a list of layers and of lists of layers', value)
    if not value:
        raise refuse("must have at least one entry", value)
    entries, wrong = [], []
    for i, entry in enumerate(value):
        joint = isinstance(entry, list | tuple)
        names = list(entry) if joint else [entry]
        if not names:
            wrong.append(Problem((i,), "a joint set must have at least one layer", entry))
        for j, name in enumerate(names):
            if isinstance(name, bool) or not isinstance(name, int | str):
                text = "must be a layer's number or its name, such as double.3"
                wrong.append(Problem((i, j) if joint else (i,), text, name))
        entries.append(tuple(names) if joint else entry)
    if wrong:
        raise Refused(wrong)
    return tuple(entries)


_name = {"type": ["integer", "string"]}
_entry = {"anyOf": [_name, {"type": "array", "items": _name, "minItems": 1}]}
layers = Kind(_layers, {"anyOf": [_name, {"type": "array", "items": _entry, "minItems": 1}]})


def groups_of(entries: Sequence[Entry], model: Layers) -> tuple[list[tuple[int, ...]], list[Problem]]:
    """The groups of layers to skip, in the order given, and what is wrong with the entries."""
    groups: dict[tuple[int, ...], int] = {}
    wrong = []
    for i, entry in enumerate(entries):
        try:
            for group in _groups(entry, model):
                if group in groups:
                    names = "+".join(map(str, group))
                    raise ValueError(f"layer {names} stands in entry {groups[group]} already")
                groups[group] = i
        except ValueError as error:
            wrong.append(Problem((i,), str(error), list(entry) if isinstance(entry, tuple) else entry))
    return list(groups), wrong


def _groups(entry: Entry, model: Layers) -> Iterator[tuple[int, ...]]:
    """ValueError, in words that follow the entry, for a layer that is not there or stands there twice."""
    if isinstance(entry, str) and "+" in entry:
        entry = tuple(part.strip() for part in entry.split("+"))
    if not isinstance(entry, tuple):
        yield from ((layer,) for layer in _expanded(entry, model))
        return
    together = [layer for name in entry for layer in _expanded(name, model)]
    for layer in together:
        if together.count(layer) > 1:
            raise ValueError(f"a joint set lists each layer once, and this one layer {layer} twice")
    yield tuple(sorted(together))


def _expanded(name: LayerName, model: Layers) -> tuple[int, ...]:
    """The layers that one name stands for: a layer, a range such as `0-3`, `double.*` or `all`."""
    ends = RANGE.fullmatch(name) if isinstance(name, str) else None
    if ends is None:
        return model.expand(name)
    first, last = (model.index(f"{ends[1] or ''}{end}") for end in ends.groups()[1:])
    if first > last:
        raise ValueError("a range goes from its lower layer to its higher one")
    return tuple(range(first, last + 1))


# Where and how long


@part
class Engine(Part):
    """What does the work."""

    name: str = key(one_of(("local", "ray")), "local: this process; ray: a cluster of machines", "local")
    address: str | None = key(
        or_null(text),
        "for ray: the cluster's, such as auto or host:6379; null: one on this machine, for this run alone",
        None,
    )
    workers: int | None = key(
        or_null(count), "batches at work at a time; null: one per device, on a CPU as is fastest", None
    )

    def problems(self) -> Iterator[Problem]:
        if self.address is not None and self.name != "ray":
            yield Problem(("address",), f'is for engine "ray", and the engine is "{self.name}"', self.address)


def _shard(value: Any, context: Context) -> str:
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value) if isinstance(value, str) else None
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise refuse('must be "i/n" with 1 <= i <= n, such as "1/8"', value)
    return f"{int(parts[1])}/{int(parts[2])}"


shard = Kind(_shard, {"type": "string", "pattern": "^[0-9]+/[0-9]+$"})


@part
class Until(Part):
    """When a layer is decided and costs no more pictures."""

    threshold: float = key(number(-1, 1), "the mean similarity to the reference that a layer is held against")
    confidence: float = key(
        number(0, 1), "with which a layer's mean must lie on one side before it is decided", 0.95
    )
    rounds: tuple[int, ...] = key(
        list_of(whole(2), unique=True),
        "prompts after which layers are decided, ascending, rounded up to whole batches",
        (8, 16, 32, 64),
    )
    dino: str = key(
        hub_or_folder,
        "the DINOv2 model: auto (the model's own, or facebook/dinov2-base), a folder, or a hub name",
        "auto",
    )

    def problems(self) -> Iterator[Problem]:
        if not 0 < self.confidence < 1:
            yield Problem(("confidence",), "must be above 0 and below 1", self.confidence)
        if list(self.rounds) != sorted(self.rounds):
            yield Problem(("rounds",), "must be ascending", list(self.rounds))
        if self.dino == "off":
            yield Problem(("dino",), "cannot be off: layers are decided by it", self.dino)


# The spec


@part
class SkipSpec(Spec):
    """Demo 2: a reference of every prompt, and a picture of it with each layer skipped."""

    demo: ClassVar[str] = "skip"

    prompts: tuple[Prompt, ...] = key(
        prompts, 'texts, or objects {"prompt": ..., "seed": ...}; or the path of a .json file of such a list'
    )
    seed: int = key(seed, "of the first prompt that has none of its own; the next one adds 1", 0)
    layers: tuple[Entry, ...] = key(
        layers,
        'layers to skip one by one: "all", or a list of numbers, double.i, single.i, ranges as "0-3" or '
        '"double.1-3", double.*, single.*, and of lists such as [17, 18], which are skipped together',
        ("all",),
    )
    batch: int = key(count, "prompts that run side by side; fewer need less memory", 8)
    noise_floor: int = key(
        whole(0),
        "references drawn twice, to measure how much pictures differ by numerics alone; in whole batches",
        8,
    )
    engine: Engine = key(part_of(Engine, "name"), "what does the work", Engine())
    shard: str | None = key(
        or_null(shard), 'make only part i of n, as "i/n", in a folder <output>.shards/i-of-n', None
    )
    merge: bool = key(flag, "join the folders of all shards into the output folder; make nothing", False)
    until: Until | None = key(
        or_null(part_of(Until)), "take prompts in rounds, and stop with a layer when it is decided", None
    )

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        for problem in groups_of(self.layers, self.model.record.layers)[1]:
            yield Problem(("layers", *problem.path), problem.text, problem.value)
        yield from self._prompt_problems()
        if self.shard is not None and self.until is not None:
            yield Problem(
                ("shard",), "cannot go with until: a round needs the pictures of all shards", self.shard
            )
        if self.shard is not None and self.merge:
            yield Problem(("merge",), "cannot go with shard: run it once, after all shards", True)

    def _prompt_problems(self) -> Iterator[Problem]:
        seen: dict[tuple[str, int], int] = {}
        for i, each in enumerate(self.seeded_prompts()):
            if each.seed >= MORE_THAN_ANY_SEED:
                yield Problem(
                    ("prompts", i), f"its seed would be {each.seed}: seed is too large", each.prompt
                )
            twin = seen.setdefault((each.prompt, each.seed), i)
            if twin != i:
                yield Problem(("prompts", i), f"is prompts[{twin}] again, with the same seed", each.prompt)

    def seeded_prompts(self) -> tuple[Prompt, ...]:
        """The prompts, each with its seed."""
        return tuple(
            each if each.seed is not None else Prompt(prompt=each.prompt, seed=self.seed + i)
            for i, each in enumerate(self.prompts)
        )

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the layers that are skipped together, group by group."""
        return tuple(groups_of(self.layers, self.model.record.layers)[0])

    def shard_numbers(self) -> tuple[int, int] | None:
        """The shard as two numbers, or None."""
        return None if self.shard is None else tuple(map(int, self.shard.split("/")))

    def recipe(self) -> dict[str, Any]:
        """As every spec's; what says where and by whom cells are made is none of it, nor is the seed."""
        left_out = ("engine", "shard", "merge", "seed")
        recipe = {name: value for name, value in super().recipe().items() if name not in left_out}
        model = {name: recipe["model"][name] for name in ("name", "weights", "dtype")}
        return recipe | {
            "model": model,
            "prompts": [each.as_json() for each in self.seeded_prompts()],
            "layers": [list(group) for group in self.groups()],
        }
