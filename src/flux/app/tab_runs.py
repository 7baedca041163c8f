"""The tab that shows what was made: runs of the page and of the demos, their reports, their specs."""

from typing import Any

import gradio as gr

from flux.app import words
from flux.app.desk import Desk
from flux.app.loading import Fill
from flux.app.panel import empty_wall, wall
from flux.app.runs import ListedRun, list_runs
from flux.pictures.opening import PictureError, open_picture

SHOWN = 48
"""Runs with a picture on the tab; the list has more."""
SIDE = 240


class RunsTab:
    """A wall of pictures, one of each run, and the report of the one that is chosen."""

    def __init__(self, desk: Desk):
        self.desk = desk
        with gr.Row(elem_classes="actions", equal_height=True):
            self.which = gr.Dropdown(
                [], label="Run", interactive=True, scale=4, min_width=280, elem_id="runs-which"
            )
            self.load = gr.Button("Load its spec", scale=1, min_width=150, elem_id="runs-load")
            self.again = gr.Button("Look again", scale=1, min_width=130, elem_id="runs-again")
        self.said = gr.HTML("", padding=False, elem_id="runs-status")
        self.wall = empty_wall("runs-wall", 6, object_fit="cover", allow_preview=False, buttons=[])
        self.report = gr.HTML("", padding=False, elem_id="runs-report")
        self.walled = gr.State(())

    def look(self) -> list[Any]:
        """The list and the wall as they are now, and the places of the runs on the wall."""
        found = list_runs(self.desk.root)
        choices = [(each.label, each.place) for each in found]
        hint = "" if found else words.idle("What the other tabs and the demos make is shown here.")
        pictures = _pictures(found)
        places = tuple(pictures)
        return [gr.Dropdown(choices, value=None), wall(list(pictures.values())), hint, "", places]

    def connect(self, tab: Any, fill: Fill, outputs: list[Any]) -> None:
        """Wire it. tab: that it stands on; when it is chosen, runs are looked for anew.

        fill, outputs: as `flux.app.loading.filler` gives them.
        """
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        shown = [self.which, self.wall, self.said, self.report, self.walled]
        tab.select(self.look, None, shown, **quiet)
        self.again.click(self.look, None, shown, **quiet)

        def run_at(place: Any) -> ListedRun | None:
            """The run that is called so, of those that are listed."""
            return next((each for each in list_runs(self.desk.root) if each.place == place), None)

        def show(place: Any) -> str:
            return "" if place is None else words.report(run_at(place))

        def pick(walled: tuple[str, ...], event: gr.SelectData) -> list[Any]:
            if not 0 <= event.index < len(walled):
                return [gr.skip(), gr.skip()]
            return [walled[event.index], show(walled[event.index])]

        def load(place: Any) -> list[Any]:
            found = None if place is None else run_at(place)
            try:
                if found is None:
                    raise ValueError("choose a run first")
                return ["", *fill(found.recipe, found.place)]
            except (ValueError, OSError, ImportError) as error:
                return [words.failure(str(error)), *[gr.skip()] * len(outputs)]

        self.which.input(show, self.which, self.report, **quiet)
        self.wall.select(pick, self.walled, [self.which, self.report], **quiet)
        self.load.click(load, self.which, [self.said, *outputs], **quiet)


def _pictures(found: list[ListedRun]) -> dict[str, tuple[Any, str]]:
    """What is shown of runs that have a picture, by their places."""
    pictures = {}
    for each in [each for each in found if each.picture is not None][:SHOWN]:
        try:
            picture = open_picture(each.picture)
        except PictureError:
            continue
        picture.thumbnail((SIDE, SIDE))
        pictures[each.place] = picture, each.word
    return pictures
