"""The tab that makes pictures from text, from a photo, or inside a mask: demo 0."""

from typing import Any

import gradio as gr

from flux.app import words
from flux.app.brush import Brush, mask_file
from flux.app.desk import AskedRun, Desk
from flux.app.fields import generate_fields, generate_spec, more_text, rest_beyond
from flux.app.inputs import guidance_field, more_field, photo_field, size_fields, steps_field
from flux.app.jobs import JobState
from flux.app.panel import JobPanel, JobView, empty_wall
from flux.app.uploads import take_picture
from flux.pictures.opening import open_picture
from flux.studies.text.requests import requests


class GenerateTab:
    """Fields, and what was made of them."""

    kind = "test"

    def __init__(self, desk: Desk):
        self.desk = desk
        record, caps = desk.record, desk.options.caps
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="fields"):
                self.prompts = gr.Textbox(
                    "a big red house" if record.embedded else "",
                    label="Prompt",
                    info="what the picture shows; each line is a picture of its own",
                    lines=2,
                    max_lines=8,
                    elem_id="test-prompt",
                )
                with gr.Row():
                    self.seeds = gr.Textbox(
                        "-1",
                        label="Seed",
                        info="-1 draws one; 0-3 are four",
                        min_width=120,
                        elem_id="test-seed",
                    )
                    self.count = gr.Number(
                        1, label="Pictures", info="of each seed", minimum=1, precision=0, min_width=100
                    )
                with gr.Row():
                    self.steps = steps_field(record, caps, "test-steps")
                    self.guidance = guidance_field(record)
                with gr.Row():
                    self.width, self.height = size_fields(record, caps)
                with gr.Accordion("Start from a photo", open=False) as self.start:
                    self.file = photo_field("Photo (PNG, JPEG, WebP)", "test-photo")
                    self.strength = gr.Slider(
                        *(0.05, 1, 0.8),
                        step=0.05,
                        label="Strength",
                        info="the share of the steps that is drawn anew",
                    )
                    self.brush = Brush(
                        "test-mask", "Paint on the photo where it is drawn anew; nothing painted: everywhere"
                    )
                with gr.Accordion("More", open=False):
                    self.negative = gr.Textbox(label="Negative prompt", info="needs the scale below, above 1")
                    self.true_cfg = gr.Slider(1, 10, 1, step=0.1, label="Negative scale", info="1 is off")
                    self.prompt_2 = gr.Textbox(
                        label="Second prompt", info="what T5 reads; CLIP reads the prompt"
                    )
                    self.about = gr.Checkbox(
                        True,
                        label="Keep prompt and seed in the file",
                        info="the PNG below says how it was made",
                    )
                    self.more = more_field(self.kind)
            with gr.Column(scale=6, min_width=320):
                self.panel = JobPanel(
                    desk,
                    self.kind,
                    action="Generate",
                    idle="The picture comes here, and below it every step on the way.",
                )
                self.pictures = empty_wall(
                    "test-pictures",
                    1,
                    label="Pictures",
                    format="png",
                    preview=False,
                    buttons=["download", "fullscreen"],
                )
                self.panel.frames()
                self.facts = gr.HTML("", padding=False, elem_id="test-facts")
                self.panel.files()
        self.photo, self.mask = gr.State(None), gr.State(None)

    @property
    def inputs(self) -> list[Any]:
        return [
            *(self.prompts, self.seeds, self.count, self.steps, self.guidance, self.width, self.height),
            *(self.negative, self.true_cfg, self.prompt_2, self.photo, self.strength, self.brush.editor),
            *(self.mask, self.more, self.about),
        ]

    def ask(self, *values: Any) -> dict[str, Any]:
        """The spec of the fields' values."""
        *fields, painted, mask, more, _ = values
        photo = fields[10]
        if self.desk.record.guidance is None:
            fields[4] = None
        drawn = mask_file(painted, photo, self.desk.uploads) if photo else None
        return generate_spec(*fields, drawn or (mask if photo else None), more)

    def show(self, asked: AskedRun, state: JobState, *values: Any) -> JobView:
        """The pictures of a finished run."""
        about = values[-1]
        made = requests(asked.spec)
        pictures = [(open_picture(state.folder / each.file), f"seed {each.seed}") for each in made]
        seeds = ", ".join(dict.fromkeys(str(each.seed) for each in made))
        named = {"Seed": seeds, "Run": state.folder.name}
        links = words.downloads(state.folder, [each.file for each in made], bare=not about)
        html = words.facts(named) + links + words.advice(state.lines)
        return JobView(pictures, [html])

    def connect(self) -> None:
        begun = {self.facts: ""}
        self.panel.connect(self.inputs, self.ask, self.pictures, [self.facts], self.show, begun=begun)

        def take(file: str | None) -> tuple[Any, Any, Any, Any]:
            if file is None:
                return None, None, Brush.empty(), ""
            try:
                kept = take_picture(file, self.desk.uploads, self.desk.options.upload)
            except (ValueError, OSError) as error:
                return None, None, Brush.empty(), words.failure(str(error))
            return str(kept), None, Brush.showing(kept), ""

        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.file.change(
            take, self.file, [self.photo, self.mask, self.brush.editor, self.panel.status], **quiet
        )

    def filled(self, asked: AskedRun) -> list[Any]:
        """Values of `targets` for a spec that was read."""
        found = generate_fields(asked.spec)
        photo = found["photo"]
        more = rest_beyond(asked, generate_spec(**found), self.desk.read)
        names = ("prompts", "seeds", "per_prompt", "steps", "guidance", "width", "height", "negative_prompt")
        return [
            *(found[name] for name in names),
            *(found["true_cfg"], found["prompt_2"], photo, found["strength"], found["mask"]),
            Brush.showing(photo) if photo else Brush.empty(),
            gr.Accordion(open=bool(photo)),
            more_text(more),
        ]

    @property
    def targets(self) -> list[Any]:
        """The components that a loaded spec fills."""
        return [
            *(self.prompts, self.seeds, self.count, self.steps, self.guidance, self.width, self.height),
            *(self.negative, self.true_cfg, self.prompt_2, self.photo, self.strength, self.mask),
            *(self.brush.editor, self.start, self.more),
        ]
