"""Evaluations told before a run are those counted in it, whatever the settings."""

import json
from functools import cache

import pytest
from helpers_demos import small_models
from PIL import Image

from flux.methods import METHODS
from flux.photos.editing import edit_photo_steps
from flux.studies.edit import making
from flux.studies.edit.by_method import references_of, request_of, work
from flux.studies.edit.jobs import batches_of, jobs_of
from flux.studies.edit.spec import EditSpec
from flux.studies.picture_run import Host
from flux.studies.reading import load_spec

models = cache(small_models)

SURE = {"gentle": {"doubt": -10}}
"""Settings by which a method never tries again."""

BOX = [0, 0, 24, 32]

OFF_DEFAULTS = [
    *({"name": "stable-flow", "integrator": name} for name in ("midpoint", "fixed-point", "fireflow")),
    {"name": "stable-flow", "integrator": "uni-inv", "pinning": "free"},
    {"name": "stable-flow", "integrator": "euler-released", "pinning": "exact"},
    {"name": "rf-solver", "inject": 1.0},
    {"name": "flowedit", "draws": 3},
    {"name": "flowedit", "last": 0.5, "draws": 2},
    {"name": "flowedit", "start": 0.6, "last": 1.0},
    {"name": "decflowedit", "search": 1.0, "start": 0.5},
    {"name": "flowalign", "start": 0.5},
    {"name": "uniedit", "depth": 1.0},
    {"name": "dnaedit", "start": 0.4},
    {"name": "gentle", "doubt": -10, "start": 0.5},
    {"name": "noise", "strength": 1.0},
    {"name": "inpaint", "strength": 0.7, "rule": "diffusers"},
    {"name": "kv-edit", "origin": "straight"},
    {"name": "kv-edit", "origin": "noised", "start": 0.5},
]

FOUND = [
    ({"name": name, **SURE.get(name, {})}, {"mask": mask})
    for name in ("flowedit", "stable-flow", "gentle")
    for mask in ("auto", "velocity", "words")
]

FOUND += [({"name": "flowedit"}, {"mask": {"where": "velocity", "search": 1.0, "start": 0.0}})]

MOVED_AWAY = {"negative_prompt": "a bird", "true_cfg": 2.0}

CASES = [
    *(({"name": row.name, **SURE.get(row.name, {})}, {}) for row in METHODS),
    *((method, {}) for method in OFF_DEFAULTS),
    *FOUND,
    *(({"name": row.name, **SURE.get(row.name, {})}, MOVED_AWAY) for row in METHODS),
    *((method, MOVED_AWAY | more) for method, more in FOUND),
]


def spec_of(tmp_path, method, steps: int, **more) -> EditSpec:
    """A photo's edit with nothing beside it that takes evaluations."""
    levels = Image.effect_noise((48, 32), 60).convert("RGB")
    levels.save(tmp_path / "photo.png")
    if {row.name: row for row in METHODS}[method["name"]].needs_mask:
        more.setdefault("mask", BOX)
    whole = {"source": {"image": "photo.png", "prompt": "a dog"}, "edits": ["a cat"], "method": method}
    whole |= {"steps": steps, "width": 48, "height": 32, "paste": False, **more}
    whole["checks"] = {"gate": False, "dino": "off"}
    (tmp_path / "my.json").write_text(json.dumps(whole))
    return load_spec(EditSpec, tmp_path / "my.json")


def counted(spec: EditSpec) -> list[int]:
    """What each edit of a spec took."""
    references = references_of(spec, models(), jobs_of(spec))
    return [
        step.results[number].evaluations
        for batch in batches_of(spec)
        for step in edit_photo_steps(models(), request_of(spec, batch, models(), references))
        for number in step.results
    ]


def named(case) -> str:
    method, more = case
    changes = [f"{key}={value}" for key, value in method.items() if key != "name"]
    return "-".join([method["name"], *changes, *(str(value) for value in more.values())])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_evaluations_told_before_are_those_that_are_counted(case, tmp_path):
    method, more = case
    spec = spec_of(tmp_path, method, 2 + len(named(case)) % 3, **more)
    assert work(spec).evaluations == sum(counted(spec))


def test_of_edits_with_masks_of_their_own_each_is_told_by_itself(tmp_path):
    edits = [*("a cat", {"prompt": "a hat", "mask": BOX}), {"prompt": "a cow", "mask": "auto"}]
    spec = spec_of(tmp_path, {"name": "flowedit"}, 3, edits=edits)
    assert sorted(counted(spec)) == [6, 6, 12] and work(spec).evaluations == 24


GENERATED = {
    "by a method": {"method": "stable-flow", "checks": {"dino": "off", "gate": True}, "batch": 2},
    "found masks": {"mask": "velocity", "operators": "masked"},
    "words, from two seeds": {"mask": "words", "edits": [{"prompt": "a cat", "seeds": [0, 3]}]},
    "guided away": {"mask": "words", **MOVED_AWAY},
    "a chain": {"mask": {"where": "velocity", "search": 1.0}, "chain": True},
    "a chain by a method": {"method": "stable-flow", "chain": True, "checks": {"dino": "off"}, "batch": 2},
    "a scan": {"mask": "words", "scan": {"strength": [0, 1]}},
}


@pytest.mark.parametrize("case", GENERATED)
def test_all_evaluations_of_a_run_are_told_before(case, rows, tmp_path):
    source, edits = "a dog", ["a cat", "a cow", "a boat"]
    whole = {"source": source, "edits": edits, "checks": {"dino": "off"}, "compare": False}
    if case == "by a method":  # a source that is new stands beside one that is not
        shown = {source: "a cat", "a hat": ["a hut", "a cap"], "a bird": "a bee"}
        sources = [{"prompt": prompt, "edit": edit} for prompt, edit in shown.items()]
        whole = {"sources": sources}
    whole |= {"steps": 4, "width": 48, "height": 32, "output": str(tmp_path / "made"), **GENERATED[case]}
    spec = load_spec(EditSpec, None, whole)
    making.make(spec, Host(load=lambda *asked: models()))
    assert sum(rows) == making.run_of(spec).work(spec).evaluations


def test_a_second_try_comes_on_top_as_its_note_says(tmp_path):
    spec = spec_of(tmp_path, {"name": "gentle", "doubt": 10, "again_start": 0.5}, 4)
    again = 2 * 4 * 0.5 + 2
    assert work(spec).evaluations + again == sum(counted(spec))
    assert "  where it tries again: 2 T (1 - again_start) + 2 more" in work(spec).notes


@pytest.mark.parametrize(
    "method, more, words",
    [
        ({"name": "flowedit"}, {}, "2 T (1 - start) = 6, T being 4 steps"),
        ({"name": "flowedit", "draws": 2}, {}, "12; by itself, at its defaults, 2 T (1 - start), T being 4"),
        ({"name": "stable-flow", "integrator": "midpoint"}, {}, "24; by itself, at its defaults, 3 T, T"),
        ({"name": "flowedit"}, {"mask": "auto"}, "12; by itself"),
        ({"name": "flowedit"}, {"mask": "words"}, "8; by itself"),
        ({"name": "flowedit"}, {"edits": ["a cat", "a cow"]}, "2 T (1 - start) = 6, 12 for all, T being 4"),
    ],
)
def test_the_formula_is_told_where_it_holds(method, more, words, tmp_path):
    (line,) = (each for each in work(spec_of(tmp_path, method, 4, **more)).notes if "evaluations of" in each)
    assert line.startswith(f"  evaluations of one row an edit: {words}")
