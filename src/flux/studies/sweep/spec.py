"""The spec of demo 2: which layers are skipped, for which prompts, and where it is done."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from flux.models import LayerName, Layers
from flux.studies.reading import SpecError, one_line, problems_of, read_value
from flux.studies.spec import (
    MORE_THAN_ANY_SEED,
    NOT_A_LAYER,
    ALayer,
    BeforeValidator,
    Count,
    Distinct,
    Field,
    HubOrFolder,
    PlainValidator,
    Problem,
    Section,
    Seed,
    Several,
    Spec,
    Text,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    absolute,
    is_layer_name,
    refusal,
)

# Prompts


class PromptItem(Section):
    """A prompt and its seed."""

    text_key: ClassVar[str] = "prompt"

    prompt: Text = Field(description="what the picture shows")
    seed: Seed | None = Field(None, description="of its noise; null: the spec's seed plus the prompt's index")


class PromptFile(Section):
    """What a file of prompts holds."""

    prompts: Several[PromptItem] = Field(description="a list of prompts, each with its seed")


def _prompts(value: Any, info: ValidationInfo) -> Any:
    """Prompts as they stand, or those of a file. A single word from the command line may be its path."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, list | tuple):
        for entry in value:
            if isinstance(entry, str) and entry.endswith(".json"):
                raise refusal([Problem((), "a file of prompts stands alone: name one, or give texts", entry)])
    if not isinstance(value, str):
        return value
    return _from_file(value, info) if value.endswith(".json") else [value]


def _from_file(name: str, info: ValidationInfo) -> tuple[PromptItem, ...]:
    file = absolute(name, info)
    data = read_value(file)
    try:
        whole = PromptFile.model_validate({"prompts": data} if isinstance(data, list) else data)
    except ValidationError as error:
        problems = problems_of(PromptFile, error)
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise SpecError(one_line(problems[:3], str(file)) + rest) from None
    return whole.prompts


Prompts = Annotated[
    Several[PromptItem], BeforeValidator(_prompts, json_schema_input_type=str | Several[PromptItem])
]

# Layers

Entry = LayerName | tuple[LayerName, ...]
"""A name that stands for layers to skip one by one, or names of layers to skip together."""

RANGE = re.compile(r"((?:double|single)\.)?([0-9]+)-([0-9]+)")


def _entries(value: Any) -> tuple[Entry, ...]:
    """Entries as they stand; whether the model has them is asked later."""
    if isinstance(value, str | int):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError('must be "all", or a list of layers and of lists of layers')
    if not value:
        raise ValueError("must have at least one entry")
    wrong = [problem for i, entry in enumerate(value) for problem in _entry_problems(i, entry)]
    if wrong:
        raise refusal(wrong)
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in value)


def _entry_problems(i: int, entry: Any) -> Iterator[Problem]:
    joint = isinstance(entry, list | tuple)
    if joint and not entry:
        yield Problem((i,), "a joint set must have at least one layer", entry)
    for j, name in enumerate(entry if joint else [entry]):
        if not is_layer_name(name):
            yield Problem((i, j) if joint else (i,), NOT_A_LAYER, name)


LayerEntries = Annotated[
    tuple[Entry, ...],
    PlainValidator(_entries, json_schema_input_type=ALayer | Several[ALayer | Several[ALayer]]),
]


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


class Engine(Section):
    """What does the work."""

    text_key: ClassVar[str] = "name"

    name: Literal["local", "ray"] = Field(
        "local", description="local: this process; ray: a cluster of machines"
    )
    address: Text | None = Field(
        None,
        description="for ray: the cluster's, such as auto or host:6379; null: one on this machine, for this "
        "run alone",
    )
    workers: Count | None = Field(
        None, description="batches at work at a time; null: one per device, on a CPU as is fastest"
    )

    def problems(self) -> Iterator[Problem]:
        if self.address is not None and self.name != "ray":
            yield Problem(("address",), f'is for engine "ray", and the engine is "{self.name}"', self.address)


def _shard(value: Any) -> str:
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value) if isinstance(value, str) else None
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise ValueError('must be "i/n" with 1 <= i <= n, such as "1/8"')
    return f"{int(parts[1])}/{int(parts[2])}"


Shard = Annotated[
    str, PlainValidator(_shard), WithJsonSchema({"type": "string", "pattern": "^[0-9]+/[0-9]+$"})
]


class UntilRule(Section):
    """When a layer is decided and costs no more pictures."""

    threshold: Annotated[float, Field(ge=-1, le=1)] = Field(
        description="the mean similarity to the reference that a layer is held against"
    )
    confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        0.95, description="with which a layer's mean must lie on one side before it is decided"
    )
    rounds: Distinct[Annotated[int, Field(ge=2)]] = Field(
        (8, 16, 32, 64),
        description="prompts after which layers are decided, ascending, rounded up to whole batches",
    )
    dino: HubOrFolder = Field(
        "auto",
        description="the DINOv2 model: auto (the model's own, or facebook/dinov2-base), a folder, or a hub "
        "name",
    )

    def problems(self) -> Iterator[Problem]:
        if not 0 < self.confidence < 1:
            yield Problem(("confidence",), "must be above 0 and below 1", self.confidence)
        if list(self.rounds) != sorted(self.rounds):
            yield Problem(("rounds",), "must be ascending", list(self.rounds))
        if self.dino == "off":
            yield Problem(("dino",), "cannot be off: layers are decided by it", self.dino)


# The spec


class SkipSpec(Spec):
    """Demo 2: a reference of every prompt, and a picture of it with each layer skipped."""

    demo: ClassVar[str] = "skip"

    prompts: Prompts = Field(
        description='texts, or objects {"prompt": ..., "seed": ...}; or the path of a .json file of such a '
        "list"
    )
    seed: Seed = Field(0, description="of the first prompt that has none of its own; the next one adds 1")
    layers: LayerEntries = Field(
        ("all",),
        description='layers to skip one by one: "all", or a list of numbers, double.i, single.i, ranges as '
        '"0-3" or "double.1-3", double.*, single.*, and of lists such as [17, 18], which are skipped '
        "together",
    )
    batch: Count = Field(8, description="prompts that run side by side; fewer need less memory")
    noise_floor: Annotated[int, Field(ge=0)] = Field(
        8,
        description="references drawn twice, to measure how much pictures differ by numerics alone; in whole "
        "batches",
    )
    engine: Engine = Field("local", validate_default=True, description="what does the work")
    shard: Shard | None = Field(
        None, description='make only part i of n, as "i/n", in a folder <output>.shards/i-of-n'
    )
    merge: bool = Field(
        False, description="join the folders of all shards into the output folder; make nothing"
    )
    until: UntilRule | None = Field(
        None, description="take prompts in rounds, and stop with a layer when it is decided"
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

    def seeded_prompts(self) -> tuple[PromptItem, ...]:
        """The prompts, each with its seed."""
        return tuple(
            each if each.seed is not None else each.model_copy(update={"seed": self.seed + i})
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
