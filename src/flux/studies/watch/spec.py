"""What is watched: points and a box of the picture, and words of the prompt. Imports no torch."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from flux.modules.words import places_of
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.spec import (
    AfterValidator,
    Distinct,
    Field,
    ModelChoice,
    PlainValidator,
    Problem,
    Section,
    Text,
    WithJsonSchema,
    or_one,
    refusal,
)

TOKEN = 16
"""Pixels of a token's side."""

MOST_POINTS, MOST_WORDS = 32, 32

Point = tuple[int, int]
Box = tuple[int, int, int, int]


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(type(n) is int for n in value)


def _points(value: Any) -> tuple[Point, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of points, such as [[64, 80]]")
    if len(value) > MOST_POINTS:
        raise ValueError(f"must have at most {MOST_POINTS} points")
    wrong = [i for i, point in enumerate(value) if not _numbers(point, 2)]
    if wrong:
        raise refusal(Problem((i,), "must be [x, y] in pixels, two whole numbers", value[i]) for i in wrong)
    return tuple(map(tuple, value))


def _box(value: Any) -> Box:
    if not _numbers(value, 4) or not (value[0] < value[2] and value[1] < value[3]):
        raise ValueError(
            "must be [left, top, right, bottom] in pixels, whole numbers, left < right, top < bottom"
        )
    return tuple(value)


def _schema(entries: int) -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 0}
    return {"type": "array", "items": whole, "minItems": entries, "maxItems": entries}


def _word(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return " ".join(text.split())


Word = Annotated[Text, AfterValidator(_word)]
Points = Annotated[
    tuple[Point, ...],
    PlainValidator(_points),
    WithJsonSchema({"type": "array", "items": _schema(2), "minItems": 1, "maxItems": MOST_POINTS}),
]
ABox = Annotated[Box, PlainValidator(_box), WithJsonSchema(_schema(4))]


class Watch(Section):
    """Whose attention is watched while a picture is made, which changes nothing in it."""

    points: Points | None = Field(
        None, description="[x, y] in pixels: where does the picture look from here?"
    )
    box: ABox | None = Field(
        None, description="[left, top, right, bottom] in pixels: where does the picture look from in here?"
    )
    words: Annotated[Distinct[Word], or_one(Word)] | None = Field(
        None, description="words of the prompt: which places of the picture look at them?"
    )
    layers: LayerChoice = Field("all", description="the layers that are watched")

    def problems(self) -> Iterator[Problem]:
        if not (self.points or self.box or self.words):
            yield Problem((), "names nothing to watch: give points, a box or words", self.as_json())
        if len(self.words or ()) > MOST_WORDS:
            yield Problem(("words",), f"must have at most {MOST_WORDS} entries")

    def problems_in(
        self, model: ModelChoice, size: tuple[int, int] | None, prompts: Mapping[str, str]
    ) -> Iterator[Problem]:
        """What does not fit a picture of this (width, height), if that is known, or stands in no prompt.

        prompts: by what they are called in a message.
        """
        yield from layer_problems(("layers",), self.layers, model)
        if size is not None:
            yield from self.outside(*size)
        for i, word in enumerate(self.words or ()):
            if not any(any(places_of(word, prompt)) for prompt in prompts.values()):
                said = " or ".join(f"{name} {prompt!r}" for name, prompt in list(prompts.items())[:2])
                more = f" or {len(prompts) - 2} more" if len(prompts) > 2 else ""
                yield Problem(("words", i), f"is no word of {said}{more}", word)

    def outside(self, width: int, height: int) -> Iterator[Problem]:
        """The points that lie outside a picture of this size, and the box."""
        for i, (x, y) in enumerate(self.points or ()):
            if not (0 <= x < width and 0 <= y < height):
                yield Problem(("points", i), f"lies outside the picture, {width} x {height}", [x, y])
        if self.box and not (
            self.box[0] >= 0 <= self.box[1] and self.box[2] <= width and self.box[3] <= height
        ):
            yield Problem(("box",), f"lies outside the picture, {width} x {height}", list(self.box))

    def layer_numbers(self, model: ModelChoice) -> tuple[int, ...]:
        return layer_numbers(self.layers, model)

    def places(self, width: int, height: int) -> dict[str, tuple[int, ...]]:
        """The image tokens of each point and of the box, by the place's name."""
        columns = width // TOKEN
        found = {
            f"point {i}": ((y // TOKEN) * columns + x // TOKEN,)
            for i, (x, y) in enumerate(self.points or (), start=1)
        }
        if self.box:
            left, top, right, bottom = self.box
            rows, across = range(top // TOKEN, -(-bottom // TOKEN)), range(left // TOKEN, -(-right // TOKEN))
            found["box"] = tuple(row * columns + column for row in rows for column in across)
        return found


def with_watch(recipe: dict[str, Any], watch: Watch | None, model: ModelChoice) -> dict[str, Any]:
    """A recipe with the layers that are watched as numbers; of a run that watches none as it ever was."""
    rest = {name: value for name, value in recipe.items() if name != "watch"}
    if watch is None:
        return rest
    return rest | {"watch": {**watch.as_json(), "layers": list(watch.layer_numbers(model))}}
