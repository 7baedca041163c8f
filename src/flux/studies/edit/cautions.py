"""What of demo 4's spec can be made but is of little or no use, a line each, said before anything loads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flux.methods import METHODS, MethodRecord
from flux.studies.spec import dotted

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec


def cautions(spec: "EditSpec") -> Iterator[str]:
    """Seeds that a method never draws from; and what a model distilled to few steps makes of a method."""
    method, model = spec.method, spec.model
    if method is None or method.row is None:
        return
    if any(_seeds_for_nothing(spec)):
        yield f"seeds: {method.name} draws no noise for a photo, so that all of them give the same picture"
    if model.record.guidance is not None:
        return
    if _inverts(method.row, spec):
        able = [row.name for row in METHODS if not row.inverts and row.needs_mask == method.row.needs_mask]
        yield (
            f"{method.name} goes from the picture to noise first, from where {model.name}, distilled to "
            f"{model.record.num_steps} steps, hardly comes back; without that way: {', '.join(able)}"
        )
    idle = [("method", name) for name in method.given if name.endswith("guidance")]
    idle += [("schedules",)] if spec.schedules is not None else []
    if idle:
        yield f"{', '.join(map(dotted, idle))}: {model.name} takes no guidance, so this changes nothing"


def draws(spec: "EditSpec", image: object) -> bool:
    """Whether another seed makes another edit by a method of the table. image: the source's photo, if any."""
    return image is None or (spec.method.row.draws and spec.settings.get("origin") != "inverted")


def _seeds_for_nothing(spec: "EditSpec") -> Iterator[bool]:
    """Of each edit whether it has several seeds and no use for them; masks may be found by noise."""
    for source in spec.pictures:
        for edit in source.edit:
            mask = edit.mask or source.mask
            found = mask is not None and mask.where in ("velocity", "words")
            yield len(edit.seeds or ()) > 1 and not found and not draws(spec, source.image)


def _inverts(row: MethodRecord, spec: "EditSpec") -> bool:
    return row.inverts and spec.settings.get("origin") != "straight"
