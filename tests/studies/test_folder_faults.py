"""Write faults: one line that says what is lost and what is safe, and the next run goes on."""

import json
import os

import pytest
from helpers_faults import FULL, READ_ONLY, REFUSED, faults
from PIL import Image

from flux.pictures.files import save_image
from flux.studies.folder import RECORD, RunFolder
from flux.studies.sweep.cells import Cell
from flux.studies.sweep.folder import CellRow, CellTable, save_picture

RECIPE, SETTING = {"steps": 2}, {"device": "cpu"}
NAMES = ("source.png", "noisy/step-01.png", "sheet.png")


def make(base) -> None:
    """A small run: pictures that are missing, then its page."""
    with RunFolder.open(base, RECIPE, SETTING) as run:
        if run.finished and not run.damaged():
            return
        for number, name in enumerate(NAMES):
            if not run.is_whole(name):
                run.save_picture(name, Image.new("RGB", (16, 16), (number, 0, 0)))
        run.write_text("index.html", "page")
        run.finish({})


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    base = tmp_path_factory.mktemp("whole") / "run"
    make(base)
    return files(base)


def count_calls(tmp_path) -> int:
    with faults(tmp_path) as found:
        make(tmp_path / "counted")
    assert len(found.calls) > 30
    return len(found.calls)


@pytest.mark.parametrize("once", [False, True], ids=["from then on", "once"])
@pytest.mark.parametrize("number", [FULL, READ_ONLY, REFUSED])
def test_every_write_call_may_fail(number, once, whole, tmp_path):
    for at in range(count_calls(tmp_path)):
        base = tmp_path / f"{at}" / "run"
        with faults(base.parent, number, at, once=once) as found:
            try:
                make(base)
            except OSError as error:
                said = str(error)
                assert "cannot be written (" in said and os.strerror(number) in said, found.calls[at]
                assert "what was made before is safe" in said and "\n" not in said
            else:  # what only tidies up or signs the lock may fail, and what is tried again
                harmless = ("unlink", "mkdir", "open", "os.open")
                assert found.calls[at].split()[0] in harmless, found.calls[at]
        make(base)
        assert files(base) == whole, found.calls[at]


def test_a_finished_run_is_found_where_nothing_can_be_written(whole, tmp_path):
    make(tmp_path / "run")
    with faults(tmp_path, READ_ONLY, 0), RunFolder.open(tmp_path / "run", RECIPE, SETTING) as run:
        assert run.finished and run.damaged() == [] and run.hold is None


def test_overwriting_may_fail_at_every_call(whole, tmp_path):
    def again(base):
        RunFolder.open(base, RECIPE, SETTING, overwrite=True).close()
        make(base)

    make(tmp_path / "counted")
    with faults(tmp_path) as found:
        again(tmp_path / "counted")
    for at in range(len(found.calls)):
        base = tmp_path / f"{at}" / "run"
        make(base)
        (base / "my-notes.png").write_text("mine")
        with faults(base, FULL, at):
            try:
                again(base)
            except OSError as error:
                assert "cannot be written (" in str(error)
        make(base)
        assert files(base) == {**whole, "my-notes.png": b"mine"}


def test_a_table_that_took_half_a_row_goes_on(tmp_path):
    row, other = (CellRow(Cell(number, ()), "1", "2", 0.5) for number in range(2))
    table = CellTable(tmp_path)
    table.append([row])
    with faults(tmp_path, FULL, 1), pytest.raises(OSError, match=r"cells.csv cannot be written \(No space"):
        table.append([other])
    assert table.rows() == [row]
    table.append([other])
    assert table.rows() == [row, other]


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path, monkeypatch):
    import builtins

    sound = builtins.open

    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:3])

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    monkeypatch.setattr(builtins, "open", lambda *args, **options: Slow(sound(*args, **options)))
    row = CellRow(Cell(0, ()), "1" * 64, "2" * 64, 0.5)
    CellTable(tmp_path).append([row])
    monkeypatch.undo()
    assert CellTable(tmp_path).rows() == [row]


def test_a_cells_picture_that_cannot_be_written(tmp_path):
    with faults(tmp_path, REFUSED, 0), pytest.raises(OSError, match="reference.png cannot be written"):
        save_picture(tmp_path, Cell(0, ()), Image.new("RGB", (8, 8)), {})
    assert files(tmp_path) == {}


@pytest.mark.filterwarnings("ignore:pictures of fewer than 256")
@pytest.mark.parametrize("replace", [True, False])
def test_pictures_of_the_command_line(replace, tmp_path):
    import torch

    picture, name = torch.zeros(1, 3, 32, 32), str(tmp_path / "img_{idx}.jpg")
    save_image(None, "flux-tiny", name, 0, picture, True, "a", replace=replace)
    before = files(tmp_path)
    for at in range(3):  # the folder is there; opening, or writing, or renaming
        with faults(tmp_path, FULL, at, once=at > 0) as found:
            try:
                save_image(None, "flux-tiny", name, 1, picture, True, "a", replace=replace)
            except OSError as error:
                assert "img_1.jpg cannot be written (No space left on device): choose" in str(error)
                assert files(tmp_path) == before
            else:  # a link that is refused is made up for
                assert found.calls[at].startswith("link") and (tmp_path / "img_1.jpg").is_file()


def test_a_record_is_never_half(tmp_path):
    make(tmp_path / "run")
    before = (tmp_path / "run" / RECORD).read_bytes()
    run = RunFolder.open(tmp_path / "run", RECIPE, SETTING)
    with faults(tmp_path, FULL, 1), pytest.raises(OSError, match="run.json cannot be written"):
        run.finish({"seconds": 1})
    assert (tmp_path / "run" / RECORD).read_bytes() == before and json.loads(before)["finished"]
