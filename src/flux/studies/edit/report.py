"""What a run of edits shows: figures, what went wrong, difference maps, a sheet, a page."""

from typing import Any

from flux.hooks import Select, TopRatio
from flux.hooks.looking import ByLayer
from flux.methods.stable_flow import Edit
from flux.studies.edit.figures import PASTED, sentences
from flux.studies.edit.items import mask_caption
from flux.studies.edit.requests import mask_choice
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Verdict, Verdicts, judge, share
from flux.studies.edit.watch import show_watched
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, SHEET, about

USUAL = {
    "select": "all tokens",
    "copied": "keys and values",
    "strength": "strength 1",
    "steps": "all steps",
}
"""What is only said of an edit beside others that differ in it."""


def report(spec: EditSpec, run: RunFolder) -> dict[str, Any]:
    """Compare the pictures of a run and write all that shows them; returns the figures for `run.json`.

    Prints what went wrong with an edit and what to try.
    """
    found = judge(spec, run)
    for each in found.edits:
        for text in (*([each.note] if each.note else []), *each.notices):
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


def _figures(each: Verdict) -> dict[str, str]:
    figures, own = each.score, each.figures
    facts = {
        "changed pixels": f"{figures.changed:.1%}",
        "PSNR to the source": "equal" if figures.psnr is None else f"{figures.psnr:.1f} dB",
    }
    if figures.similarity is not None:
        facts["DINO similarity to the source, by class token"] = f"{figures.similarity:.3f}"
    if figures.plain_similarity is not None:
        facts["the same without injection"] = f"{figures.plain_similarity:.3f}"
    if figures.loss is not None:
        facts["lost of the source"] = share(figures.loss)
    if own:
        facts |= {"mask": f"{own['mask']:.1%} of the picture", "pasted": PASTED[own["pasted"]]}
    return facts


def _how(edit: Edit) -> str:
    """Layers and strategy of an edit, in few words."""
    return "; ".join(filter(None, _parts(edit).values()))


def _parts(edit: Edit) -> dict[str, str]:
    """What decides an edit beside its prompt and seed, in words, by what it is; empty where it is usual."""
    how = edit.how
    if isinstance(how, ByLayer):
        said = how.said or "layers none"
        return {"layers": said, **dict.fromkeys(("select", "copied", "strength", "steps"), "")}
    copied = "keys only" if how.keys else "values only" if how.values else "nothing copied"
    return {
        "layers": f"layers {', '.join(map(str, edit.layers)) or 'none'}",
        "select": "" if how.select is None else _which(how.select),
        "copied": "" if how.keys and how.values else copied,
        "strength": "" if how.strength == 1 else f"strength {how.strength:g}",
        "steps": f"steps {how.steps[0]} to {how.steps[1] - 1}" if how.steps else "",
    }


def _which(select: Select) -> str:
    """Which image tokens are copied."""
    return f"ratio {select.ratio:g}" if isinstance(select, TopRatio) else f"threshold {select.threshold:g}"


def _shown(spec: EditSpec, each: Verdict) -> list[PagePicture]:
    captions = {
        "source": f"source, seed {each.seed}",
        "edit": "edit",
        "plain": "the same prompt without injection",
        "mask": _mask_caption(spec, each),
        "difference": "where edit and source differ",
    }
    return [PagePicture(file, captions[kind]) for kind, file in each.files.items()]


def _sheet(spec: EditSpec, run: RunFolder, judged: list[Verdict]):
    """One row per edit: source, edit, without injection, difference; above them what all have in common."""
    parts = [{"seed": f"seed {each.seed}", **_parts(each.edit)} for each in judged]
    unlike = [key for key in parts[0] if len({each[key] for each in parts}) > 1]
    rows = []
    for each, words in zip(judged, parts, strict=True):
        own = [words[key] or USUAL[key] for key in unlike]
        captions = {
            "source": "\n".join([_brief(spec.source.prompt), *(own[:1] if "seed" in unlike else [])]),
            "edit": "\n".join([_brief(each.edit.prompt), *filter(None, ["; ".join(own)])]),
            "plain": "without injection",
            "mask": _mask_caption(spec, each),
            "difference": f"difference, {each.score.changed:.1%} of pixels changed",
        }
        rows.append([SheetCell(run.picture(file), captions[kind]) for kind, file in each.files.items()])
    common = "; ".join(text for key, text in parts[0].items() if key not in unlike and text)
    return contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps: source and edits\n{common}")


def _mask_caption(spec: EditSpec, each: Verdict) -> str:
    return mask_caption(mask_choice(spec, spec.edits[each.number - 1]))


def _brief(prompt: str) -> str:
    """So that what stands below a long prompt stays on the sheet; the page has it whole."""
    return prompt if len(prompt) <= 200 else prompt[:199].rstrip() + "…"


def _page(spec: EditSpec, run: RunFolder, found: Verdicts) -> str:
    edits = [
        {
            "prompt": each.edit.prompt,
            "problems": [*sentences(each.note), *(f"This edit {text}" for text in each.notices)],
            "pictures": _shown(spec, each),
            "facts": {"edit": each.title, "how": _how(each.edit), **_figures(each)},
        }
        for each in found.edits
    ]
    return render(
        "edit.html",
        source=spec.source.prompt,
        about={**about(spec, run), "noise floor": f"{found.floor:.2%} of pixels"},
        problems=[found.unchecked] if found.unchecked else [],
        edits=edits,
        watched=show_watched(spec, run),
        sheet=SHEET,
        width=spec.width,
        recipe=spec.recipe(),
    )
