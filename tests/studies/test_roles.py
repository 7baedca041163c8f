"""What becomes of a role for each layer, and of settings of masks that are found."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers_demos import save_clone
from test_demos import assert_whole_run, load_demo
from test_edit_by_method import photograph, spec_of

from flux.hooks import CopySource, TopRatio
from flux.methods.masks import own_mask
from flux.models import configs
from flux.studies.edit.jobs import batches_of, jobs_of
from flux.studies.edit.requests import requests
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.ways import found_mask, look_of
from flux.studies.reading import SpecError

FEW = ["--steps", "2", "--width", "48", "--height", "32", "--checks.dino", "off"]
LAYERS = configs["flux-tiny"].layers
INSIDE = torch.tensor([[1.0, 0, 0, 0.5, 0, 1]])
MASK = INSIDE[:, :, None].expand(-1, -1, 64)


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return save_clone(tmp_path_factory.mktemp("clone"))


def plan_of(spec: EditSpec, job: int = 0, mask=MASK) -> dict:
    """What an edit does in each layer, beside one source, by the layer's number."""
    hooks = look_of(jobs_of(spec)[job].way, LAYERS)((0,), 1, mask)
    return {layer: how for layer, (how,) in hooks.inject.items()}


def told(how, step: int = 0, steps: int = 4) -> tuple:
    weight = None if how.weight is None else how.weight[1].tolist()
    return weight, how.keys, how.values, how.strength(step, steps), how.select


def test_each_layer_has_its_own_side_parts_strength_and_window(tmp_path):
    photograph(tmp_path / "photo.png")
    roles = [
        {"layers": "0-5"},
        {"layers": [1], "side": "outside", "what": "keys", "strength": 0.25},
        {"layers": [2], "side": "inside", "what": "values", "strength": [1, 0.5, 0.25, 0]},
        {"layers": [3], "side": "off"},
        {"layers": [4], "what": "both", "window": [1, 2]},
    ]
    strategy = {"name": "ratio", "ratio": 0.5, "keys": False}
    edits = ["a cat", {"prompt": "a cow", "layers": [7]}, {"prompt": "a boat", "roles": roles[:1]}]
    more = {"steps": 4, "method": "flowedit", "strategy": strategy, "strength": 0.75, "edits": edits}
    more["mask"] = "auto"
    spec = spec_of(tmp_path, roles=roles, **more)
    plan, inside, half = plan_of(spec), INSIDE[0], TopRatio(0.5)
    assert plan.keys() == {0, 1, 2, 4, 5}
    assert told(plan[0]) == told(plan[5]) == (None, False, True, 0.75, half)
    assert told(plan[1]) == ((1 - inside).tolist(), True, False, 0.25, half)
    assert told(plan[2], 1) == (inside.tolist(), False, True, 0.5, half)
    assert [told(plan[4], step) for step in (0, 1, 2)] == [
        (None, True, True, strength, half) for strength in (0, 0.75, 0)
    ]
    assert jobs_of(spec)[0].way.layers == (0, 2, 4, 5)
    # An edit's own layers, or roles, stand in the place of those of the spec.
    assert plan_of(spec, 1).keys() == {7} and plan_of(spec, 2).keys() == set(range(6))
    assert len(batches_of(spec)) == 3
    again = EditSpec.model_validate(spec.recipe())
    assert again.recipe() == spec.recipe() and spec.recipe()["roles"][0]["layers"] == [0, 1, 2, 3, 4, 5]


def test_a_list_of_strengths_is_of_the_steps_of_the_run_in_a_window_too(tmp_path):
    photograph(tmp_path / "photo.png")
    strength = [1, 0.75, 0.5, 0.25]
    listed = {"layers": [1], "strength": strength, "window": [1, 3]}
    edits = ["a cat", {"prompt": "a cow", "roles": [{"layers": [1], "window": [2, 4]}]}]
    spec = spec_of(tmp_path, method="flowedit", steps=4, edits=edits, **listed)
    assert [told(plan_of(spec)[1], step)[3] for step in range(4)] == [0, 0.75, 0.5, 0]
    assert [told(plan_of(spec, 1)[1], step)[3] for step in range(4)] == [0, 0, 0.5, 0.25]
    (request,) = requests(spec_of(tmp_path, source="a dog", steps=4, **listed))
    assert [told(request.edits[0].how.hows[1], step)[3] for step in range(4)] == [0, 0.75, 0.5, 0]


def test_roles_say_what_layers_and_outside_say(tmp_path):
    photograph(tmp_path / "photo.png")
    old = {"layers": [1, 11], "outside": "all", "strength": "cosine", "strategy": {"values": False}}
    roles = [{"layers": "all", "side": "outside", "what": "keys"}, {"layers": [1, 11], "what": "keys"}]
    usual = {"method": "flowedit", "steps": 4, "mask": "auto"}
    old, new = (usual | each for each in (old, {"roles": roles}))
    plans = plan_of(spec_of(tmp_path, **old)), plan_of(spec_of(tmp_path, **new, strength="cosine"))
    assert plans[0].keys() == plans[1].keys() == set(range(len(LAYERS)))
    for layer in plans[0]:
        for step in range(4):
            assert told(plans[0][layer], step) == told(plans[1][layer], step)
    assert "roles" not in spec_of(tmp_path, **old).recipe()


def test_side_by_side_one_role_everywhere_is_what_layers_are(tmp_path):
    whole = {"source": "a dog", "edits": ["a cat"], "strength": 0.5}
    (one,) = requests(spec_of(tmp_path, **whole, layers=[1, 11]))
    (other,) = requests(spec_of(tmp_path, **whole, roles=[{"layers": [1, 11]}]))
    assert one.edits == other.edits and one.edits[0].how == CopySource(strength=0.5)
    keys = {"layers": [0], "what": "keys"}
    (both,) = requests(
        spec_of(tmp_path, **whole, roles=[{"layers": [1, 2]}, keys, {"layers": [2], "side": "off"}])
    )
    assert both.edits[0].layers == (0, 1) and not both.edits[0].how.hows[0].values
    assert both.edits[0].how.said == (
        "layers 1, 2 everywhere, strength 0.5; layers 0 everywhere, keys only, strength 0.5; "
        "layers 2 off, strength 0.5"
    )


def test_a_found_mask_takes_the_settings_of_its_function(tmp_path):
    photograph(tmp_path / "photo.png")
    settings = {"threshold": 0.1, "peak": 0.9, "whole": 0.2, "softness": 0.5}
    spec = spec_of(tmp_path, method="flowedit", mask={"where": "auto", **settings})
    assert spec.recipe()["mask"] == {"where": "auto", **settings}
    assert EditSpec.model_validate(spec.recipe()).recipe() == spec.recipe()
    clean, edit = torch.randn(2, 1, 6, 64, generator=torch.Generator().manual_seed(0))
    field = SimpleNamespace(size=(2, 3), of_edits=lambda x: x)
    task = SimpleNamespace(field=field, clean=clean, spread=0.5, shown_by_edit=None)
    found = found_mask(jobs_of(spec)[0].way.mask, task, edit)
    assert torch.equal(found, own_mask(clean, edit, (2, 3), 0.5, **settings))
    assert not torch.equal(found, own_mask(clean, edit, (2, 3), 0.5))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask": {"where": "auto", "paek": 1}}, "mask.paek = 1: unknown key, did you mean peak?"),
        ({"mask": {"where": "velocity", "peak": 1}}, "mask.peak = 1: unknown key, "),
        ({"mask": {"where": [0, 0, 8, 8], "softness": 1}}, "mask.softness = 1: unknown key, "),
        ({"mask": {"where": "words", "blur": 65}}, "mask.blur = 65: must be between 0 and 64"),
        ({"mask": {"where": "auto", "peak": "x"}}, 'mask.peak = "x": must be a number'),
        ({"roles": [{"layers": [0]}], "layers": [1]}, "layers: roles stand in its place: name one of both"),
        ({"roles": [{"layers": [99]}]}, "roles[0].layers[0] = 99: flux-tiny has layers 0 to 11"),
        ({"roles": [{"layers": [0], "side": "insde"}]}, 'roles[0].side = "insde": did you mean inside?'),
        ({"roles": [{"layers": [0], "what": "key"}]}, 'roles[0].what = "key": did you mean keys?'),
        ({"roles": [{"side": "off"}]}, "roles[0].layers: missing: the layers"),
        (
            {"roles": [{"layers": [0], "window": [0, 99]}]},
            "roles[0].window = [0, 99]: stop must be at most 16",
        ),
        ({"roles": [{"layers": [0], "strength": [1, 0]}]}, "roles[0].strength = [1.0, 0.0]: has 2"),
        (
            {"method": "noise", "roles": [{"layers": [0]}]},
            "noise takes none, as it never sees source and edit",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, changes, said):
    photograph(tmp_path / "photo.png")
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, **{"method": "flowedit", **changes})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_are_made_by_roles_with_a_method_and_without(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "photo.png")
    roles = [{"layers": "all", "side": "inside"}, {"layers": [0], "what": "values", "strength": "linear"}]
    mask = {"where": "auto", "peak": 0.5, "softness": 0.3, "feather": 4}
    source = {"image": "photo.png", "prompt": "a dog"}
    whole = {"source": source, "edits": ["a cat"], "method": "flowedit", "mask": mask, "roles": roles}
    (tmp_path / "my.json").write_text(json.dumps(whole))
    (tmp_path / "generated.json").write_text(
        json.dumps({"source": "a dog", "edits": ["a cat"], "roles": roles, "compare": False})
    )
    for name in ("my", "generated"):
        assert load_demo("demo_4_edit").main([f"{name}.json", *FEW, "--model.weights", str(clone)]) == 0
        assert_whole_run(tmp_path / "output/edit" / name)
    page = (tmp_path / "output/edit/generated/index.html").read_text()
    assert "inside; layers 0 everywhere, values only, strength linear" in page
