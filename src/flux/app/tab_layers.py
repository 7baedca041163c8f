"""The tab that asks what layers are for, one by one, on a prompt: demo 2, watched as it goes."""

from pathlib import Path
from typing import Any

import gradio as gr

from flux.app import words
from flux.app.desk import AskedRun, Desk
from flux.app.fields import layers_fields, layers_spec, more_text, rest_beyond
from flux.app.inputs import more_field, steps_field
from flux.app.jobs import JobState
from flux.app.measuring import PictureLoss, lost_by_layers
from flux.app.panel import JobPanel, JobView, empty_wall, wall
from flux.app.strip import scaled, strip_value
from flux.models import Layers
from flux.pictures.opening import open_picture
from flux.studies.sweep.folder import read_sweep

CHOICES = [("skip: leave the layer out", "skip"), ("carry: take another prompt's keys and values", "carry")]


class LayersTab:
    """A prompt, a probe, and a bar for each layer that grows as pictures come."""

    kind = "skip"

    def __init__(self, desk: Desk):
        self.desk, self.loss = desk, PictureLoss(desk)
        record, caps = desk.record, desk.options.caps
        tiny = record.embedded
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="fields"):
                self.prompt = gr.Textbox(
                    "a big red house on the grass" if tiny else "",
                    label="Prompt",
                    info="its picture is made once for each layer, with that layer changed",
                    lines=2,
                    elem_id="skip-prompt",
                )
                self.probe = gr.Radio(CHOICES, value="skip", label="Probe", elem_id="skip-probe")
                self.source = gr.Textbox(
                    "a small blue figure in the snow" if tiny else "",
                    label="The other prompt",
                    info="whose keys and values carry takes",
                    visible=False,
                    elem_id="skip-source",
                )
                self.layers = gr.Textbox(
                    "all",
                    label="Layers",
                    info="all, 0-3, double.*, single.5, with commas between",
                    elem_id="skip-layers",
                )
                with gr.Row():
                    self.steps = steps_field(record, caps, "skip-steps")
                    self.seed = gr.Textbox("0", label="Seed", min_width=120)
                with gr.Accordion("More", open=False):
                    self.more = more_field(self.kind)
            with gr.Column(scale=6, min_width=320):
                self.panel = JobPanel(
                    desk,
                    self.kind,
                    action="Probe",
                    idle="A bar for each layer comes here, as long as what its picture loses.",
                )
                self.bars = gr.HTML("", padding=False, elem_id="skip-bars")
                self.pictures = empty_wall("skip-pictures", 4, format="png", buttons=["fullscreen"])
                self.use = gr.Button(
                    "Show this on the strip of Edit", size="sm", elem_id="skip-use", visible=False
                )
                self.report = gr.HTML("", padding=False)
                self.panel.frames()
                self.panel.files()
        self.found = gr.State(None)

    @property
    def inputs(self) -> list[Any]:
        return [self.prompt, self.probe, self.source, self.layers, self.steps, self.seed, self.more]

    @property
    def targets(self) -> list[Any]:
        return self.inputs

    def ask(self, *values: Any) -> dict[str, Any]:
        """The spec of the fields' values."""
        return layers_spec(*values)

    def filled(self, asked: AskedRun) -> list[Any]:
        """Values of `targets` for a spec that was read."""
        found = layers_fields(asked.spec)
        more = rest_beyond(asked, layers_spec(**found), self.desk.read)
        return [*found.values(), more_text(more)]

    def connect(self) -> None:
        self.panel.connect(
            self.inputs,
            self.ask,
            self.pictures,
            [self.bars, self.report, self.found, self.use],
            self.show,
            on_the_way=self.on_the_way,
            begun={self.bars: "", self.report: "", self.use: gr.update(visible=False)},
        )
        self.probe.change(
            lambda probe: gr.Textbox(visible=probe == "carry"),
            self.probe,
            self.source,
            show_progress="hidden",
            api_visibility="private",
        )

    def connect_strip(self, strip: Any) -> None:
        """Show what was found on the strip of another tab."""

        def use(found: Any, value: Any) -> Any:
            chosen = value.get("chosen", []) if isinstance(value, dict) else []
            return strip_value(self.desk.record, chosen, found) if found else gr.skip()

        self.use.click(use, [self.found, strip], strip, show_progress="hidden", api_visibility="private")

    def on_the_way(self, asked: AskedRun, state: JobState) -> dict[Any, Any]:
        """The pictures and bars of what is there by now."""
        if not state.files:
            return {}
        folder = self.desk.folder_of(asked)
        lost = lost_by_layers(folder, self.loss)
        pictures = [(open_picture(folder / file), self._name(file)) for file in state.files]
        return {self.pictures: wall(pictures), self.bars: words.bars(lost, self._layers, self.loss.name)}

    def show(self, asked: AskedRun, state: JobState, *values: Any) -> JobView:
        """What a finished sweep has found."""
        sweep = read_sweep(state.folder)
        files = [cell.file for cell in sorted(sweep.cells, key=lambda cell: (bool(cell.part), cell.file))]
        lost = lost_by_layers(state.folder, self.loss)
        pictures = [(open_picture(state.folder / file), self._name(file)) for file in files]
        one_by_one = {layers[0]: value for layers, value in lost.items() if len(layers) == 1}
        found = scaled([one_by_one.get(index) for index in range(len(self._layers))])
        place = state.folder.relative_to(self.desk.root).as_posix()
        link = words.report_link(place)
        bars = words.bars(lost, self._layers, self.loss.name)
        return JobView(pictures, [bars, link + words.advice(state.lines), found, gr.Button(visible=True)])

    @property
    def _layers(self) -> Layers:
        return self.desk.record.layers

    def _name(self, file: str) -> str:
        """What stands under a picture: the layer's name, or what else its file is called by."""
        word, _, number = Path(file).stem.rpartition("-")
        known = number.isdecimal() and int(number) < len(self._layers)
        return f"{word} {self._layers.name(int(number))}" if known and word else Path(file).stem
