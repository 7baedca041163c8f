"""What is in a LoRA file, and where does each of its updates go? A look at its header; no torch is needed.

    plan = plan_lora(Path("style.safetensors"), configs["flux-dev"])

Whatever is wrong is a `CheckpointError`, one line that names file and remedy: another model's LoRA, halves
without the other half, shapes that do not fit, methods that are no LoRA.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flux.flags import cut
from flux.formats.header import CheckpointError, is_pickle, read_header, read_metadata
from flux.lora.foreign import WIDTHS, Shapes, made_for, named_for
from flux.lora.halves import Halves, halves
from flux.lora.layouts import LAYOUTS
from flux.lora.peft import PeftConfig, peft_config
from flux.lora.places import FLOW, Place, Places
from flux.models import ModelSpec, configs

FOLDER_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and PEFT call the file in a folder."""

OTHER_METHODS = {
    "a DoRA": r"\.(dora_scale|lora_magnitude_vector)(\.|$)",
    "a LoKr": r"\.lokr_",
    "a LoHa": r"\.hada_",
    "an OFT or BOFT": r"\.oft_|\.boft_",
    "an (IA)3": r"\.on_input$",
    "a GLoRA": r"\.[ab][12]\.weight$",
    "a LoCon with a middle factor": r"\.lora_mid\.",
    "a file of scaled float8": r"(\.|^)(scale_weight|weight_scale|scaled_fp8)$",
}
"""Kinds of updates that are not read, by what their keys look like."""

NORM = re.compile(r"(?:.*\.)?((?:double|single)_blocks\.\d+\.(?:\w+\.)?norm\.(?:query|key)_norm\.scale)")


@dataclass(frozen=True)
class Update:
    """One low-rank update: the keys of its tensors in the file, and where it goes.

    factor: what the product is multiplied by if the file has no alpha of its own.
    """

    place: Place
    down: str
    up: str
    alpha: str | None
    bias: str | None
    rank: int
    factor: float


@dataclass(frozen=True)
class LoraPlan:
    """What a file holds for a model.

    layout: the names of layouts. norms: keys in the file of the scales of norms that take the place of the
    model's, by the model's own names, as in FLUX.1-Canny-dev-lora.
    left_out: names of layers that the model lacks.
    """

    file: Path
    layout: str
    updates: tuple[Update, ...]
    norms: Mapping[str, str]
    left_out: tuple[str, ...]

    def of(self, part: str) -> tuple[Update, ...]:
        """The updates of a part: FLOW, CLIP or T5 of `flux.lora.places`."""
        return tuple(update for update in self.updates if update.place.part == part)


def lora_file(path: Path) -> Path:
    """The file that a path means, which may be the folder of diffusers or PEFT. Raises CheckpointError."""
    if not path.is_dir():
        return path
    there = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    if not there:
        there = sorted(path.glob("*.safetensors"))
    if len(there) == 1:
        return there[0]
    said = f"{len(there)} LoRA files" if there else "no LoRA file"
    raise CheckpointError(f"{path} is a folder with {said}: name the .safetensors file of the LoRA")


def plan_lora(path: Path, model: ModelSpec, name: str = "the model") -> LoraPlan:
    """What a LoRA file holds for a model, by its header. name: the model's, for messages."""
    file = lora_file(path)
    shapes, integers, metadata = _header(file)
    _refuse_other_methods(file, shapes)
    if integers:
        raise CheckpointError(
            f"{file} is quantised ({cut(integers[0])} holds integers): take the float16 file of this LoRA"
        )
    config = peft_config(file, metadata)
    if config.with_dora:
        raise CheckpointError(_not_read(file, "a DoRA"))
    return _Reading(file, model, name, shapes, metadata, config).plan()


def _header(file: Path) -> tuple[Shapes, list[str], dict[str, str]]:
    """Shapes, keys of tensors of integers, and metadata."""
    if is_pickle(file):
        from flux.formats.weights import Weights  # a pickle has no header, and takes torch to read

        tensors = Weights([file]).shapes()
        integers = [k for k, x in tensors.items() if not x.dtype.is_floating_point and x.numel() > 1]
        return {key: tuple(x.shape) for key, x in tensors.items()}, integers, {}
    header = read_header(file)
    # An alpha may be a whole number.
    numbers = (key for key, entry in header.items() if not entry["dtype"].startswith(("F", "BF")))
    integers = [key for key in numbers if _size(header[key]["shape"]) > 1]
    return {key: tuple(entry["shape"]) for key, entry in header.items()}, integers, read_metadata(file)


def _refuse_other_methods(file: Path, keys: Iterable[str]) -> None:
    for title, pattern in OTHER_METHODS.items():
        if any(re.search(pattern, key) for key in keys):
            raise CheckpointError(_not_read(file, title))


def _not_read(file: Path, title: str) -> str:
    return f"{file} is {title}, which is not read: take a plain LoRA, or have it extracted as one"


@dataclass(frozen=True)
class _Reading:
    """All that is known while a file is read."""

    file: Path
    model: ModelSpec
    name: str
    shapes: Shapes
    metadata: Mapping[str, str]
    config: PeftConfig

    def plan(self) -> LoraPlan:
        parts, others = halves(self.shapes)
        alone = [name for name, part in parts.items() if not part.factors]  # as biases of norms are
        others += [key for name in alone for key in parts.pop(name).keys]
        places = Places(self.model.params)
        found: dict[str, Place] = {}
        titles: list[str] = []
        unknown: list[str] = []
        for name in parts:
            title, place = _place(name, places)
            if place is None:
                unknown.append(name)
            else:
                found[name] = place
                titles.append(title)
        if not parts:
            told = f" (it has {_few(others)})" if others else ""
            raise CheckpointError(f"{self.file} holds no LoRA{self._origin()}{told}: name a LoRA's file")
        of_another = named_for(unknown) is not None
        if unknown and (of_another or not any(place.part == FLOW for place in found.values())):
            fits = "is not for" if of_another and found else "fits no layer of"
            raise self._refusal(f"{fits} {self.name} (it has {_few(unknown)})")
        deeper = [name for name in unknown if _place(_in_first_block(name), places)[1] is not None]
        if deeper:
            raise self._refusal(f"has more blocks than {self.name} ({_few(deeper)})")
        self._refuse_twice(found)
        updates = tuple(self._update(parts[name], place) for name, place in found.items())
        norms = self._norms(others, places)
        left_out = (*unknown, *(key for key in others if key not in norms.values()))
        return LoraPlan(self.file, " and ".join(dict.fromkeys(titles)), updates, norms, left_out)

    def _norms(self, keys: Iterable[str], places: Places) -> dict[str, str]:
        """The keys among these of norms that the model has, by its own names."""
        found = {match[1]: key for key in keys if (match := NORM.fullmatch(key)) is not None}
        found = {ours: key for ours, key in found.items() if _layer_beside(ours) in places.ours}
        width = self.model.params.hidden_size // self.model.params.num_heads
        for key in found.values():
            if self.shapes[key] != (width,):
                wrong = f"its {cut(key)} is {self.shapes[key]} where ({width},) is needed"
                raise self._refusal(f"does not fit {self.name}: {wrong}")
        return found

    def _update(self, part: Halves, place: Place) -> Update:
        if part.down is None or part.up is None:
            there, gone = ("first", "second") if part.down else ("second", "first")
            raise CheckpointError(
                f"{self.file} has the {there} of the factors of {cut(part.name)} and not the {gone}: "
                "download it again"
            )
        down, up = self.shapes[part.down], self.shapes[part.up]
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or not down[0]:
            raise CheckpointError(
                f"{self.file} has factors of {down} and {up} for {cut(part.name)}, which have no rank in "
                "common: download it again"
            )
        if place.part == FLOW and (up[0] != place.rows or not self._fits_inputs(down[1], place)):
            if place.layer == "img_in" and down[1] == self.model.params.in_channels * 2:
                made = ", ".join(name for name, record in configs.items() if record.lora_filename)
                raise CheckpointError(
                    f"{self.file} reads a condition beside the latent, {down[1]} channels where {self.name} "
                    f"has {place.inputs}: name it by FLUX_LORA and ask for the model made of it, {made}"
                )
            found, needed = f"({up[0]}, {down[1]})", f"({place.rows}, {place.inputs})"
            raise self._refusal(
                f"does not fit {self.name}: its {cut(part.name)} is {found} where {needed} is needed"
            )
        if down[0] > max(up[0], down[1]):
            raise CheckpointError(
                f"{self.file} has rank {down[0]} for {cut(part.name)}, whose sides are "
                f"{down[1]} and {up[0]}: download it again"
            )
        for key, size in ((part.alpha, 1), (part.bias, up[0])):
            if key is not None and _size(self.shapes[key]) != size:
                raise CheckpointError(
                    f"{self.file} has {_size(self.shapes[key])} numbers in {cut(key)} where {size} is "
                    "needed: download it again"
                )
        factor = self.config.factor(part.name, down[0])
        return Update(place, part.down, part.up, part.alpha, part.bias, down[0], factor)

    def _fits_inputs(self, inputs: int, place: Place) -> bool:
        """A model with a condition beside the latent takes a LoRA that knows the latent alone."""
        return inputs == place.inputs or (
            place.layer == "img_in" and inputs == self.model.params.out_channels
        )

    def _refuse_twice(self, found: Mapping[str, Place]) -> None:
        seen: dict[tuple[str, int], str] = {}
        for name, place in found.items():
            for row in [start for start, _ in place.spans] or [0]:
                at = (f"{place.part} {place.layer}", row)
                if at in seen:
                    raise CheckpointError(
                        f"{self.file} holds the same layer twice, {cut(seen[at])} and {cut(name)}: take a "
                        "file of one LoRA"
                    )
                seen[at] = name

    def _refusal(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file}{self._origin()} {problem}: take a LoRA that was made for {self.name}"
        )

    def _origin(self) -> str:
        """What it was made for, where that can be told and is not what it is tried with."""
        title = made_for(self.shapes, self.metadata)
        same = title == WIDTHS.get(self.model.params.hidden_size)
        return "" if title is None or same else f" was made for {cut(title)} and"


def _place(name: str, places: Places) -> tuple[str, Place | None]:
    for layout in LAYOUTS:
        if (place := layout.find(name, places)) is not None:
            return layout.title, place
    return "", None


def _in_first_block(name: str) -> str:
    return re.sub(r"(blocks[._])\d+", r"\g<1>0", name)


def _layer_beside(norm: str) -> str:
    """A linear layer that is there where a norm is."""
    before = norm.partition(".norm.")[0]
    return f"{before}.qkv" if before.startswith("double") else f"{before}.linear1"


def _size(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _few(names: Sequence[str], most: int = 2) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(cut(name.encode("unicode_escape").decode()) for name in names[:most]) + rest
