"""What each kind of mistake in a spec is answered with: the table in `data/messages.json`.

A row has the study, the changes to its spec ("-" takes a key out) and what is typed. "today" is the line as
it was when specs were checked by hand, before pydantic; "now", where there is one, is what became of it.
"""

import json
from pathlib import Path

import pytest

from flux.studies.edit.spec import EditSpec
from flux.studies.reading import read_command
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec

TABLE = json.loads((Path(__file__).parents[1] / "data" / "messages.json").read_text(encoding="utf-8"))
KINDS = {kind.demo: kind for kind in (TestSpec, LayerSpec, SkipSpec, DinoSpec, EditSpec)}


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A folder with the files that the specs of the table name."""
    room = tmp_path_factory.mktemp("room")
    for name in ("pics", "weights", "auto"):
        (room / name).mkdir()
    for name, text in TABLE["files"].items():
        (room / name).write_text(text, encoding="utf-8")
    return room


def id_of(row: dict) -> str:
    return f"{row['study']} {row.get('typed') or row['changes']}"


@pytest.mark.parametrize("row", TABLE["rows"], ids=id_of)
def test_a_mistake(row, room, monkeypatch, capsys):
    monkeypatch.chdir(room)
    spec = {**TABLE["specs"][row["study"]], **row["changes"]}
    Path("my.json").write_text(json.dumps({key: value for key, value in spec.items() if value != "-"}))
    with pytest.raises(SystemExit) as end:
        read_command(KINDS[row["study"]], doc="", default=Path("my.json"), argv=row.get("typed", []))
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.replace(str(room), "{here}") == row.get("now", row["today"]) + "\n"
