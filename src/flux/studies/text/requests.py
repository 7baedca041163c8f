"""The pictures that demo 0 is asked for."""

from dataclasses import dataclass

from flux.studies.looking import ReferenceKeys
from flux.studies.text.spec import TestSpec


@dataclass(frozen=True)
class PictureRequest:
    """One picture: its prompt, its seed and its file. prompt_2: what T5 reads, if that is another text.

    seen: what the model looks at, if anything.
    """

    prompt: str
    seed: int
    file: str
    prompt_2: str | None = None
    seen: ReferenceKeys | None = None


def requests(spec: TestSpec) -> list[PictureRequest]:
    """Every picture of a spec, prompt by prompt."""
    return [
        PictureRequest(
            prompt, seed, f"picture-{number:02}-seed-{seed}.png", spec.second(number), spec.seen(number)
        )
        for number, prompt, seed in spec.pictures()
    ]
