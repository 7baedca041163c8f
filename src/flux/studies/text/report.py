"""What demo 0 shows: a sheet with a row for each prompt, and a page."""

from typing import Any

from flux.studies.folder import RunFolder
from flux.studies.pages.pages import Shown, pictures_page
from flux.studies.pages.sheets import Cell, contact_sheet
from flux.studies.run import PAGE, SHEET, about
from flux.studies.spec import TestSpec
from flux.studies.text.requests import requests


def report(spec: TestSpec, run: RunFolder) -> dict[str, Any]:
    """Write the sheet and the page; returns the names of the pictures."""
    pictures = requests(spec)
    rows = [
        [
            Cell(run.picture(each.file), f"{prompt}, seed {each.seed}")
            for each in pictures
            if each.prompt == prompt
        ]
        for prompt in dict.fromkeys(spec.prompts)
    ]
    run.save_picture(SHEET, contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps"))
    groups = {
        prompt: [Shown(each.file, f"seed {each.seed}") for each in pictures if each.prompt == prompt]
        for prompt in spec.prompts
    }
    run.write_text(PAGE, pictures_page(groups, about(spec, run), spec.recipe(), spec.width))
    return {"files": [each.file for each in pictures]}
