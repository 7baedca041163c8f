"""What every tab has beside its fields: a button, the job's state, its pictures, and its spec as a file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr

from flux.app import words
from flux.app.desk import AskedRun, Desk
from flux.app.jobs import JobState, PageJob

SAVE = """(text) => {
  if (!text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  link.download = JSON.parse(text).seeds !== undefined ? 'test.json'
    : JSON.parse(text).noise_floor !== undefined ? 'skip.json'
    : JSON.parse(text).frame_ms !== undefined ? 'layer.json' : 'edit.json';
  link.click();
  URL.revokeObjectURL(link.href);
}"""
"""Gives the browser a text as a file, without a way over the server."""


@dataclass(frozen=True)
class JobView:
    """What a tab shows of a job that is done; `more` fills the tab's own components, in their order."""

    pictures: Sequence[Any] = ()
    more: Sequence[Any] = ()


class JobPanel:
    """The right side of a tab. Make it where it shall stand, then `connect` it."""

    _jobs: "WeakKeyDictionary[PageJob, tuple[str | None, str]]" = WeakKeyDictionary()

    def __init__(self, desk: Desk, kind: str, *, action: str, idle: str):
        """action: what its button says. idle: what stands there before the first job."""
        self.desk, self.kind = desk, kind
        with gr.Row(elem_classes="actions"):
            self.go = gr.Button(action, variant="primary", elem_id=f"{kind}-go", min_width=120, scale=3)
            self.stop = gr.Button(
                "Stop", variant="stop", elem_id=f"{kind}-stop", min_width=80, scale=1, interactive=False
            )
        self.status = gr.HTML(words.idle(idle), elem_id=f"{kind}-status", padding=False)

    def frames(self) -> None:
        """Every step in small."""
        self.film = gr.HTML("", padding=False, elem_id=f"{self.kind}-film")

    def files(self) -> None:
        """The spec of what is shown: to save, to read, to load another."""
        kind = self.kind
        with gr.Row(elem_classes="actions"):
            self.save = gr.Button("Save as JSON", elem_id=f"{kind}-save", min_width=110, size="sm")
            self.drop = gr.UploadButton(
                "Load a spec", file_types=[".json"], elem_id=f"{kind}-drop", min_width=110, size="sm"
            )
        with gr.Accordion("The spec of this picture", open=False, visible=False) as self.reading:
            self.text = gr.Code(
                "",
                language="json",
                interactive=False,
                show_label=False,
                visible=False,
                elem_id=f"{kind}-spec",
            )
            self.command = gr.HTML("", padding=False)
        self.saved = gr.State("")  # a browser does not empty what it hides

    def told(self, state: JobState) -> dict[Any, Any]:
        """What the status and the button Stop are in a state."""
        return {self.status: words.status(state), self.stop: gr.Button(interactive=not state.ended)}

    def connect(
        self,
        inputs: Sequence[Any],
        ask: Callable[..., dict[str, Any]],
        live: Any,
        more: Sequence[Any],
        show: Callable[..., JobView],
        on_the_way: Callable[[AskedRun, JobState], dict[Any, Any]] | None = None,
        begun: Mapping[Any, Any] | None = None,
    ) -> None:
        """Wire the buttons. ask: the spec of the inputs' values. live: the gallery of pictures.

        show: what to show of a finished job, from what was asked, its state, and the inputs' values.
        on_the_way: what of `live` and `more` changes when the job has made files; begun: when it begins.
        """
        outputs = [self.status, self.stop, live, *more, self.film, self.reading, self.text, self.command]
        outputs.append(self.saved)
        hidden = gr.update(visible=False)
        emptied = {live: gr.update(value=[], visible=False), self.film: "", self.reading: hidden}
        emptied |= {self.text: gr.update(value="", visible=False), self.command: "", self.saved: ""}

        def run(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
            try:
                asked = self.desk.read(self.kind, ask(*values))
            except (ValueError, OSError, ImportError) as error:
                yield {self.status: words.failure(str(error))}
                return
            job = self.put(asked, request)
            before: JobState | None = None
            yield self.told(job.state) | emptied | dict(begun or {})
            for state in job.states():
                shown = self.told(state)
                if state.seen and (before is None or state.seen is not before.seen):
                    shown |= {live: wall(state.seen), self.film: words.film(state.thumbs)}
                if on_the_way is not None and before is not None and state.files != before.files:
                    shown |= on_the_way(asked, state)
                if state.phase == "done":
                    made = show(asked, state, *values)
                    shown |= {live: wall(made.pictures), **dict(zip(more, made.more, strict=True))}
                    shown |= {self.reading: gr.Accordion(visible=True)}
                    shown |= {
                        self.text: gr.Code(spec_text(asked), visible=True),
                        self.command: command_of(asked),
                        self.saved: spec_text(asked),
                    }
                before = state
                yield shown

        def text_of(text: str, *values: Any) -> tuple[str, Any]:
            """What is shown, or what the fields ask for where nothing is."""
            if text:
                return text, gr.skip()
            try:
                return spec_text(self.desk.read(self.kind, ask(*values))), gr.skip()
            except (ValueError, OSError, ImportError) as error:
                return "", words.failure(str(error))

        def cancel(request: gr.Request) -> None:
            for job, (session, kind) in list(self._jobs.items()):
                if (session, kind) == (request.session_hash, self.kind):
                    job.cancel()

        many = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
        self.go.click(run, list(inputs), outputs, **many)
        self.stop.click(cancel, None, None, queue=False, show_progress="hidden", api_visibility="private")
        kept = gr.Textbox(visible=False)
        self.save.click(text_of, [self.saved, *inputs], [kept, self.status], **many).then(
            None, kept, None, js=SAVE
        )

    def put(self, asked: AskedRun, request: gr.Request) -> PageJob:
        """Have a run made, which this tab's button stops."""
        job = self.desk.put(asked)
        self._jobs[job] = request.session_hash, self.kind
        return job

    @classmethod
    def leave(cls, request: gr.Request) -> None:
        """The jobs of a reader who has closed the page are stopped."""
        for job, (session, _) in list(cls._jobs.items()):
            if session == request.session_hash:
                job.cancel()


def empty_wall(elem_id: str, columns: int, **looks: Any) -> gr.Gallery:
    """A gallery without pictures, which `wall` gives it."""
    common = {"show_label": False, "height": "auto", "object_fit": "contain", "interactive": False}
    return gr.Gallery(columns=columns, visible=False, elem_id=elem_id, elem_classes="stage", **common | looks)


def wall(pictures: Sequence[Any]) -> Any:
    """A gallery's pictures; it is not there while it has none, so that a browser need not load it."""
    return gr.Gallery(list(pictures), visible=bool(pictures))


def spec_text(asked: AskedRun) -> str:
    return json.dumps(asked.recipe, indent=2, ensure_ascii=False) + "\n"


def command_of(asked: AskedRun) -> str:
    name = Path(f"{asked.kind}.json")
    return f"<p class='hint'>Saved as {name}: <code>python demos/{asked.demo}.py {name}</code></p>"
