"""The spec of demo 3: which pictures are compared, by what, and when a layer is vital."""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from flux.studies.similarity.editing_spec import EditingSets, Switch
from flux.studies.similarity.measures import PATCHES
from flux.studies.spec import (
    AnyPath,
    Device,
    Distinct,
    ExistingPath,
    Field,
    HubOrFolder,
    PlainValidator,
    Problem,
    Rows,
    Several,
    StudySpec,
    WithJsonSchema,
    or_one,
    whole,
)

COSINES = ("dino", "dino-patches", "dino-whitened", "clip")
USES = (("sweep",), ("pictures",), ("picture", "against"))
"""The keys of each use; a spec has those of one."""

LATER = ("block", "beside", "editing")
"""Keys that came later: where they say nothing, a run is what it was without them."""

Metric = Literal["dino", "clip", "psnr", "ssim", "dino-patches", "dino-whitened"]


class VitalRule(NamedTuple):
    """When a layer is vital, see `flux.studies.similarity.importance.vital_set`. value: None for "gap"."""

    name: str
    value: float | None


RULES = 'must be "similarity 0.95", "vitality 0.05", "top 5" or "gap", each with your number'
LIMITS = {"similarity": (-1, 1), "vitality": (0, 2)}
PATTERN = r"^(gap|top [1-9][0-9]{0,3}|(similarity|vitality) -?[0-9]+(\.[0-9]+)?)$"


def _rule(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not re.fullmatch(PATTERN, text):
        raise ValueError(RULES)
    name, _, number = text.partition(" ")
    lowest, highest = LIMITS.get(name, (-math.inf, math.inf))
    if number and not lowest <= float(number) <= highest:
        raise ValueError(f"the {name} must be between {lowest:g} and {highest:g}")
    return text


RuleText = Annotated[str, PlainValidator(_rule), WithJsonSchema({"type": "string", "pattern": PATTERN})]


class DinoSpec(StudySpec):
    """Demo 3: how alike pictures are; of a sweep's, how much each layer matters and which ones are vital.

    One of three uses: `sweep`; `pictures`; `picture` and `against`. Paths are relative to the spec's folder,
    on the command line to the working directory.
    """

    demo: ClassVar[str] = "dino"

    sweep: ExistingPath | None = Field(
        None,
        description="the folder of demo 2's run, or the spec of that run (.json), whose folder is looked up",
    )
    beside: ExistingPath | None = Field(
        None,
        description="another sweep of the same model, its folder or its spec: each layer by the figures of "
        "both, as a scatter",
    )
    editing: Annotated[EditingSets | None, Switch] = Field(
        None,
        description="of a sweep by carry: try sets of layers along its order in edits, and write "
        "editing_layers.json; true for all as it stands here, or an object",
    )
    pictures: Several[ExistingPath] | None = Field(
        None,
        description="files or folders: two of them are compared each with each other; one folder, or three "
        "or more, all with all",
    )
    picture: ExistingPath | None = Field(None, description="one picture, to rank those in `against` by")
    against: Annotated[Several[ExistingPath], or_one(ExistingPath)] | None = Field(
        None, description="the pictures or folders that `picture` is held against"
    )
    model: HubOrFolder = Field(
        "auto",
        description="the DINOv2 model: a folder or a hub name; auto is flux-tiny's own for its pictures, and "
        "facebook/dinov2-base for others",
    )
    token: Literal["class", "patches"] = Field(
        "class", description="DINO's class token, or the mean of its patch tokens"
    )
    clip: HubOrFolder = Field(
        "openai/clip-vit-large-patch14", description="the CLIP model: a folder or a hub name"
    )
    metrics: Annotated[Distinct[Metric], or_one(Metric)] | None = Field(
        None,
        description="what is measured; the first one ranks, and decides which layers are vital. dino: one "
        "token of the whole picture; dino-patches: patch by patch; dino-whitened: the same, whitened by the "
        "sweep's references; null: dino, and of a sweep by another probe than skip dino-whitened for "
        "flux-tiny, dino-patches for others",
    )
    block: whole(0, 255) | None = Field(
        None,
        description="for dino-patches and dino-whitened: after which block of DINO, 0 for the embedding; "
        "null: the first of a shallow model such as flux-tiny's, the last of others",
    )
    by: RuleText = Field(
        "similarity 0.95",
        description="when a layer is vital: similarity 0.95 (mean below it), vitality 0.05 (1 - mean above "
        "it), top 5 (the most important ones), gap (those below the largest gap)",
    )
    among: Literal["all", "double.*", "single.*"] = Field(
        "all", description="the layers that may be called vital: all of them, or those of one kind of block"
    )
    confidence: Annotated[float, Field(ge=0.5, le=0.9999)] = Field(
        0.95, description="of the intervals of each layer's mean"
    )
    device: Device = Field(
        "auto", description="auto, cpu, mps, cuda or cuda:1; auto is CUDA where there is one"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of DINO's and CLIP's weights"
    )
    batch: Rows = Field(32, description="pictures whose features are computed at once")
    output: AnyPath | None = Field(
        None,
        description="folder of the run; null: output/dino/<name of the spec> in the working directory. Where "
        "it holds a run of another spec, a number is added",
    )
    overwrite: bool = Field(False, description="make a finished run again")

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """With null for the keys of other uses than the one typed, which the spec may have."""
        typed = [use for use in USES if any(name in flags for name in use)]
        others = [name for use in USES if typed and use not in typed for name in use]
        return {**dict.fromkeys(others), **flags}

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
        if self.beside is not None and self.sweep is None:
            yield Problem(("beside",), "stands beside a sweep: give sweep too", str(self.beside))
        if self.editing is not None and self.sweep is None:
            yield Problem(("editing",), "goes on from a sweep by carry: give sweep too")
        metrics = self.metrics or ()
        if self.sweep is None and "dino-whitened" in metrics:
            text = "is whitened by a sweep's references; for pictures choose from dino, dino-patches, clip"
            yield Problem(("metrics", metrics.index("dino-whitened")), text, "dino-whitened")
        if self.block is not None and (metrics or self.sweep is None) and not set(metrics) & set(PATCHES):
            yield Problem(("block",), f"is for {' and '.join(PATCHES)}", self.block)
        if self.sweep is not None and metrics and metrics[0] == "psnr":
            text = (
                "the first metric decides which layers are vital: choose from dino, clip, ssim, "
                "dino-patches, dino-whitened"
            )
            yield Problem(("metrics", 0), text, "psnr")

    def recipe(self) -> dict[str, Any]:
        """As every spec's; keys that came later are left out where they say nothing."""
        found = {
            name: value for name, value in super().recipe().items() if name not in LATER or value is not None
        }
        if self.editing is not None and self.editing.by is None:  # as it stood before there was another
            found["editing"] = {name: value for name, value in found["editing"].items() if name != "by"}
        return found

    def rule(self) -> VitalRule:
        name, _, value = self.by.partition(" ")
        return VitalRule(name, float(value) if value else None)
