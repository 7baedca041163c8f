"""Integrators in specs: the sampler's own, and a method's, with settings; told, counted and taken."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from test_demos import assert_whole_run, load_demo

from flux.generate import Sampling, generate
from flux.integrators import INTEGRATORS, integrator_record
from flux.pictures.files import to_pil
from flux.studies.cost import cost
from flux.studies.edit.by_method import work
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, read_spec
from flux.studies.run import sampling_of
from flux.studies.study import resolve_name
from flux.studies.text.run import work as text_work
from flux.studies.text.spec import TestSpec
from flux.weights.load import load_models

THREE = {"name": "fixed-point", "iterations": 3}


@pytest.fixture
def demo(clone, tmp_path, monkeypatch):
    """`demo("demo_0_test", "--steps", "2")` runs a demo over an empty spec and returns the run's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.json").write_text("{}")

    def run(name: str, *argv: str):
        few = ["--width", "48", "--height", "32", "--output", "run", "--model.weights", str(clone)]
        assert load_demo(name).main(["none.json", *argv, *few]) == 0
        return tmp_path / "run"

    return run


def spec_of(kind=TestSpec, overrides=None, **more):
    own = {"prompts": ["a dog"]} if kind is TestSpec else {"source": "a dog", "edits": ["a cat"]}
    return read_spec(kind, own | more, "my.json", overrides)


# What is asked


def test_a_spec_that_says_nothing_is_the_run_that_it_was():
    for kind in (TestSpec, EditSpec):
        recipe = spec_of(kind).recipe()
        assert "integrator" not in recipe and spec_of(kind, integrator="euler").recipe() == recipe
        assert sampling_of(spec_of(kind)).integrator == "euler"


def test_an_integrator_with_settings_reads_as_it_was_written():
    spec = spec_of(integrator=THREE)
    assert (
        spec.recipe()["integrator"] == THREE
        and read_spec(TestSpec, spec.recipe(), "").recipe() == spec.recipe()
    )
    assert spec_of(integrator={"name": "midpoint"}).recipe()["integrator"] == "midpoint"
    typed = spec_of(overrides={"integrator": "fixed-point", "integrator.iterations": 3})
    assert typed.integrator == spec.integrator
    # As a part of what a kept source is made from it has to be found again.
    assert {sampling_of(spec): 1}[sampling_of(typed)] == 1
    assert sampling_of(spec) != sampling_of(spec_of(integrator={**THREE, "iterations": 4}))


def test_settings_are_typed_beside_the_integrator_of_a_method_too():
    typed = {"method": "stable-flow", "method.integrator": "fixed-point", "method.integrator.iterations": 3}
    assert spec_of(EditSpec, typed).method.settings["integrator"] == THREE
    with pytest.raises(SpecError, match="--method.integrator.iteration = 3: unknown key, did you mean"):
        spec_of(EditSpec, typed | {"method.integrator.iteration": 3})


NAMES = ", ".join(row.name for row in INTEGRATORS)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("heun", f'.name = "heun": choose from {NAMES}'),
        ("midpiont", f'.name = "midpiont": did you mean midpoint? choose from {NAMES}'),
        (
            {"name": "midpoint", "iterations": 3},
            ".iterations = 3: is for fixed-point, and the integrator is midpoint",
        ),
        ({"name": "fixed-point", "iterations": 0}, ".iterations = 0: must be between 1 and 100"),
        ({"name": "fixed-point", "iterations": 2.5}, ".iterations = 2.5: must be a whole number"),
        ({"name": "fixed-point", "tolerance": 2}, ".tolerance = 2: must be between 0.0 and 1.0"),
        (
            {"name": "fixed-point", "steps": 2},
            ".steps = 2: unknown key, choose from name, iterations, tolerance",
        ),
    ],
)
def test_what_is_no_integrator_is_answered_alike_wherever_it_stands(wrong, said):
    with pytest.raises(SpecError) as error:
        spec_of(integrator=wrong)
    assert str(error.value) == f"my.json: integrator{said}"
    by = {"name": "stable-flow", "integrator": wrong}
    with pytest.raises(SpecError) as error:
        spec_of(EditSpec, method=by)
    bare = said.removeprefix(".name") if isinstance(wrong, str) else said
    assert str(error.value) == f"my.json: method.integrator{bare}"
    with pytest.raises(SpecError) as error:
        spec_of(EditSpec, method="stable-flow", scan={"method": {"integrator": ["euler", wrong]}})
    assert str(error.value) == f"my.json: scan.method.integrator[1]{bare}"


def test_where_the_sampler_has_no_say_it_is_refused(tmp_path):
    with pytest.raises(
        SpecError, match="^my.json: integrator = .midpoint.: a chain without a method goes Euler's way"
    ):
        spec_of(EditSpec, integrator="midpoint", chain=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    photo = {"image": str(tmp_path / "photo.png"), "prompt": "a dog"}
    with pytest.raises(
        SpecError, match="these are photos: leave it out; what inverts them is method.integrator$"
    ):
        spec_of(EditSpec, source=photo, integrator="midpoint", method="stable-flow")
    many = {"sources": [photo, {"prompt": "a dog"}], "source": None, "method": "flowedit"}
    assert spec_of(EditSpec, **many, integrator="midpoint")


# What is told


@pytest.mark.parametrize("choice, each", [("euler", 1), ("midpoint", 2), (THREE, 3)])
def test_evaluations_follow_the_sampler(choice, each):
    spec = spec_of(integrator=choice, steps=4)
    assert text_work(spec).evaluations == 4 * each
    guided = spec_of(integrator=choice, steps=4, negative_prompt="a cat", true_cfg=2)
    assert text_work(guided).evaluations == 2 * 4 * each
    edit = {"steps": 4, "checks": {"gate": False}, "method": "flowedit"}
    taken = [work(spec_of(EditSpec, integrator=name, **edit)).evaluations for name in ("euler", choice)]
    assert taken[1] - taken[0] == 4 * (each - 1)
    side_by_side = resolve_name("flux.studies.edit.run:work")
    guided = spec_of(EditSpec, integrator=choice, steps=4, negative_prompt="a cat", true_cfg=2)
    assert side_by_side(guided).evaluations == 2 * 4 * each * sum(side_by_side(guided).batches)


def test_what_goes_to_noise_and_back_before_is_counted_by_it():
    by = {"name": "stable-flow", "integrator": THREE}
    taken = [
        work(spec_of(EditSpec, method=by, steps=4, checks={"gate": gate})).evaluations
        for gate in (True, False)
    ]
    assert taken[0] - taken[1] == 4 * 3 + 4 and taken[1] == 4 + 4 * 3 + 2 * 4


# What is made


def test_a_picture_is_sampled_by_it(demo, clone):
    integrator = ["--integrator", "fixed-point", "--integrator.iterations", "3"]
    folder = demo("demo_0_test", "--prompts", "a dog", "--steps", "3", *integrator)
    assert_whole_run(folder)
    (file,) = (each for each in folder.glob("*.png") if each.name != "sheet.png")
    models, picture = load_models("flux-tiny", weights=clone), Image.open(file)
    for choice, same in (("euler", False), (integrator_record(THREE), True)):
        sampling = Sampling(3, models.spec.guidance, 48, 32, choice)
        expected = to_pil(generate(models, ["a dog"], [int(picture.text["seed"])], sampling)[0])
        levels = abs(np.asarray(picture, dtype=int) - np.asarray(expected, dtype=int))
        assert bool(levels.max() <= 1) is same
    assert "fixed-point (iterations 3)" in (folder / "index.html").read_text()


@pytest.mark.parametrize("name", ["fireflow", "uni-inv", "midpoint"])
def test_attention_is_drawn_of_every_step_of_it(name, demo):
    folder = demo(
        "demo_1_layer", "--prompt", "a dog", "--steps", "3", "--attention", "0", "--integrator", name
    )
    assert_whole_run(folder)


def test_a_method_inverts_by_it_and_a_scan_goes_through_it(demo):
    scan = json.dumps({"method": {"integrator": ["euler", THREE]}})
    argv = [
        "--source",
        "a dog",
        "--edits",
        '["a cat"]',
        "--method",
        "stable-flow",
        "--steps",
        "2",
        "--scan",
        scan,
    ]
    folder = demo(
        "demo_4_edit", *argv, "--checks.dino", "off", "--checks.gate", "false", "--integrator", "midpoint"
    )
    record = assert_whole_run(folder)
    assert [cell["title"] for cell in record["cells"]] == [
        "integrator euler",
        "integrator fixed-point (iterations 3)",
    ]
    with (folder / "scan.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["integrator"] for row in rows if "integrator" in row] in (
        [],
        ["euler", "fixed-point (iterations 3)"],
    )
    pictures = [(folder / f"cells/0{i}/edit-01.png").read_bytes() for i in (1, 2)]
    assert pictures[0] != pictures[1]


def test_time_that_is_told_follows_the_sampler(monkeypatch):
    """What a row takes beside its evaluations is small for a large model at a slow speed."""
    monkeypatch.setattr("flux.studies.cost.speed", lambda *_: 1e9)
    side_by_side = resolve_name("flux.studies.edit.run:work")
    seconds = {}
    for name in ("euler", "midpoint"):
        spec = spec_of(EditSpec, model="flux-dev", steps=50, integrator=name)
        seconds[name] = cost(spec, side_by_side(spec))[0]
    assert 1.8 < seconds["midpoint"] / seconds["euler"] < 2.0
