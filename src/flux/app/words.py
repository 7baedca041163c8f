"""What the page says, as HTML; all that comes from users is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from flux.app.desk import RUNS
from flux.app.fields import more_keys
from flux.app.jobs import JobState
from flux.app.runs import ListedRun
from flux.models import Layers
from flux.pictures.opening import open_picture
from flux.studies.run import PAGE

PHOTO = 320
"""The longer side, in pixels, of a photo that was given."""

SMALL_TALK = ("; open ", " of memory", " cells are there")
PHASES = {"sample": "drawing the source", "gate": "to noise and back", "mask": "looking for the mask"}
PHASES |= {"edit": "editing", "invert": "to noise", "open": "opening"}


def idle(text: str) -> str:
    """What stands in the place of pictures before there are any."""
    return f'<div class="status idle"><span>{escape(text)}</span></div>'


def status(state: JobState) -> str:
    """The line that says how a job stands, with a bar."""
    if state.phase == "waiting":
        jobs = f"{state.before} job{'s' * (state.before != 1)}"
        if state.word:
            return _line("waiting", f"Waiting: {state.word}")
        return _line("waiting", f"Waiting: {jobs} before yours" if state.before else "Starting")
    if state.phase == "working":
        return _working(state)
    if state.phase == "done":
        again = any(line.startswith("made already") for line in state.lines)
        return _line("done", "Made already" if again else f"Done in {state.seconds:.1f} s")
    if state.phase == "stopped":
        return _line("stopped", state.message or "stopped")
    return failure(state.message)


def _working(state: JobState) -> str:
    if state.step is None:
        return _line("working", "Reading the prompt")
    word = PHASES.get(state.word, state.word)
    of = f" of {state.steps}" if state.steps else ""
    share = (state.step + 1) / state.steps if state.steps else None
    return _line("working", f"Step {state.step + 1}{of}{f', {word}' if word else ''}", share)


def failure(message: str) -> str:
    return f'<div class="status failed" role="alert"><span>{escape(message)}</span></div>'


def _line(kind: str, text: str, share: float | None = None) -> str:
    bar = "" if share is None else f'<div class="bar"><i style="width: {share:.0%}"></i></div>'
    return f'<div class="status {kind}" role="status"><span>{escape(text)}</span>{bar}</div>'


def advice(lines: Sequence[str]) -> str:
    """What the run said, its advice first of all; nothing where it said nothing of note."""
    told = [line for line in lines if not _is_small_talk(line)]
    items = "".join(f"<li>{escape(line)}</li>" for line in told)
    return f'<ul class="advice">{items}</ul>' if items else ""


def _is_small_talk(line: str) -> bool:
    """What is said of files and seconds, which the page shows itself."""
    return line.startswith(("open ", "made already")) or any(words in line for words in SMALL_TALK)


def loaded(name: str, more: str) -> str:
    """That a spec fills the fields, and what of it stands under More keys."""
    keys = sorted(more_keys(more))
    said = f"; without a field, under More keys: {', '.join(keys)}" if keys else ""
    return _line("loaded", f"{name} fills the fields{said}")


def bars(lost: Mapping[tuple[int, ...], float], layers: Layers, measure: str) -> str:
    """A bar for each group of layers, as long as what is lost without it."""
    most = max(lost.values(), default=0) or 1
    rows = "".join(
        f'<div class="row" title="{value:.3f}"><span>{"+".join(map(layers.name, group))}</span>'
        f'<div class="bar"><i style="width: {value / most:.1%}"></i></div><b>{value:.3f}</b></div>'
        for group, value in sorted(lost.items())
    )
    return f'<div class="bars"><p class="hint">{escape(measure)} to the picture as it is</p>{rows}</div>'


def report(run: ListedRun | None) -> str:
    """The report of a run, in a frame of its own."""
    if run is None:
        return failure("this run is gone: look again")
    if run.page is None:
        return f"<p class='hint'>{escape(run.place)} has no report: it was not finished.</p>"
    address = quote(run.page)
    return (
        f"<p class='links'>{escape(run.label)} · <a href='{address}' target='_blank'>open it alone</a></p>"
        f"<iframe class='report' src='{address}' title='report of {escape(run.place)}'></iframe>"
    )


def report_link(place: str) -> str:
    """To a run's report. place: its folder, relative to the output folder."""
    address = f"runs/{quote(place)}/{PAGE}"
    return f"<p class='links'><a href='{address}' target='_blank'>Open the report</a></p>"


def downloads(folder: Path, files: Sequence[str], *, bare: bool = False) -> str:
    """Links to files of a run. bare: without the texts that are kept in them."""
    links = (
        f'<a download="{quote(Path(file).name)}" href="runs/{RUNS}/{quote(folder.name)}/{quote(file)}'
        f'{"?bare" if bare else ""}">{escape(file)}</a>'
        for file in files
    )
    return f"<p class='links'>Download {', '.join(links)}</p>" if files else ""


def film(thumbs: Sequence[Image.Image]) -> str:
    """Every step in small, in their order."""
    frames = "".join(
        f'<figure><img src="{as_data(each)}" alt="step {number}"><figcaption>{number}</figcaption></figure>'
        for number, each in enumerate(thumbs, start=1)
    )
    return f'<div class="film" aria-label="every step" tabindex="0">{frames}</div>' if frames else ""


def as_data(picture: Image.Image) -> str:
    """A small picture as a link that holds it."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, format="WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def photo(file: Path) -> str:
    """A photo in small, and how large it is."""
    picture = open_picture(file)
    size = f"{picture.width} x {picture.height}"
    picture.thumbnail((PHOTO, PHOTO))
    img = f'<img src="{as_data(picture)}" alt="the photo">'
    return f'<figure class="photo">{img}<figcaption>{size}</figcaption></figure>'


def facts(named: Mapping[str, Any]) -> str:
    """Names and values in a table of two columns."""
    rows = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in named.items()
    )
    return f'<dl class="facts">{rows}</dl>' if rows else ""
