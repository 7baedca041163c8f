"""What of demo 4's spec can be made but is of little or no use, a line each, said before anything loads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flux.methods import METHODS, MethodRecord
from flux.studies.spec import dotted

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec


def cautions(spec: "EditSpec") -> Iterator[str]:
    """What a model without guidance, distilled to few steps, makes of a method."""
    method, model = spec.method, spec.model
    if method is None or method.row is None or model.record.guidance is not None:
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


def _inverts(row: MethodRecord, spec: "EditSpec") -> bool:
    return row.inverts and spec.settings.get("origin") != "straight"
