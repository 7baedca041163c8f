"""Figures, sheets and pages: what they say of pictures that are known."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from flux.pictures.metrics import Score, changed_share, did_nothing, lost_source, psnr, score
from flux.studies.edit.requests import edit_of
from flux.studies.edit.verdicts import what_went_wrong
from flux.studies.pages.html import changed_words, document, figure, json_details
from flux.studies.pages.pages import EditCard, LayerPage, Shown, edit_page, layer_page, pictures_page
from flux.studies.pages.sheets import (
    HEAT,
    LARGEST,
    Cell,
    cell_width,
    contact_sheet,
    difference_map,
    heat,
    scaled,
    wrapped,
)
from flux.studies.spec import EditSpec
from flux.studies.spec.values import Context

VOID = {"img", "meta", "br", "link"}


class Tags(HTMLParser):
    """Checks that tags close in order, and collects attributes and text."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href")]
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
    assert score(source, source) == Score(changed=0.0, psnr=None)
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
    "similarity, plain, margin, lost",
    [
        (0.9, 0.8, 0.0, False),
        (0.8, 0.8, 0.0, True),
        (0.7, 0.8, 0.0, True),
        (0.9, 0.8, 0.2, True),
        (0.9, None, 0, False),
    ],
)
def test_lost_source(similarity, plain, margin, lost):
    assert lost_source(Score(0.5, 20.0, similarity, 0.5, plain), margin) is lost


# What a run says of an edit


def said(figures: Score, floor: float = 0.0, edit: dict | None = None, **changes) -> list[str]:
    spec = EditSpec.read(
        {"source": "a dog", "edits": [{"prompt": "a cat", **(edit or {})}], **changes}, Context()
    )
    return list(what_went_wrong(spec, edit_of(spec, spec.edits[0]), figures, floor))


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


def test_an_edit_that_lost_the_source():
    (line,) = said(Score(0.6, 12.0, 0.5, 0.7, 0.5), edit={"strength": 0.4, "window": [0, 4], "layers": [0]})
    assert line.startswith(
        "lost the source: its similarity to it is 0.500, that of the picture without injection"
    )
    assert "more layers than 1" in line and "strength 1" in line and "no step window" in line
    assert said(Score(0.6, 12.0, 0.5, 0.7, 0.5), checks={"lost_source": -0.1}) == []
    (line,) = said(
        Score(0.6, 12.0, 0.6, 0.7, 0.5), checks={"lost_source": 0.2}, strategy={"name": "ratio", "ratio": 0.3}
    )
    assert "a ratio above 0.3" in line


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
        Cell(picture((192, 96), colour), "a caption that runs over some lines") for colour in colours
    )
    sheet = contact_sheet([[red, green], [None, blue]], "A title")
    assert sheet.width == 2 * 24 + 2 * 192 + 12
    where = {colour: np.argwhere((np.asarray(sheet) == colour).all(-1)) for colour in colours}
    assert [len(where[colour]) for colour in colours] == [192 * 96] * 3
    assert where[colours[1]][0][1] == where[colours[2]][0][1] > where[colours[0]][-1][1]
    assert where[colours[2]][0][0] > where[colours[1]][-1][0]
    assert np.asarray(sheet).min() < 60  # text


def test_wrapped_text_fits():
    lines = wrapped("a big red house " * 6 + "Donaudampfschifffahrtsgesellschaft" * 3, 200, 15)
    assert len(lines) > 3 and " ".join(lines).split() == ("a big red house " * 6).split() + [lines[-1]]
    assert wrapped("", 200, 15) == []


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


NASTY = '<script>alert("x")</script> & "café" \'%41\''


def test_a_page_escapes_what_it_is_given():
    page = document(NASTY, NASTY, [figure(f"{NASTY}.png", NASTY), json_details(NASTY, {NASTY: NASTY})])
    tags = Tags(page)
    assert "<script" not in page
    assert tags.text.count("alert(") >= 4
    assert all("<" not in link and '"' not in link for link in tags.links)


def test_changed_words_are_marked():
    marked = changed_words("a red house & a cat", "a blue <house> & a small cat")
    assert marked == "a <mark>blue &lt;house&gt;</mark> &amp; a <mark>small</mark> cat"


def test_pages_are_well_formed_and_stand_alone():
    shown = [Shown("source.png", "source"), Shown("edit-01.png", NASTY)]
    card = EditCard(
        "edit-01", f"a blue house {NASTY}", shown, {"changed pixels": "3.0%"}, [f"This edit {NASTY}"]
    )
    pages = [
        edit_page("a red house", [card, card], {"model": "flux-tiny"}, ["not checked"], {"steps": 16}, 128),
        pictures_page({"a red house": shown, NASTY: shown}, {"steps": 16}, {"steps": 16}, 1024),
        layer_page(LayerPage(NASTY, shown[0], shown[1], shown, shown, {"double.0": shown}), {}, {}, 128),
    ]
    for page in pages:
        tags = Tags(page)
        assert tags.links and not any(link.startswith(("http", "/", "file:")) for link in tags.links)
        assert "http" not in page and "<script" not in page
