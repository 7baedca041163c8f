"""What the page says, as HTML; all that comes from users is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from flux.app.jobs import JobState

PHASES = {"sample": "drawing the source", "gate": "to noise and back", "mask": "looking for the mask"}
KEPT = frozenset(
    ("regions", "regional", "watch", "scan", "chain", "operators", "schedules", "outside", "start")
)
"""Keys whose being kept beside the fields is said; others stand at their defaults, as a rule."""
PHASES |= {"edit": "editing", "invert": "to noise", "open": "opening"}


def status(state: JobState) -> str:
    """The line that says how a job stands, with a bar."""
    if state.phase == "waiting":
        jobs = f"{state.before} job{'s' * (state.before != 1)}"
        return _line("waiting", f"Waiting: {jobs} before yours" if state.before else "Starting")
    if state.phase == "working":
        return _working(state)
    if state.phase == "done":
        return _line("done", f"Done in {state.seconds:.1f} s")
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
    return "; open " in line or line.startswith("open ") or " of memory" in line


def loaded(name: str, values: Sequence[Any]) -> str:
    """That a spec fills the fields, and what of it none of them shows."""
    beside = sorted(key for each in values if isinstance(each, dict) for key in each if key in KEPT)
    more = f"; kept beside the fields: {', '.join(beside)}" if beside else ""
    return _line("loaded", f"{name} fills the fields{more}")


def downloads(folder: Path, files: Sequence[str], *, bare: bool = False) -> str:
    """Links to files of a run. bare: without the texts that are kept in them."""
    links = (
        f'<a download="{quote(Path(file).name)}" href="runs/{quote(folder.name)}/{quote(file)}'
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


def facts(named: Mapping[str, Any]) -> str:
    """Names and values in a table of two columns."""
    rows = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in named.items()
    )
    return f'<dl class="facts">{rows}</dl>' if rows else ""
