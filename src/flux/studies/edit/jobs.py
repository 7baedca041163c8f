"""A spec's edits by a method, one by one: what each is made from, its files, and which are made together.

Imports no torch: sources are opened, framed and checked, and edits counted, before models load.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from flux.methods.lookup import find_method
from flux.photos.framing import Frame, cut_mask, frame_photo
from flux.photos.wanted import RegionPlace
from flux.pictures.opening import PictureError, open_picture
from flux.studies.edit.choices import as_word, setting_problems
from flux.studies.edit.items import FOUND, EditItem, MaskChoice, Strategy, roles_in
from flux.studies.edit.scanning import cells_of
from flux.studies.edit.sources import SourceItem
from flux.studies.edit.spec import EditSpec
from flux.studies.layers import layer_numbers
from flux.studies.looking import size_of as size_of_file
from flux.studies.looking import size_problem
from flux.studies.reading import one_line
from flux.studies.spec import below, dotted
from flux.studies.watch.framed import unseen

SHOWN = ("source", "reconstruction")
"""Pictures of a source: as the model sees it; a photo also as the autoencoder gives it back."""

MADE = ("edit", "full", "mask")
"""Pictures of an edit: at the model's size, at the source's own, and where it changed."""


class FoundMask(NamedTuple):
    """A mask that is found: its name, its settings as they are given, and how softly it ends, in pixels."""

    where: str
    settings: tuple[tuple[str, float], ...]
    feather: float | None


@dataclass(frozen=True)
class LayerRole:
    """How an edit looks at its source in some layers, with all that it takes from the spec."""

    layers: tuple[int, ...]
    side: str
    keys: bool
    values: bool
    strength: float | str | tuple[float, ...]
    window: tuple[int, int] | None

    @property
    def in_words(self) -> str:
        what = {(True, True): "", (True, False): ", keys only", (False, True): ", values only"}
        strength, steps = self.strength, self.window
        several = isinstance(strength, tuple)
        how = " ".join(map(as_word, strength)) if several else as_word(strength)
        return (
            f"layers {', '.join(map(str, self.layers))} {self.side}"
            f"{what.get((self.keys, self.values), ', nothing copied')}"
            f"{'' if strength == 1 else f', strength {how}'}"
            f"{f', steps {steps[0]} to {steps[1] - 1}' if steps else ''}"
        )


@dataclass(frozen=True)
class Way:
    """How an edit looks at its source, and which mask is found for it; edits of one way run together.

    roles: of layers, the last one of a layer counts.
    """

    roles: tuple[LayerRole, ...]
    strategy: Strategy
    mask: FoundMask | None

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in which it looks at its source, not only outside the mask; ascending."""
        return self._on("everywhere", "inside")

    @property
    def every_layer(self) -> tuple[int, ...]:
        """The layers in which it looks at its source anywhere, ascending."""
        return self._on("everywhere", "inside", "outside")

    def _on(self, *sides: str) -> tuple[int, ...]:
        last = {layer: role.side for role in self.roles for layer in role.layers}
        return tuple(layer for layer in sorted(last) if last[layer] in sides)


@dataclass(frozen=True, eq=False)
class EditJob:
    """One edit of one source from one seed.

    place: of its files in the run's folder, empty or with a slash at its end. number: of the edit, from 1.
    """

    spec: EditSpec
    place: str
    source: SourceItem
    number: int
    edit: EditItem
    seed: int

    @property
    def title(self) -> str:
        """What its files are called behind the kind, such as `02-seed-7`."""
        return f"{self.number:02}" if self.edit.seeds is None else f"{self.number:02}-seed-{self.seed}"

    @property
    def shown(self) -> tuple[str, ...]:
        """The pictures of its source. What was generated is what the autoencoder gave."""
        return SHOWN[:1] if self.source.image is None else SHOWN

    def file(self, kind: str) -> str:
        """The file of a picture of its source, of `SHOWN`, or of the edit."""
        if kind not in SHOWN:
            return f"{self.place}{kind}-{self.title}.png"
        drawn = self.source.image is None and self.seed != self.source.seed
        return f"{self.place}{kind}{f'-seed-{self.seed}' if drawn else ''}.png"

    @property
    def mask(self) -> MaskChoice | None:
        return self.source.mask if self.edit.mask is None else self.edit.mask

    @property
    def frame(self) -> Frame:
        """What the model sees of the source."""
        return frame_of(self.spec, self.source)

    def region_weights(self) -> list[tuple[str, np.ndarray]]:
        """The prompts of the edit's regions, and how much of each token lies in them.

        Raises ValueError, one line, for a mask of another size, a box beyond the source, and for what covers
        half of no token.
        """
        places = [RegionPlace(each.prompt, each.where) for each in self.edit.regions or ()]
        frame = self.frame
        generated = self.source.image is None
        return [
            (each.prompt, each.weights(frame.size) if generated else each.in_frame(frame)) for each in places
        ]

    @property
    def way(self) -> Way:
        return way_of(self.spec, self.edit, self.mask)


@dataclass(frozen=True, eq=False)
class Batch:
    """Jobs that are made together. sources: the first of the jobs whose sources' pictures come from here."""

    jobs: tuple[EditJob, ...]
    first: tuple[EditJob, ...]

    @property
    def files(self) -> list[str]:
        return [
            *(job.file(kind) for job in self.first for kind in job.shown),
            *(job.file(kind) for job in self.jobs for kind in MADE),
        ]


def way_of(spec: EditSpec, edit: EditItem, mask: MaskChoice | None = None) -> Way:
    found = mask is not None and mask.where in FOUND
    return Way(
        roles=tuple(roles_of(spec, edit)),
        strategy=spec.strategy if edit.strategy is None else edit.strategy,
        mask=FoundMask(str(mask.where), tuple(mask.settings.items()), mask.feather) if found else None,
    )


def roles_of(spec: EditSpec, edit: EditItem) -> Iterator[LayerRole]:
    """How an edit looks at its source, its own words before those of the spec.

    Of `layers` and `outside`, a layer that stands in both looks everywhere.
    """

    def own(name: str) -> Any:
        value = getattr(edit, name)
        return getattr(spec, name) if value is None else value

    strategy, strength, window = (own(name) for name in ("strategy", "strength", "window"))
    roles = roles_in(spec, edit)
    if roles is None:
        for name, side in (("outside", "outside"), ("layers", "everywhere")):
            choice = own(name)
            layers = () if choice is None else layer_numbers(choice, spec.model)
            yield LayerRole(layers, side, strategy.keys, strategy.values, strength, window)
        return
    for role in roles:
        yield LayerRole(
            layer_numbers(role.layers, spec.model),
            role.side,
            strategy.keys if role.what is None else role.what != "values",
            strategy.values if role.what is None else role.what != "keys",
            strength if role.strength is None else role.strength,
            window if role.window is None else role.window,
        )


def jobs_of(spec: EditSpec) -> list[EditJob]:
    """Every edit of a spec that names a method, in the spec's order."""
    return [
        EditJob(spec, _place(spec, index), source, number, edit, seed)
        for index, source in enumerate(spec.pictures)
        for number, edit in enumerate(source.edit, start=1)
        for seed in edit.seeds or (source.seed,)
    ]


def _place(spec: EditSpec, index: int) -> str:
    """The folder of a source's pictures below the run's; none where there is one source."""
    if spec.sources is None:
        return ""
    image = spec.sources[index].image
    name = re.sub(r"[^a-z0-9]+", "-", "" if image is None else image.stem.lower()).strip("-")[:40]
    return f"{index + 1:0{max(2, len(str(len(spec.sources))))}}{f'-{name}' if name else ''}/"


def batches_of(spec: EditSpec) -> list[Batch]:
    """The jobs as they are made: at most `batch` together, of one size and one way, that look at one
    picture; a photo is never there with two seeds, as a source has one."""
    groups: dict[object, list[EditJob]] = {}
    for job in jobs_of(spec):
        seen, drawn = job.source.reference, job.source.image is None
        looked_at = None if seen is None else (seen.picture, seen.mask)
        own_seed = None if drawn or job.seed == job.source.seed else job.seed
        key = job.frame.size, drawn, job.way, looked_at, own_seed
        groups.setdefault(key, []).append(job)
    shown: set[str] = set()
    batches = []
    for jobs in groups.values():
        for start in range(0, len(jobs), spec.batch):
            part = jobs[start : start + spec.batch]
            first = []
            for job in part:
                if job.file("source") not in shown:
                    shown.add(job.file("source"))
                    first.append(job)
            batches.append(Batch(tuple(part), tuple(first)))
    return batches


# Sources and masks


def frame_of(spec: EditSpec, source: SourceItem) -> Frame:
    """What the model sees of a source. Raises ValueError, one line, for a photo that cannot be edited."""
    if source.image is None:
        size = (spec.width, spec.height)
        return Frame(size, size, (0.0, 0.0, *map(float, size)))
    try:
        return frame_photo(
            _size(source.image, source.digest),
            spec.fit,
            size=size_of(spec),
            largest=spec.model.record.largest,
        )
    except PictureError:
        raise
    except ValueError as error:
        raise ValueError(f"{source.image}: {error}") from None


def size_of(spec: EditSpec) -> tuple[int, int]:
    """The size that photos are edited at; with `fit` its number of pixels counts alone."""
    if spec.pixels is None:
        return spec.width, spec.height
    side = max(16, 16 * round(spec.pixels**0.5 / 16))
    return side, side


@lru_cache(maxsize=4096)
def _size(image: Path, digest: str) -> tuple[int, int]:
    return open_picture(image).size


def check(spec: EditSpec) -> None:
    """Open all that a spec names. Raises ValueError, one line, for what cannot be edited."""
    if spec.method is None:
        for region in (region for edit in spec.edits for region in edit.regions or ()):
            RegionPlace(region.prompt, region.where).weights((spec.width, spec.height))
        for mask in (spec.mask, *(edit.mask for edit in spec.edits)):
            if mask is not None and mask.where not in FOUND:
                _check_mask(mask, frame_of(spec, spec.pictures[0]))
        return
    for each in [spec] if spec.scan is None else [cell.spec for cell in cells_of(spec)]:
        _check_own(each)
    for job in jobs_of(spec):
        frame, mask, seen = job.frame, job.mask, job.source.reference
        if seen is not None and seen.mask is not None and (size := size_of_file(seen.picture)) != frame.size:
            raise ValueError(f"{seen.picture}: {size_problem(size, frame.size)}, and fit crop")
        if spec.watch is not None and (wrong := list(below(("watch",), unseen(spec.watch, frame)))):
            raise ValueError(one_line(wrong, str(job.source.image or "the spec")))
        if mask is not None and mask.where not in FOUND:
            try:
                _check_mask(mask, frame, job.source.image)
            except ValueError as error:
                raise ValueError(f"{job.place.rstrip('/')}: {error}" if job.place else str(error)) from None
        try:
            job.region_weights()
        except ValueError as error:
            raise ValueError(f"regions of {job.edit.prompt!r}: {error}") from None


def _check_own(spec: EditSpec) -> None:
    """Import a method of the user's own, which may stand in the working directory, and check its settings."""
    if not spec.method.is_own:
        return
    if "" not in sys.path:
        sys.path.append("")
    row = find_method(spec.method.name)
    if problems := list(below(("method",), setting_problems(row.name, row.settings, spec.method.given))):
        raise ValueError(one_line(problems, "the spec"))


def _check_mask(mask: MaskChoice, frame: Frame, photo: Path | None = None) -> None:
    """Look at a mask as `mask_picture` does, and at what is left of it in the part that is edited."""
    picture = mask_picture(mask, frame)
    try:
        cut_mask(picture, frame)
    except ValueError as error:
        left, top, right, bottom = map(round, frame.box)
        part = f"{left} to {right} by {top} to {bottom}, what is edited of {photo or 'the source'}"
        raise ValueError(f"{_name_of(mask)}: in {part}: {error}") from None


def _name_of(mask: MaskChoice) -> str:
    return str(mask.where) if isinstance(mask.where, Path) else f"mask = {list(mask.where)}"


def mask_picture(mask: MaskChoice, frame: Frame) -> Image.Image:
    """A mask that was given, as a grey picture of the source's size, white where the edit may change it.

    Raises ValueError, one line, for one of another size, for a box that reaches beyond it, and for one that
    is all black or all white.
    """
    size, name = frame.photo, _name_of(mask)
    if isinstance(mask.where, Path):
        picture = open_picture(mask.where).convert("L")
        if picture.size != size:
            (width, height), (own_width, own_height) = size, picture.size
            raise ValueError(
                f"{name}: the mask has {own_width} x {own_height} pixels and its source {width} x {height}: "
                "save it at the source's size"
            )
    else:
        picture = Image.new("L", size)
        picture.paste(255, mask.where)
    if not isinstance(mask.where, Path) and (mask.where[2] > size[0] or mask.where[3] > size[1]):
        raise ValueError(f"{name}: lies outside a picture of {size[0]} x {size[1]} pixels: end it there")
    lowest, highest = picture.getextrema()
    if highest < 128:
        raise ValueError(f"{name}: the mask is empty: white says where the edit may change the picture")
    if lowest >= 128:
        raise ValueError(f"{name}: the mask is full and keeps nothing: leave some of the picture out of it")
    if not mask.feather:
        return picture
    scale = (frame.box[2] - frame.box[0]) / frame.size[0]
    return picture.filter(ImageFilter.GaussianBlur(mask.feather * scale))


def edited_size(spec: EditSpec, times: str = "x") -> str:
    """The size that sources are edited at, in words: `128 x 80`, or that there are several."""
    found = {frame_of(spec, source).size for source in spec.pictures}
    return f" {times} ".join(map(str, *found)) if len(found) == 1 else "several sizes"


def sizes(spec: EditSpec) -> Iterator[str]:
    """Each photo, and what size it is edited at, in words."""
    for index, source in enumerate(spec.pictures):
        if source.image is None:
            continue
        frame = frame_of(spec, source)
        name = (
            source.image.name
            if spec.sources is None
            else f"{dotted(('sources', index))}, {source.image.name},"
        )
        yield "{} of {} x {} pixels is edited at {} x {}".format(name, *frame.photo, *frame.size)
