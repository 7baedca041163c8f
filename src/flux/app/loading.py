"""Specs into fields: one that is dropped on the page, or that a run was made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gradio as gr

from flux.app import words
from flux.app.desk import AskedRun, Desk, kind_of
from flux.app.panel import JobPanel
from flux.app.uploads import take_spec
from flux.studies.schema import DEMOS


class FilledTab(Protocol):
    """A tab whose fields a spec of its kind fills.

    targets: the components, More keys the last of them; filled: their values.
    """

    kind: str
    panel: JobPanel

    @property
    def targets(self) -> list[Any]: ...

    def filled(self, asked: AskedRun) -> list[Any]: ...


Fill = Callable[[Mapping[str, Any], str], list[Any]]
"""Takes a spec and its name to the values of all components that a spec may fill."""


def filler(desk: Desk, tabs: Any, every: Sequence[FilledTab]) -> tuple[list[Any], Fill]:
    """The components that a spec may fill, and what fills them; in their place a mistake is said."""
    outputs = [tabs, *(tab.panel.status for tab in every), *(each for tab in every for each in tab.targets)]

    def fill(data: Mapping[str, Any], name: str) -> list[Any]:
        kind = kind_of(data)
        tab = next((tab for tab in every if tab.kind == kind), None)
        if tab is None:
            raise ValueError(f"{name}: is a spec of {DEMOS[kind]}, which has no tab: run it there")
        values = tab.filled(desk.read(kind, data, name))
        said = words.loaded(name, values[-1])
        filled = [
            value for each in every for value in (values if each is tab else [gr.skip()] * len(each.targets))
        ]
        return [gr.Tabs(selected=tab.kind), *(said if each is tab else gr.skip() for each in every), *filled]

    return outputs, fill


def nothing_but(said: str, every: Sequence[FilledTab], outputs: Sequence[Any]) -> list[Any]:
    """Values of a filler's components that change nothing, and say something on all tabs."""
    return [gr.skip(), *[said] * len(every), *[gr.skip()] * (len(outputs) - 1 - len(every))]


def connect_loading(desk: Desk, tabs: Any, every: Sequence[FilledTab]) -> tuple[list[Any], Fill]:
    """Have a spec that is dropped on any tab fill the fields of the one that makes it; returns `filler`'s."""
    outputs, fill = filler(desk, tabs, every)

    def drop(file: str | None) -> list[Any]:
        if file is None:
            return [gr.skip()] * len(outputs)
        try:
            return fill(take_spec(file), file.rpartition("/")[2])
        except (ValueError, OSError, ImportError) as error:
            return nothing_but(words.failure(str(error)), every, outputs)

    for tab in every:
        how = {"show_progress": "hidden", "api_visibility": "private"}
        tab.panel.drop.upload(drop, tab.panel.drop, outputs, **how)
    return outputs, fill
