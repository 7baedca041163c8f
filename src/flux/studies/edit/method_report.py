"""What a run of edits by a method shows: figures of sources and edits, what went wrong, a sheet, a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from flux.photos.editing import CHANGED_NOTHING
from flux.pictures.metrics import Score, difference, psnr_outside, score
from flux.studies.edit.choices import as_word
from flux.studies.edit.figures import PASTED, figures_of, sentences
from flux.studies.edit.gates import facts_of, gates_of, listed, replay_of_spec
from flux.studies.edit.items import mask_caption
from flux.studies.edit.jobs import EditJob, edited_size, jobs_of
from flux.studies.edit.method_verdicts import what_went_wrong
from flux.studies.edit.method_watch import show_watched
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import load_dino, load_judge, share
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet, difference_map
from flux.studies.run import PAGE, SHEET, about

CHANGES = ("edit", "full", "mask", "difference")

CAPTIONS = {
    "source": "source",
    "reconstruction": "given back by the autoencoder",
    "edit": "edit",
    "full": "edit, at the source's size",
    "difference": "where edit and source differ",
}


@dataclass(frozen=True, eq=False)
class Finding:
    """An edit and what was found of it, by what its pictures show of the source, without padding.

    kept: PSNR in dB outside the mask, as the model left it; None where nothing is, or nothing differs.
    """

    job: EditJob
    score: Score
    figures: Mapping[str, Any]
    kept: float | None
    notices: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.job.file("edit").removesuffix(".png")

    @property
    def note(self) -> str | None:
        """What was said of it when it was made, such as that there is nothing to paste it into, unless a
        notice says as much."""
        return note_of(self.figures, self.notices)

    @property
    def files(self) -> dict[str, str]:
        return {kind: self.job.file(kind) for kind in (*self.job.shown, *CHANGES)}

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "edit": self.job.number,
            "seed": self.job.seed,
            "prompt": self.job.edit.prompt,
            "source": self.job.file("source"),
            "files": {kind: self.job.file(kind) for kind in CHANGES},
            **self.figures,
            "kept_outside": self.kept,
            **{name: value for name, value in asdict(self.score).items() if not name.startswith("plain_")},
            "notices": list(self.notices),
        }


def note_of(figures: Mapping[str, Any], notices: Sequence[str]) -> str | None:
    """What an edit's figures say of it in words, unless a notice says as much."""
    note = figures.get("note")
    said = note == CHANGED_NOTHING and any(each.startswith("did nothing") for each in notices)
    return None if said else note


def report(spec: EditSpec, run: RunFolder) -> dict[str, Any]:
    """Compare the pictures of a run and write all that shows them; returns the figures for `run.json`.

    Prints what is to be said of an edit: what it changed, what went wrong with it, and what to try.
    """
    dino, no_dino = load_dino(spec)
    judge, no_judge = load_judge(spec)
    gates, replay = gates_of(spec, run), replay_of_spec(spec)
    found = []
    for job in jobs_of(spec):
        each = _finding(spec, run, job, dino, judge)
        found.append(each)
        for text in (*([each.note] if each.note else []), *each.notices):
            print(f"{each.title}: {text}")
    unchecked = "; ".join(line for line in (no_dino, no_judge) if line) or None
    if unchecked:
        print(unchecked)
    run.save_picture(SHEET, _sheet(spec, run, found))
    run.write_text(PAGE, _page(spec, run, found, gates, unchecked))
    return {
        "method": spec.method.name,
        "settings": spec.settings,
        "dino": dino.source if dino else None,
        "replay": None if replay is None else replay.about,
        "sources": listed(gates),
        "edits": [each.record() for each in found],
    }


def shown_picture(run: RunFolder, job: EditJob, folder: str = "") -> Image.Image:
    """An edit at the model's size; by a method, where it was pasted, as it is seen in its source.

    folder: that the job's files are in, below the run's, with a slash at its end.
    """
    edit = folder + job.file("edit")
    if job.spec.method is not None and figures_of(run, edit).get("pasted"):
        full = run.picture(folder + job.file("full"))
        if full.size == job.frame.photo:
            return job.frame.cut(full)
    return run.picture(edit)


def _finding(spec: EditSpec, run: RunFolder, job: EditJob, dino, judge) -> Finding:
    """Compare an edit with its source as the model sees both, and write the difference map."""
    source, edit = run.picture(job.file("source")), run.picture(job.file("edit"))
    figures, result = figures_of(run, job.file("edit")), shown_picture(run, job)
    levels = job.frame.blank_padding(difference(source, result))
    run.save_picture(job.file("difference"), difference_map(levels))
    seen = judge((job.source.prompt, job.edit.prompt), (source, result)) if judge else None
    mask = run.picture(job.file("mask"))
    source, result, edit, mask = map(job.frame.without_padding, (source, result, edit, mask))
    scores = score(source, result, dino=dino, pixel=spec.checks.pixel)
    notices = tuple(what_went_wrong(spec, job, scores, seen))
    return Finding(job, scores, figures, psnr_outside(source, edit, mask), notices)


# To look at


def _facts(each: Finding) -> dict[str, str]:
    figures, scores = each.figures, each.score
    facts = {
        "edit": each.title,
        "evaluations": f"{figures['evaluations']} of one row",
        "mask": f"{figures['mask']:.1%} of the picture",
        "pasted": PASTED[figures["pasted"]],
        "changed pixels": f"{scores.changed:.1%}",
        "PSNR to the source": "equal" if scores.psnr is None else f"{scores.psnr:.1f} dB",
    }
    if each.kept is not None:
        facts["PSNR outside the mask, before pasting"] = f"{each.kept:.1f} dB"
    if scores.similarity is not None:
        facts["DINO similarity to the source, by class token"] = f"{scores.similarity:.3f}"
    if scores.loss is not None:
        facts["lost of the source"] = share(scores.loss)
    return facts


def _captions(each: Finding) -> dict[str, str]:
    return CAPTIONS | {"mask": mask_caption(each.job.mask)}


def _sheet(spec: EditSpec, run: RunFolder, found: list[Finding]) -> Image.Image:
    rows = []
    for each in found:
        captions = _captions(each) | {
            "source": _brief(each.job.source.prompt),
            "edit": _brief(each.job.edit.prompt),
            "difference": f"difference, {each.score.changed:.1%} of pixels changed",
        }
        rows.append([SheetCell(run.picture(file), captions[kind]) for kind, file in each.files.items()])
    title = f"{spec.model.name}, {spec.method.name}, {spec.steps} steps: sources and edits"
    return contact_sheet(rows, title)


def _brief(prompt: str) -> str:
    return prompt if len(prompt) <= 200 else prompt[:199].rstrip() + "…"


def _page(
    spec: EditSpec,
    run: RunFolder,
    found: list[Finding],
    gates: Mapping[str, Mapping[str, Any] | None],
    unchecked: str | None,
) -> str:
    sources: dict[str, dict[str, Any]] = {}
    for each in found:
        file = each.job.file("source")
        gate = gates[file]
        source = sources.setdefault(
            file,
            {
                "prompt": each.job.source.prompt,
                "problems": list((gate or {}).get("advice", ())),
                "pictures": [PagePicture(each.files[kind], CAPTIONS[kind]) for kind in each.job.shown],
                "facts": facts_of(gate, spec),
                "edits": [],
                "width": each.job.frame.size[0],
            },
        )
        source["edits"].append(
            {
                "prompt": each.job.edit.prompt,
                "problems": [*sentences(each.note), *(f"This edit {text}" for text in each.notices)],
                "pictures": [PagePicture(each.files[kind], _captions(each)[kind]) for kind in CHANGES],
                "facts": _facts(each),
            }
        )
    settings = ", ".join(f"{name} {as_word(value)}" for name, value in spec.settings.items())
    return render(
        "photos.html",
        title=found[0].job.source.prompt if len(sources) == 1 else f"{len(sources)} sources",
        about={
            **about(spec, run),
            "size": edited_size(spec, "×"),
            "guidance": "see the method",
            "method": f"{spec.method.name}: {settings}",
        },
        problems=[unchecked] if unchecked else [],
        sources=list(sources.values()),
        watched=show_watched(spec, run),
        sheet=SHEET,
        recipe=spec.recipe(),
    )
