"""The spec of demo 0: which prompts are drawn from which seeds."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from flux.limits import MOST_PICTURES, MOST_SEED, MOST_SEEDS
from flux.photos.wanted import Wanted
from flux.studies.looking import (
    REFERENCE,
    FileWithPictures,
    PromptOrPicture,
    PromptWithPicture,
    ReferenceChoice,
    ReferenceKeys,
    beside_text,
    looking_problems,
)
from flux.studies.prompts import Prompt, from_file
from flux.studies.spec import Field, KeyPath, Problem, Rows, Seeds, Several, Spec, below, or_one, whole
from flux.studies.wanted import (
    GUIDED,
    Guided,
    RegionHow,
    RegionItems,
    StartChoice,
    region_problems,
    start_problems,
    wanted_of,
)


class TestSpec(Guided, Spec):
    """Demo 0: a picture of every prompt with every seed."""

    __test__: ClassVar[bool] = False  # for pytest, which would collect it by its name
    demo: ClassVar[str] = "test"
    quiet: ClassVar[frozenset[str]] = GUIDED | {
        *("per_prompt", "prompt_2", "start", "regions", "regional", "reference")
    }

    prompts: Annotated[
        Several[PromptOrPicture], from_file(PromptOrPicture, alone=object, file=FileWithPictures)
    ] = Field(
        description='what the pictures show: texts, or objects {"prompt": ..., "seed": ...}, with "picture" '
        "for models that look at one; or the path of a file of them (.txt, .json, .jsonl, .csv)"
    )
    seeds: Seeds = Field(
        (0,),
        description='every prompt without a seed of its own is drawn from each of these: [0, 1], "0-3"; -1 '
        "is drawn",
    )
    batch: Rows = Field(4, description="pictures that are made side by side; fewer need less memory")

    per_prompt: whole(1, MOST_SEEDS) = Field(
        1, description="so many pictures of each prompt and seed: from the seed and from those that follow it"
    )
    prompt_2: Annotated[Several[Prompt], or_one(Prompt)] | None = Field(
        None,
        description="what T5 reads in the place of the prompt, while CLIP reads the prompt: a text for all "
        "prompts, or a list with one for each",
    )
    start: StartChoice | None = Field(
        None, description="a photo to start from: image to image, and with a mask inpainting"
    )
    regions: RegionItems | None = Field(
        None, description='parts of every picture with prompts of their own: {"prompt": ..., "where": ...}'
    )
    regional: RegionHow | None = Field(None, description="how regions obey; null: in all layers")
    reference: ReferenceChoice | None = REFERENCE

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from self.guidance_problems()
        yield from self._wanted_problems()
        pictures = sum(1 for _ in self.pictures())
        if pictures > MOST_PICTURES:
            yield Problem(("seeds",), f"{pictures} pictures are more than the {MOST_PICTURES} of one run")

    def _wanted_problems(self) -> Iterator[Problem]:
        if self.prompt_2 is not None and len(self.prompt_2) not in (1, len(self.prompts)):
            text = f"{len(self.prompt_2)} texts for {len(self.prompts)} prompts: give one, or one for each"
            yield Problem(("prompt_2",), text)
        if self.start is not None:
            yield from below(("start",), start_problems(self.start, self))
        yield from region_problems(self.regions, self.regional, self)
        yield from looking_problems(self.model, (self.width, self.height), self._seen())
        if self.regions is not None:
            yield from below(("regions",), beside_text(self.model))
        if self.per_prompt == 1:
            return
        made = [(number, seed) for number, _, seed in self.pictures()]
        if len(set(made)) < len(made):
            text = "reaches from one seed to the next, so that a picture would be made twice: space the seeds"
            yield Problem(("per_prompt",), text, self.per_prompt)
        if any(seed > MOST_SEED for _, seed in made):
            yield Problem(("per_prompt",), f"reaches beyond the largest seed, {MOST_SEED}", self.per_prompt)

    @property
    def wanted(self) -> Wanted:
        """What pictures are made from beside their prompts."""
        return wanted_of(self, self, self.start, self.regions, self.regional)

    def _seen(self) -> list[tuple[KeyPath, ReferenceKeys | None]]:
        """What is looked at for each prompt, and where that stands."""
        own = [
            each if isinstance(each, PromptWithPicture) and each.names_files else None
            for each in self.prompts
        ]
        if self.reference is None and any(own):
            return [(("prompts", i, *(() if each else ("picture",))), each) for i, each in enumerate(own)]
        return [
            (("reference",), self.reference) if each is None else (("prompts", i), each)
            for i, each in enumerate(own)
        ]

    @property
    def looks(self) -> bool:
        return any(each is not None for _, each in self._seen())

    def seen(self, number: int) -> ReferenceKeys | None:
        """What the model looks at for the prompt of a number, from 1."""
        return self._seen()[number - 1][1]

    def second(self, number: int) -> str | None:
        """What T5 reads of the prompt of a number, from 1, if that is another text."""
        if self.prompt_2 is None:
            return None
        return self.prompt_2[0 if len(self.prompt_2) == 1 else number - 1]

    def pictures(self) -> Iterator[tuple[int, str, int]]:
        """Number of the prompt, from 1, its text and the seed of each picture, prompt by prompt."""
        for number, each in enumerate(self.prompts, start=1):
            item = each if isinstance(each, PromptWithPicture) else None
            text = each if item is None else item.prompt
            for seed in self.seeds if item is None or item.seed is None else (item.seed,):
                for following in range(self.per_prompt):
                    yield number, text, seed + following


def check(spec: TestSpec) -> None:
    """Open the pictures that a spec names. Raises ValueError, one line, for what nothing can be made from."""
    spec.wanted.check((spec.width, spec.height), spec.steps)
