"""docs/methods.md: its table is METHODS, and its example runs."""

import re
from pathlib import Path

import torch
from helpers_methods import small_task

from flux.integrators import INTEGRATORS
from flux.methods import METHODS, MethodRecord
from flux.methods.lookup import find_method, load_function

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def line(row: MethodRecord) -> str:
    """A method's row of the table."""
    needs = {"a mask": row.needs_mask, "guidance": row.needs_guidance}
    settings = [f"{key} {shown(setting.default)}" for key, setting in row.settings.items()]
    cells = [
        f"`{row.name}`",
        row.about,
        row.source,
        row.steps,
        row.evaluations,
        "yes" if row.pairs else "no",
        ", ".join(need for need, needed in needs.items() if needed) or "-",
        ", ".join(settings) or "-",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def shown(value: float | str | bool) -> str:
    return str(value).lower() if isinstance(value, bool | str) else f"{value:.3g}"


def test_the_table_of_integrators_is_that_of_the_code():
    rows = [each for each in PAGE.read_text().splitlines() if each.startswith("| **")]
    facts = [
        (f"**{row.name}**", row.about, row.source, row.order, row.evaluations, row.replay)
        for row in INTEGRATORS
    ]
    assert rows == [f"| {' | '.join(map(str, each))} |" for each in facts]


def test_the_table_is_that_of_the_code():
    table = [each for each in PAGE.read_text().splitlines() if each.startswith("| `")]
    assert table == [line(row) for row in METHODS], "\n" + "\n".join(line(row) for row in METHODS)


def test_the_example_is_a_method(tmp_path, monkeypatch):
    code = re.search(r"```python\n(# my_edits\.py.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "my_edits.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    row = find_method("my_edits:pulled")
    task = small_task()
    *_, last = load_function(row.function)(task, pull=1.0, guidance=3.5)
    torch.testing.assert_close(last.edit, task.field.of_edits(task.clean), rtol=0, atol=1e-5)
