"""The spec of demo 0: which prompts are drawn from which seeds."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from flux.limits import MOST_PICTURES
from flux.studies.prompts import PromptItem, PromptOrItem, from_file
from flux.studies.spec import Field, Problem, Rows, Seeds, Several, Spec


class TestSpec(Spec):
    """Demo 0: a picture of every prompt with every seed."""

    __test__: ClassVar[bool] = False  # for pytest, which would collect it by its name
    demo: ClassVar[str] = "test"

    prompts: Annotated[Several[PromptOrItem], from_file(PromptOrItem, alone=object)] = Field(
        description='what the pictures show: texts, or objects {"prompt": ..., "seed": ...}; or the path '
        "of a file of them (.txt, .json, .jsonl, .csv)"
    )
    seeds: Seeds = Field(
        (0,),
        description='every prompt without a seed of its own is drawn from each of these: [0, 1], "0-3"; -1 '
        "is drawn",
    )
    batch: Rows = Field(4, description="pictures that are made side by side; fewer need less memory")

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        pictures = sum(1 for _ in self.pictures())
        if pictures > MOST_PICTURES:
            yield Problem(("seeds",), f"{pictures} pictures are more than the {MOST_PICTURES} of one run")

    def pictures(self) -> Iterator[tuple[int, str, int]]:
        """Number of the prompt, from 1, its text and the seed of each picture, prompt by prompt."""
        for number, each in enumerate(self.prompts, start=1):
            text, seeds = (each.prompt, (each.seed,)) if isinstance(each, PromptItem) else (each, self.seeds)
            for seed in seeds:
                yield number, text, seed
