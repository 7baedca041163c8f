"""What is shown of attention that was watched: tables, overlays, and the sections of a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from flux.models import Layers
from flux.modules.words import places_of
from flux.studies.folder import RunFolder
from flux.studies.pages.overlays import overlay, overlay_table, with_places
from flux.studies.pages.render import PagePicture
from flux.studies.tables import csv_text
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.spec import TOKEN, Watch

FOLDER = "watch"
SHARES_TABLE, WORDS_TABLE, SPREAD_TABLE = (
    f"{FOLDER}/{name}.csv" for name in ("places", "words", "places-to-words")
)
TABLES = {
    SHARES_TABLE: "how much places look at text and picture, by layer and step",
    WORDS_TABLE: "how much words are looked at",
    SPREAD_TABLE: "which words places look at",
}

MOST_COLUMNS = 16
"""Steps that a table of overlays shows; the tables have all."""


@dataclass(frozen=True)
class Shown:
    """A picture whose attention was watched.

    name: of its files and in tables. title: on the page. source: the picture whose tokens it looks at in
    `watched.looking`. marked: the layers that are told from the others, and what they are called. watch: what
    is watched of it, in its own pixels; None where that is what the spec says.
    """

    name: str
    title: str
    watched: WatchedPicture
    picture: Image.Image
    marked: tuple[int, ...]
    marked_name: str
    source: Image.Image | None = None
    watch: Watch | None = None


def data_file(name: str) -> str:
    """Where the attention of a picture is kept."""
    return f"{FOLDER}/{name}.safetensors"


def show(watch: Watch, layers: Layers, run: RunFolder, shown: Sequence[Shown]) -> dict[str, Any]:
    """Write the tables and overlays; returns the values of `watch.html`."""
    tables = {
        SHARES_TABLE: _shares_csv(layers, shown),
        WORDS_TABLE: _words_csv(watch, layers, shown),
        SPREAD_TABLE: _spread_csv(layers, shown),
    }
    written = {name: text for name, text in tables.items() if text}
    for name, text in written.items():
        run.write_text(name, text)
    return {
        "pictures": [_section(watch, layers, run, each) for each in shown],
        "tables": {name: TABLES[name] for name in written},
        "injected": any(each.watched.looking for each in shown),
    }


# Tables


def _at(layers: Layers, each: Shown) -> Iterator[tuple[int, int, list[object]]]:
    """Every layer and step, as indices and as the first cells of a row."""
    for i, layer in enumerate(each.watched.layers):
        for step, t in enumerate(each.watched.times):
            marked = "yes" if layer in each.marked else "no"
            yield i, step, [layer, layers.name(layer), marked, step + 1, float(t)]


def _titles(shown: Sequence[Shown], what: str) -> list[str]:
    return ["picture", what, "layer", "name", shown[0].marked_name.split()[0], "step", "t"]


def _shares_csv(layers: Layers, shown: Sequence[Shown]) -> str:
    rows = [
        [each.name, place, *cells, *_shares(each.watched, p)[:, i, step].tolist()]
        for each in shown
        for p, place in enumerate(each.watched.places)
        for i, step, cells in _at(layers, each)
    ]
    return csv_text([*_titles(shown, "place"), "prompt", "rest_of_text", "image"], rows) if rows else ""


def _shares(watched: WatchedPicture, place: int) -> np.ndarray:
    """Of a place's attention, that on the prompt, on the rest of the text, on the picture: (3, l, T)."""
    text, picture = (watched.shares[:, :, place, part].numpy() for part in (0, 1))
    prompt = np.minimum(watched.on_prompt[:, :, place].numpy(), text)
    return np.stack([prompt, text - prompt, picture])


def _words_csv(watch: Watch, layers: Layers, shown: Sequence[Shown]) -> str:
    rows = []
    for each in shown:
        inside = _inside(watch, each)
        for w, (word, tokens) in enumerate(each.watched.words.items()):
            maps = each.watched.to_words[:, :, w].float().numpy()
            for i, step, cells in _at(layers, each) if tokens else ():
                found = maps[i, step]
                row, column = divmod(int(found.argmax()), each.picture.width // TOKEN)
                where = [column * TOKEN + TOKEN // 2, row * TOKEN + TOKEN // 2]
                box = [None, None]
                if inside is not None:
                    box = [float(found[part].mean()) if part.any() else None for part in (inside, ~inside)]
                rows.append([each.name, word, *cells, float(found.mean()), float(found.max()), *where, *box])
    titles = [*_titles(shown, "word"), "mean", "most", "most_x", "most_y", "in_box", "outside_box"]
    return csv_text(titles, rows) if rows else ""


def _inside(watch: Watch, each: Shown) -> np.ndarray | None:
    """Which image tokens are in the box, (L_img,); None without a box."""
    if watch.box is None:
        return None
    inside = np.zeros(each.watched.to_words.shape[-1], bool)
    inside[list(each.watched.places["box"])] = True
    return inside


def _spread_csv(layers: Layers, shown: Sequence[Shown]) -> str:
    rows = [
        [each.name, place, *cells, number, word, float(values[i, step])]
        for each in shown
        for p, place in enumerate(each.watched.places)
        for number, (word, values) in enumerate(each.watched.by_word(p), start=1)
        for i, step, cells in _at(layers, each)
    ]
    return csv_text([*_titles(shown, "place"), "number", "word", "times_uniform"], rows) if rows else ""


# The page


def _section(watch: Watch, layers: Layers, run: RunFolder, each: Shown) -> dict[str, Any]:
    watched, folder = each.watched, f"{FOLDER}/{each.name}"
    marked = None
    if watched.places:
        marked = PagePicture(f"{folder}/places.png", "what is watched from")
        own = each.watch or watch
        run.save_picture(marked.file, with_places(each.picture, own.points or (), own.box))
    return {
        "title": each.title,
        "marked": each.marked_name,
        "places_picture": marked,
        "places": [_place(layers, run, each, p) for p in range(len(watched.places))],
        "words": [
            _word(watch, layers, run, each, w) for w, tokens in enumerate(watched.words.values()) if tokens
        ],
        "prompt": watched.prompt,
        "cut": [
            word
            for word, tokens in watched.words.items()
            if not tokens and any(places_of(word, watched.prompt))
        ],
    }


def _place(layers: Layers, run: RunFolder, each: Shown, p: int) -> dict[str, Any]:
    """Where one place looks: at text or picture, at which words, and where in the picture."""
    watched, name = each.watched, list(each.watched.places)[p]
    shares = _shares(watched, p)
    groups = _groups(each)
    rows = [(title, shares[:, chosen].mean(axis=(1, 2))) for title, chosen in groups.items()]
    rows += [
        (_label(layers, each, layer), shares[:, i].mean(axis=1)) for i, layer in enumerate(watched.layers)
    ]
    text = shares[0] + shares[1]
    maps = watched.from_places[:, :, p, watched.txt_len :]
    return {
        "name": _spoken(name),
        "said": _said(each, _spoken(name), text),
        "bars": [{"title": title, "parts": [100 * float(part) for part in parts]} for title, parts in rows],
        "groups": len(groups),
        "steps": [f"{step + 1}" for step in range(len(watched.times))],
        "by_step": [
            (_label(layers, each, layer), [100 * float(share) for share in text[i]])
            for i, layer in enumerate(watched.layers)
        ],
        "words": _strongest(each, watched.by_word(p)),
        **_overlays(layers, run, each, name.replace(" ", "-"), maps, of_source=True),
    }


def _spoken(name: str) -> str:
    return "the box" if name == "box" else name


def _said(each: Shown, name: str, text: np.ndarray) -> str:
    """In a sentence: how much a place looks at the text in marked and in other layers."""
    means = [(title, float(text[chosen].mean())) for title, chosen in _groups(each).items()]
    if len(means) > 1:
        means = means[:2]
    parts = [f"{share:.0%} in {title}" for title, share in means]
    return f"Of the attention of {name}, the text gets {' and '.join(parts)}; the picture gets the rest."


def _strongest(each: Shown, spread: list[tuple[str, Tensor]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """By group of layers, the six words that a place looks at most, each with how much."""
    found = []
    for title, chosen in _groups(each).items():
        means = sorted(((float(v[chosen].mean()), word) for word, v in spread), reverse=True)[:6]
        found.append((title, [(word, f"{value:.1f} ×") for value, word in means]))
    return found


def _word(watch: Watch, layers: Layers, run: RunFolder, each: Shown, w: int) -> dict[str, Any]:
    maps, inside = each.watched.to_words[:, :, w], _inside(watch, each)
    return {
        "word": list(each.watched.words)[w],
        **_overlays(layers, run, each, f"word-{w + 1}", maps, inside=inside),
    }


def _groups(each: Shown) -> dict[str, list[int]]:
    """Marked layers, the others, and all, as indices of what was watched; no group is empty."""
    numbers = range(len(each.watched.layers))
    marked = [i for i in numbers if each.watched.layers[i] in each.marked]
    others = [i for i in numbers if i not in marked]
    if not (marked and others):
        return {f"the {each.marked_name}" if marked else "all layers watched": list(numbers)}
    return {
        f"the {each.marked_name}": marked,
        "the other layers": others,
        "all layers watched": list(numbers),
    }


def _label(layers: Layers, each: Shown, layer: int) -> str:
    return f"{layers.name(layer)}{' ●' if layer in each.marked else ''}"


def _overlays(
    layers: Layers,
    run: RunFolder,
    each: Shown,
    name: str,
    maps: Tensor,
    *,
    of_source: bool = False,
    inside: np.ndarray | None = None,
) -> Mapping[str, Any]:
    """Write the overlays of maps (l, T, L_img): means of groups of layers, and the table of all.

    of_source: in layers whose image tokens are the source's, the map lies over the source.
    """
    watched, stem = each.watched, f"{FOLDER}/{each.name}/{name}"
    grids = maps.float().numpy().reshape(*maps.shape[:2], -1, each.picture.width // TOKEN)
    below = [
        each.source if of_source and each.source and layer in watched.looking else each.picture
        for layer in watched.layers
    ]
    means = []
    for number, (title, chosen) in enumerate(_groups(each).items(), start=1):
        mean = grids[chosen].mean(axis=(0, 1))
        beneath = below[chosen[0]] if len({id(below[i]) for i in chosen}) == 1 else each.picture
        file, most = f"{stem}-{number}.png", float(mean.max())
        run.save_picture(file, overlay(beneath, mean, most))
        caption = f"{title}, mean of all steps: at most {most:.1f} ×, on average {mean.mean():.2f} ×"
        if inside is not None and inside.any() and not inside.all():
            flat = mean.reshape(-1)
            caption += f"; in the box {flat[inside].mean():.2f} ×, outside {flat[~inside].mean():.2f} ×"
        means.append(PagePicture(file, caption))
    steps = _spread(len(watched.times), MOST_COLUMNS)
    # In letters that Pillow's own font has.
    rows = [
        "\n".join(
            [
                layers.name(layer),
                *([each.marked_name.split()[0]] if layer in each.marked else []),
                f"at most {grids[i].max():.1f} x",
            ]
        )
        for i, layer in enumerate(watched.layers)
    ]
    columns = [f"{step + 1}, t = {watched.times[step]:.2f}" for step in steps]
    table = f"{stem}.png"
    run.save_picture(table, overlay_table(below, grids[:, steps], rows, columns))
    return {
        "means": means,
        "table": PagePicture(table, "layers from top to bottom, steps from left to right"),
    }


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of so many numbers from 0, evenly spread, the first and the last among them."""
    return sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))})
