"""How many rows `auto` is told of: as many as a run samples side by side, in demos that make pictures."""

import json

import pytest

from flux.studies.edit import STUDY as EDIT
from flux.studies.study import carry_out
from flux.studies.sweep import STUDY as SWEEP
from flux.studies.text import STUDY as TEXT

PROMPTS = ["a", "b", "c", "d"]
EDITS = [{"prompt": f"a {colour} hat", "layers": [3]} for colour in ("red", "blue", "green")]
SPECS = {
    "pictures": (TEXT, {"prompts": PROMPTS, "batch": 3}, 3),
    "fewer than a batch": (TEXT, {"prompts": PROMPTS[:2], "batch": 3}, 2),
    "beside a negative prompt": (
        TEXT,
        {"prompts": PROMPTS, "batch": 3, "negative_prompt": "n", "true_cfg": 2.0},
        6,
    ),
    "a sweep": (SWEEP, {"prompts": PROMPTS, "layers": [0], "batch": 4}, 4),
    "of two prompts": (SWEEP, {"prompts": PROMPTS[:2], "layers": [0], "batch": 8}, 2),
    "beside sources": (
        SWEEP,
        {"prompts": PROMPTS, "layers": [0], "batch": 4, "probe": "carry"},
        8,
    ),
    "edits beside their source": (EDIT, {"source": "a hat", "edits": EDITS, "batch": 2, "compare": False}, 3),
    "edits of a kept source": (
        EDIT,
        {"source": "a hat", "edits": EDITS, "batch": 2, "compare": False, "kept_source": "auto"},
        2,
    ),
    "by a method": (EDIT, {"source": "a hat", "edits": EDITS, "batch": 3, "method": "flowedit"}, 6),
    "a chain": (EDIT, {"source": "a hat", "edits": EDITS, "chain": True}, 2),
}


@pytest.mark.parametrize("name", SPECS)
def test_rows_that_are_told(name, tmp_path, monkeypatch, capsys):
    study, spec, rows = SPECS[name]
    told = []

    def load(name, *, demand, **_):
        told.append(demand.rows)
        raise ValueError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.run.load_models", load)
    size = {"width": 32, "height": 32, "steps": 2, "output": "out"}
    (tmp_path / "my.json").write_text(json.dumps(size | spec))
    assert carry_out(study, doc="", default=tmp_path / "my.json", argv=["my.json"]) != 0
    assert told == [rows], capsys.readouterr().err
