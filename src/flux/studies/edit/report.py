"""What a run of edits shows: figures, what went wrong, difference maps, a sheet, a page."""

from typing import Any

from flux.hooks import Select, TopRatio
from flux.methods.stable_flow import Edit
from flux.pictures.metrics import Score
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Verdict, Verdicts, judge
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, SHEET, about


def report(spec: EditSpec, run: RunFolder) -> dict[str, Any]:
    """Compare the pictures of a run and write all that shows them; returns the figures for `run.json`.

    Prints what went wrong with an edit and what to try.
    """
    found = judge(spec, run)
    for each in found.edits:
        for text in each.notices:
            print(f"{each.title}: {text}")
    if found.unchecked:
        print(found.unchecked)
    run.save_picture(SHEET, _sheet(spec, run, found.edits))
    run.write_text(PAGE, _page(spec, run, found))
    return {
        "noise_floor": found.floor,
        "dino": found.dino,
        "edits": [each.record() for each in found.edits],
    }


def _figures(figures: Score) -> dict[str, str]:
    facts = {
        "changed pixels": f"{figures.changed:.1%}",
        "PSNR to the source": "equal" if figures.psnr is None else f"{figures.psnr:.1f} dB",
    }
    if figures.similarity is not None:
        facts["DINO similarity to the source"] = f"{figures.similarity:.3f}"
    if figures.plain_similarity is not None:
        facts["the same without injection"] = f"{figures.plain_similarity:.3f}"
    return facts


def _how(edit: Edit) -> str:
    """Layers and strategy of an edit, in few words."""
    how = edit.how
    parts = [f"layers {', '.join(map(str, edit.layers)) or 'none'}"]
    if how.select is not None:
        parts.append(_which(how.select))
    if not (how.keys and how.values):
        parts.append("keys only" if how.keys else "values only" if how.values else "nothing copied")
    if how.strength != 1:
        parts.append(f"strength {how.strength:g}")
    if how.steps:
        parts.append(f"steps {how.steps[0]} to {how.steps[1] - 1}")
    return "; ".join(parts)


def _which(select: Select) -> str:
    """Which image tokens are copied."""
    return f"ratio {select.ratio:g}" if isinstance(select, TopRatio) else f"threshold {select.threshold:g}"


def _shown(each: Verdict) -> list[PagePicture]:
    captions = {
        "source": f"source, seed {each.seed}",
        "edit": "edit",
        "plain": "the same prompt without injection",
        "difference": "where edit and source differ",
    }
    return [PagePicture(file, captions[kind]) for kind, file in each.files.items()]


def _sheet(spec: EditSpec, run: RunFolder, judged: list[Verdict]):
    """One row per edit: source, edit, without injection, difference."""
    rows = []
    for each in judged:
        captions = {
            "source": spec.source.prompt,
            "edit": each.edit.prompt,
            "plain": "without injection",
            "difference": f"difference, {each.score.changed:.1%} of pixels changed",
        }
        rows.append([SheetCell(run.picture(file), captions[kind]) for kind, file in each.files.items()])
    return contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps: source and edits")


def _page(spec: EditSpec, run: RunFolder, found: Verdicts) -> str:
    edits = [
        {
            "prompt": each.edit.prompt,
            "problems": [f"This edit {text}" for text in each.notices],
            "pictures": _shown(each),
            "facts": {"edit": each.title, "how": _how(each.edit), **_figures(each.score)},
        }
        for each in found.edits
    ]
    return render(
        "edit.html",
        source=spec.source.prompt,
        about={**about(spec, run), "noise floor": f"{found.floor:.2%} of pixels"},
        problems=[found.unchecked] if found.unchecked else [],
        edits=edits,
        sheet=SHEET,
        width=spec.width,
        recipe=spec.recipe(),
    )
