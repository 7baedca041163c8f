"""The sweep without its demo: spec, cells, shards, identities, table, folder, engines."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from helpers_demos import small_models
from PIL import Image

from flux.generate import Sampling, encode, sample_steps
from flux.hooks import Hooks
from flux.pictures.files import to_pil
from flux.sampling import unpack
from flux.studies.folder import RunFolder
from flux.studies.reading import SpecError, load_spec
from flux.studies.sweep import engines, make
from flux.studies.sweep.cells import Cell, CellPart, Plan, Prompt, Task, plan, shard, tasks
from flux.studies.sweep.engines.local import local
from flux.studies.sweep.folder import COLUMNS, CellRow, CellTable, done_cells, read_sweep, save_picture
from flux.studies.sweep.spec import SkipSpec
from flux.weights.identity import digest

SETTING = {"device": "cpu", "dtype": "float32", "weights": {"flow model": "1"}}
SAMPLING = Sampling(steps=2, guidance=3.5, width=32, height=32)


def spec_of(**values) -> SkipSpec:
    return load_spec(SkipSpec, None, {"prompts": ["a", "b", "c"], **values})


def refused(**values) -> str:
    with pytest.raises(SpecError) as error:
        spec_of(**values)
    assert "\n" not in str(error.value)
    return str(error.value)


# Spec


def test_layers_are_named_in_every_way():
    all_layers = tuple((i,) for i in range(12))
    assert spec_of().groups() == spec_of(layers="all").groups() == all_layers
    assert spec_of(layers=["double.*", "single.*"]).groups() == all_layers
    assert spec_of(layers=3).groups() == spec_of(layers=["double.3"]).groups() == ((3,),)
    assert spec_of(layers="0-2").groups() == ((0,), (1,), (2,))
    assert spec_of(layers=["single.1-2", 0]).groups() == ((5,), (6,), (0,))
    assert spec_of(layers=["all", [8, 7], "1+single.0"]).groups() == (*all_layers, (7, 8), (1, 4))
    assert spec_of(layers=[["double.*"]]).groups() == ((0, 1, 2, 3),)


@pytest.mark.parametrize(
    "layers, words",
    [
        ([], "layers = []: must have at least one entry"),
        ({}, "must be "),
        ([0, []], "layers[1] = []: a joint set must have at least one layer"),
        ([12], "layers[0] = 12: layer 12 does not exist: the model has layers 0 to 11 (double.0 to double.3"),
        (["double.4"], "layer 'double.4' does not exist"),
        ([[0, 99]], "layers[0] = [0, 99]: layer 99 does not exist"),
        ([[3, "double.3"]], "a joint set lists each layer once, and this one layer 3 twice"),
        ([["double.*", 3]], "this one layer 3 twice"),
        ([3, "double.3"], 'layers[1] = "double.3": layer 3 stands in entry 0 already'),
        ([[1, 2], "2+1"], "layer 1+2 stands in entry 0 already"),
        (["all", [3]], "layer 3 stands in entry 0 already"),
        (["3-1"], "a range goes from its lower layer to its higher one"),
        (["3-99"], "layer '99' does not exist"),
        (["1+"], "layer '' does not exist"),
        ([True], "must be a layer's number or its name"),
        ([[0, None]], "layers[0][1] = null: must be a layer's number or its name"),
    ],
)
def test_wrong_layers(layers, words):
    assert words in refused(layers=layers)


def test_prompts_and_their_seeds(tmp_path):
    given = spec_of(prompts=["a", {"prompt": "b", "seed": 9}, {"prompt": "a"}], seed=4).seeded_prompts()
    assert [(each.prompt, each.seed) for each in given] == [("a", 4), ("b", 9), ("a", 6)]
    file = tmp_path / "prompts.json"
    for text in (["a", "b"], {"prompts": ["a", "b"]}):
        file.write_text(json.dumps(text))
        assert [each.prompt for each in spec_of(prompts=str(file)).prompts] == ["a", "b"]
    # As the command line gives it.
    assert len(spec_of(prompts=[str(file)]).prompts) == 2
    assert [each.prompt for each in spec_of(prompts="a red hat").prompts] == ["a red hat"]
    spec = tmp_path / "spec.json"
    spec.write_text('{"prompts": "prompts.json"}')
    assert len(load_spec(SkipSpec, spec).prompts) == 2


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no such file"),
        ("[", "not valid JSON at line 1"),
        ("3", "must be an object"),
        ("[]", "prompts = []: must have at least one entry"),
        ('{"prompt": "a"}', 'prompt = "a": unknown key'),
        ('["a", 3]', "prompts[1] = 3: must be an object with the keys prompt, seed"),
        ('["a", {"seed": 3}]', "prompts[1].prompt: missing"),
        ('[{"prompt": "a", "seed": -2}]', "prompts[0].seed = -2: must be between 0 and"),
        ('[{"prompt": "a", "sede": 1}]', "prompts[0].sede = 1: unknown key, did you mean seed?"),
        (json.dumps([1] * 9), "; and 6 more"),
    ],
)
def test_wrong_files_of_prompts(text, words, tmp_path):
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    said = refused(prompts=str(file))
    assert words in said and str(file) in said


@pytest.mark.parametrize(
    "values, words",
    [
        ({"prompts": []}, "prompts = []: must have at least one entry"),
        ({"prompts": ["a", ["b"]]}, 'prompts[1] = ["b"]: must be an object'),
        ({"prompts": [{"prompt": "a", "seed": 2**63}]}, "prompts[0].seed"),
        ({"seed": 2**63 - 2}, 'prompts[2] = "c": its seed would be 9223372036854775808'),
        ({"prompts": [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 1}]}, "is prompts[0] again"),
        ({"shard": "3/2"}, 'shard = "3/2": must be "i/n" with 1 <= i <= n'),
        ({"shard": "0/2"}, "must be"),
        ({"shard": "1"}, "must be"),
        ({"shard": 1}, "must be"),
        ({"shard": "1/2", "merge": True}, "merge = true: cannot go with shard"),
        ({"shard": "1/2", "until": {"threshold": 0.9}}, "cannot go with until"),
        ({"until": {}}, "until.threshold: missing"),
        ({"until": {"threshold": 1.5}}, "until.threshold = 1.5: must be between -1 and 1"),
        (
            {"until": {"threshold": 0.9, "confidence": 1}},
            "until.confidence = 1.0: must be above 0 and below 1",
        ),
        ({"until": {"threshold": 0.9, "rounds": [16, 8]}}, "until.rounds = [16, 8]: must be ascending"),
        ({"until": {"threshold": 0.9, "rounds": [1]}}, "until.rounds[0] = 1: must be between 2 and 100000"),
        ({"until": {"threshold": 0.9, "dino": "off"}}, 'until.dino = "off": cannot be off'),
        ({"engine": "rya"}, "did you mean ray?"),
        ({"engine": {"name": "local", "address": "auto"}}, 'is for engine "ray"'),
        ({"engine": {"workers": 0}}, "engine.workers = 0: must be between 1 and 4096"),
        ({"batch": 0}, "batch = 0: must be between 1 and 1024"),
        ({"noise_floor": -1}, "noise_floor = -1: must be between 0 and 100000"),
        ({"stpes": 3}, "did you mean steps?"),
    ],
)
def test_wrong_specs(values, words):
    assert words in refused(**values)


def test_the_recipe_reads_as_the_same_recipe_and_leaves_out_who_works_where(tmp_path):
    spec = spec_of(layers=["0-1", [7, 8]], until={"threshold": 0.9})
    recipe = spec.recipe()
    assert recipe["layers"] == [[0], [1], [7, 8]] and recipe["prompts"][2] == {"prompt": "c", "seed": 2}
    assert load_spec(SkipSpec, None, recipe).recipe() == json.loads(json.dumps(recipe))
    others = {"engine": "ray", "merge": True, "output": str(tmp_path), "overwrite": True}
    device = {"model.device": "cuda:1", "model.offload": True}
    assert spec_of(layers=["0-1", [7, 8]], until={"threshold": 0.9}, **others, **device).recipe() == recipe
    assert spec_of(shard="1/2").recipe() == spec_of(shard="2/2").recipe() == spec_of().recipe()


# Cells


def test_tasks_hold_each_cell_once_in_batches_that_do_not_depend_on_the_groups():
    chance = random.Random(0)
    for _ in range(50):
        prompts, batch, noise = chance.randint(1, 20), chance.randint(1, 9), chance.randint(0, 20)
        groups = [CellPart((i,)) for i in range(chance.randint(1, 5))] + [CellPart((1, 2))]
        made = tasks(prompts, groups, batch, noise)
        counts = Counter(cell for task in made for cell in task.cells)
        assert set(counts.values()) == {1}
        plain = {Cell(prompt, group) for prompt in range(prompts) for group in [(), *groups]}
        repeats = {cell for cell in counts if cell.repeat}
        assert set(counts) == plain | repeats
        assert len(repeats) == min(prompts, -(-noise // batch) * batch)
        batches = {frozenset(task.prompts) for task in made}
        assert len(batches) == -(-prompts // batch)
        for task in made:
            # A repeat moves every row that can be moved.
            moved = [a != b for a, b in zip(task.prompts, sorted(task.prompts), strict=True)]
            assert all(moved) if task.repeat and len(moved) > 1 else not any(moved)


def test_shards_are_even_disjoint_and_complete():
    made = tasks(20, [CellPart((i,)) for i in range(5)], 3, 4)
    for count in range(1, len(made) + 3):
        parts = [shard(made, index, count) for index in range(1, count + 1)]
        assert Counter(task for part in parts for task in part) == Counter(made)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for index, count in ((0, 2), (3, 2)):
        with pytest.raises(ValueError, match="shard"):
            shard(made, index, count)


def test_names_of_cells():
    assert Cell(3, ()).file == "pictures/0003/reference.png"
    assert Cell(3, (), repeat=True).file == "pictures/0003/repeat.png"
    assert Cell(12, (6,)).file == "pictures/0012/skip-06.png"
    assert Cell(0, (17, 18)).file == "pictures/0000/skip-17+18.png"
    for cell in (Cell(3, ()), Cell(3, (), True), Cell(12, (6,)), Cell(0, (17, 18))):
        assert Cell.labelled(cell.prompt, cell.label) == cell


def recipe_of(**values) -> dict:
    return json.loads(json.dumps(spec_of(layers=[0, [1, 2]], batch=2, **values).recipe()))


def test_an_identity_changes_with_every_ingredient():
    recipe = recipe_of()
    before = plan(recipe, SETTING).identities
    assert len(set(before.values())) == len(before) == 3 * 4
    assert plan(recipe, SETTING).identities == before

    def changed(recipe=recipe, setting=SETTING) -> set[Cell]:
        after = plan(recipe, setting).identities
        return {cell for cell in before if after.get(cell) != before[cell]}

    every = set(before)
    for key, value in {"steps": 3, "guidance": 2.0, "width": 64, "height": 64}.items():
        assert changed({**recipe, key: value}) == every, key
    assert changed({**recipe, "model": {**recipe["model"], "name": "flux-dev"}}) == every
    for key, value in {"device": "cuda", "dtype": "bfloat16", "weights": {"flow model": "2"}}.items():
        assert changed(setting={**SETTING, key: value}) == every, key
    # A prompt or a seed changes its own pictures, and those beside which it is made.
    for value in ({"prompt": "x", "seed": 0}, {"prompt": "a", "seed": 5}):
        others = {**recipe, "prompts": [value, *recipe["prompts"][1:]]}
        assert changed(others) == {cell for cell in every if cell.prompt < 2}
    assert changed({**recipe, "batch": 3}) == every
    # More prompts in further batches, and more groups, change nothing.
    assert changed({**recipe, "layers": [[5], *recipe["layers"]]}) == set()
    assert changed({**recipe, "noise_floor": 2}) == {Cell(2, (), repeat=True)}


def test_what_is_no_recipe_is_refused():
    for recipe in ({}, {"prompts": ["a"]}, {**recipe_of(), "layers": "all"}, {**recipe_of(), "batch": 0}):
        with pytest.raises(ValueError, match="not the recipe of a sweep"):
            plan(recipe, {})


# Folder


RED, BLUE = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A finished sweep of plain pictures."""
    recipe = recipe_of()
    run = RunFolder.open(tmp_path / "sweep", recipe, SETTING)
    asked = plan(recipe, SETTING)
    for task in asked.tasks:
        made = {cell: save_picture(run.path, cell, RED, {"prompt": "a"}) for cell in task.cells}
        CellTable(run.path).append([CellRow(cell, asked.identities[cell], sha) for cell, sha in made.items()])
    run.finish({})
    return run.path


def asked_of(folder: Path) -> Plan:
    return plan(recipe_of(), SETTING)


def test_a_whole_sweep_is_read(folder):
    asked = asked_of(folder)
    sweep = read_sweep(folder)
    assert sweep.problems == () and done_cells(folder, asked) == set(asked.cells)
    assert sweep.cells == {cell: folder / cell.file for cell in asked.cells if not cell.repeat}
    assert sweep.parts == (CellPart((0,)), CellPart((1, 2))) and sweep.prompts[1] == Prompt("b", 1)
    assert len(sweep.noise) == 3 and sweep.setting == SETTING and sweep.recipe == recipe_of()
    assert sweep.reference(1) == folder / "pictures/0001/reference.png"
    assert (folder / "cells.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_damaged_cells_are_not_done_and_are_named(folder):
    asked, pictures = asked_of(folder), folder / "pictures"
    half, replaced, gone = Cell(0, (0,)), Cell(0, (1, 2)), Cell(1, ())
    (folder / half.file).write_bytes((folder / half.file).read_bytes()[:60])
    BLUE.save(folder / replaced.file)
    (folder / gone.file).unlink()
    RED.save(pictures / "0001" / "holiday.png")
    (pictures / "0001" / "notes.txt").write_text("mine")
    assert set(asked.cells) - done_cells(folder, asked) == {half, replaced, gone}
    sweep = read_sweep(folder)
    assert not {half, replaced, gone} & sweep.cells.keys() and len(sweep.noise) == 2
    assert set(sweep.problems) == {
        f"{half.file} cannot be read and is left out",
        f"{replaced.file} is not the picture that cells.csv names, and is left out",
        f"{gone.file} is missing",
        "prompt 1 has no reference to compare its pictures with",
        "pictures/0001/holiday.png is none of the sweep's pictures",
    }


def test_a_torn_last_line_is_cut_off_by_the_next_row(folder):
    table, asked = CellTable(folder), asked_of(folder)
    whole = table.path.read_bytes()
    last = asked.cells[-1]
    table.path.write_bytes(whole[:-20])
    assert set(asked.cells) - done_cells(folder, asked) == {last}
    said = read_sweep(folder).problems
    assert said[0] == "the last line of cells.csv is torn off and left out"
    assert said[1] == "1 pictures have no row in cells.csv and are taken as they are"
    sha = save_picture(folder, last, RED, {"prompt": "a"})
    table.append([CellRow(last, asked.identities[last], sha)])
    assert table.path.read_bytes() == whole and read_sweep(folder).problems == ()


def test_a_damaged_table_loses_no_pictures(folder):
    table = folder / "cells.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text(
        "".join([*lines[:3], "1,2,3\n", "\x00\ufffd\n", lines[3].replace("pictures", "x"), *lines[4:]])
    )
    sweep = read_sweep(folder)
    assert sweep.problems[0] == "cells.csv has 3 damaged lines, left out: 4, 5, 6"
    assert len(sweep.cells) == 9
    table.unlink()
    sweep = read_sweep(folder)
    assert sweep.problems[0].startswith("cells.csv cannot be read") and len(sweep.cells) == 9
    assert done_cells(folder, asked_of(folder)) == set()


def test_failed_and_unmade_cells_are_named(folder):
    asked, table = asked_of(folder), CellTable(folder)
    failed, unmade = Cell(0, (0,)), Cell(1, (0,))
    rows = [row for row in table.rows() if row.cell not in (failed, unmade)]
    for cell in (failed, unmade):
        (folder / cell.file).unlink()
    table.path.unlink()
    table.append([*rows, CellRow(failed, asked.identities[failed], error='failed: "a,\n b"')])
    assert table.rows()[-1].error == 'failed: "a, b"'
    assert read_sweep(folder).problems == (
        f'{failed.file} could not be made: failed: "a, b"',
        f"1 of 12 cells are not made yet: the first is {unmade.file}",
    )
    # A later success counts.
    sha = save_picture(folder, failed, RED, {"prompt": "a"})
    table.append([CellRow(failed, asked.identities[failed], sha)])
    assert failed in done_cells(folder, asked)


def test_folders_that_hold_no_sweep(folder, tmp_path):
    (folder / "run.json").write_text("{")
    assert len(read_sweep(folder).cells) == 9  # spec.json says the same
    (folder / "spec.json").write_text('{"prompts": ["a"], "seeds": [0]}')
    for path, words in (
        (tmp_path / "nowhere", "no such folder"),
        (folder / "cells.csv", "is not a folder"),
        (folder, "holds no sweep of layers: its spec.json is another demo's"),
        (tmp_path, "neither run.json nor spec.json can be read"),
    ):
        with pytest.raises(ValueError, match=words):
            read_sweep(path)


# Making


def job_of(tmp_path: Path, models, prompts=("a", "b", "c")) -> make.Job:
    given = tuple(Prompt(text, seed) for seed, text in enumerate(prompts))
    asked = Plan(given, (), (Task(tuple(range(len(given)))),), {})
    return make.Job(tmp_path, asked, SAMPLING, load=lambda: models)


def test_a_cell_is_what_denoise_makes_with_the_layers_skipped(tmp_path):
    models = small_models()
    job, task = job_of(tmp_path, models), Task((0, 1), (1, 5))
    texts = encode(models, ["a", "b"])
    with local(job) as run:
        (done,) = run([task])
    assert set(done.sha256) == {Cell(0, (1, 5)), Cell(1, (1, 5))} and not done.error
    for step in sample_steps(models, texts, ["a", "b"], [0, 1], SAMPLING, hooks=Hooks(skip=[1, "single.1"])):  # noqa: B007
        pass
    with torch.inference_mode():
        pictures = models.ae.decode(unpack(step.after, 32, 32))
    for cell, picture in zip(task.cells, pictures, strict=True):
        with Image.open(tmp_path / cell.file) as image:
            assert image.tobytes() == to_pil(picture).tobytes()
            assert image.text["skipped"] == "1+5" and image.text["prompt"] == "ab"[cell.prompt]


def test_texts_are_encoded_once_and_encoders_let_go(tmp_path):
    models = small_models()
    with local(job_of(tmp_path, models)) as run:
        list(run(tasks(3, [(0,), (1,)], 2, 2)))
        list(run(tasks(3, [(2,)], 2, 0)))
    assert sorted(models.t5.calls) == sorted(models.clip.calls) == ["a", "b", "c"]
    maker = make.Maker(job_of(tmp_path, models))
    assert maker.models.t5 is None and maker.models.clip is None


def test_bytes_depend_neither_on_order_nor_on_threads(tmp_path):
    models, made = small_models(), tasks(5, [(0,), (3,), (1, 2)], 2, 4)
    found = []
    for number, (order, workers) in enumerate([(made, 1), (made[::-1], 1), (made, 3)]):
        with local(job_of(tmp_path / str(number), models, "abcde"), workers=workers) as run:
            found.append({cell: sha for done in run(order) for cell, sha in done.sha256.items()})
    assert found[0] == found[1] == found[2] and len(found[0]) == 5 * 4 + 4
    # Without a noise of its own, a repeat is its reference.
    assert found[0][Cell(0, (), repeat=True)] == found[0][Cell(0, ())]


def test_pictures_are_written_while_the_next_ones_are_made(tmp_path, monkeypatch):
    made, sound = [Event() for _ in range(3)], make.make_task
    save, waited = make.save_picture, []

    def make_task(models, texts, task, *others, **options):
        made[task.part.layers[0]].set()
        return sound(models, texts, task, *others, **options)

    def save_picture(folder, cell, *others):
        following = made[min(cell.part.layers[0] + 1, 2)]
        waited.append(following.wait(30))  # a writer in the way of the work would wait in vain
        return save(folder, cell, *others)

    monkeypatch.setattr(make, "make_task", make_task)
    monkeypatch.setattr(make, "save_picture", save_picture)
    asked = [Task((0, 1), (group,)) for group in range(3)]
    with local(job_of(tmp_path, small_models()), workers=1) as run:
        done = list(run(asked))
    assert waited == [True] * 6 and [each.task for each in done] == asked
    assert all((tmp_path / cell.file).is_file() for each in done for cell in each.sha256)


def test_a_sweep_that_is_stopped_lists_what_it_has_made(tmp_path, monkeypatch):
    sound, done = make.make_task, []

    def make_task(models, texts, task, *others, **options):
        if task.part.layers == (2,):
            raise KeyboardInterrupt
        return sound(models, texts, task, *others, **options)

    monkeypatch.setattr(make, "make_task", make_task)
    with pytest.raises(KeyboardInterrupt), local(job_of(tmp_path, small_models()), workers=1) as run:
        for each in run([Task((0,), (group,)) for group in range(3)]):
            done.append(each.task.part.layers)
    assert done == [(0,), (1,)]


def test_a_full_disk_ends_a_sweep(tmp_path, monkeypatch):
    calls = []

    def save_picture(folder, cell, *others):
        calls.append(cell.part.layers)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make, "save_picture", save_picture)
    with pytest.raises(OSError, match="No space"), local(job_of(tmp_path, small_models()), workers=1) as run:
        list(run([Task((0,), (group,)) for group in range(3)]))
    assert calls == [(0,)], "nothing is written behind it"


def test_nothing_is_loaded_for_no_tasks(tmp_path):
    with local(replace(job_of(tmp_path, None), load=lambda: 1 / 0)) as run:
        assert list(run([])) == []


def test_a_task_is_tried_three_times_and_then_named():
    calls = []

    def fails(task, until):
        calls.append(task)
        if len(calls) < until:
            raise RuntimeError("odd")
        return {Cell(0, ()): "1"}

    task = Task((0,), ())
    done = engines.attempt(lambda task: fails(task, 3), task)
    assert len(calls) == 3 and done.error == "" and done.sha256 == {Cell(0, ()): "1"}
    calls.clear()
    done = engines.attempt(lambda task: fails(task, 9), task)
    assert len(calls) == 3 and done.error == "RuntimeError: odd" and done.sha256 == {}


@pytest.mark.parametrize(
    "error",
    [OSError("disk full"), MemoryError(), ImportError("x"), torch.cuda.OutOfMemoryError("x"),
     RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"),
     RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`"),
     RuntimeError("HIP error: the operation cannot be performed in the present state"),
     *([torch.AcceleratorError("CUDA error: unspecified launch failure")]
       if hasattr(torch, "AcceleratorError") else [])],
)  # fmt: skip
def test_what_is_the_machines_fault_is_raised_at_once(error):
    def fails(task):
        raise error

    with pytest.raises(type(error)):
        engines.attempt(fails, Task((0,), ()))


def test_latents_that_are_no_numbers_are_an_error(tmp_path):
    models = small_models()
    with torch.no_grad():
        models.flow.final_layer.linear.weight.fill_(float("nan"))
    with local(job_of(tmp_path, models)) as run:
        (done,) = run([Task((0,), (2,))])
    assert done.error.startswith(
        "NotFinite: latents are not finite with layers [2] skipped: from step 1 of 2"
    )
    assert "float32" in done.error and not done.sha256 and not list(tmp_path.rglob("*.png"))


def test_a_digest_is_of_contents_alone(tmp_path, monkeypatch):
    from flux.weights import identity as weights_id

    a, b = tmp_path / "a" / "f", tmp_path / "b" / "f"
    for file in (a, b):
        file.parent.mkdir()
        file.write_bytes(bytes(range(250)) * 40)
    assert digest([a]) == digest([b])
    for sizes in ((2**26, 64, 2**20), (1000, 4, 100)):
        for name, value in zip(("WHOLE", "SAMPLES", "SAMPLE"), sizes, strict=True):
            monkeypatch.setattr(weights_id, name, value)
        before = digest([b])
        for place in (0, 9999):
            data = bytearray(b.read_bytes())
            data[place] ^= 1
            b.write_bytes(data)
            assert digest([b]) != before
            data[place] ^= 1
            b.write_bytes(data)
    b.write_bytes(a.read_bytes() + b"x")
    assert digest([a]) != digest([b])
