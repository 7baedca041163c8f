"""Edits of pairs of prompts with sets of layers: how much of each edit was made, and how much was kept.

flux-tiny has pairs with a right answer and a judge. Elsewhere the picture of the edit's prompt without
injection says what the edit is: where that one differs most from the source, by DINO's patch tokens, the edit
should look like it; everywhere else like the source.
"""

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from flux.device import pick_device
from flux.files import read_json_object
from flux.generate import Sampling
from flux.methods.stable_flow import Edit, EditRequest, Row, edit_steps
from flux.models import configs
from flux.pictures.directions import ClipTexts, Directions
from flux.pictures.features import Clip, Dino
from flux.pictures.files import to_pil
from flux.pictures.metrics import psnr_outside
from flux.studies.folder import RunFolder
from flux.studies.reading import load_spec
from flux.studies.run import load, precision_in_words, sampling_of, weights_folder
from flux.studies.similarity.editing_spec import EditingSets, read_pairs
from flux.studies.similarity.measuring import loaded
from flux.studies.similarity.recommending import FREE, SIZES, Layers, TriedSet
from flux.studies.sweep.folder import Sweep
from flux.studies.sweep.place import setting_of
from flux.studies.sweep.spec import SkipSpec
from flux.weights.load import Models

EDITED, MOST_KEPT = 0.25, 60.0
"""The share of patches that count as the edit's region; so many dB are as good as equal."""
FREE_BY_REGION = {"keep more": 0.5, "balanced": 0.3, "change more": 0.15}
"""As `FREE`, of what is made by region, which any injection lowers: .29 where flux-tiny's judge loses .05.

By CLIP's direction these are a guess: it is a share of the edit without injection too, but flux-tiny has no
CLIP of pictures to hold it against its judge.
"""
TRIED, SHOWN = "tried", 3
"""The folder of what was tried, and how many pairs have their pictures in it."""

Score = tuple[float, float]
"""made; kept, in dB"""


class Pair(Protocol):
    prompts: tuple[str, str]
    seed: int


class Judged(Protocol):
    """What a model brings along to judge edits by, as `flux.tiny.edit_pairs.JudgedPairs`."""

    def draw(self, count: int, seed: int) -> Sequence[Pair]: ...

    def score(self, pair: Pair, source: Tensor, edit: Tensor) -> Score: ...


@dataclass(frozen=True)
class Prompts:
    """A pair without a right answer."""

    prompts: tuple[str, str]
    seed: int


@dataclass(frozen=True)
class Bench:
    """Pairs, and how an edit of one is scored: (pair, source, without injection, edit), (3, H, W) each.

    words: what made and kept are. free: how much less may be made, see `FREE`.
    """

    pairs: Sequence[Pair]
    score: Callable[[Pair, Tensor, Tensor, Tensor], Score]
    words: dict[str, str]
    free: dict[str, float]


def bench_of(asked: EditingSets, spec: SkipSpec, dino: str, device: str, clip: str = "") -> Bench:
    """The pairs that are asked for. dino, clip: the models that compare where no judge does.

    Raises ValueError, one line, for a model that has no pairs of its own.
    """
    record, folder = configs[spec.model.name], weights_folder(spec)
    if asked.file is None:
        if record.judged_pairs is None or folder is None:
            raise ValueError(
                f"editing.file: missing: {spec.model.name} has no judge; name a file of pairs (.json)"
            )
        if (spec.width, spec.height) != (record.size, record.size):
            raise ValueError(
                f"editing.file: missing: {spec.model.name}'s own pairs are of {record.size} x {record.size} "
                f"pixels, and the sweep is of {spec.width} x {spec.height}"
            )
        judged: Judged = pkgutil.resolve_name(record.judged_pairs)(folder)
        words = {"made": "the judge finds the change", "kept": "PSNR to the source outside the edit, dB"}
        return Bench(
            judged.draw(asked.pairs, asked.seed),
            lambda pair, source, plain, edit: judged.score(pair, source, edit),
            words,
            FREE,
        )
    found = [
        Prompts((each.source, each.edit), i if each.seed is None else int(each.seed))
        for i, each in enumerate(read_pairs(asked.file))
    ]
    where = pick_device(device)
    compare = ByRegion(loaded("DINO", dino, lambda: Dino(dino, where)))
    made = (
        "likeness to the edit without injection, by DINO patches, where that differs most from the source: "
        "1 for equal, 0 for the source"
    )
    kept = "PSNR to the source everywhere else, dB"
    if asked.by == "clip":
        both = loaded("CLIP", clip, lambda: (Clip(clip, where), ClipTexts(clip, where)))
        compare = ByDirection(compare, Directions(*both))
        made = "how far it goes along the texts, by CLIP, as a share of the edit without injection"
        kept = "PSNR to the source, but for where the edit without injection differs most from it, dB"
    return Bench(found[: asked.pairs], compare, {"made": made, "kept": kept}, FREE_BY_REGION)


@dataclass(frozen=True)
class ByRegion:
    """Scores an edit by its source and the picture of its prompt without injection."""

    dino: Dino

    def __call__(self, pair: Pair, source: Tensor, plain: Tensor, edit: Tensor) -> Score:
        pictures = [to_pil(each) for each in (source, plain, edit)]
        before, wanted, found = self.dino.patches(pictures)
        same = (before * wanted).sum(dim=-1)  # (patches,)
        region = same <= same.quantile(EDITED)
        base, near = same[region].mean(), (found * wanted).sum(dim=-1)[region].mean()
        made = 1.0 if base >= 1 - 1e-6 else float((near - base) / (1 - base))
        side = round(len(same) ** 0.5)
        mask = Image.fromarray((region.reshape(side, side).numpy() * 255).astype(np.uint8))
        kept = psnr_outside(pictures[0], pictures[2], mask.resize(pictures[0].size, Image.Resampling.NEAREST))
        return made, MOST_KEPT if kept is None else min(kept, MOST_KEPT)


@dataclass(frozen=True)
class ByDirection:
    """Scores an edit by the way it goes along its texts; what was kept as by region."""

    region: ByRegion
    directions: Directions

    def __call__(self, pair: Pair, source: Tensor, plain: Tensor, edit: Tensor) -> Score:
        made = self.directions.share(pair.prompts, *(to_pil(each) for each in (source, plain, edit)))
        return made, self.region(pair, source, plain, edit)[1]


def spec_of(sweep: Sweep, device: str, asked: EditingSets) -> SkipSpec:
    """The spec of the sweep, to load its model by. Raises ValueError where the weights are others now."""
    recipe = dict(sweep.recipe)
    recipe["model"] = {**recipe["model"], "device": device, "offload": asked.offload}
    spec = load_spec(SkipSpec, None, recipe)
    now = setting_of(spec)
    there, here = (each.get("precision") for each in (sweep.setting, now))
    if there != here:
        first, second = (precision_in_words(each) for each in (sweep.setting, now))
        raise ValueError(
            f"{sweep.path} was made with weights in {first}, and its spec now says {second}: make it again"
        )
    there, here = sweep.setting.get("weights"), now["weights"]
    if there != here:
        raise ValueError(
            f"{sweep.path} was made with other weights of {spec.model.name}: make the sweep again with these"
        )
    return spec


class Trial:
    """Sets of layers tried on pairs; what was made before is read from the run's folder."""

    def __init__(self, run: RunFolder, bench: Bench, spec: SkipSpec, asked: EditingSets):
        self.run, self.bench, self.spec, self.asked = run, bench, spec, asked
        self._models: Models | None = None

    def half(self, name: str) -> Sequence[tuple[int, Pair]]:
        """Every other pair, from the first to choose on, from the second to measure on."""
        start = {"choose": 0, "check": 1}[name]
        return list(enumerate(self.bench.pairs))[start::2]

    def of(self, half: str, sets: Sequence[Layers]) -> list[TriedSet]:
        """The figures of each set on a half of the pairs, and before them of no injection."""
        scores = []
        asked = [(), *dict.fromkeys(sets)]
        with tqdm(total=len(self.half(half)), desc=f"edits to {half}", disable=None) as bar:
            for number, (index, pair) in enumerate(self.half(half)):
                scores.append(
                    self._scores(half, index, pair, asked, shown=number < SHOWN and half == "check")
                )
                bar.update()
        return [
            TriedSet(layers, *zip(*(each[i] for each in scores), strict=True))
            for i, layers in enumerate(asked)
        ]

    def _scores(
        self, half: str, index: int, pair: Pair, sets: Sequence[Layers], *, shown: bool
    ) -> list[Score]:
        """By set. shown: keep the pictures."""
        name = f"{TRIED}/{half}-{index:04}.json"
        wanted = {"prompts": list(pair.prompts), "seed": pair.seed, "sets": [list(each) for each in sets]}
        found = read_json_object(self.run.path / name) if self.run.is_whole(name) else None
        if found is not None and {key: found.get(key) for key in wanted} == wanted:
            pictures = [picture_name(half, index, each) for each in (None, *sets)] if shown else []
            if all(map(self.run.is_whole, pictures)):
                return [tuple(each) for each in found["scores"]]
        source, edits = self._edit(pair, sets)
        scores = [self.bench.score(pair, source, edits[0], edit) for edit in edits]
        if shown:
            for layers, picture in zip((None, *sets), (source, *edits), strict=True):
                self.run.save_picture(picture_name(half, index, layers), to_pil(picture))
        self.run.write_json(name, {**wanted, "scores": scores})
        return scores

    def _edit(self, pair: Pair, sets: Sequence[Layers]) -> tuple[Tensor, list[Tensor]]:
        """The source, and the edit with each set."""
        if self._models is None:
            texts = [text for each in self.bench.pairs for text in each.prompts]
            self._models = load(self.spec, list(dict.fromkeys(texts)), self.asked.batch + 1)
        source, target = pair.prompts
        request = EditRequest(
            source,
            tuple(Edit(target, layers) for layers in sets),
            self.sampling,
            seed=pair.seed,
            batch=self.asked.batch,
            compare=False,
            offload=self.asked.offload,
        )
        pictures: dict[Row, Tensor] = {}
        with torch.inference_mode():
            for step in edit_steps(self._models, request):
                pictures |= step.pictures
        return pictures[Row("source")].clamp(-1, 1), [
            pictures[Row("edit", i)].clamp(-1, 1) for i in range(len(sets))
        ]

    @property
    def sampling(self) -> Sampling:
        return sampling_of(self.spec)

    def shown(self, sets: Sequence[Layers]) -> Iterator[tuple[Pair, list[tuple[str, Any]]]]:
        """The pairs whose pictures are kept, and their files with the layers of each; None: the source."""
        for index, pair in self.half("check")[:SHOWN]:
            yield pair, [(picture_name("check", index, each), each) for each in (None, (), *sets)]


def picture_name(half: str, index: int, layers: Layers | None) -> str:
    """None: the source; no layers: without injection."""
    what = "source" if layers is None else "+".join(f"{layer:02}" for layer in layers) or "plain"
    return f"{TRIED}/{half}-{index:04}-{what}.png"


def size_of_trial(asked: EditingSets) -> int:
    """Pictures that are made at most: of each pair a source, its edit without injection and with each set."""
    half = -(-asked.pairs // 2)
    return half * (2 + max(asked.sets, len(SIZES))) + (asked.pairs - half) * (2 + len(FREE))
