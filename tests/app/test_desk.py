"""What is asked for becomes a spec and a run: the same bytes as a demo's, and no way to other files."""

import json
import os
import runpy
from pathlib import Path

import pytest
from PIL import Image

from flux.app.desk import kind_of

ROOT = Path(__file__).parents[2]
PROMPT = "a big red house on the grass"
ASKED = {"prompts": [PROMPT], "steps": 2, "seeds": 3, "width": 64, "height": 64}


def make(desk, kind, asked):
    asked = desk.read(kind, asked)
    *_, state = desk.put(asked).states()
    assert state.phase == "done", state.message
    return asked, state


def by_demo(demo: str, recipe, folder: Path) -> Path:
    """The run that a demo makes of a saved spec."""
    file = folder / "saved.json"
    file.write_text(json.dumps(recipe))
    arguments = [str(file), "--output", str(folder / "by-demo")]
    assert not runpy.run_path(str(ROOT / "demos" / f"{demo}.py"))["main"](arguments)
    return folder / "by-demo"


@pytest.fixture
def photo(desk):
    from flux.app.uploads import take_picture

    return str(take_picture(ROOT / "json" / "photos" / "scene.png", desk.uploads, 8))


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("test", ASKED | {"per_prompt": 2}),
        ("layer", {"prompt": PROMPT, "steps": 2, "width": 64, "height": 64}),
        ("skip", {"prompts": [PROMPT], "steps": 1, "layers": [0, 5], "noise_floor": 0}),
        ("edit", {"source": PROMPT, "edits": ["a big blue house on the grass"], "steps": 2}),
        ("edit", {"source": {"prompt": PROMPT, "image": "PHOTO"}, "edits": ["a blue house"], "steps": 2}),
    ],
    ids=["text", "timesteps", "sweep", "edit", "photo"],
)
def test_a_saved_spec_makes_the_same_bytes(desk, photo, tmp_path, kind, asked):
    asked = json.loads(json.dumps(asked).replace("PHOTO", photo))
    asked, state = make(desk, kind, asked)
    other = by_demo(asked.demo, asked.recipe, tmp_path)
    pictures = sorted(file.relative_to(other) for file in other.rglob("*.png"))
    assert pictures and "sheet.png" in map(str, pictures) or kind in ("layer", "skip")
    for file in pictures:
        assert (state.folder / file).read_bytes() == (other / file).read_bytes(), file


def test_steps_are_seen_on_the_way(desk):
    _, state = make(desk, "test", ASKED | {"seeds": 40})
    assert (state.step, state.steps, len(state.thumbs)) == (1, 2, 2)
    assert state.files == ("picture-01-seed-40.png",)


def test_the_same_again_is_there_already(desk):
    make(desk, "test", ASKED)
    _, state = make(desk, "test", ASKED)
    assert any("made already" in line for line in state.lines) and not state.thumbs


def test_a_drawn_seed_stands_in_the_saved_spec(desk):
    asked = desk.read("test", ASKED | {"seeds": -1})
    assert asked.recipe["seeds"][0] >= 0


# What is refused


def refusal(desk, kind, asked) -> str:
    with pytest.raises((ValueError, OSError)) as error:
        desk.read(kind, asked)
    assert "\n" not in str(error.value)
    return str(error.value)


OUTSIDE = [
    "/etc/hostname",
    "../../../../../../etc/hostname",
    "~/.bashrc",
    "/proc/self/environ",
    "{root}/../x.png",
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(
    "asked",
    [
        {"prompts": [PROMPT], "start": "PATH"},
        {"prompts": [PROMPT], "start": {"image": "PHOTO", "mask": "PATH"}},
        {"prompts": [PROMPT], "regions": [{"prompt": "a", "where": "PATH"}]},
        {"source": {"prompt": PROMPT, "image": "PATH"}, "edits": ["a"]},
        {"source": {"prompt": PROMPT, "image": "PHOTO"}, "edits": ["a"], "mask": "PATH"},
        {"source": {"prompt": PROMPT, "image": "PHOTO"}, "edits": [{"prompt": "a", "mask": "PATH"}]},
        {"source": PROMPT, "edits": ["a"], "layers": "PATH.json"},
        {"source": PROMPT, "edits": ["a"], "layers": {"file": "PATH"}},
        {"sources": "PATH.csv"},
        {"sources": [{"image": "PATH", "prompt": "a", "edit": "b"}]},
    ],
    ids=lambda asked: "-".join(asked),
)
def test_no_file_elsewhere_is_opened(desk, photo, path, asked, monkeypatch):
    path = path.format(root=desk.root)
    asked = json.loads(json.dumps(asked).replace("PATH", path).replace("PHOTO", photo))
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or real(self, *a, **k))
    said = refusal(desk, kind_of(asked), asked)
    assert "lies outside the folders of uploads and runs" in said
    assert not [each for each in opened if not str(each).startswith((str(desk.root), str(ROOT)))]


@pytest.mark.parametrize("key", ["prompts", "negative_prompt", "prompt_2", "source", "edits"])
def test_no_text_names_a_file_of_prompts(desk, key):
    base = (
        {"source": PROMPT, "edits": ["a"]}
        if key in ("source", "edits")
        else {"prompts": [PROMPT], "true_cfg": 2.0}
    )
    asked = base | {key: "/etc/secrets.txt"}
    if key == "prompt_2":  # which never names one
        assert desk.read("test", {"prompts": [PROMPT], key: "/etc/secrets.txt"})
        return
    assert "names a file of prompts, and none is read here" in refusal(desk, kind_of(asked), asked)


def test_a_link_out_of_the_uploads_is_no_way_out(desk, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    link = desk.uploads / "link.png"
    os.symlink(tmp_path / "secret.png", link)
    said = refusal(desk, "test", {"prompts": [PROMPT], "start": str(link)})
    assert "lies outside" in said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prompts": ["a"], "model": "flux-dev"}, "this page has flux-tiny loaded"),
        ({"prompts": ["a"], "model": {"name": "flux-tiny", "weights": "/root"}}, None),
        ({"source": "a", "edits": ["b"], "method": "os:system"}, "a page runs no code of its users"),
        ({"source": "a", "edits": ["b"], "method": {"name": "os:system"}}, "runs no code"),
        ({"prompts": ["a"], "layers": [0], "probe": "antigravity:fly"}, "runs no code"),
        ({"source": "a", "edits": ["b"], "checks": {"dino": "/root"}}, "checks.dino"),
        (
            {"source": "a", "edits": ["b"], "checks": {"dino": "facebook/dinov2-large"}},
            "choose from auto, off",
        ),
        ({"prompts": ["a"], "layers": [0], "shard": "1/2"}, "a page makes sweeps whole"),
        ({"prompts": ["a"], "steps": 41}, "41 steps are more than the 40 of one job here"),
        ({"prompts": ["a"], "width": 512, "height": 512}, "262144 pixels are more than the 65536"),
        ({"prompts": ["a"], "seeds": "0-8"}, "9 pictures are more than the 8"),
        ({"source": "a", "edits": ["b"] * 5 + ["c"] * 4}, "9 pictures are more than the 8"),
        ({"source": "a", "edits": [{"prompt": "b", "seeds": "0-8"}]}, "9 pictures are more than the 8"),
        ({"source": "a", "edits": ["b"] * 3, "scan": {"strength": [0.1, 0.5, 1]}}, "9 pictures are more"),
        ({"prompts": ["a"], "layers": "all"}, "12 pictures are more than the 8"),
        ({"source": {"prompt": "a", "image": "PHOTO"}, "edits": ["b"], "pixels": 90000}, "90000 pixels are"),
        ({"prompts": ["a", "b" * 10_001]}, "prompts[1]: has 10001 letters, and 10000 are read at most"),
        ({"source": {"prompt": "b" * 10_001}, "edits": ["a"]}, "source.prompt: has 10001 letters"),
        ({"prompts": ["a"], "stepz": 3}, "unknown key"),
    ],
)
def test_what_no_page_does_is_refused_in_one_line(desk, photo, asked, said):
    asked = json.loads(json.dumps(asked).replace("PHOTO", photo))
    kind = "test" if "stepz" in asked else kind_of(asked)
    if said is None:  # it runs the page's own model
        assert desk.read(kind, asked).recipe["model"]["weights"] is None
    else:
        assert said in refusal(desk, kind, asked)


def test_where_a_run_goes_is_the_pages_to_say(desk, tmp_path):
    asked = desk.read("test", ASKED | {"output": str(tmp_path / "there"), "overwrite": True})
    assert asked.spec.output.parent == desk.runs and not asked.spec.overwrite


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"prompts": ["a"]}, "test"),
        ({"prompt": "a"}, "layer"),
        ({"prompts": ["a"], "layers": [1]}, "skip"),
        ({"source": "a", "edits": ["b"]}, "edit"),
        ({"sources": []}, "edit"),
    ],
)
def test_a_spec_is_known_by_its_keys(data, kind):
    assert kind_of(data | {"$schema": "x"}) == kind


@pytest.mark.parametrize("data", [{}, {"cat": 1}, {"sweep": "a"}])
def test_what_no_tab_makes_is_said(data):
    with pytest.raises(ValueError, match="no spec of demo_0_test"):
        kind_of(data)
