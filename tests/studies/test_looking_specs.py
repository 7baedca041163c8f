"""Demos 0, 1 and 4 with models that look at a picture, from spec to page, on small random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers_layouts import shrink
from helpers_references import half_mask, picture, save_all_commands_load
from PIL import Image

from flux.conditions import Conditions
from flux.files import sha256_of
from flux.generate import Sampling, generate
from flux.hooks import CopySource
from flux.methods.stable_flow import Edit, EditRequest, edit
from flux.modules.image_embedders import DepthImageEncoder, ReduxImageEncoder
from flux.photos.editing import PhotoRequest, SourceEdit, edit_photo_steps
from flux.photos.sources import EditSource
from flux.pictures.files import to_pil
from flux.pictures.looked_at import LookedAt
from flux.pictures.referencing import make_references
from flux.studies import edit as edit_study
from flux.studies import text, timesteps
from flux.studies.edit import making
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec
from flux.studies.study import carry_out
from flux.studies.sweep.place import setting_of
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.run import RUN as TEXT
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.run import RUN as TIMESTEPS
from flux.studies.timesteps.spec import LayerSpec
from flux.util import load_models

TASKS = {
    "kontext": ("flux-dev-kontext", "kontext"),
    "fill": ("flux-dev-fill", "fill"),
    "canny": ("flux-dev-canny", "control"),
    "depth": ("flux-dev-depth", "control"),
    "redux": ("flux-dev-redux", "redux"),
}
EVERY = pytest.mark.parametrize("task", TASKS)
WIDTH, HEIGHT = 96, 64
SAMPLING = Sampling(2, 2.5, WIDTH, HEIGHT)
FEW = {"steps": 2, "guidance": 2.5, "width": WIDTH, "height": HEIGHT}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_all_commands_load(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def here(weights, tmp_path, monkeypatch):
    """The working folder, with pictures; all weights are found by their variables."""
    monkeypatch.chdir(tmp_path)
    shrink(monkeypatch)
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", [(64, 112), (96, 80), (112, 64)])
    monkeypatch.setattr(DepthImageEncoder, "depth_model_name", str(weights / "depth"))
    monkeypatch.setattr(ReduxImageEncoder, "siglip_model_name", str(weights / "siglip"))
    names = {"AE": "ae.safetensors", "T5": "text_encoder_2", "CLIP": "text_encoder"}
    for part, name in names.items():
        monkeypatch.setenv(f"FLUX_{part}", str(weights / name))
    picture(WIDTH, HEIGHT, 1).save(tmp_path / "cup.png")
    picture(60, 100, 2).save(tmp_path / "tall.png")
    half_mask(WIDTH, HEIGHT).save(tmp_path / "mask.png")
    (tmp_path / "broken.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def model(here, weights, monkeypatch):
    """`model("fill")`: a spec's key of a task's model, whose weights are to be found."""

    def named(task: str) -> dict[str, str]:
        name, file = TASKS[task]
        monkeypatch.setenv("FLUX_MODEL", str(weights / f"{file}.safetensors"))
        if task == "redux":
            monkeypatch.setenv("FLUX_REDUX", str(weights / "projector.safetensors"))
        return {"name": name, "device": "cpu"}

    return named


def key_of(task: str, file: str = "cup.png") -> str | dict[str, str]:
    return {"picture": file, "mask": "mask.png"} if task == "fill" else file


def loaded(task: str, here: Path, file: str = "cup.png"):
    """The models of a task, and what they see of a picture."""
    models = load_models(TASKS[task][0], device="cpu")
    seen = LookedAt(here / file, here / "mask.png" if task == "fill" else None)
    return models, make_references(models.spec.reference, models, [seen], HEIGHT, WIDTH)[seen]


def levels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def opened(file: Path) -> np.ndarray:
    return levels(Image.open(file))


def assert_same(found: np.ndarray, expected) -> None:
    assert abs(found - levels(expected)).max() <= 1


@EVERY
def test_demo_0(model, here, task, capsys):
    """As `generate` makes it with the reference; the record and the page say what was looked at."""
    values = {**FEW, "model": model(task), "prompts": ["a boat"], "reference": key_of(task)}
    spec = load_spec(TestSpec, None, values)
    TEXT.make(spec)
    models, seen = loaded(task, here)
    expected = generate(models, ["a boat"], [0], SAMPLING, conditions=Conditions(references=(seen,)))[0]
    assert_same(opened(spec.output / "picture-01-seed-0.png"), to_pil(expected))
    record = json.loads((spec.output / "run.json").read_text())
    assert record["spec"]["reference"]["sha256"] == sha256_of(here / "cup.png")
    assert load_spec(TestSpec, None, record["spec"]).recipe() == spec.recipe()
    assert "looking at cup.png" in (spec.output / "index.html").read_text()
    assert ("encoders" in record["setting"]) == (task in ("depth", "redux"))
    said = TEXT.describe(spec)
    encoder = {"depth": "Depth Anything", "redux": "SigLIP"}.get(task)
    assert "looking at cup.png" in said and (encoder is None or f"  {encoder}" in said)


def test_prompts_of_a_table_each_with_its_picture(model, here):
    """What Kontext sees in two sizes does not run side by side; paths are relative to the table."""
    (here / "below").mkdir()
    (here / "below" / "p.csv").write_text("prompt,picture\na boat,../cup.png\na hat,../tall.png\nan oar,\n")
    values = {**FEW, "model": model("kontext"), "prompts": "below/p.csv", "reference": "cup.png"}
    spec = load_spec(TestSpec, None, values)
    TEXT.make(spec)
    for number, prompt, file in (
        (1, "a boat", "cup.png"),
        (2, "a hat", "tall.png"),
        (3, "an oar", "cup.png"),
    ):
        models, seen = loaded("kontext", here, file)
        expected = generate(models, [prompt], [0], SAMPLING, conditions=Conditions(references=(seen,)))[0]
        assert_same(opened(spec.output / f"picture-{number:02}-seed-0.png"), to_pil(expected))


def test_demo_1_watches_the_pictures_own_tokens(model, here):
    watch = {"points": [[40, 20]], "words": ["boat"]}
    values = {**FEW, "model": model("kontext"), "prompt": "a boat", "reference": "cup.png", "watch": watch}
    spec = load_spec(LayerSpec, None, {**values, "attention": [1]})
    TIMESTEPS.make(spec)
    models, seen = loaded("kontext", here)
    expected = generate(models, ["a boat"], [0], SAMPLING, conditions=Conditions(references=(seen,)))[0]
    assert_same(opened(spec.output / "picture.png"), to_pil(expected))
    assert Image.open(spec.output / "attention" / "double.1" / "step-01.png").size == (WIDTH, HEIGHT)
    assert "reference" in json.loads((spec.output / "run.json").read_text())["spec"]
    without = load_spec(LayerSpec, None, {**values, "reference": None})
    assert "reference" not in without.recipe()


EDIT = {**FEW, "source": "a boat", "edits": ["a hat"], "paste": False, "checks": {"dino": "off"}}


@EVERY
def test_demo_4_side_by_side(model, here, task):
    values = {**EDIT, "model": model(task), "layers": [0, 3], "reference": key_of(task)}
    spec = load_spec(EditSpec, None, values)
    making.make(spec)
    models, seen = loaded(task, here)
    request = EditRequest("a boat", (Edit("a hat", (0, 3), CopySource()),), SAMPLING, reference=seen)
    made = edit(models, request)
    for name, expected in (
        ("source.png", made.source),
        ("edit-01.png", made.edits[0]),
        ("plain-01.png", made.plain[0]),
    ):
        assert_same(opened(spec.output / name), to_pil(expected))
    assert spec.recipe()["reference"]["sha256"] == sha256_of(here / "cup.png")


@EVERY
def test_demo_4_by_a_method_on_photos(model, here, task):
    """Each source may look at a picture of its own."""
    other = {} if task == "fill" else {"reference": "tall.png"}
    sources = [{"image": "cup.png", "prompt": "a boat", **more} for more in ({}, other)]
    values = {**FEW, "model": model(task), "sources": sources, "edits": ["a hat"], "method": "flowedit"}
    values |= {"reference": key_of(task), "paste": False, "checks": {"dino": "off"}}
    spec = load_spec(EditSpec, None, values)
    making.make(spec)
    for place, file in (("01-cup", "cup.png"), ("02-cup", other.get("reference", "cup.png"))):
        models, seen = loaded(task, here, file)
        request = PhotoRequest(
            (EditSource("a boat", here / "cup.png"),),
            (SourceEdit("a hat"),),
            SAMPLING,
            "flowedit",
            {"guidance": 2.5},
            paste=False,
            reference=seen,
        )
        (result,) = (each for step in edit_photo_steps(models, request) for each in step.results.values())
        assert_same(opened(spec.output / place / "edit-01.png"), result.image)


@pytest.mark.parametrize("method", [None, "flowedit"])
def test_a_chain_looks_at_one_picture(model, here, method):
    """Its first link is what the edit is by itself; and every link differs from one that looks at another."""
    values = {**EDIT, "model": model("kontext"), "edits": ["a hat", "an oar"], "method": method}
    values |= {} if method else {"layers": [0, 3]}
    made = {}
    for name, more in {
        "chain": {"chain": True},
        "alone": {},
        "other": {"chain": True, "reference": "tall.png"},
    }.items():
        spec = load_spec(EditSpec, None, {**values, "reference": "cup.png", "output": name, **more})
        making.make(spec)
        made[name] = spec.output
    first = opened(made["chain"] / "source.png")
    assert abs(first - opened(made["alone"] / "source.png")).max() <= 1
    if method:
        alone = opened(made["alone"] / "edit-01.png")
        assert abs(opened(made["chain"] / "edit-01.png") - alone).max() <= 1
    for name in ("edit-01.png", "edit-02.png"):
        assert abs(opened(made["chain"] / name) - opened(made["other"] / name)).max() > 2


TEST, LAYER = {"prompts": ["a"]}, {"prompt": "a"}


@pytest.mark.parametrize(
    "kind, name, values, said",
    [
        (
            TestSpec,
            "flux-tiny",
            {**TEST, "reference": "cup.png"},
            ": flux-tiny looks at no picture",
        ),
        (TestSpec, "flux-dev-fill", TEST, "reference: missing: flux-dev-fill looks at a picture"),
        (LayerSpec, "flux-dev-depth", LAYER, "reference: missing: flux-dev-depth looks at a picture"),
        (
            EditSpec,
            "flux-dev-redux",
            EDIT,
            "reference: missing: flux-dev-redux looks at a picture: name it, as in --reference cup.png",
        ),
        (TestSpec, "flux-dev-kontext", {**TEST, "reference": "none.png"}, "no such file: {here}/none.png"),
        (LayerSpec, "flux-dev-canny", {**LAYER, "reference": "broken.png"}, "broken.png: it is no picture"),
        (
            EditSpec,
            "flux-dev-fill",
            {**EDIT, "reference": "cup.png"},
            "reference.mask: missing: name a picture of the same size",
        ),
        (
            EditSpec,
            "flux-dev-fill",
            {**EDIT, "width": 64, "reference": {"picture": "cup.png", "mask": "mask.png"}},
            "has 96 x 64 pixels, and 64 x 64 are made",
        ),
        (
            TestSpec,
            "flux-dev-fill",
            {**TEST, "reference": {"mask": "mask.png"}},
            "reference.picture: missing: flux-dev-fill looks at a picture",
        ),
        (
            TestSpec,
            "flux-dev-fill",
            {"prompts": [{"prompt": "a", "mask": "mask.png"}]},
            "prompts[0].picture: missing: flux-dev-fill looks at a picture",
        ),
        (
            TestSpec,
            "flux-dev-kontext",
            {**TEST, "reference": {"picture": "cup.png", "mask": "mask.png"}},
            ": is for Fill models, and the model is flux-dev-kontext",
        ),
        (
            TestSpec,
            "flux-dev-kontext",
            {"prompts": [{"prompt": "a", "picture": "cup.png"}, "b"]},
            "prompts[1].picture: missing: each prompt needs one, or none",
        ),
        (
            TestSpec,
            "flux-dev-kontext",
            {**TEST, "reference": {"picture": "cup.png", "sha256": "0" * 64}},
            "is another file than sha256 says",
        ),
        (
            TestSpec,
            "flux-dev-redux",
            {**TEST, "reference": "cup.png", "regions": [{"prompt": "b", "where": [0, 0, 48, 64]}]},
            "regions: have texts of their own, and flux-dev-redux reads its picture as text",
        ),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(here, kind, name, values, said):
    with pytest.raises(SpecError) as told:
        load_spec(kind, None, {**FEW, **values, "model": name, "guidance": None})
    assert said.replace("{here}", str(here)) in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "study, words, said",
    [
        (text, "--model flux-dev-kontext --reference none.png", '--reference.picture = "none.png": no such'),
        (timesteps, "--model flux-dev-canny --reference broken.png", "it is no picture of a kind"),
        (
            edit_study,
            "--model flux-dev-fill --reference.picture cup.png --reference.mask mask.png"
            " --source.image cup.png --fit crop --width 64 --height 64",
            "cup.png: has 96 x 64 pixels, and 64 x 64 are made: ask for the picture's width",
        ),
    ],
)
def test_typed_and_refused_before_weights_load(here, study, words, said, monkeypatch, capsys):
    monkeypatch.setattr("flux.studies.run.load_models", lambda *_, **__: pytest.fail("weights were loaded"))
    (here / "spec.json").write_text(
        json.dumps({text: TEST, timesteps: LAYER, edit_study: {"source": "a", "edits": ["b"]}}[study])
    )
    try:
        code = carry_out(study.STUDY, doc="", default=here / "spec.json", argv=["spec.json", *words.split()])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and said in err and err.count("\n") == 1, err


@pytest.mark.parametrize("task", ["depth", "redux"])
def test_a_sweep_is_of_the_model_that_looks(model, here, weights, tmp_path, task, monkeypatch):
    """Other weights of Depth Anything or SigLIP make another sweep; where they lie does not."""
    kind, name = {
        "depth": (DepthImageEncoder, "depth_model_name"),
        "redux": (ReduxImageEncoder, "siglip_model_name"),
    }[task]
    folder = {"depth": "depth", "redux": "siglip"}[task]
    prompts = [{"prompt": "a", "picture": "cup.png"}]
    spec = load_spec(SkipSpec, None, {**FEW, "model": model(task), "prompts": prompts, "layers": [0]})
    first = setting_of(spec)["weights"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (weights / folder).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(kind, name, str(copy))
    assert setting_of(spec)["weights"] == first
    changed = bytearray((copy / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(changed))
    second = setting_of(spec)["weights"]
    assert {key for key in first if first[key] != second[key]} == {
        {"depth": "Depth Anything", "redux": "SigLIP"}[task]
    }
