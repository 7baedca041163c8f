"""The page of demo 2: every prompt's reference and its pictures with layers skipped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from flux.studies.pages.html import document, facts, figure, json_details, notice, pictures, section, table

SMALL = 256
"""Pictures narrower than this are shown with square pixels."""

LISTED = 20
"""The most notices that are listed one by one."""


DECIDED = ("layers", "mean similarity", "pictures", "mean", "interval")


@dataclass(frozen=True)
class PromptRow:
    """A prompt in words, and the files and captions of its pictures, the reference first."""

    title: str
    pictures: Sequence[tuple[str, str]]


def sweep_page(
    rows: Sequence[PromptRow],
    about: Mapping[str, Any],
    noise: str,
    notices: Sequence[str],
    sheets: Sequence[str],
    spec: Mapping[str, Any],
    width: int,
    decided: tuple[str, Sequence[Sequence[str]]] | None = None,
) -> str:
    """A page with a strip of pictures per prompt. noise: the noise floor in words. sheets: their files.

    decided: in a sweep that stops when it is decided, how it ended, and rows for `DECIDED`.
    """
    links = " ".join(f'<a href="{escape(file)}">{escape(file)}</a>' for file in [*sheets, "cells.csv"])
    more = [f"and {len(notices) - LISTED} more"] if len(notices) > LISTED else []
    body = [
        facts(about),
        _sentence(noise),
        *map(notice, [*notices[:LISTED], *more]),
        f'<p class="quiet">Contact sheets and the table of cells: {links}</p>',
    ]
    if decided is not None:
        lines = [[escape(cell) for cell in line] for line in decided[1]]
        body.append(section("<h2>What was decided when</h2>", _sentence(decided[0]), table(DECIDED, lines)))
    for row in rows:
        figures = [figure(file, caption, small=width < SMALL) for file, caption in row.pictures]
        body.append(section(f"<h2>{escape(row.title)}</h2>", pictures(figures, "strip")))
    body.append(json_details("spec.json, which makes this run again", spec))
    return document("What each layer does", "Layers skipped one by one", body)


def _sentence(text: str) -> str:
    return f"<p>{escape(text[:1].upper() + text[1:])}.</p>"
