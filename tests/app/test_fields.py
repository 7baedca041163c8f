"""A spec that is loaded fills the fields, and they and More keys give it again, whole."""

import json
from functools import partial
from pathlib import Path

import pytest

from flux.app.desk import kind_of
from flux.app.fields import (
    SIDE_BY_SIDE,
    edit_fields,
    edit_spec,
    generate_fields,
    generate_spec,
    layers_fields,
    layers_spec,
    merged,
    more_keys,
    more_text,
    rest_beyond,
)
from flux.methods import METHODS
from flux.util import configs

TABS = {
    "test": (generate_fields, generate_spec),
    "edit": (edit_fields, partial(edit_spec, record=configs["flux-tiny"])),
    "skip": (layers_fields, layers_spec),
}
HOUSE, EDIT = "a big red house on the grass", {"source": "a big red house", "edits": ["a big blue house"]}


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ({"prompts": [HOUSE]}, set()),
        ({"prompts": [HOUSE, "two"], "seeds": "0-2", "steps": 3, "width": 64, "prompt_2": "b"}, set()),
        ({"prompts": [{"prompt": HOUSE, "seed": 4}]}, {"prompts"}),
        ({"prompts": [HOUSE], "start": {"image": "PHOTO", "strength": 0.5}}, set()),
        ({"prompts": [HOUSE], "regions": [{"prompt": "a", "where": [0, 0, 64, 64]}]}, {"regions"}),
        (EDIT, set()),
        (
            EDIT
            | {"method": "flowedit", "strength": "cosine", "layers": [1, 5], "window": [1, 3], "steps": 4},
            set(),
        ),
        (EDIT | {"method": "flowedit", "strength": [0.5, 0.25], "layers": [1], "steps": 2}, {"strength"}),
        (EDIT | {"edits": [{"prompt": "a blue house", "strength": 0.5}]}, {"edits"}),
        (EDIT | {"method": "flowedit", "mask": [0, 0, 64, 64]}, {"mask"}),
        (EDIT | {"method": "flowedit", "mask": {"where": "words", "feather": 3}}, {"mask"}),
        (EDIT | {"watch": {"points": [[3, 3]]}}, {"watch"}),
        (EDIT | {"checks": {"dino": "off"}, "batch": 1}, {"checks", "batch"}),
        ({"source": {"prompt": HOUSE, "image": "PHOTO"}, "edits": ["a"], "method": "flowedit"}, set()),
        ({"sources": [{"prompt": HOUSE, "edit": "a blue house"}, {"prompt": "a", "edit": "b"}]}, {"sources"}),
        ({"prompts": [HOUSE], "layers": "0-3", "noise_floor": 0, "batch": 1}, set()),
        ({"prompts": [HOUSE, "two"], "layers": [1], "noise_floor": 2}, {"prompts", "noise_floor", "batch"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_fields_and_more_keys_give_a_spec_again(desk, asked, more):
    from flux.app.uploads import take_picture

    root = Path(__file__).parents[2]
    photo = take_picture(root / "json" / "photos" / "scene.png", desk.uploads, 8)
    whole = desk.read(kind_of(asked), json.loads(json.dumps(asked).replace("PHOTO", str(photo))))
    fields, spec = TABS[whole.kind]
    found = fields(whole.spec)
    rest = rest_beyond(whole, spec(**found), desk.read)
    assert rest.keys() == more
    assert desk.read(whole.kind, spec(**found, more=more_text(rest))).recipe == whole.recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "must be a JSON object"),
        ("{'a': 1}", "not valid JSON at line 1, column 2"),
        ('{"a": 1, "a": 2}', "More keys: "),
    ],
)
def test_what_is_no_object_is_refused_in_one_line(text, said):
    with pytest.raises(ValueError, match="^More keys: ") as error:
        more_keys(text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_more_keys_win_key_by_key():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": [5]}) == {
        "a": {"b": 4, "c": 2},
        "d": [5],
    }
    assert more_keys(" \n") == {} and more_text({}) == ""


def edit_asked(**changed):
    """The tab's spec with its fields as they are at first, but for those that are changed."""
    fields = {"prompt": HOUSE, "photo": None, "edits": "a big blue house", "method": SIDE_BY_SIDE}
    fields |= {"settings": "", "layers": [1, 11], "strategy": "copy", "amount": 0.5, "strength": 1}
    fields |= {"fade": "constant", "start": 0, "stop": 0, "seed": "2", "steps": 0, "guidance": None}
    fields |= {"width": 64, "height": 64, "mask": "none", "mask_file": None}
    return edit_spec(**fields | changed, record=configs["flux-tiny"])


@pytest.mark.parametrize(
    ("changed", "window"),
    [
        ({"start": 2}, (2, 16)),
        ({"start": 2, "steps": 8}, (2, 8)),
        ({"start": 2, "more": '{"steps": 4}'}, (2, 4)),
        ({"start": 2, "method": "flowedit"}, (2, 16)),
        ({"start": 2, "more": '{"method": "uniedit"}'}, (2, 15)),
        ({"start": None, "stop": 3}, (0, 3)),
        ({"start": 2, "stop": None}, (2, 16)),
        ({"start": None, "stop": None}, None),
    ],
)
def test_steps_to_the_end_are_those_that_are_made(desk, changed, window):
    assert desk.read("edit", edit_asked(**changed)).spec.window == window


SOURCES = '"sources": [{"prompt": "a big red house", "edit": "a big blue house"}]'


@pytest.mark.parametrize(
    ("changed", "method", "guidance"),
    [
        ({}, None, 3.5),
        ({"photo": "photo.png"}, {"name": "gentle"}, None),
        ({"more": f"{{{SOURCES}}}"}, {"name": "gentle"}, None),
        ({"more": f'{{{SOURCES}, "guidance": 2}}'}, {"name": "gentle"}, 2),
        ({"more": f'{{{SOURCES}, "method": "noise"}}'}, "noise", None),
        ({"photo": "photo.png", "method": "flowedit"}, {"name": "flowedit"}, None),
    ],
)
def test_what_is_not_edited_side_by_side_has_a_method_and_its_guidance(changed, method, guidance):
    spec = edit_asked(guidance=3.5, **changed)
    assert (spec.get("method"), spec.get("guidance")) == (method, guidance)


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_every_method_takes_the_fields_as_they_are_at_first(desk, row):
    spec = edit_asked(method=row.name) | ({"mask": [0, 0, 32, 64]} if row.needs_mask else {})
    assert desk.read("edit", spec).recipe["layers"] == ([1, 11] if row.pairs else None)


@pytest.mark.parametrize("name", [SIDE_BY_SIDE, "stable-flow", "flowedit", "noise"])
def test_no_layers_on_the_strip_are_no_layers_of_the_edit_and_come_back_as_none(desk, name):
    asked = desk.read("edit", edit_asked(method=name, layers=[]))
    assert not asked.recipe["layers"]
    found = edit_fields(asked.spec)
    spec = edit_spec(**found, record=configs["flux-tiny"])
    assert found["layers"] == [] and not rest_beyond(asked, spec, desk.read)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "noise", "strength": 0.5}, "strength = 0.5: noise never looks at its source"),
        ({"method": "noise", "more": '{"layers": [1]}'}, "noise takes none"),
        ({"method": "flowedit", "layers": [], "start": 2}, "no layers are named to look in"),
    ],
)
def test_what_is_said_of_looks_that_there_are_none_of_is_refused(desk, changed, said):
    with pytest.raises(ValueError, match=said):
        desk.read("edit", edit_asked(**changed))
