"""LoRAs with every command: spec keys, flags, FLUX_LORA, what a run records, and what is refused at once."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_loras import TINY, kohya, noise, save, tiny_lora, updates
from helpers_models import SMALL_AE, SMALL_FLOW, random_state
from PIL import Image

from flux import util
from flux.cli import app
from flux.files import sha256_of
from flux.lora.applying import LIVE
from flux.model import Flux
from flux.models import configs
from flux.modules.autoencoder import AutoEncoder
from flux.outcome import one_line_warnings
from flux.studies.edit.run import found_on_other_weights
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.run import load, lora_digests, lora_id
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.place import setting_of
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec
from flux.util import load_models
from flux.weights.identity import weights_id
from flux.weights.load import _read_loras

SPECS = {
    TestSpec: {"prompts": ["a"]},
    LayerSpec: {"prompt": "a"},
    SkipSpec: {"prompts": ["a"]},
    EditSpec: {"source": "a", "edits": ["b"]},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLUX_LORA", raising=False)


@pytest.fixture
def style(tmp_path):
    return tiny_lora(tmp_path / "style.safetensors")


def spec_of(kind, model=None, typed=(), tmp_path=None):
    Path("my.json").write_text(json.dumps({**SPECS[kind], **({"model": model} if model else {})}))
    return read_command(kind, doc="", default=Path("my.json"), argv=list(typed)).spec


def as_pairs(spec):
    return [(each.file.name, each.scale) for each in spec.model.lora or ()]


@pytest.mark.parametrize("kind", SPECS)
def test_every_spec_takes_them(kind, style, tmp_path):
    other = tiny_lora(tmp_path / "other.safetensors", seed=90)
    for lora, found in (
        ("style.safetensors", [("style.safetensors", 1.0)]),
        ("style.safetensors:0.5", [("style.safetensors", 0.5)]),
        ({"file": str(style), "scale": -2}, [("style.safetensors", -2.0)]),
        (["style.safetensors", "other.safetensors:2"], [("style.safetensors", 1), ("other.safetensors", 2)]),
        ("style.safetensors:0.3,other.safetensors", [("style.safetensors", 0.3), ("other.safetensors", 1)]),
        ([], []),
    ):
        spec = spec_of(kind, {"lora": lora})
        assert as_pairs(spec) == found
        again = kind.model_validate(json.loads(json.dumps(spec.as_json())))
        assert again.as_json() == spec.as_json() and as_pairs(again) == found
    for typed in (["--lora", "style.safetensors:0.5", "other.safetensors"], ["--lora=style.safetensors:0.5"]):
        found = as_pairs(spec_of(kind, typed=typed))
        assert found == [("style.safetensors", 0.5), ("other.safetensors", 1.0)][: len(typed) - 1 or 1]
    assert spec_of(kind, typed=["--model.lora", str(other), "--lora_live"]).model.lora_live is True


def test_without_loras_a_recipe_is_as_it_was(style):
    spec = spec_of(TestSpec)
    assert spec.model.as_json().keys() == {"name", "weights", "device", "dtype", "offload"}
    assert lora_digests(spec) == {}


def test_demo_3_knows_no_model(tmp_path):
    with pytest.raises(SystemExit) as end:
        read_command(DinoSpec, doc="", default=tmp_path / "x.json", argv=["--lora", "a.safetensors"])
    assert end.value.code == 2


def test_the_variable_is_in_the_spec(style, monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX_LORA", "style.safetensors:0.25")
    spec = spec_of(TestSpec)
    assert as_pairs(spec) == [("style.safetensors", 0.25)] and spec.model.lora[0].file == style
    assert as_pairs(spec_of(TestSpec, {"lora": []})) == []
    assert as_pairs(spec_of(TestSpec, {"lora": str(style)})) == [("style.safetensors", 1.0)]


def big(tmp_path):
    return save(tmp_path / "big.safetensors", kohya(updates(SMALL_FLOW)))


def test_what_a_spec_names_is_looked_at_before_torch_is_there(style, tmp_path):
    """A LoRA of another model is refused in a process in which no torch can be imported."""
    big(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flux.studies.reading import load_spec\nfrom flux.studies.text.spec import TestSpec\n"
        "load_spec(TestSpec, 'my.json')"
    )
    for lora, said in (
        (
            "big.safetensors",
            "model.lora[0].file: {here}/big.safetensors does not fit flux-tiny: its lora_unet",
        ),
        ("gone.safetensors", 'model.lora.file = "gone.safetensors": no such file or folder: {here}'),
        (
            [{"file": str(style), "scale": 1e9}],
            "model.lora[0].scale = 1000000000.0: must be between -100 and",
        ),
        ({"scale": 1}, "model.lora.file: missing: the LoRA's file"),
        (3, "model.lora = 3: must be an object with the keys file, scale"),
    ):
        (tmp_path / "my.json").write_text(json.dumps({"prompts": ["a"], "model": {"lora": lora}}))
        with pytest.raises(SpecError) as error:
            load_spec(TestSpec, "my.json")
        assert str(error.value).startswith(f"my.json: {said}".replace("{here}", str(tmp_path)))
    (tmp_path / "my.json").write_text(json.dumps({"prompts": ["a"], "model": {"lora": "big.safetensors"}}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "does not fit flux-tiny" in done.stderr


def test_a_name_that_no_file_can_have_is_no_traceback(tmp_path, capsys):
    (tmp_path / "my.json").write_text("{}")
    for name in ("a" * 1000, "a" * 1000 + ":0.5", "b:0.5," + "a" * 1000):
        argv = ["--prompts", "a", "--model.lora", name]
        with pytest.raises(SystemExit, match="2"):
            read_command(TestSpec, doc="", default=tmp_path / "my.json", argv=argv)
        assert "cannot be a path" in capsys.readouterr().err


def test_a_wrong_variable_stops_all_models_but_the_packages_own(style, monkeypatch, tmp_path, capsys):
    for name in (big(tmp_path).name, "gone.safetensors"):
        monkeypatch.setenv("FLUX_LORA", name)
        assert spec_of(TestSpec).model.lora is None
        with one_line_warnings():
            models = load_models("flux-tiny", device="cpu", prompts=["a"])
        said = capsys.readouterr().err
        assert (
            models.loras == () and said.count("\n") == 1 and said.startswith("note: FLUX_LORA is left out: ")
        )
        assert name in said
        with pytest.raises(SystemExit):
            spec_of(TestSpec, {"name": "flux-dev"})
        assert f"{name}" in capsys.readouterr().err
        with pytest.raises(ValueError, match=name):
            load_models("flux-dev", device="cpu")


def test_a_variable_that_is_not_used_is_said(style, monkeypatch, tmp_path):
    other = tiny_lora(tmp_path / "other.safetensors", seed=90)
    monkeypatch.setenv("FLUX_LORA", str(style))
    with pytest.warns(
        UserWarning, match="FLUX_LORA is set and not used: other LoRAs are asked for, other.saf"
    ):
        load_models("flux-tiny", device="cpu", prompts=["a"], lora=str(other))
    with pytest.warns(UserWarning, match="FLUX_LORA is set and not used: no LoRA is asked for"):
        load_models("flux-tiny", device="cpu", prompts=["a"], lora=[])
    assert [each.file for each in load_models("flux-tiny", device="cpu", prompts=["a"]).loras] == [style.name]


def test_a_scripts_loader_leaves_plain_models_as_they_are(style, monkeypatch, recwarn):
    """As upstream's does, whatever the variable names; and says so. `load_models` has the LoRA."""
    plain = util.load_flow_model("flux-tiny", "cpu").state_dict()
    monkeypatch.setenv("FLUX_LORA", str(style))
    assert not [each for each in recwarn if "FLUX_LORA" in str(each.message)]
    with pytest.warns(
        UserWarning, match="FLUX_LORA is set and not used: load_flow_model loads flux-tiny as it is"
    ):
        again = util.load_flow_model("flux-tiny", "cpu").state_dict()
    assert all(torch.equal(again[key], plain[key]) for key in plain)
    changed = load_models("flux-tiny", device="cpu", dtype="float32", prompts=["a"]).flow.state_dict()
    assert any(not torch.equal(changed[key].float(), plain[key].float()) for key in plain)


def test_the_lora_that_a_model_is_made_of_is_looked_at_first(small_lora_model, monkeypatch):
    """By its header: no encoder and no base has been read."""
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *args, **kwargs: pytest.fail("read"))
    for state, said in (
        (
            {"img_in.lora_A.weight": noise(4, 64), "img_in.lora_B.weight": noise(64, 4)},
            "misshapen: img_in.lora_A",
        ),
        ({"img_in.lora_A.weight": noise(4, 128)}, "has lora_A and no lora_B"),
        (kohya(updates(SMALL_FLOW, rank=500, only=lambda n: n == "txt_in")), "rank 500 for lora_unet_txt_in"),
    ):
        monkeypatch.setenv("FLUX_LORA", str(save(small_lora_model / "lora.safetensors", state)))
        with pytest.raises(ValueError, match=said):
            load_models("flux-dev-canny-lora", device="cpu")


@pytest.fixture
def small_lora_model(tmp_path, monkeypatch):
    """A folder with the base of a small flux-dev-canny-lora."""
    for name, channels in (("flux-dev", 64), ("flux-dev-canny-lora", 128)):
        params = replace(SMALL_FLOW, in_channels=channels)
        monkeypatch.setitem(
            configs, name, replace(configs[name], params=params, lora_rank=4, ae_params=SMALL_AE)
        )
    monkeypatch.setenv("FLUX_MODEL", str(save(tmp_path / "base.safetensors", random_state(Flux, SMALL_FLOW))))
    monkeypatch.setenv("FLUX_AE", str(save(tmp_path / "ae.safetensors", random_state(AutoEncoder, SMALL_AE))))
    return tmp_path


def test_models_that_are_made_of_a_lora_keep_the_variable(monkeypatch):
    monkeypatch.setenv("FLUX_LORA", "gone.safetensors")
    for name in ("flux-dev-canny-lora", "flux-dev-depth-lora"):
        assert configs[name].lora_filename
        assert _read_loras(name, configs[name], None) == ()


def test_a_file_is_read_before_the_weights(tmp_path, monkeypatch):
    """NaN is in no header, and is found before the first encoder is read."""
    state = kohya(updates(TINY.params, only=lambda name: name == "img_in"))
    state["lora_unet_img_in.lora_up.weight"][3, 1] = float("nan")
    file = save(tmp_path / "nan.safetensors", state)
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *args, **kwargs: pytest.fail("read"))
    with pytest.raises(ValueError, match="nan.safetensors holds numbers that are none in lora_unet_img_in"):
        load_models("flux-tiny", device="cpu", lora=str(file))


def carried_out(demo, *words):
    file = next((Path(__file__).parents[2] / "demos").glob(f"demo_{demo}_*.py"))
    return runpy.run_path(str(file))["main"]([*words])


SMALL = ("--steps", "2", "--width", "64", "--height", "64", "--model.dtype", "float32")
SWEEP = ("--prompts", "a red house", "--layers", "0", "5", *SMALL)


def pictures_in(folder):
    return {each.relative_to(folder): np.asarray(Image.open(each)) for each in sorted(folder.rglob("*.png"))}


def test_sweeps_and_edits_with_live_loras(style, tmp_path):
    """Cells differ from those without, and are those of the merged LoRA, up to how sums are rounded."""
    made = {}
    for name, flags in (("plain", []), ("merged", ["--lora", str(style)]), ("live", ["--lora", str(style)])):
        flags = [*flags, "--lora_live"] if name == "live" else flags
        assert carried_out(2, *SWEEP, *flags, "--output", str(tmp_path / name)) == 0
        made[name] = pictures_in(tmp_path / name)
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert [each["sha256"] for each in record["setting"].get("lora", [])] == (
            [] if name == "plain" else [sha256_of(style)]
        )
    assert made["live"].keys() == made["merged"].keys() == made["plain"].keys() and len(made["live"]) > 3
    for name, picture in made["live"].items():
        if picture.shape == made["merged"][name].shape and "sheet" not in str(name):
            far = np.abs(picture.astype(int) - made["merged"][name]).mean()
            assert far < 1 < np.abs(picture.astype(int) - made["plain"][name]).mean()
    edit = (
        "--source",
        "a red house",
        "--edits",
        '["a blue house"]',
        *SMALL,
        "--lora",
        str(style),
        "--lora_live",
    )
    assert carried_out(4, *edit, "--output", str(tmp_path / "edit")) == 0
    assert len(json.loads((tmp_path / "edit" / "run.json").read_text())["setting"]["lora"]) == 1


@pytest.mark.parametrize("live", [False, True])
def test_a_spec_says_whether_they_are_live(style, live):
    spec = spec_of(TestSpec, {"lora": str(style), "lora_live": live, "device": "cpu"})
    models = load(spec, ["a"])
    assert any(hasattr(module, LIVE) for module in models.flow.modules()) == live
    assert [each.scale for each in models.loras] == [1.0]


def test_a_set_that_was_found_with_a_lora_is_of_other_weights(style, tmp_path):
    """And the other way round; the same LoRA in the same strength is the same model."""
    weights = weights_id(TINY, TINY.home)
    for found_with, used, count in (
        (None, None, 0),
        (f"{style}:0.5", f"{style}:0.5", 0),
        (f"{style}:0.5", f"{style}:0.6", 1),
        (f"{style}:0.5", None, 1),
        (None, f"{style}:0.5", 1),
    ):
        theirs = weights | (lora_id(spec_of(SkipSpec, {"lora": found_with})) if found_with else {})
        (tmp_path / "vital.json").write_text(
            json.dumps({"model": "flux-tiny", "layers": [0], "weights": theirs})
        )
        spec = spec_of(EditSpec, {"lora": used} if used else None, ["--layers", str(tmp_path / "vital.json")])
        assert len(list(found_on_other_weights(spec))) == count
    setting = setting_of(spec_of(SkipSpec, {"lora": f"{style}:0.5"}))
    assert setting["weights"]["LoRA"].endswith(" × 0.5") and setting["lora"][0]["file"] == "style.safetensors"


def test_a_dry_run_names_them(style, capsys):
    assert carried_out(0, "--prompts", "a red house", "--lora", f"{style}:0.5", "--dry-run") == 0
    line = next(each for each in capsys.readouterr().out.splitlines() if "LoRA" in each)
    assert str(style) in line and "there" in line and line.endswith("scale 0.5")


def test_a_mistake_on_the_command_line_is_one_line(style, tmp_path, capsys):
    big(tmp_path)
    for lora, said in (
        ("big.safetensors", "flux: big.safetensors does not fit flux-tiny"),
        ("gone.safetensors", "flux: gone.safetensors is missing"),
        ("style.safetensors:1e9", "flux: the scale of style.safetensors must be between -100 and 100"),
        (".", "flux: . is a folder with 2 LoRA files"),
    ):
        assert app(["t2i", "--name", "flux-tiny", "--device", "cpu", "--lora", lora]) == 2
        err = capsys.readouterr().err
        assert err.startswith(said) and err.count("\n") == 1
    assert not list(tmp_path.glob("output/*"))
