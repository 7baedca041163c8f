"""control, fill, kontext and redux, run in this process on small random weights under the official names."""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_layouts import shrink
from helpers_loras import kohya, updates
from helpers_models import SMALL_FLOW, save_weights
from helpers_references import (
    half_mask,
    picture,
    random_flow_state,
    save_all_commands_load,
)
from PIL import ExifTags, Image

from flux import cli, cli_control, cli_fill, cli_kontext, cli_redux, cli_references, sampling, util
from flux.model import FluxLoraWrapper
from flux.modules.image_embedders import CannyImageEncoder, DepthImageEncoder, ReduxImageEncoder
from flux.pictures.files import to_pil
from flux.studies import edit, text, timesteps
from flux.studies.study import carry_out

PROMPT = "a boat with the hat"
MODELS = {
    "control": "flux-dev-canny",
    "fill": "flux-dev-fill",
    "kontext": "flux-dev-kontext",
    "redux": "flux-dev",
}
SIZES = [(64, 112), (96, 80), (112, 64)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Everything that the four commands load."""
    return save_all_commands_load(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def here(weights, tmp_path, monkeypatch) -> Path:
    """A working folder with pictures, where all weights are found by their variables."""
    monkeypatch.chdir(tmp_path)
    shrink(monkeypatch)
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", SIZES)
    monkeypatch.setattr(DepthImageEncoder, "depth_model_name", str(weights / "depth"))
    monkeypatch.setattr(ReduxImageEncoder, "siglip_model_name", str(weights / "siglip"))
    monkeypatch.setattr("flux.cli_run.load_nsfw_classifier", lambda device: None)
    for variable, name in {
        "FLUX_AE": "ae.safetensors",
        "FLUX_T5": "text_encoder_2",
        "FLUX_CLIP": "text_encoder",
        "FLUX_REDUX": "projector.safetensors",
    }.items():
        monkeypatch.setenv(variable, str(weights / name))
    picture(120, 70).save(tmp_path / "robot.png")
    picture(96, 64, 1).save(tmp_path / "cup.png")
    half_mask(96, 64).save(tmp_path / "mask.png")
    return tmp_path


@pytest.fixture
def run(here, weights, monkeypatch, capsys):
    """`run("fill", "--seed 1")`: (exit code, stdout, stderr); of any other word control with its model."""

    def run(command: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("FLUX_MODEL", str(weights / f"{command}.safetensors"))
        command = command if command in cli.COMMANDS else "control"
        if command != "redux":
            monkeypatch.delenv("FLUX_REDUX", raising=False)
        split = [part for word in words for part in (word.split() if word.startswith("-") else [word])]
        code = cli.app([command, *split])
        return code, *capsys.readouterr()

    return run


OPTIONS = {
    "control": "--name flux-dev-canny --width 96 --height 64 --img_cond_path robot.png",
    "fill": "--img_cond_path cup.png --img_mask_path mask.png",
    "kontext": "--img_cond_path robot.png",
    "redux": "--width 96 --height 64 --img_cond_path robot.png",
}
COMMANDS = pytest.mark.parametrize("command", OPTIONS)


def by_hand(command: str, here: Path, seed: int = 3) -> Image.Image:
    """The picture as a script for upstream's package makes it, of these files."""
    name = MODELS[command]
    t5 = util.load_t5("cpu", 128 if command == "fill" else 512, name=name, dtype=torch.float32)
    clip, ae = util.load_clip("cpu", name=name, dtype=torch.float32), util.load_ae(name, "cpu")
    noise = sampling.get_noise(1, 64, 96, "cpu", torch.bfloat16, seed).float()
    exact = {"dtype": torch.float32}
    height, width = 64, 96
    if command == "control":
        prompt, rest = PROMPT, (ae, CannyImageEncoder("cpu"), here / "robot.png")
        inputs = sampling.prepare_control(t5, clip, noise, prompt, *rest, **exact)
    elif command == "fill":
        rest = (ae, here / "cup.png", here / "mask.png")
        inputs = sampling.prepare_fill(t5, clip, noise, PROMPT, *rest, **exact)
    elif command == "kontext":
        rest = (ae, here / "robot.png", seed, "cpu")
        inputs, height, width = sampling.prepare_kontext(t5, clip, PROMPT, *rest, **exact)
        inputs.pop("img_cond_orig")
    else:
        encoder = ReduxImageEncoder("cpu", os.environ["FLUX_REDUX"], 24, 48, torch.float32)
        inputs = sampling.prepare_redux(t5, clip, noise, "", encoder, here / "robot.png", **exact)
    timesteps = sampling.get_schedule(2, inputs["img"].shape[1])
    flow = util.load_flow_model(name, "cpu")
    with torch.no_grad():
        latent = sampling.denoise(flow, **inputs, timesteps=timesteps, guidance=5.0)
        return to_pil(ae.decode(sampling.unpack(latent, height, width))[0])


@COMMANDS
def test_a_picture_as_by_hand(run, here, command):
    prompt = [] if command == "redux" else ["--prompt", PROMPT]
    code, out, err = run(
        command, OPTIONS[command], "--seed 3 --num_steps 2 --guidance 5 --device cpu", *prompt
    )
    assert code == 0, err
    size = (112, 64) if command == "kontext" else (96, 64)
    assert f"seed 3, {size[0]} x {size[1]}, 2 steps" in out
    with Image.open(here / "output" / "img_0.jpg") as made:
        exif = made.getexif()
        assert made.size == size
        assert exif[ExifTags.Base.Software] == "AI generated;img2img;flux"
        expected = by_hand(command, here)
        error = np.abs(np.array(made, dtype=float) - np.array(expected, dtype=float)).mean()
        other = np.abs(np.array(expected, dtype=float) - 127.5).mean()
    assert error < 0.2 * other, (error, other)


def latents(run, monkeypatch, command: str, *words: str) -> torch.Tensor:
    """What is handed to the decoder, in float32."""
    seen = []
    real = cli.decode

    def decode(models, tokens, *rest, **options):
        seen.append(tokens)
        return real(models, tokens, *rest, **options)

    monkeypatch.setattr("flux.cli_references.decode", decode)
    code, _, err = run(command, OPTIONS[command], "--seed 3 --num_steps 2 --device cpu", *words)
    assert code == 0, err
    return seen[-1]


@COMMANDS
def test_the_picture_that_is_looked_at_counts(run, here, monkeypatch, command):
    first = latents(run, monkeypatch, command)
    for name, image in (("robot.png", picture(120, 70, 7)), ("cup.png", picture(96, 64, 7))):
        image.save(here / name)
    assert not torch.allclose(first, latents(run, monkeypatch, command), atol=1e-2)


def test_depths(run, monkeypatch):
    by_depth = latents(run, monkeypatch, "control", "--prompt", "a boat")
    monkeypatch.setitem(OPTIONS, "control", OPTIONS["control"].replace("canny", "depth"))
    assert not torch.allclose(by_depth, latents(run, monkeypatch, "control", "--prompt", "a boat"), atol=1e-2)


@COMMANDS
def test_a_lora_with_every_command(run, here, monkeypatch, command):
    """By option and by variable, merged and live; made for the plain model, whose input is narrower."""
    file = save_weights(here / "style.safetensors", kohya(updates(SMALL_FLOW)))
    plain = latents(run, monkeypatch, command)
    styled = latents(run, monkeypatch, command, "--lora style.safetensors:0.5")
    assert not torch.allclose(plain, styled, atol=1e-2)
    live = latents(run, monkeypatch, command, "--lora style.safetensors:0.5 --lora_live")
    torch.testing.assert_close(live, styled, rtol=1e-3, atol=1e-3)
    monkeypatch.setenv("FLUX_LORA", f"{file}:0.5")
    assert torch.equal(latents(run, monkeypatch, command), styled)


def test_a_scale_for_models_with_a_lora(run, here, weights, monkeypatch, tmp_path):
    """Its base takes 64 channels, and is widened; scale 0 leaves the base alone, whatever is looked at."""
    shapes = FluxLoraWrapper(lora_rank=4, params=util.configs["flux-dev-canny-lora"].params).state_dict()
    generator = torch.Generator().manual_seed(2)
    state = {key: torch.randn(x.shape, generator=generator) for key, x in shapes.items() if ".lora_" in key}
    monkeypatch.setenv("FLUX_LORA", str(save_weights(tmp_path / "lora.safetensors", state)))
    save_weights(weights / "lora-base.safetensors", random_flow_state("kontext"))
    words = OPTIONS["control"].replace("canny", "canny-lora")
    monkeypatch.setitem(OPTIONS, "lora-base", words)
    made = {}
    for scale in (0, 0.5, None):
        more = [] if scale is None else ["--lora_scale", str(scale)]
        made[scale] = latents(run, monkeypatch, "lora-base", *more)
    assert not torch.allclose(made[0.5], made[None], atol=1e-3)
    assert not torch.allclose(made[0.5], made[0], atol=1e-3)


def test_kontexts_sizes(run, here, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "flux.cli_references.Looker.make",
        lambda self, models, job, offload: seen.append(job) or torch.zeros(1, 3, 16, 16),
    )
    assert run("kontext", "--img_cond_path robot.png")[0] == 0
    assert run("kontext", "--img_cond_path robot.png --aspect_ratio 16:9")[0] == 0
    assert [(job.width, job.height) for job in seen] == [(112, 64), (1360, 768)]


@pytest.mark.parametrize(
    ("words", "steps", "guidance"),
    [
        ("control --name flux-dev-canny --img_cond_path robot.png", 50, 30),
        ("control --name flux-dev-depth --img_cond_path robot.png", 50, 10),
        ("control --name flux-dev-depth --img_cond_path robot.png --guidance 4", 50, 4),
        ("fill --img_cond_path cup.png --img_mask_path mask.png", 50, 30),
        ("kontext --img_cond_path robot.png", 30, 2.5),
        ("redux --img_cond_path robot.png", 50, 2.5),
        ("redux --name flux-schnell --img_cond_path robot.png", 4, 2.5),
    ],
)
def test_the_models_own_steps_and_guidance(run, monkeypatch, words, steps, guidance):
    seen = []
    monkeypatch.setattr(
        "flux.cli_references.Looker.make",
        lambda self, models, job, offload: seen.append(job) or torch.zeros(1, 3, 16, 16),
    )
    loaded = SimpleNamespace(device="cpu", loras=())
    monkeypatch.setattr("flux.cli_run.load_models", lambda name, **options: loaded)
    monkeypatch.setattr("flux.cli_references.load_encoder", lambda *args: None)
    command, *rest = words.split()
    code, _, err = run(command, " ".join(rest))
    assert code == 0, err
    assert (seen[0].num_steps, seen[0].guidance) == (steps, guidance)


# The loop


def typed(monkeypatch, *lines: str) -> None:
    remaining = iter(lines)

    def answer(question: str) -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)


def test_questions_of_the_loop(here, monkeypatch, capsys):
    control = cli_control.SamplingOptions("a", 64, 64, 1, 1.0, None, "robot.png", 0.85)
    typed(monkeypatch, "nothing.png", "cup.png")
    assert cli_control.parse_img_cond_path(control).img_cond_path == "cup.png"
    assert "nothing.png" in capsys.readouterr().out
    typed(monkeypatch, "/w 96", "b")
    changed = cli_control.parse_prompt(control)
    assert (changed.prompt, changed.width) == ("b", 96)
    typed(monkeypatch, "many", "0.5")
    assert cli_control.parse_lora_scale(control).lora_scale == 0.5
    assert "lora_scale must be a number" in capsys.readouterr().out
    typed(monkeypatch, "")
    assert cli_control.parse_lora_scale(control) == control
    none = cli_control.SamplingOptions("a", 64, 64, 1, 1.0, None, "robot.png", None)
    assert cli_control.parse_lora_scale(none) == none
    fill = cli_fill.SamplingOptions("a", None, None, 1, 1.0, None, "cup.png", "mask.png")
    typed(monkeypatch, "robot.png", "mask.png")
    assert cli_fill.parse_img_mask_path(fill) == fill
    assert "they must have one size" in capsys.readouterr().out
    typed(monkeypatch, "robot.png", "cup.png")
    assert cli_fill.parse_img_cond_path(fill) == fill
    assert "120 x 70 pixels are no multiples of 16: cut it to 112 x 64" in capsys.readouterr().out
    typed(monkeypatch, "/w 64", "/h 32", "b")
    assert cli_fill.parse_prompt(fill).prompt == "b"
    assert "there is no /w" in capsys.readouterr().out
    kontext = cli_kontext.SamplingOptions("a", 64, 64, 1, 1.0, None, "cup.png")
    typed(monkeypatch, "/w auto", "/h 32", "")
    changed = cli_kontext.parse_prompt(kontext)
    assert (changed.width, changed.height) == (None, 32)
    redux = cli_redux.SamplingOptions("", 64, 64, 1, 1.0, None, "cup.png")
    typed(monkeypatch, "/n 3", "")
    assert cli_redux.parse_prompt(redux).num_steps == 3
    for module, options in ((cli_kontext, kontext), (cli_redux, redux), (cli_fill, fill)):
        typed(monkeypatch, "cup.png")
        assert module.parse_img_cond_path(options) == options
        typed(monkeypatch, "/q")
        assert module.parse_img_cond_path(options) is None
        typed(monkeypatch)
        assert module.parse_img_cond_path(options) is None


def test_a_loop_goes_on_with_another_picture(run, here, monkeypatch):
    typed(monkeypatch, "a boat", "cup.png", "", "", "/q")
    code, out, err = run("redux", OPTIONS["redux"], "--num_steps 1 --loop --device cpu")
    assert code == 0, err
    assert sorted(file.name for file in (here / "output").iterdir()) == [f"img_{i}.jpg" for i in range(3)]
    assert out.count("1 steps: a boat") == 2


def test_use_is_not_reported_and_that_is_said(run):
    code, out, err = run(
        "fill", OPTIONS["fill"], "--num_steps 1 --track_usage --device cpu", "--prompt", "a|b"
    )
    assert code == 0, err
    assert out.count("the use of flux-dev-fill is not reported: this package sends nothing") == 1


# Mistakes


MISTAKES = [
    ("control", "--img_cond_path robot.png", "--name is missing: options: --name, --width"),
    (
        "control",
        "--name flux-dev --img_cond_path robot.png",
        "name 'flux-dev' is not for control; choose one",
    ),
    ("control", "--name flux-nano", "name 'flux-nano' is not a model; choose one of flux-dev-canny"),
    ("control", "--name flux-dev-canny", "img_cond_path assets/robot.webp: "),
    ("control", "--name flux-dev-canny --trt", "TensorRT engines are not carried"),
    ("control", "--name flux-dev-canny --img_cond_path folder", "img_cond_path folder: it is a folder"),
    ("control", "--name flux-dev-canny --img_cond_path broken.png", "img_cond_path broken.png: "),
    ("control", "--name flux-dev-canny-lora --lora_scale big", "lora_scale must be a number, 100 at most"),
    ("fill", "--img_cond_path cup.png", "img_mask_path assets/cup_mask.png: "),
    ("fill", "--img_mask_path mask.png", "img_cond_path assets/cup.png: "),
    ("fill", "--img_cond_path robot.png --img_mask_path mask.png", "120 x 70 pixels are no multiples of 16"),
    ("fill", "--img_cond_path cup.png --img_mask_path robot.png", "has 120 x 70 pixels, the picture 96 x 64"),
    ("fill", "--width 64", "unknown option --width"),
    ("fill", "--name flux-dev-fill", "unknown option --name"),
    ("kontext", "--aspect_ratio wide", "aspect ratio 'wide' is not two positive numbers like 16:9"),
    ("kontext", "--name flux-dev", "name 'flux-dev' is not for kontext; choose one of flux-dev-kontext"),
    ("kontext", "--img_cond_path broken.png", "img_cond_path broken.png: "),
    ("redux", "--name flux-dev-fill", "name 'flux-dev-fill' is not for redux; choose one of flux-dev, flux-"),
    ("redux", "--img_cond_path robot.png --num_steps 0", "num_steps must be a whole number"),
]


@pytest.mark.parametrize("command, words, message", MISTAKES)
def test_a_mistake_is_one_line_before_anything_loads(run, here, monkeypatch, command, words, message):
    def load(*args, **options):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("flux.cli_run.load_models", load)
    (here / "folder").mkdir()
    (here / "broken.png").write_bytes((here / "cup.png").read_bytes()[:70])
    code, out, err = run(command, words)
    assert code == 2 and out == "" and message in err, err
    assert err.startswith("flux: ") and err.count("\n") == 1 and not (here / "output").exists()


def test_a_redux_file_that_is_not_there(run, here, monkeypatch):
    monkeypatch.setenv("FLUX_REDUX", "nothing.safetensors")
    code, _, err = run("redux", OPTIONS["redux"])
    assert code == 2 and "nothing.safetensors" in err and err.count("\n") == 1


@COMMANDS
def test_help(run, command):
    code, out, err = run(command, "--help")
    assert code == 0 and err == "" and out.startswith(f"usage: python -m flux {command} --option value")
    assert "--img_cond_path assets/" in out and "the picture that the model looks at" in out


@pytest.mark.parametrize("name", ["flux-dev-fill", "flux-dev-canny-lora", "flux-dev-redux"])
def test_t2i_says_which_command_takes_a_model(run, name):
    code, _, err = run("t2i", "--name", name)
    word = {"flux-dev-canny-lora": "control"}.get(name, name.rpartition("-")[2])
    assert code == 2 and f"'{name}' starts from a picture, which python -m flux {word} takes" in err


def test_what_upstream_swallows_is_said(here, monkeypatch, capsys):
    with pytest.raises(ValueError, match="img_cond_path nothing.png"):
        cli_control.main("flux-dev-canny", img_cond_path="nothing.png", hidden=1)
    assert json.dumps("not used: hidden")[1:-1] in capsys.readouterr().out


# The page

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "references.md").read_text(encoding="utf-8")
DEFAULTS = {"0": "test", "1": "layer", "4": "edit"}
LINES = re.findall(r"^python -m flux (.+)$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("line", LINES, ids=[line.split()[0] for line in LINES])
def test_the_commands_of_the_page(run, here, monkeypatch, line):
    """One step of each, small."""
    make, asked = cli_references.Looker.make, []

    def small(self, models, job, **how):
        asked.append(job)
        return make(self, models, replace(job, num_steps=1, width=96, height=64), **how)

    monkeypatch.setattr(cli_references.Looker, "make", small)
    command, *words = shlex.split(line)
    code, out, err = run(command, *words)
    assert code == 0 and (here / "output" / "img_0.jpg").is_file(), err
    assert len(asked) == 1


def test_the_python_of_the_page(here, weights, monkeypatch):
    (snippet,) = re.findall(r"```python\n(.+?)```", PAGE, flags=re.DOTALL)
    monkeypatch.setenv("FLUX_MODEL", str(weights / "kontext.safetensors"))
    monkeypatch.delenv("FLUX_REDUX")
    names = {}
    exec(snippet.replace("1024", "64").replace("Sampling(30", "Sampling(2"), names)
    assert names["picture"].shape == (1, 3, 64, 64) and names["reference"].tokens.shape == (1, 28, 64)


DEMOS = re.findall(r"^python (demos/.+)$", PAGE, flags=re.MULTILINE)


def test_the_demos_of_the_page(tmp_path, monkeypatch, capsys):
    """Each spec is read and costed; what demos make of it is held by `studies/test_looking_specs.py`."""
    studies = {"0": text, "1": timesteps, "4": edit}
    root = Path(__file__).resolve().parents[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    picture(120, 70).save("robot.png")
    picture(96, 64, 1).save("cup.png")
    half_mask(96, 64).save("mask.png")
    for line in DEMOS:
        demo, *words = shlex.split(line)
        number = demo.split("_")[1]
        spec = root / "json" / f"{DEFAULTS[number]}.json"
        assert carry_out(studies[number].STUDY, doc="", default=spec, argv=[*words, "--dry-run"]) == 0
        assert "looking at " in capsys.readouterr().out
    assert len(DEMOS) == 4


def test_the_spec_of_the_page(here):
    from flux.studies.reading import load_spec
    from flux.studies.sweep.spec import SkipSpec

    (text,) = re.findall(r"```json\n(.+?)```", PAGE, flags=re.DOTALL)
    spec = load_spec(SkipSpec, None, json.loads(text))
    assert spec.probe.name == "hide" and spec.prompts[0].picture == here / "cup.png"
