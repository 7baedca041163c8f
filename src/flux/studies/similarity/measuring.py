"""Figures of pairs of pictures by each metric; whatever was found before is read, not computed."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from flux.device import pick_device, pick_dtype
from flux.files import sha256_of
from flux.pictures import metrics
from flux.pictures.feature_cache import FeatureCache, PairCache
from flux.pictures.features import TOKENS, Clip, Dino
from flux.pictures.opening import Opened, open_picture
from flux.studies.similarity.measures import PATCHES, Figures, Pair
from flux.studies.similarity.patchwise import Tokens, measure_pairs, name_of, whitened_by
from flux.studies.similarity.spec import DinoSpec
from flux.weights.identity import pretrained_id

Model = TypeVar("Model")

PAIRS = {"psnr": metrics.psnr, "ssim": metrics.ssim}
SAVE_EVERY = 512
"""After so many pictures what was found is written, so that a kill loses little."""


class Extractor(Protocol):
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray: ...


@dataclass
class Measured:
    """Figures by pair, lines that say what could not be done, and how many were computed, not read."""

    figures: dict[Pair, Figures]
    problems: list[str] = field(default_factory=list)
    computed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """Where what is found about pictures is kept. folder: None for beside each picture, as a hidden file."""

    folder: Path | None = None

    def place(self, picture: Path, name: str) -> Path:
        return self.folder / name if self.folder else picture.parent / f".{name}"


def measure(
    spec: DinoSpec, pairs: Sequence[Pair], dino: str, store: Store, references: Sequence[Path] = ()
) -> Measured:
    """Every metric of the spec for each pair. dino: the folder or hub name of the DINO model.

    references: pictures that patch tokens are whitened by. Raises ValueError, one line, where a model cannot
    be loaded.
    """
    pictures = list(dict.fromkeys([*(path for pair in pairs for path in pair), *references]))
    digests = {path: sha256_of(path) for path in tqdm(pictures, desc="reading", disable=None, leave=False)}
    measured = Measured({pair: {} for pair in pairs})
    for metric in spec.metrics or ("dino",):
        if metric in PAIRS:
            _compare(metric, pairs, digests, store, measured)
            continue
        if metric in PATCHES:
            white = references if metric == "dino-whitened" else ()
            _patch_by_patch(spec, metric, pairs, digests, dino, store, measured, white)
            continue
        source, kind = (dino, TOKENS.index(spec.token)) if metric == "dino" else (spec.clip, 0)
        found = _features(spec, metric, source, digests, store, measured)
        for a, b in pairs:
            measured.figures[a, b][metric] = metrics.cosine(found[digests[a]][kind], found[digests[b]][kind])
    return measured


def load_extractor(spec: DinoSpec, metric: str, source: str) -> Extractor:
    """DINO or CLIP on the spec's device. Raises ValueError, one line, where it cannot be had."""
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    name, kind = ("CLIP", Clip) if metric == "clip" else ("DINO", Dino)
    return loaded(name, source, lambda: kind(source, device, dtype=dtype))


def loaded(name: str, source: str, load: Callable[[], Model]) -> Model:
    """A model for similarities, by what it is called. Raises ValueError, one line, where it cannot be had."""
    try:
        _silence_reports()
        return load()
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{name} model {source} not loaded: {reason}") from None


def _silence_reports() -> None:
    """transformers lists the weights of CLIP's text part, which are left out on purpose."""
    from transformers.utils import logging

    logging.set_verbosity_error()


def _features(
    spec: DinoSpec, metric: str, source: str, digests: dict[Path, str], store: Store, measured: Measured
) -> dict[str, np.ndarray]:
    """Features (kinds, C) by the digest of a picture."""
    model, extractor = pretrained_id(source, spec.dtype), None
    if model is None:  # to be downloaded
        extractor = load_extractor(spec, metric, source)
        model = pretrained_id(source, spec.dtype) or source
    caches: dict[Path, FeatureCache] = {}
    missing: dict[str, Path] = {}
    for path, digest in digests.items():
        place = store.place(path, f"features-{metric}-{model[:12]}.npz")
        if place not in caches:
            caches[place] = FeatureCache.open(place, model)
        if digest not in caches[place].features:
            missing.setdefault(digest, path)
    measured.problems += [cache.problem for cache in caches.values() if cache.problem]
    known = {digest: found for cache in caches.values() for digest, found in cache.features.items()}
    todo = {digest: path for digest, path in missing.items() if digest not in known}
    measured.computed[metric] = len(todo)
    if todo:
        extractor = extractor or load_extractor(spec, metric, source)

    def keep() -> None:
        for path, digest in digests.items():
            cache = caches[store.place(path, f"features-{metric}-{model[:12]}.npz")]
            if digest in known:
                cache.features[digest] = known[digest]
        _save(caches.values(), measured)

    unsaved = 0
    try:
        with tqdm(total=len(todo), desc=f"{metric.upper()} features", disable=None) as bar:
            for batch in _batches(list(todo), spec.batch):
                images = Opened([todo[digest] for digest in batch])
                known |= zip(batch, extractor.embed(images), strict=True)
                bar.update(len(batch))
                unsaved += len(batch)
                if unsaved >= SAVE_EVERY:
                    keep()
                    unsaved = 0
    finally:
        if missing:
            keep()
    return known


def _patch_by_patch(
    spec: DinoSpec,
    metric: str,
    pairs: Sequence[Pair],
    digests: dict[Path, str],
    source: str,
    store: Store,
    measured: Measured,
    references: Sequence[Path],
) -> None:
    """Patch-by-patch similarity of each pair; DINO is loaded where there is one that is not kept yet."""
    model, dino = pretrained_id(source, spec.dtype), None
    if model is None:  # to be downloaded
        dino = load_extractor(spec, metric, source)
        model = pretrained_id(source, spec.dtype) or source
    name = name_of(metric, model, spec.block, [digests[path] for path in references])
    places = {path: store.place(path, "figures.json") for path, _ in pairs}
    caches = {place: PairCache.open(place) for place in set(places.values())}
    known = {path: caches[place] for path, place in places.items()}
    both = {pair: f"{digests[pair[0]]} {digests[pair[1]]}" for pair in pairs}
    todo = [pair for pair in pairs if both[pair] not in known[pair[0]].figures.get(name, {})]
    measured.problems += [cache.problem for cache in caches.values() if cache.problem]
    measured.computed[metric] = len(todo)
    if todo:
        dino = dino or load_extractor(spec, metric, source)
        last = dino.model.config.num_hidden_layers
        if spec.block is not None and spec.block > last:
            raise ValueError(f"block = {spec.block}: {source} has blocks 1 to {last}, and 0 is the embedding")
        tokens = Tokens(dino, spec.block, spec.batch)
        whitening = whitened_by(references, tokens) if references else None
        try:
            for start in range(0, len(todo), SAVE_EVERY):
                measure_pairs(known, name, todo[start : start + SAVE_EVERY], digests, tokens, whitening)
                _save(caches.values(), measured)
        finally:
            _save(caches.values(), measured)
    for pair in pairs:
        measured.figures[pair][metric] = known[pair[0]].figures[name][both[pair]]


def _compare(
    metric: str, pairs: Sequence[Pair], digests: dict[Path, str], store: Store, measured: Measured
) -> None:
    """PSNR or SSIM of each pair. Pictures of two sizes cannot be compared by these."""
    caches: dict[Path, PairCache] = {}
    computed, uneven = 0, 0
    # The first picture of a pair is that of many pairs in a row.
    first: tuple[Path, Image.Image] | None = None
    for pair in tqdm(pairs, desc=metric.upper(), disable=None):
        place = store.place(pair[0], "figures.json")
        if place not in caches:
            caches[place] = PairCache.open(place)
        known = caches[place].figures.setdefault(metric, {})
        name = " ".join(digests[path] for path in pair)
        if name not in known:
            if first is None or first[0] != pair[0]:
                first = pair[0], open_picture(pair[0])
            known[name] = _figure(metric, first[1], pair[1])
            computed += 1
            if computed % SAVE_EVERY == 0:
                _save(caches.values(), measured)
        measured.figures[pair][metric] = known[name]
        uneven += known[name] is None
    measured.problems += [cache.problem for cache in caches.values() if cache.problem]
    measured.computed[metric] = computed
    if computed:
        _save(caches.values(), measured)
    if uneven:
        measured.problems.append(
            f"{metric.upper()} was not measured for {uneven} of {len(pairs)} pairs: their pictures differ in "
            f"size, or are smaller than {metrics.WINDOW} pixels"
        )


def _figure(metric: str, first: Image.Image, b: Path) -> float | None:
    second = open_picture(b)
    if first.size != second.size or (metric == "ssim" and min(first.size) < metrics.WINDOW):
        return None
    return PAIRS[metric](first, second)


def _save(caches: Iterable[FeatureCache | PairCache], measured: Measured) -> None:
    """Write caches; where that cannot be, go on and say so once."""
    for cache in caches:
        try:
            cache.save()
        except OSError as error:
            line = f"{cache.path}: not written, so it is computed again next time ({error.strerror or error})"
            if line not in measured.problems:
                measured.problems.append(line)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that a mean can be taken of: those that were measured, and no infinite ones."""
    return [value for value in values if value is not None and math.isfinite(value)]
