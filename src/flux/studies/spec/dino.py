"""The spec of demo 3: which pictures are compared, by what, and when a layer is vital."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from flux.studies.spec.errors import Problem
from flux.studies.spec.part import Part, key, part
from flux.studies.spec.values import (
    Context,
    Kind,
    device,
    flag,
    hub_or_folder,
    list_of,
    number,
    one_of,
    or_null,
    path,
    refuse,
    whole,
)

METRICS = ("dino", "clip", "psnr", "ssim")
COSINES = ("dino", "clip")
USES = (("sweep",), ("pictures",), ("picture", "against"))
"""The keys of each use; a spec has those of one."""


@dataclass(frozen=True)
class Rule:
    """When a layer is vital, see `flux.studies.similarity.importance.vital_set`. value: None for "gap"."""

    name: str
    value: float | None


RULES = 'must be "similarity 0.95", "vitality 0.05", "top 5" or "gap", each with your number'
LIMITS = {"similarity": (-1, 1), "vitality": (0, 2)}
PATTERN = r"^(gap|top [1-9][0-9]{0,3}|(similarity|vitality) -?[0-9]+(\.[0-9]+)?)$"


def _rule(value: Any, context: Context) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not re.fullmatch(PATTERN, text):
        raise refuse(RULES, value)
    name, _, number = text.partition(" ")
    lowest, highest = LIMITS.get(name, (-math.inf, math.inf))
    if number and not lowest <= float(number) <= highest:
        raise refuse(f"the {name} must be between {lowest:g} and {highest:g}", value)
    return text


def _existing(value: Any, context: Context) -> Path:
    place = path.read(value, context)
    if not place.exists():
        raise refuse(f"no such file or folder: {place}", value)
    return place


rule = Kind(_rule, {"type": "string", "pattern": PATTERN})
existing = Kind(_existing, {"type": "string"})


@part
class DinoSpec(Part):
    """Demo 3: how alike pictures are; of a sweep's, how much each layer matters and which ones are vital.

    One of three uses: `sweep`; `pictures`; `picture` and `against`. Paths are relative to the spec's folder,
    on the command line to the working directory.
    """

    demo: ClassVar[str] = "dino"
    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = USES

    sweep: Path | None = key(
        or_null(existing),
        "the folder of demo 2's run, or the spec of that run (.json), whose folder is looked up",
        None,
    )
    pictures: tuple[Path, ...] | None = key(
        or_null(list_of(existing)),
        "files or folders: two of them are compared each with each other; one folder, or three or more, all "
        "with all",
        None,
    )
    picture: Path | None = key(or_null(existing), "one picture, to rank those in `against` by", None)
    against: tuple[Path, ...] | None = key(
        or_null(list_of(existing, or_one=True)),
        "the pictures or folders that `picture` is held against",
        None,
    )
    model: str = key(
        hub_or_folder,
        "the DINOv2 model: a folder or a hub name; auto is flux-tiny's own for its pictures, and "
        "facebook/dinov2-base for others",
        "auto",
    )
    token: str = key(
        one_of(("class", "patches")), "DINO's class token, or the mean of its patch tokens", "class"
    )
    clip: str = key(hub_or_folder, "the CLIP model: a folder or a hub name", "openai/clip-vit-large-patch14")
    metrics: tuple[str, ...] = key(
        list_of(one_of(METRICS), unique=True, or_one=True),
        "what is measured; the first one ranks, and decides which layers are vital",
        ("dino",),
    )
    by: str = key(
        rule,
        "when a layer is vital: similarity 0.95 (mean below it), vitality 0.05 (1 - mean above it), top 5 "
        "(the most important ones), gap (those below the largest gap)",
        "similarity 0.95",
    )
    among: str = key(
        one_of(("all", "double.*", "single.*")),
        "the layers that may be called vital: all of them, or those of one kind of block",
        "all",
    )
    confidence: float = key(number(0.5, 0.9999), "of the intervals of each layer's mean", 0.95)
    device: str = key(device, "auto, cpu, mps, cuda or cuda:1; auto is CUDA where there is one", "auto")
    dtype: str = key(one_of(("float32", "bfloat16", "float16")), "of DINO's and CLIP's weights", "float32")
    batch: int = key(whole(1), "pictures whose features are computed at once", 32)
    output: Path | None = key(
        or_null(path),
        "folder of the run; null: output/dino/<name of the spec> in the working directory. Where it holds a "
        "run of another spec, a number is added",
        None,
    )
    overwrite: bool = key(flag, "make a finished run again", False)

    def problems(self) -> Iterator[Problem]:
        given = {name for use in USES for name in use if getattr(self, name) is not None}
        if given not in map(set, USES):
            said = ", ".join(sorted(given)) or "none of them"
            yield Problem((), f"needs one of: sweep; pictures; picture and against together; {said} is given")
        if self.pictures is not None and len(self.pictures) == 1 and not self.pictures[0].is_dir():
            yield Problem(("pictures",), "name two pictures, or a folder", [str(self.pictures[0])])
        if self.picture is not None and not self.picture.is_file():
            yield Problem(("picture",), "must be a picture, not a folder", str(self.picture))
        if self.sweep is not None and self.sweep.is_file() and self.sweep.suffix != ".json":
            yield Problem(("sweep",), "must be a folder, or a spec (.json)", str(self.sweep))
        if self.sweep is not None and self.metrics[0] == "psnr":
            text = "the first metric decides which layers are vital: choose from dino, clip, ssim"
            yield Problem(("metrics", 0), text, "psnr")

    def rule(self) -> Rule:
        name, _, value = self.by.partition(" ")
        return Rule(name, float(value) if value else None)

    def recipe(self) -> dict[str, Any]:
        """What decides the figures, as plain JSON that reads as the same spec again wherever it is put."""
        return {name: value for name, value in self.as_json().items() if name not in ("output", "overwrite")}


def alone(kind: type[Part], given: dict[str, Any]) -> dict[str, Any]:
    """Keys typed on the command line, and null for those of other uses, which the spec may have."""
    uses = getattr(kind, "alternatives", ())
    if not any(name in given for use in uses for name in use):
        return given
    others = {name: None for use in uses if not any(name in given for name in use) for name in use}
    known = {each.name for each in fields(kind)}
    return {**{name: value for name, value in others.items() if name in known}, **given}
