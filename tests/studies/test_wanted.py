"""Demo 0 from more than a prompt: each key makes what the function of the same name makes."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flux.conditions import Conditions, Negative, Regions, box_region
from flux.generate import Sampling, generate
from flux.photos.conditions import open_conditions
from flux.photos.wanted import RegionPlace, StartPhoto, Wanted
from flux.pictures.files import to_pil
from flux.studies import text
from flux.studies.reading import load_spec
from flux.studies.study import carry_out
from flux.studies.text.run import RUN
from flux.studies.text.spec import TestSpec
from flux.util import load_models

FEW = {"steps": 3, "width": 32, "height": 48}
SAMPLING = Sampling(3, 3.5, 32, 48)
SIZE = (32, 48)


@pytest.fixture(scope="module")
def models(clone):
    return load_models("flux-tiny", device="cpu", weights=clone)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A photo of 64 x 96 pixels, and beside it a mask whose lower half is white."""
    levels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    mask = np.zeros((96, 64), dtype=np.uint8)
    mask[48:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png"


@pytest.fixture
def made(clone, tmp_path):
    """`made(prompts=..., ...)`: the pictures of a run of demo 0, by file, and its spec."""

    def run(**keys):
        model = {"name": "flux-tiny", "weights": str(clone), "device": "cpu"}
        values = {**FEW, "model": model, "output": tempfile.mkdtemp(dir=tmp_path), **keys}
        spec = load_spec(TestSpec, None, values)
        RUN.make(spec)
        files = sorted(spec.output.glob("picture-*.png"))
        return {file.name: np.asarray(Image.open(file)) for file in files}, spec

    return run


def expected(models, prompts, seeds, conditions=None):
    pictures = generate(models, prompts, seeds, SAMPLING, conditions=conditions)
    return [np.asarray(to_pil(picture)).astype(int) for picture in pictures]


def assert_same(pictures, wanted):
    assert len(pictures) == len(wanted)
    for picture, each in zip(pictures.values(), wanted, strict=True):
        assert abs(picture.astype(int) - each).max() <= 1


def test_without_the_keys_a_recipe_is_as_it_was(made):
    _, spec = made(prompts=["a hat"])
    assert set(spec.recipe()) == {
        *("model", "steps", "guidance", "width", "height", "prompts", "seeds", "batch")
    }


def test_a_second_prompt_for_t5(made, models):
    pictures, spec = made(prompts=["a hat", "a boat"], prompt_2=["a red hat", "the sea"])
    second = Conditions(prompts_2=("a red hat", "the sea"))
    assert_same(pictures, expected(models, ["a hat", "a boat"], [0, 0], second))
    assert Image.open(spec.output / "picture-02-seed-0.png").text["prompt for T5"] == "the sea"
    assert "a red hat | the sea" in (spec.output / "index.html").read_text()


@pytest.mark.parametrize("two_passes", [False, True])
def test_a_negative_prompt(made, models, two_passes):
    keys = {"negative_prompt": "the sea", "true_cfg": 3, "two_passes": two_passes}
    pictures, _ = made(prompts=["a hat"], **keys)
    wanted = expected(models, ["a hat"], [0], Conditions(negative=Negative("the sea", 3)))
    assert_same(pictures, wanted)
    assert abs(wanted[0] - expected(models, ["a hat"], [0])[0]).max() > 8


def test_several_pictures_of_a_prompt(made, models):
    pictures, _ = made(prompts=["a hat"], seeds=[4, 9], per_prompt=2, batch=3)
    assert len(pictures) == 4
    named = {name: pictures[name] for name in (f"picture-01-seed-{seed}.png" for seed in (4, 5, 9, 10))}
    assert_same(named, expected(models, ["a hat"] * 4, [4, 5, 9, 10]))


def test_image_to_image(made, models, photo):
    pictures, spec = made(prompts=["a hat"], start={"image": str(photo), "strength": 0.7})
    wanted = Wanted(start=StartPhoto(photo, 0.7))
    assert wanted.evaluations(3) == 3 and Wanted(start=StartPhoto(photo, 0.6)).evaluations(3) == 2
    assert_same(pictures, expected(models, ["a hat"], [0], open_conditions(models, wanted, SAMPLING)))
    assert "sha256" in spec.recipe()["start"]
    assert "from photo.png at strength 0.7" in (spec.output / "index.html").read_text()


def test_inpainting_leaves_what_is_outside_as_the_photo(made, models, photo):
    start = {"image": str(photo), "mask": str(photo.parent / "mask.png")}
    pictures, _ = made(prompts=["a hat"], start=start)
    wanted = Wanted(start=StartPhoto(photo, mask=photo.parent / "mask.png"))
    conditions = open_conditions(models, wanted, SAMPLING)
    assert_same(pictures, expected(models, ["a hat"], [0], conditions))
    assert conditions.start.mask.mean(dim=-1)[0].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    as_a_box, _ = made(prompts=["a hat"], start={**start, "mask": [0, 48, 64, 96]})
    assert_same(as_a_box, [each.astype(int) for each in pictures.values()])


def test_regions(made, models, tmp_path):
    mask = np.zeros((48, 32), dtype=np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(tmp_path / "right.png")
    regions = [
        {"prompt": "a red hat", "where": [0, 0, 16, 48]},
        {"prompt": "a boat", "where": str(tmp_path / "right.png")},
    ]
    how = {"layers": "double.*", "alone": True}
    pictures, _ = made(prompts=["the sea"], regions=regions, regional=how)
    parts = box_region("a red hat", (0, 0, 16, 48), SIZE), box_region("a boat", (16, 0, 32, 48), SIZE)
    own = Regions(parts, ("double.*",), alone=True)
    wanted = expected(models, ["the sea"], [0], Conditions(regions=own))
    assert_same(pictures, wanted)
    assert abs(wanted[0] - expected(models, ["the sea"], [0])[0]).max() > 8


@pytest.mark.parametrize(
    "start, said",
    [
        ({"image": "broken.png"}, "broken.png: it is no picture of a kind that Pillow draws"),
        ({"image": "photo.png", "mask": "small.png"}, "small.png: a mask of 8 x 8 pixels does not fit"),
        ({"image": "photo.png", "mask": "black.png"}, "black.png: a mask that is black all over leaves"),
        ({"image": "photo.png", "mask": [0, 0, 65, 96]}, "does not lie in a photo of 64 x 96 pixels"),
        ({"image": "long.png"}, "long.png: a photo of 8 x 900 pixels is too small to be edited"),
    ],
)
def test_what_nothing_can_be_made_from_is_said_before_weights_load(photo, start, said, monkeypatch, capsys):
    folder = photo.parent
    monkeypatch.chdir(folder)
    monkeypatch.setattr("flux.studies.run.load_models", lambda *_, **__: pytest.fail("weights were loaded"))
    (folder / "broken.png").write_text("no picture")
    for name, size in {"small": (8, 8), "black": (64, 96), "long": (8, 900)}.items():
        Image.new("L", size).save(f"{name}.png")
    assert not (folder / "output").exists()
    (folder / "spec.json").write_text('{"prompts": ["a hat"]}')
    words = ["--start.image", start["image"]]
    words += ["--start.mask", str(start["mask"])] if "mask" in start else []
    assert carry_out(text.STUDY, doc="", default=folder / "spec.json", argv=words) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and not (folder / "output").exists()


def test_a_region_by_its_mask_needs_the_pictures_size(tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="mask has 8 x 8 pixels and the picture 32 x 48: save it at"):
        Wanted(regions=(RegionPlace("a hat", tmp_path / "mask.png"),)).check(SIZE, 3)
