"""What is on the device when: the parts of a model take turns; stand-ins note who comes and goes."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers_demos import save_clone, small_models

from flux import cli
from flux.generate import Sampling, decode, encode, generate, sample_steps
from flux.methods.stable_flow import Edit, EditRequest, edit_steps
from flux.modules.known_texts import KnownTexts
from flux.studies import run as studies_run
from flux.studies.edit.run import RUN as EDITS
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import load_spec
from flux.studies.sweep.run import sweep
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.run import RUN as TEXTS
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.run import RUN as TIMESTEPS
from flux.studies.timesteps.spec import LayerSpec
from flux.weights import load

SAMPLING = Sampling(steps=3, guidance=3.5, width=32, height=32)
PARTS = ("t5", "clip", "flow", "ae")


class Device:
    """Notes which parts are on it; `most` is the most that were there at a time."""

    def __init__(self, models):
        self.there: set[str] = set()
        self.most: set[tuple[str, ...]] = set()
        for name in PARTS:
            part = getattr(models, name)
            part.to = lambda device, name=name, part=part: self.moved(name, True, part)
            part.cpu = lambda name=name, part=part: self.moved(name, False, part)

    def moved(self, name, comes, part):
        (self.there.add if comes else self.there.discard)(name)
        self.most.add(tuple(sorted(self.there)))
        return part


@pytest.fixture
def models():
    return small_models()


def test_offload_keeps_one_part_on_the_device(models):
    device = Device(models)
    generate(models, ["a"], [0], SAMPLING, offload=True)
    assert device.most == {(), ("t5",), ("clip", "t5"), ("clip",), ("flow",), ("ae",)}


def test_offload_decodes_edits_without_the_flow_model(models):
    """The generator that samples is suspended at its last step while the caller decodes."""
    device = Device(models)
    request = EditRequest("a", (Edit("b", (0,)), Edit("c", (1,))), SAMPLING, batch=1, offload=True)
    for step in edit_steps(models, request):
        last = step.step.index == SAMPLING.steps - 1
        assert device.there == (set() if last else {"flow"}) and bool(step.pictures) == last
    assert not any(len(each) > 1 for each in device.most - {("clip", "t5")})


def test_at_its_last_step_a_run_has_left_the_device(models):
    device, texts = Device(models), encode(models, ["a"], offload=True)
    for step in sample_steps(models, texts, ["a"], [0], SAMPLING, offload=True):
        if step.index == SAMPLING.steps - 1:
            decode(models, step.after, SAMPLING, offload=True)
            assert not device.there
    assert ("ae", "flow") not in device.most


def test_a_run_that_is_given_up_leaves_the_device(models):
    device, texts = Device(models), encode(models, ["a"], offload=True)
    steps = sample_steps(models, texts, ["a"], [0], SAMPLING, offload=True)
    next(steps)
    assert device.there == {"flow"}
    steps.close()
    assert not device.there


# --- Encoders are let go before the flow model comes -----------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return save_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def held(monkeypatch) -> list[tuple[str, list[str]]]:
    """Whenever a part is loaded: its name, and which parts were held by then."""
    parts, events = {}, []

    def watched(name):
        sound = getattr(load, f"load_{name}")

        def load_part(*args, **options):
            gc.collect()
            events.append((name, [each for each, part in parts.items() if part() is not None]))
            part = sound(*args, **options)
            parts[name] = weakref.ref(part)
            return part

        return load_part

    for name in ("t5", "clip", "ae", "flow_model"):
        monkeypatch.setattr(load, f"load_{name}", watched(name))
    return events


ALONE = [("t5", []), ("clip", []), ("ae", []), ("flow_model", ["ae"])]
FEW = {"steps": 2, "width": 32, "height": 32}
STUDIES = {
    "text": (TestSpec, TEXTS.make, {"prompts": ["a hat", "a boat"]}),
    "timesteps": (LayerSpec, TIMESTEPS.make, {"prompt": "a hat"}),
    "edit": (EditSpec, EDITS.make, {"source": "a hat", "edits": [{"prompt": "a red hat", "layers": [3]}]}),
    "sweep": (SkipSpec, sweep, {"prompts": ["a hat"], "layers": [3]}),
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_holds_no_encoder_beside_another_part(study, clone, held, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, make, values = STUDIES[study]
    spec = load_spec(kind, None, {**values, **FEW, "model": {"name": "flux-tiny", "weights": str(clone)}})
    assert not make(spec)
    assert held == ALONE


@pytest.mark.parametrize("loop", [False, True])
def test_the_command_line_holds_no_encoder_unless_more_is_asked_for(loop, clone, held, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda text: "/q")
    size = {"width": 32, "height": 32, "num_steps": 2}
    cli.main("flux-tiny", prompt="a hat | a boat", weights=str(clone), loop=loop, **size)
    held_by_then = ["t5", "clip", "ae"] if loop else ["ae"]
    assert held[-1] == ("flow_model", held_by_then) and len(list((tmp_path / "output").iterdir())) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_pictures_are_the_same_to_the_bit(clone, dtype):
    given = {"device": "cpu", "dtype": dtype, "weights": clone}
    prompts = ["a hat", "a boat"]
    staying = load.load_models("flux-tiny", **given)
    gone = load.load_models("flux-tiny", prompts=prompts, **given)
    pictures = [generate(models, prompts, [0, 1], SAMPLING) for models in (staying, gone)]
    assert torch.equal(*pictures)


def test_each_prompt_is_read_once_and_by_itself(models):
    known = KnownTexts(models.t5, ["a", "b", "a"])
    assert models.t5.calls == ["a", "b"]
    assert torch.equal(known(["b", "a"]), models.t5(["b", "a"]))
    assert not any(True for _ in known.parameters())


def test_a_prompt_that_was_not_known_is_named(models):
    models = replace(models, t5=KnownTexts(models.t5, ["a"]), clip=KnownTexts(models.clip, ["a"]))
    with pytest.raises(ValueError, match="the model was not loaded for the prompt 'b'"):
        encode(models, ["a", "b"])


def test_a_stopped_study_reads_all_of_its_prompts(clone, tmp_path, monkeypatch):
    """What is missing may need any of them."""
    monkeypatch.chdir(tmp_path)
    values = {"prompts": ["a hat", "a boat"], **FEW, "model": {"name": "flux-tiny", "weights": str(clone)}}
    spec = load_spec(TestSpec, None, values)
    TEXTS.make(spec)
    before = {path: path.read_bytes() for path in spec.output.glob("picture-*.png")}
    record = json.loads((spec.output / "run.json").read_text())
    (spec.output / "run.json").write_text(json.dumps({**record, "finished": False}))
    min(before).unlink()
    seen = []
    sound = studies_run.load_models
    monkeypatch.setattr(
        studies_run,
        "load_models",
        lambda *args, **options: seen.append(options["prompts"]) or sound(*args, **options),
    )
    TEXTS.make(spec)
    assert seen == [["a hat", "a boat"]]
    assert before == {path: path.read_bytes() for path in spec.output.glob("picture-*.png")}


@pytest.mark.parametrize("name, evaluations", [("euler", 3), ("midpoint", 6), ("fireflow", 4)])
def test_any_integrator_samples(models, name, evaluations):
    asked, texts = [], encode(models, ["a"])
    models.flow.register_forward_hook(lambda *_: asked.append(1))
    *_, plain = sample_steps(models, texts, ["a"], [0], SAMPLING)
    asked.clear()
    *_, last = sample_steps(models, texts, ["a"], [0], replace(SAMPLING, integrator=name))
    assert len(asked) == evaluations and torch.equal(last.after, plain.after) == (name == "euler")


def test_an_integrator_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="integrator 'heun' does not exist: choose from euler, "):
        replace(SAMPLING, integrator="heun")
