"""Sweeps of models that look at a picture: demo 2 takes one per prompt, on small random weights."""

import json
from dataclasses import replace

import pytest
import torch
from helpers_layouts import shrink
from helpers_models import SMALL_AE, random_state, save_text_encoders, save_weights
from helpers_references import (
    ae,
    flow,
    flow_params,
    half_mask,
    picture,
    random_flow_state,
    redux_state,
    save_redux,
    save_siglip,
    t5_and_clip,
)

from flux.conditions import Conditions
from flux.files import sha256_of
from flux.generate import Sampling, encode, sample_steps
from flux.models import configs
from flux.modules.autoencoder import AutoEncoder
from flux.modules.image_embedders import ReduxImageEncoder
from flux.pictures.files import to_pil
from flux.pictures.looked_at import LookedAt
from flux.pictures.opening import open_picture
from flux.pictures.referencing import make_references
from flux.probes import hooks_of
from flux.sampling import unpack
from flux.studies.reading import SpecError, load_spec
from flux.studies.sweep import make, run
from flux.studies.sweep.cells import Cell, CellPart, plan
from flux.studies.sweep.engines.local import local
from flux.studies.sweep.spec import SkipSpec
from flux.weights.identity import weights_id
from flux.weights.load import Models

MODELS = {
    "kontext": "flux-dev-kontext",
    "fill": "flux-dev-fill",
    "control": "flux-dev-canny",
    "redux": "flux-dev-redux",
}
WIDTH, HEIGHT = 96, 64
SAMPLING = Sampling(2, 2.5, WIDTH, HEIGHT)
SETTING = {"device": "cpu", "dtype": "float32", "weights": {}}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Small records, sizes of Kontext, and two pictures with a mask in the working folder."""
    monkeypatch.chdir(tmp_path)
    shrink(monkeypatch)
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", [(64, 112), (96, 80), (112, 64)])
    monkeypatch.setattr(ReduxImageEncoder, "siglip_model_name", str(save_siglip(tmp_path / "siglip")))
    monkeypatch.setenv("FLUX_REDUX", str(save_redux(tmp_path / "redux.safetensors")))
    for name, seed in (("one.png", 1), ("two.png", 2)):
        picture(WIDTH, HEIGHT, seed).save(tmp_path / name)
    picture(60, 100).save(tmp_path / "tall.png")
    half_mask(WIDTH, HEIGHT).save(tmp_path / "mask.png")


def spec_of(task: str = "kontext", **values) -> SkipSpec:
    """Two prompts, each with its picture, unless other ones are given."""
    mask = {"mask": "mask.png"} if task == "fill" else {}
    prompts = [
        {"prompt": "a boat", "picture": "one.png", **mask},
        {"prompt": "a hat", "picture": "two.png", **mask},
    ]
    asked = {"model": MODELS.get(task, task), "prompts": prompts, "layers": [0, 3], "steps": 2, **values}
    return load_spec(
        SkipSpec, None, {"width": WIDTH, "height": HEIGHT, "batch": 2, "noise_floor": 0, **asked}
    )


def models_of(task: str) -> Models:
    t5, clip = t5_and_clip()
    spec = replace(configs[MODELS[task]], params=flow_params(task), ae_params=SMALL_AE)
    parts = {"t5": t5, "clip": clip, "device": torch.device("cpu"), "dtype": torch.float32}
    return Models(name=MODELS[task], flow=flow(task), ae=ae(), spec=spec, **parts)


def swept(folder, spec: SkipSpec, models: Models):
    """The plan of a spec, made in a folder."""
    folder.mkdir(exist_ok=True)
    asked = plan(json.loads(json.dumps(spec.recipe())), SETTING)
    with local(make.Job(folder, asked, SAMPLING, load=lambda: models), workers=1) as work:
        done = list(work(asked.tasks))
    assert not any(each.error for each in done), done
    return asked


def levels(image) -> torch.Tensor:
    return torch.tensor(list(image.tobytes()), dtype=torch.int32)


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("probe", ["skip", "hide"])
def test_a_cell_is_made_with_its_prompts_picture(tmp_path, task, probe):
    """As sampling gives it by hand: with the two references side by side, and the layer changed."""
    if probe == "hide" and task != "kontext":
        pytest.skip("the others have no reference tokens")
    models = models_of(task)
    asked = swept(tmp_path / "run", spec_of(task, probe=probe), models)
    mask = tmp_path / "mask.png" if task == "fill" else None
    seen = [LookedAt(tmp_path / name, mask) for name in ("one.png", "two.png")]
    made = make_references(models.spec.reference, models, seen, HEIGHT, WIDTH)
    conditions = Conditions(references=tuple(made[each] for each in seen))
    texts, prompts = encode(models, ["a boat", "a hat"]), ["a boat", "a hat"]
    for part in (None, (3,)):
        hooks = None if part is None else hooks_of(probe, part)
        *_, step = sample_steps(models, texts, prompts, [0, 1], SAMPLING, hooks=hooks, conditions=conditions)
        for prompt in (0, 1):
            cell = Cell(prompt, CellPart(part, word=probe)) if part else Cell(prompt)
            assert cell in asked.cells
            found = open_picture(tmp_path / "run" / cell.file)
            with torch.no_grad():
                expected = to_pil(models.ae.decode(unpack(step.after[prompt][None], HEIGHT, WIDTH))[0])
            assert (levels(found) - levels(expected)).abs().max() <= 2, cell
    reference, changed = (
        open_picture(tmp_path / "run" / cell.file) for cell in (Cell(0), Cell(0, CellPart((3,), word=probe)))
    )
    assert (levels(reference) - levels(changed)).abs().float().mean() > 0.5


def test_a_source_looks_at_its_prompts_picture(tmp_path):
    swept(tmp_path / "run", spec_of(probe="carry"), models_of("kontext"))
    assert (tmp_path / "run" / Cell(0, source=True).file).is_file()


def test_the_picture_is_part_of_a_cells_identity(tmp_path):
    recipe = json.loads(json.dumps(spec_of().recipe()))
    assert recipe["prompts"][0]["sha256"] == sha256_of(tmp_path / "one.png")
    assert json.loads(json.dumps(load_spec(SkipSpec, None, recipe).recipe())) == recipe
    first = plan(recipe, SETTING).identities
    picture(WIDTH, HEIGHT, 9).save(tmp_path / "one.png")
    with pytest.raises(SpecError, match=r"prompts\[0\].picture.*is another file than sha256 says"):
        load_spec(SkipSpec, None, recipe)
    second = plan(json.loads(json.dumps(spec_of().recipe())), SETTING).identities
    assert all(first[cell] != second[cell] for cell in first)
    # Where it lies does not count.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "again.png").write_bytes((tmp_path / "one.png").read_bytes())
    prompts = [
        {"prompt": "a boat", "picture": "elsewhere/again.png"},
        {"prompt": "a hat", "picture": "two.png"},
    ]
    moved = plan(json.loads(json.dumps(spec_of(prompts=prompts).recipe())), SETTING).identities
    assert moved == second


def test_recipes_without_pictures_are_what_they_were():
    recipe = spec_of("flux-tiny", prompts=["a"], width=64, height=64).recipe()
    assert recipe["prompts"] == [{"prompt": "a", "seed": 0}]
    assert spec_of("kontext", prompts=["a"]).recipe()["prompts"] == [{"prompt": "a", "seed": 0}]


ONE = {"prompt": "a", "picture": "one.png"}


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        (
            "flux-tiny",
            {"prompts": [ONE]},
            ": flux-tiny looks at no picture",
        ),
        ("fill", {"prompts": ["a"]}, "prompts[0].picture: missing: flux-dev-fill looks at a picture"),
        ("fill", {"prompts": [ONE]}, "prompts[0].mask: missing: name a picture of the same size"),
        (
            "fill",
            {"prompts": [{**ONE, "mask": "tall.png"}]},
            "prompts[0].mask: {here}/tall.png: has 60 x 100 pixels, the picture 96 x 64",
        ),
        (
            "fill",
            {"prompts": [{**ONE, "mask": "mask.png"}], "width": 64},
            "has 96 x 64 pixels, and 64 x 64 are made",
        ),
        (
            "kontext",
            {"prompts": [{**ONE, "mask": "mask.png"}]},
            "is for Fill models, and the model is flux-dev-k",
        ),
        ("kontext", {"prompts": [ONE, "b"]}, "prompts[1].picture: missing: each prompt needs one, or none"),
        (
            "kontext",
            {"prompts": [ONE, {"prompt": "b", "picture": "tall.png"}]},
            "batch = 2: pictures seen as 64 x 112, 112 x 64 cannot run side by side: use 1",
        ),
        ("kontext", {"prompts": [{"prompt": "a", "picture": "none.png"}]}, "no such file"),
        (
            "kontext",
            {"prompts": [{"prompt": "a", "picture": "mine.png"}]},
            "prompts[0].picture: {here}/mine.png: ",
        ),
        ("kontext", {"prompts": ["a"], "probe": "hide"}, 'probe "hide" needs a picture to look at'),
        ("control", {"probe": "hide"}, "is about reference tokens, and flux-dev-canny has none"),
    ],
)
def test_pictures_that_make_no_sense(tmp_path, task, values, words):
    (tmp_path / "mine.png").write_text("no picture")
    with pytest.raises(SpecError) as told:
        spec_of(task, **values)
    assert words.replace("{here}", str(tmp_path)) in str(told.value) and "\n" not in str(told.value)


def test_a_whole_sweep_on_kontext(tmp_path, monkeypatch, capsys):
    """From files of weights to the page, with one line for each cell; a second run makes nothing."""
    save_text_encoders(tmp_path)
    file = save_weights(tmp_path / "k.safetensors", random_flow_state("kontext"))
    monkeypatch.setenv("FLUX_MODEL", str(file))
    state = random_state(AutoEncoder, SMALL_AE, 1)
    monkeypatch.setenv("FLUX_AE", str(save_weights(tmp_path / "ae.safetensors", state)))
    monkeypatch.setenv("FLUX_T5", str(tmp_path / "text_encoder_2"))
    monkeypatch.setenv("FLUX_CLIP", str(tmp_path / "text_encoder"))
    monkeypatch.delenv("FLUX_REDUX")
    spec = spec_of(probe="hide", model={"name": "flux-dev-kontext", "device": "cpu"}, output="swept")
    assert "6 cells: 2 references" in run.describe(spec)
    assert run.make(spec) == 0
    made = sorted(
        str(file.relative_to(tmp_path / "swept")) for file in tmp_path.glob("swept/pictures/*/*.png")
    )
    assert made == [
        f"pictures/000{prompt}/{name}.png"
        for prompt in (0, 1)
        for name in ("hide-00", "hide-03", "reference")
    ]
    assert run.make(spec) == 0 and "made already" in capsys.readouterr().out


def test_the_weights_of_models_that_stand_on_others(tmp_path, monkeypatch):
    """Their base's flow file, and what stands beside it, make their identity."""
    save_text_encoders(tmp_path)
    for variable, name in (("FLUX_T5", "text_encoder_2"), ("FLUX_CLIP", "text_encoder")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv(
        "FLUX_MODEL", str(save_weights(tmp_path / "k.safetensors", random_flow_state("redux")))
    )
    state = random_state(AutoEncoder, SMALL_AE, 1)
    monkeypatch.setenv("FLUX_AE", str(save_weights(tmp_path / "ae.safetensors", state)))
    first = weights_id(configs["flux-dev-redux"], None)
    assert {"flow model", "image projector"} <= first.keys()
    changed = {key: x + 1 for key, x in redux_state().items()}
    save_weights(tmp_path / "redux.safetensors", changed)
    second = weights_id(configs["flux-dev-redux"], None)
    assert first["flow model"] == second["flow model"]
    assert first["image projector"] != second["image projector"]
