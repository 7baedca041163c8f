"""Figures, sheets and pages: what they say of pictures that are known."""

import ast
import importlib.resources
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from flux.pictures.metrics import Score, changed_share, did_nothing, lost_source, psnr, score
from flux.studies.edit import report
from flux.studies.edit.requests import edit_of, requests
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Verdict, what_went_wrong
from flux.studies.pages.render import SMALL, TEMPLATES, PagePicture, changed_words, render
from flux.studies.pages.sheets import (
    HEAT,
    LARGEST,
    SheetCell,
    _font,
    cell_width,
    contact_sheet,
    difference_map,
    heat,
    scaled,
    wrapped,
)

VOID = {"img", "meta", "br", "link", "source"}


class Tags(HTMLParser):
    """Checks that tags close in order, and collects links, captions, classes and text."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.captions: list[str] = []
        self.classes: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href", "srcset")]
        self.captions += [value for key, value in attributes if key in ("alt", "title")]
        self.classes += [f"{tag}.{value}" for key, value in attributes if key == "class"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def picture(size=(32, 16), colour=(100, 150, 200)) -> Image.Image:
    return Image.new("RGB", size, colour)


def with_patch(image: Image.Image, levels: int, pixels: int) -> Image.Image:
    """The first `pixels` pixels of the first row brighter by `levels` in red."""
    array = np.array(image)
    array[0, :pixels, 0] += levels
    return Image.fromarray(array)


# Figures


def test_changed_share_counts_pixels_beyond_the_tolerance():
    image = picture()
    assert changed_share(image, image) == 0
    assert changed_share(image, with_patch(image, 8, 16), pixel=8) == 0
    assert changed_share(image, with_patch(image, 9, 16), pixel=8) == 16 / (32 * 16)


def test_psnr():
    image = picture()
    assert psnr(image, image) == math.inf
    assert psnr(image, picture(colour=(110, 160, 210))) == pytest.approx(20 * math.log10(255 / 10))


class FakeDino:
    """Similarity by mean colour."""

    def features(self, images):
        means = torch.tensor(np.array([np.asarray(image).mean(axis=(0, 1)) for image in images])).float()
        return torch.nn.functional.normalize(means, dim=-1)


def test_score():
    source, edit, plain = picture(), picture(colour=(100, 150, 180)), picture(colour=(200, 50, 0))
    made = score(source, edit, plain, dino=FakeDino())
    assert made.changed == 1 and made.psnr > 10
    assert 1 > made.similarity > made.plain_similarity > 0
    assert made.plain_changed == 1
    assert made.loss == 0  # no outlines, and a colour like the source's
    assert score(source, source) == Score(changed=0.0, psnr=None, loss=0.0)
    assert score(source, edit, dino=FakeDino()).plain_similarity is None


@pytest.mark.parametrize(
    "changed, floor, threshold, nothing",
    [
        (0.0, 0.0, 0.0, True),
        (0.002, 0.0, 0.002, True),
        (0.003, 0.0, 0.002, False),
        (0.003, 0.01, 0.002, True),
    ],
)
def test_did_nothing(changed, floor, threshold, nothing):
    assert did_nothing(Score(changed, 30.0), floor, threshold) is nothing


@pytest.mark.parametrize(
    "loss, threshold, lost", [(0.3, 0.19, True), (0.19, 0.19, False), (0.0, 0.0, False), (None, 0.0, False)]
)
def test_lost_source(loss, threshold, lost):
    assert lost_source(Score(0.5, 20.0, loss=loss), threshold) is lost


# What a run says of an edit


def said(figures: Score, floor: float = 0.0, edit: dict | None = None, seen=None, **changes) -> list[str]:
    spec = EditSpec.model_validate(
        {"source": "a dog", "edits": [{"prompt": "a cat", **(edit or {})}], **changes}
    )
    return list(what_went_wrong(spec, edit_of(spec, spec.edits[0]), figures, floor, seen))


def test_an_edit_that_worked_is_not_spoken_of():
    assert said(Score(0.3, 20.0, 0.9, 0.9, 0.5)) == []
    assert said(Score(0.3, 20.0)) == []


def test_an_edit_that_did_nothing():
    (line,) = said(Score(0.001, 50.0, 0.99, 0.9, 0.99))
    assert line.startswith(
        "did nothing: 0.10% of pixels changed, up to 0.20% counts as nothing. Try fewer layers"
    )
    assert "a strength below 1" in line and "names what is to change" in line
    assert said(Score(0.001, 50.0), checks={"did_nothing": 0.0}) == []
    (line,) = said(Score(0.001, 50.0, plain_changed=0.001))
    assert line.endswith("Without injection its prompt changes nothing either. Try another prompt.")
    (line,) = said(Score(0.01, 50.0), floor=0.02)
    assert "up to 2.00% counts" in line
    (line,) = said(Score(0.001, 50.0), edit={"mask": [0, 0, 8, 8]})
    assert "Try a larger mask, or none, fewer layers" in line


def test_an_edit_that_lost_the_source():
    lost = Score(0.6, 12.0, loss=0.4)
    (line,) = said(lost, edit={"strength": 0.4, "window": [0, 4], "layers": [0]})
    assert line.startswith("lost the source: 40% of it, above 20% counts as lost. Try more layers than 1")
    assert "strength 1" in line and "no step window" in line
    assert said(lost, checks={"lost_source": 0.4}) == []
    (line,) = said(lost, strategy={"name": "ratio", "ratio": 0.3})
    assert "a ratio above 0.3" in line
    # Similarities say nothing: a removed hat may be as close to the source without injection.
    assert said(Score(0.1, 30.0, 0.997, 0.1, 0.997, loss=0.02)) == []


def test_a_judge_decides_where_it_can_tell():
    lost, kept = Score(0.6, 12.0, loss=0.4), Score(0.1, 30.0, loss=0.01)
    assert said(lost, seen=([], [])) == []
    (line,) = said(kept, seen=(["the flower is gone", "the cat moved"], []))
    assert line.startswith("lost the source: the flower is gone; the cat moved. Try more layers")
    (line,) = said(kept, seen=([], ["asked for a hat on the cat, none seen"]))
    assert line.startswith(
        "did not make all that was asked for: asked for a hat on the cat, none seen. Try fewer"
    )
    (line,) = said(kept, seen=(["the flower is gone"], ["asked for a cat, none seen"]))
    assert line.startswith(
        "lost the source: the flower is gone; and asked for a cat, none seen. Try a source prompt"
    )
    assert "layers" not in line  # more of them for the one, fewer for the other
    (line,) = said(Score(0.0, None, loss=0.0), seen=([], ["asked for a cat, none seen"]))
    assert line.startswith("did nothing")


# The sheet of edits


def captions(monkeypatch, *edits: dict | str, **changes) -> tuple[str, list[list[str]]]:
    """The title of a run's sheet, and what stands below source and edit in each row."""
    spec = EditSpec.model_validate({"source": "a dog", "edits": list(edits), "seed": 0, **changes})
    monkeypatch.setattr(report, "contact_sheet", lambda rows, title: (title, rows))
    verdicts = [
        Verdict(number, request.seed, edit, {"source": "s", "edit": "e"}, Score(0.1, 20.0), ())
        for request in requests(spec)
        for number, edit in enumerate(request.edits, start=1)
    ]
    run = type("Run", (), {"picture": lambda self, file: picture()})()
    title, rows = report._sheet(spec, run, verdicts)
    return title, [[cell.caption for cell in row] for row in rows]


def test_a_sheet_of_edits_says_what_differs_between_them(monkeypatch):
    title, rows = captions(monkeypatch, "a cat", "a cow", layers=[0, 3], strength=0.5)
    assert title.splitlines()[1] == "seed 0; layers 0, 3; strength 0.5"
    assert rows == [["a dog", "a cat"], ["a dog", "a cow"]]

    ratio = {"name": "ratio", "ratio": 0.4}
    own = {"layers": [6], "strategy": ratio, "strength": 0.5, "window": [0, 4]}
    title, rows = captions(monkeypatch, "a cat", {"prompt": "a cat", **own}, layers=[0, 3])
    assert title.splitlines()[1] == "seed 0"
    assert [row[1] for row in rows] == [
        "a cat\nlayers 0, 3; all tokens; strength 1; all steps",
        "a cat\nlayers 6; ratio 0.4; strength 0.5; steps 0 to 3",
    ]

    title, rows = captions(monkeypatch, {"prompt": "a cat", "seeds": [0, 7]}, layers=[0])
    assert rows == [["a dog\nseed 0", "a cat\nseed 0"], ["a dog\nseed 7", "a cat\nseed 7"]]


# Sheets


def test_small_pictures_grow_by_whole_factors_and_large_ones_shrink():
    assert [cell_width(width) for width in (16, 96, 128, 192, 300, 1024)] == [
        192,
        192,
        256,
        192,
        300,
        LARGEST,
    ]


def test_a_sheet_shows_its_cells_in_their_places():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    red, green, blue = (
        SheetCell(picture((192, 96), colour), "a caption that runs over some lines") for colour in colours
    )
    sheet = contact_sheet([[red, green], [None, blue]], "A title")
    assert sheet.width == 2 * 24 + 2 * 192 + 12
    where = {colour: np.argwhere((np.asarray(sheet) == colour).all(-1)) for colour in colours}
    assert [len(where[colour]) for colour in colours] == [192 * 96] * 3
    assert where[colours[1]][0][1] == where[colours[2]][0][1] > where[colours[0]][-1][1]
    assert where[colours[2]][0][0] > where[colours[1]][-1][0]
    assert np.asarray(sheet).min() < 60  # text


def test_wrapped_text_fits():
    long = "Donaudampfschifffahrtsgesellschaft" * 3
    lines = wrapped("a big red house " * 6 + long, 200, 15)
    assert len(lines) > 3 and "".join(lines).replace(" ", "") == "abigredhouse" * 6 + long
    assert all(_font(15).getlength(line) <= 200 for line in lines)
    assert lines[:2] == ["a big red house a big red", "house a big red house a big"]
    assert wrapped("", 200, 15) == [] and wrapped("WW", 1, 15) == ["W", "W"]


@pytest.mark.parametrize(
    "text", ["word " * 1000, "x" * 5000, "\u202e\u05e9\u05dc\u05d5\u05dd \n" * 500, "😀" * 300]
)
def test_a_sheet_keeps_its_size_whatever_its_texts(text):
    sheet = contact_sheet([[SheetCell(picture(), text)]], text)
    usual = contact_sheet([[SheetCell(picture(), "a line")]], "a title")
    assert sheet.width == usual.width and sheet.height < usual.height + 2 * 12 * 25


def test_a_very_long_picture_stays_on_its_sheet():
    """A tall one is drawn narrower, a flat one at least a pixel high; others are as wide as ever."""
    colour = (255, 0, 0)
    for size, shown in (((2, 400), (4, 4 * 192)), ((4000, 2), (384, 1)), ((100, 33), (200, 66))):
        sheet = np.asarray(contact_sheet([[SheetCell(picture(size, colour))]]))
        rows, columns = np.nonzero((sheet == colour).all(-1))
        assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == shown


def test_a_sheet_without_a_margin_starts_at_its_corner():
    """As the frames of an animation, which stand in line with the picture beside them."""
    frame = np.asarray(
        contact_sheet([[SheetCell(picture((192, 96))), SheetCell(picture((192, 96)))]], margin=0)
    )
    assert frame.shape[1] == 2 * 192 + 12 and frame[0, 0].tolist() == frame[95, -1].tolist() == [
        100,
        150,
        200,
    ]


def test_heat_goes_from_the_first_colour_to_the_last():
    pixels = np.asarray(heat(np.array([[0.0, 2.0, 4.0, 9.0]]), 4.0))
    assert pixels[0, 0].tolist() == HEAT[0].tolist()
    assert pixels[0, 2].tolist() == pixels[0, 3].tolist() == HEAT[-1].tolist()
    brightness = np.asarray(heat(np.linspace(0, 1, 50)[None], 1.0).convert("L"), dtype=int)[0]
    assert (np.diff(brightness) >= 0).all()
    assert np.asarray(heat(np.zeros((2, 2)), 0.0)).max() <= HEAT[0].max()
    assert np.asarray(difference_map(np.array([[0.0, 255.0]])))[0, 1].tolist() == HEAT[-1].tolist()


def test_scaling_keeps_pixels_square():
    tiny = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8))
    assert set(np.unique(np.asarray(scaled(tiny, 8, 4)))) == {0, 255}


# Pages


NASTY = '<script>alert("x")</script> & "café" \'%41\' {{ 7*7 }} {% raw %} </style> &lt; #1?'
FILE = "a folder/50% of #1? <b>'\"&%41 {{ 7*7 }} ü.png"
SHOWN = PagePicture(FILE, NASTY)

COMMON = {"about": {NASTY: NASTY, "guidance": None}, "recipe": {NASTY: [NASTY, None, 0.5]}}
MAPS = {"means": [SHOWN], "table": SHOWN}
WATCHED = {
    "injected": True,
    "pictures": [
        {
            "title": NASTY,
            "marked": "vital layers",
            "places_picture": SHOWN,
            "places": [
                {
                    "name": NASTY,
                    "said": NASTY,
                    "bars": [{"title": NASTY, "parts": [20.0, 10.0, 70.0]}],
                    "groups": 1,
                    "steps": [NASTY],
                    "by_step": [(NASTY, [30.0])],
                    "words": [(NASTY, [(NASTY, NASTY)])],
                    **MAPS,
                }
            ],
            "words": [{"word": NASTY, **MAPS}],
            "prompt": NASTY,
            "cut": [NASTY],
        }
    ],
    "tables": {FILE: NASTY},
}
PAGES = {
    "text.html": {"groups": {NASTY: [SHOWN]}, "sheet": FILE, "width": 128},
    "timesteps.html": {
        "prompt": NASTY,
        "finished": [SHOWN, PagePicture(FILE, NASTY, wide=True)],
        "noisy": [SHOWN],
        "estimates": [SHOWN],
        "maps": {NASTY: [SHOWN]},
        "scale": NASTY,
        "watched": WATCHED,
        "filmstrip": FILE,
        "width": 128,
    },
    "sweep.html": {
        "noise": NASTY,
        "problems": [NASTY],
        "files": [FILE],
        "decided": NASTY,
        "decisions": [[NASTY] * 5],
        "prompts": [(NASTY, [SHOWN])],
        "width": 128,
    },
    "importance.html": {
        "model": NASTY,
        "problems": [NASTY],
        "answer": [NASTY],
        "plot": SHOWN,
        "scatter": SHOWN,
        "heat_map": SHOWN,
        "strips": {NASTY: [[SHOWN], [SHOWN]]},
        "titles": [NASTY],
        "rows": [[NASTY], [NASTY]],
        "marked": [1],
        "files": {FILE: NASTY},
        "width": 128,
    },
    "matrix.html": {
        "title": NASTY,
        "problems": [NASTY],
        "columns": [SHOWN],
        "tables": {NASTY: [(SHOWN, [NASTY])]},
        "files": {FILE: NASTY},
    },
    "ranking.html": {
        "title": NASTY,
        "problems": [NASTY],
        "picture": SHOWN,
        "ranked": [SHOWN],
        "files": {FILE: NASTY},
        "width": 128,
    },
    "edit.html": {
        "source": "a red house",
        "problems": [NASTY],
        "edits": [{"prompt": NASTY, "problems": [NASTY], "pictures": [SHOWN], "facts": {NASTY: NASTY}}],
        "watched": WATCHED,
        "sheet": FILE,
        "width": 128,
    },
    "photos.html": {
        "title": NASTY,
        "problems": [NASTY],
        "sources": [
            {
                "prompt": "a red house",
                "problems": [NASTY],
                "pictures": [SHOWN],
                "facts": {NASTY: NASTY},
                "edits": [
                    {"prompt": NASTY, "problems": [NASTY], "pictures": [SHOWN], "facts": {NASTY: NASTY}}
                ],
                "width": 128,
            }
        ],
        "watched": WATCHED,
        "sheet": FILE,
    },
    "probe.html": {
        "model": NASTY,
        "probe": NASTY,
        "problems": [NASTY],
        "answer": [NASTY],
        "plots": [SHOWN],
        "strips": {NASTY: [[SHOWN]]},
        "titles": [NASTY],
        "rows": [[NASTY]],
        "editing": {
            "plot": SHOWN,
            "titles": [NASTY],
            "rows": [[NASTY]],
            "marked": [0],
            "strips": [[SHOWN]],
        },
        "files": {FILE: NASTY},
        "width": 128,
    },
    "scan.html": {
        "title": NASTY,
        "problems": [NASTY],
        "plot": SHOWN,
        "titles": [NASTY],
        "rows": [[NASTY]],
        "grids": [(NASTY, SHOWN, [[SHOWN], [SHOWN]])],
        "files": {FILE: NASTY},
        "width": 128,
    },
    "chain.html": {
        "title": NASTY,
        "problems": [NASTY],
        "line": [SHOWN, SHOWN],
        "links": [
            {
                "before": "a red house",
                "prompt": NASTY,
                "title": NASTY,
                "problems": [NASTY],
                "pictures": [SHOWN],
                "facts": {NASTY: NASTY},
            }
        ],
        "files": {FILE: NASTY},
        "width": 128,
    },
}


def page(template: str, **changes) -> str:
    return render(template, **{**COMMON, **PAGES[template], **changes})


def occurrences(value: object) -> int:
    """How often NASTY stands in values, a caption not counted."""
    if isinstance(value, dict):
        return sum(map(occurrences, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return sum(map(occurrences, value))
    return int(value == NASTY)


def test_every_page_is_tested():
    assert {file.name for file in TEMPLATES.iterdir()} == {*PAGES, "base.html", "macros.html", "watch.html"}


@pytest.mark.parametrize("template", PAGES)
def test_a_page_shows_what_it_is_given_as_it_is(template):
    tags = Tags(page(template))
    assert tags.text.count(NASTY) >= occurrences([COMMON["about"], PAGES[template]])
    assert json.dumps(COMMON["recipe"], indent=2, ensure_ascii=False) in tags.text
    assert tags.captions and set(tags.captions) == {NASTY}
    assert {unquote(urlsplit(link).path) for link in tags.links} == {FILE}
    assert not any(urlsplit(link).scheme or urlsplit(link).netloc for link in tags.links)
    assert "49" not in tags.text


@pytest.mark.parametrize("template", PAGES)
def test_a_page_stands_alone(template):
    text = page(template)
    assert text.count("</style>") == 1 and "<script" not in text
    assert not any(word in text for word in ("http", "url(", "@import", "<link", "<b>"))
    assert text.startswith("<!DOCTYPE html>\n") and text.endswith("</html>\n")


@pytest.mark.parametrize("template", PAGES)
def test_a_missing_value_is_an_error(template):
    for missing in PAGES[template]:
        values = {name: value for name, value in PAGES[template].items() if name != missing}
        with pytest.raises(UndefinedError, match=missing):
            render(template, **COMMON, **values)


STRANGE = {
    "script": "<script>alert(1)</script>",
    "right to left": "\u202eبيت أحمر كبير\u202c",
    "emoji": "a 🐈‍⬛ and a 👨‍👩‍👧",
    "long": "word " * 1000,
    "one word": "x" * 5000,
    "lines": "one\ntwo\n\n\tthree",
}


def said_instead(value: object, text: str) -> object:
    """Values with a text in the place of NASTY."""
    if isinstance(value, dict):
        return {said_instead(key, text): said_instead(each, text) for key, each in value.items()}
    if isinstance(value, PagePicture):
        return PagePicture(value.file, said_instead(value.caption, text), value.wide)
    if isinstance(value, list | tuple):
        return type(value)(said_instead(each, text) for each in value)
    return text if value == NASTY else value


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("template", PAGES)
def test_a_page_takes_any_prompt(template, strange):
    """Whole and as text, read from the side that its letters are read from."""
    text = STRANGE[strange]
    made = render(template, **said_instead({**COMMON, **PAGES[template]}, text))
    assert text in Tags(made).text and text in Tags(made).captions
    assert "<script" not in made and "unicode-bidi: plaintext" in made


def test_templates_escape_everything():
    for file in TEMPLATES.iterdir():
        source = file.read_text(encoding="utf-8")
        assert not any(word in source for word in ("safe", "autoescape", "Markup", "http", "<script"))


def test_a_phone_is_shown_a_narrow_picture():
    plot = PagePicture("wide plot.png", "a plot", narrow="narrow, plot.png")
    text = page("importance.html", plot=plot)
    assert '<source media="(max-width: 40rem)" srcset="narrow%2C%20plot.png">' in text
    assert text.count("<picture>") == text.count("</picture>") == 1
    assert "<picture>" not in page("importance.html")


def test_small_pictures_have_square_pixels():
    def classes(width: int) -> list[str]:
        tags = Tags(page("timesteps.html", width=width, watched=None))
        return [name for name in tags.classes if name.startswith(("img", "figure"))]

    assert classes(SMALL) == ["figure.wide"]
    assert classes(SMALL - 1) == ["img.small", "figure.wide", "img.small", "img.small"]


def test_an_edit_page_marks_what_changed_and_a_table_its_rows():
    (edit,) = PAGES["edit.html"]["edits"]
    text = page("edit.html", edits=[edit | {"prompt": "a blue house"}])
    assert "<h2>a <mark>blue</mark> house</h2>" in text
    assert Tags(page("importance.html")).classes.count("tr.marked") == 1


def test_a_sweep_that_is_not_decided_says_nothing_of_it():
    assert "What was decided when" in page("sweep.html")
    assert "What was decided when" not in page("sweep.html", decided=None, decisions=[])
    assert "<p>The noise &lt; 1.</p>" in page("sweep.html", noise="the noise < 1")


def test_changed_words_are_marked():
    marked = changed_words("a red house & a cat", "a blue <house> & a small cat")
    assert marked == "a <mark>blue &lt;house&gt;</mark> &amp; a <mark>small</mark> cat"
    assert isinstance(marked, Markup)
    assert changed_words("a cat", "") == "" and changed_words("", "<b>") == "<mark>&lt;b&gt;</mark>"


def test_templates_are_installed_with_the_package():
    setup = ast.parse((Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8"))
    (patterns,) = (
        ast.literal_eval(node.value)["flux.studies.pages"]
        for node in ast.walk(setup)
        if isinstance(node, ast.keyword) and node.arg == "package_data"
    )
    package = Path(str(importlib.resources.files("flux.studies.pages")))
    installed = {file for pattern in patterns for file in package.glob(pattern)}
    assert installed == {*TEMPLATES.iterdir()}
