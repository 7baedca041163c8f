"""What a run's model looks at, opened and encoded before anything is sampled."""

from collections.abc import Iterable

from flux.pictures.referencing import Sized, make_sized
from flux.references import Reference
from flux.studies.looking import ReferenceKeys
from flux.studies.spec import Spec
from flux.weights.load import Models

Size = tuple[int, int]
"""Width and height of what is made."""


class References:
    """The references of a run, each made once, on the models' device."""

    def __init__(self, spec: Spec, models: Models, wanted: Iterable[tuple[ReferenceKeys | None, Size]]):
        asked = [_key(seen, size) for seen, size in wanted if seen is not None and seen.picture is not None]
        kind, how = models.spec.reference, {"offload": spec.model.offload, "weights": spec.model.weights}
        self._made: dict[Sized, Reference] = make_sized(kind, models, asked, **how) if asked else {}

    def of(self, seen: ReferenceKeys | None, size: Size) -> Reference | None:
        """What is looked at, for a picture of a size; None for nothing."""
        return None if seen is None or seen.picture is None else self._made[_key(seen, size)]


def _key(seen: ReferenceKeys, size: Size) -> Sized:
    return seen.looked_at, size[1], size[0]
