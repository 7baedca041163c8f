"""What demo 0 shows: a sheet with a row for each prompt, and a page."""

from typing import Any

from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, SHEET, about
from flux.studies.text.requests import requests
from flux.studies.text.spec import TestSpec


def report(spec: TestSpec, run: RunFolder) -> dict[str, Any]:
    """Write the sheet and the page; returns the names of the pictures."""
    pictures = requests(spec)
    rows = [
        [
            SheetCell(run.picture(each.file), f"{prompt}, seed {each.seed}")
            for each in pictures
            if each.prompt == prompt
        ]
        for prompt in dict.fromkeys(each.prompt for each in pictures)
    ]
    run.save_picture(SHEET, contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps"))
    groups = {
        prompt: [PagePicture(each.file, f"seed {each.seed}") for each in pictures if each.prompt == prompt]
        for prompt in dict.fromkeys(each.prompt for each in pictures)
    }
    page = render(
        "text.html",
        about=about(spec, run) | _beside(spec),
        groups=groups,
        sheet=SHEET,
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    return {"files": [each.file for each in pictures]}


def _beside(spec: TestSpec) -> dict[str, str]:
    """What the page says of what pictures are made from beside their prompts."""
    looking = [] if spec.reference is None else [spec.reference.in_words]
    words = "; ".join([*spec.wanted.in_words(), *looking])
    second = {} if spec.prompt_2 is None else {"T5 reads": " | ".join(spec.prompt_2)}
    return second | ({"made": words} if words else {})
