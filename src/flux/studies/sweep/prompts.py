"""What the models of demo 2 look at: a picture for each prompt."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flux.models import kontext_size
from flux.studies import looking
from flux.studies.looking import size_of
from flux.studies.spec import Problem

if TYPE_CHECKING:
    from flux.studies.sweep.spec import SkipSpec


def looking_problems(spec: "SkipSpec") -> Iterator[Problem]:
    """Pictures that the model of a spec does not look at, or cannot, and those that it misses."""
    seen = [(("prompts", i), each) for i, each in enumerate(spec.prompts)]
    yield from looking.looking_problems(spec.model, (spec.width, spec.height), seen)
    if spec.model.record.reference == "kontext" and spec.batch > 1 and all(p.picture for p in spec.prompts):
        sizes = _sizes(spec)
        if len(sizes) > 1:
            told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
            yield Problem(("batch",), f"pictures seen as {told} cannot run side by side: use 1", spec.batch)


def _sizes(spec: "SkipSpec") -> set[tuple[int, int]]:
    """The sizes in which Kontext sees the pictures of a spec; those that are none are told elsewhere."""
    from flux.pictures.looked_at import picture_problem

    return {
        kontext_size(*size_of(each.picture))
        for each in spec.prompts
        if picture_problem("kontext", each.looked_at) is None
    }
