"""The tab that edits a generated picture or a photo: demo 4."""

from pathlib import Path
from typing import Any

import gradio as gr

from flux.app import words
from flux.app.brush import Brush, mask_file
from flux.app.desk import AskedRun, Desk
from flux.app.fields import MASKS, SIDE_BY_SIDE, edit_fields, edit_spec
from flux.app.inputs import guidance_field, photo_field, size_fields
from flux.app.jobs import JobState
from flux.app.made_edits import MadeEdit, made_edits
from flux.app.panel import JobPanel, JobView
from flux.app.strip import chosen_in, layer_strip, measured, strip_value
from flux.app.uploads import take_picture
from flux.methods import DEFAULT_METHOD, METHODS
from flux.pictures.opening import open_picture
from flux.studies.edit.choices import as_word

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
                            label="Steps, 0 for the usual",
                            min_width=160,
                            elem_id="edit-steps",
                        )
                        self.guidance = guidance_field(record, "Guidance, side by side")
                    with gr.Row():
                        self.width, self.height = size_fields(record, caps)
                    with gr.Row():
                        step = {"minimum": 0, "precision": 0, "min_width": 120}
                        self.start = gr.Number(0, label="Window from step", **step)
                        self.stop = gr.Number(0, label="to before step, 0 is all", **step)
                    with gr.Row():
                        self.strategy = gr.Dropdown(
                            STRATEGIES, value="copy", label="What is copied from the source", min_width=160
                        )
                        self.amount = gr.Number(0.5, label="Share or threshold", min_width=120)
                    self.fade = gr.Dropdown(
                        ["constant", "linear", "cosine"], value="constant", label="Strength from step to step"
                    )
            with gr.Column(scale=6, min_width=320):
                self.panel = JobPanel(desk, self.kind, action="Edit")
                self.panel.frames()
                with gr.Column(visible=False) as self.result:
                    self.which = gr.Dropdown([], label="Edit", interactive=True, elem_id="edit-which")
                    self.slider = gr.ImageSlider(
                        label="Source and edit", max_height=640, format="png", elem_id="edit-slider"
                    )
                    self.facts = gr.HTML("", padding=False, elem_id="edit-facts")
                self.pictures = gr.Gallery(
                    label="Pictures",
                    show_label=False,
                    columns=3,
                    object_fit="contain",
                    height="auto",
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="edit-pictures",
                    elem_classes="stage",
                )
                looking = gr.Accordion("What does this point look at?", open=False, visible=False)
                with looking as self.watching:
                    gr.HTML(
                        "<p class='hint'>Click on the edit; it is made again, watched.</p>", padding=False
                    )
                    self.point = gr.Image(
                        show_label=False,
                        interactive=False,
                        format="png",
                        buttons=[],
                        elem_id="edit-point",
                    )
                    self.looks = gr.Gallery(
                        show_label=False,
                        columns=3,
                        height="auto",
                        object_fit="contain",
                        interactive=False,
                        buttons=["fullscreen"],
                        elem_id="edit-looks",
                        elem_classes="stage",
                    )
                self.panel.files()
        self.photo, self.painted, self.beside = gr.State(None), gr.State(None), gr.State({})
        self.canvas, self.made = gr.State(None), gr.State([])

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
            *(self.painted, self.beside),
        ]

    def ask(self, *values: Any, point: Any = None) -> dict[str, Any]:
        """The spec of the fields' values."""
        *fields, editor, canvas, painted, beside = values
        fields[5] = chosen_in(fields[5])
        if self.desk.record.guidance is None:
            fields[14] = None
        file = None
        if fields[17] == "painted" and canvas:
            file = mask_file(editor, canvas, self.desk.uploads) or painted
        return edit_spec(*fields, file, beside, point)

    def show(self, asked: AskedRun, state: JobState, *values: Any) -> JobView:
        """The pictures of a finished run."""
        made = made_edits(state.folder)
        pictures = [(open_picture(state.folder / file), name) for name, file in gallery_of(made)]
        first = made[0] if made else None
        names = [(each.title, number) for number, each in enumerate(made)]
        return JobView(
            pictures,
            [
                gr.Column(visible=bool(made)),
                gr.Accordion(visible=bool(made)),
                gr.Dropdown(names, value=0 if made else None, visible=len(made) > 1),
                first and slide(state.folder, first),
                "" if first is None else facts_of(state.folder, first, state.lines),
                first and open_picture(state.folder / first.files["edit"]),
                [],
                (str(state.folder), asked.recipe),
            ],
        )

    @property
    def results(self) -> list[Any]:
        return [
            self.result,
            self.watching,
            self.which,
            self.slider,
            self.facts,
            self.point,
            self.looks,
            self.made,
        ]

    def connect(self) -> None:
        hidden = [gr.Column(visible=False), gr.Accordion(visible=False)]
        self.panel.connect(self.inputs, self.ask, self.pictures, self.results, self.show, hidden=hidden)
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.method.change(method_words, self.method, self.about, **quiet)
        self.strip.input(lambda: None, None, None, **quiet)

        def take(file: str | None) -> list[Any]:
            if file is None:
                return [None, None, Brush.empty(), None, "", gr.skip()]
            try:
                kept = take_picture(file, self.desk.uploads, self.desk.options.upload)
            except (ValueError, OSError) as error:
                return [None, None, Brush.empty(), None, words.failure(str(error)), gr.skip()]
            return [str(kept), str(kept), Brush.showing(kept), None, "", DEFAULT_METHOD]

        outputs = [self.photo, self.canvas, self.brush.editor, self.painted, self.panel.status, self.method]
        self.file.change(take, self.file, outputs, **quiet)

        def draw(request: gr.Request, *values: Any) -> Any:
            """Draw the source, to be painted on."""
            keys = ("seed", "width", "height", "guidance")
            try:
                spec = self.ask(*[*values[:17], "none", *values[18:]])
                seed, *rest = (spec.get(key) for key in keys)
                plain = {"prompts": [spec["source"]["prompt"]], "seeds": seed}
                plain |= {key: value for key, value in zip(keys[1:], rest, strict=True) if value is not None}
                asked = self.desk.read("test", plain)
            except (ValueError, OSError) as error:
                yield words.failure(str(error)), gr.skip(), gr.skip(), gr.skip()
                return
            for state in self.panel.put(asked, request).states():
                yield words.status(state), gr.skip(), gr.skip(), gr.skip()
            if state.phase == "done":
                drawn = take_picture(next(state.folder.glob("picture-*.png")), self.desk.uploads, 1000)
                yield words.status(state), str(drawn), Brush.showing(drawn), "painted"

        drawn = [self.panel.status, self.canvas, self.brush.editor, self.mask]
        self.draw.click(draw, self.inputs, drawn, concurrency_limit=None, **quiet)

        def choose(number: int | None, shown: Any) -> list[Any]:
            folder, _ = shown or (None, None)
            made = made_edits(Path(folder)) if folder else []
            if number is None or not 0 <= number < len(made):
                return [gr.skip()] * 4
            each, place = made[number], Path(folder)
            picture = open_picture(place / each.files["edit"])
            return [slide(place, each), facts_of(place, each, ()), picture, []]

        self.which.input(
            choose, [self.which, self.made], [self.slider, self.facts, self.point, self.looks], **quiet
        )

        def look(request: gr.Request, shown: Any, number: int | None, event: gr.SelectData) -> Any:
            """Make the run again, and watch where a point of the edit looks."""
            folder, recipe = shown or (None, None)
            if folder is None:
                return
            try:
                made = made_edits(Path(folder))[number or 0]
                x, y = photo_point(Path(folder), made, recipe, event.index)
                asked = self.desk.read("edit", recipe | {"watch": {"points": [[x, y]]}})
            except (ValueError, OSError) as error:
                yield words.failure(str(error)), gr.skip()
                return
            for state in self.panel.put(asked, request).states():
                yield words.status(state), gr.skip()
            if state.phase == "done":
                place = state.folder / "watch" / Path(made.files["edit"]).with_suffix("")
                found = [place / "places.png", *sorted(place.glob("point-1-*.png")), place / "point-1.png"]
                titles = ["the point", "where it looks", "in the other layers", "in all layers"]
                names = [*titles[: len(found) - 1], "every layer and step"]
                pictures = [(open_picture(each), name) for each, name in zip(found, names, strict=True)]
                yield words.status(state), pictures

        self.point.select(
            *(look, [self.made, self.which], [self.panel.status, self.looks]),
            concurrency_limit=None,
            **quiet,
        )

    def filled(self, asked: AskedRun) -> list[Any]:
        """Values of `targets` for a spec that was read."""
        found = edit_fields(asked.spec)
        photo = found["photo"]
        names = ("prompt", "photo", "edits", "method", "settings")
        more = ("strategy", "amount", "strength", "fade", "start", "stop", "seed", "steps")
        guidance = gr.skip() if found["guidance"] is None else found["guidance"]
        return [
            *(found[name] for name in names),
            self._strip(found["layers"]),
            *(found[name] for name in more),
            *(guidance, found["width"], found["height"], found["mask"]),
            Brush.showing(photo) if photo else Brush.empty(),
            *(photo, found["mask_file"], found["beside"]),
        ]

    @property
    def targets(self) -> list[Any]:
        """The components that a loaded spec fills."""
        return self.inputs


def method_words(name: str) -> str:
    """What a method does, its paper, and its settings."""
    if name == SIDE_BY_SIDE:
        return "<p class='hint'>Stable Flow: source and edits are drawn from one noise, side by side.</p>"
    row = next(row for row in METHODS if row.name == name)
    known = ", ".join(f"{key}={as_word(each.default)}" for key, each in row.settings.items())
    return f"<p class='hint'>{row.about} ({row.source}); {row.steps} steps. {known}</p>"


def gallery_of(made: list[MadeEdit]) -> list[tuple[str, str]]:
    """Names and files of all pictures of a run, each once."""
    found: dict[str, str] = {}
    for each in made:
        for kind, file in each.files.items():
            found.setdefault(file, kind if kind == "source" else f"{kind}, {each.title}")
    return [(name, file) for file, name in found.items()]


def slide(folder: Path, made: MadeEdit) -> tuple[Any, Any]:
    return open_picture(folder / made.files["source"]), open_picture(folder / made.files["edit"])


def facts_of(folder: Path, made: MadeEdit, lines: Any) -> str:
    """Scores of an edit, what the tool advises, and links to its files."""
    notices = [f"This edit {each}" for each in made.notices]
    told = [line for line in lines if not any(each in line for each in made.notices)]
    links = words.downloads(folder, made.downloads)
    return words.facts(made.facts) + words.advice([*notices, *told]) + links


def photo_point(folder: Path, made: MadeEdit, recipe: dict[str, Any], at: Any) -> tuple[int, int]:
    """Where a click on an edit is, in the pixels that its spec counts in: a photo's own, or the picture's."""
    from flux.photos.framing import frame_photo

    x, y = (int(each) for each in at)
    image = recipe["source"].get("image")
    if image is None:
        return x, y
    photo, edit = open_picture(Path(image)), open_picture(folder / made.files["edit"])
    frame = frame_photo(photo.size, recipe.get("fit", "fit"), size=edit.size)
    left, top, right, bottom = frame.box
    across, down = (right - left) / edit.width, (bottom - top) / edit.height
    inside = int(left + (x + 0.5) * across), int(top + (y + 0.5) * down)
    return max(0, min(photo.width - 1, inside[0])), max(0, min(photo.height - 1, inside[1]))
