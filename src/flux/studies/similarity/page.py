"""The `index.html` of demo 3, from names of files and figures in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

from flux.studies.pages.html import document, facts, figure, json_details, notice, pictures, section, table
from flux.studies.pages.pages import Shown

SMALL = 256
"""Pictures narrower than this are shown with square pixels."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Titles and cells, as plain text. marked: rows that stand out."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[int] = ()


@dataclass(frozen=True)
class Link:
    """A file that is offered beside the page, and what is in it."""

    file: str
    text: str


@dataclass(frozen=True)
class SweepPage:
    """What a sweep's page shows.

    answer: the vital layers, in a sentence or two. plot, heat_map: files. strips: by title, rows of pictures.
    """

    title: str
    answer: Sequence[str]
    plot: str
    heat_map: str
    layers: Table
    strips: Mapping[str, Sequence[Sequence[Shown]]]
    links: Sequence[Link]
    notices: Sequence[str] = field(default=())


def sweep_page(page: SweepPage, about: Facts, spec: Facts, width: int) -> str:
    """A page of every layer's importance and the vital set."""
    body = [facts(about), *map(notice, page.notices)]
    body.append(
        section(
            "<h2>Which layers are vital</h2>",
            *(f"<p>{escape(text)}</p>" for text in page.answer),
            figure(page.plot, "Each layer's importance: the more a picture changes without it, the higher"),
        )
    )
    for title, rows in page.strips.items():
        body.append(section(f"<h2>{escape(title)}</h2>", *(_strip(row, width) for row in rows)))
    body.append(
        section(
            "<h2>Prompt by prompt</h2>",
            figure(page.heat_map, "How far each picture is from its reference; crosses: no picture"),
        )
    )
    body.append(section("<h2>Every layer</h2>", _table(page.layers)))
    return document(page.title, "Similarity and importance", [*body, _links(page.links), _remake(spec)])


def matrix_page(
    title: str,
    tables: Mapping[str, Table],
    rows: Sequence[Shown],
    columns: Sequence[Shown],
    about: Facts,
    notices: Sequence[str],
    links: Sequence[Link],
    spec: Facts,
) -> str:
    """A page of pictures against pictures. tables: by metric, a row of figures for each of `rows`."""
    body = [facts(about), *map(notice, notices)]
    for name, matrix in tables.items():
        cells = [
            [_thumbnail(shown), *map(escape, figures)]
            for shown, figures in zip(rows, matrix.rows, strict=True)
        ]
        titles = ["", *map(_thumbnail, columns)]
        body.append(section(f"<h2>{escape(name)}</h2>", table(titles, cells)))
    return document(title, "Similarity of pictures", [*body, _links(links), _remake(spec)])


def ranking_page(
    title: str,
    picture: Shown,
    ranked: Sequence[Shown],
    about: Facts,
    notices: Sequence[str],
    links: Sequence[Link],
    spec: Facts,
    width: int,
) -> str:
    """A page of pictures, the one most like `picture` first."""
    shown = [_figure(each, width) for each in ranked]
    body = [
        facts(about),
        *map(notice, notices),
        section("<h2>The picture</h2>", pictures([_figure(picture, width)])),
        section("<h2>The others, most alike first</h2>", pictures(shown)),
    ]
    return document(title, "Similarity of pictures", [*body, _links(links), _remake(spec)])


def _strip(row: Sequence[Shown], width: int) -> str:
    return pictures([_figure(each, width) for each in row], "strip")


def _figure(shown: Shown, width: int) -> str:
    return figure(shown.file, shown.caption, small=width < SMALL)


def _thumbnail(shown: Shown) -> str:
    path = escape(quote(shown.file))
    caption = escape(shown.caption)
    return f'<img src="{path}" alt="{caption}" title="{caption}">{caption}'


def _table(content: Table) -> str:
    rows = [[escape(cell) for cell in row] for row in content.rows]
    return table([escape(title) for title in content.titles], rows, content.marked)


def _links(links: Sequence[Link]) -> str:
    parts = [f'<a href="{escape(link.file)}">{escape(link.text)}</a>' for link in links]
    return f'<p class="quiet">{"; ".join(parts)}</p>'


def _remake(spec: Facts) -> str:
    return json_details("spec.json, which makes this run again", spec)
