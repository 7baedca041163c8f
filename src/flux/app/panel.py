"""What every tab has beside its fields: a button, the job's state, its pictures, and its spec as a file."""

import json
from collections.abc import Callable, Iterator, Sequence
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
    """The right side of a tab. Make it where it shall stand, then `connect` it.

    more: further components that a finished job fills.
    """

    _jobs: "WeakKeyDictionary[PageJob, tuple[str | None, str]]" = WeakKeyDictionary()

    def __init__(self, desk: Desk, kind: str, *, action: str):
        self.desk, self.kind = desk, kind
        with gr.Row(elem_classes="actions"):
            self.go = gr.Button(action, variant="primary", elem_id=f"{kind}-go", min_width=120, scale=2)
            self.stop = gr.Button("Stop", variant="stop", elem_id=f"{kind}-stop", min_width=80, scale=1)
        self.status = gr.HTML("", elem_id=f"{kind}-status", padding=False)

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
        with gr.Accordion("The spec of this picture", open=False):
            self.text = gr.Code(
                "", language="json", interactive=False, show_label=False, elem_id=f"{kind}-spec"
            )
            self.command = gr.HTML("", padding=False)

    def connect(
        self,
        inputs: Sequence[Any],
        ask: Callable[..., dict[str, Any]],
        live: Any,
        more: Sequence[Any],
        show: Callable[..., JobView],
        on_the_way: Callable[[AskedRun, JobState], list[Any]] | None = None,
        hidden: Sequence[Any] = (),
    ) -> None:
        """Wire the buttons. ask: the spec of the inputs' values. live: the gallery of pictures.

        show: what to show of a finished job, from what was asked, its state, and the inputs' values.
        on_the_way: values of `live` and `more` when the job has made files. hidden: what the first of `more`
        are while it is at work.
        """
        outputs = [self.status, live, *more, self.film, self.text, self.command]
        nothing = [gr.skip()] * len(outputs)

        def run(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
            try:
                asked = self.desk.read(self.kind, ask(*values))
            except (ValueError, OSError, ImportError) as error:
                yield [words.failure(str(error)), *nothing[1:]]
                return
            job = self.put(asked, request)
            before: JobState | None = None
            begun = [words.status(job.state), *nothing[1:]]
            begun[2 : 2 + len(hidden)] = hidden
            begun[-3] = ""
            yield begun
            for state in job.states():
                shown = list(nothing)
                shown[0] = words.status(state)
                if state.seen and (before is None or state.seen is not before.seen):
                    shown[1] = list(state.seen)
                    shown[-3] = words.film(state.thumbs)
                if on_the_way is not None and before is not None and state.files != before.files:
                    shown[1 : 2 + len(more)] = on_the_way(asked, state)
                if state.phase == "done":
                    made = show(asked, state, *values)
                    shown[1] = list(made.pictures)
                    shown[2 : 2 + len(more)] = list(made.more)
                    shown[-2:] = [spec_text(asked), command_of(asked)]
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
        self.save.click(text_of, [self.text, *inputs], [kept, self.status], **many).then(
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


def spec_text(asked: AskedRun) -> str:
    return json.dumps(asked.recipe, indent=2, ensure_ascii=False) + "\n"


def command_of(asked: AskedRun) -> str:
    name = Path(f"{asked.kind}.json")
    return f"<p class='hint'>Saved as {name}: <code>python demos/{asked.demo}.py {name}</code></p>"
