"""The spec of demo 0: which prompts are drawn from which seeds."""

from typing import Annotated, ClassVar

from flux.studies.spec import Count, Distinct, Field, Seed, Several, Spec, Text, or_one


class TestSpec(Spec):
    """Demo 0: a picture of every prompt with every seed."""

    __test__: ClassVar[bool] = False  # for pytest, which would collect it by its name
    demo: ClassVar[str] = "test"

    prompts: Annotated[Several[Text], or_one(Text)] = Field(description="what the pictures show")
    seeds: Annotated[Distinct[Seed], or_one(Seed)] = Field(
        (0,), description="every prompt is drawn from each of these"
    )
    batch: Count = Field(4, description="pictures that are made side by side; fewer need less memory")
