"""Demo 4 from more than prompts: second prompts, a negative one and regions, side by side and by methods."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_demos import save_clone, small_models
from helpers_methods import small_task, velocity_of
from PIL import Image

from flux.conditions import Conditions, Negative, Regions, box_region
from flux.generate import Sampling, encode, generate, sample_steps
from flux.methods.field import Conditioning
from flux.photos.editing import PhotoRequest, SourceEdit, edit_photo_steps
from flux.photos.framing import frame_photo
from flux.photos.sources import EditSource
from flux.photos.wanted import RegionPlace
from flux.pictures.files import to_pil
from flux.sampling import Evaluation
from flux.studies.edit.making import make
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec
from flux.util import load_models

SAMPLING = Sampling(3, 3.5, 32, 48)
RIGHT = [16, 0, 32, 48]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return save_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def models(clone):
    return load_models("flux-tiny", device="cpu", weights=clone)


def spec_of(clone, tmp_path, **keys):
    model = {"name": "flux-tiny", "weights": str(clone), "device": "cpu"}
    few = {"steps": 3, "width": 32, "height": 48, "paste": False, "checks": {"dino": "off"}}
    return load_spec(
        EditSpec, None, {**few, "model": model, "output": tempfile.mkdtemp(dir=tmp_path), **keys}
    )


@pytest.fixture
def made(clone, tmp_path):
    def run(**keys):
        spec = spec_of(clone, tmp_path, **keys)
        make(spec)
        return {
            file.name: np.asarray(Image.open(file)).astype(int) for file in spec.output.glob("*.png")
        }, spec

    return run


def expected(models, prompt, conditions=None):
    return np.asarray(to_pil(generate(models, [prompt], [0], SAMPLING, conditions=conditions)[0])).astype(int)


def test_edits_side_by_side_with_all_of_it(made, models):
    edit = {"prompt": "a boat", "prompt_2": "a red boat", "regions": [{"prompt": "the sea", "where": RIGHT}]}
    keys = {"negative_prompt": "a hat", "true_cfg": 2}
    pictures, spec = made(source="a cat", edits=[edit, "a dog"], **keys)
    negative = Negative("a hat", 2)
    region = Regions((box_region("the sea", RIGHT, (32, 48)),))
    wanted = {
        "source.png": ("a cat", Conditions(negative=negative)),
        "plain-01.png": ("a boat", Conditions(("a red boat",), negative, regions=region)),
        "plain-02.png": ("a dog", Conditions(negative=negative)),
    }
    for name, (prompt, conditions) in wanted.items():
        assert abs(pictures[name] - expected(models, prompt, conditions)).max() <= 1, name
    without = expected(models, "a boat", Conditions(negative=negative, regions=region))
    assert abs(pictures["plain-01.png"] - without).max() > 2
    assert abs(pictures["edit-01.png"] - pictures["plain-01.png"]).max() > 2
    recipe = spec.recipe()
    assert recipe["edits"][0]["prompt_2"] == "a red boat" and recipe["true_cfg"] == 2
    assert "prompt_2" not in recipe["edits"][1] and "regional" not in recipe


def test_two_passes_make_the_same_edits(made):
    keys = {"source": "a cat", "edits": ["a boat"], "negative_prompt": "a hat", "true_cfg": 2}
    one, _ = made(**keys)
    two, _ = made(**keys, two_passes=True)
    assert abs(one["edit-01.png"] - two["edit-01.png"]).max() <= 1


def test_a_method_moves_its_edits_away(models, made, tmp_path):
    keys = {"source": "a cat", "edits": ["a boat"], "method": "noise", "checks": {"dino": "off"}}
    plain, _ = made(**keys)
    away, _ = made(**keys, negative_prompt="a hat", true_cfg=3)
    assert (plain["source.png"] == away["source.png"]).all()
    assert abs(plain["edit-01.png"] - away["edit-01.png"]).max() > 2


@pytest.mark.parametrize("side", ["edit", "pair"])
def test_a_field_moves_away_from_a_text(side):
    models = small_models()
    text = Conditioning.of(encode(models, ["a hat"]), ["a hat"])
    task = small_task(away=(text, 2.5))
    field, z = task.field, torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1))
    at = Evaluation(0, 4)
    if side == "edit":
        v = field.edit(z, 0.5, at, 3.0)
    else:
        v_source, v = field.pair(task.clean, z, 0.5, at, (1.0, 3.0))
        for row in (0, 1):
            wanted = velocity_of(task, task.clean[row], 0.5, "source", (0, 2)[row], 1.0)
            torch.testing.assert_close(v_source[row].double(), wanted, rtol=1e-4, atol=1e-4)
    against = small_task(edits=("a hat",) * 3)
    for row in range(3):
        away = velocity_of(against, z[row], 0.5, "edit", row, 3.0)
        wanted = away + 2.5 * (velocity_of(task, z[row], 0.5, "edit", row, 3.0) - away)
        torch.testing.assert_close(v[row].double(), wanted, rtol=1e-4, atol=1e-4)
    assert field.counts == [2 if side == "edit" else 4] * 3


def test_t5_reads_seconds_in_the_place_of_prompts():
    models = small_models()
    texts = encode(models, ["a cat", "a dog"], seconds={"a cat": "a red cat"})
    last = list(sample_steps(models, texts, ["a cat"], [0], SAMPLING))[-1].after
    both = Conditions(("a red cat",))
    texts = encode(models, ["a cat", *both.prompts])
    other = list(sample_steps(models, texts, ["a cat"], [0], SAMPLING, conditions=both))[-1].after
    torch.testing.assert_close(last, other)


REGIONS = [{"prompt": "the sea", "where": RIGHT}]
PHOTO = ["spec.json", "--source.image", "photo.png"]
KV = {"name": "kv-edit", "background": 2}


def test_a_method_edits_by_regions(made, models):
    """As in Python; the other edit of the batch has none."""
    edits = [{"prompt": "a boat", "regions": REGIONS}, "a dog"]
    how = {"layers": "double.*", "alone": True}
    pictures, spec = made(source="a cat", edits=edits, method="flowedit", regional=how)
    request = PhotoRequest(
        (EditSource("a cat"),),
        (SourceEdit("a boat", regions=(box_region("the sea", RIGHT, (32, 48)),)), SourceEdit("a dog")),
        SAMPLING,
        "flowedit",
        paste=False,
        regional=Regions(layers=("double.*",), alone=True),
    )
    results = {}
    for step in edit_photo_steps(models, request):
        results |= step.results
    for number, name in enumerate(("edit-01.png", "edit-02.png")):
        assert abs(pictures[name] - np.asarray(results[number].image).astype(int)).max() <= 1
    plain, _ = made(source="a cat", edits=["a boat", "a dog"], method="flowedit")
    assert abs(pictures["edit-01.png"] - plain["edit-01.png"]).max() > 2
    assert abs(pictures["edit-02.png"] - plain["edit-02.png"]).max() <= 1
    assert spec.recipe()["edits"][0]["regions"] == [{"prompt": "the sea", "where": RIGHT}]


def test_regions_of_a_photo_are_in_its_own_pixels(made, tmp_path):
    """A box, and a mask of the photo's size; at half the size they are the same part."""
    levels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    mask = np.zeros((96, 64), dtype=np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "right.png")
    source, found = {"prompt": "a cat", "image": str(tmp_path / "photo.png")}, []
    for where in ([32, 0, 64, 96], str(tmp_path / "right.png"), None):
        regions = None if where is None else [{"prompt": "the sea", "where": where}]
        found.append(made(source=source, edits=[{"prompt": "a boat", "regions": regions}])[0]["edit-01.png"])
    assert abs(found[0] - found[1]).max() <= 1 and abs(found[0] - found[2]).max() > 2
    parts = RegionPlace("the sea", (32, 0, 64, 96)).in_frame(frame_photo((64, 96), size=(32, 48)))
    assert parts.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("method", [None, "flowedit"])
def test_a_chain_goes_on_by_regions(made, method):
    """The first link obeys; the second, which asks for the same, stays where the first is."""
    edit = {"prompt": "a boat", "regions": REGIONS}
    keys = {"source": "a cat", "chain": True, "method": method}
    settings = {} if method is None else {"method": {"name": method, "guidance": 2, "source_guidance": 2}}
    pictures, spec = made(**keys | settings, edits=[edit, edit])
    plain, _ = made(**keys | settings, edits=["a boat", edit])
    assert abs(pictures["edit-01.png"] - plain["edit-01.png"]).max() > 2
    assert abs(pictures["edit-02.png"] - pictures["edit-01.png"]).max() <= 2
    assert abs(plain["edit-02.png"] - plain["edit-01.png"]).max() > 2


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"negative_prompt": "x"}, 'negative_prompt = "x": guides nothing by itself'),
        ({"edits": [{"prompt": "a", "prompt_2": "x"}, {"prompt": "a"}]}, "T5 reads another text: give both"),
        ({"regional": {"alone": True}}, "regional: is for regions: give edits regions"),
        (
            {"edits": [{"prompt": "a", "regions": REGIONS}], "method": KV, "mask": [0, 0, 16, 16]},
            "method.background = 2: weighs tokens in attention, as regions do: leave one of both out",
        ),
        (
            {"edits": [{"prompt": "a", "regions": [{"prompt": "b", "where": [0, 0, 99, 9]}]}]},
            "edits[0].regions[0].where = [0, 0, 99, 9]: lies outside a picture of 32 x 48 pixels",
        ),
        (
            {"edits": [{"prompt": "a", "regions": REGIONS}], "regional": {"layers": [99]}},
            "regional.layers[0] = 99: flux-tiny has layers 0 to 11",
        ),
        (
            {"edits": ["a"], "method": "flowedit", "two_passes": True, "negative_prompt": "", "true_cfg": 2},
            "two_passes = true: is for edits side by side: methods always take two",
        ),
        ({"chain": True, "negative_prompt": "", "true_cfg": 2}, "chain: goes on from its links by their"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(clone, tmp_path, keys, said):
    with pytest.raises(SpecError) as caught:
        spec_of(clone, tmp_path, **{"source": "a cat", "edits": ["a boat"], **keys})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_region_of_another_size_is_said_before_weights_load(tmp_path, monkeypatch, capsys):
    from flux.studies import edit
    from flux.studies.study import carry_out

    monkeypatch.setattr("flux.studies.run.load_models", lambda *_, **__: pytest.fail("weights were loaded"))
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    regions = [{"prompt": "the sea", "where": "mask.png"}]
    spec = {"source": "a cat", "edits": [{"prompt": "a boat", "regions": regions}]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    monkeypatch.chdir(tmp_path)
    assert carry_out(edit.STUDY, doc="", default=tmp_path / "spec.json") == 2
    assert "mask.png: the mask has 8 x 8 pixels and the picture 128 x 128" in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    assert carry_out(edit.STUDY, doc="", default=tmp_path / "spec.json", argv=PHOTO) == 2
    assert "regions of 'a boat': " in (said := capsys.readouterr().err) and said.count("\n") == 1
