"""The tab that edits a generated picture or a photo: demo 4."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from flux.app import words
from flux.app.brush import Brush, mask_file
from flux.app.desk import AskedRun, Desk
from flux.app.fields import (
    MASKS,
    SIDE_BY_SIDE,
    edit_fields,
    edit_spec,
    method_row,
    more_text,
    rest_beyond,
)
from flux.app.inputs import guidance_field, more_field, photo_field, size_fields
from flux.app.jobs import JobState
from flux.app.made_edits import MadeEdit, made_edits
from flux.app.panel import JobPanel, JobView, empty_wall, wall
from flux.app.strip import chosen_in, layer_strip, measured, strip_value
from flux.app.uploads import take_picture
from flux.methods import DEFAULT_METHOD, METHODS
from flux.models import ModelSpec
from flux.pictures.opening import open_picture
from flux.studies.edit.choices import as_word, usual_steps

STRATEGIES = [("everywhere", "copy"), ("a share of the picture", "ratio"), ("above a threshold", "threshold")]


class EditTab:
    """Fields, and what was made of them."""

    kind = "edit"

    def __init__(self, desk: Desk):
        self.desk = desk
        record, caps = desk.record, desk.options.caps
        tiny = record.embedded
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="fields"):
                self.prompt = gr.Textbox(
                    "a big red house and a small yellow figure with arms down on the grass" if tiny else "",
                    label="Source",
                    info="what the picture shows as it is; without a photo it is drawn from this",
                    lines=2,
                    elem_id="edit-prompt",
                )
                self.file = photo_field("Photo, if there is one (PNG, JPEG, WebP)", "edit-photo")
                self.preview = gr.HTML("", padding=False)
                self.edits = gr.Textbox(
                    "a big red house and a small yellow figure with arms down in the snow" if tiny else "",
                    label="Edits",
                    info="what it shall show; each line is an edit of its own",
                    lines=2,
                    max_lines=8,
                    elem_id="edit-edits",
                )
                with gr.Row():
                    self.method = gr.Dropdown(
                        [SIDE_BY_SIDE, *(row.name for row in METHODS)],
                        value=SIDE_BY_SIDE,
                        label="Method",
                        min_width=160,
                        elem_id="edit-method",
                    )
                    self.settings = gr.Textbox(
                        "", label="Its settings", placeholder="start=0.2, guidance=5", min_width=160
                    )
                self.about = gr.HTML(method_words(SIDE_BY_SIDE), padding=False)
                gr.HTML("<p class='label'>Layers in which the edit looks at its source</p>", padding=False)
                self.strip = layer_strip(self._strip(), elem_id="edit-strip")
                with gr.Row():
                    self.strength = gr.Slider(
                        *(0, 1, 1), step=0.05, label="Strength", min_width=160, elem_id="edit-strength"
                    )
                    self.seed = gr.Textbox(
                        "2" if tiny else "-1", label="Seed", min_width=120, elem_id="edit-seed"
                    )
                with gr.Accordion("Mask: where it may change", open=False) as self.masking:
                    self.mask = gr.Radio(list(MASKS), value="none", label="Mask", elem_id="edit-mask-kind")
                    self.draw = gr.Button("Draw the source to paint on", size="sm", elem_id="edit-draw")
                    self.brush = Brush("edit-mask", "Paint where the edit may change the picture")
                with gr.Accordion("More", open=False):
                    with gr.Row():
                        self.steps = gr.Slider(
                            *(0, min(100, caps.steps), 0),
                            step=1,
                            label="Steps",
                            info="0: as many as usual",
                            min_width=160,
                            elem_id="edit-steps",
                        )
                        self.guidance = guidance_field(record, "side by side")
                    with gr.Row():
                        self.width, self.height = size_fields(record, caps)
                    with gr.Row():
                        step = {"minimum": 0, "precision": 0, "min_width": 120}
                        self.start = gr.Number(0, label="From step", info="the first is 0", **step)
                        self.stop = gr.Number(0, label="To before step", info="0: to the end", **step)
                    with gr.Row():
                        self.strategy = gr.Dropdown(
                            STRATEGIES, value="copy", label="What is copied from the source", min_width=160
                        )
                        self.amount = gr.Number(0.5, label="Share or threshold", min_width=120)
                    self.fade = gr.Dropdown(
                        ["constant", "linear", "cosine"], value="constant", label="Strength from step to step"
                    )
                    self.more = more_field(self.kind)
            with gr.Column(scale=6, min_width=320):
                self.panel = JobPanel(
                    desk,
                    self.kind,
                    action="Edit",
                    idle="Source and edit come here, under a slider, with their scores.",
                )
                self.panel.frames()
                with gr.Column(visible=False) as self.result:
                    self.which = gr.Dropdown([], label="Edit", interactive=True, elem_id="edit-which")
                    self.slider = gr.ImageSlider(
                        label="Source and edit", max_height=640, format="png", elem_id="edit-slider"
                    )
                    self.facts = gr.HTML("", padding=False, elem_id="edit-facts")
                    self._looking()
                self.pictures = empty_wall(
                    "edit-pictures", 3, label="Pictures", format="png", buttons=["download", "fullscreen"]
                )
                self.report = gr.HTML("", padding=False)
                self.panel.files()
        self.photo, self.painted = gr.State(None), gr.State(None)
        self.canvas, self.made = gr.State(None), gr.State(None)

    def _looking(self) -> None:
        """What a point of the edit looks at: the edit to click on, and what was found."""
        with gr.Accordion("What does a point look at?", open=False, elem_id="edit-watching"):
            gr.HTML(
                "<p class='hint'>Click on the edit: it is made again, and its attention watched.</p>",
                padding=False,
            )
            self.point = gr.Image(
                show_label=False, interactive=False, format="png", buttons=[], elem_id="edit-point"
            )
            self.looks = empty_wall("edit-looks", 3, buttons=["fullscreen"])

    def _strip(self, chosen: Any = None) -> dict[str, Any]:
        record = self.desk.record
        usual = record.layers.indices(record.layer_sets.get("default", ()))
        found = measured(self.desk.root, self.desk.model.name, len(record.layers))
        return strip_value(record, usual if chosen is None else chosen, found)

    @property
    def inputs(self) -> list[Any]:
        return [
            *(self.prompt, self.photo, self.edits, self.method, self.settings, self.strip, self.strategy),
            *(self.amount, self.strength, self.fade, self.start, self.stop, self.seed, self.steps),
            *(self.guidance, self.width, self.height, self.mask, self.brush.editor, self.canvas),
            *(self.painted, self.more),
        ]

    def ask(self, *values: Any) -> dict[str, Any]:
        """The spec of the fields' values."""
        *fields, editor, canvas, painted, more = values
        fields[5] = chosen_in(fields[5])
        if self.desk.record.guidance is None:
            fields[14] = None
        file = None
        if fields[17] == "painted":
            file = (mask_file(editor, canvas, self.desk.uploads) if canvas else None) or painted
        return edit_spec(*fields, file, more, record=self.desk.record)

    def show(self, asked: AskedRun, state: JobState, *values: Any) -> JobView:
        """The pictures of a finished run."""
        made = made_edits(state.folder)
        files = gallery_of(made) or [(file.stem, file.name) for file in sorted(state.folder.glob("*.png"))]
        pictures = [(open_picture(state.folder / file), name) for name, file in files]
        first = made[0] if made else None
        names = [(f"{number}: {each.prompt}", number - 1) for number, each in enumerate(made, start=1)]
        return JobView(
            pictures,
            [
                gr.Column(visible=bool(made)),
                gr.Dropdown(names, value=0 if made else None, visible=len(made) > 1),
                first and slide(state.folder, first),
                "" if first is None else facts_of(state.folder, first, state.lines),
                first and clickable(open_picture(state.folder / first.files["edit"])),
                wall([]),
                words.report_link(state.folder.relative_to(self.desk.root).as_posix())
                + ("" if made else words.advice(state.lines)),
                (str(state.folder), asked.recipe),
            ],
        )

    @property
    def results(self) -> list[Any]:
        return [
            self.result,
            self.which,
            self.slider,
            self.facts,
            self.point,
            self.looks,
            self.report,
            self.made,
        ]

    def connect(self) -> None:
        begun = {self.result: gr.Column(visible=False), self.report: ""}
        self.panel.connect(self.inputs, self.ask, self.pictures, self.results, self.show, begun=begun)
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.method.change(method_words, self.method, self.about, **quiet)
        self.strip.input(lambda: None, None, None, **quiet)

        def take(file: str | None, method: str) -> list[Any]:
            if file is None:
                return [None, None, Brush.empty(), None, "", gr.skip(), ""]
            try:
                kept = take_picture(file, self.desk.uploads, self.desk.options.upload)
            except (ValueError, OSError) as error:
                return [None, None, Brush.empty(), None, words.failure(str(error)), gr.skip(), ""]
            method = DEFAULT_METHOD if method == SIDE_BY_SIDE else gr.skip()
            return [str(kept), str(kept), Brush.showing(kept), None, "", method, words.photo(kept)]

        outputs = [self.photo, self.canvas, self.brush.editor, self.painted, self.panel.status, self.method]
        outputs.append(self.preview)
        self.file.change(take, [self.file, self.method], outputs, **quiet)

        def draw(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
            """Draw the source, to be painted on; a photo is there."""
            if photo := values[1]:
                yield {
                    self.canvas: photo,
                    self.brush.editor: Brush.showing(photo),
                    self.mask: "painted",
                    self.panel.status: "",
                }
                return
            try:
                spec = self.ask(*values[:17], "none", *values[18:])
                asked = self.desk.read("test", source_alone(spec, self.desk.record))
            except (ValueError, OSError) as error:
                yield {self.panel.status: words.failure(str(error))}
                return
            for state in self.panel.put(asked, request).states():
                yield self.panel.told(state)
            if state.phase == "done":
                drawn = take_picture(next(state.folder.glob("picture-*.png")), self.desk.uploads, 1000)
                yield {
                    self.canvas: str(drawn),
                    self.brush.editor: Brush.showing(drawn),
                    self.mask: "painted",
                    self.seed: str(asked.recipe["seeds"][0]),
                }

        drawn = [self.panel.status, self.panel.stop, self.canvas, self.brush.editor, self.mask, self.seed]
        self.draw.click(draw, self.inputs, drawn, concurrency_limit=None, **quiet)

        def choose(number: int | None, shown: Any) -> list[Any]:
            folder, _ = shown or (None, None)
            made = made_edits(Path(folder)) if folder else []
            if number is None or not 0 <= number < len(made):
                return [gr.skip()] * 4
            each, place = made[number], Path(folder)
            picture = clickable(open_picture(place / each.files["edit"]))
            return [slide(place, each), facts_of(place, each, ()), picture, wall([])]

        self.which.input(
            choose, [self.which, self.made], [self.slider, self.facts, self.point, self.looks], **quiet
        )

        def look(
            shown: Any, number: int | None, event: gr.SelectData, request: gr.Request
        ) -> Iterator[dict[Any, Any]]:
            """Make the run again, and watch where a point of the edit looks."""
            folder, recipe = shown or (None, None)
            if folder is None:
                return
            try:
                made = made_edits(Path(folder))[number or 0]
                point = photo_point(Path(folder), made, recipe, event.index)
                asked = self.desk.read("edit", recipe | {"watch": {"points": [point]}})
            except (ValueError, OSError) as error:
                yield {self.panel.status: words.failure(str(error))}
                return
            for state in self.panel.put(asked, request).states():
                yield self.panel.told(state)
            if state.phase == "done":
                yield {self.looks: wall(looks_of(state.folder, made))}

        self.point.select(
            *(look, [self.made, self.which], [self.panel.status, self.panel.stop, self.looks]),
            concurrency_limit=None,
            **quiet,
        )

    def filled(self, asked: AskedRun) -> list[Any]:
        """Values of `targets` for a spec that was read."""
        found = edit_fields(asked.spec)
        photo = found["photo"]
        more = rest_beyond(asked, edit_spec(**found, record=self.desk.record), self.desk.read)
        names = ("prompt", "photo", "edits", "method", "settings")
        further = ("strategy", "amount", "strength", "fade", "start", "stop", "seed", "steps")
        guidance = gr.skip() if found["guidance"] is None else found["guidance"]
        return [
            *(found[name] for name in names),
            self._strip(found["layers"]),
            *(found[name] for name in further),
            *(guidance, found["width"], found["height"], found["mask"]),
            Brush.showing(photo) if photo else Brush.empty(),
            *(photo, found["mask_file"]),
            words.photo(Path(photo)) if photo else "",
            more_text(more),
        ]

    @property
    def targets(self) -> list[Any]:
        """The components that a loaded spec fills."""
        return [*self.inputs[:-1], self.preview, self.more]


def method_words(name: str) -> str:
    """What a method does, its paper, and its settings."""
    if name == SIDE_BY_SIDE:
        text = "Stable Flow: source and edits are drawn from one noise, side by side"
        return f"<p class='hint'>{text}; a photo, and sources under More keys, by {DEFAULT_METHOD}.</p>"
    row = method_row(name)
    known = ", ".join(f"{key}={as_word(each.default)}" for key, each in row.settings.items())
    return f"<p class='hint'>{row.about} ({row.source}); {row.steps} steps. {known}</p>"


OF_SOURCES = ("steps", "width", "height", "integrator", "reference")
"""Keys of a spec of demo 4 by which its generated source is drawn, whatever edits it."""

OF_SOURCES_BESIDE = ("guidance", "negative_prompt", "true_cfg", "two_passes")
"""And of one that is drawn beside its edits: for a method it is drawn at the model's guidance."""


def source_alone(spec: dict[str, Any], record: ModelSpec) -> dict[str, Any]:
    """Demo 0's spec of the picture that a spec of demo 4 edits, a generated one. record: of its model."""
    source, row = spec.get("source"), method_row(spec.get("method"))
    if not isinstance(source, dict):
        raise ValueError("source: stands under More keys: draw it there, or clear that field")
    keys = (*OF_SOURCES, *(OF_SOURCES_BESIDE if spec.get("method") is None else ()))
    more = {key: spec[key] for key in keys if spec.get(key) is not None}
    if row is not None:
        more = {"steps": usual_steps(row, record)} | more
    if source.get("prompt_2") is not None:
        more["prompt_2"] = source["prompt_2"]
    return {"prompts": [source["prompt"]], "seeds": spec["seed"]} | more


SHOWS = {"edit": "edit", "plain": "without the source", "mask": "mask", "difference": "difference"}
"""What stands under pictures of an edit, by kind, in this order; other kinds behind, by their names."""


def gallery_of(made: list[MadeEdit]) -> list[tuple[str, str]]:
    """Names and files of all pictures of a run, each once: sources, edits, and what explains them."""
    found: dict[str, tuple[tuple[int, int], str]] = {}
    order = ("source", *SHOWS)
    for number, each in enumerate(made, start=1):
        for kind, file in each.files.items():
            own = "" if kind == "source" or len(made) == 1 else f" {number}"
            rank = order.index(kind) if kind in order else len(order)
            place = (rank, 0) if rank < 2 else (2, number)
            found.setdefault(file, (place, f"{SHOWS.get(kind, kind)}{own}"))
    return [(name, file) for file, (_, name) in sorted(found.items(), key=lambda item: item[1][0])]


def looks_of(folder: Path, made: MadeEdit) -> list[tuple[Any, str]]:
    """What was found of the one point that was watched, each picture with a name."""
    place = folder / "watch" / Path(made.files["edit"]).with_suffix("")
    maps = sorted(place.glob("point-1-*.png"))
    titles = ["where it looks", "in the other layers", "in all layers"]
    files = [place / "places.png", *maps, place / "point-1.png"]
    names = ["the point", *titles[: len(maps)], "every layer and step"]
    return [(open_picture(file), name) for file, name in zip(files, names, strict=True)]


def slide(folder: Path, made: MadeEdit) -> tuple[Any, Any]:
    return open_picture(folder / made.files["source"]), open_picture(folder / made.files["edit"])


def facts_of(folder: Path, made: MadeEdit, lines: Any) -> str:
    """Scores of an edit, what the tool advises, and links to its files."""
    notices = [f"This edit {each}" for each in made.notices]
    told = [line for line in lines if not any(each in line for each in made.notices)]
    links = words.downloads(folder, made.downloads)
    return words.facts(made.facts) + words.advice([*notices, *told]) + links


CLICKED = 384
"""The longer side, in pixels, from which on a picture is large enough to hit a place on it."""


def _factor(picture: Any) -> int:
    return max(1, CLICKED // max(picture.size))


def clickable(picture: Any) -> Any:
    """A small picture larger: Gradio counts clicks in a picture's own pixels, and enlarges none."""
    factor = _factor(picture)
    return picture.resize((picture.width * factor, picture.height * factor)) if factor > 1 else picture


def photo_point(folder: Path, made: MadeEdit, recipe: dict[str, Any], at: Any) -> tuple[int, int]:
    """Where a click is, in the pixels that a spec counts in: a photo's own, or the picture's.

    at: across and down, on the edit as `clickable` shows it. Raises ValueError for a run of `sources`.
    """
    from flux.photos.framing import frame_photo

    edit = open_picture(folder / made.files["edit"])
    x, y = (int(each) // _factor(edit) for each in at)
    source = recipe.get("source")
    if source is None:
        raise ValueError(
            "sources: a click is for edits of one source: ask for that alone, or give the point under More "
            'keys, as in {"watch": {"points": [[64, 80]]}}'
        )
    image = source.get("image")
    if image is None:
        return x, y
    photo = open_picture(Path(image))
    frame = frame_photo(photo.size, recipe.get("fit", "fit"), size=edit.size)
    left, top, right, bottom = frame.box
    across, down = (right - left) / edit.width, (bottom - top) / edit.height
    inside = int(left + (x + 0.5) * across), int(top + (y + 0.5) * down)
    return max(0, min(photo.width - 1, inside[0])), max(0, min(photo.height - 1, inside[1]))
