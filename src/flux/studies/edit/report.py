"""What a run of edits shows: figures, what went wrong and what to try, difference maps, a sheet, a page."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flux.device import pick_device
from flux.methods.stable_flow import Row
from flux.pictures.metrics import Dino, Score, changed_share, did_nothing, difference, lost_source, score
from flux.studies.edit.groups import Group
from flux.studies.edit.spec import EditItem, EditSpec
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet, difference_map
from flux.studies.run import PAGE, SHEET, about, dino_source


@dataclass(frozen=True)
class Judged:
    """One edit of one seed: the files of its pictures, its figures, and what went wrong, in words."""

    number: int
    seed: int
    edit: EditItem
    files: dict[str, str]
    score: Score
    notices: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name of the edit's file without its ending, such as `edit-02-seed-7`."""
        return self.files["edit"].removesuffix(".png")

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "edit": self.number,
            "seed": self.seed,
            "prompt": self.edit.prompt,
            "layers": list(self.edit.layers),
            "files": self.files,
            **asdict(self.score),
            "notices": list(self.notices),
        }


def report(spec: EditSpec, run: RunFolder, groups: list[Group]) -> dict[str, Any]:
    """Compare the pictures of a run and write all that shows them; returns the figures for `run.json`.

    Prints what went wrong with an edit and what to try.
    """
    floor = noise_floor(spec, run, groups[0])
    dino, why_not = load_dino(spec)
    judged = [each for group in groups for each in _judge(spec, run, group, floor, dino)]
    for each in judged:
        for text in each.notices:
            print(f"{each.title}: {text}")
    if why_not:
        print(why_not)
    run.save_picture(SHEET, _sheet(spec, run, judged))
    run.write_text(PAGE, _page(spec, run, judged, floor, [why_not] if why_not else []))
    return {
        "noise_floor": floor,
        "dino": dino.source if dino else None,
        "edits": [each.record() for each in judged],
    }


def noise_floor(spec: EditSpec, run: RunFolder, group: Group) -> float:
    """The share of pixels that change when the source is made again in other company."""
    source, again = (run.picture(group.files[Row(kind)]) for kind in ("source", "repeat"))
    return changed_share(source, again, spec.checks.pixel)


def load_dino(spec: EditSpec) -> tuple[Dino | None, str | None]:
    """The DINO model that the spec's checks want; where it cannot be had, None and a line that says so."""
    if spec.checks.dino == "off":
        return None, None
    source = dino_source(spec)
    try:
        return Dino(source, pick_device(spec.model.device)), None
    except (OSError, ValueError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return (
            None,
            f"whether edits lost the source was not checked: DINO model {source} not loaded ({reason})",
        )


def _judge(spec: EditSpec, run: RunFolder, group: Group, floor: float, dino: Dino | None) -> Iterator[Judged]:
    """Compare the edits of one seed with their source, and write their difference maps."""
    source = run.picture(group.files[Row("source")])
    for i, (number, edit) in enumerate(zip(group.numbers, group.edits, strict=True)):
        files = {"source": group.files[Row("source")], "edit": group.files[Row("edit", i)]}
        if spec.compare:
            files["plain"] = group.files[Row("plain", i)]
        files["difference"] = files["edit"].replace("edit-", "difference-")
        picture = run.picture(files["edit"])
        plain = run.picture(files["plain"]) if spec.compare else None
        figures = score(source, picture, plain, dino=dino, pixel=spec.checks.pixel)
        run.save_picture(files["difference"], difference_map(difference(source, picture)))
        notices = tuple(what_went_wrong(spec, edit, figures, floor))
        yield Judged(number, group.seed, edit, files, figures, notices)


def what_went_wrong(spec: EditSpec, edit: EditItem, figures: Score, floor: float) -> Iterator[str]:
    """In words, with what to try, if the edit did nothing or lost the source; nothing if it worked."""
    if did_nothing(figures, floor, spec.checks.did_nothing):
        limit = max(floor, spec.checks.did_nothing)
        said = f"did nothing: {figures.changed:.2%} of pixels changed, up to {limit:.2%} counts as nothing. "
        if figures.plain_changed is not None and figures.plain_changed <= limit:
            yield said + "Without injection its prompt changes nothing either. Try another prompt."
        else:
            yield said + f"Try {_either(_to_free(spec, edit))}."
    elif lost_source(figures, spec.checks.lost_source):
        yield (
            f"lost the source: its similarity to it is {figures.similarity:.3f}, that of the picture without "
            f"injection {figures.plain_similarity:.3f}. Try {_either(_to_bind(spec, edit))}."
        )


def _to_free(spec: EditSpec, edit: EditItem) -> Iterator[str]:
    """What gives an edit more room."""
    if len(edit.layers) > 1:
        yield f"fewer layers than {len(edit.layers)}"
    if edit.strength > 0.5:
        yield f"a strength below {edit.strength:g}"
    if spec.steps > 1:
        yield f"a window that ends sooner, such as [0, {max(1, (edit.window or (0, spec.steps))[1] // 2)}]"
    yield "a source prompt that names what is to change"
    yield "another seed"


def _to_bind(spec: EditSpec, edit: EditItem) -> Iterator[str]:
    """What keeps an edit closer to its source."""
    if len(edit.layers) < len(spec.model.record.layers):
        yield f"more layers than {len(edit.layers)}"
    if edit.strength < 1:
        yield "strength 1"
    if edit.window and edit.window != (0, spec.steps):
        yield "no step window"
    if edit.strategy.name == "ratio" and edit.strategy.ratio < 1:
        yield f"a ratio above {edit.strategy.ratio:g}"
    if edit.strategy.name == "threshold" and edit.strategy.threshold > 0:
        yield f"a threshold below {edit.strategy.threshold:g}"
    if not (edit.strategy.keys and edit.strategy.values):
        yield "to copy keys and values both"
    yield "a prompt closer to the source's"


def _either(ways: Iterator[str]) -> str:
    *others, last = ways
    return f"{', '.join(others)}, or {last}" if others else last


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


def _how(edit: EditItem) -> str:
    """Layers and strategy of an edit, in few words."""
    strategy, parts = edit.strategy, []
    layers = ", ".join(map(str, edit.layers)) or "none"
    parts.append(f"layers {layers}")
    if strategy.name != "copy":
        parts.append(
            f"{strategy.name} {strategy.ratio if strategy.name == 'ratio' else strategy.threshold:g}"
        )
    if not (strategy.keys and strategy.values):
        parts.append("keys only" if strategy.keys else "values only" if strategy.values else "nothing copied")
    if edit.strength != 1:
        parts.append(f"strength {edit.strength:g}")
    if edit.window:
        parts.append(f"steps {edit.window[0]} to {edit.window[1] - 1}")
    return "; ".join(parts)


def _shown(each: Judged) -> list[PagePicture]:
    captions = {
        "source": f"source, seed {each.seed}",
        "edit": "edit",
        "plain": "the same prompt without injection",
        "difference": "where edit and source differ",
    }
    return [PagePicture(file, captions[kind]) for kind, file in each.files.items()]


def _sheet(spec: EditSpec, run: RunFolder, judged: list[Judged]):
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


def _page(spec: EditSpec, run: RunFolder, judged: list[Judged], floor: float, problems: list[str]) -> str:
    edits = [
        {
            "prompt": each.edit.prompt,
            "problems": [f"This edit {text}" for text in each.notices],
            "pictures": _shown(each),
            "facts": {"edit": each.title, "how": _how(each.edit), **_figures(each.score)},
        }
        for each in judged
    ]
    return render(
        "edit.html",
        source=spec.source.prompt,
        about={**about(spec, run), "noise floor": f"{floor:.2%} of pixels"},
        problems=problems,
        edits=edits,
        sheet=SHEET,
        width=spec.width,
        recipe=spec.recipe(),
    )
