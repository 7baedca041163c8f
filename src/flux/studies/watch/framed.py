"""Places of a photo, given in its own pixels, in those of the picture that is edited. Imports no torch."""

import math
from collections.abc import Iterator

from flux.photos.framing import Frame
from flux.studies.spec import Problem
from flux.studies.watch.spec import Watch


def unseen(watch: Watch, frame: Frame) -> Iterator[Problem]:
    """What is watched that lies outside the photo, or outside the part of it that is edited."""
    if wrong := list(watch.outside(*frame.photo)):
        yield from wrong
        return
    left, top, right, bottom = frame.box
    edited = f"{round(left)} to {round(right)} by {round(top)} to {round(bottom)}"
    text = f"lies outside what is edited of the photo, {edited}"
    for i, (x, y) in enumerate(watch.points or ()):
        if not (left <= x + 0.5 < right and top <= y + 0.5 < bottom):
            yield Problem(("points", i), text, [x, y])
    if watch.box and (
        watch.box[2] <= left or watch.box[0] >= right or watch.box[3] <= top or watch.box[1] >= bottom
    ):
        yield Problem(("box",), text, list(watch.box))


def framed(watch: Watch, frame: Frame) -> Watch:
    """What to watch in the picture that a frame shows of its photo; a box may reach beyond it."""
    left, top, right, bottom = frame.box
    width, height = frame.size
    across, down = width / (right - left), height / (bottom - top)
    points = box = None
    if watch.points:
        points = tuple(
            (math.floor((x + 0.5 - left) * across), math.floor((y + 0.5 - top) * down))
            for x, y in watch.points
        )
    if watch.box:
        x0, y0, x1, y1 = watch.box
        low = (max(0, math.floor((x0 - left) * across)), max(0, math.floor((y0 - top) * down)))
        high = (min(width, math.ceil((x1 - left) * across)), min(height, math.ceil((y1 - top) * down)))
        box = (*low, *high)
    return watch.model_copy(update={"points": points, "box": box})
