"""What a chain shows: its pictures in order, what each link did, and how far the rest has drifted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from PIL import Image, ImageChops

from flux.pictures.metrics import Score, difference, outside_of, psnr_outside, score, ssim_outside
from flux.studies.edit import method_verdicts, verdicts
from flux.studies.edit.chaining import ChainLink, links_of
from flux.studies.edit.figures import PASTED, figures_of, sentences
from flux.studies.edit.gates import Told, gates_of, listed
from flux.studies.edit.items import mask_caption
from flux.studies.edit.jobs import edited_size
from flux.studies.edit.method_report import note_of, shown_picture
from flux.studies.edit.requests import edit_of
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Judge, Seen, load_dino, load_judge
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet, difference_map
from flux.studies.run import PAGE, SHEET, about
from flux.studies.tables import csv_text

TABLE = "drift.csv"

TITLES = (
    *("link", "after", "prompt", "outside", "drift_psnr", "drift_ssim", "own_outside", "own_psnr"),
    *("similarity", "changed", "made"),
)


@dataclass(frozen=True)
class LinkFinding:
    """A link and what was found of it, by what its pictures show of the source, without padding.

    outside: the share of that in which no link from the source to this one changed anything, by their
    masks. drift_psnr in dB, drift_ssim: there, to the first source; None where there is no such place, PSNR
    also for equal ones. own_*: the same by its own mask, to what it goes on from. score: to the first source.
    made: whether all it asks for is there, by the model's judge; None where that cannot tell. notices: what
    went wrong with it as an edit of what it goes on from. figures: what its file says of it.
    """

    link: ChainLink
    outside: float
    drift_psnr: float | None
    drift_ssim: float | None
    own_outside: float
    own_psnr: float | None
    score: Score
    made: bool | None
    notices: tuple[str, ...]
    figures: Mapping[str, Any]

    @property
    def note(self) -> str | None:
        """What was said of it when it was made, unless a notice says as much."""
        return note_of(self.figures, self.notices)

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        return {**self.row(), **self.figures, "notices": list(self.notices)}

    def row(self) -> dict[str, Any]:
        """For the table."""
        after = 0 if self.link.after is None else self.link.after.number
        figures = (self.outside, self.drift_psnr, self.drift_ssim, self.own_outside, self.own_psnr)
        values = (self.link.number, after, self.link.job.edit.prompt, *figures)
        made = None if self.made is None else int(self.made)
        return dict(zip(TITLES, (*values, self.score.similarity, self.score.changed, made), strict=True))


def report(spec: EditSpec, run: RunFolder) -> dict[str, Any]:
    """Compare every link with the first source and with what it goes on from; write all that shows them."""
    dino, no_dino = load_dino(spec)
    sees, no_judge = load_judge(spec)
    found = [_finding(spec, run, link, dino, sees) for link in links_of(spec)]
    gates = {} if spec.method is None else gates_of(spec, run)
    for each in found:
        if each.note:
            print(f"{_title(each.link)}: {each.note}")
        for text in each.notices:
            print(f"{_title(each.link)}, after {_before(each.link)}: {text}")
    unchecked = [line for line in (no_dino, no_judge) if line]
    for line in unchecked:
        print(line)
    run.write_text(TABLE, csv_text(TITLES, [list(each.row().values()) for each in found]))
    run.save_picture(SHEET, _sheet(spec, run, found))
    run.write_text(PAGE, _page(spec, run, found, [*_advice(gates), *unchecked]))
    sources = {} if spec.method is None else {"sources": listed(gates)}
    return {"links": [each.record() for each in found], **sources}


def _advice(gates: Mapping[str, Told | None]) -> list[str]:
    return [line for gate in gates.values() for line in (gate or {}).get("advice", ())]


def _finding(spec: EditSpec, run: RunFolder, link: ChainLink, dino: Any, sees: Judge | None) -> LinkFinding:
    frame = link.job.frame
    first, picture = run.picture(link.job.file("source")), shown_picture(run, link.job)
    before = first if link.after is None else shown_picture(run, link.after.job)
    levels = frame.blank_padding(difference(before, picture))
    run.save_picture(_difference(link), difference_map(levels))
    seen: Seen = None
    if sees:
        seen = sees((link.source_prompt, link.job.edit.prompt), (before, picture))
    first, picture, before = map(frame.without_padding, (first, picture, before))
    masks = [frame.without_padding(run.picture(each.job.file("mask"))).convert("L") for each in link.line]
    every, figures = reduce(ImageChops.lighter, masks), figures_of(run, link.job.file("edit"))
    own = score(before, picture, pixel=spec.checks.pixel)
    return LinkFinding(
        link,
        float(outside_of(every).mean()),
        psnr_outside(first, picture, every),
        ssim_outside(first, picture, every),
        float(outside_of(masks[-1]).mean()),
        psnr_outside(before, picture, masks[-1]),
        score(first, picture, dino=dino, pixel=spec.checks.pixel),
        None if seen is None else not seen[1],
        tuple(_what_went_wrong(spec, link, own, seen)),
        figures,
    )


def _what_went_wrong(spec: EditSpec, link: ChainLink, figures: Score, seen: Seen) -> Iterator[str]:
    """In words, of a link as an edit of what it goes on from, with what to try."""
    if spec.method is not None:
        return method_verdicts.what_went_wrong(spec, link.job, figures, seen)
    return verdicts.what_went_wrong(spec, edit_of(spec, link.job.edit), figures, 0.0, seen)


def _title(link: ChainLink) -> str:
    return link.job.file("edit").removesuffix(".png")


def _difference(link: ChainLink) -> str:
    return f"difference-{link.job.title}.png"


# To look at


def _sheet(spec: EditSpec, run: RunFolder, found: Sequence[LinkFinding]) -> Image.Image:
    first = found[0].link.job.file("source")
    cells = [SheetCell(run.picture(first), f"source\n{spec.source.prompt}")]
    for each in found:
        caption = (
            f"{each.link.number}, after {_before(each.link)}\n{each.link.job.edit.prompt}\n{_drift(each)}"
        )
        cells.append(SheetCell(shown_picture(run, each.link.job), caption))
    rows = [cells[start : start + 6] for start in range(0, len(cells), 6)]
    return contact_sheet(rows, f"{spec.model.name}, {spec.steps} steps: a chain of edits")


def _before(link: ChainLink) -> str:
    return "the source" if link.after is None else str(link.after.number)


def _drift(each: LinkFinding) -> str:
    if each.outside == 0:
        return "changed everywhere"
    told = "equal" if each.drift_psnr is None else f"{each.drift_psnr:.1f} dB"
    return f"{told} to the source outside the edits"


def _facts(each: LinkFinding) -> dict[str, str]:
    facts = {
        "goes on from": _before(each.link),
        "outside all edits so far": f"{each.outside:.0%} of the picture",
    }
    if each.outside:
        facts["there, to the first source"] = (
            "equal" if each.drift_psnr is None else f"{each.drift_psnr:.1f} dB"
        )
    if each.drift_ssim is not None:
        facts["SSIM there"] = f"{each.drift_ssim:.4f}"
    if each.own_outside:
        facts["to what it goes on from, outside its own mask"] = (
            "equal" if each.own_psnr is None else f"{each.own_psnr:.1f} dB"
        )
    if each.score.similarity is not None:
        facts["DINO similarity to the first source, by class token"] = f"{each.score.similarity:.3f}"
    if each.made is not None:
        facts["made, by the judge"] = "yes" if each.made else "no"
    if "evaluations" in each.figures:
        facts["evaluations"] = f"{each.figures['evaluations']} of one row"
    if each.figures:
        facts["mask"] = f"{each.figures['mask']:.1%} of the picture"
        facts["pasted"] = PASTED[each.figures["pasted"]]
    return facts


def _page(spec: EditSpec, run: RunFolder, found: Sequence[LinkFinding], unchecked: list[str]) -> str:
    first = found[0].link.job.file("source")
    links = [
        {
            "before": each.link.source_prompt,
            "prompt": each.link.job.edit.prompt,
            "title": f"{each.link.number}, after {_before(each.link)}",
            "problems": [
                *sentences(each.note),
                *(f"Beside what it goes on from, this edit {text}" for text in each.notices),
            ],
            "pictures": [
                PagePicture(each.link.source_file, "what it goes on from"),
                *(PagePicture(file, caption) for file, caption in _pictures(spec, each.link)),
            ],
            "facts": _facts(each),
        }
        for each in found
    ]
    line = [PagePicture(first, "source")]
    line += [
        PagePicture(
            each.link.job.file("edit"),
            f"{each.link.number}, after {_before(each.link)}; {_drift(each)}",
        )
        for each in found
    ]
    return render(
        "chain.html",
        title=f"A chain of {len(found)} edit{'s' * (len(found) != 1)}",
        about={
            **about(spec, run),
            "size": edited_size(spec, "×"),
            "method": spec.method.name if spec.method else "side by side",
        },
        problems=unchecked,
        line=line,
        links=links,
        files={TABLE: "the drift report as a table", SHEET: "all pictures on one sheet"},
        width=spec.width,
        recipe=spec.recipe(),
    )


def _pictures(spec: EditSpec, link: ChainLink) -> list[tuple[str, str]]:
    full = [(link.job.file("full"), "edit, at the source's size")] if spec.method is not None else []
    return [
        (link.job.file("edit"), "edit"),
        *full,
        (link.job.file("mask"), mask_caption(link.job.mask)),
        (_difference(link), "where it differs from what it goes on from"),
    ]
