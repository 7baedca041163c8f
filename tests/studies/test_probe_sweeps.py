"""Sweeps of other probes than skip: what may be asked, which cells that makes, and how they are made."""

import json

import pytest
import torch
from helpers_demos import save_clone, small_models
from test_demos import ROOT, load_demo, pictures
from test_sweep_cells import SAMPLING, SETTING, refused, spec_of

from flux.generate import encode, sample_steps
from flux.hooks import Hooks, LookAtSource
from flux.pictures.files import to_pil
from flux.pictures.opening import open_picture
from flux.sampling import unpack
from flux.studies.reading import load_spec
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep import make
from flux.studies.sweep.cells import Cell, CellPart, plan, shard
from flux.studies.sweep.dry_run import estimate_sweep
from flux.studies.sweep.engines.local import local
from flux.studies.sweep.folder import done_cells
from flux.studies.sweep.spec import SkipSpec


def recipe_of(**values):
    return json.loads(json.dumps(spec_of(**{"layers": [0, [1, 2]], "batch": 2, **values}).recipe()))


# Spec


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"probe": "carri"}, 'probe.name = "carri": did you mean carry? choose from skip, attention, mlp'),
        (
            {"probe": 3},
            "probe = 3: must be an object with the keys name, keys, values, scale, heads, sources",
        ),
        ({"probe": {"name": 3}}, "probe.name = 3: choose from skip"),
        ({"probe": "no.such.module:f"}, "no module no.such.module can be imported here"),
        ({"probe": {"name": "skip", "keys": True}}, 'probe.keys = true: is not for probe "skip"'),
        ({"probe": {"name": "carry", "keys": False, "values": False}}, "copy keys, values, or both"),
        ({"probe": "text-scale"}, 'probe.scale: missing: probe "text-scale" needs it'),
        ({"probe": {"name": "text-scale", "scale": 1e9}}, "probe.scale = 1000000000.0: must be between"),
        ({"probe": {"name": "mlp", "heads": [0]}}, 'is not for probe "mlp": choose from attention, carry'),
        ({"probe": {"name": "carry", "heads": [0, 6]}}, "probe.heads[1] = 6: flux-tiny has heads 0 to 5"),
        (
            {"probe": {"name": "carry", "heads": [1, 1]}},
            'must be "all", or numbers of heads, from 0, each once',
        ),
        ({"probe": {"name": "carry", "heads": -1}}, "probe.heads = -1: must be"),
        ({"probe": {"name": "skip", "sources": ["x"]}}, 'probe.sources = ["x"]: is not for probe "skip"'),
        ({"probe": {"name": "carry", "sources": ["x"]}}, "needs one for each of the 3 prompts; got 1"),
        ({"probe": "carry", "prompts": ["a"]}, 'probe "carry" needs two prompts or more'),
        (
            {"probe": {"name": "carry", "sources": ["x", "b", "y"]}},
            'probe.sources[1] = "b": is its own source: it carries nothing else',
        ),
        ({"probe": "carry", "prompts": ["a", {"prompt": "a", "seed": 9}]}, "is its own source"),
        ({"windows": []}, "windows = []: must have at least one entry"),
        ({"windows": [[0, 4], [4, 17]]}, "windows[1] = [4, 17]: stop must be at most 16"),
        ({"windows": [[2, 2]]}, "windows[0] = [2, 2]: must be [start, stop]"),
        ({"windows": [[0, 4], [0, 4]]}, "stands here twice"),
        ({"windows": "0-4"}, "windows"),
    ],
)
def test_wrong_probes(values, words):
    assert words in refused(**values)


def test_recipes_of_skip_are_what_they_were():
    assert spec_of(probe="skip").recipe() == spec_of().recipe()
    assert "probe" not in spec_of().recipe() and "windows" not in spec_of().recipe()


def test_cells_of_skip_are_what_they_were():
    """Finished sweeps of releases without probes stay finished."""
    found = plan(recipe_of(), SETTING).identities
    assert found[Cell(0, (0,))].startswith("942605806c514a65")
    assert found[Cell(2, (1, 2))].startswith("1593b9c9f5aa9778")
    assert found[Cell(0, ())].startswith("86ec4c6c3e9e466d")


@pytest.mark.parametrize(
    "values",
    [
        {"probe": "attention"},
        {"probe": {"name": "carry", "values": False, "heads": "all"}, "windows": [[0, 4], [4, 16]]},
        {"probe": {"name": "carry", "sources": ["x", "y", "z"]}},
        {"probe": {"name": "text-scale", "scale": 0.5, "heads": [2, 0]}},
        {"probe": "helpers_sweeps:own_probe", "windows": [[0, 1]]},
    ],
)
def test_recipes_read_as_the_same_recipe(values):
    recipe = recipe_of(**values)
    assert json.loads(json.dumps(load_spec(SkipSpec, None, recipe).recipe())) == recipe


def test_the_source_of_a_prompt_stands_half_the_list_further():
    assert recipe_of(probe="carry")["probe"]["sources"] == ["b", "c", "a"]
    assert recipe_of(probe="carry", prompts=list("abcd"))["probe"]["sources"] == ["c", "d", "a", "b"]


# Cells


def test_cells_are_layers_by_heads_by_windows():
    asked = plan(recipe_of(probe={"name": "carry", "heads": [0, 3]}, windows=[[0, 4], [4, 8]]), SETTING)
    assert len(asked.parts) == 2 * 2 * 2 and len(set(asked.identities.values())) == len(asked.cells)
    # References, their repeats, sources, and each part.
    assert len(asked.cells) == 3 * (1 + 1 + 1 + 8)
    for cell in asked.cells:
        assert Cell.labelled(cell.prompt, cell.label) == cell
    assert len({cell.file for cell in asked.cells}) == len(asked.cells)
    part = CellPart((1, 2), 3, (4, 8), "carry")
    assert part.label == "carry:1+2.h3@4-8"
    assert Cell(0, part).file == "pictures/0000/carry-01+02-head-03-steps-04-08.png"
    assert asked.of(Cell(0, source=True)).text == "b" and asked.of(Cell(0, part)).text == "a"


def test_an_identity_knows_the_probe():
    """Whatever is asked for otherwise makes other cells, and references stay."""
    given = [
        {"probe": "attention"},
        {"probe": "carry"},
        {"probe": {"name": "carry", "keys": False}},
        {"probe": {"name": "carry", "sources": ["x", "y", "z"]}},
        {"probe": {"name": "text-scale", "scale": 0.5}},
        {"probe": {"name": "text-scale", "scale": 0.6}},
        {"windows": [[0, 4]]},
        {"windows": [[0, 5]]},
        {},
    ]
    plans = [plan(recipe_of(**values), SETTING) for values in given]
    changed = [asked.identities[cell] for asked in plans for cell in asked.cells if cell.part]
    assert len(set(changed)) == len(changed)
    references = {asked.identities[Cell(0)] for asked in plans}
    assert len(references) == 1


def test_shards_hold_each_cell_once():
    asked = plan(recipe_of(probe="carry"), SETTING)
    parts = [shard(asked.tasks, index, 3) for index in (1, 2, 3)]
    assert sorted(map(str, (cell for part in parts for task in part for cell in task.cells))) == sorted(
        map(str, asked.cells)
    )


def test_the_dry_run_counts_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = estimate_sweep(spec_of(probe={"name": "carry", "heads": "all"}, windows=[[0, 8], [8, 16]]))
    assert "441 cells: 3 references, 3 repeats, 3 sources, 432 with layers taking a source's keys" in said
    assert "(3 prompts x 12 groups of layers x 6 heads x 2 windows)" in said


# From the command line

ARGV = [
    "--prompts",
    "prompts.json",
    "--steps",
    "2",
    "--width",
    "64",
    "--height",
    "64",
    "--layers",
    "[0, [1, 2]]",
]
ARGV += ["--batch", "2", "--probe", "carry", "--windows", "[[0, 1]]", "--noise_floor", "1"]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.json").write_text(json.dumps(["a red hat", "a boat", "the sky"]))
    clone = save_clone(tmp_path / "clone")
    return lambda *argv: load_demo("demo_2_skip").main([*ARGV, "--model.weights", str(clone), *argv])


def bytes_of(folder):
    return {name: data for name, data in pictures(folder).items() if name.startswith("pictures")}


def test_shards_and_a_sweep_that_was_killed_are_the_whole(demo, tmp_path, monkeypatch):
    """As for skip: whatever was made where and when, the bytes are those of one run."""
    assert demo("--output", "whole") == 0
    whole = bytes_of(tmp_path / "whole")
    assert len(whole) == 2 + 3 * (1 + 1 + 2) and "pictures/0000/carry-01+02-steps-00-01.png" in whole
    assert demo("--shard", "2/2", "--output", "apart") == demo("--shard", "1/2", "--output", "apart") == 0
    assert demo("--merge", "--output", "apart") == 0
    assert bytes_of(tmp_path / "apart") == whole

    made, save = [], make.Maker.save

    def stops(self, task, images):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task)
        return save(self, task, images)

    monkeypatch.setattr(make.Maker, "save", stops)
    try:
        code = demo("--output", "killed")
    except (KeyboardInterrupt, SystemExit) as end:
        code = end
    assert code != 0
    before = bytes_of(tmp_path / "killed")
    assert 0 < len(before) < len(whole)
    monkeypatch.setattr(
        make.Maker, "save", lambda self, task, images: (made.append(task), save(self, task, images))[1]
    )
    assert demo("--output", "killed") == 0
    assert bytes_of(tmp_path / "killed") == whole
    # What stood in the table was not made again.
    assert len(made) == len({(task.prompts, task.part, task.repeat, task.source) for task in made})


def test_shipped_probe_specs_can_be_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("probe", "probe-flux-dev"):
        assert load_demo("demo_2_skip").main([str(ROOT / "json" / f"{name}.json"), "--dry-run"]) == 0
    assert "16 sources, 912 with layers taking a source's keys and values" in capsys.readouterr().out
    for name in ("dino-probe", "dino-probe-flux-dev"):
        assert load_spec(DinoSpec, ROOT / "json" / f"{name}.json").editing is not None


# Making


def made_by(tmp_path, **values):
    recipe = recipe_of(**{"steps": 2, "width": 32, "height": 32, **values})
    asked, models = plan(recipe, SETTING), small_models()
    tmp_path.mkdir(exist_ok=True)
    with local(make.Job(tmp_path, asked, SAMPLING, load=lambda: models), workers=1) as run:
        done = list(run(asked.tasks))
    assert not any(each.error for each in done), done
    return asked, models, {cell: sha for each in done for cell, sha in each.sha256.items()}


def test_a_carry_cell_is_its_prompt_with_the_sources_keys_and_values(tmp_path):
    asked, models, _ = made_by(tmp_path, probe="carry", prompts=["a", "b"], windows=[[1, 2]])
    texts = encode(models, ["a", "b"])
    for prompt, (target, source) in enumerate(("ab", "ba")):

        def picture(rows, prompt=prompt, **hooks):
            for step in sample_steps(models, texts, rows, [prompt] * len(rows), SAMPLING, **hooks):  # noqa: B007
                pass
            with torch.inference_mode():
                return to_pil(models.ae.decode(unpack(step.after, 32, 32))[-1])

        copied = Hooks(inject={0: LookAtSource(of=(0, 0))}, window=(1, 2))
        for cell, wanted in (
            (Cell(prompt), picture([target])),
            (Cell(prompt, source=True), picture([source])),
            (Cell(prompt, CellPart((0,), None, (1, 2), "carry")), picture([source, target], hooks=copied)),
        ):
            found = open_picture(tmp_path / cell.file)
            levels = [torch.tensor(list(image.tobytes()), dtype=torch.int32) for image in (found, wanted)]
            assert (levels[0] - levels[1]).abs().max() <= 1, cell


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("helpers_sweeps:broken_probe", "of layer 1: KeyError: 'x'"),
        ("helpers_sweeps:numbers_probe", "must return flux.hooks.Hooks; got int"),
        ("helpers_sweeps:no_probe", "has no attribute 'no_probe'"),
        ("os:getcwd", "of layer 1: TypeError"),
    ],
)
def test_a_probe_of_ones_own_that_gives_no_hooks_ends_before_a_model_is_loaded(
    tmp_path, monkeypatch, capsys, name, says, dry
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.run.load_models", lambda *a, **k: pytest.fail("a model was loaded"))
    argv = ["--prompts", "a", "--layers", "1", "--probe", name, "--output", "out"]
    assert load_demo("demo_2_skip").main([*argv, *(["--dry-run"] if dry else [])]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("probe", ["attention", "mlp", "text", "mean", "helpers_sweeps:own_probe"])
def test_every_probe_runs_as_a_sweep(tmp_path, probe):
    asked, _, found = made_by(tmp_path, probe=probe, prompts=["a", "b"])
    assert done_cells(tmp_path, asked) == set()  # the table is the caller's
    assert len(found) == len(asked.cells) and len({sha for sha in found.values()}) > 4


def test_bytes_do_not_depend_on_what_was_made_before(tmp_path):
    _, _, first = made_by(tmp_path / "one", probe="carry", prompts=["a", "b"])
    _, _, second = made_by(tmp_path / "two", probe="carry", prompts=["a", "b"], layers=[[1, 2]])
    assert {cell: first[cell] for cell in second} == second
