"""The `index.html` of each demo's run, from names of files and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from flux.studies.pages.html import (
    changed_words,
    document,
    facts,
    figure,
    json_details,
    notice,
    pictures,
    section,
)

Facts = Mapping[str, Any]

SMALL = 256
"""Pictures narrower than this are shown with square pixels."""


@dataclass(frozen=True)
class Shown:
    """A picture's file and what is said below it. wide: it is twice as wide as others."""

    file: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class EditCard:
    """One edit on a page: its prompt, its pictures, what was measured, and what went wrong."""

    title: str
    prompt: str
    pictures: Sequence[Shown]
    facts: Facts
    notices: Sequence[str]


def edit_page(
    source: str, cards: Sequence[EditCard], about: Facts, notices: Sequence[str], spec: Facts, width: int
) -> str:
    """A page that shows each edit beside its source. source: the source's prompt."""
    body = [facts(about), *map(notice, notices)]
    for card in cards:
        body.append(
            section(
                f"<h2>{changed_words(source, card.prompt)}</h2>",
                *map(notice, card.notices),
                _grid(card.pictures, width),
                facts({"edit": card.title, **card.facts}),
            )
        )
    sheet = '<p class="quiet"><a href="sheet.png">All pictures on one sheet</a></p>'
    return document(source, "Source and edits", [*body, sheet, _remake(spec)])


def pictures_page(groups: Mapping[str, Sequence[Shown]], about: Facts, spec: Facts, width: int) -> str:
    """A page of pictures, grouped by prompt."""
    body = [
        section(f"<h2>{changed_words(prompt, prompt)}</h2>", _grid(shown, width))
        for prompt, shown in groups.items()
    ]
    sheet = '<p class="quiet"><a href="sheet.png">All pictures on one sheet</a></p>'
    return document("Pictures from text", "Install check", [facts(about), *body, sheet, _remake(spec)])


@dataclass(frozen=True)
class LayerPage:
    """What the page of demo 1 shows: the finished picture, the strips of every step, and maps by layer.

    scale: what the colours of the maps mean.
    """

    prompt: str
    picture: Shown
    animation: Shown
    noisy: Sequence[Shown]
    estimates: Sequence[Shown]
    maps: Mapping[str, Sequence[Shown]]
    scale: str = ""


def layer_page(page: LayerPage, about: Facts, spec: Facts, width: int) -> str:
    """A page that shows every timestep of one picture."""
    body = [
        facts(about),
        section("<h2>The picture, and how it came</h2>", _grid([page.picture, page.animation], width)),
        section("<h2>What the model sees: the noisy latent, decoded</h2>", _grid(page.noisy, width, "strip")),
        section("<h2>What the model expects: its estimate</h2>", _grid(page.estimates, width, "strip")),
    ]
    for layer, shown in page.maps.items():
        title = f"<h2>Attention that image tokens receive in {layer}</h2>"
        scale = f'<p class="quiet">{escape(page.scale)}</p>'
        body.append(section(title, scale, _grid(shown, SMALL, "strip")))
    sheet = '<p class="quiet"><a href="filmstrip.png">The filmstrip</a></p>'
    return document(page.prompt, "Every timestep", [*body, sheet, _remake(spec)])


def _grid(shown: Sequence[Shown], width: int, kind: str = "pictures") -> str:
    return pictures(
        [figure(each.file, each.caption, small=width < SMALL, wide=each.wide) for each in shown], kind
    )


def _remake(spec: Facts) -> str:
    return json_details("spec.json, which makes this run again", spec)
