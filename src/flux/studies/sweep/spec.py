"""The spec of demo 2: which layers are skipped, for which prompts, and where it is done."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from flux.limits import MOST_PICTURES, MOST_PROMPTS, MOST_SEED
from flux.studies.layers import LayerEntries, layer_groups, layer_problems
from flux.studies.looking import FileWithPictures, PromptWithPicture
from flux.studies.prompts import from_file
from flux.studies.spec import (
    Distinct,
    Field,
    HubOrFolder,
    PlainValidator,
    Problem,
    Rows,
    Section,
    Seed,
    Several,
    Spec,
    Text,
    WithJsonSchema,
    or_one,
    whole,
)
from flux.studies.sweep.probe import ProbeChoice, Windows, window_problems
from flux.studies.sweep.prompts import looking_problems

MOST_WORKERS, MOST_SHARDS = 4096, 100_000

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
    workers: whole(1, MOST_WORKERS) | None = Field(
        None, description="batches at work at a time; null: one per device, on a CPU as is fastest"
    )

    def problems(self) -> Iterator[Problem]:
        if self.address is not None and self.name != "ray":
            yield Problem(("address",), f'is for engine "ray", and the engine is "{self.name}"', self.address)


def _shard(value: Any) -> str:
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value) if isinstance(value, str) else None
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]) <= MOST_SHARDS:
        raise ValueError(f'must be "i/n" with 1 <= i <= n <= {MOST_SHARDS}, such as "1/8"')
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
    rounds: Annotated[Distinct[whole(2, MOST_PROMPTS)], or_one(int)] = Field(
        (8, 16, 32, 64),
        description="prompts after which layers are decided, ascending, rounded up to whole batches",
    )
    dino: HubOrFolder = Field(
        "auto",
        description="the DINOv2 model, whose class token decides: auto (the model's own, or "
        "facebook/dinov2-base), a folder, or a hub name",
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
    """Demo 2: a reference of every prompt, and a picture of it with each layer skipped, or probed else."""

    demo: ClassVar[str] = "skip"

    prompts: Annotated[Several[PromptWithPicture], from_file(PromptWithPicture, file=FileWithPictures)] = (
        Field(
            description='texts, or objects {"prompt": ..., "seed": ...}, with "picture" for models that look '
            "at one; or the path of a file of prompts (.txt, .json, .jsonl, .csv)"
        )
    )
    seed: Seed = Field(
        0, description="of the first prompt that has none of its own; the next one adds 1; -1 is drawn"
    )
    layers: LayerEntries = Field(
        ("all",),
        description='layers to skip one by one: "all", or a list of numbers, double.i, single.i, ranges as '
        '"0-3" or "double.1-3", double.*, single.*, and of lists such as [17, 18], which are skipped '
        "together; the name of a set; or the path of a file of layers (.json)",
    )
    probe: ProbeChoice = Field("skip", validate_default=True, description="what is done to the layers")
    windows: Windows | None = Field(
        None,
        description="[[start, stop], ...]: do it only from step start to before stop, once for each window",
    )
    batch: Rows = Field(8, description="prompts that run side by side; fewer need less memory")
    noise_floor: whole(0, MOST_PROMPTS) = Field(
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
        wrong = list(layer_problems(("layers",), self.layers, self.model, joint=True))
        yield from wrong
        yield from self._prompt_problems()
        yield from looking_problems(self)
        yield from window_problems(self.windows, self.steps)
        yield from self.probe.problems_with(self)
        parts = 1 if wrong else len(self.groups()) * len(self.probe.heads_of(self) or [0])
        cells = len(self.prompts) * (2 + parts * len(self.windows or [0]))
        if cells > MOST_PICTURES:
            yield Problem(("layers",), f"{cells} pictures are more than the {MOST_PICTURES} of one run")
        if (self.shard is not None or self.merge) and any(True for _ in self.drawn()):
            yield Problem(("seed",), "is drawn anew for each shard: give a number", -1)
        if self.shard is not None and self.until is not None:
            yield Problem(
                ("shard",), "cannot go with until: a round needs the pictures of all shards", self.shard
            )
        if self.shard is not None and self.merge:
            yield Problem(("merge",), "cannot go with shard: run it once, after all shards", True)

    def _prompt_problems(self) -> Iterator[Problem]:
        seen: dict[tuple[Any, ...], int] = {}
        for i, each in enumerate(self.seeded_prompts()):
            if each.seed > MOST_SEED:
                yield Problem(
                    ("prompts", i), f"its seed would be {each.seed}: seed is too large", each.prompt
                )
            twin = seen.setdefault((each.prompt, each.seed, each.picture, each.mask), i)
            if twin != i:
                yield Problem(("prompts", i), f"is prompts[{twin}] again, with the same seed", each.prompt)

    def seeded_prompts(self) -> tuple[PromptWithPicture, ...]:
        """The prompts, each with its seed."""
        return tuple(
            each if each.seed is not None else each.model_copy(update={"seed": self.seed + i})
            for i, each in enumerate(self.prompts)
        )

    @property
    def looks(self) -> bool:
        return any(each.picture is not None for each in self.prompts)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the layers that are skipped together, group by group."""
        return layer_groups(self.layers, self.model)

    def shard_numbers(self) -> tuple[int, int] | None:
        """The shard as two numbers, or None."""
        return None if self.shard is None else tuple(map(int, self.shard.split("/")))

    def recipe(self) -> dict[str, Any]:
        """As every spec's; what says where and by whom cells are made is none of it, nor is the seed."""
        left_out = ("engine", "shard", "merge", "seed")
        recipe = {name: value for name, value in super().recipe().items() if name not in left_out}
        model = {name: recipe["model"][name] for name in ("name", "weights", "dtype")}
        probe = self.probe.recipe(self)
        if self.windows is None:
            del recipe["windows"]
        if probe == {"name": "skip"}:  # as it stood in the recipes of sweeps before there were others
            del recipe["probe"]
        else:
            recipe["probe"] = probe
        return recipe | {
            "model": model,
            "prompts": [each.as_json() for each in self.seeded_prompts()],
            "layers": [list(group) for group in self.groups()],
        }
